/*
 * Happy path: a room tells; the event is written into the ring; on the next turn of the loop
 * whoever watches, here or on another node, reads on from where he is.
 *
 * Failure modes: ssid dies -> its successor finds the ring, and goes on with its numbers; the
 * space is made anew -> the ring begins anew, and readers are told of a gap; too many nodes
 * wait -> they are answered with nothing and ask again.
 */
#include "events_internal.h"

#include "cleanup.h"
#include "err.h"
#include "events_link.h"
#include "events_view.h"
#include "log.h"

#include <string.h>
#include <sys/mman.h>

static void on_tell(void *owner, const struct event *event)
{
	struct events *e = owner;
	const struct membership_view *view = membership_view(e->membership);
	struct event copy = *event;

	copy.time = env_realtime(e->env);
	copy.epoch = view ? view->epoch : 0;
	if (copy.node == NODE_NONE)
		copy.node = rpc_self(e->rpc);
	events_ring_add(e->ring, &copy);
	(void)env_arm(e->env, &e->flush, 0);
}

static void waiting_free(struct events *e, struct events_waiting *w)
{
	TAILQ_REMOVE(&e->waiting, w, entry);
	e->n_waiting--;
	free(w);
}

/* The flush is also the clock of those who wait: the first ends first. */
static void on_flush(struct env_timer *timer)
{
	struct events *e = container_of(timer, struct events, flush);
	struct events_watch *watch, *next_watch;
	struct events_waiting *w, *next;
	nsec_t now = env_now(e->env), first = 0;

	for (w = TAILQ_FIRST(&e->waiting); w; w = next) {
		next = TAILQ_NEXT(w, entry);
		if (events_wire_answer(e, w->call, &w->filter, w->after, now >= w->until))
			waiting_free(e, w);
		else if (!first || w->until < first)
			first = w->until;
	}
	for (watch = LIST_FIRST(&e->watches); watch; watch = next_watch) {
		next_watch = LIST_NEXT(watch, entry);
		watch->on_events(watch);
	}
	if (first && !e->flush.due)
		(void)env_arm(e->env, &e->flush, first - now);
}

void events_wait(struct events *e, struct rpc_call *call, const struct events_filter *filter,
		 uint64_t after, nsec_t wait)
{
	struct events_waiting *w;

	if (events_wire_answer(e, call, filter, after, !wait))
		return;
	w = e->n_waiting < EVENTS_WAITING_MAX ? calloc(1, sizeof(*w)) : NULL;
	if (!w) {
		(void)events_wire_answer(e, call, filter, after, true);
		return;
	}
	*w = (struct events_waiting){ .call = call,
				      .filter = *filter,
				      .after = after == EVENTS_NOW ? e->ring->newest : after,
				      .until = env_now(e->env) + wait };
	TAILQ_INSERT_TAIL(&e->waiting, w, entry);
	e->n_waiting++;
	if (!e->flush.due || e->flush.due > w->until)
		(void)env_arm(e->env, &e->flush, wait);
}

static int take_ring(struct events *e, struct space *space)
{
	void *memory;
	bool fresh;
	int r;

	if (!space) {
		e->ring = calloc(1, sizeof(*e->ring));
		return e->ring ? 0 : err_origin(-ENOMEM);
	}
	/* The name has the layout's version: another ssid's is not misread. */
	r = space_state(space, "events/1", sizeof(*e->ring), &memory, &fresh);
	if (r != 0)
		return err_fold(r);
	e->ring = memory;
	e->mapped = true;
	return 0;
}

int events_new(struct events **ret, const struct env *env, struct rpc *rpc,
	       struct membership *membership, struct space *space, const char *link_path)
{
	struct events *e = calloc(1, sizeof(*e));
	int r;

	if (!e)
		return err_origin(-ENOMEM);
	e->env = env;
	e->rpc = rpc;
	e->membership = membership;
	e->sink = (struct event_sink){ on_tell, e };
	e->link_path = link_path;
	e->flush.cb = on_flush;
	LIST_INIT(&e->watches);
	TAILQ_INIT(&e->waiting);
	r = take_ring(e, space);
	if (r == 0)
		r = rpc_register(rpc, events_methods, e);
	if (r < 0) {
		events_free(e);
		return r;
	}
	*ret = e;
	return 0;
}

struct events *events_free(struct events *e)
{
	if (!e)
		return NULL;
	env_disarm(e->env, &e->flush);
	while (!TAILQ_EMPTY(&e->waiting)) {
		rpc_fail(TAILQ_FIRST(&e->waiting)->call, RPC_DOWN, "ssid stops");
		waiting_free(e, TAILQ_FIRST(&e->waiting));
	}
	if (e->mapped)
		(void)munmap(e->ring, sizeof(*e->ring));
	else
		free(e->ring);
	free(e);
	return NULL;
}

const struct event_sink *events_sink(const struct events *e)
{
	return &e->sink;
}

void events_on_view(struct events *e, const struct membership_view *view)
{
	char text[EVENTS_LINK_MAX];
	int r;

	events_view_compare(e->ring, view, &e->sink);
	if (!e->link_path)
		return;
	events_link_format(view, rpc_self(e->rpc), text, sizeof(text));
	r = events_link_set(e->link_path, text);
	if (r < 0)
		log_warning("%s: %s: programs that use libssi are not told of view %llu",
			    e->link_path, strerror(-r), (unsigned long long)view->epoch);
}

void events_on_lease(struct events *e, bool held)
{
	struct event event = { .type = held ? EVENT_LEASE_HELD : EVENT_LEASE_LOST };

	on_tell(e, &event);
}

size_t events_read(const struct events *e, const struct events_filter *filter, uint64_t *after,
		   struct event *ret, size_t max, uint64_t *ret_lost)
{
	return events_ring_read(e->ring, filter, after, ret, max, ret_lost);
}

void events_watch(struct events *e, struct events_watch *watch)
{
	LIST_INSERT_HEAD(&e->watches, watch, entry);
}

void events_unwatch(struct events_watch *watch)
{
	LIST_REMOVE(watch, entry);
}
