/*
 * Raft's messages: protobuf <-> libraft's.
 *
 * Happy path: each is a call whose reply is empty and comes as soon as it was read.
 * An AppendRequest carries as many entries as its bounds allow; the rest follows when
 * the answer says how far it got.
 *
 * Failure modes: a message that cannot be (a term of 0, terms that go back, lengths
 * that do not add up, servers that are none) is refused with RPC_USAGE, whoever sent
 * it.  This server reads its store again -> RPC_CONFLICT, the sender tries again.
 */
#include "consensus_internal.h"

#include "consensus.pb-c.h"
#include "envelope.pb-c.h"
#include "err.h"

#include <string.h>

enum {
	METHOD_APPEND = RPC_ROOM_CONSENSUS << 8 | 1,
	METHOD_APPENDED = RPC_ROOM_CONSENSUS << 8 | 2,
	METHOD_VOTE = RPC_ROOM_CONSENSUS << 8 | 3,
	METHOD_VOTED = RPC_ROOM_CONSENSUS << 8 | 4,
	METHOD_SNAPSHOT = RPC_ROOM_CONSENSUS << 8 | 5,
	METHOD_TIMEOUT = RPC_ROOM_CONSENSUS << 8 | 6,
};

static const uint64_t NUMBER_MAX = UINT64_MAX / 4; /* sums do not overflow */

/* Out. */

struct out {
	struct consensus *c;
	node_id node;
	nsec_t timeout;
	rpc_done_cb done;
	void *owner;
	struct rpc_request **ret;
};

static int call(const struct out *o, uint16_t method, const ProtobufCMessage *q,
		struct iovec bulk)
{
	return rpc_call(o->c->rpc, o->node, method, q, bulk, o->timeout, o->done,
			o->owner, o->ret);
}

static bool is_to_wait(const struct consensus *c, const struct raft_append_entries *a,
		       unsigned i)
{
	return a->entries[i].type == RAFT_CHANGE &&
	       a->prev_log_index + 1 + i >
		       c->raft.last_stored; /* consensus_guard.c, 10 */
}

static unsigned n_entries_that_fit(const struct consensus *c,
				   const struct raft_append_entries *a,
				   size_t *ret_bytes)
{
	size_t bytes = 0;
	unsigned n = 0;

	while (n < a->n_entries && n < CONSENSUS_BATCH_ENTRIES &&
	       !is_to_wait(c, a, n) &&
	       (!n || bytes + a->entries[n].buf.len <= CONSENSUS_BATCH_BYTES))
		bytes += a->entries[n++].buf.len;
	*ret_bytes = bytes;
	return n;
}

static int send_append(const struct out *o, const struct raft_append_entries *a)
{
	Ssi__Consensus__AppendRequest q = SSI__CONSENSUS__APPEND_REQUEST__INIT;
	Ssi__Consensus__Entry entries[CONSENSUS_BATCH_ENTRIES],
		*list[CONSENSUS_BATCH_ENTRIES];
	_cleanup_free_ uint8_t *bytes = NULL;
	size_t len, at = 0;
	unsigned n = n_entries_that_fit(o->c, a, &len);

	bytes = malloc(len + 1);
	if (!bytes)
		return err_origin(-ENOMEM);
	for (unsigned i = 0; i < n; i++) {
		const struct raft_entry *e = &a->entries[i];

		ssi__consensus__entry__init(&entries[i]);
		entries[i].term = e->term;
		entries[i].type = e->type;
		entries[i].len = (uint32_t)e->buf.len;
		list[i] = &entries[i];
		if (e->buf.len)
			memcpy(bytes + at, e->buf.base, e->buf.len);
		at += e->buf.len;
	}
	q.term = a->term;
	q.prev_index = a->prev_log_index;
	q.prev_term = a->prev_log_term;
	q.commit = a->leader_commit;
	q.n_entries = n;
	q.entries = list;
	q.address = o->c->address;
	q.sent = env_now(o->c->env);
	return call(o, METHOD_APPEND, &q.base, (struct iovec){bytes, len});
}

static int send_appended(const struct out *o,
			 const struct raft_append_entries_result *a)
{
	Ssi__Consensus__AppendedRequest q = SSI__CONSENSUS__APPENDED_REQUEST__INIT;

	q.term = a->term;
	q.rejected = a->rejected;
	q.last_index = a->last_log_index;
	q.sent = o->c->taken_term == a->term ? o->c->taken : 0;
	return call(o, METHOD_APPENDED, &q.base, RPC_NO_BULK);
}

static int send_vote(const struct out *o, const struct raft_request_vote *v)
{
	Ssi__Consensus__VoteRequest q = SSI__CONSENSUS__VOTE_REQUEST__INIT;

	q.term = v->term;
	q.last_index = v->last_log_index;
	q.last_term = v->last_log_term;
	q.disrupt = v->disrupt_leader;
	q.pre_vote = v->pre_vote;
	q.address = o->c->address;
	return call(o, METHOD_VOTE, &q.base, RPC_NO_BULK);
}

static int send_voted(const struct out *o, const struct raft_request_vote_result *v)
{
	Ssi__Consensus__VotedRequest q = SSI__CONSENSUS__VOTED_REQUEST__INIT;

	q.term = v->term;
	q.granted = v->vote_granted;
	q.pre_vote = v->pre_vote == raft_tribool_true;
	q.followed_ago = env_now(o->c->env) - o->c->followed;
	return call(o, METHOD_VOTED, &q.base, RPC_NO_BULK);
}

static int send_snapshot(const struct out *o, const struct raft_install_snapshot *s)
{
	Ssi__Consensus__SnapshotRequest q = SSI__CONSENSUS__SNAPSHOT_REQUEST__INIT;
	struct raft_buffer servers;
	_cleanup_free_ uint8_t *bytes = NULL;
	size_t len;

	if (raft_configuration_encode(&s->conf, &servers))
		return err_origin(-ENOMEM);
	len = servers.len + s->data.len;
	bytes = malloc(len + 1);
	if (bytes) {
		memcpy(bytes, servers.base, servers.len);
		if (s->data.len)
			memcpy(bytes + servers.len, s->data.base, s->data.len);
	}
	q.servers_len = (uint32_t)servers.len;
	raft_free(servers.base);
	if (!bytes)
		return err_origin(-ENOMEM);
	q.term = s->term;
	q.last_index = s->last_index;
	q.last_term = s->last_term;
	q.servers_index = s->conf_index;
	q.address = o->c->address;
	return call(o, METHOD_SNAPSHOT, &q.base, (struct iovec){bytes, len});
}

static int send_timeout(const struct out *o, const struct raft_timeout_now *t)
{
	Ssi__Consensus__TimeoutRequest q = SSI__CONSENSUS__TIMEOUT_REQUEST__INIT;

	q.term = t->term;
	q.last_index = t->last_log_index;
	q.last_term = t->last_log_term;
	return call(o, METHOD_TIMEOUT, &q.base, RPC_NO_BULK);
}

int consensus_wire_send(struct consensus *c, node_id node, const struct raft_message *m,
			nsec_t timeout, rpc_done_cb done, void *owner,
			struct rpc_request **ret)
{
	struct out o = {c, node, timeout, done, owner, ret};

	switch (m->type) {
	case RAFT_IO_APPEND_ENTRIES:
		return send_append(&o, &m->append_entries);
	case RAFT_IO_APPEND_ENTRIES_RESULT:
		return send_appended(&o, &m->append_entries_result);
	case RAFT_IO_REQUEST_VOTE:
		return send_vote(&o, &m->request_vote);
	case RAFT_IO_REQUEST_VOTE_RESULT:
		return send_voted(&o, &m->request_vote_result);
	case RAFT_IO_INSTALL_SNAPSHOT:
		return send_snapshot(&o, &m->install_snapshot);
	case RAFT_IO_TIMEOUT_NOW:
		return send_timeout(&o, &m->timeout_now);
	default:
		return err_origin(-EINVAL);
	}
}

/* In. */

static bool is_position(uint64_t term, uint64_t index, uint64_t entry_term)
{
	return term && term < NUMBER_MAX && index < NUMBER_MAX && entry_term <= term &&
	       !index == !entry_term;
}

static void refuse(struct rpc_call *call)
{
	rpc_fail(call, RPC_USAGE, "not a message of consensus");
}

static void take(struct consensus *c, struct rpc_call *call, const char *address,
		 nsec_t sent, struct raft_message *m)
{
	Ssi__Envelope__Empty reply = SSI__ENVELOPE__EMPTY__INIT;
	node_id from = rpc_call_peer(call);

	if (!c->open || from == c->config.self) {
		consensus_message_fini(m);
		rpc_fail(call, RPC_CONFLICT, "the log is being read, try again");
		return;
	}
	rpc_reply(call, &reply.base, RPC_NO_BULK);
	consensus_receive(c, from, address, sent, m);
}

static bool is_entry(const Ssi__Consensus__Entry *e, uint64_t least_term,
		     uint64_t most_term, struct iovec data)
{
	struct consensus_servers servers;

	return e->term >= least_term && e->term && e->term <= most_term &&
	       (e->type == RAFT_COMMAND || e->type == RAFT_BARRIER ||
		(e->type == RAFT_CHANGE && !consensus_servers_unpack(data, &servers)));
}

/* One block for the data of all of them, as libraft frees it. */
static int unpack_entries(const Ssi__Consensus__AppendRequest *req, struct iovec bulk,
			  struct raft_append_entries *ret)
{
	uint64_t term = req->prev_term;
	struct raft_entry *entries;
	size_t at = 0;
	uint8_t *batch;

	if (!req->n_entries)
		return bulk.iov_len ? err_origin(-EBADMSG) : 0;
	if (req->n_entries > CONSENSUS_BATCH_ENTRIES)
		return err_origin(-EBADMSG);
	for (size_t i = 0; i < req->n_entries; i++) {
		const Ssi__Consensus__Entry *e = req->entries[i];

		if (e->len > bulk.iov_len - at ||
		    !is_entry(e, term, req->term,
			      (struct iovec){(uint8_t *)bulk.iov_base + at, e->len}))
			return err_origin(-EBADMSG);
		term = e->term;
		at += e->len;
	}
	if (at != bulk.iov_len)
		return err_origin(-EBADMSG);
	entries = raft_calloc(req->n_entries, sizeof(*entries));
	batch = raft_malloc(bulk.iov_len + 1);
	if (!entries || !batch) {
		raft_free(entries);
		raft_free(batch);
		return err_origin(-ENOMEM);
	}
	if (bulk.iov_len)
		memcpy(batch, bulk.iov_base, bulk.iov_len);
	at = 0;
	for (size_t i = 0; i < req->n_entries; i++) {
		const Ssi__Consensus__Entry *e = req->entries[i];

		entries[i] = (struct raft_entry){.term = e->term,
						 .type = (unsigned short)e->type,
						 .buf = {batch + at, e->len},
						 .batch = batch};
		at += e->len;
	}
	ret->entries = entries;
	ret->n_entries = (unsigned)req->n_entries;
	return 0;
}

RPC_HANDLER(on_append, struct consensus, Ssi__Consensus__AppendRequest)
{
	struct raft_message m = {.type = RAFT_IO_APPEND_ENTRIES};
	struct raft_append_entries *a = &m.append_entries;

	*a = (struct raft_append_entries){.term = req->term,
					  .prev_log_index = req->prev_index,
					  .prev_log_term = req->prev_term,
					  .leader_commit = req->commit};
	if (!is_position(req->term, req->prev_index, req->prev_term) ||
	    req->commit >= NUMBER_MAX || unpack_entries(req, bulk, a))
		refuse(call);
	else
		take(self, call, req->address, req->sent, &m);
}

RPC_HANDLER(on_appended, struct consensus, Ssi__Consensus__AppendedRequest)
{
	struct raft_message m = {.type = RAFT_IO_APPEND_ENTRIES_RESULT};

	m.append_entries_result =
		(struct raft_append_entries_result){.term = req->term,
						    .rejected = req->rejected,
						    .last_log_index = req->last_index};
	if (!req->term || req->term >= NUMBER_MAX || req->rejected >= NUMBER_MAX ||
	    req->last_index >= NUMBER_MAX || bulk.iov_len)
		refuse(call);
	else
		take(self, call, NULL, req->sent, &m);
}

RPC_HANDLER(on_vote, struct consensus, Ssi__Consensus__VoteRequest)
{
	struct raft_message m = {.type = RAFT_IO_REQUEST_VOTE};

	m.request_vote = (struct raft_request_vote){.term = req->term,
						    .candidate_id = rpc_call_peer(call),
						    .last_log_index = req->last_index,
						    .last_log_term = req->last_term,
						    .disrupt_leader = req->disrupt,
						    .pre_vote = req->pre_vote};
	if (!is_position(req->term, req->last_index, req->last_term) || bulk.iov_len)
		refuse(call);
	else
		take(self, call, req->address, 0, &m);
}

RPC_HANDLER(on_voted, struct consensus, Ssi__Consensus__VotedRequest)
{
	struct raft_message m = {.type = RAFT_IO_REQUEST_VOTE_RESULT};
	nsec_t now = env_now(self->env);

	m.request_vote_result = (struct raft_request_vote_result){
		.term = req->term,
		.vote_granted = req->granted,
		.pre_vote = req->pre_vote ? raft_tribool_true : raft_tribool_false,
	};
	if (!req->term || req->term >= NUMBER_MAX || bulk.iov_len)
		refuse(call);
	else
		take(self, call, NULL,
		     req->followed_ago < now ? now - req->followed_ago : 0, &m);
}

static int unpack_snapshot(const Ssi__Consensus__SnapshotRequest *req,
			   struct iovec bulk, struct raft_install_snapshot *ret)
{
	struct consensus_servers servers;
	uint8_t *state;
	int r;

	if (!is_position(req->term, req->last_index, req->last_term) ||
	    !req->last_index || !req->servers_index ||
	    req->servers_index > req->last_index || req->servers_len > bulk.iov_len)
		return err_origin(-EBADMSG);
	r = consensus_servers_unpack((struct iovec){bulk.iov_base, req->servers_len},
				     &servers);
	if (r)
		return r;
	ret->data.len = bulk.iov_len - req->servers_len;
	ret->data.base = state = raft_malloc(ret->data.len + 1);
	if (!state)
		return err_origin(-ENOMEM);
	memcpy(state, (uint8_t *)bulk.iov_base + req->servers_len, ret->data.len);
	r = consensus_servers_to(&servers, &ret->conf);
	if (r)
		raft_free(state);
	return r;
}

RPC_HANDLER(on_snapshot, struct consensus, Ssi__Consensus__SnapshotRequest)
{
	struct raft_message m = {.type = RAFT_IO_INSTALL_SNAPSHOT};
	struct raft_install_snapshot *s = &m.install_snapshot;

	*s = (struct raft_install_snapshot){.term = req->term,
					    .last_index = req->last_index,
					    .last_term = req->last_term,
					    .conf_index = req->servers_index};
	if (unpack_snapshot(req, bulk, s))
		refuse(call);
	else
		take(self, call, req->address, 0, &m);
}

RPC_HANDLER(on_timeout, struct consensus, Ssi__Consensus__TimeoutRequest)
{
	struct raft_message m = {.type = RAFT_IO_TIMEOUT_NOW};

	m.timeout_now = (struct raft_timeout_now){.term = req->term,
						  .last_log_index = req->last_index,
						  .last_log_term = req->last_term};
	if (!is_position(req->term, req->last_index, req->last_term) || bulk.iov_len)
		refuse(call);
	else
		take(self, call, NULL, 0, &m);
}

#define METHOD(id_, fn_, type_)                                                        \
	RPC_METHOD(id_, fn_, ssi__consensus__##type_##__descriptor,                    \
		   ssi__envelope__empty__descriptor)

const struct rpc_method consensus_methods[] = {
	METHOD(METHOD_APPEND, on_append, append_request),
	METHOD(METHOD_APPENDED, on_appended, appended_request),
	METHOD(METHOD_VOTE, on_vote, vote_request),
	METHOD(METHOD_VOTED, on_voted, voted_request),
	METHOD(METHOD_SNAPSHOT, on_snapshot, snapshot_request),
	METHOD(METHOD_TIMEOUT, on_timeout, timeout_request),
	{0},
};
