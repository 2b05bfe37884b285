/*
 * A cgroup v2 leaf.
 *
 * happy path: a file is written, and cgroup.events, which poll() watches, says
 * when it is done.
 * failure modes: a task that sleeps uninterruptibly neither freezes nor dies: after
 * the deadline a freeze is taken back and SPACE_GROUP_E_TIMEOUT told.
 */
#include "space_group.h"

#include "err.h"
#include "space_internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

struct space_group {
	int parent_fd, dir_fd, events_fd, proc_fd;
	char *name;
	char *path;
};

static nsec_t now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_BOOTTIME, &t);
	return t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

/* Make the leaf if need be and open it; the number of dir_fd stays the same. */
static int open_leaf(struct space_group *g)
{
	_cleanup_close_ int dir = -1, events = -1;

	if (mkdirat(g->parent_fd, g->name, 0755) < 0 && errno != EEXIST)
		return err_origin(-errno);
	dir = openat(g->parent_fd, g->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (dir < 0)
		return err_origin(-errno);
	events = openat(dir, "cgroup.events", O_RDONLY | O_CLOEXEC);
	if (events < 0)
		return err_origin(-errno);
	if (g->dir_fd < 0) {
		g->dir_fd = TAKE_FD(dir);
	} else if (dup3(dir, g->dir_fd, O_CLOEXEC) < 0) {
		return err_origin(-errno);
	}
	(void)close_fd(g->events_fd);
	g->events_fd = TAKE_FD(events);
	return 0;
}

static struct space_group *group_free(struct space_group *g)
{
	if (!g)
		return NULL;
	(void)close_fd(g->events_fd);
	(void)close_fd(g->dir_fd);
	(void)close_fd(g->proc_fd);
	(void)close_fd(g->parent_fd);
	free(g->name);
	free(g->path);
	free(g);
	return NULL;
}

DEFINE_CLEANUP(struct space_group, group_free)

int space_group_open(struct space *s, const char *name, struct space_group **ret)
{
	_cleanup_(group_freep) struct space_group *g = calloc(1, sizeof(*g));
	int r;

	if (!g)
		return err_origin(-ENOMEM);
	g->dir_fd = g->events_fd = -1;
	g->parent_fd = fcntl(s->work_fd, F_DUPFD_CLOEXEC, 3);
	g->proc_fd = fcntl(s->proc_fd, F_DUPFD_CLOEXEC, 3);
	if (!name[0] || name[0] == '.' || strchr(name, '/'))
		return err_origin(-EINVAL);
	g->name = strdup(name);
	if (!g->name || asprintf(&g->path, "%s/%s", s->work_path, name) < 0)
		return err_origin(-ENOMEM);
	if (g->parent_fd < 0 || g->proc_fd < 0)
		return err_origin(-errno);
	r = open_leaf(g);
	if (r < 0)
		return r;
	*ret = TAKE(g);
	return 0;
}

static int remove_label(void *owner, int group_fd, const char *leaf)
{
	(void)unlinkat(group_fd, leaf, AT_REMOVEDIR);
	return 0;
}

static int remove_leaf(struct space_group *g)
{
	(void)space_label_each(g->dir_fd, remove_label, NULL);
	return unlinkat(g->parent_fd, g->name, AT_REMOVEDIR);
}

struct space_group *space_group_close(struct space_group *g)
{
	if (g)
		(void)remove_leaf(g);
	return group_free(g);
}

int space_group_fd(const struct space_group *g)
{
	return g->dir_fd;
}

const char *space_group_path(const struct space_group *g)
{
	return g->path;
}

static int write_text(const struct space_group *g, const char *file, const char *text)
{
	_cleanup_close_ int fd = openat(g->dir_fd, file, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		return -errno;
	return 0;
}

int space_group_take(struct space_group *g, pid_t pid)
{
	char label[SPACE_LABEL_LEAF_MAX];

	if (space_label_leaf(g->proc_fd, pid, label) < 0)
		label[0] = '\0'; /* of a zombie, which is not told, or it is gone */
	return space_label_enter(g->dir_fd, label, pid);
}

int space_group_where(int proc_fd, pid_t pid, char ret[static SPACE_WHERE_MAX])
{
	static const char work[] = "/ssi.space/work";
	char path[32], line[1024];
	const char *found = NULL;
	FILE *f = NULL;
	int fd;

	(void)snprintf(path, sizeof(path), "%d/cgroup", pid);
	fd = openat(proc_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		f = fdopen(fd, "r");
	if (!f) {
		close_fd(fd);
		return -ESRCH;
	}
	while (!found && fgets(line, sizeof(line), f))
		if (strncmp(line, "0::", 3) == 0)
			found = strstr(line, work);
	(void)fclose(f);
	if (!found)
		return -ESRCH;
	line[strcspn(line, "\n")] = '\0';
	(void)snprintf(ret, SPACE_WHERE_MAX, "%s", found + strlen(work));
	return 0;
}

/* All the numbers of a small file of the kernel, appended to *@list. */
static int read_pids(int dir_fd, const char *path, pid_t **list, size_t *n)
{
	int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
	pid_t pid, *longer;
	int r = 0;

	if (!f)
		return -errno;
	while (fscanf(f, "%d", &pid) == 1) {
		longer = reallocarray(*list, *n + 1, sizeof(pid));
		if (!longer) {
			r = err_origin(-ENOMEM);
			break;
		}
		*list = longer;
		longer[(*n)++] = pid;
	}
	(void)fclose(f);
	return r;
}

struct pids {
	pid_t *list;
	size_t n;
};

static int append_labelled(void *owner, int group_fd, const char *leaf)
{
	char path[SPACE_LABEL_LEAF_MAX + 16];
	struct pids *pids = owner;
	int r;

	(void)snprintf(path, sizeof(path), "%s/cgroup.procs", leaf);
	r = read_pids(group_fd, path, &pids->list, &pids->n);
	return r == -ENOENT || r == -ENODEV ? 0 : r;
}

int space_group_pids(struct space_group *g, pid_t **ret, size_t *ret_n)
{
	struct pids pids = { 0 };
	int r;

	r = err_origin(read_pids(g->dir_fd, "cgroup.procs", &pids.list, &pids.n));
	if (r == 0)
		r = space_label_each(g->dir_fd, append_labelled, &pids);
	if (r < 0) {
		free(pids.list);
		return r;
	}
	*ret = pids.list;
	*ret_n = pids.n;
	return 0;
}

/* The children of all threads of @pid; none if it is gone. */
static int append_children(const struct space_group *g, pid_t pid, pid_t **list, size_t *n)
{
	char path[64];
	struct dirent *e;
	int fd, r = 0;
	DIR *dir;

	(void)snprintf(path, sizeof(path), "%d/task", pid);
	fd = openat(g->proc_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir)
		return 0;
	while (r == 0 && (e = readdir(dir))) {
		char children[300];

		if (e->d_name[0] == '.')
			continue;
		(void)snprintf(children, sizeof(children), "%s/children", e->d_name);
		r = read_pids(fd, children, list, n);
		if (r == -ENOENT || r == -ESRCH)
			r = 0;
	}
	(void)closedir(dir);
	return r;
}

/* Dead with all its threads: the kernel does not list it in cgroup.procs, wherever it is. */
static bool is_zombie(const struct space_group *g, pid_t pid)
{
	char path[32], line[256], state = 'X';
	unsigned n_threads = 0;
	FILE *f = NULL;
	int fd;

	(void)snprintf(path, sizeof(path), "%d/status", pid);
	fd = openat(g->proc_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		f = fdopen(fd, "r");
	while (f && fgets(line, sizeof(line), f)) {
		(void)sscanf(line, "State: %c", &state);
		(void)sscanf(line, "Threads: %u", &n_threads);
	}
	if (f)
		(void)fclose(f);
	return state == 'X' || (state == 'Z' && n_threads <= 1);
}

static int by_number(const void *a, const void *b)
{
	return *(const pid_t *)a - *(const pid_t *)b;
}

/* One walk, parents first, so that what they fork meanwhile is born inside. */
static int take_outsiders(struct space_group *g, pid_t root, bool *ret_moved,
			  bool *ret_zombies)
{
	_cleanup_free_ pid_t *tree = NULL, *inside = NULL;
	size_t n = 1, n_inside = 0;
	int r;

	*ret_moved = *ret_zombies = false;
	r = space_group_pids(g, &inside, &n_inside);
	if (r < 0)
		return r;
	if (n_inside)
		qsort(inside, n_inside, sizeof(*inside), by_number);
	tree = malloc(sizeof(*tree));
	if (!tree)
		return err_origin(-ENOMEM);
	tree[0] = root;
	for (size_t i = 0; i < n; i++) {
		if (!n_inside || !bsearch(&tree[i], inside, n_inside, sizeof(*tree), by_number)) {
			r = space_group_take(g, tree[i]);
			if (r < 0 || (r == SPACE_GROUP_E_GONE && i == 0))
				return r;
			if (is_zombie(g, tree[i]))
				*ret_zombies = true;
			else
				*ret_moved |= r == 0;
		}
		r = append_children(g, tree[i], &tree, &n);
		if (r < 0)
			return r;
	}
	return 0;
}

int space_group_take_tree(struct space_group *g, pid_t root)
{
	static const struct timespec nap = { .tv_nsec = NSEC_PER_MSEC };
	nsec_t start = now();
	bool moved, zombies;
	int r;

	for (;;) {
		r = take_outsiders(g, root, &moved, &zombies);
		if (r != 0)
			return r;
		/* Who is still running is about to wait for his children, or never will. */
		if (!moved && (!zombies || now() > start + NSEC_PER_SEC / 5))
			return 0;
		if (now() > start + 5 * NSEC_PER_SEC)
			return SPACE_GROUP_E_TIMEOUT;
		if (!moved)
			(void)nanosleep(&nap, NULL);
	}
}

/* Whether cgroup.events has the line @line. */
static int says(const struct space_group *g, const char *line, bool *ret)
{
	char text[128] = { 0 };

	if (pread(g->events_fd, text, sizeof(text) - 1, 0) < 0)
		return err_origin(-errno);
	*ret = strstr(text, line);
	return 0;
}

/*
 * Until cgroup.events has the line @line.  The kernel tells a change at once only
 * when the last one is 10 ms old (CGROUP_FILE_NOTIFY_MIN_INTV), and a tree that was
 * taken into the group to be frozen is such a change: at first we look ourselves.
 */
static int wait_for(const struct space_group *g, const char *line, nsec_t timeout)
{
	nsec_t deadline = now() + timeout, pause = NSEC_PER_MSEC / 8, t;
	int r;

	for (;;) {
		struct pollfd p = { g->events_fd, POLLPRI, 0 };
		struct timespec patience;
		bool so;

		r = says(g, line, &so);
		if (r < 0 || so)
			return r;
		t = now();
		if (t >= deadline)
			return SPACE_GROUP_E_TIMEOUT;
		patience = (struct timespec){
			.tv_sec = (time_t)(pause / NSEC_PER_SEC),
			.tv_nsec = (long)(pause % NSEC_PER_SEC),
		};
		if (ppoll(&p, 1, &patience, NULL) < 0 && errno != EINTR)
			return err_origin(-errno);
		pause = 2 * pause < deadline - t ? 2 * pause : deadline - t;
	}
}

int space_group_freeze(struct space_group *g, nsec_t timeout)
{
	int r;

	r = err_origin(write_text(g, "cgroup.freeze", "1"));
	if (r < 0)
		return r;
	r = wait_for(g, "frozen 1", timeout);
	if (r != 0)
		(void)write_text(g, "cgroup.freeze", "0");
	return r;
}

int space_group_thaw(struct space_group *g)
{
	return err_origin(write_text(g, "cgroup.freeze", "0"));
}

int space_group_kill(struct space_group *g, nsec_t timeout)
{
	bool empty = false, thawed = false;
	int r;

	/* Each step takes the lock of all cgroups, and may wait for others to move processes. */
	r = says(g, "populated 0", &empty);
	if (r == 0)
		r = says(g, "frozen 0", &thawed);
	if (r < 0 || (empty && thawed))
		return r;
	r = err_origin(write_text(g, "cgroup.kill", "1"));
	if (r == 0)
		r = wait_for(g, "populated 0", timeout);
	if (r != 0)
		return r;
	/*
	 * A fresh leaf in its place, thawed: some kernels (seen on 6.18) kill at birth
	 * every child that CLONE_INTO_CGROUP puts where cgroup.kill was used before.
	 */
	if (remove_leaf(g) < 0)
		return err_origin(write_text(g, "cgroup.freeze", "0"));
	return open_leaf(g);
}

int space_group_each(struct space *s, const char *prefix,
		     int (*cb)(void *owner, const char *name), void *owner)
{
	int fd = openat(s->work_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!dir)
		return err_origin(-errno);
	while (r == 0 && (e = readdir(dir)))
		if (e->d_type == DT_DIR && e->d_name[0] != '.' &&
		    strncmp(e->d_name, prefix, strlen(prefix)) == 0)
			r = cb(owner, e->d_name);
	(void)closedir(dir);
	return r;
}
