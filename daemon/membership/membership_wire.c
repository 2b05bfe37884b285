/*
 * Between nodes and in the store: protobuf <-> native.
 *
 * Happy path: a handler checks who sends, converts, and calls the core; a reply
 * is converted and given to membership.c.
 *
 * Failure modes: a map or view that cannot be (ids out of order, blocks that
 * overlap, names twice) is refused here, whoever sends it.
 */
#include "membership_internal.h"

#include "envelope.pb-c.h"
#include "err.h"
#include "log.h"
#include "membership.pb-c.h"

#include <string.h>

/* A message of a map: its arrays are freed together. */
struct view_message {
	Ssi__Membership__View view;
	Ssi__Membership__Member *members, **member_list;
	Ssi__Membership__History *histories;
	Ssi__Membership__PidBlock *blocks, **block_list;
};

static void view_message_fini(struct view_message *v)
{
	free(v->members);
	free(v->member_list);
	free(v->histories);
	free(v->blocks);
	free(v->block_list);
}

static Ssi__Membership__History *fill_history(const struct membership_history *h,
					       Ssi__Membership__History *ret)
{
	ssi__membership__history__init(ret);
	ret->losses = h->losses;
	ret->first_ms = h->first == h->up ? 0 : h->first / NSEC_PER_MSEC;
	ret->changed_ms = h->changed == h->up ? 0 : h->changed / NSEC_PER_MSEC;
	ret->lost_ms = h->lost / NSEC_PER_MSEC;
	ret->up_ms = h->up / NSEC_PER_MSEC;
	ret->left_ms = h->left / NSEC_PER_MSEC;
	ret->lost_for_ms = h->lost_for / NSEC_PER_MSEC;
	ret->left_for_ms = h->left_for / NSEC_PER_MSEC;
	return ret;
}

static void fill_members(struct view_message *v, const struct membership_map *map, bool whole)
{
	for (size_t i = 0; i < map->view->n_nodes; i++) {
		struct membership_node *n = &map->view->nodes[i];
		Ssi__Membership__Member *p = v->member_list[i] = &v->members[i];

		ssi__membership__member__init(p);
		p->id = n->id;
		p->name = n->name;
		p->address = n->address;
		p->state = (Ssi__Membership__MemberState)n->state;
		p->incarnation = n->incarnation;
		p->start = whole ? map->starts[i] : 0;
		p->voter = n->voter;
		p->since = n->since;
		p->history = fill_history(&n->history, &v->histories[i]);
		p->witness = n->witness;
	}
}

static void fill_blocks(struct view_message *v, const struct membership_map *map)
{
	for (size_t i = 0; i < map->n_blocks; i++) {
		Ssi__Membership__PidBlock *p = v->block_list[i] = &v->blocks[i];

		ssi__membership__pid_block__init(p);
		p->first = (uint32_t)map->blocks[i].first;
		p->count = map->blocks[i].count;
		p->node = map->blocks[i].node;
	}
}

/* @whole: with what only the leader keeps. */
static int view_message_init(struct view_message *v, const struct membership_map *map,
			     bool whole)
{
	size_t n = map->view->n_nodes;

	*v = (struct view_message){
		.members = calloc(n + 1, sizeof(*v->members)),
		.member_list = calloc(n + 1, sizeof(*v->member_list)),
		.histories = calloc(n + 1, sizeof(*v->histories)),
		.blocks = calloc(map->n_blocks + 1, sizeof(*v->blocks)),
		.block_list = calloc(map->n_blocks + 1, sizeof(*v->block_list)),
	};
	if (!v->members || !v->member_list || !v->histories || !v->blocks || !v->block_list)
		return err_origin(-ENOMEM);
	ssi__membership__view__init(&v->view);
	v->view.epoch = map->view->epoch;
	v->view.leader = map->view->leader;
	v->view.next_id = whole ? map->next_id : 0;
	v->view.lease_ns = whole ? map->lease : 0;
	v->view.n_members = n;
	v->view.members = v->member_list;
	v->view.n_blocks = map->n_blocks;
	v->view.blocks = v->block_list;
	fill_members(v, map, whole);
	fill_blocks(v, map);
	return 0;
}

/* A map of before there were histories has none: nobody was ever lost. */
static struct membership_history take_history(const Ssi__Membership__History *p)
{
	if (!p)
		return (struct membership_history){ 0 };
	return (struct membership_history){
		.losses = p->losses,
		.first = (p->first_ms ? p->first_ms : p->up_ms) * NSEC_PER_MSEC,
		.changed = (p->changed_ms ? p->changed_ms : p->up_ms) * NSEC_PER_MSEC,
		.lost = p->lost_ms * NSEC_PER_MSEC,
		.up = p->up_ms * NSEC_PER_MSEC,
		.left = p->left_ms * NSEC_PER_MSEC,
		.lost_for = p->lost_for_ms * NSEC_PER_MSEC,
		.left_for = p->left_for_ms * NSEC_PER_MSEC,
	};
}

static int add_member(struct membership_map *map, const Ssi__Membership__Member *p)
{
	struct membership_node *n;
	int r;

	if (strlen(p->name) >= sizeof(n->name) || strlen(p->address) >= sizeof(n->address) ||
	    p->state < 0 || p->state > SSI__MEMBERSHIP__MEMBER_STATE__REMOVED)
		return err_origin(-EBADMSG);
	r = membership_map_add_member(map, p->id, p->name, p->address, &n);
	if (r)
		return err_fold(r);
	n->state = (enum member_state)p->state;
	n->incarnation = p->incarnation;
	n->voter = p->voter;
	n->since = p->since;
	n->history = take_history(p->history);
	n->witness = p->witness;
	map->starts[map->view->n_nodes - 1] = p->start;
	return 0;
}

/* Without a look at whether it can be. */
static int parts_from_message(const Ssi__Membership__View *v, struct membership_map **ret)
{
	_cleanup_(membership_map_freep) struct membership_map *map = NULL;
	int r;

	r = membership_map_new(&map, v->leader);
	if (r)
		return err_fold(r);
	map->view->epoch = v->epoch;
	map->next_id = v->next_id;
	map->lease = v->lease_ns;
	for (size_t i = 0; i < v->n_members && !r; i++)
		r = add_member(map, v->members[i]);
	for (size_t i = 0; i < v->n_blocks && !r; i++) {
		const Ssi__Membership__PidBlock *b = v->blocks[i];
		struct membership_block block = { (pid_t)b->first, b->count, b->node };

		if (b->first >= MEMBERSHIP_PID_MAX)
			return err_origin(-EBADMSG);
		r = membership_map_add_block(map, &block);
	}
	if (r)
		return err_fold(r);
	if (!map->view->epoch)
		return err_origin(-EBADMSG);
	*ret = TAKE(map);
	return 0;
}

static int from_message(const Ssi__Membership__View *v, struct membership_map **ret)
{
	_cleanup_(membership_map_freep) struct membership_map *map = NULL;
	int r;

	r = parts_from_message(v, &map);
	if (r)
		return err_fold(r);
	if (!membership_map_is_valid(map))
		return err_origin(-EBADMSG);
	*ret = TAKE(map);
	return 0;
}

int membership_wire_map_pack(const struct membership_map *map, uint8_t **ret, size_t *ret_len)
{
	_cleanup_(view_message_fini) struct view_message v;
	uint8_t *data;
	int r;

	r = view_message_init(&v, map, true);
	if (r)
		return err_fold(r);
	data = malloc(ssi__membership__view__get_packed_size(&v.view) + 1);
	if (!data)
		return err_origin(-ENOMEM);
	*ret_len = ssi__membership__view__pack(&v.view, data);
	*ret = data;
	return 0;
}

static void view_freep(Ssi__Membership__View **view)
{
	if (*view)
		ssi__membership__view__free_unpacked(*view, NULL);
}

int membership_wire_map_unpack(struct iovec bytes, struct membership_map **ret)
{
	_cleanup_(view_freep) Ssi__Membership__View *view = NULL;

	view = ssi__membership__view__unpack(NULL, bytes.iov_len, bytes.iov_base);
	if (!view)
		return err_origin(-EBADMSG);
	return from_message(view, ret);
}

static void load_to_message(const struct membership_load *load, node_id node,
			    Ssi__Membership__Load *ret)
{
	ssi__membership__load__init(ret);
	ret->node = node;
	ret->cpus = load->n_cpus;
	ret->running = load->running;
	ret->memory_total = load->memory_total;
	ret->memory_available = load->memory_available;
	ret->processes = load->n_processes;
	ret->store_error = load->store_error;
}

static struct membership_load load_from_message(const Ssi__Membership__Load *p)
{
	return (struct membership_load){
		.n_cpus = p->cpus,
		.running = p->running,
		.memory_total = p->memory_total,
		.memory_available = p->memory_available,
		.n_processes = p->processes,
		.store_error = p->store_error,
	};
}

/* Requests to the leader, and their replies. */

static void on_renewed(void *owner, const struct rpc_result *result)
{
	const Ssi__Membership__RenewReply *p = (const void *)result->reply;
	_cleanup_(membership_map_freep) struct membership_map *view = NULL;
	struct membership_renewed renewed;

	if (result->status == RPC_OK || result->answered)
		membership_trouble_answered(owner);
	else
		membership_trouble_unanswered(owner, result->text);
	if (result->status != RPC_OK) {
		membership_on_renewed(owner, result->status, result->text, NULL);
		return;
	}
	renewed = (struct membership_renewed){
		.epoch = p->epoch,
		.incarnation = p->incarnation,
		.lease = p->lease_ns,
		.leader = p->leader,
		.cut_from = p->cut_from,
	};
	if (p->view && from_message(p->view, &view)) {
		membership_on_renewed(owner, RPC_FAILED, "the leader's view is not one", NULL);
		return;
	}
	renewed.view = view;
	for (size_t i = 0; i < p->n_loads && i < MEMBERSHIP_MAX_LOADS; i++) {
		renewed.loads[i].node = p->loads[i]->node;
		renewed.loads[i].load = load_from_message(p->loads[i]);
		renewed.n_loads++;
	}
	membership_on_renewed(owner, RPC_OK, "", &renewed);
}

int membership_wire_renew(struct membership *m, const struct membership_renewal *renewal)
{
	Ssi__Membership__RenewRequest q = SSI__MEMBERSHIP__RENEW_REQUEST__INIT;
	Ssi__Membership__Load load;

	load_to_message(&renewal->load, m->config.self, &load);
	q.start = renewal->start;
	q.incarnation = renewal->incarnation;
	q.epoch = renewal->epoch;
	q.load = &load;
	q.n_unreached = renewal->unreached.n;
	q.unreached = (uint32_t *)renewal->unreached.nodes;
	m->asked = membership_find_target(m);
	return rpc_call(m->rpc, m->asked, MEMBERSHIP_RENEW, &q.base, RPC_NO_BULK,
			m->config.lease / 4, on_renewed, m, &m->renewing);
}

static void on_left(void *owner, const struct rpc_result *result)
{
	membership_on_left(owner, result->status, result->text);
}

int membership_wire_leave(struct membership *m)
{
	Ssi__Membership__LeaveRequest q = SSI__MEMBERSHIP__LEAVE_REQUEST__INIT;

	q.start = m->start;
	return rpc_call(m->rpc, membership_find_target(m), MEMBERSHIP_LEAVE, &q.base, RPC_NO_BULK,
			NSEC_PER_SEC, on_left, m, &m->leaving);
}

static void on_wanted(void *owner, const struct rpc_result *result)
{
	membership_on_wanted(owner, result->status, result->text);
}

int membership_wire_want_pids(struct membership *m, uint32_t pids)
{
	Ssi__Membership__WantPidsRequest q = SSI__MEMBERSHIP__WANT_PIDS_REQUEST__INIT;

	q.pids = pids;
	return rpc_call(m->rpc, membership_find_target(m), MEMBERSHIP_WANT_PIDS, &q.base, RPC_NO_BULK,
			2 * NSEC_PER_SEC, on_wanted, m, &m->wanting);
}

struct token_request {
	membership_token_cb done;
	void *owner;
};

static void on_token(void *owner, const struct rpc_result *result)
{
	_cleanup_free_ struct token_request *t = owner;
	const Ssi__Membership__NewTokenReply *p = (const void *)result->reply;

	if (result->status == RPC_OK)
		t->done(t->owner, 0, p->token);
	else
		t->done(t->owner, MEMBERSHIP_E_NOT_LEADER, NULL);
}

int membership_wire_new_token(struct membership *m, nsec_t lifetime, membership_token_cb done,
			      void *owner)
{
	Ssi__Membership__NewTokenRequest q = SSI__MEMBERSHIP__NEW_TOKEN_REQUEST__INIT;
	_cleanup_free_ struct token_request *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return err_origin(-ENOMEM);
	*t = (struct token_request){ done, owner };
	q.lifetime_ns = lifetime;
	r = rpc_call(m->rpc, membership_find_target(m), MEMBERSHIP_NEW_TOKEN, &q.base,
		     RPC_NO_BULK, 2 * NSEC_PER_SEC, on_token, t, NULL);
	if (r)
		return err_fold(r);
	TAKE(t);
	return 0;
}

/* Who did not hear it gets the view with its next renewal. */
static void on_told(void *owner, const struct rpc_result *result)
{
	(void)owner;
	(void)result;
}

/* rpc remembers whether somebody answered. */
static void on_probed(void *owner, const struct rpc_result *result)
{
	(void)owner;
	(void)result;
}

void membership_wire_probe(struct membership *m, node_id node)
{
	Ssi__Membership__ProbeRequest q = SSI__MEMBERSHIP__PROBE_REQUEST__INIT;

	(void)rpc_call(m->rpc, node, MEMBERSHIP_PROBE, &q.base, RPC_NO_BULK, m->config.lease / 4,
		       on_probed, m, NULL);
}

int membership_wire_tell(struct membership *m, node_id node, const struct membership_map *map,
			 epoch_t base)
{
	_cleanup_(view_message_fini) struct view_message v;
	Ssi__Membership__TellRequest q = SSI__MEMBERSHIP__TELL_REQUEST__INIT;
	int r;

	r = view_message_init(&v, map, false);
	if (r)
		return err_fold(r);
	if (base)
		q.changes = &v.view;
	else
		q.view = &v.view;
	q.before = base;
	return rpc_call(m->rpc, node, MEMBERSHIP_TELL, &q.base, RPC_NO_BULK, NSEC_PER_SEC,
			on_told, m, NULL);
}

/* Requests from members. */

static bool is_leader(struct membership *m, struct rpc_call *call)
{
	if (m->leader)
		return true;
	rpc_fail(call, RPC_DOWN, "node %s does not lead", m->name);
	return false;
}

void membership_wire_renewed(struct rpc_call *call, const struct membership_renewed *renewed)
{
	_cleanup_(view_message_fini) struct view_message v = { 0 };
	Ssi__Membership__RenewReply p = SSI__MEMBERSHIP__RENEW_REPLY__INIT;
	Ssi__Membership__Load loads[MEMBERSHIP_MAX_LOADS], *list[MEMBERSHIP_MAX_LOADS];

	if (renewed->view) {
		if (view_message_init(&v, renewed->view, false)) {
			rpc_fail(call, RPC_FAILED, "out of memory");
			return;
		}
		p.view = &v.view;
	}
	p.epoch = renewed->epoch;
	p.incarnation = renewed->incarnation;
	p.lease_ns = renewed->lease;
	p.leader = renewed->leader;
	p.cut_from = renewed->cut_from;
	for (size_t i = 0; i < renewed->n_loads; i++) {
		list[i] = &loads[i];
		load_to_message(&renewed->loads[i].load, renewed->loads[i].node, list[i]);
	}
	p.n_loads = renewed->n_loads;
	p.loads = list;
	rpc_reply(call, &p.base, RPC_NO_BULK);
}

/* We do not lead: who does?  The view tells where that is. */
static void refer(struct membership *m, struct rpc_call *call, epoch_t epoch)
{
	struct membership_renewed renewed = { .leader = consensus_leader(m->consensus) };
	const struct membership_map *map = m->state->map;

	/* Who is no server knows what it was told. */
	if (m->map && m->map->view->epoch > map->view->epoch)
		map = m->map;
	/* Who was removed is answered as well, and may be the only one left to say so. */
	if (renewed.leader == NODE_NONE &&
	    (membership_lease_held(m) || membership_has_answered(m, map->view->leader)))
		renewed.leader = map->view->leader;
	if (map->view->epoch > epoch)
		renewed.view = map;
	if (renewed.leader == NODE_NONE || renewed.leader == m->config.self)
		rpc_fail(call, RPC_DOWN, "node %s knows no leader", m->name);
	else
		membership_wire_renewed(call, &renewed);
}

RPC_HANDLER(on_renew, struct membership, Ssi__Membership__RenewRequest)
{
	struct membership_renewal renewal = {
		.start = req->start,
		.incarnation = req->incarnation,
		.epoch = req->epoch,
	};

	if (req->load)
		renewal.load = load_from_message(req->load);
	for (size_t i = 0; i < req->n_unreached && i < MEMBERSHIP_MAX_UNREACHED; i++)
		renewal.unreached.nodes[renewal.unreached.n++] = req->unreached[i];
	if (self->leader)
		membership_leader_renew(self, call, &renewal);
	else
		refer(self, call, req->epoch);
}

void membership_wire_reply_empty(struct rpc_call *call)
{
	Ssi__Envelope__Empty empty = SSI__ENVELOPE__EMPTY__INIT;

	rpc_reply(call, &empty.base, RPC_NO_BULK);
}

RPC_HANDLER(on_leave, struct membership, Ssi__Membership__LeaveRequest)
{
	if (is_leader(self, call))
		membership_leader_leave(self, call, req->start);
}

RPC_HANDLER(on_want_pids, struct membership, Ssi__Membership__WantPidsRequest)
{
	if (is_leader(self, call))
		membership_leader_want_pids(self, call, req->pids);
}

static void on_token_made(void *owner, int result, const char *token)
{
	Ssi__Membership__NewTokenReply p = SSI__MEMBERSHIP__NEW_TOKEN_REPLY__INIT;

	if (result) {
		rpc_fail(owner, RPC_DOWN, "the leader changes, try again");
		return;
	}
	p.token = (char *)token;
	rpc_reply(owner, &p.base, RPC_NO_BULK);
}

RPC_HANDLER(on_new_token, struct membership, Ssi__Membership__NewTokenRequest)
{
	if (!is_leader(self, call))
		return;
	if (membership_new_token(self, req->lifetime_ns, on_token_made, call))
		rpc_fail(call, RPC_FAILED, "no token can be made");
}

RPC_HANDLER(on_probe, struct membership, Ssi__Membership__ProbeRequest)
{
	membership_wire_reply_empty(call);
}

RPC_HANDLER(on_tell, struct membership, Ssi__Membership__TellRequest)
{
	_cleanup_(membership_map_freep) struct membership_map *map = NULL;
	int r = -EBADMSG;

	if (req->changes)
		r = parts_from_message(req->changes, &map);
	else if (req->view)
		r = from_message(req->view, &map);
	if (r) {
		rpc_fail(call, RPC_USAGE, "not a view");
		return;
	}
	/* Whoever tells it: a view that is told was committed. */
	if (req->changes)
		membership_take_changes(self, req->before, map);
	else
		membership_take_view(self, TAKE(map));
	membership_wire_reply_empty(call);
}

const struct rpc_method membership_methods[] = {
	RPC_METHOD(MEMBERSHIP_RENEW, on_renew, ssi__membership__renew_request__descriptor,
		   ssi__membership__renew_reply__descriptor),
	RPC_METHOD(MEMBERSHIP_LEAVE, on_leave, ssi__membership__leave_request__descriptor,
		   ssi__envelope__empty__descriptor),
	RPC_METHOD(MEMBERSHIP_WANT_PIDS, on_want_pids,
		   ssi__membership__want_pids_request__descriptor,
		   ssi__envelope__empty__descriptor),
	RPC_METHOD(MEMBERSHIP_TELL, on_tell, ssi__membership__tell_request__descriptor,
		   ssi__envelope__empty__descriptor),
	RPC_METHOD(MEMBERSHIP_NEW_TOKEN, on_new_token,
		   ssi__membership__new_token_request__descriptor,
		   ssi__membership__new_token_reply__descriptor),
	RPC_METHOD(MEMBERSHIP_PROBE, on_probe, ssi__membership__probe_request__descriptor,
		   ssi__envelope__empty__descriptor),
	{ 0 },
};
