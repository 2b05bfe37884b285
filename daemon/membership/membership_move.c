/*
 * Members that are added and removed by command.
 *
 * Happy path: all of them are checked, then changed in the leader's next map, then
 * committed as one view.
 *
 * Failure modes: one of them is not in a state from which it may go there, or does not
 * answer -> nothing is changed.  Leadership is lost meanwhile -> the next leader has the
 * view, or not; a member that is LEAVING then is for its room of hotplug to settle.
 */
#include "membership_internal.h"

#include "err.h"
#include "log.h"

#include <errno.h>

enum { ABSENT_LEASES = 2 }; /* not heard of for this long: it does not answer */

struct move {
	struct membership_change change;
	membership_moved_cb done;
	void *owner;
};

static bool answers(struct membership *m, node_id node)
{
	const struct membership_lease *lease = membership_lease_find(m->leader, node);

	return lease && lease->start &&
	       env_now(m->env) - lease->heard < ABSENT_LEASES * m->config.lease;
}

static bool has_given_up(struct membership *m, node_id node)
{
	const struct membership_lease *lease = membership_lease_find(m->leader, node);

	return lease && lease->given_up;
}

/* 0, or MEMBERSHIP_E_*. */
static int may_move(struct membership *m, node_id node, enum member_state to)
{
	const struct membership_node *n = membership_map_member(m->leader->next, node);

	if (!n)
		return MEMBERSHIP_E_STATE;
	if (n->state == to)
		return 0;
	if (to == MEMBER_REMOVED)
		return node == m->config.self || n->state == MEMBER_UP ||
				       (n->state == MEMBER_LEAVING && !has_given_up(m, node)) ?
			       MEMBERSHIP_E_STATE :
			       0;
	if (to == MEMBER_LEAVING)
		return n->state == MEMBER_UP ? 0 : MEMBERSHIP_E_STATE;
	if (to != MEMBER_UP || (n->state != MEMBER_LEAVING && n->state != MEMBER_REMOVED))
		return MEMBERSHIP_E_STATE;
	if (n->state == MEMBER_REMOVED && !answers(m, node))
		return MEMBERSHIP_E_ABSENT;
	return 0;
}

static void move_one(struct membership *m, node_id node, enum member_state to)
{
	struct membership_leader *l = m->leader;
	struct membership_node *n = membership_map_member(l->next, node);
	struct membership_lease *lease = membership_lease_find(l, node);

	if (n->state == to)
		return;
	if (lease)
		lease->given_up = to == MEMBER_REMOVED;
	if (n->state == MEMBER_REMOVED) {
		*membership_map_start(l->next, node) = lease->start;
		n->incarnation++;
		n->since = 0; /* the view that is made of it */
		membership_leader_first_pids(m, node);
	}
	log_info("node %s is %s", n->name,
		 to == MEMBER_LEAVING ? "being removed" :
		 to == MEMBER_REMOVED ? "removed" :
		 n->state == MEMBER_REMOVED ? "added" : "not removed, it stays");
	n->state = to;
	l->dirty = true;
}

static void on_durable(struct membership_change *change, struct membership *m, int result)
{
	_cleanup_free_ struct move *move = container_of(change, struct move, change);

	(void)m;
	move->done(move->owner, result ? MEMBERSHIP_E_NOT_LEADER : 0);
}

static void drop(struct membership_change *change)
{
	free(container_of(change, struct move, change));
}

int membership_move(struct membership *m, const node_id *nodes, size_t n_nodes,
		    enum member_state to, membership_moved_cb done, void *owner)
{
	struct move *move;

	if (!m->leader)
		return MEMBERSHIP_E_NOT_LEADER;
	for (size_t i = 0; i < n_nodes; i++) {
		int r = may_move(m, nodes[i], to);

		if (r)
			return r;
	}
	move = calloc(1, sizeof(*move));
	if (!move)
		return err_origin(-ENOMEM);
	*move = (struct move){ .change = { .done = on_durable, .drop = drop },
			       .done = done,
			       .owner = owner };
	for (size_t i = 0; i < n_nodes; i++)
		move_one(m, nodes[i], to);
	membership_commit_later(m, &move->change);
	return 0;
}

int membership_given_up(struct membership *m, node_id node, uint64_t incarnation)
{
	struct membership_lease *lease = m->leader ? membership_lease_find(m->leader, node) : NULL;
	const struct membership_node *n =
		m->leader ? membership_map_member(m->leader->next, node) : NULL;

	if (!lease || !n || n->state != MEMBER_LEAVING || n->incarnation != incarnation)
		return MEMBERSHIP_E_STATE;
	lease->given_up = true;
	return 0;
}

struct membership_hand_over {
	struct membership *m;
	node_id node;
	membership_moved_cb done;
	void *owner;
};

static void on_handed(void *owner, int result)
{
	_cleanup_free_ struct membership_hand_over *h = owner;

	h->m->hand_over = NULL;
	h->done(h->owner, result ? -EAGAIN : 0);
}

/* It can be elected now. */
static void on_vote(void *owner, int result)
{
	struct membership_hand_over *h = owner;

	if (h->m->leader)
		h->m->leader->changing = false;
	if (result || consensus_transfer(h->m->consensus, h->node, on_handed, h))
		on_handed(h, -EAGAIN);
}

int membership_hand_over(struct membership *m, node_id node, membership_moved_cb done,
			 void *owner)
{
	const struct membership_node *n = membership_node(m, node);
	_cleanup_free_ struct membership_hand_over *h = calloc(1, sizeof(*h));
	int r;

	if (!h)
		return err_origin(-ENOMEM);
	*h = (struct membership_hand_over){ m, node, done, owner };
	if (!m->leader || (!n && node != NODE_NONE))
		return MEMBERSHIP_E_NOT_LEADER;
	if (!n || n->voter)
		r = consensus_transfer(m->consensus, node, on_handed, h);
	else
		r = consensus_set_role(m->consensus, node, n->address, CONSENSUS_VOTER, on_vote, h);
	if (r)
		return r < 0 ? r : MEMBERSHIP_E_NOT_LEADER;
	m->leader->changing = m->leader->changing || (n && !n->voter);
	m->hand_over = TAKE(h);
	return 0;
}
