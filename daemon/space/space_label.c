/*
 * Leaves that are labels: "label:BORN" and, for one whose own text is another,
 * "label:BORN:OWN:PID.START".
 *
 * failure modes: ssid is killed between the making of a leaf and the move -> an empty
 * leaf, removed by a later write; a leaf of the first kind stays, since somebody may be
 * about to be born into it, and there are few.
 */
#include "space_label.h"

#include "err.h"
#include "space_internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static const char prefix[] = "label:";

/* Cuts the label off @place; "": there is none. */
static const char *cut_label(char *place)
{
	char *last = strrchr(place, '/');

	if (!last || strncmp(last + 1, prefix, strlen(prefix)) != 0)
		return "";
	*last = '\0';
	return last + 1;
}

int space_label_leaf(int proc_fd, pid_t pid, char ret[static SPACE_LABEL_LEAF_MAX])
{
	char place[SPACE_WHERE_MAX];
	int r = space_group_where(proc_fd, pid, place);

	if (r == 0)
		(void)snprintf(ret, SPACE_LABEL_LEAF_MAX, "%s", cut_label(place));
	return r;
}

int space_label_read(int proc_fd, pid_t pid, struct space_label *ret)
{
	char leaf[SPACE_LABEL_LEAF_MAX], name[17];
	unsigned long long start, its_start;
	struct space_label l = {0};
	pid_t its_pid;
	int r = space_label_leaf(proc_fd, pid, leaf);

	if (r < 0)
		return r;
	if (sscanf(leaf, "label:%31[^:]:%31[^:]:%d.%llu", l.born, l.own, &its_pid,
		   &its_start) != 4 ||
	    its_pid != pid || !space_stat_read(proc_fd, pid, &start, name) ||
	    start != its_start)
		l.own[0] = '\0';
	*ret = l;
	return 0;
}

static int format(int proc_fd, pid_t pid, const struct space_label *l,
		  char ret[static SPACE_LABEL_LEAF_MAX])
{
	unsigned long long start;
	char name[17];

	ret[0] = '\0';
	if (!l->own[0]) {
		if (l->born[0])
			(void)snprintf(ret, SPACE_LABEL_LEAF_MAX, "%s%s", prefix,
				       l->born);
		return 0;
	}
	if (!space_stat_read(proc_fd, pid, &start, name))
		return SPACE_GROUP_E_GONE;
	(void)snprintf(ret, SPACE_LABEL_LEAF_MAX, "%s%s:%s:%d.%llu", prefix, l->born,
		       l->own, pid, start);
	return 0;
}

int space_label_each(int group_fd,
		     int (*cb)(void *owner, int group_fd, const char *leaf),
		     void *owner)
{
	int fd = openat(group_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!dir) {
		close_fd(fd);
		return err_origin(-errno);
	}
	while (r == 0 && (e = readdir(dir)))
		if (strncmp(e->d_name, prefix, strlen(prefix)) == 0)
			r = cb(owner, group_fd, e->d_name);
	(void)closedir(dir);
	return r;
}

/* Of one that has ended, or has another label by now; else it is not empty. */
static int remove_own(void *owner, int group_fd, const char *leaf)
{
	if (strchr(leaf + strlen(prefix), ':'))
		(void)unlinkat(group_fd, leaf, AT_REMOVEDIR);
	return 0;
}

int space_label_enter(int group_fd, const char *leaf, pid_t pid)
{
	char path[SPACE_LABEL_LEAF_MAX + 16], text[16];
	int r = -ENOENT;

	(void)snprintf(path, sizeof(path), "%s%scgroup.procs", leaf,
		       leaf[0] ? "/" : "");
	(void)snprintf(text, sizeof(text), "%d", pid);
	/* Empty, it may be removed on another thread. */
	for (int n = 0; n < 10 && (r == -ENOENT || r == -ENODEV); n++) {
		_cleanup_close_ int fd = -1;

		if (leaf[0] && mkdirat(group_fd, leaf, 0755) < 0 && errno != EEXIST)
			return err_origin(-errno);
		fd = openat(group_fd, path, O_WRONLY | O_CLOEXEC);
		r = fd < 0 || write(fd, text, strlen(text)) < 0 ? -errno : 0;
	}
	return r == -ESRCH ? SPACE_GROUP_E_GONE : err_origin(r);
}

/* The directory of the group of @place, as space_group_where() says it; its label is
 * cut off. */
static int open_group(struct space *s, char *place, const char **ret_leaf, int *ret_fd)
{
	char path[SPACE_WHERE_MAX + 1];
	int fd;

	*ret_leaf = cut_label(place);
	(void)snprintf(path, sizeof(path), ".%s", place);
	fd = openat(s->work_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

int space_label_write(struct space *s, pid_t pid, const struct space_label *label)
{
	char where[SPACE_WHERE_MAX], leaf[SPACE_LABEL_LEAF_MAX];
	_cleanup_close_ int group = -1;
	const char *old;
	int r;

	if (space_group_where(s->proc_fd, pid, where) < 0)
		return SPACE_GROUP_E_GONE;
	r = format(s->proc_fd, pid, label, leaf);
	if (r == 0)
		r = err_origin(open_group(s, where, &old, &group));
	if (r == 0)
		r = space_label_enter(group, leaf, pid);
	if (r == 0)
		(void)space_label_each(group, remove_own, NULL);
	return r;
}

int space_group_return(struct space *s, pid_t pid, const char *where)
{
	char place[SPACE_WHERE_MAX];
	_cleanup_close_ int group = -1;
	const char *leaf;

	(void)snprintf(place, sizeof(place), "%s", where);
	if (open_group(s, place, &leaf, &group) < 0)
		group = fcntl(s->work_fd, F_DUPFD_CLOEXEC, 3);
	return space_label_enter(group, leaf, pid);
}

int space_label_open(struct space *s, const char *born, int *ret_fd)
{
	char leaf[SPACE_LABEL_LEAF_MAX];
	int fd;

	(void)snprintf(leaf, sizeof(leaf), "%s%s", prefix, born);
	if (mkdirat(s->work_fd, leaf, 0755) < 0 && errno != EEXIST)
		return err_origin(-errno);
	fd = openat(s->work_fd, leaf, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_origin(-errno);
	*ret_fd = fd;
	return 0;
}
