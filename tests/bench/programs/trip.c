/*
 * Round trips of 64 bytes over plain TCP.
 *
 * usage: trip ADDRESS PORT		the server: serves one client, then ends
 *        trip ADDRESS PORT N		the client: prints the median in microseconds
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 64 };

static double now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void die(const char *what)
{
	perror(what);
	exit(EXIT_FAILURE);
}

static void serve(int fd, const struct sockaddr_in *a)
{
	char data[SIZE];
	int one = 1;

	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (const struct sockaddr *)a, sizeof(*a)) < 0 || listen(fd, 1) < 0)
		die("listen");
	fd = accept(fd, NULL, NULL);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	while (recv(fd, data, SIZE, MSG_WAITALL) == SIZE)
		if (write(fd, data, SIZE) != SIZE)
			break;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void measure(int fd, const struct sockaddr_in *a, size_t n)
{
	double *trips = calloc(n, sizeof(*trips));
	char data[SIZE] = "";
	int one = 1;

	if (!trips || connect(fd, (const struct sockaddr *)a, sizeof(*a)) < 0)
		die("connect");
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	for (size_t i = 0; i < n; i++) {
		double began = now();

		if (write(fd, data, SIZE) != SIZE ||
		    recv(fd, data, SIZE, MSG_WAITALL) != SIZE)
			die("round trip");
		trips[i] = now() - began;
	}
	qsort(trips, n, sizeof(*trips), by_size);
	printf("%.1f\n", trips[n / 2]);
	free(trips);
}

int main(int argc, char **argv)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (argc < 3 || inet_pton(AF_INET, argv[1], &a.sin_addr) != 1)
		return 2;
	a.sin_port = htons((uint16_t)atoi(argv[2]));
	if (argc == 3)
		serve(fd, &a);
	else
		measure(fd, &a, strtoul(argv[3], NULL, 10));
	return EXIT_SUCCESS;
}
