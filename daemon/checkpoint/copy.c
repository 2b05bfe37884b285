#include "copy.h"

#include "buf.h"
#include "copy_wire.h"
#include "err.h"
#include "image.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

struct copy {
	const struct env *env;
	struct env_fd watch;
	struct env_timer timer;
	struct copy_events events;
	void *owner;
	struct buf in;
	int pidfd;
};

struct copy *copy_free(struct copy *c)
{
	if (!c)
		return NULL;
	env_disarm(c->env, &c->timer);
	if (c->watch.fd >= 0)
		env_unwatch(c->env, &c->watch);
	close_fd(c->watch.fd);
	/* It may be done or at work: either way nobody listens to it any more. */
	if (c->pidfd >= 0)
		(void)syscall(SYS_pidfd_send_signal, c->pidfd, SIGKILL, NULL, 0);
	close_fd(c->pidfd);
	buf_fini(&c->in);
	free(c);
	return NULL;
}

static void end(struct copy *c, enum rpc_status status, const char *text)
{
	c->events.on_end(c->owner, status, text);
	copy_free(c);
}

static enum rpc_status status_of(uint32_t error)
{
	switch (error) {
	case ENOENT:
		return RPC_NOT_FOUND;
	case EACCES:
	case EPERM:
		return RPC_NOT_PERMITTED;
	case EEXIST:
		return RPC_CONFLICT;
	default:
		return RPC_FAILED;
	}
}

static void on_timeout(struct env_timer *timer)
{
	end(container_of(timer, struct copy, timer), RPC_TIMEOUT,
	    "the directory does not answer in time");
}

/* 0: go on; > 0: that was the end (and @c is gone). */
static int take(struct copy *c, const struct copy_frame *f, const char *name, const uint8_t *bytes)
{
	int r = 0;

	switch (f->kind) {
	case COPY_FILE:
		if (c->events.on_piece)
			r = c->events.on_piece(c->owner, name, bytes, f->bytes, f->last);
		break;
	case COPY_NAME:
		if (c->events.on_name)
			r = c->events.on_name(c->owner, name);
		break;
	case COPY_DONE:
		end(c, RPC_OK, "");
		return 1;
	default:
		end(c, status_of(f->last), name);
		return 1;
	}
	if (r != 0) {
		end(c, RPC_FAILED, r == -ENOSPC ? IMAGE_NO_ROOM : "its files are not images");
		return 1;
	}
	return 0;
}

/* All whole frames; > 0: the end. */
static int take_all(struct copy *c)
{
	size_t at = 0;

	for (;;) {
		struct copy_frame f;
		char name[COPY_NAME_MAX + 1];
		int r;

		if (c->in.len - at < sizeof(f))
			break;
		memcpy(&f, c->in.data + at, sizeof(f));
		if (f.name_len > COPY_NAME_MAX || f.bytes > COPY_BYTES_MAX) {
			end(c, RPC_FAILED, "ssi-copy went wrong");
			return 1;
		}
		if (c->in.len - at < sizeof(f) + f.name_len + f.bytes)
			break;
		at += sizeof(f);
		memcpy(name, c->in.data + at, f.name_len);
		name[f.name_len] = '\0';
		at += f.name_len;
		r = take(c, &f, name, c->in.data + at);
		if (r != 0)
			return r;
		at += f.bytes;
	}
	buf_consume(&c->in, at);
	return 0;
}

static void on_readable(struct env_fd *watch, unsigned events)
{
	struct copy *c = container_of(watch, struct copy, watch);
	uint8_t *p = buf_reserve(&c->in, COPY_BYTES_MAX);
	ssize_t n;

	if (!p)
		return end(c, RPC_FAILED, "out of memory");
	n = recv(watch->fd, p, COPY_BYTES_MAX, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0)
		return end(c, RPC_FAILED, "ssi-copy was killed");
	c->in.len += (size_t)n;
	(void)take_all(c);
}

/* "1000:1000:27,100" */
static void format_caller(const struct process_caller *caller, char *ret, size_t size)
{
	size_t n = (size_t)snprintf(ret, size, "%u:%u:", caller->uid, caller->gid);

	for (size_t i = 0; i < caller->n_groups && n + 12 < size; i++)
		n += (size_t)snprintf(ret + n, size - n, "%s%u", i ? "," : "", caller->groups[i]);
}

static int spawn(struct copy *c, struct space *space, const char *libexec_dir,
		 const struct copy_spec *spec, int socket)
{
	static const char *const verbs[] = {
		[COPY_OUT] = "out", [COPY_IN] = "in", [COPY_LIST] = "list",
		[COPY_REMOVE] = "remove",
	};
	char program[256], caller[1024];
	const char *argv[] = { program, verbs[spec->verb], caller,
			       spec->make_directory ? "make" : "keep", spec->directory,
			       spec->name, NULL };
	int fds[] = { socket, spec->images_fd };
	struct space_spawn s = {
		.argv = argv,
		.fds = fds,
		.n_fds = spec->images_fd >= 0 ? 2 : 1,
		.group_fd = -1,
		.flags = SPACE_SPAWN_SERVICE,
	};
	pid_t pid;

	snprintf(program, sizeof(program), "%s/ssi-copy", libexec_dir);
	format_caller(spec->caller, caller, sizeof(caller));
	return err_fold(space_spawn(space, &s, &pid, &c->pidfd));
}

int copy_start(struct copy **ret, const struct env *env, struct space *space,
	       const char *libexec_dir, const struct copy_spec *spec,
	       const struct copy_events *events, void *owner)
{
	struct copy *c = calloc(1, sizeof(*c));
	int s[2], r;

	if (!c)
		return err_origin(-ENOMEM);
	*c = (struct copy){ .env = env, .events = *events, .owner = owner, .pidfd = -1 };
	c->watch = (struct env_fd){ .cb = on_readable, .fd = -1 };
	c->timer.cb = on_timeout;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s) < 0) {
		r = err_origin(-errno);
		copy_free(c);
		return r;
	}
	c->watch.fd = s[0];
	r = spawn(c, space, libexec_dir, spec, s[1]);
	close_fd(s[1]);
	if (r == 0)
		r = env_watch(env, &c->watch, ENV_READ);
	if (r == 0)
		r = env_arm(env, &c->timer, spec->timeout);
	if (r < 0) {
		copy_free(c);
		return r;
	}
	*ret = c;
	return 0;
}
