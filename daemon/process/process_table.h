#pragma once
/*
 * The records of this node, in memory that outlives ssid.
 *
 * Knows: nobody.  A slot has two copies and a word that says which one is valid
 * (0: none); a change writes the other copy, then that word.  So a SIGKILL at any
 * instant leaves each record either old or new.
 */
#include "process.h"

struct process_table;

enum {
	_PROCESS_TABLE_E_SUCCESS,
	PROCESS_TABLE_E_FULL,
	PROCESS_TABLE_E_FORMAT, /* another version's, or not a table */
};

enum { PROCESS_TABLE_SLOTS = 16384 };

struct process_entry {
	struct process_record record;
	/* The last signal of its shadow that was handed on (at home) or delivered (at
	 * its place). */
	uint64_t sequence;
	nsec_t ended_at; /* CLOCK_BOOTTIME, which does not step */
	/* AWAY: of its place, when it was known to be there; GUEST: of its home, when that
	 * had taken so */
	uint64_t place_incarnation;
	/* KIN: of nobody, stands until then (CLOCK_BOOTTIME); 0: of a guest */
	nsec_t alone_until;
	bool kept; /* its parent here is a shadow, which tells how it ended */
	bool unborn; /* AWAY: its shadow was told to fork, and has not been heard of */
	bool told; /* ENDED: some waiter (at home), or the home (at its place), knows */
};

/* Bytes that @memory must have. */
size_t process_table_size(void);
/* @memory: process_table_size() bytes, zero when @fresh; stays the caller's. */
int process_table_new(struct process_table **ret, void *memory, bool fresh);
struct process_table *process_table_free(struct process_table *t);

/* Valid until the entry changes; NULL: none. */
const struct process_entry *process_table_find(const struct process_table *t,
					       pid_t pid);
/* Insert, or replace the one of the same PID. */
int process_table_put(struct process_table *t, const struct process_entry *e);
void process_table_remove(struct process_table *t, pid_t pid);

/* Every entry, in no order; *cursor begins as 0.  Entries may be removed on the way. */
const struct process_entry *process_table_next(const struct process_table *t,
					       size_t *cursor);
size_t process_table_n(const struct process_table *t);
