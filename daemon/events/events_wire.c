/* Between nodes: protobuf <-> native. */
#include "events_internal.h"

#include "cleanup.h"
#include "err.h"
#include "events.pb-c.h"

#include <stdio.h>

static const nsec_t WAIT_MAX = 60 * NSEC_PER_SEC;
static const nsec_t ANSWER_TIMEOUT = 5 * NSEC_PER_SEC;

static void to_message(const struct event *e, Ssi__Events__Event *p)
{
	ssi__events__event__init(p);
	p->number = e->number;
	p->time_ns = e->time;
	p->epoch = e->epoch;
	p->type = e->type;
	p->node = e->node;
	p->to = e->to;
	p->pid = e->pid;
	p->app = e->app;
	p->uid = e->uid;
	p->code = e->code;
	p->status = e->status;
	p->frozen_ns = e->frozen;
	p->bytes = e->bytes;
	p->text = (char *)e->text;
}

static void from_message(const Ssi__Events__Event *p, struct event *e)
{
	*e = (struct event){
		.number = p->number,
		.time = p->time_ns,
		.epoch = p->epoch,
		.type = p->type < _EVENT_TYPES ? (enum event_type)p->type : 0,
		.node = p->node,
		.to = p->to,
		.pid = p->pid,
		.app = p->app,
		.uid = p->uid,
		.code = p->code,
		.status = p->status,
		.frozen = p->frozen_ns,
		.bytes = p->bytes,
	};
	(void)snprintf(e->text, sizeof(e->text), "%s", p->text);
}

bool events_wire_answer(struct events *e, struct rpc_call *call,
			const struct events_filter *filter, uint64_t after, bool empty)
{
	_cleanup_free_ struct event *events = calloc(EVENTS_PAGE, sizeof(*events));
	_cleanup_free_ Ssi__Events__Event *messages = calloc(EVENTS_PAGE, sizeof(*messages));
	_cleanup_free_ Ssi__Events__Event **list = calloc(EVENTS_PAGE, sizeof(*list));
	Ssi__Events__ReadReply reply = SSI__EVENTS__READ_REPLY__INIT;

	if (!events || !messages || !list) {
		rpc_fail(call, RPC_FAILED, "out of memory");
		return true;
	}
	reply.n_events = events_ring_read(e->ring, filter, &after, events, EVENTS_PAGE, &reply.lost);
	if (!reply.n_events && !reply.lost && !empty)
		return false;
	for (size_t i = 0; i < reply.n_events; i++) {
		to_message(&events[i], &messages[i]);
		list[i] = &messages[i];
	}
	reply.events = list;
	reply.after = after;
	rpc_reply(call, &reply.base, RPC_NO_BULK);
	return true;
}

RPC_HANDLER(on_read, struct events, Ssi__Events__ReadRequest)
{
	struct events_filter filter = { .uid = req->uid,
					.own = true,
					.since = req->since_ns,
					.since_epoch = req->since_epoch };

	events_wait(self, call, &filter, req->after,
		    req->wait_ns < WAIT_MAX ? req->wait_ns : WAIT_MAX);
}

const struct rpc_method events_methods[] = {
	RPC_METHOD(EVENTS_READ, on_read, ssi__events__read_request__descriptor,
		   ssi__events__read_reply__descriptor),
	{ 0 },
};

static void on_page(void *owner, const struct rpc_result *result)
{
	struct events_asking *a = owner;
	const Ssi__Events__ReadReply *reply = (const void *)result->reply;
	struct events_page page = { .status = result->status };
	_cleanup_free_ struct event *events = NULL;

	if (result->status == RPC_OK) {
		page.n = reply->n_events < EVENTS_PAGE ? reply->n_events : EVENTS_PAGE;
		page.events = events = calloc(page.n + 1, sizeof(*events));
		page.after = reply->after;
		page.lost = reply->lost;
		page.status = events ? RPC_OK : RPC_FAILED;
	}
	for (size_t i = 0; events && i < page.n; i++)
		from_message(reply->events[i], &events[i]);
	a->request = NULL;
	a->done(a, &page);
}

int events_ask(struct events *e, node_id node, const struct events_filter *filter,
	       uint64_t after, nsec_t wait, struct events_asking *asking)
{
	Ssi__Events__ReadRequest q = SSI__EVENTS__READ_REQUEST__INIT;

	asking->rpc = e->rpc;
	q.after = after;
	q.uid = filter->uid;
	q.since_ns = filter->since;
	q.since_epoch = filter->since_epoch;
	q.wait_ns = wait;
	return rpc_call(e->rpc, node, EVENTS_READ, &q.base, RPC_NO_BULK, wait + ANSWER_TIMEOUT,
			on_page, asking, &asking->request);
}

void events_ask_cancel(struct events_asking *asking)
{
	if (asking->request)
		rpc_cancel(asking->rpc, TAKE(asking->request));
}
