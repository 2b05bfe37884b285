#include "inventory_internal.h"

#include "err.h"

#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

/*
 * Who else holds the other end: every descriptor of every process of the space
 * that is not in the tree is read once (a readlink each).  A process that keeps
 * its descriptors from us, or is none of the space's, is not seen; CRIU then says so.
 */

enum { PROCESSES_MAX = 4 << 20, DESCRIPTORS_MAX = 1 << 20 };

static int compare_holders(const void *a, const void *b)
{
	const struct holder *x = a, *y = b;

	if (x->type != y->type)
		return x->type < y->type ? -1 : 1;
	if (x->device != y->device)
		return x->device < y->device ? -1 : 1;
	return (x->inode > y->inode) - (x->inode < y->inode);
}

struct holder *holders_get(struct holder *holders, size_t n, enum inventory_type type,
			   dev_t device, ino_t inode)
{
	struct holder key = {.type = type, .device = device, .inode = inode};

	return n ? bsearch(&key, holders, n, sizeof(key), compare_holders) : NULL;
}

static void read_comm(int proc_fd, pid_t pid, char comm[static 17])
{
	_cleanup_buf_ struct buf b = {0};
	char path[32];

	(void)snprintf(path, sizeof(path), "%d/comm", pid);
	if (proc_read(proc_fd, path, 64, &b) < 0 || !b.len)
		(void)snprintf(comm, 17, "?");
	else
		(void)snprintf(comm, 17, "%.*s", (int)strcspn((char *)b.data, "\n"),
			       (char *)b.data);
}

static struct holder *match(int proc_fd, const char *path, bool fifos,
			    struct holder *holders, size_t n)
{
	char text[64];
	unsigned long inode;
	struct statx st;
	int r = proc_link(proc_fd, path, text, sizeof(text));

	if (r == 0 && sscanf(text, "pipe:[%lu]", &inode) == 1)
		return holders_get(holders, n, INVENTORY_PIPE, 0, inode);
	if (r == 0 && sscanf(text, "socket:[%lu]", &inode) == 1)
		return holders_get(holders, n, INVENTORY_UNIX, 0, inode);
	if (!fifos || (r < 0 && r != -ENAMETOOLONG) || text[0] != '/' ||
	    proc_stat(proc_fd, path, 0, &st) < 0)
		return NULL;
	return holders_get(holders, n, INVENTORY_FIFO,
			   makedev(st.stx_dev_major, st.stx_dev_minor), st.stx_ino);
}

static int search_process(int proc_fd, pid_t pid, bool fifos, struct holder *holders,
			  size_t n)
{
	_cleanup_free_ int *fds = NULL;
	size_t n_fds = 0;
	char path[64];
	int r;

	(void)snprintf(path, sizeof(path), "%d/fd", pid);
	r = proc_numbers(proc_fd, path, DESCRIPTORS_MAX, &fds, &n_fds);
	if (r == -ESRCH || r == -EACCES)
		return 0;
	if (r < 0)
		return r;
	for (size_t k = 0; k < n_fds; k++) {
		struct holder *h;

		(void)snprintf(path, sizeof(path), "%d/fd/%d", pid, fds[k]);
		h = match(proc_fd, path, fifos, holders, n);
		if (h && !h->pid) {
			h->pid = pid;
			read_comm(proc_fd, pid, h->comm);
		}
	}
	return 0;
}

static int compare_pids(const void *a, const void *b)
{
	pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;

	return (x > y) - (x < y);
}

static int find_from(const struct inventory *i, int proc_fd, pid_t first,
		     struct holder *holders, size_t n)
{
	_cleanup_free_ pid_t *tree = calloc(i->n_tasks + 1, sizeof(*tree));
	_cleanup_free_ int *pids = NULL;
	size_t n_pids = 0;
	bool fifos = false;
	int r;

	if (!tree)
		return err_origin(-ENOMEM);
	if (!n)
		return 0;
	qsort(holders, n, sizeof(*holders), compare_holders);
	for (size_t k = 0; k < n; k++)
		fifos |= holders[k].type == INVENTORY_FIFO;
	for (size_t k = 0; k < i->n_tasks; k++)
		tree[k] = i->tasks[k].pid;
	qsort(tree, i->n_tasks, sizeof(*tree), compare_pids);
	r = proc_numbers(proc_fd, ".", PROCESSES_MAX, &pids, &n_pids);
	for (size_t k = 0; k < n_pids && r == 0; k++)
		if (pids[k] >= first &&
		    !bsearch(&pids[k], tree, i->n_tasks, sizeof(*tree), compare_pids))
			r = search_process(proc_fd, pids[k], fifos, holders, n);
	return r;
}

int holders_find(const struct inventory *i, int proc_fd, struct holder *holders,
		 size_t n)
{
	return find_from(i, proc_fd, 1, holders, n);
}

int inventory_find_shared(struct inventory *i, int proc_fd)
{
	_cleanup_free_ struct holder *holders =
		calloc(i->n_files + 1, sizeof(*holders));
	size_t n = 0;
	int r;

	if (!holders)
		return err_origin(-ENOMEM);
	for (size_t k = 0; k < i->n_files; k++)
		if (i->files[k].type == INVENTORY_PIPE)
			holders[n++] = (struct holder){.type = INVENTORY_PIPE,
						       .inode = i->files[k].inode};
	r = find_from(i, proc_fd, FIRST_PROGRAM, holders, n);
	for (size_t k = 0; r == 0 && k < i->n_files; k++) {
		struct inventory_file *f = &i->files[k];

		/* Of equal ones any may have been found. */
		for (size_t h = 0; f->type == INVENTORY_PIPE && h < n; h++)
			f->shared |= holders[h].inode == f->inode && holders[h].pid;
	}
	return r;
}
