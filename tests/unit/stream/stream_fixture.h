#pragma once
/*
 * Nodes with a stream room each, in one process or in several, over one real
 * ssi-init: what a node keeps there has its number before its name.  Their links are
 * UNIX sockets, rpc and the loop are the real ones.
 */
#include "stream.h"

#include "cleanup.h"
#include "env_event.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { NODES = 3 };

struct node {
	node_id id;
	struct env_event *event;
	const struct env *env;
	struct space *space;
	struct rpc *rpc;
	struct link *link;
	struct stream_room *room;
};

int stream_fixture_main(int argc, char **argv, int (*tests)(void));

/* Node @id, with a loop of its own, or @event's. */
void node_start(struct node *n, node_id id, struct env_event *event);
/* Without its room: the test answers in its place. */
void node_start_bare(struct node *n, node_id id, struct env_event *event);
/* As ssid ends; what is kept stays. */
void node_stop(struct node *n);
/* Descriptors that the node has in ssi-init, its state memfds not counted. */
size_t node_kept(struct node *n);

/* All nodes' clocks; timers still take their time. */
void clock_advance(nsec_t by);
/* Turn the loop for so long. */
void turn(struct env_event *event, nsec_t span);
#define turn_until(event_, condition_)                                                       \
	do {                                                                                 \
		nsec_t until_ = env_now(env_event_env(event_)) + 10 * NSEC_PER_SEC;          \
		while (!(condition_)) {                                                      \
			if (env_now(env_event_env(event_)) > until_)                         \
				fail_msg("waited for 10 s: %s", #condition_);                \
			turn(event_, NSEC_PER_MSEC);                                         \
		}                                                                            \
	} while (0)

/* link.c: a transport for @node. */
int link_new(struct link **ret, const struct env *env, node_id self,
	     const struct transport_events *events, void *owner);
struct link *link_free(struct link *l);
const struct transport *link_transport(struct link *l);
/* Every link goes down. */
void link_cut(struct link *l);
