/* Ends that move between nodes while bytes are on their way. */
#include "flow.h"

#include <sys/ioctl.h>
#include <sys/stat.h>

static struct env_event *event;
static struct node nodes[NODES];

static int up(void **state)
{
	assert_int_equal(env_event_new(&event), 0);
	for (node_id i = 0; i < NODES; i++)
		node_start(&nodes[i], i + 1, event);
	return 0;
}

static int down(void **state)
{
	/* An end that was cut is forgotten by the next one that opens, at the latest. */
	for (node_id i = 0; i < NODES; i++) {
		struct flow f;

		flow_open(&f, &nodes[i], &nodes[i]);
		flow_end(&f);
		turn_until(event, node_kept(&nodes[i]) == 0);
		node_stop(&nodes[i]);
	}
	event = env_event_free(event);
	return 0;
}

static void some_traffic(struct flow *f, int n)
{
	while (n-- > 0) {
		(void)flow_write(f, 1 + below(65536));
		if (below(2))
			flow_read(f, 1 + below(65536));
		turn(event, below(20) * 20 * NSEC_PER_USEC);
	}
}

static void cut(struct flow *f, bool writer, struct stream_cut *ret)
{
	assert_int_equal(stream_cut(writer ? f->to->room : f->from->room, f->id,
				    writer ? STREAM_WRITER : STREAM_READER,
				    writer ? f->out : -1, ret),
			 0);
}

static void undo(struct flow *f, bool writer, struct stream_cut *c)
{
	assert_int_equal(stream_open(writer ? f->to->room : f->from->room, f->id,
				     writer ? STREAM_WRITER : STREAM_READER,
				     writer ? f->from->id : f->to->id, c->owned_fd, c->position,
				     c->owned_rest, c->n_rest),
			 0);
	free(c->owned_rest);
}

/* The program at that end is now on @node. */
static void join(struct flow *f, bool writer, struct stream_cut *c, struct node *node)
{
	if (writer) {
		(void)close(f->out);
		f->to = node;
		open_out(f, c->position, c->owned_rest, c->n_rest);
	} else {
		(void)close(f->in);
		f->from = node;
		open_in(f, c->position, c->owned_rest, c->n_rest);
	}
	(void)close(c->owned_fd);
	free(c->owned_rest);
}

static void run_moves(bool writers, bool readers, bool full)
{
	struct stream_cut c;
	struct flow f;

	flow_open(&f, &nodes[0], &nodes[1]);
	for (int i = 0; i < 150; i++) {
		bool writer = writers && (!readers || below(2));

		some_traffic(&f, (int)below(6));
		/* Each move brings a writing program an empty pipe: without any reading the rest
		 * would grow. */
		for (int k = 0; full && k < 20; k++) {
			if (k < 2)
				flow_read(&f, 65536);
			(void)flow_write(&f, 65536);
			turn(event, 100 * NSEC_PER_USEC);
		}
		cut(&f, writer, &c);
		turn(event, below(20) * 50 * NSEC_PER_USEC);
		if (below(4))
			join(&f, writer, &c, &nodes[below(NODES)]);
		else
			undo(&f, writer, &c);
	}
	flow_end(&f);
}

static void a_writing_end_moves(void **state)
{
	run_moves(true, false, false);
}

static void a_reading_end_moves(void **state)
{
	run_moves(false, true, false);
}

static void both_ends_move(void **state)
{
	run_moves(true, true, false);
}

static void full_ends_move(void **state)
{
	run_moves(true, false, true);
	run_moves(false, true, true);
}

static void ends_move_while_ssid_comes_and_goes(void **state)
{
	struct stream_cut c;
	struct flow f;
	unsigned k;

	flow_open(&f, &nodes[0], &nodes[1]);
	for (int i = 0; i < 100; i++) {
		bool writer = below(2);

		some_traffic(&f, (int)below(6));
		cut(&f, writer, &c);
		turn(event, below(10) * 50 * NSEC_PER_USEC);
		k = below(NODES);
		node_stop(&nodes[k]);
		node_start(&nodes[k], k + 1, event);
		if (below(3))
			join(&f, writer, &c, &nodes[below(NODES)]);
		else
			undo(&f, writer, &c);
	}
	flow_end(&f);
}

static void a_successor_undoes_a_cut(void **state)
{
	struct stream_cut c;
	struct flow f;
	struct stat st;

	flow_open(&f, &nodes[0], &nodes[1]);
	for (int i = 0; i < 20; i++) {
		bool writer = below(2);
		unsigned k = writer ? 1 : 0;

		some_traffic(&f, 5);
		assert_int_equal(fstat(writer ? f.out : f.in, &st), 0);
		cut(&f, writer, &c);
		(void)close(c.owned_fd);
		free(c.owned_rest);
		turn(event, NSEC_PER_MSEC);
		node_stop(&nodes[k]);
		node_start(&nodes[k], k + 1, event);
		turn(event, 5 * NSEC_PER_MSEC);
		assert_int_equal(stream_uncut(nodes[k].room, st.st_ino), 0);
		assert_int_equal(stream_uncut(nodes[k].room, st.st_ino), STREAM_E_ABSENT);
	}
	flow_end(&f);
}

static void a_cut_end_whose_program_is_gone_is_forgotten(void **state)
{
	struct stream_cut c;
	struct flow f;

	for (int i = 0; i < 2; i++) {
		flow_open(&f, &nodes[0], &nodes[1]);
		some_traffic(&f, 5);
		cut(&f, i, &c);
		join(&f, i, &c, &nodes[2]);
		node_stop(&nodes[!!i]);
		node_start(&nodes[!!i], !!i + 1u, event);
		assert_int_equal(node_kept(&nodes[!!i]), 0);
		flow_end(&f);
		turn_until(event, node_kept(&nodes[!i]) == 0);
	}
}

static void too_much_to_hand_over_is_refused(void **state)
{
	struct stream_cut c;
	struct flow f;

	flow_open(&f, &nodes[0], &nodes[1]);
	if (fcntl(f.in, F_SETPIPE_SZ, 1 << 20) < 0) {
		flow_end(&f);
		skip();
	}
	for (int i = 0; i < 100; i++) {
		(void)flow_write(&f, 65536);
		turn(event, NSEC_PER_MSEC);
	}
	assert_int_equal(stream_cut(nodes[0].room, f.id, STREAM_READER, -1, &c), -E2BIG);
	flow_end(&f);
}

/* A program that has @f->out reads it here, and may begin on nodes[1]; its pipe holds @n bytes. */
static int hold(struct flow *f, size_t n)
{
	int p[2];

	*f = (struct flow){ .id = stream_new_id(nodes[0].room), .from = &nodes[0], .to = &nodes[1] };
	assert_int_equal(pipe2(p, O_CLOEXEC | O_NONBLOCK), 0);
	f->in = p[1];
	f->out = p[0];
	assert_int_equal(flow_write(f, n), n);
	assert_int_equal(stream_hold(nodes[0].room, f->id, 2, dup(p[0]), 4711), 0);
	return p[0];
}

static void restart(struct node *n)
{
	node_id id = n->id;

	node_stop(n);
	node_start(n, id, event);
}

static void what_is_held_is_read_by_whoever_goes_on(void **state)
{
	for (int i = 0; i < 8; i++) {
		bool goes = i & 1, killed = i & 2, killed_late = i & 4;
		struct stream_info info;
		struct stat st;
		struct flow f;
		int own = hold(&f, 5000), unread;

		if (goes)
			open_out(&f, 0, NULL, 0); /* the other node has made it by then */
		turn(event, 20 * NSEC_PER_MSEC);
		if (killed)
			restart(&nodes[0]);
		turn(event, 20 * NSEC_PER_MSEC);
		assert_int_equal(ioctl(own, FIONREAD, &unread), 0);
		assert_int_equal(unread, 5000);
		/* A move of the program meanwhile finds an ordinary pipe. */
		assert_int_equal(fstat(own, &st), 0);
		assert_int_equal(stream_by_pipe(nodes[0].room, st.st_ino, STREAM_READER, &info),
				 STREAM_E_ABSENT);
		stream_go(nodes[0].room, 4710); /* somebody else */
		if (goes) {
			(void)close(own);
			stream_go(nodes[0].room, 4711);
			stream_stay(nodes[0].room, 0); /* nothing is held any more */
			if (killed_late)
				restart(&nodes[0]);
		} else {
			stream_stay(nodes[0].room, killed_late ? 0 : 4711);
		}
		assert_true(flow_write(&f, 3000) > 0);
		flow_end(&f);
		clock_advance(30 * NSEC_PER_SEC); /* nodes[1] never knew it */
		turn_until(event, node_kept(&nodes[0]) == 0);
	}
}

#define test(name_) cmocka_unit_test_setup_teardown(name_, up, down)

static int tests(void)
{
	const struct CMUnitTest all[] = {
		test(a_writing_end_moves),
		test(a_reading_end_moves),
		test(both_ends_move),
		test(full_ends_move),
		test(ends_move_while_ssid_comes_and_goes),
		test(a_successor_undoes_a_cut),
		test(a_cut_end_whose_program_is_gone_is_forgotten),
		test(too_much_to_hand_over_is_refused),
		test(what_is_held_is_read_by_whoever_goes_on),
	};

	return cmocka_run_group_tests_name("stream move", all, NULL, NULL);
}

int main(int argc, char **argv)
{
	return stream_fixture_main(argc, argv, tests);
}
