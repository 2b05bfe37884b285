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

static void judge_path(struct report *r, const char *where,
		       const struct inventory_file *f)
{
	if (f->locked)
		report_line(r, "%s: file lock on %s", where, f->path);
	if (f->deleted && starts(f->path, "/memfd:"))
		report_line(r, "%s: memory file (memfd) %s", where, f->path + 7);
	else if (f->deleted && !f->fs && starts(f->path, "/SYSV"))
		report_line(r, "%s: System V shared memory, key 0x%s", where,
			    f->path + 5);
	else if (!f->fs)
		report_line(r, "%s: %s is on a mount outside of the space", where,
			    f->path);
	else if (f->deleted && f->n_links)
		report_line(r, "%s: %s was deleted, but has another name", where,
			    f->path);
	else if (f->deleted && f->type == INVENTORY_FILE && f->size > GHOST_MAX)
		report_line(r, "%s: deleted file %s of %ju MiB, more than 1 MiB", where,
			    f->path, (uintmax_t)(f->size >> 20));
}

static void judge_file(struct report *r, const struct inventory *i,
		       const struct inventory_file *f)
{
	char buf[INVENTORY_WHERE_MAX];
	const char *where = inventory_where(i, f, buf), *problem;

	switch (f->type) {
	case INVENTORY_FILE:
	case INVENTORY_DIRECTORY:
	case INVENTORY_FIFO:
		judge_path(r, where, f);
		break;
	case INVENTORY_DEVICE:
		if (!inventory_plain_device(f))
			report_line(r, "%s: device %s", where, f->path);
		else
			judge_path(r, where, f);
		break;
	case INVENTORY_TTY:
		report_line(r, "%s: terminal %s", where, f->path);
		break;
	case INVENTORY_INET:
		report_line(r, "%s: internet socket %s", where, f->path);
		break;
	case INVENTORY_SOCKET:
		report_line(r, "%s: %s socket", where, f->path);
		break;
	case INVENTORY_UNIX:
		if (f->path[0] && f->path[0] != '@')
			report_line(r, "%s: unix socket bound to %s", where, f->path);
		break;
	case INVENTORY_ANON:
		problem = anon_problem(f->path);
		if (problem)
			report_line(r, "%s: %s", where, problem);
		break;
	case INVENTORY_PIPE:
		break;
	}
}

/* A lock that fdinfo tells nothing of, by its owner's PID. */
static int judge_locks(struct report *r, const struct inventory *i, int proc_fd)
{
	_cleanup_buf_ struct buf b = {0};
	char *save = NULL;
	int e = proc_read(proc_fd, "locks", 64 << 20, &b);

	if (e < 0 || !b.len)
		return e == -ESRCH ? 0 : e;
	for (char *line = strtok_r((char *)b.data, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
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
		for (size_t k = 0; t && k < i->n_files; k++)
			told |= i->files[k].locked && i->files[k].inode == inode;
		if (t && !told)
			report_line(r, "%d (%s): file lock on inode %lu of %u:%u", pid,
				    t->comm, inode, ma, mi);
	}
	return 0;
}

static void judge_namespaces(struct report *r, const struct inventory_task *t,
			     int proc_fd)
{
	/* Not time: CRIU puts what it restores into a new one. */
	static const char *const names[] = {"cgroup", "ipc", "mnt",
					    "net",    "pid", "pid_for_children",
					    "user",   "uts"};

	for (size_t k = 0; k < N_ELEMENTS(names); k++) {
		char path[64], ours[64], its[64];
		int e;

		(void)snprintf(path, sizeof(path), "%d/ns/%s", t->pid, names[k]);
		e = proc_link(proc_fd, path, its, sizeof(its));
		if (proc_gone(e))
			return;
		(void)snprintf(path, sizeof(path), "1/ns/%s", names[k]);
		if (e == 0)
			e = proc_link(proc_fd, path, ours, sizeof(ours));
		if (e < 0 || strcmp(ours, its) != 0)
			report_line(r, "%d (%s): %s namespace is not the space's",
				    t->pid, t->comm, names[k]);
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
static int judge_filters(struct report *r, const struct inventory_task *t, int proc_fd,
			 unsigned by_birth)
{
	_cleanup_free_ int *threads = NULL;
	size_t n = 0;
	char path[64];
	int e;

	(void)snprintf(path, sizeof(path), "%d/task", t->pid);
	e = proc_numbers(proc_fd, path, 1 << 20, &threads, &n);
	if (e < 0)
		return proc_gone(e) ? 0 : e;
	for (size_t k = 0; k < n; k++)
		if (count_filters(proc_fd, t->pid, threads[k]) > by_birth) {
			report_line(r, "%d (%s): has seccomp filters of its own", t->pid,
				    t->comm);
			break;
		}
	return 0;
}

/* What must not have an end elsewhere. */
struct ends {
	struct holder *holders;
	size_t n;
};

static bool is_allowed(const struct inventory_allow *allow, ino_t inode)
{
	for (size_t k = 0; allow && k < allow->n_pipes; k++)
		if (allow->pipes[k] == inode)
			return true;
	return false;
}

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

static void judge_end(struct report *r, const struct inventory *i,
		      const struct inventory_file *f, const struct ends *e, ino_t peer)
{
	dev_t device = f->type == INVENTORY_FIFO ? f->device : 0;
	char buf[INVENTORY_WHERE_MAX];
	const char *where = inventory_where(i, f, buf);
	const struct holder *h =
		holders_get(e->holders, e->n, f->type, device, peer ? peer : f->inode);
	const char *what = f->type == INVENTORY_PIPE   ? "pipe"
			   : f->type == INVENTORY_UNIX ? "unix socket"
						       : f->path;

	if (h && h->pid)
		report_line(r, "%s: %s to %d (%s), which stays", where, what, h->pid,
			    h->comm);
	else if (peer)
		report_line(r, "%s: unix socket to a process outside of the space",
			    where);
}

/* A shadow, which does not say what its process holds. */
static bool is_away(const struct inventory_task *t)
{
	return t && t->tracer && !strcmp(t->comm, "ssi-shadow");
}

static int judge_ends(struct report *r, const struct inventory *i,
		      const struct inventory_allow *allow, int proc_fd)
{
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

		if (f->type == INVENTORY_PIPE && !is_allowed(allow, f->inode))
			want(&e, f->type, 0, f->inode);
		else if (f->type == INVENTORY_FIFO)
			want(&e, f->type, f->device, f->inode);
		else if (peers[k])
			want(&e, INVENTORY_UNIX, 0, peers[k]);
	}
	err = holders_find(i, proc_fd, e.holders, e.n);
	if (err < 0)
		return err;
	for (size_t k = 0; k < i->n_files; k++)
		if ((i->files[k].type == INVENTORY_PIPE ||
		     i->files[k].type == INVENTORY_FIFO || peers[k]) &&
		    !is_away(inventory_find_task(i, i->files[k].pid)))
			judge_end(r, i, &i->files[k], &e, peers[k]);
	return 0;
}

int inventory_verdict_at(const struct inventory *i, const struct inventory_allow *allow,
			 int proc_fd, char **ret_text)
{
	unsigned by_birth = count_filters(proc_fd, 1, 1) + (allow && allow->bound);
	_cleanup_(report_fini) struct report r = {0};
	int e = 0;

	for (size_t k = 0; e == 0 && k < i->n_tasks; k++) {
		const struct inventory_task *t = &i->tasks[k];

		if (is_away(t)) {
			report_line(&r, "%d, a child of %d: runs on another node", t->pid, t->ppid);
			continue;
		}
		if (t->tracer)
			report_line(&r, "%d (%s): traced by %d", t->pid, t->comm,
				    t->tracer);
		if (t->ended) {
			report_line(&r, "%d (%s): has ended, and its parent did not wait for it yet",
				    t->pid, t->comm);
			continue;
		}
		judge_namespaces(&r, t, proc_fd);
		e = judge_filters(&r, t, proc_fd, by_birth);
	}
	if (e < 0)
		return e;
	for (size_t k = 0; k < i->n_files; k++)
		if (!is_away(inventory_find_task(i, i->files[k].pid)))
			judge_file(&r, i, &i->files[k]);
	e = judge_locks(&r, i, proc_fd);
	if (e == 0)
		e = judge_ends(&r, i, allow, proc_fd);
	return e < 0 ? e : report_done(&r, INVENTORY_E_BLOCKED, ret_text);
}
