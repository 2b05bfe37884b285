#include "process_proc.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void command_with_brackets_and_blanks_is_no_trap(void **state)
{
	struct proc_stat s;

	assert_int_equal(proc_stat_parse("65537 (a) b (c) R 1 (d) S 7 8 9 0 -1 0 0 0 0 "
					 "0 3 4 0 0 20 0 5 0 "
					 "600 1000 70 0 0",
					 &s),
			 0);
	assert_string_equal(s.comm, "a) b (c) R 1 (d");
	assert_int_equal(s.state, 'S');
	assert_int_equal(s.ppid, 7);
	assert_int_equal(s.pgid, 8);
	assert_int_equal(s.sid, 9);
	assert_int_equal(s.cpu_ticks, 7);
	assert_int_equal(s.n_threads, 5);
	assert_int_equal(s.start_ticks, 600);
	assert_int_equal(s.rss_pages, 70);
}

static void what_is_not_a_line_is_refused(void **state)
{
	struct proc_stat s;

	assert_int_equal(proc_stat_parse("", &s), -EINVAL);
	assert_int_equal(proc_stat_parse("1 (x", &s), -EINVAL);
	assert_int_equal(proc_stat_parse("1 (x) S 1", &s), -EINVAL);
	assert_int_equal(proc_stat_parse(") 1 (", &s), -EINVAL);
}

static void own_process_is_read(void **state)
{
	int proc_fd = open("/proc", O_PATH | O_DIRECTORY);
	struct proc_stat s;
	uint64_t pending;
	sigset_t usr1;
	uid_t uid;

	assert_int_equal(proc_stat_read(proc_fd, getpid(), &s), 0);
	assert_int_equal(s.ppid, getppid());
	assert_int_equal(s.pgid, getpgrp());
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	(void)sigprocmask(SIG_BLOCK, &usr1, NULL);
	(void)raise(SIGUSR1);
	assert_int_equal(proc_status_read(proc_fd, getpid(), &uid, &pending), 0);
	assert_int_equal(uid, getuid());
	assert_true(pending & 1u << (SIGUSR1 - 1));
	(void)close(proc_fd);
}

int main(void)
{
	static const struct CMUnitTest list[] = {
		cmocka_unit_test(command_with_brackets_and_blanks_is_no_trap),
		cmocka_unit_test(what_is_not_a_line_is_refused),
		cmocka_unit_test(own_process_is_read),
	};

	return cmocka_run_group_tests_name("process proc", list, NULL, NULL);
}
