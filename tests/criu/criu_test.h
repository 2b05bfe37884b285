/*
 * What the tests of our changes to CRIU share: a set of namespaces to run in,
 * a client of `criu swrk`, a cgroup leaf.  SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Each test is a program, run as root, that prints what it checks and ends
 * with 0, 1, or 77 and a reason when it cannot run.
 */
#pragma once
#include <stdbool.h>
#include <sys/types.h>

#include "rpc.pb-c.h"

#define CRIU   "/usr/local/lib/ssi/criu/sbin/criu"
#define IMAGES "/run/images"

/* Prints and ends the test (which takes all processes of the namespaces along) */
#define fail(...) test_fail(__FILE__, __LINE__, __VA_ARGS__)
#define check(cond)                                                                    \
	do {                                                                           \
		if (!(cond))                                                           \
			fail("not so: %s", #cond);                                     \
	} while (0)
void test_fail(const char *file, int line, const char *format, ...)
	__attribute__((noreturn, format(printf, 3, 4)));
void test_skip(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/*
 * Run the rest of main() as pid 1 of new pid, mount, ipc, uts and net
 * namespaces, with /proc and /run of their own; everything ends with it.
 */
void test_enter(int argc, char **argv);

/* An empty IMAGES */
void images_clear(void);

/*
 * A cgroup v2 leaf with the process in it; "" when there is none on this
 * machine.  Removed by leaf_remove() when it is empty.
 */
struct leaf {
	char path[256];
};
bool leaf_create(struct leaf *leaf, const char *name);
void leaf_add(const struct leaf *leaf, pid_t pid);
void leaf_leave(const struct leaf *leaf, pid_t pid);	/* to the parent of the leaf */
void leaf_freeze(const struct leaf *leaf, bool freeze); /* returns when it is so */
void leaf_remove(const struct leaf *leaf);

/* A worker is started for each request, and ends with its answer */
struct swrk {
	int fd;
	pid_t pid;	  /* 0 when somebody else runs criu */
	pid_t sender;	  /* who sent the last message: the coordinator, in place */
	char events[512]; /* names of the notifications, in order */
};
/* Called for each notification: false makes it fail */
typedef bool (*swrk_notify_cb)(struct swrk *s, const CriuNotify *n, void *owner);

void swrk_pair(struct swrk *s, int *ret_worker_fd); /* somebody else execs criu */
void swrk_start(struct swrk *s);
void swrk_send(struct swrk *s, CriuReqType type, CriuOpts *opts);
/* The answer's success; false as well when criu hangs up */
bool swrk_answer(struct swrk *s, swrk_notify_cb on_notify, void *owner,
		 pid_t *ret_restored);
void swrk_end(struct swrk *s);

/* All of that, and an answer that it went well: else the test fails, with the log of @opts */
void swrk_must(struct swrk *s, CriuReqType type, CriuOpts *opts, swrk_notify_cb on_notify,
	       void *owner, pid_t *ret_restored);

/* The log of the last request, to standard output */
void show_log(const char *name);

/* In what will be dumped: it holds nothing that stays behind, but /dev/null */
void app_alone(void);
/* @signal is blocked */
void app_wait_for(int signal);

/* The options that all requests of these tests share */
void opts_init(CriuOpts *opts, const char *log);
