/*
 * Requests that this node answers.
 *
 * Happy path: the method's handler gets the unpacked request and answers, now
 * or later; the reply goes back on the link that the request came from.
 *
 * Failure modes: made before one of both was out of the cluster, or by a node outside of
 * our view -> RPC_STALE (membership and consensus alone hear everybody).  Too many of one node are being
 * answered -> RPC_CONFLICT at once, nothing is kept.  The link went down before
 * the reply -> the reply is dropped, the caller has been told RPC_DOWN.
 */
#include "rpc_internal.h"

#include "err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void send_failure(struct rpc_link *link, const struct transport_frame *request,
			 enum rpc_status status, const char *text)
{
	uint8_t bytes[RPC_TEXT_MAX + 32];
	struct transport_frame frame = {
		.kind = TRANSPORT_FAILED,
		.method = request->method,
		.id = request->id,
		.epoch = link->rpc->epoch,
	};

	if (request->kind == TRANSPORT_NOTIFY)
		return;
	frame.message.iov_base = bytes;
	frame.message.iov_len = rpc_failure_pack(status, text, bytes);
	rpc_link_send(link, &frame);
}

/* May this request be answered?  RPC_OK, or why not. */
static enum rpc_status admit(struct rpc_link *link, const struct transport_frame *frame,
			     char text[static RPC_TEXT_MAX])
{
	struct rpc *rpc = link->rpc;

	if (!rpc_method_find(rpc, frame->method, NULL)) {
		(void)snprintf(text, RPC_TEXT_MAX, "node %s does not know method %#06x",
			       rpc_name(rpc, rpc->self), frame->method);
		return RPC_UNSUPPORTED;
	}
	if (link->remote->n_calls >= RPC_MAX_CALLS) {
		(void)snprintf(text, RPC_TEXT_MAX, "node %s is busy with %d requests",
			       rpc_name(rpc, rpc->self), RPC_MAX_CALLS);
		return RPC_CONFLICT;
	}
	if (rpc_is_below_views(frame->method))
		return RPC_OK;
	if (!rpc_remote_is_in(link->remote, frame->method)) {
		(void)snprintf(text, RPC_TEXT_MAX, "node %s is not in view %llu of node %s",
			       rpc_name(rpc, link->remote->node), (unsigned long long)rpc->epoch,
			       rpc_name(rpc, rpc->self));
		return RPC_STALE;
	}
	if (frame->epoch < link->remote->since || frame->epoch < rpc->since) {
		(void)snprintf(text, RPC_TEXT_MAX,
			       "made in view %llu; node %s was out of the cluster since",
			       (unsigned long long)frame->epoch,
			       rpc_name(rpc, frame->epoch < rpc->since ? rpc->self :
									 link->remote->node));
		return RPC_STALE;
	}
	return RPC_OK;
}

static void call_free(struct rpc_call *call)
{
	LIST_REMOVE(call, in);
	if (call->remote)
		call->remote->n_calls--;
	free(call);
}

int rpc_serve_request(struct rpc_link *link, const struct transport_frame *frame)
{
	struct rpc *rpc = link->rpc;
	_cleanup_(rpc_unpacked_freep) ProtobufCMessage *message = NULL;
	const struct rpc_method *method;
	char text[RPC_TEXT_MAX];
	enum rpc_status status;
	struct rpc_call *call;
	void *room;

	status = admit(link, frame, text);
	if (status != RPC_OK) {
		rpc->counters.refused++;
		send_failure(link, frame, status, text);
		return 0;
	}
	method = rpc_method_find(rpc, frame->method, &room);
	message = rpc_unpack(method->request, frame->message);
	if (!message)
		return err_origin(-EBADMSG);
	call = calloc(1, sizeof(*call));
	if (!call) {
		send_failure(link, frame, RPC_FAILED, "out of memory");
		return 0;
	}
	*call = (struct rpc_call){ .rpc = rpc,
				   .method = method,
				   .remote = link->remote,
				   .link = link,
				   .id = frame->id,
				   .peer = link->remote->node,
				   .epoch = frame->epoch,
				   .notify = frame->kind == TRANSPORT_NOTIFY };
	link->remote->n_calls++;
	LIST_INSERT_HEAD(&link->calls, call, in);
	rpc->counters.served++;
	method->handle(room, call, message, frame->bulk);
	return 0;
}

void rpc_serve_local(struct rpc_request *q)
{
	struct rpc *rpc = q->rpc;
	_cleanup_(rpc_unpacked_freep) ProtobufCMessage *message = NULL;
	_cleanup_free_ uint8_t *data = NULL; /* @q may be cancelled by the handler */
	const struct rpc_method *method;
	struct rpc_call *call;
	void *room;

	method = rpc_method_find(rpc, q->method->id, &room);
	call = calloc(1, sizeof(*call));
	message = rpc_unpack(method->request,
			     (struct iovec){ q->data, q->message_len });
	if (!call || !message) {
		free(call);
		rpc_request_end(q, RPC_FAILED, "out of memory");
		return;
	}
	*call = (struct rpc_call){ .rpc = rpc,
				   .method = method,
				   .request = q,
				   .id = q->id,
				   .peer = rpc->self };
	LIST_INSERT_HEAD(&rpc->orphans, call, in);
	rpc_request_detach(q);
	sm_move(&q->sm, REQUEST_SERVED);
	q->served = call;
	data = TAKE(q->data);
	rpc->counters.served++;
	method->handle(room, call, message,
		       (struct iovec){ data + q->message_len, q->bulk_len });
}

void rpc_calls_orphan(struct rpc_link *link)
{
	struct rpc_call *call;

	while ((call = LIST_FIRST(&link->calls))) {
		LIST_REMOVE(call, in);
		call->link = NULL;
		LIST_INSERT_HEAD(&link->rpc->orphans, call, in);
	}
}

void rpc_calls_fini(struct rpc *rpc)
{
	struct rpc_call *call;

	while ((call = LIST_FIRST(&rpc->orphans))) {
		LIST_REMOVE(call, in);
		free(call);
	}
}

static void reply_local(struct rpc_request *q, const ProtobufCMessage *reply,
			struct iovec bulk)
{
	int r;

	r = rpc_pack(reply, bulk, &q->data, &q->message_len);
	q->bulk_len = bulk.iov_len;
	if (r)
		rpc_request_end(q, RPC_FAILED, "the reply cannot be packed: %s",
				strerror(-r));
	else
		rpc_request_end(q, RPC_OK, "%s", "");
}

void rpc_reply(struct rpc_call *call, const ProtobufCMessage *reply, struct iovec bulk)
{
	struct transport_frame frame = {
		.kind = TRANSPORT_REPLY,
		.method = call->method->id,
		.id = call->id,
		.epoch = call->rpc->epoch,
		.bulk = bulk,
	};
	_cleanup_free_ uint8_t *data = NULL;
	int r;

	if (call->request) {
		reply_local(call->request, reply, bulk);
	} else if (call->link && !call->notify) {
		r = rpc_pack(reply, RPC_NO_BULK, &data, &frame.message.iov_len);
		if (r || bulk.iov_len > TRANSPORT_BULK_MAX) {
			rpc_fail(call, RPC_FAILED, "the reply cannot be packed: %s",
				 strerror(r ? -r : EMSGSIZE));
			return;
		}
		frame.message.iov_base = data;
		rpc_link_send(call->link, &frame);
	}
	call_free(call);
}

void rpc_fail(struct rpc_call *call, enum rpc_status status, const char *format, ...)
{
	struct transport_frame request = { .kind = TRANSPORT_REQUEST,
					   .method = call->method->id,
					   .id = call->id };
	char text[RPC_TEXT_MAX];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	if (call->request)
		rpc_request_end(call->request, status, "%s", text);
	else if (call->link && !call->notify)
		send_failure(call->link, &request, status, text);
	call_free(call);
}

bool rpc_call_is_ahead(const struct rpc_call *call)
{
	return call->epoch > call->rpc->epoch;
}

node_id rpc_call_peer(const struct rpc_call *call)
{
	return call->peer;
}
