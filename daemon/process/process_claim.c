/*
 * One live copy, also of what was given up while this node could not be asked.
 *
 * A node without its lease is frozen (space_lease()).  Once it is LOST its processes
 * count as ended: their shadows elsewhere have ended, and an operator may have revived
 * them from a checkpoint.  So before it goes on it asks every node that is up for each
 * of its processes; those that may not go on are killed, frozen as they are.
 *
 * Who is asked says no if the process lives there, or if its home is there and
 * knows it ended, or elsewhere by no older a move.  What a migration holds is left out: its
 * own rules say which copy runs, and it stays frozen until they have; nor does the source of
 * one that is not decided say no to its target.
 *
 * Failure modes: a node does not answer -> asked again, until a view excludes it;
 * the lease ends again -> cancelled, begun anew with the next one; a killed one does not
 * go -> after a while its PID has no shadow.
 */
#include "process_internal.h"

#include "err.h"
#include "log.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static const nsec_t again_after = 300 * NSEC_PER_MSEC;
static const nsec_t look_after = 10 * NSEC_PER_MSEC;
static const nsec_t die_within = 5 * NSEC_PER_SEC;
enum { ROUNDS = 2 };

struct claim_ask {
	struct claim *claim;
	struct wire_call call;
	struct env_timer again;
	node_id node;
	size_t from, n; /* of claim->own, in the call under way */
	LIST_ENTRY(claim_ask) entry;
};

/* One that must go. */
struct gone {
	struct process_member member;
	node_id place;
};

struct claim {
	struct process_room *room;
	process_claimed_cb done;
	void *owner;
	struct wire_claim *own;
	size_t n_own;
	struct gone *gone;
	size_t n_gone, n_killed;
	LIST_HEAD(, claim_ask) asks;
	unsigned n_rounds;
	struct env_timer look;
	nsec_t deadline;
};

static void free_ask(struct claim_ask *a)
{
	LIST_REMOVE(a, entry);
	wire_cancel(&a->call);
	env_disarm(a->claim->room->env, &a->again);
	free(a);
}

static void free_claim(struct claim *c)
{
	while (!LIST_EMPTY(&c->asks))
		free_ask(LIST_FIRST(&c->asks));
	env_disarm(c->room->env, &c->look);
	c->room->claim = NULL;
	free(c->own);
	free(c->gone);
	free(c);
}

void claim_fini(struct process_room *p)
{
	if (p->claim)
		free_claim(p->claim);
}

void process_claim_cancel(struct process_room *p)
{
	claim_fini(p);
}

/* -- Killing what must go -- */

static gid_t gid_of(const struct process_room *p, pid_t pid)
{
	char name[16];
	struct stat st;

	(void)snprintf(name, sizeof(name), "%d", pid);
	return fstatat(space_proc_fd(p->space), name, &st, 0) < 0 ? 0 : st.st_gid;
}

static void kill_one(struct claim *c, const struct wire_claim *w)
{
	struct process_room *p = c->room;
	struct gone *g = &c->gone[c->n_gone];
	struct process_record d;
	struct proc_stat s;

	for (size_t i = 0; i < c->n_gone; i++)
		if (c->gone[i].member.pid == w->pid) {
			if (w->place != NODE_NONE)
				c->gone[i].place = w->place;
			return;
		}
	if (c->n_gone == c->n_own || room_real(p, w->pid, &s) != 0 ||
	    process_record(p, w->pid, &d) != 0)
		return;
	g->place = w->place;
	g->member = (struct process_member){.pid = w->pid,
					    .ppid = s.ppid == 1 ? 0 : s.ppid,
					    .pgid = s.pgid,
					    .sid = s.sid,
					    .app = d.app,
					    .name = d.name,
					    .uid = d.uid,
					    .gid = gid_of(p, w->pid),
					    .generation = w->generation};
	c->n_gone++;
	if (w->place == NODE_NONE)
		log_warning("process %d is killed: it counts as ended since this node was "
			    "lost PID=%d",
			    w->pid, w->pid);
	else
		log_warning("process %d is killed: it was started anew on node %s while "
			    "this one was lost PID=%d",
			    w->pid, rpc_name(p->rpc, w->place), w->pid);
	/* First: a successor of this ssid would not know that it must. */
	(void)process_kernel_signal(w->pid, SIGKILL);
	c->n_killed++;
	/* What lives elsewhere has not ended: nobody is told of this copy's end. */
	if (w->place != NODE_NONE || d.home != room_self(p)) {
		guest_forget(p, w->pid);
		process_table_remove(p->table, w->pid);
	}
}

/* Its PID is free, and a shadow stands where it is to. */
static bool is_settled(struct process_room *p, const struct gone *g)
{
	struct proc_stat s;
	int r;

	if (proc_stat_read(space_proc_fd(p->space), g->member.pid, &s) == 0)
		return false;
	if (g->place == NODE_NONE ||
	    membership_home(p->membership, g->member.pid) != room_self(p))
		return true;
	r = reserve_one(p, &g->member, g->place);
	if (r < 0)
		log_warning("process %d has no shadow here: %s PID=%d", g->member.pid,
			    strerror(-r), g->member.pid);
	return r != PROCESS_E_TAKEN;
}

static void look(struct claim *c)
{
	struct process_room *p = c->room;
	process_claimed_cb done = c->done;
	void *owner = c->owner;
	size_t n_killed = c->n_killed;

	while (c->n_gone && is_settled(p, &c->gone[c->n_gone - 1]))
		c->n_gone--;
	if (c->n_gone && env_now(p->env) < c->deadline) {
		(void)env_arm(p->env, &c->look, look_after);
		return;
	}
	free_claim(c);
	done(owner, n_killed);
}

static void on_look(struct env_timer *t)
{
	look(container_of(t, struct claim, look));
}

/* -- Asking -- */

static void ask(struct claim_ask *a);
static int ask_all(struct claim *c);

static void end_ask(struct claim_ask *a)
{
	struct claim *c = a->claim;

	free_ask(a);
	if (!LIST_EMPTY(&c->asks))
		return;
	/* What lives may have moved meanwhile, from who was asked late to who was asked early. */
	if (c->n_rounds < ROUNDS && ask_all(c) == 0 && !LIST_EMPTY(&c->asks))
		return;
	c->deadline = env_now(c->room->env) + die_within;
	look(c);
}

static void on_answer(struct wire_call *call, enum rpc_status status, const char *text,
		      const struct wire_answer *answer)
{
	struct claim_ask *a = container_of(call, struct claim_ask, call);
	struct claim *c = a->claim;

	if (status != RPC_OK) {
		log_debug("node %s does not say what is ours: %s",
			  rpc_name(c->room->rpc, a->node), text);
		(void)env_arm(c->room->env, &a->again, again_after);
		return;
	}
	for (size_t i = 0; i < answer->n_claims; i++)
		for (size_t k = a->from; k < a->from + a->n; k++)
			if (c->own[k].pid == answer->claims[i].pid)
				kill_one(c, &answer->claims[i]);
	a->from += a->n;
	ask(a);
}

static void ask(struct claim_ask *a)
{
	struct claim *c = a->claim;
	struct process_room *p = c->room;

	a->n = c->n_own - a->from;
	if (a->n > WIRE_CLAIMS_MAX)
		a->n = WIRE_CLAIMS_MAX;
	if (!a->n || !room_up(p, a->node))
		return end_ask(a);
	if (wire_claim(p->rpc, &a->call, a->node, c->own + a->from, a->n) < 0)
		(void)env_arm(p->env, &a->again, again_after);
}

static void on_again(struct env_timer *t)
{
	ask(container_of(t, struct claim_ask, again));
}

static int add_ask(struct claim *c, node_id node)
{
	struct claim_ask *a = calloc(1, sizeof(*a));

	if (!a)
		return err_origin(-ENOMEM);
	*a = (struct claim_ask){.claim = c,
				.call.done = on_answer,
				.again.cb = on_again,
				.node = node};
	LIST_INSERT_HEAD(&c->asks, a, entry);
	return env_arm(c->room->env, &a->again, 0);
}

static int find_own(struct claim *c)
{
	_cleanup_free_ struct process_info *infos = NULL;
	struct process_room *p = c->room;
	size_t n;
	int r;

	r = process_list(p, &infos, &n);
	if (r < 0)
		return r;
	c->own = calloc(n + 1, sizeof(*c->own));
	c->gone = calloc(n + 1, sizeof(*c->gone));
	if (!c->own || !c->gone)
		return err_origin(-ENOMEM);
	for (size_t i = 0; i < n; i++) {
		const struct process_entry *e =
			process_table_find(p->table, infos[i].pid);

		if (infos[i].state != 'M')
			c->own[c->n_own++] = (struct wire_claim){
				.pid = infos[i].pid,
				.generation = e ? e->record.generation : 0,
				.home = e ? e->place_incarnation : 0};
	}
	return 0;
}

static int ask_all(struct claim *c)
{
	const struct membership_view *view = membership_view(c->room->membership);
	int r = 0;

	c->n_rounds++;
	for (size_t i = 0; r == 0 && i < view->n_nodes; i++)
		if (view->nodes[i].id != room_self(c->room) && !view->nodes[i].witness &&
		    room_up(c->room, view->nodes[i].id))
			r = add_ask(c, view->nodes[i].id);
	return r;
}

static int begin(struct claim *c)
{
	int r = find_own(c);

	if (r == 0)
		r = ask_all(c);
	/* Alone: nobody can have anything. */
	if (r == 0 && LIST_EMPTY(&c->asks))
		r = env_arm(c->room->env, &c->look, 0);
	return r;
}

int process_claim(struct process_room *p, process_claimed_cb done, void *owner)
{
	struct claim *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return err_origin(-ENOMEM);
	*c = (struct claim){
		.room = p, .done = done, .owner = owner, .look.cb = on_look};
	LIST_INIT(&c->asks);
	p->claim = c;
	r = begin(c);
	if (r < 0)
		free_claim(c);
	return r;
}

/* -- Who is asked -- */

/* Ours is killed since it lives at @peer, and its shadow does not stand yet. */
static bool goes_for(const struct process_room *p, pid_t pid, node_id peer)
{
	for (size_t i = 0; p->claim && i < p->claim->n_gone; i++)
		if (p->claim->gone[i].member.pid == pid)
			return p->claim->gone[i].place == peer;
	return false;
}

/* May @peer go on with it?  If not, *w says what lives. */
static bool may_go_on(struct process_room *p, node_id peer, struct wire_claim *w)
{
	const struct process_entry *e = process_table_find(p->table, w->pid);
	const struct process_record *d = e ? &e->record : NULL;
	uint32_t ours = d ? d->generation : 0;
	node_id to = signal_held_for(p, w->pid);
	bool is_ours = membership_home(p->membership, w->pid) == room_self(p);
	struct proc_stat s;

	w->place = NODE_NONE;
	/* It leaves us for there, and the commit rule decides: by what @peer will answer. */
	if (to == peer || goes_for(p, w->pid, peer))
		return true;
	/* Or has left, and moved on from where it went, which we have not heard yet. */
	if (to != NODE_NONE && d && w->generation > ours + 1)
		return true;
	if ((d && (d->state == PROCESS_HERE || d->state == PROCESS_GUEST) && !d->moving) ||
	    (!d && is_ours && room_real(p, w->pid, &s) == 0)) {
		/* We were fenced as well, and ours is the one to go. */
		if ((p->claim || space_is_frozen(p->space)) && w->generation > ours)
			return true;
		w->place = room_self(p);
		w->generation = ours;
		return false;
	}
	/* It went on here when the move was given up, and ended; its home is not told yet. */
	if (d && d->state == PROCESS_ENDED && !is_ours && ours >= w->generation)
		return false;
	if (!is_ours) /* what has no record here is a copy that is not ready */
		return true;
	/* Nothing is known of it: it was given up long ago, when @peer was lost, or we
	 * are the one who lost everything, and were not told since. */
	if (!d)
		return w->home < *p->since;
	/* A move that came to @peer last may not have been told. */
	if (d->state == PROCESS_AWAY && d->place != peer && !d->moving &&
	    ours >= w->generation) {
		w->place = d->place;
		w->generation = ours;
		return false;
	}
	return d->state != PROCESS_ENDED;
}

void claim_on_call(struct process_room *p, struct rpc_call *call, struct wire_claim *claims,
		   size_t n)
{
	size_t n_gone = 0;

	/* What a view that comes here yet gives up is no more @peer's. */
	if (rpc_call_is_ahead(call))
		return rpc_fail(call, RPC_DOWN, "an older view is known there");
	if (!process_since(p))
		return rpc_fail(call, RPC_DOWN, "that node does not know yet when it began");
	for (size_t i = 0; i < n; i++) {
		struct wire_claim w = claims[i];

		if (!may_go_on(p, rpc_call_peer(call), &w))
			claims[n_gone++] = w;
	}
	wire_reply_claim(call, claims, n_gone);
}
