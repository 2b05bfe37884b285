/*
 * A process with three threads, of root and of an ordinary user, is dumped
 * while its cgroup is frozen and goes on, and is restored with the limits and
 * the pipe that it had.  SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Fails without 0001-rlimits-of-other-users when there is no CAP_SYS_RESOURCE.
 */
#include "criu_test.h"

#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define PIPE_SIZE (1 << 20)
#define DATA	  300000 /* more than a pipe holds that was not enlarged */

static void *idle(void *arg)
{
	for (;;)
		pause();
	return arg;
}

/* Waits for SIGUSR1 and says by its exit status whether everything is right */
static void app(uid_t uid)
{
	struct rlimit limits[RLIM_NLIMITS], now;
	static char data[DATA], back[DATA];
	size_t got = 0;
	pthread_t t;
	sigset_t set;
	int fds[2], sig, i;

	app_alone();
	setsid();
	setrlimit(RLIMIT_NOFILE, &(struct rlimit){300, 500});
	setrlimit(RLIMIT_CORE, &(struct rlimit){0, 4096});
	setrlimit(RLIMIT_STACK, &(struct rlimit){4 << 20, RLIM_INFINITY});
	if (setgroups(0, NULL) || setresgid(uid, uid, uid) || setresuid(uid, uid, uid))
		_exit(2);
	for (i = 0; i < RLIM_NLIMITS; i++)
		getrlimit(i, &limits[i]);
	if (pipe(fds) || fcntl(fds[1], F_SETPIPE_SZ, PIPE_SIZE) != PIPE_SIZE)
		_exit(3);
	memset(data, 'x', sizeof(data));
	if (write(fds[1], data, DATA) != DATA)
		_exit(4);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (i = 0; i < 2; i++)
		if (pthread_create(&t, NULL, idle, NULL))
			_exit(5);

	sigwait(&set, &sig);
	for (i = 0; i < RLIM_NLIMITS; i++)
		if (getrlimit(i, &now) || now.rlim_cur != limits[i].rlim_cur ||
		    now.rlim_max != limits[i].rlim_max)
			_exit(10 + i);
	if (fcntl(fds[1], F_GETPIPE_SZ) != PIPE_SIZE)
		_exit(6);
	while (got < DATA) {
		ssize_t n = read(fds[0], back + got, DATA - got);

		if (n <= 0)
			_exit(7);
		got += n;
	}
	if (memcmp(data, back, DATA) || getuid() != uid || geteuid() != uid)
		_exit(8);
	_exit(42);
}

static void round_trip(uid_t uid)
{
	struct leaf leaf;
	CriuOpts opts;
	struct swrk s;
	pid_t pid, restored = 0;
	int status;

	printf("uid %d\n", uid);
	images_clear();
	leaf_create(&leaf, uid ? "user" : "root");
	fflush(stdout);
	pid = fork();
	check(pid >= 0);
	if (!pid)
		app(uid);
	leaf_add(&leaf, pid);
	usleep(100000);
	check(waitpid(pid, &status, WNOHANG) == 0);

	leaf_freeze(&leaf, true);
	opts_init(&opts, "dump.log");
	opts.has_pid = true;
	opts.pid = pid;
	opts.has_leave_running = opts.leave_running = true;
	opts.freeze_cgroup = leaf.path[0] ? leaf.path : NULL;
	opts.has_notify_scripts = opts.notify_scripts = true;
	swrk_start(&s);
	swrk_send(&s, CRIU_REQ_TYPE__DUMP, &opts);
	if (!swrk_answer(&s, NULL, NULL, NULL)) {
		show_log("dump.log");
		leaf_freeze(&leaf, false);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		leaf_remove(&leaf);
		fail("the dump fails");
	}
	swrk_end(&s);
	printf("  dump:%s\n", s.events);

	leaf_freeze(&leaf, true); /* returns at once: it has stayed so */
	leaf_freeze(&leaf, false);
	kill(pid, SIGUSR1);
	check(waitpid(pid, &status, 0) == pid);
	printf("  the original goes on and ends with %#x\n", status);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 42);

	opts_init(&opts, "restore.log");
	opts.has_rst_sibling = opts.rst_sibling = true;
	opts.has_notify_scripts = opts.notify_scripts = true;
	swrk_start(&s);
	swrk_send(&s, CRIU_REQ_TYPE__RESTORE, &opts);
	if (!swrk_answer(&s, NULL, NULL, &restored)) {
		show_log("restore.log");
		leaf_remove(&leaf);
		fail("the restore fails");
	}
	swrk_end(&s);
	printf("  restore:%s\n", s.events);
	leaf_remove(&leaf);
	check(restored == pid);
	kill(pid, SIGUSR1);
	check(waitpid(pid, &status, 0) == pid);
	printf("  the restored one ends with %#x\n", status);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 42);
}

int main(int argc, char **argv)
{
	test_enter(argc, argv);
	round_trip(0);
	round_trip(1000);
	return 0;
}
