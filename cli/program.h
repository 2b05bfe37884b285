#pragma once
/*
 * A program that runs somewhere in the cluster, followed from here: its standard
 * streams, the signals that its user sends, its end.  One a process.
 */
#include "session.h"

/*
 * Make pipes for 0, 1 and 2, unless ours is /dev/null (its node has one as
 * well) or they are not @wanted.  The program's ends go to @ret, to be sent and
 * closed by the caller; the bits that a request wants are returned.
 */
uint32_t program_pipes(bool wanted, int ret[static 3], size_t *ret_n);

/*
 * The same for a program that gets a terminal, which is its 0 and 1 and, with @errors,
 * 2: the first two are the pipes of what is typed and of what it shows.
 */
uint32_t program_terminal(bool errors, int ret[static 3], size_t *ret_n);

/* A pipe in which nothing but why a program was not executed will come; as above. */
uint32_t program_report(int ret[static 3], size_t *ret_n);

/* Wait until ssid says that it was started; its PID.  Exits if it was not. */
int32_t program_await_start(struct session *s);

/*
 * Wait until a program with such a pipe is executed.  False: it was not; standard error has
 * why, and *ret_status is the exit status for ours.
 */
bool program_executed(const struct session_options *o, struct session *s, int32_t pid,
		      int *ret_status);

/*
 * Pass bytes and signals on until it has ended, over restarts of ssid.  Takes @s.
 * Returns the exit status for ours: its own, or 128 + n.  With a terminal ours is raw
 * meanwhile; a signal that ends us leaves the terminal to be hung up.
 */
int program_follow(const struct session_options *o, struct session *s, int32_t pid);
