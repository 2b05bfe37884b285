/*
 * Signals that were sent to a group on another node, at a node that may have members of
 * it.
 *
 * Where it was sent the kernel has given it to all members there, among them guests and
 * shadows, which send it on; and to the sentinel, whose node tells all others
 * (process_sentinel.c). Of the rest each has one node that gives it the signal, its
 * home: by itself, or through the shadow.
 *
 * Happy path: the members that run here are stopped until no new one appears, all of
 * them have the signal put into their queues, and go on: whoever was forked before has
 * it, and nobody else, as with kill().
 *
 * Failure modes: it comes again, since our answer was lost -> what was done is
 * remembered, also by a successor of ssid; ssid is killed while it gives it to them ->
 * some may get it twice; a member cannot be stopped at once (it waits for a child of
 * vfork(), say) -> it gets it when the others go on; a move or checkpoint holds it ->
 * afterwards.
 */
#include "process_internal.h"

#include "err.h"
#include "inject.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>

enum {
	HEARD_MAX = 256,
	RELAYED =
		-0x1000, /* si_code of what is queued to a shadow, less the true one */
};

/* The last that was done of what a sentinel told. */
struct heard {
	pid_t sentinel;
	uint64_t sequence;
};

struct group_heard {
	uint32_t next;
	struct heard of[HEARD_MAX];
};

struct pids {
	pid_t *of;
	size_t n;
};

struct member {
	pid_t pid;
	struct inject *held;
	bool done;
};

struct group_delivery {
	struct wire_signal signal;
	pid_t sentinel;
	int proc_fd;
	struct stat shadow_program;
	struct pids found,
		others; /* by the loop: who gets it, and who else is in the group */
	/* The worker's: besides those whom they have forked since. */
	struct member *members;
	size_t n, room_for;
	bool waits; /* for those that cannot be stopped at once */
};

/* -- What is done -- */

static struct heard *find_heard(struct process_room *p, pid_t sentinel)
{
	for (size_t i = 0; i < HEARD_MAX; i++)
		if (p->heard->of[i].sentinel == sentinel)
			return &p->heard->of[i];
	return NULL;
}

static bool has_heard(struct process_room *p, pid_t sentinel, uint64_t sequence)
{
	const struct heard *h = find_heard(p, sentinel);

	return h && sequence && sequence <= h->sequence;
}

static void note_heard(struct process_room *p, pid_t sentinel, uint64_t sequence)
{
	struct heard *h = find_heard(p, sentinel);

	if (!h) {
		h = &p->heard->of[p->heard->next++ % HEARD_MAX];
		h->sentinel = 0;
	}
	if (sequence > h->sequence || !h->sentinel)
		h->sequence = sequence;
	h->sentinel = sentinel;
}

int group_start(struct process_room *p)
{
	void *mapped;
	bool fresh;
	int r = space_state(p->space, "process/heard", sizeof(*p->heard), &mapped,
			    &fresh);

	if (r == 0)
		p->heard = mapped;
	return err_fold(r);
}

void group_fini(struct process_room *p)
{
	if (p->heard)
		(void)munmap(p->heard, sizeof(*p->heard));
}

/* -- On a worker -- */

struct group_delivery *group_free(struct group_delivery *d)
{
	if (!d)
		return NULL;
	free(d->found.of);
	free(d->others.of);
	free(d->members);
	free(d);
	return NULL;
}

DEFINE_CLEANUP(struct group_delivery, group_free)

static bool has(const pid_t *of, size_t n, pid_t pid)
{
	for (size_t i = 0; i < n; i++)
		if (of[i] == pid)
			return true;
	return false;
}

static struct member *find(const struct group_delivery *d, pid_t pid)
{
	for (size_t i = 0; i < d->n; i++)
		if (d->members[i].pid == pid)
			return &d->members[i];
	return NULL;
}

static int add(struct group_delivery *d, pid_t pid)
{
	size_t room_for = d->room_for ? 2 * d->room_for : 16;
	struct member *members;

	if (d->n == d->room_for) {
		members = reallocarray(d->members, room_for, sizeof(*members));
		if (!members)
			return err_origin(-ENOMEM);
		d->members = members;
		d->room_for = room_for;
	}
	d->members[d->n++] = (struct member){.pid = pid};
	return 0;
}

static bool is_member(int proc_fd, pid_t pid, pid_t group, struct proc_stat *ret)
{
	return pid >= SPACE_PID_MIN && proc_stat_read(proc_fd, pid, ret) == 0 &&
	       ret->pgid == group && ret->state != 'Z' && ret->state != 'X';
}

/* A child of one that does not have it yet; or of one that has ended since they were
 * looked for, when nobody has it yet. */
static bool is_older(const struct group_delivery *d, pid_t parent)
{
	const struct member *m = find(d, parent);

	return m ? !m->done : parent == 1 && !d->waits;
}

static bool is_shadow(const struct group_delivery *d, pid_t pid)
{
	struct stat st;

	return proc_exe_stat(d->proc_fd, pid, &st) < 0 ||
	       (st.st_ino == d->shadow_program.st_ino &&
		st.st_dev == d->shadow_program.st_dev);
}

static int add_new(void *owner, pid_t pid)
{
	struct group_delivery *d = owner;
	struct proc_stat s;

	if (!is_member(d->proc_fd, pid, d->signal.pid, &s) || find(d, pid) ||
	    has(d->others.of, d->others.n, pid) || !is_older(d, s.ppid) ||
	    is_shadow(d, pid))
		return 0;
	return add(d, pid);
}

static void hold(const struct group_delivery *d, struct member *m)
{
	struct proc_stat s;

	/* One that waits for its child of vfork() stops when that goes on. */
	if (m->done || (!d->waits && proc_stat_read(d->proc_fd, m->pid, &s) == 0 &&
			s.state == 'D'))
		return;
	if (inject_attach(&m->held, d->proc_fd, m->pid) != 0)
		m->held = NULL;
}

static void hold_all(struct group_delivery *d)
{
	size_t n = 0;

	do {
		for (; n < d->n; n++)
			hold(d, &d->members[n]);
		(void)proc_each(d->proc_fd, add_new, d);
	} while (n < d->n);
}

static int give(const struct group_delivery *d, const struct member *m)
{
	struct wire_signal s = d->signal;

	s.pid = m->pid;
	return m->held && !signal_is_plain(&s) ? signal_inject(m->held, &s)
					       : signal_send_plain(&s);
}

static void give_all(struct group_delivery *d)
{
	hold_all(d);
	for (size_t i = 0; i < d->n; i++)
		if (d->members[i].held)
			d->members[i].done = give(d, &d->members[i]) == 0;
	for (size_t i = 0; i < d->n; i++)
		d->members[i].held = inject_detach(d->members[i].held);
}

void group_work(struct group_delivery *d)
{
	for (size_t i = 0; i < d->found.n; i++)
		(void)add(d, d->found.of[i]);
	/* What is stopped need not be held, nor can it. */
	if (d->signal.signal != SIGCONT) {
		give_all(d);
		d->waits = true;
		give_all(d);
	}
	for (size_t i = 0; i < d->n; i++)
		if (!d->members[i].done)
			(void)give(d, &d->members[i]);
}

/* -- On the loop -- */

bool group_is_below(struct process_room *p, const struct group_delivery *d, pid_t root)
{
	for (size_t i = 0; i < d->found.n; i++)
		if (room_below(p, d->found.of[i], root))
			return true;
	return false;
}

int group_code(int code)
{
	return code <= RELAYED ? RELAYED - code : code;
}

/* As if it had been sent here, and to nobody else: the shadow sends it on, numbered. */
static void give_shadow(const struct wire_signal *s)
{
	siginfo_t info = {.si_signo = s->signal,
			  .si_code = s->code < 0 ? s->code : RELAYED - s->code,
			  .si_pid = s->sender_pid,
			  .si_uid = s->sender_uid};

	info.si_ptr = (void *)(uintptr_t)s->value;
	if (s->signal == SIGKILL || s->signal == SIGSTOP)
		(void)process_kernel_signal(s->pid, s->signal);
	else
		(void)process_kernel_queue(s->pid, s->signal, &info);
}

struct look {
	struct process_room *room;
	const struct wire_group *group;
	struct group_delivery *delivery; /* NULL: only asked */
	bool any;
};

static int add_pid(struct pids *pids, pid_t pid)
{
	pid_t *more = reallocarray(pids->of, pids->n + 1, sizeof(*more));

	if (!more)
		return err_origin(-ENOMEM);
	pids->of = more;
	pids->of[pids->n++] = pid;
	return 0;
}

/* Is it ours to give it the signal? */
static bool is_ours(struct process_room *p, pid_t pid, bool is_shadow)
{
	const struct process_entry *e = process_table_find(p->table, pid);
	node_id home = membership_home(p->membership, pid);

	if (is_shadow)
		return e && e->record.state == PROCESS_AWAY;
	if (home == NODE_NONE || home == room_self(p))
		return true;
	return !room_up(p, home) && !room_is_half_made(p, pid);
}

static bool is_permitted(struct process_room *p, pid_t pid, const struct wire_signal *s)
{
	struct process_caller caller = {.uid = s->sender_uid};
	uid_t uid;

	/* SIGCONT is for the whole session, in which the sender was. */
	return s->signal == SIGCONT ||
	       (proc_status_read(space_proc_fd(p->space), pid, &uid, NULL) == 0 &&
		process_may_signal(&caller, uid));
}

/* To be stopped and given it with the others?  If not, it is given what is due. */
static bool is_found(struct look *l, pid_t pid)
{
	struct process_room *p = l->room;
	const struct wire_group *g = l->group;
	struct wire_signal s = g->signal;
	bool is_shadow = room_is_shadow(p, pid);

	if (!is_ours(p, pid, is_shadow))
		return false;
	l->any = true;
	if (!l->delivery || has(g->except, g->n_except, pid) ||
	    !is_permitted(p, pid, &s))
		return false;
	s.pid = pid;
	s.sequence = 0;
	if (is_shadow)
		give_shadow(&s);
	else if (signal_held(p, pid))
		signal_forward(p, &s);
	else
		return true;
	return false;
}

static int look(void *owner, pid_t pid)
{
	struct look *l = owner;
	struct group_delivery *d = l->delivery;
	struct proc_stat s;
	bool found;

	if (!is_member(space_proc_fd(l->room->space), pid, l->group->signal.pid, &s))
		return 0;
	found = is_found(l, pid);
	return d ? add_pid(found ? &d->found : &d->others, pid) : 0;
}

void group_done(struct process_room *p, const struct group_delivery *d,
		struct rpc_call *call)
{
	note_heard(p, d->sentinel, d->signal.sequence);
	wire_reply_done(call);
}

bool group_is(const struct group_delivery *d, const struct wire_group *g)
{
	return d->sentinel == g->sentinel && d->signal.sequence == g->signal.sequence &&
	       d->signal.signal == g->signal.signal;
}

static void deliver(struct process_room *p, struct rpc_call *call,
		    const struct wire_group *g)
{
	_cleanup_(group_freep) struct group_delivery *d = calloc(1, sizeof(*d));
	struct look l = {.room = p, .group = g, .delivery = d};

	if (!d) {
		rpc_fail(call, RPC_DOWN, "out of memory");
		return;
	}
	*d = (struct group_delivery){.signal = g->signal,
				     .sentinel = g->sentinel,
				     .proc_fd = space_proc_fd(p->space),
				     .shadow_program = p->shadow_program};
	if (proc_each(d->proc_fd, look, &l) < 0)
		rpc_fail(call, RPC_DOWN, "out of memory");
	else if (d->found.n)
		signal_deliver_group(p, call, TAKE(d));
	else
		group_done(p, d, call);
}

void group_on_call(struct process_room *p, struct rpc_call *call,
		   const struct wire_group *g)
{
	struct look l = {.room = p, .group = g};

	if (room_was_fenced(p, call))
		return;
	if (g->signal.signal) {
		if (has_heard(p, g->sentinel, g->signal.sequence))
			wire_reply_done(call);
		else if (!signal_is_repeated(p, call, g))
			deliver(p, call, g);
		return;
	}
	if (proc_each(space_proc_fd(p->space), look, &l) == 0 && !l.any)
		rpc_fail(call, RPC_NOT_FOUND, "no process of group %d", g->signal.pid);
	else
		wire_reply_done(call);
}
