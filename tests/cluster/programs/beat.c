/*
 * beat FILE [MEGABYTES]: append "N NODE" to FILE every 20 ms, for ever.  N is counted
 * in memory, so two live copies of one process write a number twice.  With MEGABYTES it
 * has that much memory in use, and takes its time to move.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	static const struct timespec pause = {.tv_nsec = 20000000};
	char node[64] = "", line[128];

	if (argc < 2)
		return 2;
	if (argc > 2) {
		size_t size = strtoul(argv[2], NULL, 10) << 20;
		char *memory = malloc(size);

		for (size_t k = 0; memory && k < size; k += 512)
			*(volatile size_t *)(memory + k) = k * 2654435761u;
	}
	for (unsigned n = 1;; n++) {
		/* Opened anew: nothing of it is open when it is moved. */
		int fd = open(argv[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
		int len;

		gethostname(node, sizeof(node) - 1);
		len = snprintf(line, sizeof(line), "%u %s\n", n, node);
		if (fd < 0 || write(fd, line, len) != len)
			return 1;
		close(fd);
		nanosleep(&pause, NULL);
	}
}
