/*
 * A cluster is founded, joined, killed, cut, paused and filled up, its wall clocks step,
 * by a seed.
 *
 * After every step: views are totally ordered on each node and the same for the
 * same epoch on all; a PID block belongs to one node for ever; no node acts on a
 * lease while the newest view that was ever committed says that it is lost, has left or is
 * removed; names and
 * ids are unique; a call ends exactly once, and only members of the view are
 * served.  At the end everything heals, and everybody is up again.
 *
 *   test_membership_sim [--seed S] [--count N] [--verbose]
 */
#include "cleanup.h"
#include "envelope.pb-c.h"
#include "log.h"
#include "membership.h"
#include "membership_token.h"
#include "world.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

enum {
	N_MACHINES = 5,
	N_EPOCHS = 4096,
	N_BLOCKS = MEMBERSHIP_PID_MAX / MEMBERSHIP_PID_BLOCK,
	N_CALLS = 4000,
	PROBE = RPC_ROOM_CONTROL << 8 | 0x70,
};

#define HOUR (3600 * NSEC_PER_SEC)
#define CHAOS (20 * NSEC_PER_SEC)
#define CALM (20 * NSEC_PER_SEC)

struct sim;

struct call {
	struct machine *from;
	bool ended;
	nsec_t deadline; /* of the caller's clock */
};

struct machine {
	struct sim *sim;
	unsigned slot;
	node_id id; /* 0: not a member yet */
	char name[16];
	struct rpc *rpc;
	struct membership *m;
	epoch_t epoch; /* of its last view, in this boot */
	bool lease, told_lease, leaving;
	bool told[N_BLOCKS]; /* its own, in this boot */
	struct rpc_call *late;
};

struct sim {
	struct world *w;
	struct machine machines[N_MACHINES + 1];
	bool calm;
	uint64_t views[N_EPOCHS]; /* hash of each that was ever seen */
	node_id blocks[N_BLOCKS];
	epoch_t newest; /* that any node has seen */
	enum member_state states[64];
	struct call calls[N_CALLS];
	size_t n_calls, n_ended, n_ok;
	uint32_t pids_max;
	unsigned joining; /* slot that asks for a token or joins */
	unsigned asked;	  /* the slot that it asks */
	unsigned n_joins;
	unsigned mover; /* the slot that moves a member */
};

static uint64_t mix(uint64_t h, const void *data, size_t len)
{
	const uint8_t *p = data;

	while (len--)
		h = (h ^ *p++) * 0x100000001b3ull;
	return h;
}

/* A number is one node's, for ever. */
static uint64_t check_blocks(struct machine *n, uint64_t h)
{
	for (pid_t b = 0; b < N_BLOCKS; b++) {
		node_id home = membership_home(n->m, b * MEMBERSHIP_PID_BLOCK);
		node_id *known = &n->sim->blocks[b];

		h = (h ^ home) * 0x100000001b3ull;
		if (home && !*known)
			*known = home;
		world_check(n->sim->w, !home || home == *known,
			    "PID block %d is of node %u, and was of %u", b, home, *known);
	}
	return h;
}

static uint64_t view_hash(struct machine *n, const struct membership_view *v)
{
	uint64_t h = mix(0xcbf29ce484222325ull, &v->leader, sizeof(v->leader));

	for (size_t i = 0; i < v->n_nodes; i++) {
		const struct membership_node *m = &v->nodes[i];

		h = mix(h, &m->id, sizeof(m->id));
		h = mix(h, m->name, strlen(m->name) + 1);
		h = mix(h, m->address, strlen(m->address) + 1);
		h = mix(h, &m->state, sizeof(m->state));
		h = mix(h, &m->incarnation, sizeof(m->incarnation));
		h = mix(h, &m->history.losses, sizeof(m->history.losses));
		h = mix(h, &m->history.changed, sizeof(m->history.changed));
		h = mix(h, &m->history.lost_for, sizeof(m->history.lost_for));
	}
	return check_blocks(n, h) | 1;
}

static void check_unique(struct sim *s, const struct membership_view *v)
{
	for (size_t i = 0; i < v->n_nodes; i++)
		for (size_t j = 0; j < i; j++)
			world_check(s->w,
				    v->nodes[i].id != v->nodes[j].id &&
					    strcmp(v->nodes[i].name, v->nodes[j].name) != 0,
				    "view %" PRIu64 " has a member twice", v->epoch);
}

static void on_view(void *owner, const struct membership_view *v)
{
	struct machine *n = owner;
	struct sim *s = n->sim;
	uint64_t h = view_hash(n, v);

	world_note(s->w, n->slot, "view %" PRIu64 " (%016" PRIx64 ")", v->epoch, h);
	world_check(s->w, v->epoch > n->epoch && v->epoch < N_EPOCHS,
		    "node %u: view %" PRIu64 " after %" PRIu64, n->id, v->epoch, n->epoch);
	n->epoch = v->epoch;
	if (!s->views[v->epoch])
		s->views[v->epoch] = h;
	world_check(s->w, s->views[v->epoch] == h, "two views %" PRIu64, v->epoch);
	check_unique(s, v);
	if (v->epoch <= s->newest)
		return;
	s->newest = v->epoch;
	for (size_t i = 0; i < v->n_nodes; i++)
		s->states[v->nodes[i].id] = v->nodes[i].state;
}

static void on_lease(void *owner, bool held)
{
	struct machine *n = owner;

	world_note(n->sim->w, n->slot, "lease %d", held);
	world_check(n->sim->w, n->lease != held || !n->told_lease, "told the same lease twice");
	n->told_lease = true;
	n->lease = held;
}

static void on_pid_block(void *owner, pid_t first, uint32_t count)
{
	struct machine *n = owner;

	world_note(n->sim->w, n->slot, "PIDs %d + %u", first, count);
	world_check(n->sim->w, count && count % MEMBERSHIP_PID_BLOCK == 0, "no whole blocks");
	for (uint32_t i = 0; i < count; i += MEMBERSHIP_PID_BLOCK) {
		bool *told = &n->told[(first + (pid_t)i) / MEMBERSHIP_PID_BLOCK];

		world_check(n->sim->w, membership_home(n->m, first + (pid_t)i) == n->id && !*told,
			    "given a block that it does not hold, or has");
		*told = true;
	}
}

static void get_load(void *owner, struct membership_load *ret)
{
	*ret = (struct membership_load){ .n_cpus = 2, .running = 150 };
}

static const struct membership_events events = { on_view, on_lease, on_pid_block, get_load };

/* A call that every room could make. */

/* Answer the call that was kept back, and keep @call. */
static void swap_late(struct machine *n, struct rpc_call *call)
{
	Ssi__Envelope__Empty reply = SSI__ENVELOPE__EMPTY__INIT;

	if (n->late)
		rpc_reply(n->late, &reply.base, RPC_NO_BULK);
	n->late = call;
}

/* As the view of @n says; 0: it knows of none. */
static uint64_t incarnation(const struct machine *n, node_id id)
{
	const struct membership_node *node = membership_node(n->m, id);

	return node ? node->incarnation : 0;
}

/* A probe says for which life of the receiver it is. */
struct lives {
	uint64_t sender, receiver;
};

static void check_served(struct machine *n, node_id peer, struct iovec bulk)
{
	struct lives lives;

	world_check(n->sim->w, bulk.iov_len >= sizeof(lives), "a probe lost its bulk");
	memcpy(&lives, bulk.iov_base, sizeof(lives));
	if (peer == n->id)
		return;
	world_check(n->sim->w, membership_is_up(n->m, peer),
		    "node %u serves %u, which is not in its view", n->id, peer);
	/* Of a later life: then its view is newer than ours. */
	world_check(n->sim->w,
		    lives.sender >= incarnation(n, peer) &&
			    lives.receiver >= incarnation(n, n->id),
		    "node %u serves what %u sent before one of both was lost", n->id, peer);
}

RPC_HANDLER(on_probe, struct machine, Ssi__Envelope__Empty)
{
	struct sim *s = self->sim;
	node_id peer = rpc_call_peer(call);
	Ssi__Envelope__Empty reply = SSI__ENVELOPE__EMPTY__INIT;

	(void)req;
	check_served(self, peer, bulk);
	if (world_chance(s->w, 100))
		rpc_fail(call, RPC_NOT_FOUND, "no such thing");
	else if (world_chance(s->w, 800))
		rpc_reply(call, &reply.base, bulk);
	else if (world_chance(s->w, 500))
		swap_late(self, call);
	/* else: never, as a room that waits for something that does not come */
}

static const struct rpc_method methods[] = {
	RPC_METHOD(PROBE, on_probe, ssi__envelope__empty__descriptor,
		   ssi__envelope__empty__descriptor),
	{ 0 },
};

static void on_probed(void *owner, const struct rpc_result *result)
{
	struct call *c = owner;
	struct sim *s = c->from->sim;

	world_note(s->w, c->from->slot, "call %zu: status %d", (size_t)(c - s->calls),
		   result->status);
	world_check(s->w, !c->ended, "a call ended twice");
	world_check(s->w, (result->status == RPC_OK) == (result->reply != NULL),
		    "a reply that is none");
	world_check(s->w, result->text, "no text");
	c->ended = true;
	s->n_ended++;
	s->n_ok += result->status == RPC_OK;
}

static void probe(struct sim *s)
{
	struct machine *from = &s->machines[1 + world_below(s->w, N_MACHINES)];
	node_id to = 1 + (node_id)world_below(s->w, N_MACHINES + 1);
	Ssi__Envelope__Empty q = SSI__ENVELOPE__EMPTY__INIT;
	static uint8_t bulk[100 << 10];
	struct iovec b = { bulk, sizeof(struct lives) };
	struct call *c = &s->calls[s->n_calls];
	nsec_t timeout = world_below(s->w, 3 * NSEC_PER_SEC);
	struct rpc_request *request;

	if (!from->rpc || world_is_paused(s->w, from->slot) || s->n_calls == N_CALLS)
		return;
	*c = (struct call){ .from = from };
	s->n_calls++;
	memcpy(bulk, &(struct lives){ incarnation(from, from->id), incarnation(from, to) },
	       sizeof(struct lives));
	if (world_chance(s->w, 200))
		b.iov_len += world_below(s->w, sizeof(bulk) - sizeof(struct lives));
	world_check(s->w,
		    !rpc_call(from->rpc, to, PROBE, &q.base, b, timeout, on_probed, c, &request),
		    "a call was not taken");
	world_check(s->w, !c->ended, "a call ended inside of rpc_call");
	if (world_chance(s->w, 50)) {
		rpc_cancel(from->rpc, request);
		c->ended = true;
		s->n_ended++;
	}
}

/* Machines. */

static int start(void *owner, unsigned slot)
{
	struct sim *s = owner;
	struct machine *n = &s->machines[slot];
	struct membership_config config = {
		.self = n->id,
		.name = n->name,
		.address = world_address(s->w, slot),
		.leader = 1,
		.leader_address = world_address(s->w, 1),
		.lease = 2 * NSEC_PER_SEC,
		.pids_max = s->pids_max,
		.ca_pem = slot == 1 ? "CA" : NULL,
		.ca_key_pem = slot == 1 ? "KEY" : NULL,
	};

	n->epoch = 0;
	n->lease = n->told_lease = false;
	memset(n->told, 0, sizeof(n->told));
	world_check(s->w, !rpc_new(&n->rpc, world_env(s->w, slot), n->id), "rpc_new");
	world_listen(s->w, slot, rpc_events(), n->rpc);
	rpc_set_transport(n->rpc, world_transport(s->w, slot));
	world_check(s->w,
		    !membership_new(&n->m, world_env(s->w, slot), world_store(s->w, slot), n->rpc,
				    &config, &events, n),
		    "membership_new");
	world_check(s->w, !rpc_register(n->rpc, methods, n), "rpc_register");
	return 0;
}

static void kill_rooms(void *owner, unsigned slot)
{
	struct sim *s = owner;
	struct machine *n = &s->machines[slot];

	n->m = membership_free(n->m);
	n->rpc = rpc_free(n->rpc);
	n->late = NULL;
	n->leaving = false;
	n->lease = false;
	/* Tokens and joins that it was deciding are gone with it. */
	if (slot == s->asked)
		s->joining = 0;
	if (slot == s->mover)
		s->mover = 0;
}

static bool is_up(const struct sim *s, node_id id)
{
	return s->states[id] == MEMBER_UP || s->states[id] == MEMBER_LEAVING;
}

static void check(void *owner)
{
	struct sim *s = owner;

	for (unsigned i = 1; i <= N_MACHINES; i++) {
		struct machine *n = &s->machines[i];

		if (!n->m || !membership_lease_held(n->m))
			continue;
		world_check(s->w, is_up(s, n->id),
			    "node %u acts on its lease, and is %d in view %" PRIu64, n->id,
			    s->states[n->id], s->newest);
		world_check(s->w, n->epoch, "a lease without a view");
	}
}

/* Joining, one machine at a time. */

static void on_join_reply(void *owner, const uint8_t *data, size_t len)
{
	struct sim *s = owner;
	struct machine *n = &s->machines[s->joining];
	_cleanup_(membership_join_reply_fini) struct membership_join_reply reply = { 0 };

	s->joining = 0;
	if (world_chance(s->w, 200) && !s->calm)
		return; /* lost on the way */
	world_check(s->w,
		    !membership_join_reply_unpack((struct iovec){ (void *)data, len }, &reply),
		    "not a join reply");
	if (reply.status != JOIN_ADMITTED) {
		world_note(s->w, n->slot, "refused: %s", reply.text);
		return;
	}
	world_check(s->w, !s->states[reply.id], "id %u was given before", reply.id);
	n->id = reply.id;
	world_set_id(s->w, n->slot, n->id);
	world_note(s->w, n->slot, "is node %u", n->id);
	s->n_joins++;
	world_boot(s->w, n->slot);
}

static void on_token(void *owner, int result, const char *text)
{
	struct sim *s = owner;
	struct machine *n = &s->machines[s->joining];
	struct membership_token token;
	struct membership_join_request q = { .csr = (char *)"CSR x" };
	_cleanup_free_ uint8_t *data = NULL;
	size_t len;

	if (result) {
		s->joining = 0;
		return;
	}
	world_check(s->w, !membership_token_parse(text, &token), "not a token: %s", text);
	memcpy(q.secret, token.secret, sizeof(q.secret));
	strcpy(q.name, n->name);
	strcpy(q.address, world_address(s->w, n->slot));
	world_check(s->w, !membership_join_request_pack(&q, &data, &len), "no memory");
	membership_on_join(s->machines[s->asked].m, data, len, on_join_reply, s);
}

/* Who leads by the newest view, which one of them has; the founder at first. */
static unsigned leading(struct sim *s)
{
	for (unsigned i = 1; i <= N_MACHINES; i++)
		if (s->machines[i].m && s->machines[i].epoch == s->newest)
			for (unsigned j = 1; j <= N_MACHINES; j++)
				if (s->newest &&
				    s->machines[j].id == membership_view(s->machines[i].m)->leader)
					return j;
	return 1;
}

static void try_join(struct sim *s)
{
	struct machine *leader;

	s->asked = s->joining ? s->asked : leading(s);
	leader = &s->machines[s->asked];
	if (s->joining || !leader->m || world_is_paused(s->w, s->asked))
		return;
	for (unsigned i = 2; i <= N_MACHINES; i++)
		if (!s->machines[i].id) {
			s->joining = i;
			break;
		}
	if (s->joining &&
	    membership_new_token(leader->m, NSEC_PER_SEC * 60, on_token, s))
		s->joining = 0;
}

/* Removal and addition, one at a time. */

static unsigned slot_of(const struct sim *s, node_id id)
{
	unsigned slot = 1;

	while (slot <= N_MACHINES && s->machines[slot].id != id)
		slot++;
	return slot;
}

static void on_moved(void *owner, int result)
{
	struct sim *s = owner;

	world_note(s->w, s->mover, "its move of a member: %d", result);
	s->mover = 0;
}

/* The next step of whatever stands half-way, or of a new one. */
static void try_move(struct sim *s)
{
	unsigned leader = leading(s);
	struct machine *l = &s->machines[leader], *n;
	enum member_state to = MEMBER_LEAVING;
	unsigned slot;
	node_id id = 0;

	if (s->mover || !l->m || world_is_paused(s->w, leader) || !membership_leads(l->m))
		return;
	for (unsigned i = 1; i <= N_MACHINES && !id; i++)
		if (s->machines[i].id && (s->states[s->machines[i].id] == MEMBER_LEAVING ||
					  s->states[s->machines[i].id] == MEMBER_REMOVED))
			id = s->machines[i].id;
	if (!id && (s->calm || world_chance(s->w, 900)))
		return;
	slot = id ? slot_of(s, id) : 1 + (unsigned)world_below(s->w, N_MACHINES);
	n = &s->machines[slot];
	id = n->id;
	if (!id || (slot == leader && s->states[id] != MEMBER_LEAVING))
		return;
	if (s->states[id] == MEMBER_REMOVED || slot == leader || s->calm || world_chance(s->w, 200))
		to = MEMBER_UP;
	/* It says so itself, and its word may be lost on the way. */
	else if (s->states[id] == MEMBER_LEAVING && n->m && !world_is_paused(s->w, slot) &&
		 membership_give_up(n->m) == 0 && world_chance(s->w, 700) &&
		 membership_given_up(l->m, id, incarnation(n, id)) == 0)
		to = MEMBER_REMOVED;
	if (!membership_move(l->m, &id, 1, to, on_moved, s)) {
		s->mover = leader;
		world_note(s->w, slot, "is to be %d", to);
	}
}

/* What happens. */

static void on_left(void *owner)
{
	struct machine *n = owner;

	world_note(n->sim->w, n->slot, "has left");
}

static void stop(void *arg)
{
	struct machine *n = arg;

	world_crash(n->sim->w, n->slot, false);
	if (n->sim->calm)
		world_boot(n->sim->w, n->slot);
}

/* When the loop turns: its rooms are on the stack. */
static void on_retired(void *owner)
{
	(void)world_at(((struct machine *)owner)->sim->w, 0, stop, owner);
}

static void isolate(struct world *w, unsigned slot)
{
	for (unsigned i = 1; i <= N_MACHINES; i++) {
		world_cut(w, slot, i, slot != i);
		world_cut(w, i, slot, slot != i);
	}
}

static void trouble(struct sim *s)
{
	struct world *w = s->w;
	unsigned a = 1 + (unsigned)world_below(w, N_MACHINES);
	unsigned b = 1 + (unsigned)world_below(w, N_MACHINES);
	struct machine *n = &s->machines[a];

	switch (world_below(w, 14)) {
	case 0:
		world_crash(w, a, world_chance(w, 500));
		break;
	case 1:
	case 2:
		if (n->id)
			world_boot(w, a);
		break;
	case 3:
		world_pause(w, a, true);
		break;
	case 4:
		world_pause(w, a, false);
		break;
	case 5:
		world_cut(w, a, b, a != b);
		if (world_chance(w, 500))
			world_cut(w, b, a, a != b);
		break;
	case 6:
		world_heal(w);
		break;
	case 7:
		world_break(w, a, b);
		break;
	case 8:
		world_disk_full(w, a, world_chance(w, 300));
		break;
	case 9:
		if (n->m && !world_is_paused(w, a))
			(void)membership_want_pids(n->m);
		break;
	case 10:
		if (n->m && a != 1 && !world_is_paused(w, a) && world_chance(w, 200))
			n->leaving = !membership_leave(n->m, on_left, n) || n->leaving;
		break;
	case 11:
		/* Who leads has the most to promise. */
		isolate(w, world_chance(w, 500) ? leading(s) : a);
		break;
	case 12:
		if (n->m && !world_is_paused(w, a) && world_chance(w, 300))
			(void)membership_retire(n->m, on_retired, n);
		break;
	default:
		/* Only a token and what people read depend on it. */
		world_set_wall_clock(w, a,
				     (int64_t)world_below(w, 2 * HOUR + 1) - (int64_t)HOUR);
		break;
	}
}

static void on_scenario(void *arg)
{
	struct sim *s = arg;

	try_join(s);
	try_move(s);
	for (uint64_t i = world_below(s->w, 4); i; i--)
		probe(s);
	if (!s->calm)
		trouble(s);
	(void)world_at(s->w, NSEC_PER_MSEC * (10 + world_below(s->w, 250)), on_scenario, s);
}

static void calm_down(struct sim *s)
{
	s->calm = true;
	world_heal(s->w);
	for (unsigned i = 1; i <= N_MACHINES; i++) {
		world_pause(s->w, i, false);
		world_disk_full(s->w, i, false);
		/* Those that have left start again. */
		if (s->machines[i].leaving)
			world_crash(s->w, i, false);
		if (s->machines[i].id)
			world_boot(s->w, i);
	}
}

static void check_healed(struct sim *s)
{
	for (unsigned i = 1; i <= N_MACHINES; i++) {
		struct machine *n = &s->machines[i];

		world_check(s->w, n->id && n->m, "machine %u did not come back", i);
		world_check(s->w, membership_lease_held(n->m), "node %u has no lease", n->id);
		world_check(s->w, n->epoch == s->newest,
			    "node %u is in view %" PRIu64 " of %" PRIu64, n->id, n->epoch,
			    s->newest);
		world_check(s->w, s->states[n->id] == MEMBER_UP, "node %u is not up", n->id);
		for (pid_t b = 0; b <= N_BLOCKS; b++) {
			world_check(s->w, b < N_BLOCKS, "node %u has no PIDs", n->id);
			if (s->blocks[b] == n->id && n->told[b])
				break;
		}
	}
}

static uint64_t run(uint64_t seed, bool verbose)
{
	static const struct world_rooms rooms = { start, kill_rooms, check };
	_cleanup_free_ struct sim *s = calloc(1, sizeof(*s));
	uint64_t trace;

	if (!s)
		abort();
	s->w = world_new(seed, N_MACHINES, &rooms, s);
	s->pids_max = world_chance(s->w, 500) ? 0 : (uint32_t)world_below(s->w, 200000);
	world_set_verbose(s->w, verbose);
	for (unsigned i = 1; i <= N_MACHINES; i++) {
		s->machines[i] = (struct machine){ .sim = s, .slot = i, .id = i == 1 };
		(void)snprintf(s->machines[i].name, sizeof(s->machines[i].name), "node-%u", i);
		world_set_id(s->w, i, i == 1 ? 1 : 1000 + i);
		world_set_drift(s->w, i, (int)world_below(s->w, 100001) - 50000);
	}
	world_boot(s->w, 1);
	(void)world_at(s->w, NSEC_PER_SEC, on_scenario, s);
	world_run(s->w, CHAOS);
	calm_down(s);
	world_run(s->w, CALM);
	check_healed(s);
	world_pause(s->w, 1, false);
	for (unsigned i = 1; i <= N_MACHINES; i++)
		world_crash(s->w, i, false);
	world_check(s->w, s->n_ended == s->n_calls, "%zu calls, %zu ends", s->n_calls,
		    s->n_ended);
	if (verbose)
		printf("# seed %" PRIu64 ": %zu calls, %zu ok, view %" PRIu64 "\n", seed,
		       s->n_calls, s->n_ok, s->newest);
	trace = world_trace(s->w);
	s->w = world_free(s->w);
	return trace;
}

static void print_speed(uint64_t seeds)
{
	double minutes = (double)clock() / CLOCKS_PER_SEC / 60;

	printf("# a minute of processor time: %.0f seeds, %.0f simulated seconds\n",
	       (double)seeds / minutes,
	       (double)seeds * (CHAOS + CALM) / NSEC_PER_SEC / minutes);
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
	printf("ok 1 - %" PRIu64 " seeds, every invariant held after every step\n", count);
	print_speed(count);
	for (uint64_t i = 0; i < count && i < 5; i++)
		if (run(seed + i, false) != run(seed + i, false)) {
			printf("not ok 2 - seed %" PRIu64 " has two traces\n", seed + i);
			return 1;
		}
	printf("ok 2 - the same seed gives the same trace\n");
	return 0;
}
