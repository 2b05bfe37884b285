/*
 * The leader: who renews, who is late, who gets which PIDs, who has a vote.
 *
 * Happy path: a renewal of a member that is up is acknowledged at once, without
 * the log.  The first of a start, and the first after LOST or LEFT, makes the
 * member UP with a new incarnation, and is acknowledged when that is committed.
 *
 * Failure modes: a member is silent for a lease and the margin for drift ->
 * LOST.  A renewal comes while LOST is being written -> it waits, and comes out
 * as a new incarnation.  This node stood still (suspended, stopped) -> what was
 * sent meanwhile is still in its sockets: everybody gets a full lease more.  A
 * renewal of a start that another has followed -> RPC_STALE.  No majority follows
 * this leader -> it grants nothing, long before it notices that it is none.
 *
 * Why no lease overlaps LOST: a member counts from when it sent the renewal, the
 * leader from when it received it, which is later; an acknowledgement is given
 * only to a member that is UP in next, and one that was made LOST there is UP
 * again only after that view is committed.  With a new leader: a lease lasts no
 * longer than a lease after the last moment at which a majority was known to
 * follow the leader who gave it; one of that majority has elected the new one, and
 * said with its vote when it last followed the other.  From there on the new one counts
 * the leases that it knows nothing of (consensus_followed_before()).
 */
#include "membership_internal.h"

#include "err.h"
#include "log.h"

#include <inttypes.h>
#include <string.h>

enum {
	MARGIN_FRACTION = 8, /* of a lease, for clocks that drift */
	ALONE_FRACTION = 4,  /* without a majority for this long: no more leases */
	GONE_LEASES = 5,     /* silent for this long: another gets its vote */
	GRACE_FRACTION = 2,  /* from its election on, to find a new leader: also after the lease */
	WATCH_FRACTION = 20, /* between looks */
	STALL_FRACTION = 4,  /* this late: we stood still */
};

#define COME NSEC_PER_MSEC /* for a member's link to a new leader, one after the other */

/* A call that is answered when a change is durable. */
struct waiter {
	struct membership_change change;
	struct rpc_call *call;
	struct membership_renewal renewal;
};

struct membership_lease *membership_lease_find(struct membership_leader *l, node_id node)
{
	struct membership_lease *lease;

	HASH_FIND(hh, l->leases, &node, sizeof(node), lease);
	return lease;
}

static struct membership_lease *lease_get(struct membership_leader *l, node_id node)
{
	struct membership_lease *lease = membership_lease_find(l, node);

	if (lease)
		return lease;
	lease = calloc(1, sizeof(*lease));
	if (!lease)
		return NULL;
	lease->node = node;
	HASH_ADD(hh, l->leases, node, sizeof(node), lease);
	if (!lease->hh.tbl) {
		free(lease);
		return NULL;
	}
	return lease;
}

/* Is @node late? */
static bool is_late(struct membership *m, node_id node, nsec_t now)
{
	struct membership_leader *l = m->leader;
	struct membership_lease *lease = lease_get(l, node);
	nsec_t limit = m->config.lease + m->config.lease / MARGIN_FRACTION;

	if (!lease)
		return false;
	if (!lease->heard)
		lease->heard = now;
	return now > lease->heard && now - lease->heard > limit;
}

static void extend_all(struct membership_leader *l, nsec_t now)
{
	struct membership_lease *lease, *next;

	HASH_ITER(hh, l->leases, lease, next)
		if (lease->heard < now)
			lease->heard = now;
}

static void on_role_set(void *owner, int result)
{
	struct membership *m = owner;

	/* Lost leadership: whoever follows decides again. */
	if (m->leader)
		m->leader->changing = false;
	if (result)
		log_debug("the voters were not changed: %d, trying again", result);
}

/* Is @node a voter, as committed? */
static bool has_vote(struct membership *m, node_id node)
{
	size_t n;
	const struct consensus_server *servers = consensus_servers(m->consensus, &n);

	for (size_t i = 0; i < n; i++)
		if (servers[i].node == node)
			return servers[i].role == CONSENSUS_VOTER;
	return false;
}

static bool is_silent(const struct membership_lease *lease, nsec_t now, const struct membership *m)
{
	return !lease || (now > lease->heard && now - lease->heard > m->config.lease);
}

/* The map says who has a vote, for people and for those who look for the leader. */
static void watch_voters(struct membership *m, nsec_t now)
{
	struct membership_leader *l = m->leader;
	struct membership_view *view = l->next->view;
	_cleanup_free_ struct membership_voter *v = calloc(view->n_nodes, sizeof(*v));
	size_t n = 0;
	node_id change;
	bool vote;

	for (size_t i = 0; v && i < view->n_nodes; i++) {
		struct membership_node *node = &view->nodes[i];
		struct membership_lease *lease = membership_lease_find(l, node->id);

		vote = has_vote(m, node->id);
		l->dirty = l->dirty || vote != node->voter;
		node->voter = vote;
		if (node->state == MEMBER_JOINING || (node->state == MEMBER_REMOVED && !vote))
			continue;
		v[n++] = (struct membership_voter){
			.node = node->id,
			.up = node->state == MEMBER_UP || (node->state == MEMBER_REMOVED &&
							   !is_silent(lease, now, m)),
			.gone = node->state == MEMBER_REMOVED ||
				(!membership_state_is_up(node->state) &&
				 (!lease || now > lease->heard + GONE_LEASES * m->config.lease)),
			.removed = node->state == MEMBER_REMOVED,
			.voter = vote,
		};
	}
	change = l->changing || !v ? NODE_NONE :
				     membership_voters_next(v, n, m->config.self, &vote);
	if (change == NODE_NONE)
		return;
	log_info("node %s %s", rpc_name(m->rpc, change), vote ? "gets a vote" : "loses its vote");
	l->changing = !consensus_set_role(m->consensus, change,
					  membership_map_member(l->next, change)->address,
					  vote ? CONSENSUS_VOTER : CONSENSUS_NONE, on_role_set,
					  m);
}

static void on_handed(void *owner, int result)
{
	struct membership *m = owner;

	if (m->leader)
		m->leader->handing = false;
	if (result)
		log_debug("nobody else leads yet: %d, trying again", result);
}

static void hand_over(struct membership *m, node_id to)
{
	struct membership_leader *l = m->leader;

	if (!l->handing)
		l->handing = !consensus_transfer(m->consensus, to, on_handed, m);
}

/* It was elected before it lost its vote, which a leader cannot take from itself. */
static bool hand_over_if_removed(struct membership *m)
{
	const struct membership_node *self =
		membership_map_member(m->leader->next, m->config.self);

	if (!self || self->state != MEMBER_REMOVED)
		return false;
	hand_over(m, NODE_NONE);
	return true;
}

bool membership_leader_has_heard(struct membership *m, node_id node)
{
	const struct membership_lease *lease = membership_lease_find(m->leader, node);

	return lease && lease->start && env_now(m->env) - lease->heard < m->config.lease / 2;
}

/* A witness leads while nobody else can. */
static void hand_over_if_witness(struct membership *m)
{
	const struct membership_view *view = m->leader->next->view;
	const struct membership_node *self =
		membership_map_member(m->leader->next, m->config.self);

	for (size_t i = 0; self && self->witness && i < view->n_nodes; i++) {
		const struct membership_node *n = &view->nodes[i];

		if (n->state == MEMBER_UP && n->voter && !n->witness &&
		    membership_leader_has_heard(m, n->id)) {
			hand_over(m, n->id);
			return;
		}
	}
}

static void on_watch(struct env_timer *timer)
{
	struct membership_leader *l = container_of(timer, struct membership_leader, watch);
	struct membership *m = l->m;
	nsec_t now = env_now(m->env);

	if (now - l->watched_at > m->config.lease / STALL_FRACTION) {
		log_notice("this node stood still for %llu ms, leases are extended",
			   (now - l->watched_at) / NSEC_PER_MSEC);
		extend_all(l, now);
	}
	l->watched_at = now;
	membership_cuts_watch(m, now);
	for (size_t i = 0; i < l->next->view->n_nodes; i++) {
		struct membership_node *n = &l->next->view->nodes[i];

		if (now < l->patient_until || !membership_state_is_up(n->state) ||
		    !is_late(m, n->id, now))
			continue;
		log_warning("node %s has not renewed its lease, it is lost", n->name);
		n->state = MEMBER_LOST;
		l->dirty = true;
	}
	if (!hand_over_if_removed(m)) {
		watch_voters(m, now);
		hand_over_if_witness(m);
	}
	membership_commit_flush(m);
	(void)env_arm(m->env, &l->watch, m->config.lease / WATCH_FRACTION);
}

/* Members that are up may hold a lease that an earlier leader gave, maybe a longer one.  Those
 * who live have ended no lease by being late with a new leader: they get their time to come. */
static int expect_leases(struct membership *m)
{
	struct membership_leader *l = m->leader;
	const struct membership_view *view = m->state->map->view;
	nsec_t longest = m->state->map->lease;
	nsec_t more = longest > m->config.lease ? longest - m->config.lease : 0;
	nsec_t grace = m->config.lease / GRACE_FRACTION + view->n_nodes * COME;

	l->patient_until = env_now(m->env) + (grace < m->config.lease ? grace : m->config.lease);
	for (size_t i = 0; i < view->n_nodes; i++) {
		struct membership_lease *lease = lease_get(l, view->nodes[i].id);

		if (!lease)
			return err_origin(-ENOMEM);
		lease->heard = consensus_followed_before(m->consensus) + more;
	}
	return 0;
}

static void on_flush(struct env_timer *timer)
{
	struct membership *m = container_of(timer, struct membership_leader, flush)->m;

	membership_server_tell_self(m);
	membership_commit_flush(m);
}

int membership_leader_new(struct membership *m)
{
	struct membership_leader *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return err_origin(-ENOMEM);
	m->leader = l;
	l->m = m;
	TAILQ_INIT(&l->waiting);
	LIST_INIT(&l->tokens);
	l->watch.cb = on_watch;
	l->flush.cb = on_flush;
	l->watched_at = env_now(m->env);
	r = membership_commit_begin(m);
	if (!r)
		r = membership_map_copy(&l->told, m->state->map);
	if (!r)
		r = expect_leases(m);
	if (!r)
		r = env_arm(m->env, &l->watch, 0);
	if (!r)
		r = env_arm(m->env, &l->flush, 0);
	return r;
}

struct membership_leader *membership_leader_free(struct membership *m)
{
	struct membership_leader *l = m->leader;
	struct membership_lease *lease, *next;

	if (!l)
		return NULL;
	env_disarm(m->env, &l->watch);
	env_disarm(m->env, &l->flush);
	membership_commit_fini(m);
	HASH_ITER(hh, l->leases, lease, next) {
		HASH_DEL(l->leases, lease);
		free(lease);
	}
	membership_map_free(l->next);
	membership_map_free(l->told);
	free(l);
	return NULL;
}

static void waiter_drop(struct membership_change *change)
{
	free(container_of(change, struct waiter, change));
}

static void wait_durable(struct membership *m, struct rpc_call *call,
			 const struct membership_renewal *renewal,
			 void (*done)(struct membership_change *, struct membership *, int))
{
	struct waiter *w = calloc(1, sizeof(*w));

	if (!w) {
		rpc_fail(call, RPC_FAILED, "out of memory");
		membership_commit_flush(m);
		return;
	}
	w->change.done = done;
	w->change.drop = waiter_drop;
	w->call = call;
	if (renewal)
		w->renewal = *renewal;
	membership_commit(m, &w->change);
}

/* Loads of the next few members that are up, so that a reply stays small. */
static void fill_loads(struct membership *m, struct membership_renewed *ret)
{
	struct membership_leader *l = m->leader;
	const struct membership_view *view = m->state->map->view;

	for (size_t i = 0; i < view->n_nodes && ret->n_loads < MEMBERSHIP_MAX_LOADS; i++) {
		const struct membership_node *n =
			&view->nodes[(l->load_turn + i) % view->n_nodes];
		const struct membership_lease *lease = membership_lease_find(l, n->id);

		if (!membership_state_is_up(n->state) || !lease)
			continue;
		ret->loads[ret->n_loads].node = n->id;
		ret->loads[ret->n_loads++].load = lease->load;
	}
	l->load_turn += MEMBERSHIP_MAX_LOADS;
}

/* Acknowledge, if what is committed has this start of the member UP, as it is in next. */
static bool acknowledge(struct membership *m, struct rpc_call *call,
			const struct membership_renewal *renewal)
{
	struct membership_leader *l = m->leader;
	const struct membership_map *committed = m->state->map;
	/* In this order: the clock goes on. */
	nsec_t followed = consensus_followed_at(m->consensus);
	nsec_t alone = env_now(m->env) - followed;
	node_id peer = rpc_call_peer(call);
	const struct membership_node *n = membership_map_member(committed, peer);
	const struct membership_node *next = membership_map_member(l->next, peer);
	struct membership_renewed renewed;

	if (!n || !membership_state_is_up(n->state) || !membership_state_is_up(next->state) ||
	    n->incarnation != next->incarnation ||
	    *membership_map_start(committed, peer) != renewal->start)
		return false;
	if (alone >= m->config.lease / ALONE_FRACTION) {
		rpc_fail(call, RPC_DOWN, "no majority of the voters answers");
		return true;
	}
	renewed = (struct membership_renewed){
		.epoch = committed->view->epoch,
		.incarnation = n->incarnation,
		.lease = m->config.lease - alone,
		.view = renewal->epoch < committed->view->epoch ? committed : NULL,
	};
	fill_loads(m, &renewed);
	membership_wire_renewed(call, &renewed);
	return true;
}

/* It is heard, and told so, and has no lease. */
static void acknowledge_without(struct membership *m, struct rpc_call *call,
				const struct membership_renewal *renewal, node_id cut_from)
{
	const struct membership_map *committed = m->state->map;
	struct membership_renewed renewed = {
		.epoch = committed->view->epoch,
		.cut_from = cut_from,
		.view = renewal->epoch < committed->view->epoch ? committed : NULL,
	};

	membership_wire_renewed(call, &renewed);
}

static void on_renewal_durable(struct membership_change *change, struct membership *m,
			       int result)
{
	_cleanup_free_ struct waiter *w = container_of(change, struct waiter, change);

	if (result)
		rpc_fail(w->call, RPC_DOWN, "the leader changes (%s), try again",
			 strerror(-result));
	else if (!acknowledge(m, w->call, &w->renewal))
		rpc_fail(w->call, RPC_CONFLICT, "the member changes, renew again");
}

void membership_leader_first_pids(struct membership *m, node_id node)
{
	struct membership_leader *l = m->leader;

	if (membership_map_member(l->next, node)->witness ||
	    membership_map_count_pids(l->next, node))
		return;
	if (membership_map_lease(l->next, node, m->config.pids_max))
		log_error("no PIDs are left for node %s: it can run no programs of the "
			  "cluster",
			  membership_map_member(l->next, node)->name);
}

void membership_leader_renew(struct membership *m, struct rpc_call *call,
			     const struct membership_renewal *renewal)
{
	struct membership_leader *l = m->leader;
	node_id peer = rpc_call_peer(call);
	struct membership_node *n = membership_map_member(l->next, peer);
	uint64_t *start = membership_map_start(l->next, peer);
	struct membership_lease *lease;

	if (!n) {
		rpc_fail(call, RPC_NOT_PERMITTED, "node %s is not a member", rpc_name(m->rpc, peer));
		return;
	}
	if (*start != renewal->start ? renewal->incarnation != 0 : n->state == MEMBER_LEFT) {
		rpc_fail(call, RPC_STALE, "another start of node %s has followed", n->name);
		return;
	}
	membership_server_tell_self(m);
	lease = lease_get(l, peer);
	if (!lease) {
		rpc_fail(call, RPC_FAILED, "out of memory");
		return;
	}
	lease->asked = env_now(m->env);
	lease->start = renewal->start;
	lease->load = renewal->load;
	lease->unreached = renewal->unreached;
	if (!membership_state_is_up(n->state))
		lease->cut_from = membership_cuts_of(m, peer);
	/* Who may get a lease for this has it counted from now. */
	if (!lease->cut_from)
		lease->heard = lease->asked;
	if (n->state == MEMBER_REMOVED || lease->given_up || lease->cut_from) {
		acknowledge_without(m, call, renewal, lease->cut_from);
		return;
	}
	if (acknowledge(m, call, renewal))
		return;
	if (!membership_state_is_up(n->state) || *start != renewal->start) {
		*start = renewal->start;
		n->state = n->state == MEMBER_LEAVING ? MEMBER_LEAVING : MEMBER_UP;
		n->incarnation++;
		n->since = 0; /* the view that is made of it */
		l->dirty = true;
		log_info("node %s is up, incarnation %" PRIu64, n->name,
			 n->incarnation);
		membership_leader_first_pids(m, peer);
	}
	wait_durable(m, call, renewal, on_renewal_durable);
}

static void on_done_durable(struct membership_change *change, struct membership *m,
			    int result)
{
	_cleanup_free_ struct waiter *w = container_of(change, struct waiter, change);

	(void)m;
	if (result)
		rpc_fail(w->call, RPC_DOWN, "the leader changes (%s), try again",
			 strerror(-result));
	else
		membership_wire_reply_empty(w->call);
}

void membership_leader_leave(struct membership *m, struct rpc_call *call, uint64_t start)
{
	struct membership_leader *l = m->leader;
	struct membership_node *n = membership_map_member(l->next, rpc_call_peer(call));

	if (!n || *membership_map_start(l->next, n->id) != start) {
		rpc_fail(call, RPC_STALE, "another start of node %s has followed",
			 rpc_name(m->rpc, rpc_call_peer(call)));
		return;
	}
	if (n->state != MEMBER_LEFT && n->state != MEMBER_REMOVED) {
		log_info("node %s has left", n->name);
		n->state = MEMBER_LEFT;
		l->dirty = true;
	}
	wait_durable(m, call, NULL, on_done_durable);
}

void membership_leader_want_pids(struct membership *m, struct rpc_call *call, uint32_t pids)
{
	struct membership_leader *l = m->leader;
	node_id peer = rpc_call_peer(call);
	const struct membership_node *n = membership_map_member(l->next, peer);
	uint32_t held;
	int r = 0;

	if (!n || !membership_state_is_up(n->state)) {
		rpc_fail(call, RPC_STALE, "node %s is not up", rpc_name(m->rpc, peer));
		return;
	}
	held = membership_map_count_pids(l->next, peer);
	if (held == pids)
		r = membership_map_lease(l->next, peer, m->config.pids_max);
	if (r) {
		if (!l->exhausted)
			log_error("no PIDs are left for node %s, which has %u and asked for more",
				  n->name, held);
		l->exhausted = true;
		rpc_fail(call, RPC_CONFLICT, "none are left beyond the %u that it has", held);
		return;
	}
	if (held == pids)
		l->dirty = true;
	wait_durable(m, call, NULL, on_done_durable);
}
