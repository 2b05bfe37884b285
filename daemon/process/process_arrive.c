/*
 * The way in: shadows of ours give way to the tree that is restored here.
 *
 * Happy path: the shadows of the members end unseen (a shadow's parent is another
 * shadow, which reaps it, or ssi-init, which tells only us), criu makes the
 * processes under their PIDs, and they are recorded: HERE if this is their home,
 * GUEST if not, and their homes are told.  A root whose parent is a real process
 * here does not end: its shadow itself becomes the root ("in place").
 *
 * Failure modes: a PID is in use -> TAKEN, nothing was changed; the restore
 * failed -> shadows stand again, the root's as a child of ssi-init, and what they had
 * taken from the kernel is sent on to where the process still is; a root that was
 * restored in place and shall not stay after all becomes a shadow as one that leaves
 * does.
 */
#include "process_internal.h"

#include "err.h"
#include "log.h"
#include "space_group.h"

#include <signal.h>
#include <string.h>

static const nsec_t fold_timeout = NSEC_PER_SEC;
static const nsec_t kill_timeout = 5 * NSEC_PER_SEC;

struct left {
	struct wire_signal signal;
	TAILQ_ENTRY(left) entry;
};

struct process_arrival {
	struct process_room *room;
	LIST_ENTRY(process_arrival) in; /* of room->arrivals */
	TAILQ_HEAD(, left) left;
	bool in_place;
	bool back; /* restored, and shadows again */
	size_t n;
	struct {
		struct process_member member;
		bool folded;
	} of[];
};

static void on_left(void *owner, const struct wire_signal *signal)
{
	struct process_arrival *a = owner;
	struct left *l = calloc(1, sizeof(*l));

	if (!l)
		return;
	l->signal = *signal;
	TAILQ_INSERT_TAIL(&a->left, l, entry);
}

static struct process_arrival *arrival_free(struct process_arrival *a)
{
	struct left *l;

	if (!a)
		return NULL;
	LIST_REMOVE(a, in);
	while ((l = TAILQ_FIRST(&a->left))) {
		TAILQ_REMOVE(&a->left, l, entry);
		free(l);
	}
	free(a);
	return NULL;
}

DEFINE_CLEANUP(struct process_arrival, arrival_free)

static bool gives_way(struct process_room *p, pid_t pid)
{
	const struct process_entry *e = process_table_find(p->table, pid);

	return e && e->record.state == PROCESS_AWAY && !e->record.moving;
}

static void stays_away(struct process_room *p, pid_t pid, bool unborn)
{
	const struct process_entry *found = process_table_find(p->table, pid);
	struct process_entry e;

	if (!found)
		return;
	e = *found;
	e.record.moving = false;
	e.unborn = unborn;
	(void)room_put(p, &e); /* replaces: cannot be full */
	place_settled(p, pid);
}

/* As one of this tree, in which it may not have left: a successor finds it by the root. */
static void give_way(struct process_arrival *a, size_t i)
{
	struct process_room *p = a->room;
	struct process_entry e = *process_table_find(p->table, a->of[i].member.pid);

	e.record.root = a->of[0].member.pid;
	e.record.moving = true;
	(void)room_put(p, &e); /* replaces: cannot be full */
}

/* Milliseconds, of which ssi-init and the parents' shadows need microseconds.  At the
 * end of a failed restore: what was restored is dead, and holds its PID until it is
 * reaped. */
static int wait_gone_one(struct process_room *p, pid_t pid, nsec_t until)
{
	struct proc_stat s;

	while (proc_stat_read(space_proc_fd(p->space), pid, &s) == 0) {
		if (env_now(p->env) > until)
			return PROCESS_E_TAKEN;
		(void)space_reap(p->space, pid);
		process_kernel_moment();
	}
	return 0;
}

static int wait_gone(struct process_arrival *a)
{
	nsec_t until = env_now(a->room->env) + fold_timeout;
	int r = 0;

	for (size_t i = 0; i < a->n && r == 0; i++)
		if (a->of[i].folded)
			r = wait_gone_one(a->room, a->of[i].member.pid, until);
	return r;
}

static void fold(struct process_arrival *a, size_t i)
{
	struct process_room *p = a->room;
	pid_t pid = a->of[i].member.pid;

	shadow_fold(p, pid, on_left, a);
	give_way(a, i);
	trace_release(p, pid);
	if (i == 0 && a->in_place) {
		shadow_wake(p, pid);
		return;
	}
	(void)process_kernel_signal(pid, SIGKILL);
	shadow_drop(p, pid);
	a->of[i].folded = true;
}

bool process_is_guest(struct process_room *p, pid_t pid)
{
	const struct process_entry *e = process_table_find(p->table, pid);
	struct process_arrival *a;

	if (e && (e->record.state == PROCESS_GUEST || e->record.state == PROCESS_KIN))
		return true;
	LIST_FOREACH (a, &p->arrivals, in)
		for (size_t i = 0; i < a->n; i++)
			if (a->of[i].member.pid == pid)
				return true;
	return false;
}

bool process_arrive_in_place(struct process_room *p, pid_t root)
{
	struct proc_stat s;

	return gives_way(p, root) && room_is_shadow(p, root) &&
	       proc_stat_read(space_proc_fd(p->space), root, &s) == 0 && s.ppid >= SPACE_PID_MIN;
}

int process_arrive_begin(struct process_room *p, const struct process_member *members,
			 size_t n_members, bool *ret_in_place,
			 struct process_arrival **ret)
{
	_cleanup_(arrival_freep) struct process_arrival *a = NULL;
	int r;

	if (n_members == 0)
		return err_origin(-EINVAL);
	for (size_t i = 0; i < n_members; i++)
		if (!gives_way(p, members[i].pid) && !room_is_free(p, members[i].pid))
			return PROCESS_E_TAKEN;
	a = calloc(1, sizeof(*a) + n_members * sizeof(a->of[0]));
	if (!a)
		return err_origin(-ENOMEM);
	a->room = p;
	LIST_INSERT_HEAD(&p->arrivals, a, in);
	a->n = n_members;
	TAILQ_INIT(&a->left);
	for (size_t i = 0; i < n_members; i++)
		a->of[i].member = members[i];
	a->in_place = process_arrive_in_place(p, members[0].pid);
	place_note(p, true); /* a node takes nobody before it knows */
	for (size_t i = n_members; i-- > 0;)
		if (gives_way(p, members[i].pid))
			fold(a, i);
	r = wait_gone(a);
	if (r != 0) {
		process_arrive_end(TAKE(a), false);
		return r;
	}
	*ret_in_place = a->in_place;
	*ret = TAKE(a);
	return 0;
}

int process_arrive_exec(struct process_arrival *a, const char *criu, const int *fds,
			size_t n_fds)
{
	struct shadow_command c = {.verb = SHADOW_EXEC};
	/* With the last NUL: three arguments. */
	static const char rest[] = "--no-default-config\0swrk\0003";
	size_t len = strlen(criu) + 1;

	if (!a->in_place || len + sizeof(rest) > sizeof(c.data))
		return err_origin(-EINVAL);
	memcpy(c.data, criu, len);
	memcpy(c.data + len, rest, sizeof(rest));
	c.n_data = (uint32_t)(len + sizeof(rest));
	return shadow_send(a->room, a->of[0].member.pid, &c, fds, n_fds);
}

/* -- The end -- */

int process_arrive_back(struct process_arrival *a, struct space_group *group,
			struct process_departure **ret)
{
	_cleanup_free_ struct process_member *members = calloc(a->n, sizeof(*members));
	node_id place = NODE_NONE;
	int r;

	if (!members)
		return err_origin(-ENOMEM);
	for (size_t i = 0; i < a->n; i++) {
		const struct process_entry *e =
			process_table_find(a->room->table, a->of[i].member.pid);

		members[i] = a->of[i].member;
		if (!e || e->record.state != PROCESS_AWAY)
			continue; /* its home is elsewhere: nothing of it stays */
		members[i].generation = e->record.generation;
		if (i == 0)
			place = e->record.place;
	}
	if (place == NODE_NONE)
		return err_origin(-ESRCH);
	r = process_depart_begin(a->room, members, a->n, group, place, 0, ret);
	a->back = r == 0;
	return r;
}

static void stands_here(struct process_arrival *a, const struct process_member *m)
{
	struct process_room *p = a->room;
	node_id home = membership_home(p->membership, m->pid);
	bool root = m == &a->of[0].member;
	struct process_entry e = {
		.record = {.pid = m->pid,
			   .app = m->app,
			   .name = m->name,
			   .root = a->of[0].member.pid,
			   .home = home == NODE_NONE ? room_self(p) : home,
			   .place = room_self(p),
			   .state = PROCESS_HERE,
			   .generation = m->generation,
			   .uid = m->uid,
			   /* Its image had none. */
			   .bound = proc_filters(space_proc_fd(p->space), m->pid) >
				    proc_filters(space_proc_fd(p->space), 1)}};

	shadow_drop(p, m->pid);
	/* Of this move it is told now. */
	e.place_incarnation = m->known;
	if (e.record.home != e.record.place) {
		e.record.state = PROCESS_GUEST;
		e.sequence = m->delivered;
	}
	if (root && !a->in_place && space_track(p->space, m->pid) != 0)
		log_warning("nobody collects the exit of process %d PID=%d", m->pid,
			    m->pid);
	if (room_put(p, &e) < 0)
		log_warning("no record for process %d PID=%d", m->pid, m->pid);
	reserve_forget(p, m->pid, m->generation);
	/* ssi-init tells the end of its own children only. */
	if (!root || a->in_place)
		(void)guest_watch(p, m->pid);
	if (e.record.state == PROCESS_GUEST)
		change_say_placed(p, &e.record);
}

static void stands_away(struct process_arrival *a, size_t i)
{
	struct process_room *p = a->room;
	const struct process_member *m = &a->of[i].member;
	bool forks;
	int r;

	if (!process_table_find(p->table, m->pid))
		return;
	if (a->back) {
		trace_seize(p, m->pid);
		return;
	}
	if (i == 0 && a->in_place && room_is_shadow(p, m->pid) &&
	    shadow_stands(p, m->pid)) {
		stays_away(p, m->pid, false);
		trace_seize(p, m->pid);
		return;
	}
	if (!a->of[i].folded && !(i == 0 && a->in_place))
		return;
	r = shadow_fork(p, m, 0); /* where its parent's shadow stands again */
	forks = r == 0;
	if (!forks)
		r = shadow_spawn(p, m, -1, i == 0 ? SPACE_SPAWN_TRACK : 0);
	if (r != 0)
		log_warning("process %d has no shadow here any more PID=%d", m->pid,
			    m->pid);
	stays_away(p, m->pid, forks);
}

/* What a shadow had sent may have come to the place, and wait there: it goes with its number,
 * behind which the next shadow begins.  Who came home knows no numbers. */
static void number_left(struct process_arrival *a, bool ok)
{
	struct left *l;

	TAILQ_FOREACH (l, &a->left, entry) {
		const struct process_entry *found =
			process_table_find(a->room->table, l->signal.pid);
		struct process_entry e;

		if (ok)
			l->signal.sequence = 0;
		if (!found || found->sequence >= l->signal.sequence)
			continue;
		e = *found;
		e.sequence = l->signal.sequence;
		(void)room_put(a->room, &e); /* replaces: cannot be full */
	}
}

/* It had come to the place before the move, and only its shadow has not heard of it. */
static bool was_delivered(const struct process_arrival *a, const struct wire_signal *s)
{
	for (size_t i = 0; i < a->n; i++)
		if (a->of[i].member.pid == s->pid)
			return s->sequence <= a->of[i].member.delivered;
	return false;
}

static void drop_delivered(struct process_arrival *a)
{
	struct left *l, *next;

	for (l = TAILQ_FIRST(&a->left); l; l = next) {
		next = TAILQ_NEXT(l, entry);
		if (!was_delivered(a, &l->signal))
			continue;
		TAILQ_REMOVE(&a->left, l, entry);
		free(l);
	}
}

void process_arrive_end(struct process_arrival *a, bool ok)
{
	struct left *l;

	if (ok)
		drop_delivered(a);
	number_left(a, ok);
	if (!ok && !a->back)
		(void)wait_gone(a);
	/* The root last: a successor who finds its record has those of all.  Of shadows
	 * parents stand first. */
	for (size_t i = a->n; ok && i-- > 0;)
		stands_here(a, &a->of[i].member);
	for (size_t i = 0; !ok && i < a->n; i++)
		stands_away(a, i);
	TAILQ_FOREACH (l, &a->left, entry)
		signal_forward(a->room, &l->signal);
	arrival_free(a);
}

static void depart_left(struct process_room *p, pid_t root,
			const struct process_member *members, size_t n,
			struct space_group *group)
{
	const struct process_entry *e = process_table_find(p->table, root);
	_cleanup_free_ struct process_member *back = calloc(n, sizeof(*back));
	struct process_departure *d;
	size_t n_back = 0;

	if (!back || !e || e->record.state != PROCESS_AWAY || n == 0)
		return;
	for (size_t i = 0; i < n; i++) {
		const struct process_entry *of =
			process_table_find(p->table, members[i].pid);

		/* Below the root, and of another tree: a shadow that was not to give way. */
		if (of && !of->record.moving)
			continue;
		back[n_back] = members[i];
		back[n_back].app = of ? of->record.app : e->record.app;
		back[n_back++].generation = of ? of->record.generation :
						 e->record.generation;
	}
	if (n_back == 0 ||
	    process_depart_begin(p, back, n_back, group, e->record.place, 0, &d) != 0)
		return;
	(void)process_depart_work(d);
	process_depart_end(d);
}

void arrive_hold(struct process_room *p, const struct process_record *d)
{
	const struct process_member m = {
		.pid = d->pid, .pgid = d->pid, .sid = d->pid, .uid = d->uid};

	(void)wait_gone_one(p, m.pid, env_now(p->env) + fold_timeout);
	if (shadow_spawn(p, &m, -1, SPACE_SPAWN_TRACK) != 0)
		log_warning("process %d has no shadow here any more PID=%d", m.pid,
			    m.pid);
	stays_away(p, m.pid, false);
}

void arrive_hold_left(struct process_room *p, pid_t root)
{
	const struct process_entry *e;
	size_t cursor = 0;

	while ((e = process_table_next(p->table, &cursor))) {
		pid_t pid = e->record.pid;

		if (e->record.state != PROCESS_AWAY || !e->record.moving ||
		    e->record.root != root)
			continue;
		/* It may not have come to give way. */
		if (!room_is_shadow(p, pid) || !shadow_stands(p, pid))
			arrive_hold(p, &e->record);
		else
			stays_away(p, pid, false);
	}
}

void process_arrive_left(struct process_room *p, pid_t root,
			 const struct process_member *members, size_t n_members,
			 struct space_group *group)
{
	depart_left(p, root, members, n_members, group);
	if (space_group_kill(group, kill_timeout) != 0)
		log_error("process %d: what is left of it would not die PID=%d", root, root);
	arrive_hold_left(p, root);
}

int process_arrive_adopt(struct process_room *p, const struct process_member *members,
			 size_t n_members)
{
	struct process_arrival *a;
	const struct process_entry *e;
	struct proc_stat s;

	if (n_members == 0)
		return 0;
	e = process_table_find(p->table, members[0].pid);
	/* Home it may have come, and the record is still that of its shadow. */
	if (e && (e->record.state != PROCESS_AWAY ||
		  e->record.generation >= members[0].generation))
		return 0;
	a = calloc(1, sizeof(*a) + n_members * sizeof(a->of[0]));
	if (!a)
		return err_origin(-ENOMEM);
	a->room = p;
	a->n = n_members;
	TAILQ_INIT(&a->left);
	LIST_INSERT_HEAD(&p->arrivals, a, in);
	for (size_t i = 0; i < n_members; i++)
		a->of[i].member = members[i];
	a->in_place =
		proc_stat_read(space_proc_fd(p->space), members[0].pid, &s) == 0 &&
		s.ppid >= SPACE_PID_MIN;
	process_arrive_end(a, true);
	return 0;
}
