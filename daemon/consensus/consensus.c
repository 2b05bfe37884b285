/*
 * The room: libraft's life, who leads, proposals, what the owner is told.
 *
 * Happy path: the store is read, libraft starts; ticks, messages and durable writes
 * move it.  After each of these consensus_leave() looks what has become of it: a new
 * leader proposes a barrier, and leads for the owner when that is applied.  All but
 * apply, snapshot and restore is told when the loop turns, with libraft off the stack.
 *
 * Failure modes: the store fails, or libraft gives up -> this instance ends (what was
 * proposed ends with CONSENSUS_E_LOST), and after a while the next reads the store;
 * what the owner has applied already is not applied again.  The store is damaged at the
 * start -> -EBADMSG; later -> this node takes no part until it is started again.
 */
#include "consensus_internal.h"

#include "err.h"
#include "log.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

bool consensus_is_ready(const struct consensus *c)
{
	return c->open && !c->broken && c->leading && c->raft.state == RAFT_LEADER &&
	       c->term_led == c->raft.current_term;
}

static const struct consensus_server *self_of(const struct consensus *c)
{
	return consensus_servers_find(&consensus_servers_last(c)->servers,
				      c->config.self);
}

/* A standby hears of no election: it forgets a silent leader by itself. */
static node_id leader_of(struct consensus *c)
{
	const struct consensus_server *self = self_of(c);
	const char *address;
	raft_id id;

	if (!c->open || !self)
		return NODE_NONE;
	raft_leader(&c->raft, &id, &address);
	if (self->role != CONSENSUS_VOTER &&
	    env_now(c->env) - c->leader_heard > 2 * c->config.election_timeout)
		return NODE_NONE;
	return (node_id)id;
}

void consensus_turn(struct consensus *c)
{
	if (!c->turn.due)
		(void)env_arm(c->env, &c->turn, 0);
}

/* The state machine, as libraft sees it. */

static int on_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
	struct consensus *c = fsm->data;
	uint64_t index = c->raft.last_applied + 1;

	*result = NULL;
	if (index <= c->applied)
		return 0;
	c->applied = index;
	c->events->apply(c->owner, index, (struct iovec){buf->base, buf->len});
	return 0;
}

/* RAFT_BUSY: not now. */
static int on_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[],
		       unsigned *n_bufs)
{
	struct consensus *c = fsm->data;
	struct iovec state = {0};
	struct raft_buffer *buf;

	/* A later instance: the owner is ahead of it. */
	if (c->raft.last_applied < c->applied)
		return RAFT_BUSY;
	buf = raft_malloc(sizeof(*buf));
	if (!buf || c->events->snapshot(c->owner, &state)) {
		raft_free(buf);
		return RAFT_BUSY;
	}
	if (state.iov_len > CONSENSUS_SNAPSHOT_MAX) {
		log_error("the state of the cluster has %zu bytes, which no message "
			  "holds",
			  state.iov_len);
		free(state.iov_base);
		raft_free(buf);
		return RAFT_BUSY;
	}
	*buf = (struct raft_buffer){state.iov_base, state.iov_len};
	*bufs = buf;
	*n_bufs = 1;
	return 0;
}

static int on_snapshot_end(struct raft_fsm *fsm, struct raft_buffer *bufs[],
			   unsigned *n_bufs)
{
	for (unsigned i = 0; i < *n_bufs; i++)
		free((*bufs)[i].base);
	raft_free(*bufs);
	return 0;
}

static int on_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
	struct consensus *c = fsm->data;

	if (c->restoring > c->applied) {
		int r = c->events->restore(c->owner,
					   (struct iovec){buf->base, buf->len});

		if (r < 0) {
			log_error("the snapshot of entry %" PRIu64
				  " cannot be restored: %s",
				  c->restoring, strerror(-r));
			return RAFT_CORRUPT;
		}
		c->applied = c->restoring;
	}
	c->restoring = 0;
	raft_free(buf->base);
	return 0;
}

/* An instance of libraft. */

static void instance_end(struct consensus *c)
{
	c->inside++;
	c->open = false;
	raft_close(&c->raft, NULL);
	c->inside--;
	c->leading = c->holds = false;
	c->term_led = c->barrier_index = 0;
	c->matched_term = c->matched = 0;
	env_disarm(c->env, &c->ticker);
}

static int instance_begin(struct consensus *c)
{
	struct raft *r = &c->raft;
	int rv;

	consensus_io_init(c);
	c->fsm = (struct raft_fsm){.version = 2,
				   .data = c,
				   .apply = on_apply,
				   .snapshot = on_snapshot,
				   .restore = on_restore,
				   .snapshot_finalize = on_snapshot_end};
	*r = (struct raft){0};
	c->broken = false;
	if (raft_init(r, &c->io, &c->fsm, c->config.self, c->address))
		return err_origin(-ENOMEM);
	raft_set_election_timeout(
		r, (unsigned)(c->config.election_timeout / NSEC_PER_MSEC));
	raft_set_heartbeat_timeout(r, (unsigned)(c->config.heartbeat / NSEC_PER_MSEC));
	raft_set_install_snapshot_timeout(r, CONSENSUS_INSTALL / NSEC_PER_MSEC);
	raft_set_max_catch_up_round_duration(r, CONSENSUS_CATCH_UP / NSEC_PER_MSEC);
	raft_set_snapshot_threshold(r, c->config.snapshot_after);
	raft_set_snapshot_trailing(r, c->config.snapshot_keep);
	raft_set_pre_vote(r, true);
	c->inside++;
	rv = raft_start(r);
	c->inside--;
	if (rv) {
		instance_end(c);
		return err_origin(rv == RAFT_CORRUPT ? -EBADMSG
				  : rv == RAFT_NOMEM ? -ENOMEM
						     : -EIO);
	}
	c->open = true;
	consensus_enter(c);
	consensus_leave(c);
	return 0;
}

static void retry_later(struct consensus *c)
{
	(void)env_arm(c->env, &c->retry, c->backoff);
	c->backoff = 2 * c->backoff < CONSENSUS_BACKOFF_MAX ? 2 * c->backoff
							    : CONSENSUS_BACKOFF_MAX;
}

static void on_retry(struct env_timer *timer)
{
	struct consensus *c = container_of(timer, struct consensus, retry);
	int r;

	if (consensus_is_writing(c)) {
		(void)env_arm(c->env, &c->retry, CONSENSUS_BACKOFF_MIN);
		return;
	}
	r = instance_begin(c);
	if (r == -EBADMSG)
		log_error("this node takes no part in consensus until it is started "
			  "again");
	else if (r < 0)
		retry_later(c);
}

void consensus_break(struct consensus *c)
{
	c->broken = true;
}

/* Who leads. */

static void on_barrier(struct raft_barrier *req, int status)
{
	struct consensus *c = req->data;

	if (!status && c->term_led == c->raft.current_term)
		c->leading = true;
	free(req);
}

/* What earlier terms left is committed with it, and never without (consensus_guard.c).
 */
static void propose_barrier(struct consensus *c)
{
	struct raft_barrier *req;

	if (c->barrier_index || c->raft.transfer)
		return;
	req = calloc(1, sizeof(*req));
	if (!req)
		return; /* the next tick tries again */
	req->data = c;
	c->inside++;
	if (raft_barrier(&c->raft, req, on_barrier))
		free(req);
	else
		c->barrier_index = req->index;
	c->inside--;
}

static void look_at_leading(struct consensus *c)
{
	struct raft *r = &c->raft;
	const struct consensus_servers_at *last;

	if (r->state != RAFT_LEADER) {
		c->leading = false;
		c->term_led = c->barrier_index = 0;
		return;
	}
	if (c->term_led != r->current_term) {
		last = consensus_servers_last(c);
		c->leading = false;
		c->term_led = r->current_term;
		c->followed_before = c->followed;
		if (c->voted_term == c->term_led && c->voted > c->followed)
			c->followed_before = c->voted;
		c->barrier_index = 0;
		/* One change at a time, whoever began it. */
		r->configuration_uncommitted_index =
			last->index > r->last_applied ? last->index : 0;
	}
	propose_barrier(c);
}

void consensus_enter(struct consensus *c)
{
	/* Whatever comes now may end it. */
	if (c->open && c->raft.state == RAFT_LEADER)
		c->followed = env_now(c->env);
	c->inside++;
}

void consensus_leave(struct consensus *c)
{
	const struct consensus_server *self;

	if (--c->inside || !c->open)
		return;
	look_at_leading(c);
	if (c->raft.last_applied > c->applied)
		c->applied = c->raft.last_applied;
	consensus_servers_commit(c);
	if (c->servers_changed)
		consensus_servers_tell_rpc(c);
	if (c->broken || c->raft.state == RAFT_UNAVAILABLE) {
		instance_end(c);
		retry_later(c);
	}
	self = self_of(c);
	if (c->open && self && self->role != CONSENSUS_NONE && !c->ticker.due)
		(void)env_arm(c->env, &c->ticker, c->config.heartbeat);
	if (consensus_is_ready(c) != c->told_leading ||
	    (c->told_leading && c->told_term != c->term_led) ||
	    leader_of(c) != c->told_leader || (c->holds && !consensus_is_writing(c)))
		consensus_turn(c);
}

static void on_ticker(struct env_timer *timer)
{
	struct consensus *c = container_of(timer, struct consensus, ticker);

	consensus_enter(c);
	if (consensus_guard_tick(c))
		c->on_tick(&c->io);
	consensus_leave(c);
}

/* One more vote for this node: who gave it follows no earlier leader any more. */
static void note_vote(struct consensus *c, nsec_t followed,
		      const struct raft_request_vote_result *v)
{
	if (!v->vote_granted || v->pre_vote == raft_tribool_true ||
	    v->term != c->raft.current_term)
		return;
	if (c->voted_term != v->term || c->voted < followed)
		c->voted = followed;
	c->voted_term = v->term;
}

/* When what the other clock says was sent: an echo of ours, or kept to be one. */
static void note_sent(struct consensus *c, struct consensus_peer *peer, nsec_t sent,
		      const struct raft_message *m)
{
	if (m->type == RAFT_IO_APPEND_ENTRIES &&
	    m->append_entries.term >= c->raft.current_term) {
		c->taken_term = m->append_entries.term;
		c->taken = sent;
		c->followed = env_now(c->env);
	} else if (m->type == RAFT_IO_APPEND_ENTRIES_RESULT && peer &&
		   m->append_entries_result.term == c->raft.current_term &&
		   sent <= env_now(c->env)) {
		if (peer->followed_term != c->raft.current_term ||
		    peer->followed < sent)
			peer->followed = sent;
		peer->followed_term = c->raft.current_term;
	}
}

void consensus_receive(struct consensus *c, node_id from, const char *address,
		       nsec_t when, struct raft_message *m)
{
	struct consensus_peer *peer = consensus_peer(c, from);
	uint64_t last, last_term;

	if (!peer && address && *address &&
	    strlen(address) < sizeof(c->guest.address)) {
		c->guest.node = from;
		memcpy(c->guest.address, address, strlen(address) + 1);
		consensus_servers_tell_rpc(c);
		peer = consensus_peer(c, from);
	}
	m->server_id = from;
	m->server_address = address ? address : "";
	consensus_entries_last(m, &last, &last_term);
	if (last && m->type != RAFT_IO_REQUEST_VOTE)
		c->leader_heard = env_now(c->env);
	consensus_enter(c);
	if (consensus_guard_message(c, m)) {
		if (m->type == RAFT_IO_REQUEST_VOTE_RESULT)
			note_vote(c, when, &m->request_vote_result);
		else
			note_sent(c, peer, when, m);
		c->on_message(&c->io, m);
		consensus_guard_after(c, m, last, last_term);
	}
	consensus_leave(c);
}

/* Proposals. */

static void proposal_end(struct consensus_proposal *p, int result)
{
	struct consensus *c = p->c;

	p->result = result;
	TAILQ_INSERT_TAIL(&c->ended, p, in);
	consensus_turn(c);
}

static void on_applied(struct raft_apply *req, int status, void *result)
{
	struct consensus_proposal *p =
		container_of(req, struct consensus_proposal, apply);

	TAILQ_REMOVE(&p->c->proposed, p, in);
	proposal_end(p, status ? CONSENSUS_E_LOST : 0);
}

static int submit(struct consensus_proposal *p)
{
	struct consensus *c = p->c;
	int r;

	consensus_enter(c);
	TAILQ_INSERT_TAIL(&c->proposed, p, in);
	r = raft_apply(&c->raft, &p->apply, &p->command, 1, on_applied);
	if (r)
		TAILQ_REMOVE(&c->proposed, p, in);
	else
		p->command.base = NULL;
	consensus_leave(c);
	return !r ? 0 : r == RAFT_NOMEM ? err_origin(-ENOMEM) : CONSENSUS_E_NOT_LEADER;
}

static struct consensus_proposal *proposal_free(struct consensus_proposal *p)
{
	if (!p)
		return NULL;
	p->c->n_proposals--;
	raft_free(p->command.base);
	free(p);
	return NULL;
}

DEFINE_CLEANUP(struct consensus_proposal, proposal_free)

int consensus_propose(struct consensus *c, struct iovec command, consensus_done_cb done,
		      void *owner)
{
	_cleanup_(proposal_freep) struct consensus_proposal *p = NULL;
	int r;

	if (!consensus_leads(c))
		return CONSENSUS_E_NOT_LEADER;
	if (command.iov_len > CONSENSUS_COMMAND_MAX)
		return err_origin(-EMSGSIZE);
	if (c->n_proposals >= CONSENSUS_MAX_PROPOSALS)
		return -EAGAIN;
	p = calloc(1, sizeof(*p));
	if (!p)
		return err_origin(-ENOMEM);
	*p = (struct consensus_proposal){.c = c, .done = done, .owner = owner};
	c->n_proposals++;
	p->command =
		(struct raft_buffer){raft_malloc(command.iov_len + 1), command.iov_len};
	if (!p->command.base)
		return err_origin(-ENOMEM);
	if (command.iov_len)
		memcpy(p->command.base, command.iov_base, command.iov_len);
	if (c->inside) {
		TAILQ_INSERT_TAIL(&c->wanted, p, in);
		consensus_turn(c);
	} else {
		r = submit(p);
		if (r)
			return r;
	}
	(void)TAKE(p);
	return 0;
}

/* What the owner is told. */

static void submit_wanted(struct consensus *c)
{
	struct consensus_proposal *p;

	while ((p = TAILQ_FIRST(&c->wanted))) {
		int r = CONSENSUS_E_NOT_LEADER;

		TAILQ_REMOVE(&c->wanted, p, in);
		if (consensus_is_ready(c))
			r = submit(p);
		if (r)
			proposal_end(p, r < 0 ? r : CONSENSUS_E_LOST);
	}
}

static void tell_proposals(struct consensus *c)
{
	struct consensus_proposal_list ended = TAILQ_HEAD_INITIALIZER(ended);
	struct consensus_proposal *p;

	TAILQ_CONCAT(&ended, &c->ended, in);
	while ((p = TAILQ_FIRST(&ended))) {
		consensus_done_cb done = p->done;
		void *owner = p->owner;
		int result = p->result;

		TAILQ_REMOVE(&ended, p, in);
		(void)proposal_free(p);
		done(owner, result);
	}
}

static void tell_leading(struct consensus *c)
{
	uint64_t term;

	if (c->told_leading &&
	    (!consensus_is_ready(c) || c->told_term != c->term_led)) {
		term = c->told_term;
		c->told_leading = false;
		c->events->on_leading(c->owner, false, term);
	}
	if (!c->told_leading && consensus_is_ready(c)) {
		c->told_leading = true;
		c->told_term = term = c->term_led;
		c->events->on_leading(c->owner, true, term);
	}
}

static void on_turn(struct env_timer *timer)
{
	struct consensus *c = container_of(timer, struct consensus, turn);
	node_id leader;

	if (c->open) {
		consensus_enter(c);
		consensus_sends_tell(c);
		consensus_leave(c);
	}
	if (c->open && c->holds && !consensus_is_writing(c)) {
		struct raft_message held = c->held;

		c->holds = false;
		consensus_receive(c, (node_id)held.server_id, NULL, 0, &held);
	}
	submit_wanted(c);
	consensus_change_next(c);
	tell_proposals(c);
	consensus_change_tell(c);
	tell_leading(c);
	leader = leader_of(c);
	if (leader != c->told_leader) {
		c->told_leader = leader;
		c->events->on_leader(c->owner, leader);
	}
	if (c->told_servers != c->known.index) {
		c->told_servers = c->known.index;
		c->events->on_servers(c->owner);
	}
}

bool consensus_leads(const struct consensus *c)
{
	return c->told_leading && consensus_is_ready(c) && c->told_term == c->term_led;
}

node_id consensus_leader(const struct consensus *c)
{
	return c->told_leader;
}

uint64_t consensus_term(const struct consensus *c)
{
	return c->term;
}

const struct consensus_server *consensus_servers(const struct consensus *c,
						 size_t *ret_n)
{
	*ret_n = c->known.servers.n;
	return c->known.servers.of;
}

static int newest_first(const void *a, const void *b)
{
	nsec_t x = *(const nsec_t *)a, y = *(const nsec_t *)b;

	return (x < y) - (x > y);
}

nsec_t consensus_followed_at(const struct consensus *c)
{
	const struct consensus_servers *s = &consensus_servers_last(c)->servers;
	nsec_t followed[CONSENSUS_MAX_SERVERS];
	size_t n = 0;

	if (!consensus_leads(c))
		return 0;
	for (size_t i = 0; i < s->n; i++) {
		const struct consensus_peer *peer = NULL;

		if (s->of[i].role != CONSENSUS_VOTER)
			continue;
		for (size_t j = 0; j < c->n_peers; j++)
			if (c->peers[j].node == s->of[i].node)
				peer = &c->peers[j];
		followed[n++] = s->of[i].node == c->config.self ? env_now(c->env)
				: peer && peer->followed_term == c->term_led
					? peer->followed
					: 0;
	}
	qsort(followed, n, sizeof(*followed), newest_first);
	return n ? followed[n / 2] : 0;
}

nsec_t consensus_followed_before(const struct consensus *c)
{
	return c->followed_before;
}

/* Life. */

/* The first entry says who the servers are, and a term in which to write it. */
static int write_first(const struct store *store, uint64_t index, uint64_t term,
		       node_id self, const char *address)
{
	struct consensus_servers servers = {
		.n = 1, .of[0] = {.node = self, .role = CONSENSUS_VOTER}};
	uint8_t value[CONSENSUS_TERM_LEN], key[CONSENSUS_KEY_MAX];
	struct raft_entry entry = {.term = term, .type = RAFT_CHANGE};
	_cleanup_free_ void *bytes = NULL;
	struct store_change changes[2];
	int r;

	memcpy(servers.of[0].address, address, strlen(address) + 1);
	r = consensus_servers_pack(&servers, &entry.buf);
	if (r)
		return r;
	changes[0] = (struct store_change){{key, consensus_log_entry_key(index, key)},
					   consensus_log_entry_pack(index, &entry)};
	bytes = changes[0].value.iov_base;
	raft_free(entry.buf.base);
	if (!bytes)
		return err_origin(-ENOMEM);
	consensus_log_term_pack(term, self, value);
	changes[1] =
		(struct store_change){consensus_log_term_key(), {value, sizeof(value)}};
	r = store->ops->apply_now(store->impl, changes, 2);
	return r ? err_fold(r) : 0;
}

static int bootstrap(const struct consensus *c)
{
	_cleanup_(consensus_log_fini) struct consensus_log log = {0};
	int r = consensus_log_load(c->store, &log);

	if (r || !c->config.bootstrap || log.term || log.n_entries || log.has_snapshot)
		return r;
	return write_first(c->store, 1, 1, c->config.self, c->address);
}

static void set_defaults(struct consensus_config *config)
{
	if (!config->heartbeat)
		config->heartbeat = 100 * NSEC_PER_MSEC;
	if (!config->election_timeout)
		config->election_timeout = 500 * NSEC_PER_MSEC;
	if (!config->snapshot_after)
		config->snapshot_after = 256;
	if (!config->snapshot_keep)
		config->snapshot_keep = 64;
}

DEFINE_CLEANUP(struct consensus, consensus_free)

int consensus_new(struct consensus **ret, const struct env *env,
		  const struct store *store, struct rpc *rpc,
		  const struct consensus_config *config,
		  const struct consensus_events *events, void *owner)
{
	_cleanup_(consensus_freep) struct consensus *c = NULL;
	int r;

	if (strlen(config->address) >= sizeof(c->address))
		return err_origin(-EINVAL);
	c = calloc(1, sizeof(*c));
	if (!c)
		return err_origin(-ENOMEM);
	c->env = env;
	c->store = store;
	c->rpc = rpc;
	c->config = *config;
	set_defaults(&c->config);
	memcpy(c->address, config->address, strlen(config->address) + 1);
	c->config.address = c->address;
	c->events = events;
	c->owner = owner;
	c->ticker.cb = on_ticker;
	c->turn.cb = on_turn;
	c->retry.cb = on_retry;
	c->backoff = CONSENSUS_BACKOFF_MIN;
	c->followed = env_now(env); /* before that: nobody knows */
	STAILQ_INIT(&c->queued);
	STAILQ_INIT(&c->gets);
	STAILQ_INIT(&c->pending);
	TAILQ_INIT(&c->sends);
	TAILQ_INIT(&c->wanted);
	TAILQ_INIT(&c->proposed);
	TAILQ_INIT(&c->ended);
	r = bootstrap(c);
	if (!r)
		r = rpc_register(rpc, consensus_methods, c);
	if (r)
		return err_fold(r);
	r = instance_begin(c);
	if (r == -EBADMSG || r == -ENOMEM)
		return r;
	if (r)
		retry_later(c); /* a full disk: this node is up, and takes part later */
	*ret = TAKE(c);
	return 0;
}

static void free_all(struct consensus_proposal_list *list)
{
	struct consensus_proposal *p;

	while ((p = TAILQ_FIRST(list))) {
		TAILQ_REMOVE(list, p, in);
		(void)proposal_free(p);
	}
}

struct consensus *consensus_free(struct consensus *c)
{
	if (!c)
		return NULL;
	if (c->open)
		instance_end(c);
	consensus_writes_fini(c);
	consensus_servers_reset(c, NULL);
	free_all(&c->wanted);
	free_all(&c->proposed);
	free_all(&c->ended);
	env_disarm(c->env, &c->ticker);
	env_disarm(c->env, &c->turn);
	env_disarm(c->env, &c->retry);
	free(c);
	return NULL;
}

int consensus_recover(const struct store *store, node_id self, const char *address)
{
	_cleanup_(consensus_log_fini) struct consensus_log log = {0};
	int r;

	if (!*address ||
	    strlen(address) >= sizeof(((struct consensus_server *)0)->address))
		return err_origin(-EINVAL);
	r = consensus_log_load(store, &log);
	if (r)
		return r;
	if (!log.n_entries && !log.has_snapshot)
		return CONSENSUS_E_NOT_LEADER;
	return write_first(store, log.first + log.n_entries, log.term + 1, self,
			   address);
}
