/*
 * Processes are started, moved from anywhere to anywhere, signalled and ended, while
 * ssids are killed (also between two things that they do), machines lose their power, are paused and cut off, by a seed.
 *
 * After every step: one live copy of each process in the whole cluster, none on a machine that
 * a view has out; it is the newest that there ever was, unless that one is lost with its machine
 * or its lease; the last copy of a process is killed by no room, unless its machine was out of
 * the cluster; who waits is told once, and what is true.  At the end
 * everything heals: every process that did not end stands somewhere, live, and its home
 * knows where; no shadow and no record is left of the others; nothing is frozen, no move
 * is in a journal, no signal was lost.
 *
 *   test_migration_sim [--seed S] [--count N] [--verbose]
 */
#include "cleanup.h"
#include "fence.h"
#include "log.h"
#include "membership.h"
#include "membership_token.h"
#include "migration.h"
#include "migration_journal.h"
#include "process.h"
#include "rpc_internal.h"
#include "sim_kernel.h"
#include "world.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>

enum {
	N_MACHINES = 4,
	N_ASKS = 4000,
	N_SOULS_MAX = 24, /* that live */
};

#define JOINING (8 * NSEC_PER_SEC)
#define CHAOS	(20 * NSEC_PER_SEC)
#define CALM	(100 * NSEC_PER_SEC)

/* Rooms are not made to be freed in the middle of something: ssid is killed. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:ship\nleak:deliver\nleak:process_depart_begin\n"
	       "leak:process_arrive_begin\nleak:process_arrive_adopt\nleak:on_left\n";
}

enum what { MOVE, SIGNAL, WAIT };

/* Something that was asked of a machine, and is answered once, or dies with it. */
struct ask {
	struct machine *from;
	struct sim_soul *soul;
	unsigned boot;
	enum what what;
	int signal;
	bool ended;
};

struct machine {
	struct sim *sim;
	unsigned slot, boot;
	node_id id;
	char name[16];
	struct rpc *rpc;
	struct membership *membership;
	struct space *space;
	struct process_room *process;
	struct criu *criu;
	struct migration_room *migration;
	struct fence fence;
	epoch_t epoch;
	bool power; /* is cut, when it is killed */
};

struct sim {
	struct world *w;
	struct sim_kernel kernel;
	struct machine machines[N_MACHINES + 1];
	bool calm;
	unsigned joining;
	epoch_t newest;
	struct ask asks[N_ASKS];
	size_t n_asks, n_moved, n_moves, n_launched;
};

/* A machine whose rooms can be asked. */
static bool is_there(const struct machine *m)
{
	return m->migration && !world_is_paused(m->sim->w, m->slot);
}

static struct machine *any_machine(struct sim *s)
{
	struct machine *m = &s->machines[1 + world_below(s->w, N_MACHINES)];

	return is_there(m) ? m : NULL;
}

static struct machine *machine_of(struct sim *s, node_id id)
{
	for (unsigned i = 1; i <= N_MACHINES; i++)
		if (s->machines[i].id == id)
			return &s->machines[i];
	return NULL;
}

/* Rooms. */

static void lose(struct sim_machine *k)
{
	struct sim_process *p;

	LIST_FOREACH(p, &k->processes, in)
		if (p->soul)
			p->soul->was_lost = true;
}

static void note_newest(struct sim *s, const struct membership_view *v)
{
	s->newest = v->epoch;
	for (size_t i = 0; i < v->n_nodes; i++) {
		const struct machine *of = machine_of(s, v->nodes[i].id);
		struct sim_machine *k = of ? &s->kernel.machines[of->slot] : NULL;
		bool was = k && k->out;

		if (!k)
			continue;
		k->out = v->nodes[i].state != MEMBER_UP;
		k->n_outs += k->out && !was;
		if (k->out)
			lose(k);
	}
}

static void on_view(void *owner, const struct membership_view *v)
{
	struct machine *m = owner;
	struct sim *s = m->sim;

	world_note(s->w, m->slot, "view %" PRIu64, v->epoch);
	m->epoch = v->epoch;
	if (v->epoch > s->newest)
		note_newest(s, v);
	if (!m->migration)
		return;
	process_on_view(m->process);
	migration_on_view(m->migration);
}

static void on_lease(void *owner, bool held)
{
	struct machine *m = owner;

	world_note(m->sim->w, m->slot, "lease %d", held);
	if (!held && m->migration)
		fence_on_lease_end(&m->fence);
}

static void on_renewed(void *owner, nsec_t until)
{
	struct machine *m = owner;

	if (m->migration)
		fence_on_renewed(&m->fence, until);
}

static void on_thawed(void *owner)
{
	migration_on_view(((struct machine *)owner)->migration);
}

static void on_pid_block(void *owner, pid_t first, uint32_t count)
{
	struct machine *m = owner;

	(void)space_pids_add(m->space, first, (pid_t)count);
}

static void get_load(void *owner, struct membership_load *ret)
{
	(void)owner;
	*ret = (struct membership_load){ .n_cpus = 2,
					 .memory_total = 8ull << 30,
					 .memory_available = 4ull << 30 };
}

static void on_exit_of(void *owner, const struct space_exit *exit)
{
	struct machine *m = owner;

	if (m->process)
		process_on_exit(m->process, exit);
}

static void on_stop_of(void *owner, pid_t pid, int signal)
{
	struct machine *m = owner;

	if (m->process)
		process_on_stop(m->process, pid, signal);
}

static void on_lost(void *owner)
{
	struct machine *m = owner;

	world_fail(m->sim->w, "the space of machine %u is lost", m->slot);
}

static int build(struct machine *m)
{
	static const struct membership_events membership = { on_view, on_lease, on_pid_block,
							     get_load, on_renewed };
	static const struct space_events space = { on_exit_of, on_stop_of, on_lost };
	struct world *w = m->sim->w;
	const struct env *env = world_env(w, m->slot);
	struct membership_config config = {
		.self = m->id,
		.name = m->name,
		.address = world_address(w, m->slot),
		.leader = 1,
		.leader_address = world_address(w, 1),
		.lease = 2 * NSEC_PER_SEC,
		.ca_pem = m->slot == 1 ? "CA" : NULL,
		.ca_key_pem = m->slot == 1 ? "KEY" : NULL,
	};
	struct migration_neighbours n = { .env = env, .private_dir_fd = -1,
					  .image_max_bytes = 64 << 20 };
	int r = space_new(&m->space, env, &(struct space_config){ 0 }, &space, m);

	if (r == 0)
		r = rpc_new(&m->rpc, env, m->id);
	if (r == 0) {
		world_listen(w, m->slot, rpc_events(), m->rpc);
		rpc_set_transport(m->rpc, world_transport(w, m->slot));
		r = membership_new(&m->membership, env, world_store(w, m->slot), m->rpc, &config,
				   &membership, m);
	}
	if (r == 0)
		r = process_room_new(&m->process, env, m->space, m->rpc, m->membership,
				     "");
	if (r == 0)
		r = criu_new(&m->criu, env, m->space, &(struct criu_config){ 0 });
	n.space = m->space;
	n.rpc = m->rpc;
	n.membership = m->membership;
	n.process = m->process;
	n.criu = m->criu;
	m->fence = (struct fence){ .env = env,
				   .space = m->space,
				   .process = m->process,
				   .membership = m->membership,
				   .self = m->id,
				   .on_thawed = on_thawed,
				   .owner = m };
	return r ? r : migration_room_new(&m->migration, &n);
}

static int start(void *owner, unsigned slot)
{
	struct sim *s = owner;
	struct machine *m = &s->machines[slot];

	world_act(s->w, slot);
	m->epoch = 0;
	m->boot++;
	world_check(s->w, build(m) == 0, "machine %u does not start", slot);
	world_act(s->w, 0);
	return 0;
}

/* Nothing of this is what a killed ssid does: it is memory that is given back. */
static void kill_rooms(void *owner, unsigned slot)
{
	struct sim *s = owner;
	struct machine *m = &s->machines[slot];
	struct sim_machine *k = &s->kernel.machines[slot];
	struct rpc_request *q;

	world_act(s->w, slot);
	sim_kernel_dying(k);
	m->process = process_room_free(m->process);
	m->membership = membership_free(m->membership);
	while ((q = TAILQ_FIRST(&m->rpc->by_due)))
		rpc_cancel(m->rpc, q);
	m->migration = migration_room_free(m->migration);
	m->rpc = rpc_free(m->rpc);
	m->criu = criu_free(m->criu);
	m->space = space_free(m->space);
	sim_kernel_died(k, m->power);
	m->power = false;
	if (slot == 1)
		s->joining = 0;
	world_act(s->w, 0);
}

static void check_who_is_out(struct sim *s)
{
	for (unsigned i = 1; i <= N_MACHINES; i++) {
		struct sim_process *p;

		if (!s->kernel.machines[i].out)
			continue;
		LIST_FOREACH(p, &s->kernel.machines[i].processes, in)
			world_check(s->w, !p->live,
				    "process %d runs on machine %u, which is out", p->pid, i);
		lose(&s->kernel.machines[i]);
	}
}

static void check(void *owner)
{
	struct sim *s = owner;

	check_who_is_out(s);
	for (unsigned i = 1; i <= N_MACHINES; i++)
		if (s->kernel.machines[i].dying)
			world_crash(s->w, i, false);
}

/* Joining, one machine at a time, before anything goes wrong. */

/* NULL: nobody. */
static struct membership *leading(struct sim *s)
{
	for (unsigned i = 1; i <= N_MACHINES; i++)
		if (s->machines[i].membership && membership_leads(s->machines[i].membership))
			return s->machines[i].membership;
	return NULL;
}

static void on_join_reply(void *owner, const uint8_t *data, size_t len)
{
	struct sim *s = owner;
	struct machine *m = &s->machines[s->joining];
	_cleanup_(membership_join_reply_fini) struct membership_join_reply reply = { 0 };

	s->joining = 0;
	world_check(s->w,
		    !membership_join_reply_unpack((struct iovec){ (void *)data, len }, &reply),
		    "not a join reply");
	if (reply.status == JOIN_TRY_AGAIN) /* another leads by now */
		return;
	world_check(s->w, reply.status == JOIN_ADMITTED, "refused: %s", reply.text);
	m->id = reply.id;
	world_set_id(s->w, m->slot, m->id);
	world_boot(s->w, m->slot);
}

static void on_token(void *owner, int result, const char *text)
{
	struct sim *s = owner;
	struct machine *m = &s->machines[s->joining];
	struct membership_token token;
	struct membership_join_request q = { .csr = (char *)"CSR x" };
	_cleanup_free_ uint8_t *data = NULL;
	size_t len;

	if (result || !leading(s)) {
		s->joining = 0;
		return;
	}
	world_check(s->w, !membership_token_parse(text, &token), "not a token: %s", text);
	memcpy(q.secret, token.secret, sizeof(q.secret));
	strcpy(q.name, m->name);
	strcpy(q.address, world_address(s->w, m->slot));
	world_check(s->w, !membership_join_request_pack(&q, &data, &len), "no memory");
	membership_on_join(leading(s), data, len, on_join_reply, s);
}

static void on_joining(void *arg)
{
	struct sim *s = arg;
	bool busy = s->joining;

	for (unsigned i = 2; i <= N_MACHINES && !s->joining; i++)
		if (!s->machines[i].id)
			s->joining = i;
	if (!s->joining)
		return;
	if (!busy && (!leading(s) || membership_new_token(leading(s), NSEC_PER_SEC * 60, on_token,
							  s)))
		s->joining = 0;
	(void)world_at(s->w, NSEC_PER_SEC, on_joining, s);
}

/* What is asked. */

static struct ask *ask_new(struct machine *from, struct sim_soul *soul, enum what what)
{
	struct sim *s = from->sim;
	struct ask *a = &s->asks[s->n_asks];

	world_check(s->w, s->n_asks < N_ASKS, "too many questions");
	s->n_asks++;
	*a = (struct ask){ .from = from, .soul = soul, .boot = from->boot, .what = what };
	return a;
}

static void answered(struct ask *a, enum rpc_status status, const char *text)
{
	struct sim *s = a->from->sim;

	world_note(s->w, a->from->slot, "ask %zu about %d: status %d %s",
		   (size_t)(a - s->asks), a->soul->pid, status, text ? text : "");
	world_check(s->w, !a->ended, "an answer came twice");
	world_check(s->w, a->boot == a->from->boot, "an answer came after its asker's death");
	a->ended = true;
}

static struct sim_soul *any_soul(struct sim *s, bool alive)
{
	struct sim_soul *soul, *chosen = NULL;
	unsigned n = 0;

	LIST_FOREACH(soul, &s->kernel.souls, in)
		if ((!alive || soul->end == SIM_LIVES) && !world_below(s->w, ++n))
			chosen = soul;
	return chosen;
}

static struct sim_process *live_copy(struct sim_soul *soul)
{
	struct sim_process *p;

	return soul && sim_soul_copies(soul, &p) == 1 && p->live ? p : NULL;
}

static void launch(struct sim *s)
{
	char *argv[] = { (char *)"soul", NULL };
	struct process_launch l = { .argv = argv, .stdio = { -1, -1, -1 } };
	struct machine *m = any_machine(s);
	struct sim_soul *soul;
	unsigned n = 0;
	pid_t pid;
	int r;

	LIST_FOREACH(soul, &s->kernel.souls, in)
		n += soul->end == SIM_LIVES;
	if (!m || n >= N_SOULS_MAX)
		return;
	world_act(s->w, m->slot);
	r = process_may_start(m->process) ? process_launch(m->process, &l, &pid) : -EAGAIN;
	world_act(s->w, 0);
	world_note(s->w, m->slot, "launch: %d %d", r, r ? 0 : pid);
	s->n_launched += !r;
}

static void fork_one(struct sim *s)
{
	struct sim_process *p = live_copy(any_soul(s, true)), *c;
	pid_t pid = p ? sim_next_pid(p->machine) : 0;

	if (!pid || p->stopped)
		return;
	c = sim_process_new(p->machine, pid, p->pid);
	c->pgid = p->pgid;
	c->sid = p->sid;
	c->group = p->group;
	c->soul = sim_soul_new(&s->kernel, pid, p->soul->app, p->machine->slot);
	world_note(s->w, p->machine->slot, "process %d forks %d", p->pid, pid);
	sim_look(c);
}

static void exit_one(struct sim *s)
{
	struct sim_process *p = live_copy(any_soul(s, true));

	if (p && !p->stopped)
		sim_exit(p, CLD_EXITED, (int)world_below(s->w, 256));
}

static void on_progress(void *owner, const char *step, uint64_t bytes, uint64_t total)
{
	struct ask *a = owner;

	(void)bytes;
	(void)total;
	world_check(a->from->sim->w, !a->ended, "progress %s after the end", step);
}

static void on_moved(void *owner, const struct migration_result *result)
{
	struct ask *a = owner;

	answered(a, result->status, result->text);
	a->from->sim->n_moved += result->status == RPC_OK;
}

static void move_one(struct sim *s)
{
	struct machine *from = any_machine(s);
	struct sim_soul *soul = any_soul(s, true);
	struct migration_request q = {
		.target = s->machines[1 + world_below(s->w, N_MACHINES)].id,
		.dry_run = world_chance(s->w, 50),
		.timeout = 20 * NSEC_PER_SEC,
	};

	if (!from || !soul)
		return;
	if (world_chance(s->w, 300))
		q.target = s->machines[soul->home].id;
	q.pid = soul->pid;
	s->n_moves++;
	world_act(s->w, from->slot);
	world_note(s->w, from->slot, "ask %zu: move %d to %u", s->n_asks, q.pid, q.target);
	world_check(s->w,
		    !migration_move(from->migration, &q, on_progress, on_moved,
				    ask_new(from, soul, MOVE)),
		    "a move was not taken");
	world_act(s->w, 0);
}

static void on_signalled(void *owner, enum rpc_status status, const char *text)
{
	struct ask *a = owner;

	answered(a, status, text);
	a->soul->n_surely += a->signal == SIGUSR1 && status == RPC_OK;
}

static void signal_one(struct sim *s)
{
	static const int signals[] = { SIGUSR1, SIGUSR1, SIGUSR1, SIGUSR1,
				       SIGTERM, SIGKILL, SIGSTOP, SIGCONT };
	static const struct process_caller root = { 0 };
	struct machine *from = any_machine(s);
	struct sim_soul *soul = any_soul(s, true);
	struct ask *a;

	if (!from || !soul)
		return;
	a = ask_new(from, soul, SIGNAL);
	a->signal = signals[world_below(s->w, N_ELEMENTS(signals))];
	soul->n_sent += a->signal == SIGUSR1;
	soul->may_die |= a->signal == SIGTERM || a->signal == SIGKILL;
	world_note(s->w, from->slot, "ask %zu: signal %d for %d", s->n_asks - 1, a->signal,
		   soul->pid);
	world_act(s->w, from->slot);
	world_check(s->w,
		    !process_signal(from->process, soul->pid, a->signal, &root, on_signalled, a),
		    "a signal was not taken");
	world_act(s->w, 0);
}

/* Somebody on its home signals what he takes for the process. */
static void signal_shadow(struct sim *s)
{
	struct sim_soul *soul = any_soul(s, true);
	struct sim_process *p;
	int signal = world_chance(s->w, 200) ? SIGKILL : SIGUSR1;

	p = soul ? sim_find(&s->kernel.machines[soul->home], soul->pid) : NULL;
	if (!p || !p->shadow || p->zombie)
		return;
	soul->may_die |= signal == SIGKILL;
	soul->n_sent += signal == SIGUSR1;
	(void)sim_signal(p->machine, p->pid, signal, NULL, false);
}

static void on_waited(void *owner, enum rpc_status status, const char *text, int code,
		      int exit_status)
{
	struct ask *a = owner;
	struct sim_soul *soul = a->soul;

	answered(a, status, text);
	if (status != RPC_OK)
		return;
	world_check(a->from->sim->w, soul->end != SIM_LIVES || soul->was_lost || soul->may_die ||
			    soul->went_back,
		    "process %d is said to have ended", soul->pid);
	world_check(a->from->sim->w,
		    (code == CLD_KILLED && exit_status == SIGKILL) || soul->was_lost ||
			    soul->may_die || soul->went_back ||
			    (code == soul->code && exit_status == soul->status),
		    "process %d is said to have ended by %d %d, and did by %d %d", soul->pid,
		    code, exit_status, soul->code, soul->status);
}

static void wait_for(struct sim *s)
{
	struct machine *from = any_machine(s);
	struct sim_soul *soul = any_soul(s, true);

	if (!from || !soul || soul->app != soul->pid)
		return;
	world_act(s->w, from->slot);
	world_check(s->w,
		    !process_wait(from->process, soul->pid, on_waited,
				  ask_new(from, soul, WAIT)),
		    "a wait was not taken");
	world_act(s->w, 0);
}

static void work(struct sim *s)
{
	switch (world_below(s->w, 12)) {
	case 0:
		launch(s);
		break;
	case 1:
		if (world_chance(s->w, 500))
			fork_one(s);
		break;
	case 2:
		if (world_chance(s->w, 200))
			exit_one(s);
		break;
	case 3:
	case 4:
		if (world_chance(s->w, 500))
			signal_one(s);
		break;
	case 5:
		wait_for(s);
		break;
	case 6:
		if (world_chance(s->w, 300))
			signal_shadow(s);
		break;
	default:
		move_one(s);
		break;
	}
}

/* What happens to them. */

static void kill_one(struct sim *s, unsigned slot, bool power)
{
	s->machines[slot].power = power;
	world_crash(s->w, slot, power);
}

static void trouble(struct sim *s)
{
	struct world *w = s->w;
	unsigned a = 1 + (unsigned)world_below(w, N_MACHINES);
	unsigned b = 1 + (unsigned)world_below(w, N_MACHINES);

	switch (world_below(w, 13)) {
	case 0:
	case 1:
		if (s->machines[a].migration)
			kill_one(s, a, false);
		break;
	case 10:
		if (s->machines[a].migration)
			s->kernel.machines[a].die_after = 1 + (unsigned)world_below(w, 40);
		break;
	case 3:
		if (s->machines[a].migration && world_chance(w, 500))
			kill_one(s, a, true);
		break;
	case 4:
		world_pause(w, a, true);
		break;
	case 5:
		world_cut(w, a, b, a != b);
		if (world_chance(w, 500))
			world_cut(w, b, a, a != b);
		break;
	case 6:
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
		world_pause(w, a, false);
		break;
	}
}

static void on_scenario(void *arg)
{
	struct sim *s = arg;

	if (s->calm)
		return;
	for (uint64_t i = 1 + world_below(s->w, 3); i; i--)
		work(s);
	if (world_chance(s->w, 150))
		trouble(s);
	/* A service manager starts an ssid again. */
	for (unsigned i = 1; i <= N_MACHINES; i++)
		if (world_chance(s->w, 100))
			world_boot(s->w, i);
	(void)world_at(s->w, NSEC_PER_MSEC * (10 + world_below(s->w, 150)), on_scenario, s);
}

static void calm_down(struct sim *s)
{
	s->calm = s->kernel.calm = true;
	world_heal(s->w);
	for (unsigned i = 1; i <= N_MACHINES; i++) {
		s->kernel.machines[i].die_after = 0;
		world_pause(s->w, i, false);
		world_disk_full(s->w, i, false);
		world_boot(s->w, i);
	}
}

/* In the end. */

static void check_machine(struct machine *m)
{
	struct sim_machine *k = &m->sim->kernel.machines[m->slot];
	struct world *w = m->sim->w;
	struct migration_journal *j;
	struct migration_entry e;
	struct sim_process *p;

	world_check(w, m->membership && membership_lease_held(m->membership),
		    "node %u has no lease", m->id);
	world_check(w, !k->frozen_at, "the space of node %u is frozen", m->id);
	LIST_FOREACH(p, &k->processes, in) {
		world_check(w, !p->group || !p->group->frozen,
			    "process %d is frozen on node %u in %s", p->pid, m->id,
			    p->group->name);
		world_check(w, !p->restoring, "process %d is half-made on node %u", p->pid,
			    m->id);
	}
	world_check(w, migration_journal_new(&j, m->space) == 0, "no journal");
	for (size_t i = 0; migration_journal_entry(j, i, &e); i++)
		world_check(w,
			    e.side == MIGRATION_TARGET && e.step == MIGRATION_STEP_COMMITTED,
			    "node %u has a move of %d in its journal: side %u, step %u", m->id,
			    e.root, e.side, e.step);
	migration_journal_free(j);
}

static void check_living(struct sim *s, struct sim_soul *soul)
{
	struct machine *home = &s->machines[soul->home];
	struct sim_process *p, *shadow;
	struct process_record record;
	struct machine *place;

	world_check(s->w, sim_soul_copies(soul, &p) == 1 && p->live,
		    "process %d is nowhere, or does not run", soul->pid);
	place = &s->machines[p->machine->slot];
	world_check(s->w, process_record(place->process, soul->pid, &record) == 0 &&
				  record.place == place->id && !record.moving &&
				  record.home == home->id,
		    "node %u does not know that it has process %d", place->id, soul->pid);
	world_check(s->w, process_record(home->process, soul->pid, &record) == 0 &&
				  record.place == place->id,
		    "node %u, home of process %d, does not know that it is on node %u",
		    home->id, soul->pid, place->id);
	shadow = sim_find(&s->kernel.machines[soul->home], soul->pid);
	world_check(s->w, place == home || (shadow && shadow->shadow && !shadow->zombie),
		    "process %d is on node %u, and its home has no shadow of it", soul->pid,
		    place->id);
	world_check(s->w,
		    soul->went_back ||
			    ((soul->repeats || soul->n_signals + p->pending <= soul->n_sent) &&
			     soul->n_signals + p->pending >= soul->n_surely),
		    "process %d was sent %u signals, %u of them surely, and took %u",
		    soul->pid, soul->n_sent, soul->n_surely, soul->n_signals);
}

/*
 * What is known not to hold: it moved on and ended, and its last machine lost its power before
 * its home could be told of either.  The one before says rightly that its own space is as old.
 */
static bool is_untold(struct sim *s, struct sim_soul *soul)
{
	struct machine *home = &s->machines[soul->home], *last = &s->machines[soul->died_on->slot];
	struct process_record record;

	return soul->died_on->n_cuts > soul->n_cuts &&
	       process_record(home->process, soul->pid, &record) == 0 &&
	       record.state == PROCESS_AWAY && record.place != last->id;
}

static void check_dead(struct sim *s, struct sim_soul *soul)
{
	struct sim_soul *same;

	LIST_FOREACH(same, &s->kernel.souls, in)
		if (same->pid == soul->pid && same != soul)
			return; /* its number was given again */
	if (is_untold(s, soul))
		return;
	for (unsigned i = 1; i <= N_MACHINES; i++) {
		struct machine *m = &s->machines[i];
		struct process_record record;

		world_check(s->w, !sim_find(&s->kernel.machines[i], soul->pid) ||
					  sim_find(&s->kernel.machines[i], soul->pid)->zombie,
			    "process %d has ended (%d), and node %u has %s of it", soul->pid,
			    soul->end, m->id,
			    sim_find(&s->kernel.machines[i], soul->pid)->shadow ? "a shadow" :
										   "a copy");
		world_check(s->w, process_record(m->process, soul->pid, &record) != 0 ||
					  record.state == PROCESS_ENDED,
			    "process %d has ended (%d), and node %u has a record of it, %d",
			    soul->pid, soul->end, m->id, record.state);
	}
}

static void check_healed(struct sim *s)
{
	struct sim_soul *soul;

	for (unsigned i = 1; i <= N_MACHINES; i++)
		check_machine(&s->machines[i]);
	LIST_FOREACH(soul, &s->kernel.souls, in)
		if (soul->end == SIM_LIVES)
			check_living(s, soul);
		else
			check_dead(s, soul);
}

/* Programs of ours, as the rooms look for them. */
static int make_root(void)
{
	static const char *const files[] = { "ssi-shadow", "program" };
	char path[] = "/tmp/ssi-sim.XXXXXX";
	int root = mkdtemp(path) ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	for (size_t i = 0; root >= 0 && i < N_ELEMENTS(files); i++) {
		int fd = openat(root, files[i], O_CREAT | O_WRONLY | O_CLOEXEC, 0755);

		if (fd < 0)
			abort();
		(void)close(fd);
	}
	if (root < 0)
		abort();
	return root;
}

/* The directory stays without a name. */
static void unmake_root(int root)
{
	char path[64], target[64] = "";

	(void)unlinkat(root, "ssi-shadow", 0);
	(void)unlinkat(root, "program", 0);
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", root);
	if (readlink(path, target, sizeof(target) - 1) > 0)
		(void)rmdir(target);
	(void)close(root);
}

static uint64_t run(uint64_t seed, bool verbose, int root_fd)
{
	static const struct world_rooms rooms = { start, kill_rooms, check };
	_cleanup_free_ struct sim *s = calloc(1, sizeof(*s));
	uint64_t trace;

	if (!s)
		abort();
	s->w = world_new(seed, N_MACHINES, &rooms, s);
	sim_kernel_init(&s->kernel, s->w);
	s->kernel.root_fd = root_fd;
	world_set_verbose(s->w, verbose);
	for (unsigned i = 1; i <= N_MACHINES; i++) {
		s->machines[i] = (struct machine){ .sim = s, .slot = i, .id = i == 1 };
		(void)snprintf(s->machines[i].name, sizeof(s->machines[i].name), "node-%u", i);
		world_set_id(s->w, i, i == 1 ? 1 : 1000 + i);
		world_set_drift(s->w, i, (int)world_below(s->w, 100001) - 50000);
	}
	world_boot(s->w, 1);
	(void)world_at(s->w, NSEC_PER_SEC, on_joining, s);
	for (unsigned i = 0; i < 10 && (!s->machines[N_MACHINES].id || s->joining); i++)
		world_run(s->w, JOINING);
	(void)world_at(s->w, 0, on_scenario, s);
	world_run(s->w, CHAOS);
	calm_down(s);
	world_run(s->w, CALM);
	check_healed(s);
	if (verbose)
		printf("# seed %" PRIu64 ": %zu launched, %zu of %zu moved, view %" PRIu64 "\n",
		       seed, s->n_launched, s->n_moved, s->n_moves, s->newest);
	for (unsigned i = 1; i <= N_MACHINES; i++)
		kill_one(s, i, true);
	trace = world_trace(s->w);
	sim_kernel_fini(&s->kernel);
	s->w = world_free(s->w);
	return trace;
}

int main(int argc, char **argv)
{
	uint64_t seed, count = 50;
	struct rlimit files;
	bool verbose = false;
	int root;

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
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	root = make_root();
	printf("# seeds from %" PRIu64 "\n1..2\n", seed);
	for (uint64_t i = 0; i < count; i++)
		(void)run(seed + i, verbose, root);
	printf("ok 1 - %" PRIu64 " seeds, every invariant held after every step\n", count);
	for (uint64_t i = 0; i < count && i < 3; i++)
		if (run(seed + i, false, root) != run(seed + i, false, root)) {
			printf("not ok 2 - seed %" PRIu64 " has two traces\n", seed + i);
			return 1;
		}
	printf("ok 2 - the same seed gives the same trace\n");
	unmake_root(root);
	return 0;
}
