/*
 * Happy path: bytes come in whatever pieces; a frame that lies whole in one piece
 * is told in place, another is collected in a buffer of its own size.
 *
 * Failure modes: a header that is none, or too long -> -EBADMSG for good: the
 * stream has no other place to start from.
 */
#include "transport_frame.h"

#include "cleanup.h"
#include "err.h"

#include <string.h>

static size_t min(size_t a, size_t b)
{
	return a < b ? a : b;
}

static size_t body_len(const struct transport_frame *f)
{
	return f->message.iov_len + f->bulk.iov_len;
}

static int tell(struct transport_frame *f, const uint8_t *body, frame_cb cb,
		void *owner)
{
	f->message.iov_base = (void *)body;
	f->bulk.iov_base = (void *)(body + f->message.iov_len);
	return cb(owner, f);
}

uint8_t *frame_reader_room(struct frame_reader *r, uint8_t *scratch, size_t scratch_len,
			   size_t *ret_len)
{
	*ret_len = r->body ? body_len(&r->frame) - r->n_body : scratch_len;
	return r->body ? r->body + r->n_body : scratch;
}

static bool new_body(struct frame_reader *r, size_t len)
{
	struct frame_spare *s = r->spare;

	r->n_body = 0;
	if (s->body_room >= len) {
		r->body_room = s->body_room;
		r->body = TAKE(s->body);
		s->body_room = 0;
	} else {
		r->body_room = len;
		r->body = malloc(len);
	}
	return r->body;
}

static void drop_body(struct frame_reader *r)
{
	struct frame_spare *s = r->spare;

	if (r->body && r->body_room > s->body_room) {
		free(s->body);
		s->body = TAKE(r->body);
		s->body_room = r->body_room;
	}
	free(TAKE(r->body));
}

/* The body is whole: tell, and be between frames again. */
static int end_body(struct frame_reader *r, frame_cb cb, void *owner)
{
	int result = tell(&r->frame, r->body, cb, owner);

	drop_body(r);
	return result;
}

/* Bytes of a header, and the frame with it when all of it is there.  Returns what was
 * eaten, or < 0; *ret: what @cb said. */
static ssize_t eat_header(struct frame_reader *r, const uint8_t *data, size_t n,
			  frame_cb cb, void *owner, int *ret)
{
	size_t eaten = min(n, sizeof(r->header) - r->n_header), body;

	memcpy(r->header + r->n_header, data, eaten);
	r->n_header += eaten;
	if (r->n_header < sizeof(r->header))
		return (ssize_t)eaten;
	r->n_header = 0;
	if (!transport_header_decode(r->header, &r->frame))
		return err_origin(-EBADMSG);
	body = body_len(&r->frame);
	if (n - eaten >= body) {
		*ret = tell(&r->frame, data + eaten, cb, owner);
		return (ssize_t)(eaten + body);
	}
	return new_body(r, body) ? (ssize_t)eaten : err_origin(-ENOMEM);
}

int frame_reader_got(struct frame_reader *r, const uint8_t *data, size_t n, frame_cb cb,
		     void *owner)
{
	int result = 0;

	while (n && result == 0) {
		ssize_t eaten;

		if (r->body) {
			eaten = (ssize_t)min(n, body_len(&r->frame) - r->n_body);
			if (data != r->body + r->n_body)
				memcpy(r->body + r->n_body, data, (size_t)eaten);
			r->n_body += (size_t)eaten;
			if (r->n_body == body_len(&r->frame))
				result = end_body(r, cb, owner);
		} else {
			eaten = eat_header(r, data, n, cb, owner, &result);
			if (eaten < 0)
				return (int)eaten;
		}
		data += eaten;
		n -= (size_t)eaten;
	}
	return result;
}

void frame_reader_fini(struct frame_reader *r)
{
	drop_body(r);
	*r = (struct frame_reader){.spare = r->spare};
}

/* What is to leave. */

enum {
	CHUNK_ROOM = 64 << 10,
	SPARE_CHUNKS_MAX = TRANSPORT_QUEUE_MAX / CHUNK_ROOM, /* one link's full queue */
};

struct out_chunk {
	TAILQ_ENTRY(out_chunk) in;
	SLIST_ENTRY(out_chunk) spare;
	size_t len, sent;
	uint8_t data[CHUNK_ROOM];
};

static struct out_chunk *chunk_new(struct frame_spare *s)
{
	struct out_chunk *c = SLIST_FIRST(&s->chunks);

	if (c) {
		SLIST_REMOVE_HEAD(&s->chunks, spare);
		s->n_chunks--;
	} else {
		c = malloc(sizeof(*c));
	}
	if (c)
		c->len = c->sent = 0;
	return c;
}

static void chunk_drop(struct frame_spare *s, struct out_chunk *c)
{
	if (s->n_chunks == SPARE_CHUNKS_MAX) {
		free(c);
		return;
	}
	SLIST_INSERT_HEAD(&s->chunks, c, spare);
	s->n_chunks++;
}

void frame_spare_fini(struct frame_spare *s)
{
	struct out_chunk *c;

	while ((c = SLIST_FIRST(&s->chunks))) {
		SLIST_REMOVE_HEAD(&s->chunks, spare);
		free(c);
	}
	free(s->body);
	*s = (struct frame_spare){0};
}

void out_queue_init(struct out_queue *q, struct frame_spare *spare)
{
	TAILQ_INIT(&q->chunks);
	q->spare = spare;
	q->bytes = 0;
}

static void drop_first(struct out_queue *q)
{
	struct out_chunk *c = TAILQ_FIRST(&q->chunks);

	TAILQ_REMOVE(&q->chunks, c, in);
	chunk_drop(q->spare, c);
}

void out_queue_fini(struct out_queue *q)
{
	while (!TAILQ_EMPTY(&q->chunks))
		drop_first(q);
	q->bytes = 0;
}

/* Empty chunks behind @last, so that @len more bytes have a place. */
static bool make_room(struct out_queue *q, const struct out_chunk *last, size_t len)
{
	size_t room = last ? CHUNK_ROOM - last->len : 0;

	while (room < len) {
		struct out_chunk *c = chunk_new(q->spare);

		if (!c)
			return false;
		TAILQ_INSERT_TAIL(&q->chunks, c, in);
		room += CHUNK_ROOM;
	}
	return true;
}

static void drop_empty(struct out_queue *q)
{
	struct out_chunk *c;

	while ((c = TAILQ_LAST(&q->chunks, out_chunks)) && !c->len) {
		TAILQ_REMOVE(&q->chunks, c, in);
		chunk_drop(q->spare, c);
	}
}

/* Into @c and those behind it; returns the one that the next bytes go to. */
static struct out_chunk *fill(struct out_chunk *c, const struct iovec *part)
{
	const uint8_t *p = part->iov_base;
	size_t left = part->iov_len;

	while (left) {
		size_t n = min(left, CHUNK_ROOM - c->len);

		memcpy(c->data + c->len, p, n);
		c->len += n;
		p += n;
		left -= n;
		if (left)
			c = TAILQ_NEXT(c, in);
	}
	return c;
}

int out_queue_append(struct out_queue *q, const struct iovec *parts, size_t n_parts)
{
	struct out_chunk *c = TAILQ_LAST(&q->chunks, out_chunks);
	size_t len = 0;

	for (size_t i = 0; i < n_parts; i++)
		len += parts[i].iov_len;
	if (!make_room(q, c, len)) {
		drop_empty(q);
		return err_origin(-ENOMEM);
	}
	if (!c)
		c = TAILQ_FIRST(&q->chunks);
	for (size_t i = 0; i < n_parts; i++)
		c = fill(c, &parts[i]);
	q->bytes += len;
	return 0;
}

size_t out_queue_peek(const struct out_queue *q, const uint8_t **ret)
{
	const struct out_chunk *c = TAILQ_FIRST(&q->chunks);

	if (!c)
		return 0;
	*ret = c->data + c->sent;
	return c->len - c->sent;
}

void out_queue_drop(struct out_queue *q, size_t n)
{
	q->bytes -= n;
	while (n) {
		struct out_chunk *c = TAILQ_FIRST(&q->chunks);
		size_t here = min(n, c->len - c->sent);

		c->sent += here;
		n -= here;
		if (c->sent == c->len)
			drop_first(q);
	}
}
