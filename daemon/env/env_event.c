/*
 * The real env.  Timers and descriptors are libevent's; work goes to a small
 * pool of threads, started at its first use, and comes back through an eventfd.
 *
 * Failure modes: no thread can be made -> env_work() says so and nothing is
 * queued; env_event_free() waits for the work under way, whose done() never comes.
 */
#include "env_event.h"

#include "cleanup.h"
#include "err.h"

#include <assert.h>
#include <event2/event.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <sys/random.h>
#include <time.h>

enum { THREADS = 4, SIGNALS_MAX = 8 };

/* What a signal event calls. */
struct signal_target {
	struct event *event;
	void (*cb)(void *owner);
	void *owner;
};

struct job {
	STAILQ_ENTRY(job) entry;
	struct env_work *work;
};

STAILQ_HEAD(jobs, job);

struct env_event {
	struct env env;
	struct event_base *base;
	struct signal_target signals[SIGNALS_MAX];
	size_t n_signals;

	/* The pool.  The mutex guards the two lists and `stopping`. */
	pthread_t threads[THREADS];
	size_t n_threads;
	pthread_mutex_t mutex;
	pthread_cond_t wanted;
	struct jobs queued, finished;
	bool stopping;
	int done_fd;
	struct event *done_event;
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

static void on_timer(evutil_socket_t fd, short what, void *argument)
{
	struct env_timer *t = argument;

	t->due = 0;
	t->cb(t);
}

static int on_arm(void *impl, struct env_timer *t, nsec_t after)
{
	struct env_event *e = impl;
	/* Rounded up: a timer never fires early. */
	struct timeval tv = { (time_t)(after / NSEC_PER_SEC),
			      (suseconds_t)((after % NSEC_PER_SEC + 999) / 1000) };

	if (tv.tv_usec == 1000000) {
		tv.tv_sec++;
		tv.tv_usec = 0;
	}
	if (!t->impl)
		t->impl = evtimer_new(e->base, on_timer, t);
	if (!t->impl)
		return err_origin(-ENOMEM);
	if (evtimer_add(t->impl, &tv) < 0)
		return err_origin(-ENOMEM);
	t->due = on_now(impl) + after;
	return 0;
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
	struct event *event;

	if (w->impl && event_get_fd(w->impl) == w->fd && event_get_events(w->impl) == what)
		return 0;
	event = event_new(e->base, w->fd, what, on_fd, w);
	if (!event)
		return err_origin(-ENOMEM);
	on_unwatch(impl, w);
	if (event_add(event, NULL) < 0) {
		event_free(event);
		return err_origin(-EINVAL);
	}
	w->impl = event;
	return 0;
}

/* Work. */

static void wake_loop(struct env_event *e)
{
	uint64_t one = 1;

	(void)!write(e->done_fd, &one, sizeof(one));
}

static void *thread_main(void *argument)
{
	struct env_event *e = argument;

	pthread_mutex_lock(&e->mutex);
	for (;;) {
		struct job *j = STAILQ_FIRST(&e->queued);

		if (j) {
			STAILQ_REMOVE_HEAD(&e->queued, entry);
			pthread_mutex_unlock(&e->mutex);
			j->work->work(j->work);
			pthread_mutex_lock(&e->mutex);
			STAILQ_INSERT_TAIL(&e->finished, j, entry);
			wake_loop(e);
		} else if (e->stopping) {
			break;
		} else {
			pthread_cond_wait(&e->wanted, &e->mutex);
		}
	}
	pthread_mutex_unlock(&e->mutex);
	return NULL;
}

/* Threads take no signals: those are the loop's. */
static int start_threads(struct env_event *e)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	while (e->n_threads < THREADS &&
	       pthread_create(&e->threads[e->n_threads], NULL, thread_main, e) == 0)
		e->n_threads++;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return e->n_threads ? 0 : err_origin(-EAGAIN);
}

static int on_work(void *impl, struct env_work *work)
{
	struct env_event *e = impl;
	struct job *j;
	int r;

	if (!e->n_threads) {
		r = start_threads(e);
		if (r < 0)
			return r;
	}
	j = calloc(1, sizeof(*j));
	if (!j)
		return err_origin(-ENOMEM);
	j->work = work;
	pthread_mutex_lock(&e->mutex);
	STAILQ_INSERT_TAIL(&e->queued, j, entry);
	pthread_cond_signal(&e->wanted);
	pthread_mutex_unlock(&e->mutex);
	return 0;
}

static void on_done(evutil_socket_t fd, short what, void *argument)
{
	struct env_event *e = argument;
	struct jobs finished = STAILQ_HEAD_INITIALIZER(finished);
	uint64_t count;

	(void)!read(fd, &count, sizeof(count));
	pthread_mutex_lock(&e->mutex);
	STAILQ_CONCAT(&finished, &e->finished);
	pthread_mutex_unlock(&e->mutex);
	while (!STAILQ_EMPTY(&finished)) {
		struct job *j = STAILQ_FIRST(&finished);
		struct env_work *work = j->work;

		STAILQ_REMOVE_HEAD(&finished, entry);
		free(j);
		work->done(work);
	}
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

int env_event_new(struct env_event **ret)
{
	struct env_event *e = calloc(1, sizeof(*e));

	if (!e)
		return err_origin(-ENOMEM);
	e->env = (struct env){ &ops, e };
	STAILQ_INIT(&e->queued);
	STAILQ_INIT(&e->finished);
	pthread_mutex_init(&e->mutex, NULL);
	pthread_cond_init(&e->wanted, NULL);
	e->base = event_base_new();
	e->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (e->base && e->done_fd >= 0)
		e->done_event = event_new(e->base, e->done_fd, EV_READ | EV_PERSIST, on_done, e);
	if (!e->done_event || event_add(e->done_event, NULL) < 0) {
		env_event_free(e);
		return err_origin(-ENOMEM);
	}
	*ret = e;
	return 0;
}

static void drop_jobs(struct jobs *jobs)
{
	while (!STAILQ_EMPTY(jobs)) {
		struct job *j = STAILQ_FIRST(jobs);

		STAILQ_REMOVE_HEAD(jobs, entry);
		free(j);
	}
}

struct env_event *env_event_free(struct env_event *e)
{
	if (!e)
		return NULL;
	pthread_mutex_lock(&e->mutex);
	drop_jobs(&e->queued);
	e->stopping = true;
	pthread_cond_broadcast(&e->wanted);
	pthread_mutex_unlock(&e->mutex);
	for (size_t i = 0; i < e->n_threads; i++)
		pthread_join(e->threads[i], NULL);
	drop_jobs(&e->finished);
	for (size_t i = 0; i < e->n_signals; i++)
		event_free(e->signals[i].event);
	if (e->done_event)
		event_free(e->done_event);
	close_fd(e->done_fd);
	if (e->base)
		event_base_free(e->base);
	pthread_cond_destroy(&e->wanted);
	pthread_mutex_destroy(&e->mutex);
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

int env_event_on_signal(struct env_event *e, int signal, void (*cb)(void *owner), void *owner)
{
	struct signal_target *t = &e->signals[e->n_signals];

	if (e->n_signals == SIGNALS_MAX)
		return err_origin(-ENOSPC);
	*t = (struct signal_target){ evsignal_new(e->base, signal, on_signal, t), cb, owner };
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
