/* A transport of frames over UNIX sockets: node N listens at /mnt/node.N. */
#include "stream_fixture.h"

#include "buf.h"
#include "err.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/un.h>

struct head {
	uint32_t len, message, bulk, kind;
	uint32_t method, node;
	uint64_t id, epoch;
};

struct transport_link {
	LIST_ENTRY(transport_link) in;
	struct link *owner;
	node_id peer;
	struct env_fd watch;
	struct env_timer end;
	struct buf in_bytes, out_bytes;
	bool up, ending;
};

struct link {
	const struct env *env;
	node_id self;
	const struct transport_events *events;
	void *rpc;
	struct transport transport;
	struct env_fd listening;
	LIST_HEAD(, transport_link) links;
};

static void link_end(struct transport_link *k)
{
	if (k->ending)
		return;
	k->ending = true;
	env_unwatch(k->owner->env, &k->watch);
	(void)env_arm(k->owner->env, &k->end, 0);
}

static void forget(struct transport_link *k)
{
	env_unwatch(k->owner->env, &k->watch);
	env_disarm(k->owner->env, &k->end);
	(void)close(k->watch.fd);
	buf_fini(&k->in_bytes);
	buf_fini(&k->out_bytes);
	LIST_REMOVE(k, in);
	free(k);
}

static void on_end(struct env_timer *t)
{
	struct transport_link *k = container_of(t, struct transport_link, end);

	k->owner->events->on_down(k->owner->rpc, k, k->peer, "the socket closed");
	forget(k);
}

static void flush(struct transport_link *k)
{
	while (k->out_bytes.len) {
		ssize_t n = send(k->watch.fd, k->out_bytes.data, k->out_bytes.len,
				 MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0)
			return link_end(k);
		buf_consume(&k->out_bytes, (size_t)n);
	}
	(void)env_watch(k->owner->env, &k->watch,
			ENV_READ | (k->out_bytes.len ? ENV_WRITE : 0u));
}

static void take_frame(struct transport_link *k, const struct head *h, uint8_t *p)
{
	struct transport_frame f = { .kind = (uint8_t)h->kind, .method = (uint16_t)h->method,
				     .id = h->id, .epoch = h->epoch,
				     .message = { p, h->message },
				     .bulk = { p + h->message, h->bulk } };

	if (!k->up) {
		k->up = true;
		k->peer = h->node;
		k->owner->events->on_up(k->owner->rpc, k, k->peer);
	}
	if (h->kind && k->owner->events->on_frame(k->owner->rpc, k, &f) != 0)
		link_end(k);
}

static void on_socket(struct env_fd *w, unsigned events)
{
	struct transport_link *k = container_of(w, struct transport_link, watch);
	uint8_t *to = buf_reserve(&k->in_bytes, 65536);
	struct head h;
	ssize_t n;

	if (events & ENV_WRITE)
		flush(k);
	n = recv(w->fd, to, 65536, MSG_DONTWAIT);
	if (n == 0 || (n < 0 && errno != EAGAIN))
		return link_end(k);
	k->in_bytes.len += n > 0 ? (size_t)n : 0;
	while (!k->ending && k->in_bytes.len >= sizeof(h)) {
		memcpy(&h, k->in_bytes.data, sizeof(h));
		if (k->in_bytes.len < h.len)
			break;
		take_frame(k, &h, k->in_bytes.data + sizeof(h));
		buf_consume(&k->in_bytes, h.len);
	}
}

static int enqueue(struct transport_link *k, const struct transport_frame *f)
{
	struct head h = { .kind = f->kind, .method = f->method, .id = f->id, .epoch = f->epoch,
			  .message = (uint32_t)f->message.iov_len,
			  .bulk = (uint32_t)f->bulk.iov_len, .node = k->owner->self };

	if (k->ending)
		return TRANSPORT_E_DOWN;
	h.len = (uint32_t)sizeof(h) + h.message + h.bulk;
	if (buf_append(&k->out_bytes, &h, sizeof(h)) < 0 ||
	    buf_append(&k->out_bytes, f->message.iov_base, f->message.iov_len) < 0 ||
	    buf_append(&k->out_bytes, f->bulk.iov_base, f->bulk.iov_len) < 0)
		abort();
	flush(k);
	return 0;
}

static struct transport_link *link_add(struct link *l, int fd, node_id peer)
{
	struct transport_link *k = calloc(1, sizeof(*k));
	static const struct transport_frame hello;

	k->owner = l;
	k->peer = peer;
	k->watch = (struct env_fd){ .cb = on_socket, .fd = fd };
	k->end.cb = on_end;
	LIST_INSERT_HEAD(&l->links, k, in);
	(void)enqueue(k, &hello);
	return k;
}

static struct sockaddr_un address_of(node_id node)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	(void)snprintf(a.sun_path, sizeof(a.sun_path), "/mnt/node.%u", node);
	return a;
}

static int on_connect(void *impl, node_id peer, const char *address,
		      struct transport_link **ret)
{
	struct sockaddr_un a = address_of(peer);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		/* Told later, as the contract says: a socket whose other end is closed. */
		int pair[2];

		(void)close(fd);
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
			abort();
		(void)close(pair[1]);
		fd = pair[0];
	}
	*ret = link_add(impl, fd, peer);
	return 0;
}

static int on_send(void *impl, struct transport_link *k, const struct transport_frame *f)
{
	return enqueue(k, f);
}

static void on_close(void *impl, struct transport_link *k, const char *reason)
{
	link_end(k);
}

static void on_accept(struct env_fd *w, unsigned events)
{
	struct link *l = container_of(w, struct link, listening);
	int fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd >= 0)
		(void)link_add(l, fd, NODE_NONE);
}

static const struct transport_ops ops = { on_connect, on_send, on_close };

int link_new(struct link **ret, const struct env *env, node_id self,
	     const struct transport_events *events, void *owner)
{
	struct sockaddr_un a = address_of(self);
	struct link *l = calloc(1, sizeof(*l));
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*l = (struct link){ .env = env, .self = self, .events = events, .rpc = owner };
	l->transport = (struct transport){ &ops, l };
	l->listening = (struct env_fd){ .cb = on_accept, .fd = fd };
	LIST_INIT(&l->links);
	(void)unlink(a.sun_path);
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 16) < 0)
		return -errno;
	*ret = l;
	return env_watch(env, &l->listening, ENV_READ);
}

struct link *link_free(struct link *l)
{
	while (!LIST_EMPTY(&l->links))
		forget(LIST_FIRST(&l->links));
	env_unwatch(l->env, &l->listening);
	(void)close(l->listening.fd);
	free(l);
	return NULL;
}

const struct transport *link_transport(struct link *l)
{
	return &l->transport;
}

void link_cut(struct link *l)
{
	struct transport_link *k;

	LIST_FOREACH(k, &l->links, in)
		link_end(k);
}
