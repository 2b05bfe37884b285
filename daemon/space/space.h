#pragma once
/*
 * DOOR.  The SSI space of this node: one set of namespaces (pid, mount, ipc,
 * uts) in which all cluster processes live, and ssi-init, its pid 1.
 *
 * Knows: env.  Tells: its owner, through struct space_events.
 *
 * ssi-init outlives ssid: it is the parent of every application root from birth,
 * keeps descriptors for a successor, collects exit statuses, and freezes all when
 * the node's lease ends.  It decides nothing.  The daemon itself runs in the space's pid namespace (so PIDs here are
 * global PIDs, and pidfds, ptrace and cgroups take them as they are) but in the
 * host's mount namespace (so it can never touch a mount that it serves): files of
 * applications are opened beneath space_root_fd(), /proc beneath space_proc_fd(),
 * or by a program spawned in the space.
 *
 * Invariants: a process of the space exists only as a descendant of ssi-init; a
 * tracked child stays a zombie, its PID taken, until space_reap(); everything
 * kept is returned under the same name until dropped.
 * Calls to ssi-init are synchronous (tens of microseconds; 2 s at most, after
 * which the space counts as lost).  Thread: the loop, except the functions of
 * space_group.h and inject.h, which block and belong in env_work().
 */
#include "env.h"
#include "ids.h"

#include <stdbool.h>
#include <sys/types.h>

struct space;
struct space_group;

struct space_config {
	const char *runtime_dir; /* /run/ssi, made 0755; init.sock lives here, 0600 */
	const char *libexec_dir; /* ssi-init, ssi-spawn, ssi-shadow */
	const char *private_dir; /* tmpfs for images and CRIU's caches, made here: /run/ssi/private */
};

/* A tracked child of ssi-init ended. */
struct space_exit {
	pid_t pid;
	int code;   /* CLD_EXITED, CLD_KILLED, CLD_DUMPED */
	int status; /* exit status or signal */
};

/* A process that was spawned with SPACE_SPAWN_ASK, or a descendant of one, waits in execve() or
 * execveat() until space_exec_go(), or until it is made to run another program; or in kill(),
 * rt_sigqueueinfo() or pidfd_open() of a PID that was not of this node's when it was spawned,
 * until space_exec_go().  A signal interrupts it: then it asks again, under another id. */
struct space_exec {
	uint64_t id;
	pid_t pid; /* the thread that asks */
	int nr;
	uint64_t args[5];
};

struct space_events {
	/* Comes again after every start of ssid until space_reap(). */
	void (*on_exit)(void *owner, const struct space_exit *exit);
	/* A tracked child stopped by @signal, or went on (@signal SIGCONT). */
	void (*on_stop)(void *owner, pid_t pid, int signal);
	/* ssi-init does not answer, or is gone and with it every process of the space; in the
	 * second case the kernel kills ssid's core too, mostly before it could be told. */
	void (*on_lost)(void *owner);
	/* May be NULL: then programs are started at once. */
	void (*on_exec)(void *owner, const struct space_exec *exec);
};

/*
 * Before anything else, from the host's namespaces, with no threads: make the
 * space unless its ssi-init answers, then become two processes.  Returns in the
 * child only, inside the space's pid namespace, with a service PID (2..299); the
 * parent stays behind as a stub which passes signals on, waits, and ends as the
 * child ends (the child is killed if the stub dies).  < 0: -errno, in the caller.
 */
int space_enter(const struct space_config *config);

/* Connect to ssi-init.  Exits that wait are told from the loop, soon. */
int space_new(struct space **ret, const struct env *env, const struct space_config *config,
	      const struct space_events *events, void *owner);
struct space *space_free(struct space *s); /* the space itself goes on */

/* End the space: every process of the work cgroup is killed at once, and ssi-init ends, with
 * whatever is left, as soon as @s is freed or ssid ends: the last thing ssid does.  For
 * `ssi-admin cluster shutdown`. */
int space_kill(struct space *s);

int space_root_fd(const struct space *s); /* O_PATH of the space's /; openat2(RESOLVE_IN_ROOT) */
int space_proc_fd(const struct space *s); /* of its /proc, this very pid namespace */

enum { SPACE_PID_MIN = 300 }; /* of programs; below are ssi-init and services */

enum {
	SPACE_SPAWN_TRACK = 1u << 0,   /* keep its exit status until space_reap() */
	SPACE_SPAWN_SERVICE = 1u << 1, /* a PID from 2..299, not one of the lease */
	SPACE_SPAWN_BOUND = 1u << 2,   /* a service that makes applications: see space_pids_add() */
	SPACE_SPAWN_ASK = 1u << 3,     /* on_exec comes before each such call */
};

enum {
	_SPACE_E_SUCCESS,
	SPACE_E_PID_TAKEN, /* set_tid names a PID in use */
	SPACE_E_ABSENT,    /* nothing kept under that name, no such child */
	SPACE_E_FULL,      /* no process could be made: EAGAIN, ENOMEM */
};

enum { SPACE_FDS_MAX = 32 };

struct space_spawn {
	const char *const *argv;  /* argv[0]: absolute path in the space */
	const char *const *envp;  /* NULL: PATH only */
	const int *fds;           /* become 3, 4, ... in the child; 0-2 are the space's /dev/null */
	size_t n_fds;             /* <= SPACE_FDS_MAX */
	pid_t set_tid;            /* 0: next of the lease */
	int group_fd;             /* cgroup directory to be born in, -1: the space's own */
	unsigned flags;
};

/* A child of ssi-init, root, all capabilities, signals default, own session not made.
 * ret_pidfd may be NULL.  A failing execve() is exit status 127. */
int space_spawn(struct space *s, const struct space_spawn *spec, pid_t *ret_pid, int *ret_pidfd);

/* Keep the exit status of child @pid (a restored root, say) from now on.  SPACE_E_ABSENT. */
int space_track(struct space *s, pid_t pid);
/* The cluster knows how @pid ended: let the kernel forget it.  Idempotent.  One that still
 * lives is tracked no more. */
int space_reap(struct space *s, pid_t pid);

/* The program is started here.  SPACE_E_ABSENT: the call does not wait any more. */
int space_exec_go(struct space *s, uint64_t id);
/* A duplicate of @fd into the process that waits, O_CLOEXEC if @cloexec.  SPACE_E_ABSENT. */
int space_exec_give(struct space *s, uint64_t id, int fd, bool cloexec, int *ret_number);

/* The keeper.  @name: at most 63 bytes, "room/what/number".  keep() replaces. */
int space_keep(struct space *s, const char *name, int fd);
int space_kept(struct space *s, const char *name, int *ret_fd);
int space_drop(struct space *s, const char *name);
/* All names that begin with @prefix; @cb may not call space_*(). */
int space_each_kept(struct space *s, const char *prefix,
		    int (*cb)(void *owner, const char *name), void *owner);
/* The numbers behind @prefix, of names that are nothing else.  malloc()ed. */
int space_kept_numbers(struct space *s, const char *prefix, int **ret, size_t *ret_n);

/* A state memfd: the kept one of that name, or a new one of @size zero bytes, mapped shared.
 * *ret_fresh tells which. */
int space_state(struct space *s, const char *name, size_t size, void **ret, bool *ret_fresh);

/*
 * The lease: ssi-init freezes every process of the space but itself when it ends, also when
 * ssid is dead, stopped or hangs.  @until: CLOCK_BOOTTIME.  *ret_frozen_at: since when they are
 * frozen, 0: they are not.  Frozen, they stay so unless @thaw, by which the caller says that
 * none of them has been started anew elsewhere.
 */
int space_lease(struct space *s, nsec_t until, bool thaw, nsec_t *ret_frozen_at);
/* This node knows that it has none: frozen now, or in a moment. */
void space_lease_ended(struct space *s);
/* Does a lease last, one that was told by a predecessor included?  Asks. */
bool space_may_run(struct space *s);
/* Nothing of the space runs, so nothing that needs it to run may be begun. */
bool space_is_frozen(const struct space *s);
nsec_t space_frozen_at(const struct space *s);

/*
 * PIDs: the space gives out numbers of [first, first + n) only, and of all that was added
 * before; blocks that touch are one.
 *
 * A block of 65,536 is watched: a thread at real-time priority (where the kernel allows it)
 * reads the cursor every 20 ms and moves on to the next such block when 16,384 are left.
 * Numbers still in use are skipped by the kernel.  Before the first block the cursor starts
 * at 300.  As long as none is so long, ssi-init has the cursor, and every application asks it
 * before it forks: what is spawned meanwhile is bound (SPACE_SPAWN_SERVICE: only with
 * SPACE_SPAWN_BOUND) by a filter of seccomp that it and its children keep.
 *
 * Whoever is born outside all the same is killed, and logged.
 */
int space_pids_add(struct space *s, pid_t first, pid_t n);
/* Do forks ask?  Then so must those of a tree that is restored. */
bool space_pids_are_few(const struct space *s);
/* After the last block it begins anew with the first; if they are few, or a quarter of them is
 * in use, that is told, at most once a second. */
void space_pids_on_low(struct space *s, void (*on_low)(void *owner), void *owner);
/* Of those found outside: is @pid, a process, here by right, as one of another node's? */
void space_pids_on_stray(struct space *s, bool (*is_right)(void *owner, pid_t pid), void *owner);
