/* Joining: one request without a certificate, one reply. */
#include "transport_fixture.h"

#include <endian.h>
#include <netinet/in.h>
#include <sys/socket.h>

static struct fixture_node a;

static int setup(void **state)
{
	node_open(&a, 0, 1);
	return 0;
}

static int teardown(void **state)
{
	node_close(&a);
	return 0;
}

/* The joiner blocks, so it has a thread. */
struct joiner {
	const char *address, *request;
	size_t len;
	const uint8_t *fingerprint;
	nsec_t timeout;
	int result;
	uint8_t *reply;
	size_t reply_len;
	const char *text;
	unsigned ended;
	pthread_t thread;
};

static void *joiner_main(void *argument)
{
	struct joiner *j = argument;

	j->result = transport_tcp_join(j->address, j->fingerprint, j->request, j->len,
				       j->timeout, &j->reply, &j->reply_len, &j->text);
	__atomic_store_n(&j->ended, 1, __ATOMIC_RELEASE);
	return NULL;
}

static struct joiner joiner(const char *request)
{
	return (struct joiner){.address = a.address,
			       .request = request,
			       .len = strlen(request),
			       .fingerprint = fingerprint[0],
			       .timeout = 3 * NSEC_PER_SEC};
}

static void start(struct joiner *j)
{
	assert_int_equal(pthread_create(&j->thread, NULL, joiner_main, j), 0);
}

static void end(struct joiner *j)
{
	run_until(&j->ended, 1);
	assert_int_equal(pthread_join(j->thread, NULL), 0);
}

static void assert_reply(struct joiner *j, const char *text)
{
	assert_int_equal(j->result, 0);
	assert_int_equal(j->reply_len, strlen(text));
	assert_memory_equal(j->reply, text, j->reply_len);
	free(j->reply);
}

static void a_joiner_gets_its_answer_at_once(void **state)
{
	struct joiner j = joiner("let me in");

	a.answer = "welcome";
	start(&j);
	end(&j);
	assert_reply(&j, "welcome");
	assert_int_equal(a.join_len, 9);
	assert_memory_equal(a.join_data, "let me in", 9);
	assert_string_equal(a.join_address, "127.0.0.1");
	assert_int_equal(a.n_up + a.n_down, 0);
}

static void a_joiner_gets_its_answer_later(void **state)
{
	struct joiner j = joiner("let me in");
	char *big = malloc(65536);

	memset(big, 'b', 65536);
	start(&j);
	run_until(&a.n_joins, 1);
	run_for(50 * NSEC_PER_MSEC);
	transport_tcp_join_reply(a.joins[0], (uint8_t *)big, 65536);
	end(&j);
	assert_int_equal(j.result, 0);
	assert_int_equal(j.reply_len, 65536);
	assert_memory_equal(j.reply, big, 65536);
	free(j.reply);
	free(big);
}

static void requests_and_answers_may_be_empty_or_as_long_as_allowed(void **state)
{
	static char longest[4097];
	struct joiner empty = joiner(""), full = joiner(""), over = joiner("");

	a.answer = "";
	start(&empty);
	end(&empty);
	assert_reply(&empty, "");
	memset(longest, 'l', sizeof(longest));
	full.request = over.request = longest;
	full.len = 4096;
	over.len = 4097;
	start(&full);
	end(&full);
	assert_reply(&full, "");
	assert_int_equal(a.join_len, 4096);
	start(&over);
	end(&over);
	assert_int_equal(over.result, -EMSGSIZE);
	assert_int_equal(a.n_joins, 2);
}

static void another_clusters_founder_gets_no_request(void **state)
{
	struct joiner j = joiner("my secret token");

	j.fingerprint = fingerprint[1];
	start(&j);
	end(&j);
	assert_int_equal(j.result, -EKEYREJECTED);
	assert_string_equal(
		j.text,
		"what answers there is not of the cluster that the token names");
	assert_null(j.reply);
	run_for(20 * NSEC_PER_MSEC);
	assert_int_equal(a.n_joins, 0);
}

static void nobody_there_is_said(void **state)
{
	struct joiner j = joiner("let me in");

	node_close(&a);
	start(&j);
	end(&j);
	assert_int_equal(j.result, -ECONNREFUSED);
	assert_string_equal(j.text, "Connection refused");
}

static void an_address_that_is_none_is_said(void **state)
{
	struct joiner j = joiner("let me in");

	j.address = "somewhere";
	start(&j);
	end(&j);
	assert_int_equal(j.result, -EINVAL);
}

static void a_silent_founder_ends_by_the_deadline(void **state)
{
	struct sockaddr_in at = {.sin_family = AF_INET,
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	_cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(at);
	struct joiner j = joiner("let me in");
	char address[32];

	assert_int_equal(bind(fd, (struct sockaddr *)&at, len), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
	(void)snprintf(address, sizeof(address), "127.0.0.1:%u", ntohs(at.sin_port));
	j.address = address;
	j.timeout = 200 * NSEC_PER_MSEC;
	start(&j);
	end(&j);
	assert_int_equal(j.result, -ETIMEDOUT);
}

static void a_founder_that_goes_away_is_said_and_its_answer_goes_nowhere(void **state)
{
	struct joiner j = joiner("let me in");

	start(&j);
	run_until(&a.n_joins, 1);
	node_close(&a);
	transport_tcp_join_reply(a.joins[0], (const uint8_t *)"late", 4);
	end(&j);
	assert_int_equal(j.result, -ECONNRESET);
}

static void a_joiner_that_left_may_still_be_answered(void **state)
{
	struct joiner j = joiner("let me in"), again;

	j.timeout = 100 * NSEC_PER_MSEC;
	start(&j);
	end(&j);
	assert_int_equal(j.result, -ETIMEDOUT);
	run_for(50 * NSEC_PER_MSEC);
	assert_int_equal(a.n_joins, 1);
	transport_tcp_join_reply(a.joins[0], (const uint8_t *)"too late", 8);
	a.answer = "welcome";
	again = joiner("me again");
	start(&again);
	end(&again);
	assert_reply(&again, "welcome");
}

static void an_answer_that_is_too_long_ends_it(void **state)
{
	struct joiner j = joiner("let me in");
	uint8_t *big = calloc(1, 65537);

	start(&j);
	run_until(&a.n_joins, 1);
	transport_tcp_join_reply(a.joins[0], big, 65537);
	end(&j);
	assert_int_equal(j.result, -ECONNRESET);
	free(big);
}

/* Requests that transport_tcp_join() would not make. */

static const char alpn[] = "\x0assi-join/1";

static void assert_refused(const void *data, size_t len)
{
	struct stranger s = {.address = a.address,
			     .tls = true,
			     .alpn = alpn,
			     .data = data,
			     .len = len};

	stranger_start(&s);
	stranger_wait(&s);
	assert_true(s.shaken);
	assert_int_equal(s.n_received, 0);
	assert_true(s.took < 2 * NSEC_PER_SEC);
}

static void odd_requests_are_refused(void **state)
{
	static uint8_t flood[100000];

	assert_refused("\xff\xff\xff\xff", 4);
	assert_refused("\x01\x10\0\0xx", 6); /* 4097 */
	assert_int_equal(a.n_joins, 0);
	memset(flood, 0, sizeof(flood)); /* an empty request and 24999 more */
	assert_refused(flood, sizeof(flood));
	memset(flood, 'f', sizeof(flood));
	assert_refused(flood, sizeof(flood));
	assert_int_equal(a.n_joins, 0);
}

static void a_second_request_behind_the_first_ends_it(void **state)
{
	struct stranger s = {.address = a.address,
			     .tls = true,
			     .alpn = alpn,
			     .data = "\x01\0\0\0x\x01\0\0\0y",
			     .len = 10,
			     .pause = 5 * NSEC_PER_MSEC};

	stranger_start(&s);
	stranger_wait(&s);
	assert_int_equal(s.n_received, 0);
	assert_int_equal(a.n_joins, 1);
	transport_tcp_join_reply(a.joins[0], (const uint8_t *)"x", 1);
}

static void a_certificate_does_not_hinder_joining(void **state)
{
	struct stranger s = {.address = a.address,
			     .tls = true,
			     .alpn = alpn,
			     .cluster = 1,
			     .id = 1,
			     .data = "\x01\0\0\0x",
			     .len = 5};

	a.answer = "hi";
	stranger_start(&s);
	stranger_wait(&s);
	assert_int_equal(s.n_received, 6);
	assert_memory_equal(s.received, "\x02\0\0\0hi", 6);
}

static void so_many_may_join_at_once_and_no_more(void **state)
{
	enum { AT_ONCE = 64, MORE = 4 }; /* from one address */
	struct joiner joiners[AT_ONCE + MORE];
	unsigned n_refused = 0;

	for (unsigned i = 0; i < AT_ONCE + MORE; i++) {
		joiners[i] = joiner("let me in");
		start(&joiners[i]);
		/* No faster than their hands are shaken. */
		if (i % 32 == 31 && i < AT_ONCE)
			run_until(&a.n_joins, i + 1);
	}
	run_until(&a.n_joins, AT_ONCE);
	run_for(300 * NSEC_PER_MSEC);
	assert_int_equal(a.n_joins, AT_ONCE);
	for (unsigned i = 0; i < AT_ONCE; i++)
		transport_tcp_join_reply(a.joins[i], (const uint8_t *)"welcome", 7);
	for (unsigned i = 0; i < AT_ONCE + MORE; i++) {
		end(&joiners[i]);
		n_refused += joiners[i].result == -ECONNRESET;
		free(joiners[i].reply);
	}
	assert_int_equal(n_refused, MORE);
}

int main(void)
{
#define TEST(name_) cmocka_unit_test_setup_teardown(name_, setup, teardown)
	static const struct CMUnitTest tests[] = {
		TEST(a_joiner_gets_its_answer_at_once),
		TEST(a_joiner_gets_its_answer_later),
		TEST(requests_and_answers_may_be_empty_or_as_long_as_allowed),
		TEST(another_clusters_founder_gets_no_request),
		TEST(nobody_there_is_said),
		TEST(an_address_that_is_none_is_said),
		TEST(a_silent_founder_ends_by_the_deadline),
		TEST(a_founder_that_goes_away_is_said_and_its_answer_goes_nowhere),
		TEST(a_joiner_that_left_may_still_be_answered),
		TEST(an_answer_that_is_too_long_ends_it),
		TEST(odd_requests_are_refused),
		TEST(a_second_request_behind_the_first_ends_it),
		TEST(a_certificate_does_not_hinder_joining),
		TEST(so_many_may_join_at_once_and_no_more),
	};

	return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
