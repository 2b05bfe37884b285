#include "process_proc.h"

#include "cleanup.h"
#include "err.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int read_file(int proc_fd, pid_t pid, const char *file, char *ret, size_t size,
		     size_t *ret_len)
{
	_cleanup_close_ int fd = -1;
	char path[64];
	size_t len = 0;
	ssize_t n;

	(void)snprintf(path, sizeof(path), "%d/%s", pid, file);
	fd = openat(proc_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	while (len < size - 1) {
		n = read(fd, ret + len, size - 1 - len);
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += n;
	}
	ret[len] = 0;
	*ret_len = len;
	return 0;
}

int proc_stat_parse(const char *line, struct proc_stat *ret)
{
	const char *open = strchr(line, '('), *close = strrchr(line, ')');
	struct proc_stat s = {.pid = atoi(line)};
	uint64_t user, system;
	size_t n;

	if (!open || !close || close < open)
		return -EINVAL;
	n = close - open - 1;
	if (n > sizeof(s.comm) - 1)
		n = sizeof(s.comm) - 1;
	memcpy(s.comm, open + 1, n);
	if (sscanf(close + 1,
		   " %c %d %d %d %" SCNu32 " %d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64
		   " %*d %*d %*d %*d %" SCNu32 " %*d %" SCNu64 " %*u %" SCNu64,
		   &s.state, &s.ppid, &s.pgid, &s.sid, &s.terminal, &s.foreground, &user, &system, &s.n_threads,
		   &s.start_ticks, &s.rss_pages) != 11)
		return -EINVAL;
	s.cpu_ticks = user + system;
	*ret = s;
	return 0;
}

int proc_stat_read(int proc_fd, pid_t pid, struct proc_stat *ret)
{
	char line[1024];
	size_t len;
	int r;

	r = read_file(proc_fd, pid, "stat", line, sizeof(line), &len);
	return r < 0 ? r : proc_stat_parse(line, ret);
}

int proc_status_read(int proc_fd, pid_t pid, uid_t *ret_uid, uint64_t *ret_pending)
{
	uint64_t own = 0, shared = 0;
	unsigned uid;
	char text[8192];
	const char *p;
	size_t len;
	int r;

	r = read_file(proc_fd, pid, "status", text, sizeof(text), &len);
	if (r < 0)
		return r;
	p = strstr(text, "\nUid:");
	if (!p || sscanf(p, "\nUid: %u", &uid) != 1)
		return -EINVAL;
	p = strstr(text, "\nSigPnd:");
	if (p)
		(void)sscanf(p, "\nSigPnd: %" SCNx64 "\nShdPnd: %" SCNx64, &own,
			     &shared);
	*ret_uid = uid;
	if (ret_pending)
		*ret_pending = own | shared;
	return 0;
}

unsigned proc_filters(int proc_fd, pid_t pid)
{
	char text[8192];
	unsigned n = 0;
	const char *p;
	size_t len;

	if (read_file(proc_fd, pid, "status", text, sizeof(text), &len) < 0)
		return 0;
	p = strstr(text, "\nSeccomp_filters:");
	if (p)
		(void)sscanf(p, "\nSeccomp_filters: %u", &n);
	return n;
}

int proc_cmdline_read(int proc_fd, pid_t pid, char *ret, size_t size, size_t *ret_len)
{
	return read_file(proc_fd, pid, "cmdline", ret, size, ret_len);
}

int proc_exe_stat(int proc_fd, pid_t pid, struct stat *ret)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "%d/exe", pid);
	return fstatat(proc_fd, path, ret, 0) < 0 ? -errno : 0;
}

int proc_each(int proc_fd, int (*cb)(void *owner, pid_t pid), void *owner)
{
	struct dirent *e;
	int fd, r = 0;
	DIR *d;

	fd = openat(proc_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_origin(-errno);
	d = fdopendir(fd);
	if (!d) {
		r = err_origin(-errno);
		(void)close(fd);
		return r;
	}
	while (r == 0 && (e = readdir(d)))
		if (e->d_name[0] >= '1' && e->d_name[0] <= '9')
			r = cb(owner, atoi(e->d_name));
	(void)closedir(d);
	return r;
}
