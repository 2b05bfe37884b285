#include "inventory_internal.h"

#include "err.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/*
 * What one task has: its program and directories, descriptors (flags and locks by
 * fdinfo), and mappings.  Mappings of one file that was opened in one way are one
 * entry, with all their protections; the mode of the link in map_files tells how the
 * file was opened, which is what a later mprotect() may ask for.
 *
 * A zombie has none of these; a thread's own descriptor table is not looked for
 * (CRIU refuses those).
 */

enum { DESCRIPTORS_MAX = 1 << 20, MAPS_TEXT_MAX = 64 << 20 };

static int add(struct inventory_take *k, const char *link, struct inventory_file *f)
{
	int r = inventory_classify(k, link, f);

	if (r)
		return r > 0 ? 0 : r;
	r = inventory_add_file(k->i, f);
	if (r < 0)
		free(f->path);
	return r;
}

static int take_links(struct inventory_take *k, pid_t pid)
{
	int r = 0;

	for (int which = INVENTORY_EXE; which <= INVENTORY_CWD && r == 0; which++) {
		struct inventory_file f = {.pid = pid, .fd = which};
		char link[INVENTORY_LINK_MAX];

		inventory_link(&f, link);
		r = add(k, link, &f);
	}
	return r;
}

/* 1: the descriptor is gone. */
static int read_fdinfo(struct inventory_take *k, struct inventory_file *f)
{
	_cleanup_buf_ struct buf b = {0};
	const char *flags;
	char path[64];
	int r;

	(void)snprintf(path, sizeof(path), "%d/fdinfo/%d", f->pid, f->fd);
	r = proc_read(k->proc_fd, path, 16 << 20, &b);
	if (r == -ESRCH)
		return 1;
	if (r < 0)
		return r;
	flags = b.len ? proc_field((char *)b.data, "flags:") : NULL;
	if (!flags)
		return err_origin(-EBADMSG);
	f->flags = (int)strtoul(flags, NULL, 8);
	f->locked = proc_field((char *)b.data, "lock:") != NULL;
	return 0;
}

static int take_descriptors(struct inventory_take *k, pid_t pid)
{
	_cleanup_free_ int *fds = NULL;
	size_t n_fds = 0;
	char link[INVENTORY_LINK_MAX];
	int r;

	(void)snprintf(link, sizeof(link), "%d/fd", pid);
	r = proc_numbers(k->proc_fd, link, DESCRIPTORS_MAX, &fds, &n_fds);
	if (r == -ESRCH)
		return 0;
	for (size_t n = 0; n < n_fds && r == 0; n++) {
		struct inventory_file f = {.pid = pid, .fd = fds[n]};

		r = read_fdinfo(k, &f);
		if (r == 0) {
			inventory_link(&f, link);
			r = add(k, link, &f);
		} else if (r > 0) {
			r = 0;
		}
	}
	return r;
}

static bool same_mapping(const struct inventory_file *a, const struct inventory_file *b)
{
	const int way = O_ACCMODE | INVENTORY_SHARED;

	return a->inode == b->inode && a->device == b->device &&
	       (a->flags & way) == (b->flags & way) && !strcmp(a->path, b->path);
}

static int add_mapping(struct inventory_take *k, size_t first, struct inventory_file *f)
{
	char link[INVENTORY_LINK_MAX];
	struct stat st;
	int r;

	inventory_link(f, link);
	if (fstatat(k->proc_fd, link, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return proc_gone(-errno) ? 0 : err_origin(-errno);
	f->flags |= st.st_mode & S_IWUSR ? st.st_mode & S_IRUSR ? O_RDWR : O_WRONLY
					 : O_RDONLY;
	r = inventory_classify(k, link, f);
	if (r)
		return r > 0 ? 0 : r;
	for (size_t n = k->i->n_files; n-- > first;) {
		struct inventory_file *g = &k->i->files[n];

		if (same_mapping(g, f)) {
			g->flags |= f->flags;
			free(f->path);
			return 0;
		}
	}
	r = inventory_add_file(k->i, f);
	if (r < 0)
		free(f->path);
	return r;
}

/* "7f0a-7f0b r-xp 00001000 08:01 1234   /lib/x.so" */
static int take_mapping(struct inventory_take *k, pid_t pid, size_t first,
			const char *line)
{
	struct inventory_file f = {.pid = pid, .fd = INVENTORY_MAPPING};
	unsigned long start, end, inode;
	int at = 0;
	char how[5];

	if (sscanf(line, "%lx-%lx %4s %*x %*x:%*x %lu %n", &start, &end, how, &inode,
		   &at) != 4 ||
	    strlen(how) != 4)
		return err_origin(-EBADMSG);
	/* Not by the inode alone: that of System V memory is its id, and the first is 0. */
	if (!inode && line[at] != '/')
		return 0;
	f.start = start;
	f.end = end;
	f.flags = (how[0] == 'r' ? PROT_READ << 24 : 0) |
		  (how[1] == 'w' ? PROT_WRITE << 24 : 0) |
		  (how[2] == 'x' ? PROT_EXEC << 24 : 0) |
		  (how[3] == 's' ? INVENTORY_SHARED : 0);
	return add_mapping(k, first, &f);
}

static int take_mappings(struct inventory_take *k, pid_t pid)
{
	_cleanup_buf_ struct buf b = {0};
	size_t first = k->i->n_files;
	char path[32], *save = NULL;
	int r;

	(void)snprintf(path, sizeof(path), "%d/maps", pid);
	r = proc_read(k->proc_fd, path, MAPS_TEXT_MAX, &b);
	if (r == -ESRCH || (r == 0 && !b.len))
		return 0;
	if (r < 0)
		return r;
	for (char *line = strtok_r((char *)b.data, "\n", &save); line && r == 0;
	     line = strtok_r(NULL, "\n", &save))
		r = take_mapping(k, pid, first, line);
	return r;
}

int inventory_take_files(struct inventory_take *k, pid_t pid)
{
	int r = take_links(k, pid);

	if (r == 0)
		r = take_descriptors(k, pid);
	return r < 0 ? r : take_mappings(k, pid);
}
