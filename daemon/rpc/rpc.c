/*
 * Happy path: a request is packed and goes to its node's link (rpc_remote.c), or
 * for this very node into rpc->local; the reply finds it by its id, and its
 * owner is told.
 *
 * Failure modes: every request stands in by_due, so each of them ends by its
 * deadline at the latest.  A refusal that is known at once (node not in the
 * view, too much waiting) is put into rpc->ended and told when the loop turns:
 * done is never called inside rpc_call().
 */
#include "rpc_internal.h"

#include "err.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/sdt.h>

static const struct sm_state request_states[] = {
	[REQUEST_NEW] = { "new", SM_TO(REQUEST_WAITING) | SM_TO(REQUEST_LOCAL) |
					 SM_TO(REQUEST_ENDED) },
	[REQUEST_WAITING] = { "waiting", SM_TO(REQUEST_SENT) | SM_TO(REQUEST_ENDED) |
						 SM_TO(REQUEST_DONE) },
	[REQUEST_SENT] = { "sent", SM_TO(REQUEST_EARLY) | SM_TO(REQUEST_ENDED) |
					   SM_TO(REQUEST_DONE) },
	[REQUEST_EARLY] = { "early", SM_TO(REQUEST_WAITING) | SM_TO(REQUEST_ENDED) |
					     SM_TO(REQUEST_DONE) },
	[REQUEST_LOCAL] = { "local", SM_TO(REQUEST_SERVED) | SM_TO(REQUEST_ENDED) |
					     SM_TO(REQUEST_DONE) },
	[REQUEST_SERVED] = { "served", SM_TO(REQUEST_ENDED) | SM_TO(REQUEST_DONE) },
	[REQUEST_ENDED] = { "ended", SM_TO(REQUEST_DONE) },
	[REQUEST_DONE] = { "done", 0 },
};

static void on_turn(struct env_timer *timer);
static void on_deadline(struct env_timer *timer);

DEFINE_CLEANUP(struct rpc, rpc_free)

int rpc_new(struct rpc **ret, const struct env *env, node_id self)
{
	_cleanup_(rpc_freep) struct rpc *rpc = NULL;
	int r;

	rpc = calloc(1, sizeof(*rpc));
	if (!rpc)
		return err_origin(-ENOMEM);
	rpc->env = env;
	rpc->self = self;
	rpc->turn.cb = on_turn;
	rpc->deadline.cb = on_deadline;
	rpc->sweep.cb = rpc_on_sweep;
	rpc->again.cb = rpc_on_again;
	TAILQ_INIT(&rpc->by_due);
	TAILQ_INIT(&rpc->local);
	TAILQ_INIT(&rpc->ended);
	TAILQ_INIT(&rpc->early);
	LIST_INIT(&rpc->orphans);
	/* Only the first arming of a timer can fail: after these none does. */
	r = env_arm(env, &rpc->turn, 0);
	if (!r)
		r = env_arm(env, &rpc->deadline, RPC_IDLE);
	if (!r)
		r = env_arm(env, &rpc->sweep, RPC_SWEEP);
	if (!r)
		r = env_arm(env, &rpc->again, RPC_SWEEP);
	if (r)
		return err_fold(r);
	*ret = TAKE(rpc);
	return 0;
}

struct rpc *rpc_free(struct rpc *rpc)
{
	struct rpc_request *q;

	if (!rpc)
		return NULL;
	rpc->stopping = true;
	while ((q = TAILQ_FIRST(&rpc->by_due)))
		rpc_request_done(q, &(struct rpc_result){ .status = RPC_DOWN,
							  .text = "this node is stopping" });
	rpc_remotes_fini(rpc);
	rpc_calls_fini(rpc);
	env_disarm(rpc->env, &rpc->turn);
	env_disarm(rpc->env, &rpc->deadline);
	env_disarm(rpc->env, &rpc->sweep);
	env_disarm(rpc->env, &rpc->again);
	free(rpc);
	return NULL;
}

void rpc_set_names(struct rpc *rpc, rpc_name_cb name, void *owner)
{
	rpc->name = name;
	rpc->name_owner = owner;
}

const char *rpc_name(struct rpc *rpc, node_id node)
{
	const char *name = rpc->name ? rpc->name(rpc->name_owner, node) : NULL;
	char *number = rpc->numbers[rpc->number];

	if (name)
		return name;
	rpc->number = !rpc->number;
	(void)snprintf(number, sizeof(rpc->numbers[0]), "%u", node);
	return number;
}

void rpc_set_transport(struct rpc *rpc, const struct transport *transport)
{
	rpc->transport = transport;
}

int rpc_register(struct rpc *rpc, const struct rpc_method *methods, void *room)
{
	if (rpc->n_tables == RPC_MAX_TABLES)
		return err_origin(-ENOSPC);
	for (const struct rpc_method *m = methods; m->handle; m++)
		if (rpc_method_find(rpc, m->id, NULL))
			return err_origin(-EEXIST);
	rpc->tables[rpc->n_tables++] = (struct rpc_table){ methods, room };
	return 0;
}

const struct rpc_method *rpc_method_find(const struct rpc *rpc, uint16_t id, void **ret_room)
{
	for (size_t i = 0; i < rpc->n_tables; i++)
		for (const struct rpc_method *m = rpc->tables[i].methods; m->handle; m++)
			if (m->id == id) {
				if (ret_room)
					*ret_room = rpc->tables[i].room;
				return m;
			}
	return NULL;
}

/* Deadlines of one kind of call come in order: nearly always the tail. */
static void by_due_insert(struct rpc *rpc, struct rpc_request *q)
{
	struct rpc_request *before;

	TAILQ_FOREACH_REVERSE(before, &rpc->by_due, rpc_request_list, by_due)
		if (before->due <= q->due)
			break;
	if (before) {
		TAILQ_INSERT_AFTER(&rpc->by_due, before, q, by_due);
		return;
	}
	TAILQ_INSERT_HEAD(&rpc->by_due, q, by_due);
	(void)env_arm(rpc->env, &rpc->deadline, q->due - env_now(rpc->env));
}

static struct rpc_request *request_free(struct rpc_request *q)
{
	if (!q)
		return NULL;
	free(q->data);
	free(q);
	return NULL;
}

DEFINE_CLEANUP(struct rpc_request, request_free)

static int request_new(struct rpc_request **ret, struct rpc *rpc, node_id node,
		       const struct rpc_method *method, const ProtobufCMessage *message,
		       struct iovec bulk)
{
	_cleanup_(request_freep) struct rpc_request *q = NULL;
	int r;

	q = calloc(1, sizeof(*q));
	if (!q)
		return err_origin(-ENOMEM);
	r = rpc_pack(message, bulk, &q->data, &q->message_len);
	if (r)
		return err_fold(r);
	q->bulk_len = bulk.iov_len;
	q->rpc = rpc;
	q->method = method;
	q->node = node;
	q->id = ++rpc->next_id;
	q->epoch = rpc->epoch;
	sm_init(&q->sm, "request", request_states, q->id, REQUEST_NEW);
	*ret = TAKE(q);
	return 0;
}

int rpc_call(struct rpc *rpc, node_id node, uint16_t method, const ProtobufCMessage *request,
	     struct iovec bulk, nsec_t timeout, rpc_done_cb done, void *owner,
	     struct rpc_request **ret_request)
{
	const struct rpc_method *m = rpc_method_find(rpc, method, NULL);
	struct rpc_request *q;
	int r;

	if (rpc->stopping)
		return err_origin(-ESHUTDOWN);
	if (!m)
		return err_origin(-EOPNOTSUPP);
	assert(request->descriptor == m->request);
	r = request_new(&q, rpc, node, m, request, bulk);
	if (r)
		return r;
	q->done = done;
	q->owner = owner;
	q->timeout = timeout ? timeout : 1;
	q->due = env_now(rpc->env) + q->timeout;
	by_due_insert(rpc, q);
	rpc->counters.calls++;
	DTRACE_PROBE3(ssid, rpc_send, node, method, q->id);
	if (ret_request)
		*ret_request = q;
	if (node == rpc->self) {
		sm_move(&q->sm, REQUEST_LOCAL);
		rpc_request_queue(q, &rpc->local);
	} else {
		rpc_remote_submit(q);
	}
	return 0;
}

void rpc_cancel(struct rpc *rpc, struct rpc_request *q)
{
	rpc_request_detach(q);
	TAILQ_REMOVE(&rpc->by_due, q, by_due);
	(void)request_free(q);
}

void rpc_request_queue(struct rpc_request *q, struct rpc_request_list *list)
{
	q->turn = q->rpc->turn_number;
	TAILQ_INSERT_TAIL(list, q, in);
	(void)env_arm(q->rpc->env, &q->rpc->turn, 0);
}

void rpc_request_detach(struct rpc_request *q)
{
	switch (q->sm.state) {
	case REQUEST_WAITING:
		TAILQ_REMOVE(&q->remote->waiting, q, in);
		q->remote->n_waiting--;
		q->remote->waiting_bytes -= q->message_len + q->bulk_len;
		break;
	case REQUEST_SENT:
		TAILQ_REMOVE(&q->link->sent, q, in);
		if (q->hh.tbl)
			HASH_DEL(q->rpc->by_id, q);
		break;
	case REQUEST_EARLY:
		TAILQ_REMOVE(&q->rpc->early, q, in);
		break;
	case REQUEST_LOCAL:
		TAILQ_REMOVE(&q->rpc->local, q, in);
		break;
	case REQUEST_SERVED:
		q->served->request = NULL;
		break;
	case REQUEST_ENDED:
		TAILQ_REMOVE(&q->rpc->ended, q, in);
		break;
	}
}

void rpc_request_end(struct rpc_request *q, enum rpc_status status, const char *format, ...)
{
	va_list ap;

	rpc_request_detach(q);
	sm_move(&q->sm, REQUEST_ENDED);
	q->status = status;
	va_start(ap, format);
	(void)vsnprintf(q->text, sizeof(q->text), format, ap);
	va_end(ap);
	rpc_request_queue(q, &q->rpc->ended);
}

void rpc_request_done(struct rpc_request *q, const struct rpc_result *result)
{
	rpc_request_detach(q);
	TAILQ_REMOVE(&q->rpc->by_due, q, by_due);
	sm_move(&q->sm, REQUEST_DONE);
	if (result->status != RPC_OK)
		q->rpc->counters.failed++;
	q->done(q->owner, result);
	(void)request_free(q);
}

/* A request in rpc->ended: a refusal, or what this very node replied. */
static void tell(struct rpc_request *q)
{
	struct rpc_result result = { .status = q->status, .text = q->text,
				     .answered = q->node == q->rpc->self };
	_cleanup_(rpc_unpacked_freep) ProtobufCMessage *reply = NULL;

	if (q->status == RPC_OK) {
		reply = rpc_unpack(q->method->reply,
				   (struct iovec){ q->data, q->message_len });
		result.reply = reply;
		result.bulk = (struct iovec){ q->data + q->message_len, q->bulk_len };
		if (!reply)
			result = (struct rpc_result){ .status = RPC_FAILED,
						      .text = "out of memory" };
	}
	rpc_request_done(q, &result);
}

/* What comes into the lists meanwhile waits for the next turn. */
static void on_turn(struct env_timer *timer)
{
	struct rpc *rpc = container_of(timer, struct rpc, turn);
	uint64_t now = ++rpc->turn_number;
	struct rpc_request *q;

	while ((q = TAILQ_FIRST(&rpc->local)) && q->turn < now)
		rpc_serve_local(q);
	while ((q = TAILQ_FIRST(&rpc->ended)) && q->turn < now)
		tell(q);
	if (!TAILQ_EMPTY(&rpc->local) || !TAILQ_EMPTY(&rpc->ended))
		(void)env_arm(rpc->env, &rpc->turn, 0);
}

static void on_deadline(struct env_timer *timer)
{
	struct rpc *rpc = container_of(timer, struct rpc, deadline);
	nsec_t now = env_now(rpc->env);
	struct rpc_request *q;
	char text[RPC_TEXT_MAX];

	while ((q = TAILQ_FIRST(&rpc->by_due)) && q->due <= now) {
		rpc->counters.timeouts++;
		if (q->sm.state == REQUEST_WAITING || q->sm.state == REQUEST_SENT)
			rpc_remote_silent(q->remote, q->due - q->timeout);
		/* Refused as early, once or more. */
		if (q->text[0] && q->sm.state != REQUEST_ENDED) {
			rpc_request_done(q, &(struct rpc_result){ .status = RPC_STALE,
								  .text = q->text,
								  .answered = true });
			continue;
		}
		(void)snprintf(text, sizeof(text),
			       "node %s did not answer within %llu ms", rpc_name(rpc, q->node),
			       (unsigned long long)(q->timeout / NSEC_PER_MSEC));
		rpc_request_done(q, &(struct rpc_result){ .status = RPC_TIMEOUT,
							  .text = text });
	}
	if (q)
		(void)env_arm(rpc->env, &rpc->deadline, q->due - now);
}

node_id rpc_self(const struct rpc *rpc)
{
	return rpc->self;
}

const struct env *rpc_env(const struct rpc *rpc)
{
	return rpc->env;
}

const struct rpc_counters *rpc_counters(const struct rpc *rpc)
{
	return &rpc->counters;
}
