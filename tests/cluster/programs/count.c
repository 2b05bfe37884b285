/*
 * count N MICROSECONDS STATUS [FILE]: write the numbers from 1 to N to standard output,
 * and to FILE, which stays open, each after a pause; exit STATUS.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static void put(int fd, const char *line, int len)
{
	for (int at = 0; at < len;) {
		ssize_t n = write(fd, line + at, len - at);

		if (n < 0) {
			perror("count: write");
			exit(99);
		}
		at += n;
	}
}

int main(int argc, char **argv)
{
	struct timespec pause;
	int fd = -1;

	if (argc < 4)
		return 2;
	pause.tv_sec = atol(argv[2]) / 1000000;
	pause.tv_nsec = atol(argv[2]) % 1000000 * 1000;
	if (argc > 4)
		fd = open(argv[4], O_WRONLY | O_CREAT | O_TRUNC, 0666);
	for (int i = 1; i <= atoi(argv[1]); i++) {
		char line[32];
		int len = snprintf(line, sizeof(line), "%d\n", i);

		put(1, line, len);
		if (fd >= 0)
			put(fd, line, len);
		nanosleep(&pause, NULL);
	}
	return atoi(argv[3]);
}
