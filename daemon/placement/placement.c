/*
 * The way out of a program that begins elsewhere.
 *
 * Happy path: LOOKING (a worker reads what it would inherit) -> ASKING (the other node makes
 * all of that, and says that it could begin) -> LEAVING (its process becomes its shadow, on
 * a worker) -> DRAINING (only if signals were pending: the other node is told that it left, and
 * they are sent on) -> BEGINNING (the other node is told, again and again until it knows).
 *
 * Failure modes: before LEAVING anything -> its process goes on in its execve() here; the
 * process is interrupted by a signal -> it asks again, and we go on under the new id; ssid
 * dies -> ssi-init lets the process go on, or it is a shadow and the journal says where its
 * program waits; the other node is lost -> its program has ended with it by SIGKILL, which
 * the process room tells; it has given up its program, which only a restart of its ssid in
 * the very moment brings about -> the same.
 */
#include "placement_internal.h"

#include "err.h"
#include "fault.h"
#include "log.h"
#include "placement_wire.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum state { LOOKING, ASKING, LEAVING, DRAINING, BEGINNING };

static const nsec_t again_after = 200 * NSEC_PER_MSEC;

struct leaving {
	struct placement *placement; /* NULL: it is gone */
	enum state state;
	pid_t pid;
	uint64_t call;
	node_id node;
	uint32_t generation;
	uint64_t incarnation;
	struct placement_look look;
	stream_id streams[PLACEMENT_GIVEN_MAX];
	struct process_alarm alarm;
	struct env_work work;
	struct rpc_request *request;
	struct env_timer again;
	TAILQ_ENTRY(leaving) entry;
};

static struct leaving *find(struct placement *p, pid_t pid)
{
	struct leaving *l;

	TAILQ_FOREACH (l, &p->leaving, entry)
		if (l->pid == pid)
			return l;
	return NULL;
}

static void free_leaving(struct leaving *l)
{
	struct placement *p = l->placement;

	TAILQ_REMOVE(&p->leaving, l, entry);
	if (l->request)
		rpc_cancel(p->n.rpc, l->request);
	env_disarm(p->n.env, &l->again);
	process_leave_drain_cancel(p->n.process, l);
	placement_exec_fini(&l->look.exec);
	free(l);
}

static void stay(struct leaving *l, const char *why)
{
	struct placement *p = l->placement;

	log_debug("program of process %d begins here: %s", l->pid, why);
	for (size_t i = 0; i < l->look.exec.n_given; i++)
		if (l->streams[i] && !l->look.exec.input[i])
			(void)stream_close(p->n.stream, l->streams[i], STREAM_WRITER);
	stream_stay(p->n.stream, l->pid);
	/* Interrupted, it asks again. */
	(void)space_exec_go(p->n.space, l->call);
	free_leaving(l);
}

static void tell_no(void *owner, const struct rpc_result *result)
{
}

/* -- BEGINNING -- */

static void begin(struct leaving *l);
static void drain(struct leaving *l);

static void on_again(struct env_timer *t)
{
	struct leaving *l = container_of(t, struct leaving, again);

	if (l->state == DRAINING)
		drain(l);
	else
		begin(l);
}

static void tell(struct leaving *l, const struct placement_end *end, rpc_done_cb done)
{
	struct placement *p = l->placement;

	if (placement_wire_end(p, l->node, l->pid, l->generation, end, done, l, &l->request) < 0)
		(void)env_arm(p->n.env, &l->again, again_after);
}

static void on_begun(void *owner, const struct rpc_result *result)
{
	struct leaving *l = owner;
	struct placement *p = l->placement;

	l->request = NULL;
	if (result->status != RPC_OK && result->status != RPC_NOT_FOUND) {
		/* A view without it ends this, see placement_on_view(). */
		(void)env_arm(p->n.env, &l->again, again_after);
		return;
	}
	if (result->status == RPC_NOT_FOUND) {
		log_warning("program of process %d did not begin: %s PID=%d", l->pid,
			    result->text, l->pid);
		process_leave_lost(p->n.process, l->pid, l->generation);
	}
	journal_remove(p, l->pid);
	free_leaving(l);
}

static void begin(struct leaving *l)
{
	const struct placement_end end = { .begin = true, .alarm = l->alarm };

	l->state = BEGINNING;
	tell(l, &end, on_begun);
}

/* -- DRAINING -- */

static void on_drained(void *owner)
{
	begin(owner);
}

static void on_committed(void *owner, const struct rpc_result *result)
{
	struct leaving *l = owner;
	struct placement *p = l->placement;

	l->request = NULL;
	if (result->status == RPC_NOT_FOUND ||
	    (result->status == RPC_OK &&
	     process_leave_drain(p->n.process, l->pid, on_drained, l) < 0))
		begin(l);
	else if (result->status != RPC_OK)
		(void)env_arm(p->n.env, &l->again, again_after);
}

static void drain(struct leaving *l)
{
	const struct placement_end end = { .begin = true, .wait = true };

	l->state = DRAINING;
	tell(l, &end, on_committed);
}

/* -- LEAVING -- */

static void did_not_leave(struct leaving *l, const char *why)
{
	const struct placement_end no = { .begin = false };
	struct placement *p = l->placement;

	journal_remove(p, l->pid);
	(void)placement_wire_end(p, l->node, l->pid, l->generation, &no, tell_no, NULL, NULL);
	job_stays(p, l->pid);
	stay(l, why);
}

static void on_left(void *owner, bool left, const struct process_alarm *alarm, bool pending)
{
	struct leaving *l = owner;

	process_unhold(l->placement->n.process, l->pid);
	if (!left)
		return did_not_leave(l, "it was killed, or could not become a shadow");
	l->alarm = *alarm;
	stream_go(l->placement->n.stream, l->pid);
	(void)fault("placement.left");
	if (pending)
		drain(l);
	else
		begin(l);
}

static int leave(struct leaving *l)
{
	struct placement *p = l->placement;
	struct journal_entry e = { l->pid, l->node, l->generation };
	int r = journal_add(p, &e);

	if (r == 0) {
		l->look.call.id = l->call;
		l->state = LEAVING;
		r = process_leave(p->n.process, &l->look.member, &l->look.call, l->look.empty,
				  l->look.argv, l->node, l->incarnation, on_left, l);
	}
	return err_fold(r);
}

/* -- ASKING -- */

static void on_asked(void *owner, const struct rpc_result *result)
{
	struct leaving *l = owner;
	struct placement *p = l->placement;
	int r;

	l->request = NULL;
	if (result->status != RPC_OK) {
		log_debug("node %s refuses the program of process %d: %s",
			  rpc_name(p->n.rpc, l->node), l->pid, result->text);
		return did_not_leave(l, result->text);
	}
	l->incarnation = placement_wire_incarnation(result);
	if (fault("placement.asked") < 0)
		return did_not_leave(l, "a fault point says so");
	/* Held by a move or checkpoint, it stays. */
	r = process_hold(p->n.process, l->pid);
	if (r != 0)
		return did_not_leave(l, "it is being moved or saved");
	r = leave(l);
	if (r != 0) {
		process_unhold(p->n.process, l->pid);
		did_not_leave(l, "it could not be made a shadow");
	}
}

/* Its program has been elsewhere, and left what reads the pipe for it here. */
static bool is_read_elsewhere(struct stream_room *s, int fd)
{
	struct stream_info unused;
	struct stat st;

	return fstat(fd, &st) < 0 || stream_by_pipe(s, st.st_ino, STREAM_READER, &unused) == 0;
}

/* Our ends: what the program writes there goes into the pipes here, and what is in others
 * here goes there, when it has left. */
static int open_streams(struct leaving *l)
{
	struct stream_room *s = l->placement->n.stream;
	struct placement_exec *x = &l->look.exec;
	int r = 0;

	for (size_t i = 0; r == 0 && i < x->n_given; i++) {
		if (x->given[i] < 0)
			continue;
		if (x->input[i] && is_read_elsewhere(s, x->given[i]))
			return err_origin(-EBUSY);
		l->streams[i] = stream_new_id(s);
		if (x->input[i])
			r = stream_hold(s, l->streams[i], l->node, TAKE_FD(x->given[i]), l->pid);
		else
			r = stream_open(s, l->streams[i], STREAM_WRITER, l->node,
					TAKE_FD(x->given[i]), 0, NULL, 0);
	}
	return err_fold(r);
}

static void ask(struct leaving *l)
{
	struct placement *p = l->placement;
	struct process_record d;
	int r;

	if (process_record(p->n.process, l->pid, &d) != 0)
		return stay(l, "it has ended");
	l->look.member.app = l->look.parent.app = d.app;
	l->look.member.generation = l->generation = 1;
	l->state = ASKING;
	r = open_streams(l);
	if (r == 0 && l->look.exec.has_terminal)
		r = tty_line(p->n.tty, l->node, &l->look.exec.terminal);
	if (r == 0)
		r = placement_wire_ask(p, l->node, &l->look, l->streams, on_asked, l,
				       &l->request);
	if (r < 0)
		stay(l, "the other node could not be asked");
}

/* -- LOOKING -- */

static void on_look(struct env_work *w)
{
	struct leaving *l = container_of(w, struct leaving, work);
	int r = placement_look(&l->look);

	if (r < 0)
		(void)snprintf(l->look.why, sizeof(l->look.why), "%s", strerror(-r));
}

static void on_looked(struct env_work *w)
{
	struct leaving *l = container_of(w, struct leaving, work);

	if (!l->placement) {
		placement_exec_fini(&l->look.exec);
		free(l);
		return;
	}
	if (l->look.why[0]) {
		/* What it starts may do better. */
		job_forget(l->placement, l->pid);
		stay(l, l->look.why);
	} else {
		ask(l);
	}
}

static int look(struct placement *p, const struct space_exec *exec, node_id node)
{
	struct leaving *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return err_origin(-ENOMEM);
	*l = (struct leaving){ .placement = p,
			       .pid = exec->pid,
			       .call = exec->id,
			       .node = node,
			       .again.cb = on_again,
			       .work = { .work = on_look, .done = on_looked } };
	l->look.root_fd = space_root_fd(p->n.space);
	l->look.proc_fd = space_proc_fd(p->n.space);
	l->look.call = *exec;
	r = env_work(p->n.env, &l->work);
	if (r < 0) {
		free(l);
		return r;
	}
	TAILQ_INSERT_TAIL(&p->leaving, l, entry);
	return 0;
}

/* -- */

/* An ordinary process of an application, that may and that nobody has decided about. */
static bool may_leave(struct placement *p, pid_t pid)
{
	struct process_record d;

	return capability_has(space_proc_fd(p->n.space), pid, CAPABILITY_DISTANT_FORK) &&
	       process_record(p->n.process, pid, &d) == 0 && !d.moving &&
	       d.state == PROCESS_HERE && d.pid != d.app && d.generation == 0 &&
	       !job_covers(p, pid) && membership_lease_held(p->n.membership);
}

void placement_on_exec(struct placement *p, const struct space_exec *exec)
{
	struct leaving *l = find(p, exec->pid);
	node_id self = rpc_self(p->n.rpc), node = self;

	if (l) { /* a signal interrupted it; after LEAVING it did not become a shadow */
		l->call = exec->id;
		return;
	}
	if (may_leave(p, exec->pid)) {
		job_forget(p, exec->pid); /* what it ran before makes room */
		node = job_place(p);
		log_debug("program of process %d: node %s", exec->pid, rpc_name(p->n.rpc, node));
		job_note(p, exec->pid, node, node != self);
	}
	if (node == self || look(p, exec, node) < 0)
		(void)space_exec_go(p->n.space, exec->id);
}

void leaving_on_state(struct placement *p, struct rpc_call *call, pid_t pid,
		      uint32_t generation)
{
	struct leaving *l = find(p, pid);
	struct process_record d;

	if (l && l->state < BEGINNING) {
		rpc_fail(call, RPC_CONFLICT, "process %d may still leave", pid);
		return;
	}
	placement_wire_is_left(call, process_record(p->n.process, pid, &d) == 0 &&
					     d.state == PROCESS_AWAY && !d.moving &&
					     d.place == rpc_call_peer(call) &&
					     d.generation == generation);
}

void placement_on_view(struct placement *p)
{
	struct leaving *l, *next;

	for (l = TAILQ_FIRST(&p->leaving); l; l = next) {
		next = TAILQ_NEXT(l, entry);
		if (l->state < DRAINING || membership_is_up(p->n.membership, l->node))
			continue;
		journal_remove(p, l->pid); /* it ended there, which its record is told */
		free_leaving(l);
	}
	coming_on_view(p);
}

static int take_over(struct placement *p)
{
	struct journal_entry e;

	for (size_t i = 0; journal_entry(p, i, &e);) {
		struct leaving *l;

		if (!process_leave_resume(p->n.process, e.pid, e.generation)) {
			journal_remove(p, e.pid);
			continue;
		}
		l = calloc(1, sizeof(*l));
		if (!l)
			return err_origin(-ENOMEM);
		*l = (struct leaving){ .placement = p,
				       .state = BEGINNING,
				       .pid = e.pid,
				       .node = e.node,
				       .generation = e.generation,
				       .again.cb = on_again };
		TAILQ_INSERT_TAIL(&p->leaving, l, entry);
		stream_go(p->n.stream, l->pid);
		(void)env_arm(p->n.env, &l->again, 0);
		i++;
	}
	stream_stay(p->n.stream, 0);
	return 0;
}

DEFINE_CLEANUP(struct placement, placement_free)

int placement_new(struct placement **ret, const struct placement_neighbours *n)
{
	_cleanup_(placement_freep) struct placement *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return err_origin(-ENOMEM);
	p->n = *n;
	TAILQ_INIT(&p->leaving);
	TAILQ_INIT(&p->coming);
	if (snprintf(p->spawn_path, sizeof(p->spawn_path), "%s/ssi-spawn", n->libexec_dir) >=
	    (int)sizeof(p->spawn_path))
		return err_origin(-ENAMETOOLONG);
	r = journal_open(p);
	if (r == 0)
		r = take_over(p);
	if (r == 0)
		r = coming_start(p);
	if (r == 0)
		r = rpc_register(n->rpc, placement_methods, p);
	if (r != 0)
		return err_fold(r);
	*ret = TAKE(p);
	return 0;
}

struct placement *placement_free(struct placement *p)
{
	struct leaving *l;

	if (!p)
		return NULL;
	while ((l = TAILQ_FIRST(&p->leaving))) {
		if (l->state == LOOKING) { /* a worker has it: freed when that is done */
			TAILQ_REMOVE(&p->leaving, l, entry);
			l->placement = NULL;
		} else {
			free_leaving(l);
		}
	}
	coming_fini(p);
	job_fini(p);
	free(p);
	return NULL;
}
