/*
 * Happy path: listen, accept, connect; links do the rest.
 *
 * Failure modes: strangers -> at most UNPROVEN_MAX at once and UNPROVEN_HOST_MAX
 * from one address, each logged once a minute; no descriptors left -> listening
 * pauses for a second.
 */
#include "transport_address.h"
#include "transport_link_internal.h"

#include "authority.h"
#include "cleanup.h"
#include "err.h"
#include "log.h"

#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static const nsec_t QUIET = 60 * NSEC_PER_SEC;
static const nsec_t LISTEN_AGAIN = NSEC_PER_SEC;
enum { ACCEPTS_MAX = 64, BACKLOG = 128 };

/* Strangers. */

/* The table is the limit: when it is full of addresses that were logged just now,
 * others are not. */
bool stranger_may_be_logged(struct transport_tcp *t, const char *address)
{
	struct noisy *oldest = &t->noisy[0];
	nsec_t now = env_now(t->env);

	for (size_t i = 0; i < NOISY_MAX; i++) {
		struct noisy *n = &t->noisy[i];

		if (n->logged && strcmp(n->address, address) == 0) {
			oldest = n;
			break;
		}
		if (n->logged < oldest->logged)
			oldest = n;
	}
	if (oldest->logged && now - oldest->logged < QUIET)
		return false;
	(void)snprintf(oldest->address, sizeof(oldest->address), "%s", address);
	oldest->logged = now;
	return true;
}

static bool is_full_of(const struct transport_tcp *t, const char *address)
{
	const struct transport_link *l;
	unsigned n = 0;

	if (t->n_unproven >= UNPROVEN_MAX)
		return true;
	if (t->n_unproven < UNPROVEN_HOST_MAX)
		return false;
	LIST_FOREACH (l, &t->links, in)
		n += l->unproven && strcmp(l->address, address) == 0;
	return n >= UNPROVEN_HOST_MAX;
}

static void on_accepted(struct transport_tcp *t, int owned_fd, const struct sockaddr *a,
			socklen_t len)
{
	struct transport_link *l;
	char address[64];

	if (getnameinfo(a, len, address, sizeof(address), NULL, 0, NI_NUMERICHOST) != 0)
		strcpy(address, "?");
	if (is_full_of(t, address)) {
		close_fd(owned_fd);
		if (stranger_may_be_logged(t, address))
			log_warning("transport: %s was refused: %u others have not "
				    "shown who they "
				    "are",
				    address, t->n_unproven);
		return;
	}
	/* Without memory the stranger goes, and may come again. */
	(void)link_new(&l, t, owned_fd, false, address);
}

static void pause_listening(struct transport_tcp *t, int error)
{
	if (stranger_may_be_logged(t, "(listening)"))
		log_error("transport: cannot accept: %s, trying again every second",
			  strerror(error));
	if (env_arm(t->env, &t->listen_again, LISTEN_AGAIN) == 0)
		env_unwatch(t->env, &t->listener);
}

static void on_listen_again(struct env_timer *timer)
{
	struct transport_tcp *t =
		container_of(timer, struct transport_tcp, listen_again);

	if (env_watch(t->env, &t->listener, ENV_READ) < 0)
		(void)env_arm(t->env, timer, LISTEN_AGAIN);
}

static void on_listener(struct env_fd *w, unsigned events)
{
	struct transport_tcp *t = container_of(w, struct transport_tcp, listener);

	for (unsigned i = 0; i < ACCEPTS_MAX; i++) {
		struct sockaddr_storage a;
		socklen_t len = sizeof(a);
		int fd = accept4(w->fd, (struct sockaddr *)&a, &len,
				 SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			on_accepted(t, fd, (struct sockaddr *)&a, len);
			continue;
		}
		/* Errors of one connection are not ours. */
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
		    errno == ENOMEM)
			pause_listening(t, errno);
		return;
	}
}

/* What the owner calls. */

static int on_connect(void *impl, node_id peer, const char *address,
		      struct transport_link **ret)
{
	struct transport_tcp *t = impl;
	struct sockaddr_storage a;
	struct transport_link *l;
	socklen_t len;
	int fd, r;

	r = transport_address_parse(address, false, &a, &len);
	if (r < 0)
		return r;
	fd = socket(a.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_origin(-errno);
	r = connect(fd, (struct sockaddr *)&a, len) < 0 && errno != EINPROGRESS ? errno
										: 0;
	if (link_new(&l, t, fd, true, address) < 0)
		return err_origin(-ENOMEM);
	l->peer = peer;
	if (r)
		link_doom(l, "%s", strerror(r));
	*ret = l;
	return 0;
}

static int on_send(void *impl, struct transport_link *l,
		   const struct transport_frame *f)
{
	uint8_t header[TRANSPORT_HEADER_SIZE];
	struct iovec parts[] = {{header, sizeof(header)}, f->message, f->bulk};
	size_t total = sizeof(header) + f->message.iov_len + f->bulk.iov_len;
	int r;

	if (f->message.iov_len > TRANSPORT_MESSAGE_MAX ||
	    f->bulk.iov_len > TRANSPORT_BULK_MAX)
		return err_origin(-EMSGSIZE);
	if (l->state != LINK_UP)
		return TRANSPORT_E_DOWN;
	if (flow_queued(l) + total > TRANSPORT_QUEUE_MAX) {
		l->refused_some = true;
		return TRANSPORT_E_FULL;
	}
	transport_header_encode(f, header);
	r = out_queue_append(&l->queue, parts, N_ELEMENTS(parts));
	if (r < 0)
		return r;
	/* The socket was full: the loop goes on when it drains. */
	if (l->wire_sent == l->wire.len)
		flow_flush(l);
	return 0;
}

static void on_close(void *impl, struct transport_link *l, const char *reason)
{
	link_doom(l, "%s", reason);
}

static const struct transport_ops ops = {on_connect, on_send, on_close};

/* Building. */

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
	t->bio = flow_bio_method();
	if (!t->bio)
		return err_origin(-ENOMEM);
	r = tls_context_new(&t->tls, config->ca_file, config->cert_file,
			    config->key_file);
	if (r < 0)
		return r;
	return tls_self(t->tls, t->cluster) == t->self ? 0 : err_origin(-EKEYREJECTED);
}

static int listen_at(struct transport_tcp *t, const char *address)
{
	struct sockaddr_storage a;
	int one = 1, fd, r;
	socklen_t len;

	r = transport_address_parse(address, true, &a, &len);
	if (r < 0)
		return r;
	fd = socket(a.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_origin(-errno);
	t->listener.fd = fd;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
	    bind(fd, (struct sockaddr *)&a, len) < 0 || listen(fd, BACKLOG) < 0)
		return err_origin(-errno);
	return env_watch(t->env, &t->listener, ENV_READ);
}

int transport_tcp_new(struct transport_tcp **ret, const struct env *env,
		      struct event_base *base,
		      const struct transport_tcp_config *config,
		      const struct transport_events *events, void *owner,
		      transport_tcp_on_join on_join, void *join_owner)
{
	struct transport_tcp *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return err_origin(-ENOMEM);
	t->transport = (struct transport){&ops, t};
	t->env = env;
	t->self = config->self;
	t->events = *events;
	t->owner = owner;
	t->on_join = on_join;
	t->join_owner = join_owner;
	t->listener = (struct env_fd){.cb = on_listener, .fd = -1};
	t->listen_again.cb = on_listen_again;
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
	struct transport_tcp_join *j;

	if (!t)
		return NULL;
	while (!LIST_EMPTY(&t->links))
		link_free(LIST_FIRST(&t->links));
	/* Still with their owner, who answers into nothing. */
	while ((j = LIST_FIRST(&t->joins))) {
		LIST_REMOVE(j, in);
		j->tcp = NULL;
	}
	env_disarm(t->env, &t->listen_again);
	env_unwatch(t->env, &t->listener);
	close_fd(t->listener.fd);
	SSL_CTX_free(t->tls);
	BIO_meth_free(t->bio);
	buf_fini(&t->spare);
	frame_spare_fini(&t->frames);
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
	in_port_t port;

	if (getsockname(t->listener.fd, (struct sockaddr *)&a, &len) < 0)
		return 0;
	port = a.ss_family == AF_INET ? ((struct sockaddr_in *)&a)->sin_port
				      : ((struct sockaddr_in6 *)&a)->sin6_port;
	return ntohs(port);
}
