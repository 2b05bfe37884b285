/*
 * Whom to renew with: the leader, or whoever may know it.
 *
 * Happy path: the leader of the newest view; a server that does not lead refers to
 * the one that does.
 *
 * Failure modes: no answer -> the voters of the newest view in turn, by their ids
 * (at the start that is the view that the predecessor knew), and without a view the one
 * that this node joined by; who had a vote in that view has none any more, and knows no leader
 * -> after all voters one of the other members, each time the next one.
 */
#include "membership_internal.h"

node_id membership_find_target(const struct membership *m)
{
	node_id leader = consensus_leader(m->consensus);

	return leader != NODE_NONE ? leader : m->target;
}

/* The first above @id that votes, or does not, and is not this node; NODE_NONE: there is none. */
static node_id next_node(const struct membership *m, node_id id, bool voter)
{
	const struct membership_view *view = m->map->view;

	for (size_t i = 0; i < view->n_nodes; i++)
		if (view->nodes[i].id > id && view->nodes[i].voter == voter &&
		    (voter || view->nodes[i].id != rpc_self(m->rpc)))
			return view->nodes[i].id;
	return NODE_NONE;
}

static node_id next_in_turn(struct membership *m)
{
	const struct membership_node *target = membership_map_member(m->map, m->target);
	node_id next = NODE_NONE;

	/* A bystander may have got a vote since. */
	if (m->target != m->bystander || (target && target->voter)) {
		next = next_node(m, m->target, true);
		if (next == NODE_NONE)
			next = m->bystander = next_node(m, m->bystander, false);
	}
	return next != NODE_NONE ? next : next_node(m, NODE_NONE, true);
}

void membership_find_failed(struct membership *m)
{
	node_id next = m->map ? next_in_turn(m) : NODE_NONE;

	m->target = next != NODE_NONE ? next : m->config.leader;
}

void membership_find_referred(struct membership *m, node_id leader)
{
	if (leader == m->target)
		return;
	m->target = leader;
	/* The last one may be dead: a new leader does not wait for long. */
	if (m->renewing && m->asked != leader)
		rpc_cancel(m->rpc, TAKE(m->renewing));
	if (!m->renewing && !m->left)
		(void)env_arm(m->env, &m->renew_timer, 0);
}
