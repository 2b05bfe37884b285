/*
 * Joining: one request, one reply, each behind 4 bytes of length.  The server's
 * side on the loop; the joiner's, which has no loop yet, blocks with a deadline.
 */
#include "transport_tcp_internal.h"

#include "buf.h"
#include "cleanup.h"
#include "err.h"

#include <endian.h>
#include <event2/buffer.h>
#include <event2/util.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

/* The server's side. */

void join_begin(struct transport_link *l)
{
	if (l->tcp->n_joins >= JOINS_MAX)
		return link_doom(l, "%u others are joining", l->tcp->n_joins);
	l->join = calloc(1, sizeof(*l->join));
	if (!l->join)
		return link_doom(l, "out of memory");
	*l->join = (struct transport_tcp_join){ .link = l, .tcp = l->tcp };
	l->tcp->n_joins++;
	join_on_data(l);
}

void join_on_data(struct transport_link *l)
{
	struct evbuffer *in = bufferevent_get_input(l->bev);
	struct transport_tcp *t = l->tcp;
	uint8_t request[JOIN_REQUEST_MAX];
	uint32_t len;

	if (!l->join || evbuffer_copyout(in, &len, sizeof(len)) < (ssize_t)sizeof(len))
		return;
	len = le32toh(len);
	if (len > sizeof(request))
		return link_doom(l, "its request to join is too large");
	if (evbuffer_get_length(in) < sizeof(len) + len)
		return;
	(void)evbuffer_drain(in, sizeof(len));
	(void)evbuffer_remove(in, request, len);
	(void)bufferevent_disable(l->bev, EV_READ);
	t->on_join(t->join_owner, l->join, l->address, request, len);
}

void transport_tcp_join_reply(struct transport_tcp_join *join, const uint8_t *data, size_t len)
{
	struct transport_link *l = join->link;
	uint32_t head = htole32((uint32_t)len);
	struct evbuffer *out;

	join->replied = true;
	if (!l || len > JOIN_REPLY_MAX) {
		join->tcp->n_joins--;
		if (l)
			l->join = NULL;
		free(join);
		if (l)
			link_doom(l, "no answer to its request to join");
		return;
	}
	out = bufferevent_get_output(l->bev);
	bufferevent_setwatermark(l->bev, EV_WRITE, 0, 0);
	(void)evbuffer_add(out, &head, sizeof(head));
	(void)evbuffer_add(out, data, len);
}

void join_on_sent(struct transport_link *l)
{
	if (l->join && l->join->replied)
		link_doom(l, "it was answered");
}

/* The link ends: a request that was answered goes with it, another waits for its answer. */
void join_on_gone(struct transport_link *l)
{
	if (!l->join)
		return;
	l->join->link = NULL;
	if (l->join->replied) {
		l->tcp->n_joins--;
		free(l->join);
	}
	l->join = NULL;
}

/* The joiner's side. */

struct joining {
	int fd;
	SSL *ssl;
	nsec_t deadline; /* CLOCK_BOOTTIME */
};

static nsec_t now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_BOOTTIME, &t);
	return (nsec_t)t.tv_sec * NSEC_PER_SEC + (nsec_t)t.tv_nsec;
}

static int wait_for(const struct joining *j, short events)
{
	nsec_t at = now();
	struct pollfd p = { .fd = j->fd, .events = events };
	int r;

	if (at >= j->deadline)
		return err_origin(-ETIMEDOUT);
	r = poll(&p, 1, (int)((j->deadline - at) / NSEC_PER_MSEC + 1));
	if (r < 0 && errno != EINTR)
		return err_origin(-errno);
	return 0;
}

/* After an operation on the SSL that returned @r <= 0: wait, or fail. */
static int again(const struct joining *j, int r)
{
	switch (SSL_get_error(j->ssl, r)) {
	case SSL_ERROR_WANT_READ:
		return wait_for(j, POLLIN);
	case SSL_ERROR_WANT_WRITE:
		return wait_for(j, POLLOUT);
	default:
		ERR_clear_error();
		return err_origin(-ECONNRESET);
	}
}

static int connect_to(struct joining *j, const char *address)
{
	struct sockaddr_storage a;
	int len = sizeof(a), error = 0, r;
	socklen_t error_len = sizeof(error);

	if (evutil_parse_sockaddr_port(address, (struct sockaddr *)&a, &len) < 0)
		return err_origin(-EINVAL);
	j->fd = socket(a.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (j->fd < 0)
		return err_origin(-errno);
	if (connect(j->fd, (struct sockaddr *)&a, (socklen_t)len) < 0 && errno != EINPROGRESS)
		return err_origin(-errno);
	r = wait_for(j, POLLOUT);
	if (r < 0)
		return r;
	(void)getsockopt(j->fd, SOL_SOCKET, SO_ERROR, &error, &error_len);
	return error ? err_origin(-error) : 0;
}

/* The chain that the other side shows must end in the authority that the token names, and
 * be signed by it: then it is a node of that cluster, since only nodes have certificates. */
static int check_authority(const struct joining *j, const uint8_t fingerprint[static 32])
{
	STACK_OF(X509) *chain = SSL_get_peer_cert_chain(j->ssl);
	X509 *leaf = SSL_get0_peer_certificate(j->ssl);
	X509 *authority = chain && sk_X509_num(chain) == 2 ? sk_X509_value(chain, 1) : NULL;
	uint8_t digest[32];
	unsigned len = sizeof(digest);

	if (!leaf || !authority || !X509_digest(authority, EVP_sha256(), digest, &len) ||
	    memcmp(digest, fingerprint, sizeof(digest)) != 0 ||
	    X509_verify(leaf, X509_get0_pubkey(authority)) != 1) {
		ERR_clear_error();
		return err_origin(-EKEYREJECTED);
	}
	return 0;
}

static int handshake(struct joining *j, const uint8_t fingerprint[static 32])
{
	int r;

	if (SSL_set_fd(j->ssl, j->fd) != 1)
		return err_origin(-ENOMEM);
	while ((r = SSL_connect(j->ssl)) <= 0) {
		r = again(j, r);
		if (r < 0)
			return r;
	}
	return check_authority(j, fingerprint);
}

static int send_all(struct joining *j, const void *data, size_t len)
{
	const uint8_t *p = data;

	while (len) {
		int n = SSL_write(j->ssl, p, (int)len);

		if (n <= 0) {
			n = again(j, n);
			if (n < 0)
				return n;
			continue;
		}
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

static int receive_all(struct joining *j, void *data, size_t len)
{
	uint8_t *p = data;

	while (len) {
		int n = SSL_read(j->ssl, p, (int)len);

		if (n <= 0) {
			n = again(j, n);
			if (n < 0)
				return n;
			continue;
		}
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

static int exchange(struct joining *j, const void *request, size_t len, uint8_t **ret,
		    size_t *ret_len)
{
	uint32_t head = htole32((uint32_t)len);
	_cleanup_free_ uint8_t *reply = NULL;
	int r;

	r = send_all(j, &head, sizeof(head));
	if (r == 0)
		r = send_all(j, request, len);
	if (r == 0)
		r = receive_all(j, &head, sizeof(head));
	if (r < 0)
		return r;
	head = le32toh(head);
	if (head > JOIN_REPLY_MAX)
		return err_origin(-EBADMSG);
	reply = malloc(head + 1);
	if (!reply)
		return err_origin(-ENOMEM);
	r = receive_all(j, reply, head);
	if (r < 0)
		return r;
	*ret = TAKE(reply);
	*ret_len = head;
	return 0;
}

static const char *text_of(int r)
{
	switch (r) {
	case -EKEYREJECTED:
		return "what answers there is not of the cluster that the token names";
	case -ECONNRESET:
		return "the other side closed the connection";
	case -EINVAL:
		return "the address is not host:port";
	default:
		return strerror(-r);
	}
}

int transport_tcp_join(const char *address, const uint8_t ca_fingerprint[static 32],
		       const void *request, size_t len, nsec_t timeout, uint8_t **ret_reply,
		       size_t *ret_len, const char **ret_text)
{
	struct joining j = { .fd = -1, .deadline = now() + timeout };
	SSL_CTX *context;
	int r;

	r = tls_join_context_new(&context);
	if (r == 0) {
		j.ssl = tls_client_new(context, TLS_JOIN);
		r = j.ssl ? connect_to(&j, address) : err_origin(-ENOMEM);
		if (r == 0)
			r = handshake(&j, ca_fingerprint);
		if (r == 0)
			r = exchange(&j, request, len, ret_reply, ret_len);
		SSL_free(j.ssl);
		SSL_CTX_free(context);
		close_fd(j.fd);
	}
	if (r < 0)
		*ret_text = text_of(r);
	return r;
}
