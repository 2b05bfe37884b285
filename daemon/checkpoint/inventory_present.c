#include "inventory_internal.h"

#include "err.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/*
 * Whether this node has the files: a forecast, so that nothing is frozen in vain.
 * Paths are looked up by a child with a deadline, since one may lead onto a
 * server that does not answer, or onto our own mount.
 */

enum { ANSWERS_MAX = 4 << 20 };
static const nsec_t ask_timeout = 10 * NSEC_PER_SEC;

struct look {
	int root_fd, proc_fd;
	const struct inventory_file *const *files;
	size_t n_files;
};

struct seen {
	int error;
	mode_t mode;
	uint64_t size;
	char build_id[41];
};

static void child(void *argument, int out_fd)
{
	const struct look *l = argument;

	for (size_t k = 0; k < l->n_files; k++) {
		const struct inventory_file *f = l->files[k];
		struct seen s;
		char path[32];
		struct statx st;
		int fd, data;

		memset(&s, 0, sizeof(s));
		fd = root_open(l->root_fd, f->path, O_NOFOLLOW, 0);
		s.error = fd < 0 ? fd : proc_stat(fd, "", AT_EMPTY_PATH, &st);
		if (s.error == 0) {
			s.mode = st.stx_mode;
			s.size = st.stx_size;
		}
		if (s.error == 0 && f->build_id[0] && S_ISREG(s.mode)) {
			(void)snprintf(path, sizeof(path), "self/fd/%d", fd);
			data = openat(l->proc_fd, path,
				      O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
			if (data >= 0)
				elf_build_id(data, s.build_id);
			(void)close_fd(data);
		}
		(void)close_fd(fd);
		child_write(out_fd, &s, sizeof(s));
	}
}

static bool mapped_read_only(const struct inventory_file *f)
{
	return (f->fd == INVENTORY_MAPPING || f->fd == INVENTORY_EXE) &&
	       (f->flags & O_ACCMODE) == O_RDONLY;
}

static void judge(struct report *r, const struct inventory_file *f,
		  const struct seen *s)
{
	const char *what = f->type == INVENTORY_DIRECTORY ? "directory" : "file";

	if (s->error == -ENOENT || s->error == -ENOTDIR)
		report_line(r, "%s %s: absent here", what, f->path);
	else if (s->error)
		report_line(r, "%s %s: %s here", what, f->path, strerror(-s->error));
	else if ((s->mode & S_IFMT) != (f->mode & S_IFMT))
		report_line(r, "%s %s: of another type here", what, f->path);
	else if (s->mode != f->mode)
		report_line(r, "%s %s: of another mode here (%03o, not %03o)", what, f->path,
			    s->mode & 07777, f->mode & 07777);
	else if (f->build_id[0] && strcmp(f->build_id, s->build_id) != 0)
		report_line(r, "%s %s: another build here (build id %.12s, not %.12s)",
			    what, f->path, s->build_id[0] ? s->build_id : "none",
			    f->build_id);
	else if (mapped_read_only(f) && s->size != f->size)
		report_line(r, "%s %s: of another size here (%ju bytes, not %ju)", what,
			    f->path, (uintmax_t)s->size, (uintmax_t)f->size);
}

/* By path, the most telling entry of a path first: mappings, then by build id. */
static int compare_files(const void *a, const void *b)
{
	const struct inventory_file *x = *(const struct inventory_file *const *)a;
	const struct inventory_file *y = *(const struct inventory_file *const *)b;
	int r = strcmp(x->path, y->path);

	if (!r)
		r = !!y->build_id[0] - !!x->build_id[0];
	return r ? r : mapped_read_only(y) - mapped_read_only(x);
}

/* One of each path; those that a path can tell of. */
static size_t choose(const struct inventory *i, const struct inventory_file **ret)
{
	size_t n = 0, kept = 0;

	for (size_t k = 0; k < i->n_files; k++) {
		const struct inventory_file *f = &i->files[k];

		if (f->fs && !f->deleted && f->path[0] == '/' &&
		    (f->type == INVENTORY_FILE || f->type == INVENTORY_DIRECTORY))
			ret[n++] = f;
	}
	if (n)
		qsort(ret, n, sizeof(*ret), compare_files);
	for (size_t k = 0; k < n; k++)
		if (!kept || strcmp(ret[kept - 1]->path, ret[k]->path) != 0)
			ret[kept++] = ret[k];
	return kept;
}

int inventory_present_at(const struct inventory *i, int root_fd, int proc_fd,
			 char **ret_text)
{
	_cleanup_free_ const struct inventory_file **files =
		calloc(i->n_files + 1, sizeof(*files));
	_cleanup_(report_fini) struct report r = {0};
	_cleanup_buf_ struct buf answers = {0};
	struct look l = {.root_fd = root_fd, .proc_fd = proc_fd, .files = files};
	struct seen s;
	int e;

	if (!files)
		return err_origin(-ENOMEM);
	l.n_files = choose(i, files);
	e = child_ask(child, &l, ask_timeout, ANSWERS_MAX, &answers);
	if (e < 0)
		return e;
	if (answers.len != l.n_files * sizeof(s))
		return err_origin(-EIO);
	for (size_t k = 0; k < l.n_files; k++) {
		memcpy(&s, answers.data + k * sizeof(s), sizeof(s));
		judge(&r, files[k], &s);
	}
	return report_done(&r, INVENTORY_E_BLOCKED, ret_text);
}
