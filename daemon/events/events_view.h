#pragma once
/* What a view says that the last one did not. */
#include "events_ring.h"
#include "membership.h"

/* Tell @sink, and write down in @ring what was said.  The first view of all says nothing. */
void events_view_compare(struct events_ring *ring, const struct membership_view *view,
			 const struct event_sink *sink);
