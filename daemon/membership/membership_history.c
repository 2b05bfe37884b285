/*
 * How members have fared: stamped by the leader into each map that it proposes, by
 * what differs from the one that is committed.  Pure functions.
 *
 * Clocks may step: a time that lies before the one it is compared with counts as none.
 */
#include "membership_history.h"

static nsec_t between(nsec_t from, nsec_t to)
{
	return from && to > from ? to - from : 0;
}

/* Lost and back, with one view for both. */
static bool was_lost_between(const struct membership_map *map, const struct membership_map *old,
			     const struct membership_node *n, const struct membership_node *before)
{
	return membership_state_is_up(n->state) && membership_state_is_up(before->state) &&
	       n->incarnation != before->incarnation &&
	       *membership_map_start(map, n->id) == *membership_map_start(old, n->id);
}

static bool is_away(enum member_state state)
{
	return state == MEMBER_LEFT || state == MEMBER_REMOVED;
}

static void change_state(struct membership_history *h, enum member_state from,
			 enum member_state to, nsec_t now)
{
	if (from == MEMBER_LOST)
		h->lost_for += between(h->changed, now);
	if (is_away(from))
		h->left_for += between(h->changed, now);
	h->changed = now;
	if (to == MEMBER_LOST) {
		h->losses++;
		h->lost = now;
	}
	if (is_away(to) && !is_away(from))
		h->left = now;
	if (membership_state_is_up(to) && !membership_state_is_up(from))
		h->up = now;
	if (membership_state_is_up(to) && !h->first)
		h->first = now;
}

static void stamp(struct membership_node *n, const struct membership_node *before, bool lost,
		  nsec_t now)
{
	enum member_state from = before ? before->state : MEMBER_JOINING;

	/* What was decided and not committed may have been stamped before. */
	n->history = before ? before->history : (struct membership_history){ 0 };
	if (lost) {
		change_state(&n->history, from, MEMBER_LOST, now);
		from = MEMBER_LOST;
	}
	if (!before || n->state != from)
		change_state(&n->history, from, n->state, now);
}

void membership_history_stamp(struct membership_map *map, const struct membership_map *old,
			      nsec_t now)
{
	now -= now % NSEC_PER_MSEC; /* as it is told */
	for (size_t i = 0; i < map->view->n_nodes; i++) {
		struct membership_node *n = &map->view->nodes[i];
		const struct membership_node *before = membership_map_member(old, n->id);

		stamp(n, before, before && was_lost_between(map, old, n, before), now);
	}
}

unsigned membership_availability(const struct membership_node *n, nsec_t now)
{
	const struct membership_history *h = &n->history;
	nsec_t lost = h->lost_for, left = h->left_for, member = between(h->first, now);

	if (n->state == MEMBER_LOST)
		lost += between(h->changed, now);
	if (is_away(n->state))
		left += between(h->changed, now);
	member = member > left ? member - left : 0;
	if (lost >= member)
		return lost ? 0 : MEMBERSHIP_AVAILABLE;
	return MEMBERSHIP_AVAILABLE -
	       (unsigned)((double)lost / (double)member * MEMBERSHIP_AVAILABLE);
}
