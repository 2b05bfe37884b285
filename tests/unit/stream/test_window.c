/*
 * How many messages of a stream are on their way, and what becomes of them: a reader
 * whose other end is this test, then a writer.
 */
#include "flow.h"

#include "log.h"
#include "stream.pb-c.h"

#include <string.h>

enum {
	OPEN = RPC_ROOM_STREAM << 8 | 1,
	DATA = RPC_ROOM_STREAM << 8 | 2,
	BROKEN = RPC_ROOM_STREAM << 8 | 3,
	PIECE = 65536,
};

static struct env_event *event;
static struct node nodes[2];
static struct flow flow;

/* Messages, as they come to the test; it answers when it likes. */
static struct {
	struct rpc_call *call;
	uint64_t position;
	size_t len;
	bool end;
} came[32];
static size_t n_came;
static uint64_t wanted; /* what an announcement is answered with */
static bool wild;	/* messages are answered at once, and not truly */

RPC_HANDLER(on_open, void, Ssi__Stream__OpenRequest)
{
	Ssi__Stream__OpenReply reply = SSI__STREAM__OPEN_REPLY__INIT;

	reply.position = wanted;
	rpc_reply(call, &reply.base, RPC_NO_BULK);
}

RPC_HANDLER(on_broken, void, Ssi__Stream__BrokenRequest)
{
	Ssi__Stream__OpenReply reply = SSI__STREAM__OPEN_REPLY__INIT;

	rpc_reply(call, &reply.base, RPC_NO_BULK);
}

static void answer_wildly(struct rpc_call *call, uint64_t position, size_t len)
{
	const uint64_t positions[] = {0,
				      position,
				      position + len,
				      position + below(100000),
				      position - below(100000),
				      1ull << 62,
				      UINT64_MAX};
	Ssi__Stream__DataReply reply = SSI__STREAM__DATA_REPLY__INIT;

	if (!below(8))
		return rpc_fail(call, (enum rpc_status)(1 + below(9)), "so it is");
	reply.position = positions[below(10) ? 1 + below(2) : below(7)];
	reply.room = (uint32_t[]){0, 1, PIECE, 5 * PIECE, UINT32_MAX}[below(5)];
	reply.ended = !below(5);
	rpc_reply(call, &reply.base, RPC_NO_BULK);
}

RPC_HANDLER(on_data, void, Ssi__Stream__DataRequest)
{
	const uint8_t *bytes = bulk.iov_base;

	if (wild)
		return answer_wildly(call, req->position, bulk.iov_len);
	assert_true(n_came < N_ELEMENTS(came));
	for (size_t i = 0; i < bulk.iov_len; i++)
		assert_int_equal(bytes[i], byte_at(req->id, req->position + i));
	came[n_came].call = call;
	came[n_came].position = req->position;
	came[n_came].len = bulk.iov_len;
	came[n_came++].end = req->end;
}

static const struct rpc_method methods[] = {
	RPC_METHOD(OPEN, on_open, ssi__stream__open_request__descriptor,
		   ssi__stream__open_reply__descriptor),
	RPC_METHOD(DATA, on_data, ssi__stream__data_request__descriptor,
		   ssi__stream__data_reply__descriptor),
	RPC_METHOD(BROKEN, on_broken, ssi__stream__broken_request__descriptor,
		   ssi__stream__open_reply__descriptor),
	{0},
};

static void answer(size_t i, uint64_t position, uint32_t room, bool ended)
{
	Ssi__Stream__DataReply reply = SSI__STREAM__DATA_REPLY__INIT;

	reply.position = position;
	reply.room = room;
	reply.ended = ended;
	rpc_reply(came[i].call, &reply.base, RPC_NO_BULK);
}

/* So many have come, and no more do. */
static void check_came(size_t n)
{
	turn_until(event, n_came >= n);
	turn(event, 20 * NSEC_PER_MSEC);
	assert_int_equal(n_came, n);
}

static void check_message(size_t i, uint64_t position, size_t len)
{
	assert_int_equal(came[i].position, position);
	assert_int_equal(came[i].len, len);
}

static int up(void **state)
{
	assert_int_equal(env_event_new(&event), 0);
	node_start(&nodes[0], 1, event);
	node_start_bare(&nodes[1], 2, event);
	assert_int_equal(rpc_register(nodes[1].rpc, methods, NULL), 0);
	n_came = 0;
	wanted = 0;
	wild = false;
	return 0;
}

static int down(void **state)
{
	for (size_t i = 0; i < 2; i++) {
		turn_until(event, node_kept(&nodes[i]) == 0);
		node_stop(&nodes[i]);
	}
	event = env_event_free(event);
	return 0;
}

/* Its first ten bytes are here, four pieces wait there. */
static void open_reader(void)
{
	flow = (struct flow){
		.id = stream_new_id(nodes[0].room), .from = &nodes[0], .to = &nodes[1]};
	open_in(&flow, 0, NULL, 0);
	assert_true(fcntl(flow.in, F_SETPIPE_SZ, 1 << 20) > 0);
	assert_int_equal(flow_write(&flow, 10), 10);
	check_came(1);
	check_message(0, 0, 10);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(flow_write(&flow, PIECE), PIECE);
	check_came(1); /* nobody has said that there is room */
}

static void close_reader(uint64_t position)
{
	size_t last = n_came;

	(void)close(flow.in);
	check_came(last + 1);
	check_message(last, position, 0);
	assert_true(came[last].end);
	answer(last, position, 0, true);
}

static void pieces_follow_each_other_while_there_is_room(void **state)
{
	open_reader();
	answer(0, 10, 2 * PIECE + 100, false);
	check_came(3);
	answer(1, 10 + PIECE, 3 * PIECE, false);
	check_came(5);
	for (size_t i = 0; i < 4; i++)
		check_message(1 + i, 10 + i * PIECE, PIECE);
	/* By two links, in another order. */
	answer(3, 10 + 3 * PIECE, PIECE, false);
	answer(2, 10 + 2 * PIECE, 0, false);
	check_came(5);
	answer(4, 10 + 4 * PIECE, 0, false);
	close_reader(10 + 4 * PIECE);
}

static void less_than_a_piece_waits_for_an_answer(void **state)
{
	open_reader();
	answer(0, 10, 100 * PIECE, false);
	check_came(5);
	for (size_t i = 0; i < 3; i++)
		answer(1 + i, 10 + (1 + i) * PIECE, 100 * PIECE, false);
	assert_int_equal(flow_write(&flow, 5), 5);
	check_came(5);
	assert_int_equal(flow_write(&flow, 6), 6);
	answer(4, 10 + 4 * PIECE, 100 * PIECE, false);
	check_came(6);
	check_message(5, 10 + 4 * PIECE, 11);
	answer(5, 10 + 4 * PIECE + 11, 0, false);
	close_reader(10 + 4 * PIECE + 11);
}

static void what_was_not_taken_comes_again(void **state)
{
	open_reader();
	answer(0, 10, 2 * PIECE, false);
	check_came(3);
	/* Part of it; the one behind it is forgotten with what is missing before it. */
	answer(1, 110, 3 * PIECE, false);
	check_came(6);
	for (size_t i = 0; i < 3; i++)
		check_message(3 + i, 110 + i * PIECE, PIECE);
	answer(2, 110, 3 * PIECE, false);
	check_came(6);
	/* The second of three fails: its node has another ssid, say. */
	answer(3, 110 + PIECE, 2 * PIECE, false);
	wanted = 110 + PIECE;
	rpc_fail(came[4].call, RPC_FAILED, "no memory");
	check_came(7);
	check_message(6, 110 + PIECE, PIECE);
	answer(5, 110 + PIECE, 0, false);
	answer(6, 110 + 2 * PIECE, 4 * PIECE, false);
	check_came(8);
	check_message(7, 110 + 2 * PIECE, PIECE);
	answer(7, 110 + 3 * PIECE, 4 * PIECE, false);
	check_came(9);
	check_message(8, 110 + 3 * PIECE, PIECE - 100);
	answer(8, 10 + 4 * PIECE, 0, false);
	close_reader(10 + 4 * PIECE);
}

static void any_answer_is_borne(void **state)
{
	log_set_level(0);
	srand(7);
	wild = true;
	for (int i = 0; i < 300; i++) {
		flow = (struct flow){.id = stream_new_id(nodes[0].room),
				     .from = &nodes[0],
				     .to = &nodes[1]};
		open_in(&flow, 0, NULL, 0);
		assert_true(fcntl(flow.in, F_SETPIPE_SZ, 1 << 20) > 0);
		for (int k = 0; k < 5; k++) {
			(void)flow_write(&flow, 1 + below(PIECE));
			turn(event, below(10) * 100 * NSEC_PER_USEC);
		}
		(void)close(flow.in);
		turn(event, below(3) * NSEC_PER_MSEC);
		stream_on_node_lost(nodes[0].room, 2);
		assert_int_equal(node_kept(&nodes[0]), 0);
	}
}

/* -- The writer's side. -- */

static struct answered {
	bool done;
	uint64_t position;
	uint32_t room;
} answered[16];

static void on_answered(void *owner, const struct rpc_result *result)
{
	const Ssi__Stream__DataReply *reply = (const void *)result->reply;
	struct answered *a = owner;

	assert_int_equal(result->status, RPC_OK);
	*a = (struct answered){true, reply->position, reply->room};
}

static void say(size_t i, uint64_t position, size_t len, bool end)
{
	static uint8_t bytes[PIECE];
	Ssi__Stream__DataRequest q = SSI__STREAM__DATA_REQUEST__INIT;

	for (size_t k = 0; k < len; k++)
		bytes[k] = byte_at(flow.id, position + k);
	q.id = flow.id;
	q.position = position;
	q.end = end;
	assert_int_equal(rpc_call(nodes[1].rpc, 1, DATA, &q.base,
				  (struct iovec){bytes, len}, 10 * NSEC_PER_SEC,
				  on_answered, &answered[i], NULL),
			 0);
	flow.written = position + len;
}

static void check_answered(size_t i, uint64_t position, uint32_t room)
{
	turn_until(event, answered[i].done);
	assert_int_equal(answered[i].position, position);
	assert_int_equal(answered[i].room, room);
}

static void check_waits(size_t i)
{
	turn(event, 20 * NSEC_PER_MSEC);
	assert_false(answered[i].done);
}

static void a_writer_answers_the_last_when_there_is_room(void **state)
{
	memset(answered, 0, sizeof(answered));
	flow = (struct flow){
		.id = stream_new_id(nodes[0].room), .from = &nodes[1], .to = &nodes[0]};
	open_out(&flow, 0, NULL, 0);
	/* One in the pipe, two in the lower half of the hand. */
	for (size_t i = 0; i < 3; i++) {
		say(i, i * PIECE, PIECE, false);
		check_answered(i, (i + 1) * PIECE, (uint32_t)(4 - i) * PIECE);
	}
	say(3, 3 * PIECE, PIECE, false);
	check_waits(3);
	say(4, 4 * PIECE, PIECE, false);
	check_answered(3, 4 * PIECE, PIECE);
	/* Full; and a gap, of which nothing is taken. */
	say(5, 5 * PIECE, PIECE, false);
	check_answered(4, 5 * PIECE, 0);
	say(6, 6 * PIECE, 100, true);
	check_answered(5, 5 * PIECE, 0);
	check_waits(6);
	while (flow.got < 3 * PIECE) {
		flow_read(&flow, PIECE);
		turn(event, NSEC_PER_MSEC);
	}
	turn_until(event, answered[6].done);
	assert_int_equal(answered[6].position, 5 * PIECE);
	say(7, 5 * PIECE, 100, true);
	turn_until(event, (flow_read(&flow, PIECE), flow.ended));
	assert_int_equal(flow.got, 5 * PIECE + 100);
	check_answered(7, 5 * PIECE + 100, answered[7].room);
	(void)close(flow.out);
}

#define test(name_) cmocka_unit_test_setup_teardown(name_, up, down)

static int tests(void)
{
	const struct CMUnitTest all[] = {
		test(pieces_follow_each_other_while_there_is_room),
		test(less_than_a_piece_waits_for_an_answer),
		test(what_was_not_taken_comes_again),
		test(any_answer_is_borne),
		test(a_writer_answers_the_last_when_there_is_room),
	};

	return cmocka_run_group_tests_name("stream window", all, NULL, NULL);
}

int main(int argc, char **argv)
{
	return stream_fixture_main(argc, argv, tests);
}
