/*
 * Sentinels: what is sent to a group here reaches its members elsewhere.
 *
 * A sentinel is a shadow that stands for nobody, in a group that has, or may have,
 * members on other nodes.  Nobody knows its PID, so whatever signal it gets was sent to
 * the group; all other nodes are told, and each gives it to the members whose home it
 * is (process_group.c), but to those that had it from the kernel here: guests, and whom
 * kin stand for.
 *
 * Happy path: a shadow forks one when it comes to stand in a group that has none;
 * signals are told in order, each to all nodes, before the next.  As long as a shadow
 * or guest is in the group it stays; afterwards, once a second, the others are asked
 * whether they have members, and it ends when they have none, or when nobody but itself
 * is left of the group here, which is not the group's home.
 *
 * Failure modes: a node does not answer -> told again, under the same number, until a
 * view has it out; ssid dies -> as with other shadows, the successor is told again what
 * was not acknowledged; the sentinel is killed, as SIGKILL to a group does -> that is
 * told, and there is none any more.
 */
#include "process_internal.h"

#include "cleanup.h"
#include "err.h"
#include "log.h"

#include <signal.h>
#include <sys/socket.h>

static const nsec_t look_every = NSEC_PER_SEC;
static const nsec_t again_after = 200 * NSEC_PER_MSEC;
static const nsec_t born_within = 2 * NSEC_PER_SEC;

struct relay_call {
	struct relay *relay;
	struct wire_call call;
	struct env_timer again;
	node_id node;
};

/* A signal on its way to all other nodes; signal 0: a question. */
struct relay {
	struct sentinel *of;
	struct wire_group message;
	pid_t *except;
	struct relay_call *calls; /* NULL: not begun */
	size_t n, n_pending;
	bool any; /* somebody has members, or may have */
	struct env_timer turn;
};

struct sentinel {
	struct process_room *room;
	pid_t pid, group;
	struct relay *signal, *question; /* under way, or NULL */
	bool linked;  /* when last looked at: a shadow or guest is in the group, */
	bool present; /* or anybody is */
	LIST_ENTRY(sentinel) entry;
};

/* It has not said that it stands. */
struct sentinel_birth {
	struct process_room *room;
	struct process_member like;
	uint64_t sequence;
	struct env_fd watch;
	struct env_timer late;
	LIST_ENTRY(sentinel_birth) entry;
};

static struct sentinel *of_group(struct process_room *p, pid_t group)
{
	struct sentinel *s;

	LIST_FOREACH (s, &p->sentinels, entry)
		if (s->group == group)
			return s;
	return NULL;
}

/* -- To all nodes -- */

static struct relay *relay_free(struct relay *r)
{
	if (!r)
		return NULL;
	for (size_t i = 0; i < r->n; i++) {
		wire_cancel(&r->calls[i].call);
		env_disarm(r->of->room->env, &r->calls[i].again);
	}
	env_disarm(r->of->room->env, &r->turn);
	free(r->calls);
	free(r->except);
	free(r);
	return NULL;
}

static void end_call(struct relay *r)
{
	if (--r->n_pending == 0)
		(void)env_arm(r->of->room->env, &r->turn, 0);
}

static void on_answer(struct wire_call *call, enum rpc_status status, const char *text,
		      const struct wire_answer *answer)
{
	struct relay_call *c = container_of(call, struct relay_call, call);
	struct relay *r = c->relay;
	bool unknown = status == RPC_CONFLICT || status == RPC_TIMEOUT ||
		       status == RPC_DOWN || status == RPC_STALE;

	r->any |= status == RPC_OK || unknown;
	if (unknown && r->message.signal.signal)
		(void)env_arm(r->of->room->env, &c->again, again_after);
	else
		end_call(r);
}

static void on_again(struct env_timer *t)
{
	struct relay_call *c = container_of(t, struct relay_call, again);
	struct process_room *p = c->relay->of->room;

	if (!room_up(p, c->node))
		end_call(c->relay); /* what it had has ended with it */
	else if (wire_group(p->rpc, &c->call, c->node, &c->relay->message) < 0)
		(void)env_arm(p->env, t, again_after);
}

static bool is_in(struct process_room *p, pid_t pid, pid_t group)
{
	struct proc_stat s;

	return proc_stat_read(space_proc_fd(p->space), pid, &s) == 0 && s.pgid == group;
}

/* Who had it here besides those whose home this is. */
static int list_others(struct relay *r)
{
	struct process_room *p = r->of->room;
	const struct process_entry *e;
	size_t cursor = 0;

	r->except = calloc(process_table_n(p->table) + 1, sizeof(*r->except));
	if (!r->except)
		return err_origin(-ENOMEM);
	while ((e = process_table_next(p->table, &cursor)))
		/* One that is coming, and is killed, does not come: its process must be
		 * as well. */
		if ((e->record.state == PROCESS_KIN ||
		     (e->record.state == PROCESS_GUEST &&
		      !(e->record.moving && r->message.signal.signal == SIGKILL))) &&
		    is_in(p, e->record.pid, r->of->group))
			r->except[r->message.n_except++] = e->record.pid;
	r->message.except = r->except;
	return 0;
}

static int begin(struct relay *r)
{
	struct process_room *p = r->of->room;
	const struct membership_view *view = membership_view(p->membership);

	if (!view->n_nodes) /* before the first one */
		return -EAGAIN;
	if (r->message.signal.signal && !r->except && list_others(r) < 0)
		return -ENOMEM;
	r->calls = calloc(view->n_nodes, sizeof(*r->calls));
	if (!r->calls)
		return err_origin(-ENOMEM);
	for (size_t i = 0; i < view->n_nodes; i++) {
		const struct membership_node *n = &view->nodes[i];
		struct relay_call *c = &r->calls[r->n];

		if (n->id == room_self(p) || n->witness || !room_up(p, n->id))
			continue;
		*c = (struct relay_call){.relay = r,
					 .call.done = on_answer,
					 .again.cb = on_again,
					 .node = n->id};
		r->n++;
		if (wire_group(p->rpc, &c->call, c->node, &r->message) < 0)
			(void)env_arm(p->env, &c->again, again_after);
	}
	r->n_pending = r->n;
	return 0;
}

static void finish(struct relay *r);

static void on_turn(struct env_timer *t)
{
	struct relay *r = container_of(t, struct relay, turn);

	if (!r->calls && begin(r) < 0)
		(void)env_arm(r->of->room->env, t, again_after);
	else if (!r->n_pending)
		finish(r);
}

/* NULL: no memory. */
static struct relay *start(struct sentinel *s, const struct wire_signal *signal)
{
	struct relay *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	*r = (struct relay){.of = s,
			    .message = {.signal = *signal, .sentinel = s->pid},
			    .turn.cb = on_turn};
	r->message.signal.pid = s->group;
	(void)env_arm(s->room->env, &r->turn, 0);
	return r;
}

/* -- Its end -- */

static void drop(struct sentinel *s)
{
	LIST_REMOVE(s, entry);
	relay_free(s->signal);
	relay_free(s->question);
	free(s);
}

static void end(struct sentinel *s)
{
	struct process_room *p = s->room;
	pid_t pid = s->pid;

	drop(s);
	process_table_remove(p->table, pid);
	shadow_drop(p, pid);
	if (room_is_shadow(p, pid))
		(void)process_kernel_signal(pid, SIGKILL);
}

static void look_for_links(struct process_room *p)
{
	const struct process_entry *e;
	struct sentinel *s;
	struct proc_stat stat;
	size_t cursor = 0;

	LIST_FOREACH (s, &p->sentinels, entry)
		s->linked = s->present = false;
	while ((e = process_table_next(p->table, &cursor))) {
		if ((e->record.state != PROCESS_AWAY &&
		     e->record.state != PROCESS_KIN &&
		     e->record.state != PROCESS_GUEST) ||
		    proc_stat_read(space_proc_fd(p->space), e->record.pid, &stat) < 0)
			continue;
		s = of_group(p, stat.pgid);
		if (s)
			s->linked = s->present = true;
	}
}

static void finish(struct relay *r)
{
	struct sentinel *s = r->of;
	struct process_room *p = s->room;
	bool any = r->any, is_question = r == s->question;
	int signal = r->message.signal.signal;
	pid_t pid = s->pid;

	if (is_question)
		s->question = relay_free(r);
	else
		s->signal = relay_free(r);
	if (is_question) {
		look_for_links(p);
		if (!any && !s->linked && !s->signal)
			end(s);
	} else if (signal == SIGKILL) {
		end(s);
	} else {
		shadow_handed_on(p, pid);
	}
}

/* Who is in the group, of those that have no shadow or guest in it. */
static int see(void *owner, pid_t pid)
{
	struct process_room *p = owner;
	struct proc_stat stat;
	struct sentinel *s;

	if (proc_stat_read(space_proc_fd(p->space), pid, &stat) == 0 &&
	    stat.state != 'Z' && stat.state != 'X') {
		s = of_group(p, stat.pgid);
		if (s && s->pid != pid)
			s->present = true;
	}
	return 0;
}

static void look_after(struct sentinel *s)
{
	struct process_room *p = s->room;
	node_id home = membership_home(p->membership, s->group);
	const struct wire_signal none = {0};

	if (s->linked || s->signal || s->question)
		return;
	if (s->present || home == NODE_NONE || home == room_self(p))
		s->question = start(s, &none);
	else
		end(s);
}

void sentinel_on_timer(struct env_timer *t)
{
	struct process_room *p = container_of(t, struct process_room, sentinel_timer);
	struct sentinel *s, *next;
	bool all_linked = true;

	look_for_links(p);
	LIST_FOREACH (s, &p->sentinels, entry)
		all_linked &= s->linked;
	if (!all_linked)
		(void)proc_each(space_proc_fd(p->space), see, p);
	for (s = LIST_FIRST(&p->sentinels); s; s = next) {
		next = LIST_NEXT(s, entry);
		look_after(s);
	}
	if (!LIST_EMPTY(&p->sentinels))
		(void)env_arm(p->env, t, look_every);
}

void sentinel_look(struct process_room *p)
{
	if (!LIST_EMPTY(&p->sentinels))
		(void)env_arm(p->env, &p->sentinel_timer, 0);
}

/* -- What it is sent -- */

void sentinel_send(struct process_room *p, pid_t pid, const struct wire_signal *signal)
{
	struct sentinel *s;

	LIST_FOREACH (s, &p->sentinels, entry)
		if (s->pid == pid && !s->signal) {
			s->signal = start(s, signal);
			if (!s->signal)
				log_warning("signal %d to group %d is lost for other "
					    "nodes: no "
					    "memory",
					    signal->signal, s->group);
		}
}

/* -- Its birth -- */

static void stand(struct process_room *p, pid_t pid, pid_t group)
{
	struct sentinel *s = calloc(1, sizeof(*s));

	if (!s)
		return; /* it is taken over by the next ssid */
	*s = (struct sentinel){.room = p, .pid = pid, .group = group, .linked = true};
	LIST_INSERT_HEAD(&p->sentinels, s, entry);
	if (!p->sentinel_timer.due)
		(void)env_arm(p->env, &p->sentinel_timer, look_every);
}

void sentinel_take_over(struct process_room *p, pid_t pid)
{
	const struct process_entry *e = process_table_find(p->table, pid);

	stand(p, pid, e->record.root);
}

void sentinel_was_killed(struct process_room *p, pid_t pid)
{
	sentinel_take_over(p, pid);
	shadow_killed(p, pid);
}

static void free_birth(struct sentinel_birth *b)
{
	LIST_REMOVE(b, entry);
	env_disarm(b->room->env, &b->late);
	if (b->watch.fd >= 0) {
		env_unwatch(b->room->env, &b->watch);
		(void)close(b->watch.fd); /* without us it ends */
	}
	free(b);
}

static void adopt(struct sentinel_birth *b, pid_t pid)
{
	struct process_room *p = b->room;
	struct process_entry e = {.record = {.pid = pid,
					     .app = b->like.app,
					     .root = b->like.pgid,
					     .home = room_self(p),
					     .place = room_self(p),
					     .state = PROCESS_SENTINEL,
					     .uid = b->like.uid},
				  .sequence = b->sequence};

	if (!room_is_shadow(p, pid) || !is_in(p, pid, b->like.pgid) ||
	    process_table_find(p->table, pid))
		return;
	env_unwatch(p->env, &b->watch);
	if (shadow_adopt(p, pid, TAKE_FD(b->watch.fd)) < 0)
		return;
	if (room_put(p, &e) < 0) {
		shadow_drop(p, pid);
		return;
	}
	stand(p, pid, b->like.pgid);
	trace_seize(p, pid);
}

static void end_birth(struct sentinel_birth *b)
{
	struct process_room *p = b->room;
	pid_t group = b->like.pgid;

	free_birth(b);
	if (!of_group(p, group))
		log_warning("group %d has no sentinel: signals to it do not reach all "
			    "of its "
			    "members on other nodes",
			    group);
	leave_on_sentinel(p, group);
}

static void on_born(struct env_fd *watch, unsigned events)
{
	struct sentinel_birth *b = container_of(watch, struct sentinel_birth, watch);
	struct shadow_report r;
	ssize_t n = recv(watch->fd, &r, sizeof(r), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n == sizeof(r) && r.kind == SHADOW_HELLO)
		adopt(b, (pid_t)r.info.ssi_pid);
	end_birth(b);
}

static void on_late(struct env_timer *t)
{
	end_birth(container_of(t, struct sentinel_birth, late));
}

bool sentinel_is_awaited(struct process_room *p, pid_t group)
{
	struct sentinel_birth *b;

	LIST_FOREACH (b, &p->sentinel_births, entry)
		if (b->like.pgid == group)
			return true;
	return false;
}

void sentinel_stand(struct process_room *p, const struct process_member *like)
{
	/* Numbers that none before it had, whose PID it may have. */
	struct shadow_command c = {.verb = SHADOW_SENTINEL,
				   .sequence = env_realtime(p->env)};
	_cleanup_close_ int theirs = -1;
	struct sentinel_birth *b;

	if (of_group(p, like->pgid) || sentinel_is_awaited(p, like->pgid))
		return;
	b = calloc(1, sizeof(*b));
	if (!b)
		return;
	*b = (struct sentinel_birth){.room = p,
				     .like = *like,
				     .sequence = c.sequence,
				     .watch = {.fd = -1, .cb = on_born},
				     .late.cb = on_late};
	LIST_INSERT_HEAD(&p->sentinel_births, b, entry);
	if (process_kernel_connect(p->shadow_listen_fd, &b->watch.fd, &theirs) < 0 ||
	    env_watch(p->env, &b->watch, ENV_READ) < 0 ||
	    env_arm(p->env, &b->late, born_within) < 0 ||
	    shadow_send(p, like->pid, &c, &theirs, 1) < 0)
		end_birth(b);
}

void sentinel_fini(struct process_room *p)
{
	struct sentinel_birth *b;
	struct sentinel *s;

	env_disarm(p->env, &p->sentinel_timer);
	while ((b = LIST_FIRST(&p->sentinel_births)))
		free_birth(b);
	while ((s = LIST_FIRST(&p->sentinels)))
		drop(s);
}
