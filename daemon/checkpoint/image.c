/*
 * happy path: a file is made exclusively at its first bytes, appended to, closed;
 * the list of files is kept sorted, so that names are found by halving.
 * failure modes: a peer that sends too much or odd names meets IMAGE_E_*; a full
 * tmpfs is IMAGE_E_FULL too.  What was stored until then goes with the store.
 */
#include "image.h"

#include "buf.h"
#include "cleanup.h"
#include "err.h"
#include "image_core.h"
#include "image_files.h"
#include "image_internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

enum { OPEN_MAX = 512 }; /* files written at the same time */

struct image_file {
	char *name;
	uint64_t size;
	int fd; /* -1: closed, complete */
};

struct image_store {
	int parent_fd, dir_fd;
	char *name;
	uint64_t bytes, max_bytes;
	struct image_file *files;
	size_t n_files, room, n_open;
};

bool image_name_ok(const char *name)
{
	size_t len = strnlen(name, IMAGE_NAME_MAX + 1);

	return len > 0 && len <= IMAGE_NAME_MAX && name[0] != '.' &&
	       strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
			    "0123456789._-") == len;
}

int image_directory_remove(int dir_fd, const char *name)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!dir) {
		int r = errno == ENOENT ? 0 : -errno;

		close_fd(fd);
		return err_origin(r);
	}
	while ((e = readdir(dir)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			(void)unlinkat(fd, e->d_name, 0);
	(void)closedir(dir);
	return unlinkat(dir_fd, name, AT_REMOVEDIR) < 0 ? err_origin(-errno) : 0;
}

int image_store_new(struct image_store **ret, int dir_fd, const char *name, uint64_t max_bytes)
{
	struct image_store *s;

	if (!image_name_ok(name))
		return err_origin(-EINVAL);
	s = calloc(1, sizeof(*s));
	if (!s)
		return err_origin(-ENOMEM);
	*s = (struct image_store){ .dir_fd = -1, .max_bytes = max_bytes, .name = strdup(name) };
	s->parent_fd = fcntl(dir_fd, F_DUPFD_CLOEXEC, 3);
	if (s->name && s->parent_fd >= 0 && mkdirat(dir_fd, name, 0700) == 0)
		s->dir_fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (s->dir_fd < 0) {
		int r = s->name ? -errno : -ENOMEM;

		/* Another's directory of that name is not ours to remove. */
		if (r == -EEXIST)
			s->parent_fd = close_fd(s->parent_fd);
		image_store_free(s);
		return err_origin(r);
	}
	*ret = s;
	return 0;
}

struct image_store *image_store_free(struct image_store *s)
{
	if (!s)
		return NULL;
	for (size_t i = 0; i < s->n_files; i++) {
		close_fd(s->files[i].fd);
		free(s->files[i].name);
	}
	if (s->parent_fd >= 0)
		(void)image_directory_remove(s->parent_fd, s->name);
	close_fd(s->dir_fd);
	close_fd(s->parent_fd);
	free(s->files);
	free(s->name);
	free(s);
	return NULL;
}

/* Where @name is, or would be. */
static size_t place_of(const struct image_store *s, const char *name, bool *ret_found)
{
	size_t low = 0, high = s->n_files;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int c = strcmp(s->files[middle].name, name);

		if (c == 0) {
			*ret_found = true;
			return middle;
		}
		if (c < 0)
			low = middle + 1;
		else
			high = middle;
	}
	*ret_found = false;
	return low;
}

static int insert(struct image_store *s, size_t at, const char *name)
{
	struct image_file *f;

	if (!image_name_ok(name) || s->n_files == IMAGE_FILES_MAX || s->n_open == OPEN_MAX)
		return IMAGE_E_NAME;
	if (s->n_files == s->room) {
		size_t room = s->room ? 2 * s->room : 64;

		f = reallocarray(s->files, room, sizeof(*f));
		if (!f)
			return err_origin(-ENOMEM);
		s->files = f;
		s->room = room;
	}
	f = &s->files[at];
	memmove(f + 1, f, (s->n_files - at) * sizeof(*f));
	*f = (struct image_file){ .name = strdup(name), .fd = -1 };
	if (f->name)
		f->fd = openat(s->dir_fd, name,
			       O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (f->fd < 0) {
		int r = !f->name ? -ENOMEM : errno == ENOSPC ? IMAGE_E_FULL : -errno;

		free(f->name);
		memmove(f, f + 1, (s->n_files - at) * sizeof(*f));
		return err_origin(r);
	}
	s->n_files++;
	s->n_open++;
	return 0;
}

/* The open file @name, made if it is new. */
static int want(struct image_store *s, const char *name, struct image_file **ret)
{
	bool found;
	size_t at = place_of(s, name, &found);
	int r = found ? 0 : insert(s, at, name);

	if (r == 0 && s->files[at].fd < 0)
		r = IMAGE_E_NAME;
	if (r == 0)
		*ret = &s->files[at];
	return r;
}

static int on_write(void *owner, const char *name, const void *data, size_t len)
{
	struct image_store *s = owner;
	struct image_file *f;
	int r = want(s, name, &f);

	if (r != 0)
		return r;
	if (len > s->max_bytes - s->bytes)
		return IMAGE_E_FULL;
	while (len) {
		ssize_t n = pwrite(f->fd, data, len, (off_t)f->size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == ENOSPC ? IMAGE_E_FULL : err_origin(-errno);
		data = (const char *)data + n;
		len -= n;
		f->size += n;
		s->bytes += n;
	}
	return 0;
}

static int on_close(void *owner, const char *name)
{
	struct image_store *s = owner;
	struct image_file *f;
	int r = want(s, name, &f);

	if (r != 0)
		return r;
	f->fd = close_fd(f->fd);
	s->n_open--;
	return 0;
}

struct image_sink image_store_sink(struct image_store *s)
{
	return (struct image_sink){ on_write, on_close, s };
}

int image_store_dir_fd(const struct image_store *s)
{
	return s->dir_fd;
}

uint64_t image_store_bytes(const struct image_store *s)
{
	return s->bytes;
}

size_t image_store_n_files(const struct image_store *s)
{
	return s->n_files;
}

const char *image_store_file(const struct image_store *s, size_t i, uint64_t *ret_size)
{
	if (i >= s->n_files)
		return NULL;
	*ret_size = s->files[i].size;
	return s->files[i].name;
}

static int read_all(int fd, size_t size, struct buf *b)
{
	uint8_t *p = buf_reserve(b, size + 1);

	if (!p)
		return err_origin(-ENOMEM);
	while (b->len < size) {
		ssize_t n = pread(fd, p + b->len, size - b->len, (off_t)b->len);

		if (n == 0)
			return err_origin(-EBADMSG);
		if (n < 0)
			return err_origin(-errno);
		b->len += n;
	}
	return 0;
}

static int edit_file(struct image_store *s, struct image_file *f,
		     int (*edit)(const void *data, size_t len, struct buf *out, bool *ret_changed))
{
	_cleanup_buf_ struct buf in = { 0 }, out = { 0 };
	_cleanup_close_ int fd = -1;
	bool changed;
	int r;

	if (f->size > IMAGE_CORE_BYTES_MAX)
		return err_origin(-EBADMSG);
	fd = openat(s->dir_fd, f->name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return err_origin(-errno);
	r = read_all(fd, f->size, &in);
	if (r == 0)
		r = edit(in.data, in.len, &out, &changed);
	if (r < 0 || !changed)
		return r;
	if (ftruncate(fd, 0) < 0 || pwrite(fd, out.data, out.len, 0) != (ssize_t)out.len)
		return err_origin(-errno);
	s->bytes = s->bytes - f->size + out.len;
	f->size = out.len;
	return 0;
}

int image_store_prepare(struct image_store *s)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < s->n_files; i++) {
		const char *name = s->files[i].name, *dot = strrchr(name, '.');

		if (strncmp(name, "core-", 5) == 0 && dot && strcmp(dot, ".img") == 0)
			r = edit_file(s, &s->files[i], image_core_strip);
		else if (strcmp(name, "files.img") == 0)
			r = edit_file(s, &s->files[i], image_files_relax);
	}
	return r;
}
