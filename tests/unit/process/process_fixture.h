#pragma once
/*
 * One node's process room over a real space of the test's own, with a loop, a
 * membership and an rpc that are the test's: node 1 is here, node 2 is played by
 * the test (`remote` sees what is sent to it).
 */
#include "process_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { HERE = 1, THERE = 2, LIBEXEC_MAX = 64 };

extern struct process_room *room;
extern struct space *space;
extern const struct env *const process_env;
extern pid_t there_first; /* PIDs from here on have their home on node 2 */
extern bool there_up, trace_shadows;
extern bool there_ahead; /* its calls are of a view that is not known here yet */
extern int64_t wall_ahead; /* the wall clock's step */

/* A message to node 2; the status it answers with. */
extern enum rpc_status (*remote)(uint16_t method, const ProtobufCMessage *request);

/* argv[1]: where ssi-init is; argv[2]: ssi-spawn, ssi-shadow and this test's programs.
 */
int process_fixture_main(int argc, char **argv, int (*tests)(void));
void process_fixture_open(void);
void process_fixture_close(void); /* as ssid ends: the space and its processes go on */

void turn(void);
void turn_for(nsec_t span);
#define wait_until(condition_)                                                         \
	do {                                                                           \
		nsec_t until_ = env_now(process_env) + 60 * NSEC_PER_SEC;              \
		while (!(condition_)) {                                                \
			if (env_now(process_env) > until_)                             \
				fail_msg("waited for a minute: %s", #condition_);      \
			turn();                                                        \
		}                                                                      \
	} while (0)

/* A message from node 2 to this one; its outcome. */
enum rpc_status from_there(uint16_t method, const ProtobufCMessage *request);
/* What node 2 answers instead of an empty message; who looks at what it is answered. */
extern const ProtobufCMessage *remote_reply;
extern void (*on_reply)(const ProtobufCMessage *reply);

/* The programs that the test copied into the space. */
const char *program(const char *name);

struct run {
	pid_t pid;
	int out; /* what it writes to stdout and stderr */
	char text[65536];
	size_t len;
};

/* Launch /bin/sh -c @script (or @argv) as uid 1000, stdout and stderr into a pipe. */
void run_script(struct run *r, const char *script);
void run_launch(struct run *r, struct process_launch *l);
/* Read what there is. */
const char *run_text(struct run *r);
void launch_defaults(struct process_launch *l, char **argv);

struct ending {
	bool told;
	enum rpc_status status;
	int code, exit_status;
};
void wait_for(struct ending *e, pid_t app);
