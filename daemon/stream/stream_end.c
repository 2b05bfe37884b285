/*
 * Happy path: a reader takes bytes out of its pipe into its hand; it sends what it
 * has there, each message with the position of its first byte; the writer takes what
 * is new into its hand, answers with the position it wants next and the room behind
 * that, and puts the bytes into its pipe as room comes; the reader lets go of what is
 * acknowledged.  While there is room, full pieces follow each other
 * without waiting; less than that waits for an answer, and grows meanwhile.  A writer
 * whose hand is more than half full keeps the last answer back: that is the
 * back-pressure.
 *
 * Failure modes: a call that fails is made again after a pause, and whatever was sent
 * behind it with it, from the first byte that is not acknowledged; what comes twice is
 * taken once, and what comes behind a gap not at all; an end that moved, or whose ssid
 * is new, announces itself, and the other goes on from there, so every end announces
 * itself until it is answered.  An end that the other node does not know for
 * ABSENT_MAX, or a node out of reach for SILENT_MAX, or lost, breaks the stream on this
 * side too.  Positions that do not meet mean lost bytes: the stream breaks on both
 * sides.
 *
 * At a terminal (STREAM_TERMINAL) two ends have the same master, and one that ends ends
 * the other: see stream_terminal.c.
 *
 * An end that breaks gives up its pipe at once, and stays until the other side has
 * heard of it.
 *
 * The pipes are shared with programs and may not be made non-blocking: bytes come and
 * go by splice(SPLICE_F_NONBLOCK), which does not block whatever the flags of the two
 * are. (It waits for the pipe's lock, which a program's read() holds while its own
 * memory is faulted in.)
 */
#include "stream_internal.h"

#include "err.h"
#include "log.h"
#include "stream.pb-c.h"

#include <inttypes.h>
#include <poll.h>

static const nsec_t CALL_TIMEOUT = 30 * NSEC_PER_SEC;
static const nsec_t PAUSE_MIN = 20 * NSEC_PER_MSEC;
static const nsec_t PAUSE_MAX = NSEC_PER_SEC;
static const nsec_t ABSENT_MAX = 20 * NSEC_PER_SEC;
static const nsec_t SILENT_MAX = 600 * NSEC_PER_SEC;
static const nsec_t OPENING_PAUSE = 250 * NSEC_PER_MSEC;
static const nsec_t CUT_MAX = 60 * NSEC_PER_SEC;

struct stream_end *stream_end_find(const struct stream_room *s, stream_id id,
				   enum stream_role role)
{
	struct stream_end *e;

	LIST_FOREACH(e, &s->ends, entry)
		if (e->id == id && e->mark.role == role)
			return e;
	return NULL;
}

static Ssi__Stream__Role wire_role(const struct stream_end *e)
{
	return stream_end_is_reader(e) ? SSI__STREAM__ROLE__READER : SSI__STREAM__ROLE__WRITER;
}

void stream_end_set_flag(struct stream_end *e, uint8_t flag)
{
	e->mark.flags |= flag;
	stream_hand_mark(&e->hand, &e->mark);
}

void stream_end_clear_flag(struct stream_end *e, uint8_t flag)
{
	e->mark.flags &= (uint8_t)~flag;
	stream_hand_mark(&e->hand, &e->mark);
}

void stream_end_set_peer(struct stream_end *e, node_id peer)
{
	if (e->mark.peer == peer)
		return;
	e->mark.peer = peer;
	stream_hand_mark(&e->hand, &e->mark);
}

/* Ending. */

void stream_end_answer(struct stream_end *e)
{
	Ssi__Stream__DataReply reply = SSI__STREAM__DATA_REPLY__INIT;

	if (!e->unanswered)
		return;
	reply.position = stream_hand_behind(&e->hand);
	reply.ended = stream_end_is(e, STREAM_ENDED);
	reply.room = (uint32_t)stream_hand_room(&e->hand);
	rpc_reply(e->unanswered, &reply.base, RPC_NO_BULK);
	e->unanswered = NULL;
}

void stream_end_cancel(struct stream_end *e)
{
	if (e->call)
		rpc_cancel(e->room->rpc, e->call);
	e->call = NULL;
	for (size_t i = 0; i < STREAM_MESSAGES_MAX; i++) {
		if (e->messages[i].call)
			rpc_cancel(e->room->rpc, e->messages[i].call);
		e->messages[i].call = NULL;
	}
	e->n_messages = 0;
	e->sent = e->limit = e->hand.first;
}

void stream_end_quiet(struct stream_end *e)
{
	env_unwatch(e->room->env, &e->watch);
	stream_end_cancel(e);
	stream_end_answer(e);
}

void stream_end_free(struct stream_end *e)
{
	stream_end_quiet(e);
	env_disarm(e->room->env, &e->again);
	LIST_REMOVE(e, entry);
	stream_hand_fini(&e->hand);
	free(e);
}

void stream_end_close(struct stream_end *e)
{
	env_unwatch(e->room->env, &e->watch);
	stream_hand_drop(&e->hand);
	stream_end_hang_up(e);
	stream_end_free(e);
}

/* A pause, then go on.  The timer has been armed before: this cannot fail. */
static void retry(struct stream_end *e, nsec_t since)
{
	nsec_t pause = (env_now(e->room->env) - since) / 4;

	if (pause < PAUSE_MIN)
		pause = PAUSE_MIN;
	if (pause > PAUSE_MAX)
		pause = PAUSE_MAX;
	(void)env_arm(e->room->env, &e->again, pause);
}

/* The other side did not answer: try again soon, give up in the end. */
static void absent(struct stream_end *e, enum rpc_status status, const char *text)
{
	nsec_t now = env_now(e->room->env);

	stream_end_cancel(e);
	if (!e->silent_since)
		e->silent_since = now;
	if (status != RPC_NOT_FOUND)
		e->absent_since = 0;
	else if (!e->absent_since)
		e->absent_since = now;
	if ((e->absent_since && now - e->absent_since > ABSENT_MAX) ||
	    now - e->silent_since > SILENT_MAX) {
		/* After its end it only was not told that all had come through. */
		if (!stream_end_is(e, STREAM_ENDED | STREAM_BREAKS))
			log_warning("stream %" PRIx64 ": its other end is gone (%s): closed",
				    e->id, text);
		return stream_end_close(e);
	}
	e->joined = false;
	retry(e, e->silent_since);
}

void stream_end_present(struct stream_end *e)
{
	e->silent_since = e->absent_since = 0;
}

/* Breaking: the pipe is given up, the other side is told. */

static void on_broken_done(void *owner, const struct rpc_result *result)
{
	struct stream_end *e = owner;

	e->call = NULL;
	if (result->status != RPC_OK)
		return absent(e, result->status, result->text);
	stream_end_close(e);
}

static void tell_broken(struct stream_end *e)
{
	Ssi__Stream__BrokenRequest q = SSI__STREAM__BROKEN_REQUEST__INIT;

	if (e->mark.peer == NODE_NONE)
		return stream_end_close(e);
	if (e->call)
		return;
	q.id = e->id;
	q.role = wire_role(e);
	if (rpc_call(e->room->rpc, e->mark.peer, STREAM_BROKEN, &q.base, RPC_NO_BULK,
		     CALL_TIMEOUT, on_broken_done, e, &e->call) != 0)
		absent(e, RPC_FAILED, "out of memory");
}

void stream_end_give_up(struct stream_end *e)
{
	if (stream_end_is_reader(e)) {
		stream_end_set_flag(e, STREAM_ENDED);
		env_unwatch(e->room->env, &e->watch);
	} else {
		stream_end_set_flag(e, STREAM_BREAKS);
		stream_end_quiet(e);
	}
	stream_hand_release(&e->hand);
	(void)env_arm(e->room->env, &e->again, 0);
}

void stream_end_break(struct stream_end *e)
{
	stream_end_set_flag(e, STREAM_BREAKS);
	stream_end_quiet(e);
	stream_hand_release(&e->hand);
	stream_end_hang_up(e);
	stream_end_pump(e);
}

void stream_end_mismatch(struct stream_end *e)
{
	log_error("stream %" PRIx64 ": the positions of its ends do not meet: closed", e->id);
	stream_end_break(e);
}

/* The reader's side. */

/* The writer wants @position next: let go of what lies before.  False: it cannot be so. */
static bool acknowledge(struct stream_end *e, uint64_t position)
{
	uint64_t n = position - e->hand.first;

	if (n > e->hand.level || stream_hand_discard(&e->hand, n) != 0)
		return false;
	if (e->sent < e->hand.first)
		e->sent = e->hand.first;
	return true;
}

static void on_data_done(void *owner, const struct rpc_result *result)
{
	const Ssi__Stream__DataReply *reply = (const void *)result->reply;
	struct stream_message *m = owner;
	struct stream_end *e = m->from;

	m->call = NULL;
	e->n_messages--;
	/* Late because nobody reads there: the same bytes once more. */
	if (result->status == RPC_TIMEOUT) {
		stream_end_cancel(e);
		return stream_end_pump(e);
	}
	if (result->status != RPC_OK)
		return absent(e, result->status, result->text);
	stream_end_present(e);
	/* By another link, behind the answer to a later one. */
	if (reply->position < e->hand.first && m->behind < e->hand.first)
		return stream_end_pump(e);
	if (!acknowledge(e, reply->position))
		return stream_end_mismatch(e);
	if (reply->ended && stream_end_is(e, STREAM_ENDED) && !e->hand.level)
		return stream_end_close(e);
	if (reply->position < m->behind || (m->end && !reply->ended))
		stream_end_cancel(e);
	e->limit = reply->position + reply->room;
	stream_end_pump(e);
}

/* How many bytes the next message has; < 0: it waits. */
static ssize_t next_length(const struct stream_end *e)
{
	uint64_t unsent = stream_hand_behind(&e->hand) - e->sent;
	uint64_t room = e->limit > e->sent ? e->limit - e->sent : 0;
	bool ended = stream_end_is(e, STREAM_ENDED);

	if (!e->joined || e->call || e->n_messages == STREAM_MESSAGES_MAX)
		return -1;
	if (unsent > STREAM_PIECE_MAX)
		unsent = STREAM_PIECE_MAX;
	/* One may always be on its way: its answer says when there is room. */
	if (!e->n_messages)
		return unsent || ended ? (ssize_t)unsent : -1;
	return unsent <= room && (unsent == STREAM_PIECE_MAX || (unsent && ended))
		       ? (ssize_t)unsent
		       : -1;
}

/* False: not now, and the end may be closed. */
static bool send_data(struct stream_end *e, size_t len)
{
	Ssi__Stream__DataRequest q = SSI__STREAM__DATA_REQUEST__INIT;
	struct stream_message *m = e->messages;
	struct iovec bytes;
	int r = stream_hand_peek(&e->hand, e->sent - e->hand.first, len, &bytes);

	if (r == STREAM_PIPE_E_UNREADABLE) {
		stream_end_break(e);
		return false;
	}
	if (r == 0 && len && !bytes.iov_len && e->n_messages)
		return false; /* when something is acknowledged */
	while (m->call)
		m++;
	q.id = e->id;
	q.position = e->sent;
	m->from = e;
	m->behind = e->sent + bytes.iov_len;
	m->end = stream_end_is(e, STREAM_ENDED) &&
		 m->behind == stream_hand_behind(&e->hand);
	q.end = m->end;
	if (r != 0 || rpc_call(e->room->rpc, e->mark.peer, STREAM_DATA, &q.base, bytes,
			       CALL_TIMEOUT, on_data_done, m, &m->call) != 0) {
		absent(e, RPC_FAILED, "out of memory");
		return false;
	}
	e->sent = m->behind;
	e->n_messages++;
	return true;
}

static void watch(struct stream_end *e, unsigned events)
{
	if (!events)
		env_unwatch(e->room->env, &e->watch);
	else if (env_watch(e->room->env, &e->watch, events) < 0)
		retry(e, 0);
}

void stream_end_stop_reading(struct stream_end *e)
{
	stream_end_set_flag(e, STREAM_ENDED);
	env_unwatch(e->room->env, &e->watch);
	stream_hand_release(&e->hand);
	stream_end_hang_up(e);
}

/* At a terminal that nobody can write to any more. */
static void take_last(struct stream_end *e)
{
	ssize_t n;

	do
		n = stream_hand_take(&e->hand);
	while (n > 0);
	if (!stream_hand_is_full(&e->hand))
		stream_end_stop_reading(e);
}

static void pump_reader(struct stream_end *e)
{
	ssize_t n;

	if (stream_end_is(e, STREAM_HELD))
		return;
	if (e->mark.peer == NODE_NONE) {
		if (stream_hand_discard(&e->hand, e->hand.level) < 0 ||
		    stream_end_is(e, STREAM_ENDED))
			return stream_end_close(e);
	}
	if (stream_end_is(e, STREAM_LAST) && !stream_end_is(e, STREAM_ENDED))
		take_last(e);
	watch(e, stream_end_is(e, STREAM_ENDED) || stream_hand_is_full(&e->hand) ? 0 : ENV_READ);
	while ((n = next_length(e)) >= 0 && send_data(e, (size_t)n))
		;
}

/* Nobody has the terminal open now; there is no event of its opening. */
static void wait_for_opening(struct stream_end *e)
{
	env_unwatch(e->room->env, &e->watch);
	(void)env_arm(e->room->env, &e->again, OPENING_PAUSE);
}

/* The writer's side. */

static void pump_writer(struct stream_end *e)
{
	ssize_t n = 0;

	while (e->hand.level && (n = stream_hand_give(&e->hand)) > 0)
		;
	if (n < 0 && n != -EAGAIN)
		return stream_end_break(e);
	if (e->hand.level <= e->hand.size / 2 || stream_end_is(e, STREAM_ENDED))
		stream_end_answer(e);
	/* A terminal is hung up at once, whatever was typed. */
	if (stream_end_is(e, STREAM_ENDED) &&
	    (!e->hand.level || stream_end_is(e, STREAM_TERMINAL)))
		return stream_end_close(e);
	if (e->hand.level && stream_end_is(e, STREAM_TERMINAL) &&
	    stream_end_is_deserted(e))
		return wait_for_opening(e);
	watch(e, e->hand.level ? ENV_WRITE : 0);
}

/* Both. */

void stream_end_pump(struct stream_end *e)
{
	if (stream_end_is(e, STREAM_BREAKS))
		tell_broken(e);
	else if (stream_end_is_reader(e))
		pump_reader(e);
	else
		pump_writer(e);
}

static void on_pipe(struct env_fd *watched, unsigned events)
{
	struct stream_end *e = container_of(watched, struct stream_end, watch);

	if (stream_end_is_reader(e)) {
		ssize_t n = stream_hand_take(&e->hand);

		if (n == -EIO && stream_end_may_be_opened(e))
			return wait_for_opening(e);
		if (n == 0 || n == -EIO)
			stream_end_stop_reading(e);
		else if (n < 0 && n != -EAGAIN)
			return stream_end_break(e);
	}
	stream_end_pump(e);
}

bool stream_end_is_deserted(const struct stream_end *e)
{
	struct pollfd p = { e->hand.pipe, 0, 0 };

	return e->hand.pipe < 0 || (poll(&p, 1, 0) == 1 && p.revents & (POLLHUP | POLLERR));
}

static void on_again(struct env_timer *timer)
{
	struct stream_end *e = container_of(timer, struct stream_end, again);

	if (stream_end_is(e, STREAM_CUT)) {
		if (!e->doubtful)
			return;
		if (!stream_end_is_deserted(e))
			log_warning("stream %" PRIx64 ": nobody says whether its program "
				    "moved: closed", e->id);
		stream_end_close(e);
	} else if (e->joined || stream_end_is(e, STREAM_BREAKS)) {
		stream_end_pump(e);
	} else {
		stream_end_announce(e);
	}
}

/* Announcing. */

bool stream_end_meet(struct stream_end *e, uint64_t position)
{
	if (stream_end_is_reader(e))
		return acknowledge(e, position);
	return position <= stream_hand_behind(&e->hand);
}

uint64_t stream_end_position(const struct stream_end *e)
{
	return stream_end_is_reader(e) ? e->hand.first : stream_hand_behind(&e->hand);
}

static void on_announced(void *owner, const struct rpc_result *result)
{
	const Ssi__Stream__OpenReply *reply = (const void *)result->reply;
	struct stream_end *e = owner;

	e->call = NULL;
	if (result->status != RPC_OK)
		return absent(e, result->status, result->text);
	stream_end_present(e);
	e->joined = true;
	if (!stream_end_meet(e, reply->position))
		return stream_end_mismatch(e);
	stream_end_pump(e);
}

void stream_end_announce(struct stream_end *e)
{
	Ssi__Stream__OpenRequest q = SSI__STREAM__OPEN_REQUEST__INIT;

	if (e->mark.peer == NODE_NONE || stream_end_is(e, STREAM_BREAKS | STREAM_HELD))
		return stream_end_pump(e);
	/* Meanwhile the pipe and the hand may move what they can. */
	if (!e->call) {
		q.id = e->id;
		q.role = wire_role(e);
		q.position = stream_end_position(e);
		if (rpc_call(e->room->rpc, e->mark.peer, STREAM_OPEN, &q.base, RPC_NO_BULK,
			     CALL_TIMEOUT, on_announced, e, &e->call) != 0)
			return absent(e, RPC_FAILED, "out of memory");
	}
	stream_end_pump(e);
}

/* Life. */

int stream_end_new(struct stream_room *s, stream_id id, const struct stream_mark *mark,
		   const struct stream_hand *hand, ino_t inode, struct stream_end **ret)
{
	struct stream_end *e = calloc(1, sizeof(*e));
	int r;

	if (!e)
		return err_origin(-ENOMEM);
	*e = (struct stream_end){.room = s,
				 .id = id,
				 .mark = *mark,
				 .inode = inode,
				 .hand = *hand,
				 .sent = hand->first,
				 .limit = hand->first};
	e->watch = (struct env_fd){ .cb = on_pipe, .fd = hand->pipe };
	e->again.cb = on_again;
	/* Only the first arming of a timer can fail; this one matters to a doubtful end. */
	r = env_arm(s->env, &e->again, CUT_MAX);
	if (r < 0) {
		free(e);
		return r;
	}
	LIST_INSERT_HEAD(&s->ends, e, entry);
	*ret = e;
	return 0;
}
