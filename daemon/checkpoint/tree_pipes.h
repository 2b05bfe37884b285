#pragma once
/*
 * The standard streams of a tree that leaves or arrives: which pipes they are,
 * how they are cut where it leaves and joined where it arrives.
 *
 * Leaving the node of its ssi-run, the tree's pipe ends are duplicated, and
 * become the near ends of new streams once the move is committed.  Leaving any
 * other node, the far ends are cut (stream_cut()) before, and opened again if the
 * move is undone; but where programs that stay hold the same pipe it is as at the node of
 * ssi-run: a new stream leads to the pipe, and on from it as before.  Arriving, new pipes are made, and their other ends are opened on commit.
 */
#include "console.h"
#include "criu.h"
#include "inventory.h"
#include "stream.h"

enum { TREE_PIPES_MAX = 16 };

/* One pipe of the tree.  What a peer is told of it; descriptors stay here. */
struct tree_pipe {
	ino_t inode;     /* where the tree was frozen: its name in the images */
	bool input;      /* the tree reads it */
	stream_id id;
	node_id console; /* where its other end is; NODE_NONE: the stream has ended */
	uint64_t position;
	uint8_t *rest;   /* bytes in the hands of the end that was cut */
	size_t n_rest;
};

/* Rooms that it needs. */
struct tree_pipes_context {
	struct stream_room *stream;
	struct console *console;
	node_id self;
};

struct tree_pipes;

/* What the frozen tree of @i holds; TREE_PIPES_MAX at most (-E2BIG).  @move gives new streams
 * their ids: a successor of ssid, which ends the move, finds the same. */
int tree_pipes_find(struct tree_pipes **ret, const struct tree_pipes_context *context,
		    const struct inventory *i, uint64_t move);
struct tree_pipes *tree_pipes_free(struct tree_pipes *p);

/* Inodes of pipes that streams can carry, of a running tree too: not in the way of a move. */
int tree_pipes_allow(const struct tree_pipes_context *context, const struct inventory *i,
		     ino_t ret[static TREE_PIPES_MAX], size_t *ret_n);

size_t tree_pipes_count(const struct tree_pipes *p);
const struct tree_pipe *tree_pipes_get(const struct tree_pipes *p, size_t i);

/* Cut those whose other end is elsewhere.  Fails as a whole: then they are as they were. */
int tree_pipes_cut(struct tree_pipes *p);
/* The move is committed: near ends stand and talk to @target. */
void tree_pipes_commit(struct tree_pipes *p, node_id target);
/* The move is undone: cut ends stand again. */
void tree_pipes_undo(struct tree_pipes *p);

/* The arriving side: make pipes for @list (rests are copied). */
int tree_pipes_make(struct tree_pipes **ret, const struct tree_pipes_context *context,
		    const struct tree_pipe *list, size_t n);
/* For criu: keys and the program's ends, owned by @p. */
const struct criu_inherit *tree_pipes_inherit(const struct tree_pipes *p, size_t *ret_n);
/* Committed: open the far ends. */
void tree_pipes_open(struct tree_pipes *p);
