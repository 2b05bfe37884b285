#pragma once
/*
 * DOOR.  What this kernel and this machine can do: probed once at start, and shown
 * by `ssi doctor`.  An absent module or feature is a row and a feature that is off,
 * never an error.
 *
 * Knows: nobody.  Tells: nobody; only data, nothing is printed here.
 * Invariant: after kernel_new() the rows do not change, except that callers append
 * their own (CRIU, say).
 */
#include <stdbool.h>
#include <stddef.h>

enum kernel_state {
	KERNEL_OK,
	KERNEL_WARN,    /* works, less well or not all of it */
	KERNEL_MISSING, /* what needs it is off */
};

struct kernel_row {
	char name[32];
	enum kernel_state state;
	char detail[128]; /* what was found */
	char remedy[192]; /* what is off, and what to do; "" when KERNEL_OK */
};

struct kernel;

/* Probe everything: some milliseconds, in child processes where a probe could hurt. */
int kernel_new(struct kernel **ret);
struct kernel *kernel_free(struct kernel *k);

/* A copy of @row at the end; a name that is there already is replaced. */
int kernel_append(struct kernel *k, const struct kernel_row *row);
const struct kernel_row *kernel_rows(const struct kernel *k, size_t *ret_n);
/* NULL: no such row. */
const struct kernel_row *kernel_row_named(const struct kernel *k, const char *name);
/* Usable, perhaps with a warning. */
bool kernel_has(const struct kernel *k, const char *name);
