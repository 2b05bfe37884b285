/*
 * A process P with three threads and its parent, which counts what it sees of
 * P: nothing, until P ends.  P leaves by executing a shadow, as on the way to
 * another node, and comes back by a restore in place into the shadow.
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#pragma once
#include "criu_test.h"

#define P_STATUS     33 /* P's own end */
#define CHILD_STATUS 7	/* that of the children which the shadow makes */

struct seen { /* by the parent, a subreaper */
	volatile int n_signals;
	volatile int n_events;
	volatile int code, status, pid;
};

struct report { /* of a shadow, when it starts */
	int pid, ppid, pgid, sid;
	int n_fds;	  /* that it was started with, stdio apart */
	bool back;	  /* has the control socket as descriptor 3: a fallback */
	bool coordinator; /* had one to reap */
};

struct family {
	uid_t uid;
	pid_t parent, p;
	struct seen *seen;
	struct leaf leaf;
	int listener;
	int control;		   /* to the shadow; -1 when P is itself */
	int n_children, n_signals; /* that P should have had */
};

/* main() calls it first: the program is the shadow as well */
void family_shadow_main(int argc, char **argv);

void family_start(struct family *f, uid_t uid);
/* P is dumped, and leaves */
void family_leave(struct family *f);
/* A shadow, from P or from a failed restore */
void family_expect_shadow(struct family *f, struct report *ret);
/* The shadow forks a child that ends after some microseconds */
void family_fork(struct family *f, int usec);
/* A signal for P to see, whatever P is now; one at a time, it does not queue */
void family_signal(struct family *f);
/* The shadow execs criu and answers to s; the request is in the socket before */
void family_come(struct family *f, struct swrk *s);
/* P is itself: has all threads, has had all children and signals */
void family_expect_p(struct family *f);
/* P is made to reap the coordinator, which no wait() of its own would find */
bool family_reap(struct family *f, pid_t coordinator);
/* The parent has seen nothing */
void family_expect_unseen(struct family *f);
/* P, or the shadow in its place, ends; the parent sees that and nothing else */
void family_end(struct family *f);
