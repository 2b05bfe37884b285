#pragma once
/*
 * A space of the test's own: new mount, pid and cgroup namespaces around it, so
 * that nothing of the machine is touched and nothing is left when it ends.
 */
#include "space.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* Run @tests inside a space, as ssid's core would; the exit status for main().  77: not root. */
int fixture_main(int argc, char **argv, int (*tests)(void));
/* Run @tests where ssid starts, before there is a space. */
int fixture_main_outside(int argc, char **argv, int (*tests)(void));

extern struct space_config fixture_config;
extern const struct env *const fixture_env;

/* A client, with what it was told below. */
struct fixture {
	struct space *space;
	struct space_exit exits[64];
	size_t n_exits;
	struct {
		pid_t pid;
		int signal;
	} stops[64];
	size_t n_stops;
	int n_lost, n_low;
	struct space_exec execs[64]; /* that wait */
	size_t n_execs;
};

void fixture_open(struct fixture *f);
void fixture_close(struct fixture *f);

/* Turn the loop until @done says so; fails the test after a minute: forks take 1 ms on slow machines. */
void fixture_wait(bool (*done)(void *owner), void *owner);
/* Turn it for so long. */
void fixture_turn(nsec_t span);
/* Wait for the end of @pid and return it. */
struct space_exit fixture_exit_of(struct fixture *f, pid_t pid);

/* /bin/sh -c @script, tracked. */
pid_t fixture_sh(struct fixture *f, const char *script, int group_fd);
/* State letter of /proc/PID/stat in the space, '-' if there is none. */
char fixture_state(const struct fixture *f, pid_t pid);
