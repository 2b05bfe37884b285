/*
 * A restored tree is born in the cgroup that the client names, all of it and
 * nothing else, before it runs.  SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Fails without 0007-born-in-a-cgroup.
 */
#include "criu_test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct leaf leaf;

static void wait_for_signal(void)
{
	sigset_t set;
	int sig;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	sigwait(&set, &sig);
}

/* A parent and a child */
static void app(void)
{
	int status;
	pid_t child;

	app_alone();
	setsid();
	child = fork();
	wait_for_signal();
	if (!child)
		_exit(7);
	kill(child, SIGUSR1);
	_exit(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 7 ? 42 : 1);
}

/* How many processes are in the leaf; is @pid one of them? */
static int members(pid_t pid, bool *ret_there)
{
	char path[300];
	int n = 0, one;
	FILE *f;

	*ret_there = false;
	snprintf(path, sizeof(path), "%s/cgroup.procs", leaf.path);
	f = fopen(path, "re");
	check(f);
	while (fscanf(f, "%d", &one) == 1) {
		*ret_there |= one == pid;
		n++;
	}
	fclose(f);
	return n;
}

static bool on_notify(struct swrk *s, const CriuNotify *n, void *owner)
{
	pid_t root = *(pid_t *)owner;
	bool there;

	if (strcmp(n->script, "pre-resume") != 0)
		return true;
	check(members(root, &there) == 2);
	check(there);
	return true;
}

int main(int argc, char **argv)
{
	pid_t root, restored = 0;
	CriuOpts opts;
	struct swrk s;
	int status, cgroup;

	test_enter(argc, argv);
	if (!leaf_create(&leaf, "born"))
		test_skip("no cgroup v2 here");
	root = fork();
	if (!root)
		app();
	usleep(200000);

	opts_init(&opts, "dump.log");
	opts.has_pid = true;
	opts.pid = root;
	swrk_must(&s, CRIU_REQ_TYPE__DUMP, &opts, NULL, NULL, NULL);
	/* Both: a dead child would keep the number of its session. */
	check(wait(NULL) > 0 && wait(NULL) > 0);

	cgroup = open(leaf.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	check(cgroup >= 0);
	opts_init(&opts, "restore.log");
	opts.has_rst_sibling = opts.rst_sibling = true;
	opts.has_notify_scripts = opts.notify_scripts = true;
	opts.has_restore_cgroup_fd = true;
	opts.restore_cgroup_fd = cgroup;
	swrk_must(&s, CRIU_REQ_TYPE__RESTORE, &opts, on_notify, &root, &restored);
	check(restored == root);
	kill(restored, SIGUSR1);
	check(waitpid(restored, &status, 0) == restored);
	printf("the restored process ends with %#x\n", status);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 42);
	leaf_remove(&leaf);
	return 0;
}
