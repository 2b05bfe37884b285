#pragma once
/*
 * DOOR.  The outside world of one loop, as one value.
 *
 * env_event.c makes it from libevent; tests/sim/world.c makes it from a seed.
 * No other file of the daemon asks the time, sleeps, draws a random number,
 * waits for a descriptor or starts a thread.  (The idea: raft_io of
 * canonical/raft.)
 *
 * Knows: nobody.  Thread: the loop; only env_work()'s work callback runs
 * elsewhere.
 */
#include "ids.h"

#include <stdbool.h>
#include <stddef.h>

struct env;
struct env_timer;
struct env_fd;
struct env_work;

typedef void (*env_timer_cb)(struct env_timer *timer);
typedef void (*env_fd_cb)(struct env_fd *watch, unsigned events);
typedef void (*env_work_cb)(struct env_work *work);

/* Embedded in its owner; zero it, set cb, arm it.  Fires once. */
struct env_timer {
	env_timer_cb cb;
	nsec_t due; /* 0: not armed; written by env only */
	void *impl; /* env's */
};

enum {
	ENV_READ = 1u << 0,
	ENV_WRITE = 1u << 1,
};

/* Level-triggered.  The descriptor stays its owner's. */
struct env_fd {
	env_fd_cb cb;
	int fd;
	void *impl; /* env's; NULL: not watched */
};

/* work() runs on another thread and sees only its own argument; done() runs
 * later on the loop, exactly once. */
struct env_work {
	env_work_cb work;
	env_work_cb done;
	void *impl;
};

struct env_ops {
	nsec_t (*now)(void *impl);      /* CLOCK_BOOTTIME */
	nsec_t (*realtime)(void *impl); /* CLOCK_REALTIME, for people and expiries */
	void (*random)(void *impl, void *ret_bytes, size_t len);
	int (*arm)(void *impl, struct env_timer *timer, nsec_t after);
	void (*disarm)(void *impl, struct env_timer *timer);
	int (*watch)(void *impl, struct env_fd *watch, unsigned events);
	void (*unwatch)(void *impl, struct env_fd *watch);
	int (*work)(void *impl, struct env_work *work);
};

struct env {
	const struct env_ops *ops;
	void *impl;
};

static inline nsec_t env_now(const struct env *e)
{
	return e->ops->now(e->impl);
}

static inline nsec_t env_realtime(const struct env *e)
{
	return e->ops->realtime(e->impl);
}

static inline void env_random(const struct env *e, void *ret_bytes, size_t len)
{
	e->ops->random(e->impl, ret_bytes, len);
}

static inline uint64_t env_random_u64(const struct env *e)
{
	uint64_t v;

	env_random(e, &v, sizeof(v));
	return v;
}

/* (Re-)arm: cb once, @after nanoseconds from now; 0 = as soon as the loop turns.
 * -ENOMEM only at a timer's first arming. */
static inline int env_arm(const struct env *e, struct env_timer *t, nsec_t after)
{
	return e->ops->arm(e->impl, t, after);
}

/* Idempotent; releases what arming took, so a disarmed timer may be freed. */
static inline void env_disarm(const struct env *e, struct env_timer *t)
{
	e->ops->disarm(e->impl, t);
}

/* Watch w->fd for ENV_* @events, replacing an earlier set of events. */
static inline int env_watch(const struct env *e, struct env_fd *w, unsigned events)
{
	return e->ops->watch(e->impl, w, events);
}

static inline void env_unwatch(const struct env *e, struct env_fd *w)
{
	e->ops->unwatch(e->impl, w);
}

/* 0: done() comes exactly once, later, never inline.  < 0: it never comes. */
static inline int env_work(const struct env *e, struct env_work *w)
{
	return e->ops->work(e->impl, w);
}
