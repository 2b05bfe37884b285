/*
 * Do any of these stand on another node?  Asked before something is given up with the
 * node that it was on: it may have moved on from there, or its copy run since that node
 * was lost, and nobody could say so yet.
 *
 * Happy path: every node that is up says which of them it has, or will have in a
 * moment. Of what nobody has all are asked once more: it may have moved meanwhile, from
 * one that was asked late to one that was asked early.
 *
 * Failure modes: a node does not answer, or knows an older view -> it is asked again,
 * until a view has it out.
 */
#include "process_internal.h"

#include "err.h"

#include <string.h>

enum { ROUNDS = 2 };

static const nsec_t again_after = 300 * NSEC_PER_MSEC;

struct seek_ask {
	struct seek *seek;
	struct wire_call call;
	struct env_timer again;
	node_id node;
};

struct seek {
	struct process_room *room;
	struct env_timer turn; /* to the next round, or the end */
	struct seek_ask *asks; /* of this round */
	size_t n_asks, n_pending;
	unsigned n_rounds;
	struct process_sought *sought;
	size_t n_sought, n_found;
	process_seek_cb done;
	void *owner;
	LIST_ENTRY(seek) entry;
};

static void free_asks(struct seek *s)
{
	for (size_t i = 0; i < s->n_asks; i++) {
		wire_cancel(&s->asks[i].call);
		env_disarm(s->room->env, &s->asks[i].again);
	}
	free(s->asks);
	s->asks = NULL;
	s->n_asks = s->n_pending = 0;
}

static void free_seek(struct seek *s)
{
	free_asks(s);
	env_disarm(s->room->env, &s->turn);
	LIST_REMOVE(s, entry);
	free(s->sought);
	free(s);
}

void seek_fini(struct process_room *p)
{
	while (!LIST_EMPTY(&p->seeks))
		free_seek(LIST_FIRST(&p->seeks));
}

static void found(struct seek *s, node_id node, const struct wire_claim *c)
{
	for (size_t i = 0; i < s->n_sought; i++) {
		struct process_sought *of = &s->sought[i];

		if (of->pid != c->pid || of->found)
			continue;
		of->found = true;
		of->place = c->place == NODE_NONE ? NODE_NONE : node;
		of->generation = c->generation;
		s->n_found++;
	}
}

static void end_ask(struct seek *s)
{
	if (--s->n_pending == 0)
		(void)env_arm(s->room->env, &s->turn, 0);
}

static void on_answer(struct wire_call *call, enum rpc_status status, const char *text,
		      const struct wire_answer *answer)
{
	struct seek_ask *a = container_of(call, struct seek_ask, call);

	if (status != RPC_OK) {
		(void)env_arm(a->seek->room->env, &a->again, again_after);
		return;
	}
	for (size_t i = 0; i < answer->n_claims; i++)
		found(a->seek, a->node, &answer->claims[i]);
	end_ask(a->seek);
}

/* Of those that are not found yet. */
static int ask(struct seek_ask *a)
{
	struct seek *s = a->seek;
	_cleanup_free_ struct wire_claim *claims =
		calloc(s->n_sought - s->n_found, sizeof(*claims));
	size_t n = 0;

	if (!claims)
		return err_origin(-ENOMEM);
	for (size_t i = 0; i < s->n_sought; i++)
		if (!s->sought[i].found)
			claims[n++].pid = s->sought[i].pid;
	return wire_seek(s->room->rpc, &a->call, a->node, claims, n);
}

static void on_again(struct env_timer *t)
{
	struct seek_ask *a = container_of(t, struct seek_ask, again);
	struct seek *s = a->seek;

	if (s->n_found == s->n_sought || !room_up(s->room, a->node))
		end_ask(s);
	else if (ask(a) < 0)
		(void)env_arm(s->room->env, t, again_after);
}

/* False: there is nobody. */
static bool ask_all(struct seek *s)
{
	const struct membership_view *view = membership_view(s->room->membership);

	s->asks = calloc(view->n_nodes, sizeof(*s->asks));
	if (!s->asks) {
		(void)env_arm(s->room->env, &s->turn, again_after);
		return true;
	}
	s->n_rounds++;
	for (size_t i = 0; i < view->n_nodes; i++) {
		const struct membership_node *n = &view->nodes[i];
		struct seek_ask *a = &s->asks[s->n_asks];

		if (n->id == room_self(s->room) || n->witness ||
		    !room_up(s->room, n->id))
			continue;
		*a = (struct seek_ask){.seek = s,
				       .call.done = on_answer,
				       .again.cb = on_again,
				       .node = n->id};
		(void)env_arm(s->room->env, &a->again, 0);
		s->n_asks++;
	}
	s->n_pending = s->n_asks;
	return s->n_asks;
}

static void on_turn(struct env_timer *t)
{
	struct seek *s = container_of(t, struct seek, turn);

	free_asks(s);
	if (s->n_found < s->n_sought && s->n_rounds < ROUNDS && ask_all(s))
		return;
	s->done(s->owner, s->sought, s->n_sought);
	free_seek(s);
}

int process_seek(struct process_room *p, const struct process_sought *sought, size_t n,
		 process_seek_cb done, void *owner)
{
	struct seek *s = calloc(1, sizeof(*s));

	if (!s)
		return err_origin(-ENOMEM);
	*s = (struct seek){.room = p,
			   .turn.cb = on_turn,
			   .n_sought = n,
			   .done = done,
			   .owner = owner};
	LIST_INSERT_HEAD(&p->seeks, s, entry);
	s->sought = calloc(n, sizeof(*sought));
	if (!s->sought || env_arm(p->env, &s->turn, 0) < 0) {
		free_seek(s);
		return err_origin(-ENOMEM);
	}
	memcpy(s->sought, sought, n * sizeof(*sought));
	return 0;
}

/* -- Who is asked -- */

/* Also one whose end its home was not told yet. */
static bool is_here(struct process_room *p, struct wire_claim *c)
{
	const struct process_entry *e = process_table_find(p->table, c->pid);
	struct proc_stat s;

	if (e && (e->record.state == PROCESS_KIN || e->record.state == PROCESS_SENTINEL))
		return false; /* whom it stands for is elsewhere */
	if (e && e->record.state != PROCESS_AWAY && !room_is_half_made(p, c->pid)) {
		c->place = room_self(p);
		c->generation = e->record.generation;
		return true;
	}
	c->place = NODE_NONE;
	return process_is_guest(p, c->pid) || room_real(p, c->pid, &s) == 0;
}

void seek_on_call(struct process_room *p, struct rpc_call *call,
		  struct wire_claim *sought, size_t n)
{
	size_t n_here = 0;

	/* From a node that a view has out which comes here yet we may still get one. */
	if (rpc_call_is_ahead(call))
		return rpc_fail(call, RPC_DOWN, "an older view is known there");
	for (size_t i = 0; i < n; i++)
		if (is_here(p, &sought[i]))
			sought[n_here++] = sought[i];
	wire_reply_claim(call, sought, n_here);
}
