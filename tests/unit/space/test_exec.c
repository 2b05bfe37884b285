#include "fixture.h"

#include "cleanup.h"
#include "inject.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

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

/* /bin/sh -c @script, which asks, as what it starts. */
static pid_t ask_sh(const char *script)
{
	const char *const argv[] = { "/bin/sh", "-c", script, NULL };
	const struct space_spawn spec = { .argv = argv, .group_fd = -1,
					  .flags = SPACE_SPAWN_TRACK | SPACE_SPAWN_ASK };
	pid_t pid = 0;

	assert_int_equal(space_spawn(f.space, &spec, &pid, NULL), 0);
	return pid;
}

static bool somebody_asks(void *owner)
{
	return f.n_execs > *(size_t *)owner;
}

static const struct space_exec *await_exec(size_t n_before)
{
	fixture_wait(somebody_asks, &n_before);
	return &f.execs[n_before];
}

/* The shell itself was the first. */
static const struct space_exec *await_child(const char *script, pid_t *ret_shell)
{
	const struct space_exec *e;

	*ret_shell = ask_sh(script);
	e = await_exec(0);
	assert_int_equal(e->pid, *ret_shell);
	assert_int_equal(space_exec_go(f.space, e->id), 0);
	return await_exec(1);
}

static void a_program_waits_until_it_may_go_on(void **state)
{
	const struct space_exec *e;
	pid_t shell;

	e = await_child("/bin/sh -c 'exit 7'; exit $?", &shell);
	assert_int_not_equal(e->pid, shell);
	assert_int_equal(e->nr, SYS_execve);
	fixture_turn(100 * NSEC_PER_MSEC);
	assert_int_equal(fixture_state(&f, e->pid), 'S');
	assert_int_equal(space_exec_go(f.space, e->id), 0);
	assert_int_equal(space_exec_go(f.space, e->id), SPACE_E_ABSENT);
	assert_int_equal(fixture_exit_of(&f, shell).status, 7);
}

static void who_does_not_ask_does_not_wait(void **state)
{
	pid_t shell = fixture_sh(&f, "/bin/sh -c 'exit 8'; exit $?", -1);

	assert_int_equal(fixture_exit_of(&f, shell).status, 8);
	assert_int_equal(f.n_execs, 0);
}

static void without_an_ssid_programs_are_started_at_once(void **state)
{
	pid_t shell;

	(void)await_child("/bin/sh -c 'exit 9'; /bin/sh -c 'exit 10'; exit $?", &shell);
	fixture_close(&f); /* one waits, one is still to come */
	(void)usleep(300000);
	fixture_open(&f);
	assert_int_equal(fixture_exit_of(&f, shell).status, 10);
}

static void an_interrupted_one_asks_again(void **state)
{
	const struct space_exec *first, *second;
	uint64_t id;
	pid_t shell;

	/* The signal is ignored by nobody and handled: the call begins anew. */
	first = await_child("trap : USR1; exec /bin/sh -c 'exit 11'", &shell);
	id = first->id;
	assert_int_equal(kill(first->pid, SIGSTOP), 0);
	assert_int_equal(kill(first->pid, SIGCONT), 0);
	second = await_exec(2);
	assert_int_equal(second->pid, first->pid);
	assert_int_not_equal(second->id, id);
	assert_int_equal(space_exec_go(f.space, id), SPACE_E_ABSENT);
	assert_int_equal(space_exec_go(f.space, second->id), 0);
	assert_int_equal(fixture_exit_of(&f, shell).status, 11);
}

static void a_call_that_names_a_pid_of_our_own_does_not_wait(void **state)
{
	enum { OURS = 300000, FOREIGN = 4000000, N = 65536 };
	char script[256];
	const struct space_exec *e;
	pid_t shell;

	assert_int_equal(space_pids_add(f.space, OURS, N), 0);
	(void)snprintf(script, sizeof(script), "kill -0 %d; kill -0 %d; kill -0 %d; exit 12", OURS,
		       OURS + N - 1, FOREIGN);
	e = await_child(script, &shell);
	assert_int_equal(e->nr, SYS_kill);
	assert_int_equal(e->args[0], FOREIGN);
	assert_int_equal(space_exec_go(f.space, e->id), 0);
	/* The numbers beside ours are not. */
	(void)snprintf(script, sizeof(script), "kill -0 %d; kill -0 %d", OURS - 1, OURS + N);
	shell = ask_sh(script);
	assert_int_equal(space_exec_go(f.space, await_exec(2)->id), 0);
	for (size_t i = 3; i < 5; i++) {
		e = await_exec(i);
		assert_int_equal(e->args[0], i == 3 ? OURS - 1 : OURS + N);
		assert_int_equal(space_exec_go(f.space, e->id), 0);
	}
	assert_int_equal(fixture_exit_of(&f, shell).status, 1);
}

static bool has_descriptor(pid_t pid, int number)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "%d/fd/%d", pid, number);
	return faccessat(space_proc_fd(f.space), path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static void it_is_given_descriptors(void **state)
{
	int closed = -1, kept = -1, null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	const struct space_exec *e;
	pid_t shell, child;

	e = await_child("/bin/sleep 60; exit 0", &shell);
	child = e->pid;
	assert_int_equal(space_exec_give(f.space, e->id, null, true, &closed), 0);
	assert_int_equal(space_exec_give(f.space, e->id, null, false, &kept), 0);
	(void)close(null);
	assert_true(closed > 2 && kept > 2 && closed != kept);
	assert_true(has_descriptor(child, closed) && has_descriptor(child, kept));
	assert_int_equal(space_exec_go(f.space, e->id), 0);
	for (int i = 0; has_descriptor(child, closed) && i < 500; i++)
		fixture_turn(10 * NSEC_PER_MSEC);
	assert_true(!has_descriptor(child, closed) && has_descriptor(child, kept));
	assert_int_equal(kill(child, SIGKILL), 0);
	(void)fixture_exit_of(&f, shell);
}

static void find_strings(pid_t pid, const struct space_exec *e, uint64_t *ret_empty)
{
	char path[64], text[4096];
	_cleanup_close_ int fd = -1;
	ssize_t n;

	(void)snprintf(path, sizeof(path), "%d/mem", pid);
	fd = openat(space_proc_fd(f.space), path, O_RDONLY | O_CLOEXEC);
	n = pread(fd, text, 64, (off_t)e->args[0]);
	assert_true(n > 0 && memchr(text, 0, (size_t)n));
	*ret_empty = e->args[0] + strlen(text);
}

/* Also of a child of vfork(), whose memory is its parent's. */
static void it_becomes_another_program_in_one_step(void **state)
{
	const struct space_exec *e;
	int program, there = -1;
	uint64_t empty;
	pid_t shell;

	program = open("/bin/false", O_RDONLY | O_CLOEXEC);
	e = await_child("/bin/true; exit $?", &shell);
	find_strings(e->pid, e, &empty);
	assert_int_equal(space_exec_give(f.space, e->id, program, true, &there), 0);
	assert_int_equal(inject_become(space_proc_fd(f.space), e->pid, SYS_execve, there, empty,
				       e->args[1]), 0);
	(void)close(program);
	assert_int_equal(space_exec_go(f.space, e->id), SPACE_E_ABSENT);
	assert_int_equal(fixture_exit_of(&f, shell).status, 1);
}

static void who_cannot_become_it_goes_on_as_if_nothing_had_been(void **state)
{
	const struct space_exec *e;
	uint64_t empty;
	pid_t shell;

	e = await_child("/bin/sh -c 'exit 12'; exit $?", &shell);
	find_strings(e->pid, e, &empty);
	/* No such descriptor: the call fails, and its own begins again. */
	assert_int_not_equal(inject_become(space_proc_fd(f.space), e->pid, SYS_execve, 99, empty,
					   e->args[1]), 0);
	e = await_exec(2);
	/* It waits in another call. */
	assert_int_not_equal(inject_become(space_proc_fd(f.space), shell, SYS_execve, 99, empty,
					   e->args[1]), 0);
	assert_int_equal(space_exec_go(f.space, e->id), 0);
	assert_int_equal(fixture_exit_of(&f, shell).status, 12);
}

static int tests(void)
{
	const struct CMUnitTest all[] = {
		cmocka_unit_test_setup_teardown(a_program_waits_until_it_may_go_on, setup, teardown),
		cmocka_unit_test_setup_teardown(who_does_not_ask_does_not_wait, setup, teardown),
		cmocka_unit_test_setup_teardown(without_an_ssid_programs_are_started_at_once, setup,
						teardown),
		cmocka_unit_test_setup_teardown(an_interrupted_one_asks_again, setup, teardown),
		cmocka_unit_test_setup_teardown(a_call_that_names_a_pid_of_our_own_does_not_wait, setup,
						teardown),
		cmocka_unit_test_setup_teardown(it_is_given_descriptors, setup, teardown),
		cmocka_unit_test_setup_teardown(it_becomes_another_program_in_one_step, setup,
						teardown),
		cmocka_unit_test_setup_teardown(
			who_cannot_become_it_goes_on_as_if_nothing_had_been, setup, teardown),
	};

	return cmocka_run_group_tests_name("space exec", all, NULL, NULL);
}

int main(int argc, char **argv)
{
	return fixture_main(argc, argv, tests);
}
