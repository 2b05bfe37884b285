#pragma once
/*
 * What ssid and ssi-init say to each other over <runtime_dir>/init.sock.
 *
 * SOCK_SEQPACKET, one fixed struct a message, descriptors beside it.  ssi-init
 * outlives ssid, also a newer one: fields are only added at the end, verbs never
 * reused, and a version that ssi-init does not know is answered -EPROTO.
 *
 * A connection says INIT_HELLO first: for commands (each answered by one
 * init_reply) or, with INIT_HELLO_EVENTS, to be told init_events.  A new one for
 * events replaces the old one, and is told again whatever waits for INIT_REAP.
 */
#include <stdint.h>

enum {
	INIT_WIRE_VERSION = 1,
	INIT_NAME_SIZE = 64,
	INIT_FDS_MAX = 34, /* arguments, group, SPACE_FDS_MAX */
	INIT_PID_SERVICE_MIN = 2,
	INIT_PID_SERVICE_MAX = 299,
	INIT_PID_MAX = 4194304,
};

enum init_verb {
	INIT_HELLO = 1,  /* reply: / (O_PATH), /proc, pid namespace */
	INIT_KEEP = 2,   /* name, 1 descriptor */
	INIT_FETCH = 3,  /* name; reply: 1 descriptor */
	INIT_DROP = 4,   /* name */
	INIT_LIST = 5,   /* name: prefix, cursor; reply: next name and cursor */
	INIT_SPAWN = 6,  /* flags, pid; descriptors: see below; reply: pid, pidfd */
	INIT_TRACK = 7,  /* pid */
	INIT_REAP = 8,   /* pid */
	INIT_END = 9,    /* end the space when this connection closes */
	INIT_PIDS = 10,  /* pid, cursor: [pid, pid + cursor) may be given out; see below */
	INIT_LEASE = 11, /* flags, until; reply: pid, frozen_at; see below */
	INIT_EXEC_GO = 12,   /* until: a call's id; the program is started here */
	INIT_EXEC_GIVE = 13, /* flags; until: a call's id; 1 descriptor; reply: pid: its number there */
};

enum {
	INIT_HELLO_EVENTS = 1u << 0,

	INIT_SPAWN_TRACK = 1u << 0,
	INIT_SPAWN_SERVICE = 1u << 1,
	INIT_SPAWN_GROUP = 1u << 2,
	INIT_SPAWN_BOUND = 1u << 3, /* a service, whose children are none */
	INIT_SPAWN_ASK = 1u << 4,   /* it and its children ask before they start programs, or
				     * name a process */

	INIT_PIDS_PLENTY = 1u << 0,

	INIT_LEASE_THAW = 1u << 0,

	INIT_EXEC_CLOSED = 1u << 0, /* by its exec */
};

/*
 * INIT_PIDS: from now on ssi-init has the cursor of PIDs, keeps it within these
 * and all that it was told before, and every child that is no service, or is
 * bound, asks it before it forks (init_pids.c).  INIT_PIDS_PLENTY: no more of that,
 * forks of those that ask go on at once; ssid watches the cursor, and ssi-init as
 * long as nobody is told events.
 */

/* Outcomes, > 0 in init_reply.result; < 0 is -errno. */
enum {
	INIT_E_ABSENT = 1,
	INIT_E_PID_TAKEN = 2,
	INIT_E_FULL = 3,
};

/*
 * INIT_SPAWN_ASK: who has that flag, and what descends from it, waits in execve(), or a kill() or
 * pidfd_open() of a PID that INIT_PIDS had not named before it was spawned, until its
 * INIT_EVENT_EXEC is answered by INIT_EXEC_GO, or a signal interrupts it: then it asks again under
 * another id.  Without an ssid it goes on at once (init_exec.c).
 */

/*
 * INIT_LEASE: the work cgroup may run until this CLOCK_BOOTTIME, in ns; then ssi-init
 * freezes it, whatever has become of ssid.  Frozen, it takes a lease with INIT_LEASE_THAW
 * only: whoever says that has made sure that nothing in it lives elsewhere by now; and none
 * that has ended meanwhile.
 * until 0 only asks.  pid: 1 if a lease lasts; frozen_at: the end of the lease for which it is frozen, or was until now;
 * 0: it ran.
 */

/*
 * INIT_SPAWN's descriptors: a memfd with the arguments, the cgroup directory if
 * INIT_SPAWN_GROUP, then those that become 3, 4, ... in the child.  The memfd
 * holds an init_arguments and then argv and envp, each string with its NUL.
 */
struct init_arguments {
	uint32_t n_argv;
	uint32_t n_envp;
};

struct init_request {
	uint32_t version;
	uint32_t verb;
	uint32_t flags;
	int32_t pid;
	union {
		uint32_t cursor;
		uint64_t until;
	};
	char name[INIT_NAME_SIZE];
};

struct init_reply {
	int32_t result;
	int32_t pid;
	union {
		uint32_t cursor;
		uint64_t frozen_at;
	};
	char name[INIT_NAME_SIZE];
};

enum init_event_type {
	INIT_EVENT_EXIT = 1, /* code CLD_*, status */
	INIT_EVENT_STOP = 2, /* status: the signal; SIGCONT: goes on */
	INIT_EVENT_PIDS_LOW = 3,   /* it began anew with the first of its runs */
	INIT_EVENT_PIDS_STRAY = 4, /* pid to status were given out outside of them */
	INIT_EVENT_EXEC = 5, /* pid waits in such a call, code: its number; id, args */
};

struct init_event {
	uint32_t type;
	int32_t pid;
	int32_t code;
	int32_t status;
	uint64_t id;
	uint64_t args[5];
};

/* Descriptors that ssi-init is started with. */
enum {
	INIT_FD_LISTEN = 3,
	INIT_FD_WORK = 4,  /* cgroup directory where children are born */
	INIT_FD_READY = 5, /* one int32: 0, or -errno */
};
