/* How members have fared, as the leader writes it down. */
#include "log.h"
#include "membership_history.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/* One member's way through its states, each committed as its own map. */
struct way {
	struct membership_map *old;
	nsec_t now;
};

static void begin(struct way *w)
{
	struct membership_map *empty;

	w->now = 100000 * NSEC_PER_SEC;
	assert_int_equal(membership_map_new(&empty, 1), 0);
	assert_int_equal(membership_map_copy(&w->old, empty), 0);
	assert_int_equal(membership_map_add_member(w->old, 1, "n1", "a:1", NULL), 0);
	membership_history_stamp(w->old, empty, w->now);
	(void)membership_map_free(empty);
}

/* After @seconds it is in @state; what it looks like then. */
static const struct membership_node *then(struct way *w, int seconds, enum member_state state)
{
	struct membership_map *map;

	w->now += (nsec_t)(seconds * (long long)NSEC_PER_SEC);
	assert_int_equal(membership_map_copy(&map, w->old), 0);
	map->view->nodes[0].state = state;
	map->view->nodes[0].incarnation += state == MEMBER_UP;
	*membership_map_start(map, 1) += state == MEMBER_UP;
	membership_history_stamp(map, w->old, w->now);
	/* Stamped twice, since it was not committed the first time: nothing counts twice. */
	membership_history_stamp(map, w->old, w->now);
	(void)membership_map_free(w->old);
	w->old = map;
	return &map->view->nodes[0];
}

static void end(struct way *w)
{
	(void)membership_map_free(w->old);
}

static void losses_are_counted_and_dated(void **state)
{
	struct way w;
	const struct membership_node *n;

	begin(&w);
	assert_int_equal(w.old->view->nodes[0].history.changed, w.now);
	n = then(&w, 10, MEMBER_UP);
	assert_int_equal(n->history.first, w.now);
	assert_int_equal(n->history.up, w.now);
	assert_int_equal(n->history.losses, 0);
	n = then(&w, 100, MEMBER_LOST);
	assert_int_equal(n->history.losses, 1);
	assert_int_equal(n->history.lost, w.now);
	n = then(&w, 5, MEMBER_UP);
	assert_int_equal(n->history.lost_for, 5 * NSEC_PER_SEC);
	assert_int_equal(n->history.up, w.now);
	assert_int_equal(n->history.first, w.now - 105 * NSEC_PER_SEC);
	n = then(&w, 1, MEMBER_LOST);
	n = then(&w, 2, MEMBER_UP);
	assert_int_equal(n->history.losses, 2);
	assert_int_equal(n->history.lost_for, 7 * NSEC_PER_SEC);
	end(&w);
}

static void to_leave_is_not_to_be_lost(void **state)
{
	struct way w;
	const struct membership_node *n;

	begin(&w);
	n = then(&w, 0, MEMBER_UP);
	n = then(&w, 100, MEMBER_LEFT);
	assert_int_equal(n->history.left, w.now);
	assert_int_equal(membership_availability(n, w.now + 900 * NSEC_PER_SEC),
			 MEMBERSHIP_AVAILABLE);
	n = then(&w, 900, MEMBER_UP);
	assert_int_equal(n->history.left_for, 900 * NSEC_PER_SEC);
	assert_int_equal(n->history.losses, 0);
	n = then(&w, 50, MEMBER_LOST);
	/* 150 s up, 50 s lost: three quarters of the time. */
	assert_int_equal(membership_availability(n, w.now + 50 * NSEC_PER_SEC), 750000);
	n = then(&w, 50, MEMBER_UP);
	assert_int_equal(membership_availability(n, w.now), 750000);
	end(&w);
}

static void a_restart_of_ssid_is_no_loss_and_changes_no_date(void **state)
{
	struct way w;
	const struct membership_node *n;
	nsec_t up;

	begin(&w);
	n = then(&w, 10, MEMBER_UP);
	up = w.now;
	n = then(&w, 10, MEMBER_UP);
	assert_int_equal(n->history.losses, 0);
	assert_int_equal(n->history.up, up);
	end(&w);
}

static void a_removal_is_no_loss(void **state)
{
	struct way w;
	const struct membership_node *n;
	nsec_t up;

	begin(&w);
	n = then(&w, 10, MEMBER_UP);
	up = w.now;
	n = then(&w, 100, MEMBER_LEAVING);
	assert_int_equal(n->history.changed, w.now);
	n = then(&w, 1, MEMBER_UP); /* it stays after all */
	assert_int_equal(n->history.up, up);
	n = then(&w, 1, MEMBER_LEAVING);
	n = then(&w, 1, MEMBER_REMOVED);
	assert_int_equal(n->history.left, w.now);
	n = then(&w, 50, MEMBER_UP);
	assert_int_equal(n->history.left_for, 50 * NSEC_PER_SEC);
	assert_int_equal(n->history.losses, 0);
	assert_int_equal(membership_availability(n, w.now), MEMBERSHIP_AVAILABLE);
	end(&w);
}

static void lost_and_back_in_one_view_is_a_loss(void **state)
{
	struct way w;
	struct membership_map *map;

	begin(&w);
	(void)then(&w, 10, MEMBER_UP);
	assert_int_equal(membership_map_copy(&map, w.old), 0);
	map->view->nodes[0].incarnation++;
	membership_history_stamp(map, w.old, w.now + NSEC_PER_MSEC);
	assert_int_equal(map->view->nodes[0].history.losses, 1);
	assert_int_equal(map->view->nodes[0].history.lost, w.now + NSEC_PER_MSEC);
	assert_int_equal(map->view->nodes[0].history.up, w.now + NSEC_PER_MSEC);
	(void)membership_map_free(map);
	end(&w);
}

static void a_clock_that_steps_back_takes_nothing_away(void **state)
{
	struct way w;
	const struct membership_node *n;

	begin(&w);
	(void)then(&w, 10, MEMBER_UP);
	(void)then(&w, 100, MEMBER_LOST);
	n = then(&w, -3600, MEMBER_UP);
	assert_int_equal(n->history.lost_for, 0);
	assert_int_equal(membership_availability(n, w.now), MEMBERSHIP_AVAILABLE);
	n = then(&w, -3600, MEMBER_LOST);
	assert_int_equal(n->history.losses, 2);
	assert_int_equal(membership_availability(n, 0), MEMBERSHIP_AVAILABLE);
	end(&w);
}

static void who_was_never_seen_is_as_good_as_any(void **state)
{
	struct membership_node n = { .state = MEMBER_JOINING };

	assert_int_equal(membership_availability(&n, 77 * NSEC_PER_SEC), MEMBERSHIP_AVAILABLE);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(losses_are_counted_and_dated),
		cmocka_unit_test(to_leave_is_not_to_be_lost),
		cmocka_unit_test(a_restart_of_ssid_is_no_loss_and_changes_no_date),
		cmocka_unit_test(a_removal_is_no_loss),
		cmocka_unit_test(lost_and_back_in_one_view_is_a_loss),
		cmocka_unit_test(a_clock_that_steps_back_takes_nothing_away),
		cmocka_unit_test(who_was_never_seen_is_as_good_as_any),
	};

	log_set_level(0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
