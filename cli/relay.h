#pragma once
/*
 * Bytes from one descriptor to another, in a poll(2) loop that never blocks.
 *
 * Exactly one of the two is ours (the pipe to or from the program); the other
 * is our own 0, 1 or 2, which other processes may share: it is not made
 * non-blocking, but read when readable and written PIPE_BUF at a time when writable.
 * At end of file, or when the reader has gone, the one that is ours is closed,
 * so that the program sees the same.
 */
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>

struct relay {
	int from, to; /* -1: done with */
	bool input;   /* `to` is ours; else `from` is */
	bool types; /* `to` is a terminal's: the end of `from` is typed, `to` stays open
		     */
	bool in_line; /* the last byte read is not the end of a line */
	bool used;    /* something was read */
	int error;    /* `to` could not be written, other than for want of a reader */
	size_t start, len;
	char bytes[65536];
};

/* Is anything still to come, or to be written? */
bool relay_live(const struct relay *r);
/* Fill the two entries with what to wait for (fd -1: nothing). */
void relay_prepare(const struct relay *r, struct pollfd ret[static 2]);
/* Act on what poll(2) found; true: bytes went through. */
bool relay_turn(struct relay *r, const struct pollfd found[static 2]);
