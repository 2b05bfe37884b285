#include "inventory_internal.h"

#include "err.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/*
 * What one open thing is: by its link's text in /proc and by statx() through the
 * link, which reaches the object itself whatever stands at its path by now.
 */

/* Terminals by number: virtual, serial, /dev/tty and console, pseudo, USB, hypervisor.
 */
static bool is_tty(dev_t rdev)
{
	unsigned n = major(rdev);

	return n == 4 || n == 5 || (n >= 136 && n <= 143) || n == 188 || n == 204 ||
	       n == 229;
}

static enum inventory_type path_type(const struct statx *st, dev_t rdev)
{
	switch (st->stx_mode & S_IFMT) {
	case S_IFDIR:
		return INVENTORY_DIRECTORY;
	case S_IFIFO:
		return INVENTORY_FIFO;
	case S_IFCHR:
		return is_tty(rdev) ? INVENTORY_TTY : INVENTORY_DEVICE;
	case S_IFBLK:
		return INVENTORY_DEVICE;
	default: /* also a symlink or a socket that is open by O_PATH */
		return INVENTORY_FILE;
	}
}

static int fill_socket(struct inventory_take *k, const char *link,
		       struct inventory_file *f)
{
	static const char *const inet[] = {"TCP",   "UDP",  "RAW", "PING",
					   "MPTCP", "SCTP", "DCCP"};
	char protocol[64] = "?";
	const char *name;
	int r = 0;

	(void)socket_protocol(k->proc_fd, link, protocol, sizeof(protocol));
	f->type = strncmp(protocol, "UNIX", 4) ? INVENTORY_SOCKET : INVENTORY_UNIX;
	for (size_t n = 0; n < N_ELEMENTS(inet); n++)
		if (!strncmp(protocol, inet[n], strlen(inet[n])))
			f->type = INVENTORY_INET;
	if (!*k->sockets)
		r = socket_table_new(k->sockets, k->proc_fd, k->root);
	if (r < 0)
		return r;
	name = f->type == INVENTORY_SOCKET ? ""
					   : socket_table_name(*k->sockets, f->inode);
	f->path = strdup(*name || f->type == INVENTORY_UNIX ? name : protocol);
	return f->path ? 0 : err_origin(-ENOMEM);
}

/* A file may really be called "x (deleted)": then it stands there, and is this one. */
static bool really_deleted(struct inventory_take *k, const char *text,
			   const struct statx *of)
{
	size_t prefix = strlen(k->prefix);
	_cleanup_close_ int fd = -1;
	struct statx st;

	if (!of->stx_nlink || strncmp(text, k->prefix, prefix))
		return true;
	fd = root_open(k->root_fd, text + prefix, O_NOFOLLOW, RESOLVE_NO_SYMLINKS);
	return fd < 0 || proc_stat(fd, "", AT_EMPTY_PATH, &st) < 0 ||
	       st.stx_ino != of->stx_ino || st.stx_dev_major != of->stx_dev_major ||
	       st.stx_dev_minor != of->stx_dev_minor;
}

static int fill_path(struct inventory_take *k, char *text, const struct statx *st,
		     struct inventory_file *f)
{
	static const char suffix[] = " (deleted)";
	size_t len = strlen(text), prefix = strlen(k->prefix);
	char name[PATH_MAX];
	const char *fs = mount_table_name(k->mounts, st, name, sizeof(name));
	int r = 0;

	f->type = path_type(st, f->rdev);
	if (len > strlen(suffix) && !strcmp(text + len - strlen(suffix), suffix) &&
	    really_deleted(k, text, st)) {
		f->deleted = true;
		text[len - strlen(suffix)] = '\0';
	}
	if (prefix && !strncmp(text, k->prefix, prefix) &&
	    (text[prefix] == '/' || !text[prefix]))
		text += prefix;
	else if (prefix)
		fs = NULL;
	if (fs)
		r = inventory_add_file_system(k->i, fs, &f->fs);
	if (r < 0)
		return r;
	f->path = strdup(*text ? text : "/");
	return f->path ? 0 : err_origin(-ENOMEM);
}

/*
 * Memory that the kernel keeps in files of its own: no file of anybody's.  What CRIU
 * restores as anonymous shared memory is a memfd called "/dev/zero"; what a CRIU that was
 * killed in the middle of a dump leaves behind in a process is one called "CRIUMFD".
 */
static bool is_memory(const struct inventory_file *f)
{
	return f->fd == INVENTORY_MAPPING && f->deleted && !f->fs &&
	       (!strcmp(f->path, "/dev/zero") || !strcmp(f->path, "/memfd:/dev/zero") ||
		!strcmp(f->path, "/memfd:CRIUMFD") ||
		!strcmp(f->path, "/anon_hugepage") || !strcmp(f->path, "/[aio]"));
}

static void read_build_id(struct inventory_take *k, const char *link,
			  const struct statx *st, struct inventory_file *f)
{
	_cleanup_close_ int fd = -1;

	if (f->type != INVENTORY_FILE || !S_ISREG(st->stx_mode) ||
	    mount_table_slow(k->mounts, st))
		return;
	for (size_t n = k->i->n_files; n-- > 0;) {
		const struct inventory_file *g = &k->i->files[n];

		if (g->inode == f->inode && g->device == f->device &&
		    (g->fd == INVENTORY_MAPPING || g->fd == INVENTORY_EXE)) {
			memcpy(f->build_id, g->build_id, sizeof(f->build_id));
			return;
		}
	}
	fd = openat(k->proc_fd, link, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd >= 0)
		elf_build_id(fd, f->build_id);
}

int inventory_classify(struct inventory_take *k, const char *link,
		       struct inventory_file *f)
{
	char text[PATH_MAX + 1];
	struct statx st;
	int r = proc_link(k->proc_fd, link, text, sizeof(text));

	if (r == 0)
		r = proc_stat(k->proc_fd, link, 0, &st);
	if (r < 0 && !proc_gone(r)) {
		/* Too long a path, a dead server: it cannot be moved, so it must be
		 * seen. */
		f->type = INVENTORY_ANON;
		f->path = strdup(strerror(-r));
		return f->path ? 0 : err_origin(-ENOMEM);
	}
	if (r < 0)
		return 1;
	f->device = makedev(st.stx_dev_major, st.stx_dev_minor);
	f->rdev = makedev(st.stx_rdev_major, st.stx_rdev_minor);
	f->inode = st.stx_ino;
	f->n_links = st.stx_nlink;
	f->uid = st.stx_uid;
	f->gid = st.stx_gid;
	f->mode = st.stx_mode;
	f->size = st.stx_size;
	if (st.stx_mask & STATX_BTIME && st.stx_btime.tv_sec > 0)
		f->born = (uint64_t)st.stx_btime.tv_sec * NSEC_PER_SEC +
			  st.stx_btime.tv_nsec;
	if (text[0] == '/')
		r = fill_path(k, text, &st, f);
	else if (!strncmp(text, "socket:", 7))
		r = fill_socket(k, link, f);
	else {
		f->type = strncmp(text, "pipe:", 5) ? INVENTORY_ANON : INVENTORY_PIPE;
		f->path = strdup(f->type == INVENTORY_PIPE ? "" : text);
		r = f->path ? 0 : err_origin(-ENOMEM);
	}
	if (r < 0)
		return r;
	if (is_memory(f)) {
		free(f->path);
		return 1;
	}
	if (f->fd == INVENTORY_MAPPING || f->fd == INVENTORY_EXE)
		read_build_id(k, link, &st, f);
	return 0;
}
