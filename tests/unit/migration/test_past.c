#include "migration_past.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const uint64_t MIB = 1 << 20;

static nsec_t predict(const struct migration_past *p, uint64_t bytes, unsigned n_moves)
{
	unsigned n;
	nsec_t frozen = migration_past_predict(p, bytes, &n);

	assert_int_equal(n, n_moves);
	return frozen;
}

static void without_a_past_more_bytes_take_longer(void **state)
{
	const struct migration_past p = {0};

	assert_true(predict(&p, 0, 0) > 0);
	assert_true(predict(&p, 100 * MIB, 0) > predict(&p, MIB, 0));
}

static void what_lies_on_a_line_is_predicted_on_it(void **state)
{
	struct migration_past p = {0};

	for (uint64_t k = 0; k < 5; k++)
		migration_past_add(&p, k * 10 * MIB, 1000 + k * 500);
	assert_in_range(predict(&p, 20 * MIB, 5), 1990, 2010);
	assert_in_range(predict(&p, 100 * MIB, 5), 5990, 6010);
}

static void moves_of_one_size_tell_what_that_size_takes(void **state)
{
	struct migration_past p = {0};
	nsec_t alone;

	migration_past_add(&p, 8 * MIB, 400 * NSEC_PER_MSEC);
	migration_past_add(&p, 8 * MIB + 4096, 500 * NSEC_PER_MSEC);
	alone = predict(&p, 8 * MIB, 2);
	assert_in_range(alone, 440 * NSEC_PER_MSEC, 460 * NSEC_PER_MSEC);
	assert_true(predict(&p, 80 * MIB, 2) > alone);
}

static void old_moves_are_forgotten(void **state)
{
	struct migration_past p = {0};

	migration_past_add(&p, 1000 * MIB, 1);
	for (uint64_t k = 0; k < MIGRATION_PAST_MAX; k++)
		migration_past_add(&p, k * 10 * MIB, 1000 + k * 500);
	assert_in_range(predict(&p, 20 * MIB, MIGRATION_PAST_MAX), 1990, 2010);
}

static void nothing_is_predicted_to_take_less_than_no_time(void **state)
{
	struct migration_past p = {0};

	/* A line that falls, and one that meets 0 on the way. */
	migration_past_add(&p, 0, 1000);
	migration_past_add(&p, 10 * MIB, 1);
	assert_in_range(predict(&p, 100 * MIB, 2), 0, 1000);
	p = (struct migration_past){0};
	migration_past_add(&p, 10 * MIB, 1000);
	migration_past_add(&p, 20 * MIB, 10000);
	assert_in_range(predict(&p, 0, 2), 0, 1000);
}

int main(void)
{
	const struct CMUnitTest all[] = {
		cmocka_unit_test(without_a_past_more_bytes_take_longer),
		cmocka_unit_test(what_lies_on_a_line_is_predicted_on_it),
		cmocka_unit_test(moves_of_one_size_tell_what_that_size_takes),
		cmocka_unit_test(old_moves_are_forgotten),
		cmocka_unit_test(nothing_is_predicted_to_take_less_than_no_time),
	};

	return cmocka_run_group_tests(all, NULL, NULL);
}
