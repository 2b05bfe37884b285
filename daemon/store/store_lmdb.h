#pragma once
/* The real store: one LMDB environment in a directory, one writer off the loop. */
#include "store.h"

struct store_lmdb;

/* Make @path (0700) when it is absent. */
int store_lmdb_new(struct store_lmdb **ret, const struct env *env, const char *path);
/* After env_event_free(), which waits for the batch under way; later ones are dropped. */
struct store_lmdb *store_lmdb_free(struct store_lmdb *s);
const struct store *store_lmdb_store(struct store_lmdb *s);
