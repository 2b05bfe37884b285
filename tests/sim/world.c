/* Time, machines and the trace.  Links are in world_net.c, stores in world_store.c. */
#include "world_internal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

static struct world_machine *machine(const struct world *w, unsigned slot)
{
	assert(slot >= 1 && slot <= w->n_machines);
	return (struct world_machine *)&w->machines[slot];
}

/* splitmix64 */
uint64_t world_random(struct world *w)
{
	uint64_t z = w->random += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

uint64_t world_below(struct world *w, uint64_t n)
{
	return n ? world_random(w) % n : 0;
}

bool world_chance(struct world *w, unsigned per_mille)
{
	return world_below(w, 1000) < per_mille;
}

nsec_t world_now(const struct world *w)
{
	return w->now;
}

uint64_t world_trace(const struct world *w)
{
	return w->trace;
}

void world_set_verbose(struct world *w, bool verbose)
{
	w->verbose = verbose;
}

void world_note(struct world *w, unsigned slot, const char *format, ...)
{
	char *line = w->last[w->n_last++ % WORLD_LAST];
	size_t size = sizeof(w->last[0]);
	int n = snprintf(line, size, "%5u.%06u  %2u  ", (unsigned)(w->now / NSEC_PER_SEC),
			 (unsigned)(w->now / NSEC_PER_USEC % 1000000), slot);
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(line + n, size - (size_t)n, format, ap);
	va_end(ap);
	if (w->verbose)
		fprintf(stderr, "%s\n", line);
	for (const char *p = line; *p; p++)
		w->trace = (w->trace ^ (unsigned char)*p) * 0x100000001b3ull;
}

void world_fail(struct world *w, const char *format, ...)
{
	size_t first = w->n_last > WORLD_LAST ? w->n_last - WORLD_LAST : 0;
	va_list ap;

	fprintf(stderr, "\nseed %" PRIu64 ": ", w->seed);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fprintf(stderr, "\nreplay with --seed %" PRIu64 "; the last events:\n", w->seed);
	for (size_t i = first; i < w->n_last; i++)
		fprintf(stderr, "%s\n", w->last[i % WORLD_LAST]);
	abort();
}

/* The heap of events: by time, then in the order of their making. */

static bool is_before(const struct world_event *a, const struct world_event *b)
{
	return a->due != b->due ? a->due < b->due : a->seq < b->seq;
}

static void heap_put(struct world *w, size_t at, struct world_event *e)
{
	w->heap[at] = e;
	e->at = at;
}

static void heap_settle(struct world *w, struct world_event *e)
{
	size_t at = e->at;

	while (at && is_before(e, w->heap[(at - 1) / 2])) {
		heap_put(w, at, w->heap[(at - 1) / 2]);
		at = (at - 1) / 2;
	}
	for (;;) {
		size_t child = 2 * at + 1;

		if (child + 1 < w->n_events && is_before(w->heap[child + 1], w->heap[child]))
			child++;
		if (child >= w->n_events || !is_before(w->heap[child], e))
			break;
		heap_put(w, at, w->heap[child]);
		at = child;
	}
	heap_put(w, at, e);
}

static void heap_add(struct world *w, struct world_event *e)
{
	if (w->n_events == w->room) {
		w->room = w->room ? 2 * w->room : 256;
		w->heap = realloc(w->heap, w->room * sizeof(*w->heap));
		assert(w->heap);
	}
	heap_put(w, w->n_events++, e);
	heap_settle(w, e);
}

static void heap_remove(struct world *w, struct world_event *e)
{
	struct world_event *last = w->heap[--w->n_events];

	if (last == e)
		return;
	last->at = e->at;
	w->heap[last->at] = last;
	heap_settle(w, last);
}

struct world_event *world_schedule(struct world *w, nsec_t after, unsigned slot, const char *what,
				   void (*fire)(struct world *, struct world_event *), void *arg)
{
	struct world_event *e = calloc(1, sizeof(*e));

	assert(e);
	*e = (struct world_event){ .due = w->now + after,
				   .seq = ++w->seq,
				   .slot = slot,
				   .what = what,
				   .fire = fire,
				   .arg = arg,
				   .at = SIZE_MAX };
	heap_add(w, e);
	return e;
}

void world_unschedule(struct world *w, struct world_event *e)
{
	if (e->at == SIZE_MAX)
		STAILQ_REMOVE(&machine(w, e->slot)->held, e, world_event, held);
	else
		heap_remove(w, e);
	free(e);
}

static void look_at_descriptors(struct world *w);

bool world_step(struct world *w)
{
	struct world_event *e;
	struct world_machine *m;

	if (!w->n_events)
		return false;
	e = w->heap[0];
	heap_remove(w, e);
	if (e->due > w->now)
		w->now = e->due;
	m = e->slot ? machine(w, e->slot) : NULL;
	if (m && m->paused) {
		e->at = SIZE_MAX;
		STAILQ_INSERT_TAIL(&m->held, e, held);
		return true;
	}
	world_note(w, e->slot, "%s", e->what);
	w->machines[e->slot].use.turns++;
	w->acting = e->slot;
	e->fire(w, e);
	w->acting = 0;
	free(e);
	look_at_descriptors(w);
	if (w->rooms->check)
		w->rooms->check(w->owner);
	return true;
}

void world_run(struct world *w, nsec_t span)
{
	nsec_t end = w->now + span;

	while (w->n_events && w->heap[0]->due <= end)
		(void)world_step(w);
	w->now = end;
}

static void fire_scenario(struct world *w, struct world_event *e)
{
	e->cb(e->arg);
}

int world_at(struct world *w, nsec_t after, void (*cb)(void *arg), void *arg)
{
	world_schedule(w, after, 0, "scenario", fire_scenario, arg)->cb = cb;
	return 0;
}

/* The machine's env.  A timer's impl is its event, or NULL. */

static nsec_t env_op_now(void *impl)
{
	struct world_machine *m = impl;
	int64_t drift = (int64_t)(m->w->now / 1000000) * m->drift_ppm;

	return m->clock_base + m->w->now + (nsec_t)drift;
}

static nsec_t env_op_realtime(void *impl)
{
	struct world_machine *m = impl;

	return 1700000000ull * NSEC_PER_SEC + m->w->now + (nsec_t)m->wall_ahead;
}

static void env_op_random(void *impl, void *ret, size_t len)
{
	struct world_machine *m = impl;
	uint8_t *p = ret;

	while (len--)
		*p++ = (uint8_t)(world_random(m->w) >> 32);
}

static void fire_timer(struct world *w, struct world_event *e)
{
	struct env_timer *timer = e->arg;

	(void)w;
	timer->impl = NULL;
	timer->due = 0;
	timer->cb(timer);
}

static void env_op_disarm(void *impl, struct env_timer *timer)
{
	struct world_machine *m = impl;

	if (timer->impl)
		world_unschedule(m->w, timer->impl);
	timer->impl = NULL;
	timer->due = 0;
}

static int env_op_arm(void *impl, struct env_timer *timer, nsec_t after)
{
	struct world_machine *m = impl;
	int64_t slower = (int64_t)(after / 1000000) * m->drift_ppm;
	struct world_event *e;

	env_op_disarm(impl, timer);
	/* Never early by its own clock, late by up to a millisecond. */
	e = world_schedule(m->w, after - (nsec_t)slower + (after ? world_below(m->w, 1000000) : 0),
			   m->slot, "timer", fire_timer, timer);
	e->is_timer = true;
	timer->impl = e;
	timer->due = env_op_now(impl) + after;
	return 0;
}

static short poll_events(unsigned events)
{
	return (short)((events & ENV_READ ? POLLIN : 0) | (events & ENV_WRITE ? POLLOUT : 0));
}

/* What is ready of @events. */
static unsigned ready(const struct pollfd *p, unsigned events)
{
	unsigned r = 0;

	if (p->revents & (POLLIN | POLLHUP | POLLERR))
		r |= ENV_READ;
	if (p->revents & (POLLOUT | POLLERR))
		r |= ENV_WRITE;
	return r & events;
}

static void fire_watch(struct world *w, struct world_event *e)
{
	struct world_watch *watch = e->arg;
	struct pollfd p = { .fd = watch->fd->fd, .events = poll_events(watch->events) };
	unsigned events = poll(&p, 1, 0) > 0 ? ready(&p, watch->events) : 0;

	(void)w;
	watch->event = NULL;
	if (events)
		watch->fd->cb(watch->fd, events);
}

/* Descriptors are true ones, and only this process changes what they are ready for: after most
 * steps none is, which epoll says at once, and after the others all are looked at in order. */
static void look_at_descriptors(struct world *w)
{
	struct world_watch *watch;
	struct epoll_event any;
	size_t n = 0;

	if (epoll_wait(w->epoll_fd, &any, 1, 0) <= 0)
		return;
	LIST_FOREACH(watch, &w->watches, in) {
		if (n == w->n_polled) {
			w->n_polled = n ? 2 * n : 64;
			w->polled = realloc(w->polled, w->n_polled * sizeof(*w->polled));
			assert(w->polled);
		}
		/* One that will be told keeps its place and is not looked at. */
		w->polled[n++] = (struct pollfd){ .fd = watch->event ? -1 : watch->fd->fd,
						  .events = poll_events(watch->events) };
	}
	if (!n || poll(w->polled, n, 0) <= 0)
		return;
	n = 0;
	LIST_FOREACH(watch, &w->watches, in)
		if (ready(&w->polled[n++], watch->events))
			watch->event = world_schedule(w, 1000 + world_below(w, 100000),
						      watch->machine->slot, "descriptor",
						      fire_watch, watch);
}

static void env_op_unwatch(void *impl, struct env_fd *fd)
{
	struct world_machine *m = impl;
	struct world_watch *watch = fd->impl;

	fd->impl = NULL;
	if (!watch)
		return;
	if (watch->event)
		world_unschedule(m->w, watch->event);
	(void)epoll_ctl(m->w->epoll_fd, EPOLL_CTL_DEL, fd->fd, NULL);
	LIST_REMOVE(watch, in);
	free(watch);
}

static int env_op_watch(void *impl, struct env_fd *fd, unsigned events)
{
	struct world_machine *m = impl;
	struct world_watch *watch = fd->impl;
	struct epoll_event of = { .events = (events & ENV_READ ? EPOLLIN : 0) |
					    (events & ENV_WRITE ? EPOLLOUT : 0) };

	assert(!epoll_ctl(m->w->epoll_fd, watch ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd->fd, &of));
	if (!watch) {
		watch = calloc(1, sizeof(*watch));
		assert(watch);
		LIST_INSERT_HEAD(&m->w->watches, watch, in);
	}
	watch->machine = m;
	watch->fd = fd;
	watch->events = events;
	fd->impl = watch;
	return 0;
}

static void fire_done(struct world *w, struct world_event *e)
{
	struct env_work *work = e->arg;

	(void)w;
	work->done(work);
}

static nsec_t working(struct world *w)
{
	return 1000 + world_below(w, 5 * NSEC_PER_MSEC);
}

/* A worker's thread runs on while the loop does not turn, or is behind. */
static void fire_work(struct world *w, struct world_event *e)
{
	struct env_work *work = e->arg;

	work->work(work);
	(void)world_schedule(w, working(w), e->slot, "work is done", fire_done, work);
}

static int env_op_work(void *impl, struct env_work *work)
{
	struct world_machine *m = impl;

	(void)world_schedule(m->w, working(m->w), m->slot, "work", fire_work, work);
	return 0;
}

static const struct env_ops env_ops = {
	.now = env_op_now,
	.realtime = env_op_realtime,
	.random = env_op_random,
	.arm = env_op_arm,
	.disarm = env_op_disarm,
	.watch = env_op_watch,
	.unwatch = env_op_unwatch,
	.work = env_op_work,
};

/* Machines. */

static void machine_init(struct world *w, unsigned slot)
{
	struct world_machine *m = &w->machines[slot];

	m->w = w;
	m->slot = m->id = slot;
	(void)snprintf(m->address, sizeof(m->address), WORLD_ADDRESS, slot >> 8, slot & 255);
	m->clock_base = NSEC_PER_SEC * (1 + world_below(w, 1000000));
	m->env = (struct env){ &env_ops, m };
	m->store = (struct store){ &world_store_ops, m };
	m->transport = (struct transport){ &world_transport_ops, m };
	STAILQ_INIT(&m->held);
	LIST_INIT(&m->rows);
	STAILQ_INIT(&m->batches);
	LIST_INIT(&m->links);
}

struct world *world_new(uint64_t seed, unsigned n_machines, const struct world_rooms *rooms,
			void *owner)
{
	struct world *w = calloc(1, sizeof(*w));
	size_t n = n_machines + 1;

	assert(w && n_machines <= WORLD_MAX);
	w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	assert(w->epoll_fd >= 0);
	w->cut = calloc(n * n, sizeof(*w->cut));
	w->machines = calloc(n, sizeof(*w->machines));
	assert(w->cut && w->machines);
	w->seed = w->random = seed;
	w->trace = 0xcbf29ce484222325ull;
	w->n_machines = n_machines;
	w->rooms = rooms;
	w->owner = owner;
	LIST_INIT(&w->watches);
	for (unsigned i = 0; i <= n_machines; i++)
		machine_init(w, i);
	return w;
}

/* What was to happen to a machine that is no more. */
static void drop_events(struct world_machine *m)
{
	struct world *w = m->w;
	struct world_watch *watch;
	struct world_event *e;
	size_t n = 0;

	while ((e = STAILQ_FIRST(&m->held))) {
		STAILQ_REMOVE_HEAD(&m->held, held);
		free(e);
	}
	LIST_FOREACH(watch, &w->watches, in)
		if (watch->machine == m)
			watch->event = NULL;
	/* Keep the rest in a valid order: rebuild. */
	for (size_t i = 0; i < w->n_events; i++) {
		if (w->heap[i]->slot == m->slot)
			free(w->heap[i]);
		else
			w->heap[n++] = w->heap[i];
	}
	w->n_events = 0;
	for (size_t i = 0; i < n; i++)
		heap_add(w, w->heap[i]);
}

void world_crash(struct world *w, unsigned slot, bool silent)
{
	struct world_machine *m = machine(w, slot);

	if (!m->running)
		return;
	world_note(w, slot, silent ? "power lost" : "killed");
	m->running = m->paused = m->muted = false;
	world_store_crash(m);
	w->rooms->kill(w->owner, slot);
	world_net_crash(m, silent);
	drop_events(m);
	world_store_cancel(m);
	m->events = NULL;
}

void world_mute(struct world *w, unsigned slot)
{
	machine(w, slot)->muted = true;
}

void world_boot(struct world *w, unsigned slot)
{
	struct world_machine *m = machine(w, slot);

	if (m->running)
		return;
	world_note(w, slot, "boots");
	m->running = true;
	m->paused_at = 0;
	m->boot++;
	if (w->rooms->start(w->owner, slot)) {
		world_note(w, slot, "does not start");
		m->running = false;
	}
}

struct world *world_free(struct world *w)
{
	if (!w)
		return NULL;
	for (unsigned i = 1; i <= w->n_machines; i++)
		world_crash(w, i, true);
	for (unsigned i = 1; i <= w->n_machines; i++)
		world_store_fini(machine(w, i));
	for (size_t i = 0; i < w->n_events; i++)
		free(w->heap[i]);
	free(w->heap);
	free(w->polled);
	(void)close(w->epoll_fd);
	free(w->cut);
	free(w->machines);
	free(w);
	return NULL;
}

void world_pause(struct world *w, unsigned slot, bool paused)
{
	struct world_machine *m = machine(w, slot);
	bool timers_first = world_chance(w, 500);
	struct world_event *e;

	if (!m->running || m->paused == paused)
		return;
	world_note(w, slot, paused ? "paused" : "resumed");
	m->paused = paused;
	m->paused_at = paused ? w->now : 0;
	if (paused)
		return;
	while ((e = STAILQ_FIRST(&m->held))) {
		STAILQ_REMOVE_HEAD(&m->held, held);
		e->due = w->now + (e->is_timer == timers_first ? 0 : NSEC_PER_USEC);
		e->seq = ++w->seq;
		heap_add(w, e);
	}
}

nsec_t world_ran_until(const struct world *w, unsigned slot)
{
	const struct world_machine *m = machine(w, slot);

	return m->paused_at ? m->paused_at : w->now;
}

bool world_is_running(const struct world *w, unsigned slot)
{
	return machine(w, slot)->running;
}

bool world_is_paused(const struct world *w, unsigned slot)
{
	return machine(w, slot)->paused;
}

void world_cut(struct world *w, unsigned from, unsigned to, bool cut)
{
	if (*world_cut_at(w, from, to) == cut)
		return;
	world_note(w, from, "%s to %u", cut ? "cut" : "healed", to);
	*world_cut_at(w, from, to) = cut;
	if (cut)
		world_net_cut(w, from, to);
}

void world_heal(struct world *w)
{
	for (unsigned a = 1; a <= w->n_machines; a++)
		for (unsigned b = 1; b <= w->n_machines; b++)
			world_cut(w, a, b, false);
}

void world_disk_full(struct world *w, unsigned slot, bool full)
{
	world_note(w, slot, "disk full: %d", full);
	machine(w, slot)->disk_full = full;
}

void world_set_drift(struct world *w, unsigned slot, int ppm)
{
	machine(w, slot)->drift_ppm = ppm;
}

void world_set_wall_clock(struct world *w, unsigned slot, int64_t ahead)
{
	world_note(w, slot, "wall clock %+" PRId64 " s", ahead / (int64_t)NSEC_PER_SEC);
	machine(w, slot)->wall_ahead = ahead;
}

const struct env *world_env(struct world *w, unsigned slot)
{
	return slot ? &machine(w, slot)->env : &w->machines[0].env;
}

unsigned world_acting(const struct world *w)
{
	return w->acting;
}

void world_act(struct world *w, unsigned slot)
{
	w->acting = slot;
}

void world_spend(struct world *w, nsec_t span)
{
	w->now += span;
}

const struct store *world_store(struct world *w, unsigned slot)
{
	return &machine(w, slot)->store;
}

const struct transport *world_transport(struct world *w, unsigned slot)
{
	return &machine(w, slot)->transport;
}

const struct world_use *world_use(const struct world *w, unsigned slot)
{
	return &machine(w, slot)->use;
}

void world_listen(struct world *w, unsigned slot, const struct transport_events *events,
		  void *owner)
{
	machine(w, slot)->events = events;
	machine(w, slot)->events_owner = owner;
}

void world_set_id(struct world *w, unsigned slot, node_id id)
{
	machine(w, slot)->id = id;
}

node_id world_id(const struct world *w, unsigned slot)
{
	return machine(w, slot)->id;
}

const char *world_address(struct world *w, unsigned slot)
{
	return machine(w, slot)->address;
}
