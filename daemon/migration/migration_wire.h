#pragma once
/* Messages to and from our own types; everything from a peer is checked here. */
#include "envelope.pb-c.h"
#include "migration_internal.h"
#include "process_member.h"

/* -EBADMSG for members that cannot be.  malloc()ed. */
int migration_members_parse(struct process_member **ret,
			    Ssi__Process__Member *const *list, size_t n);

/* One malloc()ed block, which refers to @p. */
int migration_pipes_format(const struct tree_pipes *p, Ssi__Migration__Pipe ***ret);
/* -EBADMSG for what cannot be; makes the pipes. */
int migration_pipes_parse(struct tree_pipes **ret,
			  const struct tree_pipes_context *context,
			  Ssi__Migration__Pipe *const *list, size_t n);

/* malloc()ed blocks; the first refers to @list, the second to what @list refers to. */
int migration_things_format(const struct inventory_things *things,
			    Ssi__Migration__Thing ***ret);
int migration_things_parse(struct inventory_thing **ret,
			   Ssi__Migration__Thing *const *list, size_t n);

/* migration.c: a move that somebody here waits for goes on. */
void migration_watch_progress(struct migration_room *m, uint64_t number,
			      const char *step, uint64_t bytes, uint64_t total);
