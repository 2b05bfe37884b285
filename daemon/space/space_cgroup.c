/*
 * Where the space's cgroups are: <cgroup v2>/ssi.space/init holds ssi-init alone,
 * <cgroup v2>/ssi.space/work everything else, so that all of the cluster's
 * processes can be frozen at once without it.
 */
#include "space_internal.h"

#include "err.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

/* Of a line of mountinfo(5): the mount point if it is of cgroup v2, unescaped in place. */
static char *mount_point_of(char *line)
{
	char *rest = strstr(line, " - cgroup2 "), *p = line, *out, *start;

	if (!rest)
		return NULL;
	for (int field = 0; field < 4 && p; field++) {
		p = strchr(p, ' ');
		p = p ? p + 1 : NULL;
	}
	if (!p || p > rest)
		return NULL;
	for (start = out = p; *p && *p != ' '; p++) {
		unsigned c;

		if (*p == '\\' && sscanf(p + 1, "%3o", &c) == 1) {
			*out++ = (char)c;
			p += 3;
		} else {
			*out++ = *p;
		}
	}
	*out = '\0';
	return start;
}

int space_cgroup_mount_point(char *ret_path, size_t size)
{
	_cleanup_free_ char *line = NULL;
	size_t room = 0;
	bool found = false;
	struct statfs fs;
	FILE *f;

	f = fopen("/proc/self/mountinfo", "re");
	if (!f)
		return err_origin(-errno);
	/* The last that is not hidden under another mount. */
	while (getline(&line, &room, f) > 0) {
		const char *path = mount_point_of(line);

		if (path && strlen(path) < size && statfs(path, &fs) == 0 &&
		    fs.f_type == CGROUP2_SUPER_MAGIC) {
			strcpy(ret_path, path);
			found = true;
		}
	}
	(void)fclose(f);
	return found ? 0 : err_origin(-ENOENT);
}

int space_cgroup_open(const char *leaf, char *ret_path, size_t size, int *ret_fd)
{
	char root[PATH_MAX / 2], path[PATH_MAX];
	int r, fd;

	r = space_cgroup_mount_point(root, sizeof(root));
	if (r < 0)
		return r;
	(void)snprintf(path, sizeof(path), "%s/ssi.space", root);
	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		return err_origin(-errno);
	(void)snprintf(path, sizeof(path), "%s/ssi.space/%s", root, leaf);
	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		return err_origin(-errno);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_origin(-errno);
	if (ret_path)
		(void)snprintf(ret_path, size, "%s", path);
	*ret_fd = fd;
	return 0;
}

static void kill_all(int dir_fd)
{
	_cleanup_close_ int fd = openat(dir_fd, "cgroup.kill", O_WRONLY | O_CLOEXEC);

	if (fd >= 0)
		(void)!write(fd, "1", 1);
}

/* One that is not empty yet stays; it is taken as it is when its name comes again. */
static void remove_below(int owned_fd, int depth)
{
	DIR *dir = fdopendir(owned_fd);
	struct dirent *e;

	if (!dir) {
		(void)close(owned_fd);
		return;
	}
	while ((e = readdir(dir)))
		if (e->d_type == DT_DIR && e->d_name[0] != '.') {
			int below = openat(dirfd(dir), e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

			if (below >= 0 && depth)
				remove_below(below, depth - 1);
			else
				close_fd(below);
			(void)unlinkat(dirfd(dir), e->d_name, AT_REMOVEDIR);
		}
	(void)closedir(dir);
}

void space_cgroup_clear(void)
{
	static const char *const leaves[] = { "work", "init" };
	char path[PATH_MAX];
	int fd;

	for (size_t i = 0; i < N_ELEMENTS(leaves); i++) {
		if (space_cgroup_open(leaves[i], path, sizeof(path), &fd) < 0)
			continue;
		kill_all(fd);
		remove_below(fd, 1); /* groups, and labels in them */
		/* Not merely emptied: see space_group_kill(). */
		for (int n = 0; n < 200 && rmdir(path) < 0 && errno == EBUSY; n++)
			(void)usleep(5000);
	}
}
