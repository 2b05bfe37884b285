/*
 * The node that asks for a change.
 *
 * Happy path: the leader is asked, tells its progress, and answers at the end.
 *
 * Failure modes: it leads no more, or is lost, or was to be removed itself and handed
 * over -> the next one is asked, with the same request, until the time is over; all is
 * as wanted by our own view -> that is an answer as well, since who removes this node
 * cannot tell it so.
 */
#include "hotplug_internal.h"

#include "cleanup.h"
#include "err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define ASK_AGAIN (300 * NSEC_PER_MSEC)
#define HALT_AFTER (300 * NSEC_PER_MSEC)
#define UNDO_MAX (20 * NSEC_PER_SEC) /* the leader keeps the time, and undoes */

struct hotplug_ask {
	LIST_ENTRY(hotplug_ask) in;
	struct hotplug *h;
	uint64_t number;
	struct hotplug_request request; /* with nodes of its own */
	nsec_t deadline;
	struct env_timer again;
	struct rpc_request *call;
	hotplug_progress_cb progress;
	hotplug_done_cb done;
	void *owner; /* NULL: forgotten */
	char last[256];	/* why it was asked again */
};

const char *hotplug_node_name(const struct hotplug *h, node_id node)
{
	const struct membership_node *n = membership_node(h->n.membership, node);

	return n ? n->name : "?";
}

static void ask_free(struct hotplug_ask *a)
{
	LIST_REMOVE(a, in);
	env_disarm(a->h->n.env, &a->again);
	if (a->call)
		rpc_cancel(a->h->n.rpc, a->call);
	free((void *)a->request.nodes);
	free(a);
}

static void end(struct hotplug_ask *a, const struct hotplug_result *result)
{
	if (a->owner)
		a->done(a->owner, result);
	ask_free(a);
}

/* Removed, all of them, as far as our own view says. */
static bool is_done(const struct hotplug_ask *a)
{
	for (size_t i = 0; i < a->request.n_nodes; i++) {
		const struct membership_node *n =
			membership_node(a->h->n.membership, a->request.nodes[i]);

		if (!n || n->state != MEMBER_REMOVED)
			return false;
	}
	return a->request.what == HOTPLUG_REMOVE && !a->request.dry_run;
}

static bool is_outside(const struct hotplug *h)
{
	const struct membership_node *self = membership_node(h->n.membership, rpc_self(h->n.rpc));

	return self && self->state == MEMBER_REMOVED;
}

static void again(struct hotplug_ask *a, const char *why)
{
	struct hotplug_result result = { .status = RPC_OK, .text = "", .unknown = true };

	(void)snprintf(a->last, sizeof(a->last), "%s", why);
	if (is_done(a))
		return end(a, &result);
	if (is_outside(a->h)) {
		result.status = RPC_DOWN;
		result.text = "this node is removed from the cluster: give the command on a member";
		return end(a, &result);
	}
	if (env_now(a->h->n.env) + ASK_AGAIN < a->deadline) {
		(void)env_arm(a->h->n.env, &a->again, ASK_AGAIN);
		return;
	}
	result.status = RPC_TIMEOUT;
	result.text = a->last;
	end(a, &result);
}

static void on_answer(void *owner, const struct rpc_result *r)
{
	const Ssi__Hotplug__ChangeReply *reply = (const void *)r->reply;
	struct hotplug_ask *a = owner;
	struct hotplug_stays stays = { .n = 0 };
	struct hotplug_result result = { .status = r->status, .text = r->text };

	a->call = NULL;
	if (r->status == RPC_DOWN || r->status == RPC_STALE || (reply && reply->handed))
		return again(a, reply ? "the leader hands over" : r->text);
	if (reply) {
		hotplug_stays_unpack(&stays, reply->stays, reply->n_stays, reply->n_all);
		result.moved = reply->moved;
		result.ended = reply->ended;
		if (a->request.what == HOTPLUG_SHUTDOWN && !stays.n_all && !a->request.dry_run)
			hotplug_halt_soon(a->h);
		if (stays.n_all) {
			result.status = RPC_UNSUPPORTED;
			result.text = "some processes cannot move";
		}
	}
	result.stays = stays.of;
	result.n_stays = stays.n;
	result.n_all_stays = stays.n_all;
	end(a, &result);
}

static void ask(struct hotplug_ask *a)
{
	const struct membership_view *view = membership_view(a->h->n.membership);
	Ssi__Hotplug__ChangeRequest q = SSI__HOTPLUG__CHANGE_REQUEST__INIT;
	nsec_t left = a->deadline - env_now(a->h->n.env);

	if (!view)
		return again(a, "this node has not heard of its cluster yet");
	q.what = (Ssi__Hotplug__ChangeRequest__What)a->request.what;
	q.nodes = (uint32_t *)a->request.nodes;
	q.n_nodes = a->request.n_nodes;
	q.force = a->request.force;
	q.dry_run = a->request.dry_run;
	q.timeout_ns = left;
	q.watcher = rpc_self(a->h->n.rpc);
	q.watch = a->number;
	if (rpc_call(a->h->n.rpc, view->leader, HOTPLUG_CHANGE, &q.base, RPC_NO_BULK,
		     left + UNDO_MAX, on_answer, a, &a->call) != 0)
		again(a, "out of memory");
}

static void on_again(struct env_timer *timer)
{
	ask(container_of(timer, struct hotplug_ask, again));
}

int hotplug_change(struct hotplug *h, const struct hotplug_request *request,
		   hotplug_progress_cb progress, hotplug_done_cb done, void *owner)
{
	struct hotplug_ask *a = calloc(1, sizeof(*a));
	node_id *nodes = calloc(request->n_nodes + 1, sizeof(*nodes));

	if (!a || !nodes) {
		free(a);
		free(nodes);
		return err_origin(-ENOMEM);
	}
	if (request->n_nodes)
		memcpy(nodes, request->nodes, request->n_nodes * sizeof(*nodes));
	*a = (struct hotplug_ask){
		.h = h,
		.number = h->next_number++,
		.request = *request,
		.deadline = env_now(h->n.env) + request->timeout,
		.again.cb = on_again,
		.progress = progress,
		.done = done,
		.owner = owner,
	};
	a->request.nodes = nodes;
	LIST_INSERT_HEAD(&h->asks, a, in);
	/* From the loop, so that done never comes in here. */
	if (env_arm(h->n.env, &a->again, 0) != 0) {
		ask_free(a);
		return err_origin(-ENOMEM);
	}
	return 0;
}

void hotplug_forget(struct hotplug *h, void *owner)
{
	struct hotplug_ask *a;

	LIST_FOREACH(a, &h->asks, in)
		if (a->owner == owner)
			a->owner = NULL;
}

void hotplug_on_progress(struct hotplug *h, const Ssi__Hotplug__Progress *p)
{
	struct hotplug_ask *a;

	LIST_FOREACH(a, &h->asks, in)
		if (a->number == p->watch && a->owner)
			a->progress(a->owner, p->step, p->done, p->total);
}

static void on_told(void *owner, const struct rpc_result *result)
{
	(void)owner;
	(void)result;
}

void hotplug_tell_progress(struct hotplug *h, node_id watcher, uint64_t watch, uint64_t done,
			   uint64_t total, const char *format, ...)
{
	Ssi__Hotplug__Progress p = SSI__HOTPLUG__PROGRESS__INIT;
	char text[128];
	va_list ap;

	if (watcher == NODE_NONE)
		return;
	va_start(ap, format);
	(void)vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	p.watch = watch;
	p.step = text;
	p.done = done;
	p.total = total;
	(void)rpc_call(h->n.rpc, watcher, HOTPLUG_PROGRESS, &p.base, RPC_NO_BULK,
		       5 * NSEC_PER_SEC, on_told, NULL, NULL);
}

static void on_halt(struct env_timer *timer)
{
	struct hotplug *h = container_of(timer, struct hotplug, halt);

	h->n.on_halt(h->n.owner);
}

void hotplug_halt_soon(struct hotplug *h)
{
	(void)env_arm(h->n.env, &h->halt, HALT_AFTER);
}

void hotplug_on_view(struct hotplug *h)
{
	hotplug_lead_on_view(h);
}

int hotplug_new(struct hotplug **ret, const struct hotplug_neighbours *n)
{
	struct hotplug *h = calloc(1, sizeof(*h));
	int r;

	if (!h)
		return err_origin(-ENOMEM);
	h->n = *n;
	LIST_INIT(&h->asks);
	LIST_INIT(&h->drains);
	h->halt.cb = on_halt;
	h->settle.cb = hotplug_on_settle;
	/* A successor's numbers must not meet those of its predecessor. */
	h->next_number = env_random_u64(n->env) >> 33;
	r = rpc_register(n->rpc, hotplug_methods, h);
	if (r) {
		free(h);
		return err_fold(r);
	}
	*ret = h;
	return 0;
}

struct hotplug *hotplug_free(struct hotplug *h)
{
	struct hotplug_ask *a;

	if (!h)
		return NULL;
	while ((a = LIST_FIRST(&h->asks)))
		ask_free(a);
	hotplug_drains_free(h);
	hotplug_lead_free(h);
	env_disarm(h->n.env, &h->settle);
	env_disarm(h->n.env, &h->halt);
	free(h);
	return NULL;
}
