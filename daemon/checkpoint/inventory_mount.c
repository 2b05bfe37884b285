#include "inventory_internal.h"

#include "err.h"

#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

/*
 * Names of file systems, from the mount table of the space's pid 1.
 *
 * Why not statfs(): see inventory.h.  A FUSE mount may carry any type and source
 * its owner likes, so it counts as shared only when root mounted it
 * (user_id=0) and its type is one whose inode numbers are the server's.
 */

struct mount_row {
	uint64_t id;
	bool slow;
	char *shared; /* "nfs4 server:/home", or NULL: a kernel's own */
};

struct mount_table {
	char boot_id[37];
	struct mount_row *rows;
	size_t n_rows;
};

enum { MOUNT_TEXT_MAX = 16 << 20 };

struct mount_table *mount_table_free(struct mount_table *t)
{
	if (!t)
		return NULL;
	for (size_t k = 0; k < t->n_rows; k++)
		free(t->rows[k].shared);
	free(t->rows);
	free(t);
	return NULL;
}

static bool option(const char *options, const char *want)
{
	size_t len = strlen(want);

	for (const char *p = options; p; p = strchr(p, ',')) {
		p += *p == ',';
		if (!strncmp(p, want, len) && (!p[len] || p[len] == ','))
			return true;
	}
	return false;
}

static bool is_shared(const char *type, const char *options)
{
	static const char *const types[] = {"nfs",    "nfs4", "ceph",
					    "lustre", "gpfs", "beegfs"};

	for (size_t k = 0; k < N_ELEMENTS(types); k++)
		if (!strcmp(type, types[k]))
			return true;
	return !strcmp(type, "fuse.glusterfs") && option(options, "user_id=0");
}

/* "36 35 98:0 /root /mnt rw,noatime master:1 - ext3 /dev/root rw,errors=continue" */
static int parse_row(char *line, struct mount_row *ret)
{
	char *tail = strstr(line, " - "), *save = NULL, *type, *source, *options;
	struct mount_row row = {.id = strtoull(line, NULL, 10)};

	if (!tail)
		return err_origin(-EBADMSG);
	type = strtok_r(tail + 3, " ", &save);
	source = strtok_r(NULL, " ", &save);
	options = strtok_r(NULL, " ", &save);
	if (!type || !source)
		return err_origin(-EBADMSG);
	/* A source may be empty; then the options stand in its place. */
	if (!options)
		options = source, source = (char *)"";
	row.slow = !strncmp(type, "fuse", 4);
	if (is_shared(type, options) &&
	    asprintf(&row.shared, "%s %s", type, source) < 0)
		return err_origin(-ENOMEM);
	*ret = row;
	return 0;
}

static int read_boot_id(int proc_fd, char *ret, size_t size)
{
	_cleanup_buf_ struct buf b = {0};
	int r = proc_read(proc_fd, "sys/kernel/random/boot_id", 64, &b);

	if (r < 0)
		return r;
	(void)snprintf(ret, size, "%.*s", (int)strcspn((char *)b.data, "\n"),
		       (char *)b.data);
	return 0;
}

int mount_table_new(struct mount_table **ret, int proc_fd)
{
	_cleanup_(mount_table_freep) struct mount_table *t = calloc(1, sizeof(*t));
	_cleanup_buf_ struct buf b = {0};
	char *save = NULL, *line;
	size_t n = 0;
	int r;

	if (!t)
		return err_origin(-ENOMEM);
	r = read_boot_id(proc_fd, t->boot_id, sizeof(t->boot_id));
	if (r < 0)
		return r;
	r = proc_read(proc_fd, "1/mountinfo", MOUNT_TEXT_MAX, &b);
	if (r < 0)
		return r;
	for (size_t k = 0; k < b.len; k++)
		n += b.data[k] == '\n';
	t->rows = calloc(n + 1, sizeof(*t->rows));
	if (!t->rows)
		return err_origin(-ENOMEM);
	for (line = strtok_r((char *)b.data, "\n", &save); line && t->n_rows < n;
	     line = strtok_r(NULL, "\n", &save)) {
		r = parse_row(line, &t->rows[t->n_rows]);
		if (r < 0)
			return r;
		t->n_rows++;
	}
	*ret = TAKE(t);
	return 0;
}

static const struct mount_row *find(const struct mount_table *t, const struct statx *st)
{
	if (!(st->stx_mask & STATX_MNT_ID))
		return NULL;
	for (size_t k = 0; k < t->n_rows; k++)
		if (t->rows[k].id == st->stx_mnt_id)
			return &t->rows[k];
	return NULL;
}

const char *mount_table_name(const struct mount_table *t, const struct statx *st,
			     char *buf, size_t size)
{
	const struct mount_row *row = find(t, st);

	if (!row)
		return NULL;
	if (row->shared)
		(void)snprintf(buf, size, "%s", row->shared);
	else
		(void)snprintf(buf, size, "kernel %s %u:%u", t->boot_id,
			       st->stx_dev_major, st->stx_dev_minor);
	return buf;
}

bool mount_table_slow(const struct mount_table *t, const struct statx *st)
{
	const struct mount_row *row = find(t, st);

	return !row || row->slow;
}
