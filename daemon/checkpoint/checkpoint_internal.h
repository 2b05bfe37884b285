#pragma once
/* What the files of this room share. */
#include "buf.h"
#include "checkpoint.h"
#include "checkpoint.pb-c.h"
#include "copy.h"
#include "image.h"
#include "manifest.h"
#include "tree_pipes.h"

#include <stdarg.h>
#include <sys/queue.h>

enum {
	CHECKPOINT_SAVE = RPC_ROOM_CHECKPOINT << 8 | 1,
	CHECKPOINT_RESTART = RPC_ROOM_CHECKPOINT << 8 | 2,
};

/* One that waits here for something done elsewhere, or by ssi-copy. */
struct checkpoint_ask {
	LIST_ENTRY(checkpoint_ask) entry;
	struct checkpoint_room *room;
	void *owner; /* NULL: forgotten */
	struct checkpoint_save save;
	struct checkpoint_restart restart;
	char *directory, *description, *name; /* owned copies */
	stream_id streams[3];
	struct checkpoint_browsing *browsing;
	union {
		checkpoint_saved_cb saved;
		checkpoint_restarted_cb restarted;
		checkpoint_listed_cb listed;
	} done;
};

struct checkpoint_room {
	struct checkpoint_neighbours n;
	struct checkpoint_config config;
	struct tree_pipes_context pipes;
	LIST_HEAD(, checkpoint_ask) asks;
	uint32_t next_number; /* of private directories and groups */
};

/* How it ended; the first failure is the one to tell. */
struct checkpoint_outcome {
	enum rpc_status status;
	char text[512];
};
void checkpoint_outcome_set(struct checkpoint_outcome *o, enum rpc_status status,
			    const char *format, va_list ap);

struct checkpoint_ask *checkpoint_ask_new(struct checkpoint_room *c, void *owner);
void checkpoint_ask_free(struct checkpoint_ask *a);

/* checkpoint_save.c, checkpoint_restart.c: serve, and answer @call at the end. */
void checkpoint_save_begin(struct checkpoint_room *c, struct rpc_call *call,
			   const Ssi__Checkpoint__SaveRequest *q);
void checkpoint_restart_begin(struct checkpoint_room *c, struct rpc_call *call,
			      const Ssi__Checkpoint__RestartRequest *q);

/* checkpoint_wire.c */
extern const struct rpc_method checkpoint_methods[];
/* False: not a caller. */
bool checkpoint_caller_parse(struct process_caller *ret, const Ssi__Checkpoint__Caller *q);
/* @groups is the message's: it must outlive it. */
void checkpoint_caller_format(const struct process_caller *caller, Ssi__Checkpoint__Caller *ret,
			      uint32_t groups[static 64]);
/* An absolute path, malloc()ed; NULL: not one. */
char *checkpoint_path_parse(const ProtobufCBinaryData *b);
