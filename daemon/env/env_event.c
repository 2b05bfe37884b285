/*
 * The real env.  Timers and descriptors are libevent's; work goes to
 * the pool.
 *
 * Timers count time that the machine is awake (libevent's CLOCK_MONOTONIC): after a
 * suspend they are late, env_now() is not; who must know compares with env_now().
 *
 * Failure modes: env_event_free() waits for work that has begun and drops the rest;
 * done() comes for neither, as if the process had been killed: their owners go after
 * it.
 */
#include "env_event.h"

#include "env_pool.h"
#include "err.h"

#include <assert.h>
#include <event2/event.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

enum { SIGNALS_MAX = 8 };
static const nsec_t AFTER_MAX = 10ull * 365 * 86400 * NSEC_PER_SEC;

/* What a signal event calls. */
struct signal_target {
	struct event *event;
	void (*cb)(void *owner);
	void *owner;
};

struct env_event {
	struct env env;
	struct event_base *base;
	struct signal_target signals[SIGNALS_MAX];
	size_t n_signals;
	struct env_pool *pool;
	struct event *done_event; /* of the pool */
};

static nsec_t clock_nsec(clockid_t clock)
{
	struct timespec t;

	(void)clock_gettime(clock, &t);
	return (nsec_t)t.tv_sec * NSEC_PER_SEC + (nsec_t)t.tv_nsec;
}

static nsec_t on_now(void *impl)
{
	return clock_nsec(CLOCK_BOOTTIME);
}

static nsec_t on_realtime(void *impl)
{
	return clock_nsec(CLOCK_REALTIME);
}

static void on_random(void *impl, void *ret_bytes, size_t len)
{
	uint8_t *p = ret_bytes;

	while (len) {
		ssize_t n = getrandom(p, len, 0);

		assert(n > 0 || errno == EINTR);
		if (n > 0) {
			p += n;
			len -= (size_t)n;
		}
	}
}

/* Timers. */

static int add_timer(struct env_timer *t, nsec_t after)
{
	/* Rounded up: a timer never fires early. */
	nsec_t usec = (after + NSEC_PER_USEC - 1) / NSEC_PER_USEC;
	struct timeval tv = {(time_t)(usec / 1000000), (suseconds_t)(usec % 1000000)};

	return evtimer_add(t->impl, &tv) < 0 ? err_origin(-ENOMEM) : 0;
}

static void on_timer(evutil_socket_t fd, short what, void *argument)
{
	struct env_timer *t = argument;
	nsec_t now = clock_nsec(CLOCK_BOOTTIME);

	/* The clocks differ by how they are adjusted and read. */
	if (now < t->due && add_timer(t, t->due - now) == 0)
		return;
	t->due = 0;
	t->cb(t);
}

static int on_arm(void *impl, struct env_timer *t, nsec_t after)
{
	struct env_event *e = impl;
	int r;

	if (after > AFTER_MAX)
		after = AFTER_MAX;
	if (!t->impl)
		t->impl = evtimer_new(e->base, on_timer, t);
	if (!t->impl)
		return err_origin(-ENOMEM);
	r = add_timer(t, after);
	if (r == 0)
		t->due = on_now(impl) + after;
	return r;
}

static void on_disarm(void *impl, struct env_timer *t)
{
	if (t->impl)
		event_free(t->impl);
	t->impl = NULL;
	t->due = 0;
}

/* Descriptors. */

static void on_fd(evutil_socket_t fd, short what, void *argument)
{
	struct env_fd *w = argument;

	w->cb(w, (what & EV_READ ? ENV_READ : 0u) | (what & EV_WRITE ? ENV_WRITE : 0u));
}

static void on_unwatch(void *impl, struct env_fd *w)
{
	if (w->impl)
		event_free(w->impl);
	w->impl = NULL;
}

static int on_watch(void *impl, struct env_fd *w, unsigned events)
{
	struct env_event *e = impl;
	short what = (short)((events & ENV_READ ? EV_READ : 0) |
			     (events & ENV_WRITE ? EV_WRITE : 0) | EV_PERSIST);

	if (w->impl && event_get_fd(w->impl) == w->fd &&
	    event_get_events(w->impl) == what)
		return 0;
	if (w->impl) {
		(void)event_del(w->impl);
		(void)event_assign(w->impl, e->base, w->fd, what, on_fd, w);
	} else {
		w->impl = event_new(e->base, w->fd, what, on_fd, w);
	}
	if (!w->impl)
		return err_origin(-ENOMEM);
	errno = 0;
	if (event_add(w->impl, NULL) < 0) {
		int r = errno ? -errno : -ENOMEM;

		on_unwatch(impl, w);
		return err_origin(r);
	}
	return 0;
}

/* Work. */

static int on_work(void *impl, struct env_work *work)
{
	return env_pool_work(((struct env_event *)impl)->pool, work);
}

static void on_done(evutil_socket_t fd, short what, void *argument)
{
	env_pool_tell(((struct env_event *)argument)->pool);
}

static const struct env_ops ops = {
	.now = on_now,
	.realtime = on_realtime,
	.random = on_random,
	.arm = on_arm,
	.disarm = on_disarm,
	.watch = on_watch,
	.unwatch = on_unwatch,
	.work = on_work,
};

static struct event_base *base_new(void)
{
	struct event_config *c = event_config_new();
	struct event_base *base = NULL;

	/* Exact timers, from the time of the call and not of the loop's last turn. */
	if (c && event_config_set_flag(c, EVENT_BASE_FLAG_PRECISE_TIMER |
						  EVENT_BASE_FLAG_NO_CACHE_TIME) == 0)
		base = event_base_new_with_config(c);
	if (c)
		event_config_free(c);
	return base;
}

int env_event_new(struct env_event **ret)
{
	struct env_event *e = calloc(1, sizeof(*e));

	if (!e)
		return err_origin(-ENOMEM);
	e->env = (struct env){&ops, e};
	e->base = base_new();
	if (e->base && env_pool_new(&e->pool) == 0)
		e->done_event = event_new(e->base, env_pool_fd(e->pool),
					  EV_READ | EV_PERSIST, on_done, e);
	if (!e->done_event || event_add(e->done_event, NULL) < 0) {
		env_event_free(e);
		return err_origin(-ENOMEM);
	}
	*ret = e;
	return 0;
}

struct env_event *env_event_free(struct env_event *e)
{
	if (!e)
		return NULL;
	for (size_t i = 0; i < e->n_signals; i++)
		event_free(e->signals[i].event);
	if (e->done_event)
		event_free(e->done_event);
	env_pool_free(e->pool);
	if (e->base)
		event_base_free(e->base);
	free(e);
	return NULL;
}

const struct env *env_event_env(struct env_event *e)
{
	return &e->env;
}

struct event_base *env_event_base(struct env_event *e)
{
	return e->base;
}

static void on_signal(evutil_socket_t signal, short what, void *argument)
{
	struct signal_target *t = argument;

	t->cb(t->owner);
}

int env_event_on_signal(struct env_event *e, int signal, void (*cb)(void *owner),
			void *owner)
{
	struct signal_target *t = &e->signals[e->n_signals];

	if (e->n_signals == SIGNALS_MAX)
		return err_origin(-ENOSPC);
	*t = (struct signal_target){evsignal_new(e->base, signal, on_signal, t), cb,
				    owner};
	if (!t->event)
		return err_origin(-ENOMEM);
	e->n_signals++;
	return event_add(t->event, NULL) < 0 ? err_origin(-ENOMEM) : 0;
}

int env_event_run(struct env_event *e)
{
	return event_base_dispatch(e->base) < 0 ? err_origin(-EIO) : 0;
}

void env_event_stop(struct env_event *e)
{
	(void)event_base_loopbreak(e->base);
}
