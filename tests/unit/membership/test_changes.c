/* What a view changes, told instead of the whole of it. */
#include "membership_internal.h"

#include <errno.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void add(struct membership_map *map, node_id id, const char *name)
{
	assert_int_equal(membership_map_add_member(map, id, name, "10.0.0.1:7777", NULL), 0);
}

static void add_block(struct membership_map *map, pid_t first, uint32_t blocks, node_id node)
{
	struct membership_block b = { MEMBERSHIP_PID_FIRST + first * MEMBERSHIP_PID_BLOCK,
				      blocks * MEMBERSHIP_PID_BLOCK, node };

	assert_int_equal(membership_map_add_block(map, &b), 0);
}

/* Four members, with a run of PIDs each but the last. */
static struct membership_map *make(void)
{
	struct membership_map *map;

	assert_int_equal(membership_map_new(&map, 1), 0);
	map->view->epoch = 7;
	add(map, 1, "a");
	add(map, 2, "b");
	add(map, 3, "c");
	add(map, 5, "d");
	add_block(map, 0, 4, 1);
	add_block(map, 4, 1, 2);
	add_block(map, 6, 1, 3);
	return map;
}

static struct membership_map *next_of(const struct membership_map *base)
{
	struct membership_map *map;

	assert_int_equal(membership_map_copy(&map, base), 0);
	map->view->epoch++;
	return map;
}

static void a_member_with_the_last_view_has_the_next(void **state)
{
	_cleanup_(membership_map_freep) struct membership_map *base = make(),
		*next = next_of(base), *changes = NULL, *got = NULL;

	next->view->leader = 2;
	membership_map_member(next, 3)->state = MEMBER_LOST;
	membership_map_member(next, 3)->history.losses++;
	add(next, 6, "e");
	add_block(next, 5, 1, 2); /* a run grows */
	add_block(next, 9, 1, 6);
	assert_int_equal(membership_changes_new(&changes, base, next), 0);
	assert_int_equal(changes->view->n_nodes, 2);
	assert_int_equal(changes->n_blocks, 2);
	assert_int_equal(membership_changes_apply(&got, base, changes), 0);
	assert_int_equal(got->view->epoch, 8);
	assert_int_equal(got->view->leader, 2);
	assert_int_equal(got->view->n_nodes, 5);
	assert_int_equal(membership_map_member(got, 3)->state, MEMBER_LOST);
	assert_int_equal(membership_map_member(got, 3)->history.losses, 1);
	assert_string_equal(membership_map_member(got, 6)->name, "e");
	assert_int_equal(got->n_blocks, next->n_blocks);
	assert_memory_equal(got->blocks, next->blocks, got->n_blocks * sizeof(*got->blocks));
}

static void what_cannot_be_said_as_changes_is_told_whole(void **state)
{
	_cleanup_(membership_map_freep) struct membership_map *base = make(),
		*next = next_of(base), *nothing = NULL, *changes = NULL;

	membership_map_remove_member(next, 5);
	add(next, 6, "d");
	assert_int_equal(membership_changes_new(&changes, base, next),
			 MEMBERSHIP_CHANGES_E_WHOLE);
	assert_int_equal(membership_map_new(&nothing, 1), 0);
	assert_int_equal(membership_changes_new(&changes, nothing, base),
			 MEMBERSHIP_CHANGES_E_WHOLE);
}

static void refused(const struct membership_map *base, const struct membership_map *changes)
{
	struct membership_map *got = NULL;

	assert_int_equal(membership_changes_apply(&got, base, changes), -EBADMSG);
}

static void changes_that_make_no_map_are_refused(void **state)
{
	_cleanup_(membership_map_freep) struct membership_map *base = make(), *a = NULL,
		*b = NULL, *c = NULL;

	assert_int_equal(membership_map_new(&a, 1), 0);
	add(a, 4, "between");
	refused(base, a);
	assert_int_equal(membership_map_new(&b, 1), 0);
	add(b, 6, "a");
	refused(base, b);
	assert_int_equal(membership_map_new(&c, 1), 0);
	add_block(c, 10, 1, 99);
	refused(base, c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_member_with_the_last_view_has_the_next),
		cmocka_unit_test(what_cannot_be_said_as_changes_is_told_whole),
		cmocka_unit_test(changes_that_make_no_map_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
