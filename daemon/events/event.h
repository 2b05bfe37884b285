#pragma once
/*
 * One thing that happened, and where rooms say so.  A value and a callback: whoever tells
 * links nothing, and without a sink it is not told.
 */
#include "ids.h"

#include <stddef.h>

enum event_type {
	/* Of the cluster: every node derives them from the views. */
	EVENT_NODE_ADDED = 1, /* to the map: admitted, not seen yet */
	EVENT_NODE_JOINED,    /* up for the first time */
	EVENT_NODE_UP,	      /* again, or another start of its ssid */
	EVENT_NODE_LOST,
	EVENT_NODE_LEFT,
	EVENT_NODE_LEAVING, /* its removal has begun */
	EVENT_NODE_REMOVED,
	EVENT_NODE_STAYS, /* its removal was given up */
	EVENT_LEADER,
	EVENT_VOTE_GIVEN,
	EVENT_VOTE_TAKEN,
	/* Of the node that tells. */
	EVENT_LEASE_HELD,
	EVENT_LEASE_LOST,
	/* Of a user. */
	EVENT_APP_STARTED,
	EVENT_APP_ENDED, /* code, status */
	EVENT_APP_REVIVED, /* text: from which checkpoint */
	EVENT_PROCESS_MOVED, /* to, frozen, bytes */
	EVENT_MOVE_FAILED,   /* to, text: why */
	EVENT_CHECKPOINT_SAVED, /* text: its name; frozen, bytes */
	_EVENT_TYPES,
};

struct event {
	uint64_t number; /* of the node that tells, from 1; the teller leaves it 0, as time and epoch */
	nsec_t time;	 /* CLOCK_REALTIME */
	epoch_t epoch;	 /* of the view at that time */
	enum event_type type;
	node_id node, to; /* whom it is about, or where it happened; 0: the teller */
	pid_t pid, app;
	uid_t uid;
	int code, status; /* CLD_* */
	nsec_t frozen;
	uint64_t bytes;
	char text[256];
};

struct event_sink {
	void (*tell)(void *owner, const struct event *event);
	void *owner;
};

/* @sink may be NULL. */
static inline void event_tell(const struct event_sink *sink, const struct event *event)
{
	if (sink && sink->tell)
		sink->tell(sink->owner, event);
}
