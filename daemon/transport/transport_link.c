/*
 * Happy path: connected or accepted, handshake, the certificate says who it is,
 * on_up; somebody closes, on_down.
 *
 * Failure modes: a handshake that fails or takes more than HANDSHAKE_MAX, a
 * certificate of nobody's -> the link ends.  Links always end from their own timer,
 * never inside a call of their owner's.
 */
#include "transport_link_internal.h"

#include "cleanup.h"
#include "err.h"
#include "log.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static const nsec_t HANDSHAKE_MAX = 5 * NSEC_PER_SEC;
static const nsec_t JOIN_MAX = 5 * NSEC_PER_SEC;
enum { USER_TIMEOUT_MS = 10000 };

static void prove(struct transport_link *l)
{
	if (l->unproven)
		l->tcp->n_unproven--;
	l->unproven = false;
}

void link_doom(struct transport_link *l, const char *format, ...)
{
	va_list ap;

	if (l->state == LINK_CLOSING)
		return;
	va_start(ap, format);
	(void)vsnprintf(l->reason, sizeof(l->reason), format, ap);
	va_end(ap);
	l->state = LINK_CLOSING;
	env_unwatch(l->tcp->env, &l->watch);
	/* Armed before, so it cannot fail. */
	(void)env_arm(l->tcp->env, &l->timer, 0);
}

void link_free(struct transport_link *l)
{
	struct transport_tcp *t = l->tcp;

	prove(l);
	env_disarm(t->env, &l->timer);
	env_unwatch(t->env, &l->watch);
	join_on_gone(l);
	LIST_REMOVE(l, in);
	SSL_free(l->ssl);
	close_fd(l->watch.fd);
	frame_reader_fini(&l->reader);
	out_queue_fini(&l->queue);
	buf_fini(&l->wire);
	free(l);
}

static void link_end(struct transport_link *l)
{
	struct transport_tcp *t = l->tcp;

	if (!l->was_up && !l->ours && !l->answered &&
	    stranger_may_be_logged(t, l->address))
		log_warning("transport: %s was refused: %s", l->address, l->reason);
	/* Its owner knows a link that it opened, or that came up. */
	if (l->was_up || l->ours)
		t->events.on_down(t->owner, l, l->was_up ? l->peer : NODE_NONE,
				  l->reason);
	link_free(l);
}

static void on_timer(struct env_timer *timer)
{
	struct transport_link *l = container_of(timer, struct transport_link, timer);

	if (l->state == LINK_CLOSING)
		return link_end(l);
	link_doom(l, "%s",
		  l->state == LINK_JOIN		? "it took too long to join"
		  : l->state == LINK_CONNECTING ? "it does not answer"
						: "it did not shake hands in time");
}

void link_shaken(struct transport_link *l)
{
	struct transport_tcp *t = l->tcp;
	enum tls_protocol protocol = tls_protocol(l->ssl);
	node_id peer;

	if (protocol == TLS_JOIN && !l->ours) {
		l->state = LINK_JOIN;
		(void)env_arm(t->env, &l->timer, JOIN_MAX);
		return join_begin(l);
	}
	peer = tls_peer(l->ssl, t->cluster);
	if (protocol != TLS_NODE || peer == NODE_NONE)
		return link_doom(l, "it has no certificate of this cluster");
	if (l->ours && peer != l->peer)
		return link_doom(l, "another node answers there, number %u", peer);
	if (peer == t->self)
		return link_doom(l, "it says that it is this node");
	l->peer = peer;
	l->state = LINK_UP;
	l->was_up = true;
	prove(l);
	env_disarm(t->env, &l->timer);
	t->events.on_up(t->owner, l, peer);
}

/* A dead peer is noticed in about 10 s, whether there is something to send or not. */
static void set_socket_options(int fd)
{
	int one = 1, ms = USER_TIMEOUT_MS, idle = 4, between = 2, count = 3;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &between, sizeof(between));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

int link_new(struct transport_link **ret, struct transport_tcp *t, int fd, bool ours,
	     const char *address)
{
	struct transport_link *l = calloc(1, sizeof(*l));
	int r = -ENOMEM;

	if (!l) {
		close_fd(fd);
		return err_origin(-ENOMEM);
	}
	l->tcp = t;
	l->ours = ours;
	l->state = ours ? LINK_CONNECTING : LINK_HANDSHAKE;
	l->unproven = !ours;
	t->n_unproven += l->unproven;
	l->timer.cb = on_timer;
	l->watch = (struct env_fd){.cb = flow_on_events, .fd = fd};
	(void)snprintf(l->address, sizeof(l->address), "%s", address);
	l->reader.spare = &t->frames;
	out_queue_init(&l->queue, &t->frames);
	LIST_INSERT_HEAD(&t->links, l, in);
	set_socket_options(fd);
	l->ssl = ours ? tls_client_new(t->tls, TLS_NODE) : tls_server_new(t->tls);
	if (l->ssl)
		r = flow_init(l);
	if (r == 0)
		r = env_arm(t->env, &l->timer, HANDSHAKE_MAX);
	if (r == 0)
		r = env_watch(t->env, &l->watch, ours ? ENV_WRITE : ENV_READ);
	if (r < 0) {
		link_free(l);
		return err_origin(r);
	}
	*ret = l;
	return 0;
}
