#pragma once
/* File systems of the space, by mount id.  Knows: nobody.  Thread: any. */
#include "cleanup.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

struct mount_table;
struct mount_table *mount_table_free(struct mount_table *t);
DEFINE_CLEANUP(struct mount_table, mount_table_free)
int mount_table_new(struct mount_table **ret, int proc_fd);
/* The name of the file system under @st, made into @buf; NULL: on no mount of the
 * space. */
const char *mount_table_name(const struct mount_table *t, const struct statx *st,
			     char *buf, size_t size);
/* Whether reading a file there may wait for a program of a user. */
bool mount_table_slow(const struct mount_table *t, const struct statx *st);
