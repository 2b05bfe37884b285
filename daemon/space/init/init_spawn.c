/*
 * A child of ssi-init: made with clone3() in its cgroup, with its PID if one was
 * asked for, and nothing of ssi-init's left in it.
 *
 * The arguments are read by the child itself: whatever their sender does to the
 * memfd meanwhile, it is the child that suffers.
 */
#include "ssi_init_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ARGUMENTS_MAX = 8 << 20 };

static struct rlimit files;
static pid_t next_service = INIT_PID_SERVICE_MIN;

/* Room for many kept descriptors here, the usual limit in children. */
void spawn_start(void)
{
	struct rlimit all;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		return;
	all = (struct rlimit){ files.rlim_max, files.rlim_max };
	(void)setrlimit(RLIMIT_NOFILE, &all);
}

static char **read_arguments(int fd)
{
	struct init_arguments head;
	struct stat st;
	char *text, **v;
	size_t pos = 0, len, n;

	if (fstat(fd, &st) < 0 || st.st_size < (off_t)sizeof(head) || st.st_size > ARGUMENTS_MAX ||
	    pread(fd, &head, sizeof(head), 0) != sizeof(head))
		return NULL;
	len = st.st_size - sizeof(head);
	n = (size_t)head.n_argv + head.n_envp;
	if (!head.n_argv || n > len)
		return NULL;
	text = mmap(NULL, len + 1 + 16 + (n + 2) * sizeof(*v), PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (text == MAP_FAILED || pread(fd, text, len, sizeof(head)) != (ssize_t)len)
		return NULL;
	v = (char **)(((uintptr_t)text + len + 16) & ~(uintptr_t)15);
	for (size_t i = 0, slot = 0; i < n; i++, slot++) {
		if (pos >= len)
			return NULL;
		if (i == head.n_argv) /* the NULL between argv and envp */
			slot++;
		v[slot] = text + pos;
		pos += strlen(text + pos) + 1;
	}
	return v;
}

static void reset_signals(void)
{
	sigset_t none;

	for (int s = 1; s < NSIG; s++)
		(void)signal(s, SIG_DFL);
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static _Noreturn void run(int arguments, const int *fds, size_t n_fds)
{
	int moved[INIT_FDS_MAX], score;
	char **argv, **envp;

	argv = read_arguments(arguments);
	if (!argv)
		_exit(127);
	for (envp = argv; *envp; envp++)
		;
	envp++;
	for (size_t i = 0; i < n_fds; i++) {
		moved[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 3 + INIT_FDS_MAX);
		if (moved[i] < 0)
			_exit(127);
	}
	for (size_t i = 0; i < n_fds; i++)
		if (dup2(moved[i], 3 + (int)i) < 0)
			_exit(127);
	if (syscall(SYS_close_range, 3u + n_fds, ~0u, 0u) < 0)
		_exit(127);
	score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (score >= 0)
		(void)!write(score, "0", 1);
	(void)close(score);
	if (files.rlim_cur)
		(void)setrlimit(RLIMIT_NOFILE, &files);
	reset_signals();
	(void)execve(argv[0], argv, envp);
	_exit(127);
}

static pid_t clone_child(pid_t set_tid, int group, int *ret_pidfd)
{
	struct clone_args args = {
		.flags = CLONE_PIDFD | CLONE_INTO_CGROUP,
		.pidfd = (uintptr_t)ret_pidfd,
		.exit_signal = SIGCHLD,
		.cgroup = group,
	};

	if (set_tid) {
		args.set_tid = (uintptr_t)&set_tid;
		args.set_tid_size = 1;
	}
	return syscall(SYS_clone3, &args, sizeof(args));
}

static pid_t clone_service(int group, int *ret_pidfd)
{
	for (int n = INIT_PID_SERVICE_MIN; n <= INIT_PID_SERVICE_MAX; n++) {
		pid_t pid = clone_child(next_service, group, ret_pidfd);

		if (pid == 0)
			return 0;
		if (++next_service > INIT_PID_SERVICE_MAX)
			next_service = INIT_PID_SERVICE_MIN;
		if (pid > 0 || errno != EEXIST)
			return pid;
	}
	return -1;
}

static pid_t clone_for(const struct init_request *request, int group, int *ret_pidfd)
{
	if (request->flags & INIT_SPAWN_SERVICE)
		return clone_service(group, ret_pidfd);
	if (request->pid || pids_take(0))
		return clone_child(request->pid, group, ret_pidfd);
	errno = EAGAIN;
	return -1;
}

int spawn(const struct init_request *request, const int *fds, size_t n_fds, pid_t *ret_pid,
	  int *ret_pidfd)
{
	size_t first = request->flags & INIT_SPAWN_GROUP ? 2 : 1;
	bool forks = pids_are_bound() && (request->flags & INIT_SPAWN_BOUND ||
					  !(request->flags & INIT_SPAWN_SERVICE));
	bool execs = request->flags & INIT_SPAWN_ASK, bind = forks || execs;
	int group, pidfd = -1, ends[2], r, error;
	pid_t pid;

	if (n_fds < first)
		return -EINVAL;
	group = first == 2 ? fds[1] : INIT_FD_WORK;
	r = bind ? pids_bind_prepare(ends) : 0;
	if (r)
		return r;
	pid = clone_for(request, group, &pidfd);
	if (pid == 0 && bind)
		pids_bind_child(ends, forks, execs);
	if (pid == 0)
		run(fds[0], fds + first, n_fds - first);
	error = errno;
	if (bind)
		pids_bind_parent(ends, pid > 0);
	errno = error;
	if (pid < 0 && errno == EEXIST)
		return INIT_E_PID_TAKEN;
	if (pid < 0)
		return errno == EAGAIN || errno == ENOMEM ? INIT_E_FULL : -errno;
	if (request->flags & INIT_SPAWN_TRACK && children_track(pid) != 0) {
		(void)kill(pid, SIGKILL); /* it would end without anybody knowing how */
		(void)close(pidfd);
		return INIT_E_FULL;
	}
	*ret_pid = pid;
	*ret_pidfd = pidfd;
	return 0;
}
