/*
 * The leader's change of the members.
 *
 * Happy path of a removal: all of the nodes look whether they can be emptied; they are
 * LEAVING; they empty themselves and give up their leases; they are REMOVED in one view;
 * their votes are taken.  Of an addition: all of them answer, or come up by themselves;
 * those that were removed are UP in one view; all of them have it.  Of a shutdown: every
 * node ends what it has, and is told to stop.
 *
 * Failure modes: a process cannot move -> the asker is told its name, and they stay.  The
 * time is over, or a node cannot be emptied -> they stay (undoing).  One of the nodes is lost
 * meanwhile -> what it had is lost, it is removed with the others; one that is to be added
 * -> all fails.  This node leads no more -> whoever does finds members LEAVING that no
 * change of its own is about and has them stay; the asker asks there.
 */
#include "hotplug_internal.h"

#include "cleanup.h"
#include "envelope.pb-c.h"
#include "err.h"
#include "fault.h"
#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define TICK (100 * NSEC_PER_MSEC)
#define SETTLE_AGAIN (500 * NSEC_PER_MSEC)
#define CALL_MAX (3 * NSEC_PER_SEC)

enum lead_state {
	LEAD_HANDING, /* another leads before this node is removed */
	LEAD_LOOKING,
	LEAD_LEAVING, /* is being committed */
	LEAD_DRAINING,
	LEAD_REMOVING, /* is being committed */
	LEAD_VOTING,   /* until no vote is theirs */
	LEAD_ADDING,   /* until all answer and it is committed */
	LEAD_GREETING, /* until all have the view */
	LEAD_HALTING,
	LEAD_UNDOING, /* that they stay is being committed */
	LEAD_ENDED,
};

static const struct sm_state lead_states[] = {
	[LEAD_HANDING] = { "handing", SM_TO(LEAD_ENDED) },
	[LEAD_LOOKING] = { "looking", SM_TO(LEAD_LEAVING) | SM_TO(LEAD_DRAINING) |
					      SM_TO(LEAD_ENDED) },
	[LEAD_LEAVING] = { "leaving", SM_TO(LEAD_DRAINING) | SM_TO(LEAD_ENDED) },
	[LEAD_DRAINING] = { "draining", SM_TO(LEAD_REMOVING) | SM_TO(LEAD_HALTING) |
						SM_TO(LEAD_UNDOING) | SM_TO(LEAD_ENDED) },
	[LEAD_REMOVING] = { "removing", SM_TO(LEAD_VOTING) | SM_TO(LEAD_UNDOING) |
						SM_TO(LEAD_ENDED) },
	[LEAD_VOTING] = { "voting", SM_TO(LEAD_ENDED) },
	[LEAD_ADDING] = { "adding", SM_TO(LEAD_GREETING) | SM_TO(LEAD_ENDED) },
	[LEAD_GREETING] = { "greeting", SM_TO(LEAD_ENDED) },
	[LEAD_HALTING] = { "halting", SM_TO(LEAD_ENDED) },
	[LEAD_UNDOING] = { "undoing", SM_TO(LEAD_ENDED) },
	[LEAD_ENDED] = { "ended", 0 },
};

/* One of the nodes, and the question to it. */
struct lead_node {
	struct hotplug_lead *lead;
	node_id node;
	struct rpc_request *call; /* NULL: none is under way */
	bool done;
};

struct hotplug_lead {
	struct hotplug *h;
	struct sm sm;
	struct rpc_call *call;
	enum hotplug_what what;
	struct lead_node *nodes;
	node_id *ids; /* the same */
	size_t n_nodes;
	uint32_t *targets;
	size_t n_targets;
	bool force, dry_run, committing;
	nsec_t deadline;
	node_id watcher;
	uint64_t watch;
	struct env_timer timer;
	struct hotplug_stays stays;
	uint32_t moved, ended;
	enum rpc_status status; /* why it is undone */
	char text[256];
};

static void turn(struct hotplug_lead *l);

static const struct membership_node *member(const struct hotplug_lead *l, node_id node)
{
	return membership_node(l->h->n.membership, node);
}

static const char *name(const struct hotplug_lead *l, node_id node)
{
	return hotplug_node_name(l->h, node);
}

static void cancel_calls(struct hotplug_lead *l)
{
	for (size_t i = 0; i < l->n_nodes; i++)
		if (l->nodes[i].call)
			rpc_cancel(l->h->n.rpc, TAKE(l->nodes[i].call));
}

static void lead_free(struct hotplug_lead *l)
{
	cancel_calls(l);
	env_disarm(l->h->n.env, &l->timer);
	l->h->lead = NULL;
	/* What another leader left half-way has waited. */
	(void)env_arm(l->h->n.env, &l->h->settle, 0);
	free(l->nodes);
	free(l->ids);
	free(l->targets);
	free(l);
}

static void answer(struct hotplug_lead *l, bool handed)
{
	Ssi__Hotplug__ChangeReply reply = SSI__HOTPLUG__CHANGE_REPLY__INIT;
	struct hotplug_stays_message message;

	if (l->status != RPC_OK)
		return rpc_fail(l->call, l->status, "%s", l->text);
	hotplug_stays_pack(&l->stays, &message);
	reply.stays = message.list;
	reply.n_stays = l->stays.n;
	reply.n_all = (uint32_t)l->stays.n_all;
	reply.moved = l->moved;
	reply.ended = l->ended;
	reply.handed = handed;
	rpc_reply(l->call, &reply.base, RPC_NO_BULK);
}

static void end(struct hotplug_lead *l)
{
	bool handed = l->sm.state == LEAD_HANDING && l->status == RPC_OK;

	sm_move(&l->sm, LEAD_ENDED);
	answer(l, handed);
	lead_free(l);
}

static bool is_half_way(const struct hotplug_lead *l)
{
	return l->what == HOTPLUG_REMOVE &&
	       (l->sm.state == LEAD_DRAINING || l->sm.state == LEAD_REMOVING);
}

static int commit(struct hotplug_lead *l, enum member_state to);

static void stop(struct hotplug_lead *l)
{
	cancel_calls(l);
	if (!is_half_way(l) || !membership_leads(l->h->n.membership))
		return end(l);
	sm_move(&l->sm, LEAD_UNDOING);
	/* It leads no more, or has no memory: then it is settled later, see
	 * hotplug_lead_on_view(). */
	if (commit(l, MEMBER_UP) != 0)
		end(l);
}

static void fail(struct hotplug_lead *l, enum rpc_status status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void fail(struct hotplug_lead *l, enum rpc_status status, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(l->text, sizeof(l->text), format, ap);
	va_end(ap);
	l->status = status;
	log_notice("members are not %s: %s", l->what == HOTPLUG_ADD ? "added" : "removed", l->text);
	stop(l);
}

/* Committing. */

static void on_committed(void *owner, int result)
{
	struct hotplug_lead *l = owner;

	l->committing = false;
	if (result && l->sm.state != LEAD_UNDOING)
		return fail(l, RPC_DOWN, "the leader changes");
	switch (l->sm.state) {
	case LEAD_LEAVING:
		(void)fault("hotplug.leaving");
		sm_move(&l->sm, LEAD_DRAINING);
		break;
	case LEAD_REMOVING:
		(void)fault("hotplug.removed");
		sm_move(&l->sm, LEAD_VOTING);
		break;
	case LEAD_ADDING:
		(void)fault("hotplug.added");
		sm_move(&l->sm, LEAD_GREETING);
		break;
	default:
		return end(l);
	}
	turn(l);
}

/* Those of the nodes that @to is for. */
static size_t select_nodes(struct hotplug_lead *l, enum member_state to)
{
	size_t n = 0;

	for (size_t i = 0; i < l->n_nodes; i++) {
		const struct membership_node *m = member(l, l->nodes[i].node);

		if (!m || (to == MEMBER_LEAVING && m->state != MEMBER_UP) ||
		    (to == MEMBER_UP && m->state != MEMBER_LEAVING &&
		     m->state != MEMBER_REMOVED))
			continue;
		l->ids[n++] = l->nodes[i].node;
	}
	return n;
}

static int commit(struct hotplug_lead *l, enum member_state to)
{
	int r = membership_move(l->h->n.membership, l->ids, select_nodes(l, to), to, on_committed,
				l);

	l->committing = r == 0;
	return r;
}

/* Questions to the nodes: all that are not done, at the same time. */

static bool all_done(const struct hotplug_lead *l)
{
	for (size_t i = 0; i < l->n_nodes; i++)
		if (!l->nodes[i].done)
			return false;
	return true;
}

static void none_done(struct hotplug_lead *l)
{
	for (size_t i = 0; i < l->n_nodes; i++)
		l->nodes[i].done = false;
}

static void take_drained(struct lead_node *n, const Ssi__Hotplug__DrainReply *reply)
{
	struct hotplug_lead *l = n->lead;
	size_t before = l->stays.n_all;

	hotplug_stays_unpack(&l->stays, reply->stays, reply->n_stays, reply->n_all);
	l->moved += reply->moved;
	l->ended += reply->ended;
	/* Not given up by the ssid that runs there now: it is asked again. */
	n->done = l->stays.n_all > before || l->sm.state == LEAD_LOOKING ||
		  l->what == HOTPLUG_SHUTDOWN ||
		  membership_given_up(l->h->n.membership, n->node, reply->incarnation) == 0;
}

static void on_answer(void *owner, const struct rpc_result *r)
{
	struct lead_node *n = owner;
	struct hotplug_lead *l = n->lead;

	n->call = NULL;
	if (r->status == RPC_OK) {
		n->done = true;
		if (r->reply->descriptor == &ssi__hotplug__drain_reply__descriptor)
			take_drained(n, (const void *)r->reply);
		return turn(l);
	}
	if (r->status != RPC_DOWN && r->status != RPC_STALE && r->status != RPC_TIMEOUT)
		return fail(l, r->status, "%s: %s", name(l, n->node), r->text);
	/* Asked again by the timer, unless it is lost, which a view says. */
	(void)snprintf(l->text, sizeof(l->text), "%s does not answer: %s", name(l, n->node),
		       r->text);
}

static int ask_drain(struct lead_node *n)
{
	struct hotplug_lead *l = n->lead;
	Ssi__Hotplug__DrainRequest q = SSI__HOTPLUG__DRAIN_REQUEST__INIT;
	nsec_t left = l->deadline - env_now(l->h->n.env);

	q.look = l->sm.state == LEAD_LOOKING;
	q.force = l->force;
	q.give_up = l->what == HOTPLUG_REMOVE;
	q.timeout_ns = left;
	q.targets = l->targets;
	q.n_targets = l->n_targets;
	q.watcher = l->watcher;
	q.watch = l->watch;
	return rpc_call(l->h->n.rpc, n->node, HOTPLUG_DRAIN, &q.base, RPC_NO_BULK,
			left + CALL_MAX, on_answer, n, &n->call);
}

static int ask_one(struct lead_node *n)
{
	struct hotplug_lead *l = n->lead;
	Ssi__Envelope__Empty q = SSI__ENVELOPE__EMPTY__INIT;

	if (l->sm.state == LEAD_LOOKING || l->sm.state == LEAD_DRAINING)
		return ask_drain(n);
	return rpc_call(l->h->n.rpc, n->node,
			l->sm.state == LEAD_HALTING ? HOTPLUG_HALT : HOTPLUG_HELLO, &q.base,
			RPC_NO_BULK, CALL_MAX, on_answer, n, &n->call);
}

/* True: all are done. */
static bool ask_all(struct hotplug_lead *l)
{
	for (size_t i = 0; i < l->n_nodes; i++) {
		struct lead_node *n = &l->nodes[i];

		if (!n->done && !n->call && membership_is_up(l->h->n.membership, n->node) &&
		    ask_one(n) != 0)
			n->call = NULL;
	}
	return all_done(l);
}

/* What a node had is lost with it. */
static void skip_lost(struct hotplug_lead *l)
{
	for (size_t i = 0; i < l->n_nodes; i++)
		if (!membership_is_up(l->h->n.membership, l->nodes[i].node))
			l->nodes[i].done = true;
}

/* Steps. */

static void look(struct hotplug_lead *l)
{
	skip_lost(l);
	if (!ask_all(l))
		return;
	if (l->dry_run || (l->stays.n_all && !l->force))
		return end(l);
	l->stays = (struct hotplug_stays){ .n = 0 };
	none_done(l);
	if (l->what == HOTPLUG_SHUTDOWN) {
		sm_move(&l->sm, LEAD_DRAINING);
		return turn(l);
	}
	sm_move(&l->sm, LEAD_LEAVING);
	if (commit(l, MEMBER_LEAVING) != 0)
		fail(l, RPC_DOWN, "the leader changes");
}

static void drain(struct hotplug_lead *l)
{
	skip_lost(l);
	if (!ask_all(l))
		return;
	if (l->stays.n_all)
		return stop(l);
	if (l->what == HOTPLUG_SHUTDOWN) {
		none_done(l);
		sm_move(&l->sm, LEAD_HALTING);
		return turn(l);
	}
	(void)fault("hotplug.drained");
	sm_move(&l->sm, LEAD_REMOVING);
	hotplug_tell_progress(l->h, l->watcher, l->watch, 0, 0, "removing");
	/* One whose ssid started again after it gave up may have a lease: they stay. */
	if (commit(l, MEMBER_REMOVED) != 0)
		fail(l, RPC_FAILED, "one of the nodes started again in the middle");
}

static void wait_for_votes(struct hotplug_lead *l)
{
	for (size_t i = 0; i < l->n_nodes; i++) {
		const struct membership_node *m = member(l, l->nodes[i].node);

		if (m && m->voter) {
			(void)snprintf(l->text, sizeof(l->text),
				       "%s is removed, but still has a vote: see ssi-nodes before "
				       "it is stopped",
				       m->name);
			return;
		}
	}
	end(l);
}

static void add(struct hotplug_lead *l)
{
	size_t n_removed = 0;
	int r;

	if (l->committing)
		return;
	for (size_t i = 0; i < l->n_nodes; i++) {
		const struct membership_node *m = member(l, l->nodes[i].node);

		n_removed += m->state == MEMBER_REMOVED;
		if (m->state != MEMBER_REMOVED && !membership_state_is_up(m->state)) {
			(void)snprintf(l->text, sizeof(l->text),
				       "%s is not up: start its ssid", m->name);
			return;
		}
	}
	if (l->dry_run)
		return end(l);
	if (!n_removed) {
		sm_move(&l->sm, LEAD_GREETING);
		return turn(l);
	}
	(void)fault("hotplug.adding");
	r = commit(l, MEMBER_UP);
	if (r == MEMBERSHIP_E_ABSENT)
		(void)snprintf(l->text, sizeof(l->text),
			       "one of the nodes does not answer: is ssid running on each of them?");
	else if (r)
		fail(l, RPC_DOWN, "the leader changes");
}

static void greet(struct hotplug_lead *l)
{
	for (size_t i = 0; i < l->n_nodes; i++)
		if (!membership_is_up(l->h->n.membership, l->nodes[i].node))
			return fail(l, RPC_DOWN, "%s was added, and is lost",
				    name(l, l->nodes[i].node));
	if (ask_all(l))
		end(l);
}

static void halt(struct hotplug_lead *l)
{
	node_id self = rpc_self(l->h->n.rpc);
	bool last = l->watcher == self;

	for (size_t i = 0; i < l->n_nodes; i++)
		if (l->nodes[i].node == l->watcher || l->nodes[i].node == self)
			l->nodes[i].done = true;
	skip_lost(l);
	if (!ask_all(l))
		return;
	/* The asker stops when it was answered. */
	if (!last)
		hotplug_halt_soon(l->h);
	end(l);
}

static void turn(struct hotplug_lead *l)
{
	static void (*const steps[])(struct hotplug_lead *) = {
		[LEAD_LOOKING] = look,	       [LEAD_DRAINING] = drain,
		[LEAD_VOTING] = wait_for_votes, [LEAD_ADDING] = add,
		[LEAD_GREETING] = greet,       [LEAD_HALTING] = halt,
		[LEAD_ENDED] = NULL,
	};

	if (steps[l->sm.state])
		steps[l->sm.state](l);
}

static void on_tick(struct env_timer *timer)
{
	struct hotplug_lead *l = container_of(timer, struct hotplug_lead, timer);
	struct hotplug *h = l->h;

	(void)env_arm(h->n.env, &l->timer, TICK);
	if (env_now(h->n.env) < l->deadline || l->committing)
		return turn(l);
	if (l->sm.state == LEAD_HALTING)
		return end(l);
	l->status = RPC_TIMEOUT;
	if (!l->text[0])
		(void)snprintf(l->text, sizeof(l->text), "not done in the time that was given");
	stop(l);
}

/* Handing over. */

static void on_handed(void *owner, int result)
{
	struct hotplug_lead *l = owner;

	if (result)
		return fail(l, RPC_FAILED, "nobody else could be made the leader: see ssi-nodes");
	end(l);
}

static bool is_named(const struct hotplug_lead *l, node_id node)
{
	for (size_t i = 0; i < l->n_nodes; i++)
		if (l->nodes[i].node == node)
			return true;
	return false;
}

/* Rather one that has a vote. */
static node_id next_leader(const struct hotplug_lead *l)
{
	const struct membership_view *view = membership_view(l->h->n.membership);
	node_id next = NODE_NONE;

	for (size_t i = 0; i < view->n_nodes; i++) {
		const struct membership_node *m = &view->nodes[i];

		if (m->state != MEMBER_UP || m->witness || is_named(l, m->id))
			continue;
		if (m->voter)
			return m->id;
		if (next == NODE_NONE)
			next = m->id;
	}
	return next;
}

static void hand_over(struct hotplug_lead *l)
{
	int r = membership_hand_over(l->h->n.membership, next_leader(l), on_handed, l);

	/* The timer is not armed yet: on_handed comes, or this, and the asker asks again. */
	if (r)
		fail(l, RPC_DOWN, "votes change hands, the leader cannot yet");
}

/* Beginning. */

static size_t list_targets(struct hotplug_lead *l, const struct membership_view *view)
{
	size_t n = 0;

	for (size_t i = 0; i < view->n_nodes; i++)
		if (view->nodes[i].state == MEMBER_UP && !view->nodes[i].witness &&
		    !is_named(l, view->nodes[i].id))
			l->targets[n++] = view->nodes[i].id;
	return n;
}

static void name_node(struct hotplug_lead *l, node_id node)
{
	if (!is_named(l, node))
		l->nodes[l->n_nodes++] = (struct lead_node){ .lead = l, .node = node };
}

/* RPC_OK, or why not, with l->text. */
static enum rpc_status name_nodes(struct hotplug_lead *l, const Ssi__Hotplug__ChangeRequest *q,
				  const struct membership_view *view)
{
	for (size_t i = 0; l->what == HOTPLUG_SHUTDOWN && i < view->n_nodes; i++)
		if (membership_state_is_up(view->nodes[i].state))
			name_node(l, view->nodes[i].id);
	for (size_t i = 0; l->what != HOTPLUG_SHUTDOWN && i < q->n_nodes; i++) {
		const struct membership_node *m = member(l, q->nodes[i]);

		if (!m) {
			(void)snprintf(l->text, sizeof(l->text),
				       "node number %u is no member: it joins with a token, see ssi-admin",
				       q->nodes[i]);
			return RPC_NOT_FOUND;
		}
		if (l->what != HOTPLUG_REMOVE || m->state != MEMBER_REMOVED)
			name_node(l, m->id);
	}
	l->n_targets = l->what == HOTPLUG_SHUTDOWN ? 0 : list_targets(l, view);
	if (l->what == HOTPLUG_REMOVE && l->n_nodes && !l->n_targets) {
		(void)snprintf(l->text, sizeof(l->text),
			       "no other node is up: ssi-admin cluster shutdown ends the cluster");
		return RPC_CONFLICT;
	}
	return RPC_OK;
}

static struct hotplug_lead *lead_new(struct hotplug *h, struct rpc_call *call,
				     const Ssi__Hotplug__ChangeRequest *q)
{
	size_t n = membership_view(h->n.membership)->n_nodes + 1;
	struct hotplug_lead *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	*l = (struct hotplug_lead){
		.h = h,
		.call = call,
		.what = (enum hotplug_what)q->what,
		.nodes = calloc(n, sizeof(*l->nodes)),
		.ids = calloc(n, sizeof(*l->ids)),
		.targets = calloc(n, sizeof(*l->targets)),
		.force = q->force,
		.dry_run = q->dry_run,
		.deadline = env_now(h->n.env) + q->timeout_ns,
		.watcher = q->watcher,
		.watch = q->watch,
		.timer.cb = on_tick,
	};
	if (!l->nodes || !l->ids || !l->targets) {
		free(l->nodes);
		free(l->ids);
		free(l->targets);
		free(l);
		return NULL;
	}
	h->lead = l;
	return l;
}

/* All of them are so already. */
static bool nothing_to_do(const struct hotplug_lead *l)
{
	return l->what == HOTPLUG_REMOVE && !l->n_nodes;
}

static enum lead_state first_state(const struct hotplug_lead *l)
{
	if (l->what == HOTPLUG_ADD)
		return LEAD_ADDING;
	if (l->what == HOTPLUG_REMOVE && !l->dry_run && is_named(l, rpc_self(l->h->n.rpc)))
		return LEAD_HANDING;
	return LEAD_LOOKING;
}

void hotplug_lead_begin(struct hotplug *h, struct rpc_call *call,
			const Ssi__Hotplug__ChangeRequest *q)
{
	struct hotplug_lead *l;

	if (!membership_leads(h->n.membership))
		return rpc_fail(call, RPC_DOWN, "node %s does not lead",
				rpc_name(h->n.rpc, rpc_self(h->n.rpc)));
	if (h->settling) /* a moment: it is asked again */
		return rpc_fail(call, RPC_DOWN, "what another leader began is being undone");
	if (h->lead)
		return rpc_fail(call, RPC_CONFLICT, "members are being added or removed already: "
						    "try again when that is over");
	l = lead_new(h, call, q);
	if (!l)
		return rpc_fail(call, RPC_FAILED, "out of memory");
	l->status = name_nodes(l, q, membership_view(h->n.membership));
	sm_init(&l->sm, "change of the members", lead_states, q->watch, first_state(l));
	if (l->status != RPC_OK || nothing_to_do(l)) {
		answer(l, false);
		return lead_free(l);
	}
	if (l->sm.state == LEAD_HANDING)
		return hand_over(l);
	(void)env_arm(h->n.env, &l->timer, 0);
}

/* Whoever led before began a removal and did not end it. */

static void on_settled(void *owner, int result)
{
	struct hotplug *h = owner;

	h->settling = false;
	if (result)
		(void)env_arm(h->n.env, &h->settle, SETTLE_AGAIN);
}

void hotplug_on_settle(struct env_timer *timer)
{
	struct hotplug *h = container_of(timer, struct hotplug, settle);
	const struct membership_view *view = membership_view(h->n.membership);
	_cleanup_free_ node_id *ids = NULL;
	size_t n = 0;

	if (h->lead || h->settling || !membership_leads(h->n.membership))
		return;
	ids = calloc(view->n_nodes + 1, sizeof(*ids));
	for (size_t i = 0; ids && i < view->n_nodes; i++)
		if (view->nodes[i].state == MEMBER_LEAVING)
			ids[n++] = view->nodes[i].id;
	if (!n)
		return;
	log_notice("a removal that another leader began is undone: its %zu nodes stay", n);
	h->settling = membership_move(h->n.membership, ids, n, MEMBER_UP, on_settled, h) == 0;
	if (!h->settling)
		(void)env_arm(h->n.env, &h->settle, SETTLE_AGAIN);
}

void hotplug_lead_on_view(struct hotplug *h)
{
	struct hotplug_lead *l = h->lead;

	if (l && !membership_leads(h->n.membership) && !l->committing &&
	    l->sm.state != LEAD_HANDING)
		fail(l, RPC_DOWN, "the leader changes");
	(void)env_arm(h->n.env, &h->settle, 0);
}

void hotplug_lead_free(struct hotplug *h)
{
	if (h->lead)
		lead_free(h->lead);
}
