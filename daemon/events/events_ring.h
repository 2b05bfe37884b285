#pragma once
/*
 * The last events of a node, and what the views had said until then, in memory that outlives
 * its ssid.
 *
 * Invariant: whatever moment ssid dies in, @newest and those before it are whole.
 */
#include "event.h"

#include <stdbool.h>

enum {
	EVENTS_KEPT = 4096,
	EVENTS_MEMBERS_MAX = 4096,
};

/* A member, as of the last view that was looked at. */
struct events_seen {
	node_id node;
	uint32_t state; /* enum member_state */
	uint64_t incarnation;
	bool voter;
	char name[NODE_NAME_MAX + 1];
};

struct events_ring {
	uint64_t newest; /* number; 0: none yet */
	bool looked;	 /* at a view: what follows is so */
	node_id leader;
	uint32_t n_seen;
	struct events_seen seen[EVENTS_MEMBERS_MAX];
	struct event events[EVENTS_KEPT]; /* number n at n % EVENTS_KEPT */
};

struct events_filter {
	uid_t uid;	 /* 0: root, who may know all */
	bool own;	 /* without those that every node derives from the views */
	nsec_t since;	 /* 0: any */
	epoch_t since_epoch;
};

/* As a number to read after: from now on. */
#define EVENTS_NOW UINT64_MAX
/* As a number lost: some, but nobody knows how many. */
#define EVENTS_LOST_SOME UINT64_MAX

/* @event gets the next number. */
void events_ring_add(struct events_ring *ring, const struct event *event);
/*
 * At most @max events after number *@after that pass @filter, oldest first; how many.  *@after
 * becomes the number up to which was read.  *ret_lost: how many that were asked for are gone.
 */
size_t events_ring_read(const struct events_ring *ring, const struct events_filter *filter,
			uint64_t *after, struct event *ret, size_t max, uint64_t *ret_lost);
const char *event_type_name(enum event_type type);
