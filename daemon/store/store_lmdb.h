#pragma once
/* The real store: one LMDB environment in a directory, one writer off the loop. */
#include "store.h"

struct store_lmdb;

/* Make @path (0700) when it is absent. */
int store_lmdb_new(struct store_lmdb **ret, const struct env *env, const char *path);
/* With another limit than 1 GiB for all of it. */
int store_lmdb_new_limited(struct store_lmdb **ret, const struct env *env, const char *path,
			   size_t limit);
/* When no batch is under way, or after env_event_free(), which waits for the one that is.
 * Batches that still wait are written here; done comes for none any more. */
struct store_lmdb *store_lmdb_free(struct store_lmdb *s);
/* Why the last write failed, -errno; 0: it did not. */
int store_lmdb_error(const struct store_lmdb *s);
const struct store *store_lmdb_store(struct store_lmdb *s);
