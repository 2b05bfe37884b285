/*
 * The way out: the frozen original of a process that now runs elsewhere becomes
 * its shadow.
 *
 * Happy path, on a worker: every thread of every member is held by the injection
 * door, the tree is thawed (it cannot run), and children first, each main thread
 * clears its timers, drops the pending signals that its image
 * has, gets the socket as descriptor 3 and executes ssi-shadow.
 *
 * Why children first: a thread that ends with its parent's exec sends PDEATHSIG,
 * and executing a set-uid program clears it.
 *
 * Failure modes: a member died while it was frozen -> so must the real one; the
 * door does not open -> the original is killed, and a shadow made by ssi-init
 * stands in for it where the parent is ssi-init; ssid dies in between -> the
 * records say AWAY and moving, and the repeated departure skips those who are shadows.
 */
#include "process_internal.h"
#include "process_pending.h"

#include "err.h"
#include "inject.h"
#include "log.h"
#include "space_group.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>

enum {
	ARGS_MAX = 32,
	ARG_BYTES = 1024, /* of a command line that `ps` goes on showing */
	DRAIN_MAX = 4096,
};

enum leaving_result { LEFT, KILLED, FAILED };

struct leaving {
	struct process_member member;
	bool guest; /* home elsewhere: killed, nothing stays */
	bool done;  /* is a shadow already */
	bool newer; /* it has come again since, or ended: not the one that leaves */
	int socket; /* what will be its descriptor 3 */
	struct inject *inject;
	enum leaving_result result;
};

struct process_departure {
	struct process_room *room;
	struct space_group *group, *shadows;
	struct process_pending *pending;
	int program, proc_fd;
	size_t n;
	struct leaving leaving[];
};

/* -- On the loop, before -- */

static struct process_departure *departure_free(struct process_departure *d)
{
	if (!d)
		return NULL;
	for (size_t i = 0; i < d->n; i++)
		(void)close_fd(d->leaving[i].socket);
	(void)close_fd(d->program);
	process_pending_free(d->pending);
	space_group_close(d->shadows);
	free(d);
	return NULL;
}

DEFINE_CLEANUP(struct process_departure, departure_free)

static int prepare(struct process_departure *d, struct leaving *l, node_id to,
		   uint64_t incarnation)
{
	struct process_room *p = d->room;
	const struct process_member *m = &l->member;
	node_id home = membership_home(p->membership, m->pid);
	struct process_entry e = {.record = {.pid = m->pid,
					     .app = m->app,
					     .name = m->name,
					     .root = d->leaving[0].member.pid,
					     .home = room_self(p),
					     .place = to,
					     .generation = m->generation,
					     .state = PROCESS_AWAY,
					     .uid = m->uid,
					     .moving = true},
				  .place_incarnation = incarnation};
	const struct process_entry *found = process_table_find(p->table, m->pid);
	int r;

	/* Or it has left, before ssid was killed, and ended there. */
	l->newer = found && (found->record.generation > m->generation ||
			     (found->record.generation == m->generation &&
			      found->record.state == PROCESS_ENDED));
	if (l->newer)
		return 0;
	/* Not a new move: repeated after a restart of ssid, or come home in vain. */
	if (found && found->record.generation == m->generation) {
		e.sequence = found->sequence;
		if (found->record.state == PROCESS_AWAY)
			e.place_incarnation = found->place_incarnation;
	}
	l->guest = home != NODE_NONE && home != room_self(p);
	if (l->guest) {
		guest_forget(p, m->pid);
		process_table_remove(p->table,
				     m->pid); /* its exit is reaped in silence */
		wait_moved(p, m->pid);
		return 0;
	}
	l->done = room_is_shadow(p, m->pid) && shadow_stands(p, m->pid);
	if (!l->done) {
		r = shadow_connect(p, m->pid, &l->socket);
		if (r < 0)
			return r;
		shadow_name(p, m->pid, "ssi-shadow");
	}
	return room_put(p, &e);
}

static bool is_leaving(const struct process_departure *d, pid_t pid)
{
	for (size_t i = 0; i < d->n; i++)
		if (d->leaving[i].member.pid == pid)
			return true;
	return false;
}

/* A predecessor was killed in the middle: who had its parent among those that are gone is a
 * child of ssi-init now, and none of the tree.  It runs there as well. */
static int kill_strays(struct process_departure *d)
{
	struct process_room *p = d->room;
	_cleanup_free_ pid_t *pids = NULL;
	size_t n;
	int r = space_group_pids(d->group, &pids, &n);

	for (size_t i = 0; r == 0 && i < n; i++)
		if (!is_leaving(d, pids[i]) && !room_is_shadow(p, pids[i]))
			(void)process_kernel_signal(pids[i], SIGKILL);
	return err_fold(r);
}

int process_depart_begin(struct process_room *p, const struct process_member *members,
			 size_t n_members, struct space_group *group, node_id to,
			 uint64_t incarnation, struct process_departure **ret)
{
	_cleanup_(departure_freep) struct process_departure *d = NULL;
	int r;

	if (n_members == 0)
		return err_origin(-EINVAL);
	d = calloc(1, sizeof(*d) + n_members * sizeof(d->leaving[0]));
	if (!d)
		return err_origin(-ENOMEM);
	*d = (struct process_departure){.room = p,
					.group = group,
					.n = n_members,
					.proc_fd = space_proc_fd(p->space)};
	for (size_t i = 0; i < n_members; i++)
		d->leaving[i] = (struct leaving){.member = members[i], .socket = -1};
	/* Beneath the space's root, so that the kernel honours set-uid there. */
	d->program =
		openat(space_root_fd(p->space), p->shadow_path + 1, O_PATH | O_CLOEXEC);
	if (d->program < 0)
		return err_origin(-errno);
	r = space_group_open(p->space, "shadows", &d->shadows);
	if (r == 0)
		r = kill_strays(d);
	if (r != 0)
		return err_fold(r);
	for (size_t i = 0; i < n_members; i++) {
		r = prepare(d, &d->leaving[i], to,
			    incarnation ? incarnation : place_incarnation(p, to));
		if (r < 0)
			return r;
	}
	*ret = TAKE(d);
	return 0;
}

void process_depart_pending(struct process_departure *d,
			    struct process_pending *owned_pending)
{
	process_pending_free(d->pending);
	d->pending = owned_pending;
}

/* More moves than there can be from one that was lost until a view has it out. */
enum { SURPASSED = 1000 };

static void stay(struct process_room *p, const struct process_member *m)
{
	const struct process_entry *found = process_table_find(p->table, m->pid);
	struct process_entry e = {0};

	if (found)
		e = *found;
	else if (process_record(p, m->pid, &e.record) != 0)
		return; /* it has ended, frozen as it was */
	if (e.record.state != PROCESS_HERE && e.record.state != PROCESS_GUEST)
		return;
	e.record.moving = false;
	e.record.generation = m->generation + SURPASSED;
	if (room_put(p, &e) < 0)
		log_warning("no record for process %d PID=%d", m->pid, m->pid);
	else if (!found)
		(void)guest_watch(p, m->pid);
	if (e.record.state == PROCESS_GUEST)
		change_say_placed(p, &e.record);
}

void process_stay(struct process_room *p, const struct process_member *members,
		  size_t n_members)
{
	for (size_t i = 0; i < n_members; i++)
		stay(p, &members[i]);
}

/* -- On a worker -- */

static int call3(struct inject *i, long nr, long a, long b, long c, long d, long *ret)
{
	long args[6] = {a, b, c, d}, result;
	int r = inject_call(i, nr, args, &result);

	if (r == 0 && ret)
		*ret = result;
	return r;
}

/* Interval timers survive exec; timer_create()'s do not. */
static int clear_timers(struct inject *i)
{
	struct itimerval none = {0};
	uint64_t at = inject_scratch(i);
	int r = inject_write(i, at, &none, sizeof(none));

	for (int which = ITIMER_REAL; r == 0 && which <= ITIMER_PROF; which++)
		r = call3(i, SYS_setitimer, which, at, 0, 0, NULL);
	return r;
}

/* A timer fires in the copy as well: what it queued here is not to be sent on. */
static bool from_timer(const siginfo_t *info)
{
	if (info->si_code == SI_TIMER)
		return true;
	return info->si_code == SI_KERNEL &&
	       (info->si_signo == SIGALRM || info->si_signo == SIGVTALRM ||
		info->si_signo == SIGPROF);
}

/* Take all of @signal off the queue; put back, in order, what came after the dump. */
static int drain_signal(struct inject *i, pid_t pid, int signal, unsigned n_saved)
{
	uint64_t set = 1ull << (signal - 1), at = inject_scratch(i);
	_cleanup_free_ siginfo_t *kept = NULL;
	struct timespec none = {0};
	unsigned n_kept = 0, n = 0;
	siginfo_t info;
	long got;
	int r;

	kept = calloc(DRAIN_MAX, sizeof(*kept));
	if (!kept)
		return err_origin(-ENOMEM);
	r = inject_write(i, at, &set, sizeof(set));
	if (r == 0)
		r = inject_write(i, at + 8, &none, sizeof(none));
	for (; r == 0 && n < DRAIN_MAX; n++) {
		r = call3(i, SYS_rt_sigtimedwait, at, at + 64, at + 8, sizeof(set),
			  &got);
		if (r != 0 || got < 0)
			break;
		r = inject_read(i, at + 64, &info, sizeof(info));
		if (r == 0 && n >= n_saved && !from_timer(&info))
			kept[n_kept++] = info;
	}
	for (unsigned k = 0; r == 0 && k < n_kept; k++) {
		r = inject_write(i, at + 64, &kept[k], sizeof(kept[k]));
		if (r == 0)
			r = call3(i, SYS_rt_sigqueueinfo, pid, signal, at + 64, 0,
				  NULL);
	}
	return r;
}

static unsigned saved_count(const struct process_departure *d, pid_t pid, int signal)
{
	for (size_t i = 0; d->pending && i < d->pending->n; i++)
		if (d->pending->of[i].pid == pid)
			return d->pending->of[i].count[signal];
	return 0;
}

static int drain(struct process_departure *d, struct leaving *l)
{
	uint64_t pending = 0;
	uid_t uid;
	int r;

	r = proc_status_read(d->proc_fd, l->member.pid, &uid, &pending);
	for (int s = 1; r == 0 && s < 65; s++)
		if (pending & 1ull << (s - 1) && s != SIGKILL && s != SIGSTOP)
			r = drain_signal(l->inject, l->member.pid, s,
					 saved_count(d, l->member.pid, s));
	return r;
}

/* The socket as descriptor 3; everything else above stdio is closed first. */
static int give_socket(struct leaving *l)
{
	struct inject *i = l->inject;
	int fd, r;

	r = call3(i, SYS_close_range, SHADOW_FD, ~0u, 0, 0, NULL);
	if (r == 0)
		r = inject_give_fd(i, l->socket, 0, &fd);
	if (r != 0 || fd == SHADOW_FD)
		return r;
	r = call3(i, SYS_dup3, fd, SHADOW_FD, 0, 0, NULL);
	return r != 0 ? r : call3(i, SYS_close, fd, 0, 0, 0, NULL);
}

static size_t split_arguments(char *bytes, size_t len, const char *argv[ARGS_MAX + 1])
{
	size_t n = 0;

	for (size_t k = 0; k < len && n < ARGS_MAX; k += strlen(bytes + k) + 1)
		argv[n++] = bytes + k;
	if (n == 0)
		argv[n++] = "ssi-shadow";
	argv[n] = NULL;
	return n;
}

static int become_shadow(struct process_departure *d, struct leaving *l)
{
	const char *argv[ARGS_MAX + 1], *envp[] = {NULL};
	char bytes[ARG_BYTES];
	size_t len = 0;
	int program, r;

	if (proc_cmdline_read(d->proc_fd, l->member.pid, bytes, sizeof(bytes), &len) <
	    0)
		len = 0;
	(void)split_arguments(bytes, len, argv);
	r = inject_scratch(l->inject) ? clear_timers(l->inject) : -EFAULT;
	if (r == 0)
		r = drain(d, l);
	if (r == 0)
		r = give_socket(l);
	if (r == 0)
		r = inject_give_fd(l->inject, d->program, 1, &program);
	if (r == 0)
		r = inject_exec(l->inject, program, argv, envp);
	return r;
}

/* Hold every thread of every member that becomes a shadow; kill the rest, still frozen.
 */
static void hold_all(struct process_departure *d)
{
	for (size_t i = 0; i < d->n; i++) {
		struct leaving *l = &d->leaving[i];
		int r;

		if (l->done || l->newer)
			continue;
		r = l->guest ? INJECT_E_GONE
			     : inject_attach(&l->inject, d->proc_fd, l->member.pid);
		if (r == 0)
			continue;
		l->inject = NULL;
		l->result = r == INJECT_E_GONE ? KILLED : FAILED;
		(void)process_kernel_signal(l->member.pid, SIGKILL);
	}
}

static void replace(struct process_departure *d, struct leaving *l)
{
	int r = become_shadow(d, l);

	l->inject = inject_detach(l->inject);
	if (r == INJECT_E_GONE) {
		l->result = KILLED;
	} else if (r != 0) {
		log_warning("process %d could not become a shadow (%d), it is killed "
			    "PID=%d",
			    l->member.pid, r, l->member.pid);
		l->result = FAILED;
		(void)process_kernel_signal(l->member.pid, SIGKILL);
	}
}

int process_depart_work(struct process_departure *d)
{
	int r;

	hold_all(d);
	r = space_group_thaw(d->group);
	/* Parents stand before children in the list. */
	for (size_t i = d->n; i-- > 0;) {
		struct leaving *l = &d->leaving[i];

		if (l->inject)
			replace(d, l);
		if (!l->guest && !l->newer && l->result == LEFT)
			(void)space_group_take(d->shadows, l->member.pid);
	}
	return err_fold(r);
}

/* -- On the loop, after -- */

static void settle(struct process_departure *d, struct leaving *l)
{
	struct process_room *p = d->room;
	const struct process_entry *found = process_table_find(p->table, l->member.pid);
	struct process_entry e;
	struct proc_stat s;
	bool orphan; /* it could not become one, and nobody but ssi-init sees its end */

	if (l->guest || l->newer || !found || found->record.state != PROCESS_AWAY)
		return;
	orphan = l->result == FAILED &&
		 (proc_stat_read(d->proc_fd, l->member.pid, &s) < 0 || s.ppid < SPACE_PID_MIN);
	if (orphan) {
		shadow_drop(p, l->member.pid);
		(void)space_reap(p->space, l->member.pid);
		if (shadow_spawn(p, &l->member, -1, SPACE_SPAWN_TRACK) != 0)
			log_warning("process %d has no shadow here PID=%d",
				    l->member.pid, l->member.pid);
	}
	/* Not before its shadow stands: without one it would be taken for a killed one. */
	e = *found;
	e.record.moving = false;
	(void)room_put(p, &e); /* replaces: cannot be full */
	if (l->result != LEFT && !orphan)
		shadow_killed(p, l->member.pid);
	else
		place_settled(p, l->member.pid);
}

void process_depart_end(struct process_departure *d)
{
	for (size_t i = 0; i < d->n; i++)
		settle(d, &d->leaving[i]);
	if (!d->leaving[0].newer)
		arrive_hold_left(d->room, d->leaving[0].member.pid);
	departure_free(d);
}
