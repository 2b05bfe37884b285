/* The room on one node of a simulated cluster: who watches, and who asks by rpc. */
#include "cleanup.h"
#include "events_internal.h"
#include "log.h"
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

struct reader {
	struct events_asking asking;
	unsigned n_answers;
	enum rpc_status status;
	size_t n;
	uint64_t after, lost;
	pid_t first; /* of the page */
};

struct fixture {
	struct world *w;
	struct rpc *rpc;
	struct membership *m;
	struct events *e;
	struct events_watch watch;
	unsigned n_watched;
	struct reader reader;
};

static void on_view(void *owner, const struct membership_view *view)
{
	struct fixture *f = owner;

	if (f->e)
		events_on_view(f->e, view);
}

static void on_lease(void *owner, bool held)
{
	events_on_lease(((struct fixture *)owner)->e, held);
}

static void on_pid_block(void *owner, pid_t first, uint32_t count)
{
}

static int start(void *owner, unsigned slot)
{
	static const struct membership_events events = { on_view, on_lease, on_pid_block, NULL };
	struct fixture *f = owner;
	struct membership_config config = {
		.self = 1, .name = "n1", .address = world_address(f->w, 1), .leader = 1,
		.leader_address = world_address(f->w, 1), .ca_pem = "CA", .ca_key_pem = "KEY",
	};

	assert_int_equal(rpc_new(&f->rpc, world_env(f->w, 1), 1), 0);
	world_listen(f->w, slot, rpc_events(), f->rpc);
	rpc_set_transport(f->rpc, world_transport(f->w, 1));
	assert_int_equal(membership_new(&f->m, world_env(f->w, 1), world_store(f->w, 1), f->rpc,
					&config, &events, f), 0);
	assert_int_equal(events_new(&f->e, world_env(f->w, 1), f->rpc, f->m, NULL, NULL), 0);
	return 0;
}

static void stop(void *owner, unsigned slot)
{
	struct fixture *f = owner;

	f->e = events_free(f->e);
	f->m = membership_free(f->m);
	f->rpc = rpc_free(f->rpc);
}

static void run(struct fixture *f, unsigned ms)
{
	world_run(f->w, ms * NSEC_PER_MSEC);
}

static void tell(struct fixture *f, pid_t pid, uid_t uid)
{
	struct event e = { .type = EVENT_APP_STARTED, .pid = pid, .uid = uid };

	event_tell(events_sink(f->e), &e);
}

static void on_events(struct events_watch *watch)
{
	container_of(watch, struct fixture, watch)->n_watched++;
}

static void on_page(struct events_asking *asking, const struct events_page *page)
{
	struct reader *r = container_of(asking, struct reader, asking);

	r->n_answers++;
	r->status = page->status;
	r->n = page->n;
	r->after = page->after;
	r->lost = page->lost;
	r->first = page->n ? page->events[0].pid : 0;
}

static void ask(struct fixture *f, uid_t uid, uint64_t after, unsigned wait_ms)
{
	struct events_filter filter = { .uid = uid };

	f->reader.asking.done = on_page;
	assert_int_equal(events_ask(f->e, 1, &filter, after, wait_ms * NSEC_PER_MSEC,
				    &f->reader.asking), 0);
}

static int setup(void **state)
{
	static const struct world_rooms rooms = { start, stop, NULL };
	struct fixture *f = calloc(1, sizeof(*f));

	f->w = world_new(7, 1, &rooms, f);
	world_boot(f->w, 1);
	run(f, 2000);
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

static void what_is_told_has_its_time_and_view(void **state)
{
	struct fixture *f = *state;
	struct events_filter all = { 0 };
	struct event found[8];
	uint64_t after = 0, lost;
	size_t n = events_read(f->e, &all, &after, found, 8, &lost);

	/* Its own first lease was told already. */
	assert_true(n >= 1);
	assert_int_equal(found[n - 1].type, EVENT_LEASE_HELD);
	tell(f, 7, 0);
	assert_int_equal(events_read(f->e, &all, &after, found, 8, &lost), 1);
	assert_int_equal(found[0].node, 1);
	assert_int_equal(found[0].epoch, membership_view(f->m)->epoch);
	assert_int_equal(found[0].time, env_realtime(world_env(f->w, 1)));
}

static void who_watches_is_told_from_the_loop_once_for_many(void **state)
{
	struct fixture *f = *state;

	f->watch.on_events = on_events;
	events_watch(f->e, &f->watch);
	for (pid_t pid = 1; pid <= 5; pid++)
		tell(f, pid, 0);
	assert_int_equal(f->n_watched, 0);
	run(f, 10);
	assert_int_equal(f->n_watched, 1);
	events_unwatch(&f->watch);
	tell(f, 6, 0);
	run(f, 10);
	assert_int_equal(f->n_watched, 1);
}

static void who_waits_is_answered_as_soon_as_there_is_something(void **state)
{
	struct fixture *f = *state;

	ask(f, 1000, EVENTS_NOW, 10000);
	run(f, 1000);
	assert_int_equal(f->reader.n_answers, 0);
	tell(f, 5, 1001); /* not his */
	run(f, 1000);
	assert_int_equal(f->reader.n_answers, 0);
	tell(f, 6, 1000);
	run(f, 10);
	assert_int_equal(f->reader.n_answers, 1);
	assert_int_equal(f->reader.n, 1);
	assert_int_equal(f->reader.first, 6);
	/* From there on. */
	tell(f, 7, 1000);
	ask(f, 1000, f->reader.after, 10000);
	run(f, 10);
	assert_int_equal(f->reader.n_answers, 2);
	assert_int_equal(f->reader.first, 7);
}

static void who_waits_in_vain_is_answered_with_nothing(void **state)
{
	struct fixture *f = *state;

	ask(f, 0, EVENTS_NOW, 3000);
	run(f, 2900);
	assert_int_equal(f->reader.n_answers, 0);
	run(f, 200);
	assert_int_equal(f->reader.n_answers, 1);
	assert_int_equal(f->reader.status, RPC_OK);
	assert_int_equal(f->reader.n, 0);
	assert_int_equal(f->e->n_waiting, 0);
}

static void pages_end_and_tell_what_is_lost(void **state)
{
	struct fixture *f = *state;
	uint64_t first = f->e->ring->newest;

	for (pid_t pid = 1; pid <= EVENTS_KEPT + 100; pid++)
		tell(f, pid, 0);
	ask(f, 0, first, 0);
	run(f, 10);
	assert_int_equal(f->reader.n, EVENTS_PAGE);
	assert_int_equal(f->reader.lost, 101);
	assert_int_equal(f->reader.first, 102);
	ask(f, 0, f->reader.after, 0);
	run(f, 10);
	assert_int_equal(f->reader.lost, 0);
	assert_int_equal(f->reader.first, 102 + EVENTS_PAGE);
}

static void a_reader_that_goes_away_is_not_told(void **state)
{
	struct fixture *f = *state;

	ask(f, 0, EVENTS_NOW, 10000);
	run(f, 10);
	events_ask_cancel(&f->reader.asking);
	assert_null(f->reader.asking.request);
	tell(f, 1, 0);
	run(f, 20000);
	assert_int_equal(f->reader.n_answers, 0);
	events_ask_cancel(&f->reader.asking);
}

static void more_than_may_wait_are_answered_at_once(void **state)
{
	struct fixture *f = *state;

	ask(f, 0, EVENTS_NOW, 10000);
	run(f, 10);
	f->e->n_waiting += EVENTS_WAITING_MAX;
	events_ask_cancel(&f->reader.asking);
	ask(f, 0, EVENTS_NOW, 10000);
	run(f, 10);
	assert_int_equal(f->reader.n_answers, 1);
	assert_int_equal(f->reader.n, 0);
	f->e->n_waiting -= EVENTS_WAITING_MAX;
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_is_told_has_its_time_and_view, setup, teardown),
		cmocka_unit_test_setup_teardown(who_watches_is_told_from_the_loop_once_for_many,
						setup, teardown),
		cmocka_unit_test_setup_teardown(
			who_waits_is_answered_as_soon_as_there_is_something, setup, teardown),
		cmocka_unit_test_setup_teardown(who_waits_in_vain_is_answered_with_nothing, setup,
						teardown),
		cmocka_unit_test_setup_teardown(pages_end_and_tell_what_is_lost, setup, teardown),
		cmocka_unit_test_setup_teardown(a_reader_that_goes_away_is_not_told, setup,
						teardown),
		cmocka_unit_test_setup_teardown(more_than_may_wait_are_answered_at_once, setup,
						teardown),
	};

	log_set_level(0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
