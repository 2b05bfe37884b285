#include "inventory_internal.h"

#include "err.h"

#include <stdio.h>
#include <string.h>

/*
 * Happy path: from the root down, breadth first, by /proc/PID/task/TID/children;
 * of each task its status, then its program, directories, descriptors and mappings
 * (inventory_file.c).  Exact for a frozen tree.  Of a running one a task
 * that ends on the way is left out, and a change is missed: a forecast.
 *
 * Failure modes: the root is gone: -ESRCH.  Beyond a limit: -E2BIG.
 */

struct queue {
	struct {
		pid_t pid, parent;
	} * entries;
	size_t n;
};

static int enqueue(struct queue *q, pid_t pid, pid_t parent)
{
	void *p;

	/* A task that was handed to another parent meanwhile is listed twice. */
	for (size_t k = 0; k < q->n; k++)
		if (q->entries[k].pid == pid)
			return 0;
	if (q->n >= INVENTORY_TASKS_MAX)
		return err_origin(-E2BIG);
	p = reallocarray(q->entries, q->n + 1, sizeof(*q->entries));
	if (!p)
		return err_origin(-ENOMEM);
	q->entries = p;
	q->entries[q->n].pid = pid;
	q->entries[q->n++].parent = parent;
	return 0;
}

static int enqueue_children(int proc_fd, struct queue *q, pid_t pid)
{
	_cleanup_free_ int *threads = NULL;
	size_t n_threads = 0;
	char path[64];
	int r;

	(void)snprintf(path, sizeof(path), "%d/task", pid);
	r = proc_numbers(proc_fd, path, 1 << 20, &threads, &n_threads);
	for (size_t k = 0; k < n_threads && r == 0; k++) {
		_cleanup_buf_ struct buf b = {0};
		char *p, *end;

		(void)snprintf(path, sizeof(path), "%d/task/%d/children", pid,
			       threads[k]);
		r = proc_read(proc_fd, path, 1 << 20, &b);
		if (r == -ESRCH) {
			r = 0;
			continue;
		}
		for (p = (char *)b.data; r == 0 && b.len && *p; p = end) {
			pid_t child = (pid_t)strtol(p, &end, 10);

			if (end == p)
				break;
			r = enqueue(q, child, pid);
		}
	}
	return r;
}

static bool number(const char *text, const char *key, unsigned long *ret)
{
	const char *p = proc_field(text, key);

	if (!p)
		return false;
	*ret = strtoul(p, NULL, 10);
	return true;
}

static int read_status(int proc_fd, struct inventory_task *t)
{
	_cleanup_buf_ struct buf b = {0};
	unsigned long threads, tracer, seccomp = 0, no_new_privs = 0, rss = 0;
	unsigned long anon = 0, shmem = 0, swap = 0;
	const char *uid, *gid, *state, *text;
	char path[32];
	int r;

	(void)snprintf(path, sizeof(path), "%d/status", t->pid);
	r = proc_read(proc_fd, path, 1 << 20, &b);
	if (r < 0)
		return r;
	text = (char *)b.data;
	if (!b.len)
		return -ESRCH;
	uid = proc_field(text, "Uid:");
	gid = proc_field(text, "Gid:");
	state = proc_field(text, "State:");
	if (!uid || !gid || !state || sscanf(uid, "%*u %u", &t->uid) != 1 ||
	    sscanf(gid, "%*u %u", &t->gid) != 1 ||
	    !number(text, "Threads:", &threads) || !number(text, "TracerPid:", &tracer))
		return err_origin(-EBADMSG);
	(void)number(text, "Seccomp:", &seccomp);
	(void)number(text, "NoNewPrivs:", &no_new_privs);
	(void)number(text, "VmRSS:", &rss);
	(void)number(text, "RssAnon:", &anon);
	(void)number(text, "RssShmem:", &shmem);
	(void)number(text, "VmSwap:", &swap);
	t->n_threads = threads;
	t->ended = state[strspn(state, " \t")] == 'Z';
	t->tracer = (pid_t)tracer;
	t->seccomp = seccomp;
	t->no_new_privs = no_new_privs;
	t->rss_bytes = (uint64_t)rss * 1024;
	t->own_bytes = ((uint64_t)anon + shmem + swap) * 1024;
	return 0;
}

/* "71 (a name) S 1 71 71 ...": the name may hold anything. */
static int read_stat(int proc_fd, struct inventory_task *t)
{
	_cleanup_buf_ struct buf b = {0};
	char path[32], *open, *close;
	int r;

	(void)snprintf(path, sizeof(path), "%d/stat", t->pid);
	r = proc_read(proc_fd, path, 1 << 16, &b);
	if (r < 0)
		return r;
	open = b.len ? strchr((char *)b.data, '(') : NULL;
	close = b.len ? strrchr((char *)b.data, ')') : NULL;
	if (!open || !close || close < open)
		return err_origin(-EBADMSG);
	(void)snprintf(t->comm, sizeof(t->comm), "%.*s", (int)(close - open - 1),
		       open + 1);
	if (sscanf(close + 1, " %*c %*d %d %d", &t->pgid, &t->sid) != 2)
		return err_origin(-EBADMSG);
	return 0;
}

static int take_one(struct inventory_take *k, pid_t pid, pid_t parent)
{
	struct inventory_task t = {
		.pid = pid, .ppid = parent, .capabilities = capability_initial(false)};
	int r = read_stat(k->proc_fd, &t);

	if (r == 0)
		r = read_status(k->proc_fd, &t);
	if (r == 0)
		r = inventory_add_task(k->i, &t);
	if (r == 0)
		r = inventory_take_files(k, pid);
	return r;
}

/* The space's root as links of /proc show it to us: "" if it is ours too. */
static int read_prefix(int root_fd, int proc_fd, char *ret, size_t size)
{
	char path[64];
	int r;

	(void)snprintf(path, sizeof(path), "self/fd/%d", root_fd);
	r = proc_link(proc_fd, path, ret, size);
	if (r < 0)
		return err_origin(r);
	if (!strcmp(ret, "/"))
		*ret = '\0';
	return 0;
}

int inventory_take_at(struct inventory **ret, int root_fd, int proc_fd, pid_t root)
{
	_cleanup_(inventory_freep) struct inventory *i = calloc(1, sizeof(*i));
	_cleanup_(mount_table_freep) struct mount_table *mounts = NULL;
	_cleanup_(socket_table_freep) struct socket_table *sockets = NULL;
	struct inventory_take k = {
		.root_fd = root_fd, .proc_fd = proc_fd, .root = root, .i = i};
	struct queue q = {0};
	unsigned none;
	int r;

	if (!i)
		return err_origin(-ENOMEM);
	r = read_prefix(root_fd, proc_fd, k.prefix, sizeof(k.prefix));
	if (r == 0)
		r = mount_table_new(&mounts, proc_fd);
	if (r == 0)
		r = inventory_add_file_system(i, "none", &none);
	if (r == 0)
		r = enqueue(&q, root, 0);
	k.mounts = mounts;
	k.sockets = &sockets;
	for (size_t n = 0; n < q.n && r == 0; n++) {
		r = take_one(&k, q.entries[n].pid, q.entries[n].parent);
		if (r == 0)
			r = enqueue_children(proc_fd, &q, q.entries[n].pid);
		if (r == -ESRCH && n)
			r = 0;
	}
	free(q.entries);
	if (r < 0)
		return r;
	*ret = TAKE(i);
	return 0;
}
