/* What another node may say: it may break its own streams, and no others. */
#include "flow.h"

#include "log.h"
#include "stream.pb-c.h"

#include <string.h>

enum {
	OPEN = RPC_ROOM_STREAM << 8 | 1,
	DATA = RPC_ROOM_STREAM << 8 | 2,
	BROKEN = RPC_ROOM_STREAM << 8 | 3,
	RESIZE = RPC_ROOM_STREAM << 8 | 4,
};

static struct env_event *event;
static struct node nodes[NODES];
static nsec_t patience; /* with an answer */

static int up(void **state)
{
	log_set_level(0);
	patience = 10 * NSEC_PER_SEC;
	assert_int_equal(env_event_new(&event), 0);
	for (node_id i = 0; i < NODES; i++)
		node_start(&nodes[i], i + 1, event);
	return 0;
}

static int down(void **state)
{
	for (node_id i = 0; i < NODES; i++)
		node_stop(&nodes[i]);
	event = env_event_free(event);
	return 0;
}

struct said {
	bool done;
	enum rpc_status status;
	uint64_t wanted; /* by who answered DATA */
};

static void on_said(void *owner, const struct rpc_result *result)
{
	struct said *s = owner;

	*s = (struct said){true, result->status, 0};
	if (result->reply &&
	    result->reply->descriptor == &ssi__stream__data_reply__descriptor)
		s->wanted = ((const Ssi__Stream__DataReply *)result->reply)->position;
}

static struct said ask(struct node *from, struct node *to, uint16_t method,
		       const ProtobufCMessage *message, size_t n_bulk)
{
	static uint8_t bulk[1 << 20];
	struct said s = { 0 };

	assert_int_equal(rpc_call(from->rpc, to->id, method, message,
				  (struct iovec){ bulk, n_bulk }, patience, on_said, &s, NULL),
			 0);
	turn_until(event, s.done);
	return s;
}

static enum rpc_status say(struct node *from, struct node *to, uint16_t method,
			   const ProtobufCMessage *message, size_t n_bulk)
{
	return ask(from, to, method, message, n_bulk).status;
}

static void a_third_node_cannot_write_or_break(void **state)
{
	Ssi__Stream__DataRequest data = SSI__STREAM__DATA_REQUEST__INIT;
	Ssi__Stream__BrokenRequest broken = SSI__STREAM__BROKEN_REQUEST__INIT;
	Ssi__Stream__ResizeRequest resize = SSI__STREAM__RESIZE_REQUEST__INIT;
	struct flow f;

	flow_open(&f, &nodes[0], &nodes[1]);
	(void)flow_write(&f, 100);
	turn_until(event, (flow_read(&f, 65536), f.got == 100));
	data.id = broken.id = f.id;
	data.position = 100;
	data.end = true;
	assert_int_equal(say(&nodes[2], &nodes[1], DATA, &data.base, 10), RPC_CONFLICT);
	assert_int_equal(say(&nodes[2], &nodes[0], BROKEN, &broken.base, 0), RPC_NOT_FOUND);
	broken.role = SSI__STREAM__ROLE__READER;
	assert_int_equal(say(&nodes[2], &nodes[1], BROKEN, &broken.base, 0), RPC_NOT_FOUND);
	/* A window, of what is no terminal. */
	resize.id = f.id;
	assert_int_equal(say(&nodes[2], &nodes[1], RESIZE, &resize.base, 0),
			 RPC_NOT_FOUND);
	assert_int_equal(say(&nodes[0], &nodes[1], RESIZE, &resize.base, 0),
			 RPC_NOT_FOUND);
	data.id = 1;
	assert_int_equal(say(&nodes[0], &nodes[1], DATA, &data.base, 10), RPC_NOT_FOUND);
	(void)flow_write(&f, 1000);
	flow_end(&f);
}

static void a_gap_is_not_taken(void **state)
{
	Ssi__Stream__DataRequest data = SSI__STREAM__DATA_REQUEST__INIT;
	struct flow f;

	flow_open(&f, &nodes[0], &nodes[1]);
	(void)flow_write(&f, 5);
	turn_until(event, (flow_read(&f, 5), f.got == 5));
	data.id = f.id;
	data.end = true;
	for (size_t i = 0; i < 4; i++) {
		struct said s;

		data.position = (uint64_t[]){6, 1ull << 40, 1ull << 63, UINT64_MAX}[i];
		s = ask(&nodes[0], &nodes[1], DATA, &data.base, 1 << 20);
		assert_int_equal(s.status, RPC_OK);
		assert_int_equal(s.wanted, 5);
	}
	(void)flow_write(&f, 1000);
	flow_end(&f);
}

static void positions_that_do_not_meet_break_both_sides(void **state)
{
	Ssi__Stream__OpenRequest open = SSI__STREAM__OPEN_REQUEST__INIT;
	struct flow f;

	for (int i = 0; i < 2; i++) {
		flow_open(&f, &nodes[0], &nodes[1]);
		turn(event, 10 * NSEC_PER_MSEC);
		open.id = f.id;
		open.role = i ? SSI__STREAM__ROLE__READER : SSI__STREAM__ROLE__WRITER;
		open.position = 77;
		assert_int_equal(say(&nodes[!i], &nodes[i], OPEN, &open.base, 0), RPC_USAGE);
		turn_until(event, flow_write(&f, 1) == -EPIPE);
		turn_until(event, (flow_read(&f, 1), f.ended));
		(void)close(f.in);
		(void)close(f.out);
		for (size_t k = 0; k < 2; k++)
			turn_until(event, node_kept(&nodes[k]) == 0);
	}
}

static void any_message_is_answered(void **state)
{
	enum { N = 8 };
	static const uint64_t positions[] = { 0, 1, 100, 65536, 1u << 20, 1ull << 62, 1ull << 63,
					      UINT64_MAX };
	struct flow f[N];

	srand(7);
	patience = 100 * NSEC_PER_MSEC; /* some wait for a program to read */
	for (int i = 0; i < N; i++)
		flow_open(&f[i], &nodes[below(2)], &nodes[below(2)]);
	for (int round = 0; round < 3000; round++) {
		Ssi__Stream__OpenRequest open = SSI__STREAM__OPEN_REQUEST__INIT;
		Ssi__Stream__DataRequest data = SSI__STREAM__DATA_REQUEST__INIT;
		Ssi__Stream__BrokenRequest broken = SSI__STREAM__BROKEN_REQUEST__INIT;
		struct flow *g = &f[below(N)];
		struct node *from = &nodes[below(NODES)], *to = &nodes[below(2)];

		open.id = data.id = broken.id = g->id + (below(10) ? 0 : below(3));
		open.position = data.position =
			below(2) ? positions[below(8)] : g->written + below(200) - 100;
		open.role = broken.role = (Ssi__Stream__Role)below(4);
		data.end = !below(20);
		if (!below(3))
			(void)say(from, to, OPEN, &open.base, below(2) * below(1000));
		else if (below(20))
			(void)say(from, to, DATA, &data.base,
				  below(4) ? below(300) : below(1 << 20));
		else
			(void)say(from, to, BROKEN, &broken.base, 0);
		(void)!write(g->in, "some bytes", 10);
		(void)!read(g->out, (char[1000]){ 0 }, 1000);
		if (!below(4)) {
			stream_on_node_lost(nodes[0].room, g->from->id);
			stream_on_node_lost(nodes[1].room, g->to->id);
			(void)close(g->in);
			(void)close(g->out);
			flow_open(g, &nodes[below(2)], &nodes[below(2)]);
		}
	}
	for (int i = 0; i < N; i++) {
		(void)close(f[i].in);
		(void)close(f[i].out);
	}
}

#define test(name_) cmocka_unit_test_setup_teardown(name_, up, down)

static int tests(void)
{
	const struct CMUnitTest all[] = {
		test(a_third_node_cannot_write_or_break),
		test(a_gap_is_not_taken),
		test(positions_that_do_not_meet_break_both_sides),
		test(any_message_is_answered),
	};

	return cmocka_run_group_tests_name("stream hostile", all, NULL, NULL);
}

int main(int argc, char **argv)
{
	return stream_fixture_main(argc, argv, tests);
}
