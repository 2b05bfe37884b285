/* Peers that are not of the cluster, or do not behave. */
#include "transport_fixture.h"
#include "transport_wire.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

static struct fixture_node a, b;
static int saved_stderr, log_fds[2];

/* What is logged goes into a pipe, to be counted. */
static int setup(void **state)
{
	node_open(&a, 0, 1);
	node_open(&b, 0, 2);
	saved_stderr = dup(STDERR_FILENO);
	if (pipe2(log_fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return -1;
	return dup2(log_fds[1], STDERR_FILENO) < 0;
}

static int teardown(void **state)
{
	(void)dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	close(log_fds[0]);
	close(log_fds[1]);
	node_close(&a);
	node_close(&b);
	return 0;
}

/* The lines logged since the last call; the last of them in @ret. */
static unsigned logged(char ret[static 1024])
{
	char text[65536], *p = text, *end;
	ssize_t n = read(log_fds[0], text, sizeof(text) - 1);
	unsigned lines = 0;

	text[n < 0 ? 0 : n] = '\0';
	for (; (end = strchr(p, '\n')); p = end + 1) {
		(void)snprintf(ret, 1024, "%.*s", (int)(end - p), p);
		lines++;
	}
	return lines;
}

static const char node_alpn[] = "\x05ssi/1";

static struct stranger stranger(const void *data, size_t len)
{
	return (struct stranger){.address = a.address, .data = data, .len = len};
}

static struct stranger tls_stranger(unsigned cluster, node_id id)
{
	return (struct stranger){.address = a.address,
				 .tls = true,
				 .alpn = node_alpn,
				 .cluster = cluster,
				 .id = id};
}

/* It gets nothing, soon, and a line says why. */
static void assert_refused(struct stranger *s, const char *reason)
{
	char line[1024] = "";

	stranger_start(s);
	stranger_wait(s);
	run_for(20 * NSEC_PER_MSEC);
	assert_int_equal(s->n_received, 0);
	assert_true(s->took < 2 * NSEC_PER_SEC);
	assert_int_equal(a.n_up + a.n_down, 0);
	assert_int_equal(logged(line), 1);
	assert_non_null(strstr(line, "127.0.0.1 was refused"));
	if (!strstr(line, reason))
		fail_msg("\"%s\" does not say \"%s\"", line, reason);
}

static void a_peer_of_another_cluster_is_refused(void **state)
{
	struct stranger s = tls_stranger(1, 2);

	assert_refused(&s, "its certificate is not of this cluster");
}

static void a_peer_without_a_certificate_is_refused(void **state)
{
	struct stranger s = tls_stranger(0, 0);

	assert_refused(&s, "it has no certificate");
}

static void a_peer_of_another_protocol_is_refused(void **state)
{
	struct stranger s = tls_stranger(0, 2);

	s.alpn = "\x02h2";
	assert_refused(&s, "it speaks another version of the protocol");
}

static void a_peer_that_names_no_protocol_is_refused(void **state)
{
	struct stranger s = tls_stranger(0, 2);

	s.alpn = NULL;
	assert_refused(&s, "it has no certificate of this cluster");
}

static void a_peer_of_an_older_tls_is_refused(void **state)
{
	struct stranger s = tls_stranger(0, 2);

	s.old = true;
	assert_refused(&s, "unsupported protocol");
}

static void a_peer_with_our_own_certificate_is_refused(void **state)
{
	struct stranger s = tls_stranger(0, 1);

	assert_refused(&s, "it says that it is this node");
}

static void another_clusters_server_is_refused(void **state)
{
	struct fixture_node foreign;
	struct transport_link *l;

	node_open(&foreign, 1, 2);
	assert_int_equal(node_connect(&a, 2, foreign.address, &l), 0);
	run_until(&a.n_down, 1);
	assert_string_equal(a.reason, "its certificate is not of this cluster");
	assert_int_equal(a.n_up, 0);
	run_for(20 * NSEC_PER_MSEC);
	assert_int_equal(foreign.n_up + foreign.n_down, 0);
	node_close(&foreign);
}

static void garbage_is_refused_and_logged_once(void **state)
{
	static uint8_t endless[1 << 20];
	static const char http[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
	struct stranger s;
	char line[1024];

	s = stranger(http, sizeof(http) - 1);
	stranger_start(&s);
	stranger_wait(&s);
	assert_true(s.took < 2 * NSEC_PER_SEC);
	for (unsigned i = 0; i < 20; i++) {
		memset(endless, (int)i, sizeof(endless));
		s = stranger(endless, sizeof(endless));
		stranger_start(&s);
		stranger_wait(&s);
		assert_true(s.took < 2 * NSEC_PER_SEC);
	}
	run_for(20 * NSEC_PER_MSEC);
	assert_int_equal(logged(line), 1);
	assert_int_equal(a.n_up + a.n_down, 0);
}

/* A ClientHello that says it is 16 MiB long, in records that go on and on. */
static void an_endless_hello_is_refused(void **state)
{
	static uint8_t hello[400 * 16389];
	struct stranger s = stranger(hello, sizeof(hello));

	for (unsigned i = 0; i < 400; i++)
		memcpy(hello + i * 16389,
		       "\x16\x03\x01\x40\x00\x01\xff\xff\xff\x03\x03", 11);
	stranger_start(&s);
	stranger_wait(&s);
	assert_true(s.took < 2 * NSEC_PER_SEC);
	assert_int_equal(a.n_up + a.n_down, 0);
}

static void who_is_silent_or_slow_has_five_seconds_and_hinders_nobody(void **state)
{
	static const uint8_t hello[] = {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3};
	static uint8_t slow[1000];
	struct stranger s[] = {
		stranger(NULL, 0),
		stranger(hello, sizeof(hello)),
		stranger(slow, sizeof(slow)),
		tls_stranger(0, 0),
	};
	struct transport_frame f = {.kind = TRANSPORT_NOTIFY};

	memcpy(slow, hello, sizeof(hello));
	s[2].pause = 20 * NSEC_PER_MSEC; /* slowloris */
	s[3].alpn = "\x0assi-join/1";	 /* shakes hands, and asks nothing */
	for (unsigned i = 0; i < N_ELEMENTS(s); i++)
		stranger_start(&s[i]);
	nodes_link(&b, &a, 1);
	assert_int_equal(node_send(&b, b.links[0], &f), 0);
	run_until(&a.n_frames, 1);
	for (unsigned i = 0; i < N_ELEMENTS(s); i++) {
		stranger_wait(&s[i]);
		assert_in_range(s[i].took / NSEC_PER_MSEC, 4900, 8000);
	}
	assert_int_equal(a.n_down, 0);
	assert_int_equal(node_send(&b, b.links[0], &f), 0);
	run_until(&a.n_frames, 2);
}

static int connect_from(const char *from)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in at = {.sin_family = AF_INET};

	at.sin_addr.s_addr = inet_addr(from);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	at.sin_port = htons(transport_tcp_port(a.tcp));
	assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	return fd;
}

static bool is_closed(int fd)
{
	char c;

	return recv(fd, &c, 1, MSG_DONTWAIT) >= 0 || errno != EAGAIN;
}

static void strangers_fill_their_own_places_and_not_a_nodes(void **state)
{
	enum { N = 300 };
	unsigned n_open = 0;
	char line[1024];
	int fds[N];

	for (unsigned i = 0; i < N; i++) {
		fds[i] = connect_from("127.0.0.9");
		if (i % 50 == 49) /* the backlog */
			run_for(10 * NSEC_PER_MSEC);
	}
	run_for(20 * NSEC_PER_MSEC);
	for (unsigned i = 0; i < N; i++)
		n_open += !is_closed(fds[i]);
	assert_int_equal(n_open, 64);
	assert_int_equal(logged(line), 1);
	nodes_link(&b, &a, 1);
	for (unsigned i = 0; i < N; i++)
		close(fds[i]);
	run_for(20 * NSEC_PER_MSEC);
}

static void strangers_from_everywhere_are_so_many_and_no_more(void **state)
{
	enum { N = 280 };
	unsigned n_open = 0, lines;
	char from[32], line[1024];
	int fds[N];

	for (unsigned i = 0; i < N; i++) {
		(void)snprintf(from, sizeof(from), "127.0.1.%u", 1 + i % 200);
		fds[i] = connect_from(from);
		if (i % 50 == 49)
			run_for(10 * NSEC_PER_MSEC);
	}
	run_for(20 * NSEC_PER_MSEC);
	for (unsigned i = 0; i < N; i++) {
		n_open += !is_closed(fds[i]);
		close(fds[i]);
	}
	assert_int_equal(n_open, 256);
	run_for(50 * NSEC_PER_MSEC);
	/* Nearly 200 addresses, but so many lines and no more. */
	lines = logged(line);
	assert_in_range(lines, 24, 64);
	nodes_link(&b, &a, 1);
}

/* A node of the cluster that does not behave.  The link comes up, then goes. */
static void assert_broken(const void *data, size_t len, const char *reason)
{
	struct stranger s = tls_stranger(0, 2);
	unsigned before = a.n_down;

	s.data = data;
	s.len = len;
	stranger_start(&s);
	stranger_wait(&s);
	run_until(&a.n_down, before + 1);
	assert_int_equal(a.n_up, a.n_down);
	assert_int_equal(a.down_peer, 2);
	assert_string_equal(a.reason, reason);
	assert_int_equal(s.n_received, 0);
	assert_int_equal(a.n_frames, 0);
}

static void a_node_that_sends_no_frames_is_cut_off(void **state)
{
	struct transport_frame f = {.kind = TRANSPORT_REQUEST};
	uint8_t header[TRANSPORT_HEADER_SIZE], garbage[100];

	memset(garbage, 'g', sizeof(garbage));
	assert_broken(garbage, sizeof(garbage), "it sent what is no frame");
	f.message.iov_len = TRANSPORT_MESSAGE_MAX + 1;
	transport_header_encode(&f, header);
	assert_broken(header, sizeof(header), "it sent what is no frame");
	f.message.iov_len = 0;
	f.bulk.iov_len = UINT32_MAX;
	transport_header_encode(&f, header);
	assert_broken(header, sizeof(header), "it sent what is no frame");
}

static void a_node_that_dies_within_a_frame_tells_nothing_of_it(void **state)
{
	struct transport_frame f = {.kind = TRANSPORT_REQUEST, .bulk.iov_len = 1 << 20};
	struct stranger s = tls_stranger(0, 2);
	uint8_t data[20000] = {0};

	transport_header_encode(&f, data);
	s.data = data;
	s.len = sizeof(data);
	s.hang_up = true;
	stranger_start(&s);
	stranger_wait(&s);
	run_until(&a.n_down, 1);
	assert_int_equal(a.n_frames, 0);
}

int main(void)
{
#define TEST(name_) cmocka_unit_test_setup_teardown(name_, setup, teardown)
	static const struct CMUnitTest tests[] = {
		TEST(a_peer_of_another_cluster_is_refused),
		TEST(a_peer_without_a_certificate_is_refused),
		TEST(a_peer_of_another_protocol_is_refused),
		TEST(a_peer_that_names_no_protocol_is_refused),
		TEST(a_peer_of_an_older_tls_is_refused),
		TEST(a_peer_with_our_own_certificate_is_refused),
		TEST(another_clusters_server_is_refused),
		TEST(garbage_is_refused_and_logged_once),
		TEST(an_endless_hello_is_refused),
		TEST(who_is_silent_or_slow_has_five_seconds_and_hinders_nobody),
		TEST(strangers_fill_their_own_places_and_not_a_nodes),
		TEST(strangers_from_everywhere_are_so_many_and_no_more),
		TEST(a_node_that_sends_no_frames_is_cut_off),
		TEST(a_node_that_dies_within_a_frame_tells_nothing_of_it),
	};

	return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
