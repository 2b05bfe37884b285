/* Of real processes in a space. */
#include "../space/fixture.h"

#include "capability.h"
#include "cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
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

static void assert_text(pid_t pid, const char *text)
{
	struct capability_sets s;
	char now[CAPABILITY_TEXT_MAX];

	assert_int_equal(capability_read(space_proc_fd(f.space), pid, &s), 0);
	capability_format(&s, now);
	assert_string_equal(now, text);
}

static void write_text(pid_t pid, const char *text)
{
	struct capability_sets s;

	assert_int_equal(capability_unformat(&s, text), 0);
	assert_int_equal(capability_write(f.space, pid, &s), 0);
	assert_text(pid, text);
}

static pid_t child_of(pid_t pid)
{
	char path[64], text[32] = "";
	int fd;

	(void)snprintf(path, sizeof(path), "%d/task/%d/children", pid, pid);
	for (int n = 0; n < 500 && !text[0]; n++) {
		fd = openat(space_proc_fd(f.space), path, O_RDONLY | O_CLOEXEC);
		assert_true(fd >= 0 && read(fd, text, sizeof(text) - 1) >= 0);
		(void)close(fd);
		(void)usleep(10000);
	}
	return (pid_t)strtol(text, NULL, 10);
}

static void end(pid_t pid)
{
	assert_int_equal(kill(pid, SIGKILL), 0);
	(void)fixture_exit_of(&f, pid);
	assert_int_equal(space_reap(f.space, pid), 0);
}

static void a_child_has_what_its_parent_hands_on(void **state)
{
	pid_t parent = fixture_sh(&f, "sleep 0.5; sleep 100", -1), first, child;

	assert_text(parent, "23,23,23,23");
	write_text(parent, "27,21,7,5");
	assert_true(capability_has(space_proc_fd(f.space), parent,
				   CAPABILITY_CHECKPOINTABLE));
	assert_false(capability_has(space_proc_fd(f.space), parent,
				    CAPABILITY_DISTANT_FORK));
	first = child_of(parent);
	do
		child = child_of(parent);
	while (child == first);
	assert_text(child, "7,5,7,5");
	write_text(parent, "23,23,23,23");
	end(parent);
}

static void all_sets_are_written_as_they_are(void **state)
{
	static const char *const texts[] = {"27,27,27,27", "27,27,27,0",  "0,0,0,0",
					    "23,23,23,23", "23,21,23,23", "27,1,23,23",
					    "27,27,23,23"};
	pid_t pid = fixture_sh(&f, "exec sleep 100", -1);

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		write_text(pid, texts[i]);
	end(pid);
}

static void one_is_born_with_sets(void **state)
{
	struct capability_sets s = capability_initial(true);
	pid_t pid;
	int fd;

	assert_int_equal(capability_leaf(f.space, &s, &fd), 0);
	pid = fixture_sh(&f, "exec sleep 100", fd);
	(void)close(fd);
	assert_text(pid, "27,27,27,27");
	end(pid);
	s = capability_initial(false);
	assert_int_equal(capability_leaf(f.space, &s, &fd), 0);
	assert_int_equal(fd, -1);
}

static void who_is_gone_has_none(void **state)
{
	struct capability_sets s = capability_initial(true);

	assert_int_equal(capability_read(space_proc_fd(f.space), 4000000, &s), -ESRCH);
	assert_int_equal(capability_write(f.space, 4000000, &s), -ESRCH);
	assert_false(capability_has(space_proc_fd(f.space), 4000000,
				    CAPABILITY_CAN_MIGRATE));
}

static int tests(void)
{
	const struct CMUnitTest all[] = {
		cmocka_unit_test_setup_teardown(a_child_has_what_its_parent_hands_on,
						setup, teardown),
		cmocka_unit_test_setup_teardown(all_sets_are_written_as_they_are, setup,
						teardown),
		cmocka_unit_test_setup_teardown(one_is_born_with_sets, setup, teardown),
		cmocka_unit_test_setup_teardown(who_is_gone_has_none, setup, teardown),
	};

	return cmocka_run_group_tests_name("capability process", all, NULL, NULL);
}

int main(int argc, char **argv)
{
	return fixture_main(argc, argv, tests);
}
