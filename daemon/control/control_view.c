/*
 * What is there: processes of every node, this node's status.
 *
 * Happy path of a process list: every node that is up is asked at the same time,
 * page by page; the final event has what came.  A node that does not
 * answer in LIST_TIMEOUT is named as silent, and holds nobody up longer.
 */
#include "control_internal.h"
#include "control_wire.h"

#include "err.h"
#include "fault.h"
#include "log.h"
#include "version.h"

#include <stdio.h>
#include <string.h>

static const nsec_t LIST_TIMEOUT = 3 * NSEC_PER_SEC;
enum { LIST_PAGE = 1024 };

/* One `ssi-ps`: pages of all nodes, gathered. */
struct listing {
	struct control_connection *connection;
	Ssi__Control__Process **processes; /* owned */
	size_t n_processes, room;
	char **silent; /* owned */
	size_t n_silent;
	unsigned pending;
};

/* One node of it. */
struct listing_node {
	struct listing *listing;
	node_id node;
};

static const char *node_name(const struct control *c, node_id id)
{
	const struct membership_node *n = membership_node(c->n.membership, id);

	return n ? n->name : "?";
}

void control_on_status(struct control_connection *c, const Ssi__Control__StatusRequest *q)
{
	const struct membership_view *view = membership_view(c->control->n.membership);
	Ssi__Control__Status status = SSI__CONTROL__STATUS__INIT;
	char trouble[CONTROL_TROUBLE_MAX];
	Ssi__Control__Event event = SSI__CONTROL__EVENT__INIT;

	status.cluster = (char *)c->control->config.cluster;
	status.node = (char *)node_name(c->control, rpc_self(c->control->n.rpc));
	status.version = (char *)SSI_VERSION;
	status.lease_held = membership_lease_held(c->control->n.membership);
	(void)control_trouble(c->control, trouble);
	status.trouble = trouble;
	status.frozen_ns = control_frozen_for(c->control);
	status.epoch = view->epoch;
	status.nodes = view->n_nodes;
	for (size_t i = 0; i < view->n_nodes; i++)
		status.nodes_up += membership_state_is_up(view->nodes[i].state);
	event.body_case = SSI__CONTROL__EVENT__BODY_STATUS;
	event.status = &status;
	control_send(c, &event, true);
}

static void on_token(void *owner, int result, const char *token)
{
	struct control_connection *c = owner;
	char trouble[CONTROL_TROUBLE_MAX];
	Ssi__Control__Token reply = SSI__CONTROL__TOKEN__INIT;
	Ssi__Control__Event event = SSI__CONTROL__EVENT__INIT;

	if (!control_release(c))
		return;
	if (result < 0)
		return control_fail(c, RPC_FAILED, "no token could be made: %s",
				    strerror(-result));
	if (result > 0)
		return control_fail(c, RPC_DOWN, "%s",
				    control_trouble(c->control, trouble) ?
					    trouble :
					    "the cluster has no leader now, who makes tokens: see "
					    "ssi-nodes");
	reply.token = (char *)token;
	event.body_case = SSI__CONTROL__EVENT__BODY_TOKEN;
	event.token = &reply;
	control_send(c, &event, true);
}

void control_on_token(struct control_connection *c, const Ssi__Control__TokenRequest *q)
{
	int r;

	if (c->caller.uid != 0)
		return control_fail(c, RPC_NOT_PERMITTED, "only root may admit a node");
	if (q->lifetime_s == 0 || q->lifetime_s > 366 * 86400)
		return control_fail(c, RPC_USAGE, "a token lives between a second and a year");
	control_hold(c);
	r = membership_new_token(c->control->n.membership, q->lifetime_s * NSEC_PER_SEC, on_token,
				 c);
	if (r != 0)
		on_token(c, r, NULL);
}

void control_on_fault(struct control_connection *c, const Ssi__Control__FaultRequest *q)
{
	Ssi__Control__Done done = SSI__CONTROL__DONE__INIT;
	Ssi__Control__Event event = SSI__CONTROL__EVENT__INIT;

	if (c->caller.uid != 0)
		return control_fail(c, RPC_NOT_PERMITTED, "only root may arm a fault point");
	if (q->action > FAULT_FAIL || fault_arm(q->name, q->action) < 0)
		return control_fail(c, RPC_USAGE, "no such fault point");
	event.body_case = SSI__CONTROL__EVENT__BODY_DONE;
	event.done = &done;
	control_send(c, &event, true);
}

static void listing_free(struct listing *l)
{
	for (size_t i = 0; i < l->n_processes; i++)
		ssi__control__process__free_unpacked(l->processes[i], NULL);
	for (size_t i = 0; i < l->n_silent; i++)
		free(l->silent[i]);
	free(l->processes);
	free(l->silent);
	free(l);
}

static void listing_finish(struct listing *l)
{
	Ssi__Control__Processes reply = SSI__CONTROL__PROCESSES__INIT;
	Ssi__Control__Event event = SSI__CONTROL__EVENT__INIT;

	if (control_release(l->connection)) {
		reply.n_processes = l->n_processes;
		reply.processes = l->processes;
		reply.stale = !membership_lease_held(l->connection->control->n.membership);
		reply.n_silent = l->n_silent;
		reply.silent = l->silent;
		event.body_case = SSI__CONTROL__EVENT__BODY_PROCESSES;
		event.processes = &reply;
		control_send(l->connection, &event, true);
	}
	listing_free(l);
}

/* Deep copy by way of the wire form, which protobuf-c offers and a struct copy does not. */
static Ssi__Control__Process *process_copy(const Ssi__Control__Process *p)
{
	size_t len = ssi__control__process__get_packed_size(p);
	_cleanup_free_ uint8_t *bytes = malloc(len ? len : 1);

	if (!bytes)
		return NULL;
	ssi__control__process__pack(p, bytes);
	return ssi__control__process__unpack(NULL, len, bytes);
}

static void listing_add(struct listing *l, const Ssi__Control__ListReply *page)
{
	for (size_t i = 0; i < page->n_processes; i++) {
		if (l->n_processes == l->room) {
			size_t room = l->room ? 2 * l->room : 64;
			Ssi__Control__Process **p =
				reallocarray(l->processes, room, sizeof(*p));

			if (!p)
				return;
			l->processes = p;
			l->room = room;
		}
		l->processes[l->n_processes] = process_copy(page->processes[i]);
		if (l->processes[l->n_processes])
			l->n_processes++;
	}
}

static void listing_silent(struct listing *l, node_id node)
{
	char **p = reallocarray(l->silent, l->n_silent + 1, sizeof(*p));

	if (!p)
		return;
	l->silent = p;
	p[l->n_silent] = strdup(l->connection->control ? node_name(l->connection->control, node)
						       : "?");
	if (p[l->n_silent])
		l->n_silent++;
}

static int ask_page(struct listing_node *n, struct rpc *rpc, pid_t after);

static void on_page(void *owner, const struct rpc_result *result)
{
	struct listing_node *n = owner;
	struct listing *l = n->listing;
	struct control *control = l->connection->control;
	const Ssi__Control__ListReply *page = (const void *)result->reply;

	if (result->status != RPC_OK) {
		listing_silent(l, n->node);
	} else {
		listing_add(l, page);
		/* Without a tool to tell there is nobody to go on for. */
		if (page->more && page->n_processes && control &&
		    ask_page(n, control->n.rpc,
			     page->processes[page->n_processes - 1]->pid) == 0)
			return;
	}
	free(n);
	if (--l->pending == 0)
		listing_finish(l);
}

static int ask_page(struct listing_node *n, struct rpc *rpc, pid_t after)
{
	Ssi__Control__ListRequest q = SSI__CONTROL__LIST_REQUEST__INIT;

	q.after = after;
	return rpc_call(rpc, n->node, CONTROL_LIST, &q.base, RPC_NO_BULK, LIST_TIMEOUT, on_page, n,
			NULL);
}

static bool wanted(const Ssi__Control__ProcessesRequest *q, const char *name)
{
	for (size_t i = 0; i < q->n_nodes; i++)
		if (strcmp(q->nodes[i], name) == 0)
			return true;
	return q->n_nodes == 0;
}

static void ask_node(struct listing *l, struct control *control, node_id node)
{
	struct listing_node *n = calloc(1, sizeof(*n));

	if (n) {
		*n = (struct listing_node){ .listing = l, .node = node };
		if (ask_page(n, control->n.rpc, 0) == 0) {
			l->pending++;
			return;
		}
		free(n);
	}
	listing_silent(l, node);
}

void control_on_processes(struct control_connection *c, const Ssi__Control__ProcessesRequest *q)
{
	const struct membership_view *view = membership_view(c->control->n.membership);
	struct listing *l;

	for (size_t i = 0; i < q->n_nodes; i++)
		if (!membership_node_by_name(c->control->n.membership, q->nodes[i]))
			return control_fail(c, RPC_NOT_FOUND, "no node is called %s", q->nodes[i]);
	l = calloc(1, sizeof(*l));
	if (!l)
		return control_fail(c, RPC_FAILED, "out of memory");
	l->connection = c;
	control_hold(c);
	for (size_t i = 0; i < view->n_nodes; i++)
		if (membership_state_is_up(view->nodes[i].state) && wanted(q, view->nodes[i].name))
			ask_node(l, c->control, view->nodes[i].id);
		else if (view->nodes[i].state == MEMBER_LOST && wanted(q, view->nodes[i].name))
			listing_silent(l, view->nodes[i].id);
	if (l->pending == 0)
		listing_finish(l);
}

/* The asked node's side. */

static int by_pid(const void *a, const void *b)
{
	const struct process_info *x = a, *y = b;

	return (x->pid > y->pid) - (x->pid < y->pid);
}

static void fill(const struct control *control, const struct process_info *info,
		 Ssi__Control__Process *p, char *ret_state)
{
	ssi__control__process__init(p);
	ret_state[0] = info->state;
	p->pid = info->pid;
	p->ppid = info->ppid;
	p->app = info->app;
	p->name = (char *)info->name.text;
	p->node = (char *)node_name(control, info->place);
	p->home = (char *)node_name(control, info->home);
	p->uid = info->uid;
	p->state = ret_state;
	p->cpu_ns = info->cpu_ns;
	p->rss_bytes = info->rss_bytes;
	p->start_ns = info->start_ns;
	p->threads = info->n_threads;
	p->command.data = (uint8_t *)info->command;
	p->command.len = strlen(info->command);
}

void control_serve_list(struct control *control, struct rpc_call *call,
			const Ssi__Control__ListRequest *q)
{
	Ssi__Control__ListReply reply = SSI__CONTROL__LIST_REPLY__INIT;
	_cleanup_free_ Ssi__Control__Process *processes = calloc(LIST_PAGE, sizeof(*processes));
	_cleanup_free_ Ssi__Control__Process **list = calloc(LIST_PAGE, sizeof(*list));
	_cleanup_free_ char (*states)[2] = calloc(LIST_PAGE, sizeof(*states));
	_cleanup_free_ struct process_info *infos = NULL;
	size_t n_infos;

	if (!control->n.process) /* a witness */
		return rpc_reply(call, &reply.base, RPC_NO_BULK);
	if (!processes || !list || !states ||
	    process_list(control->n.process, &infos, &n_infos) != 0)
		return rpc_fail(call, RPC_FAILED, "processes cannot be listed");
	qsort(infos, n_infos, sizeof(*infos), by_pid);
	reply.processes = list;
	for (size_t i = 0; i < n_infos; i++) {
		size_t n = reply.n_processes;

		if (infos[i].pid <= q->after)
			continue;
		if (n == LIST_PAGE) {
			reply.more = true;
			break;
		}
		fill(control, &infos[i], &processes[n], states[n]);
		list[n] = &processes[n];
		reply.n_processes++;
	}
	rpc_reply(call, &reply.base, RPC_NO_BULK);
}
