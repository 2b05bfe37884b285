/*
 * How long kill() takes.
 *
 * usage: signals N PID
 *
 * Prints the median of N signals that PID ignores, in microseconds.
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
	size_t n = argc > 2 ? strtoul(argv[1], NULL, 10) : 0;
	double *took = calloc(n + 1, sizeof(*took));

	if (!n || !took)
		return 2;
	for (size_t i = 0; i < n; i++) {
		double began = now();

		if (kill(atoi(argv[2]), SIGURG) < 0) {
			perror("signals");
			return EXIT_FAILURE;
		}
		took[i] = now() - began;
	}
	qsort(took, n, sizeof(*took), by_size);
	printf("%.2f\n", took[n / 2]);
	free(took);
	return EXIT_SUCCESS;
}
