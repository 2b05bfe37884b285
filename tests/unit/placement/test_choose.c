#include "placement_choose.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void home_is_chosen_as_long_as_it_has_a_processor(void **state)
{
	struct placement_candidate c[] = { { 1, 2, 900, 0 }, { 2, 64, 0, 0 } };

	assert_int_equal(placement_choose(c, 2), 1);
	c[0].n_jobs = 1;
	assert_int_equal(placement_choose(c, 2), 1);
	c[0].n_jobs = 2;
	assert_int_equal(placement_choose(c, 2), 2);
}

static void home_is_chosen_when_nobody_has_more_room(void **state)
{
	const struct placement_candidate c[] = { { 1, 2, 200, 2 }, { 2, 2, 200, 2 }, { 3, 2, 200, 3 } };

	assert_int_equal(placement_choose(c, 3), 1);
	assert_int_equal(placement_choose(c, 1), 1);
}

static void jobs_are_shared_out_by_processors(void **state)
{
	struct placement_candidate c[] = { { 1, 2, 0, 0 }, { 2, 2, 0, 0 }, { 3, 4, 0, 0 } };
	unsigned n[4] = { 0 };

	for (int i = 0; i < 80; i++) {
		node_id node = placement_choose(c, 3);

		n[node]++;
		c[node - 1].n_jobs++;
	}
	assert_in_range(n[1], 19, 21);
	assert_in_range(n[2], 19, 21);
	assert_in_range(n[3], 39, 41);
}

static void who_is_busy_with_others_gets_fewer(void **state)
{
	const struct placement_candidate c[] = { { 1, 2, 0, 2 }, { 2, 2, 1600, 0 }, { 3, 2, 0, 1 } };

	assert_int_equal(placement_choose(c, 3), 3);
}

static void nonsense_divides_by_nothing(void **state)
{
	const struct placement_candidate c[] = { { 1, 0, ~0u, ~0u }, { 2, 0, 0, 0 } };

	assert_int_equal(placement_choose(c, 2), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(home_is_chosen_as_long_as_it_has_a_processor),
		cmocka_unit_test(home_is_chosen_when_nobody_has_more_room),
		cmocka_unit_test(jobs_are_shared_out_by_processors),
		cmocka_unit_test(who_is_busy_with_others_gets_fewer),
		cmocka_unit_test(nonsense_divides_by_nothing),
	};

	return cmocka_run_group_tests_name("placement choose", tests, NULL, NULL);
}
