#include "place.h"

#include <stdio.h>
#include <string.h>

/* Runnable tasks for each CPU, in hundredths. */
static uint32_t load_of(const struct membership_node *n)
{
	return n->load.running / n->load.n_cpus;
}

/* A node of which nothing was heard yet is not taken for an idle one. */
static bool is_better(const struct membership_node *a, const struct membership_node *b)
{
	if (!membership_load_known(&a->load) || !membership_load_known(&b->load))
		return membership_load_known(&a->load) > membership_load_known(&b->load);
	if (load_of(a) != load_of(b))
		return load_of(a) < load_of(b);
	return a->load.memory_available > b->load.memory_available;
}

static enum rpc_status choose_named(const struct membership *m, char *const *names, size_t n_names,
				    bool best, const struct membership_node **ret, char *text,
				    size_t text_size)
{
	const struct membership_node *chosen = NULL;

	for (size_t i = 0; i < n_names; i++) {
		const struct membership_node *n = membership_node_by_name(m, names[i]);

		if (!n) {
			snprintf(text, text_size, "no node is called %s", names[i]);
			return RPC_NOT_FOUND;
		}
		if (n->witness) {
			snprintf(text, text_size, "%s is a witness, which runs no programs", names[i]);
			return RPC_DOWN;
		}
		if (n->state == MEMBER_UP && (!chosen || (best && is_better(n, chosen))))
			chosen = n;
	}
	*ret = chosen;
	return RPC_OK;
}

enum rpc_status place_choose(const struct membership *m, node_id self, char *const *names,
			     size_t n_names, bool best, node_id *ret, char *text, size_t text_size)
{
	const struct membership_view *view = membership_view(m);
	const struct membership_node *chosen = membership_node(m, self);

	if (n_names) {
		enum rpc_status status = choose_named(m, names, n_names, best, &chosen, text,
						      text_size);

		if (status != RPC_OK)
			return status;
	} else if (best) {
		for (size_t i = 0; i < view->n_nodes; i++)
			if (view->nodes[i].state == MEMBER_UP && !view->nodes[i].witness &&
			    is_better(&view->nodes[i], chosen))
				chosen = &view->nodes[i];
	}
	if (!chosen) {
		snprintf(text, text_size, "none of the named nodes is up: see ssi-nodes");
		return RPC_DOWN;
	}
	*ret = chosen->id;
	return RPC_OK;
}
