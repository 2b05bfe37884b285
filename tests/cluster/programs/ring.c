/* ring [N]: ranks of MPI hand each other what they have, and rank 0 prints a line a
 * step: N of them, or until its input ends. */
#include <inttypes.h>
#include <mpi.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { N_WORDS = 1 << 14 };

static int input_has_ended(void)
{
	struct pollfd input = {.fd = 0, .events = POLLIN};
	char c;

	return poll(&input, 1, 0) == 1 && fread(&c, 1, 1, stdin) == 0;
}

static uint64_t work(const uint64_t *others, uint64_t *mine, uint64_t seed)
{
	uint64_t sum = 0;

	for (int i = 0; i < N_WORDS; i++) {
		uint64_t x = others[i] + (uint64_t)i + seed;

		for (int k = 0; k < 16; k++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
		}
		mine[i] = x;
		sum += x;
	}
	return sum;
}

int main(int argc, char **argv)
{
	static uint64_t mine[N_WORDS], others[N_WORDS];
	long n = argc > 1 ? strtol(argv[1], NULL, 10) : 0;
	int rank, size, goes_on = 1;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &size);
	for (long step = 1;; step++) {
		uint64_t sum, total;

		if (rank == 0)
			goes_on = n ? step <= n : !input_has_ended();
		MPI_Bcast(&goes_on, 1, MPI_INT, 0, MPI_COMM_WORLD);
		if (!goes_on)
			break;
		MPI_Sendrecv(mine, N_WORDS, MPI_UINT64_T, (rank + 1) % size, 0, others,
			     N_WORDS, MPI_UINT64_T, (rank + size - 1) % size, 0,
			     MPI_COMM_WORLD, MPI_STATUS_IGNORE);
		sum = work(others, mine, (uint64_t)(rank + step));
		MPI_Reduce(&sum, &total, 1, MPI_UINT64_T, MPI_SUM, 0, MPI_COMM_WORLD);
		if (rank == 0) {
			printf("step %ld sum %" PRIu64 "\n", step, total);
			(void)fflush(stdout);
		}
	}
	MPI_Finalize();
	return 0;
}
