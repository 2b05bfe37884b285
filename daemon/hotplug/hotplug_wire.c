/* Messages of adding and removing: validate, convert, call the files that act. */
#include "hotplug_internal.h"

#include "envelope.pb-c.h"

#include <stdio.h>
#include <string.h>

void hotplug_stays_add(struct hotplug_stays *s, const struct hotplug_stay *stay)
{
	if (s->n < HOTPLUG_STAYS_MAX)
		s->of[s->n++] = *stay;
	s->n_all++;
}

/* What a peer says comes to a terminal. */
static void copy_text(char *to, size_t size, const char *from)
{
	(void)snprintf(to, size, "%s", from);
	for (char *p = to; *p; p++)
		if (*p >= 0 && (*p < ' ' || *p == 0x7f))
			*p = '?';
}

void hotplug_stays_unpack(struct hotplug_stays *s, Ssi__Hotplug__Stay *const *list, size_t n,
			  uint32_t n_all)
{
	size_t before = s->n_all;

	for (size_t i = 0; i < n; i++) {
		struct hotplug_stay stay = { .pid = list[i]->pid, .node = list[i]->node };

		copy_text(stay.command, sizeof(stay.command), list[i]->command);
		copy_text(stay.reason, sizeof(stay.reason), list[i]->reason);
		hotplug_stays_add(s, &stay);
	}
	if (n_all > s->n_all - before)
		s->n_all = before + n_all;
}

void hotplug_stays_pack(const struct hotplug_stays *s, struct hotplug_stays_message *ret)
{
	for (size_t i = 0; i < s->n; i++) {
		ssi__hotplug__stay__init(&ret->stays[i]);
		ret->stays[i].pid = s->of[i].pid;
		ret->stays[i].node = s->of[i].node;
		ret->stays[i].command = (char *)s->of[i].command;
		ret->stays[i].reason = (char *)s->of[i].reason;
		ret->list[i] = &ret->stays[i];
	}
}

RPC_HANDLER(on_change, struct hotplug, Ssi__Hotplug__ChangeRequest)
{
	(void)bulk;
	if (req->n_nodes > HOTPLUG_NODES_MAX || (unsigned)req->what > HOTPLUG_SHUTDOWN)
		return rpc_fail(call, RPC_USAGE, "not a change of the members");
	hotplug_lead_begin(self, call, req);
}

RPC_HANDLER(on_progress, struct hotplug, Ssi__Hotplug__Progress)
{
	Ssi__Envelope__Empty reply = SSI__ENVELOPE__EMPTY__INIT;

	(void)bulk;
	hotplug_on_progress(self, req);
	rpc_reply(call, &reply.base, RPC_NO_BULK);
}

RPC_HANDLER(on_drain, struct hotplug, Ssi__Hotplug__DrainRequest)
{
	(void)bulk;
	if (req->n_targets > HOTPLUG_NODES_MAX)
		return rpc_fail(call, RPC_USAGE, "too many targets");
	hotplug_drain_begin(self, call, req);
}

RPC_HANDLER(on_hello, struct hotplug, Ssi__Envelope__Empty)
{
	Ssi__Envelope__Empty reply = SSI__ENVELOPE__EMPTY__INIT;

	(void)bulk;
	(void)req;
	if (!membership_lease_held(self->n.membership))
		return rpc_fail(call, RPC_DOWN, "it has no lease yet");
	rpc_reply(call, &reply.base, RPC_NO_BULK);
}

RPC_HANDLER(on_halt, struct hotplug, Ssi__Envelope__Empty)
{
	Ssi__Envelope__Empty reply = SSI__ENVELOPE__EMPTY__INIT;

	(void)bulk;
	(void)req;
	rpc_reply(call, &reply.base, RPC_NO_BULK);
	hotplug_halt_soon(self);
}

#define EMPTY ssi__envelope__empty__descriptor

const struct rpc_method hotplug_methods[] = {
	RPC_METHOD(HOTPLUG_CHANGE, on_change, ssi__hotplug__change_request__descriptor,
		   ssi__hotplug__change_reply__descriptor),
	RPC_METHOD(HOTPLUG_PROGRESS, on_progress, ssi__hotplug__progress__descriptor, EMPTY),
	RPC_METHOD(HOTPLUG_DRAIN, on_drain, ssi__hotplug__drain_request__descriptor,
		   ssi__hotplug__drain_reply__descriptor),
	RPC_METHOD(HOTPLUG_HELLO, on_hello, EMPTY, EMPTY),
	RPC_METHOD(HOTPLUG_HALT, on_halt, EMPTY, EMPTY),
	{ 0 },
};
