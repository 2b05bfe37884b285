#pragma once
/*
 * A cgroup v2 leaf of the space: the handle by which a set of processes is
 * frozen, thawed and killed at once.
 *
 * These calls block (milliseconds; each has a deadline): use them in env_work()
 * or accept that.  They work on descriptors only and may be used on any thread,
 * one at a time per group.
 */
#include "ids.h"

#include <stddef.h>
#include <sys/types.h>

struct space;
struct space_group;

enum {
	_SPACE_GROUP_E_SUCCESS,
	SPACE_GROUP_E_TIMEOUT, /* some task would not freeze or die in time */
	SPACE_GROUP_E_GONE,    /* no such process */
};

/* Make the leaf @name ("app.65536", "move.12"), or take it as it is. */
int space_group_open(struct space *s, const char *name, struct space_group **ret);
/* Forget it; the leaf is removed when nothing lives in it, and stays otherwise. */
struct space_group *space_group_close(struct space_group *g);

int space_group_fd(const struct space_group *g);
/* As processes of the space see it: for criu's freeze_cgroup. */
const char *space_group_path(const struct space_group *g);

/* Move one process, all threads.  It keeps its label (space_label.h). */
int space_group_take(struct space_group *g, pid_t pid);
/* Move @root and all its descendants, again and again until no new one appears; zombies,
 * which no group lists, are given a moment to be waited for. */
int space_group_take_tree(struct space_group *g, pid_t root);
/* Where it is, to be put back: "" in the space's own cgroup, "/NAME", and perhaps the leaf of a
 * label.  -ESRCH. */
enum { SPACE_WHERE_MAX = 256 };
int space_group_where(int proc_fd, pid_t pid, char ret[static SPACE_WHERE_MAX]);
/* Into the space's own if that group is no more. */
int space_group_return(struct space *s, pid_t pid, const char *where);
/* malloc()ed list. */
int space_group_pids(struct space_group *g, pid_t **ret, size_t *ret_n);

int space_group_freeze(struct space_group *g, nsec_t timeout);
int space_group_thaw(struct space_group *g);
/* SIGKILL to all, at once, frozen or not; returns when they are zombies or gone, and the leaf
 * is thawed and new (the number of space_group_fd() stays): never write cgroup.kill elsewhere
 * and spawn into that leaf afterwards, see space_group.c. */
int space_group_kill(struct space_group *g, nsec_t timeout);

/* Names of the leaves that begin with @prefix: what a predecessor left. */
int space_group_each(struct space *s, const char *prefix,
		     int (*cb)(void *owner, const char *name), void *owner);
