/*
 * How long commands take, from fork() to their end.  They take turns, so that what else
 * the machine does meets all of them.
 *
 * usage: spawn N COMMAND [ARGUMENT]... [-- COMMAND [ARGUMENT]...]...
 *
 * Prints the median of each in microseconds, a line each.
 */
#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { COMMANDS_MAX = 8 };

extern char **environ;

static uint64_t now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint64_t run(char **argv)
{
	uint64_t began = now();
	int status;
	pid_t pid;

	if (posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ) != 0 ||
	    waitpid(pid, &status, 0) != pid || status != 0) {
		(void)fprintf(stderr, "spawn: %s failed\n", argv[0]);
		exit(EXIT_FAILURE);
	}
	return now() - began;
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
	size_t n = argc > 2 ? strtoul(argv[1], NULL, 10) : 0, n_commands = 0;
	uint64_t *took[COMMANDS_MAX];
	char **commands[COMMANDS_MAX];

	if (!n)
		return 2;
	for (char **at = argv + 2; *at && n_commands < COMMANDS_MAX;) {
		took[n_commands] = calloc(n, sizeof(uint64_t));
		commands[n_commands++] = at;
		while (*at && strcmp(*at, "--") != 0)
			at++;
		if (*at)
			*at++ = NULL;
	}
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < n_commands; k++)
			took[k][i] = run(commands[k]);
	for (size_t k = 0; k < n_commands; k++) {
		qsort(took[k], n, sizeof(uint64_t), by_size);
		printf("%llu\n", (unsigned long long)took[k][n / 2]);
		free(took[k]);
	}
	return EXIT_SUCCESS;
}
