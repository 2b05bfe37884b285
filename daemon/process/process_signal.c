/*
 * Signals: to the place of a process, and there into it.
 *
 * Happy path: the home says where, the place checks the sender's right and makes
 * the process queue the signal to itself (the injection door), because the
 * kernel lets nobody else say who sent it.
 *
 * Failure modes: it moved meanwhile -> the home is asked again; it is held by a
 * move or checkpoint -> the signal waits for the end of that; the door does not
 * open (traced, asleep in a driver) -> the signal goes plainly, from ssid.
 */
#include "process_internal.h"

#include "err.h"
#include "inject.h"
#include "log.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

enum { ASKS_MAX = 20, SENT_ON_ASKS_MAX = 200, WAITING_MAX = 4096 };

static const nsec_t ask_again_after = 100 * NSEC_PER_MSEC;

struct delivery {
	struct env_work work;
	struct process_room *room; /* NULL: it is gone */
	struct rpc_call *call;
	struct wire_signal signal;
	struct group_delivery *group; /* or NULL: to all of these instead */
	int proc_fd, result;
	TAILQ_ENTRY(delivery) entry;
};

struct signal_ask {
	struct process_room *room;
	struct wire_call call;
	struct find find;
	struct env_timer again;
	struct wire_signal signal;
	unsigned n_asked;
	bool sent_on; /* nobody waits for it, nor could send it again */
	void (*done)(void *owner, enum rpc_status status, const char *text);
	void *owner;
	TAILQ_ENTRY(signal_ask) entry;
};

bool process_may_signal(const struct process_caller *caller, uid_t uid)
{
	return caller->uid == 0 || caller->uid == uid;
}

/* -- Asking -- */

static void finish_ask(struct signal_ask *a, enum rpc_status status, const char *text)
{
	TAILQ_REMOVE(&a->room->signal_asks, a, entry);
	env_disarm(a->room->env, &a->again);
	a->done(a->owner, status, text);
	free(a);
}

static void ask_later(struct signal_ask *a, enum rpc_status status, const char *text)
{
	if (++a->n_asked > (a->sent_on ? SENT_ON_ASKS_MAX : ASKS_MAX) ||
	    env_arm(a->room->env, &a->again, ask_again_after) < 0)
		finish_ask(a, status, text);
}

static void on_signalled(struct wire_call *c, enum rpc_status status, const char *text,
			 const struct wire_answer *answer)
{
	struct signal_ask *a = container_of(c, struct signal_ask, call);

	/* Not there: it moved, or ended; its home knows. */
	if (status == RPC_NOT_FOUND)
		ask_later(a, status, text);
	else
		finish_ask(a, status, text);
}

static void send_to(struct signal_ask *a, enum rpc_status status, const char *text,
		    const struct wire_answer *answer)
{
	if (a->sent_on &&
	    (status == RPC_DOWN || status == RPC_TIMEOUT || status == RPC_STALE)) {
		ask_later(a, status, text);
		return;
	}
	if (status != RPC_OK) {
		finish_ask(a, status, text);
		return;
	}
	a->call.done = on_signalled;
	if (a->signal.sequence) /* a shadow's: by the move that its home knows of */
		a->signal.generation = answer->generation;
	if (wire_signal(a->room->rpc, &a->call, answer->place, &a->signal) < 0)
		ask_later(a, RPC_FAILED, "out of memory");
}

static void on_place(struct wire_call *c, enum rpc_status status, const char *text,
		     const struct wire_answer *answer)
{
	send_to(container_of(c, struct signal_ask, call), status, text, answer);
}

static void on_found(struct find *f, enum rpc_status status, const char *text,
		     const struct wire_answer *answer)
{
	send_to(container_of(f, struct signal_ask, find), status, text, answer);
}

static int ask(struct signal_ask *a)
{
	struct process_room *p = a->room;
	node_id home = membership_home(p->membership, a->signal.pid);
	struct process_record d;

	if (home == NODE_NONE ||
	    (!room_up(p, home) && process_record(p, a->signal.pid, &d) == 0))
		home = room_self(p);
	a->call.done = on_place;
	if (!room_up(p, home))
		return find_start(p, &a->find, wire_where, a->signal.pid, on_found);
	return wire_where(p->rpc, &a->call, home, a->signal.pid);
}

static void on_ask_again(struct env_timer *t)
{
	struct signal_ask *a = container_of(t, struct signal_ask, again);

	if (ask(a) < 0)
		ask_later(a, RPC_FAILED, "out of memory");
}

int process_signal(struct process_room *p, pid_t pid, int signal,
		   const struct process_caller *caller,
		   void (*done)(void *owner, enum rpc_status status, const char *text),
		   void *owner)
{
	struct signal_ask *a = calloc(1, sizeof(*a));
	int r;

	if (!a)
		return err_origin(-ENOMEM);
	/* The caller is outside of the space: si_pid is 0, as the kernel has it then.
	 */
	*a = (struct signal_ask){.room = p,
				 .again.cb = on_ask_again,
				 .done = done,
				 .owner = owner,
				 .signal = {.pid = pid,
					    .signal = signal,
					    .code = SI_USER,
					    .sender_uid = caller->uid,
					    .check = true}};
	r = ask(a);
	if (r < 0) {
		free(a);
		return r;
	}
	TAILQ_INSERT_TAIL(&p->signal_asks, a, entry);
	return 0;
}

static void on_sent_on(void *owner, enum rpc_status status, const char *text)
{
	if (status != RPC_OK)
		log_notice("a signal that a shadow had taken is dropped: %s", text);
}

void signal_forward(struct process_room *p, const struct wire_signal *s)
{
	struct signal_ask *a = calloc(1, sizeof(*a));

	if (!a)
		return;
	*a = (struct signal_ask){
		.room = p, .again.cb = on_ask_again, .sent_on = true, .done = on_sent_on, .signal = *s};
	if (ask(a) < 0) {
		free(a);
		return;
	}
	TAILQ_INSERT_TAIL(&p->signal_asks, a, entry);
}

/* -- At the place -- */

static void fill_siginfo(const struct wire_signal *s, siginfo_t *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->si_signo = s->signal;
	ret->si_code = s->code;
	ret->si_pid = s->sender_pid;
	ret->si_uid = s->sender_uid;
	if (s->signal == SIGCHLD && s->code > 0)
		ret->si_status = (int)s->value;
	else
		ret->si_ptr = (void *)(uintptr_t)s->value;
}

/* The sequence of what a shadow sent was delivered: a repetition is not. */
static void remember(struct process_room *p, const struct wire_signal *s)
{
	const struct process_entry *found = process_table_find(p->table, s->pid);
	struct process_entry e;

	if (!s->sequence || !found)
		return;
	e = *found;
	e.sequence = s->sequence;
	(void)room_put(p, &e); /* replaces: cannot be full */
}

static void answer(struct process_room *p, struct rpc_call *call,
		   const struct wire_signal *s, int r)
{
	if (r == -ESRCH) {
		rpc_fail(call, RPC_NOT_FOUND, "no process %d", s->pid);
		return;
	}
	if (r < 0) {
		rpc_fail(call, RPC_FAILED, "cannot signal process %d: %s", s->pid,
			 strerror(-r));
		return;
	}
	remember(p, s);
	wire_reply_done(call);
}

void process_carry(const struct process_room *p, struct process_member *m)
{
	const struct process_entry *e = process_table_find(p->table, m->pid);
	bool guest = e && e->record.state == PROCESS_GUEST;

	m->delivered = guest ? e->sequence : 0;
	m->known = guest ? e->place_incarnation : place_incarnation(p, room_self(p));
}

/* May root say who sent it, without the process's help? */
bool signal_is_plain(const struct wire_signal *s)
{
	return s->signal == 0 || s->signal == SIGKILL || s->signal == SIGSTOP ||
	       s->signal == SIGCONT || (s->code < 0 && s->code != SI_TKILL);
}

int signal_send_plain(const struct wire_signal *s)
{
	siginfo_t info;

	fill_siginfo(s, &info);
	if (s->code < 0 && s->code != SI_TKILL && s->signal != 0)
		return process_kernel_queue(s->pid, s->signal, &info);
	return process_kernel_signal(s->pid, s->signal);
}

int signal_inject(struct inject *i, const struct wire_signal *s)
{
	long args[6] = {s->pid, s->signal}, result = 0;
	siginfo_t info;
	int r;

	fill_siginfo(s, &info);
	args[2] = (long)inject_scratch(i);
	r = args[2] ? inject_write(i, args[2], &info, sizeof(info)) : -EFAULT;
	if (r == 0)
		r = inject_call(i, SYS_rt_sigqueueinfo, args, &result);
	return r != 0 ? -EBUSY : (int)result;
}

static int send_injected(const struct wire_signal *s, int proc_fd)
{
	struct inject *i = NULL;
	int r = inject_attach(&i, proc_fd, s->pid);

	if (r != 0)
		return r == INJECT_E_GONE ? -ESRCH : -EBUSY;
	r = signal_inject(i, s);
	i = inject_detach(i);
	return r;
}

static void on_work(struct env_work *w)
{
	struct delivery *d = container_of(w, struct delivery, work);

	if (d->group) {
		group_work(d->group);
		return;
	}
	d->result = send_injected(&d->signal, d->proc_fd);
	if (d->result < 0 && d->result != -EAGAIN)
		d->result = process_kernel_signal(d->signal.pid, d->signal.signal);
}

static void next_delivery(struct process_room *p);
static int stale(struct process_room *p, struct rpc_call *call, const struct wire_signal *s);

static void free_delivery(struct delivery *d)
{
	group_free(d->group);
	free(d);
}

static void on_delivered(struct env_work *w)
{
	struct delivery *d = container_of(w, struct delivery, work);
	struct process_room *p = d->room;

	if (p) {
		TAILQ_REMOVE(&p->deliveries, d, entry);
		if (d->group)
			group_done(p, d->group, d->call);
		else
			answer(p, d->call, &d->signal, d->result);
		next_delivery(p);
	}
	free_delivery(d);
}

static void next_delivery(struct process_room *p)
{
	struct delivery *d = TAILQ_FIRST(&p->deliveries);

	if (!d)
		return;
	/* Sent again while it waited for its turn, it has been delivered. */
	if (!d->group && stale(p, d->call, &d->signal)) {
		TAILQ_REMOVE(&p->deliveries, d, entry);
		free_delivery(d);
		return next_delivery(p);
	}
	d->work = (struct env_work){.work = on_work, .done = on_delivered};
	if (env_work(p->env, &d->work) == 0)
		return;
	TAILQ_REMOVE(&p->deliveries, d, entry);
	if (d->group)
		rpc_fail(d->call, RPC_DOWN, "out of memory");
	else
		answer(p, d->call, &d->signal, signal_send_plain(&d->signal));
	free_delivery(d);
	next_delivery(p);
}

static void enqueue(struct process_room *p, struct delivery *d)
{
	d->room = p;
	TAILQ_INSERT_TAIL(&p->deliveries, d, entry);
	if (TAILQ_FIRST(&p->deliveries) == d)
		next_delivery(p);
}

void signal_deliver_group(struct process_room *p, struct rpc_call *call,
			  struct group_delivery *owned_group)
{
	struct delivery *d = calloc(1, sizeof(*d));

	if (!d) {
		group_free(owned_group);
		rpc_fail(call, RPC_DOWN, "out of memory");
		return;
	}
	*d = (struct delivery){.call = call, .group = owned_group};
	enqueue(p, d);
}

bool signal_is_repeated(struct process_room *p, struct rpc_call *call, const struct wire_group *g)
{
	struct delivery *d;

	TAILQ_FOREACH (d, &p->deliveries, entry) {
		if (!d->group || !group_is(d->group, g))
			continue;
		rpc_fail(d->call, RPC_TIMEOUT, "asked again");
		d->call = call;
		return true;
	}
	return false;
}

static void deliver(struct process_room *p, struct rpc_call *call,
		    const struct wire_signal *s)
{
	struct delivery *d;

	if (signal_is_plain(s)) {
		answer(p, call, s, signal_send_plain(s));
		return;
	}
	d = calloc(1, sizeof(*d));
	if (!d) {
		answer(p, call, s, signal_send_plain(s));
		return;
	}
	*d = (struct delivery){
		.call = call, .signal = *s, .proc_fd = space_proc_fd(p->space)};
	enqueue(p, d);
}

static struct hold *holder_of(struct process_room *p, pid_t pid)
{
	struct hold *h;

	TAILQ_FOREACH (h, &p->holds, entry)
		if (room_below(p, pid, h->root))
			return h;
	return NULL;
}

bool signal_held(struct process_room *p, pid_t pid)
{
	return !TAILQ_EMPTY(&p->holds) && holder_of(p, pid);
}

node_id signal_held_for(struct process_room *p, pid_t pid)
{
	const struct hold *h = holder_of(p, pid);

	return h ? h->to : NODE_NONE;
}

/* A repetition of one that waits takes its place. */
static void drop_repeated(struct hold *h, const struct wire_signal *s)
{
	struct delivery *d, *next;

	if (!s->sequence)
		return;
	for (d = TAILQ_FIRST(&h->waiting); d; d = next) {
		next = TAILQ_NEXT(d, entry);
		if (d->signal.pid != s->pid || d->signal.sequence != s->sequence)
			continue;
		TAILQ_REMOVE(&h->waiting, d, entry);
		rpc_fail(d->call, RPC_TIMEOUT, "asked again");
		free(d);
	}
}

static void wait_for_end(struct process_room *p, struct hold *h, struct rpc_call *call,
			 const struct wire_signal *s)
{
	struct delivery *d, *each;
	size_t n = 0;

	drop_repeated(h, s);
	TAILQ_FOREACH (each, &h->waiting, entry)
		n++;
	d = n < WAITING_MAX ? calloc(1, sizeof(*d)) : NULL;
	if (!d) {
		rpc_fail(call, RPC_CONFLICT, "process %d is being moved or saved",
			 s->pid);
		return;
	}
	*d = (struct delivery){.room = p, .call = call, .signal = *s};
	TAILQ_INSERT_TAIL(&h->waiting, d, entry);
}

/* What the sender's node knows of a process here must be what it is now.  > 0:
 * answered. */
static int stale(struct process_room *p, struct rpc_call *call,
		 const struct wire_signal *s)
{
	const struct process_entry *e = process_table_find(p->table, s->pid);

	if (e &&
	    (e->record.state == PROCESS_AWAY || e->record.state == PROCESS_ENDED)) {
		rpc_fail(call, RPC_NOT_FOUND, "process %d is not here", s->pid);
		return 1;
	}
	if (!s->sequence)
		return 0;
	if (!e || e->record.generation != s->generation) {
		rpc_fail(call, RPC_NOT_FOUND, "process %d is not here by that move",
			 s->pid);
		return 1;
	}
	if (s->sequence <= e->sequence) {
		wire_reply_done(call);
		return 1;
	}
	return 0;
}

/* Who is continued in the foreground of its terminal, and reads it, must be there here as well:
 * that comes by another way. */
static bool awaits_terminal(const struct wire_signal *s, const struct proc_stat *stat)
{
	return s->signal == SIGCONT && s->foreground > 0 && stat->foreground > 0 &&
	       stat->foreground != s->foreground &&
	       process_kernel_signal(-s->foreground, 0) == 0;
}

void signal_on_call(struct process_room *p, struct rpc_call *call,
		    const struct wire_signal *s)
{
	struct process_caller caller = {.uid = s->sender_uid};
	struct proc_stat stat;
	struct hold *h;
	uid_t uid;

	/* What stands here may give way to one that had no such signal. */
	if (stale(p, call, s) || room_was_fenced(p, call))
		return;
	if (room_real(p, s->pid, &stat) != 0 || room_is_half_made(p, s->pid) ||
	    proc_status_read(space_proc_fd(p->space), s->pid, &uid, NULL) < 0) {
		rpc_fail(call, RPC_NOT_FOUND, "no process %d", s->pid);
		return;
	}
	if (s->check && !process_may_signal(&caller, uid)) {
		rpc_fail(call, RPC_NOT_PERMITTED, "process %d belongs to another user",
			 s->pid);
		return;
	}
	if (awaits_terminal(s, &stat)) {
		rpc_fail(call, RPC_CONFLICT, "another group is in the foreground");
		return;
	}
	h = holder_of(p, s->pid);
	if (h)
		wait_for_end(p, h, call, s);
	else
		deliver(p, call, s);
}

/* -- Holding -- */

static bool is_busy(struct process_room *p, pid_t root)
{
	struct delivery *d;
	struct hold *h;

	TAILQ_FOREACH (h, &p->holds, entry)
		if (room_below(p, h->root, root) || room_below(p, root, h->root))
			return true;
	TAILQ_FOREACH (d, &p->deliveries, entry) /* the door is open: milliseconds */
		if (d->group ? group_is_below(p, d->group, root)
			     : room_below(p, d->signal.pid, root))
			return true;
	return false;
}

/* Its record is that of its shadow already, and those of its children perhaps not: what a
 * predecessor was killed in. */
static bool is_half_gone(struct process_room *p, const struct process_record *d)
{
	struct proc_stat s;

	return d->moving && room_real(p, d->pid, &s) == 0;
}

int process_hold(struct process_room *p, pid_t root)
{
	struct process_record d;
	struct hold *h;

	if (room_is_half_made(p, root) || process_record(p, root, &d) != 0 ||
	    d.state == PROCESS_ENDED ||
	    (d.state == PROCESS_AWAY && !is_half_gone(p, &d)))
		return PROCESS_E_ABSENT;
	if (is_busy(p, root))
		return PROCESS_E_BUSY;
	h = calloc(1, sizeof(*h));
	if (!h)
		return err_origin(-ENOMEM);
	h->root = root;
	TAILQ_INIT(&h->waiting);
	TAILQ_INSERT_TAIL(&p->holds, h, entry);
	return 0;
}

void process_hold_for(struct process_room *p, pid_t root, node_id to)
{
	struct hold *h;

	TAILQ_FOREACH (h, &p->holds, entry)
		if (h->root == root)
			h->to = to;
}

void process_unhold(struct process_room *p, pid_t root)
{
	struct delivery *d;
	struct hold *h;

	TAILQ_FOREACH (h, &p->holds, entry)
		if (h->root == root)
			break;
	if (!h)
		return;
	TAILQ_REMOVE(&p->holds, h, entry);
	while ((d = TAILQ_FIRST(&h->waiting))) {
		TAILQ_REMOVE(&h->waiting, d, entry);
		signal_on_call(p, d->call, &d->signal); /* it may be elsewhere now */
		free(d);
	}
	free(h);
}

static void fail_delivery(struct delivery *d)
{
	rpc_fail(d->call, RPC_DOWN, "ssid stops");
}

void signal_fini(struct process_room *p)
{
	struct delivery *d, *busy = TAILQ_FIRST(&p->deliveries);
	struct signal_ask *a;
	struct hold *h;

	while ((h = TAILQ_FIRST(&p->holds))) {
		while ((d = TAILQ_FIRST(&h->waiting))) {
			TAILQ_REMOVE(&h->waiting, d, entry);
			fail_delivery(d);
			free(d);
		}
		TAILQ_REMOVE(&p->holds, h, entry);
		free(h);
	}
	while ((d = TAILQ_FIRST(&p->deliveries))) {
		TAILQ_REMOVE(&p->deliveries, d, entry);
		fail_delivery(d);
		d->room = NULL;
		if (d != busy) /* that one is freed when its work is done */
			free_delivery(d);
	}
	while ((a = TAILQ_FIRST(&p->signal_asks))) {
		TAILQ_REMOVE(&p->signal_asks, a, entry);
		find_cancel(&a->find);
		wire_cancel(&a->call);
		env_disarm(p->env, &a->again);
		free(a);
	}
}
