#include "fixture.h"

#include "cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
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

/* ssi-init is the same in all tests, and keeps what it was told. */
enum { FIRST = 1048576, SOFT = 3145728, LONG = 65536, SHORT = 2048 };

static void set_cursor(pid_t last)
{
	FILE *file = fopen("/proc/sys/kernel/ns_last_pid", "we");

	assert_non_null(file);
	(void)fprintf(file, "%d", last);
	assert_int_equal(fclose(file), 0);
}

static bool is_inside(void *owner)
{
	const struct range *want = owner;
	pid_t last = 0;
	FILE *file = fopen("/proc/sys/kernel/ns_last_pid", "re");

	assert_true(file && fscanf(file, "%d", &last) == 1 && fclose(file) == 0);
	return last >= want->min - 1 && last <= want->max;
}

static void await_cursor(pid_t min, pid_t max)
{
	fixture_turn(NSEC_PER_MSEC); /* space_pids_add() is done then */
	fixture_wait(is_inside, &(struct range){ min, max });
}

static void forks_stay_inside_a_long_block(void **state)
{
	struct range r;

	assert_int_equal(space_pids_add(f.space, SOFT, LONG), 0);
	assert_false(space_pids_are_few(f.space));
	/* Slower machines fork less in 20 ms, faster ones less than a margin of 16384. */
	await_cursor(SOFT, SOFT + LONG - 1);
	set_cursor(SOFT + LONG - 25000);
	r = fork_many(25000);
	assert_true(r.min >= SOFT && r.min < SOFT + LONG - 25000);
	assert_true(r.max < SOFT + LONG);
}

static bool has_low(void *owner)
{
	return *(int *)owner > 0;
}

static void a_short_block_beside_a_long_one_is_not_used(void **state)
{
	struct range r;

	assert_int_equal(space_pids_add(f.space, SOFT, SHORT), 0);
	assert_true(space_pids_are_few(f.space));
	assert_int_equal(space_pids_add(f.space, SOFT + 2 * LONG, LONG), 0);
	assert_false(space_pids_are_few(f.space));
	set_cursor(SOFT + 10);
	await_cursor(SOFT + 2 * LONG, SOFT + 3 * LONG - 1);
	r = fork_many(10);
	assert_in_range(r.min, SOFT + 2 * LONG, SOFT + 3 * LONG - 1);
}

static void the_list_is_used_in_turn_and_numbers_in_use_are_skipped(void **state)
{
	pid_t sleeper;
	struct range r;

	assert_int_equal(space_pids_add(f.space, SOFT + 2 * LONG, LONG), 0);
	assert_int_equal(space_pids_add(f.space, SOFT + 4 * LONG, LONG), 0);
	assert_int_equal(space_pids_add(f.space, SOFT + 4 * LONG, LONG), 0); /* once more: nothing new */
	await_cursor(SOFT + 2 * LONG, SOFT + 5 * LONG);
	set_cursor(SOFT + 2 * LONG + LONG - 16384 - 2);
	sleeper = fixture_sh(&f, "exec sleep 100", -1);
	assert_int_equal(sleeper, SOFT + 2 * LONG + LONG - 16384 - 1);
	(void)fork_many(2);
	await_cursor(SOFT + 4 * LONG, SOFT + 4 * LONG + 1000);
	set_cursor(SOFT + 4 * LONG + LONG - 100);
	await_cursor(SOFT + 2 * LONG, SOFT + 2 * LONG + 1000);
	set_cursor(sleeper - 1);
	r = fork_many(1);
	assert_in_range(r.min, sleeper + 1, SOFT + 2 * LONG + LONG);
	assert_int_equal(kill(sleeper, SIGKILL), 0);
	assert_int_equal(fixture_exit_of(&f, sleeper).status, SIGKILL);
	assert_int_equal(space_reap(f.space, sleeper), 0);
}

/* Who is born outside: killed; who stood there before, or is here by right: not. */

static pid_t fork_sleeper(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		(void)pause();
		_exit(0);
	}
	return pid;
}

/* As a restore makes one: the cursor does not move. */
static void restore_sleeper_as(pid_t want)
{
	struct clone_args args = { .exit_signal = SIGCHLD, .set_tid = (uintptr_t)&want,
				   .set_tid_size = 1 };
	pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));

	if (pid == 0) {
		(void)pause();
		_exit(0);
	}
	assert_int_equal(pid, want);
}

static bool is_right(void *owner, pid_t pid)
{
	return pid == *(pid_t *)owner;
}

static bool has_died(void *owner)
{
	siginfo_t info = { 0 };

	(void)waitid(P_PID, *(pid_t *)owner, &info, WEXITED | WNOHANG | WNOWAIT);
	return info.si_pid != 0;
}

static void end_sleeper(pid_t pid)
{
	int status;

	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
}

/* Before the cursor is moved back. */
static void fork_sleeper_as(pid_t want)
{
	pid_t pid;

	do {
		set_cursor(want - 1);
		pid = fork_sleeper();
		if (pid != want)
			end_sleeper(pid);
	} while (pid != want);
}

static void whoever_is_born_outside_is_killed(void **state)
{
	pid_t before = SOFT + LONG + 50, strayed, right = SOFT + LONG + 101, inside;

	space_pids_on_stray(f.space, is_right, &right);
	set_cursor(SOFT);
	assert_int_equal(space_pids_add(f.space, SOFT, LONG), 0);
	restore_sleeper_as(before);
	inside = fork_sleeper();
	assert_in_range(inside, SOFT, SOFT + LONG - 1);
	fixture_turn(200 * NSEC_PER_MSEC); /* starts are counted in hundredths of a second */
	fork_sleeper_as(right);
	strayed = right + 1;
	fork_sleeper_as(strayed);
	fixture_wait(has_died, &strayed);
	assert_int_equal(waitpid(strayed, NULL, 0), strayed);
	assert_false(has_died(&before));
	assert_false(has_died(&inside));
	assert_false(has_died(&right));
	end_sleeper(before);
	end_sleeper(inside);
	end_sleeper(right);
	await_cursor(SOFT, SOFT + LONG - 1);
}

/* At a new start of ssid they come one after the other. */
static void whoever_is_inside_of_a_block_that_comes_later_is_left_alone(void **state)
{
	pid_t sleeper;

	set_cursor(SOFT + 4 * LONG + 5000);
	sleeper = fork_sleeper();
	assert_int_equal(space_pids_add(f.space, SOFT, LONG), 0);
	assert_int_equal(space_pids_add(f.space, SOFT + 2 * LONG, LONG), 0);
	assert_int_equal(space_pids_add(f.space, SOFT + 4 * LONG, LONG), 0);
	fixture_turn(100 * NSEC_PER_MSEC);
	assert_false(has_died(&sleeper));
	await_cursor(sleeper, SOFT + 5 * LONG);
	end_sleeper(sleeper);
}

static void whoever_was_born_outside_while_nobody_watched_is_killed(void **state)
{
	pid_t strayed;

	set_cursor((SOFT + 8 * LONG) + LONG + 1000);
	strayed = fork_sleeper();
	assert_int_equal(strayed, (SOFT + 8 * LONG) + LONG + 1001);
	assert_int_equal(space_pids_add(f.space, (SOFT + 8 * LONG), LONG), 0);
	fixture_wait(has_died, &strayed);
	assert_int_equal(waitpid(strayed, NULL, 0), strayed);
}

static void init_watches_while_there_is_no_ssid(void **state)
{
	struct range r;

	assert_int_equal(space_pids_add(f.space, SOFT, LONG), 0);
	await_cursor(SOFT, SOFT + LONG - 1);
	fixture_close(&f);
	set_cursor(SOFT + LONG - 25000);
	r = fork_many(25000);
	fixture_open(&f);
	/* Or a block of an earlier test. */
	assert_true(r.min >= FIRST && r.max < SOFT + 9 * LONG);
	assert_true(r.max < SOFT + LONG || r.max >= SOFT + 2 * LONG);
}

/* The hard bound. */

static const char *forker; /* forker.c */

static pid_t run(const char *mode, const char *count)
{
	const char *const argv[] = { forker, mode, count, NULL };
	const struct space_spawn spec = { .argv = argv, .group_fd = -1,
					  .flags = SPACE_SPAWN_TRACK };
	pid_t pid = 0;

	assert_int_equal(space_spawn(f.space, &spec, &pid, NULL), 0);
	return pid;
}

static int end_of(pid_t pid)
{
	struct space_exit e = fixture_exit_of(&f, pid);

	assert_int_equal(space_reap(f.space, pid), 0);
	return e.code == CLD_EXITED ? e.status : 128 + e.status;
}

static size_t count_fds_of_init(void)
{
	DIR *dir = opendir("/proc/1/fd");
	size_t n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	(void)closedir(dir);
	return n;
}

static bool few_fds(void *owner)
{
	return count_fds_of_init() <= *(size_t *)owner;
}

static void a_storm_on_few_pids_stays_inside_of_them(void **state)
{
	pid_t storms[4];
	size_t fds;
	int low = 0;

	space_pids_on_low(f.space, on_low, &low);
	assert_int_equal(space_pids_add(f.space, FIRST, SHORT), 0);
	assert_int_equal(space_pids_add(f.space, 2 * FIRST, SHORT), 0);
	fds = count_fds_of_init();
	for (size_t i = 0; i < N_ELEMENTS(storms); i++)
		storms[i] = run("storm", "1000");
	for (size_t i = 0; i < N_ELEMENTS(storms); i++)
		assert_int_equal(end_of(storms[i]), 0);
	fixture_wait(has_low, &low);
	fixture_wait(few_fds, &fds); /* and every filter's listener is closed */
}

static void a_thousand_forkers_that_live_on_have_room(void **state)
{
	assert_int_equal(space_pids_add(f.space, FIRST, SHORT), 0);
	assert_int_equal(end_of(run("crowd", "1000")), 0);
}

static void fork_fails_when_all_numbers_are_taken(void **state)
{
	assert_int_equal(space_pids_add(f.space, FIRST, SHORT), 0);
	assert_int_equal(end_of(run("fill", "5000")), 0);
	/* And goes on when they are not. */
	assert_int_equal(end_of(run("storm", "10")), 0);
}

static void forks_go_on_while_nobody_but_init_is_there(void **state)
{
	pid_t storm;

	assert_int_equal(space_pids_add(f.space, FIRST, SHORT), 0);
	storm = run("storm", "2000");
	fixture_close(&f);
	fixture_turn(300 * NSEC_PER_MSEC);
	fixture_open(&f);
	assert_int_equal(end_of(storm), 0);
}

static void who_strays_on_a_node_with_few_is_killed_too(void **state)
{
	pid_t strayed;

	assert_int_equal(space_pids_add(f.space, FIRST, SHORT), 0);
	strayed = 3 * FIRST + 1;
	fork_sleeper_as(strayed);
	fixture_wait(has_died, &strayed);
	assert_int_equal(waitpid(strayed, NULL, 0), strayed);
	assert_int_equal(end_of(run("storm", "10")), 0);
}

static void with_plenty_forks_of_before_go_on(void **state)
{
	pid_t storm;

	assert_int_equal(space_pids_add(f.space, FIRST, SHORT), 0);
	assert_int_equal(space_pids_add(f.space, 2 * FIRST, SHORT), 0);
	storm = run("storm", "2000");
	assert_int_equal(space_pids_add(f.space, FIRST + SHORT, 2 * LONG), 0);
	assert_false(space_pids_are_few(f.space));
	assert_int_equal(end_of(storm), 0);
}

#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

static int tests(void)
{
	const struct CMUnitTest all[] = {
		T(bad_blocks_are_refused),
		T(a_storm_on_few_pids_stays_inside_of_them),
		T(a_thousand_forkers_that_live_on_have_room),
		T(fork_fails_when_all_numbers_are_taken),
		T(forks_go_on_while_nobody_but_init_is_there),
		T(who_strays_on_a_node_with_few_is_killed_too),
		T(with_plenty_forks_of_before_go_on),
		T(forks_stay_inside_a_long_block),
		T(a_short_block_beside_a_long_one_is_not_used),
		T(the_list_is_used_in_turn_and_numbers_in_use_are_skipped),
		T(whoever_is_born_outside_is_killed),
		T(whoever_is_inside_of_a_block_that_comes_later_is_left_alone),
		T(whoever_was_born_outside_while_nobody_watched_is_killed),
		T(init_watches_while_there_is_no_ssid),
	};

	return cmocka_run_group_tests_name("space_pids", all, NULL, NULL);
}

int main(int argc, char **argv)
{
	forker = argv[2];
	return fixture_main(argc, argv, tests);
}
