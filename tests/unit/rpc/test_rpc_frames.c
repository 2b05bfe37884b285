/* What a peer may send: rpc over a transport that this test plays. */
#include "cleanup.h"
#include "envelope.pb-c.h"
#include "log.h"
#include "rpc.h"
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum {
	NEVER = RPC_ROOM_PROCESS << 8 | 2,
	PEER = 2,
};

/* The links are any two distinct addresses. */
static char link_a, link_b;
#define A ((struct transport_link *)&link_a)
#define B ((struct transport_link *)&link_b)

struct fixture {
	struct world *w;
	struct rpc *rpc;
	unsigned n_sent, n_closed, n_connected;
	struct transport_frame last; /* sent; its message is copied */
	uint8_t message[512];
	struct transport_link *closed;
	struct rpc_call *kept;
	unsigned n_done;
	enum rpc_status status;
	char text[256];
};

RPC_HANDLER(on_never, struct fixture, Ssi__Envelope__Failure)
{
	self->kept = call;
}

static const struct rpc_method methods[] = {
	RPC_METHOD(NEVER, on_never, ssi__envelope__failure__descriptor,
		   ssi__envelope__failure__descriptor),
	{ 0 },
};

static int fake_connect(void *impl, node_id peer, const char *address,
			struct transport_link **ret)
{
	struct fixture *f = impl;

	f->n_connected++;
	*ret = A;
	return 0;
}

static int fake_send(void *impl, struct transport_link *link, const struct transport_frame *frame)
{
	struct fixture *f = impl;

	f->n_sent++;
	f->last = *frame;
	assert_true(frame->message.iov_len <= sizeof(f->message));
	memcpy(f->message, frame->message.iov_base, frame->message.iov_len);
	return 0;
}

static void fake_close(void *impl, struct transport_link *link, const char *reason)
{
	struct fixture *f = impl;

	f->n_closed++;
	f->closed = link;
}

static const struct transport_ops fake_ops = { fake_connect, fake_send, fake_close };

static int start(void *owner, unsigned slot)
{
	return 0;
}

static void stop(void *owner, unsigned slot)
{
	struct fixture *f = owner;

	f->rpc = rpc_free(f->rpc);
}

static struct transport fake;

static int setup(void **state)
{
	static const struct world_rooms rooms = { start, stop, NULL };
	struct fixture *f = calloc(1, sizeof(*f));
	struct rpc_peer peer = { PEER, "10.0.0.2:7777" };

	assert_non_null(f);
	f->w = world_new(1, 1, &rooms, f);
	world_boot(f->w, 1);
	assert_int_equal(rpc_new(&f->rpc, world_env(f->w, 1), 1), 0);
	fake = (struct transport){ &fake_ops, f };
	rpc_set_transport(f->rpc, &fake);
	assert_int_equal(rpc_register(f->rpc, methods, f), 0);
	assert_int_equal(rpc_set_view(f->rpc, 3, &peer, 1), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	(void)world_free(f->w);
	free(f);
	return 0;
}

static int frame(struct fixture *f, struct transport_link *link, uint8_t kind, uint16_t method,
		 uint64_t id, const void *bytes, size_t len)
{
	struct transport_frame t = { .kind = kind,
				     .method = method,
				     .id = id,
				     .epoch = 3,
				     .message = { (void *)bytes, len } };

	return rpc_events()->on_frame(f->rpc, link, &t);
}

static void on_done(void *owner, const struct rpc_result *result)
{
	struct fixture *f = owner;

	f->n_done++;
	f->status = result->status;
	(void)strncpy(f->text, result->text, sizeof(f->text) - 1);
}

/* One call that is on its way; its id. */
static uint64_t make_call(struct fixture *f)
{
	Ssi__Envelope__Failure q = SSI__ENVELOPE__FAILURE__INIT;

	assert_int_equal(rpc_call(f->rpc, PEER, NEVER, &q.base, RPC_NO_BULK, NSEC_PER_SEC,
				  on_done, f, NULL),
			 0);
	rpc_events()->on_up(f->rpc, A, PEER);
	assert_int_equal(f->last.kind, TRANSPORT_REQUEST);
	return f->last.id;
}

static void a_request_that_does_not_decode_closes_the_link(void **state)
{
	struct fixture *f = *state;

	rpc_events()->on_up(f->rpc, B, PEER);
	assert_int_not_equal(frame(f, B, TRANSPORT_REQUEST, NEVER, 1, "\xff\xff\xff", 3), 0);
	assert_int_equal(rpc_counters(f->rpc)->broken, 1);
	assert_null(f->kept);
}

static void an_unknown_method_is_refused_and_the_link_stays(void **state)
{
	struct fixture *f = *state;

	rpc_events()->on_up(f->rpc, B, PEER);
	assert_int_equal(frame(f, B, TRANSPORT_REQUEST, 0x7777, 1, "", 0), 0);
	assert_int_equal(f->last.kind, TRANSPORT_FAILED);
	assert_int_equal(f->last.id, 1);
}

static void an_unknown_kind_closes_the_link(void **state)
{
	struct fixture *f = *state;

	rpc_events()->on_up(f->rpc, B, PEER);
	assert_int_not_equal(frame(f, B, 0, NEVER, 1, "", 0), 0);
	assert_int_not_equal(frame(f, B, 77, NEVER, 1, "", 0), 0);
}

static void a_reply_on_another_link_closes_that_link(void **state)
{
	struct fixture *f = *state;
	uint64_t id = make_call(f);

	rpc_events()->on_up(f->rpc, B, PEER);
	assert_int_not_equal(frame(f, B, TRANSPORT_REPLY, NEVER, id, "", 0), 0);
	assert_int_not_equal(frame(f, A, TRANSPORT_REPLY, NEVER + 1, id, "", 0), 0);
	assert_int_equal(f->n_done, 0);
	assert_int_equal(frame(f, A, TRANSPORT_REPLY, NEVER, id, "", 0), 0);
	assert_int_equal(f->n_done, 1);
	assert_int_equal(f->status, RPC_OK);
}

static void a_second_reply_is_dropped(void **state)
{
	struct fixture *f = *state;
	uint64_t id = make_call(f);

	assert_int_equal(frame(f, A, TRANSPORT_REPLY, NEVER, id, "", 0), 0);
	assert_int_equal(frame(f, A, TRANSPORT_REPLY, NEVER, id, "", 0), 0);
	assert_int_equal(f->n_done, 1);
	assert_int_equal(rpc_counters(f->rpc)->orphans, 1);
}

static void a_failure_is_cleaned_for_people(void **state)
{
	struct fixture *f = *state;
	uint64_t id = make_call(f);
	Ssi__Envelope__Failure failure = SSI__ENVELOPE__FAILURE__INIT;
	uint8_t bytes[64];
	size_t len;

	failure.status = 4000;
	failure.text = "a\033[2J\nb";
	len = ssi__envelope__failure__pack(&failure, bytes);
	assert_int_equal(frame(f, A, TRANSPORT_FAILED, NEVER, id, bytes, len), 0);
	assert_int_equal(f->status, RPC_FAILED);
	assert_string_equal(f->text, "a?[2J?b");
}

static void requests_being_answered_are_bounded(void **state)
{
	struct fixture *f = *state;

	rpc_events()->on_up(f->rpc, B, PEER);
	for (unsigned i = 0; i < 1024; i++)
		assert_int_equal(frame(f, B, TRANSPORT_REQUEST, NEVER, i, "", 0), 0);
	assert_int_equal(f->n_sent, 0);
	assert_int_equal(frame(f, B, TRANSPORT_REQUEST, NEVER, 1024, "", 0), 0);
	assert_int_equal(f->last.kind, TRANSPORT_FAILED);
	assert_int_equal(f->last.id, 1024);
	/* Also when the peer begins again on another link. */
	rpc_events()->on_down(f->rpc, B, PEER, "gone");
	rpc_events()->on_up(f->rpc, B, PEER);
	assert_int_equal(frame(f, B, TRANSPORT_REQUEST, NEVER, 1, "", 0), 0);
	assert_int_equal(f->n_sent, 2);
	rpc_fail(f->kept, RPC_FAILED, "dropped: its link is gone");
	assert_int_equal(f->n_sent, 2);
	assert_int_equal(frame(f, B, TRANSPORT_REQUEST, NEVER, 2, "", 0), 0);
	assert_int_equal(f->n_sent, 2);
}

static void the_link_of_the_lower_id_is_kept(void **state)
{
	struct fixture *f = *state;
	Ssi__Envelope__Failure q = SSI__ENVELOPE__FAILURE__INIT;

	(void)make_call(f);
	rpc_events()->on_up(f->rpc, B, PEER);
	assert_int_equal(f->n_closed, 0);
	(void)rpc_call(f->rpc, PEER, NEVER, &q.base, RPC_NO_BULK, NSEC_PER_SEC, on_done, f, NULL);
	assert_int_equal(f->n_connected, 1);
	world_run(f->w, 20 * NSEC_PER_SEC);
	assert_int_equal(f->n_closed, 1);
	assert_ptr_equal(f->closed, B);
}

static void a_link_long_after_the_first_replaces_it(void **state)
{
	struct fixture *f = *state;

	(void)make_call(f);
	world_run(f->w, 20 * NSEC_PER_SEC);
	rpc_events()->on_up(f->rpc, B, PEER);
	assert_ptr_equal(f->closed, A);
}

static void a_link_that_does_not_come_up_ends_what_waits(void **state)
{
	struct fixture *f = *state;
	Ssi__Envelope__Failure q = SSI__ENVELOPE__FAILURE__INIT;

	(void)rpc_call(f->rpc, PEER, NEVER, &q.base, RPC_NO_BULK, NSEC_PER_SEC, on_done, f, NULL);
	rpc_events()->on_down(f->rpc, A, NODE_NONE, "certificate of another cluster");
	assert_int_equal(f->n_done, 0);
	world_run(f->w, NSEC_PER_SEC / 100);
	assert_int_equal(f->n_done, 1);
	assert_int_equal(f->status, RPC_DOWN);
	assert_string_equal(f->text, "node 2: certificate of another cluster");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
#define T(fn_) cmocka_unit_test_setup_teardown(fn_, setup, teardown)
		T(a_request_that_does_not_decode_closes_the_link),
		T(an_unknown_method_is_refused_and_the_link_stays),
		T(an_unknown_kind_closes_the_link),
		T(a_reply_on_another_link_closes_that_link),
		T(a_second_reply_is_dropped),
		T(a_failure_is_cleaned_for_people),
		T(requests_being_answered_are_bounded),
		T(the_link_of_the_lower_id_is_kept),
		T(a_link_long_after_the_first_replaces_it),
		T(a_link_that_does_not_come_up_ends_what_waits),
	};

	log_set_level(0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
