/* A seed in which something does not hold prints itself and what came last, and does so again. */
#include "world.h"

#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { OUTPUT = 1 << 20 };

/* A sum of random steps, which must not come to the limit. */
struct walk {
	struct world *w;
	uint64_t at, limit;
};

static int start(void *owner, unsigned slot)
{
	(void)owner;
	(void)slot;
	return 0;
}

static void kill_rooms(void *owner, unsigned slot)
{
	(void)owner;
	(void)slot;
}

static void check(void *owner)
{
	struct walk *walk = owner;

	world_check(walk->w, walk->at < walk->limit, "it came to %" PRIu64, walk->at);
}

static void on_step(void *arg)
{
	struct walk *walk = arg;

	walk->at += world_below(walk->w, 1000);
	world_note(walk->w, 1, "at %" PRIu64, walk->at);
	(void)world_at(walk->w, world_below(walk->w, NSEC_PER_SEC), on_step, walk);
}

static void run(uint64_t seed, uint64_t limit)
{
	static const struct world_rooms rooms = { start, kill_rooms, check };
	struct walk walk = { .limit = limit };

	walk.w = world_new(seed, 1, &rooms, &walk);
	(void)world_at(walk.w, 0, on_step, &walk);
	world_run(walk.w, 100 * NSEC_PER_SEC);
	walk.w = world_free(walk.w);
}

/* What a process that runs it says; how it ended. */
static int run_apart(uint64_t seed, uint64_t limit, char ret[OUTPUT])
{
	size_t n = 0;
	int fds[2], status;
	ssize_t r;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		static const struct rlimit none;

		(void)setrlimit(RLIMIT_CORE, &none);
		(void)signal(SIGABRT, SIG_DFL);
		if (dup2(fds[1], STDERR_FILENO) < 0)
			_exit(1);
		run(seed, limit);
		_exit(0);
	}
	(void)close(fds[1]);
	while ((r = read(fds[0], ret + n, OUTPUT - 1 - n)) > 0)
		n += (size_t)r;
	ret[n] = '\0';
	(void)close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void what_does_not_hold_is_told_with_its_seed_and_its_last_events(void **state)
{
	static char first[OUTPUT], again[OUTPUT], other[OUTPUT];
	const char *said, *last;
	char expected[64];
	int status;

	(void)state;
	status = run_apart(4711, 50000, first);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	said = strstr(first, "seed 4711: it came to 50");
	assert_non_null(said);
	assert_non_null(strstr(first, "replay with --seed 4711; the last events:\n"));
	/* The very last is what broke it. */
	(void)snprintf(expected, sizeof(expected), "at %.5s\n", strstr(said, "to ") + 3);
	last = strstr(first, expected);
	assert_non_null(last);
	assert_string_equal(last, expected);
	assert_int_equal(run_apart(4711, 50000, again), status);
	assert_string_equal(again, first);
	(void)run_apart(4712, 50000, other);
	assert_string_not_equal(other, first);
	assert_int_equal(run_apart(4711, UINT64_MAX, other), 0);
	assert_string_equal(other, "");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_does_not_hold_is_told_with_its_seed_and_its_last_events),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
