#pragma once
/*
 * A session's terminal on nodes where only some of the session runs.
 *
 * Knows: env, space, stream.  At home the terminal is what it always is: its line discipline
 * echoes, edits lines and makes signals of keys.  On a node where a program of the session
 * begins stands a *mirror*, a pty of that node's space, which is the controlling terminal of
 * the session's leader (a shadow) there.  Between the two is a *line*: a process of ssi-tty at
 * either end, and two streams.  All that concerns the terminal is between these two, in one
 * order (relay/ssi_tty.h); ssid only sets the line up, so its death is none of theirs, and
 * nothing is kept in it: ssi-init keeps a socket of each process of ssi-tty, whose name says
 * the rest.
 *
 * Invariant: line and mirror end together, when the session's leader ends, when the terminal is
 * hung up at home, or when a node or a process of ssi-tty is lost; then the session's members on
 * that node find it hung up.
 *
 * Source of the idea: telnetd's LINEMODE (EXTPROC), where the discipline is the user's too.
 */
#include "env.h"
#include "ids.h"
#include "space.h"
#include "stream.h"

struct tty_room;

struct tty_state {
	pid_t session;
	pid_t foreground; /* its group of processes */
	unsigned number;  /* N of /dev/pts/N, at home */
	uid_t owner;
	struct termios modes;
	struct winsize size;
	stream_id typed, shown; /* the line */
};

/* @libexec_dir: of ssi-tty, as the space sees it. */
int tty_room_new(struct tty_room **ret, const struct env *env, struct space *space,
		 struct stream_room *stream, const char *libexec_dir);

/* What the terminal @number is like, of which session and foreground are known.  Thread: any. */
int tty_look(int root_fd, struct tty_state *state);

/* At home: the line to @node, of which only one stands; typed and shown are set. */
int tty_line(struct tty_room *t, node_id node, struct tty_state *state);

/*
 * On the other node: the mirror.  *ret_slave is the caller's.  *ret_control as well, if the
 * mirror is new: it is for the leader of the session, with the slave, before any other of it
 * stands; else -1.
 */
int tty_mirror(struct tty_room *t, node_id home, const struct tty_state *state, int *ret_slave,
	       int *ret_control);

/*
 * What was written to the mirror of @session until now is on its way: true, and @done (once, @pid
 * is the caller's) when it is on the terminal at home.  False: there is no mirror.
 */
typedef void (*tty_drained_cb)(void *owner, pid_t pid);
void tty_on_drained(struct tty_room *t, tty_drained_cb done, void *owner);
bool tty_drain(struct tty_room *t, pid_t session, pid_t pid);
