/*
 * Links, as transport tells of them.
 *
 * Happy path: up, frames in order, each reply finds its request by id.
 *
 * Failure modes: it does not come up, or breaks -> what was sent on it ends with
 * RPC_DOWN, since it may have been served, and is never sent again by us.  Its
 * queue is full -> requests wait at the remote, replies here.  The peer sends
 * what is not the protocol -> the link is closed, and counted.
 */
#include "rpc_internal.h"

#include "err.h"
#include "log.h"

#include <stdio.h>
#include <string.h>
#include <sys/sdt.h>

static struct rpc_link *link_find(struct rpc *rpc, struct transport_link *tl)
{
	struct rpc_link *link;

	HASH_FIND_PTR(rpc->links, &tl, link);
	return link;
}

static struct rpc_link *link_new(struct rpc_remote *remote, bool opened_here)
{
	struct rpc_link *link = calloc(1, sizeof(*link));

	if (!link)
		return NULL;
	link->rpc = remote->rpc;
	link->remote = remote;
	link->opened_here = opened_here;
	TAILQ_INIT(&link->sent);
	LIST_INIT(&link->calls);
	STAILQ_INIT(&link->out);
	LIST_INSERT_HEAD(&remote->links, link, in);
	return link;
}

static int link_attach(struct rpc_link *link, struct transport_link *tl)
{
	link->link = tl;
	HASH_ADD_PTR(link->rpc->links, link, link);
	return link->hh.tbl ? 0 : err_origin(-ENOMEM);
}

struct rpc_link *rpc_link_free(struct rpc_link *link)
{
	struct rpc_remote *remote = link->remote;
	struct rpc_out *out;

	while ((out = STAILQ_FIRST(&link->out))) {
		STAILQ_REMOVE_HEAD(&link->out, in);
		free(out);
	}
	rpc_calls_orphan(link);
	if (link->hh.tbl)
		HASH_DEL(link->rpc->links, link);
	LIST_REMOVE(link, in);
	if (remote->link == link)
		remote->link = NULL;
	if (remote->opening == link)
		remote->opening = NULL;
	free(link);
	return NULL;
}

int rpc_link_open(struct rpc_remote *remote)
{
	const struct transport *t = remote->rpc->transport;
	struct rpc_link *link = link_new(remote, true);
	struct transport_link *tl;
	int r;

	if (!link)
		return err_origin(-ENOMEM);
	r = t->ops->connect(t->impl, remote->node,
			    remote->in_view ? remote->address : remote->server_address, &tl);
	if (r) {
		(void)rpc_link_free(link);
		return err_fold(r);
	}
	r = link_attach(link, tl);
	if (r) {
		t->ops->close(t->impl, tl, "out of memory");
		(void)rpc_link_free(link);
		return r;
	}
	remote->opening = link;
	return 0;
}

void rpc_link_close(struct rpc_link *link, const char *reason)
{
	const struct transport *t = link->rpc->transport;

	if (link->closing)
		return;
	link->closing = true;
	if (link->remote->link == link)
		link->remote->link = NULL;
	if (link->remote->opening == link)
		link->remote->opening = NULL;
	t->ops->close(t->impl, link->link, reason);
}

void rpc_link_fail(struct rpc_link *link, bool all, const char *reason)
{
	struct rpc_request *q, *next;

	for (q = TAILQ_FIRST(&link->sent); q; q = next) {
		next = TAILQ_NEXT(q, in);
		if (all || !rpc_is_below_views(q->method->id))
			rpc_request_end(q, RPC_DOWN, "node %s: %s",
					rpc_name(link->rpc, link->remote->node), reason);
	}
}

bool rpc_link_is_idle(const struct rpc_link *link)
{
	return TAILQ_EMPTY(&link->sent) && LIST_EMPTY(&link->calls) &&
	       STAILQ_EMPTY(&link->out);
}

int rpc_link_send_request(struct rpc_link *link, struct rpc_request *q)
{
	struct rpc *rpc = link->rpc;
	struct transport_frame frame = {
		.kind = TRANSPORT_REQUEST,
		.method = q->method->id,
		.id = q->id,
		.epoch = q->epoch,
		.message = { q->data, q->message_len },
		.bulk = { q->data + q->message_len, q->bulk_len },
	};
	int r;

	r = rpc->transport->ops->send(rpc->transport->impl, link->link, &frame);
	if (r)
		return r;
	rpc_request_detach(q);
	q->link = link;
	if (rpc_is_below_views(q->method->id))
		free(TAKE(q->data));
	HASH_ADD(hh, rpc->by_id, id, sizeof(q->id), q);
	TAILQ_INSERT_TAIL(&link->sent, q, in);
	sm_move(&q->sm, REQUEST_SENT);
	link->active_at = env_now(rpc->env);
	return 0;
}

static void out_queue(struct rpc_link *link, const struct transport_frame *frame)
{
	size_t len = frame->message.iov_len + frame->bulk.iov_len;
	struct rpc_out *out;

	if (link->out_bytes + len > RPC_MAX_OUT_BYTES) {
		rpc_link_close(link, "the node does not read its replies");
		return;
	}
	out = malloc(sizeof(*out) + len);
	if (!out) {
		rpc_link_close(link, "out of memory");
		return;
	}
	out->frame = *frame;
	if (frame->message.iov_len)
		memcpy(out->data, frame->message.iov_base, frame->message.iov_len);
	if (frame->bulk.iov_len)
		memcpy(out->data + frame->message.iov_len, frame->bulk.iov_base,
		       frame->bulk.iov_len);
	out->frame.message.iov_base = out->data;
	out->frame.bulk.iov_base = out->data + frame->message.iov_len;
	STAILQ_INSERT_TAIL(&link->out, out, in);
	link->out_bytes += len;
}

void rpc_link_send(struct rpc_link *link, const struct transport_frame *frame)
{
	const struct transport *t = link->rpc->transport;
	int r;

	if (link->closing)
		return;
	link->active_at = env_now(link->rpc->env);
	if (link->full || !STAILQ_EMPTY(&link->out)) {
		out_queue(link, frame);
		return;
	}
	r = t->ops->send(t->impl, link->link, frame);
	if (r == TRANSPORT_E_FULL) {
		link->full = true;
		out_queue(link, frame);
	} else if (r < 0) {
		/* Rather no link than a reply that never comes. */
		rpc_link_close(link, "cannot send");
	}
}

static void on_writable(void *owner, struct transport_link *tl)
{
	struct rpc_link *link = link_find(owner, tl);
	const struct transport *t;
	struct rpc_out *out;
	int r;

	if (!link || link->closing)
		return;
	link->full = false;
	t = link->rpc->transport;
	while ((out = STAILQ_FIRST(&link->out))) {
		r = t->ops->send(t->impl, link->link, &out->frame);
		if (r == TRANSPORT_E_FULL) {
			link->full = true;
			return;
		}
		if (r)
			return;
		STAILQ_REMOVE_HEAD(&link->out, in);
		link->out_bytes -= out->frame.message.iov_len + out->frame.bulk.iov_len;
		free(out);
	}
	rpc_remote_push(link->remote);
}

static void on_up(void *owner, struct transport_link *tl, node_id peer)
{
	struct rpc *rpc = owner;
	struct rpc_link *link = link_find(rpc, tl);
	struct rpc_remote *remote;

	if (!link) {
		remote = peer == rpc->self ? NULL : rpc_remote_get(rpc, peer);
		link = remote ? link_new(remote, false) : NULL;
		if (link && link_attach(link, tl))
			link = rpc_link_free(link);
		if (!link) {
			rpc->transport->ops->close(rpc->transport->impl, tl,
						   "cannot take a link from this node");
			return;
		}
	}
	remote = link->remote;
	if (remote->opening == link)
		remote->opening = NULL;
	link->up = true;
	link->up_at = link->active_at = env_now(rpc->env);
	rpc_remote_heard(remote);
	rpc->counters.links++;
	log_debug("link %s node %s is up", link->opened_here ? "to" : "from", rpc_name(rpc, peer));
	rpc_remote_choose(remote);
	rpc_remote_push(remote);
}

static void on_down(void *owner, struct transport_link *tl, node_id peer,
		    const char *reason)
{
	struct rpc_link *link = link_find(owner, tl);
	struct rpc_remote *remote;

	if (!link)
		return;
	remote = link->remote;
	log_debug("link %s node %s is down: %s", link->opened_here ? "to" : "from",
		  rpc_name(link->rpc, remote->node), reason);
	/* It may be idle at the other end. */
	if (!link->closing && (!link->up || !TAILQ_EMPTY(&link->sent)))
		rpc_remote_silent(remote, env_now(link->rpc->env));
	rpc_link_fail(link, true, reason);
	(void)rpc_link_free(link);
	rpc_remote_choose(remote);
	if (remote->link)
		rpc_remote_push(remote);
	else if (!remote->opening)
		rpc_remote_fail(remote, true, reason);
}

static int on_reply(struct rpc_link *link, const struct transport_frame *frame)
{
	struct rpc *rpc = link->rpc;
	struct rpc_result result = { .text = "", .bulk = frame->bulk };
	_cleanup_(rpc_unpacked_freep) ProtobufCMessage *reply = NULL;
	struct rpc_request *q;
	char text[RPC_TEXT_MAX];
	int r;

	HASH_FIND(hh, rpc->by_id, &frame->id, sizeof(frame->id), q);
	if (!q) {
		rpc->counters.orphans++;
		return 0;
	}
	if (q->link != link || q->method->id != frame->method)
		return err_origin(-EBADMSG);
	if (frame->kind == TRANSPORT_FAILED) {
		r = rpc_failure_unpack(frame->message, &result.status, text);
		if (r)
			return r;
		if (result.status == RPC_STALE && q->data && frame->epoch < q->epoch) {
			rpc_remote_early(q, text);
			return 0;
		}
		result.text = text;
		result.bulk = RPC_NO_BULK;
	} else {
		reply = rpc_unpack(q->method->reply, frame->message);
		if (!reply)
			return err_origin(-EBADMSG);
		result.reply = reply;
	}
	result.answered = true;
	rpc_request_done(q, &result);
	return 0;
}

static int on_frame(void *owner, struct transport_link *tl,
		    const struct transport_frame *frame)
{
	struct rpc_link *link = link_find(owner, tl);
	int r = -EBADMSG;

	if (!link || !link->up)
		return err_origin(-EBADMSG);
	/* What a link brings after it was given up is not wanted any more. */
	if (link->closing)
		return 0;
	link->active_at = env_now(link->rpc->env);
	rpc_remote_heard(link->remote);
	DTRACE_PROBE3(ssid, rpc_recv, link->remote->node, frame->method, frame->id);
	if (frame->kind == TRANSPORT_REQUEST || frame->kind == TRANSPORT_NOTIFY)
		r = rpc_serve_request(link, frame);
	else if (frame->kind == TRANSPORT_REPLY || frame->kind == TRANSPORT_FAILED)
		r = on_reply(link, frame);
	if (r) {
		((struct rpc *)owner)->counters.broken++;
		log_warning("node %s sent a frame that is not the protocol (method "
			    "%#06x), closing the link",
			    rpc_name(link->rpc, link->remote->node), frame->method);
	}
	return r;
}

const struct transport_events *rpc_events(void)
{
	static const struct transport_events events = { on_up, on_down, on_frame,
							on_writable };

	return &events;
}
