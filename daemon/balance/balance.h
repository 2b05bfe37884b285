#pragma once
/*
 * Children that were forked to compute, and move to where there is room.
 *
 * Knows: env, space, membership, capability, process, placement, migration.
 *
 * A child that starts a program is placed at that moment, which costs little.  One that
 * computes in the memory of its parent can only be moved; so it is when it has shown that it
 * computes, while its node has no processor for it and another one has.  Once: it stays where it
 * is then, as all that is placed.  Only who has DISTANT_FORK, as its parent, one at a time.
 *
 * Why not at the fork itself: each fork of each shell would wait for an answer, and most of
 * those children start a program, or end, within milliseconds.
 *
 * What is in the way of its move keeps it here, after two nodes were tried.  Nothing is kept for
 * a successor of ssid: it looks anew.  Source of the idea: Kerrighed's DISTANT_FORK.
 */
#include "env.h"
#include "membership.h"
#include "migration.h"
#include "placement.h"
#include "process.h"
#include "space.h"

struct balance;

struct balance_neighbours {
	const struct env *env;
	struct space *space;
	struct membership *membership;
	struct process_room *process;
	struct placement *placement;
	struct migration_room *migration;
};

/* The neighbours outlive it, and it the process. */
int balance_new(struct balance **ret, const struct balance_neighbours *n);
