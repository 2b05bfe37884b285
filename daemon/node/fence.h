#pragma once
/*
 * When this node may run programs: ssi-init is told each lease, freezes the space when one
 * ends, and lets it go on only when nothing of it lives elsewhere by then.
 *
 * Knows: space, process, membership.  Tells: its owner, when the space goes on.
 */
#include "membership.h"
#include "process.h"
#include "space.h"

struct fence {
	const struct env *env;
	struct space *space;
	struct process_room *process;
	struct membership *membership;
	node_id self;
	void (*on_thawed)(void *owner);
	void *owner;
	nsec_t until;
	epoch_t since; /* the incarnation that held the last lease; 0: none of this ssid */
	bool claiming;
};

/* The lease lasts until @until.  Nothing is asked before the rooms are built. */
void fence_on_renewed(struct fence *f, nsec_t until);
void fence_on_lease_end(struct fence *f);
