#include "fixture.h"

#include "cleanup.h"
#include "inject.h"
#include "space_group.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <linux/seccomp.h>
#include <time.h>
#include <unistd.h>

static struct fixture f;
static const long none[6];

/* What a victim tells, in memory that it shares with us. */
static struct victim {
	_Atomic int ready;
	_Atomic long counters[8];
	_Atomic int result, error, n_signals, value;
	_Atomic long took_ms;
	_Atomic uint32_t futex;
	int pipe[2];
} *v;

static int setup(void **state)
{
	fixture_open(&f);
	memset(v, 0, sizeof(*v));
	assert_int_equal(pipe2(v->pipe, O_CLOEXEC), 0);
	return 0;
}

static int teardown(void **state)
{
	fixture_close(&f);
	(void)close(v->pipe[0]);
	(void)close(v->pipe[1]);
	return 0;
}

static long ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static pid_t start(void (*run)(void))
{
	pid_t pid = fork();

	if (pid == 0) {
		run();
		_exit(0);
	}
	while (!v->ready)
		(void)usleep(1000);
	(void)usleep(30000); /* into its call */
	return pid;
}

static struct inject *attach(pid_t pid)
{
	struct inject *i = NULL;

	assert_int_equal(inject_attach(&i, space_proc_fd(f.space), pid), 0);
	return i;
}

static void attach_call_detach(pid_t pid)
{
	struct inject *i = attach(pid);
	long ret = 0;

	for (int n = 0; n < 10; n++) {
		assert_int_equal(inject_call(i, SYS_getpid, none, &ret), 0);
		assert_int_equal(ret, pid);
	}
	assert_true(inject_scratch(i) != 0);
	(void)inject_detach(i);
}

static int end_of(pid_t pid)
{
	int status = -1;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void note(long result, long began)
{
	v->error = result < 0 ? errno : 0;
	v->result = (int)result;
	v->took_ms = ms() - began;
}

static void run_pause(void)
{
	v->ready = 1;
	(void)pause();
}

static void calls_run_in_a_sleeping_process(void **state)
{
	pid_t pid = start(run_pause);

	attach_call_detach(pid);
	assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
	(void)kill(pid, SIGKILL);
	assert_true(WIFSIGNALED(end_of(pid)));
}

static void run_read(void)
{
	char c = 0;

	v->ready = 1;
	note(read(v->pipe[0], &c, 1), ms());
	v->value = c;
}

static void blocked_read_does_not_notice(void **state)
{
	pid_t pid = start(run_read);

	attach_call_detach(pid);
	attach_call_detach(pid);
	(void)usleep(20000);
	assert_int_equal(write(v->pipe[1], "x", 1), 1);
	assert_int_equal(end_of(pid), 0);
	assert_int_equal(v->result, 1);
	assert_int_equal(v->value, 'x');
}

static void run_nanosleep(void)
{
	struct timespec t = { 0, 400000000 };

	v->ready = 1;
	long began = ms();
	note(nanosleep(&t, NULL), began);
}

static void run_poll(void)
{
	v->ready = 1;
	long began = ms();
	note(poll(NULL, 0, 400), began);
}

static void run_futex(void)
{
	struct timespec t = { 0, 400000000 };

	v->ready = 1;
	long began = ms();
	note(syscall(SYS_futex, &v->futex, FUTEX_WAIT, 0, &t, NULL, 0) < 0 && errno == ETIMEDOUT ?
		     0 : -1, began);
}

static void timed_sleeps_do_not_notice(void **state)
{
	void (*const runs[])(void) = { run_nanosleep, run_poll, run_futex };

	for (size_t n = 0; n < N_ELEMENTS(runs); n++) {
		v->ready = 0;
		pid_t pid = start(runs[n]);

		attach_call_detach(pid);
		(void)usleep(50000);
		attach_call_detach(pid);
		assert_int_equal(end_of(pid), 0);
		assert_int_equal(v->result, 0);
		assert_int_equal(v->error, 0);
		assert_in_range(v->took_ms, 399, 480);
	}
}

static void run_futex_wait(void)
{
	v->ready = 1;
	note(syscall(SYS_futex, &v->futex, FUTEX_WAIT, 0, NULL, NULL, 0), ms());
}

static void futex_waiter_is_woken(void **state)
{
	pid_t pid = start(run_futex_wait);

	attach_call_detach(pid);
	(void)usleep(20000);
	assert_int_equal(syscall(SYS_futex, &v->futex, FUTEX_WAKE, 1, NULL, NULL, 0), 1);
	assert_int_equal(end_of(pid), 0);
	assert_int_equal(v->result, 0);
}

static void on_signal(int signal, siginfo_t *info, void *context)
{
	v->n_signals++;
	v->value = info->si_value.sival_int;
}

static void catch_usr1(int flags)
{
	struct sigaction a = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | flags };

	(void)sigaction(SIGUSR1, &a, NULL);
	(void)sigaction(SIGRTMIN + 1, &a, NULL);
}

static void run_read_with_handler(void)
{
	char c;

	catch_usr1(0);
	v->ready = 1;
	note(read(v->pipe[0], &c, 1), ms());
}

static void signal_waits_for_detach_with_its_value(void **state)
{
	pid_t pid = start(run_read_with_handler);
	struct inject *i = attach(pid);
	long ret;

	assert_int_equal(sigqueue(pid, SIGUSR1, (union sigval){ .sival_int = 77 }), 0);
	assert_int_equal(inject_call(i, SYS_getpid, none, &ret), 0);
	assert_int_equal(inject_call(i, SYS_getppid, none, &ret), 0);
	assert_int_equal(ret, getpid());
	assert_int_equal(v->n_signals, 0);
	(void)inject_detach(i);
	assert_int_equal(end_of(pid), 0);
	assert_int_equal(v->n_signals, 1);
	assert_int_equal(v->value, 77);
	/* As without us: a handler without SA_RESTART interrupts the read. */
	assert_int_equal(v->result, -1);
	assert_int_equal(v->error, EINTR);
}

static void run_sigsuspend(void)
{
	sigset_t all, but_rt;

	catch_usr1(SA_RESTART);
	(void)sigfillset(&all);
	(void)sigprocmask(SIG_SETMASK, &all, NULL);
	but_rt = all;
	(void)sigdelset(&but_rt, SIGRTMIN + 1);
	v->ready = 1;
	note(sigsuspend(&but_rt), ms());
	(void)sigprocmask(SIG_SETMASK, NULL, &but_rt);
	v->counters[0] = memcmp(&all, &but_rt, 8) == 0 || sigismember(&but_rt, SIGUSR1);
}

static void sigsuspend_keeps_both_masks(void **state)
{
	pid_t pid = start(run_sigsuspend);
	struct inject *i;
	long ret;

	attach_call_detach(pid);
	(void)usleep(20000);
	assert_int_equal(kill(pid, SIGUSR1), 0);
	i = attach(pid);
	for (int n = 1; n <= 5; n++)
		assert_int_equal(sigqueue(pid, SIGRTMIN + 1, (union sigval){ .sival_int = n }), 0);
	assert_int_equal(inject_call(i, SYS_getpid, none, &ret), 0);
	(void)inject_detach(i);
	assert_int_equal(end_of(pid), 0);
	assert_true(v->n_signals >= 1 && v->n_signals <= 5);
	assert_int_equal(v->error, EINTR);
	assert_int_equal(v->counters[0], 1);
}

static void *count_up(void *argument)
{
	for (;;)
		(*(_Atomic long *)argument)++;
	return NULL;
}

static void run_threads(void)
{
	pthread_t t;

	for (int n = 1; n < 5; n++)
		(void)pthread_create(&t, NULL, count_up, (void *)&v->counters[n]);
	v->ready = 1;
	count_up((void *)&v->counters[0]);
}

static long sum(void)
{
	long s = 0;

	for (size_t n = 0; n < N_ELEMENTS(v->counters); n++)
		s += v->counters[n];
	return s;
}

static void no_thread_runs_while_attached(void **state)
{
	pid_t pid = start(run_threads);
	struct inject *i = attach(pid);
	long before = sum(), ret;

	for (int n = 0; n < 20; n++)
		assert_int_equal(inject_call(i, SYS_getpid, none, &ret), 0);
	assert_int_equal(sum(), before);
	(void)inject_detach(i);
	(void)usleep(50000);
	assert_true(sum() > before);
	(void)kill(pid, SIGKILL);
	(void)end_of(pid);
}

static void frozen_process_is_attached_then_thawed(void **state)
{
	pid_t pid = start(run_threads);
	struct space_group *g;
	struct inject *i;
	long before, ret;

	assert_int_equal(space_group_open(f.space, "test.inject", &g), 0);
	assert_int_equal(space_group_take(g, pid), 0);
	assert_int_equal(space_group_freeze(g, NSEC_PER_SEC), 0);
	before = sum();
	i = attach(pid);
	assert_int_equal(inject_call(i, SYS_getpid, none, &ret), INJECT_E_TIMEOUT);
	assert_int_equal(space_group_thaw(g), 0);
	assert_int_equal(inject_call(i, SYS_getpid, none, &ret), 0);
	assert_int_equal(ret, pid);
	assert_int_equal(sum(), before);
	assert_int_equal(space_group_freeze(g, NSEC_PER_SEC), 0);
	(void)inject_detach(i);
	(void)usleep(20000);
	assert_int_equal(sum(), before);
	assert_int_equal(space_group_kill(g, NSEC_PER_SEC), 0);
	(void)end_of(pid);
	(void)space_group_close(g);
}

static void descriptor_is_given(void **state)
{
	pid_t pid = start(run_pause);
	struct inject *i = attach(pid);
	int fd = memfd_create("gift", 0), there = -1;
	char path[64], link[64] = { 0 };
	long ret;

	for (int cloexec = 0; cloexec < 2; cloexec++) {
		assert_int_equal(inject_give_fd(i, fd, cloexec, &there), 0);
		assert_true(there > 2);
		(void)snprintf(path, sizeof(path), "%d/fd/%d", pid, there);
		assert_true(readlinkat(space_proc_fd(f.space), path, link, sizeof(link) - 1) > 0);
		assert_non_null(strstr(link, "memfd:gift"));
		assert_int_equal(inject_call(i, SYS_fcntl, (long[6]){ there, F_GETFD }, &ret), 0);
		assert_int_equal(ret, cloexec);
	}
	/* The pair is gone again. */
	(void)snprintf(path, sizeof(path), "%d/fd/%d", pid, there + 1);
	assert_int_equal(readlinkat(space_proc_fd(f.space), path, link, sizeof(link)), -1);
	(void)inject_detach(i);
	(void)close(fd);
	(void)kill(pid, SIGKILL);
	(void)end_of(pid);
}

static void becomes_another_program(void (*run)(void))
{
	const char *const argv[] = { "sh", "-c", "read x; exit $x", NULL };
	const char *const envp[] = { "A=b", NULL };
	pid_t pid = start(run);
	struct inject *i = attach(pid);
	int fd = open("/bin/sh", O_RDONLY | O_CLOEXEC), there;
	char text[64] = { 0 };
	long ret;

	assert_int_equal(inject_give_fd(i, fd, 1, &there), 0);
	(void)close(fd);
	assert_int_equal(inject_call(i, SYS_dup2, (long[6]){ v->pipe[0], 0 }, &ret), 0);
	assert_int_equal(inject_exec(i, there, argv, envp), 0);
	(void)snprintf(text, sizeof(text), "%d/comm", pid);
	fd = openat(space_proc_fd(f.space), text, O_RDONLY | O_CLOEXEC);
	assert_true(read(fd, text, sizeof(text)) > 0);
	(void)close(fd);
	assert_int_equal(kill(pid, SIGTERM), 0); /* blocked, whatever comes */
	(void)inject_detach(i);
	assert_int_equal(write(v->pipe[1], "23\n", 3), 3);
	ret = end_of(pid);
	assert_true(WIFEXITED(ret));
	assert_int_equal(WEXITSTATUS(ret), 23);
}

static void process_becomes_another_program(void **state)
{
	becomes_another_program(run_pause);
}

static void threads_become_another_program(void **state)
{
	becomes_another_program(run_threads);
}

static void failing_exec_leaves_the_old_program(void **state)
{
	const char *const words[] = { "x", NULL };
	pid_t pid = start(run_read);
	struct inject *i = attach(pid);

	assert_int_equal(inject_exec(i, 999, words, words), -EBADF);
	(void)inject_detach(i);
	assert_int_equal(write(v->pipe[1], "x", 1), 1);
	assert_int_equal(end_of(pid), 0);
	assert_int_equal(v->result, 1);
}

/* A victim whose parent is not its tracer, and ends with the number of its deadly signal. */
static void run_parent_of_threads(void)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0)
		run_threads();
	v->value = pid;
	while (waitpid(pid, &status, 0) != pid)
		;
	_exit(WTERMSIG(status));
}

static void death_in_the_middle_is_an_outcome(void **state)
{
	pid_t parent = start(run_parent_of_threads), pid = v->value;
	struct inject *i = attach(pid);
	long ret;

	assert_int_equal(inject_call(i, SYS_getpid, none, &ret), 0);
	(void)kill(pid, SIGKILL);
	assert_int_equal(inject_call(i, SYS_getpid, none, &ret), INJECT_E_GONE);
	assert_int_equal(inject_call(i, SYS_getpid, none, &ret), INJECT_E_GONE);
	(void)inject_detach(i);
	assert_int_equal(WEXITSTATUS(end_of(parent)), SIGKILL);
	assert_int_equal(inject_attach(&i, space_proc_fd(f.space), pid), INJECT_E_GONE);
}

static void a_traced_process_is_refused(void **state)
{
	pid_t pid = start(run_pause);
	struct inject *i = attach(pid), *second;

	assert_int_equal(inject_attach(&second, space_proc_fd(f.space), pid), INJECT_E_TRACED);
	(void)inject_detach(i);
	(void)kill(pid, SIGKILL);
	(void)end_of(pid);
}

static void run_vfork(void)
{
	v->ready = 1;
	if (vfork() == 0) {
		(void)usleep(3000000);
		_exit(0);
	}
	v->result = 5;
}

static void uninterruptible_process_times_out_unharmed(void **state)
{
	pid_t pid = start(run_vfork);
	struct inject *i;

	assert_int_equal(inject_attach(&i, space_proc_fd(f.space), pid), INJECT_E_TIMEOUT);
	assert_int_equal(end_of(pid), 0);
	assert_int_equal(v->result, 5);
}

static void run_strict_seccomp(void)
{
	char c;

	v->ready = 1;
	(void)prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
	v->result = (int)syscall(SYS_read, v->pipe[0], &c, 1);
	(void)syscall(SYS_exit, 0);
}

static void seccomp_of_the_process_does_not_matter(void **state)
{
	pid_t pid = start(run_strict_seccomp);

	attach_call_detach(pid);
	assert_int_equal(write(v->pipe[1], "x", 1), 1);
	assert_int_equal(end_of(pid), 0);
	assert_int_equal(v->result, 1);
}

static void stopped_process_stays_stopped(void **state)
{
	pid_t pid = start(run_read);
	struct inject *i;
	int status;

	(void)kill(pid, SIGSTOP);
	assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
	attach_call_detach(pid);
	(void)usleep(20000);
	assert_int_equal(fixture_state(&f, pid), 'T');
	(void)kill(pid, SIGCONT);
	(void)usleep(20000);
	assert_int_equal(fixture_state(&f, pid), 'S');
	/* One that comes while we are there takes effect when we go. */
	i = attach(pid);
	(void)kill(pid, SIGSTOP);
	long ret;
	assert_int_equal(inject_call(i, SYS_getpid, none, &ret), 0);
	(void)inject_detach(i);
	(void)usleep(20000);
	assert_int_equal(fixture_state(&f, pid), 'T');
	(void)kill(pid, SIGCONT);
	assert_int_equal(write(v->pipe[1], "x", 1), 1);
	assert_int_equal(end_of(pid), 0);
	assert_int_equal(v->result, 1);
}

static int tests(void)
{
#define T(name_) cmocka_unit_test_setup_teardown(name_, setup, teardown)
	const struct CMUnitTest all[] = {
		T(calls_run_in_a_sleeping_process),
		T(blocked_read_does_not_notice),
		T(timed_sleeps_do_not_notice),
		T(futex_waiter_is_woken),
		T(signal_waits_for_detach_with_its_value),
		T(sigsuspend_keeps_both_masks),
		T(no_thread_runs_while_attached),
		T(frozen_process_is_attached_then_thawed),
		T(descriptor_is_given),
		T(process_becomes_another_program),
		T(threads_become_another_program),
		T(failing_exec_leaves_the_old_program),
		T(death_in_the_middle_is_an_outcome),
		T(a_traced_process_is_refused),
		T(uninterruptible_process_times_out_unharmed),
		T(seccomp_of_the_process_does_not_matter),
		T(stopped_process_stays_stopped),
	};

	v = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return cmocka_run_group_tests_name("inject", all, NULL, NULL);
}

int main(int argc, char **argv)
{
	return fixture_main(argc, argv, tests);
}
