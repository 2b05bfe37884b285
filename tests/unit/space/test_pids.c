#include "fixture.h"

#include "cleanup.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static struct fixture f;

static int setup(void **state)
{
	fixture_open(&f);
	return 0;
}

static int teardown(void **state)
{
	fixture_close(&f);
	return 0;
}

static void on_low(void *owner)
{
	(*(int *)owner)++;
}

struct range {
	pid_t min, max;
};

/* vfork(): as fast under sanitizers. */
static __attribute__((noinline)) pid_t fork_once(void)
{
	pid_t pid = vfork();

	if (pid == 0)
		_exit(0);
	return pid;
}

/* Fork @n times, one after the other. */
static struct range fork_many(int n)
{
	struct range r = { 1 << 30, 0 };

	while (n--) {
		pid_t pid = fork_once();

		assert_true(pid > 0);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		r.min = pid < r.min ? pid : r.min;
		r.max = pid > r.max ? pid : r.max;
	}
	return r;
}

static void bad_blocks_are_refused(void **state)
{
	assert_int_equal(space_pids_add(f.space, 100, 1000), -EINVAL);
	assert_int_equal(space_pids_add(f.space, 1000, 1), -EINVAL);
}

static void forks_stay_inside_a_small_block(void **state)
{
	int low = 0;
	struct range r;

	space_pids_on_low(f.space, on_low, &low);
	assert_int_equal(space_pids_add(f.space, 1048576, 8192), 0);
	/* Slower machines fork less in 20 ms, faster ones less than a margin of 2048. */
	r = fork_many(20000);
	assert_true(r.min >= 1048576);
	assert_true(r.max < 1048576 + 8192);
	fixture_turn(50 * NSEC_PER_MSEC);
	assert_true(low > 0);
}

static void the_list_is_used_in_turn_and_numbers_in_use_are_skipped(void **state)
{
	pid_t sleeper;
	struct range r;

	assert_int_equal(space_pids_add(f.space, 2097152, 4096), 0);
	assert_int_equal(space_pids_add(f.space, 3145728, 4096), 0);
	assert_int_equal(space_pids_add(f.space, 3145728, 4096), 0); /* once more: nothing new */
	sleeper = fixture_sh(&f, "exec sleep 100", -1);
	assert_in_range(sleeper, 2097152, 2097152 + 4095);
	r = fork_many(12000);
	assert_true(r.min >= 2097152 && r.max >= 3145728 && r.max < 3145728 + 4096);
	assert_int_equal(kill(sleeper, SIGKILL), 0);
	assert_int_equal(fixture_exit_of(&f, sleeper).status, SIGKILL);
	assert_int_equal(space_reap(f.space, sleeper), 0);
}

static int tests(void)
{
	const struct CMUnitTest all[] = {
		cmocka_unit_test_setup_teardown(bad_blocks_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(forks_stay_inside_a_small_block, setup, teardown),
		cmocka_unit_test_setup_teardown(the_list_is_used_in_turn_and_numbers_in_use_are_skipped, setup,
						teardown),
	};

	return cmocka_run_group_tests_name("space_pids", all, NULL, NULL);
}

int main(int argc, char **argv)
{
	return fixture_main(argc, argv, tests);
}
