#pragma once
/* What the files of this room share. */
#include "cleanup.h"
#include "init_wire.h"
#include "space.h"

#include <limits.h>

struct space_pids;

struct space {
	const struct env *env;
	const struct space_events *events;
	void *owner;
	int command_fd; /* to ssi-init; -1: lost */
	struct env_fd event_watch;
	struct env_timer lost_timer;
	bool lost;
	int root_fd, proc_fd;
	int work_fd; /* cgroup directory of all groups */
	char work_path[PATH_MAX];
	struct space_pids *pids;
	nsec_t frozen_at; /* the work cgroup, as far as we know; 0: it runs */
	bool leased; /* a lease lasts: ours, or a predecessor's */
	bool no_watchdog; /* ssi-init is too old to be one */
};

/* space_wire.c: the client's end of init_wire.h. */

enum {
	_SPACE_WIRE_E_SUCCESS,
	SPACE_WIRE_E_ABSENT, /* nobody listens there */
};

/* Connect and say hello.  SPACE_WIRE_E_ABSENT. */
int space_wire_open(const char *runtime_dir, uint32_t flags, int *ret_fd,
		    int ret_space_fds[static 3]);
/*
 * One request, one reply; waits for 2 s.  *n_fds: descriptors to send; on return
 * those that came, at most @n_ret, the others set to -1.
 */
int space_wire_call(int fd, struct init_request *request, const int *fds, size_t n_fds,
		    struct init_reply *ret, int *ret_fds, size_t n_ret_fds);
/* The same on the command connection; when it fails the space counts as lost.  0 or < 0;
 * ret->result has ssi-init's answer, of which only INIT_E_* (> 0) and 0 get here. */
int space_call(struct space *s, struct init_request *request, const int *fds, size_t n_fds,
	       struct init_reply *ret, int *ret_fds, size_t n_ret_fds);

/* space_spawn.c: init_reply.result, 0 or > 0, as SPACE_E_*. */
int space_outcome(int result);

/* space_cgroup.c */

/* Where cgroup v2 is mounted.  -ENOENT: nowhere. */
int space_cgroup_mount_point(char *ret_path, size_t size);
/* Open <mount point>/ssi.space/@leaf, made if it is absent. */
int space_cgroup_open(const char *leaf, char *ret_path, size_t size, int *ret_fd);
/* Kill and remove what a lost space left. */
void space_cgroup_clear(void);

/* space_make.c: a new space; returns when its ssi-init answers. */
int space_make(const struct space_config *config);

/* space_lease.c: what a predecessor left. */
int space_lease_start(struct space *s);

/* space_pids.c */
struct space_pids *space_pids_free(struct space_pids *p);
/* ssi-init says so. */
void space_pids_on_event(struct space *s, const struct init_event *e);

/* space_exec.c */
void space_exec_on_event(struct space *s, const struct init_event *e);

/* space_stray.c: numbers [first, last] were given out outside of this node's, since then. */
struct space_stray {
	pid_t first, last; /* last < first: past the highest, and on from 300 */
	nsec_t since;      /* CLOCK_BOOTTIME */
};
/* Kill who has one, but those that are here by right. */
void space_stray_kill(struct space *s, const struct space_stray *stray,
		      bool (*is_right)(void *owner, pid_t pid), void *owner);
/* As /proc says: when @tid began, in clock ticks since boot, and its name; false: it is gone. */
bool space_stat_read(int proc_fd, pid_t tid, unsigned long long *ret_start,
		     char ret_name[static 17]);

/* space_label.c, for groups. */
enum { SPACE_LABEL_LEAF_MAX = 128 };
/* The leaf that is its label, "" if it has none.  -ESRCH. */
int space_label_leaf(int proc_fd, pid_t pid, char ret[static SPACE_LABEL_LEAF_MAX]);
/* @pid into @group_fd, and in that into the leaf @leaf, made if need be.  SPACE_GROUP_E_GONE. */
int space_label_enter(int group_fd, const char *leaf, pid_t pid);
int space_label_each(int group_fd, int (*cb)(void *owner, int group_fd, const char *leaf),
		     void *owner);
