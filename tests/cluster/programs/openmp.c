/* openmp [N]: work on shared memory with a team of threads, and print a line a step: N
 * of them, or until input ends. */
#include <inttypes.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { N_WORDS = 1 << 18 };

static uint64_t words[N_WORDS];

static int input_has_ended(void)
{
	struct pollfd input = {.fd = 0, .events = POLLIN};
	char c;

	return poll(&input, 1, 0) == 1 && fread(&c, 1, 1, stdin) == 0;
}

int main(int argc, char **argv)
{
	long n = argc > 1 ? strtol(argv[1], NULL, 10) : 0;

	for (long step = 1; n ? step <= n : !input_has_ended(); step++) {
		uint64_t sum = 0;

#pragma omp parallel for num_threads(4) schedule(dynamic, 1024) reduction(+ : sum)
		for (int i = 0; i < N_WORDS; i++) {
			uint64_t x = words[i] + (uint64_t)i + (uint64_t)step;

			for (int k = 0; k < 16; k++) {
				x ^= x << 13;
				x ^= x >> 7;
				x ^= x << 17;
			}
			words[i] = x;
			sum += x;
		}
		printf("step %ld sum %" PRIu64 "\n", step, sum);
		(void)fflush(stdout);
	}
	return 0;
}
