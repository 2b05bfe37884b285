#include "inventory_internal.h"

#include "err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/*
 * What is in the way, all of it, a line a thing.  What is not known to work is refused:
 * anonymous inodes and devices pass by a list.
 *
 * UNIX sockets with a path are refused although CRIU can restore them: it unlinks
 * and binds the path as root, following what a user put in its way.
 */

enum { GHOST_MAX = 1 << 20 }; /* CRIU's own default for deleted files */

struct verdict {
	const struct inventory *i;
	const struct inventory_allow *allow;
	int proc_fd;
	struct report report;
	struct inventory_things *things; /* NULL: nobody asks */
};

static void refuse(struct verdict *v, const struct inventory_task *t,
		   const struct inventory_file *f, const char *where, const char *format,
		   va_list ap)
{
	_cleanup_free_ char *why = NULL;

	if (vasprintf(&why, format, ap) < 0) {
		why = NULL;
		v->report.error = err_origin(-ENOMEM);
		return;
	}
	report_line(&v->report, "%s: %s", where, why);
	if (v->things && !v->report.error)
		v->report.error = things_block(v->things, v->i, t, f, why);
}

static void refuse_file(struct verdict *v, const struct inventory_file *f,
			const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void refuse_file(struct verdict *v, const struct inventory_file *f,
			const char *format, ...)
{
	char where[INVENTORY_WHERE_MAX];
	va_list ap;

	va_start(ap, format);
	refuse(v, NULL, f, inventory_where(v->i, f, where), format, ap);
	va_end(ap);
}

static void refuse_task(struct verdict *v, const struct inventory_task *t,
			const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void refuse_task(struct verdict *v, const struct inventory_task *t,
			const char *format, ...)
{
	char where[INVENTORY_WHERE_MAX];
	va_list ap;

	if (inventory_is_away(t))
		(void)snprintf(where, sizeof(where), "%d, a child of %d", t->pid, t->ppid);
	else
		(void)snprintf(where, sizeof(where), "%d (%s)", t->pid, t->comm);
	va_start(ap, format);
	refuse(v, t, NULL, where, format, ap);
	va_end(ap);
}

static bool starts(const char *text, const char *with)
{
	return !strncmp(text, with, strlen(with));
}

static const char *anon_problem(const char *path)
{
	static const char *const fine[] = {
		"anon_inode:[eventfd]", "anon_inode:[eventpoll]",
		"anon_inode:[timerfd]", "anon_inode:[signalfd]",
		"anon_inode:inotify",	"anon_inode:[inotify]"};
	static const struct {
		const char *path, *name;
	} known[] = {
		{"anon_inode:[io_uring]", "io_uring"},
		{"anon_inode:[userfaultfd]", "userfaultfd"},
		{"anon_inode:[fanotify]", "fanotify"},
		{"anon_inode:[perf_event]", "perf event"},
		{"anon_inode:[pidfd]", "pidfd"},
		{"pidfd:", "pidfd"},
		{"anon_inode:bpf", "bpf object"},
		{"anon_inode:seccomp", "seccomp listener"},
	};

	for (size_t k = 0; k < N_ELEMENTS(fine); k++)
		if (!strcmp(path, fine[k]))
			return NULL;
	for (size_t k = 0; k < N_ELEMENTS(known); k++)
		if (starts(path, known[k].path))
			return known[k].name;
	return path;
}

bool inventory_plain_device(const struct inventory_file *f)
{
	return proc_plain_device(f->mode, f->rdev);
}

static void judge_path(struct verdict *v, const struct inventory_file *f)
{
	if (f->locked)
		refuse_file(v, f, "file lock on %s", f->path);
	if (f->deleted && starts(f->path, "/memfd:"))
		refuse_file(v, f, "memory file (memfd) %s", f->path + 7);
	else if (f->deleted && !f->fs && starts(f->path, "/SYSV"))
		refuse_file(v, f, "System V shared memory, key 0x%s", f->path + 5);
	else if (!f->fs)
		refuse_file(v, f, "%s is on a mount outside of the space", f->path);
	else if (f->deleted && f->n_links)
		refuse_file(v, f, "%s was deleted, but has another name", f->path);
	else if (f->deleted && f->type == INVENTORY_FILE && f->size > GHOST_MAX)
		refuse_file(v, f, "deleted file %s of %ju MiB, more than 1 MiB", f->path,
			    (uintmax_t)(f->size >> 20));
}

static void judge_file(struct verdict *v, const struct inventory_file *f)
{
	const char *problem;

	switch (f->type) {
	case INVENTORY_FILE:
	case INVENTORY_DIRECTORY:
	case INVENTORY_FIFO:
		judge_path(v, f);
		break;
	case INVENTORY_DEVICE:
		if (!inventory_plain_device(f))
			refuse_file(v, f, "device %s", f->path);
		else
			judge_path(v, f);
		break;
	case INVENTORY_TTY:
		refuse_file(v, f, "terminal %s", f->path);
		break;
	case INVENTORY_INET:
		refuse_file(v, f, "internet socket %s", f->path);
		break;
	case INVENTORY_SOCKET:
		refuse_file(v, f, "%s socket", f->path);
		break;
	case INVENTORY_UNIX:
		if (f->path[0] && f->path[0] != '@')
			refuse_file(v, f, "unix socket bound to %s", f->path);
		break;
	case INVENTORY_ANON:
		problem = anon_problem(f->path);
		if (problem)
			refuse_file(v, f, "%s", problem);
		break;
	case INVENTORY_PIPE:
		break;
	}
}

/* A lock that fdinfo tells nothing of, by its owner's PID: a mapping alone has its file, say. */
static int judge_locks(struct verdict *v)
{
	const struct inventory *i = v->i;
	_cleanup_buf_ struct buf b = {0};
	char *save = NULL;
	int e = proc_read(v->proc_fd, "locks", 64 << 20, &b);

	if (e < 0 || !b.len)
		return e == -ESRCH ? 0 : e;
	for (char *line = strtok_r((char *)b.data, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		const struct inventory_file *of = NULL;
		const struct inventory_task *t;
		unsigned long inode;
		unsigned ma, mi;
		bool told = false;
		int pid;

		/* "1: POSIX  ADVISORY  WRITE 71 08:01:1234 0 EOF"; waiting ones have
		 * "->" */
		if (sscanf(line, "%*d: %*s %*s %*s %d %x:%x:%lu", &pid, &ma, &mi,
			   &inode) != 4)
			continue;
		t = inventory_find_task(i, pid);
		for (size_t k = 0; t && k < i->n_files; k++) {
			if (i->files[k].inode != inode)
				continue;
			told |= i->files[k].locked;
			if (i->files[k].pid == pid)
				of = &i->files[k];
		}
		if (t && !told && of)
			refuse_file(v, of, "file lock on %s", of->path);
		else if (t && !told)
			refuse_task(v, t, "file lock on inode %lu of %u:%u", inode, ma, mi);
	}
	return 0;
}

static void judge_namespaces(struct verdict *v, const struct inventory_task *t)
{
	/* Not time: CRIU puts what it restores into a new one. */
	static const char *const names[] = {"cgroup", "ipc", "mnt",
					    "net",    "pid", "pid_for_children",
					    "user",   "uts"};

	for (size_t k = 0; k < N_ELEMENTS(names); k++) {
		char path[64], ours[64], its[64];
		int e;

		(void)snprintf(path, sizeof(path), "%d/ns/%s", t->pid, names[k]);
		e = proc_link(v->proc_fd, path, its, sizeof(its));
		if (proc_gone(e))
			return;
		(void)snprintf(path, sizeof(path), "1/ns/%s", names[k]);
		if (e == 0)
			e = proc_link(v->proc_fd, path, ours, sizeof(ours));
		if (e < 0 || strcmp(ours, its) != 0)
			refuse_task(v, t, "%s namespace is not the space's", names[k]);
	}
}

/* Of one thread: its filters, or FILTERS_STRICT; 0 if it is gone. */
enum { FILTERS_STRICT = 1 << 30 };

static unsigned count_filters(int proc_fd, pid_t pid, pid_t tid)
{
	_cleanup_buf_ struct buf b = {0};
	const char *mode, *n;
	char path[64];

	(void)snprintf(path, sizeof(path), "%d/task/%d/status", pid, tid);
	if (proc_read(proc_fd, path, 1 << 20, &b) < 0 || !b.len)
		return 0;
	mode = proc_field((char *)b.data, "Seccomp:");
	n = proc_field((char *)b.data, "Seccomp_filters:");
	if (mode && strtoul(mode, NULL, 10) == 1)
		return FILTERS_STRICT;
	return n ? (unsigned)strtoul(n, NULL, 10) : 0;
}

/* The image holds none, see image_core_strip(): more than are there by birth would be lost. */
static int judge_filters(struct verdict *v, const struct inventory_task *t,
			 unsigned by_birth)
{
	_cleanup_free_ int *threads = NULL;
	size_t n = 0;
	char path[64];
	int e;

	(void)snprintf(path, sizeof(path), "%d/task", t->pid);
	e = proc_numbers(v->proc_fd, path, 1 << 20, &threads, &n);
	if (e < 0)
		return proc_gone(e) ? 0 : e;
	for (size_t k = 0; k < n; k++)
		if (count_filters(v->proc_fd, t->pid, threads[k]) > by_birth) {
			refuse_task(v, t, "has seccomp filters of its own");
			break;
		}
	return 0;
}

/* What must not have an end elsewhere. */
struct ends {
	struct holder *holders;
	size_t n;
};

static void want(struct ends *e, enum inventory_type type, dev_t device, ino_t inode)
{
	e->holders[e->n++] =
		(struct holder){.type = type, .device = device, .inode = inode};
}

static bool in_tree(const struct inventory *i, ino_t inode)
{
	for (size_t k = 0; k < i->n_files; k++)
		if (i->files[k].type == INVENTORY_UNIX && i->files[k].inode == inode)
			return true;
	return false;
}

/* @peers[k] of file k: a UNIX socket of another process, 0: none. */
static void find_peers(const struct inventory *i, ino_t *peers)
{
	_cleanup_close_ int diag = -1;

	for (size_t k = 0; k < i->n_files; k++) {
		ino_t peer = 0;

		if (i->files[k].type != INVENTORY_UNIX)
			continue;
		if (diag < 0)
			diag = socket_diag_open();
		/* Without the kernel's answer CRIU decides. */
		if (diag >= 0 &&
		    socket_unix_peer(diag, i->files[k].inode, &peer) == 0 && peer &&
		    !in_tree(i, peer))
			peers[k] = peer;
	}
}

static void judge_end(struct verdict *v, const struct inventory_file *f,
		      const struct ends *e, ino_t peer)
{
	dev_t device = f->type == INVENTORY_FIFO ? f->device : 0;
	const struct holder *h =
		holders_get(e->holders, e->n, f->type, device, peer ? peer : f->inode);
	const char *what = f->type == INVENTORY_PIPE   ? "pipe"
			   : f->type == INVENTORY_UNIX ? "unix socket"
						       : f->path;

	if (h && h->pid)
		refuse_file(v, f, "%s to %d (%s), which stays", what, h->pid, h->comm);
	else if (peer)
		refuse_file(v, f, "unix socket to a process outside of the space");
}

static int judge_ends(struct verdict *v)
{
	const struct inventory *i = v->i;
	_cleanup_free_ ino_t *peers = calloc(i->n_files + 1, sizeof(*peers));
	_cleanup_free_ struct holder *holders =
		calloc(i->n_files + 1, sizeof(*holders));
	struct ends e = {.holders = holders};
	int err;

	if (!peers || !holders)
		return err_origin(-ENOMEM);
	find_peers(i, peers);
	for (size_t k = 0; k < i->n_files; k++) {
		const struct inventory_file *f = &i->files[k];

		if (f->type == INVENTORY_PIPE && !inventory_is_allowed(v->allow, f))
			want(&e, f->type, 0, f->inode);
		else if (f->type == INVENTORY_FIFO)
			want(&e, f->type, f->device, f->inode);
		else if (peers[k])
			want(&e, INVENTORY_UNIX, 0, peers[k]);
	}
	err = holders_find(i, v->proc_fd, e.holders, e.n);
	if (err < 0)
		return err;
	for (size_t k = 0; k < i->n_files; k++)
		if ((i->files[k].type == INVENTORY_PIPE ||
		     i->files[k].type == INVENTORY_FIFO || peers[k]) &&
		    !inventory_is_away(inventory_find_task(i, i->files[k].pid)))
			judge_end(v, &i->files[k], &e, peers[k]);
	return 0;
}

static void judge_capabilities(struct verdict *v, const struct inventory_task *t)
{
	uint32_t lacks = v->allow ? v->allow->capabilities &
					    ~t->capabilities.of[CAPABILITY_EFFECTIVE] :
				    0;

	if (lacks)
		refuse_task(v, t, "lacks the capability %s, see ssi-capset",
			    capability_name((enum capability)__builtin_ctz(lacks)));
}

static int judge(struct verdict *v)
{
	unsigned by_birth =
		count_filters(v->proc_fd, 1, 1) + (v->allow && v->allow->bound);
	const struct inventory *i = v->i;
	int e = 0;

	for (size_t k = 0; e == 0 && k < i->n_tasks; k++) {
		const struct inventory_task *t = &i->tasks[k];

		if (inventory_is_away(t)) {
			refuse_task(v, t, "runs on another node");
			continue;
		}
		if (t->tracer)
			refuse_task(v, t, "traced by %d", t->tracer);
		if (t->ended) {
			refuse_task(v, t,
				    "has ended, and its parent did not wait for it yet");
			continue;
		}
		judge_capabilities(v, t);
		judge_namespaces(v, t);
		e = judge_filters(v, t, by_birth);
	}
	if (e < 0)
		return e;
	for (size_t k = 0; k < i->n_files; k++)
		if (!inventory_is_away(inventory_find_task(i, i->files[k].pid)))
			judge_file(v, &i->files[k]);
	e = judge_locks(v);
	return e < 0 ? e : judge_ends(v);
}

int inventory_verdict_at(const struct inventory *i, const struct inventory_allow *allow,
			 int proc_fd, char **ret_text,
			 struct inventory_things **ret_things)
{
	_cleanup_(inventory_things_freep) struct inventory_things *things = NULL;
	struct verdict v = {.i = i, .allow = allow, .proc_fd = proc_fd};
	int e = ret_things ? things_new(&things, i, allow, proc_fd) : 0;

	v.things = things;
	if (e == 0)
		e = judge(&v);
	if (e == 0)
		e = report_done(&v.report, INVENTORY_E_BLOCKED, ret_text);
	report_fini(&v.report);
	if (e >= 0 && ret_things)
		*ret_things = TAKE(things);
	return e;
}
