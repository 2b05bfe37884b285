/* See events_ring.h. */
#include "events_ring.h"

enum scope { CLUSTER, NODE, USER };

static const struct {
	const char *name;
	enum scope scope;
} types[_EVENT_TYPES] = {
	[0] = { "unknown", USER },
	[EVENT_NODE_ADDED] = { "node-added", CLUSTER },
	[EVENT_NODE_JOINED] = { "node-joined", CLUSTER },
	[EVENT_NODE_UP] = { "node-up", CLUSTER },
	[EVENT_NODE_LOST] = { "node-lost", CLUSTER },
	[EVENT_NODE_LEFT] = { "node-left", CLUSTER },
	[EVENT_NODE_LEAVING] = { "node-leaving", CLUSTER },
	[EVENT_NODE_REMOVED] = { "node-removed", CLUSTER },
	[EVENT_NODE_STAYS] = { "node-stays", CLUSTER },
	[EVENT_LEADER] = { "leader", CLUSTER },
	[EVENT_VOTE_GIVEN] = { "vote-given", CLUSTER },
	[EVENT_VOTE_TAKEN] = { "vote-taken", CLUSTER },
	[EVENT_LEASE_HELD] = { "lease-held", NODE },
	[EVENT_LEASE_LOST] = { "lease-lost", NODE },
	[EVENT_APP_STARTED] = { "app-started", USER },
	[EVENT_APP_ENDED] = { "app-ended", USER },
	[EVENT_APP_REVIVED] = { "app-revived", USER },
	[EVENT_PROCESS_MOVED] = { "process-moved", USER },
	[EVENT_MOVE_FAILED] = { "move-failed", USER },
	[EVENT_CHECKPOINT_SAVED] = { "checkpoint-saved", USER },
};

const char *event_type_name(enum event_type type)
{
	return types[type < _EVENT_TYPES ? type : 0].name;
}

void events_ring_add(struct events_ring *ring, const struct event *event)
{
	uint64_t number = ring->newest + 1;
	struct event *slot = &ring->events[number % EVENTS_KEPT];

	*slot = *event;
	slot->number = number;
	/* A successor believes what is below this number. */
	__atomic_store_n(&ring->newest, number, __ATOMIC_RELEASE);
}

static const struct event *at(const struct events_ring *ring, uint64_t number)
{
	return &ring->events[number % EVENTS_KEPT];
}

static bool passes(const struct events_filter *f, const struct event *e)
{
	enum scope scope = types[e->type < _EVENT_TYPES ? e->type : 0].scope;

	return e->time >= f->since && e->epoch >= f->since_epoch &&
	       !(f->own && scope == CLUSTER) &&
	       (scope != USER || f->uid == 0 || f->uid == e->uid);
}

/* The slot of the one that is written next is not whole if ssid died over it. */
static uint64_t oldest(const struct events_ring *ring)
{
	return ring->newest >= EVENTS_KEPT ? ring->newest - EVENTS_KEPT + 2 : 1;
}

/* Was something between @after and the oldest that was asked for?  Times and epochs go up. */
static uint64_t count_lost(const struct events_ring *ring, const struct events_filter *f,
			   uint64_t after)
{
	const struct event *first = at(ring, oldest(ring));

	if (after + 1 >= oldest(ring) || (f->since && first->time < f->since) ||
	    (f->since_epoch && first->epoch < f->since_epoch))
		return 0;
	return oldest(ring) - 1 - after;
}

size_t events_ring_read(const struct events_ring *ring, const struct events_filter *filter,
			uint64_t *after, struct event *ret, size_t max, uint64_t *ret_lost)
{
	uint64_t n = *after;
	size_t count = 0;

	*ret_lost = 0;
	if (n == EVENTS_NOW)
		n = ring->newest;
	/* The space was made anew since, and the ring with it. */
	if (n > ring->newest) {
		*ret_lost = EVENTS_LOST_SOME;
		n = 0;
	} else {
		*ret_lost = count_lost(ring, filter, n);
	}
	if (n + 1 < oldest(ring))
		n = oldest(ring) - 1;
	for (; n < ring->newest && count < max; n++)
		if (passes(filter, at(ring, n + 1)))
			ret[count++] = *at(ring, n + 1);
	*after = n;
	return count;
}
