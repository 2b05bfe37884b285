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

/* Wait until ssid says that it was started; its PID.  Exits if it was not. */
int32_t program_await_start(struct session *s);

/* Pass bytes and signals on until it has ended, over restarts of ssid.  Takes @s.  Returns the
 * exit status for ours: its own, or 128 + n. */
int program_follow(const struct session_options *o, struct session *s, int32_t pid);
