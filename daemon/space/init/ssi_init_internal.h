#pragma once
/*
 * The parts of ssi-init.  One thread, static memory only: nothing that it does
 * after its start can fail for want of memory of its own.
 */
#include "init_wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define X32_BIT 0x40000000u /* in the numbers of x32's system calls */

/* init_keep.c: descriptors by name. */
int keep_put(const char *name, int owned_fd, size_t limit);
int keep_get(const char *name); /* the descriptor, still ours, or -1 */
bool keep_drop(const char *name);
/* The next name from slot @cursor on that begins with @prefix; false: none. */
bool keep_next(const char *prefix, uint32_t *cursor, const char **ret_name);

/* init_children.c: who of our children must stay a zombie until INIT_REAP. */
int children_start(void);
/* INIT_E_ABSENT: not a living or dead child of ours; INIT_E_FULL. */
int children_track(pid_t pid);
void children_reap(pid_t pid);
/* SIGCHLD came: note how tracked ones ended or stopped, bury the others.  True: come again. */
bool children_collect(void);
/* Everything that still waits is told (again). */
void children_tell_again(void);
/* Pass on what is untold until @tell refuses; true: all is told. */
bool children_tell(bool (*tell)(const struct init_event *event));

/* init_pids.c: children that are bound ask before each fork. */
struct pids_run {
	pid_t first, n;
};
int pids_start(int proc_fd); /* a descriptor to poll for pids_serve(), or -errno */
void pids_serve(void);
/* As INIT_PIDS says. */
int pids_set(pid_t first, pid_t n, bool plenty);
/* Is there an ssid to watch the cursor? */
void pids_leave_alone(bool is_alone);
bool pids_are_bound(void);
const struct pids_run *pids_runs(size_t *ret_n);
/* One number for @tid, 0: for a child of ours.  False: there is none. */
bool pids_take(pid_t tid);
/* Around the birth of one that is to be bound: before it, in the child, in the parent. */
int pids_bind_prepare(int ret_ends[2]); /* INIT_E_FULL */
/* @forks: it asks before those; @execs: before it starts a program. */
void pids_bind_child(const int ends[2], bool forks, bool execs);
void pids_bind_parent(const int ends[2], bool born);
bool pids_tell(bool (*tell)(const struct init_event *event));

/* init_filter.c: the filter of seccomp of a child that asks; by itself.  Its listener, or -1. */
int filter_set(bool forks, bool execs);

/* init_exec.c: children that ask ssid before they start a program, or name a process. */
struct seccomp_notif;
bool exec_is(int nr);
/* One asks: it is passed on, or starts it at once when there is nobody to be asked. */
void exec_ask(int listener, const struct seccomp_notif *call);
/* Nobody has that listener's filter any more. */
void exec_forget(int listener);
/* There is an ssid to be asked. */
void exec_serve(void);
/* There is none: whoever asked starts its program here. */
void exec_release(void);
/* INIT_EXEC_GO and INIT_EXEC_GIVE, of call @id.  INIT_E_ABSENT: it does not wait any more. */
int exec_go(uint64_t id);
int exec_give(uint64_t id, int fd, bool closed, int32_t *ret_number);
bool exec_tell(bool (*tell)(const struct init_event *event));

/* init_lease.c */
int lease_start(void); /* the descriptor that is readable when the lease has ended */
void lease_ended(void);
int lease_set(uint32_t flags, uint64_t until, struct init_reply *ret);

/* init_spawn.c */
void spawn_start(void);
/* @fds: as INIT_SPAWN says.  0, -errno or INIT_E_*. */
int spawn(const struct init_request *request, const int *fds, size_t n_fds, pid_t *ret_pid,
	  int *ret_pidfd);
