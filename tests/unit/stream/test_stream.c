/* Two ends of a stream, here and there. */
#include "console.h"
#include "flow.h"

#include <sys/stat.h>
#include <sys/wait.h>

static struct env_event *event;
static struct node nodes[NODES];

static int up(void **state)
{
	assert_int_equal(env_event_new(&event), 0);
	for (node_id i = 0; i < NODES; i++)
		node_start(&nodes[i], i + 1, event);
	return 0;
}

/* What a test leaves, it says: nothing may be kept. */
static int down(void **state)
{
	for (node_id i = 0; i < NODES; i++) {
		turn_until(event, node_kept(&nodes[i]) == 0);
		node_stop(&nodes[i]);
	}
	event = env_event_free(event);
	return 0;
}

static void run_exact(struct node *from, struct node *to)
{
	struct flow f;

	flow_open(&f, from, to);
	while (f.written < 3000000) {
		(void)flow_write(&f, 1 + below(below(4) ? 65536 : 50));
		if (below(3))
			flow_read(&f, 1 + below(65536));
		turn(event, below(20) * 10 * NSEC_PER_USEC);
	}
	flow_end(&f);
}

static void bytes_come_exactly_both_ways(void **state)
{
	run_exact(&nodes[0], &nodes[1]);
	run_exact(&nodes[1], &nodes[0]);
}

static void both_ends_may_be_on_one_node(void **state)
{
	run_exact(&nodes[0], &nodes[0]);
}

static void lines_come_at_once(void **state)
{
	struct flow f;

	flow_open(&f, &nodes[0], &nodes[1]);
	for (int i = 0; i < 300; i++) {
		assert_int_equal(flow_write(&f, 7), 7);
		do {
			turn(event, 100 * NSEC_PER_USEC);
			flow_read(&f, 100);
		} while (f.got < f.written);
	}
	flow_end(&f);
}

static void a_slow_reader_holds_the_writer_back(void **state)
{
	struct flow f;
	uint64_t before;

	flow_open(&f, &nodes[0], &nodes[1]);
	for (int i = 0; i < 300; i++) {
		(void)flow_write(&f, 65536);
		turn(event, NSEC_PER_MSEC);
	}
	/* Two pipes of 64 KiB, two hands of 256 KiB. */
	assert_in_range(f.written, 300000, 640 << 10);
	before = f.written;
	for (int i = 0; i < 3000; i++) {
		flow_read(&f, 1 + below(3000));
		(void)flow_write(&f, 65536);
		turn(event, 100 * NSEC_PER_USEC);
	}
	assert_true(f.written > before);
	flow_end(&f);
}

static void single_bytes_that_nobody_reads_do_not_spin(void **state)
{
	struct flow f;
	uint64_t calls;

	flow_open(&f, &nodes[0], &nodes[1]);
	for (int i = 0; i < 2000; i++) {
		(void)flow_write(&f, 1);
		turn(event, 20 * NSEC_PER_USEC);
	}
	turn(event, 20 * NSEC_PER_MSEC);
	calls = rpc_counters(nodes[0].rpc)->calls;
	turn(event, 100 * NSEC_PER_MSEC);
	assert_in_range(rpc_counters(nodes[0].rpc)->calls - calls, 0, 2);
	flow_end(&f);
}

static void a_writer_without_reader_is_told(void **state)
{
	struct flow f;
	ssize_t n = 0;

	flow_open(&f, &nodes[0], &nodes[1]);
	(void)flow_write(&f, 1000);
	turn(event, 10 * NSEC_PER_MSEC);
	(void)close(f.out);
	for (int i = 0; i < 1000 && n != -EPIPE; i++) {
		n = flow_write(&f, 10);
		turn(event, NSEC_PER_MSEC);
	}
	assert_int_equal(n, -EPIPE);
	(void)close(f.in);
}

static void a_reader_without_writer_is_told(void **state)
{
	struct flow f;

	/* A broken writer's bytes come, then end of file. */
	flow_open(&f, &nodes[0], &nodes[1]);
	(void)flow_write(&f, 60000);
	turn(event, 10 * NSEC_PER_MSEC);
	assert_int_equal(stream_close(nodes[0].room, f.id, STREAM_READER), 0);
	turn(event, 10 * NSEC_PER_MSEC);
	assert_int_equal(flow_write(&f, 1), -EPIPE);
	flow_end(&f);
}

static void closing_the_far_end_breaks_the_near_one(void **state)
{
	struct flow f;

	flow_open(&f, &nodes[0], &nodes[1]);
	turn(event, 10 * NSEC_PER_MSEC);
	assert_int_equal(stream_close(nodes[1].room, f.id, STREAM_WRITER), 0);
	turn(event, 10 * NSEC_PER_MSEC);
	assert_int_equal(flow_write(&f, 1), -EPIPE);
	flow_read(&f, 1);
	assert_true(f.ended);
	(void)close(f.in);
	(void)close(f.out);
}

static void a_far_end_may_come_late(void **state)
{
	struct flow f = { .id = stream_new_id(nodes[0].room), .from = &nodes[0], .to = &nodes[1] };

	open_in(&f, 0, NULL, 0);
	(void)flow_write(&f, 5000);
	turn(event, 300 * NSEC_PER_MSEC);
	open_out(&f, 0, NULL, 0);
	turn_until(event, (flow_read(&f, 65536), f.got == 5000));
	flow_end(&f);
}

static void a_far_end_that_never_comes_breaks_the_near_one(void **state)
{
	struct flow f = { .id = stream_new_id(nodes[0].room), .from = &nodes[0], .to = &nodes[1] };

	open_in(&f, 0, NULL, 0);
	turn(event, 50 * NSEC_PER_MSEC);
	assert_int_equal(flow_write(&f, 1), 1);
	clock_advance(21 * NSEC_PER_SEC);
	turn_until(event, flow_write(&f, 1) == -EPIPE);
	(void)close(f.in);
}

static void a_node_that_is_silent_is_waited_for(void **state)
{
	struct flow f;

	flow_open(&f, &nodes[0], &nodes[1]);
	turn(event, 10 * NSEC_PER_MSEC);
	node_stop(&nodes[1]);
	for (int i = 0; i < 5; i++) {
		(void)flow_write(&f, 5000);
		clock_advance(20 * NSEC_PER_SEC);
		turn(event, 50 * NSEC_PER_MSEC);
	}
	node_start(&nodes[1], 2, event);
	flow_end(&f);
}

static void a_lost_node_ends_its_streams(void **state)
{
	struct flow out, in;

	flow_open(&out, &nodes[0], &nodes[1]);
	flow_open(&in, &nodes[1], &nodes[0]);
	(void)flow_write(&in, 100);
	turn(event, 20 * NSEC_PER_MSEC);
	stream_on_node_lost(nodes[0].room, 2);
	assert_int_equal(flow_write(&out, 1), -EPIPE);
	flow_end(&in);
	/* On the other side they go as well. */
	stream_on_node_lost(nodes[1].room, 1);
	(void)close(out.in);
	(void)close(out.out);
}

static void what_nobody_wants_is_dropped(void **state)
{
	struct flow f = { .id = stream_new_id(nodes[0].room), .from = &nodes[0] };

	open_in(&f, 0, NULL, 0);
	for (int i = 0; i < 200; i++) {
		(void)flow_write(&f, 65536);
		turn(event, 200 * NSEC_PER_USEC);
	}
	assert_true(f.written > 2000000);
	(void)close(f.in);
}

static void links_may_break(void **state)
{
	struct flow f;

	flow_open(&f, &nodes[0], &nodes[1]);
	for (int i = 0; i < 400; i++) {
		(void)flow_write(&f, 1 + below(65536));
		flow_read(&f, 1 + below(65536));
		turn(event, below(20) * 50 * NSEC_PER_USEC);
		if (!below(5))
			link_cut(nodes[below(2)].link);
	}
	flow_end(&f);
}

static void many_streams_go_side_by_side(void **state)
{
	enum { N = 150 };
	static struct flow f[N];

	for (int i = 0; i < N; i++)
		flow_open(&f[i], &nodes[below(NODES)], &nodes[below(NODES)]);
	for (int round = 0; round < 40; round++) {
		for (int i = 0; i < N; i++) {
			(void)flow_write(&f[i], 1 + below(5000));
			flow_read(&f[i], 1 + below(8000));
		}
		turn(event, NSEC_PER_MSEC);
	}
	for (int i = 0; i < N; i++)
		flow_end(&f[i]);
}

static void a_new_ssid_goes_on(void **state)
{
	struct flow f[6];
	unsigned k;

	for (int i = 0; i < 6; i++)
		flow_open(&f[i], &nodes[i % 2], &nodes[i / 2 % 2]);
	for (int round = 0; round < 60; round++) {
		for (int i = 0; i < 6; i++) {
			(void)flow_write(&f[i], 1 + below(65536));
			flow_read(&f[i], 1 + below(65536));
		}
		turn(event, below(30) * 100 * NSEC_PER_USEC);
		k = below(2);
		node_stop(&nodes[k]);
		node_start(&nodes[k], k + 1, event);
	}
	for (int i = 0; i < 6; i++)
		flow_end(&f[i]);
}

static void an_end_is_found_by_its_pipe_and_stands_once(void **state)
{
	struct stream_info info;
	struct flow f;
	struct stat st;
	int p[2];

	flow_open(&f, &nodes[0], &nodes[1]);
	assert_int_equal(fstat(f.in, &st), 0);
	assert_int_equal(stream_by_pipe(nodes[0].room, st.st_ino, STREAM_READER, &info), 0);
	assert_int_equal(info.id, f.id);
	assert_int_equal(stream_by_pipe(nodes[0].room, st.st_ino, STREAM_WRITER, &info),
			 STREAM_E_ABSENT);
	assert_int_equal(info.peer, 2);
	assert_int_equal(stream_by_pipe(nodes[1].room, st.st_ino, STREAM_READER, &info), STREAM_E_ABSENT);
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	assert_int_equal(stream_open(nodes[0].room, f.id, STREAM_READER, 2, p[0], 0, NULL, 0),
			 -EEXIST);
	assert_int_equal(write(p[1], "", 1), -1); /* it was owned */
	(void)close(p[1]);
	assert_int_equal(stream_close(nodes[0].room, f.id, STREAM_WRITER), STREAM_E_ABSENT);
	flow_end(&f);
}

static void only_pipes_become_streams(void **state)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	assert_int_equal(stream_open(nodes[0].room, 1, STREAM_READER, 2, fd, 0, NULL, 0), -EINVAL);
}

static void the_console_outlives_ssid(void **state)
{
	struct console *c;
	struct stat st;
	bool input;
	int p[2];

	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	assert_int_equal(fstat(p[0], &st), 0);
	assert_int_equal(console_new(&c, nodes[0].space), 0);
	assert_false(console_has(c, st.st_ino, &input));
	assert_int_equal(console_add(c, getpid(), p[0], true), 0);
	c = console_free(c);
	assert_int_equal(console_new(&c, nodes[0].space), 0);
	assert_true(console_has(c, st.st_ino, &input));
	assert_true(input);
	console_free(c);
	(void)close(p[0]);
	(void)close(p[1]);
}

static void the_console_has_room_when_applications_end(void **state)
{
	struct console *c;
	struct stat st;
	bool input;
	int p[2];
	pid_t ended;

	ended = fork();
	if (ended == 0)
		_exit(0);
	assert_int_equal(waitpid(ended, NULL, 0), ended);
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	assert_int_equal(fstat(p[1], &st), 0);
	assert_int_equal(console_new(&c, nodes[0].space), 0);
	assert_int_equal(console_add(c, getpid(), p[1], false), 0);
	for (int i = 0; i < 40000; i++)
		assert_int_equal(console_add(c, ended, 0, true), 0);
	assert_true(console_has(c, st.st_ino, &input));
	assert_false(input);
	console_free(c);
	(void)close(p[0]);
	(void)close(p[1]);
}

#define test(name_) cmocka_unit_test_setup_teardown(name_, up, down)

static int tests(void)
{
	const struct CMUnitTest all[] = {
		test(bytes_come_exactly_both_ways),
		test(both_ends_may_be_on_one_node),
		test(lines_come_at_once),
		test(a_slow_reader_holds_the_writer_back),
		test(single_bytes_that_nobody_reads_do_not_spin),
		test(a_writer_without_reader_is_told),
		test(a_reader_without_writer_is_told),
		test(closing_the_far_end_breaks_the_near_one),
		test(a_far_end_may_come_late),
		test(a_far_end_that_never_comes_breaks_the_near_one),
		test(a_node_that_is_silent_is_waited_for),
		test(a_lost_node_ends_its_streams),
		test(what_nobody_wants_is_dropped),
		test(links_may_break),
		test(many_streams_go_side_by_side),
		test(a_new_ssid_goes_on),
		test(an_end_is_found_by_its_pipe_and_stands_once),
		test(only_pipes_become_streams),
		test(the_console_outlives_ssid),
		test(the_console_has_room_when_applications_end),
	};

	return cmocka_run_group_tests_name("stream", all, NULL, NULL);
}

int main(int argc, char **argv)
{
	return stream_fixture_main(argc, argv, tests);
}
