/*
 * Where is a process whose home is out of the cluster?  All nodes are asked: homes never
 * change, and a node that is removed or lost is rare, so nobody keeps a record for it.
 *
 * Happy path: one of the nodes says that it has it; the others are not waited for.
 *
 * Failure modes: none has it -> RPC_NOT_FOUND; it may be between two nodes, so whoever
 * asks for something that must not be missed asks again.
 */
#include "process_internal.h"

#include "err.h"

#include <stdio.h>

struct find_call {
	struct wire_call call;
	struct find *find;
	node_id node;
};

void find_cancel(struct find *f)
{
	for (size_t i = 0; i < f->n; i++)
		wire_cancel(&f->calls[i].call);
	free(f->calls);
	f->calls = NULL;
	f->n = f->n_pending = 0;
}

static void on_answer(struct wire_call *c, enum rpc_status status, const char *text,
		      const struct wire_answer *answer)
{
	struct find_call *call = container_of(c, struct find_call, call);
	struct find *f = call->find;
	bool here = status == RPC_OK &&
		    (answer->place == NODE_NONE || answer->place == call->node);
	char nowhere[96];

	if (!here && --f->n_pending)
		return;
	find_cancel(f);
	if (here)
		return f->done(f, RPC_OK, "", answer);
	(void)snprintf(nowhere, sizeof(nowhere),
		       "no node has process %d, and its home is out of the cluster", f->pid);
	f->done(f, RPC_NOT_FOUND, nowhere, &(struct wire_answer){0});
}

int find_start(struct process_room *p, struct find *f, find_ask_cb ask, pid_t pid,
	       find_done_cb done)
{
	const struct membership_view *view = membership_view(p->membership);

	f->calls = calloc(view->n_nodes + 1, sizeof(*f->calls));
	if (!f->calls)
		return err_origin(-ENOMEM);
	f->n = f->n_pending = 0;
	f->pid = pid;
	f->done = done;
	for (size_t i = 0; i < view->n_nodes; i++) {
		struct find_call *c = &f->calls[f->n];

		*c = (struct find_call){.call.done = on_answer,
					.find = f,
					.node = view->nodes[i].id};
		if (room_up(p, c->node) && ask(p->rpc, &c->call, c->node, pid) == 0)
			f->n++;
	}
	f->n_pending = f->n;
	if (f->n)
		return 0;
	find_cancel(f);
	return err_origin(-ENETDOWN);
}
