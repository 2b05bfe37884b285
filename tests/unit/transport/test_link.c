/* Links between two nodes in one process. */
#include "transport_fixture.h"

static struct fixture_node a, b;

static int setup(void **state)
{
	node_open(&a, 0, 1);
	node_open(&b, 0, 2);
	return 0;
}

static int teardown(void **state)
{
	node_close(&a);
	node_close(&b);
	run_for(NSEC_PER_MSEC);
	return 0;
}

static uint8_t bulk[TRANSPORT_BULK_MAX];

static struct transport_frame frame(uint64_t id, size_t message_len, size_t bulk_len)
{
	return (struct transport_frame){.kind = TRANSPORT_REQUEST,
					.method = 0x0201,
					.id = id,
					.epoch = 5,
					.message = {bulk, message_len},
					.bulk = {bulk, bulk_len}};
}

static void both_sides_come_up_and_know_each_other(void **state)
{
	nodes_link(&a, &b, 2);
	assert_int_equal(a.peers[0], 2);
	assert_int_equal(b.peers[0], 1);
	assert_int_equal(a.n_down + b.n_down, 0);
}

static void assert_told(const struct told_frame *t, const struct transport_frame *f)
{
	assert_int_equal(t->kind, f->kind);
	assert_int_equal(t->method, f->method);
	assert_true(t->id == f->id && t->epoch == f->epoch);
	assert_int_equal(t->message_len, f->message.iov_len);
	assert_int_equal(t->bulk_len, f->bulk.iov_len);
	assert_true(t->sum == sum_of(f));
}

static void frames_keep_what_they_say_both_ways(void **state)
{
	struct transport_frame frames[] = {frame(0, 0, 0), frame(UINT64_MAX, 1, 0),
					   frame(2, 0, 1), frame(3, 1000, 100000)};

	frames[1].kind = TRANSPORT_FAILED;
	frames[2].epoch = UINT64_MAX;
	frames[3].method = UINT16_MAX;
	nodes_link(&a, &b, 2);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(node_send(&a, a.links[0], &frames[i]), 0);
		assert_int_equal(node_send(&b, b.links[0], &frames[3 - i]), 0);
	}
	run_until(&a.n_frames, 4);
	run_until(&b.n_frames, 4);
	for (unsigned i = 0; i < 4; i++) {
		assert_told(&b.frames[i], &frames[i]);
		assert_told(&a.frames[i], &frames[3 - i]);
	}
}

/* Send frames 0..@n-1 of @sizes, waiting when the queue is full. */
static void send_all(const size_t (*sizes)[2], unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct transport_frame f = frame(i, sizes[i % 5][0], sizes[i % 5][1]);
		unsigned before = a.n_writable;
		int r = node_send(&a, a.links[0], &f);

		if (r == TRANSPORT_E_FULL) {
			run_until(&a.n_writable, before + 1);
			r = node_send(&a, a.links[0], &f);
		}
		assert_int_equal(r, 0);
	}
}

static void big_and_small_frames_arrive_whole_and_in_order(void **state)
{
	static const size_t sizes[][2] = {
		{100, 0}, {0, 1 << 20}, {1 << 20, 1 << 20}, {7, 4096}, {16384, 65536}};

	nodes_link(&a, &b, 2);
	send_all(sizes, 60);
	run_until(&b.n_frames, 60);
	for (unsigned i = 0; i < 60; i++) {
		struct transport_frame f = frame(i, sizes[i % 5][0], sizes[i % 5][1]);

		assert_told(&b.frames[i], &f);
	}
}

static void many_small_frames_arrive_in_order(void **state)
{
	nodes_link(&a, &b, 2);
	for (unsigned i = 0; i < 4000; i++) {
		struct transport_frame f = frame(i, i % 200, 0);

		assert_int_equal(node_send(&a, a.links[0], &f), 0);
	}
	run_until(&b.n_frames, 4000);
	for (unsigned i = 0; i < 4000; i++)
		assert_true(b.frames[i].id == i && b.frames[i].message_len == i % 200);
}

static void a_full_queue_refuses_and_says_when_there_is_room(void **state)
{
	struct transport_frame f = frame(0, 0, 1 << 20);
	unsigned n = 0;

	nodes_link(&a, &b, 2);
	while (node_send(&a, a.links[0], &f) == 0)
		f.id = ++n;
	assert_in_range(n, 7, 60); /* the queue, and what the kernel took */
	assert_int_equal(node_send(&a, a.links[0], &f), TRANSPORT_E_FULL);
	assert_int_equal(a.n_writable, 0);
	run_until(&a.n_writable, 1);
	assert_int_equal(node_send(&a, a.links[0], &f), 0);
	run_until(&b.n_frames, n + 1);
	for (unsigned i = 0; i <= n; i++)
		assert_int_equal(b.frames[i].id, i);
	run_for(20 * NSEC_PER_MSEC);
	assert_int_equal(a.n_writable, 1);
}

static void a_frame_too_large_is_refused_and_the_link_stays(void **state)
{
	struct transport_frame f = frame(1, TRANSPORT_MESSAGE_MAX + 1, 0),
			       g = frame(2, 1, 1);

	nodes_link(&a, &b, 2);
	assert_int_equal(node_send(&a, a.links[0], &f), -EMSGSIZE);
	f = frame(1, 0, (size_t)TRANSPORT_BULK_MAX + 1);
	assert_int_equal(node_send(&a, a.links[0], &f), -EMSGSIZE);
	assert_int_equal(node_send(&a, a.links[0], &g), 0);
	run_until(&b.n_frames, 1);
	assert_int_equal(b.frames[0].id, 2);
}

static void an_echo_comes_back(void **state)
{
	b.echo = true;
	nodes_link(&a, &b, 2);
	for (unsigned i = 0; i < 100; i++) {
		struct transport_frame f = frame(i, 64, i % 10 ? 0 : 50000);

		assert_int_equal(node_send(&a, a.links[0], &f), 0);
	}
	run_until(&a.n_frames, 100);
	assert_int_equal(a.frames[99].id, 99);
}

static void closing_tells_both_later_and_sends_nothing_more(void **state)
{
	struct transport_frame f = frame(1, 1, 0);
	struct transport_link *l;

	nodes_link(&a, &b, 2);
	l = a.links[0];
	a.calling = true;
	a.t->ops->close(a.t->impl, l, "enough");
	a.t->ops->close(a.t->impl, l, "enough again");
	a.calling = false;
	assert_int_equal(a.n_down, 0);
	assert_int_equal(node_send(&a, l, &f), TRANSPORT_E_DOWN);
	run_until(&a.n_down, 1);
	run_until(&b.n_down, 1);
	assert_string_equal(a.reason, "enough");
	assert_string_equal(b.reason, "the other side closed it");
	assert_int_equal(a.down_peer, 2);
	assert_int_equal(b.down_peer, 1);
	run_for(20 * NSEC_PER_MSEC);
	assert_int_equal(a.n_down + b.n_down, 2);
	assert_int_equal(b.n_frames, 0);
}

static void what_was_sent_before_closing_arrives(void **state)
{
	struct transport_frame f = frame(1, 1000, 0);

	nodes_link(&a, &b, 2);
	assert_int_equal(node_send(&a, a.links[0], &f), 0);
	a.t->ops->close(a.t->impl, a.links[0], "good-bye");
	run_until(&b.n_down, 1);
	assert_int_equal(b.n_frames, 1);
}

static void a_peer_that_vanishes_takes_its_links_down(void **state)
{
	struct transport_frame f = frame(1, 1000, 1 << 20);

	nodes_link(&a, &b, 2);
	while (node_send(&a, a.links[0], &f) == 0)
		;
	node_close(&b);
	run_until(&a.n_down, 1);
	assert_int_equal(a.down_peer, 2);
	assert_int_equal(b.n_down, 0); /* it was freed, and is not told */
}

static void nobody_there_is_told_later_with_its_reason(void **state)
{
	struct transport_link *l;

	node_close(&b);
	assert_int_equal(node_connect(&a, 2, b.address, &l), 0);
	run_until(&a.n_down, 1);
	assert_string_equal(a.reason, "Connection refused");
	assert_int_equal(a.down_peer, NODE_NONE);
	assert_int_equal(a.n_up, 0);
}

static void a_link_may_be_closed_before_it_is_up(void **state)
{
	struct transport_link *l;

	assert_int_equal(node_connect(&a, 2, b.address, &l), 0);
	a.t->ops->close(a.t->impl, l, "never mind");
	run_until(&a.n_down, 1);
	assert_string_equal(a.reason, "never mind");
	run_for(20 * NSEC_PER_MSEC);
	assert_int_equal(a.n_up + b.n_up + b.n_down, 0);
}

static void an_address_that_is_none_is_refused_at_once(void **state)
{
	struct transport_link *l = NULL;

	assert_int_equal(node_connect(&a, 2, "somewhere:1", &l), -EINVAL);
	assert_int_equal(node_connect(&a, 2, "127.0.0.1", &l), -EINVAL);
	assert_null(l);
}

static void another_node_than_expected_goes_down(void **state)
{
	struct transport_link *l;

	assert_int_equal(node_connect(&a, 3, b.address, &l), 0);
	run_until(&a.n_down, 1);
	assert_string_equal(a.reason, "another node answers there, number 2");
	assert_int_equal(a.n_up, 0);
	run_until(&b.n_down, b.n_up);
}

static void both_may_open_at_the_same_moment(void **state)
{
	struct transport_link *l, *m;
	struct transport_frame f = frame(1, 10, 0);

	assert_int_equal(node_connect(&a, 2, b.address, &l), 0);
	assert_int_equal(node_connect(&b, 1, a.address, &m), 0);
	run_until(&a.n_up, 2);
	run_until(&b.n_up, 2);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(node_send(&a, a.links[i], &f), 0);
	run_until(&b.n_frames, 2);
	assert_int_equal(a.n_down + b.n_down, 0);
}

static void an_owner_that_refuses_a_frame_ends_the_link(void **state)
{
	struct transport_frame f = frame(1, 10, 0);

	b.frame_result = 1;
	nodes_link(&a, &b, 2);
	assert_int_equal(node_send(&a, a.links[0], &f), 0);
	assert_int_equal(node_send(&a, a.links[0], &f), 0);
	run_until(&b.n_down, 1);
	run_until(&a.n_down, 1);
	assert_string_equal(b.reason, "it broke the protocol");
	assert_int_equal(b.n_frames, 1);
}

static void an_owner_may_close_when_it_is_told(void **state)
{
	struct transport_frame f = frame(1, 10, 0);
	struct transport_link *l;

	b.close_on_frame = b.echo = true;
	nodes_link(&a, &b, 2);
	assert_int_equal(node_send(&a, a.links[0], &f), 0);
	assert_int_equal(node_send(&a, a.links[0], &f), 0);
	run_until(&b.n_down, 1);
	assert_int_equal(b.n_frames, 1);
	run_until(&a.n_down, 1);
	a.close_on_up = true;
	assert_int_equal(node_connect(&a, 2, b.address, &l), 0);
	run_until(&a.n_down, 2);
	assert_string_equal(a.reason, "closed when it came up");
}

static void a_transport_may_be_freed_with_links_in_every_state(void **state)
{
	struct transport_frame f = frame(1, 1000, 1 << 20);
	struct transport_link *l;

	nodes_link(&a, &b, 2);
	while (node_send(&a, a.links[0], &f) == 0)
		;
	assert_int_equal(node_connect(&a, 2, b.address, &l), 0);
	assert_int_equal(node_connect(&a, 2, b.address, &l), 0);
	a.t->ops->close(a.t->impl, l, "half-way");
	run_for(NSEC_PER_MSEC);
}

static void files_that_do_not_belong_together_are_refused(void **state)
{
	static const struct transport_events none;
	struct transport_tcp_config config = {
		.listen_address = "127.0.0.1:0",
		.ca_file = fixture_file(0, 1, "ca"),
		.cert_file = fixture_file(0, 1, "cert"),
		.key_file = fixture_file(0, 2, "key"),
		.self = 1,
	};
	struct transport_tcp *t = NULL;

	assert_int_equal(
		transport_tcp_new(&t, env, NULL, &config, &none, NULL, NULL, NULL),
		-EKEYREJECTED);
	config.key_file = fixture_file(0, 1, "key");
	config.self = 2; /* the certificate says 1 */
	assert_int_equal(
		transport_tcp_new(&t, env, NULL, &config, &none, NULL, NULL, NULL),
		-EKEYREJECTED);
	config.self = 1;
	config.ca_file = fixture_file(1, 1, "ca");
	assert_int_equal(
		transport_tcp_new(&t, env, NULL, &config, &none, NULL, NULL, NULL),
		-EKEYREJECTED);
	config.ca_file = "/nonexistent";
	assert_int_equal(
		transport_tcp_new(&t, env, NULL, &config, &none, NULL, NULL, NULL),
		-ENOENT);
	config.ca_file = fixture_file(0, 1, "ca");
	config.listen_address = a.address; /* taken */
	assert_int_equal(
		transport_tcp_new(&t, env, NULL, &config, &none, NULL, NULL, NULL),
		-EADDRINUSE);
	assert_null(t);
}

int main(void)
{
#define TEST(name_) cmocka_unit_test_setup_teardown(name_, setup, teardown)
	static const struct CMUnitTest tests[] = {
		TEST(both_sides_come_up_and_know_each_other),
		TEST(frames_keep_what_they_say_both_ways),
		TEST(big_and_small_frames_arrive_whole_and_in_order),
		TEST(many_small_frames_arrive_in_order),
		TEST(a_full_queue_refuses_and_says_when_there_is_room),
		TEST(a_frame_too_large_is_refused_and_the_link_stays),
		TEST(an_echo_comes_back),
		TEST(closing_tells_both_later_and_sends_nothing_more),
		TEST(what_was_sent_before_closing_arrives),
		TEST(a_peer_that_vanishes_takes_its_links_down),
		TEST(nobody_there_is_told_later_with_its_reason),
		TEST(a_link_may_be_closed_before_it_is_up),
		TEST(an_address_that_is_none_is_refused_at_once),
		TEST(another_node_than_expected_goes_down),
		TEST(both_may_open_at_the_same_moment),
		TEST(an_owner_that_refuses_a_frame_ends_the_link),
		TEST(an_owner_may_close_when_it_is_told),
		TEST(a_transport_may_be_freed_with_links_in_every_state),
		TEST(files_that_do_not_belong_together_are_refused),
	};

	for (size_t i = 0; i < sizeof(bulk); i++)
		bulk[i] = (uint8_t)(i * 31 + i / 4093);
	return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
