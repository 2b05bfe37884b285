#include "balance_pick.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { MS = NSEC_PER_MSEC };

static bool anybody(void *owner, const struct process_info *info)
{
	return true;
}

static bool all_but(void *owner, const struct process_info *info)
{
	return info->pid != *(pid_t *)owner;
}

static struct process_info computes(pid_t pid, uint64_t start, uint64_t cpu)
{
	return (struct process_info){ .pid = pid, .state = 'R', .start_ns = start, .cpu_ns = cpu };
}

static void who_has_a_processor_stays(void **state)
{
	const struct process_info infos[] = { computes(1000, 1, 900 * MS), computes(1001, 2, 900 * MS),
					      { .pid = 1002, .state = 'S', .start_ns = 3 } };
	uint32_t n_busy;

	assert_null(balance_pick(infos, 3, 2, &n_busy, anybody, NULL));
	assert_int_equal(n_busy, 2);
	assert_null(balance_pick(NULL, 0, 1, &n_busy, anybody, NULL));
	assert_int_equal(n_busy, 0);
}

static void the_youngest_that_has_shown_that_it_computes_moves(void **state)
{
	const struct process_info infos[] = { computes(1000, 1, 900 * MS), computes(1001, 3, 300 * MS),
					      computes(1002, 2, 900 * MS), computes(1003, 4, 30 * MS) };
	uint32_t n_busy;
	pid_t stays = 1001;

	assert_ptr_equal(balance_pick(infos, 4, 2, &n_busy, anybody, NULL), &infos[1]);
	assert_int_equal(n_busy, 4);
	assert_ptr_equal(balance_pick(infos, 4, 2, &n_busy, all_but, &stays), &infos[2]);
}

static void who_waits_for_a_disk_counts_and_does_not_move(void **state)
{
	struct process_info infos[] = { computes(1000, 1, 10 * MS), computes(1001, 2, 900 * MS) };
	uint32_t n_busy;

	infos[1].state = 'D';
	assert_null(balance_pick(infos, 2, 1, &n_busy, anybody, NULL));
	assert_int_equal(n_busy, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_has_a_processor_stays),
		cmocka_unit_test(the_youngest_that_has_shown_that_it_computes_moves),
		cmocka_unit_test(who_waits_for_a_disk_counts_and_does_not_move),
	};

	return cmocka_run_group_tests_name("balance pick", tests, NULL, NULL);
}
