#include "fixture.h"

#include "cleanup.h"
#include "space_label.h"

#include <errno.h>
#include <fcntl.h>
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

static void assert_label(pid_t pid, const char *born, const char *own)
{
	struct space_label l;

	assert_int_equal(space_label_read(space_proc_fd(f.space), pid, &l), 0);
	assert_string_equal(l.born, born);
	assert_string_equal(l.own, own);
}

static void label(pid_t pid, const char *born, const char *own)
{
	struct space_label l = {0};

	(void)snprintf(l.born, sizeof(l.born), "%s", born);
	(void)snprintf(l.own, sizeof(l.own), "%s", own);
	assert_int_equal(space_label_write(f.space, pid, &l), 0);
}

/* A shell that starts a sleep in the background with each line that it reads, and says
 * its PID. */
struct shell {
	pid_t pid;
	int in, out;
};

static struct shell start(int group_fd)
{
	const char *const argv[] = {
		"/bin/sh", "-c",
		"while read -r x <&3; do sleep 100 & echo $! >&4; done", NULL};
	int in[2], out[2], fds[2];
	struct space_spawn spec = {.argv = argv,
				   .fds = fds,
				   .n_fds = 2,
				   .group_fd = group_fd,
				   .flags = SPACE_SPAWN_TRACK};
	struct shell s;

	assert_int_equal(pipe2(in, O_CLOEXEC) | pipe2(out, O_CLOEXEC), 0);
	fds[0] = in[0];
	fds[1] = out[1];
	assert_int_equal(space_spawn(f.space, &spec, &s.pid, NULL), 0);
	(void)close(in[0]);
	(void)close(out[1]);
	s.in = in[1];
	s.out = out[0];
	return s;
}

static pid_t bear(const struct shell *s)
{
	char text[16] = {0};

	assert_int_equal(write(s->in, "\n", 1), 1);
	assert_true(read(s->out, text, sizeof(text) - 1) > 0);
	return (pid_t)strtol(text, NULL, 10);
}

/* It, and what it started in this group. */
static void end(const struct shell *s)
{
	struct space_group *g;

	assert_int_equal(space_group_open(f.space, "test.end", &g), 0);
	assert_int_equal(space_group_take_tree(g, s->pid), 0);
	assert_int_equal(space_group_kill(g, NSEC_PER_SEC), 0);
	(void)space_group_close(g);
	(void)fixture_exit_of(&f, s->pid);
	assert_int_equal(space_reap(f.space, s->pid), 0);
	(void)close(s->in);
	(void)close(s->out);
}

static void children_are_born_with_what_their_parent_had_then(void **state)
{
	struct shell s = start(-1);
	pid_t plain = bear(&s), first, second;

	assert_label(s.pid, "", "");
	label(s.pid, "1,2", "");
	first = bear(&s);
	label(s.pid, "3", "4");
	second = bear(&s);
	assert_label(s.pid, "3", "4");
	assert_label(plain, "", "");
	assert_label(first, "1,2", "");
	assert_label(second, "3", "");
	label(s.pid, "", "");
	assert_label(s.pid, "", "");
	assert_label(bear(&s), "", "");
	assert_label(second, "3", "");
	end(&s);
}

static void one_is_born_in_a_leaf_that_was_opened(void **state)
{
	int fd;
	struct shell s;

	assert_int_equal(space_label_open(f.space, "7", &fd), 0);
	s = start(fd);
	(void)close(fd);
	assert_label(s.pid, "7", "");
	end(&s);
}

static void an_orphan_keeps_its_label(void **state)
{
	struct shell s = start(-1);
	pid_t child;

	label(s.pid, "5", "6");
	child = bear(&s);
	assert_int_equal(kill(s.pid, SIGKILL), 0);
	(void)fixture_exit_of(&f, s.pid);
	assert_label(child, "5", "");
	s.pid = child;
	assert_int_equal(space_track(f.space, child), 0);
	end(&s);
}

static int count(void *owner, const char *name)
{
	(*(int *)owner)++;
	return 0;
}

static void groups_keep_labels_and_hold_those_who_have_some(void **state)
{
	struct shell s = start(-1);
	struct space_group *g;
	pid_t plain, first, *list;
	size_t n;
	int left = 0;

	plain = bear(&s);
	label(s.pid, "1", "2");
	first = bear(&s);
	assert_int_equal(space_group_open(f.space, "test.label", &g), 0);
	assert_int_equal(space_group_take_tree(g, s.pid), 0);
	assert_label(s.pid, "1", "2");
	assert_label(first, "1", "");
	assert_label(plain, "", "");
	assert_int_equal(space_group_pids(g, &list, &n), 0);
	free(list);
	assert_int_equal(n, 3);
	/* Frozen, it is written and stays in its group. */
	assert_int_equal(space_group_freeze(g, NSEC_PER_SEC), 0);
	label(plain, "8", "9");
	label(first, "", "");
	assert_label(plain, "8", "9");
	assert_label(first, "", "");
	assert_int_equal(space_group_pids(g, &list, &n), 0);
	free(list);
	assert_int_equal(n, 3);
	assert_int_equal(space_group_thaw(g), 0);
	assert_label(bear(&s), "1", "");
	assert_int_equal(space_group_kill(g, NSEC_PER_SEC), 0);
	assert_int_equal(fixture_state(&f, s.pid), 'Z');
	(void)fixture_exit_of(&f, s.pid);
	assert_int_equal(space_reap(f.space, s.pid), 0);
	(void)space_group_close(g);
	assert_int_equal(space_group_each(f.space, "test.label", count, &left), 0);
	assert_int_equal(left, 0);
	(void)close(s.in);
	(void)close(s.out);
}

static void who_is_gone_has_none(void **state)
{
	struct space_label l = {.born = "1"};

	assert_int_equal(space_label_read(space_proc_fd(f.space), 4000000, &l), -ESRCH);
	assert_int_equal(space_label_write(f.space, 4000000, &l), SPACE_GROUP_E_GONE);
}

static void one_is_put_back_to_where_it_was(void **state)
{
	struct shell s = start(-1);
	struct space_group *g, *other;
	char where[SPACE_WHERE_MAX], now[SPACE_WHERE_MAX];

	assert_int_equal(space_group_open(f.space, "test.home", &g), 0);
	assert_int_equal(space_group_open(f.space, "test.other", &other), 0);
	assert_int_equal(space_group_take(g, s.pid), 0);
	label(s.pid, "1", "2");
	assert_int_equal(space_group_where(space_proc_fd(f.space), s.pid, where), 0);
	assert_int_equal(space_group_take(other, s.pid), 0);
	label(s.pid, "3",
	      ""); /* by which the leaf that it was in is not needed any more */
	assert_int_equal(space_group_return(f.space, s.pid, where), 0);
	assert_int_equal(space_group_where(space_proc_fd(f.space), s.pid, now), 0);
	assert_string_equal(now, where);
	assert_label(s.pid, "1", "2");
	assert_int_equal(space_group_take(other, s.pid), 0);
	(void)space_group_close(g);
	assert_int_equal(space_group_return(f.space, s.pid, where), 0);
	assert_label(s.pid, "1", "2");
	assert_int_equal(space_group_where(space_proc_fd(f.space), s.pid, now), 0);
	assert_string_equal(now, where + strlen("/test.home"));
	(void)space_group_close(other);
	end(&s);
}

static void leaves_of_one_process_are_removed(void **state)
{
	struct shell s = start(-1);
	int left = 0;

	for (char own[] = "1"; own[0] <= '9'; own[0]++)
		label(s.pid, "1", own);
	assert_int_equal(space_group_each(f.space, "label:1:", count, &left), 0);
	assert_int_equal(left, 1);
	end(&s);
	s = start(-1);
	label(s.pid, "2", "");
	left = 0;
	assert_int_equal(space_group_each(f.space, "label:1:", count, &left), 0);
	assert_int_equal(left, 0);
	end(&s);
}

static int tests(void)
{
	const struct CMUnitTest all[] = {
		cmocka_unit_test_setup_teardown(
			children_are_born_with_what_their_parent_had_then, setup,
			teardown),
		cmocka_unit_test_setup_teardown(one_is_born_in_a_leaf_that_was_opened,
						setup, teardown),
		cmocka_unit_test_setup_teardown(an_orphan_keeps_its_label, setup,
						teardown),
		cmocka_unit_test_setup_teardown(
			groups_keep_labels_and_hold_those_who_have_some, setup,
			teardown),
		cmocka_unit_test_setup_teardown(who_is_gone_has_none, setup, teardown),
		cmocka_unit_test_setup_teardown(one_is_put_back_to_where_it_was, setup,
						teardown),
		cmocka_unit_test_setup_teardown(leaves_of_one_process_are_removed,
						setup, teardown),
	};

	return cmocka_run_group_tests_name("space label", all, NULL, NULL);
}

int main(int argc, char **argv)
{
	return fixture_main(argc, argv, tests);
}
