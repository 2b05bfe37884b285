#pragma once
/* The real env: libevent's loop, the kernel's clocks, one pool of threads. */
#include "env.h"

struct env_event;

int env_event_new(struct env_event **ret);
/* Waits for work that has begun; done() comes for none any more.  Whoever watches, times
 * or has a timer ends before it; whoever has work under way, after it. */
struct env_event *env_event_free(struct env_event *e);
const struct env *env_event_env(struct env_event *e);

/* The libevent base, for doors that need more of it than env has: none does today. */
struct event_base *env_event_base(struct env_event *e);

/* @cb on the loop when @signal (SIGTERM, ...) comes. */
int env_event_on_signal(struct env_event *e, int signal, void (*cb)(void *owner), void *owner);

/* Turn until env_event_stop(). */
int env_event_run(struct env_event *e);
void env_event_stop(struct env_event *e);
