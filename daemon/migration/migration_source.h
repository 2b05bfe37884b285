#pragma once
/*
 * The side that a tree leaves, in four files: the way to an image that the target
 * has (migration_source.c, migration_ship.c), how it ends (migration_settle.c), and
 * what a predecessor of this ssid began (migration_resume.c).
 */
#include "migration_wire.h"

#include "pages.h"
#include "sm.h"

enum source_state {
	SOURCE_LOOKING, /* at what it holds */
	SOURCE_ASKING,
	SOURCE_FREEZING,
	SOURCE_DUMPING,
	SOURCE_RESTORING,
	SOURCE_COMMITTING,
	SOURCE_QUERYING,
	SOURCE_DEPARTING,
	SOURCE_UNDOING,
	SOURCE_ENDED,
};

enum { REFUSALS_MAX = 5 }; /* of a tree that goes on changing */

struct migration_source {
	LIST_ENTRY(migration_source) entry;
	struct migration_room *room;
	struct sm sm;
	uint64_t id;
	pid_t root;
	node_id target;
	bool dry_run, held, asked;
	bool explain; /* a dry run, of which all is told */
	bool resumed;	     /* begun by a predecessor of this ssid */
	bool committed;	     /* the target runs it; we depart when the space runs again */
	bool may_be_ready;   /* RESTORE was sent, and no abort acknowledged */
	bool aborting;	     /* an abort is under way, or waits for its turn */
	bool anew;	     /* the target's space began anew: it does not know */
	uint64_t target_incarnation; /* that was sent RESTORE */
	uint64_t incarnation; /* ours, when the target was asked; 0: a predecessor's */
	uint32_t generation; /* of the copy; 0: not known yet */
	nsec_t deadline;
	nsec_t max_frozen; /* 0: any */
	struct env_timer timer;
	struct env_timer limit; /* DUMPING, RESTORING: of both */
	struct rpc_call *call; /* who asked; NULL after a restart of ssid */
	node_id watcher;
	uint64_t watch;

	struct env_work work; /* of LOOKING, FREEZING and DEPARTING */
	int work_result;
	struct inventory *inventory;
	struct inventory_things *things; /* explained */
	struct space_group *group;
	struct process_member *members;
	size_t n_members;
	struct process_pending *pending;
	nsec_t freeze_max; /* of the work */
	nsec_t freezing_at, frozen_at, frozen_for;

	struct criu_run *dump;
	bool dump_done, paused;
	uint64_t shipped;
	size_t under_way;
	bool may_leave_pages;	     /* the target takes them */
	struct pages_reader *reader; /* NULL: the images hold all memory */
	struct pages_piece *piece;   /* at hand */
	bool reading, read_all;
	bool last_waits; /* until all pieces before it are there */
	struct rpc_request *restore; /* not answered yet */
	struct tree_pipes *pipes;
	struct process_departure *departure;
	struct migration_outcome outcome;

	/* When it was refused a moment ago: what it held, why, and how often. */
	struct inventory *before;
	struct migration_outcome refusal;
	unsigned n_refused;
};

/* migration_source.c */
extern const struct sm_state source_states[];
uint64_t source_next_id(struct migration_room *m);
struct migration_source *source_new(struct migration_room *m, uint64_t id, pid_t root,
				    node_id target);
void source_free(struct migration_source *s);
void source_journal(struct migration_source *s, enum migration_step step);
void source_progress(struct migration_source *s, const char *step, uint64_t bytes,
		     uint64_t total);
/* For calls whose answer changes nothing. */
void source_forget_reply(void *owner, const struct rpc_result *result);
nsec_t source_time_left(const struct migration_source *s);
/* Not after the time given, nor does it stand still for too long?  False: it has failed. */
bool source_in_time(struct migration_source *s);
/* Bytes to be sent, and how long it would stand still. */
void source_predict(const struct migration_source *s, uint64_t *ret_bytes, nsec_t *ret_frozen,
		    unsigned *ret_n_moves);
const char *source_target_name(const struct migration_source *s);
/* Undo it; the first failure is the one to tell. */
void source_fail(struct migration_source *s, enum rpc_status status, const char *format,
		 ...) __attribute__((format(printf, 3, 4)));
/* From the wish to the frozen tree. */
void source_start(struct migration_source *s);
/* The target does not take it. */
void source_refused(struct migration_source *s, const struct rpc_result *result);
/* What the records say of the frozen tree's members. */
void source_name_members(struct migration_source *s);

/* migration_ship.c: dump, ship, have it restored. */
void source_ship(struct migration_source *s);

/* migration_settle.c */
/* The copy is ready: let it run. */
void source_commit(struct migration_source *s);
/* It runs there. */
void source_committed(struct migration_source *s);
/* Which of both is so is not known: ask until it is. */
void source_query(struct migration_source *s);
/* When nothing of it stands on the target, or will: run on. */
void source_undo(struct migration_source *s);
void source_on_timer(struct env_timer *timer);

/* migration_resume.c: what a predecessor cut, without having told us what. */
void source_uncut(struct migration_source *s);
