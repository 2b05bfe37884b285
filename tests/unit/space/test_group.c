#include "fixture.h"

#include "cleanup.h"
#include "space_group.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
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

/* A descriptor of a pipe that the process writes to as fast as it can. */
static pid_t ticking(struct space_group *g, int *ret_fd)
{
	const char *const argv[] = { "/bin/sh", "-c",
				     "while :; do echo x >&3; sleep 0.001; done", NULL };
	struct space_spawn spec = { .argv = argv, .n_fds = 1, .flags = SPACE_SPAWN_TRACK,
				    .group_fd = g ? space_group_fd(g) : -1 };
	int ends[2];
	pid_t pid;

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	(void)fcntl(ends[0], F_SETFL, O_NONBLOCK);
	spec.fds = &ends[1];
	assert_int_equal(space_spawn(f.space, &spec, &pid, NULL), 0);
	(void)close(ends[1]);
	*ret_fd = ends[0];
	return pid;
}

static bool ticks(int fd)
{
	struct pollfd p = { fd, POLLIN, 0 };
	char text[65536];

	(void)!read(fd, text, sizeof(text)); /* what came before */
	(void)usleep(50000);
	(void)!read(fd, text, sizeof(text));
	return poll(&p, 1, 200) == 1;
}

static void freezes_thaws_and_kills(void **state)
{
	struct space_group *g;
	int fd;
	pid_t pid;

	assert_int_equal(space_group_open(f.space, "test.1", &g), 0);
	pid = ticking(g, &fd);
	assert_true(ticks(fd));
	assert_int_equal(space_group_freeze(g, NSEC_PER_SEC), 0);
	assert_false(ticks(fd));
	assert_int_equal(f.n_stops, 0);
	assert_int_equal(space_group_thaw(g), 0);
	(void)usleep(50000);
	assert_true(ticks(fd));
	assert_int_equal(space_group_freeze(g, NSEC_PER_SEC), 0);
	assert_int_equal(space_group_kill(g, NSEC_PER_SEC), 0);
	assert_int_equal(fixture_state(&f, pid), 'Z');
	assert_int_equal(fixture_exit_of(&f, pid).status, SIGKILL);
	assert_int_equal(space_reap(f.space, pid), 0);
	(void)close(fd);
	/* It can be used again, and is not frozen. */
	pid = ticking(g, &fd);
	assert_true(ticks(fd));
	assert_int_equal(space_group_kill(g, NSEC_PER_SEC), 0);
	assert_int_equal(space_reap(f.space, pid), 0);
	(void)close(fd);
	assert_null(space_group_close(g));
}

static int count(void *owner, const char *name)
{
	(*(int *)owner)++;
	return 0;
}

static void leaf_stays_while_somebody_lives_in_it(void **state)
{
	pid_t pid = fixture_sh(&f, "exec sleep 100", -1), *list;
	struct space_group *g;
	size_t n;
	int found = 0;

	assert_int_equal(space_group_open(f.space, "test.2", &g), 0);
	assert_int_equal(space_group_take(g, 4000000), SPACE_GROUP_E_GONE);
	assert_int_equal(space_group_take(g, pid), 0);
	assert_int_equal(space_group_pids(g, &list, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(list[0], pid);
	free(list);
	(void)space_group_close(g);
	assert_int_equal(space_group_each(f.space, "test.2", count, &found), 0);
	assert_int_equal(found, 1);
	assert_int_equal(space_group_open(f.space, "test.2", &g), 0);
	assert_int_equal(space_group_kill(g, NSEC_PER_SEC), 0);
	(void)space_group_close(g);
	found = 0;
	assert_int_equal(space_group_each(f.space, "test.", count, &found), 0);
	assert_int_equal(found, 0);
	(void)fixture_exit_of(&f, pid);
	assert_int_equal(space_reap(f.space, pid), 0);
}

/* 20 shells that fork all the time, and their parent. */
static pid_t forking(void)
{
	const char *const argv[] = { "/bin/sh", "-c",
				     "i=0; while [ $i -lt 20 ]; do "
				     "(while :; do /bin/true & wait; done) & i=$((i+1)); done; "
				     "echo x >&3; wait", NULL };
	struct space_spawn spec = { .argv = argv, .n_fds = 1, .flags = SPACE_SPAWN_TRACK,
				    .group_fd = -1 };
	int ends[2];
	char c;
	pid_t pid;

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	spec.fds = &ends[1];
	assert_int_equal(space_spawn(f.space, &spec, &pid, NULL), 0);
	assert_int_equal(read(ends[0], &c, 1), 1);
	(void)close(ends[0]);
	(void)close(ends[1]);
	return pid;
}

static void takes_a_tree_that_forks_all_the_time(void **state)
{
	struct space_group *g;
	pid_t root = forking(), *list;
	size_t n;

	assert_int_equal(space_group_open(f.space, "test.3", &g), 0);
	assert_int_equal(space_group_take_tree(g, root), 0);
	assert_int_equal(space_group_freeze(g, 2 * NSEC_PER_SEC), 0);
	assert_int_equal(space_group_pids(g, &list, &n), 0);
	assert_true(n >= 21);
	free(list);
	assert_int_equal(space_group_kill(g, 2 * NSEC_PER_SEC), 0);
	assert_int_equal(fixture_exit_of(&f, root).status, SIGKILL);
	assert_int_equal(space_reap(f.space, root), 0);
	fixture_turn(100 * NSEC_PER_MSEC);
	(void)space_group_close(g);
	/* Nobody of it is left outside. */
	assert_int_equal(space_group_open(f.space, "test.3", &g), 0);
	assert_int_equal(space_group_take_tree(g, root), SPACE_GROUP_E_GONE);
	(void)space_group_close(g);
}

/* The kernel does not list it among the members of its group. */
static void takes_a_tree_with_a_zombie_in_it(void **state)
{
	pid_t root = fixture_sh(&f, "/bin/true & exec sleep 100", -1);
	struct space_group *g;

	fixture_turn(100 * NSEC_PER_MSEC);
	assert_int_equal(space_group_open(f.space, "test.4", &g), 0);
	assert_int_equal(space_group_take_tree(g, root), 0);
	assert_int_equal(space_group_freeze(g, 2 * NSEC_PER_SEC), 0);
	assert_int_equal(space_group_kill(g, 2 * NSEC_PER_SEC), 0);
	(void)fixture_exit_of(&f, root);
	assert_int_equal(space_reap(f.space, root), 0);
	(void)space_group_close(g);
}

static int tests(void)
{
	const struct CMUnitTest all[] = {
		cmocka_unit_test_setup_teardown(freezes_thaws_and_kills, setup, teardown),
		cmocka_unit_test_setup_teardown(leaf_stays_while_somebody_lives_in_it, setup, teardown),
		cmocka_unit_test_setup_teardown(takes_a_tree_that_forks_all_the_time, setup, teardown),
		cmocka_unit_test_setup_teardown(takes_a_tree_with_a_zombie_in_it, setup, teardown),
	};

	return cmocka_run_group_tests_name("space_group", all, NULL, NULL);
}

int main(int argc, char **argv)
{
	return fixture_main(argc, argv, tests);
}
