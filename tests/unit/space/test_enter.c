#include "fixture.h"

#include "cleanup.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* What cores tell, in memory that all share. */
static struct told {
	ino_t pidns[2];
	int marked[2]; /* the space was there when core n came */
	_Atomic int ready, value;
} *told;

static int setup(void **state)
{
	memset(told, 0, sizeof(*told));
	return 0;
}

/* A process that enters and runs @core there; ours is the stub. */
static pid_t enter(void (*core)(int n), int n)
{
	pid_t pid = fork();
	char mark[256];
	struct stat st;

	if (pid != 0)
		return pid;
	if (space_enter(&fixture_config) < 0)
		_exit(99);
	if (stat("/proc/self/ns/pid", &st) == 0)
		told->pidns[n] = st.st_ino;
	/* What is in private_dir goes with the space. */
	(void)snprintf(mark, sizeof(mark), "%s/mark", fixture_config.private_dir);
	told->marked[n] = mkdir(mark, 0700) < 0;
	core(n);
	_exit(20 + n);
}

static int end_of(pid_t pid)
{
	int status = -1;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void wait_ready(void)
{
	for (int i = 0; i < 2000 && !told->ready; i++)
		(void)usleep(1000);
	assert_true(told->ready);
}

static void do_nothing(int n)
{
}

static void two_that_start_at_once_share_one_space(void **state)
{
	pid_t a = enter(do_nothing, 0), b = enter(do_nothing, 1);

	assert_int_equal(end_of(a), 20);
	assert_int_equal(end_of(b), 21);
	assert_true(told->pidns[0] != 0);
	assert_int_equal(told->pidns[0], told->pidns[1]);
	assert_int_equal(told->marked[0] + told->marked[1], 1);
}

static void die_by_signal(int n)
{
	(void)raise(SIGKILL);
}

static void stub_ends_as_the_core_ends(void **state)
{
	assert_int_equal(end_of(enter(do_nothing, 1)), 21);
	assert_int_equal(end_of(enter(die_by_signal, 0)), 128 + SIGKILL);
}

static void on_term(int signal)
{
	_exit(5);
}

static void wait_for_signal(int n)
{
	(void)signal(SIGTERM, on_term);
	told->ready = 1;
	for (;;)
		(void)pause();
}

static void stub_passes_signals_on(void **state)
{
	pid_t stub = enter(wait_for_signal, 0);

	wait_ready();
	assert_int_equal(kill(stub, SIGTERM), 0);
	assert_int_equal(end_of(stub), 5);
}

static int alive[2];

static void hold_pipe(int n)
{
	(void)close(alive[0]);
	told->ready = 1;
	for (;;)
		(void)pause();
}

static void core_dies_with_its_stub(void **state)
{
	pid_t stub;
	char c;

	assert_int_equal(pipe(alive), 0);
	stub = enter(hold_pipe, 0);
	wait_ready();
	(void)close(alive[1]);
	assert_int_equal(kill(stub, SIGKILL), 0);
	assert_int_equal(waitpid(stub, NULL, 0), stub);
	assert_int_equal(read(alive[0], &c, 1), 0); /* nobody holds the other end */
	(void)close(alive[0]);
}

static void end_the_space(int n)
{
	struct fixture f;
	pid_t pid;

	fixture_open(&f);
	pid = fixture_sh(&f, "exec sleep 1000", -1);
	told->value = space_kill(f.space);
	told->value |= fixture_exit_of(&f, pid).status != SIGKILL;
	fixture_close(&f);
	/* Now ssi-init ends; whoever is still here is killed with the rest. */
	(void)pause();
}

static void killed_space_is_made_anew(void **state)
{
	told->value = -1;
	assert_int_equal(end_of(enter(end_the_space, 0)), 128 + SIGKILL);
	assert_int_equal(told->value, 0);
	assert_int_equal(end_of(enter(do_nothing, 1)), 21);
	assert_false(told->marked[1]);
}

/* Of the process whose comm is ssi-init, in the namespace of the test. */
static pid_t find_init(void)
{
	char path[64], comm[32] = { 0 };

	for (pid_t pid = 2; pid < 30000; pid++) {
		FILE *f;

		(void)snprintf(path, sizeof(path), "/proc/%d/comm", pid);
		f = fopen(path, "re");
		if (!f)
			continue;
		(void)!fgets(comm, sizeof(comm), f);
		(void)fclose(f);
		if (strcmp(comm, "ssi-init\n") == 0)
			return pid;
	}
	return 0;
}

static void core_ends_with_ssi_init(void **state)
{
	pid_t stub = enter(wait_for_signal, 0), init;

	wait_ready();
	init = find_init();
	assert_true(init > 0);
	assert_int_equal(kill(init, SIGTERM), 0); /* not impressed */
	assert_int_equal(kill(init, SIGKILL), 0);
	assert_int_equal(end_of(stub), 128 + SIGKILL);
	assert_int_equal(end_of(enter(do_nothing, 1)), 21);
	assert_false(told->marked[1]);
}

static int tests(void)
{
	const struct CMUnitTest all[] = {
		cmocka_unit_test_setup(two_that_start_at_once_share_one_space, setup),
		cmocka_unit_test_setup(stub_ends_as_the_core_ends, setup),
		cmocka_unit_test_setup(stub_passes_signals_on, setup),
		cmocka_unit_test_setup(core_dies_with_its_stub, setup),
		cmocka_unit_test_setup(killed_space_is_made_anew, setup),
		cmocka_unit_test_setup(core_ends_with_ssi_init, setup),
	};

	told = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return cmocka_run_group_tests_name("space_enter", all, NULL, NULL);
}

int main(int argc, char **argv)
{
	return fixture_main_outside(argc, argv, tests);
}
