/* Adding and removing members, and the end of the cluster: the room does it, this file
 * passes words on. */
#include "control_internal.h"

#include <stdio.h>
#include <string.h>

/* Names as ids; false: the tool was answered. */
static bool find_nodes(struct control_connection *c, const Ssi__Control__ChangeRequest *q,
		       node_id *ids)
{
	for (size_t i = 0; i < q->n_nodes; i++) {
		const struct membership_node *n =
			membership_node_by_name(c->control->n.membership, q->nodes[i]);

		if (!n) {
			control_fail(c, RPC_NOT_FOUND,
				     "no node is called %s: it joins first (ssi-admin token there, "
				     "ssi-admin join on it), see ssi-nodes",
				     q->nodes[i]);
			return false;
		}
		ids[i] = n->id;
	}
	return true;
}

/* What is counted are programs, not bytes. */
static void on_progress(void *owner, const char *step, uint64_t done, uint64_t total)
{
	char text[192];

	(void)snprintf(text, sizeof(text), "%s, %llu of %llu", step, (unsigned long long)done,
		       (unsigned long long)total);
	control_progress(owner, done ? text : step, 0, 0);
}

static void on_changed(void *owner, const struct hotplug_result *result)
{
	struct control_connection *c = owner;
	Ssi__Control__Stay stays[HOTPLUG_STAYS_MAX], *list[HOTPLUG_STAYS_MAX];
	Ssi__Control__Changed changed = SSI__CONTROL__CHANGED__INIT;
	Ssi__Control__Event event = SSI__CONTROL__EVENT__INIT;

	if (result->status != RPC_OK && !result->n_stays)
		return control_fail(c, result->status, "%s", result->text);
	for (size_t i = 0; i < result->n_stays; i++) {
		const struct hotplug_stay *stay = &result->stays[i];
		const struct membership_node *n =
			membership_node(c->control->n.membership, stay->node);

		ssi__control__stay__init(&stays[i]);
		stays[i].pid = stay->pid;
		stays[i].node = n ? (char *)n->name : "?";
		stays[i].command = (char *)stay->command;
		stays[i].reason = (char *)stay->reason;
		list[i] = &stays[i];
	}
	changed.stays = list;
	changed.n_stays = result->n_stays;
	changed.n_all = (uint32_t)result->n_all_stays;
	changed.unknown = result->unknown;
	changed.moved = result->moved;
	changed.ended = result->ended;
	event.body_case = SSI__CONTROL__EVENT__BODY_CHANGED;
	event.changed = &changed;
	control_send(c, &event, true);
}

void control_on_change(struct control_connection *c, const Ssi__Control__ChangeRequest *q)
{
	_cleanup_free_ node_id *ids = calloc(q->n_nodes + 1, sizeof(*ids));
	struct hotplug_request request = {
		.what = (enum hotplug_what)q->what,
		.nodes = ids,
		.n_nodes = q->n_nodes,
		.force = q->force,
		.dry_run = q->dry_run,
		.timeout = q->timeout_ms * NSEC_PER_MSEC,
	};

	if (!ids)
		return control_fail(c, RPC_FAILED, "out of memory");
	if (c->caller.uid != 0)
		return control_fail(c, RPC_NOT_PERMITTED,
				    "only root may change who is in the cluster");
	if ((unsigned)q->what > HOTPLUG_SHUTDOWN || !request.timeout ||
	    q->n_nodes > HOTPLUG_NODES_MAX || (q->n_nodes == 0) != (request.what == HOTPLUG_SHUTDOWN))
		return control_fail(c, RPC_USAGE, "not a change of the members");
	if (find_nodes(c, q, ids) &&
	    hotplug_change(c->control->n.hotplug, &request, on_progress, on_changed, c) != 0)
		control_fail(c, RPC_FAILED, "out of memory");
}
