#pragma once
/*
 * Labels of processes that their children are born with.
 *
 * A label is the name of a cgroup v2 leaf in which the process stands, below the
 * space's own or below a space_group.  So the kernel itself hands it on at fork(),
 * atomically, also to an orphan; it survives ssid, and space_group_take() keeps it.
 * What a label means is its owner's affair; who has none has "".
 *
 * A process may have another text of its own than what its children are born with: then
 * the leaf names it, by PID and start.
 */
#include "space_group.h"

enum { SPACE_LABEL_MAX = 32 };

/* Letters, digits and commas. */
struct space_label {
	char born[SPACE_LABEL_MAX]; /* what its children have */
	char own[SPACE_LABEL_MAX];  /* "": the same */
};

/* Thread: any.  -ESRCH. */
int space_label_read(int proc_fd, pid_t pid, struct space_label *ret);
/* In the group in which it is.  Waits for a grace period of the kernel's, 8 to 16 ms.
 * SPACE_GROUP_E_GONE. */
int space_label_write(struct space *s, pid_t pid, const struct space_label *label);
/* The leaf, for space_spawn.group_fd of one to be born with it. */
int space_label_open(struct space *s, const char *born, int *ret_fd);
