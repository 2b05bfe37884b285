/*
 * What a link costs: MB/s and round trips over loopback, beside plain TCP in the
 * same run.  Two processes, one each side, since that is what two nodes are.
 *
 * usage: bench_transport [MiB]
 */
#include "authority.h"
#include "cleanup.h"
#include "env_event.h"
#include "log.h"
#include "transport_tcp.h"

#include <arpa/inet.h>
#include <assert.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

enum { METHOD_SINK = 1, METHOD_ECHO = 2, N_TRIPS = 20000 };
enum { TCP_CHUNK = 256 << 10, PING = 64 };

struct files {
	char dir[64], ca[96], cert[2][96], key[2][96];
};

/* One side of the measured link. */
struct side {
	struct env_event *loop;
	struct transport_tcp *tcp;
	const struct transport *t;
	struct transport_link *link;
	const void *bulk;
	size_t piece, left; /* to send */
	unsigned trips_left;
	nsec_t sent_at, *trips;
	char reason[128];
	bool down;
};

static nsec_t now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (nsec_t)t.tv_sec * NSEC_PER_SEC + (nsec_t)t.tv_nsec;
}

static void put(const char *path, const char *text)
{
	_cleanup_close_ int fd =
		open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		abort();
}

static void make_files(struct files *f)
{
	_cleanup_free_ char *ca = NULL, *ca_key = NULL;

	strcpy(f->dir, "/tmp/bench_transport.XXXXXX");
	if (!mkdtemp(f->dir) || authority_found("bench", &ca, &ca_key) < 0)
		abort();
	snprintf(f->ca, sizeof(f->ca), "%s/ca.pem", f->dir);
	put(f->ca, ca);
	for (unsigned i = 0; i < 2; i++) {
		_cleanup_free_ char *key = NULL, *csr = NULL, *cert = NULL;

		if (authority_request("bench", &key, &csr) < 0 ||
		    authority_sign(ca, ca_key, csr, i + 1, &cert) < 0)
			abort();
		snprintf(f->cert[i], sizeof(f->cert[i]), "%s/%u.pem", f->dir, i);
		snprintf(f->key[i], sizeof(f->key[i]), "%s/%u.key", f->dir, i);
		put(f->cert[i], cert);
		put(f->key[i], key);
	}
}

static void drop_files(const struct files *f)
{
	(void)unlink(f->ca);
	for (unsigned i = 0; i < 2; i++) {
		(void)unlink(f->cert[i]);
		(void)unlink(f->key[i]);
	}
	(void)rmdir(f->dir);
}

/* The link's sides. */

static void on_up(void *owner, struct transport_link *link, node_id peer)
{
	struct side *s = owner;

	s->link = link;
	env_event_stop(s->loop);
}

static void on_down(void *owner, struct transport_link *link, node_id peer,
		    const char *reason)
{
	struct side *s = owner;

	snprintf(s->reason, sizeof(s->reason), "%s", reason);
	s->down = true;
	env_event_stop(s->loop);
}

static void send_more(struct side *s)
{
	while (s->left) {
		struct transport_frame f = {.kind = TRANSPORT_NOTIFY,
					    .method = METHOD_SINK};

		if (s->left <= s->piece) /* the last one is answered */
			f.kind = TRANSPORT_REQUEST;
		f.bulk = (struct iovec){(void *)s->bulk, s->piece};
		if (s->t->ops->send(s->t->impl, s->link, &f) != 0)
			return;
		s->left -= s->left < s->piece ? s->left : s->piece;
	}
}

static void send_ping(struct side *s)
{
	struct transport_frame f = {.kind = TRANSPORT_REQUEST, .method = METHOD_ECHO};

	f.message = (struct iovec){(void *)s->bulk, PING};
	s->sent_at = now();
	if (s->t->ops->send(s->t->impl, s->link, &f) != 0)
		abort();
}

static int on_frame(void *owner, struct transport_link *link,
		    const struct transport_frame *frame)
{
	struct side *s = owner;
	struct transport_frame reply = {.kind = TRANSPORT_REPLY,
					.method = frame->method};

	if (frame->kind == TRANSPORT_REQUEST) {
		reply.message = frame->message;
		return s->t->ops->send(s->t->impl, link, &reply);
	}
	if (frame->kind == TRANSPORT_NOTIFY)
		return 0;
	if (s->trips_left) {
		s->trips[--s->trips_left] = now() - s->sent_at;
		if (s->trips_left)
			send_ping(s);
	}
	if (!s->trips_left)
		env_event_stop(s->loop);
	return 0;
}

static void on_writable(void *owner, struct transport_link *link)
{
	send_more(owner);
}

static void side_init(struct side *s, const struct files *f, unsigned i,
		      const char *address)
{
	static const struct transport_events events = {on_up, on_down, on_frame,
						       on_writable};
	struct transport_tcp_config config = {address, f->ca, f->cert[i], f->key[i],
					      i + 1};

	if (env_event_new(&s->loop) < 0 ||
	    transport_tcp_new(&s->tcp, env_event_env(s->loop), env_event_base(s->loop),
			      &config, &events, s, NULL, NULL) < 0)
		abort();
	s->t = transport_tcp_transport(s->tcp);
}

static void side_fini(struct side *s)
{
	s->tcp = transport_tcp_free(s->tcp);
	s->loop = env_event_free(s->loop);
}

static void serve_link(const struct files *f, int port_fd)
{
	struct side s = {0};
	uint16_t port;

	side_init(&s, f, 1, "127.0.0.1:0");
	port = transport_tcp_port(s.tcp);
	(void)!write(port_fd, &port, sizeof(port));
	while (!s.down)
		(void)env_event_run(s.loop);
	side_fini(&s);
}

/* Plain TCP. */

static void serve_tcp(int listener)
{
	static uint8_t data[TCP_CHUNK];
	_cleanup_close_ int fd = accept(listener, NULL, NULL);
	uint64_t left;
	int one = 1;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	(void)!read(fd, &left, sizeof(left));
	while (left) {
		ssize_t n = read(fd, data, sizeof(data));

		if (n <= 0)
			abort();
		left -= (uint64_t)n;
	}
	(void)!write(fd, "", 1);
	for (unsigned i = 0; i < N_TRIPS; i++)
		if (recv(fd, data, PING, MSG_WAITALL) != PING ||
		    write(fd, data, PING) != PING)
			abort();
}

static int by_size(const void *a, const void *b)
{
	nsec_t x = *(const nsec_t *)a, y = *(const nsec_t *)b;

	return x < y ? -1 : x > y;
}

static void print(const char *what, const char *size, nsec_t took, size_t bytes)
{
	printf("%-14s %8s pieces %8.0f MB/s\n", what, size,
	       (double)bytes / 1e6 / ((double)took / NSEC_PER_SEC));
}

static void print_trips(const char *what, nsec_t *trips)
{
	qsort(trips, N_TRIPS, sizeof(*trips), by_size);
	printf("%-14s round trip: median %.1f us, 99 %% %.1f us\n", what,
	       (double)trips[N_TRIPS / 2] / 1e3,
	       (double)trips[N_TRIPS * 99 / 100] / 1e3);
}

static void measure_tcp(const uint8_t *bulk, size_t bytes, nsec_t *trips)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	_cleanup_close_ int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	_cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(a);
	uint64_t left = bytes;
	uint8_t data[PING];
	nsec_t started;
	int one = 1;
	pid_t pid;

	if (bind(listener, (struct sockaddr *)&a, len) < 0 || listen(listener, 1) < 0 ||
	    getsockname(listener, (struct sockaddr *)&a, &len) < 0)
		abort();
	pid = fork();
	if (pid == 0) {
		serve_tcp(listener);
		_exit(0);
	}
	if (connect(fd, (struct sockaddr *)&a, len) < 0)
		abort();
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	started = now();
	(void)!write(fd, &left, sizeof(left));
	while (left) {
		ssize_t n = write(fd, bulk, left < TCP_CHUNK ? left : TCP_CHUNK);

		if (n <= 0)
			abort();
		left -= (uint64_t)n;
	}
	(void)!read(fd, data, 1);
	print("plain TCP", "256 KiB", now() - started, bytes);
	for (unsigned i = 0; i < N_TRIPS; i++) {
		nsec_t at = now();

		if (write(fd, bulk, PING) != PING ||
		    recv(fd, data, PING, MSG_WAITALL) != PING)
			abort();
		trips[i] = now() - at;
	}
	print_trips("plain TCP", trips);
	(void)waitpid(pid, NULL, 0);
}

static void run(struct side *s)
{
	(void)env_event_run(s->loop);
	if (s->down) {
		fprintf(stderr, "the link went down: %s\n", s->reason);
		exit(EXIT_FAILURE);
	}
}

static void measure_bulk(struct side *s, size_t piece, size_t bytes, const char *size)
{
	nsec_t started = now();

	s->piece = piece;
	s->left = bytes;
	send_more(s);
	run(s);
	print("link (TLS 1.3)", size, now() - started, bytes);
}

static void measure_link(const uint8_t *bulk, size_t bytes, nsec_t *trips)
{
	struct side s = {.bulk = bulk, .trips = trips};
	struct files f;
	char address[64];
	uint16_t port;
	int fds[2];
	pid_t pid;

	make_files(&f);
	if (pipe2(fds, O_CLOEXEC) < 0)
		abort();
	pid = fork();
	if (pid == 0) {
		serve_link(&f, fds[1]);
		_exit(0);
	}
	(void)!read(fds[0], &port, sizeof(port));
	snprintf(address, sizeof(address), "127.0.0.1:%u", port);
	side_init(&s, &f, 0, "127.0.0.1:0");
	if (s.t->ops->connect(s.t->impl, 2, address, &s.link) < 0)
		abort();
	run(&s);
	measure_bulk(&s, 1 << 20, bytes, "1 MiB");
	measure_bulk(&s, 64 << 10, bytes, "64 KiB");
	measure_bulk(&s, 4 << 10, bytes / 4, "4 KiB");
	s.trips_left = N_TRIPS;
	send_ping(&s);
	run(&s);
	print_trips("link (TLS 1.3)", trips);
	side_fini(&s);
	(void)waitpid(pid, NULL, 0);
	close(fds[0]);
	close(fds[1]);
	drop_files(&f);
}

int main(int argc, char **argv)
{
	size_t bytes = (size_t)(argc > 1 ? atoi(argv[1]) : 1024) << 20;
	_cleanup_free_ uint8_t *bulk = malloc(1 << 20);
	_cleanup_free_ nsec_t *trips = calloc(N_TRIPS, sizeof(*trips));

	if (!bulk || !trips || !bytes)
		return EXIT_FAILURE;
	(void)signal(SIGPIPE, SIG_IGN);
	memset(bulk, 0x5a, 1 << 20);
	setlinebuf(stdout);
	measure_tcp(bulk, bytes, trips);
	measure_link(bulk, bytes, trips);
	return EXIT_SUCCESS;
}
