#pragma once
/*
 * The pipes that ssi-run holds the other ends of, known by inode.
 *
 * While a program is on the node of its ssi-run, the two share pipes and ssid
 * has no part in it.  When it leaves, these are the pipes that become streams.
 * Kept in a state memfd, since a successor of ssid must know them.
 */
#include "ids.h"
#include "space.h"

#include <stdbool.h>

struct console;

int console_new(struct console **ret, struct space *space);
struct console *console_free(struct console *c);

/* @fd: the program's end of a pipe; @input: it reads it.  Those of applications that
 * have ended make room when there is none: -ENOSPC only if all live. */
int console_add(struct console *c, pid_t app, int fd, bool input);
bool console_has(const struct console *c, ino_t pipe, bool *ret_input);
