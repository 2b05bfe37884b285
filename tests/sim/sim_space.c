/* The doors of the space: ssi-init, groups, injection. */
#include "sim_kernel.h"

#include "cleanup.h"
#include "inject.h"
#include "sim_proc.h"
#include "space_group.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

struct space {
	struct sim_machine *machine;
	const struct env *env;
	const struct space_events *events;
	void *owner;
	struct env_timer turn;
	bool leased;
	nsec_t frozen_at; /* as it was told last */
};

/* The lease: what ssi-init does of it. */

static const struct env *own_env(void)
{
	return world_env(sim_kernel->w, 0);
}

static void look_at_all(struct sim_machine *m)
{
	struct sim_process *p;

	LIST_FOREACH(p, &m->processes, in)
		sim_look(p);
}

/* Nearer and nearer: the clock of the machine drifts against ours. */
static void arm_watchdog(struct sim_machine *m)
{
	nsec_t now = env_now(world_env(sim_kernel->w, m->slot));
	nsec_t left = m->lease_until > now ? m->lease_until - now : 0;

	(void)env_arm(own_env(), &m->watchdog, left > NSEC_PER_MSEC ? left - left / 8 : left);
}

static void on_watchdog(struct env_timer *timer)
{
	struct sim_machine *m = container_of(timer, struct sim_machine, watchdog);

	if (env_now(world_env(sim_kernel->w, m->slot)) < m->lease_until)
		return arm_watchdog(m);
	world_note(sim_kernel->w, m->slot, "the space freezes");
	m->frozen_at = m->lease_until;
	look_at_all(m);
}

static void set_lease(struct sim_machine *m, nsec_t until)
{
	bool was_frozen = m->frozen_at;

	if (was_frozen && until <= env_now(world_env(sim_kernel->w, m->slot)))
		return;
	m->lease_until = until;
	m->frozen_at = 0;
	m->watchdog.cb = on_watchdog;
	arm_watchdog(m);
	if (!was_frozen)
		return;
	world_note(sim_kernel->w, m->slot, "the space thaws");
	look_at_all(m);
}

void sim_space_lose_power(struct sim_machine *m)
{
	env_disarm(own_env(), &m->watchdog);
	m->lease_until = m->frozen_at = 0;
}

/* Ends and stops, one a turn. */

static bool tell_one(struct space *s)
{
	struct sim_process *p;

	LIST_FOREACH(p, &s->machine->processes, in) {
		struct space_exit exit = { p->pid, p->code, p->status };

		if (p->tell_stop) {
			p->tell_stop = false;
			s->events->on_stop(s->owner, p->pid, p->stop_signal);
			return true;
		}
		if (p->tell_exit) {
			p->tell_exit = false;
			world_note(sim_kernel->w, s->machine->slot, "told: %d has ended", p->pid);
			s->events->on_exit(s->owner, &exit);
			return true;
		}
	}
	return false;
}

static void on_turn(struct env_timer *timer)
{
	struct space *s = container_of(timer, struct space, turn);

	if (tell_one(s))
		(void)env_arm(s->env, &s->turn, 0);
}

void sim_space_tell(struct sim_machine *m)
{
	if (m->space && !m->deaf)
		(void)env_arm(m->space->env, &m->space->turn, 0);
}

int space_new(struct space **ret, const struct env *env, const struct space_config *config,
	      const struct space_events *events, void *owner)
{
	struct space *s = calloc(1, sizeof(*s));
	struct sim_process *p;

	(void)config;
	assert(s);
	*s = (struct space){ .machine = sim_here(),
			     .env = env,
			     .events = events,
			     .owner = owner,
			     .turn.cb = on_turn };
	s->frozen_at = s->machine->frozen_at;
	LIST_FOREACH(p, &s->machine->processes, in) {
		p->tell_exit = p->tracked && p->zombie;
		p->tell_stop = p->tracked && !p->zombie && p->stop_signal;
	}
	s->machine->space = s;
	sim_space_tell(s->machine);
	*ret = s;
	return 0;
}

struct space *space_free(struct space *s)
{
	if (!s)
		return NULL;
	env_disarm(s->env, &s->turn);
	s->machine->space = NULL;
	free(s);
	return NULL;
}

int space_root_fd(const struct space *s)
{
	return s->machine->kernel->root_fd;
}

int space_proc_fd(const struct space *s)
{
	return SIM_PROC_FD + (int)s->machine->slot;
}

struct sim_machine *sim_machine_of(const struct space *s)
{
	return s->machine;
}

int space_spawn(struct space *s, const struct space_spawn *spec, pid_t *ret_pid, int *ret_pidfd)
{
	struct sim_machine *m = s->machine;
	bool shadow = strstr(spec->argv[0], "ssi-shadow");
	pid_t pid = spec->set_tid ? spec->set_tid : sim_next_pid(m);
	struct sim_process *p;

	assert(!ret_pidfd && spec->n_fds >= 1);
	if (sim_is_deaf(m))
		return -ENOTCONN;
	if (!pid)
		return SPACE_E_FULL;
	if (sim_find(m, pid))
		return SPACE_E_PID_TAKEN;
	p = sim_process_new(m, pid, 1);
	p->tracked = spec->flags & SPACE_SPAWN_TRACK;
	if (shadow) {
		sim_shadow_start(p, fcntl(spec->fds[0], F_DUPFD_CLOEXEC, 0));
	} else {
		p->capabilities = sim_capabilities(pid);
		p->soul = sim_soul_new(m->kernel, pid, pid, m->slot);
		sim_look(p);
	}
	*ret_pid = pid;
	return 0;
}

int capability_leaf(struct space *s, const struct capability_sets *sets, int *ret_fd)
{
	(void)s;
	(void)sets;
	*ret_fd = -1;
	return 0;
}

int space_track(struct space *s, pid_t pid)
{
	struct sim_process *p = sim_find(s->machine, pid);

	if (!p || p->ppid != 1)
		return SPACE_E_ABSENT;
	if (!sim_is_deaf(s->machine))
		p->tracked = true;
	world_note(sim_kernel->w, s->machine->slot, "%d is tracked", pid);
	return 0;
}

int space_reap(struct space *s, pid_t pid)
{
	struct sim_process *p = sim_find(s->machine, pid);

	if (sim_is_deaf(s->machine) || !p || p->ppid != 1 || !p->tracked)
		return 0;
	world_note(sim_kernel->w, s->machine->slot, "%d is reaped", pid);
	p->tracked = p->tell_exit = p->tell_stop = false;
	if (p->zombie)
		sim_bury(p);
	return 0;
}

/* The keeper. */

static struct sim_kept *kept_find(struct space *s, const char *name)
{
	struct sim_kept *k;

	LIST_FOREACH(k, &s->machine->kept, in)
		if (!strcmp(k->name, name))
			return k;
	return NULL;
}

static struct sim_kept *kept_new(struct space *s, const char *name, int owned_fd)
{
	struct sim_kept *k = calloc(1, sizeof(*k));

	assert(k && owned_fd >= 0 && strlen(name) < sizeof(k->name));
	strcpy(k->name, name);
	k->fd = owned_fd;
	LIST_INSERT_HEAD(&s->machine->kept, k, in);
	return k;
}

int space_drop(struct space *s, const char *name)
{
	struct sim_kept *k = kept_find(s, name);

	if (!k)
		return SPACE_E_ABSENT;
	if (sim_is_deaf(s->machine))
		return 0;
	LIST_REMOVE(k, in);
	(void)close(k->fd);
	free(k);
	return 0;
}

int space_keep(struct space *s, const char *name, int fd)
{
	if (sim_is_deaf(s->machine))
		return -ENOTCONN;
	(void)space_drop(s, name);
	(void)kept_new(s, name, fcntl(fd, F_DUPFD_CLOEXEC, 0));
	return 0;
}

int space_kept(struct space *s, const char *name, int *ret_fd)
{
	struct sim_kept *k = kept_find(s, name);

	if (!k)
		return SPACE_E_ABSENT;
	*ret_fd = sim_give(s->machine, fcntl(k->fd, F_DUPFD_CLOEXEC, 0));
	return 0;
}

int space_each_kept(struct space *s, const char *prefix,
		    int (*cb)(void *owner, const char *name), void *owner)
{
	struct sim_kept *k;
	int r = 0;

	LIST_FOREACH(k, &s->machine->kept, in)
		if (!r && !strncmp(k->name, prefix, strlen(prefix)))
			r = cb(owner, k->name);
	return r;
}

int space_state(struct space *s, const char *name, size_t size, void **ret, bool *ret_fresh)
{
	struct sim_kept *k = kept_find(s, name);

	*ret_fresh = !k;
	if (!k) {
		k = kept_new(s, name, memfd_create(name, MFD_CLOEXEC));
		k->size = size;
		assert(ftruncate(k->fd, (off_t)size) == 0);
	}
	assert(k->size == size);
	*ret = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, k->fd, 0);
	assert(*ret != MAP_FAILED);
	return 0;
}

/* The lease: what ssid knows of it, and ssi-init is told. */

static int tell_lease(struct space *s, bool thaw, nsec_t until, nsec_t *ret_frozen_at)
{
	struct sim_machine *m = s->machine;

	*ret_frozen_at = 0;
	if (sim_is_deaf(m))
		return -ENOTCONN;
	*ret_frozen_at = m->frozen_at;
	if (until && (!m->frozen_at || thaw))
		set_lease(m, until);
	s->leased = m->lease_until && !m->frozen_at;
	return 0;
}

int space_lease(struct space *s, nsec_t until, bool thaw, nsec_t *ret_frozen_at)
{
	int r = tell_lease(s, thaw, until, ret_frozen_at);

	if (r == 0)
		s->frozen_at = s->machine->frozen_at;
	return r;
}

void space_lease_ended(struct space *s)
{
	(void)tell_lease(s, false, env_now(s->env), &s->frozen_at);
	if (!s->frozen_at)
		s->frozen_at = env_now(s->env);
}

bool space_may_run(struct space *s)
{
	nsec_t frozen_at;

	return tell_lease(s, false, 0, &frozen_at) == 0 && s->leased;
}

bool space_pids_are_few(const struct space *s)
{
	return false;
}

bool space_is_frozen(const struct space *s)
{
	return s->frozen_at;
}

nsec_t space_frozen_at(const struct space *s)
{
	return s->frozen_at;
}

/* PIDs: one block is enough for a test. */
int space_pids_add(struct space *s, pid_t first, pid_t n)
{
	struct sim_machine *m = s->machine;

	if (m->n)
		return 0;
	m->first = first;
	m->n = n;
	if (!m->last)
		m->last = first - 1;
	return 0;
}

/* Groups. */

struct space_group {
	struct sim_machine *machine;
	char name[64];
};

static struct sim_group *leaf(const struct space_group *g)
{
	return sim_group(g->machine, g->name);
}

int space_group_open(struct space *s, const char *name, struct space_group **ret)
{
	struct space_group *g = calloc(1, sizeof(*g));

	assert(g);
	g->machine = s->machine;
	(void)snprintf(g->name, sizeof(g->name), "%s", name);
	if (!sim_is_deaf(s->machine))
		(void)leaf(g);
	*ret = g;
	return 0;
}

static void remove_empty(struct sim_machine *m, struct sim_group *g)
{
	struct sim_process *p;

	LIST_FOREACH(p, &m->processes, in)
		if (p->group == g)
			return;
	LIST_REMOVE(g, in);
	free(g);
}

struct space_group *space_group_close(struct space_group *g)
{
	if (g && !sim_is_deaf(g->machine))
		remove_empty(g->machine, leaf(g));
	free(g);
	return NULL;
}

/* The name is enough to find it again. */
const char *space_group_path(const struct space_group *g)
{
	return g->name;
}

int space_group_take(struct space_group *g, pid_t pid)
{
	struct sim_process *p = sim_find(g->machine, pid);

	if (sim_is_deaf(g->machine))
		return -EIO;
	if (!p || p->zombie)
		return SPACE_GROUP_E_GONE;
	p->group = leaf(g);
	sim_look(p);
	return 0;
}

int space_group_take_tree(struct space_group *g, pid_t root)
{
	struct sim_process *p = sim_find(g->machine, root);

	if (!p || p->zombie)
		return SPACE_GROUP_E_GONE;
	LIST_FOREACH(p, &g->machine->processes, in)
		if (!p->zombie && sim_is_below(p, root))
			(void)space_group_take(g, p->pid);
	return 0;
}

int space_group_pids(struct space_group *g, pid_t **ret, size_t *ret_n)
{
	struct sim_process *p;

	*ret_n = 0;
	LIST_FOREACH(p, &g->machine->processes, in)
		*ret_n += p->group == leaf(g);
	*ret = calloc(*ret_n + 1, sizeof(**ret));
	assert(*ret);
	*ret_n = 0;
	LIST_FOREACH(p, &g->machine->processes, in)
		if (p->group == leaf(g))
			(*ret)[(*ret_n)++] = p->pid;
	return 0;
}

int space_group_freeze(struct space_group *g, nsec_t timeout)
{
	struct sim_kernel *k = g->machine->kernel;

	(void)timeout;
	if (sim_is_deaf(g->machine))
		return -EIO;
	if (!k->calm && world_chance(k->w, 10))
		return SPACE_GROUP_E_TIMEOUT;
	sim_group_freeze(g->machine, leaf(g), true);
	return 0;
}

int space_group_thaw(struct space_group *g)
{
	if (!sim_is_deaf(g->machine))
		sim_group_freeze(g->machine, leaf(g), false);
	return 0;
}

int space_group_kill(struct space_group *g, nsec_t timeout)
{
	(void)timeout;
	if (!sim_is_deaf(g->machine))
		sim_group_kill(g->machine, leaf(g));
	return 0;
}

/* Injection: within one call of a worker, so nobody ends meanwhile but by us. */

enum { SCRATCH = 0x10000 };

struct inject {
	struct sim_machine *machine;
	pid_t pid;
	int given; /* what will be its descriptor 3 */
	uint8_t scratch[256];
};

static struct sim_process *of(const struct inject *i)
{
	struct sim_process *p = sim_find(i->machine, i->pid);

	return p && !p->zombie ? p : NULL;
}

int inject_attach(struct inject **ret, int proc_fd, pid_t pid)
{
	struct sim_machine *m = &sim_kernel->machines[proc_fd - SIM_PROC_FD];
	struct sim_process *p = sim_find(m, pid);
	struct inject *i;

	if (sim_is_deaf(m) || !p || p->zombie)
		return INJECT_E_GONE;
	if (!m->kernel->calm && world_chance(m->kernel->w, 10))
		return INJECT_E_TRACED;
	i = calloc(1, sizeof(*i));
	assert(i);
	*i = (struct inject){ .machine = m, .pid = pid, .given = -1 };
	p->held++;
	sim_look(p);
	*ret = i;
	return 0;
}

struct inject *inject_detach(struct inject *i)
{
	struct sim_process *p = i ? of(i) : NULL;

	if (p && p->held) {
		p->held--;
		sim_look(p);
	}
	if (i)
		(void)close_fd(i->given);
	free(i);
	return NULL;
}

uint64_t inject_scratch(struct inject *i)
{
	(void)i;
	return SCRATCH;
}

int inject_read(struct inject *i, uint64_t address, void *ret, size_t len)
{
	assert(address >= SCRATCH && address - SCRATCH + len <= sizeof(i->scratch));
	memcpy(ret, i->scratch + (address - SCRATCH), len);
	return of(i) ? 0 : INJECT_E_GONE;
}

int inject_write(struct inject *i, uint64_t address, const void *data, size_t len)
{
	assert(address >= SCRATCH && address - SCRATCH + len <= sizeof(i->scratch));
	memcpy(i->scratch + (address - SCRATCH), data, len);
	return of(i) ? 0 : INJECT_E_GONE;
}

static long wait_for_signal(struct inject *i, struct sim_process *p, const long args[static 6])
{
	siginfo_t info = { .si_signo = SIGUSR1, .si_code = SI_USER };
	uint64_t set;

	(void)inject_read(i, (uint64_t)args[0], &set, sizeof(set));
	if (!(set & 1ull << (SIGUSR1 - 1)) || !p->pending)
		return -EAGAIN;
	p->pending--;
	(void)inject_write(i, (uint64_t)args[1], &info, sizeof(info));
	return SIGUSR1;
}

int inject_call(struct inject *i, long nr, const long args[static 6], long *ret)
{
	struct sim_process *p = of(i);
	siginfo_t info;

	if (!p)
		return INJECT_E_GONE;
	if (p->machine->frozen_at)
		return INJECT_E_TIMEOUT;
	*ret = 0;
	if (nr == SYS_rt_sigtimedwait) {
		*ret = wait_for_signal(i, p, args);
	} else if (nr == SYS_rt_sigqueueinfo) {
		(void)inject_read(i, (uint64_t)args[2], &info, sizeof(info));
		p->signalled_at = world_now(sim_kernel->w);
		*ret = sim_signal(i->machine, (pid_t)args[0], (int)args[1], &info, false);
	}
	return of(i) ? 0 : INJECT_E_GONE;
}

int inject_give_fd(struct inject *i, int fd, int cloexec, int *ret)
{
	if (!of(i))
		return INJECT_E_GONE;
	if (i->machine->frozen_at)
		return INJECT_E_TIMEOUT;
	*ret = 4;
	if (cloexec) /* the program */
		return 0;
	i->given = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	*ret = SHADOW_FD;
	return 0;
}

int inject_exec(struct inject *i, int fd, const char *const *argv, const char *const *envp)
{
	struct sim_process *p = of(i);
	unsigned pending;

	(void)fd;
	(void)argv;
	(void)envp;
	if (!p)
		return INJECT_E_GONE;
	if (p->machine->frozen_at)
		return INJECT_E_TIMEOUT;
	pending = p->pending;
	p->pending = 0;
	sim_soul_leaves(p, SIM_GIVEN_UP);
	sim_shadow_start(p, TAKE_FD(i->given));
	/* What still pends is what it takes first. */
	while (pending--)
		sim_shadow_take(p, SIGUSR1, NULL);
	return 0;
}
