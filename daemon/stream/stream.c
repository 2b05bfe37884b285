/*
 * Happy path: a reader takes bytes out of its pipe and keeps them; it sends what
 * it keeps, one message at a time, each with the position of its first byte; the
 * writer takes what is new, answers with the position it wants next, and puts the
 * bytes into its pipe as room comes.  A writer with a full buffer answers late:
 * that is the back-pressure.
 *
 * Failure modes: a call that fails is made again after a pause, with the same
 * position, and taken once; an end that moved announces itself, and the other
 * goes on from there; a far end that nobody opens within ABSENT_MAX, or whose
 * node is lost, breaks the stream on this side too.
 *
 * The pipes are shared with programs and may not be made non-blocking: bytes go
 * through a scratch pipe by splice(SPLICE_F_NONBLOCK), which does not block whatever the
 * flags of the two are.
 */
#include "stream.h"

#include "buf.h"
#include "err.h"
#include "log.h"
#include "stream.pb-c.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>

enum {
	STREAM_OPEN = RPC_ROOM_STREAM << 8 | 1,
	STREAM_DATA = RPC_ROOM_STREAM << 8 | 2,
	STREAM_BROKEN = RPC_ROOM_STREAM << 8 | 3,
};

enum {
	PIECE = 65536,       /* bytes a splice */
	WINDOW = 256 << 10,  /* bytes an end keeps */
};

static const nsec_t CALL_TIMEOUT = 30 * NSEC_PER_SEC;
static const nsec_t PAUSE = 100 * NSEC_PER_MSEC;
static const nsec_t ABSENT_MAX = 20 * NSEC_PER_SEC;

struct stream_end {
	LIST_ENTRY(stream_end) entry;
	struct stream_room *room;
	stream_id id;
	enum stream_role role;
	node_id peer;
	ino_t inode; /* of its pipe */
	struct env_fd watch;
	struct env_timer again;
	/* Reader: bytes not acknowledged, the first is number `position`.  Writer: bytes
	 * not yet in the pipe; `position` is that of the next byte from the reader. */
	struct buf bytes;
	uint64_t position;
	bool ended;     /* end of file: seen (reader), received (writer) */
	bool joined;    /* the other end has answered our announcement */
	nsec_t absent_since; /* 0: it answers */
	struct rpc_request *call;
	size_t sent;          /* bytes of the call under way */
	bool sent_end;
	struct rpc_call *unanswered; /* writer: a DATA that waits for room */
};

struct stream_room {
	const struct env *env;
	struct space *space;
	struct rpc *rpc;
	LIST_HEAD(, stream_end) ends;
	int scratch[2];
	uint32_t next_id;
};

static void pump(struct stream_end *e);
static void announce(struct stream_end *e);

static struct stream_end *find(const struct stream_room *s, stream_id id, enum stream_role role)
{
	struct stream_end *e;

	LIST_FOREACH(e, &s->ends, entry)
		if (e->id == id && e->role == role)
			return e;
	return NULL;
}

static void answer(struct stream_end *e)
{
	Ssi__Stream__DataReply reply = SSI__STREAM__DATA_REPLY__INIT;

	if (!e->unanswered)
		return;
	reply.position = e->position;
	rpc_reply(e->unanswered, &reply.base, RPC_NO_BULK);
	e->unanswered = NULL;
}

/* The descriptor is the caller's to close or keep. */
static int end_forget(struct stream_end *e)
{
	int fd = e->watch.fd;

	env_unwatch(e->room->env, &e->watch);
	env_disarm(e->room->env, &e->again);
	if (e->call)
		rpc_cancel(e->room->rpc, e->call);
	answer(e);
	LIST_REMOVE(e, entry);
	buf_fini(&e->bytes);
	free(e);
	return fd;
}

static void end_close(struct stream_end *e)
{
	close_fd(end_forget(e));
}

/* Splice. */

/* > 0 bytes appended to e->bytes; 0: end of file; -EAGAIN: nothing there now. */
static ssize_t take_in(struct stream_end *e, int fd)
{
	struct stream_room *s = e->room;
	uint8_t *to = buf_reserve(&e->bytes, PIECE);
	ssize_t n, got;

	if (!to)
		return err_origin(-ENOMEM);
	n = splice(fd, NULL, s->scratch[1], NULL, PIECE, SPLICE_F_NONBLOCK);
	if (n <= 0)
		return n < 0 ? -errno : 0;
	for (got = 0; got < n;) {
		ssize_t r = read(s->scratch[0], to + got, (size_t)(n - got));

		if (r <= 0)
			return err_origin(-EIO);
		got += r;
	}
	e->bytes.len += (size_t)n;
	return n;
}

/* Bytes of e->bytes that the pipe took; -EAGAIN: full; -EPIPE: nobody reads. */
static ssize_t put_out(struct stream_end *e)
{
	struct stream_room *s = e->room;
	size_t piece = e->bytes.len < PIECE ? e->bytes.len : PIECE;
	ssize_t in = write(s->scratch[1], e->bytes.data, piece), out, left;
	uint8_t rest[4096];

	if (in < 0)
		return err_origin(-errno);
	out = splice(s->scratch[0], NULL, e->watch.fd, NULL, (size_t)in, SPLICE_F_NONBLOCK);
	if (out < 0)
		out = -errno;
	/* What did not fit is still in e->bytes. */
	for (left = in - (out > 0 ? out : 0); left > 0;) {
		ssize_t r = read(s->scratch[0], rest,
				 left < (ssize_t)sizeof(rest) ? (size_t)left : sizeof(rest));

		if (r <= 0)
			return err_origin(-EIO);
		left -= r;
	}
	if (out > 0)
		buf_consume(&e->bytes, (size_t)out);
	return out;
}

/* The reader's side. */

static void on_again(struct env_timer *timer)
{
	struct stream_end *e = container_of(timer, struct stream_end, again);

	if (e->joined)
		pump(e);
	else
		announce(e);
}

/* The other side did not answer: try again soon, give up in the end. */
static void absent(struct stream_end *e, const char *text)
{
	nsec_t now = env_now(e->room->env);

	if (!e->absent_since)
		e->absent_since = now;
	if (now - e->absent_since > ABSENT_MAX) {
		log_warning("stream %" PRIx64 ": its other end is gone (%s): closed", e->id, text);
		return end_close(e);
	}
	e->joined = false;
	(void)env_arm(e->room->env, &e->again, PAUSE);
}

static void on_data_done(void *owner, const struct rpc_result *result)
{
	const Ssi__Stream__DataReply *reply = (const void *)result->reply;
	struct stream_end *e = owner;
	uint64_t taken;

	e->call = NULL;
	/* Late because nobody reads there: the same bytes once more. */
	if (result->status == RPC_TIMEOUT)
		return pump(e);
	if (result->status != RPC_OK)
		return absent(e, result->text);
	e->absent_since = 0;
	taken = reply->position - e->position;
	if (taken > e->bytes.len) {
		log_error("stream %" PRIx64 ": acknowledged beyond its end: closed", e->id);
		return end_close(e);
	}
	buf_consume(&e->bytes, taken);
	e->position += taken;
	if (e->sent_end && e->bytes.len == 0)
		return end_close(e);
	pump(e);
}

static void send_data(struct stream_end *e)
{
	Ssi__Stream__DataRequest q = SSI__STREAM__DATA_REQUEST__INIT;

	q.id = e->id;
	q.position = e->position;
	q.end = e->sent_end = e->ended;
	e->sent = e->bytes.len;
	if (rpc_call(e->room->rpc, e->peer, STREAM_DATA, &q.base,
		     (struct iovec){ e->bytes.data, e->sent }, CALL_TIMEOUT, on_data_done, e,
		     &e->call) != 0)
		absent(e, "out of memory");
}

static void pump_reader(struct stream_end *e)
{
	bool room = !e->ended && e->bytes.len < WINDOW;

	if (e->peer == NODE_NONE) {
		buf_consume(&e->bytes, e->bytes.len);
		if (e->ended)
			return end_close(e);
	}
	if (room)
		(void)env_watch(e->room->env, &e->watch, ENV_READ);
	else
		env_unwatch(e->room->env, &e->watch);
	if (e->joined && !e->call && (e->bytes.len || e->ended))
		send_data(e);
}

/* The writer's side. */

static void on_broken_done(void *owner, const struct rpc_result *result)
{
}

static void broken(struct stream_end *e)
{
	Ssi__Stream__BrokenRequest q = SSI__STREAM__BROKEN_REQUEST__INIT;

	q.id = e->id;
	(void)rpc_call(e->room->rpc, e->peer, STREAM_BROKEN, &q.base, RPC_NO_BULK, CALL_TIMEOUT,
		       on_broken_done, NULL, NULL);
	end_close(e);
}

static void pump_writer(struct stream_end *e)
{
	while (e->bytes.len) {
		ssize_t n = put_out(e);

		if (n == -EAGAIN)
			break;
		if (n < 0)
			return broken(e);
	}
	if (e->bytes.len < WINDOW)
		answer(e);
	if (e->ended && e->bytes.len == 0)
		return end_close(e);
	if (e->bytes.len)
		(void)env_watch(e->room->env, &e->watch, ENV_WRITE);
	else
		env_unwatch(e->room->env, &e->watch);
}

static void pump(struct stream_end *e)
{
	if (e->role == STREAM_READER)
		pump_reader(e);
	else
		pump_writer(e);
}

static void on_pipe(struct env_fd *watch, unsigned events)
{
	struct stream_end *e = container_of(watch, struct stream_end, watch);

	if (e->role == STREAM_READER) {
		ssize_t n = take_in(e, watch->fd);

		if (n == 0)
			e->ended = true;
		if (n < 0 && n != -EAGAIN)
			return end_close(e);
	}
	pump(e);
}

/* Announcing. */

static void on_announced(void *owner, const struct rpc_result *result)
{
	const Ssi__Stream__OpenReply *reply = (const void *)result->reply;
	struct stream_end *e = owner;

	e->call = NULL;
	if (result->status != RPC_OK)
		return absent(e, result->text);
	e->joined = true;
	e->absent_since = 0;
	/* What the writer has already is dropped; it may be all, never more. */
	if (e->role == STREAM_READER && reply->position > e->position &&
	    reply->position - e->position <= e->bytes.len) {
		buf_consume(&e->bytes, reply->position - e->position);
		e->position = reply->position;
	}
	pump(e);
}

static void announce(struct stream_end *e)
{
	Ssi__Stream__OpenRequest q = SSI__STREAM__OPEN_REQUEST__INIT;

	if (e->call)
		return;
	if (e->peer == NODE_NONE)
		return pump(e);
	q.id = e->id;
	q.role = e->role == STREAM_READER ? SSI__STREAM__ROLE__READER : SSI__STREAM__ROLE__WRITER;
	q.position = e->position;
	if (rpc_call(e->room->rpc, e->peer, STREAM_OPEN, &q.base, RPC_NO_BULK, CALL_TIMEOUT,
		     on_announced, e, &e->call) != 0)
		absent(e, "out of memory");
}

RPC_HANDLER(on_open, struct stream_room, Ssi__Stream__OpenRequest)
{
	bool reader = req->role == SSI__STREAM__ROLE__READER;
	struct stream_end *e = find(self, req->id, reader ? STREAM_WRITER : STREAM_READER);
	Ssi__Stream__OpenReply reply = SSI__STREAM__OPEN_REPLY__INIT;

	if (!e)
		return rpc_fail(call, RPC_NOT_FOUND, "no such stream");
	e->peer = rpc_call_peer(call);
	e->joined = true;
	e->absent_since = 0;
	if (e->call) {
		rpc_cancel(self->rpc, e->call);
		e->call = NULL;
	}
	if (!reader && req->position > e->position && req->position - e->position <= e->bytes.len) {
		buf_consume(&e->bytes, req->position - e->position);
		e->position = req->position;
	}
	reply.position = e->position;
	rpc_reply(call, &reply.base, RPC_NO_BULK);
	pump(e);
}

RPC_HANDLER(on_data, struct stream_room, Ssi__Stream__DataRequest)
{
	struct stream_end *e = find(self, req->id, STREAM_WRITER);
	uint64_t known;

	if (!e)
		return rpc_fail(call, RPC_NOT_FOUND, "no such stream");
	answer(e);
	/* Bytes before our position were taken already; a gap is never taken. */
	known = e->position - req->position;
	if (req->position <= e->position && known <= bulk.iov_len) {
		if (buf_append(&e->bytes, (uint8_t *)bulk.iov_base + known,
			       bulk.iov_len - known) < 0)
			return rpc_fail(call, RPC_FAILED, "out of memory");
		e->position += bulk.iov_len - known;
		e->ended |= req->end;
	}
	e->unanswered = call;
	pump(e);
}

RPC_HANDLER(on_broken, struct stream_room, Ssi__Stream__BrokenRequest)
{
	struct stream_end *e = find(self, req->id, STREAM_READER);
	Ssi__Stream__OpenReply reply = SSI__STREAM__OPEN_REPLY__INIT;

	rpc_reply(call, &reply.base, RPC_NO_BULK);
	if (e && e->peer == rpc_call_peer(call))
		end_close(e);
}

static const struct rpc_method methods[] = {
	RPC_METHOD(STREAM_OPEN, on_open, ssi__stream__open_request__descriptor,
		   ssi__stream__open_reply__descriptor),
	RPC_METHOD(STREAM_DATA, on_data, ssi__stream__data_request__descriptor,
		   ssi__stream__data_reply__descriptor),
	RPC_METHOD(STREAM_BROKEN, on_broken, ssi__stream__broken_request__descriptor,
		   ssi__stream__open_reply__descriptor),
	{ 0 },
};

int stream_room_new(struct stream_room **ret, const struct env *env, struct space *space,
		    struct rpc *rpc)
{
	struct stream_room *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_origin(-ENOMEM);
	s->env = env;
	s->space = space;
	s->rpc = rpc;
	s->scratch[0] = s->scratch[1] = -1;
	s->next_id = (uint32_t)env_random_u64(env);
	LIST_INIT(&s->ends);
	r = pipe2(s->scratch, O_CLOEXEC | O_NONBLOCK) < 0 ? err_origin(-errno) : 0;
	if (r == 0)
		r = rpc_register(rpc, methods, s);
	if (r < 0) {
		stream_room_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

struct stream_room *stream_room_free(struct stream_room *s)
{
	if (!s)
		return NULL;
	while (!LIST_EMPTY(&s->ends))
		end_close(LIST_FIRST(&s->ends));
	close_fd(s->scratch[0]);
	close_fd(s->scratch[1]);
	free(s);
	return NULL;
}

void stream_on_node_lost(struct stream_room *s, node_id node)
{
	struct stream_end *e, *next;

	for (e = LIST_FIRST(&s->ends); e; e = next) {
		next = LIST_NEXT(e, entry);
		if (e->peer == node)
			end_close(e);
	}
}

stream_id stream_new_id(struct stream_room *s)
{
	return (uint64_t)rpc_self(s->rpc) << 32 | s->next_id++;
}

int stream_open(struct stream_room *s, stream_id id, enum stream_role role, node_id peer,
		int owned_fd, uint64_t position, const void *rest, size_t n_rest)
{
	_cleanup_close_ int fd = owned_fd;
	struct stream_end *e;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_origin(-errno);
	e = calloc(1, sizeof(*e));
	if (!e)
		return err_origin(-ENOMEM);
	if (buf_append(&e->bytes, rest, n_rest) < 0) {
		free(e);
		return err_origin(-ENOMEM);
	}
	e->room = s;
	e->id = id;
	e->role = role;
	e->peer = peer;
	e->inode = st.st_ino;
	e->position = position;
	e->watch = (struct env_fd){ .cb = on_pipe, .fd = TAKE_FD(fd) };
	e->again.cb = on_again;
	LIST_INSERT_HEAD(&s->ends, e, entry);
	announce(e);
	return 0;
}

int stream_by_pipe(const struct stream_room *s, ino_t pipe, struct stream_info *ret)
{
	const struct stream_end *e;

	LIST_FOREACH(e, &s->ends, entry)
		if (e->inode == pipe) {
			*ret = (struct stream_info){ e->id, e->role, e->peer };
			return 0;
		}
	return STREAM_E_ABSENT;
}

int stream_cut(struct stream_room *s, stream_id id, enum stream_role role, int app_fd,
	       struct stream_cut *ret)
{
	struct stream_end *e = find(s, id, role);
	struct buf pending;
	ssize_t n;

	if (!e)
		return STREAM_E_ABSENT;
	if (role == STREAM_READER) {
		/* Behind what we keep comes what is still in the pipe. */
		while ((n = take_in(e, e->watch.fd)) > 0)
			;
	} else {
		/* Before what we keep goes what its process has not read. */
		pending = e->bytes;
		e->bytes = (struct buf){ 0 };
		while ((n = take_in(e, app_fd)) > 0)
			;
		if (n >= 0 || n == -EAGAIN)
			n = buf_append(&e->bytes, pending.data, pending.len);
		buf_fini(&pending);
	}
	if (n < 0 && n != -EAGAIN)
		return (int)n;
	ret->position = e->position;
	ret->owned_rest = e->bytes.data;
	ret->n_rest = e->bytes.len;
	e->bytes = (struct buf){ 0 };
	ret->owned_fd = end_forget(e);
	return 0;
}

int stream_close(struct stream_room *s, stream_id id, enum stream_role role)
{
	struct stream_end *e = find(s, id, role);

	if (!e)
		return STREAM_E_ABSENT;
	if (role == STREAM_WRITER) {
		broken(e);
		return 0;
	}
	e->ended = true;
	pump(e);
	return 0;
}
