/*
 * Happy path: a turn of the loop reads up to WIRE_MAX from the socket, TLS takes it
 * record by record, frames are told of.  What is sent is encrypted record by record
 * into a buffer of about WIRE_MAX, which goes to the socket in one piece.  So there
 * is one system call where a record of 16 KiB would take one to three.
 *
 * Replies made while a turn is read are sent at its end, together.
 *
 * Failure modes: the socket is full -> what waits is sent when it drains; it fails,
 * ends, or speaks no TLS -> the link is doomed.
 *
 * The buffers for reading are the transport's, shared by all links: TLS takes every
 * byte of a turn, so that nothing is left in them for the next link's.
 */
#include "transport_link_internal.h"

#include "cleanup.h"
#include "err.h"

#include <openssl/err.h>
#include <string.h>
#include <sys/socket.h>

enum { TURN_MAX = 1 << 20 }; /* bytes of one link before others have theirs */
/* A key of AES-GCM is good for 2^24 full records (RFC 8446, 5.5): a new one well
 * before. */
static const uint64_t KEY_MAX = (uint64_t)1 << 36;

static struct buf take(struct buf *b)
{
	struct buf taken = *b;

	*b = (struct buf){0};
	return taken;
}

/* OpenSSL's end of the buffers. */

static int on_bio_write(BIO *bio, const char *data, size_t n, size_t *ret)
{
	struct transport_link *l = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	if (!l->wire.data)
		l->wire = take(&l->tcp->spare);
	if (buf_append(&l->wire, data, n) < 0)
		return 0;
	*ret = n;
	return 1;
}

static int on_bio_read(BIO *bio, char *data, size_t n, size_t *ret)
{
	struct transport_link *l = BIO_get_data(bio);
	struct transport_tcp *t = l->tcp;
	size_t here = t->wire_link == l ? t->wire_end - t->wire_start : 0;

	BIO_clear_retry_flags(bio);
	if (!here) {
		BIO_set_retry_read(bio);
		return 0;
	}
	*ret = n < here ? n : here;
	memcpy(data, t->wire + t->wire_start, *ret);
	t->wire_start += *ret;
	return 1;
}

static long on_bio_ctrl(BIO *bio, int command, long n, void *p)
{
	return command == BIO_CTRL_FLUSH;
}

BIO_METHOD *flow_bio_method(void)
{
	BIO_METHOD *m = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "link");

	if (m && BIO_meth_set_write_ex(m, on_bio_write) &&
	    BIO_meth_set_read_ex(m, on_bio_read) && BIO_meth_set_ctrl(m, on_bio_ctrl))
		return m;
	BIO_meth_free(m);
	return NULL;
}

int flow_init(struct transport_link *l)
{
	BIO *bio = BIO_new(l->tcp->bio);

	if (!bio)
		return err_origin(-ENOMEM);
	BIO_set_data(bio, l);
	BIO_set_init(bio, 1);
	SSL_set_bio(l->ssl, bio, bio); /* takes it */
	return 0;
}

/* After an operation of TLS that did not work.  True: it only waits for bytes. */
static bool is_waiting(struct transport_link *l, int r)
{
	switch (SSL_get_error(l->ssl, r)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		return true;
	case SSL_ERROR_ZERO_RETURN:
		link_doom(l, "the other side closed it");
		break;
	default:
		link_doom(l, "%s", tls_error(l->ssl));
	}
	return false;
}

/* Out. */

size_t flow_queued(const struct transport_link *l)
{
	return l->queue.bytes + l->wire.len - l->wire_sent;
}

/* False: the link is doomed. */
static bool encrypt_some(struct transport_link *l)
{
	const uint8_t *data;
	size_t n, done;

	while (l->wire.len < WIRE_MAX && (n = out_queue_peek(&l->queue, &data))) {
		int r = SSL_write_ex(l->ssl, data, n < RECORD_MAX ? n : RECORD_MAX,
				     &done);

		if (r <= 0)
			return is_waiting(l, r);
		out_queue_drop(&l->queue, done);
		l->n_sealed += done;
		if (l->n_sealed >= KEY_MAX &&
		    SSL_key_update(l->ssl, SSL_KEY_UPDATE_NOT_REQUESTED))
			l->n_sealed = 0;
	}
	return true;
}

/* Everything is gone: the buffer serves the next link. */
static void give_back(struct transport_link *l)
{
	l->wire.len = l->wire_sent = 0;
	if (l->tcp->spare.data)
		buf_fini(&l->wire);
	else
		l->tcp->spare = take(&l->wire);
}

/* > 0: bytes that the socket took; 0: it is full; < 0: the link is doomed. */
static ssize_t send_some(struct transport_link *l)
{
	ssize_t n = send(l->watch.fd, l->wire.data + l->wire_sent,
			 l->wire.len - l->wire_sent, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n < 0) {
		link_doom(l, "%s", strerror(errno));
		return -1;
	}
	l->wire_sent += (size_t)n;
	return n;
}

static void watch(struct transport_link *l, unsigned events)
{
	if (env_watch(l->tcp->env, &l->watch, events) < 0)
		link_doom(l, "out of memory");
}

void flow_flush(struct transport_link *l)
{
	bool shaken = l->state == LINK_UP || l->state == LINK_JOIN;
	size_t left = TURN_MAX;

	if (l->state == LINK_CONNECTING || l->corked)
		return;
	ERR_clear_error();
	for (;;) {
		ssize_t n;

		if (l->wire_sent == l->wire.len) {
			if (l->wire.data)
				give_back(l);
			if (shaken && !encrypt_some(l))
				return;
		}
		if (!l->wire.len || !left)
			break;
		n = send_some(l);
		if (n < 0)
			return;
		if (n == 0)
			break;
		left -= (size_t)n < left ? (size_t)n : left;
	}
	if (l->answered && !flow_queued(l))
		link_doom(l, "it was answered");
	if (l->state != LINK_CLOSING)
		watch(l, ENV_READ | (l->wire.len ? ENV_WRITE : 0u));
}

/* In. */

static int on_frame(void *owner, const struct transport_frame *frame)
{
	struct transport_link *l = owner;
	struct transport_tcp *t = l->tcp;

	if (t->events.on_frame(t->owner, l, frame) != 0)
		link_doom(l, "it broke the protocol");
	return l->state != LINK_UP;
}

static void got_plain(struct transport_link *l, const uint8_t *data, size_t n)
{
	int r;

	if (l->state == LINK_JOIN)
		return join_on_data(l, data, n);
	r = frame_reader_got(&l->reader, data, n, on_frame, l);
	if (r < 0)
		link_doom(l, "%s",
			  r == -EBADMSG ? "it sent what is no frame" : "no memory for a frame of it");
}

/* TLS takes what was read. */
static void decrypt(struct transport_link *l)
{
	struct transport_tcp *t = l->tcp;

	if (l->state == LINK_HANDSHAKE) {
		int r = SSL_do_handshake(l->ssl);

		if (r != 1) {
			(void)is_waiting(l, r);
			return;
		}
		link_shaken(l);
	}
	while (l->state == LINK_UP || l->state == LINK_JOIN) {
		size_t room, n;
		uint8_t *p = frame_reader_room(&l->reader, t->plain, sizeof(t->plain),
					       &room);
		int r = SSL_read_ex(l->ssl, p, room, &n);

		if (r <= 0) {
			(void)is_waiting(l, r);
			return;
		}
		got_plain(l, p, n);
	}
}

static void set_wire(struct transport_link *l, size_t n)
{
	l->tcp->wire_link = l;
	l->tcp->wire_start = 0;
	l->tcp->wire_end = n;
}

static void read_turn(struct transport_link *l)
{
	struct transport_tcp *t = l->tcp;

	for (size_t got = 0; got < TURN_MAX && l->state != LINK_CLOSING;) {
		ssize_t n = recv(l->watch.fd, t->wire, sizeof(t->wire), MSG_DONTWAIT);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n < 0)
			return link_doom(l, "%s", strerror(errno));
		if (n == 0)
			return link_doom(l, "the other side closed it");
		set_wire(l, (size_t)n);
		got += (size_t)n;
		decrypt(l);
		if ((size_t)n < sizeof(t->wire))
			return;
	}
}

/* Connected, or not: the handshake begins, and a client speaks first. */
static void on_connected(struct transport_link *l)
{
	socklen_t len = sizeof(int);
	int error = 0;

	if (getsockopt(l->watch.fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || error)
		return link_doom(l, "%s", strerror(error ? error : errno));
	l->state = LINK_HANDSHAKE;
	set_wire(l, 0);
	decrypt(l);
}

void flow_on_events(struct env_fd *w, unsigned events)
{
	struct transport_link *l = container_of(w, struct transport_link, watch);
	struct transport_tcp *t = l->tcp;

	ERR_clear_error();
	l->corked = true;
	if (l->state == LINK_CONNECTING)
		on_connected(l);
	else if (events & ENV_READ)
		read_turn(l);
	l->corked = false;
	flow_flush(l);
	if (l->state != LINK_UP || !l->refused_some ||
	    flow_queued(l) > TRANSPORT_QUEUE_MAX / 2)
		return;
	l->refused_some = false;
	t->events.on_writable(t->owner, l);
}
