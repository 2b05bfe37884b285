/*
 * The way out of a process that starts a program which begins on another node.
 *
 * Happy path: it waits in execve(), and is given a socket and the shadow's program through its
 * listener; on a worker it is made to start that program instead, in one step.  It was in the
 * middle of becoming another one, so little of it is to be handed on: its alarm clock, which the
 * shadow tells us of, and pending signals, which the shadow finds pending and sends on before
 * the program begins.
 *
 * Failure modes: it is killed meanwhile, or cannot start the shadow -> nothing has changed, and
 * it starts its own program; ssid is killed -> its successor sees which of the two it is.
 */
#include "process_internal.h"

#include "err.h"
#include "inject.h"
#include "space_group.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static const nsec_t settled_within = 2 * NSEC_PER_SEC, drained_within = 2 * NSEC_PER_SEC;

struct process_leaving {
	struct process_room *room; /* NULL: it is gone */
	struct space_group *shadows;
	struct process_member member;
	long nr;
	uint64_t empty, argv;		 /* in its memory */
	int socket_there, program_there; /* its descriptors */
	int proc_fd, result;
	struct env_work work;
	struct env_timer late; /* armed: it has left */
	process_leave_cb done;
	void *owner;
	LIST_ENTRY(process_leaving) entry;
};

struct process_draining {
	struct process_room *room;
	pid_t pid;
	struct env_timer late;
	void (*done)(void *owner);
	void *owner;
	LIST_ENTRY(process_draining) entry;
};

static struct process_leaving *leaving_free(struct process_leaving *l)
{
	if (l)
		space_group_close(l->shadows);
	free(l);
	return NULL;
}

DEFINE_CLEANUP(struct process_leaving, leaving_free)

static void end(struct process_leaving *l, bool has_left, const struct process_alarm *alarm)
{
	LIST_REMOVE(l, entry);
	env_disarm(l->room->env, &l->late);
	l->done(l->owner, has_left, alarm, has_left && shadow_waits(l->room, l->member.pid));
	leaving_free(l);
}

static void stays(struct process_room *p, pid_t pid)
{
	shadow_drop(p, pid);
	process_table_remove(p->table, pid);
}

static void left(struct process_room *p, pid_t pid)
{
	const struct process_entry *found = process_table_find(p->table, pid);
	struct process_entry e;

	if (!found || found->record.state != PROCESS_AWAY)
		return;
	e = *found;
	e.record.moving = false;
	(void)room_put(p, &e); /* replaces: cannot be full */
	place_settled(p, pid);
}

/* -- On a worker -- */

/* The socket is left among its descriptors. */
static void close_socket(struct process_leaving *l)
{
	long args[6] = {l->socket_there}, ignored;
	struct inject *i;

	if (inject_attach(&i, l->proc_fd, l->member.pid) != 0)
		return;
	(void)inject_call(i, SYS_close, args, &ignored);
	(void)inject_detach(i);
}

static void on_work(struct env_work *w)
{
	struct process_leaving *l = container_of(w, struct process_leaving, work);

	l->result = inject_become(l->proc_fd, l->member.pid, l->nr, l->program_there, l->empty,
				  l->argv);
	if (l->result == 0)
		(void)space_group_take(l->shadows, l->member.pid);
	else
		close_socket(l);
}

/* -- On the loop -- */

static void on_late(struct env_timer *t)
{
	/* It is stopped, or was killed; its alarm clock is lost. */
	end(container_of(t, struct process_leaving, late), true, &(struct process_alarm){0});
}

/* What it starts there will be in its group as well: the program begins when what is sent to
 * that here gets there. */
static bool may_end(const struct process_leaving *l, struct process_alarm *ret)
{
	return shadow_has_settled(l->room, l->member.pid, ret) &&
	       !sentinel_is_awaited(l->room, l->member.pgid);
}

static void on_worked(struct env_work *w)
{
	struct process_leaving *l = container_of(w, struct process_leaving, work);
	struct process_alarm alarm;

	if (!l->room) {
		leaving_free(l);
		return;
	}
	/* Who shares its descriptors may have put another program there. */
	if (l->result == 0 && !room_is_shadow(l->room, l->member.pid)) {
		(void)process_kernel_signal(l->member.pid, SIGKILL);
		l->result = -EPROTO;
	}
	if (l->result != 0) {
		stays(l->room, l->member.pid);
		end(l, false, NULL);
		return;
	}
	left(l->room, l->member.pid);
	sentinel_stand(l->room, &l->member);
	if (may_end(l, &alarm))
		end(l, true, &alarm);
	else
		(void)env_arm(l->room->env, &l->late, settled_within);
}

static void look_at_end(struct process_leaving *l)
{
	struct process_alarm alarm;

	if (l->late.due && may_end(l, &alarm))
		end(l, true, &alarm);
}

void leave_on_settled(struct process_room *p, pid_t pid)
{
	struct process_leaving *l;

	LIST_FOREACH (l, &p->leavings, entry)
		if (l->member.pid == pid)
			return look_at_end(l);
}

void leave_on_sentinel(struct process_room *p, pid_t group)
{
	struct process_leaving *l, *next;

	for (l = LIST_FIRST(&p->leavings); l; l = next) {
		next = LIST_NEXT(l, entry);
		if (l->member.pgid == group)
			look_at_end(l);
	}
}

static int give(struct process_leaving *l, uint64_t exec)
{
	struct process_room *p = l->room;
	_cleanup_close_ int program = -1, socket = -1;
	int r;

	/* Beneath the space's root, so that the kernel honours set-uid there. */
	program = openat(space_root_fd(p->space), p->shadow_path + 1, O_RDONLY | O_CLOEXEC);
	if (program < 0)
		return err_origin(-errno);
	r = shadow_connect(p, l->member.pid, &socket);
	if (r == 0)
		r = space_exec_give(p->space, exec, program, true, &l->program_there);
	if (r == 0)
		r = space_exec_give(p->space, exec, socket, false, &l->socket_there);
	return err_fold(r);
}

static int begin(struct process_leaving *l, uint64_t exec)
{
	int r = give(l, exec);

	if (r != 0)
		return r;
	/* Where the shadow looks for it. */
	if (l->socket_there < SHADOW_FD || l->socket_there > SHADOW_FD + SHADOW_FDS_MAX) {
		close_socket(l);
		return err_origin(-EMFILE);
	}
	return env_work(l->room->env, &l->work);
}

int process_leave(struct process_room *p, const struct process_member *m,
		  const struct space_exec *exec, uint64_t empty, uint64_t argv, node_id to,
		  uint64_t incarnation, process_leave_cb done, void *owner)
{
	struct process_entry e = {.record = {.pid = m->pid,
					     .app = m->app,
					     .root = m->pid,
					     .home = room_self(p),
					     .place = to,
					     .generation = m->generation,
					     .state = PROCESS_AWAY,
					     .uid = m->uid,
					     .moving = true},
				  .place_incarnation = incarnation};
	_cleanup_(leaving_freep) struct process_leaving *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return err_origin(-ENOMEM);
	*l = (struct process_leaving){.room = p,
				      .member = *m,
				      .nr = exec->nr,
				      .empty = empty,
				      .argv = argv,
				      .proc_fd = space_proc_fd(p->space),
				      .work = {.work = on_work, .done = on_worked},
				      .late.cb = on_late,
				      .done = done,
				      .owner = owner};
	if (process_table_find(p->table, m->pid))
		return PROCESS_E_BUSY;
	r = space_group_open(p->space, "shadows", &l->shadows);
	if (r == 0)
		r = room_put(p, &e);
	if (r != 0)
		return err_fold(r);
	r = begin(l, exec->id);
	if (r != 0) {
		stays(p, m->pid);
		return r;
	}
	LIST_INSERT_HEAD(&p->leavings, l, entry);
	(void)TAKE(l);
	return 0;
}

/* -- Pending signals -- */

static void drained(struct process_draining *d)
{
	LIST_REMOVE(d, entry);
	env_disarm(d->room->env, &d->late);
	d->done(d->owner);
	free(d);
}

static void on_drained_late(struct env_timer *t)
{
	drained(container_of(t, struct process_draining, late));
}

void leave_on_drained(struct process_room *p, pid_t pid)
{
	struct process_draining *d;

	LIST_FOREACH (d, &p->drainings, entry)
		if (d->pid == pid) {
			drained(d);
			return;
		}
}

int process_leave_drain(struct process_room *p, pid_t pid, void (*done)(void *owner), void *owner)
{
	struct process_draining *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return err_origin(-ENOMEM);
	*d = (struct process_draining){.room = p,
				       .pid = pid,
				       .late.cb = on_drained_late,
				       .done = done,
				       .owner = owner};
	r = env_arm(p->env, &d->late, shadow_waits(p, pid) ? drained_within : 0);
	if (r < 0) {
		free(d);
		return err_fold(r);
	}
	LIST_INSERT_HEAD(&p->drainings, d, entry);
	shadow_kick(p, pid);
	return 0;
}

void process_leave_drain_cancel(struct process_room *p, void *owner)
{
	struct process_draining *d;

	LIST_FOREACH (d, &p->drainings, entry)
		if (d->owner == owner) {
			LIST_REMOVE(d, entry);
			env_disarm(p->env, &d->late);
			free(d);
			return;
		}
}

/* -- */

bool process_leave_resume(struct process_room *p, pid_t pid, uint32_t generation)
{
	const struct process_entry *e = process_table_find(p->table, pid);

	if (!e || e->record.state != PROCESS_AWAY || e->record.generation != generation)
		return false;
	if (e->record.moving && !room_is_shadow(p, pid)) {
		stays(p, pid);
		return false;
	}
	left(p, pid);
	return true;
}

void process_leave_lost(struct process_room *p, pid_t pid, uint32_t generation)
{
	const struct process_entry *e = process_table_find(p->table, pid);

	if (e && e->record.state == PROCESS_AWAY && e->record.generation == generation)
		room_ended(p, pid, CLD_KILLED, SIGKILL);
}

void leave_fini(struct process_room *p)
{
	struct process_leaving *l;

	while ((l = LIST_FIRST(&p->leavings))) {
		LIST_REMOVE(l, entry);
		if (l->late.due) {
			env_disarm(p->env, &l->late);
			leaving_free(l);
		} else {
			l->room = NULL; /* a worker has it */
		}
	}
}
