/* What the other end says.  Whatever closes an end comes last. */
#include "stream_internal.h"

#include "stream.pb-c.h"

#include <string.h>
#include <sys/ioctl.h>

RPC_HANDLER(on_open, struct stream_room, Ssi__Stream__OpenRequest)
{
	bool reader = req->role == SSI__STREAM__ROLE__READER;
	struct stream_end *e =
		stream_end_find(self, req->id, reader ? STREAM_WRITER : STREAM_READER);
	Ssi__Stream__OpenReply reply = SSI__STREAM__OPEN_REPLY__INIT;

	if (!e)
		return rpc_fail(call, RPC_NOT_FOUND, "no such stream");
	if (stream_end_is(e, STREAM_CUT))
		return rpc_fail(call, RPC_CONFLICT, "that end of the stream is moving");
	stream_end_set_peer(e, rpc_call_peer(call));
	stream_end_present(e);
	stream_end_cancel(e);
	if (stream_end_is(e, STREAM_BREAKS)) {
		rpc_fail(call, RPC_CONFLICT, "the stream is broken");
		return stream_end_pump(e);
	}
	e->joined = true;
	/* A writer's announcement may come late, after later acknowledgements: then, and
	 * if bytes are missing, our answer tells it. */
	if ((reader || req->position > e->hand.first) && !stream_end_meet(e, req->position)) {
		rpc_fail(call, RPC_USAGE, "the positions do not meet");
		return stream_end_mismatch(e);
	}
	reply.position = stream_end_position(e);
	rpc_reply(call, &reply.base, RPC_NO_BULK);
	stream_end_pump(e);
}

RPC_HANDLER(on_data, struct stream_room, Ssi__Stream__DataRequest)
{
	struct stream_end *e = stream_end_find(self, req->id, STREAM_WRITER);
	uint64_t behind, known, n_new = 0;
	ssize_t n;

	if (!e)
		return rpc_fail(call, RPC_NOT_FOUND, "no such stream");
	if (stream_end_is(e, STREAM_CUT | STREAM_BREAKS))
		return rpc_fail(call, RPC_CONFLICT, "that end of the stream is moving or gone");
	if (e->mark.peer != rpc_call_peer(call))
		return rpc_fail(call, RPC_CONFLICT, "the stream comes from node %s",
				rpc_name(self->rpc, e->mark.peer));
	/* Bytes before our position were taken already; of what is behind a gap nothing
	 * is: the answer says which come next. */
	behind = stream_hand_behind(&e->hand);
	known = req->position <= behind ? behind - req->position : UINT64_MAX;
	if (known < bulk.iov_len)
		n_new = bulk.iov_len - known;
	if (stream_end_is(e, STREAM_ENDED) && n_new)
		return rpc_fail(call, RPC_USAGE, "not the bytes that come next");
	stream_end_answer(e); /* in order, and only the last one may wait */
	n = n_new ? stream_hand_put(&e->hand, (uint8_t *)bulk.iov_base + known, n_new) : 0;
	if (n < 0) {
		rpc_fail(call, RPC_FAILED, "%s", strerror((int)-n));
		return stream_end_break(e);
	}
	if (req->end && (size_t)n == n_new && known <= bulk.iov_len)
		stream_end_set_flag(e, STREAM_ENDED);
	e->unanswered = call;
	stream_end_pump(e);
}

RPC_HANDLER(on_broken, struct stream_room, Ssi__Stream__BrokenRequest)
{
	bool reader = req->role == SSI__STREAM__ROLE__READER;
	struct stream_end *e =
		stream_end_find(self, req->id, reader ? STREAM_WRITER : STREAM_READER);
	Ssi__Stream__OpenReply reply = SSI__STREAM__OPEN_REPLY__INIT;

	if (!e || e->mark.peer != rpc_call_peer(call))
		return rpc_fail(call, RPC_NOT_FOUND, "no such stream");
	if (stream_end_is(e, STREAM_CUT))
		return rpc_fail(call, RPC_CONFLICT, "that end of the stream is moving");
	rpc_reply(call, &reply.base, RPC_NO_BULK);
	if (stream_end_is_reader(e) || stream_end_is(e, STREAM_BREAKS))
		return stream_end_close(e);
	/* What came is still for the program. */
	stream_end_set_flag(e, STREAM_ENDED);
	stream_end_pump(e);
}

RPC_HANDLER(on_resize, struct stream_room, Ssi__Stream__ResizeRequest)
{
	struct stream_end *e = stream_end_find(self, req->id, STREAM_WRITER);
	Ssi__Stream__OpenReply reply = SSI__STREAM__OPEN_REPLY__INIT;
	struct winsize size = {(uint16_t)req->rows, (uint16_t)req->columns,
			       (uint16_t)req->x_pixels, (uint16_t)req->y_pixels};

	if (!e || e->mark.peer != rpc_call_peer(call) ||
	    !stream_end_is(e, STREAM_TERMINAL))
		return rpc_fail(call, RPC_NOT_FOUND, "no such terminal");
	if (stream_end_is(e, STREAM_CUT))
		return rpc_fail(call, RPC_CONFLICT, "the terminal is moving");
	if (e->hand.pipe < 0 || ioctl(e->hand.pipe, TIOCSWINSZ, &size) < 0)
		return rpc_fail(call, RPC_NOT_FOUND, "the terminal is hung up");
	rpc_reply(call, &reply.base, RPC_NO_BULK);
}

const struct rpc_method stream_methods[] = {
	RPC_METHOD(STREAM_OPEN, on_open, ssi__stream__open_request__descriptor,
		   ssi__stream__open_reply__descriptor),
	RPC_METHOD(STREAM_DATA, on_data, ssi__stream__data_request__descriptor,
		   ssi__stream__data_reply__descriptor),
	RPC_METHOD(STREAM_BROKEN, on_broken, ssi__stream__broken_request__descriptor,
		   ssi__stream__open_reply__descriptor),
	RPC_METHOD(STREAM_RESIZE, on_resize, ssi__stream__resize_request__descriptor,
		   ssi__stream__open_reply__descriptor),
	{0},
};
