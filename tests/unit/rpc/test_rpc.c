/* rpc over the simulated links: what callers and handlers may rely on. */
#include "cleanup.h"
#include "envelope.pb-c.h"
#include "log.h"
#include "rpc.h"
#include "world.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum {
	ECHO = RPC_ROOM_PROCESS << 8 | 1,
	NEVER = RPC_ROOM_PROCESS << 8 | 2,
	OPEN = RPC_ROOM_MEMBERSHIP << 8 | 0x70, /* as membership's methods: for everybody */
	N = 3,
};

struct node {
	struct rpc *rpc;
	struct rpc_call *kept;
	unsigned n_served;
};

struct fixture {
	struct world *w;
	struct node nodes[N + 1];
};

struct outcome {
	unsigned n;
	enum rpc_status status;
	char text[256];
	uint32_t number;
	size_t bulk;
};

RPC_HANDLER(on_echo, struct node, Ssi__Envelope__Failure)
{
	self->n_served++;
	if (req->status == 4444)
		rpc_fail(call, RPC_NOT_FOUND, "no process %u", req->status);
	else
		rpc_reply(call, &req->base, bulk);
}

RPC_HANDLER(on_never, struct node, Ssi__Envelope__Failure)
{
	self->n_served++;
	self->kept = call;
}

static const struct rpc_method methods[] = {
	RPC_METHOD(ECHO, on_echo, ssi__envelope__failure__descriptor,
		   ssi__envelope__failure__descriptor),
	RPC_METHOD(OPEN, on_echo, ssi__envelope__failure__descriptor,
		   ssi__envelope__failure__descriptor),
	RPC_METHOD(NEVER, on_never, ssi__envelope__failure__descriptor,
		   ssi__envelope__empty__descriptor),
	{ 0 },
};

static int start(void *owner, unsigned slot)
{
	struct fixture *f = owner;
	struct node *n = &f->nodes[slot];

	*n = (struct node){ 0 };
	assert_int_equal(rpc_new(&n->rpc, world_env(f->w, slot), slot), 0);
	assert_int_equal(rpc_register(n->rpc, methods, n), 0);
	world_listen(f->w, slot, rpc_events(), n->rpc);
	rpc_set_transport(n->rpc, world_transport(f->w, slot));
	return 0;
}

static void stop(void *owner, unsigned slot)
{
	struct fixture *f = owner;

	f->nodes[slot].rpc = rpc_free(f->nodes[slot].rpc);
}

/* Nodes 1 to @n_nodes, of which @back is in again since @epoch (0: none). */
static void set_view_with(struct fixture *f, unsigned slot, epoch_t epoch, unsigned n_nodes,
			  unsigned back)
{
	struct rpc_peer peers[N];

	for (unsigned i = 0; i < n_nodes; i++)
		peers[i] = (struct rpc_peer){ i + 1, world_address(f->w, i + 1),
					      i + 1 == back ? epoch : 1 };
	assert_int_equal(rpc_set_view(f->nodes[slot].rpc, epoch, peers, n_nodes), 0);
}

static void set_view(struct fixture *f, unsigned slot, epoch_t epoch, unsigned n_nodes)
{
	set_view_with(f, slot, epoch, n_nodes, 0);
}

static int setup(void **state)
{
	static const struct world_rooms rooms = { start, stop, NULL };
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->w = world_new(42, N, &rooms, f);
	for (unsigned i = 1; i <= N; i++) {
		world_boot(f->w, i);
		set_view(f, i, 1, N);
	}
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

static void on_done(void *owner, const struct rpc_result *result)
{
	struct outcome *o = owner;

	o->n++;
	o->status = result->status;
	(void)strncpy(o->text, result->text, sizeof(o->text) - 1);
	o->bulk = result->bulk.iov_len;
	if (result->reply && result->reply->descriptor == &ssi__envelope__failure__descriptor)
		o->number = ((const Ssi__Envelope__Failure *)result->reply)->status;
}

static struct rpc_request *call(struct fixture *f, unsigned from, node_id to, uint16_t method,
				uint32_t number, size_t bulk, struct outcome *ret)
{
	static uint8_t bytes[TRANSPORT_BULK_MAX];
	Ssi__Envelope__Failure q = SSI__ENVELOPE__FAILURE__INIT;
	struct rpc_request *request;

	q.status = number;
	q.text = "x";
	*ret = (struct outcome){ 0 };
	assert_int_equal(rpc_call(f->nodes[from].rpc, to, method, &q.base,
				  (struct iovec){ bytes, bulk }, 2 * NSEC_PER_SEC, on_done, ret,
				  &request),
			 0);
	assert_int_equal(ret->n, 0);
	return request;
}

static void a_call_is_answered_with_its_bulk(void **state)
{
	struct fixture *f = *state;
	struct outcome o;

	call(f, 1, 2, ECHO, 5, 1000, &o);
	world_run(f->w, NSEC_PER_SEC);
	assert_int_equal(o.n, 1);
	assert_int_equal(o.status, RPC_OK);
	assert_int_equal(o.number, 5);
	assert_int_equal(o.bulk, 1000);
}

static void a_failure_carries_its_text(void **state)
{
	struct fixture *f = *state;
	struct outcome o;

	call(f, 1, 2, ECHO, 4444, 0, &o);
	world_run(f->w, NSEC_PER_SEC);
	assert_int_equal(o.status, RPC_NOT_FOUND);
	assert_string_equal(o.text, "no process 4444");
}

static void a_call_to_this_node_takes_the_loop(void **state)
{
	struct fixture *f = *state;
	struct outcome o, failed;

	call(f, 1, 1, ECHO, 5, 1000, &o);
	call(f, 1, 1, ECHO, 4444, 0, &failed);
	assert_int_equal(f->nodes[1].n_served, 0);
	world_run(f->w, NSEC_PER_SEC / 100);
	assert_int_equal(o.n, 1);
	assert_int_equal(o.number, 5);
	assert_int_equal(o.bulk, 1000);
	assert_int_equal(failed.status, RPC_NOT_FOUND);
	assert_int_equal(rpc_counters(f->nodes[1].rpc)->links, 0);
}

static void a_call_without_an_answer_times_out(void **state)
{
	struct fixture *f = *state;
	struct outcome o, local;
	Ssi__Envelope__Empty empty = SSI__ENVELOPE__EMPTY__INIT;

	call(f, 1, 2, NEVER, 0, 0, &o);
	call(f, 3, 3, NEVER, 0, 0, &local);
	world_run(f->w, 1900 * NSEC_PER_MSEC);
	assert_int_equal(o.n + local.n, 0);
	world_run(f->w, NSEC_PER_SEC);
	assert_int_equal(o.n, 1);
	assert_int_equal(o.status, RPC_TIMEOUT);
	assert_string_equal(o.text, "node 2 did not answer within 2000 ms");
	assert_int_equal(local.status, RPC_TIMEOUT);
	/* The late answers find nobody, and harm nobody. */
	rpc_reply(f->nodes[2].kept, &empty.base, RPC_NO_BULK);
	rpc_reply(f->nodes[3].kept, &empty.base, RPC_NO_BULK);
	world_run(f->w, NSEC_PER_SEC);
	assert_int_equal(o.n, 1);
	assert_int_equal(rpc_counters(f->nodes[1].rpc)->orphans, 1);
}

static void a_node_outside_of_the_view_is_not_called(void **state)
{
	struct fixture *f = *state;
	struct outcome o;

	set_view(f, 1, 2, 2);
	call(f, 1, 3, ECHO, 1, 0, &o);
	world_run(f->w, NSEC_PER_SEC);
	assert_int_equal(o.status, RPC_DOWN);
	assert_string_equal(o.text, "node 3 is not in view 2");
}

static const char *name_of(void *owner, node_id node)
{
	return node == 3 ? owner : NULL;
}

static void texts_call_nodes_by_their_names_where_they_are_known(void **state)
{
	struct fixture *f = *state;
	struct outcome o, answer;

	set_view(f, 1, 2, 2);
	rpc_set_names(f->nodes[1].rpc, name_of, "n3");
	call(f, 1, 3, ECHO, 1, 0, &o);
	call(f, 3, 1, ECHO, 1, 0, &answer);
	world_run(f->w, NSEC_PER_SEC);
	assert_string_equal(o.text, "node n3 is not in view 2");
	assert_string_equal(answer.text, "node n3 is not in view 2 of node 1");
}

static void a_node_outside_of_the_view_is_served_by_membership_only(void **state)
{
	struct fixture *f = *state;
	struct outcome o, membership;

	set_view(f, 1, 2, 2);
	call(f, 3, 1, ECHO, 1, 0, &o);
	call(f, 3, 1, OPEN, 9, 0, &membership);
	world_run(f->w, NSEC_PER_SEC);
	assert_int_equal(o.status, RPC_STALE);
	assert_string_equal(o.text, "node 3 is not in view 2 of node 1");
	assert_int_equal(membership.status, RPC_OK);
	assert_int_equal(rpc_counters(f->nodes[1].rpc)->refused, 1);
}

static void a_server_is_called_outside_of_the_view_by_the_rooms_below_it(void **state)
{
	struct fixture *f = *state;
	struct rpc_peer server = { 3, world_address(f->w, 3) };
	struct outcome o, below, after;

	assert_int_equal(rpc_set_servers(f->nodes[1].rpc, &server, 1), 0);
	set_view(f, 1, 2, 2);
	call(f, 1, 3, ECHO, 1, 0, &o);
	call(f, 1, 3, OPEN, 9, 0, &below);
	world_run(f->w, NSEC_PER_SEC);
	assert_int_equal(o.status, RPC_DOWN);
	assert_int_equal(below.status, RPC_OK);
	assert_int_equal(rpc_set_servers(f->nodes[1].rpc, NULL, 0), 0);
	call(f, 1, 3, OPEN, 9, 0, &after);
	world_run(f->w, NSEC_PER_SEC);
	assert_int_equal(after.status, RPC_DOWN);
}

static void a_request_is_refused_if_one_end_was_out_since_it_was_sent(void **state)
{
	struct fixture *f = *state;
	struct outcome before, after, newer;

	for (unsigned back = 1; back <= 2; back++) {
		set_view(f, 1, 4 * back, N);
		set_view_with(f, 2, 4 * back + 1, N, back);
		call(f, 1, 2, ECHO, 1, 0, &before);
		call(f, 2, 1, ECHO, 1, 0, &newer);
		world_run(f->w, NSEC_PER_SEC);
		assert_int_equal(before.status, RPC_STALE);
		assert_string_equal(before.text,
				    back == 1 ?
					    "made in view 4; node 1 was out of the cluster since" :
					    "made in view 8; node 2 was out of the cluster since");
		assert_int_equal(newer.status, RPC_OK);
		set_view_with(f, 1, 4 * back + 1, N, back);
		call(f, 1, 2, ECHO, 1, 0, &after);
		world_run(f->w, NSEC_PER_SEC);
		assert_int_equal(after.status, RPC_OK);
	}
}

static void a_view_that_changes_others_disturbs_nobody(void **state)
{
	struct fixture *f = *state;
	struct outcome o;

	set_view_with(f, 2, 5, N, 3);
	call(f, 1, 2, ECHO, 1, 0, &o);
	world_run(f->w, NSEC_PER_SEC);
	assert_int_equal(o.status, RPC_OK);
}

static void who_does_not_know_the_sender_yet_is_asked_again(void **state)
{
	struct fixture *f = *state;
	struct outcome o, never;

	set_view(f, 1, 1, 2);
	set_view_with(f, 3, 2, N, 3);
	call(f, 3, 1, ECHO, 7, 10000, &o);
	world_run(f->w, NSEC_PER_SEC / 2);
	assert_int_equal(o.n, 0);
	set_view_with(f, 1, 2, N, 3);
	world_run(f->w, NSEC_PER_SEC / 2);
	assert_int_equal(o.n, 1);
	assert_int_equal(o.status, RPC_OK);
	assert_int_equal(o.number, 7);
	assert_int_equal(o.bulk, 10000);
	assert_int_equal(f->nodes[1].n_served, 1);

	set_view_with(f, 3, 3, N, 3);
	set_view(f, 1, 2, 2);
	world_run(f->w, NSEC_PER_SEC);
	call(f, 3, 1, ECHO, 7, 0, &never);
	world_run(f->w, 5 * NSEC_PER_SEC);
	assert_int_equal(never.n, 1);
	assert_int_equal(never.status, RPC_STALE);
	assert_string_equal(never.text, "node 3 is not in view 2 of node 1");
}

static void a_server_that_is_not_up_is_for_the_rooms_below_views(void **state)
{
	struct fixture *f = *state;
	struct rpc_peer peer = { 3, world_address(f->w, 3), RPC_NEVER };
	struct outcome o, below, pending, from;

	call(f, 1, 3, NEVER, 0, 0, &pending);
	world_run(f->w, NSEC_PER_SEC / 2);
	assert_int_equal(rpc_set_view(f->nodes[1].rpc, 2, &peer, 1), 0);
	call(f, 1, 3, ECHO, 1, 0, &o);
	call(f, 1, 3, OPEN, 9, 0, &below);
	call(f, 3, 1, ECHO, 1, 0, &from);
	world_run(f->w, NSEC_PER_SEC);
	assert_int_equal(pending.status, RPC_DOWN);
	assert_int_equal(o.status, RPC_DOWN);
	assert_int_equal(below.status, RPC_OK);
	assert_int_equal(from.status, RPC_STALE);
}

static void leaving_the_view_ends_calls(void **state)
{
	struct fixture *f = *state;
	struct outcome o;

	call(f, 1, 3, NEVER, 0, 0, &o);
	world_run(f->w, NSEC_PER_SEC / 2);
	set_view(f, 1, 2, 2);
	world_run(f->w, NSEC_PER_SEC / 100);
	assert_int_equal(o.n, 1);
	assert_int_equal(o.status, RPC_DOWN);
	assert_string_equal(o.text, "node 3: it is no longer in the view");
}

static void a_broken_link_ends_calls_and_the_next_opens_another(void **state)
{
	struct fixture *f = *state;
	struct outcome o, next;

	call(f, 1, 2, NEVER, 0, 0, &o);
	world_run(f->w, NSEC_PER_SEC / 2);
	world_break(f->w, 1, 2);
	world_run(f->w, NSEC_PER_SEC);
	assert_int_equal(o.n, 1);
	assert_int_equal(o.status, RPC_DOWN);
	assert_string_equal(o.text, "node 2: connection reset");
	/* Not silently repeated. */
	assert_int_equal(f->nodes[2].n_served, 1);
	call(f, 1, 2, ECHO, 3, 0, &next);
	world_run(f->w, NSEC_PER_SEC);
	assert_int_equal(next.status, RPC_OK);
	assert_int_equal(rpc_counters(f->nodes[1].rpc)->links, 2);
}

static void a_node_that_does_not_run_is_down(void **state)
{
	struct fixture *f = *state;
	struct outcome o;

	world_crash(f->w, 2, false);
	call(f, 1, 2, ECHO, 3, 0, &o);
	world_run(f->w, NSEC_PER_SEC);
	assert_int_equal(o.status, RPC_DOWN);
	assert_string_equal(o.text, "node 2: connection refused");
}

static void both_open_at_once_and_every_call_is_answered(void **state)
{
	struct fixture *f = *state;
	struct outcome there[50], back[50];

	for (unsigned i = 0; i < 50; i++) {
		call(f, 1, 2, ECHO, i, 0, &there[i]);
		call(f, 2, 1, ECHO, i, 0, &back[i]);
		world_run(f->w, NSEC_PER_SEC / 1000);
	}
	world_run(f->w, 2 * NSEC_PER_SEC);
	for (unsigned i = 0; i < 50; i++)
		assert_true(there[i].status == RPC_OK && back[i].status == RPC_OK &&
			    there[i].number == i && back[i].number == i);
	assert_int_equal(rpc_counters(f->nodes[1].rpc)->links, 2);
	/* The one that is not needed goes, the other stays. */
	world_run(f->w, 30 * NSEC_PER_SEC);
	call(f, 1, 2, ECHO, 1, 0, &there[0]);
	call(f, 2, 1, ECHO, 1, 0, &back[0]);
	world_run(f->w, NSEC_PER_SEC);
	assert_true(there[0].status == RPC_OK && back[0].status == RPC_OK);
	assert_int_equal(rpc_counters(f->nodes[1].rpc)->links, 2);
}

static void an_idle_link_is_closed(void **state)
{
	struct fixture *f = *state;
	struct outcome o;

	call(f, 1, 2, ECHO, 3, 0, &o);
	world_run(f->w, 100 * NSEC_PER_SEC);
	call(f, 1, 2, ECHO, 3, 0, &o);
	world_run(f->w, NSEC_PER_SEC);
	assert_int_equal(o.status, RPC_OK);
	assert_int_equal(rpc_counters(f->nodes[1].rpc)->links, 2);
	assert_int_equal(rpc_silent_since(f->nodes[1].rpc, 2), 0);
	assert_int_equal(rpc_silent_since(f->nodes[2].rpc, 1), 0);
}

static void who_is_asked_in_vain_is_silent_until_something_comes(void **state)
{
	struct fixture *f = *state;
	struct outcome late, o;
	nsec_t asked;

	/* It has not answered one, and has another: it is there. */
	call(f, 1, 2, NEVER, 0, 0, &late);
	world_run(f->w, NSEC_PER_SEC);
	call(f, 1, 2, ECHO, 3, 0, &o);
	world_run(f->w, 2 * NSEC_PER_SEC);
	assert_int_equal(late.status, RPC_TIMEOUT);
	assert_int_equal(rpc_silent_since(f->nodes[1].rpc, 2), 0);

	world_cut(f->w, 2, 1, true);
	world_run(f->w, NSEC_PER_SEC);
	assert_int_equal(rpc_silent_since(f->nodes[1].rpc, 2), 0);
	asked = env_now(world_env(f->w, 1));
	call(f, 1, 2, ECHO, 3, 0, &o);
	world_run(f->w, 3 * NSEC_PER_SEC);
	assert_int_equal(rpc_silent_since(f->nodes[1].rpc, 2), asked);
	/* The next one in vain changes nothing. */
	call(f, 1, 2, ECHO, 3, 0, &o);
	world_run(f->w, 3 * NSEC_PER_SEC);
	assert_int_equal(rpc_silent_since(f->nodes[1].rpc, 2), asked);

	world_heal(f->w);
	call(f, 2, 1, ECHO, 3, 0, &o);
	world_run(f->w, 3 * NSEC_PER_SEC);
	assert_int_equal(o.status, RPC_OK);
	assert_int_equal(rpc_silent_since(f->nodes[1].rpc, 2), 0);
}

static void who_was_out_is_not_silent_for_what_was_before(void **state)
{
	struct fixture *f = *state;
	struct outcome o;

	world_cut(f->w, 1, 2, true);
	call(f, 1, 2, ECHO, 3, 0, &o);
	world_run(f->w, 3 * NSEC_PER_SEC);
	assert_int_not_equal(rpc_silent_since(f->nodes[1].rpc, 2), 0);
	set_view(f, 1, 2, 1);
	assert_int_equal(rpc_silent_since(f->nodes[1].rpc, 2), 0);
	set_view_with(f, 1, 3, N, 2);
	assert_int_equal(rpc_silent_since(f->nodes[1].rpc, 2), 0);
}

static void a_cancelled_call_never_ends(void **state)
{
	struct fixture *f = *state;
	struct outcome waiting, sent, local, ended;
	struct rpc_request *q;

	q = call(f, 1, 2, ECHO, 1, 0, &waiting);
	rpc_cancel(f->nodes[1].rpc, q);
	q = call(f, 1, 2, NEVER, 1, 0, &sent);
	world_run(f->w, NSEC_PER_SEC / 2);
	rpc_cancel(f->nodes[1].rpc, q);
	q = call(f, 1, 1, NEVER, 1, 0, &local);
	world_run(f->w, NSEC_PER_SEC / 100);
	rpc_cancel(f->nodes[1].rpc, q);
	rpc_fail(f->nodes[1].kept, RPC_FAILED, "nobody hears it");
	q = call(f, 1, 99, ECHO, 1, 0, &ended);
	rpc_cancel(f->nodes[1].rpc, q);
	world_run(f->w, 5 * NSEC_PER_SEC);
	assert_int_equal(waiting.n + sent.n + local.n + ended.n, 0);
}

static void the_end_of_rpc_ends_calls(void **state)
{
	struct fixture *f = *state;
	struct outcome waiting, local, sent;

	call(f, 1, 2, NEVER, 0, 0, &sent);
	world_run(f->w, NSEC_PER_SEC / 2);
	call(f, 1, 3, ECHO, 0, 0, &waiting);
	call(f, 1, 1, ECHO, 0, 0, &local);
	world_crash(f->w, 1, false);
	assert_true(sent.n == 1 && waiting.n == 1 && local.n == 1);
	assert_int_equal(sent.status, RPC_DOWN);
	assert_string_equal(local.text, "this node is stopping");
}

static void what_the_link_does_not_take_waits(void **state)
{
	struct fixture *f = *state;
	struct outcome o[20], refused;

	for (unsigned i = 0; i < 16; i++)
		call(f, 1, 2, ECHO, i, TRANSPORT_BULK_MAX - 16, &o[i]);
	call(f, 1, 2, ECHO, 1, TRANSPORT_BULK_MAX, &refused);
	assert_true(rpc_queued(f->nodes[1].rpc, 2) > 8 << 20);
	world_run(f->w, 5 * NSEC_PER_SEC);
	for (unsigned i = 0; i < 16; i++) {
		assert_int_equal(o[i].status, RPC_OK);
		assert_int_equal(o[i].bulk, TRANSPORT_BULK_MAX - 16);
	}
	assert_int_equal(refused.status, RPC_CONFLICT);
	assert_int_equal(rpc_queued(f->nodes[1].rpc, 2), 0);
}

static void too_much_is_refused_at_once(void **state)
{
	struct fixture *f = *state;
	static uint8_t big[TRANSPORT_BULK_MAX + 1];
	Ssi__Envelope__Failure q = SSI__ENVELOPE__FAILURE__INIT;

	assert_int_equal(rpc_call(f->nodes[1].rpc, 2, ECHO, &q.base,
				  (struct iovec){ big, sizeof(big) }, NSEC_PER_SEC, on_done,
				  NULL, NULL),
			 -EMSGSIZE);
	assert_int_equal(rpc_call(f->nodes[1].rpc, 2, 0x7f01, &q.base, RPC_NO_BULK,
				  NSEC_PER_SEC, on_done, NULL, NULL),
			 -EOPNOTSUPP);
	assert_int_equal(rpc_register(f->nodes[1].rpc, methods, NULL), -EEXIST);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
#define T(fn_) cmocka_unit_test_setup_teardown(fn_, setup, teardown)
		T(a_call_is_answered_with_its_bulk),
		T(a_failure_carries_its_text),
		T(a_call_to_this_node_takes_the_loop),
		T(a_call_without_an_answer_times_out),
		T(a_node_outside_of_the_view_is_not_called),
		T(texts_call_nodes_by_their_names_where_they_are_known),
		T(a_node_outside_of_the_view_is_served_by_membership_only),
		T(a_server_is_called_outside_of_the_view_by_the_rooms_below_it),
		T(a_request_is_refused_if_one_end_was_out_since_it_was_sent),
		T(a_view_that_changes_others_disturbs_nobody),
		T(who_does_not_know_the_sender_yet_is_asked_again),
		T(a_server_that_is_not_up_is_for_the_rooms_below_views),
		T(leaving_the_view_ends_calls),
		T(a_broken_link_ends_calls_and_the_next_opens_another),
		T(a_node_that_does_not_run_is_down),
		T(both_open_at_once_and_every_call_is_answered),
		T(an_idle_link_is_closed),
		T(who_is_asked_in_vain_is_silent_until_something_comes),
		T(who_was_out_is_not_silent_for_what_was_before),
		T(a_cancelled_call_never_ends),
		T(the_end_of_rpc_ends_calls),
		T(what_the_link_does_not_take_waits),
		T(too_much_is_refused_at_once),
	};

	log_set_level(0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
