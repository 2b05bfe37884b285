#pragma once
/*
 * The memory that a tree's images lack, where it arrives: put into the process that is
 * restored, or stands restored, as it comes.
 */
#include "migration_internal.h"
#include "pages.h"

struct migration_pages;

/* @problem NULL: all of it is in its place. */
typedef void (*migration_pages_cb)(void *owner, const char *problem);
int migration_pages_new(struct migration_pages **ret, const struct env *env,
			migration_pages_cb on_over, void *owner);
struct migration_pages *migration_pages_free(struct migration_pages *p);
/* Who waits for an answer is told why; what is not in its place reads as zeros. */
void migration_pages_give_up(struct migration_pages *p,
			     const struct migration_outcome *o);
/* For criu, which sends it what is needed. */
struct pages_placer *migration_pages_placer(struct migration_pages *p);
/* Answers @call when it is in its place, now or later. */
void migration_pages_take(struct migration_pages *p, struct rpc_call *call,
			  const Ssi__Migration__PagesRequest *q, struct iovec bulk);
/* The process stands: what has no place now never will. */
void migration_pages_stand(struct migration_pages *p);
bool migration_pages_are_over(const struct migration_pages *p);
