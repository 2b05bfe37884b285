/*
 * Who was born with a number that is not this node's.
 *
 * Another node may give out the same one at any time, so it ends before anybody
 * learns to know it.  Processes of other nodes have such numbers by right: those
 * stood here before, or the owner knows them.
 */
#include "space_internal.h"

#include "err.h"
#include "log.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Steps of starttime in /proc, and one more that it may be early. */
#define TICKS_SLACK 2

static bool is_among(const struct space_stray *stray, pid_t pid)
{
	if (pid <= INIT_PID_SERVICE_MAX)
		return false;
	if (stray->last < stray->first)
		return pid >= stray->first || pid <= stray->last;
	return pid >= stray->first && pid <= stray->last;
}

bool space_stat_read(int dir_fd, pid_t tid, unsigned long long *ret_start,
		     char ret_name[static 17])
{
	char path[32], text[1024] = { 0 };
	_cleanup_close_ int fd = -1;
	const char *name, *end;

	(void)snprintf(path, sizeof(path), "%d/stat", tid);
	fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		return false;
	name = strchr(text, '(');
	end = strrchr(text, ')');
	if (!name || !end)
		return false;
	(void)snprintf(ret_name, 17, "%.*s", (int)(end - name - 1), name + 1);
	return sscanf(end + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d "
			       "%*d %*d %*d %*d %llu", ret_start) == 1;
}

static void end_one(pid_t pid, pid_t tid, const char *name)
{
	_cleanup_close_ int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	/* Its name could be another's by now only if the cursor had gone round in between. */
	if (pid <= INIT_PID_SERVICE_MAX)
		log_warning("thread %d of service %d (%s) was born outside of this node's PIDs",
			    tid, pid, name);
	else if (fd >= 0 && syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) == 0)
		log_error("process %d (%s) was born outside of this node's PIDs as %d, killed", pid,
			  name, tid);
}

static bool look_at(int proc_fd, pid_t pid, const struct space_stray *stray,
		    pid_t *ret_tid, char ret_name[static 17])
{
	unsigned long long start, since = stray->since / (NSEC_PER_SEC / sysconf(_SC_CLK_TCK));
	char path[32];
	bool found = false;
	DIR *dir;
	int fd;

	(void)snprintf(path, sizeof(path), "%d/task", pid);
	fd = openat(proc_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		(void)close_fd(fd);
		return false;
	}
	for (struct dirent *e; !found && (e = readdir(dir));)
		if (is_among(stray, atoi(e->d_name)) &&
		    space_stat_read(fd, atoi(e->d_name), &start, ret_name)) {
			*ret_tid = atoi(e->d_name);
			found = start + TICKS_SLACK >= since;
		}
	(void)closedir(dir);
	return found;
}

void space_stray_kill(struct space *s, const struct space_stray *stray,
		      bool (*is_right)(void *owner, pid_t pid), void *owner)
{
	int fd = openat(s->proc_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	char name[17];
	pid_t tid;

	if (!dir) {
		(void)close_fd(fd);
		log_error("processes born outside of this node's PIDs cannot be looked for");
		return;
	}
	for (struct dirent *e; (e = readdir(dir));) {
		pid_t pid = atoi(e->d_name);

		if (pid > 1 && look_at(fd, pid, stray, &tid, name) &&
		    !(is_right && is_right(owner, pid)))
			end_one(pid, tid, name);
	}
	(void)closedir(dir);
}
