/* Processes, groups, signals, and what is kept. */
#include "sim_kernel.h"

#include "cleanup.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

/* What a worker has done, in the worst case. */
#define TOLD_WITHIN (10 * NSEC_PER_MSEC)

struct sim_kernel *sim_kernel;

struct sim_machine *sim_here(void)
{
	unsigned slot = world_acting(sim_kernel->w);

	assert(slot);
	return &sim_kernel->machines[slot];
}

/* Souls. */

struct sim_soul *sim_soul_new(struct sim_kernel *k, pid_t pid, pid_t app, unsigned home)
{
	struct sim_soul *soul = calloc(1, sizeof(*soul));

	assert(soul);
	soul->pid = pid;
	soul->app = app ? app : pid;
	soul->home = home;
	soul->may_die = k->forced;
	LIST_INSERT_HEAD(&k->souls, soul, in);
	return soul;
}

unsigned sim_soul_copies(const struct sim_soul *soul, struct sim_process **ret_last)
{
	unsigned n = 0;

	for (unsigned i = 1; i <= SIM_MACHINES; i++) {
		struct sim_process *p = sim_find(&sim_kernel->machines[i], soul->pid);

		if (!p || p->soul != soul || p->restoring || p->zombie)
			continue;
		*ret_last = p;
		n++;
	}
	return n;
}

/* After which nobody may know that it ended. */
static unsigned home_cuts(const struct sim_soul *soul)
{
	return sim_kernel->machines[soul->home].n_cuts + sim_kernel->machines[soul->home].n_outs;
}

/* A copy that never ran may be given up yet, when that which did was lost with its machine. */
static bool lives_on(const struct sim_soul *soul, bool only_if_it_ran)
{
	for (unsigned i = 1; i <= SIM_MACHINES; i++) {
		const struct sim_process *p = sim_find(&sim_kernel->machines[i], soul->pid);

		if (p && p->soul == soul && !p->restoring && p->step == soul->step &&
		    (p->ran || !only_if_it_ran))
			return true;
	}
	return false;
}

void sim_soul_leaves(struct sim_process *p, enum sim_end end)
{
	struct sim_soul *soul = TAKE(p->soul);

	p->live = false;
	if (!soul || p->restoring || soul->end != SIM_LIVES || p->step != soul->step)
		return;
	if (lives_on(soul, end == SIM_POWER)) {
		/* This one may have been committed, and not have come to run. */
		soul->was_lost |= end == SIM_POWER;
		return;
	}
	if (end == SIM_GIVEN_UP && soul->may_die)
		end = SIM_SIGNALLED;
	world_check(sim_kernel->w,
		    end != SIM_GIVEN_UP || soul->was_lost || soul->went_back,
		    "the last copy of process %d is killed on machine %u", soul->pid,
		    p->machine->slot);
	soul->end = end;
	soul->died_on = p->machine;
	soul->n_cuts = p->machine->n_cuts - (end == SIM_POWER);
	soul->n_outs = p->machine->n_outs - p->machine->out;
	soul->n_home_cuts = home_cuts(soul);
	soul->code = p->code;
	soul->status = p->status;
	world_note(sim_kernel->w, p->machine->slot, "process %d is no more: %d (%d %d)",
		   soul->pid, end, p->code, p->status);
}

/*
 * Its target ran it, and died with the power or was lost before the source had heard so: the
 * source can only go on with what it has.  Known not to hold: so it does when its home had been
 * told of the end, and has lost that with its power.
 */
static bool may_go_back(const struct sim_soul *soul)
{
	const struct sim_machine *m = soul->died_on;

	if (soul->end != SIM_LIVES)
		return m->n_cuts > soul->n_cuts || m->n_outs > soul->n_outs ||
		       home_cuts(soul) > soul->n_home_cuts ||
		       (soul->end == SIM_GIVEN_UP && soul->was_lost);
	for (unsigned i = 1; i <= SIM_MACHINES; i++) {
		struct sim_machine *on = &sim_kernel->machines[i];
		struct sim_process *p = sim_find(on, soul->pid);

		if (p && p->soul == soul && p->step == soul->step && !on->frozen_at)
			return false;
	}
	return true;
}

static void go_back(struct sim_process *p)
{
	struct sim_soul *soul = p->soul;

	world_note(sim_kernel->w, p->machine->slot, "process %d goes on as it was", soul->pid);
	soul->was_lost |= soul->end != SIM_LIVES; /* and its home may know that */
	soul->end = SIM_LIVES;
	soul->went_back |= p->step != soul->step;
}

static void run(struct sim_process *p)
{
	struct sim_soul *soul = p->soul;
	struct world *w = sim_kernel->w;

	for (unsigned i = 1; i <= SIM_MACHINES; i++) {
		struct sim_process *other =
			sim_find(&sim_kernel->machines[i], soul->pid);

		world_check(w,
			    !other || other == p || other->soul != soul || !other->live,
			    "process %d runs on machine %u, and on %u", soul->pid,
			    p->machine->slot, i);
	}
	world_check(w, !p->missing, "process %d runs without pieces %x of its memory",
		    soul->pid, p->missing);
	if (p->step != soul->step || soul->end != SIM_LIVES) {
		world_check(w, may_go_back(soul),
			    "process %d runs again on machine %u as it was at step %" PRIu64
			    ", and has come to %" PRIu64, soul->pid, p->machine->slot, p->step,
			    soul->step);
		go_back(p);
	}
	p->step = ++soul->step;
	p->ran = true;
	soul->n_signals += p->pending;
	p->pending = 0;
}

struct capability_sets sim_capabilities(pid_t pid)
{
	return capability_initial(pid & 1);
}

void sim_look(struct sim_process *p)
{
	struct capability_sets sets = sim_capabilities(p->pid);
	bool was = p->live;

	if (p->shadow)
		return sim_shadow_look(p);
	p->live = p->soul && !p->zombie && !p->restoring && !p->held &&
		  !p->machine->frozen_at && !(p->group && p->group->frozen);
	if (p->live == was)
		return;
	world_note(sim_kernel->w, p->machine->slot, "process %d %s", p->pid,
		   p->live ? "runs" : "stands");
	if (!p->live)
		return;
	sim_kernel->n_abroad += p->soul->home != p->machine->slot;
	world_check(sim_kernel->w, capability_equal(&p->capabilities, &sets),
		    "process %d runs with other capabilities", p->pid);
	run(p);
}

/* Processes. */

struct sim_process *sim_find(struct sim_machine *m, pid_t pid)
{
	struct sim_process *p;

	LIST_FOREACH(p, &m->processes, in)
		if (p->pid == pid)
			return p;
	return NULL;
}

bool sim_is_below(const struct sim_process *p, pid_t ancestor)
{
	while (p && p->pid != ancestor)
		p = sim_find(p->machine, p->ppid);
	return p;
}

pid_t sim_next_pid(struct sim_machine *m)
{
	for (pid_t i = 0; i < m->n; i++) {
		if (++m->last >= m->first + m->n || m->last < m->first)
			m->last = m->first;
		if (!sim_find(m, m->last))
			return m->last;
	}
	return 0;
}

struct sim_process *sim_process_new(struct sim_machine *m, pid_t pid, pid_t ppid)
{
	struct sim_process *p = calloc(1, sizeof(*p));

	assert(p && !sim_find(m, pid));
	p->machine = m;
	p->pid = p->pgid = p->sid = pid;
	p->ppid = ppid;
	p->socket.fd = -1;
	p->capabilities = capability_initial(false);
	LIST_INSERT_HEAD(&m->processes, p, in);
	return p;
}

void sim_bury(struct sim_process *p)
{
	LIST_REMOVE(p, in);
	free(p);
}

static bool reaps_at_once(struct sim_machine *m, const struct sim_process *p)
{
	struct sim_process *parent = sim_find(m, p->ppid);

	return p->ppid == 1 || !parent ? !p->tracked : true;
}

static void leave_children(struct sim_process *p)
{
	struct sim_process *c, *next;

	for (c = LIST_FIRST(&p->machine->processes); c; c = next) {
		next = LIST_NEXT(c, in);
		if (c->ppid != p->pid)
			continue;
		c->ppid = 1;
		c->tracked = false;
		if (c->zombie)
			sim_bury(c);
	}
}

static void end(struct sim_process *p, enum sim_end why, int code, int status)
{
	struct sim_machine *m = p->machine;

	assert(!p->zombie);
	world_note(sim_kernel->w, m->slot, "%s %d ends (%d %d)",
		   p->shadow ? "shadow" : "process", p->pid, code, status);
	p->zombie = true;
	p->stopped = false;
	p->code = code;
	p->status = status;
	p->group = NULL;
	sim_soul_leaves(p, why);
	sim_shadow_end(p);
	while (p->n_pidfds)
		(void)close(p->pidfds[--p->n_pidfds]);
	leave_children(p);
	if (reaps_at_once(m, p)) {
		sim_bury(p);
		return;
	}
	p->tell_exit = true;
	sim_space_tell(m);
}

void sim_exit(struct sim_process *p, int code, int status)
{
	end(p, code == CLD_EXITED ? SIM_EXITED : SIM_SIGNALLED, code, status);
}

static void stop(struct sim_process *p, bool stopped, int signal)
{
	if (p->stopped == stopped)
		return;
	p->stopped = stopped;
	p->stop_signal = signal;
	p->tell_stop = p->tracked;
	sim_look(p);
	sim_space_tell(p->machine);
}

int sim_signal(struct sim_machine *m, pid_t pid, int signal, const siginfo_t *info,
	       bool by_room)
{
	struct sim_process *p = sim_find(m, pid);

	if (!p)
		return -ESRCH;
	if (!signal || p->zombie)
		return 0;
	world_note(sim_kernel->w, m->slot, "signal %d for %s %d", signal,
		   p->shadow ? "shadow" : "process", pid);
	if (signal == SIGKILL) {
		end(p, by_room ? SIM_GIVEN_UP : SIM_SIGNALLED, CLD_KILLED, SIGKILL);
		return 0;
	}
	if (signal == SIGSTOP || signal == SIGCONT)
		stop(p, signal == SIGSTOP, signal);
	if (p->shadow && signal != SIGSTOP)
		sim_shadow_take(p, signal, info);
	else if (signal == SIGTERM)
		end(p, SIM_SIGNALLED, CLD_KILLED, SIGTERM);
	else if (signal == SIGUSR1 && p->live)
		p->soul->n_signals++;
	else if (signal == SIGUSR1)
		p->pending++;
	return 0;
}

/* Groups. */

struct sim_group *sim_group(struct sim_machine *m, const char *name)
{
	struct sim_group *g;

	LIST_FOREACH(g, &m->groups, in)
		if (!strcmp(g->name, name))
			return g;
	g = calloc(1, sizeof(*g));
	assert(g);
	(void)snprintf(g->name, sizeof(g->name), "%s", name);
	LIST_INSERT_HEAD(&m->groups, g, in);
	return g;
}

void sim_group_freeze(struct sim_machine *m, struct sim_group *g, bool frozen)
{
	struct sim_process *p;

	world_note(sim_kernel->w, m->slot, "%s %s", frozen ? "freezes" : "thaws", g->name);
	g->frozen = frozen;
	LIST_FOREACH(p, &m->processes, in)
		if (p->group == g)
			sim_look(p);
}

void sim_group_kill(struct sim_machine *m, struct sim_group *g)
{
	struct sim_process *p;

	world_note(sim_kernel->w, m->slot, "kills %s", g->name);
again:
	LIST_FOREACH(p, &m->processes, in)
		if (p->group == g && !p->zombie) {
			end(p, SIM_GIVEN_UP, CLD_KILLED, SIGKILL);
			goto again; /* others went with it */
		}
	g->frozen = false;
}

/* Descriptors. */

static ino_t inode_of(int fd)
{
	struct stat st;

	return fstat(fd, &st) < 0 ? 0 : st.st_ino;
}

/* The number may be ours by now, and of the same socket. */
static bool is_theirs(const struct sim_machine *m, size_t i)
{
	const struct sim_process *p;
	const struct sim_kept *k;

	LIST_FOREACH(p, &m->processes, in)
		if (p->socket.fd == m->given[i].fd)
			return false;
	LIST_FOREACH(k, &m->kept, in)
		if (k->fd == m->given[i].fd)
			return false;
	return inode_of(m->given[i].fd) == m->given[i].inode;
}

int sim_give(struct sim_machine *m, int fd)
{
	/* Those that they have closed meanwhile make room. */
	if (m->n_given == N_ELEMENTS(m->given)) {
		size_t n = 0;

		for (size_t i = 0; i < m->n_given; i++)
			if (is_theirs(m, i))
				m->given[n++] = m->given[i];
		m->n_given = n;
		assert(n < N_ELEMENTS(m->given));
	}
	m->given[m->n_given].fd = fd;
	m->given[m->n_given++].inode = inode_of(fd);
	return fd;
}

/* The end of ssid, and of the machine. */

/* The memory that ssi-init keeps is as it is now, whatever the rooms go on to do. */
static void save_states(struct sim_machine *m)
{
	struct sim_kept *k;

	LIST_FOREACH(k, &m->kept, in) {
		if (!k->size)
			continue;
		k->saved = malloc(k->size);
		assert(k->saved && pread(k->fd, k->saved, k->size, 0) == (ssize_t)k->size);
	}
}

static void put_states_back(struct sim_machine *m)
{
	struct sim_kept *k;

	LIST_FOREACH(k, &m->kept, in) {
		if (!k->saved)
			continue;
		assert(pwrite(k->fd, k->saved, k->size, 0) == (ssize_t)k->size);
		free(TAKE(k->saved));
	}
}

bool sim_is_deaf(struct sim_machine *m)
{
	if (m->deaf || !m->die_after || --m->die_after)
		return m->deaf;
	world_note(sim_kernel->w, m->slot, "is killed in the middle");
	save_states(m);
	world_mute(sim_kernel->w, m->slot);
	return m->deaf = m->dying = true;
}

void sim_kernel_dying(struct sim_machine *m)
{
	m->deaf = true;
}

static void lose_power(struct sim_machine *m)
{
	struct sim_process *p;
	struct sim_group *g;
	struct sim_kept *k;

	m->n_cuts++;
	sim_space_lose_power(m);
	while ((p = LIST_FIRST(&m->processes))) {
		p->tracked = false;
		if (p->zombie)
			sim_bury(p);
		else
			end(p, SIM_POWER, CLD_KILLED, SIGKILL);
	}
	while ((g = LIST_FIRST(&m->groups))) {
		LIST_REMOVE(g, in);
		free(g);
	}
	while ((k = LIST_FIRST(&m->kept))) {
		LIST_REMOVE(k, in);
		(void)close(k->fd);
		free(k);
	}
	/* Where it was, so that no number is given twice while its first owner may live
	 * elsewhere: that a true node begins anew is not told here. */
	m->first = m->n = 0;
}

void sim_kernel_died(struct sim_machine *m, bool power)
{
	const nsec_t ran_until = world_ran_until(sim_kernel->w, m->slot);
	struct sim_process *p;

	for (size_t i = 0; i < m->n_given; i++)
		if (is_theirs(m, i))
			(void)close(m->given[i].fd);
	m->n_given = 0;
	m->space = NULL;
	put_states_back(m);
	/* What a tracer of it held runs on. */
	LIST_FOREACH(p, &m->processes, in) {
		p->held = 0;
		if (p->soul && (p->restoring || (p->group && p->group->frozen) ||
				ran_until - p->signalled_at < TOLD_WITHIN))
			p->soul->repeats = true;
		sim_look(p);
	}
	if (power)
		lose_power(m);
	m->deaf = m->dying = false;
	m->die_after = 0;
}

void sim_kernel_init(struct sim_kernel *k, struct world *w)
{
	*k = (struct sim_kernel){ .w = w, .root_fd = -1 };
	LIST_INIT(&k->souls);
	for (unsigned i = 0; i <= SIM_MACHINES; i++) {
		struct sim_machine *m = &k->machines[i];

		m->kernel = k;
		m->slot = i;
		LIST_INIT(&m->processes);
		LIST_INIT(&m->groups);
		LIST_INIT(&m->kept);
	}
	sim_kernel = k;
}

void sim_kernel_fini(struct sim_kernel *k)
{
	struct sim_soul *soul;

	for (unsigned i = 1; i <= SIM_MACHINES; i++)
		lose_power(&k->machines[i]);
	while ((soul = LIST_FIRST(&k->souls))) {
		LIST_REMOVE(soul, in);
		free(soul);
	}
	sim_kernel = NULL;
}
