#pragma once
/*
 * What has happened, for operators, the web and programs.
 *
 * Knows: env, rpc, membership, space.  Tells: whoever watches.  Rooms above tell it, by the
 * struct event_sink that they are given.
 *
 * Every node keeps its last EVENTS_KEPT events in a state memfd, numbered; what the views say
 * every node keeps.  Whoever reads comes with the number up to which he has read: nothing is
 * queued for anybody, so a reader that is slow or stopped costs nothing, and is told how many
 * he has missed.
 */
#include "env.h"
#include "events_ring.h"
#include "membership.h"
#include "rpc.h"
#include "space.h"

#include <sys/queue.h>

struct events;

/* @space NULL: kept for this ssid only.  @link_path: see events_link.h; NULL: none. */
int events_new(struct events **ret, const struct env *env, struct rpc *rpc,
	       struct membership *membership, struct space *space, const char *link_path);
struct events *events_free(struct events *e);
const struct event_sink *events_sink(const struct events *e);
/* The owner of membership passes these on. */
void events_on_view(struct events *e, const struct membership_view *view);
void events_on_lease(struct events *e, bool held);

/* Of this node, see events_ring.h. */
size_t events_read(const struct events *e, const struct events_filter *filter, uint64_t *after,
		   struct event *ret, size_t max, uint64_t *ret_lost);

/* Embedded in its owner; on_events comes from the loop after there are new ones. */
struct events_watch {
	LIST_ENTRY(events_watch) entry;
	void (*on_events)(struct events_watch *watch);
};
void events_watch(struct events *e, struct events_watch *watch);
void events_unwatch(struct events_watch *watch);

enum { EVENTS_PAGE = 256 };

/* A page of another node's own; valid during the callback.  @status not RPC_OK: nothing. */
struct events_page {
	enum rpc_status status;
	const struct event *events;
	size_t n;
	uint64_t after, lost; /* as of events_ring_read() */
};
/* Embedded in its owner; zero it, set done. */
struct events_asking {
	void (*done)(struct events_asking *asking, const struct events_page *page);
	struct rpc *rpc;
	struct rpc_request *request; /* NULL: none is under way */
};
/* 0: done comes once, at once or when there is something, at the latest after @wait and a
 * little; unless it is cancelled. */
int events_ask(struct events *e, node_id node, const struct events_filter *filter,
	       uint64_t after, nsec_t wait, struct events_asking *asking);
void events_ask_cancel(struct events_asking *asking);
