#pragma once
/*
 * Who is LOST is cut off outside of the cluster as well, where a site has a command for
 * that: a power switch, a port of a network switch, a reservation of a disk.
 *
 * Knows: space, membership.  Tells: nobody, the log.
 *
 * The loss is committed first; within the cluster it needs no command, see
 * "Why no two nodes both believe that they own a process" in ARCHITECTURE.md.  The leader runs it, as a
 * program of its own space: a leader that loses its lease meanwhile freezes it with all
 * others.  It may run twice, when the leader changes.
 */
#include "membership.h"
#include "space.h"

struct fence_command;

/* @command: "" for none, else an absolute path. */
int fence_command_new(struct fence_command **ret, const struct env *env, struct space *space,
		      struct membership *membership, const char *command, nsec_t timeout);
void fence_command_on_view(struct fence_command *f, const struct membership_view *view);
/* True: it was the command's. */
bool fence_command_on_exit(struct fence_command *f, const struct space_exit *exit);
