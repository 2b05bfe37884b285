/*
 * stamp FILE: append "NODE T" to FILE every 5 ms, for ever, where T is CLOCK_REALTIME in ns just
 * before the write: the times at which this process ran.
 */
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	static const struct timespec pause = {.tv_nsec = 5000000};
	char node[64] = "", line[128];

	if (argc != 2)
		return 2;
	for (;;) {
		/* Opened anew: nothing of it is open when it is moved or saved. */
		int fd = open(argv[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
		struct timespec t;
		int len;

		gethostname(node, sizeof(node) - 1);
		clock_gettime(CLOCK_REALTIME, &t);
		len = snprintf(line, sizeof(line), "%s %lld%09ld\n", node, (long long)t.tv_sec,
			       t.tv_nsec);
		if (fd < 0 || write(fd, line, len) != len)
			return 1;
		close(fd);
		nanosleep(&pause, NULL);
	}
}
