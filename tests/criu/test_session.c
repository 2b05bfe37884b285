/*
 * A process that leads neither its session nor its group is restored into both:
 * criu runs as a member of stand-ins for their leaders, made under the old
 * numbers.  SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "criu_test.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* All are children of the test: the leaders of session and group, and P */
struct pids {
	pid_t session, group, p;
};

/* The caller's fork(), under a number, or a sibling of the caller */
static pid_t clone_as(pid_t pid, unsigned long flags)
{
	struct clone_args a = {.flags = flags,
			       .exit_signal = flags & CLONE_PARENT ? 0 : SIGCHLD};

	if (pid) {
		a.set_tid = (uintptr_t)&pid;
		a.set_tid_size = 1;
	}
	return syscall(SYS_clone3, &a, sizeof(a));
}

static void quiet(void)
{
	app_alone();
}

static void member(const struct pids *t)
{
	sigset_t set;
	int sig;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	quiet();
	sigwait(&set, &sig);
	_exit(getpid() == t->p && getpgrp() == t->group && getsid(0) == t->session ? 42
										   : 1);
}

/*
 * The leader of the session makes the leader of the group and then, in that
 * group, P or criu, as children of its own parent.
 */
static void leader(struct pids *t, int swrk_fd)
{
	pid_t p;

	setsid();
	t->session = getpid();
	p = clone_as(t->group, CLONE_PARENT);
	if (!p) {
		setpgid(0, 0);
		quiet();
		pause();
		_exit(0);
	}
	t->group = p;
	while (getpgid(p) != p)
		usleep(100);
	p = clone_as(0, CLONE_PARENT);
	if (!p) {
		char arg[16];

		if (setpgid(0, t->group))
			_exit(2);
		if (swrk_fd < 0) {
			t->p = getpid();
			member(t);
		}
		fcntl(swrk_fd, F_SETFD, 0);
		snprintf(arg, sizeof(arg), "%d", swrk_fd);
		execl(CRIU, CRIU, "swrk", arg, NULL);
		_exit(127);
	}
	quiet();
	pause();
	_exit(0);
}

static void leaders_end(const struct pids *t)
{
	kill(t->session, SIGKILL);
	kill(t->group, SIGKILL);
	waitpid(t->session, NULL, 0);
	waitpid(t->group, NULL, 0);
}

int main(int argc, char **argv)
{
	struct pids *t, was;
	struct swrk s;
	CriuOpts opts;
	pid_t restored = 0;
	int status, fd;

	test_enter(argc, argv);
	t = mmap(NULL, sizeof(*t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		 -1, 0);
	check(t != MAP_FAILED);
	fflush(stdout);
	if (!fork())
		leader(t, -1);
	usleep(200000);
	was = *t;
	printf("session %d, group %d, process %d\n", was.session, was.group, was.p);
	check(was.p && was.session != was.group);

	opts_init(&opts, "dump.log");
	opts.has_pid = true;
	opts.pid = was.p;
	opts.has_shell_job = opts.shell_job = true;
	swrk_must(&s, CRIU_REQ_TYPE__DUMP, &opts, NULL, NULL, NULL);
	check(waitpid(was.p, &status, 0) == was.p);
	leaders_end(&was);

	opts_init(&opts, "restore.log");
	opts.has_shell_job = opts.shell_job = true;
	opts.has_rst_sibling = opts.rst_sibling = true;
	swrk_pair(&s, &fd);
	swrk_send(&s, CRIU_REQ_TYPE__RESTORE, &opts);
	if (!clone_as(was.session, 0))
		leader(t, fd);
	close(fd);
	if (!swrk_answer(&s, NULL, NULL, &restored)) {
		show_log("restore.log");
		fail("the restore fails");
	}
	swrk_end(&s);
	check(restored == was.p);
	check(getpgid(restored) == was.group);
	check(getsid(restored) == was.session);
	kill(restored, SIGUSR1);
	check(waitpid(restored, &status, 0) == restored);
	printf("the restored process ends with %#x\n", status);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 42);
	leaders_end(&was);
	return 0;
}
