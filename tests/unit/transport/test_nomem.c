/*
 * Every allocation of ours fails once.  The linker puts these in malloc()'s place
 * (--wrap); OpenSSL and libevent keep the real ones.
 */
#include "authority.h"
#include "transport_fixture.h"

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
char *__real_strdup(const char *s);
char *__real_strndup(const char *s, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
char *__wrap_strdup(const char *s);
char *__wrap_strndup(const char *s, size_t n);

static unsigned countdown; /* 0: not armed, or it has failed */

static bool fails(void)
{
	return countdown && --countdown == 0;
}

void *__wrap_malloc(size_t n)
{
	return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
	return fails() ? NULL : __real_realloc(p, n);
}

char *__wrap_strdup(const char *s)
{
	return fails() ? NULL : __real_strdup(s);
}

char *__wrap_strndup(const char *s, size_t n)
{
	return fails() ? NULL : __real_strndup(s, n);
}

/* Run @f with the n-th allocation failing, for n = 1, 2, ... until none does. */
static void fail_each(void (*f)(void))
{
	for (unsigned n = 1;; n++) {
		assert_true(n < 1000);
		countdown = n;
		f();
		if (countdown) {
			countdown = 0;
			return;
		}
	}
}

static void found_and_sign(void)
{
	_cleanup_free_ char *ca = NULL, *ca_key = NULL, *key = NULL, *csr = NULL,
			    *cert = NULL;
	_cleanup_free_ char *cluster = NULL;
	int r = authority_found("c1", &ca, &ca_key);

	if (r == 0)
		r = authority_request("x", &key, &csr);
	if (r == 0)
		r = authority_sign(ca, ca_key, csr, 1, &cert);
	if (r == 0)
		r = authority_cluster(cert, &cluster);
	assert_int_equal(r, cluster ? 0 : -ENOMEM);
}

static void an_authority_without_memory_says_so(void **state)
{
	fail_each(found_and_sign);
}

static void open_and_close(void)
{
	static const struct transport_events none;
	struct transport_tcp_config config = {
		.listen_address = "127.0.0.1:0",
		.ca_file = fixture_file(0, 1, "ca"),
		.cert_file = fixture_file(0, 1, "cert"),
		.key_file = fixture_file(0, 1, "key"),
		.self = 1,
	};
	struct transport_tcp *t = NULL;
	int r = transport_tcp_new(&t, env, NULL, &config, &none, NULL, NULL, NULL);

	assert_int_equal(r, t ? 0 : -ENOMEM);
	transport_tcp_free(t);
}

static void a_transport_without_memory_does_not_begin(void **state)
{
	fail_each(open_and_close);
}

static struct fixture_node a, b;

/* Every link comes up and delivers, or goes down, on both sides. */
static void link_and_send(void)
{
	struct transport_frame f = {.kind = TRANSPORT_NOTIFY};
	unsigned armed = countdown, n_before;
	struct transport_link *l;
	static uint8_t bulk[300000];
	int r;

	countdown = 0;
	node_open(&a, 0, 1);
	node_open(&b, 0, 2);
	countdown = armed;
	r = node_connect(&a, 2, b.address, &l);
	if (r == 0) {
		run_for(30 * NSEC_PER_MSEC);
		assert_int_equal(a.n_up || a.n_down, 1);
	} else {
		assert_int_equal(r, -ENOMEM);
	}
	if (a.n_links) {
		f.bulk = (struct iovec){bulk, sizeof(bulk)};
		n_before = b.n_down;
		r = node_send(&a, a.links[0], &f);
		run_for(30 * NSEC_PER_MSEC);
		assert_true(r == -ENOMEM || b.n_frames == 1 || b.n_down > n_before ||
			    a.n_down);
	}
	armed = countdown;
	countdown = 0;
	node_close(&a);
	node_close(&b);
	countdown = armed;
}

static void a_link_without_memory_goes_down_and_nothing_else(void **state)
{
	fail_each(link_and_send);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_authority_without_memory_says_so),
		cmocka_unit_test(a_transport_without_memory_does_not_begin),
		cmocka_unit_test(a_link_without_memory_goes_down_and_nothing_else),
	};

	return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
