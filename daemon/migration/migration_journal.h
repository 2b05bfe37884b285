#pragma once
/*
 * Where each migration of this node stands, for a successor of ssid: a state
 * memfd kept by ssi-init.
 *
 * An entry is written before the step that it names is taken.  Each has two
 * copies and a sequence number: a SIGKILL in the middle of a write leaves the older.
 * A committed entry of a target stays until its source has heard (the oldest
 * give way to new ones).
 */
#include "process.h"
#include "space.h"

enum migration_side { MIGRATION_SOURCE = 1, MIGRATION_TARGET = 2 };

enum migration_step {
	MIGRATION_STEP_NONE = 0,
	MIGRATION_STEP_OPEN = 1, /* may be undone by this side */
	MIGRATION_STEP_DECIDING =
		2, /* source: the target may have a copy that is ready */
	MIGRATION_STEP_COMMITTED = 3, /* the copy runs */
};

struct migration_entry {
	uint64_t id;
	uint32_t side; /* enum migration_side */
	uint32_t step; /* enum migration_step */
	pid_t root;
	node_id peer;
	/* Of the copy; source from DECIDING on, target when COMMITTED. */
	uint32_t generation;
	pid_t app;
	struct process_name name;
	uint64_t incarnation; /* source, from DECIDING on: of the target */
	uint32_t recorded; /* target, COMMITTED: its members have their records */
};

struct migration_journal;

int migration_journal_new(struct migration_journal **ret, struct space *space);
struct migration_journal *migration_journal_free(struct migration_journal *j);

/* Set (or, with MIGRATION_STEP_NONE, remove) the entry of @e->id and @e->side. -ENOSPC.
 */
int migration_journal_set(struct migration_journal *j, const struct migration_entry *e);
/* MIGRATION_STEP_NONE when there is none. */
enum migration_step migration_journal_step(const struct migration_journal *j,
					   uint64_t id, enum migration_side side);
/* Entry number @i of those there are; false past the last. */
bool migration_journal_entry(const struct migration_journal *j, size_t i,
			     struct migration_entry *ret);
