#include "process_fixture.h"

#include "process.pb-c.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

static struct run r;
static struct ending e;

static int setup(void **state)
{
	process_fixture_open();
	return 0;
}

static int teardown(void **state)
{
	process_fixture_close();
	return 0;
}

static void expect_end(struct ending *ending, int code, int status)
{
	wait_until(ending->told);
	assert_int_equal(ending->status, RPC_OK);
	assert_int_equal(ending->code, code);
	assert_int_equal(ending->exit_status, status);
}

static void launch_gives_exactly_what_the_caller_had(void **state)
{
	char *argv[] = {
		"sh", "-c",
		"id -u; id -g; id -G; umask; nice; ulimit -n; ulimit -c; pwd; echo "
		"$COLOUR;"
		"ls /proc/self/fd | wc -l; cut -d' ' -f6 /proc/self/stat;"
		"grep -E '^Sig(Blk|Ign)' /proc/self/status; readlink /proc/self/fd/0",
		NULL};
	struct process_launch l;
	char expected[512];

	launch_defaults(&l, argv);
	l.umask = 077;
	l.nice = 5;
	l.cwd = "/usr";
	l.limits[RLIMIT_NOFILE] = (struct rlimit){123, 456};
	l.limits[RLIMIT_CORE] = (struct rlimit){0, 0};
	run_launch(&r, &l);
	wait_for(&e, r.pid);
	expect_end(&e, CLD_EXITED, 0);
	(void)snprintf(
		expected, sizeof(expected),
		"1000\n1000\n1000 50\n0077\n5\n123\n0\n/usr\nblue\n4\n%d\n"
		"SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n/dev/null\n",
		r.pid);
	assert_string_equal(run_text(&r), expected);
}

static void callers_word_raises_neither_limits_nor_priority(void **state)
{
	char *argv[] = {"sh", "-c", "nice; ulimit -Hn", NULL};
	struct process_launch l;
	struct rlimit own;
	char expected[64];

	launch_defaults(&l, argv);
	l.nice = -10;
	l.limits[RLIMIT_NOFILE] = (struct rlimit){64, 1u << 29};
	(void)getrlimit(RLIMIT_NOFILE, &own);
	run_launch(&r, &l);
	wait_for(&e, r.pid);
	expect_end(&e, CLD_EXITED, 0);
	(void)snprintf(expected, sizeof(expected), "0\n%lu\n",
		       (unsigned long)own.rlim_max);
	assert_string_equal(run_text(&r), expected);
}

static void exit_by_code_and_by_signal_reach_every_waiter(void **state)
{
	struct ending others[3];

	run_script(&r, "sleep 0.2; exit 42");
	wait_for(&e, r.pid);
	for (int i = 0; i < 3; i++)
		wait_for(&others[i], r.pid);
	expect_end(&e, CLD_EXITED, 42);
	for (int i = 0; i < 3; i++)
		expect_end(&others[i], CLD_EXITED, 42);
	wait_for(&e, r.pid); /* known after the end */
	expect_end(&e, CLD_EXITED, 42);
	run_script(&r, "kill -9 $$");
	wait_for(&e, r.pid);
	expect_end(&e, CLD_KILLED, SIGKILL);
}

static void waiting_for_nothing_says_so(void **state)
{
	wait_for(&e, 77777);
	wait_until(e.told);
	assert_int_equal(e.status, RPC_NOT_FOUND);
}

static void exec_failure_ends_like_a_shell(void **state)
{
	char *missing[] = {"no-such-program", NULL},
	     *not_executable[] = {"/etc/passwd", NULL};
	char *relative_path[] = {"./nothing", NULL};
	struct process_launch l;

	launch_defaults(&l, missing);
	run_launch(&r, &l);
	wait_for(&e, r.pid);
	expect_end(&e, CLD_EXITED, 127);
	assert_string_equal(run_text(&r),
			    "ssi-run: no-such-program: No such file or directory\n");
	launch_defaults(&l, not_executable);
	run_launch(&r, &l);
	wait_for(&e, r.pid);
	expect_end(&e, CLD_EXITED, 126);
	assert_string_equal(run_text(&r), "ssi-run: /etc/passwd: Permission denied\n");
	launch_defaults(&l, relative_path);
	run_launch(&r, &l);
	wait_for(&e, r.pid);
	expect_end(&e, CLD_EXITED, 127);
}

static void in_the_background_only_a_failed_execution_is_reported(void **state)
{
	char *script[] = {"sh", "-c",
			  "readlink /proc/self/fd/2; ls /proc/self/fd | wc -l; echo x >&2",
			  NULL};
	char *missing[] = {"no-such-program", NULL};
	struct process_launch l;

	launch_defaults(&l, script);
	l.report = true;
	run_launch(&r, &l);
	wait_for(&e, r.pid);
	expect_end(&e, CLD_EXITED, 0);
	assert_string_equal(run_text(&r), "/dev/null\n4\n");
	launch_defaults(&l, missing);
	l.report = true;
	run_launch(&r, &l);
	wait_for(&e, r.pid);
	expect_end(&e, CLD_EXITED, 127);
	assert_string_equal(run_text(&r),
			    "ssi-run: no-such-program: No such file or directory\n");
}

static void directory_that_the_caller_may_not_enter_ends_with_126(void **state)
{
	char *argv[] = {"true", NULL};
	struct process_launch l;

	launch_defaults(&l, argv);
	l.cwd = "/root/secret";
	run_launch(&r, &l);
	wait_for(&e, r.pid);
	expect_end(&e, CLD_EXITED, 126);
}

static const struct process_info *find_info(const struct process_info *infos, size_t n,
					    pid_t pid)
{
	for (size_t i = 0; i < n; i++)
		if (infos[i].pid == pid)
			return &infos[i];
	return NULL;
}

static void list_shows_the_application_and_its_children(void **state)
{
	struct process_info *infos;
	const struct process_info *i;
	size_t n, n_children = 0;

	run_script(&r, "sleep 60 & (setsid sleep 61 &) ; echo ok; wait");
	wait_until(strstr(run_text(&r), "ok"));
	turn_for(100 * NSEC_PER_MSEC);
	assert_int_equal(process_list(room, &infos, &n), 0);
	i = find_info(infos, n, r.pid);
	assert_non_null(i);
	assert_int_equal(i->app, r.pid);
	assert_int_equal(i->uid, 1000);
	assert_int_equal(i->home, HERE);
	assert_int_equal(i->sid, r.pid);
	assert_true(strstr(i->command, "sh -c sleep 60"));
	assert_true(i->start_ns > env_realtime(process_env) - 30 * NSEC_PER_SEC);
	for (size_t k = 0; k < n; k++)
		n_children += infos[k].app == r.pid &&
			      strncmp(infos[k].command, "sleep", 5) == 0;
	assert_true(n_children >= 1);
	free(infos);
	wait_for(&e, r.pid);
	(void)kill(-r.pid, SIGKILL);
	expect_end(&e, CLD_KILLED, SIGKILL);
}

struct said {
	bool told;
	enum rpc_status status;
};

static void on_signalled(void *owner, enum rpc_status status, const char *text)
{
	*(struct said *)owner = (struct said){true, status};
}

static enum rpc_status send_signal(pid_t pid, int signal, uid_t uid)
{
	struct process_caller caller = {.uid = uid};
	struct said s = {0};

	assert_int_equal(process_signal(room, pid, signal, &caller, on_signalled, &s),
			 0);
	wait_until(s.told);
	return s.status;
}

static void run_alone(void)
{
	char *argv[] = {(char *)program("relative"), "alone", NULL};
	struct process_launch l;

	launch_defaults(&l, argv);
	run_launch(&r, &l);
	wait_until(strstr(run_text(&r), "child ready"));
}

static void signal_says_who_sent_it(void **state)
{
	run_alone();
	assert_int_equal(send_signal(r.pid, SIGUSR1, 1000), RPC_OK);
	wait_until(strstr(run_text(&r), "child got 10 code 0 pid 0 uid 1000"));
	assert_int_equal(send_signal(r.pid, SIGUSR2, 0), RPC_OK);
	wait_until(strstr(run_text(&r), "child got 12 code 0 pid 0 uid 0"));
	wait_for(&e, r.pid);
	assert_int_equal(send_signal(r.pid, SIGTERM, 1000), RPC_OK);
	expect_end(&e, CLD_KILLED, SIGTERM);
}

static void signal_of_another_user_is_refused(void **state)
{
	run_alone();
	assert_int_equal(send_signal(r.pid, SIGKILL, 1001), RPC_NOT_PERMITTED);
	assert_int_equal(send_signal(r.pid, 0, 1000), RPC_OK);
	wait_for(&e, r.pid);
	assert_int_equal(send_signal(r.pid, SIGKILL, 1000), RPC_OK);
	expect_end(&e, CLD_KILLED, SIGKILL);
	assert_int_equal(send_signal(r.pid, SIGKILL, 1000), RPC_NOT_FOUND);
}

static void signals_wait_while_it_is_held(void **state)
{
	struct process_caller caller = {.uid = 1000};
	struct process_record d;
	struct said s = {0};

	run_alone();
	assert_int_equal(process_hold(room, r.pid), 0);
	assert_int_equal(process_hold(room, r.pid), PROCESS_E_BUSY);
	assert_int_equal(process_record(room, r.pid, &d), 0);
	assert_true(d.moving);
	assert_int_equal(
		process_signal(room, r.pid, SIGUSR1, &caller, on_signalled, &s), 0);
	turn_for(200 * NSEC_PER_MSEC);
	assert_false(s.told);
	assert_null(strstr(run_text(&r), "got"));
	process_unhold(room, r.pid);
	wait_until(s.told);
	wait_until(strstr(run_text(&r), "child got 10"));
	wait_for(&e, r.pid);
	assert_int_equal(send_signal(r.pid, SIGKILL, 1000), RPC_OK);
	expect_end(&e, CLD_KILLED, SIGKILL);
}

static void successor_tells_what_ended_without_it(void **state)
{
	run_script(&r, "sleep 0.1; exit 7");
	process_fixture_close();
	(void)usleep(300000);
	process_fixture_open();
	wait_for(&e, r.pid);
	expect_end(&e, CLD_EXITED, 7);
}

static void end_is_known_though_the_wall_clock_steps(void **state)
{
	struct process_record d;

	run_script(&r, "exit 7");
	wait_until(process_record(room, r.pid, &d) == 0 && d.state == PROCESS_ENDED);
	for (int step = -1; step <= 1; step++) {
		wall_ahead = step * 3600 * (int64_t)NSEC_PER_SEC;
		assert_int_equal(env_arm(process_env, &room->sweep, 0), 0);
		turn_for(50 * NSEC_PER_MSEC);
	}
	wall_ahead = 0;
	wait_for(&e, r.pid);
	expect_end(&e, CLD_EXITED, 7);
}

static node_id where_place;
static enum rpc_status where_status;

static void on_where(void *owner, enum rpc_status status, const char *text,
		     node_id place, uid_t uid, uint32_t generation)
{
	*(bool *)owner = true;
	where_status = status;
	where_place = place;
}

static void where_asks_the_home(void **state)
{
	bool told = false;

	run_script(&r, "sleep 60");
	assert_int_equal(process_where(room, r.pid, on_where, &told), 0);
	wait_until(told);
	assert_int_equal(where_status, RPC_OK);
	assert_int_equal(where_place, HERE);
	told = false;
	assert_int_equal(process_where(room, 4000000, on_where, &told), 0);
	wait_until(told);
	assert_int_equal(where_status, RPC_NOT_FOUND);
	wait_for(&e, r.pid);
	(void)kill(r.pid, SIGKILL);
	expect_end(&e, CLD_KILLED, SIGKILL);
}

static int tests(void)
{
	static const struct CMUnitTest list[] = {
		cmocka_unit_test_setup_teardown(
			launch_gives_exactly_what_the_caller_had, setup, teardown),
		cmocka_unit_test_setup_teardown(
			callers_word_raises_neither_limits_nor_priority, setup,
			teardown),
		cmocka_unit_test_setup_teardown(
			exit_by_code_and_by_signal_reach_every_waiter, setup, teardown),
		cmocka_unit_test_setup_teardown(waiting_for_nothing_says_so, setup,
						teardown),
		cmocka_unit_test_setup_teardown(exec_failure_ends_like_a_shell, setup,
						teardown),
		cmocka_unit_test_setup_teardown(
			in_the_background_only_a_failed_execution_is_reported, setup,
			teardown),
		cmocka_unit_test_setup_teardown(
			directory_that_the_caller_may_not_enter_ends_with_126, setup,
			teardown),
		cmocka_unit_test_setup_teardown(
			list_shows_the_application_and_its_children, setup, teardown),
		cmocka_unit_test_setup_teardown(signal_says_who_sent_it, setup,
						teardown),
		cmocka_unit_test_setup_teardown(signal_of_another_user_is_refused,
						setup, teardown),
		cmocka_unit_test_setup_teardown(signals_wait_while_it_is_held, setup,
						teardown),
		cmocka_unit_test_setup_teardown(successor_tells_what_ended_without_it,
						setup, teardown),
		cmocka_unit_test_setup_teardown(end_is_known_though_the_wall_clock_steps,
						setup, teardown),
		cmocka_unit_test_setup_teardown(where_asks_the_home, setup, teardown),
	};

	return cmocka_run_group_tests_name("process launch", list, NULL, NULL);
}

int main(int argc, char **argv)
{
	return process_fixture_main(argc, argv, tests);
}
