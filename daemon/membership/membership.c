/*
 * A member: renewals, the lease, the newest view.
 *
 * Happy path: every quarter of a lease a renewal goes to the leader; its reply
 * extends the lease, counted from when it was *sent*, and brings the view if
 * ours is older.  The leader also tells views as they are committed.
 *
 * Failure modes: no reply, or from one that does not lead -> again soon, with
 * another (membership_find.c), until the lease ends and the owner is
 * told to stop acting; renewals go on, and the first that is answered brings a
 * new view (with a new incarnation of us) and a new lease.  A view that is not
 * newer than ours is dropped, and one of which only the changes come, of a view that is
 * not ours, is asked for.  RPC_STALE -> the leader knows another start of
 * us: announce this one.
 */
#include "membership_internal.h"

#include "err.h"
#include "log.h"

#include <stdio.h>
#include <string.h>

enum {
	RENEW_FRACTION = 4,  /* of the lease, between renewals */
	RETRY_FRACTION = 20, /* after one that failed */
};

#define LEASE_DEFAULT (2 * NSEC_PER_SEC)
#define LEASE_MAX (3600 * NSEC_PER_SEC)

static void on_renew_timer(struct env_timer *timer);
static void on_lease_timer(struct env_timer *timer);
static void set_lease(struct membership *m, nsec_t until);

DEFINE_CLEANUP(struct membership, membership_free)

static int config_copy(struct membership *m, const struct membership_config *c)
{
	if (!membership_name_is_valid(c->name) || !membership_address_is_valid(c->address) ||
	    !membership_address_is_valid(c->leader_address))
		return err_origin(-EINVAL);
	m->config = *c;
	m->config.name = strcpy(m->name, c->name);
	m->config.address = strcpy(m->address, c->address);
	m->config.leader_address = strcpy(m->leader_address, c->leader_address);
	if (c->seal_key)
		memcpy(m->seal_key, c->seal_key, sizeof(m->seal_key));
	m->ca_pem = c->ca_pem ? strdup(c->ca_pem) : NULL;
	m->ca_key_pem = c->ca_key_pem ? strdup(c->ca_key_pem) : NULL;
	if ((c->ca_pem && !m->ca_pem) || (c->ca_key_pem && !m->ca_key_pem))
		return err_origin(-ENOMEM);
	m->config.ca_pem = m->ca_pem;
	m->config.ca_key_pem = m->ca_key_pem;
	if (!m->config.lease)
		m->config.lease = LEASE_DEFAULT;
	if (m->config.lease > LEASE_MAX)
		return err_origin(-EINVAL);
	return 0;
}

/* Nodes to talk to: those of @map that are up; for our own messages its leader and voters in
 * any state, and without a map the one that this node joined by. */
static int tell_rpc(struct membership *m, const struct membership_map *map)
{
	const struct membership_view *view = map ? map->view : NULL;
	_cleanup_free_ struct rpc_peer *peers =
		calloc((view ? view->n_nodes : 0) + 1, sizeof(*peers));
	size_t n = 0;

	if (!peers)
		return err_origin(-ENOMEM);
	for (size_t i = 0; view && i < view->n_nodes; i++) {
		const struct membership_node *node = &view->nodes[i];

		if (membership_state_is_up(node->state))
			peers[n++] = (struct rpc_peer){ node->id, node->address, node->since };
		else if (node->voter || node->id == view->leader || node->id == m->config.self)
			peers[n++] = (struct rpc_peer){ node->id, node->address, RPC_NEVER };
	}
	if (!view)
		peers[n++] = (struct rpc_peer){ m->config.leader, m->config.leader_address,
						RPC_NEVER };
	return rpc_set_view(m->rpc, view ? view->epoch : 0, peers, n);
}

static const char *name_of(void *owner, node_id node)
{
	const struct membership *m = owner;
	const struct membership_node *n = membership_node(m, node);

	if (node == m->config.self)
		return m->name;
	return n ? n->name : NULL;
}

int membership_new(struct membership **ret, const struct env *env, const struct store *store,
		   struct rpc *rpc, const struct membership_config *config,
		   const struct membership_events *events, void *owner)
{
	_cleanup_(membership_freep) struct membership *m = NULL;
	int r;

	m = calloc(1, sizeof(*m));
	if (!m)
		return err_origin(-ENOMEM);
	m->env = env;
	m->store = store;
	m->rpc = rpc;
	m->events = events;
	m->owner = owner;
	m->renew_timer.cb = on_renew_timer;
	m->lease_timer.cb = on_lease_timer;
	m->start = env_random_u64(env);
	m->started_at = env_now(env);
	r = config_copy(m, config);
	if (!r)
		r = membership_known_load(m);
	if (!r)
		r = membership_recover_load(m);
	rpc_set_names(rpc, name_of, m);
	if (!r)
		r = tell_rpc(m, m->map);
	if (!r)
		r = membership_server_new(m);
	if (!r)
		r = env_arm(env, &m->lease_timer, m->config.lease);
	if (!r)
		r = env_arm(env, &m->renew_timer, 0);
	if (!r)
		r = rpc_register(rpc, membership_methods, m);
	if (r)
		return err_fold(r);
	*ret = TAKE(m);
	return 0;
}

struct membership *membership_free(struct membership *m)
{
	if (!m)
		return NULL;
	rpc_set_names(m->rpc, NULL, NULL);
	env_disarm(m->env, &m->renew_timer);
	env_disarm(m->env, &m->lease_timer);
	env_disarm(m->env, &m->known_timer);
	if (m->renewing)
		rpc_cancel(m->rpc, m->renewing);
	if (m->wanting)
		rpc_cancel(m->rpc, m->wanting);
	if (m->leaving)
		rpc_cancel(m->rpc, m->leaving);
	env_disarm(m->env, &m->tell_timer);
	env_disarm(m->env, &m->retire.timer);
	m->consensus = consensus_free(m->consensus);
	m->leader = membership_leader_free(m);
	free(m->hand_over);
	m->state = membership_state_free(m->state);
	m->map = membership_map_free(m->map);
	free(m->ca_pem);
	free(m->ca_key_pem);
	free(m);
	return NULL;
}

/* A view carries no loads: keep what we have heard. */
static void keep_loads(struct membership_map *map, const struct membership_map *old)
{
	for (size_t i = 0; old && i < map->view->n_nodes; i++) {
		struct membership_node *n = &map->view->nodes[i];
		const struct membership_node *before = membership_map_member(old, n->id);

		if (before)
			n->load = before->load;
	}
}

/* What of @b, one of ours, was not ours in @old: parts that are whole blocks. */
static void announce_block(struct membership *m, const struct membership_block *b,
			   const struct membership_map *old)
{
	uint32_t from = 0, to;

	while (from < b->count) {
		for (to = from; to < b->count; to += MEMBERSHIP_PID_BLOCK)
			if (old && membership_map_home(old, b->first + (pid_t)to) == b->node)
				break;
		to = to < b->count ? to : b->count;
		if (to > from)
			m->events->on_pid_block(m->owner, b->first + (pid_t)from, to - from);
		from = to > from ? to : from + MEMBERSHIP_PID_BLOCK;
	}
}

static void announce_blocks(struct membership *m, const struct membership_map *old)
{
	const struct membership_map *map = m->map;

	for (size_t i = 0; i < map->n_blocks; i++)
		if (map->blocks[i].node == m->config.self)
			announce_block(m, &map->blocks[i], old);
}

void membership_announce(struct membership *m, const struct membership_map *old)
{
	env_disarm(m->env, &m->known_timer);
	m->events->on_view(m->owner, m->map->view);
	announce_blocks(m, old);
}

/* By whoever leads, after all that was here has moved. */
static void settle_removal(struct membership *m, const struct membership_map *old)
{
	const struct membership_node *self = membership_node(m, m->config.self);
	const struct membership_node *before =
		old ? membership_map_member(old, m->config.self) : NULL;

	m->given_up = m->given_up && self && self->state == MEMBER_LEAVING;
	if (!self || self->state != MEMBER_REMOVED)
		return;
	if (!before || before->state != MEMBER_REMOVED)
		log_notice("this node was removed from the cluster: ssi_add_nodes %s, given on a "
			   "member, brings it back",
			   m->name);
	set_lease(m, 0);
}

int membership_give_up(struct membership *m)
{
	const struct membership_node *self = membership_node(m, m->config.self);

	if (!self || self->state != MEMBER_LEAVING)
		return MEMBERSHIP_E_STATE;
	m->given_up = true;
	set_lease(m, 0);
	return 0;
}

void membership_take_view(struct membership *m, struct membership_map *owned_map)
{
	_cleanup_(membership_map_freep) struct membership_map *map = owned_map, *old = NULL;

	if (m->map && map->view->epoch <= m->map->view->epoch)
		return;
	if (tell_rpc(m, map)) {
		log_warning("no memory for view %llu, asking for it again",
			    (unsigned long long)map->view->epoch);
		return;
	}
	keep_loads(map, m->map);
	old = TAKE(m->map);
	m->map = TAKE(map);
	log_info("view %llu: %zu members", (unsigned long long)m->map->view->epoch,
		 m->map->view->n_nodes);
	membership_known_save(m);
	/* A new leader waits for us: at once, before our lease ends. */
	membership_find_referred(m, m->map->view->leader);
	membership_announce(m, m->known_timer.due ? NULL : old);
	settle_removal(m, old);
}

void membership_take_changes(struct membership *m, epoch_t base,
			     const struct membership_map *changes)
{
	struct membership_map *map;
	epoch_t ours = m->map ? m->map->view->epoch : 0;

	if (changes->view->epoch <= ours)
		return;
	if (ours == base && ours && !membership_changes_apply(&map, m->map, changes))
		membership_take_view(m, map);
	else if (!m->renewing && !m->left)
		(void)env_arm(m->env, &m->renew_timer, 0);
}

/* The one place where the lease changes. */
static void set_lease(struct membership *m, nsec_t until)
{
	nsec_t now = env_now(m->env);
	bool held = until > now;

	m->lease_until = until;
	if (held)
		(void)env_arm(m->env, &m->lease_timer, until - now);
	if (held && m->events->on_renewed)
		m->events->on_renewed(m->owner, until);
	if (held == m->lease_told && m->told)
		return;
	m->lease_told = held;
	m->told = true;
	if (held)
		log_info("the lease is held");
	else if (!m->left)
		log_warning("the lease has ended, renewing it");
	m->events->on_lease(m->owner, held);
}

static void on_lease_timer(struct env_timer *timer)
{
	struct membership *m = container_of(timer, struct membership, lease_timer);

	set_lease(m, m->lease_until);
}

static void renew_again(struct membership *m, nsec_t after_last)
{
	nsec_t next = m->sent_at + after_last, now = env_now(m->env);

	(void)env_arm(m->env, &m->renew_timer, next > now ? next - now : 0);
}

static void on_renew_timer(struct env_timer *timer)
{
	struct membership *m = container_of(timer, struct membership, renew_timer);
	struct membership_node *self =
		m->map ? membership_map_member(m->map, m->config.self) : NULL;
	struct membership_renewal renewal = {
		.start = m->start,
		.incarnation = m->incarnation,
		.epoch = m->map ? m->map->view->epoch : 0,
	};

	if (m->renewing || m->left)
		return;
	renewal.load = membership_own_load(m);
	membership_reach_look(m, &renewal.unreached);
	if (self)
		self->load = renewal.load;
	m->sent_at = env_now(m->env);
	if (membership_wire_renew(m, &renewal))
		renew_again(m, m->config.lease / RETRY_FRACTION);
}

/* @view may be NULL. */
static void take_copy(struct membership *m, const struct membership_map *view)
{
	struct membership_map *copy = NULL;

	if (view && !membership_map_copy(&copy, view))
		membership_take_view(m, copy);
}

/* The answer may be older than what a view has decided since, or this node itself. */
static bool may_take_lease(const struct membership *m)
{
	const struct membership_node *self = membership_node(m, m->config.self);

	return self && membership_state_is_up(self->state) && !m->left && !m->given_up;
}

static void take_renewed(struct membership *m, const struct membership_renewed *renewed)
{
	m->incarnation = renewed->incarnation;
	m->cut_from = renewed->cut_from;
	take_copy(m, renewed->view);
	/* No lease without the view that it is for. */
	if (!m->map || m->map->view->epoch < renewed->epoch)
		return;
	for (size_t i = 0; i < renewed->n_loads; i++) {
		struct membership_node *n =
			membership_map_member(m->map, renewed->loads[i].node);

		if (n)
			n->load = renewed->loads[i].load;
	}
	if (renewed->lease && renewed->lease <= LEASE_MAX && may_take_lease(m))
		set_lease(m, m->sent_at + renewed->lease);
}

void membership_on_renewed(struct membership *m, enum rpc_status status, const char *text,
			   const struct membership_renewed *renewed)
{
	m->renewing = NULL;
	if (status == RPC_OK && renewed->leader != NODE_NONE) {
		take_copy(m, renewed->view);
		membership_find_referred(m, renewed->leader);
		renew_again(m, m->config.lease / RETRY_FRACTION);
		return;
	}
	if (status == RPC_OK) {
		take_renewed(m, renewed);
		renew_again(m, m->config.lease / RENEW_FRACTION);
		return;
	}
	log_debug("the lease was not renewed: %s, trying again", text);
	if (status == RPC_STALE)
		m->incarnation = 0;
	else
		membership_find_failed(m);
	m->sent_at = env_now(m->env);
	renew_again(m, m->config.lease / RETRY_FRACTION);
}

int membership_leave(struct membership *m, void (*done)(void *owner), void *owner)
{
	int r;

	if (m->left)
		return err_origin(-EALREADY);
	r = membership_wire_leave(m);
	if (r)
		return err_fold(r);
	m->left = done;
	m->left_owner = owner;
	if (m->renewing)
		rpc_cancel(m->rpc, TAKE(m->renewing));
	env_disarm(m->env, &m->renew_timer);
	/* From now on this node does not act; the owner is told when the loop turns. */
	m->lease_until = 0;
	(void)env_arm(m->env, &m->lease_timer, 0);
	return 0;
}

void membership_on_left(struct membership *m, enum rpc_status status, const char *text)
{
	m->leaving = NULL;
	if (status != RPC_OK)
		log_warning("leaving was not confirmed: %s, stopping anyway", text);
	m->left(m->left_owner);
}

int membership_want_pids(struct membership *m)
{
	if (m->wanting)
		return 0;
	if (!m->map)
		return MEMBERSHIP_E_NO_VIEW;
	if (!membership_map_lease_size(m->map, m->config.self, 0))
		return MEMBERSHIP_E_EXHAUSTED;
	return membership_wire_want_pids(m, membership_map_count_pids(m->map, m->config.self));
}

void membership_on_wanted(struct membership *m, enum rpc_status status, const char *text)
{
	m->wanting = NULL;
	/* The leader has said so once; the node asks again whenever it runs low. */
	if (status == RPC_CONFLICT)
		log_debug("no more PIDs from the leader: %s", text);
	else if (status != RPC_OK)
		log_warning("no more PIDs from the leader: %s", text);
}

const struct membership_view *membership_view(const struct membership *m)
{
	return m->map ? m->map->view : NULL;
}

const struct membership_node *membership_node(const struct membership *m, node_id id)
{
	return m->map ? membership_map_member(m->map, id) : NULL;
}

struct membership_load membership_own_load(const struct membership *m)
{
	struct membership_load load = {0};

	if (m->events->get_load)
		m->events->get_load(m->owner, &load);
	return load;
}

const struct membership_node *membership_node_by_name(const struct membership *m,
						      const char *name)
{
	return m->map ? membership_map_member_by_name(m->map, name) : NULL;
}

bool membership_lease_held(const struct membership *m)
{
	return env_now(m->env) < m->lease_until;
}

bool membership_is_up(const struct membership *m, node_id id)
{
	const struct membership_node *n = membership_node(m, id);

	return n && membership_state_is_up(n->state);
}

const char *membership_refusal(const struct membership *m, node_id id, char *text, size_t size)
{
	static const char *const why[] = {
		[MEMBER_JOINING] = "has not been up yet",
		[MEMBER_LOST] = "is lost",
		[MEMBER_LEFT] = "has left the cluster",
		[MEMBER_LEAVING] = "is being removed",
		[MEMBER_REMOVED] = "is removed, ssi_add_nodes brings it back",
	};
	const struct membership_node *n = membership_node(m, id);

	if (n && n->state == MEMBER_UP && !n->witness)
		return NULL;
	(void)snprintf(text, size, "%s %s", n ? n->name : "it",
		       !n ? "is no member of the cluster" :
		       n->witness ? "is a witness, which runs no programs" :
				    why[n->state]);
	return text;
}

bool membership_leads(const struct membership *m)
{
	return m->leader;
}

node_id membership_home(const struct membership *m, pid_t pid)
{
	return m->map ? membership_map_home(m->map, pid) : NODE_NONE;
}
