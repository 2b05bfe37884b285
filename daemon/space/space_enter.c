/*
 * Into the space: find or make it, then become two processes.
 *
 * The parent is a stub in the host's pid namespace, which is what a service
 * manager or a shell sees; the child is ssid.  Each dies with the other.
 */
#include "space_internal.h"

#include "err.h"
#include "log.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* One ssid at a time looks and makes. */
static int lock(const char *runtime_dir, int *ret_fd)
{
	char path[PATH_MAX];
	_cleanup_close_ int fd = -1;

	if (mkdir(runtime_dir, 0755) < 0 && errno != EEXIST)
		return err_origin(-errno);
	(void)snprintf(path, sizeof(path), "%s/space.lock", runtime_dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_origin(-errno);
	while (flock(fd, LOCK_EX) < 0)
		if (errno != EINTR)
			return err_origin(-errno);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int find(const struct space_config *config, int *ret_pidns_fd)
{
	_cleanup_close_ int fd = -1;
	int fds[3], r;

	r = space_wire_open(config->runtime_dir, 0, &fd, fds);
	if (r != 0)
		return r;
	(void)close(fds[0]);
	(void)close(fds[1]);
	*ret_pidns_fd = fds[2];
	return 0;
}

static int find_or_make(const struct space_config *config, int *ret_pidns_fd)
{
	_cleanup_close_ int lock_fd = -1;
	int r;

	r = lock(config->runtime_dir, &lock_fd);
	if (r < 0)
		return r;
	r = find(config, ret_pidns_fd);
	if (r != SPACE_WIRE_E_ABSENT)
		return r;
	r = space_make(config);
	if (r < 0)
		return r;
	return err_fold(find(config, ret_pidns_fd));
}

/* The first free service PID. */
static pid_t clone_core(void)
{
	pid_t pid = -1;

	for (pid_t want = INIT_PID_SERVICE_MIN; want <= INIT_PID_SERVICE_MAX; want++) {
		struct clone_args args = {
			.exit_signal = SIGCHLD,
			.set_tid = (uintptr_t)&want,
			.set_tid_size = 1,
		};

		pid = syscall(SYS_clone3, &args, sizeof(args));
		if (pid >= 0 || errno != EEXIST)
			break;
	}
	return pid;
}

static _Noreturn void end_as(int status)
{
	_exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

static _Noreturn void stay_as_stub(pid_t core, const sigset_t *signals)
{
	int status, s;

	(void)prctl(PR_SET_NAME, "ssid-stub");
	for (;;) {
		if (waitpid(core, &status, WNOHANG) == core)
			end_as(status);
		s = sigwaitinfo(signals, NULL);
		if (s > 0 && s != SIGCHLD)
			(void)kill(core, s);
	}
}

static int become_two(int pidns_fd)
{
	static const int forwarded[] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGCHLD };
	sigset_t signals, old;
	int alive[2];
	struct pollfd parent;
	pid_t pid;

	if (setns(pidns_fd, CLONE_NEWPID) < 0 || pipe2(alive, O_CLOEXEC) < 0)
		return err_origin(-errno);
	sigemptyset(&signals);
	for (size_t i = 0; i < N_ELEMENTS(forwarded); i++)
		sigaddset(&signals, forwarded[i]);
	(void)sigprocmask(SIG_BLOCK, &signals, &old);
	(void)signal(SIGCHLD, SIG_DFL); /* ignored, it would take the status away */
	pid = clone_core();
	if (pid > 0) {
		(void)close(alive[0]);
		stay_as_stub(pid, &signals);
	}
	(void)close(alive[1]);
	if (pid < 0) {
		(void)close(alive[0]);
		(void)sigprocmask(SIG_SETMASK, &old, NULL);
		return err_origin(-errno);
	}
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* It may have died before that; its end of the pipe then is closed. */
	parent = (struct pollfd){ alive[0], POLLIN, 0 };
	if (poll(&parent, 1, 0) != 0)
		_exit(1);
	(void)close(alive[0]);
	(void)sigprocmask(SIG_SETMASK, &old, NULL);
	return 0;
}

int space_enter(const struct space_config *config)
{
	_cleanup_close_ int pidns_fd = -1;
	int r;

	r = find_or_make(config, &pidns_fd);
	if (r < 0)
		return r;
	return become_two(pidns_fd);
}
