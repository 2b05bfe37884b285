/*
 * Happy path: criu connects to lazy-pages.socket and sends the userfaultfd of the
 * process that it restores, before it registers the process's memory there; the pages
 * are copied in whether somebody waits for them or not.
 *
 * Failure modes: where nothing is registered yet, or the process is being changed, it
 * is too early; anything else is an error.  A page that is there already is one: nobody
 * else puts any there.
 */
#include "pages.h"

#include "cleanup.h"
#include "err.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#define SOCKET_FILE "lazy-pages.socket"

struct pages_placer {
	const struct env *env;
	struct env_fd peer; /* listening, then connected */
	int uffd;
	bool over;
};

bool pages_may_be_placed(void)
{
	_cleanup_close_ int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	return fd >= 0;
}

int pages_placer_new(struct pages_placer **ret, const struct env *env)
{
	struct pages_placer *p = calloc(1, sizeof(*p));

	if (!p)
		return err_origin(-ENOMEM);
	*p = (struct pages_placer){.env = env, .peer = {.fd = -1}, .uffd = -1};
	*ret = p;
	return 0;
}

static void hang_up(struct pages_placer *p)
{
	env_unwatch(p->env, &p->peer);
	p->peer.fd = close_fd(p->peer.fd);
}

void pages_placer_end(struct pages_placer *p)
{
	p->over = true;
	p->uffd = close_fd(p->uffd);
}

struct pages_placer *pages_placer_free(struct pages_placer *p)
{
	if (!p)
		return NULL;
	hang_up(p);
	close_fd(p->uffd);
	free(p);
	return NULL;
}

/* The PID, a byte with the descriptor, an end mark: of one process only the descriptor
 * matters. */
static void on_talk(struct env_fd *watch, unsigned events)
{
	struct pages_placer *p = container_of(watch, struct pages_placer, peer);
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	char bytes[64];
	struct iovec iov = {bytes, sizeof(bytes)};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = &control,
			   .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(watch->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *h = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS) {
		close_fd(p->uffd);
		memcpy(&p->uffd, CMSG_DATA(h), sizeof(p->uffd));
		if (p->over)
			p->uffd = close_fd(p->uffd);
	}
	if (n <= 0)
		hang_up(p);
}

static void on_connection(struct env_fd *watch, unsigned events)
{
	struct pages_placer *p = container_of(watch, struct pages_placer, peer);
	int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	hang_up(p);
	p->peer = (struct env_fd){.cb = on_talk, .fd = fd};
	if (env_watch(p->env, &p->peer, ENV_READ) < 0)
		hang_up(p);
}

int pages_placer_listen(struct pages_placer *p, int dir_fd)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int r;

	p->peer = (struct env_fd){
		.cb = on_connection,
		.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
	/* The directory's own path may be too long, and another's in the space. */
	(void)snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/" SOCKET_FILE,
		       dir_fd);
	if (p->peer.fd < 0 || bind(p->peer.fd, (struct sockaddr *)&a, sizeof(a)) < 0 ||
	    listen(p->peer.fd, 1) < 0)
		r = err_origin(-errno);
	else
		r = env_watch(p->env, &p->peer, ENV_READ);
	if (r < 0)
		p->peer.fd = close_fd(p->peer.fd);
	return r;
}

/* Bytes that were placed, which may be fewer; or < 0. */
static ssize_t copy(int uffd, uint64_t at, const uint8_t *data, size_t len)
{
	struct uffdio_copy c = {.dst = at, .src = (uintptr_t)data, .len = len};

	if (ioctl(uffd, UFFDIO_COPY, &c) == 0)
		return (ssize_t)len;
	return c.copy > 0 ? (ssize_t)c.copy : -errno;
}

int pages_place(struct pages_placer *p, const struct pages_run *runs, size_t n_runs,
		const uint8_t *data, size_t *io_done)
{
	size_t start = 0; /* of the run, in @data */

	if (p->uffd < 0)
		return PAGES_E_EARLY;
	for (size_t i = 0; i < n_runs; start += runs[i++].len)
		while (*io_done < start + runs[i].len) {
			ssize_t n =
				copy(p->uffd, runs[i].at + (*io_done - start),
				     data + *io_done, start + runs[i].len - *io_done);

			if (n == -ENOENT || n == -EAGAIN)
				return PAGES_E_EARLY;
			if (n < 0)
				return err_origin((int)n);
			*io_done += (size_t)n;
		}
	return 0;
}
