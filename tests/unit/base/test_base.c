#include "buf.h"
#include "cleanup.h"
#include "err.h"
#include "fault.h"
#include "log.h"
#include "sm.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <cmocka.h>

/* Run @f in a child and return its wait status. */
static int in_child(void (*f)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		(void)prctl(PR_SET_DUMPABLE, 0);
		close(STDERR_FILENO);
		f();
		_exit(0);
	}
	assert_true(waitpid(pid, &status, WUNTRACED) == pid);
	if (WIFSTOPPED(status)) {
		int end;

		(void)kill(pid, SIGKILL);
		assert_true(waitpid(pid, &end, 0) == pid);
	}
	return status;
}

/* Buffers. */

static void a_buffer_keeps_what_is_appended(void **state)
{
	_cleanup_buf_ struct buf b = {0};

	for (unsigned i = 0; i < 10000; i++)
		assert_int_equal(buf_append(&b, &i, sizeof(i)), 0);
	assert_int_equal(b.len, 10000 * sizeof(unsigned));
	for (unsigned i = 0, v; i < 10000; i++) {
		memcpy(&v, b.data + i * sizeof(v), sizeof(v));
		assert_int_equal(v, i);
	}
}

static void a_buffer_gives_up_its_front(void **state)
{
	_cleanup_buf_ struct buf b = {0};

	assert_int_equal(buf_append(&b, "headtail", 8), 0);
	buf_consume(&b, 4);
	assert_int_equal(b.len, 4);
	assert_memory_equal(b.data, "tail", 4);
	buf_consume(&b, 4);
	buf_consume(&b, 0);
	assert_int_equal(b.len, 0);
}

static void a_buffer_refuses_an_absurd_length_and_stays(void **state)
{
	_cleanup_buf_ struct buf b = {0};

	assert_int_equal(buf_append(&b, "kept", 4), 0);
	assert_null(buf_reserve(&b, SIZE_MAX));
	assert_null(buf_reserve(&b, SIZE_MAX / 2));
	assert_int_equal(b.len, 4);
	assert_memory_equal(b.data, "kept", 4);
}

static void nothing_can_be_appended(void **state)
{
	_cleanup_buf_ struct buf b = {0};

	assert_int_equal(buf_append(&b, NULL, 0), 0);
	assert_int_equal(b.len, 0);
}

/* Errors. */

static void an_error_passes_and_an_outcome_folds(void **state)
{
	assert_int_equal(err_origin(-EIO), -EIO);
	assert_int_equal(err_fold(-EIO), -EIO);
	assert_int_equal(err_fold(0), 0);
	assert_int_equal(err_fold(3), -EPROTO);
}

static void errno_survives_a_log_line(void **state)
{
	errno = EXDEV;
	log_line(LOG_LEVEL_DEBUG, "not shown");
	assert_int_equal(errno, EXDEV);
}

static void a_long_log_line_is_cut_to_one(void **state)
{
	char text[4096], got[2048];
	int fds[2], saved = dup(STDERR_FILENO);
	ssize_t n;

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	assert_true(dup2(fds[1], STDERR_FILENO) >= 0);
	log_line(LOG_LEVEL_ERROR, "%s", text);
	assert_true(dup2(saved, STDERR_FILENO) >= 0);
	n = read(fds[0], got, sizeof(got));
	assert_int_equal(n, 1023);
	assert_memory_equal(got, "<3>xxx", 6);
	assert_int_equal(got[n - 1], '\n');
	close(saved);
	close(fds[0]);
	close(fds[1]);
}

/* What owns. */

static void ownership_is_passed_on(void **state)
{
	_cleanup_free_ char *a = strdup("it");
	_cleanup_free_ char *b = TAKE(a);
	_cleanup_close_ int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	_cleanup_close_ int other = TAKE_FD(fd);

	assert_null(a);
	assert_string_equal(b, "it");
	assert_int_equal(fd, -1);
	assert_true(other >= 0);
}

/* State machines. */

enum { ASLEEP, AWAKE, GONE };

static const struct sm_state states[] = {
	[ASLEEP] = {"asleep", SM_TO(AWAKE) | SM_TO(GONE)},
	[AWAKE] = {"awake", SM_TO(ASLEEP)},
	[GONE] = {"gone", 0},
};

static void a_machine_makes_its_legal_moves(void **state)
{
	struct sm sm;

	sm_init(&sm, "test", states, 7, ASLEEP);
	assert_string_equal(sm_state_name(&sm), "asleep");
	sm_move(&sm, AWAKE);
	sm_move(&sm, ASLEEP);
	sm_move(&sm, GONE);
	assert_string_equal(sm_state_name(&sm), "gone");
}

static void move_wrongly(void)
{
	struct sm sm;

	sm_init(&sm, "test", states, 7, AWAKE);
	sm_move(&sm, GONE);
}

static void a_machine_aborts_at_an_illegal_move(void **state)
{
	int status = in_child(move_wrongly);

	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

/* Fault points. */

static void a_fault_point_fails_once_and_only_where_armed(void **state)
{
	log_set_level(LOG_LEVEL_ERROR);
	assert_int_equal(fault("test.here"), 0);
	assert_int_equal(fault_arm("test.here", FAULT_FAIL), 0);
	assert_int_equal(fault("test.elsewhere"), 0);
	assert_int_equal(fault("test.here"), -EIO);
	assert_int_equal(fault("test.here"), 0);
	assert_int_equal(fault_arm("test.here", FAULT_FAIL), 0);
	assert_int_equal(fault_arm("test.here", FAULT_NONE), 0);
	assert_int_equal(fault("test.here"), 0);
}

static void a_fault_point_has_a_name_that_fits(void **state)
{
	char name[65];

	memset(name, 'n', 64);
	name[64] = '\0';
	assert_int_equal(fault_arm(name, FAULT_FAIL), -ENAMETOOLONG);
	name[63] = '\0';
	assert_int_equal(fault_arm(name, FAULT_NONE), 0);
}

static void be_killed(void)
{
	(void)fault_arm("test.here", FAULT_KILL);
	(void)fault("test.here");
}

static void be_stopped(void)
{
	(void)fault_arm("test.here", FAULT_STOP);
	(void)fault("test.here");
}

static void a_fault_point_kills_or_stops(void **state)
{
	int killed = in_child(be_killed), stopped = in_child(be_stopped);

	assert_true(WIFSIGNALED(killed) && WTERMSIG(killed) == SIGKILL);
	assert_true(WIFSTOPPED(stopped) && WSTOPSIG(stopped) == SIGSTOP);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_buffer_keeps_what_is_appended),
		cmocka_unit_test(a_buffer_gives_up_its_front),
		cmocka_unit_test(a_buffer_refuses_an_absurd_length_and_stays),
		cmocka_unit_test(nothing_can_be_appended),
		cmocka_unit_test(an_error_passes_and_an_outcome_folds),
		cmocka_unit_test(errno_survives_a_log_line),
		cmocka_unit_test(a_long_log_line_is_cut_to_one),
		cmocka_unit_test(ownership_is_passed_on),
		cmocka_unit_test(a_machine_makes_its_legal_moves),
		cmocka_unit_test(a_machine_aborts_at_an_illegal_move),
		cmocka_unit_test(a_fault_point_fails_once_and_only_where_armed),
		cmocka_unit_test(a_fault_point_has_a_name_that_fits),
		cmocka_unit_test(a_fault_point_kills_or_stops),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
