/*
 * Lines and mirrors: how they are set up, and found again.
 *
 * Nothing is held here: ssi-init has, under a name that says the rest, our end of a socket of
 * each process of ssi-tty; the other end is that process's, so the socket says whether it
 * lives.  Dropping ours ends it.
 *
 * tty/line/SESSION.NODE.TYPED.SHOWN   a line to that node, at home
 * tty/mirror/SESSION.                 a mirror
 * tty/slave/SESSION                   and what programs open of it
 *
 * Failure modes: the other node never makes its end (the program stays here after all) -> its
 * streams find nobody and end, and ssi-tty with them; it is made for a later program until
 * then.
 */
#include "tty.h"

#include "buf.h"
#include "err.h"

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>

static const char lines[] = "tty/line/", mirrors[] = "tty/mirror/", slaves[] = "tty/slave/";

/* An answer that is awaited. */
struct drain {
	struct tty_room *room;
	struct env_fd watch; /* a duplicate */
	pid_t pid;
	LIST_ENTRY(drain) entry;
};

struct tty_room {
	const struct env *env;
	struct space *space;
	struct stream_room *stream;
	char program[256];
	tty_drained_cb done;
	void *owner;
	LIST_HEAD(, drain) drains;
};

int tty_room_new(struct tty_room **ret, const struct env *env, struct space *space,
		 struct stream_room *stream, const char *libexec_dir)
{
	struct tty_room *t = calloc(1, sizeof(*t));

	if (!t)
		return err_origin(-ENOMEM);
	*t = (struct tty_room){ .env = env, .space = space, .stream = stream };
	LIST_INIT(&t->drains);
	if (snprintf(t->program, sizeof(t->program), "%s/ssi-tty", libexec_dir) >=
	    (int)sizeof(t->program)) {
		free(t);
		return err_origin(-ENAMETOOLONG);
	}
	*ret = t;
	return 0;
}

static void free_drain(struct drain *d)
{
	LIST_REMOVE(d, entry);
	env_unwatch(d->room->env, &d->watch);
	(void)close_fd(d->watch.fd);
	free(d);
}

int tty_look(int root_fd, struct tty_state *state)
{
	_cleanup_close_ int fd = -1;
	struct stat st;
	char path[32];

	(void)snprintf(path, sizeof(path), "dev/pts/%u", state->number);
	fd = openat(root_fd, path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0 || tcgetattr(fd, &state->modes) < 0 ||
	    ioctl(fd, TIOCGWINSZ, &state->size) < 0)
		return err_origin(-errno);
	state->owner = st.st_uid;
	return 0;
}

/* -- What is kept -- */

static bool lives(int socket)
{
	struct pollfd p = { .fd = socket };

	return poll(&p, 1, 0) == 0;
}

static int add_name(void *owner, const char *name)
{
	return buf_append(owner, name, strlen(name) + 1);
}

/* Names that begin with @prefix, each with its NUL. */
static int names(struct tty_room *t, const char *prefix, struct buf *ret)
{
	return err_fold(space_each_kept(t->space, prefix, add_name, ret));
}

/* What is left of those that have ended. */
static void sweep(struct tty_room *t, const char *prefix)
{
	_cleanup_buf_ struct buf b = { 0 };
	char slave[64];

	(void)names(t, prefix, &b);
	for (const char *name = (const char *)b.data, *end = name + b.len; name < end;
	     name += strlen(name) + 1) {
		_cleanup_close_ int fd = -1;

		if (space_kept(t->space, name, &fd) != 0 || lives(fd))
			continue;
		(void)space_drop(t->space, name);
		if (prefix != mirrors)
			continue;
		(void)snprintf(slave, sizeof(slave), "%s%d", slaves,
			       atoi(name + strlen(mirrors)));
		(void)space_drop(t->space, slave);
	}
}

/* The one that lives under a name that begins with @prefix. */
static bool find(struct tty_room *t, const char *prefix, char name[static 64], int *ret_fd)
{
	_cleanup_buf_ struct buf b = { 0 };
	int fd;

	if (names(t, prefix, &b) < 0 || b.len == 0 || b.len > 64 ||
	    space_kept(t->space, (const char *)b.data, &fd) != 0)
		return false;
	memcpy(name, b.data, b.len);
	*ret_fd = fd;
	return true;
}

/* -- Making -- */

enum { OURS = 0, THEIRS = 1 };

/* Both streams at this node: ssi-tty's ends of their pipes are fds[0] (it reads) and fds[1]. */
static int open_streams(struct tty_room *t, node_id node, stream_id in, stream_id out, int fds[2])
{
	_cleanup_close_ int writes = -1, reads = -1;
	int p[2], r;

	if (pipe2(p, O_CLOEXEC) < 0)
		return err_origin(-errno);
	fds[0] = p[0];
	writes = p[1];
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_origin(-errno);
	reads = p[0];
	fds[1] = p[1];
	r = stream_open(t->stream, in, STREAM_WRITER, node, TAKE_FD(writes), 0, NULL, 0);
	if (r == 0)
		r = stream_open(t->stream, out, STREAM_READER, node, TAKE_FD(reads), 0, NULL, 0);
	return err_fold(r);
}

static int start(struct tty_room *t, const char *const *argv, const int *fds, size_t n_fds)
{
	const struct space_spawn spec = { .argv = argv,
					  .fds = fds,
					  .n_fds = n_fds,
					  .group_fd = -1,
					  .flags = SPACE_SPAWN_SERVICE };
	pid_t pid;

	return err_fold(space_spawn(t->space, &spec, &pid, NULL));
}

static void close_fds(int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		(void)close_fd(fds[i]);
}

static int make_line(struct tty_room *t, node_id node, struct tty_state *state)
{
	int fds[] = { -1, -1, -1 }, pair[2] = { -1, -1 }, r;
	char name[64], session[16], terminal[32];
	const char *const argv[] = { t->program, "home", session, terminal, NULL };

	state->typed = stream_new_id(t->stream);
	state->shown = stream_new_id(t->stream);
	(void)snprintf(session, sizeof(session), "%d", state->session);
	(void)snprintf(terminal, sizeof(terminal), "/dev/pts/%u", state->number);
	(void)snprintf(name, sizeof(name), "%s%d.%u.%" PRIx64 ".%" PRIx64, lines, state->session,
		       node, state->typed, state->shown);
	r = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0 ? err_origin(-errno) : 0;
	fds[2] = pair[THEIRS];
	if (r == 0)
		r = open_streams(t, node, state->shown, state->typed, fds);
	if (r == 0)
		r = start(t, argv, fds, N_ELEMENTS(fds));
	if (r == 0)
		r = err_fold(space_keep(t->space, name, pair[OURS]));
	close_fds(fds, N_ELEMENTS(fds));
	(void)close_fd(pair[OURS]);
	return r;
}

int tty_line(struct tty_room *t, node_id node, struct tty_state *state)
{
	_cleanup_close_ int fd = -1;
	char prefix[64], name[64];

	sweep(t, lines);
	(void)snprintf(prefix, sizeof(prefix), "%s%d.%u.", lines, state->session, node);
	if (find(t, prefix, name, &fd) && sscanf(name + strlen(prefix), "%" SCNx64 ".%" SCNx64,
						 &state->typed, &state->shown) == 2)
		return 0;
	return make_line(t, node, state);
}

static int make_mirror(struct tty_room *t, node_id home, const struct tty_state *state,
		       int *ret_slave, int *ret_control)
{
	const struct terminal_setup setup = {
		.owner = state->owner, .size = state->size, .has_modes = true, .modes = state->modes
	};
	const char *const argv[] = { t->program, "mirror", NULL };
	int fds[] = { -1, -1, -1, -1, -1, -1 }, pair[2] = { -1, -1 }, control[2] = { -1, -1 };
	char mirror[64], slave[64];
	int r = terminal_make(t->space, &setup, &fds[3], &fds[4]);

	(void)snprintf(mirror, sizeof(mirror), "%s%d.", mirrors, state->session);
	(void)snprintf(slave, sizeof(slave), "%s%d", slaves, state->session);
	if (r == 0 && (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0 ||
		       socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) < 0))
		r = err_origin(-errno);
	fds[2] = pair[THEIRS];
	fds[5] = control[OURS];
	if (r == 0)
		r = open_streams(t, home, state->typed, state->shown, fds);
	if (r == 0)
		r = start(t, argv, fds, N_ELEMENTS(fds));
	if (r == 0)
		r = err_fold(space_keep(t->space, slave, fds[4]));
	if (r == 0)
		r = err_fold(space_keep(t->space, mirror, pair[OURS]));
	if (r == 0) {
		*ret_slave = TAKE_FD(fds[4]);
		*ret_control = TAKE_FD(control[THEIRS]);
	}
	close_fds(fds, N_ELEMENTS(fds));
	(void)close_fd(control[THEIRS]);
	(void)close_fd(pair[OURS]);
	return r;
}

int tty_mirror(struct tty_room *t, node_id home, const struct tty_state *state, int *ret_slave,
	       int *ret_control)
{
	_cleanup_close_ int fd = -1;
	char prefix[64], name[64];

	sweep(t, mirrors);
	(void)snprintf(prefix, sizeof(prefix), "%s%d.", mirrors, state->session);
	*ret_control = -1;
	if (!find(t, prefix, name, &fd))
		return make_mirror(t, home, state, ret_slave, ret_control);
	(void)snprintf(name, sizeof(name), "%s%d", slaves, state->session);
	return err_fold(space_kept(t->space, name, ret_slave));
}

/* -- Draining -- */

void tty_on_drained(struct tty_room *t, tty_drained_cb done, void *owner)
{
	t->done = done;
	t->owner = owner;
}

static void on_answer(struct env_fd *watch, unsigned events)
{
	struct drain *d = container_of(watch, struct drain, watch), *other;
	struct tty_room *t = d->room;
	pid_t pid;
	ssize_t n = recv(watch->fd, &pid, sizeof(pid), MSG_DONTWAIT);

	/* All of a session wait at one socket: the answer may be another's. */
	if (n == sizeof(pid)) {
		LIST_FOREACH(other, &t->drains, entry)
			if (other->pid == pid)
				break;
		if (!other)
			return;
		d = other;
	} else if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		return;
	}
	pid = d->pid;
	free_drain(d);
	t->done(t->owner, pid);
}

bool tty_drain(struct tty_room *t, pid_t session, pid_t pid)
{
	char prefix[64], name[64];
	struct drain *d = calloc(1, sizeof(*d));
	int fd;

	(void)snprintf(prefix, sizeof(prefix), "%s%d.", mirrors, session);
	if (!d || !find(t, prefix, name, &fd)) {
		free(d);
		return false;
	}
	*d = (struct drain){ .room = t, .pid = pid, .watch = { .fd = fd, .cb = on_answer } };
	LIST_INSERT_HEAD(&t->drains, d, entry);
	if (env_watch(t->env, &d->watch, ENV_READ) == 0 &&
	    send(fd, &pid, sizeof(pid), MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof(pid))
		return true;
	free_drain(d);
	return false;
}
