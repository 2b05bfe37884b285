#pragma once
/*
 * Capabilities: what of the cluster a process uses.  Names, numbers, sets and rules are
 * Kerrighed's.
 *
 * Knows: of space, labels; capability.c nobody, so the tool has it too.
 *
 * A process has four sets.  It uses what is *effective*; what is *permitted* bounds all
 * the others and never grows.  A child is permitted what its parent's *inheritable
 * permitted* set holds, of which its *inheritable effective* set is effective, and has
 * the same inheritable sets.  An execve() changes nothing.
 *
 * The sets are a label (space_label.h): the inheritable ones what children are born
 * with, the others the process's own.  So nothing is to be told of a fork, and there is
 * no table.  Who has no label has the initial sets.
 *
 * Invariant: effective and inheritable permitted sets are within the permitted one,
 * inheritable effective within inheritable permitted.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct space;

enum capability {
	CAPABILITY_CHANGE_KERRIGHED_CAP, /* its sets may be changed */
	CAPABILITY_CAN_MIGRATE,
	CAPABILITY_DISTANT_FORK, /* programs that it starts may begin elsewhere */
	CAPABILITY_FORK_DELAY,
	CAPABILITY_CHECKPOINTABLE,
	CAPABILITY_USE_REMOTE_MEMORY,
	CAPABILITY_USE_INTRA_CLUSTER_KERSTREAMS,
	CAPABILITY_USE_INTER_CLUSTER_KERSTREAMS,
	CAPABILITY_USE_WORLD_VISIBLE_KERSTREAMS,
	CAPABILITY_SEE_LOCAL_PROC_STAT,
	CAPABILITY_DEBUG,
	CAPABILITY_SYSCALL_EXIT_HOOK,
	CAPABILITIES_N,
};

enum capability_set {
	CAPABILITY_PERMITTED,
	CAPABILITY_EFFECTIVE,
	CAPABILITY_INHERITABLE_PERMITTED,
	CAPABILITY_INHERITABLE_EFFECTIVE,
	CAPABILITY_SETS_N,
};

/* Bit n is capability n. */
struct capability_sets {
	uint32_t of[CAPABILITY_SETS_N];
};

/* A set becomes (set & keep) | add. */
struct capability_change {
	uint32_t keep[CAPABILITY_SETS_N], add[CAPABILITY_SETS_N];
};

enum {
	_CAPABILITY_E_SUCCESS,
	CAPABILITY_E_WORDS,   /* not a list of capabilities */
	CAPABILITY_E_OUTSIDE, /* the sets would not be within each other as they must */
	CAPABILITY_E_UNSUPPORTED,   /* there is nothing behind that capability */
	CAPABILITY_E_NOT_PERMITTED, /* it may not be changed, or permitted set would
				       grow */
};

const char *capability_name(enum capability c);

/* Of what ssi-run starts.  DISTANT_FORK is permitted, and effective, where programs ask
 * (@spread). */
struct capability_sets capability_initial(bool spread);
struct capability_sets capability_inherit(const struct capability_sets *parent);
bool capability_equal(const struct capability_sets *a, const struct capability_sets *b);
/* Is the invariant kept, by capabilities that there are?  So of all that comes from
 * elsewhere. */
bool capability_sets_ok(const struct capability_sets *s);

/* One that changes nothing. */
struct capability_change capability_no_change(void);
/* @words: "+NAME,NAME", "-NAME,NAME", "NAME,NAME", which are then all, or their number
 * in octal; with or without "CAP_".  CAPABILITY_E_WORDS: *ret_bad has what is not one.
 */
int capability_parse(struct capability_change *c, enum capability_set set,
		     const char *words, char *ret_bad, size_t size);
/* CAPABILITY_E_*, with @s as it was: @why says of which capability. */
int capability_change(struct capability_sets *s, const struct capability_change *c,
		      char *why, size_t size);

/* "P,E,IP,IE" in octal, in one way only. */
enum { CAPABILITY_TEXT_MAX = 64 };
void capability_format(const struct capability_sets *s,
		       char ret[static CAPABILITY_TEXT_MAX]);
/* -EBADMSG */
int capability_unformat(struct capability_sets *ret, const char *text);

/* capability_process.c.  -ESRCH.  Thread: any. */
int capability_read(int proc_fd, pid_t pid, struct capability_sets *ret);
/* Is it effective?  Not in one that is gone. */
bool capability_has(int proc_fd, pid_t pid, enum capability c);
/* Waits for some 8 to 16 ms, unless it has them already. */
int capability_write(struct space *s, pid_t pid, const struct capability_sets *sets);
/* A leaf for space_spawn.group_fd of one to be born with such sets, -1: none is needed.
 * What is not as by birth is left out. */
int capability_leaf(struct space *s, const struct capability_sets *sets, int *ret_fd);
