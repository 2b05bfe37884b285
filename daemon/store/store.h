#pragma once
/*
 * DOOR.  Durable local things: a small key-value store (LMDB in store_lmdb.c;
 * the simulator's tears, fills up and forgets what was not synced).
 *
 * Knows: env.  Keys and values are bytes; a key is at most 255 of them.
 * Reading is immediate and of the last committed state: a batch is durable, atomic
 * and visible when done is called, not before.
 * Thread: the loop.
 */
#include "env.h"

#include <stddef.h>
#include <sys/uio.h>

enum {
	_STORE_E_SUCCESS,
	STORE_E_ABSENT, /* no such key */
};

struct store_change {
	struct iovec key;
	struct iovec value; /* iov_base NULL: delete the key */
};

/* @result: 0, or -errno and nothing was changed (-ENOSPC, -EIO). */
typedef void (*store_done_cb)(void *owner, int result);
/* Not 0 ends the walk, which returns it. */
typedef int (*store_each_cb)(void *owner, struct iovec key, struct iovec value);

struct store_ops {
	/* *ret is malloc()ed. */
	int (*get)(void *impl, struct iovec key, struct iovec *ret);
	int (*each)(void *impl, struct iovec prefix, store_each_cb cb, void *owner);
	/* Copies the changes.  Batches become durable in the order of the calls. */
	int (*apply)(void *impl, const struct store_change *changes, size_t n_changes,
		     store_done_cb done, void *owner);
	/* As apply(), durable on return; blocks the loop for the sync.  For the few bytes
	 * that must stand before the next message leaves, and whose user cannot wait for
	 * a callback (a term, a vote).  Batches that are under way may become durable
	 * before it or after it. */
	int (*apply_now)(void *impl, const struct store_change *changes, size_t n_changes);
};

struct store {
	const struct store_ops *ops;
	void *impl;
};
