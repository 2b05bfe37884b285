/*
 * The nodes, as this one sees them.
 *
 * Happy path: this node has its lease, so the view is what it is: answered at once.
 *
 * Failure modes: no lease -> the view may be old; so every node that is up in it is asked
 * whether it answers, and the reply waits for them, at most for PING_TIMEOUT.
 */
#include "control_wire.h"

#include "err.h"

static const nsec_t PING_TIMEOUT = NSEC_PER_SEC;

/* One `ssi-nodes` that asks around. */
struct asking {
	struct control_connection *connection;
	unsigned pending;
	size_t n_silent;
	node_id silent[]; /* as many as the view has nodes */
};

struct asking_node {
	struct asking *asking;
	node_id node;
};

static const char *state_name(enum member_state state)
{
	static const char *const names[] = {
		[MEMBER_JOINING] = "joining",
		[MEMBER_UP] = "up",
		[MEMBER_LOST] = "lost",
		[MEMBER_LEFT] = "left",
		[MEMBER_LEAVING] = "leaving",
		[MEMBER_REMOVED] = "removed",
	};

	return names[state];
}

static void fill_history(const struct membership_node *n, nsec_t now, Ssi__Control__Node *p)
{
	p->since_ns = n->history.changed;
	p->losses = n->history.losses;
	p->lost_ns = n->history.lost;
	p->up_ns = n->history.up;
	p->left_ns = n->history.left;
	p->availability = membership_availability(n, now);
}

static void fill_node(const struct control *control, const struct membership_view *view,
		      const struct membership_node *n, Ssi__Control__Node *p)
{
	ssi__control__node__init(p);
	p->id = n->id;
	p->name = (char *)n->name;
	p->address = (char *)n->address;
	p->state = (char *)state_name(n->state);
	p->incarnation = n->incarnation;
	p->cpus = n->load.n_cpus;
	p->running = n->load.running;
	p->memory_total = n->load.memory_total;
	p->memory_available = n->load.memory_available;
	p->store_error = n->load.store_error;
	p->leader = n->id == view->leader;
	p->voter = n->voter;
	p->witness = n->witness;
	p->self = n->id == rpc_self(control->n.rpc);
	fill_history(n, env_realtime(control->n.env), p);
}

static bool is_silent(const struct asking *a, node_id node)
{
	for (size_t i = 0; a && i < a->n_silent; i++)
		if (a->silent[i] == node)
			return true;
	return false;
}

/* @a: NULL when nobody was asked. */
static void answer(struct control_connection *c, const struct asking *a)
{
	const struct membership_view *view = membership_view(c->control->n.membership);
	_cleanup_free_ Ssi__Control__Node *nodes = calloc(view->n_nodes, sizeof(*nodes));
	_cleanup_free_ Ssi__Control__Node **list = calloc(view->n_nodes, sizeof(*list));
	Ssi__Control__Nodes reply = SSI__CONTROL__NODES__INIT;
	Ssi__Control__Event event = SSI__CONTROL__EVENT__INIT;

	if (!nodes || !list)
		return control_fail(c, RPC_FAILED, "out of memory");
	for (size_t i = 0; i < view->n_nodes; i++) {
		list[i] = &nodes[i];
		fill_node(c->control, view, &view->nodes[i], list[i]);
		list[i]->silent = is_silent(a, view->nodes[i].id);
	}
	reply.epoch = view->epoch;
	reply.lease_held = membership_lease_held(c->control->n.membership);
	reply.unanswered = (char *)membership_unanswered(c->control->n.membership);
	reply.frozen_ns = control_frozen_for(c->control);
	reply.n_nodes = view->n_nodes;
	reply.nodes = list;
	event.body_case = SSI__CONTROL__EVENT__BODY_NODES;
	event.nodes = &reply;
	control_send(c, &event, true);
}

static void asking_finish(struct asking *a)
{
	if (control_release(a->connection))
		answer(a->connection, a);
	free(a);
}

static void on_pong(void *owner, const struct rpc_result *result)
{
	_cleanup_free_ struct asking_node *n = owner;
	struct asking *a = n->asking;

	/* A refusal is an answer as well. */
	if (result->status != RPC_OK && !result->answered)
		a->silent[a->n_silent++] = n->node;
	if (--a->pending == 0)
		asking_finish(a);
}

static void ask(struct asking *a, struct rpc *rpc, node_id node)
{
	Ssi__Envelope__Empty q = SSI__ENVELOPE__EMPTY__INIT;
	struct asking_node *n = calloc(1, sizeof(*n));

	if (n) {
		*n = (struct asking_node){ a, node };
		if (rpc_call(rpc, node, CONTROL_PING, &q.base, RPC_NO_BULK, PING_TIMEOUT, on_pong,
			     n, NULL) == 0) {
			a->pending++;
			return;
		}
		free(n);
	}
	a->silent[a->n_silent++] = node;
}

static void ask_around(struct control_connection *c)
{
	const struct membership_view *view = membership_view(c->control->n.membership);
	struct asking *a = calloc(1, sizeof(*a) + view->n_nodes * sizeof(a->silent[0]));

	if (!a)
		return control_fail(c, RPC_FAILED, "out of memory");
	a->connection = c;
	control_hold(c);
	for (size_t i = 0; i < view->n_nodes; i++)
		if (membership_is_up(c->control->n.membership, view->nodes[i].id) &&
		    view->nodes[i].id != rpc_self(c->control->n.rpc))
			ask(a, c->control->n.rpc, view->nodes[i].id);
	if (a->pending == 0)
		asking_finish(a);
}

void control_on_nodes(struct control_connection *c, const Ssi__Control__NodesRequest *q)
{
	if (q->ask_around && !membership_lease_held(c->control->n.membership))
		ask_around(c);
	else
		answer(c, NULL);
}

void control_serve_ping(struct rpc_call *call)
{
	Ssi__Envelope__Empty reply = SSI__ENVELOPE__EMPTY__INIT;

	rpc_reply(call, &reply.base, RPC_NO_BULK);
}
