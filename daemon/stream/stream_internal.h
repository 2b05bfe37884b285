#pragma once
/*
 * What the files of this room share: its ends.
 *
 * stream_hand.c keeps what an end has, stream_end.c is one end's life, stream_serve.c
 * what the other side says to it, stream_cut.c its leaving, stream_terminal.c what is
 * different at a terminal; stream.c is the room.
 */
#include "stream.h"
#include "stream_hand.h"

#include <sys/queue.h>

enum {
	STREAM_OPEN = RPC_ROOM_STREAM << 8 | 1,
	STREAM_DATA = RPC_ROOM_STREAM << 8 | 2,
	STREAM_BROKEN = RPC_ROOM_STREAM << 8 | 3,
	STREAM_RESIZE = RPC_ROOM_STREAM << 8 | 4,
};

enum { STREAM_MESSAGES_MAX = 8 };

/* Bytes that a reader has sent, until they are answered. */
struct stream_message {
	struct stream_end *from;
	struct rpc_request *call; /* NULL: free */
	uint64_t behind;	  /* the position behind its last byte */
	bool end;
};

struct stream_end {
	LIST_ENTRY(stream_end) entry;
	struct stream_room *room;
	stream_id id;
	struct stream_mark mark;
	ino_t inode; /* of its pipe; the number of its terminal */
	struct stream_hand hand;
	struct env_fd watch;
	struct env_timer again;
	bool joined;         /* the other end has heard of us */
	bool doubtful;       /* cut by a predecessor */
	bool lost;           /* its node was lost while this end was cut */
	nsec_t silent_since; /* 0: it answers */
	nsec_t absent_since; /* 0: it answers, or its node does not */
	struct rpc_request *call; /* OPEN or BROKEN */
	struct stream_message messages[STREAM_MESSAGES_MAX];
	size_t n_messages; /* that are not answered */
	uint64_t sent;	   /* reader: the position behind what they hold */
	uint64_t limit;	   /* reader: the position up to which there is room */
	struct rpc_call *unanswered; /* writer: a DATA that waits for room */
};

struct stream_room {
	const struct env *env;
	struct space *space;
	struct rpc *rpc;
	struct stream_slots *slots;
	LIST_HEAD(, stream_end) ends;
	uint32_t next_id;
};

static inline bool stream_end_is(const struct stream_end *e, unsigned flag)
{
	return e->mark.flags & flag;
}

static inline bool stream_end_is_reader(const struct stream_end *e)
{
	return e->mark.role == STREAM_READER;
}

struct stream_end *stream_end_find(const struct stream_room *s, stream_id id,
				   enum stream_role role);

/* An end around @hand, which is the end's when this succeeds.  Then announce it. */
int stream_end_new(struct stream_room *s, stream_id id, const struct stream_mark *mark,
		   const struct stream_hand *hand, ino_t inode, struct stream_end **ret);
/* What ssi-init keeps of it stays. */
void stream_end_free(struct stream_end *e);
void stream_end_close(struct stream_end *e);

/* Into the slot. */
void stream_end_set_flag(struct stream_end *e, uint8_t flag);
void stream_end_clear_flag(struct stream_end *e, uint8_t flag);
void stream_end_set_peer(struct stream_end *e, node_id peer);

/* No more events; what it was asked is answered, what it asked is forgotten. */
void stream_end_quiet(struct stream_end *e);
/* What it asked; what was sent and not acknowledged will be sent again. */
void stream_end_cancel(struct stream_end *e);
void stream_end_answer(struct stream_end *e); /* what it was asked: the position it wants */
/* The other side was heard. */
void stream_end_present(struct stream_end *e);

/*
 * These may close the end: nothing of it is touched after them.
 */
/* Move what can be moved. */
void stream_end_pump(struct stream_end *e);
/* Tell the other side that it stands, until it is answered. */
void stream_end_announce(struct stream_end *e);
/* Give the pipe up, and stay until the other side has heard of it. */
void stream_end_break(struct stream_end *e);
void stream_end_mismatch(struct stream_end *e); /* because bytes are missing */

/* The other end stands at @position.  False: bytes are missing. */
bool stream_end_meet(struct stream_end *e, uint64_t position);
uint64_t stream_end_position(const struct stream_end *e);
/* No more is read from the pipe; what is in the hand is still sent. */
void stream_end_stop_reading(struct stream_end *e);
/* A reader reads no more, a writer breaks, at their next turn, which comes at once.
 * Closes nothing now. */
void stream_end_give_up(struct stream_end *e);
/* The process at a cut end is gone: the other end of the pipe has no holder. */
bool stream_end_is_deserted(const struct stream_end *e);

/* stream_serve.c */
extern const struct rpc_method stream_methods[];

/* stream_terminal.c */
/* @e is at its end: so is the other one at its terminal, soon. */
void stream_end_hang_up(struct stream_end *e);
/* Its session goes on. */
bool stream_end_may_be_opened(const struct stream_end *e);
/* A predecessor may have been killed between the two. */
void stream_terminals_restored(struct stream_room *s);

/* stream_cut.c */
/* The process goes on here.  May close the end. */
void stream_end_uncut(struct stream_end *e);
