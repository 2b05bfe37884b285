/*
 * Happy path: connect or accept, handshake, read from the certificate who it is,
 * on_up; frames both ways; somebody closes, on_down.
 *
 * Failure modes: a handshake that fails or takes more than HANDSHAKE_MAX, a
 * certificate of nobody's, a frame that is none, a dead peer (TCP_USER_TIMEOUT) ->
 * the link ends; strangers are logged once a minute and address.  Links always end
 * from their own timer, never inside a call of their owner's.
 */
#include "transport_tcp_internal.h"
#include "transport_wire.h"

#include "authority.h"
#include "cleanup.h"
#include "err.h"
#include "log.h"

#include <event2/buffer.h>
#include <event2/bufferevent_ssl.h>
#include <event2/util.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const nsec_t HANDSHAKE_MAX = 5 * NSEC_PER_SEC;
static const nsec_t QUIET = 60 * NSEC_PER_SEC;
enum { USER_TIMEOUT_MS = 10000, READ_MAX = 4 << 20, SINGLE_MAX = 1 << 20 };

/* Strangers. */

static bool may_log(struct transport_tcp *t, const char *address)
{
	struct noisy *oldest = &t->noisy[0];
	nsec_t now = env_now(t->env);
	size_t host = strcspn(address, "]:");

	for (size_t i = 0; i < NOISY_MAX; i++) {
		struct noisy *n = &t->noisy[i];

		/* By host: every try comes from another port. */
		if (n->logged && strncmp(n->address, address, host) == 0 &&
		    n->address[host] == '\0') {
			if (now - n->logged < QUIET)
				return false;
			oldest = n;
			break;
		}
		if (n->logged < oldest->logged)
			oldest = n;
	}
	snprintf(oldest->address, sizeof(oldest->address), "%.*s", (int)host, address);
	oldest->logged = now;
	return true;
}

/* The end of a link. */

static void prove(struct transport_link *l, enum link_state state)
{
	if (l->state == LINK_HANDSHAKE)
		l->tcp->n_unproven--;
	l->state = state;
}

void link_doom(struct transport_link *l, const char *format, ...)
{
	va_list ap;

	if (l->state == LINK_CLOSING)
		return;
	va_start(ap, format);
	vsnprintf(l->reason, sizeof(l->reason), format, ap);
	va_end(ap);
	prove(l, LINK_CLOSING);
	(void)bufferevent_disable(l->bev, EV_READ | EV_WRITE);
	(void)env_arm(l->tcp->env, &l->timer, 0);
}

static void link_free(struct transport_link *l)
{
	env_disarm(l->tcp->env, &l->timer);
	join_on_gone(l);
	LIST_REMOVE(l, entry);
	bufferevent_free(l->bev);
	free(l);
}

static void link_end(struct transport_link *l)
{
	struct transport_tcp *t = l->tcp;

	if (!l->was_up && !l->ours && !l->join && may_log(t, l->address))
		log_warning("transport: %s was refused: %s", l->address, l->reason);
	/* Its owner knows a link that it opened, or that came up. */
	if (l->was_up || l->ours)
		t->events.on_down(t->owner, l, l->was_up ? l->peer : NODE_NONE, l->reason);
	link_free(l);
}

static void on_link_timer(struct env_timer *timer)
{
	struct transport_link *l = container_of(timer, struct transport_link, timer);

	if (l->state == LINK_CLOSING)
		return link_end(l);
	link_doom(l, l->state == LINK_JOIN ? "it took too long to join"
					   : "it did not shake hands in time");
}

/* Coming up. */

static void come_up(struct transport_link *l)
{
	const SSL *ssl = bufferevent_openssl_get_ssl(l->bev);
	node_id peer = tls_peer(ssl, l->tcp->cluster);

	if (tls_protocol(ssl) == TLS_JOIN && !l->ours) {
		prove(l, LINK_JOIN);
		return join_begin(l);
	}
	if (tls_protocol(ssl) != TLS_NODE || peer == NODE_NONE)
		return link_doom(l, "it has no certificate of this cluster");
	if (l->ours && peer != l->peer)
		return link_doom(l, "node %u answers there, not %u", peer, l->peer);
	l->peer = peer;
	prove(l, LINK_UP);
	l->was_up = true;
	env_disarm(l->tcp->env, &l->timer);
	l->tcp->events.on_up(l->tcp->owner, l, peer);
}

static void doom_by_error(struct transport_link *l, short what)
{
	unsigned long error = bufferevent_get_openssl_error(l->bev);

	if (error)
		return link_doom(l, "TLS: %s", ERR_reason_error_string(error));
	if (what & BEV_EVENT_EOF)
		return link_doom(l, "the other side closed it");
	link_doom(l, "%s", evutil_socket_error_to_string(EVUTIL_SOCKET_ERROR()));
}

static void on_event(struct bufferevent *bev, short what, void *argument)
{
	struct transport_link *l = argument;

	if (l->state == LINK_CLOSING)
		return;
	if (what & BEV_EVENT_CONNECTED)
		come_up(l);
	else
		doom_by_error(l, what);
}

/* Frames. */

/* False: no whole frame is there, or the link is closing. */
static bool take_frame(struct transport_link *l, struct evbuffer *in)
{
	uint8_t header[TRANSPORT_HEADER_SIZE], *p;
	struct transport_frame f;
	size_t total;

	if (evbuffer_copyout(in, header, sizeof(header)) < (ssize_t)sizeof(header))
		return false;
	if (!transport_header_decode(header, &f)) {
		link_doom(l, "node %u sent what is no frame", l->peer);
		return false;
	}
	total = sizeof(header) + f.message.iov_len + f.bulk.iov_len;
	if (evbuffer_get_length(in) < total)
		return false;
	p = evbuffer_pullup(in, (ssize_t)total);
	if (!p) {
		link_doom(l, "out of memory");
		return false;
	}
	f.message.iov_base = p + sizeof(header);
	f.bulk.iov_base = p + sizeof(header) + f.message.iov_len;
	if (l->tcp->events.on_frame(l->tcp->owner, l, &f) != 0)
		link_doom(l, "node %u broke the protocol", l->peer);
	(void)evbuffer_drain(in, total);
	return l->state == LINK_UP;
}

static void on_read(struct bufferevent *bev, void *argument)
{
	struct transport_link *l = argument;

	if (l->state == LINK_JOIN)
		return join_on_data(l);
	while (l->state == LINK_UP && take_frame(l, bufferevent_get_input(bev)))
		;
}

static void on_written(struct bufferevent *bev, void *argument)
{
	struct transport_link *l = argument;

	if (l->state == LINK_JOIN)
		return join_on_sent(l);
	if (l->state != LINK_UP || !l->refused_some)
		return;
	l->refused_some = false;
	l->tcp->events.on_writable(l->tcp->owner, l);
}

/* Making links. */

static void set_socket_options(int fd)
{
	int one = 1, ms = USER_TIMEOUT_MS, idle = 5, between = 2, count = 3;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &between, sizeof(between));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

/* Takes @fd. */
static int link_new(struct transport_link **ret, struct transport_tcp *t, int fd, bool ours,
		    const char *address)
{
	struct transport_link *l = calloc(1, sizeof(*l));
	SSL *ssl = ours ? tls_client_new(t->tls, TLS_NODE) : tls_server_new(t->tls);

	if (l && ssl)
		l->bev = bufferevent_openssl_socket_new(
			t->base, fd, ssl, ours ? BUFFEREVENT_SSL_CONNECTING
					       : BUFFEREVENT_SSL_ACCEPTING,
			BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
	if (!l || !l->bev) {
		if (!l || !ssl || !l->bev)
			SSL_free(ssl);
		free(l);
		close_fd(fd);
		return err_origin(-ENOMEM);
	}
	l->tcp = t;
	l->ours = ours;
	l->timer.cb = on_link_timer;
	snprintf(l->address, sizeof(l->address), "%s", address);
	LIST_INSERT_HEAD(&t->links, l, entry);
	t->n_unproven++;
	bufferevent_openssl_set_allow_dirty_shutdown(l->bev, 1);
	bufferevent_setcb(l->bev, on_read, on_written, on_event, l);
	bufferevent_setwatermark(l->bev, EV_READ, 0, READ_MAX);
	bufferevent_setwatermark(l->bev, EV_WRITE, TRANSPORT_QUEUE_MAX / 2, 0);
	(void)bufferevent_set_max_single_read(l->bev, SINGLE_MAX);
	(void)bufferevent_set_max_single_write(l->bev, SINGLE_MAX);
	(void)bufferevent_enable(l->bev, EV_READ | EV_WRITE);
	(void)env_arm(t->env, &l->timer, HANDSHAKE_MAX);
	*ret = l;
	return 0;
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *a,
		      int len, void *argument)
{
	struct transport_tcp *t = argument;
	char host[46] = "?", address[64];
	struct transport_link *l;

	if (a->sa_family == AF_INET)
		evutil_inet_ntop(AF_INET, &((struct sockaddr_in *)a)->sin_addr, host, sizeof(host));
	if (a->sa_family == AF_INET6)
		evutil_inet_ntop(AF_INET6, &((struct sockaddr_in6 *)a)->sin6_addr, host,
				 sizeof(host));
	snprintf(address, sizeof(address), "%s", host);
	if (t->n_unproven >= UNPROVEN_MAX) {
		close_fd(fd);
		if (may_log(t, address))
			log_warning("transport: %s was refused: %u others have not shown who they "
				    "are",
				    address, t->n_unproven);
		return;
	}
	set_socket_options(fd);
	(void)link_new(&l, t, fd, false, address);
}

static int on_connect(void *impl, node_id peer, const char *address, struct transport_link **ret)
{
	struct transport_tcp *t = impl;
	struct sockaddr_storage a;
	struct transport_link *l;
	int len = sizeof(a), fd, r;

	if (evutil_parse_sockaddr_port(address, (struct sockaddr *)&a, &len) < 0)
		return err_origin(-EINVAL);
	fd = socket(a.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_origin(-errno);
	set_socket_options(fd);
	r = link_new(&l, t, fd, true, address);
	if (r < 0)
		return r;
	l->peer = peer;
	if (bufferevent_socket_connect(l->bev, (struct sockaddr *)&a, len) < 0)
		link_doom(l, "%s", strerror(errno));
	*ret = l;
	return 0;
}

static int on_send(void *impl, struct transport_link *l, const struct transport_frame *f)
{
	struct evbuffer *out = bufferevent_get_output(l->bev);
	uint8_t header[TRANSPORT_HEADER_SIZE];
	size_t total = sizeof(header) + f->message.iov_len + f->bulk.iov_len;

	if (f->message.iov_len > TRANSPORT_MESSAGE_MAX || f->bulk.iov_len > TRANSPORT_BULK_MAX)
		return err_origin(-EMSGSIZE);
	if (l->state != LINK_UP)
		return TRANSPORT_E_DOWN;
	if (evbuffer_get_length(out) + total > TRANSPORT_QUEUE_MAX) {
		l->refused_some = true;
		return TRANSPORT_E_FULL;
	}
	transport_header_encode(f, header);
	if (evbuffer_expand(out, total) < 0)
		return err_origin(-ENOMEM);
	(void)evbuffer_add(out, header, sizeof(header));
	(void)evbuffer_add(out, f->message.iov_base, f->message.iov_len);
	(void)evbuffer_add(out, f->bulk.iov_base, f->bulk.iov_len);
	return 0;
}

static void on_close(void *impl, struct transport_link *l, const char *reason)
{
	link_doom(l, "%s", reason);
}

static const struct transport_ops ops = { on_connect, on_send, on_close };

static int load(struct transport_tcp *t, const struct transport_tcp_config *config)
{
	_cleanup_close_ int fd = open(config->ca_file, O_RDONLY | O_CLOEXEC);
	char pem[16384];
	ssize_t n = fd < 0 ? -1 : read(fd, pem, sizeof(pem) - 1);
	int r;

	if (n < 0)
		return err_origin(-errno);
	pem[n] = '\0';
	r = authority_cluster(pem, &t->cluster);
	if (r < 0)
		return r;
	return tls_context_new(&t->tls, config->ca_file, config->cert_file, config->key_file);
}

static int listen_at(struct transport_tcp *t, const char *address)
{
	struct sockaddr_storage a;
	int len = sizeof(a);

	if (evutil_parse_sockaddr_port(address, (struct sockaddr *)&a, &len) < 0)
		return err_origin(-EINVAL);
	t->listener = evconnlistener_new_bind(t->base, on_accept, t,
					      LEV_OPT_REUSEABLE | LEV_OPT_CLOSE_ON_FREE |
						      LEV_OPT_CLOSE_ON_EXEC,
					      128, (struct sockaddr *)&a, len);
	return t->listener ? 0 : err_origin(-errno);
}

int transport_tcp_new(struct transport_tcp **ret, const struct env *env, struct event_base *base,
		      const struct transport_tcp_config *config,
		      const struct transport_events *events, void *owner,
		      transport_tcp_on_join on_join, void *join_owner)
{
	struct transport_tcp *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return err_origin(-ENOMEM);
	t->transport = (struct transport){ &ops, t };
	t->env = env;
	t->base = base;
	t->self = config->self;
	t->events = *events;
	t->owner = owner;
	t->on_join = on_join;
	t->join_owner = join_owner;
	LIST_INIT(&t->links);
	r = load(t, config);
	if (r == 0)
		r = listen_at(t, config->listen_address);
	if (r < 0) {
		transport_tcp_free(t);
		return r;
	}
	*ret = t;
	return 0;
}

struct transport_tcp *transport_tcp_free(struct transport_tcp *t)
{
	if (!t)
		return NULL;
	while (!LIST_EMPTY(&t->links))
		link_free(LIST_FIRST(&t->links));
	if (t->listener)
		evconnlistener_free(t->listener);
	SSL_CTX_free(t->tls);
	free(t->cluster);
	free(t);
	return NULL;
}

const struct transport *transport_tcp_transport(struct transport_tcp *t)
{
	return &t->transport;
}

uint16_t transport_tcp_port(const struct transport_tcp *t)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);

	if (getsockname(evconnlistener_get_fd(t->listener), (struct sockaddr *)&a, &len) < 0)
		return 0;
	return ntohs(a.ss_family == AF_INET ? ((struct sockaddr_in *)&a)->sin_port
					    : ((struct sockaddr_in6 *)&a)->sin6_port);
}
