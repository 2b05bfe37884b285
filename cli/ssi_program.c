/*
 * A child in a process group of its own, writing to a pipe.  Only the end of what it
 * writes is kept, so it may write what it likes.
 */
#include "ssi_program.h"

#include "cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

enum { STATUS_NO_PROGRAM = 127 };

/* The last line so far, and whether the next byte begins a new one. */
struct tail {
	char *line;
	size_t size, len;
	bool ended;
};

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void tail_add(struct tail *t, const char *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)bytes[i];

		if (c == '\n') {
			t->ended = true;
			continue;
		}
		if (t->ended)
			t->len = 0;
		t->ended = false;
		/* It goes to a terminal. */
		if (t->len + 1 < t->size)
			t->line[t->len++] = c < 0x20 || c == 0x7f ? ' ' : (char)c;
		t->line[t->len] = '\0';
	}
}

static _Noreturn void child(int out, int (*function)(void *), void *argument)
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	(void)setpgid(0, 0);
	if (null < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
		_exit(STATUS_NO_PROGRAM);
	exit(function(argument));
}

/* Until end of file or the deadline; false: the latter. */
static bool gather(int fd, uint64_t deadline, struct tail *t)
{
	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		uint64_t now = now_ms();
		char bytes[4096];
		ssize_t n;
		int r;

		if (now >= deadline)
			return false;
		r = poll(&p, 1, (int)(deadline - now));
		if (r == 0 || (r < 0 && errno == EINTR))
			continue;
		n = r < 0 ? -1 : read(fd, bytes, sizeof(bytes));
		if (n <= 0)
			return true;
		tail_add(t, bytes, (size_t)n);
	}
}

/* It may close its streams and go on. */
static bool await_end(pid_t pid, uint64_t deadline)
{
	_cleanup_close_ int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	for (uint64_t now = now_ms(); pidfd >= 0 && now < deadline; now = now_ms())
		if (poll(&p, 1, (int)(deadline - now)) > 0)
			return true;
	return false;
}

int program_ask_function(int (*function)(void *argument), void *argument, uint64_t timeout_ms,
			 char *ret_line, size_t size)
{
	_cleanup_close_ int in = -1, out = -1;
	struct tail t = { .line = ret_line, .size = size };
	const uint64_t deadline = now_ms() + timeout_ms;
	int ends[2], status;
	bool in_time;
	pid_t pid;

	ret_line[0] = '\0';
	if (pipe2(ends, O_CLOEXEC) < 0)
		return PROGRAM_ABSENT;
	in = ends[0];
	out = ends[1];
	(void)fflush(NULL);
	pid = fork();
	if (pid < 0)
		return PROGRAM_ABSENT;
	if (pid == 0)
		child(out, function, argument);
	out = close_fd(out);
	(void)setpgid(pid, pid);
	in_time = gather(in, deadline, &t) && await_end(pid, deadline);
	/* What it started and left behind goes as well; it is a zombie at the least. */
	if (!in_time)
		(void)kill(-pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return PROGRAM_CRASHED;
	if (!in_time)
		return PROGRAM_TIMEOUT;
	return WIFEXITED(status) ? WEXITSTATUS(status) : PROGRAM_CRASHED;
}

static int exec_program(void *argument)
{
	static char *const environment[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C",
					     NULL };
	char *const *argv = argument;

	(void)execve(argv[0], argv, environment);
	return STATUS_NO_PROGRAM;
}

int program_ask(const char *const *argv, uint64_t timeout_ms, char *ret_line, size_t size)
{
	if (access(argv[0], X_OK) < 0)
		return PROGRAM_ABSENT;
	return program_ask_function(exec_program, (void *)argv, timeout_ms, ret_line, size);
}
