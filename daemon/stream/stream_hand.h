#pragma once
/*
 * What one end of a stream has in its hands, so that a successor of ssid finds it.
 *
 * Bytes that were taken and not yet passed on are in a private pipe, the hand, which
 * ssi-init keeps beside the program's pipe; what they are is in a slot of the state
 * memfd "stream/state".  Knows: space.
 *
 * Invariant: whatever instant ssid is killed at, slot and hand together say which
 * bytes of the stream are in the hand.  stream_hand.c says why.
 */
#include "buf.h"
#include "ids.h"
#include "space.h"

#include <sys/uio.h>

enum {
	STREAM_HAND_SIZE = 256 << 10, /* of the private pipe, where allowed */
	STREAM_REST_MAX = 1 << 20,    /* as much as it may be made to hold */
	STREAM_PIECE_MAX = 64 << 10,  /* as much as is peeked at once */
};

/* All slots of this node. */
struct stream_slots;

/* What a slot says of its end; written as a whole. */
struct stream_mark {
	uint8_t role; /* enum stream_role */
	uint8_t flags;
	node_id peer;
};

enum {
	STREAM_ENDED = 1u << 0, /* end of file: seen (reader), received (writer) */
	STREAM_BREAKS =
		1u
		<< 1, /* the other end is to hear that this one is no more; no pipes */
	STREAM_CUT = 1u << 2,	   /* asleep, see stream_cut() */
	STREAM_TERMINAL = 1u << 3, /* `pipe` is the master of a terminal */
	STREAM_LAST =
		1u << 4, /* its session is over: what it holds is all that comes */
	STREAM_HELD = 1u << 5, /* see stream_hold() */
};

struct stream_hand {
	struct stream_slots *slots;
	size_t slot;
	int pipe;       /* our end of the program's; -1: not needed any more */
	int own;        /* the private one, both ends of it */
	uint64_t first; /* position in the stream of the first byte in it */
	size_t level;   /* bytes in it */
	size_t size;    /* and how many may be added; a rest may be more */
};

int stream_slots_new(struct stream_slots **ret, struct space *space);
struct stream_slots *stream_slots_free(struct stream_slots *s);
/* Every end that a predecessor left, told once; what is kept for none of them is dropped. */
int stream_slots_restore(struct stream_slots *s,
			 int (*cb)(void *owner, uint64_t id, const struct stream_mark *mark,
				   struct stream_hand *hand),
			 void *owner);

/* @pipe is kept, and the caller's until this succeeds.  @rest is in the hand then,
 * its first byte at @first.  -ENOSPC. */
int stream_hand_init(struct stream_hand *h, struct stream_slots *slots, uint64_t id,
		     const struct stream_mark *mark, int pipe, uint64_t first, const void *rest,
		     size_t n_rest);
/* The descriptors are closed here; ssi-init keeps them for a successor. */
void stream_hand_fini(struct stream_hand *h);
/* The end is over: nothing of it is kept.  Then fini. */
void stream_hand_drop(struct stream_hand *h);
void stream_hand_mark(struct stream_hand *h, const struct stream_mark *mark);
/* At a terminal: the leader of the session; HELD: by whom.  0: not known. */
void stream_hand_set_pid(struct stream_hand *h, pid_t pid);
pid_t stream_hand_pid(const struct stream_hand *h);
/* Give up the program's pipe: the program sees end of file, or that nobody reads. */
void stream_hand_release(struct stream_hand *h);

/* The position behind the last byte in the hand. */
uint64_t stream_hand_behind(const struct stream_hand *h);
/* How much more may be added. */
size_t stream_hand_room(const struct stream_hand *h);
/* Nothing more fits in. */
bool stream_hand_is_full(const struct stream_hand *h);

/* These never block.  Bytes moved, or -errno; -EAGAIN. */
/* program -> hand; 0: end of file; -EIO: nobody has the terminal open */
ssize_t stream_hand_take(struct stream_hand *h);
ssize_t stream_hand_give(struct stream_hand *h);  /* hand -> program; -EPIPE */
ssize_t stream_hand_put(struct stream_hand *h, const void *data, size_t len); /* 0: full */
int stream_hand_discard(struct stream_hand *h, size_t n); /* the first @n of it */

enum {
	_STREAM_PIPE_E_SUCCESS,
	STREAM_PIPE_E_UNREADABLE, /* it holds a page of a file that cannot be read, say */
};

/*
 * Up to @len bytes, and STREAM_PIECE_MAX, behind the first @skip of the hand, where
 * they stay. @ret is good until the next call for any hand; it may be less than there is.
 */
int stream_hand_peek(struct stream_hand *h, size_t skip, size_t len, struct iovec *ret);
/* Append what is in a pipe, or the beginning of it, to @ret: it stays there. */
int stream_pipe_peek(int pipe, struct buf *ret);
