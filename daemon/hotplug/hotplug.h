#pragma once
/*
 * Adding and removing members by command, and the end of the whole cluster.
 *
 * Knows: env, rpc, membership, process, migration.  Tells: the asker, and its owner when
 * this node is to stop.
 *
 * The node that leads does it, one change at a time, for whoever asks; the asker finds
 * the leader, and the next one when it is lost.  A removal: look whether all can move,
 * LEAVING (nothing new comes), each of the nodes empties itself and gives up its lease,
 * REMOVED in one view, no vote any more.  An addition: all of them answer, UP in one view,
 * all of them have it.
 *
 * Invariant: a change ends in the view before it or in the one that was wanted; whoever
 * leads and finds members LEAVING that no change of its own is about, has them stay.
 * Source of the idea: HotPlug of the LinuxSSI specification, 4.4.2.
 */
#include "env.h"
#include "membership.h"
#include "migration.h"
#include "process.h"
#include "rpc.h"

#include <stdbool.h>

struct hotplug;

struct hotplug_neighbours {
	const struct env *env;
	struct rpc *rpc;
	struct membership *membership;
	struct process_room *process; /* NULL, as migration: nothing runs here */
	struct migration_room *migration;
	/* The cluster is shut down: end every process of this node and stop, soon. */
	void (*on_halt)(void *owner);
	void *owner;
};

enum hotplug_what {
	HOTPLUG_ADD,
	HOTPLUG_REMOVE,
	HOTPLUG_SHUTDOWN, /* the node that asks stops last, by itself, when it was told */
};

enum { HOTPLUG_NODES_MAX = 4096, HOTPLUG_STAYS_MAX = 32 };

struct hotplug_request {
	enum hotplug_what what;
	const node_id *nodes; /* copied; none for SHUTDOWN */
	size_t n_nodes;
	bool force;   /* end what cannot move */
	bool dry_run; /* only say what would be ended */
	nsec_t timeout;
};

/* A process that cannot move. */
struct hotplug_stay {
	pid_t pid;
	node_id node;
	char command[64], reason[256];
};

struct hotplug_result {
	enum rpc_status status; /* RPC_UNSUPPORTED with stays: refused because of these */
	const char *text;
	const struct hotplug_stay *stays; /* the first few */
	size_t n_stays, n_all_stays;
	bool unknown;	       /* done, and nobody could tell us the figures: we were removed */
	uint32_t moved, ended; /* trees of processes */
};

typedef void (*hotplug_progress_cb)(void *owner, const char *step, uint64_t done,
				    uint64_t total);
typedef void (*hotplug_done_cb)(void *owner, const struct hotplug_result *result);

int hotplug_new(struct hotplug **ret, const struct hotplug_neighbours *n);
struct hotplug *hotplug_free(struct hotplug *h);
void hotplug_on_view(struct hotplug *h);

/* done once, later; progress any number of times before. */
int hotplug_change(struct hotplug *h, const struct hotplug_request *request,
		   hotplug_progress_cb progress, hotplug_done_cb done, void *owner);
/* The asker is gone: callbacks never come; the change goes on. */
void hotplug_forget(struct hotplug *h, void *owner);
