#include "inventory_internal.h"

#include "err.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/*
 * Reading /proc.  A process may go at any time: ENOENT and ESRCH both mean that.
 */

bool proc_gone(int r)
{
	return r == -ENOENT || r == -ESRCH;
}

int proc_read(int proc_fd, const char *path, size_t max, struct buf *ret)
{
	_cleanup_close_ int fd = openat(proc_fd, path, O_RDONLY | O_CLOEXEC);
	_cleanup_buf_ struct buf b = {0};

	if (fd < 0)
		return errno == ENOENT ? -ESRCH : err_origin(-errno);
	for (;;) {
		uint8_t *p = buf_reserve(&b, 4096);
		ssize_t n;

		if (!p)
			return err_origin(-ENOMEM);
		n = read(fd, p, 4095);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return proc_gone(-errno) ? -ESRCH : err_origin(-errno);
		p[n] = '\0';
		if (!n)
			break;
		b.len += n;
		if (b.len > max)
			return err_origin(-E2BIG);
	}
	buf_fini(ret);
	*ret = b;
	b = (struct buf){0};
	return 0;
}

int proc_link(int proc_fd, const char *path, char *ret, size_t size)
{
	ssize_t n = readlinkat(proc_fd, path, ret, size);

	if (n < 0)
		return -errno;
	if ((size_t)n >= size)
		return -ENAMETOOLONG;
	ret[n] = '\0';
	return 0;
}

static int compare_ints(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;

	return (x > y) - (x < y);
}

static void closedirp(DIR **dir)
{
	if (*dir)
		(void)closedir(*dir);
}

int proc_numbers(int proc_fd, const char *path, size_t max, int **ret, size_t *ret_n)
{
	_cleanup_close_ int fd =
		openat(proc_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_(closedirp) DIR *dir = NULL;
	_cleanup_buf_ struct buf b = {0};
	struct dirent *e;

	if (fd < 0)
		return errno == ENOENT ? -ESRCH : err_origin(-errno);
	dir = fdopendir(fd);
	if (!dir)
		return err_origin(-errno);
	(void)TAKE_FD(fd);
	while (errno = 0, (e = readdir(dir))) {
		char *end;
		long v = strtol(e->d_name, &end, 10);
		int n = (int)v, r;

		if (*end || e->d_name[0] == '.' || v < 0)
			continue;
		if (b.len / sizeof(int) >= max)
			return err_origin(-E2BIG);
		r = buf_append(&b, &n, sizeof(n));
		if (r < 0)
			return r;
	}
	if (errno && !proc_gone(-errno))
		return err_origin(-errno);
	*ret_n = b.len / sizeof(int);
	*ret = (int *)(void *)TAKE(b.data);
	if (*ret_n)
		qsort(*ret, *ret_n, sizeof(int), compare_ints);
	return 0;
}

bool proc_plain_device(mode_t mode, dev_t rdev)
{
	static const unsigned char minors[] = {3, 5, 7, 8, 9};

	return S_ISCHR(mode) && major(rdev) == 1 && minor(rdev) <= 9 &&
	       memchr(minors, (int)minor(rdev), sizeof(minors));
}

const char *proc_field(const char *text, const char *key)
{
	size_t len = strlen(key);

	while (text && *text) {
		if (!strncmp(text, key, len))
			return text + len;
		text = strchr(text, '\n');
		text = text ? text + 1 : NULL;
	}
	return NULL;
}

int proc_stat(int dir_fd, const char *path, int flags, struct statx *ret)
{
	if (statx(dir_fd, path, flags | AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT,
		  STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID, ret) < 0)
		return -errno;
	return 0;
}

int root_open(int root_fd, const char *path, int flags, uint64_t resolve)
{
	struct open_how how = {
		.flags = O_PATH | O_CLOEXEC | (unsigned)flags,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | resolve,
	};
	long fd = syscall(SYS_openat2, root_fd, path, &how, sizeof(how));

	return fd < 0 ? -errno : (int)fd;
}
