/*
 * Ten trips away and back, for root and for an ordinary user.  At each return
 * a child that P does not know from its image ends at another moment of the
 * restore, and a signal waits.  The parent sees nothing, and at last the true
 * exit status, and both have the same clocks.  SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Fails without 0003-restore-in-place, without 0006-clocks-of-home, and without
 * 0008-number-of-a-thread-on-its-way-out.
 */
#include "family.h"

#include <dirent.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TRIPS 10

static pid_t lingering; /* the number of a thread, see linger(); 0: no more */

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static pid_t a_thread_of(pid_t p)
{
	struct dirent *e;
	pid_t tid = 0;
	char path[64];
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", p);
	d = opendir(path);
	check(d);
	while ((e = readdir(d)))
		if (atoi(e->d_name) && atoi(e->d_name) != p)
			tid = atoi(e->d_name);
	closedir(d);
	check(tid);
	return tid;
}

/* The number is in use for a while, as that of a thread which is not quite gone. */
static pid_t linger(pid_t number)
{
	struct clone_args a = {.exit_signal = SIGCHLD,
			       .set_tid = (uintptr_t)&number,
			       .set_tid_size = 1};
	pid_t pid = fork(), child;

	if (pid)
		return pid;
	child = (pid_t)syscall(SYS_clone3, &a, sizeof(a));
	if (child)
		_exit(child != number || waitpid(child, NULL, 0) != child);
	usleep(100000);
	_exit(0);
}

/*
 * As ssid does it: nothing of P runs before it was looked at.  The coordinator
 * was born in P's leaf, and would freeze as well.
 */
static bool freeze_before_resume(struct swrk *s, const CriuNotify *n, void *owner)
{
	struct family *f = owner;

	if (!strcmp(n->script, "pre-restore") && lingering)
		lingering = linger(lingering);
	if (!strcmp(n->script, "pre-resume")) {
		leaf_leave(&f->leaf, s->sender);
		leaf_freeze(&f->leaf, true);
	}
	return true;
}

static void expect_clocks_of_home(const struct family *f)
{
	char path[64], theirs[64] = "", ours[64] = "";

	snprintf(path, sizeof(path), "/proc/%d/ns/time", f->p);
	check(readlink(path, theirs, sizeof(theirs) - 1) > 0);
	check(readlink("/proc/self/ns/time", ours, sizeof(ours) - 1) > 0);
	check(!strcmp(theirs, ours));
}

/* P ends at home, or as a shadow */
static void trips(uid_t uid, bool end_at_home)
{
	struct family f;
	struct report r;
	struct swrk s;
	pid_t restored;
	double start;
	int i, status;

	printf("uid %d\n", uid);
	family_start(&f, uid);
	lingering = a_thread_of(f.p);
	for (i = 0; i < TRIPS; i++) {
		family_leave(&f);
		family_expect_shadow(&f, &r);
		check(!r.back);
		check(r.coordinator == (i > 0)); /* the one of the trip before */
		family_fork(&f, 4000 * i);
		family_signal(&f);
		start = now_ms();
		family_come(&f, &s);
		restored = 0;
		if (!swrk_answer(&s, freeze_before_resume, &f, &restored)) {
			show_log("restore.log");
			fail("the restore fails");
		}
		check(restored == f.p);
		if (lingering) {
			check(waitpid(lingering, &status, 0) == lingering && !status);
			lingering = 0;
		}
		check(s.sender != f.p);
		swrk_end(&s);
		printf("  trip %d: %.1f ms\n", i, now_ms() - start);
		leaf_freeze(&f.leaf, true); /* returns at once: it has stayed so */
		leaf_freeze(&f.leaf, false);
		family_expect_p(&f);
		expect_clocks_of_home(&f);
		family_expect_unseen(&f);
	}
	printf("  restore:%s\n", s.events);
	if (end_at_home) {
		check(family_reap(&f, s.sender));
		family_expect_p(&f);
	} else {
		family_leave(&f);
		family_expect_shadow(&f, &r);
		check(r.coordinator);
	}
	family_end(&f);
}

int main(int argc, char **argv)
{
	family_shadow_main(argc, argv);
	test_enter(argc, argv);
	trips(0, false);
	trips(1000, true);
	return 0;
}
