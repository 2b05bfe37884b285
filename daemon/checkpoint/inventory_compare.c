#include "inventory_internal.h"

#include "err.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/*
 * The security boundary of a restore: the rule stands in inventory.h.
 *
 * Happy path: both lists are sorted by (pid, descriptor) and walked together; a
 * pair that is not the same file by its own marks is noted down as a question
 * for the kernel (inventory_access.c), asked for all of them at the end.
 *
 * Failure modes: everything that is missing, superfluous or different is a line.
 * What cannot be asked is an error, and an error is a refusal.
 */

struct comparison {
	const struct inventory *saved, *restored;
	bool same_node;
	struct report report;
	struct access_check *checks;
	size_t n_checks;
};

enum kinship {
	SAME_FILE, /* by file system, inode and birth */
	SAME_NODE, /* by inode, on the node where it was saved */
	NODES_OWN, /* another file under the same name */
};

/* "way" of a mapping: part of what it is, so that several of one file are told apart.
 */
static int compare_keys(const struct inventory_file *x, const struct inventory_file *y)
{
	const int way = O_ACCMODE | INVENTORY_SHARED;

	if (x->pid != y->pid)
		return x->pid < y->pid ? -1 : 1;
	if (x->fd != y->fd)
		return x->fd < y->fd ? -1 : 1;
	if (x->fd != INVENTORY_MAPPING)
		return 0;
	if (strcmp(x->path, y->path) != 0)
		return strcmp(x->path, y->path);
	if (x->deleted != y->deleted)
		return x->deleted < y->deleted ? -1 : 1;
	return ((x->flags & way) > (y->flags & way)) -
	       ((x->flags & way) < (y->flags & way));
}

static int compare_files(const void *a, const void *b)
{
	const struct inventory_file *x = *(const struct inventory_file *const *)a;
	const struct inventory_file *y = *(const struct inventory_file *const *)b;
	int r = compare_keys(x, y);

	return r ? r : (x->inode > y->inode) - (x->inode < y->inode);
}

static const struct inventory_file **sorted(const struct inventory *i)
{
	const struct inventory_file **files = calloc(i->n_files + 1, sizeof(*files));

	for (size_t k = 0; files && k < i->n_files; k++)
		files[k] = &i->files[k];
	if (files && i->n_files)
		qsort(files, i->n_files, sizeof(*files), compare_files);
	return files;
}

static bool by_path(const struct inventory_file *f)
{
	return f->type == INVENTORY_FILE || f->type == INVENTORY_DIRECTORY ||
	       f->type == INVENTORY_FIFO;
}

static bool is_mapped(const struct inventory_file *f)
{
	return f->fd == INVENTORY_MAPPING || f->fd == INVENTORY_EXE;
}

static bool is_writable(const struct inventory_file *f)
{
	return !(f->flags & O_PATH) && (f->flags & O_ACCMODE) != O_RDONLY;
}

/* Whether the file system is one that both know: then another inode is another file. */
static bool same_file_system(const struct comparison *c, const struct inventory_file *s,
			     const struct inventory_file *r)
{
	return s->fs && r->fs &&
	       !strcmp(c->saved->file_systems[s->fs], c->restored->file_systems[r->fs]);
}

static enum kinship kinship(const struct comparison *c, const struct inventory_file *s,
			    const struct inventory_file *r)
{
	/* An older kernel may not know the birth of a file on a server. */
	bool inode =
		s->inode == r->inode && (!s->born || !r->born || s->born == r->born);

	if (inode && same_file_system(c, s, r))
		return SAME_FILE;
	return inode && c->same_node && s->fs && r->fs ? SAME_NODE : NODES_OWN;
}

static const char *type_name(enum inventory_type type)
{
	static const char *const names[] = {
		[INVENTORY_FILE] = "file",     [INVENTORY_DIRECTORY] = "directory",
		[INVENTORY_PIPE] = "pipe",     [INVENTORY_FIFO] = "fifo",
		[INVENTORY_UNIX] = "unix",     [INVENTORY_INET] = "inet",
		[INVENTORY_SOCKET] = "socket", [INVENTORY_TTY] = "tty",
		[INVENTORY_DEVICE] = "device", [INVENTORY_ANON] = "anonymous",
	};

	return names[type];
}

/* What must match whichever file it is.  False: a line was written. */
static bool same_marks(struct comparison *c, const char *where,
		       const struct inventory_file *s, const struct inventory_file *r)
{
	const int opened = s->fd == INVENTORY_MAPPING
				   ? O_ACCMODE | INVENTORY_SHARED |
					     (PROT_READ | PROT_WRITE | PROT_EXEC) << 24
				   : O_ACCMODE | O_APPEND | O_PATH | O_CLOEXEC;
	struct report *p = &c->report;

	if (strcmp(s->path, r->path) != 0)
		report_line(p, "%s: %s is %s now", where, s->path, r->path);
	else if (s->uid != r->uid || s->gid != r->gid)
		report_line(p, "%s: %s has another owner (%u:%u, was %u:%u)", where,
			    s->path, r->uid, r->gid, s->uid, s->gid);
	else if (s->mode != r->mode)
		report_line(p, "%s: %s has another mode (%o, was %o)", where, s->path,
			    r->mode & 07777, s->mode & 07777);
	else if ((s->flags & opened) != (r->flags & opened))
		report_line(p, "%s: %s is open in another way (flags %o, were %o)",
			    where, s->path, (unsigned)(r->flags & opened),
			    (unsigned)(s->flags & opened));
	else
		return true;
	return false;
}

static bool same_content(struct comparison *c, const char *where,
			 const struct inventory_file *s, const struct inventory_file *r)
{
	struct report *p = &c->report;

	if (s->size != r->size)
		report_line(p, "%s: %s has another size (%ju bytes, was %ju)", where,
			    s->path, (uintmax_t)r->size, (uintmax_t)s->size);
	else if (strcmp(s->build_id, r->build_id) != 0)
		report_line(p, "%s: %s is another build (build id %.12s, was %.12s)",
			    where, s->path, r->build_id[0] ? r->build_id : "none",
			    s->build_id[0] ? s->build_id : "none");
	else
		return true;
	return false;
}

static const struct inventory_file *program(const struct inventory *i, pid_t pid)
{
	for (size_t k = 0; k < i->n_files; k++)
		if (i->files[k].pid == pid && i->files[k].fd == INVENTORY_EXE)
			return &i->files[k];
	return NULL;
}

/* What the task would need to be allowed: a program need not be readable to be run. */
static int needed(const struct comparison *c, const struct inventory_file *r)
{
	const struct inventory_file *exe;
	int access = r->flags & O_ACCMODE, mode = 0;

	if (r->fd == INVENTORY_CWD || r->fd == INVENTORY_ROOT || r->fd == INVENTORY_EXE)
		return X_OK;
	if (r->flags & O_PATH)
		return r->type == INVENTORY_DIRECTORY ? X_OK : 0;
	if (access != O_WRONLY)
		mode |= R_OK;
	if (access != O_RDONLY)
		mode |= W_OK;
	if (r->fd == INVENTORY_MAPPING && mode == R_OK) {
		exe = program(c->restored, r->pid);
		if (exe && exe->inode == r->inode && exe->device == r->device)
			return X_OK;
	}
	return mode;
}

static void note_question(struct comparison *c, const struct inventory_file *r)
{
	int mode = needed(c, r);

	if (mode)
		c->checks[c->n_checks++] =
			(struct access_check){.file = r, .mode = mode};
}

static void compare_deleted(struct comparison *c, const char *where,
			    const struct inventory_file *s,
			    const struct inventory_file *r)
{
	if (!s->deleted)
		report_line(&c->report, "%s: %s is deleted now", where, s->path);
	else if (!r->deleted || r->n_links)
		report_line(&c->report, "%s: %s was deleted, and stands there now",
			    where, s->path);
	else if (same_marks(c, where, s, r) && s->type == INVENTORY_FILE)
		(void)same_content(c, where, s, r);
}

static void compare_path(struct comparison *c, const char *where,
			 const struct inventory_file *s, const struct inventory_file *r)
{
	enum kinship k = kinship(c, s, r);

	if (s->deleted || r->deleted) {
		compare_deleted(c, where, s, r);
		return;
	}
	if (!r->fs) {
		report_line(&c->report, "%s: %s is on a mount outside of the space",
			    where, r->path);
		return;
	}
	if (k == NODES_OWN && !strcmp(s->path, r->path) &&
	    (c->same_node || same_file_system(c, s, r))) {
		report_line(&c->report, "%s: %s is another file (inode %ju, was %ju)",
			    where, s->path, (uintmax_t)r->inode, (uintmax_t)s->inode);
		return;
	}
	if (!same_marks(c, where, s, r))
		return;
	if (k == NODES_OWN && (is_writable(s) || s->type == INVENTORY_FIFO)) {
		report_line(&c->report, "%s: %s is this node's own, and %s", where,
			    s->path,
			    s->type == INVENTORY_FIFO ? "a fifo" : "open for writing");
		return;
	}
	if (s->type == INVENTORY_FILE &&
	    (k == NODES_OWN || (is_mapped(s) && !is_writable(s))) &&
	    !same_content(c, where, s, r))
		return;
	if (k != SAME_FILE)
		note_question(c, r);
}

static void compare_file(struct comparison *c, const struct inventory_file *s,
			 const struct inventory_file *r)
{
	char buf[INVENTORY_WHERE_MAX];
	const char *where = inventory_where(c->saved, s, buf);

	if (s->type != r->type)
		report_line(&c->report, "%s: %s %s is %s %s now", where,
			    type_name(s->type), s->path, type_name(r->type), r->path);
	else if (by_path(s))
		compare_path(c, where, s, r);
	else if (s->type == INVENTORY_DEVICE &&
		 (s->rdev != r->rdev || !inventory_plain_device(r)))
		report_line(&c->report, "%s: %s is another device now", where, s->path);
	else if (s->type == INVENTORY_ANON && strcmp(s->path, r->path) != 0)
		report_line(&c->report, "%s: %s is %s now", where, s->path, r->path);
}

static int compare_files_of(struct comparison *c)
{
	_cleanup_free_ const struct inventory_file **s = sorted(c->saved);
	_cleanup_free_ const struct inventory_file **r = sorted(c->restored);
	size_t a = 0, b = 0;
	char buf[INVENTORY_WHERE_MAX];

	if (!s || !r)
		return err_origin(-ENOMEM);
	while (a < c->saved->n_files || b < c->restored->n_files) {
		int way = a == c->saved->n_files      ? 1
			  : b == c->restored->n_files ? -1
						      : compare_keys(s[a], r[b]);

		if (way < 0)
			report_line(&c->report, "%s: %s is missing",
				    inventory_where(c->saved, s[a], buf), s[a]->path);
		else if (way > 0)
			report_line(&c->report, "%s: %s was not there",
				    inventory_where(c->restored, r[b], buf),
				    r[b]->path);
		else
			compare_file(c, s[a], r[b]);
		a += way <= 0;
		b += way >= 0;
	}
	return 0;
}

static void compare_task(struct comparison *c, const struct inventory_task *s,
			 const struct inventory_task *r)
{
	const char *what = s->uid != r->uid			? "user"
			   : s->gid != r->gid			? "group"
			   : s->ppid != r->ppid			? "parent"
			   : s->pgid != r->pgid			? "process group"
			   : s->sid != r->sid			? "session"
			   : s->n_threads != r->n_threads	? "number of threads"
			   : s->no_new_privs != r->no_new_privs ? "no_new_privs"
								: NULL;

	if (what)
		report_line(&c->report, "%d (%s): has another %s", s->pid, s->comm,
			    what);
}

static void compare_tasks(struct comparison *c)
{
	for (size_t k = 0; k < c->saved->n_tasks; k++) {
		const struct inventory_task *s = &c->saved->tasks[k];
		const struct inventory_task *r =
			inventory_find_task(c->restored, s->pid);

		if (r)
			compare_task(c, s, r);
		else
			report_line(&c->report, "%d (%s): is missing", s->pid, s->comm);
	}
	for (size_t k = 0; k < c->restored->n_tasks; k++) {
		const struct inventory_task *r = &c->restored->tasks[k];

		if (!inventory_find_task(c->saved, r->pid))
			report_line(&c->report, "%d (%s): was not there", r->pid,
				    r->comm);
	}
}

static void judge_answers(struct comparison *c)
{
	for (size_t k = 0; k < c->n_checks; k++) {
		const struct access_check *a = &c->checks[k];
		const struct inventory_task *t =
			inventory_find_task(c->restored, a->file->pid);
		char buf[INVENTORY_WHERE_MAX];
		const char *where = inventory_where(c->restored, a->file, buf);

		if (a->answer == ACCESS_DENIED)
			report_line(&c->report, "%s: user %u may not %s %s", where,
				    t ? t->uid : 0,
				    a->mode & W_OK   ? "write"
				    : a->mode & R_OK ? "read"
						     : "enter or run",
				    a->file->path);
		else if (a->answer == ACCESS_CHANGED)
			report_line(&c->report, "%s: %s changed meanwhile", where,
				    a->file->path);
	}
}

int inventory_compare_at(const struct inventory *saved,
			 const struct inventory *restored, int proc_fd, bool same_node,
			 char **ret_text)
{
	_cleanup_free_ struct access_check *checks =
		calloc(restored->n_files + 1, sizeof(*checks));
	struct comparison c = {.saved = saved,
			       .restored = restored,
			       .same_node = same_node,
			       .checks = checks};
	int r;

	if (!checks)
		return err_origin(-ENOMEM);
	compare_tasks(&c);
	r = compare_files_of(&c);
	/* A tree that is refused already is not asked about. */
	if (r == 0 && !c.report.n_lines)
		r = access_ask(proc_fd, checks, c.n_checks);
	else
		c.n_checks = 0;
	if (r == 0) {
		judge_answers(&c);
		r = report_done(&c.report, INVENTORY_E_DIFFERS, ret_text);
	}
	report_fini(&c.report);
	return r;
}
