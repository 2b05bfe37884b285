#include "process_fixture.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SENTINEL = 3000099, SENDER = 3000077 };

/* -- As node 2 sends it -- */

struct told {
	struct wire_call call;
	bool done;
	enum rpc_status status;
};

static void on_told(struct wire_call *c, enum rpc_status status, const char *text,
		    const struct wire_answer *answer)
{
	struct told *t = container_of(c, struct told, call);

	t->done = true;
	t->status = status;
}

static enum rpc_status tell_but(pid_t group, int signal, uid_t uid, uint64_t sequence,
				pid_t except)
{
	const struct wire_group g = {.signal = {.pid = group,
						.signal = signal,
						.code = SI_USER,
						.sender_pid = SENDER,
						.sender_uid = uid,
						.sequence = sequence},
				     .sentinel = SENTINEL,
				     .except = &except,
				     .n_except = except ? 1 : 0};
	struct told t = {.call.done = on_told};

	assert_int_equal(wire_group(NULL, &t.call, HERE, &g), 0);
	wait_until(t.done);
	return t.status;
}

static enum rpc_status tell(pid_t group, int signal, uint64_t sequence)
{
	return tell_but(group, signal, 1000, sequence, 0);
}

/* -- -- */

static uint64_t next_sequence = 1;
static struct run run;

static int setup(void **state)
{
	process_fixture_open();
	run_script(&run, "trap '' USR1; /mnt/libexec/relative alone & "
			 "/mnt/libexec/relative alone & wait");
	return 0;
}

static int teardown(void **state)
{
	(void)kill(-run.pid, SIGKILL);
	wait_until(kill(-run.pid, 0) < 0);
	(void)close(run.out);
	process_fixture_close();
	return 0;
}

static size_t count(const char *what)
{
	size_t n = 0;

	for (const char *at = run_text(&run); (at = strstr(at, what)); at++)
		n++;
	return n;
}

static bool all_ready(void)
{
	return count("child ready") == 2;
}

static const char got_usr1[] = "child got 10 code 0 pid 3000077 uid 1000 value 0\n";

static void each_member_gets_it_once_from_who_sent_it(void **state)
{
	uint64_t sequence = next_sequence++;

	wait_until(all_ready());
	assert_int_equal(tell(run.pid, SIGUSR1, sequence), RPC_OK);
	wait_until(count(got_usr1) == 2);
	/* The answer was lost. */
	assert_int_equal(tell(run.pid, SIGUSR1, sequence), RPC_OK);
	process_fixture_close();
	process_fixture_open();
	assert_int_equal(tell(run.pid, SIGUSR1, sequence), RPC_OK);
	turn_for(200 * NSEC_PER_MSEC);
	assert_int_equal(count("child got"), 2);
	assert_int_equal(tell(run.pid, SIGUSR1, next_sequence++), RPC_OK);
	wait_until(count(got_usr1) == 4);
}

static pid_t a_child(void)
{
	struct proc_stat s;

	for (pid_t pid = run.pid + 1;; pid++)
		if (proc_stat_read(space_proc_fd(space), pid, &s) == 0 &&
		    s.ppid == run.pid)
			return pid;
}

static void who_had_it_already_and_who_may_not_be_sent_it_do_not(void **state)
{
	wait_until(all_ready());
	assert_int_equal(tell_but(run.pid, SIGUSR1, 1000, next_sequence++, a_child()),
			 RPC_OK);
	wait_until(count(got_usr1) == 1);
	assert_int_equal(tell_but(run.pid, SIGUSR1, 4242, next_sequence++, 0), RPC_OK);
	turn_for(200 * NSEC_PER_MSEC);
	assert_int_equal(count("child got"), 1);
	assert_int_equal(tell_but(run.pid, SIGUSR1, 0, next_sequence++, 0), RPC_OK);
	wait_until(count("child got 10 code 0 pid 3000077 uid 0 value 0\n") == 2);
}

static void who_has_members_says_so(void **state)
{
	wait_until(all_ready());
	assert_int_equal(tell(run.pid, 0, 0), RPC_OK);
	assert_int_equal(tell(run.pid + 1, 0, 0), RPC_NOT_FOUND);
	/* Guests are for their home to tell, unless that is out. */
	there_first = 300;
	assert_int_equal(tell(run.pid, 0, 0), RPC_NOT_FOUND);
	there_first = MEMBERSHIP_PID_MAX;
}

static void it_stops_and_goes_on(void **state)
{
	struct proc_stat s = {0};
	pid_t child;

	wait_until(all_ready());
	child = a_child();
	assert_int_equal(tell(run.pid, SIGSTOP, 0), RPC_OK);
	wait_until(proc_stat_read(space_proc_fd(space), child, &s) == 0 &&
		   s.state == 'T');
	assert_int_equal(tell(run.pid, SIGUSR1, next_sequence++), RPC_OK);
	turn_for(100 * NSEC_PER_MSEC);
	assert_int_equal(count("child got"), 0);
	assert_int_equal(tell(run.pid, SIGCONT, next_sequence++), RPC_OK);
	wait_until(count(got_usr1) == 2);
}

static void who_is_forked_meanwhile_gets_it_too(void **state)
{
	for (int i = 0; i < 5; i++) {
		struct run storm;

		run_script(&storm, "echo begun; for i in 1 2 3 4 5 6 7 8 9; do for j "
				   "in 1 2 3 4 5 6 7 8 9; do "
				   "(sleep 100 & sleep 100) & done; done; wait");
		wait_until(strstr(run_text(&storm), "begun"));
		turn_for((nsec_t)(5 * i) * NSEC_PER_MSEC);
		assert_int_equal(tell(storm.pid, SIGTERM, next_sequence++), RPC_OK);
		wait_until(kill(-storm.pid, 0) < 0);
		(void)close(storm.out);
	}
}

static int tests(void)
{
	const struct CMUnitTest all[] = {
		cmocka_unit_test_setup_teardown(
			each_member_gets_it_once_from_who_sent_it, setup, teardown),
		cmocka_unit_test_setup_teardown(
			who_had_it_already_and_who_may_not_be_sent_it_do_not, setup,
			teardown),
		cmocka_unit_test_setup_teardown(who_has_members_says_so, setup,
						teardown),
		cmocka_unit_test_setup_teardown(it_stops_and_goes_on, setup, teardown),
		cmocka_unit_test_setup_teardown(who_is_forked_meanwhile_gets_it_too,
						setup, teardown),
	};

	return cmocka_run_group_tests_name("process group", all, NULL, NULL);
}

int main(int argc, char **argv)
{
	return process_fixture_main(argc, argv, tests);
}
