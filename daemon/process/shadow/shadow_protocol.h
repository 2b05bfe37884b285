#pragma once
/*
 * Between ssid and a shadow: one datagram (SOCK_SEQPACKET) a command or report.
 *
 * The shadow has its end at descriptor 3 (or, after a restore in place that criu gave up,
 * at one of the next SHADOW_FDS_MAX): a socket *connected to the path*
 * SHADOW_SOCKET, whose listener is root's.  Both are asked of the kernel, and only
 * root can reach that path, so nobody else can speak to a shadow.
 *
 * A signal that a shadow took from the kernel has a number and stays in its
 * journal until ssid acknowledges it; when the journal is full the kernel's own
 * queue is the journal's continuation.  On RESUME (a new ssid) all are sent again.
 */
#include <stdint.h>
#include <sys/types.h>
#include <sys/signalfd.h>

/* Fixed: the program trusts no argument.  Labs have a /run of their own. */
#define SHADOW_SOCKET "/run/ssi/shadow.sock"

enum {
	SHADOW_FD = 3,
	SHADOW_JOURNAL = 64,
	SHADOW_DATA_MAX = 2048,
	SHADOW_FDS_MAX = 20,
	SHADOW_ARGS_MAX = 32,
	SHADOW_KEPT_MAX = 1024,
};

enum shadow_verb {
	SHADOW_ACK = 1,	   /* forget signals up to `sequence` */
	SHADOW_RESUME = 2, /* number on after `sequence`, if behind; send what is
			      unacknowledged */
	SHADOW_NAME = 3,   /* data: what `ps` calls it */
	SHADOW_BECOME =
		4, /* uid, gid; flags SHADOW_SETSID; value: group to join, 0: none */
	SHADOW_EXIT = 5, /* value: exit status */
	SHADOW_KILL = 6, /* value: the signal to die by, no core */
	SHADOW_STOP = 7, /* value: the signal to stop by */
	SHADOW_EXEC = 8, /* as root; data: arguments, each with its NUL; descriptors: 3,
			    4, ... */
	SHADOW_FORK = 9, /* a child shadow with PID value; descriptor: its socket */
	SHADOW_REAP = 10, /* the kept child with PID value: how it ended is known */
	SHADOW_TERMINAL = 12, /* of the session that it leads: descriptors: the terminal, and a
				 socket from which groups (int32_t) come that shall have it */
	SHADOW_SENTINEL = 11, /* a shadow of nobody in the same group, a child of ssi-init,
				 that counts from `sequence`; descriptor: its socket */
};

#define SHADOW_SETSID (1u << 0)
/* Of FORK: the child becomes a process; it stays a zombie until REAP. */
#define SHADOW_KEEP (1u << 1)

struct shadow_command {
	uint32_t verb;
	int32_t value;
	uint64_t sequence;
	uint32_t uid, gid;
	uint32_t flags;
	uint32_t n_data; /* the datagram ends behind data[n_data] */
	char data[SHADOW_DATA_MAX];
};

#define SHADOW_COMMAND_HEAD __builtin_offsetof(struct shadow_command, data)

enum shadow_kind {
	SHADOW_HELLO = 1,   /* value: 1: it can become root; info: its pid; what ITIMER_REAL
			     * had, stopped now: utime to go, stime between, in us */
	SHADOW_SIGNAL = 2,  /* sequence, info */
	SHADOW_FORKED = 3,  /* value: -errno; the child says HELLO */
	SHADOW_REFUSED = 4, /* value: -errno of an EXEC, BECOME or STOP */
	SHADOW_CHILD = 5,   /* value: a kept child; info: as its SIGCHLD */
	SHADOW_SETTLED = 6, /* of who was a process: behind HELLO and the signals that were
			     * pending then */
	SHADOW_BECAME = 7,  /* BECOME is done */
};

struct shadow_report {
	uint32_t kind;
	int32_t value;
	uint64_t sequence;
	struct signalfd_siginfo info;
};
