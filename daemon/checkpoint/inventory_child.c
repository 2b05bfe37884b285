#include "inventory_internal.h"

#include "err.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/*
 * A question that may hang (a path on a dead server) or that needs another's
 * rights is asked by a short-lived copy of ours, killed when it is late.
 *
 * A raw clone3(): no atfork handlers, and exit signal 0, so that neither the loop's
 * SIGCHLD nor anybody's waitpid(-1) sees it.  The copy of a process with threads may
 * only make system calls.  It dies with the thread that asked, and cannot be dumped.
 */

static uint64_t now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

static int collect(int fd, nsec_t timeout, size_t max, struct buf *b)
{
	uint64_t deadline = now() + timeout;

	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		uint64_t at = now();
		uint8_t *to;
		ssize_t n;

		if (at >= deadline)
			return err_origin(-ETIMEDOUT);
		if (poll(&p, 1, (int)((deadline - at) / NSEC_PER_MSEC) + 1) < 0 &&
		    errno != EINTR)
			return err_origin(-errno);
		if (!p.revents)
			continue;
		to = buf_reserve(b, 4096);
		if (!to)
			return err_origin(-ENOMEM);
		n = read(fd, to, 4096);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_origin(-errno);
		if (!n)
			return 0;
		b->len += n;
		if (b->len > max)
			return err_origin(-E2BIG);
	}
}

int child_ask(void (*child)(void *argument, int out_fd), void *argument, nsec_t timeout,
	      size_t max, struct buf *ret)
{
	_cleanup_close_ int in = -1, out = -1, pidfd = -1;
	_cleanup_buf_ struct buf b = {0};
	struct clone_args args = {.flags = CLONE_PIDFD, .pidfd = (uintptr_t)&pidfd};
	siginfo_t info = {0};
	int pipe_fds[2], r, w;
	long pid;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return err_origin(-errno);
	in = pipe_fds[0];
	out = pipe_fds[1];
	pid = syscall(SYS_clone3, &args, sizeof(args));
	if (pid < 0)
		return err_origin(-errno);
	if (!pid) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)prctl(PR_SET_DUMPABLE, 0);
		child(argument, out);
		_exit(0);
	}
	out = close_fd(out);
	r = collect(in, timeout, max, &b);
	if (r < 0)
		(void)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
	do
		w = waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | __WALL);
	while (w < 0 && errno == EINTR);
	if (r < 0)
		return r;
	if (w < 0)
		return err_origin(-errno);
	if (info.si_code != CLD_EXITED || info.si_status)
		return err_origin(-EIO);
	*ret = b;
	b = (struct buf){0};
	return 0;
}

void child_write(int out_fd, const void *data, size_t len)
{
	const char *p = data;

	while (len) {
		ssize_t n = write(out_fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			_exit(1);
		p += n;
		len -= n;
	}
}
