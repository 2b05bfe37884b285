/*
 * Views may be skipped (a node was cut off, its ssid was dead): what differs between the two
 * that were seen is told, not what lay between.
 */
#include "events_view.h"

#include <stdio.h>
#include <string.h>

static void say(const struct event_sink *sink, enum event_type type, node_id node,
		const char *text)
{
	struct event e = { .type = type, .node = node };

	(void)snprintf(e.text, sizeof(e.text), "%s", text);
	event_tell(sink, &e);
}

static const struct events_seen *find(const struct events_ring *ring, node_id node)
{
	size_t low = 0, high = ring->n_seen;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (ring->seen[middle].node == node)
			return &ring->seen[middle];
		if (ring->seen[middle].node < node)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

static void say_up(const struct event_sink *sink, const struct membership_node *n,
		   enum member_state from)
{
	if (from == MEMBER_LEAVING)
		say(sink, EVENT_NODE_STAYS, n->id, "");
	else if (from == MEMBER_JOINING)
		say(sink, EVENT_NODE_JOINED, n->id, "");
	else
		say(sink, EVENT_NODE_UP, n->id, "");
}

static void compare_state(const struct event_sink *sink, const struct membership_node *n,
			  enum member_state from)
{
	static const enum event_type types[] = {
		[MEMBER_JOINING] = EVENT_NODE_ADDED,   [MEMBER_LOST] = EVENT_NODE_LOST,
		[MEMBER_LEFT] = EVENT_NODE_LEFT,       [MEMBER_LEAVING] = EVENT_NODE_LEAVING,
		[MEMBER_REMOVED] = EVENT_NODE_REMOVED,
	};

	if (n->state == MEMBER_UP)
		say_up(sink, n, from);
	else
		say(sink, types[n->state], n->id, "");
}

static void compare_node(const struct event_sink *sink, const struct membership_node *n,
			 const struct events_seen *seen)
{
	bool voted = seen && seen->voter;

	if (!seen)
		say(sink, EVENT_NODE_ADDED, n->id, n->address);
	if (n->state != (seen ? seen->state : (uint32_t)MEMBER_JOINING))
		compare_state(sink, n, seen ? (enum member_state)seen->state : MEMBER_JOINING);
	else if (seen && n->state == MEMBER_UP && n->incarnation != seen->incarnation)
		say(sink, EVENT_NODE_UP, n->id, "another start of its ssid, or a loss between");
	if (n->voter != voted)
		say(sink, n->voter ? EVENT_VOTE_GIVEN : EVENT_VOTE_TAKEN, n->id, "");
}

/* Those that the map does not know any more: never seen, and their name was given again. */
static void compare_gone(const struct event_sink *sink, const struct events_ring *ring,
			 const struct membership_view *view)
{
	size_t k = 0;

	for (size_t i = 0; i < ring->n_seen; i++) {
		while (k < view->n_nodes && view->nodes[k].id < ring->seen[i].node)
			k++;
		if (k == view->n_nodes || view->nodes[k].id != ring->seen[i].node)
			say(sink, EVENT_NODE_REMOVED, ring->seen[i].node, ring->seen[i].name);
	}
}

static void write_down(struct events_ring *ring, const struct membership_view *view)
{
	/* Killed in between, the successor's first view says nothing: better than what is not so. */
	ring->looked = false;
	ring->n_seen = 0;
	for (size_t i = 0; i < view->n_nodes && i < EVENTS_MEMBERS_MAX; i++) {
		const struct membership_node *n = &view->nodes[i];
		struct events_seen *s = &ring->seen[i];

		*s = (struct events_seen){ .node = n->id,
					   .state = n->state,
					   .incarnation = n->incarnation,
					   .voter = n->voter };
		memcpy(s->name, n->name, sizeof(s->name));
		ring->n_seen = (uint32_t)i + 1;
	}
	ring->leader = view->leader;
	ring->looked = true;
}

void events_view_compare(struct events_ring *ring, const struct membership_view *view,
			 const struct event_sink *sink)
{
	if (ring->looked) {
		compare_gone(sink, ring, view);
		for (size_t i = 0; i < view->n_nodes; i++)
			compare_node(sink, &view->nodes[i], find(ring, view->nodes[i].id));
		if (view->leader != ring->leader)
			say(sink, EVENT_LEADER, view->leader, "");
	}
	write_down(ring, view);
}
