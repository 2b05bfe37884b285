#include "inventory_internal.h"

#include "err.h"

#include <stdio.h>
#include <string.h>

/*
 * What becomes of each thing that a tree holds.
 *
 * Happy path: all of them are listed as what moves, or is forwarded; the verdict then
 * marks what is in the way, and so does what the target says of its files.  So the
 * list cannot say that something moves of which the verdict, which a move asks, says
 * that it does not.
 */

enum { THINGS_TEXT_MAX = 384 << 10, THING_OVERHEAD = 32 };

static void thing_fini(struct inventory_thing *t)
{
	free(t->what);
	free(t->is);
	free(t->why);
}

struct inventory_things *inventory_things_free(struct inventory_things *t)
{
	if (!t)
		return NULL;
	for (size_t k = 0; k < t->n; k++)
		thing_fini(&t->list[k]);
	free(t->list);
	free(t);
	return NULL;
}

/* Takes @owned_is, which may be NULL for want of memory. */
static int add(struct inventory_things *t, pid_t pid, enum inventory_fate fate,
	       const char *what, char *owned_is, const char *why)
{
	struct inventory_thing thing = {.pid = pid, .fate = fate, .is = owned_is};
	struct inventory_thing *p = t->list;

	if (t->n == t->room) {
		t->room = t->room ? 2 * t->room : 64;
		p = reallocarray(t->list, t->room, sizeof(*p));
		if (p)
			t->list = p;
	}
	thing.what = strdup(what);
	thing.why = strdup(why);
	if (!p || !thing.what || !thing.why || !thing.is) {
		thing_fini(&thing);
		return err_origin(-ENOMEM);
	}
	report_clean(thing.is);
	report_clean(thing.why);
	p[t->n++] = thing;
	return 0;
}

int things_add(struct inventory_things *t, pid_t pid, const char *what, const char *is,
	       const char *why)
{
	return add(t, pid, INVENTORY_BLOCKS, what, strdup(is), why);
}

static char *print(const char *format, ...) __attribute__((format(printf, 1, 2)));

static char *print(const char *format, ...)
{
	va_list ap;
	char *text;
	int n;

	va_start(ap, format);
	n = vasprintf(&text, format, ap);
	va_end(ap);
	return n < 0 ? NULL : text;
}

char *thing_is(const struct inventory_file *f)
{
	static const char *const names[] = {
		[INVENTORY_FILE] = "file",	  [INVENTORY_DIRECTORY] = "directory",
		[INVENTORY_PIPE] = "pipe",	  [INVENTORY_FIFO] = "fifo",
		[INVENTORY_UNIX] = "unix socket", [INVENTORY_INET] = "internet socket",
		[INVENTORY_SOCKET] = "socket",	  [INVENTORY_TTY] = "terminal",
		[INVENTORY_DEVICE] = "device",
	};
	static const char anon[] = "anon_inode:";

	if (f->type == INVENTORY_ANON)
		return strdup(strncmp(f->path, anon, strlen(anon))
				      ? f->path
				      : f->path + strlen(anon));
	return print("%s%s%s%s", f->deleted ? "deleted " : "", names[f->type],
		     f->path[0] ? " " : "", f->path);
}

static const char *what_is_done(const struct inventory_file *f)
{
	switch (f->type) {
	case INVENTORY_FILE:
		return f->deleted ? "its content is sent" : "opened by its path";
	case INVENTORY_DIRECTORY:
	case INVENTORY_FIFO:
	case INVENTORY_DEVICE:
		return "opened by its path";
	case INVENTORY_PIPE:
	case INVENTORY_UNIX:
		return "sent with what is in it";
	default:
		return "made again as it is";
	}
}

static int add_file(struct inventory_things *t, const struct inventory_allow *allow,
		    const struct inventory_file *f)
{
	char what[INVENTORY_WHAT_MAX];
	bool stays = inventory_is_allowed(allow, f);

	return add(t, f->pid, stays ? INVENTORY_FORWARDED : INVENTORY_MOVES,
		   inventory_what(f, what), thing_is(f),
		   stays ? "a stream leads to its other end" : what_is_done(f));
}

/* "ID: 0", a line of each. */
static int add_timers(struct inventory_things *t, pid_t pid, int proc_fd)
{
	_cleanup_buf_ struct buf b = {0};
	char path[32], what[32];
	char *save = NULL;
	unsigned id;
	int r;

	(void)snprintf(path, sizeof(path), "%d/timers", pid);
	r = proc_read(proc_fd, path, 16 << 20, &b);
	if (r < 0 || !b.len)
		return r == -ESRCH ? 0 : r;
	r = 0;
	for (char *line = strtok_r((char *)b.data, "\n", &save); line && r == 0;
	     line = strtok_r(NULL, "\n", &save)) {
		if (sscanf(line, "ID: %u", &id) != 1)
			continue;
		(void)snprintf(what, sizeof(what), "timer %u", id);
		r = add(t, pid, INVENTORY_MOVES, what, strdup("POSIX timer"),
			"goes on as it stands");
	}
	return r;
}

/* Of the root: it stays, and waits for a shadow. */
static int add_parent(struct inventory_things *t, pid_t root, int proc_fd)
{
	_cleanup_buf_ struct buf b = {0};
	const char *parent;
	char path[32];
	pid_t pid;
	int r;

	(void)snprintf(path, sizeof(path), "%d/status", root);
	r = proc_read(proc_fd, path, 1 << 20, &b);
	parent = r == 0 && b.len ? proc_field((char *)b.data, "PPid:") : NULL;
	pid = parent ? (pid_t)strtol(parent, NULL, 10) : 0;
	if (pid < FIRST_PROGRAM)
		return r == -ESRCH ? 0 : r;
	return add(t, root, INVENTORY_FORWARDED, "parent", print("process %d", pid),
		   "it stays, and has a shadow in the place of its child");
}

static int add_task(struct inventory_things *t, const struct inventory_task *task)
{
	const char *threads = task->n_threads == 1 ? "thread" : "threads";
	int r = add(t, task->pid, INVENTORY_MOVES, "process",
		    print("%s, %u %s", task->comm, task->n_threads, threads),
		    "under the same PID");

	if (r == 0 && !inventory_is_away(task) && !task->ended)
		r = add(t, task->pid, INVENTORY_MOVES, "memory",
			print("%ju KiB of its own", (uintmax_t)(task->own_bytes >> 10)),
			"sent");
	return r;
}

int things_new(struct inventory_things **ret, const struct inventory *i,
	       const struct inventory_allow *allow, int proc_fd)
{
	_cleanup_(inventory_things_freep) struct inventory_things *t =
		calloc(1, sizeof(*t));
	int r = t ? 0 : err_origin(-ENOMEM);

	for (size_t k = 0; k < i->n_tasks && r == 0; k++)
		r = add_task(t, &i->tasks[k]);
	if (r == 0)
		r = add_parent(t, i->tasks[0].pid, proc_fd);
	for (size_t k = 0; k < i->n_files && r == 0; k++)
		if (!inventory_is_away(inventory_find_task(i, i->files[k].pid)))
			r = add_file(t, allow, &i->files[k]);
	for (size_t k = 0; k < i->n_tasks && r == 0; k++)
		r = add_timers(t, i->tasks[k].pid, proc_fd);
	if (r == 0)
		*ret = TAKE(t);
	return r;
}

/* One reason more. */
static int block(struct inventory_thing *t, const char *why)
{
	char *text = t->fate == INVENTORY_BLOCKS ? print("%s; %s", t->why, why)
						 : strdup(why);

	if (!text)
		return err_origin(-ENOMEM);
	report_clean(text);
	free(t->why);
	t->why = text;
	t->fate = INVENTORY_BLOCKS;
	return 0;
}

int things_block(struct inventory_things *t, const struct inventory *i,
		 const struct inventory_task *task, const struct inventory_file *file,
		 const char *why)
{
	pid_t pid = task ? task->pid : file->pid;
	_cleanup_free_ char *is = file ? thing_is(file) : NULL;
	char buf[INVENTORY_WHAT_MAX];
	const char *what = task ? "process" : inventory_what(file, buf);

	if (file && !is)
		return err_origin(-ENOMEM);
	if (file)
		report_clean(is);
	/* Most come in the order of the list. */
	for (size_t k = 0; k < t->n; k++, t->at = (t->at + 1) % t->n)
		if (t->list[t->at].pid == pid && !strcmp(t->list[t->at].what, what) &&
		    (task || !strcmp(t->list[t->at].is, is)))
			return block(&t->list[t->at], why);
	return 0;
}

static int by_name(const void *a, const void *b)
{
	const struct inventory_thing *x = *(struct inventory_thing *const *)a;
	const struct inventory_thing *y = *(struct inventory_thing *const *)b;

	return strcmp(x->is, y->is);
}

int inventory_things_mark(struct inventory_things *t,
			  const struct inventory_things *theirs)
{
	_cleanup_free_ const struct inventory_thing **names =
		calloc(theirs->n + 1, sizeof(*names));
	int r = names ? 0 : err_origin(-ENOMEM);

	for (size_t k = 0; r == 0 && k < theirs->n; k++)
		names[k] = &theirs->list[k];
	if (r == 0)
		qsort(names, theirs->n, sizeof(*names), by_name);
	for (size_t k = 0; r == 0 && k < t->n; k++) {
		const struct inventory_thing *mine = &t->list[k];
		const struct inventory_thing **found =
			bsearch(&mine, names, theirs->n, sizeof(*names), by_name);

		if (found)
			r = block(&t->list[k], (*found)->why);
	}
	return r;
}

void inventory_things_cut(struct inventory_things *t)
{
	/* What blocks has a place of its own. */
	size_t left[2] = {THINGS_TEXT_MAX, THINGS_TEXT_MAX}, kept = 0;

	for (size_t k = 0; k < t->n; k++) {
		struct inventory_thing *thing = &t->list[k];
		size_t size = strlen(thing->what) + strlen(thing->is) +
			      strlen(thing->why) + THING_OVERHEAD;
		size_t *of = &left[thing->fate == INVENTORY_BLOCKS];

		if (size > *of) {
			thing_fini(thing);
			t->n_more++;
			continue;
		}
		*of -= size;
		t->list[kept++] = *thing;
	}
	t->n = kept;
}
