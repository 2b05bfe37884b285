#pragma once
/* What /proc says of processes and open files.  Knows: nobody.  Thread: any. */
#include "buf.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

/* At most @max bytes and a NUL that is not counted; -ESRCH when gone.
 */
int proc_read(int proc_fd, const char *path, size_t max, struct buf *ret);
int proc_link(int proc_fd, const char *path, char *ret, size_t size);
/* The names in a directory that are numbers, in order. */
int proc_numbers(int proc_fd, const char *path, size_t max, int **ret, size_t *ret_n);
/* The rest of the line that begins with @key ("Uid:"), or NULL. */
const char *proc_field(const char *text, const char *key);
/* What an open file is, without asking a file system's server if that can be avoided.
 */
int proc_stat(int dir_fd, const char *path, int flags, struct statx *ret);
/* O_PATH of @path beneath the space's root, magic links refused; O_* and RESOLVE_* besides. */
int root_open(int root_fd, const char *path, int flags, uint64_t resolve);
/* null, zero, full, random or urandom, by number. */
bool proc_plain_device(mode_t mode, dev_t rdev);
/* No such process or descriptor any more. */
bool proc_gone(int r);
