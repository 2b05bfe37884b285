/*
 * A restore makes the pages of a task without a fault for each, where they
 * are shared with a child after a fork and where they are a task's own; and
 * their contents are right, also where the kernel cannot do that.
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Fails without 0005-populate-before-reading.
 */
#include "criu_test.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define NO_POPULATE "139" /* CRIU's FI_NO_POPULATE */
#define PAGES	    8192  /* of each of the two areas */
#define PAGE	    4096

static uint64_t *area(void)
{
	void *p = mmap(NULL, (size_t)PAGES * PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		_exit(2);
	return p;
}

static void fill(uint64_t *p, uint64_t seed)
{
	for (size_t i = 0; i < PAGES; i++)
		p[i * PAGE / 8] = seed + i;
}

static bool holds(const uint64_t *p, uint64_t seed)
{
	for (size_t i = 0; i < PAGES; i++)
		if (p[i * PAGE / 8] != seed + i)
			return false;
	return true;
}

/* A parent and a child, who share one area after the fork; the other is the parent's.
 */
static void app(void)
{
	uint64_t *shared = area(), *own;
	sigset_t set;
	int status;
	pid_t child;

	app_alone();
	setsid();
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fill(shared, 1);
	child = fork();
	if (child == 0) {
		app_wait_for(SIGUSR1);
		_exit(holds(shared, 1) ? 42 : 3);
	}
	own = area();
	fill(own, 1000000);
	app_wait_for(SIGUSR1);
	if (!holds(shared, 1) || !holds(own, 1000000))
		_exit(4);
	kill(child, SIGUSR1);
	if (waitpid(child, &status, 0) != child || status != 42 << 8)
		_exit(5);
	_exit(42);
}

/* The faults of this process and of all that it makes from now on. */
static int count_faults(void)
{
	struct perf_event_attr a = {.type = PERF_TYPE_SOFTWARE,
				    .size = sizeof(a),
				    .config = PERF_COUNT_SW_PAGE_FAULTS,
				    .inherit = 1};
	int fd = (int)syscall(SYS_perf_event_open, &a, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);

	if (fd < 0)
		test_skip("faults cannot be counted here: %s", strerror(errno));
	return fd;
}

static uint64_t restore(pid_t pid)
{
	CriuOpts opts;
	struct swrk s;
	uint64_t n;
	int faults = count_faults(), status;
	pid_t restored = 0;

	opts_init(&opts, "restore.log");
	opts.has_rst_sibling = opts.rst_sibling = true;
	swrk_must(&s, CRIU_REQ_TYPE__RESTORE, &opts, NULL, NULL, &restored);
	check(read(faults, &n, sizeof(n)) == sizeof(n));
	close(faults);
	check(restored == pid);
	kill(pid, SIGUSR1);
	check(waitpid(pid, &status, 0) == pid);
	printf("  %llu faults, it ends with %#x\n", (unsigned long long)n, status);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 42);
	return n;
}

int main(int argc, char **argv)
{
	uint64_t populated, faulted;
	CriuOpts opts;
	struct swrk s;
	pid_t pid;

	test_enter(argc, argv);
	fflush(stdout);
	pid = fork();
	check(pid >= 0);
	if (!pid)
		app();
	usleep(300000);
	opts_init(&opts, "dump.log");
	opts.has_pid = true;
	opts.pid = pid;
	swrk_must(&s, CRIU_REQ_TYPE__DUMP, &opts, NULL, NULL, NULL);
	/* Its child is ours now. */
	while (wait(NULL) > 0)
		;

	printf("populated\n");
	populated = restore(pid);
	printf("faulted in\n");
	setenv("CRIU_FAULT", NO_POPULATE, 1);
	faulted = restore(pid);
	/* Both areas once; the child's copy of the shared one is compared, not read. */
	check(faulted > populated + 2 * PAGES * 9 / 10);
	return 0;
}
