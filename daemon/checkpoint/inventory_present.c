#include "inventory_internal.h"

#include "err.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/*
 * Whether this node has the files: a forecast, so that nothing is frozen in vain.
 * Paths are looked up by a child with a deadline, since one may lead onto a
 * server that does not answer, or onto our own mount.  What inventory_compare() would
 * say of what a path leads to here is said now.
 */

enum { ANSWERS_MAX = 8 << 20 };
static const nsec_t ask_timeout = 10 * NSEC_PER_SEC;

/* Of one path: the entry that tells most, and whether any may write. */
struct wanted {
	const struct inventory_file *file;
	bool written;
};

struct look {
	int root_fd, proc_fd;
	const struct wanted *wanted;
	size_t n;
};

struct seen {
	int error;
	struct statx st;
	char build_id[41];
};

struct judge {
	const struct inventory *i;
	const struct mount_table *mounts;
	bool same_node;
	struct report report;
	struct inventory_things *things; /* NULL: nobody asks */
};

static void child(void *argument, int out_fd)
{
	const struct look *l = argument;

	for (size_t k = 0; k < l->n; k++) {
		const struct inventory_file *f = l->wanted[k].file;
		struct seen s;
		char path[32];
		int fd, data;

		memset(&s, 0, sizeof(s));
		fd = root_open(l->root_fd, f->path, O_NOFOLLOW, 0);
		s.error = fd < 0 ? fd : proc_stat(fd, "", AT_EMPTY_PATH, &s.st);
		if (s.error == 0 && f->build_id[0] && S_ISREG(s.st.stx_mode)) {
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

static void refuse(struct judge *j, const struct inventory_file *f, const char *format,
		   ...) __attribute__((format(printf, 3, 4)));

static void refuse(struct judge *j, const struct inventory_file *f, const char *format,
		   ...)
{
	_cleanup_free_ char *is = thing_is(f), *why = NULL;
	va_list ap;
	int n;

	va_start(ap, format);
	n = vasprintf(&why, format, ap);
	va_end(ap);
	if (n < 0 || !is) {
		why = n < 0 ? NULL : why;
		j->report.error = err_origin(-ENOMEM);
		return;
	}
	report_line(&j->report, "%s: %s", is, why);
	if (j->things && !j->report.error)
		j->report.error = things_add(j->things, 0, "", is, why);
}

/* Is it the source's very file?  See inventory_compare(). */
static bool is_shared(const struct judge *j, const struct inventory_file *f,
		      const struct seen *s)
{
	uint64_t born = s->st.stx_mask & STATX_BTIME && s->st.stx_btime.tv_sec > 0
				? (uint64_t)s->st.stx_btime.tv_sec * NSEC_PER_SEC +
					  s->st.stx_btime.tv_nsec
				: 0;
	char buf[PATH_MAX];
	const char *name = mount_table_name(j->mounts, &s->st, buf, sizeof(buf));

	return name && !strcmp(name, j->i->file_systems[f->fs]) &&
	       f->inode == s->st.stx_ino && (!f->born || !born || f->born == born);
}

static void judge(struct judge *j, const struct wanted *w, const struct seen *s)
{
	const struct inventory_file *f = w->file;
	bool own = !s->error && !j->same_node && !is_shared(j, f, s);

	if (s->error == -ENOENT || s->error == -ENOTDIR)
		refuse(j, f, "absent here");
	else if (s->error)
		refuse(j, f, "%s here", strerror(-s->error));
	else if ((s->st.stx_mode & S_IFMT) != (f->mode & S_IFMT))
		refuse(j, f, "of another type here");
	else if (s->st.stx_mode != f->mode)
		refuse(j, f, "of another mode here (%03o, not %03o)",
		       s->st.stx_mode & 07777, f->mode & 07777);
	else if (own && (s->st.stx_uid != f->uid || s->st.stx_gid != f->gid))
		refuse(j, f, "of another owner here (%u:%u, not %u:%u)", s->st.stx_uid,
		       s->st.stx_gid, f->uid, f->gid);
	else if (own && w->written)
		refuse(j, f, "this node's own, and open for writing");
	else if (own && f->type == INVENTORY_FIFO)
		refuse(j, f, "this node's own");
	else if (f->build_id[0] && strcmp(f->build_id, s->build_id) != 0)
		refuse(j, f, "another build here (build id %.12s, not %.12s)",
		       s->build_id[0] ? s->build_id : "none", f->build_id);
	else if (((own && f->type == INVENTORY_FILE) || mapped_read_only(f)) &&
		 s->st.stx_size != f->size)
		refuse(j, f, "of another size here (%ju bytes, not %ju)",
		       (uintmax_t)s->st.stx_size, (uintmax_t)f->size);
}

/* By path, the most telling entry of a path first: mappings, then by build id. */
static int compare_wanted(const void *a, const void *b)
{
	const struct inventory_file *x = ((const struct wanted *)a)->file;
	const struct inventory_file *y = ((const struct wanted *)b)->file;
	int r = strcmp(x->path, y->path);

	if (!r)
		r = !!y->build_id[0] - !!x->build_id[0];
	return r ? r : mapped_read_only(y) - mapped_read_only(x);
}

/* One of each path; those that a path can tell of. */
static size_t choose(const struct inventory *i, struct wanted *ret)
{
	size_t n = 0, kept = 0;

	for (size_t k = 0; k < i->n_files; k++) {
		const struct inventory_file *f = &i->files[k];

		if (f->fs && !f->deleted && f->path[0] == '/' &&
		    (f->type == INVENTORY_FILE || f->type == INVENTORY_DIRECTORY ||
		     f->type == INVENTORY_FIFO))
			ret[n++] = (struct wanted){
				f, f->type == INVENTORY_FILE && !(f->flags & O_PATH) &&
					   (f->flags & O_ACCMODE) != O_RDONLY};
	}
	if (n)
		qsort(ret, n, sizeof(*ret), compare_wanted);
	for (size_t k = 0; k < n; k++)
		if (kept && !strcmp(ret[kept - 1].file->path, ret[k].file->path))
			ret[kept - 1].written |= ret[k].written;
		else
			ret[kept++] = ret[k];
	return kept;
}

int inventory_present_at(const struct inventory *i, int root_fd, int proc_fd,
			 bool same_node, char **ret_text,
			 struct inventory_things **ret_things)
{
	_cleanup_free_ struct wanted *wanted = calloc(i->n_files + 1, sizeof(*wanted));
	_cleanup_(inventory_things_freep) struct inventory_things *things =
		ret_things ? calloc(1, sizeof(*things)) : NULL;
	_cleanup_(mount_table_freep) struct mount_table *mounts = NULL;
	struct judge j = {.i = i, .same_node = same_node, .things = things};
	_cleanup_buf_ struct buf answers = {0};
	struct look l = {.root_fd = root_fd, .proc_fd = proc_fd, .wanted = wanted};
	struct seen s;
	int e;

	if (!wanted || (ret_things && !things))
		return err_origin(-ENOMEM);
	e = mount_table_new(&mounts, proc_fd);
	if (e < 0)
		return e;
	j.mounts = mounts;
	l.n = choose(i, wanted);
	e = child_ask(child, &l, ask_timeout, ANSWERS_MAX, &answers);
	if (e < 0)
		return e;
	if (answers.len != l.n * sizeof(s))
		return err_origin(-EIO);
	for (size_t k = 0; k < l.n; k++) {
		memcpy(&s, answers.data + k * sizeof(s), sizeof(s));
		judge(&j, &wanted[k], &s);
	}
	e = report_done(&j.report, INVENTORY_E_BLOCKED, ret_text);
	report_fini(&j.report);
	if (e >= 0 && ret_things)
		*ret_things = TAKE(things);
	return e;
}
