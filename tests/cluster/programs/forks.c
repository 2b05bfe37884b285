/*
 * forks storm COUNT: eight processes fork COUNT times each, and make a thread now and then.
 * Prints "LOWEST HIGHEST FAILED" of their numbers; exit 1 if a fork failed.
 *
 * forks fill COUNT: fork until they are COUNT, or it fails for a second; print how many they
 * are, and wait.
 *
 * forks step FILE: fork every 20 ms, and write the child's number to FILE.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static struct seen {
	_Atomic int lowest, highest, failed;
} *seen;

static void note(int number)
{
	int old = atomic_load(&seen->lowest);

	while (number < old && !atomic_compare_exchange_weak(&seen->lowest, &old, number))
		;
	old = atomic_load(&seen->highest);
	while (number > old && !atomic_compare_exchange_weak(&seen->highest, &old, number))
		;
}

static void *thread(void *unused)
{
	note((int)syscall(SYS_gettid));
	return unused;
}

static void fork_once(int step)
{
	pthread_t t;
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	if (pid < 0 || (step % 16 == 0 && pthread_create(&t, NULL, thread, NULL))) {
		atomic_fetch_add(&seen->failed, 1);
		return;
	}
	note(pid);
	(void)waitpid(pid, NULL, 0);
	if (step % 16 == 0)
		(void)pthread_join(t, NULL);
}

static int storm(int n)
{
	for (int i = 0; i < 8; i++)
		if (fork() == 0) {
			note(getpid());
			for (int step = 0; step < n; step++)
				fork_once(step);
			_exit(0);
		}
	while (wait(NULL) > 0)
		;
	printf("%d %d %d\n", seen->lowest, seen->highest, seen->failed);
	return seen->failed != 0;
}

static int step(const char *path)
{
	FILE *f = fopen(path, "ae");

	while (f) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(0);
		(void)fprintf(f, "%d\n", pid);
		(void)fflush(f);
		(void)waitpid(pid, NULL, 0);
		(void)usleep(20000);
	}
	return 1;
}

static int fill(int n)
{
	int i = 0;

	for (int failed = 0; i < n && failed < 20;) {
		pid_t pid = fork();

		if (pid == 0)
			(void)pause();
		i += pid > 0;
		failed = pid > 0 ? 0 : failed + 1;
		if (failed)
			(void)usleep(50000);
	}
	printf("%d\n", i);
	(void)fflush(stdout);
	return pause();
}

int main(int argc, char **argv)
{
	seen = mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (argc != 3 || seen == MAP_FAILED)
		return 2;
	seen->lowest = 1 << 30;
	if (strcmp(argv[1], "storm") == 0)
		return storm(atoi(argv[2]));
	return strcmp(argv[1], "fill") == 0 ? fill(atoi(argv[2])) : step(argv[2]);
}
