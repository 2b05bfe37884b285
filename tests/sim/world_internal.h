#pragma once
#include "world.h"

#include "cleanup.h"

#include <stdint.h>
#include <sys/queue.h>

enum { WORLD_LAST = 64, WORLD_QUEUE = 256 << 10 };

#define WORLD_ADDRESS "10.0.%u.%u:7777" /* slot / 256, slot % 256 */
#define WORLD_GIVE_UP (4 * NSEC_PER_SEC) /* TCP_USER_TIMEOUT */

struct world_event {
	nsec_t due; /* world time */
	uint64_t seq;
	size_t at; /* in the heap */
	unsigned slot; /* 0: the scenario */
	const char *what;
	void (*fire)(struct world *w, struct world_event *event);
	void *arg;
	void (*cb)(void *arg);
	bool is_timer;
	STAILQ_ENTRY(world_event) held;
};

struct world_batch {
	STAILQ_ENTRY(world_batch) in;
	struct world *w;
	unsigned slot;
	struct store_change *changes;
	size_t n_changes;
	store_done_cb done;
	void *owner;
};

struct world_row {
	LIST_ENTRY(world_row) in;
	struct iovec key, value;
};

/* A watched descriptor. */
struct world_watch {
	LIST_ENTRY(world_watch) in;
	struct world_machine *machine;
	struct env_fd *fd;
	unsigned events;
	struct world_event *event; /* it will be told */
};

struct world_machine {
	struct world *w;
	unsigned slot;
	node_id id;
	char address[32];
	bool running, muted, paused, disk_full;
	nsec_t paused_at; /* 0: since it boots it was not, or it was resumed */
	int drift_ppm;
	int64_t wall_ahead;
	nsec_t clock_base;
	unsigned boot;
	struct env env;
	struct store store;
	struct transport transport;
	const struct transport_events *events;
	void *events_owner;
	STAILQ_HEAD(, world_event) held; /* while paused */
	LIST_HEAD(, world_row) rows;     /* durable, by key */
	STAILQ_HEAD(, world_batch) batches;
	nsec_t durable_at; /* of the last batch */
	LIST_HEAD(, transport_link) links;
	struct world_use use;
};

struct world {
	uint64_t seed, random, seq, trace;
	nsec_t now;
	unsigned n_machines;
	const struct world_rooms *rooms;
	void *owner;
	struct world_event **heap;
	size_t n_events, room;
	bool *cut; /* by world_cut_at() */
	struct world_machine *machines; /* 0: the world itself */
	LIST_HEAD(, world_watch) watches;
	int epoll_fd; /* of all watches */
	struct pollfd *polled;
	size_t n_polled;
	unsigned acting;
	char last[WORLD_LAST][120];
	size_t n_last;
	bool verbose;
};

/* Is what @from sends to @to held back? */
static inline bool *world_cut_at(struct world *w, unsigned from, unsigned to)
{
	return &w->cut[from * (w->n_machines + 1) + to];
}

/* NULL only without memory, which ends the test. */
struct world_event *world_schedule(struct world *w, nsec_t after, unsigned slot, const char *what,
				   void (*fire)(struct world *, struct world_event *), void *arg);
/* It does not come; freed. */
void world_unschedule(struct world *w, struct world_event *event);

/* world_net.c */
extern const struct transport_ops world_transport_ops;
void world_net_crash(struct world_machine *machine, bool silent);
void world_net_cut(struct world *w, unsigned from, unsigned to);

/* world_store.c */
extern const struct store_ops world_store_ops;
void world_store_crash(struct world_machine *machine);
void world_store_cancel(struct world_machine *machine);
void world_store_fini(struct world_machine *machine);
