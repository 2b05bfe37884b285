/*
 * What a process may use of the cluster, told and changed.
 *
 * Happy path: its home says where it is, the node there reads its sets, changes them on
 * a worker, if that is asked for, and tells them.
 *
 * Failure modes: it moves in between, or is moving -> RPC_CONFLICT; the tool leaves ->
 * the change goes on.
 */
#include "control_wire.h"

#include "err.h"
#include "space.h"

#include <string.h>
#include <sys/socket.h>

static const nsec_t CALL_TIMEOUT = 5 * NSEC_PER_SEC;

/* -- The tool's node -- */

struct asking {
	struct control_connection *connection;
	pid_t pid;
	struct capability_change change;
	bool changes;
};

static struct asking *asking_new(struct control_connection *c,
				 const Ssi__Control__CapabilitiesRequest *q)
{
	struct asking *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	*a = (struct asking){.connection = c, .pid = q->pid, .changes = q->n_keep > 0};
	for (size_t i = 0; a->changes && i < CAPABILITY_SETS_N; i++) {
		a->change.keep[i] = q->keep[i];
		a->change.add[i] = q->add[i];
	}
	return a;
}

static void on_answer(void *owner, const struct rpc_result *result)
{
	struct control_connection *c = owner;
	Ssi__Control__Event event = SSI__CONTROL__EVENT__INIT;

	if (!control_release(c))
		return;
	if (result->status != RPC_OK)
		return control_fail(c, result->status, "%s", result->text);
	event.body_case = SSI__CONTROL__EVENT__BODY_CAPABILITIES;
	event.capabilities = (Ssi__Control__Capabilities *)(void *)result->reply;
	control_send(c, &event, true);
}

static void on_where(void *owner, enum rpc_status status, const char *text,
		     node_id place, uid_t uid, uint32_t generation)
{
	Ssi__Control__CapabilitiesRequest q = SSI__CONTROL__CAPABILITIES_REQUEST__INIT;
	_cleanup_free_ struct asking *a = owner;
	struct control_connection *c = a->connection;

	if (!control_release(c))
		return;
	if (status != RPC_OK)
		return control_fail(c, status, "%s", text);
	if (a->changes && !process_may_signal(&c->caller, uid))
		return control_fail(c, RPC_NOT_PERMITTED,
				    "process %d is another user's", a->pid);
	q.pid = a->pid;
	q.keep = a->change.keep;
	q.add = a->change.add;
	q.n_keep = q.n_add = a->changes ? CAPABILITY_SETS_N : 0;
	control_hold(c);
	if (rpc_call(c->control->n.rpc, place, CONTROL_CAPABILITIES, &q.base,
		     RPC_NO_BULK, CALL_TIMEOUT, on_answer, c, NULL) == 0)
		return;
	if (control_release(c))
		control_fail(c, RPC_FAILED, "out of memory");
}

static bool makes_sense(const Ssi__Control__CapabilitiesRequest *q)
{
	return q->pid >= 0 && q->n_keep == q->n_add &&
	       (q->n_keep == 0 || q->n_keep == CAPABILITY_SETS_N);
}

/* The parent of the tool; 0: it is none of the space's. */
static pid_t shell_of(const struct control_connection *c)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(c->watch.fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 ||
	    !peer.pid)
		return 0;
	return process_parent(c->control->n.process, peer.pid);
}

void control_on_capabilities(struct control_connection *c,
			     const Ssi__Control__CapabilitiesRequest *q)
{
	struct asking *a;

	if (!makes_sense(q))
		return control_fail(c, RPC_USAGE, "the request makes no sense");
	a = asking_new(c, q);
	if (!a)
		return control_fail(c, RPC_FAILED, "out of memory");
	if (!a->pid)
		a->pid = shell_of(c);
	if (a->pid < SPACE_PID_MIN) {
		free(a);
		return control_fail(
			c, RPC_NOT_FOUND,
			"what called this is no process of the cluster: name a PID");
	}
	control_hold(c);
	if (process_where(c->control->n.process, a->pid, on_where, a) == 0)
		return;
	free(a);
	if (control_release(c))
		control_fail(c, RPC_FAILED, "out of memory");
}

/* -- The node of the process -- */

struct changing {
	struct control *control;
	struct rpc_call *call;
	struct env_work work;
	pid_t pid;
	struct capability_change change;
	struct capability_sets sets;
	int r;
	char why[192];
};

static void tell(struct control *control, struct rpc_call *call, pid_t pid,
		 struct capability_sets *sets)
{
	Ssi__Control__Capabilities reply = SSI__CONTROL__CAPABILITIES__INIT;
	const struct membership_node *self =
		membership_node(control->n.membership, rpc_self(control->n.rpc));

	reply.pid = pid;
	reply.node = self ? (char *)self->name : "?";
	reply.sets = sets->of;
	reply.n_sets = CAPABILITY_SETS_N;
	rpc_reply(call, &reply.base, RPC_NO_BULK);
}

static void on_work(struct env_work *w)
{
	struct changing *g = container_of(w, struct changing, work);
	struct space *space = g->control->n.space;

	g->r = capability_read(space_proc_fd(space), g->pid, &g->sets);
	if (g->r == 0)
		g->r = capability_change(&g->sets, &g->change, g->why, sizeof(g->why));
	if (g->r == 0)
		g->r = capability_write(space, g->pid, &g->sets);
}

static enum rpc_status status_of(int r)
{
	switch (r) {
	case CAPABILITY_E_UNSUPPORTED:
		return RPC_UNSUPPORTED;
	case CAPABILITY_E_NOT_PERMITTED:
		return RPC_NOT_PERMITTED;
	case -ESRCH:
		return RPC_NOT_FOUND;
	}
	return r > 0 ? RPC_USAGE : RPC_FAILED;
}

static void on_worked(struct env_work *w)
{
	struct changing *g = container_of(w, struct changing, work);

	process_unhold(g->control->n.process, g->pid);
	if (g->r == 0)
		tell(g->control, g->call, g->pid, &g->sets);
	else if (g->r > 0)
		rpc_fail(g->call, status_of(g->r), "process %d: %s", g->pid, g->why);
	else
		rpc_fail(g->call, status_of(g->r), "process %d: %s", g->pid,
			 g->r == -ESRCH ? "it has ended" : strerror(-g->r));
	free(g);
}

static void change(struct control *control, struct rpc_call *call,
		   const Ssi__Control__CapabilitiesRequest *q)
{
	struct changing *g;
	int r = process_hold(control->n.process, q->pid);

	if (r == PROCESS_E_BUSY)
		return rpc_fail(call, RPC_CONFLICT,
				"process %d is being moved or saved", q->pid);
	if (r != 0)
		return rpc_fail(call, RPC_NOT_FOUND, "no process %d here", q->pid);
	g = calloc(1, sizeof(*g));
	if (g) {
		*g = (struct changing){.control = control,
				       .call = call,
				       .work = {.work = on_work, .done = on_worked},
				       .pid = q->pid};
		memcpy(g->change.keep, q->keep, sizeof(g->change.keep));
		memcpy(g->change.add, q->add, sizeof(g->change.add));
		if (env_work(control->n.env, &g->work) == 0)
			return;
	}
	free(g);
	process_unhold(control->n.process, q->pid);
	rpc_fail(call, RPC_FAILED, "out of memory");
}

void control_serve_capabilities(struct control *control, struct rpc_call *call,
				const Ssi__Control__CapabilitiesRequest *q)
{
	struct process_record record;
	struct capability_sets sets;

	if (!makes_sense(q) || !control->n.process)
		return rpc_fail(call, RPC_USAGE, "not a process's capabilities");
	if (process_record(control->n.process, q->pid, &record) != 0 ||
	    record.state == PROCESS_ENDED)
		return rpc_fail(call, RPC_NOT_FOUND, "process %d has ended", q->pid);
	if (record.state == PROCESS_AWAY)
		return rpc_fail(call, RPC_CONFLICT,
				"process %d has just moved: try again", q->pid);
	if (q->n_keep)
		return change(control, call, q);
	if (capability_read(space_proc_fd(control->n.space), q->pid, &sets) < 0)
		return rpc_fail(call, RPC_NOT_FOUND, "process %d has ended", q->pid);
	tell(control, call, q->pid, &sets);
}
