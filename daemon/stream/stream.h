#pragma once
/*
 * Standard streams whose two ends are on two nodes.
 *
 * Knows: env, space, rpc.  A stream is one direction of bytes, from a pipe on one node
 * to a pipe on another; its id is unique in the cluster (node << 32 | counter).  Its
 * two ends are told apart by role, since both may be on one node.  The reader reads its
 * pipe only while it has room (256 KiB) and keeps bytes until they are
 * acknowledged; each byte has a position, so that what is sent twice is taken once. End
 * of file travels behind the last byte; a writer whose pipe lost its reader tells the
 * other side, which closes its pipe (so a program gets its SIGPIPE).
 *
 * In the place of a pipe there may be the master of a terminal: then two ends, one of
 * each role, belong to it, and neither stays without the other.  The stream of what is
 * typed is also the line: when it ends, the terminal is hung up.  When the leader of
 * the session has ended, what is left of its output is sent, and both end.
 *
 * Invariant: every byte is delivered once, in order, or the stream breaks on both
 * sides (a node was lost).  ssid may be killed at any instant, on either node: what its
 * ends hold is kept by ssi-init (stream_hand.h), and a successor goes on with it.
 */
#include "env.h"
#include "ids.h"
#include "rpc.h"
#include "space.h"
#include "terminal.h"

#include <sys/types.h>

typedef uint64_t stream_id;

struct stream_room;

enum stream_role {
	STREAM_READER = 1, /* takes bytes out of a local pipe */
	STREAM_WRITER = 2, /* puts bytes into one */
};

enum {
	_STREAM_E_SUCCESS,
	STREAM_E_ABSENT, /* no such end here */
};

/* With the ends that a predecessor left; they announce themselves. */
int stream_room_new(struct stream_room **ret, const struct env *env, struct space *space,
		    struct rpc *rpc);
/* As ssid ends: the streams go on, with its successor. */
struct stream_room *stream_room_free(struct stream_room *s);
/* A node was lost: streams to it end. */
void stream_on_node_lost(struct stream_room *s, node_id node);

stream_id stream_new_id(struct stream_room *s);

/*
 * One end here; the other is, or will be, at @peer (which may be this node), and is
 * told: from now on it sends here, beginning with what was not acknowledged.  @peer
 * NODE_NONE, for a reader: nobody wants the bytes, they are dropped.  @owned_fd is the
 * end of a pipe (O_NONBLOCK is not set on it: it may be shared; reads and writes never
 * block the loop), or the master of a terminal.
 * @position: bytes of the stream that went by before this end stood.  @rest (copied):
 * bytes behind it which an earlier end had in its hands; a reader sends, a writer
 * writes them first. The very pipe of an end that was cut: the move is undone, that end
 * goes on; @position and
 * @rest are not looked at, since it has them still.
 */
int stream_open(struct stream_room *s, stream_id id, enum stream_role role, node_id peer,
		int owned_fd, uint64_t position, const void *rest, size_t n_rest);

/*
 * A reader that takes nothing yet, since it is not decided whether the program that will read
 * here begins at @peer: @pid has the pipe, and may keep it.  Until stream_go() of @pid or
 * stream_stay(), also in a successor of ssid.
 */
int stream_hold(struct stream_room *s, stream_id id, node_id peer, int owned_fd, pid_t pid);
void stream_go(struct stream_room *s, pid_t pid);
/* The ends are no more, and have taken nothing.  @pid 0: whoever holds one. */
void stream_stay(struct stream_room *s, pid_t pid);

/*
 * Terminals.  make: for a program of this node; @master is opened as a reader and as a
 * writer (a descriptor each, O_NONBLOCK).  leads: the reader's program is the leader of
 * the session. exit: of any process of this node.  resize: of the terminal that the
 * bytes of reader @id go to, wherever it is; done comes once if 0 is returned.
 */
int stream_terminal_make(struct stream_room *s, const struct terminal_setup *setup,
			 int *ret_master, int *ret_slave);
int stream_terminal_leads(struct stream_room *s, stream_id id, pid_t leader);
void stream_on_exit(struct stream_room *s, pid_t pid);
int stream_resize(struct stream_room *s, stream_id id, const struct winsize *size,
		  rpc_done_cb done, void *owner);

/* The end of @role here whose pipe has this inode: what a process that leaves holds of
 * streams. */
struct stream_info {
	stream_id id;
	node_id peer;
};
int stream_by_pipe(const struct stream_room *s, ino_t pipe, enum stream_role role,
		   struct stream_info *ret);

/*
 * The process at this end is frozen and leaves.  What is in the pipe and what this end
 * holds are copied for the caller, for stream_open() of the next end: a reader's
 * bytes that were not acknowledged, a writer's that its process has not read
 * (@app_fd: a duplicate of the process's end, the caller's; a reader needs none).
 * Nothing is sent, nothing is waited for; < 0: the end is as it was.
 *
 * This end sleeps then, also in a successor of ssid, until stream_open() or
 * stream_uncut() undo it, or the process is gone: then it is forgotten, with its bytes.  In a
 * successor which is not told within a minute that the process goes on, it breaks.
 */
struct stream_cut {
	uint64_t position;
	int owned_fd; /* of the pipe, for stream_open() */
	uint8_t *owned_rest; /* malloc()ed */
	size_t n_rest;
};
int stream_cut(struct stream_room *s, stream_id id, enum stream_role role, int app_fd,
	       struct stream_cut *ret);
/* For a successor that undoes a move: the process which has the other end of @pipe goes on
 * here.  STREAM_E_ABSENT: no end at it was cut. */
int stream_uncut(struct stream_room *s, ino_t pipe);

/* Close: a reader tells end of file behind its last byte, a writer that nobody reads. */
int stream_close(struct stream_room *s, stream_id id, enum stream_role role);
