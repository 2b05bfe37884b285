#pragma once
/* What the files of this room share. */
#include "events.h"

enum {
	EVENTS_READ = RPC_ROOM_EVENTS << 8 | 1,
	EVENTS_WAITING_MAX = 1024,
};

/* Another node that waits for something new. */
struct events_waiting {
	TAILQ_ENTRY(events_waiting) entry;
	struct rpc_call *call;
	struct events_filter filter;
	uint64_t after;
	nsec_t until;
};

struct events {
	const struct env *env;
	struct rpc *rpc;
	struct membership *membership;
	struct event_sink sink;
	struct events_ring *ring;
	bool mapped; /* the ring is a state memfd */
	const char *link_path;
	struct env_timer flush; /* whoever waits is told */
	LIST_HEAD(, events_watch) watches;
	TAILQ_HEAD(, events_waiting) waiting;
	unsigned n_waiting;
};

/* events_wire.c */
extern const struct rpc_method events_methods[];
/* Answer @call with a page, if there is one or @empty will do. */
bool events_wire_answer(struct events *e, struct rpc_call *call,
			const struct events_filter *filter, uint64_t after, bool empty);
/* events.c */
void events_wait(struct events *e, struct rpc_call *call, const struct events_filter *filter,
		 uint64_t after, nsec_t wait);
