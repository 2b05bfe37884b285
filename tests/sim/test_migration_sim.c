/*
 * Processes are started, moved from anywhere to anywhere, signalled and ended, while
 * ssids are killed (also between two things that they do), machines lose their power, are paused
 * and cut off, and with --changes are removed and added by command, by a seed; then everything
 * heals.  What must hold is in sim_moves_judge.c; and here: who waits is told once, and what is
 * true.
 *
 *   test_migration_sim [--changes] [--seed S]... [--count N] [--verbose]
 */
#include "sim_moves.h"

#include "cleanup.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>

enum {
	N_SOULS_MAX = 24, /* that live */
	SEEDS_MAX = 64,
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
	struct process_launch l = { .argv = argv, .name = (char *)"", .stdio = { -1, -1, -1 } };
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
	c->capabilities = sim_capabilities(pid);
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

/* Members are removed and added, whoever asks and whatever else happens to them. */

static void on_changed(void *owner, const struct hotplug_result *result)
{
	struct ask *a = owner;
	struct sim *s = a->from->sim;

	world_note(s->w, a->from->slot, "ask %zu: status %d %s", (size_t)(a - s->asks),
		   result->status, result->text);
	world_check(s->w, !a->ended, "an answer came twice");
	world_check(s->w, a->boot == a->from->boot, "an answer came after its asker's death");
	a->ended = true;
	s->n_changed += result->status == RPC_OK;
}

static void change(struct machine *from, const struct hotplug_request *q)
{
	struct sim *s = from->sim;

	world_act(s->w, from->slot);
	world_note(s->w, from->slot, "ask %zu: %s %zu, the first is %u", s->n_asks,
		   q->what == HOTPLUG_ADD ? "add" : "remove", q->n_nodes, q->nodes[0]);
	world_check(s->w,
		    !hotplug_change(from->hotplug, q, on_progress, on_changed,
				    ask_new(from, NULL, CHANGE)),
		    "a change was not taken");
	world_act(s->w, 0);
}

/* Whoever may be ended by it. */
static void force(struct sim *s)
{
	struct sim_soul *soul;

	s->kernel.forced = true;
	LIST_FOREACH(soul, &s->kernel.souls, in)
		soul->may_die = true;
}

static size_t list_removed(struct sim *s, node_id ret[static N_MACHINES])
{
	size_t n = 0;

	for (unsigned i = 1; i <= N_MACHINES; i++)
		if (s->machines[i].state == MEMBER_REMOVED)
			ret[n++] = s->machines[i].id;
	return n;
}

static void change_one(struct sim *s)
{
	struct machine *from = any_machine(s);
	node_id nodes[N_MACHINES];
	struct hotplug_request q = {
		.what = world_chance(s->w, 500) ? HOTPLUG_ADD : HOTPLUG_REMOVE,
		.nodes = nodes,
		.dry_run = world_chance(s->w, 50),
		.timeout = (1 + world_below(s->w, 20)) * NSEC_PER_SEC,
	};

	if (!from)
		return;
	if (q.what == HOTPLUG_ADD)
		q.n_nodes = list_removed(s, nodes);
	else
		do
			nodes[q.n_nodes++] = s->machines[1 + world_below(s->w, N_MACHINES)].id;
		while (q.n_nodes < N_MACHINES && world_chance(s->w, 200));
	if (!q.n_nodes)
		return;
	q.force = world_chance(s->w, 50);
	if (q.force)
		force(s);
	change(from, &q);
}

/* In the end all are to be members: as an operator does who sees that some are not. */
static void on_adding(void *arg)
{
	struct sim *s = arg;
	node_id nodes[N_MACHINES];
	struct hotplug_request q = { .what = HOTPLUG_ADD, .nodes = nodes,
				     .timeout = 10 * NSEC_PER_SEC };

	q.n_nodes = list_removed(s, nodes);
	for (unsigned i = 1; q.n_nodes && i <= N_MACHINES; i++)
		if (s->machines[i].state == MEMBER_UP && is_there(&s->machines[i])) {
			change(&s->machines[i], &q);
			break;
		}
	(void)world_at(s->w, 5 * NSEC_PER_SEC, on_adding, s);
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
	if (s->changes && world_chance(s->w, 60))
		change_one(s);
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
	if (s->changes)
		(void)world_at(s->w, 0, on_adding, s);
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

/* Times that a process came to run where it was not born, in all seeds; in one seed of some hundred
 * there is none. */
static uint64_t n_abroad;

static uint64_t run(uint64_t seed, bool changes, bool verbose, int root_fd)
{
	_cleanup_free_ struct sim *s = calloc(1, sizeof(*s));
	uint64_t trace;

	if (!s)
		abort();
	s->changes = changes;
	s->w = world_new(seed, N_MACHINES, &sim_moves_rooms, s);
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
	sim_moves_join(s);
	for (unsigned i = 0; i < 10 && (!s->machines[N_MACHINES].id || s->joining); i++)
		world_run(s->w, JOINING);
	(void)world_at(s->w, 0, on_scenario, s);
	world_run(s->w, CHAOS);
	calm_down(s);
	world_run(s->w, CALM);
	sim_moves_check_healed(s);
	n_abroad += s->kernel.n_abroad;
	if (verbose)
		printf("# seed %" PRIu64 ": %zu launched, %zu of %zu moved, %zu changes, view %" PRIu64 "\n",
		       seed, s->n_launched, s->n_moved, s->n_moves, s->n_changed, s->newest);
	for (unsigned i = 1; i <= N_MACHINES; i++)
		kill_one(s, i, true);
	trace = world_trace(s->w);
	sim_kernel_fini(&s->kernel);
	s->w = world_free(s->w);
	return trace;
}

static volatile uint64_t running; /* seed */

/* What fails by a check says its seed itself. */
static void on_crash(int signal)
{
	(void)dprintf(STDERR_FILENO, "seed %" PRIu64 ": %s\n", running, strsignal(signal));
	(void)raise(signal); /* for good: see SA_RESETHAND */
}

/* False: a seed has two traces. */
static bool run_from(uint64_t seed, uint64_t count, unsigned n_twice, bool changes, bool verbose,
		     int root_fd)
{
	for (uint64_t i = 0; i < count; i++) {
		uint64_t trace;

		running = seed + i;
		trace = run(seed + i, changes, verbose, root_fd);

		if (i < n_twice && run(seed + i, changes, false, root_fd) != trace) {
			printf("not ok 1 - seed %" PRIu64 " has two traces\n", seed + i);
			return false;
		}
	}
	return true;
}

int main(int argc, char **argv)
{
	uint64_t seeds[SEEDS_MAX], count = 0;
	const struct sigaction crash = { .sa_handler = on_crash, .sa_flags = SA_RESETHAND };
	bool changes = false, verbose = false, ok = true;
	struct rlimit files;
	size_t n = 0;
	int root;

	log_set_level(0);
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--verbose")) {
			verbose = true;
			log_set_level(LOG_LEVEL_DEBUG);
		} else if (!strcmp(argv[i], "--changes")) {
			changes = true;
		} else if (!strcmp(argv[i], "--seed") && i + 1 < argc && n < SEEDS_MAX) {
			seeds[n++] = strtoull(argv[++i], NULL, 10);
		} else if (!strcmp(argv[i], "--count") && i + 1 < argc) {
			count = strtoull(argv[++i], NULL, 10);
		}
	}
	if (!count)
		count = n ? 1 : 50;
	if (!n) {
		(void)getrandom(&seeds[n++], sizeof(seeds[0]), 0);
		seeds[0] %= 1000000000;
	}
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	(void)sigaction(SIGSEGV, &crash, NULL);
	root = make_root();
	printf("# seeds from %" PRIu64 "\n1..1\n", seeds[0]);
	for (size_t i = 0; i < n && ok; i++)
		ok = run_from(seeds[i], count, verbose || i ? 0 : 3, changes, verbose, root);
	if (ok && n * count >= 10 && !n_abroad) {
		printf("not ok 1 - nothing has moved in %" PRIu64 " seeds\n", n * count);
		ok = false;
	} else if (ok)
		printf("ok 1 - %" PRIu64
		       " seeds: every invariant held after every step, one trace a seed\n",
		       n * count);
	unmake_root(root);
	return !ok;
}
