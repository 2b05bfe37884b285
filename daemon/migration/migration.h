#pragma once
/*
 * Moving a running tree of processes to another node.
 *
 * Knows: env, space, rpc, membership, process, stream, checkpoint's criu,
 * image and inventory.  Tells: the asker.
 *
 * One state machine on each side (migration_source.h, migration_target.c).  The
 * commit rule: the source stays frozen from the moment RESTORE is sent until the
 * target acknowledges a commit or an abort, or a view excludes it and no node that is up
 * has a copy that moved on from it; the target runs the
 * tree on COMMIT, or when a view excludes the source after everything arrived.  Until
 * then every failure ends with the original running and the copy gone; afterwards
 * with the copy running and the original a shadow.  Both sides write where they are
 * into a state memfd, so a successor of ssid ends what it finds.
 *
 * Invariant: exactly one live copy, at every step, whoever dies.
 */
#include "criu.h"
#include "env.h"
#include "inventory.h"
#include "membership.h"
#include "process.h"
#include "rpc.h"
#include "space.h"
#include "stream.h"
#include "console.h"

struct event_sink;
struct migration_room;

struct migration_neighbours {
	const struct env *env;
	struct space *space;
	struct rpc *rpc;
	struct membership *membership;
	struct process_room *process;
	struct stream_room *stream;
	struct console *console;
	struct criu *criu;
	const struct event_sink *events; /* where what comes of it is told; may be NULL */
	int private_dir_fd;	  /* where images stand */
	uint64_t image_max_bytes; /* of one tree */
};

int migration_room_new(struct migration_room **ret,
		       const struct migration_neighbours *n);
struct migration_room *migration_room_free(struct migration_room *m);
void migration_on_view(struct migration_room *m);

struct migration_request {
	pid_t pid;
	node_id target;
	struct process_caller caller;
	bool dry_run;
	bool explain; /* a dry run that says what becomes of each thing */
	bool follow; /* an ssid that is gone was asked: tell what became of it */
	nsec_t timeout;	   /* given up, and undone, unless it is committed by then */
	nsec_t max_frozen; /* the same, of the time that it stands still; 0: any */
};

/* What a dry run has found out. */
struct migration_forecast {
	enum rpc_status refused; /* RPC_OK, or what a move would end with, and its text */
	const char *why;
	uint64_t bytes; /* to be sent */
	nsec_t frozen;
	unsigned n_moves; /* from this node, that both are drawn from; 0: from figures of ours */
	const struct inventory_thing *things;
	size_t n_things;
	size_t n_more; /* left out */
};

struct migration_result {
	enum rpc_status status;
	const char *text; /* when status is not RPC_OK */
	node_id from;	  /* NODE_NONE: not known, as are the figures */
	nsec_t frozen;	  /* by CLOCK_BOOTTIME of the source, until the copy ran */
	uint64_t bytes;
	const struct migration_forecast *forecast; /* of what was explained, RPC_OK; else NULL */
};

typedef void (*migration_progress_cb)(void *owner, const char *step, uint64_t bytes,
				      uint64_t total);
typedef void (*migration_done_cb)(void *owner, const struct migration_result *result);

/* Move @pid's tree from wherever it is.  done once; progress, which may be NULL, any number of
 * times before. */
int migration_move(struct migration_room *m, const struct migration_request *request,
		   migration_progress_cb progress, migration_done_cb done, void *owner);
/* The asker is gone: callbacks never come; the move itself goes on. */
void migration_forget(struct migration_room *m, void *owner);
