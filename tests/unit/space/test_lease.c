/* The watchdog in ssi-init: when the node's lease ends the space stands still. */
#include "fixture.h"

#include "cleanup.h"
#include "space_group.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct fixture f;

static const char *const count = "i=0; while :; do i=$((i + 1)); echo $i; sleep 0.01; done >/dev/shm/n";

static int setup(void **state)
{
	fixture_open(&f);
	return 0;
}

static int teardown(void **state)
{
	nsec_t frozen_at;

	assert_int_equal(space_lease(f.space, env_now(fixture_env) + 100 * NSEC_PER_SEC, true,
				     &frozen_at),
			 0);
	fixture_close(&f);
	return 0;
}

static nsec_t lease(nsec_t span, bool thaw)
{
	nsec_t frozen_at;

	assert_int_equal(space_lease(f.space, env_now(fixture_env) + span, thaw, &frozen_at), 0);
	return frozen_at;
}

static bool is_frozen(void *leaf)
{
	char path[128], text[128] = { 0 };
	_cleanup_close_ int fd = -1;

	(void)snprintf(path, sizeof(path), "/sys/fs/cgroup/ssi.space/work/%scgroup.events",
		       (const char *)leaf);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
	return strstr(text, "frozen 1");
}

static bool runs(void *leaf)
{
	return !is_frozen(leaf);
}

static long counted(void)
{
	_cleanup_close_ int fd = openat(space_root_fd(f.space), "dev/shm/n", O_RDONLY | O_CLOEXEC);
	off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);

	return (long)size;
}

static bool has_counted(void *owner)
{
	return counted() > *(long *)owner;
}

static void end(pid_t pid)
{
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(fixture_exit_of(&f, pid).status, SIGKILL);
	assert_int_equal(space_reap(f.space, pid), 0);
}

static void a_lease_that_is_renewed_lets_everything_run(void **state)
{
	for (int i = 0; i < 10; i++) {
		assert_int_equal(lease(200 * NSEC_PER_MSEC, false), 0);
		fixture_turn(50 * NSEC_PER_MSEC);
		assert_false(is_frozen(""));
	}
	assert_false(space_is_frozen(f.space));
}

static void nothing_may_run_before_the_first_lease(void **state)
{
	assert_false(space_may_run(f.space));
	(void)lease(NSEC_PER_SEC, false);
	assert_true(space_may_run(f.space));
	/* A successor goes on with it. */
	fixture_close(&f);
	fixture_open(&f);
	assert_true(space_may_run(f.space));
	(void)lease(0, false);
	fixture_wait(is_frozen, "");
	assert_false(space_may_run(f.space));
}

static void a_lease_that_ends_freezes_all_without_ssid_and_its_successor_thaws(void **state)
{
	pid_t pid = fixture_sh(&f, count, -1);
	nsec_t until, frozen_at, since;
	long n = 0;

	fixture_wait(has_counted, &n);
	until = env_now(fixture_env) + 100 * NSEC_PER_MSEC;
	assert_int_equal(space_lease(f.space, until, false, &frozen_at), 0);
	fixture_close(&f);
	fixture_wait(is_frozen, "");
	fixture_open(&f);
	n = counted();
	fixture_turn(200 * NSEC_PER_MSEC);
	assert_int_equal(counted(), n);
	assert_true(space_is_frozen(f.space));
	since = space_frozen_at(f.space);
	assert_in_range(since, until, until + NSEC_PER_SEC);
	assert_int_equal(lease(10 * NSEC_PER_SEC, true), since);
	assert_false(space_is_frozen(f.space));
	fixture_wait(has_counted, &n);
	end(pid);
}

static void what_is_frozen_takes_a_lease_only_from_who_says_thaw(void **state)
{
	nsec_t since;

	(void)lease(0, false);
	fixture_wait(is_frozen, "");
	since = lease(10 * NSEC_PER_SEC, false);
	assert_true(since);
	assert_true(space_is_frozen(f.space));
	assert_true(is_frozen(""));
	/* Nor one that has ended meanwhile. */
	assert_int_equal(lease(0, true), since);
	assert_true(space_is_frozen(f.space));
	assert_true(is_frozen(""));
	assert_int_equal(lease(10 * NSEC_PER_SEC, true), since);
	fixture_wait(runs, "");
	assert_int_equal(lease(10 * NSEC_PER_SEC, false), 0);
}

static void a_leaf_that_is_frozen_by_itself_stays_so(void **state)
{
	struct space_group *g;
	pid_t pid;

	assert_int_equal(space_group_open(f.space, "move.1", &g), 0);
	pid = fixture_sh(&f, "sleep 100", space_group_fd(g));
	assert_int_equal(space_group_freeze(g, NSEC_PER_SEC), 0);
	(void)lease(0, false);
	fixture_wait(is_frozen, "");
	(void)lease(10 * NSEC_PER_SEC, true);
	fixture_wait(runs, "");
	assert_true(is_frozen("move.1/"));
	assert_int_equal(space_group_thaw(g), 0);
	fixture_wait(runs, "move.1/");
	end(pid);
	space_group_close(g);
}

static void a_program_that_is_started_meanwhile_begins_with_the_thaw(void **state)
{
	pid_t pid;

	(void)lease(0, false);
	fixture_wait(is_frozen, "");
	pid = fixture_sh(&f, "exit 5", -1);
	fixture_turn(100 * NSEC_PER_MSEC);
	assert_int_equal(f.n_exits, 0);
	(void)lease(10 * NSEC_PER_SEC, true);
	assert_int_equal(fixture_exit_of(&f, pid).status, 5);
	assert_int_equal(space_reap(f.space, pid), 0);
}

static void what_is_frozen_can_be_killed(void **state)
{
	pid_t pid = fixture_sh(&f, "sleep 100", -1);

	(void)lease(0, false);
	fixture_wait(is_frozen, "");
	end(pid);
}

static int tests(void)
{
	const struct CMUnitTest all[] = {
		cmocka_unit_test_setup_teardown(nothing_may_run_before_the_first_lease, setup, teardown),
		cmocka_unit_test_setup_teardown(a_lease_that_is_renewed_lets_everything_run, setup, teardown),
		cmocka_unit_test_setup_teardown(a_lease_that_ends_freezes_all_without_ssid_and_its_successor_thaws, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_frozen_takes_a_lease_only_from_who_says_thaw, setup, teardown),
		cmocka_unit_test_setup_teardown(a_leaf_that_is_frozen_by_itself_stays_so, setup, teardown),
		cmocka_unit_test_setup_teardown(a_program_that_is_started_meanwhile_begins_with_the_thaw, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_frozen_can_be_killed, setup, teardown),
	};

	return cmocka_run_group_tests_name("lease", all, NULL, NULL);
}

int main(int argc, char **argv)
{
	return fixture_main(argc, argv, tests);
}
