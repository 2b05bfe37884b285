/*
 * A process of a given size that looks at the clock all the time.
 *
 * usage: ticker MIB FILE
 *
 * FILE has its PID and the largest gap between two looks so far, in microseconds.
 * By CLOCK_REALTIME: the other clocks stand still while a process is an image.
 * Its memory is written to and cannot be compressed.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static uint64_t now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static int fill(size_t bytes)
{
	uint64_t x = 88172645463325252ull;
	uint64_t *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return -1;
	for (size_t i = 0; i < bytes / sizeof(*p); i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		p[i] = x;
	}
	return 0;
}

static void tell(int fd, uint64_t gap)
{
	char text[64];
	int n = snprintf(text, sizeof(text), "%10d %20llu\n", getpid(),
			 (unsigned long long)gap);

	if (pwrite(fd, text, (size_t)n, 0) != n)
		exit(EXIT_FAILURE);
}

int main(int argc, char **argv)
{
	struct timespec pause = {.tv_nsec = 200000};
	uint64_t last, largest = 0;
	int fd;

	if (argc != 3)
		return 2;
	/* criu takes nothing that is open outside of the node. */
	(void)close_range(0, ~0u, 0);
	(void)open("/dev/null", O_RDWR);
	(void)dup(0);
	(void)dup(0);
	fd = open(argv[2], O_RDWR | O_CREAT | O_TRUNC, 0666);
	if (fd < 0 || chdir("/") < 0 || fill((size_t)atol(argv[1]) << 20) < 0)
		return EXIT_FAILURE;
	tell(fd, 0);
	last = now();
	for (;;) {
		uint64_t t = now();

		if (t > last + largest) {
			largest = t - last;
			tell(fd, largest);
		}
		last = t;
		(void)nanosleep(&pause, NULL);
	}
}
