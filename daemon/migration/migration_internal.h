#pragma once
/* What the files of this room share. */
#include "inventory.h"
#include "migration.h"
#include "migration.pb-c.h"
#include "migration_journal.h"
#include "migration_past.h"
#include "tree_pipes.h"

#include <stdarg.h>
#include <sys/queue.h>

enum {
	MIGRATION_MOVE = RPC_ROOM_MIGRATION << 8 | 1,
	MIGRATION_PROGRESS = RPC_ROOM_MIGRATION << 8 | 2,
	MIGRATION_ASK = RPC_ROOM_MIGRATION << 8 | 3,
	MIGRATION_CHUNK = RPC_ROOM_MIGRATION << 8 | 4,
	MIGRATION_RESTORE = RPC_ROOM_MIGRATION << 8 | 5,
	MIGRATION_COMMIT = RPC_ROOM_MIGRATION << 8 | 6,
	MIGRATION_ABORT = RPC_ROOM_MIGRATION << 8 | 7,
	MIGRATION_QUERY = RPC_ROOM_MIGRATION << 8 | 8,
	MIGRATION_STAND = RPC_ROOM_MIGRATION << 8 | 9,
	MIGRATION_PAGES = RPC_ROOM_MIGRATION << 8 | 10,
};

enum {
	MIGRATION_CONCURRENT_MAX = 64, /* a side */
};

/* One that waits for a move, here. */
struct migration_watch {
	LIST_ENTRY(migration_watch) entry;
	struct migration_room *room;
	uint64_t number;
	struct migration_request request;
	node_id from;
	migration_progress_cb progress;
	migration_done_cb done;
	void *owner; /* NULL: forgotten */
	/* migration_follow.c */
	struct env_timer again;
	nsec_t follow_until;
	unsigned n_absent; /* times that neither side had it */
};

void migration_watch_end(struct migration_watch *w,
			 const struct migration_result *result);
void migration_watch_fail(struct migration_watch *w, enum rpc_status status,
			  const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* migration_follow.c: who moved it is gone; find out what became of the move. */
void migration_follow(struct migration_watch *w);
void migration_on_stand(struct migration_room *m, struct rpc_call *call, pid_t pid);

struct migration_room {
	struct migration_neighbours n;
	struct tree_pipes_context pipes;
	struct migration_journal *journal;
	struct migration_past past; /* moves that left here */
	LIST_HEAD(, migration_watch) watches;
	LIST_HEAD(, migration_source) sources;
	LIST_HEAD(, migration_target) targets;
	unsigned n_sources, n_targets;
	bool adopted;	      /* what a predecessor had committed */
	bool resumed;	      /* all that it had begun */
	uint64_t next_number; /* of watches and migrations, random at start */
};

/* How a move ended, for the asker. */
struct migration_outcome {
	enum rpc_status status;
	char text[RPC_TEXT_MAX]; /* one line */
};
void migration_outcome_set(struct migration_outcome *o, enum rpc_status status,
			   const char *format, va_list ap);
void migration_outcome(struct migration_outcome *o, enum rpc_status status,
		       const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Of this node, by the view: of this ssid, once it has had its lease. */
uint64_t migration_own_incarnation(const struct migration_room *m);
/* May a move be begun here, or taken?  NULL, or why not, to stand behind "that node". */
const char *migration_unready(const struct migration_room *m);

/* What /proc says of a tree's members; their application and generation are not in it.
 * malloc()ed. */
int migration_members_of(const struct inventory *i, struct process_member **ret,
			 size_t *ret_n);

/* migration_source.c: serve MIGRATION_MOVE; answers @call at the end. */
void migration_source_begin(struct migration_room *m, struct rpc_call *call,
			    const Ssi__Migration__MoveRequest *q);
void migration_sources_free(struct migration_room *m);

/* migration_settle.c */
void migration_source_on_view(struct migration_room *m);
/* migration_resume.c: what a predecessor left half-way. */
void migration_source_resume(struct migration_room *m, const struct migration_entry *e);

/* migration_target.c */
void migration_target_on_ask(struct migration_room *m, struct rpc_call *call,
			     const Ssi__Migration__AskRequest *q);
void migration_target_on_chunk(struct migration_room *m, struct rpc_call *call,
			       const Ssi__Migration__ChunkRequest *q,
			       struct iovec bulk);
void migration_target_on_restore(struct migration_room *m, struct rpc_call *call,
				 const Ssi__Migration__RestoreRequest *q);
void migration_target_on_pages(struct migration_room *m, struct rpc_call *call,
			       const Ssi__Migration__PagesRequest *q,
			       struct iovec bulk);
void migration_target_on_commit(struct migration_room *m, struct rpc_call *call,
				const Ssi__Migration__CommitRequest *q);
void migration_target_on_abort(struct migration_room *m, struct rpc_call *call,
			       const Ssi__Migration__AbortRequest *q);
void migration_target_on_query(struct migration_room *m, struct rpc_call *call,
			       const Ssi__Migration__QueryRequest *q);
void migration_target_on_view(struct migration_room *m);
/* It was committed, and perhaps not recorded yet. */
void migration_target_adopt(struct migration_room *m, const struct migration_entry *e);
void migration_target_resume(struct migration_room *m, const struct migration_entry *e);
void migration_targets_free(struct migration_room *m);

extern const struct rpc_method migration_methods[];
