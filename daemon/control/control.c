/*
 * Happy path: a tool connects, its credentials are asked of the kernel, its one
 * request is read whole, handed to the handler of its kind, answered by events,
 * and the connection is closed when the final one has been written.
 *
 * Failure modes: too many connections, of one user or of all -> the one that has said
 * nothing whole for the longest makes room, else the new one is refused; a bad length or message -> one
 * Failure, closed; a tool that does not read -> its events are bounded, then it is closed;
 * a tool that leaves -> the rooms forget it, what it started goes on.
 */
#include "control_internal.h"

#include "err.h"
#include "log.h"

#include <assert.h>
#include <endian.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static void connection_close(struct control_connection *c);

static void connection_free(struct control_connection *c)
{
	for (size_t i = 0; i < c->n_fds; i++)
		close_fd(c->fds[i]);
	buf_fini(&c->in);
	buf_fini(&c->out);
	free(c);
}

void control_hold(struct control_connection *c)
{
	c->calls++;
}

bool control_release(struct control_connection *c)
{
	assert(c->calls);
	c->calls--;
	if (c->control)
		return true;
	if (!c->calls)
		connection_free(c);
	return false;
}

/* The tool is gone or was answered.  Callbacks that cannot be cancelled keep the
 * memory, with ->control NULL. */
static void connection_close(struct control_connection *c)
{
	struct control *control = c->control;

	control_stream_end(c);
	hotplug_forget(control->n.hotplug, c);
	if (control->n.process) { /* else this node is a witness */
		process_wait_cancel(control->n.process, c);
		migration_forget(control->n.migration, c);
		checkpoint_forget(control->n.checkpoint, c);
	}
	env_unwatch(control->n.env, &c->watch);
	close_fd(c->watch.fd);
	LIST_REMOVE(c, entry);
	control->n_connections--;
	c->control = NULL;
	if (!c->calls)
		connection_free(c);
}

static void want(struct control_connection *c)
{
	/* A failed connection is closed from its own next turn, never from here. */
	unsigned events = ENV_READ | (c->out.len || c->failed ? ENV_WRITE : 0);

	if (env_watch(c->control->n.env, &c->watch, events) < 0)
		c->failed = true;
}

void control_send(struct control_connection *c, const Ssi__Control__Event *event, bool final)
{
	size_t len = ssi__control__event__get_packed_size(event);
	uint32_t head = htole32((uint32_t)len);
	uint8_t *p;

	assert(!c->ended);
	c->ended = final;
	/* Progress to a tool that does not read is dropped; a final event is not. */
	if (!final && c->out.len > CONTROL_MESSAGE_MAX)
		return;
	p = len <= CONTROL_MESSAGE_MAX ? buf_reserve(&c->out, sizeof(head) + len) : NULL;
	if (!p) {
		c->failed = true;
		return want(c);
	}
	memcpy(p, &head, sizeof(head));
	ssi__control__event__pack(event, p + sizeof(head));
	c->out.len += sizeof(head) + len;
	want(c);
}

void control_fail(struct control_connection *c, enum rpc_status status, const char *format, ...)
{
	Ssi__Control__Failure failure = SSI__CONTROL__FAILURE__INIT;
	Ssi__Control__Event event = SSI__CONTROL__EVENT__INIT;
	char text[1024], stale[1040] = "";
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	/* The next attempt is of the next view. */
	if (status == RPC_STALE) {
		status = RPC_DOWN;
		(void)snprintf(stale, sizeof(stale), "try again: %s", text);
	}
	failure.status = status;
	failure.text = stale[0] ? stale : text;
	event.body_case = SSI__CONTROL__EVENT__BODY_FAILURE;
	event.failure = &failure;
	control_send(c, &event, true);
}

void control_progress(void *connection, const char *step, uint64_t bytes, uint64_t total)
{
	Ssi__Control__Progress progress = SSI__CONTROL__PROGRESS__INIT;
	Ssi__Control__Event event = SSI__CONTROL__EVENT__INIT;

	progress.step = (char *)step;
	progress.bytes = bytes;
	progress.total = total;
	event.body_case = SSI__CONTROL__EVENT__BODY_PROGRESS;
	event.progress = &progress;
	control_send(connection, &event, false);
}

bool control_trouble(const struct control *c, char ret[static CONTROL_TROUBLE_MAX])
{
	ret[0] = '\0';
	if (membership_trouble(c->n.membership, ret, CONTROL_TROUBLE_MAX))
		return true;
	if (!ret[0] && c->n.process && process_frozen_at(c->n.process))
		(void)snprintf(ret, CONTROL_TROUBLE_MAX,
			       "this node was fenced and is asking the others which of its programs "
			       "may go on");
	return ret[0];
}

nsec_t control_frozen_for(const struct control *c)
{
	nsec_t at = c->n.process ? process_frozen_at(c->n.process) : 0;

	return at ? env_now(c->n.env) - at : 0;
}

bool control_may_not_start(const struct control *c, char ret[static CONTROL_TROUBLE_MAX])
{
	if (!c->n.process || process_may_start(c->n.process))
		return false;
	if (!control_trouble(c, ret))
		(void)snprintf(ret, CONTROL_TROUBLE_MAX, "this node's lease has just ended, try again");
	return true;
}

/* What a witness can answer. */
static bool needs_no_programs(const Ssi__Control__Request *q)
{
	return q->body_case == SSI__CONTROL__REQUEST__BODY_NODES ||
	       q->body_case == SSI__CONTROL__REQUEST__BODY_PROCESSES ||
	       q->body_case == SSI__CONTROL__REQUEST__BODY_STATUS ||
	       q->body_case == SSI__CONTROL__REQUEST__BODY_TOKEN ||
	       q->body_case == SSI__CONTROL__REQUEST__BODY_CHANGE ||
	       q->body_case == SSI__CONTROL__REQUEST__BODY_FAULT;
}

/* Nothing is begun without the lease: what a fenced node does is not accepted anywhere. */
static bool needs_lease(const Ssi__Control__Request *q)
{
	return q->body_case == SSI__CONTROL__REQUEST__BODY_RUN ||
	       (q->body_case == SSI__CONTROL__REQUEST__BODY_MIGRATE && !q->migrate->follow) ||
	       q->body_case == SSI__CONTROL__REQUEST__BODY_CHECKPOINT ||
	       q->body_case == SSI__CONTROL__REQUEST__BODY_RESTART;
}

int control_take_fd(struct control_connection *c, size_t i)
{
	return i < c->n_fds ? TAKE_FD(c->fds[i]) : -1;
}

static void dispatch(struct control_connection *c, const Ssi__Control__Request *q)
{
	switch (q->body_case) {
	case SSI__CONTROL__REQUEST__BODY_RUN:
		return control_on_run(c, q->run);
	case SSI__CONTROL__REQUEST__BODY_WAIT:
		return control_on_wait(c, q->wait);
	case SSI__CONTROL__REQUEST__BODY_SIGNAL:
		return control_on_signal(c, q->signal);
	case SSI__CONTROL__REQUEST__BODY_PROCESSES:
		return control_on_processes(c, q->processes);
	case SSI__CONTROL__REQUEST__BODY_NODES:
		return control_on_nodes(c, q->nodes);
	case SSI__CONTROL__REQUEST__BODY_MIGRATE:
		return control_on_migrate(c, q->migrate);
	case SSI__CONTROL__REQUEST__BODY_CHECKPOINT:
		return control_on_checkpoint(c, q->checkpoint);
	case SSI__CONTROL__REQUEST__BODY_RESTART:
		return control_on_restart(c, q->restart);
	case SSI__CONTROL__REQUEST__BODY_CHECKPOINTS:
		return control_on_checkpoints(c, q->checkpoints);
	case SSI__CONTROL__REQUEST__BODY_TOKEN:
		return control_on_token(c, q->token);
	case SSI__CONTROL__REQUEST__BODY_STATUS:
		return control_on_status(c, q->status);
	case SSI__CONTROL__REQUEST__BODY_FAULT:
		return control_on_fault(c, q->fault);
	case SSI__CONTROL__REQUEST__BODY_RESIZE:
		return control_on_resize(c, q->resize);
	case SSI__CONTROL__REQUEST__BODY_CHANGE:
		return control_on_change(c, q->change);
	case SSI__CONTROL__REQUEST__BODY_CAPABILITIES:
		return control_on_capabilities(c, q->capabilities);
	case SSI__CONTROL__REQUEST__BODY_EVENTS:
		return control_on_events(c, q->events);
	default:
		control_fail(c, RPC_USAGE, "this ssid does not know the request: are the "
					   "tools of another version?");
	}
}

/* The request is whole: serve it. */
static void serve(struct control_connection *c, const uint8_t *data, size_t len)
{
	Ssi__Control__Request *q = ssi__control__request__unpack(NULL, len, data);
	char trouble[CONTROL_TROUBLE_MAX];

	c->busy = true;
	if (!q)
		return control_fail(c, RPC_USAGE, "the request is not a message");
	if (!membership_view(c->control->n.membership) &&
	    q->body_case != SSI__CONTROL__REQUEST__BODY_FAULT && control_trouble(c->control, trouble))
		control_fail(c, RPC_DOWN, "%s", trouble);
	else if (needs_lease(q) && control_may_not_start(c->control, trouble))
		control_fail(c, RPC_DOWN, "%s", trouble);
	else if (!c->control->n.process && !needs_no_programs(q))
		control_fail(c, RPC_DOWN, "this node is a witness, which runs no programs: ask "
						 "another one");
	else
		dispatch(c, q);
	ssi__control__request__free_unpacked(q, NULL);
}

static void take_fds(struct control_connection *c, struct msghdr *m)
{
	for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h)) {
		size_t n;

		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(int));
			if (c->n_fds < CONTROL_FDS_MAX)
				c->fds[c->n_fds++] = fd;
			else
				close_fd(fd);
		}
	}
}

/* One user's unfinished requests together.  Small ones are not worth the counting. */
static bool too_much(const struct control_connection *c)
{
	const struct control_connection *other;
	size_t sum = 0;

	if (c->in.len < CONTROL_UNFINISHED_MAX / CONTROL_USER_MAX)
		return false;
	LIST_FOREACH(other, &c->control->connections, entry)
		if (other->caller.uid == c->caller.uid)
			sum += other->in.len;
	return sum > CONTROL_UNFINISHED_MAX;
}

/* 0: all there was; > 0: the tool has closed; < 0: the connection is broken. */
static int receive(struct control_connection *c)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * CONTROL_FDS_MAX)];

	for (;;) {
		uint8_t *p = buf_reserve(&c->in, 65536);
		struct iovec v = { p, 65536 };
		struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = control,
				    .msg_controllen = sizeof(control) };
		ssize_t n;

		if (!p)
			return -ENOMEM;
		n = recvmsg(c->watch.fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		take_fds(c, &m);
		if (n == 0)
			return 1;
		/* One request a connection: more than it could need is no tool of ours. */
		if (c->busy || c->in.len + n > CONTROL_MESSAGE_MAX + sizeof(uint32_t))
			return -EMSGSIZE;
		c->in.len += n;
		if (too_much(c))
			return -EMSGSIZE;
	}
}

static int transmit(struct control_connection *c)
{
	while (c->out.len) {
		ssize_t n = send(c->watch.fd, c->out.data, c->out.len,
				 MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		buf_consume(&c->out, n);
	}
	return 0;
}

static void look_for_request(struct control_connection *c)
{
	uint32_t len;

	if (c->busy || c->in.len < sizeof(len))
		return;
	memcpy(&len, c->in.data, sizeof(len));
	len = le32toh(len);
	if (len > CONTROL_MESSAGE_MAX) {
		c->busy = true;
		return control_fail(c, RPC_USAGE, "the request is too large (%u bytes)", len);
	}
	if (c->in.len < sizeof(len) + len)
		return;
	serve(c, c->in.data + sizeof(len), len);
	buf_fini(&c->in);
}

static void on_connection(struct env_fd *watch, unsigned events)
{
	struct control_connection *c = container_of(watch, struct control_connection, watch);
	int r = 0;

	if (events & ENV_READ)
		r = receive(c);
	if (r == 0)
		look_for_request(c);
	if (r == 0)
		r = transmit(c);
	if (r == 0)
		control_stream_pump(c);
	if (r != 0 || c->failed || (c->ended && !c->out.len))
		return connection_close(c);
	want(c);
}

static int ask_credentials(int fd, struct process_caller *ret)
{
	socklen_t len = sizeof(struct ucred);
	struct ucred cred;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return err_origin(-errno);
	ret->uid = cred.uid;
	ret->gid = cred.gid;
	len = sizeof(ret->groups);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, ret->groups, &len) < 0)
		return err_origin(-errno);
	ret->n_groups = len / sizeof(gid_t);
	return 0;
}

static int connection_new(struct control *control, int owned_fd)
{
	_cleanup_close_ int fd = owned_fd;
	struct control_connection *c;
	int r;

	c = calloc(1, sizeof(*c));
	if (!c)
		return err_origin(-ENOMEM);
	c->watch = (struct env_fd){ .cb = on_connection, .fd = fd };
	r = ask_credentials(fd, &c->caller);
	if (r == 0)
		r = env_watch(control->n.env, &c->watch, ENV_READ);
	if (r < 0) {
		free(c);
		return r;
	}
	TAKE_FD(fd);
	c->control = control;
	LIST_INSERT_HEAD(&control->connections, c, entry);
	control->n_connections++;
	return 0;
}

/* Of @uid, or of all: how many there are, and the one that has been there for the longest
 * without a whole request. */
static unsigned count(const struct control *control, const uid_t *uid,
		      struct control_connection **ret_idle)
{
	struct control_connection *c;
	unsigned n = 0;

	*ret_idle = NULL;
	LIST_FOREACH(c, &control->connections, entry) {
		if (uid && c->caller.uid != *uid)
			continue;
		n++;
		if (!c->busy)
			*ret_idle = c; /* the oldest is the last */
	}
	return n;
}

/* There is one more of @uid now. */
static void make_room(struct control *control, struct control_connection *new)
{
	struct control_connection *idle;
	nsec_t now = env_now(control->n.env);
	uid_t uid = new->caller.uid;
	bool many = uid != 0 && count(control, &uid, &idle) > CONTROL_USER_MAX;

	if (!many && control->n_connections > CONTROL_CONNECTIONS_MAX) {
		(void)count(control, NULL, &idle);
		many = true;
	}
	if (!many)
		return;
	if (!control->complained || now - control->complained > 10 * NSEC_PER_SEC) {
		control->complained = now;
		log_warning("control: %u tools are connected, the last by user %u: those that "
			    "ask nothing make room",
			    control->n_connections, uid);
	}
	connection_close(idle);
}

static void on_listener(struct env_fd *watch, unsigned events)
{
	struct control *control = container_of(watch, struct control, listener);
	int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	int r;

	if (fd < 0)
		return;
	r = connection_new(control, fd);
	if (r < 0)
		return log_warning("control: a tool was refused: %s", strerror(-r));
	make_room(control, LIST_FIRST(&control->connections));
}

static int listen_at(const char *path, int *ret)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	_cleanup_close_ int fd = -1;

	if (strlen(path) >= sizeof(a.sun_path))
		return err_origin(-ENAMETOOLONG);
	strcpy(a.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_origin(-errno);
	(void)unlink(path);
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || chmod(path, 0666) < 0 ||
	    listen(fd, 128) < 0)
		return err_origin(-errno);
	*ret = TAKE_FD(fd);
	return 0;
}

int control_new(struct control **ret, const struct control_neighbours *n,
		const struct control_config *config)
{
	struct control *c;
	int r;

	c = calloc(1, sizeof(*c));
	if (!c)
		return err_origin(-ENOMEM);
	c->n = *n;
	c->config = *config;
	LIST_INIT(&c->connections);
	c->listener = (struct env_fd){ .cb = on_listener, .fd = -1 };
	r = listen_at(config->socket_path, &c->listener.fd);
	if (r == 0)
		r = rpc_register(n->rpc, control_methods, c);
	if (r == 0)
		r = env_watch(n->env, &c->listener, ENV_READ);
	if (r < 0) {
		control_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

struct control *control_free(struct control *c)
{
	if (!c)
		return NULL;
	while (!LIST_EMPTY(&c->connections))
		connection_close(LIST_FIRST(&c->connections));
	if (c->listener.fd >= 0) {
		env_unwatch(c->n.env, &c->listener);
		close_fd(c->listener.fd);
		(void)unlink(c->config.socket_path);
	}
	free(c);
	return NULL;
}
