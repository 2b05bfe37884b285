#pragma once
/*
 * Threads for work that blocks.  Made as they are needed, up to a few; what is
 * finished comes back through a descriptor that the loop watches.
 *
 * Thread: the loop; only work callbacks run elsewhere.
 */
#include "env.h"

struct env_pool;

int env_pool_new(struct env_pool **ret);
/* Waits for work that has begun and drops the rest; done() comes for neither. */
struct env_pool *env_pool_free(struct env_pool *p);
int env_pool_work(struct env_pool *p, struct env_work *work);
/* Readable when something is finished, ... */
int env_pool_fd(const struct env_pool *p);
/* ... whose done() this calls. */
void env_pool_tell(struct env_pool *p);
