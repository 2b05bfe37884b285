/*
 * The image streamer's end of a dump.
 *
 * criu connects to streamer-capture.sock in the images directory and says, file
 * by file: the length of a message (u32), the message with the name, one byte
 * with the read end of a pipe.  The pipe's bytes are the file; its end is the
 * file's end; the end of the connection means that no more files come.
 *
 * happy path: all pipes are read as they fill and handed to the sink; pausing
 * stops all reading, the pipes fill up and criu waits.
 * failure modes: anything that is not as above ends the stream with a problem;
 * the end of the connection while criu failed looks like the end of the stream,
 * so that nobody may believe a stream without criu's word.
 */
#include "criu_internal.h"

#include "err.h"

#include <endian.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define SOCKET_FILE "streamer-capture.sock"

enum {
	PIPES_MAX = 256,  /* files that criu has open at the same time */
	PIPE_SIZE = 1 << 20,
	CHUNK = 256 << 10,
	REQUEST_MAX = 4096,
};

struct pipe {
	struct criu_stream *stream;
	struct pipe *next;
	struct env_fd watch;
	char name[IMAGE_NAME_MAX + 1];
};

struct criu_stream {
	const struct env *env;
	struct image_sink sink;
	criu_stream_cb on_over;
	void *owner;
	struct env_fd peer; /* listening, then connected */
	bool connected, ended, paused, stopped;
	struct buf in;      /* of requests: what is not complete */
	int next_fd;        /* came before its byte was counted */
	struct pipe *pipes;
	size_t n_pipes;
	uint8_t *chunk;
};

static void pipe_free(struct pipe *p, const struct env *env)
{
	env_unwatch(env, &p->watch);
	close_fd(p->watch.fd);
	free(p);
}

void criu_stream_stop(struct criu_stream *s)
{
	struct pipe *p;

	if (!s || s->stopped)
		return;
	s->stopped = true;
	env_unwatch(s->env, &s->peer);
	s->peer.fd = close_fd(s->peer.fd);
	while ((p = s->pipes)) {
		s->pipes = p->next;
		pipe_free(p, s->env);
	}
	s->n_pipes = 0;
	s->next_fd = close_fd(s->next_fd);
}

static void problem(struct criu_stream *s, const char *text)
{
	if (s->stopped)
		return;
	criu_stream_stop(s);
	s->on_over(s->owner, text);
}

bool criu_stream_is_over(const struct criu_stream *s)
{
	return !s->stopped && s->ended && !s->pipes;
}

static void maybe_over(struct criu_stream *s)
{
	if (criu_stream_is_over(s))
		s->on_over(s->owner, NULL);
}

/* Pipes. */

static void pipe_ended(struct pipe *p)
{
	struct criu_stream *s = p->stream;
	struct pipe **at = &s->pipes;
	int r = s->sink.close(s->sink.owner, p->name);

	if (s->stopped)
		return;
	if (r != 0)
		return problem(s, "its images could not be passed on");
	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	s->n_pipes--;
	pipe_free(p, s->env);
	maybe_over(s);
}

static void on_bytes(struct env_fd *watch, unsigned events)
{
	struct pipe *p = container_of(watch, struct pipe, watch);
	struct criu_stream *s = p->stream;
	ssize_t n = read(watch->fd, s->chunk, CHUNK);
	int r;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0)
		return problem(s, "its images cannot be read");
	if (n == 0)
		return pipe_ended(p);
	r = s->sink.write(s->sink.owner, p->name, s->chunk, n);
	if (r == IMAGE_E_FULL)
		problem(s, IMAGE_NO_ROOM);
	else if (r != 0)
		problem(s, "its images could not be passed on");
}

/* @fd is ours now. */
static int pipe_open(struct criu_stream *s, const char *name, int fd)
{
	_cleanup_close_ int owned = fd;
	struct pipe *p;
	int r;

	if (!image_name_ok(name) || s->n_pipes == PIPES_MAX)
		return err_origin(-EBADMSG);
	/* Larger is faster, no more: the limit of an unprivileged machine is kept. */
	(void)fcntl(fd, F_SETPIPE_SZ, PIPE_SIZE);
	if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
		return err_origin(-errno);
	p = calloc(1, sizeof(*p));
	if (!p)
		return err_origin(-ENOMEM);
	p->stream = s;
	p->watch = (struct env_fd){ .cb = on_bytes, .fd = fd };
	(void)snprintf(p->name, sizeof(p->name), "%s", name);
	r = s->paused ? 0 : env_watch(s->env, &p->watch, ENV_READ);
	if (r < 0) {
		free(p);
		return r;
	}
	TAKE_FD(owned);
	p->next = s->pipes;
	s->pipes = p;
	s->n_pipes++;
	return 0;
}

/* Requests. */

/* One whole request in s->in: its name, and how long all of it is. */
static bool request_is_whole(const struct criu_stream *s, size_t *ret_len, bool *ret_bad)
{
	uint32_t n;

	*ret_bad = false;
	if (s->in.len < sizeof(n))
		return false;
	memcpy(&n, s->in.data, sizeof(n));
	n = le32toh(n);
	*ret_bad = n > REQUEST_MAX;
	*ret_len = sizeof(n) + n + 1; /* and the byte that came with the descriptor */
	return !*ret_bad && s->in.len >= *ret_len;
}

static int take_request(struct criu_stream *s, size_t len)
{
	Ssi__Criu__StreamRequest *q;
	int r;

	if (s->next_fd < 0)
		return err_origin(-EBADMSG);
	q = ssi__criu__stream_request__unpack(NULL, len - 5, s->in.data + 4);
	if (!q)
		return err_origin(-EBADMSG);
	r = pipe_open(s, q->filename, TAKE_FD(s->next_fd));
	ssi__criu__stream_request__free_unpacked(q, NULL);
	buf_consume(&s->in, len);
	return r;
}

static int take_fd(struct criu_stream *s, struct msghdr *m)
{
	struct cmsghdr *h = CMSG_FIRSTHDR(m);

	if (!h)
		return 0;
	if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS ||
	    h->cmsg_len != CMSG_LEN(sizeof(int)) || s->next_fd >= 0)
		return err_origin(-EBADMSG);
	memcpy(&s->next_fd, CMSG_DATA(h), sizeof(int));
	return 0;
}

/* One descriptor at a time: the kernel ends a read behind the byte it came with. */
static int receive(struct criu_stream *s, bool *ret_end)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	uint8_t *room = buf_reserve(&s->in, REQUEST_MAX);
	struct iovec iov = { room, REQUEST_MAX };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	ssize_t n;

	*ret_end = false;
	if (!room)
		return err_origin(-ENOMEM);
	n = recvmsg(s->peer.fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n < 0 && errno != ECONNRESET)
		return err_origin(-errno);
	if (n <= 0) {
		*ret_end = true;
		return 0;
	}
	s->in.len += n;
	return take_fd(s, &m);
}

static void on_request(struct env_fd *watch, unsigned events)
{
	struct criu_stream *s = container_of(watch, struct criu_stream, peer);
	bool end, bad = false;
	size_t len;
	int r = receive(s, &end);

	while (r == 0 && request_is_whole(s, &len, &bad))
		r = take_request(s, len);
	if (r < 0 || bad)
		return problem(s, "criu does not speak as an image streamer's client");
	if (!end)
		return;
	env_unwatch(s->env, &s->peer);
	s->peer.fd = close_fd(s->peer.fd);
	s->ended = true;
	maybe_over(s);
}

static void on_connection(struct env_fd *watch, unsigned events)
{
	struct criu_stream *s = container_of(watch, struct criu_stream, peer);
	int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	env_unwatch(s->env, &s->peer);
	close_fd(s->peer.fd);
	s->peer = (struct env_fd){ .cb = on_request, .fd = fd };
	s->connected = true;
	if (env_watch(s->env, &s->peer, ENV_READ) < 0)
		problem(s, "out of memory");
}

void criu_stream_pause(struct criu_stream *s, bool pause)
{
	if (!s || s->stopped || s->paused == pause)
		return;
	s->paused = pause;
	for (struct pipe *p = s->pipes; p; p = p->next) {
		if (pause)
			env_unwatch(s->env, &p->watch);
		else if (env_watch(s->env, &p->watch, ENV_READ) < 0)
			return problem(s, "out of memory");
	}
}

static int listen_in(int dir_fd, int *ret)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	/* The directory's own path may be too long, and another's in the space. */
	(void)snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/" SOCKET_FILE, dir_fd);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 1) < 0)
		return err_origin(-errno);
	*ret = TAKE_FD(fd);
	return 0;
}

int criu_stream_new(struct criu_stream **ret, const struct env *env, int dir_fd,
		    const struct image_sink *sink, criu_stream_cb on_over, void *owner)
{
	struct criu_stream *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_origin(-ENOMEM);
	*s = (struct criu_stream){ .env = env, .sink = *sink, .on_over = on_over, .owner = owner,
				   .next_fd = -1, .chunk = malloc(CHUNK) };
	s->peer = (struct env_fd){ .cb = on_connection, .fd = -1 };
	r = s->chunk ? listen_in(dir_fd, &s->peer.fd) : err_origin(-ENOMEM);
	if (r == 0)
		r = env_watch(env, &s->peer, ENV_READ);
	if (r < 0) {
		criu_stream_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

struct criu_stream *criu_stream_free(struct criu_stream *s)
{
	if (!s)
		return NULL;
	criu_stream_stop(s);
	buf_fini(&s->in);
	free(s->chunk);
	free(s);
	return NULL;
}
