/*
 * Of two members of whom one does not reach the other, though both are in touch with the
 * leader, one goes out: what needs the path would wait for ever.  The one with fewer links,
 * of equals the one with the higher id; never both.
 *
 * Happy path: a member tells with its renewal whom it does not reach; whoever is chosen gets
 * no lease any more, hears why, and is LOST as any member whose lease ends.  It comes back
 * when it says no more that it does not reach somebody who is up.
 *
 * Failure modes: the path is there again before that -> its leases go on.  The leader
 * changes -> the next one is told with the next renewals.  Who is dead is no end of a cut:
 * only of whom the leader has heard a moment ago.  A witness needs no path but to those who
 * vote, and the leader is reached by all, or they are lost by themselves.
 */
#include "membership_internal.h"

#include "log.h"

enum {
	RECENT_FRACTION = 2, /* of a lease: heard of a moment ago */
	MAX_CUTS = 256,	     /* looked at together */
};

static size_t count(const struct membership_cut *cuts, size_t n, node_id node)
{
	size_t ret = 0;

	for (size_t i = 0; i < n; i++)
		ret += cuts[i].a == node || cuts[i].b == node;
	return ret;
}

node_id membership_cuts_next(const struct membership_cut *cuts, size_t n)
{
	node_id next = NODE_NONE;
	size_t most = 0;

	for (size_t i = 0; i < 2 * n; i++) {
		node_id node = i % 2 ? cuts[i / 2].b : cuts[i / 2].a;
		size_t n_cuts = count(cuts, n, node);

		if (n_cuts > most || (n_cuts == most && node > next))
			next = node;
		most = n_cuts > most ? n_cuts : most;
	}
	return next;
}

/* Can it be an end of a cut? */
static bool is_in_touch(struct membership *m, node_id node, nsec_t now)
{
	const struct membership_node *n = membership_map_member(m->leader->next, node);
	const struct membership_lease *lease = membership_lease_find(m->leader, node);

	return n && membership_state_is_up(n->state) && !n->witness && node != m->config.self &&
	       lease && lease->asked && now - lease->asked < m->config.lease / RECENT_FRACTION;
}

static bool is_known(const struct membership_cut *cuts, size_t n, node_id a, node_id b)
{
	for (size_t i = 0; i < n; i++)
		if ((cuts[i].a == a && cuts[i].b == b) || (cuts[i].a == b && cuts[i].b == a))
			return true;
	return false;
}

static size_t collect(struct membership *m, nsec_t now, struct membership_cut *ret)
{
	const struct membership_view *view = m->leader->next->view;
	size_t n = 0;

	for (size_t i = 0; i < view->n_nodes; i++) {
		node_id a = view->nodes[i].id;
		const struct membership_lease *lease = membership_lease_find(m->leader, a);

		if (!is_in_touch(m, a, now))
			continue;
		for (size_t k = 0; k < lease->unreached.n && n < MAX_CUTS; k++) {
			node_id b = lease->unreached.nodes[k];

			if (is_in_touch(m, b, now) && a != b && !is_known(ret, n, a, b))
				ret[n++] = (struct membership_cut){ a, b };
		}
	}
	return n;
}

/* @node's are no matter any more; one of those that it is cut from. */
static node_id take_out(struct membership_cut *cuts, size_t *n, node_id node)
{
	node_id from = NODE_NONE;
	size_t left = 0;

	for (size_t i = 0; i < *n; i++) {
		if (cuts[i].a != node && cuts[i].b != node)
			cuts[left++] = cuts[i];
		else
			from = cuts[i].a == node ? cuts[i].b : cuts[i].a;
	}
	*n = left;
	return from;
}

static void set_cut_from(struct membership *m, struct membership_lease *lease, node_id from)
{
	if (!lease->cut_from && from)
		log_warning("node %s and node %s do not reach each other: %s gets no lease before "
			    "they do",
			    rpc_name(m->rpc, lease->node), rpc_name(m->rpc, from),
			    rpc_name(m->rpc, lease->node));
	lease->cut_from = from;
}

void membership_cuts_watch(struct membership *m, nsec_t now)
{
	struct membership_cut cuts[MAX_CUTS], out[MAX_CUTS]; /* out: a, because of b */
	size_t n = collect(m, now, cuts), n_out = 0;
	struct membership_lease *lease, *next;

	for (node_id node; (node = membership_cuts_next(cuts, n)) != NODE_NONE; n_out++)
		out[n_out] = (struct membership_cut){ node, take_out(cuts, &n, node) };
	HASH_ITER(hh, m->leader->leases, lease, next) {
		node_id from = NODE_NONE;

		for (size_t i = 0; i < n_out; i++)
			if (out[i].a == lease->node)
				from = out[i].b;
		set_cut_from(m, lease, from);
	}
}

node_id membership_cuts_of(struct membership *m, node_id node)
{
	const struct membership_map *map = m->leader->next;
	const struct membership_lease *lease = membership_lease_find(m->leader, node);

	/* By command it comes and goes, whom it reaches or not. */
	if (membership_map_member(map, node)->state == MEMBER_REMOVED)
		return NODE_NONE;
	for (size_t i = 0; i < lease->unreached.n; i++) {
		const struct membership_node *n =
			membership_map_member(map, lease->unreached.nodes[i]);

		if (n && n->id != node && n->id != m->config.self && !n->witness &&
		    membership_state_is_up(n->state))
			return n->id;
	}
	return NODE_NONE;
}
