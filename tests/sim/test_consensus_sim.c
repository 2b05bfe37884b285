/*
 * One log on one to seven servers, which are added, promoted, removed, killed, cut,
 * paused and filled up, by a seed.
 *
 * After every step: one leader in a term; no two servers have applied different
 * commands at one index, each applies in order and once; a command that was answered
 * with 0 is in the state of every leader of a later term; no term goes back; nobody was
 * followed later than whoever is elected after him is told; the log in a store is
 * bounded.  At the end all heals, somebody leads, commits, and all servers have the
 * same state.
 *
 *   test_consensus_sim [--seed S] [--count N] [--verbose]
 */
#include "cleanup.h"
#include "consensus.h"
#include "log.h"
#include "world.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

enum {
	N_MACHINES = 7,
	N_COMMANDS = 4096,
	N_INDEXES = 16384,
	N_TERMS = 4096,
	SNAPSHOT_AFTER = 24,
	SNAPSHOT_KEEP = 8,
	/* Not yet committed, and committed while a snapshot is written. */
	N_LOG = SNAPSHOT_AFTER + SNAPSHOT_KEEP + 64 + 256,
};

#define CALM_BEFORE (3 * NSEC_PER_SEC)
#define CHAOS	    (20 * NSEC_PER_SEC)
#define CALM	    (25 * NSEC_PER_SEC)

/* What the commands make: who was applied, and in which order. */
struct state {
	uint64_t index, hash, n;
	uint8_t has[N_COMMANDS / 8];
};

struct machine {
	struct sim *sim;
	unsigned slot;
	struct rpc *rpc;
	struct consensus *c;
	struct state state;
	bool leading;
	uint64_t term; /* the highest that was seen, in all its lives */
	bool changing, handing;
};

struct command {
	uint32_t id;
	uint32_t len;
};

struct proposal {
	struct machine *from;
	unsigned boot;
	bool ended, committed;
	uint64_t term; /* of who was answered */
};

struct sim {
	struct world *w;
	struct machine machines[N_MACHINES + 1];
	unsigned n_machines;
	bool calm;
	unsigned boots[N_MACHINES + 1];
	uint64_t at[N_INDEXES]; /* hash of the state behind it */
	unsigned leaders[N_TERMS];
	nsec_t before[N_TERMS]; /* nobody of earlier terms was followed later */
	uint64_t highest_led;
	struct proposal proposals[N_COMMANDS];
	uint32_t n_proposals, n_committed, n_lost;
	uint64_t n_steps, n_leaders, n_changes, n_transfers, n_restores;
};

static uint64_t mix(uint64_t h, const void *data, size_t len)
{
	const uint8_t *p = data;

	while (len--)
		h = (h ^ *p++) * 0x100000001b3ull;
	return h;
}

static void propose(struct machine *m);

static void on_apply(void *owner, uint64_t index, struct iovec bytes)
{
	struct machine *m = owner;
	struct sim *s = m->sim;
	struct command command;

	memcpy(&command, bytes.iov_base, sizeof(command));
	world_note(s->w, m->slot, "applies %u at %" PRIu64, command.id, index);
	world_check(s->w, bytes.iov_len == command.len, "command %u has another length",
		    command.id);
	world_check(s->w, index > m->state.index && index < N_INDEXES,
		    "machine %u applies %" PRIu64 " after %" PRIu64, m->slot, index,
		    m->state.index);
	m->state.index = index;
	m->state.hash = mix(mix(m->state.hash, bytes.iov_base, bytes.iov_len), &index,
			    sizeof(index));
	m->state.n++;
	m->state.has[command.id / 8] |= (uint8_t)(1 << command.id % 8);
	if (!s->at[index])
		s->at[index] = m->state.hash;
	world_check(s->w, s->at[index] == m->state.hash,
		    "machine %u has applied another command at %" PRIu64, m->slot,
		    index);
	/* As a room may that decides on what it learns; not while it is being made. */
	if (m->c && world_chance(s->w, 20))
		propose(m);
}

static int on_snapshot(void *owner, struct iovec *ret)
{
	struct machine *m = owner;

	ret->iov_len = sizeof(m->state);
	ret->iov_base = malloc(ret->iov_len);
	if (ret->iov_base)
		memcpy(ret->iov_base, &m->state, sizeof(m->state));
	return ret->iov_base ? 0 : -ENOMEM;
}

static int on_restore(void *owner, struct iovec bytes)
{
	struct machine *m = owner;
	struct sim *s = m->sim;

	world_check(s->w, bytes.iov_len == sizeof(m->state), "not a snapshot");
	memcpy(&m->state, bytes.iov_base, sizeof(m->state));
	world_note(s->w, m->slot, "restores %" PRIu64, m->state.index);
	world_check(s->w, !m->state.index || s->at[m->state.index] == m->state.hash,
		    "machine %u restores another state of %" PRIu64, m->slot,
		    m->state.index);
	s->n_restores++;
	return 0;
}

static nsec_t age_of(const struct machine *m, nsec_t at)
{
	return env_now(world_env(m->sim->w, m->slot)) - at;
}

static void on_leading(void *owner, bool leading, uint64_t term)
{
	struct machine *m = owner;
	struct sim *s = m->sim;

	world_note(s->w, m->slot, "leads %d in term %" PRIu64, leading, term);
	world_check(s->w, m->leading != leading, "machine %u leads %d twice", m->slot,
		    leading);
	m->leading = leading;
	if (!leading)
		return;
	world_check(s->w, term < N_TERMS && !s->leaders[term],
		    "machines %u and %u lead in term %" PRIu64, m->slot,
		    term < N_TERMS ? s->leaders[term] : 0, term);
	s->leaders[term] = m->slot;
	s->before[term] =
		world_now(s->w) - age_of(m, consensus_followed_before(m->c)) * 9 / 10;
	if (term > s->highest_led)
		s->highest_led = term;
	s->n_leaders++;
	for (uint32_t i = 0; i < s->n_proposals; i++)
		world_check(s->w,
			    !s->proposals[i].committed || s->proposals[i].term > term ||
				    m->state.has[i / 8] & 1 << i % 8,
			    "machine %u leads in term %" PRIu64
			    " without command %u, which was "
			    "committed",
			    m->slot, term, i);
}

static void on_leader(void *owner, node_id leader)
{
	struct machine *m = owner;

	world_note(m->sim->w, m->slot, "follows %u", leader);
}

static void on_servers(void *owner)
{
	struct machine *m = owner;
	size_t n, n_voters = 0;
	const struct consensus_server *servers = consensus_servers(m->c, &n);

	for (size_t i = 0; i < n; i++) {
		n_voters += servers[i].role == CONSENSUS_VOTER;
		world_check(m->sim->w, !i || servers[i].node > servers[i - 1].node,
			    "servers out of order");
		world_note(m->sim->w, m->slot, "server %u: %d", servers[i].node,
			   servers[i].role);
	}
	world_check(m->sim->w, n_voters > 0, "no voters");
}

static const struct consensus_events events = {on_apply,   on_snapshot, on_restore,
					       on_leading, on_leader,	on_servers};

/* What is asked of a leader. */

static void on_proposed(void *owner, int result)
{
	struct proposal *p = owner;
	struct sim *s = p->from->sim;

	world_note(s->w, p->from->slot, "command %zu: %d", (size_t)(p - s->proposals),
		   result);
	world_check(s->w, !p->ended, "a proposal ended twice");
	world_check(s->w, result >= 0, "command %zu: %d", (size_t)(p - s->proposals),
		    result);
	world_check(s->w, p->boot == s->boots[p->from->slot], "told after its death");
	p->ended = true;
	p->committed = !result;
	p->term = consensus_term(p->from->c);
	s->n_committed += !result;
	s->n_lost += result == CONSENSUS_E_LOST;
	if (p->committed) {
		size_t i = (size_t)(p - s->proposals);

		world_check(s->w, p->from->state.has[i / 8] & 1 << i % 8,
			    "told that %zu is committed, and not applied", i);
	}
}

static void propose(struct machine *m)
{
	struct sim *s = m->sim;
	struct proposal *p = &s->proposals[s->n_proposals];
	union {
		struct command head;
		uint8_t bytes[20000];
	} command = {.head = {.id = s->n_proposals}};
	int r;

	if (s->n_proposals == N_COMMANDS)
		return;
	command.head.len =
		(uint32_t)(sizeof(command.head) +
			   world_below(s->w, world_chance(s->w, 20) ? 19000 : 100));
	*p = (struct proposal){.from = m, .boot = s->boots[m->slot]};
	r = consensus_propose(m->c, (struct iovec){&command, command.head.len},
			      on_proposed, p);
	world_check(s->w, r == 0 || r == CONSENSUS_E_NOT_LEADER || r == -EAGAIN,
		    "propose: %d", r);
	world_check(s->w, r != 0 || consensus_leads(m->c), "a follower has proposed");
	world_check(s->w, !p->ended, "a proposal ended inside of the call");
	s->n_proposals += !r;
}

static void on_changed(void *owner, int result)
{
	struct machine *m = owner;

	world_note(m->sim->w, m->slot, "roles: %d", result);
	world_check(m->sim->w, m->changing, "a change ended twice");
	m->changing = false;
	m->sim->n_changes += !result;
}

static void change_role(struct machine *m)
{
	struct sim *s = m->sim;
	unsigned other = 1 + (unsigned)world_below(s->w, s->n_machines);
	enum consensus_role role = world_chance(s->w, 750)
					   ? CONSENSUS_VOTER
					   : (enum consensus_role)world_below(s->w, 2);
	int r = consensus_set_role(m->c, other, world_address(s->w, other), role,
				   on_changed, m);

	world_check(s->w, r == -EINVAL || r >= 0, "set_role: %d", r);
	if (!r) {
		world_note(s->w, m->slot, "asks that %u be %d", other, role);
		m->changing = true;
	}
}

static void on_transferred(void *owner, int result)
{
	struct machine *m = owner;

	world_note(m->sim->w, m->slot, "handed over: %d", result);
	world_check(m->sim->w, m->handing, "handed over twice");
	m->handing = false;
	m->sim->n_transfers += !result;
}

static void transfer(struct machine *m)
{
	struct sim *s = m->sim;
	int r = consensus_transfer(m->c, (node_id)world_below(s->w, s->n_machines + 1),
				   on_transferred, m);

	world_check(s->w, r == -EINVAL || r >= 0, "transfer: %d", r);
	if (!r) {
		world_note(s->w, m->slot, "hands over");
		m->handing = true;
	}
}

/* Machines. */

static int start(void *owner, unsigned slot)
{
	struct sim *s = owner;
	struct machine *m = &s->machines[slot];
	struct consensus_config config = {.self = slot,
					  .address = world_address(s->w, slot),
					  .bootstrap = slot == 1,
					  .snapshot_after = SNAPSHOT_AFTER,
					  .snapshot_keep = SNAPSHOT_KEEP};

	s->boots[slot]++;
	m->state = (struct state){.hash = 0xcbf29ce484222325ull};
	m->leading = m->changing = m->handing = false;
	world_check(s->w, !rpc_new(&m->rpc, world_env(s->w, slot), slot), "rpc_new");
	world_listen(s->w, slot, rpc_events(), m->rpc);
	rpc_set_transport(m->rpc, world_transport(s->w, slot));
	return consensus_new(&m->c, world_env(s->w, slot), world_store(s->w, slot),
			     m->rpc, &config, &events, m);
}

static void kill_rooms(void *owner, unsigned slot)
{
	struct sim *s = owner;
	struct machine *m = &s->machines[slot];

	m->c = consensus_free(m->c);
	m->rpc = rpc_free(m->rpc);
}

static int on_row(void *owner, struct iovec key, struct iovec value)
{
	++*(size_t *)owner;
	return 0;
}

static void check_log(struct sim *s, unsigned slot)
{
	static const char prefix[] = "consensus/entry/";
	const struct store *store = world_store(s->w, slot);
	size_t n = 0;

	(void)store->ops->each(store->impl,
			       (struct iovec){(void *)prefix, sizeof(prefix) - 1},
			       on_row, &n);
	world_check(s->w, n <= N_LOG, "machine %u keeps %zu entries", slot, n);
}

/* In the world's time; clocks drift by up to 5%, so that two differ by a tenth of a
 * span. */
static void check_followed(struct sim *s, struct machine *m)
{
	nsec_t at = consensus_followed_at(m->c), age;

	if (!at)
		return;
	age = age_of(m, at) * 11 / 10;
	for (uint64_t t = consensus_term(m->c) + 1; t <= s->highest_led; t++)
		world_check(s->w,
			    !s->leaders[t] || world_now(s->w) <= s->before[t] + age,
			    "machine %u is followed in term %" PRIu64
			    " later than %u was told, which leads term %" PRIu64,
			    m->slot, consensus_term(m->c), s->leaders[t], t);
}

static void check(void *owner)
{
	struct sim *s = owner;

	s->n_steps++;
	for (unsigned i = 1; i <= s->n_machines; i++) {
		struct machine *m = &s->machines[i];

		if (s->n_steps % 64 == i)
			check_log(s, i);
		if (!m->c)
			continue;
		world_check(s->w,
			    consensus_term(m->c) >= m->term || !consensus_term(m->c),
			    "machine %u went back to term %" PRIu64, i,
			    consensus_term(m->c));
		if (consensus_term(m->c))
			m->term = consensus_term(m->c);
		check_followed(s, m);
	}
}

/* What happens. */

static void trouble(struct sim *s)
{
	struct world *w = s->w;
	unsigned a = 1 + (unsigned)world_below(w, s->n_machines);
	unsigned b = 1 + (unsigned)world_below(w, s->n_machines);

	switch (world_below(w, 20)) {
	case 0:
		world_crash(w, a, world_chance(w, 500));
		break;
	case 1:
	case 2:
		world_boot(w, a);
		break;
	case 3:
		world_pause(w, a, true);
		break;
	case 4:
	case 5:
		world_pause(w, a, false);
		break;
	case 6:
		world_cut(w, a, b, a != b);
		if (world_chance(w, 500))
			world_cut(w, b, a, a != b);
		break;
	case 7:
		world_heal(w);
		break;
	case 8:
		world_break(w, a, b);
		break;
	case 9:
		world_disk_full(w, a, world_chance(w, 300));
		break;
	default:
		break;
	}
}

static void act(struct sim *s, struct machine *m)
{
	if (!m->c || world_is_paused(s->w, m->slot))
		return;
	for (uint64_t i = world_below(s->w, 6); i; i--)
		propose(m);
	if (world_chance(s->w, world_now(s->w) < CALM_BEFORE ? 500 : 60))
		change_role(m);
	if (world_chance(s->w, 60))
		transfer(m);
	if (world_now(s->w) > CALM_BEFORE && consensus_leads(m->c) &&
	    world_chance(s->w, 10))
		world_crash(s->w, m->slot, world_chance(s->w, 500));
}

static void on_scenario(void *arg)
{
	struct sim *s = arg;

	for (unsigned i = 1; i <= s->n_machines; i++)
		if (!s->calm)
			act(s, &s->machines[i]);
	if (!s->calm && world_now(s->w) > CALM_BEFORE)
		trouble(s);
	(void)world_at(s->w, NSEC_PER_MSEC * (5 + world_below(s->w, 100)), on_scenario,
		       s);
}

static void calm_down(struct sim *s)
{
	s->calm = true;
	world_heal(s->w);
	for (unsigned i = 1; i <= s->n_machines; i++) {
		world_pause(s->w, i, false);
		world_disk_full(s->w, i, false);
		world_boot(s->w, i);
	}
}

static bool somebody_leads(const struct sim *s)
{
	for (unsigned i = 1; i <= s->n_machines; i++)
		if (s->machines[i].c && consensus_leads(s->machines[i].c))
			return true;
	return false;
}

static struct machine *leader_of(struct sim *s)
{
	struct machine *leader = NULL;

	for (unsigned i = 1; i <= s->n_machines; i++) {
		struct machine *m = &s->machines[i];

		world_check(s->w, m->c, "machine %u did not come back", i);
		if (!consensus_leads(m->c))
			continue;
		world_check(s->w, !leader, "machines %u and %u lead",
			    leader ? leader->slot : 0, i);
		leader = m;
	}
	world_check(s->w, leader, "nobody leads");
	return leader;
}

/* Somebody leads, and did for long enough to commit: late frames may end a term at any
 * moment. */
static struct machine *await_healed(struct sim *s)
{
	for (unsigned i = 0; i < 100; i++) {
		uint32_t n = s->n_proposals, n_committed = s->n_committed;
		struct machine *leader;
		uint64_t term;

		if (!somebody_leads(s)) {
			world_run(s->w, 100 * NSEC_PER_MSEC);
			continue;
		}
		leader = leader_of(s);
		term = consensus_term(leader->c);
		propose(leader);
		world_run(s->w, 3 * NSEC_PER_SEC);
		if (!consensus_leads(leader->c) || consensus_term(leader->c) != term)
			continue;
		world_check(s->w, s->n_proposals == n || s->n_committed > n_committed,
			    "machine %u leads and does not commit", leader->slot);
		return leader;
	}
	return leader_of(s);
}

static void check_healed(struct sim *s)
{
	struct machine *leader = await_healed(s);
	const struct consensus_server *servers;
	size_t n_servers;

	servers = consensus_servers(leader->c, &n_servers);
	for (size_t i = 0; i < n_servers; i++) {
		struct machine *m = &s->machines[servers[i].node];

		world_check(s->w,
			    servers[i].role == CONSENSUS_NONE ||
				    (m->state.index == leader->state.index &&
				     m->state.hash == leader->state.hash),
			    "machine %u is at %" PRIu64 ", the leader at %" PRIu64,
			    m->slot, m->state.index, leader->state.index);
		world_check(s->w,
			    servers[i].role == CONSENSUS_NONE ||
				    consensus_leader(m->c) == leader->slot,
			    "machine %u follows %u", m->slot, consensus_leader(m->c));
	}
}

static uint64_t run(uint64_t seed, bool verbose)
{
	static const struct world_rooms rooms = {start, kill_rooms, check};
	_cleanup_free_ struct sim *s = calloc(1, sizeof(*s));
	uint64_t trace;

	if (!s)
		abort();
	s->n_machines = 1 + (unsigned)(seed % N_MACHINES);
	s->w = world_new(seed, s->n_machines, &rooms, s);
	world_set_verbose(s->w, verbose);
	for (unsigned i = 1; i <= s->n_machines; i++) {
		s->machines[i] = (struct machine){.sim = s, .slot = i};
		world_set_drift(s->w, i, (int)world_below(s->w, 100001) - 50000);
		world_boot(s->w, i);
	}
	(void)world_at(s->w, NSEC_PER_SEC, on_scenario, s);
	world_run(s->w, CHAOS);
	calm_down(s);
	world_run(s->w, CALM);
	check_healed(s);
	for (unsigned i = 1; i <= s->n_machines; i++)
		world_crash(s->w, i, false);
	if (verbose)
		printf("# seed %" PRIu64
		       ": %u servers, %u commands, %u committed, %u lost, %" PRIu64
		       " leaders, %" PRIu64 " changes, %" PRIu64 " transfers, %" PRIu64
		       " restores\n",
		       seed, s->n_machines, s->n_proposals, s->n_committed, s->n_lost,
		       s->n_leaders, s->n_changes, s->n_transfers, s->n_restores);
	trace = world_trace(s->w);
	s->w = world_free(s->w);
	return trace;
}

int main(int argc, char **argv)
{
	uint64_t seed, count = 200;
	bool verbose = false;

	log_set_level(0);
	(void)getrandom(&seed, sizeof(seed), 0);
	seed %= 1000000000;
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--verbose")) {
			verbose = true;
			log_set_level(LOG_LEVEL_DEBUG);
		} else if (!strcmp(argv[i], "--seed") && i + 1 < argc) {
			seed = strtoull(argv[++i], NULL, 10);
			count = 1;
		} else if (!strcmp(argv[i], "--count") && i + 1 < argc) {
			count = strtoull(argv[++i], NULL, 10);
		}
	}
	printf("# seeds from %" PRIu64 "\n1..2\n", seed);
	for (uint64_t i = 0; i < count; i++)
		(void)run(seed + i, verbose);
	printf("ok 1 - %" PRIu64 " seeds, every invariant held after every step\n",
	       count);
	for (uint64_t i = 0; i < count && i < 5; i++)
		if (run(seed + i, false) != run(seed + i, false)) {
			printf("not ok 2 - seed %" PRIu64 " has two traces\n",
			       seed + i);
			return 1;
		}
	printf("ok 2 - the same seed gives the same trace\n");
	return 0;
}
