#pragma once
/*
 * What the files of this room share: hotplug.c is the asker, hotplug_lead.c the leader's
 * change, hotplug_drain.c a node that empties itself, hotplug_wire.c messages.
 */
#include "hotplug.h"
#include "hotplug.pb-c.h"

#include "sm.h"

#include <sys/queue.h>

enum {
	HOTPLUG_CHANGE = RPC_ROOM_HOTPLUG << 8 | 1,
	HOTPLUG_PROGRESS = RPC_ROOM_HOTPLUG << 8 | 2,
	HOTPLUG_DRAIN = RPC_ROOM_HOTPLUG << 8 | 3,
	HOTPLUG_HELLO = RPC_ROOM_HOTPLUG << 8 | 4, /* is this view yours? */
	HOTPLUG_HALT = RPC_ROOM_HOTPLUG << 8 | 5,
};

struct hotplug_lead;

struct hotplug {
	struct hotplug_neighbours n;
	LIST_HEAD(, hotplug_ask) asks;
	LIST_HEAD(, hotplug_drain) drains;
	struct hotplug_lead *lead; /* the change under way, if this node leads */
	bool settling;		   /* members that were LEAVING are made to stay */
	struct env_timer settle;   /* again */
	struct env_timer halt;
	uint64_t next_number;
};

/* Processes that stay, as they are gathered. */
struct hotplug_stays {
	struct hotplug_stay of[HOTPLUG_STAYS_MAX];
	size_t n, n_all;
};

void hotplug_stays_add(struct hotplug_stays *s, const struct hotplug_stay *stay);

/* hotplug.c */
const char *hotplug_node_name(const struct hotplug *h, node_id node);
void hotplug_on_progress(struct hotplug *h, const Ssi__Hotplug__Progress *p);
/* Send it, if somebody watches. */
void hotplug_tell_progress(struct hotplug *h, node_id watcher, uint64_t watch, uint64_t done,
			   uint64_t total, const char *format, ...)
	__attribute__((format(printf, 6, 7)));
/* This node stops when the answers that are on their way have left. */
void hotplug_halt_soon(struct hotplug *h);

/* hotplug_lead.c: serve HOTPLUG_CHANGE. */
void hotplug_lead_begin(struct hotplug *h, struct rpc_call *call,
			const Ssi__Hotplug__ChangeRequest *q);
void hotplug_lead_on_view(struct hotplug *h);
void hotplug_on_settle(struct env_timer *timer);
void hotplug_lead_free(struct hotplug *h);

/* hotplug_drain.c: serve HOTPLUG_DRAIN. */
void hotplug_drain_begin(struct hotplug *h, struct rpc_call *call,
			 const Ssi__Hotplug__DrainRequest *q);
void hotplug_drains_free(struct hotplug *h);

/* hotplug_wire.c */
extern const struct rpc_method hotplug_methods[];
/* Stays of a message; ones that make no sense are left out. */
void hotplug_stays_unpack(struct hotplug_stays *s, Ssi__Hotplug__Stay *const *list, size_t n,
			  uint32_t n_all);
struct hotplug_stays_message {
	Ssi__Hotplug__Stay stays[HOTPLUG_STAYS_MAX], *list[HOTPLUG_STAYS_MAX];
};
/* Refers to @s. */
void hotplug_stays_pack(const struct hotplug_stays *s, struct hotplug_stays_message *ret);
