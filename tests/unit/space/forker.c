/*
 * What a node with few PIDs must bear: forks, threads, many at once, until there are none.
 * It ends with 0 if every number was of test_pids.c's blocks.
 *
 *   forker storm|crowd|fill COUNT
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FIRST = 1048576, LONG = 65536, SHORT = 2048 };

static __attribute__((noinline)) pid_t fork_once(void)
{
	pid_t pid = vfork();

	if (pid == 0)
		_exit(0);
	return pid;
}

static bool is_ours(pid_t pid)
{
	return (pid >= FIRST && pid < FIRST + SHORT + 2 * LONG) ||
	       (pid >= 2 * FIRST && pid < 2 * FIRST + SHORT);
}

static void *thread(void *ret)
{
	*(pid_t *)ret = (pid_t)syscall(SYS_gettid);
	return NULL;
}

/* Eight at once, so that several are between asking and having a number. */
static int storm(int n)
{
	pid_t pid, tid = 0;
	pthread_t t;
	int status, bad = 0;

	for (int i = 0; i < 7 && fork(); i++)
		;
	while (n-- && !bad) {
		pid = fork_once();
		if (pid < 0)
			return 10 + errno;
		if (!is_ours(pid))
			return 2;
		if (waitpid(pid, NULL, 0) != pid)
			return 4;
		if (n % 8)
			continue;
		if (pthread_create(&t, NULL, thread, &tid) || pthread_join(t, NULL) || !is_ours(tid))
			return 3;
	}
	while (wait(&status) > 0)
		bad |= status != 0;
	return bad;
}

static pid_t born[8192];

/* @n that have each forked, and wait. */
static int crowd(int n)
{
	int bad = 0;

	for (int i = 0; i < n; i++) {
		born[i] = fork();
		if (born[i] == 0) {
			pid_t pid = fork_once();

			(void)waitpid(pid, NULL, 0);
			if (is_ours(pid))
				(void)pause();
			_exit(1);
		}
		bad |= !is_ours(born[i]);
	}
	for (int i = 0; i < 20 && !bad; i++) {
		pid_t pid = fork_once();

		bad |= !is_ours(pid) || waitpid(pid, NULL, 0) != pid;
	}
	for (int i = 0; i < n; i++) {
		int status;

		if (born[i] > 0) {
			(void)kill(born[i], SIGKILL);
			bad |= waitpid(born[i], &status, 0) != born[i] || !WIFSIGNALED(status);
		}
	}
	return bad;
}

/* Until there are no more: a good part, and all ours. */
static int fill(int n)
{
	int i, bad = 0;

	for (i = 0; i < n; i++) {
		born[i] = fork();
		if (born[i] == 0) {
			(void)pause();
			_exit(0);
		}
		if (born[i] < 0)
			break;
		bad |= !is_ours(born[i]);
	}
	bad |= i < SHORT / 2 || i >= 2 * SHORT || errno != EAGAIN;
	while (i--) {
		(void)kill(born[i], SIGKILL);
		bad |= waitpid(born[i], NULL, 0) != born[i];
	}
	return bad;
}

int main(int argc, char **argv)
{
	int n = argc == 3 ? atoi(argv[2]) : 0;

	if (n > (int)(sizeof(born) / sizeof(*born)) && strcmp(argv[1], "storm") != 0)
		return 4;
	if (n && strcmp(argv[1], "storm") == 0)
		return storm(n);
	if (n && strcmp(argv[1], "crowd") == 0)
		return crowd(n);
	if (n && strcmp(argv[1], "fill") == 0)
		return fill(n);
	return 4;
}
