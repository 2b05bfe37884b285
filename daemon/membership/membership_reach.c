/*
 * Whom this node does not reach.
 *
 * Happy path: rpc knows of nobody who was asked in vain.
 *
 * Failure modes: somebody was -> asked again with each renewal, and told to the leader when
 * nothing came for a lease; without a lease at once, since the leader waits for the path.
 * Nobody asks a member -> nobody misses the path to it either.
 */
#include "membership_internal.h"

void membership_reach_look(struct membership *m, struct membership_unreached *ret)
{
	const struct membership_view *view = m->map ? m->map->view : NULL;
	nsec_t now = env_now(m->env);
	nsec_t patience = membership_lease_held(m) ? m->config.lease : 0;

	ret->n = 0;
	for (size_t i = 0; view && i < view->n_nodes && ret->n < MEMBERSHIP_MAX_UNREACHED; i++) {
		const struct membership_node *n = &view->nodes[i];
		nsec_t since = rpc_silent_since(m->rpc, n->id);

		if (!membership_state_is_up(n->state) || n->id == m->config.self ||
		    (!since && n->id != m->cut_from))
			continue;
		membership_wire_probe(m, n->id);
		if (since && now - since >= patience)
			ret->nodes[ret->n++] = n->id;
	}
}
