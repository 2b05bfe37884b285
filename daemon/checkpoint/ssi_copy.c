/*
 * ssi-copy: the hand of ssid in a user's checkpoint directory.
 *
 *   ssi-copy VERB UID:GID:GROUPS make|keep DIRECTORY NAME
 *
 * Descriptor 3: a socket to ssid, for frames of copy_wire.h.  Descriptor 4: the
 * private directory with the images, for "out".  It runs in the space as root,
 * opens what only root may (the images; the default directory, if it must be
 * made), and then becomes the user for good before it touches anything of his.
 */
#include "cleanup.h"
#include "copy_wire.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { SOCKET = 3, IMAGES = 4, FILES_MAX = 4097, GROUPS_MAX = 64 };

struct image {
	char name[256];
	int fd;
};

static struct image images[FILES_MAX];
static size_t n_images;

static void send_all(const void *data, size_t len)
{
	const char *p = data;

	while (len) {
		ssize_t n = write(SOCKET, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			_exit(1);
		p += n;
		len -= (size_t)n;
	}
}

static void send_frame(enum copy_kind kind, const char *name, const void *bytes, size_t len,
		       uint32_t last)
{
	size_t name_len = strnlen(name, COPY_NAME_MAX);
	struct copy_frame f = { kind, (uint32_t)name_len, (uint32_t)len, last };

	send_all(&f, sizeof(f));
	send_all(name, name_len);
	send_all(bytes, len);
}

static _Noreturn void done(void)
{
	send_frame(COPY_DONE, "", NULL, 0, true);
	_exit(0);
}

/* @error: an errno that tells ssid what kind of failure it is, or 0. */
static _Noreturn void fail(int error, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static _Noreturn void fail(int error, const char *format, ...)
{
	char text[512];
	va_list ap;

	errno = error;
	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	send_frame(COPY_ERROR, text, NULL, 0, (uint32_t)error);
	_exit(1);
}

/* Who we become. */

static void become(const char *who)
{
	gid_t groups[GROUPS_MAX];
	unsigned uid, gid;
	size_t n = 0;
	int at;

	if (sscanf(who, "%u:%u:%n", &uid, &gid, &at) != 2)
		fail(0, "no user");
	for (const char *p = who + at; *p && n < GROUPS_MAX; p += *p == ',') {
		char *next;

		groups[n++] = (gid_t)strtoul(p, &next, 10);
		if (next == p)
			fail(0, "no group");
		p = next;
	}
	if (setgroups(n, groups) < 0 || setresgid(gid, gid, gid) < 0 ||
	    setresuid(uid, uid, uid) < 0)
		fail(errno, "cannot act for user %u: %m", uid);
}

/* Private images are root's to open: before. */
static void open_images(void)
{
	int copy = openat(IMAGES, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *e;

	if (!d)
		fail(errno, "no images: %m");
	while ((e = readdir(d))) {
		struct image *i = &images[n_images];

		if (e->d_name[0] == '.')
			continue;
		if (n_images == FILES_MAX)
			fail(0, "too many images");
		i->fd = openat(IMAGES, e->d_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		if (i->fd < 0)
			fail(errno, "image %s: %m", e->d_name);
		snprintf(i->name, sizeof(i->name), "%s", e->d_name);
		n_images++;
	}
	closedir(d);
}

static int open_directory(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		fail(errno, "%s: %m", path);
	return fd;
}

/* A checkpoint's directory: his own, never a symlink. */
static int open_checkpoint(int dir, const char *path, const char *name)
{
	int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		fail(errno, "%s/%s: %m", path, name);
	return fd;
}

/* Remove a directory of plain files. */
static int remove_checkpoint(int dir, const char *name)
{
	int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!d) {
		close_fd(fd);
		return -1;
	}
	while ((e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			(void)unlinkat(dirfd(d), e->d_name, 0);
	closedir(d);
	return unlinkat(dir, name, AT_REMOVEDIR);
}

/* Out. */

/* -1: errno. */
static int write_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);

		if (n < 0)
			return -1;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

static int copy_file(const struct image *i, int to)
{
	_cleanup_close_ int fd = openat(to, i->name,
					O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	static char bytes[COPY_BYTES_MAX];
	ssize_t n;

	if (fd < 0)
		return -1;
	while ((n = read(i->fd, bytes, sizeof(bytes))) > 0)
		if (write_all(fd, bytes, (size_t)n) < 0)
			return -1;
	return n < 0 ? -1 : fsync(fd);
}

/* All files, then the directory: when it has its name it is whole and on disk. */
static int copy_files(int dir, const char *temporary, const char *name)
{
	_cleanup_close_ int to = open_checkpoint(dir, "", temporary);

	for (size_t i = 0; i < n_images; i++)
		if (copy_file(&images[i], to) < 0)
			return -1;
	if (fsync(to) < 0 || renameat(dir, temporary, dir, name) < 0)
		return -1;
	return fsync(dir);
}

static _Noreturn void copy_out(const char *path, const char *name)
{
	int dir = open_directory(path), saved;
	char temporary[300];

	snprintf(temporary, sizeof(temporary), ".%s.part", name);
	(void)remove_checkpoint(dir, temporary);
	if (faccessat(dir, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		fail(EEXIST, "%s/%s: %m", path, name);
	if (mkdirat(dir, temporary, 0700) < 0)
		fail(errno, "%s: %m", path);
	if (copy_files(dir, temporary, name) == 0)
		done();
	saved = errno;
	(void)remove_checkpoint(dir, temporary);
	fail(saved, "%s/%s: %m", path, name);
}

/* In. */

static void send_file(int dir, const char *name)
{
	/* O_NONBLOCK: somebody may have put a FIFO there. */
	int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	static char bytes[COPY_BYTES_MAX];
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		fail(errno, "%s: %m", name);
	if (!S_ISREG(st.st_mode))
		fail(0, "%s: not a plain file", name);
	while ((n = read(fd, bytes, sizeof(bytes))) > 0)
		send_frame(COPY_FILE, name, bytes, (size_t)n, false);
	if (n < 0)
		fail(errno, "%s: %m", name);
	send_frame(COPY_FILE, name, NULL, 0, true);
	close_fd(fd);
}

/* NAME itself, or of all NAME-* the last, since they end in the time they were made. */
static void find_name(int dir, const char *path, const char *name, char ret[static 256])
{
	int copy = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = copy < 0 ? NULL : fdopendir(copy);
	size_t len = strlen(name);
	struct dirent *e;

	ret[0] = '\0';
	while (d && (e = readdir(d)))
		if (strcmp(e->d_name, name) == 0 ||
		    (strncmp(e->d_name, name, len) == 0 && e->d_name[len] == '-' &&
		     strcmp(e->d_name, ret) > 0))
			snprintf(ret, 256, "%s", e->d_name);
	if (d)
		closedir(d);
	if (ret[0])
		return;
	fail(ENOENT, "no checkpoint %s in %s", name, path);
}

static _Noreturn void copy_in(const char *path, const char *name)
{
	int dir = open_directory(path), from;
	char found[256];
	struct dirent *e;
	DIR *d;

	find_name(dir, path, name, found);
	from = open_checkpoint(dir, path, found);
	d = fdopendir(dup(from));
	if (!d)
		fail(errno, "%s/%s: %m", path, found);
	send_frame(COPY_NAME, found, NULL, 0, true);
	while ((e = readdir(d)))
		if (e->d_name[0] != '.')
			send_file(from, e->d_name);
	done();
}

static _Noreturn void list(const char *path, bool may_be_absent)
{
	int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = dir < 0 ? NULL : fdopendir(dup(dir));
	struct dirent *e;

	/* Nothing was saved there yet. */
	if (!d && errno == ENOENT && may_be_absent)
		done();
	if (!d)
		fail(errno, "%s: %m", path);
	while ((e = readdir(d))) {
		int fd;

		if (e->d_name[0] == '.')
			continue;
		fd = openat(dir, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		/* Those of other users are not for us to see. */
		if (fd < 0)
			continue;
		if (faccessat(fd, "manifest", R_OK, AT_EACCESS) == 0) {
			send_frame(COPY_NAME, e->d_name, NULL, 0, true);
			send_file(fd, "manifest");
		}
		close_fd(fd);
	}
	done();
}

static _Noreturn void remove_one(const char *path, const char *name)
{
	int dir = open_directory(path);

	/* A checkpoint and nothing else. */
	if (faccessat(open_checkpoint(dir, path, name), "manifest", F_OK, AT_EACCESS) < 0)
		fail(0, "%s/%s is not a checkpoint", path, name);
	if (remove_checkpoint(dir, name) < 0)
		fail(errno, "%s/%s: %m", path, name);
	done();
}

static bool name_ok(const char *name)
{
	return name[0] && name[0] != '.' && !strchr(name, '/') && strlen(name) < 200;
}

int main(int argc, char **argv)
{
	const char *verb, *path, *name;

	if (argc != 6)
		return 2;
	verb = argv[1];
	path = argv[4];
	name = argv[5];
	if (strcmp(verb, "list") != 0 && !name_ok(name))
		fail(ENOENT, "%s is not the name of a checkpoint", name);
	if (strcmp(verb, "out") == 0)
		open_images();
	(void)umask(0);
	if (strcmp(argv[3], "make") == 0 && strcmp(verb, "out") == 0)
		(void)mkdir(path, 01777);
	(void)umask(077);
	become(argv[2]);
	if (strcmp(verb, "out") == 0)
		copy_out(path, name);
	if (strcmp(verb, "in") == 0)
		copy_in(path, name);
	if (strcmp(verb, "list") == 0)
		list(path, strcmp(argv[3], "make") == 0);
	if (strcmp(verb, "remove") == 0)
		remove_one(path, name);
	return 2;
}
