/*
 * The joiner's side: it has no loop and no rooms yet, so it blocks, with one deadline
 * for all of it.
 *
 * Failure modes: nobody there, another cluster there (found before the request, with
 * its token, is sent), closed or silent -> -errno and a line that says so.
 */
#include "transport_tcp.h"

#include "cleanup.h"
#include "err.h"
#include "transport_address.h"
#include "transport_tls.h"

#include <endian.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/sslerr.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { REQUEST_MAX = 4096, REPLY_MAX = 65536 };

struct joiner {
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

static int wait_for(const struct joiner *j, short events)
{
	struct pollfd p = {.fd = j->fd, .events = events};
	nsec_t at;

	while ((at = now()) < j->deadline) {
		nsec_t ms = (j->deadline - at) / NSEC_PER_MSEC + 1;
		int r = poll(&p, 1, ms > INT_MAX ? INT_MAX : (int)ms);

		if (r > 0)
			return 0;
		if (r < 0 && errno != EINTR)
			return err_origin(-errno);
	}
	return err_origin(-ETIMEDOUT);
}

/* After an operation of TLS that returned @r <= 0: wait, or fail. */
static int again(const struct joiner *j, int r)
{
	switch (SSL_get_error(j->ssl, r)) {
	case SSL_ERROR_WANT_READ:
		return wait_for(j, POLLIN);
	case SSL_ERROR_WANT_WRITE:
		return wait_for(j, POLLOUT);
	default:
		r = ERR_GET_REASON(ERR_peek_last_error()) ==
				    SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL
			    ? -EPROTONOSUPPORT
			    : -ECONNRESET;
		ERR_clear_error();
		return err_origin(r);
	}
}

static int connect_to(struct joiner *j, const char *address)
{
	struct sockaddr_storage a;
	socklen_t len, error_len = sizeof(int);
	int error = 0, r;

	r = transport_address_parse(address, false, &a, &len);
	if (r < 0)
		return r;
	j->fd = socket(a.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (j->fd < 0)
		return err_origin(-errno);
	if (connect(j->fd, (struct sockaddr *)&a, len) < 0 && errno != EINPROGRESS)
		return err_origin(-errno);
	r = wait_for(j, POLLOUT);
	if (r < 0)
		return r;
	(void)getsockopt(j->fd, SOL_SOCKET, SO_ERROR, &error, &error_len);
	return error ? err_origin(-error) : 0;
}

static int shake_hands(struct joiner *j, const uint8_t fingerprint[static 32])
{
	int r;

	if (SSL_set_fd(j->ssl, j->fd) != 1)
		return err_origin(-ENOMEM);
	while ((r = SSL_connect(j->ssl)) <= 0) {
		r = again(j, r);
		if (r < 0)
			return r;
	}
	return tls_join_trusted(j->ssl, fingerprint) ? 0 : err_origin(-EKEYREJECTED);
}

static int send_all(struct joiner *j, const void *data, size_t len)
{
	const uint8_t *p = data;
	size_t n;

	while (len) {
		int r = SSL_write_ex(j->ssl, p, len, &n);

		if (r <= 0) {
			r = again(j, r);
			if (r < 0)
				return r;
			continue;
		}
		p += n;
		len -= n;
	}
	return 0;
}

static int receive_all(struct joiner *j, void *data, size_t len)
{
	uint8_t *p = data;
	size_t n;

	while (len) {
		int r = SSL_read_ex(j->ssl, p, len, &n);

		if (r <= 0) {
			r = again(j, r);
			if (r < 0)
				return r;
			continue;
		}
		p += n;
		len -= n;
	}
	return 0;
}

static int exchange(struct joiner *j, const void *request, size_t len, uint8_t **ret,
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
	if (head > REPLY_MAX)
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

/* OpenSSL writes to the socket without MSG_NOSIGNAL, and our caller may be any tool. */
static int without_sigpipe(struct joiner *j, const uint8_t fingerprint[static 32],
			   const void *request, size_t len, uint8_t **ret,
			   size_t *ret_len)
{
	static const struct timespec at_once;
	sigset_t pipe, before, pending;
	bool was_pending;
	int r;

	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	sigpending(&pending);
	was_pending = sigismember(&pending, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &pipe, &before);
	r = shake_hands(j, fingerprint);
	if (r == 0)
		r = exchange(j, request, len, ret, ret_len);
	if (!was_pending)
		(void)sigtimedwait(&pipe, NULL, &at_once);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

static const char *text_of(int r)
{
	const char *text = strerrordesc_np(-r);

	switch (r) {
	case -EKEYREJECTED:
		return "what answers there is not of the cluster that the token names";
	case -EPROTONOSUPPORT:
		return "the other side speaks another version of the protocol";
	case -ECONNRESET:
		return "the other side closed the connection";
	case -EINVAL:
		return "the address is not host:port, in numbers";
	case -EMSGSIZE:
		return "the request is too long";
	default:
		return text ? text : "unknown error";
	}
}

int transport_tcp_join(const char *address, const uint8_t ca_fingerprint[static 32],
		       const void *request, size_t len, nsec_t timeout,
		       uint8_t **ret_reply, size_t *ret_len, const char **ret_text)
{
	nsec_t at = now();
	struct joiner j = {.fd = -1};
	SSL_CTX *context = NULL;
	int r;

	j.deadline = timeout > UINT64_MAX - at ? UINT64_MAX : at + timeout;
	r = len > REQUEST_MAX ? err_origin(-EMSGSIZE) : tls_join_context_new(&context);
	if (r == 0) {
		j.ssl = tls_client_new(context, TLS_JOIN);
		r = j.ssl ? connect_to(&j, address) : err_origin(-ENOMEM);
	}
	if (r == 0)
		r = without_sigpipe(&j, ca_fingerprint, request, len, ret_reply,
				    ret_len);
	ERR_clear_error();
	SSL_free(j.ssl);
	SSL_CTX_free(context);
	close_fd(j.fd);
	if (r < 0)
		*ret_text = text_of(r);
	return r;
}
