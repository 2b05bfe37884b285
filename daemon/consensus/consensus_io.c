/*
 * libraft's raft_io, of our store, our clock, our links.
 *
 * Happy path: load() reads the store; writes go through consensus_write.c, messages
 * through consensus_wire.c.  A message is told as sent when the other server has read
 * it, never inline.
 *
 * Failure modes: a message that cannot be sent, or is not read in time, is told as
 * failed: libraft sends later.  More than a few wait for one server -> the next fail at
 * once.  A term or vote cannot be written -> libraft hears of no error (it does not
 * live through all of them): this instance is mute from then on, and ends.
 */
#include "consensus_internal.h"

#include "err.h"
#include "log.h"

#include <string.h>

#define TIMEOUT (2 * NSEC_PER_SEC)

static struct consensus *of(struct raft_io *io)
{
	return io->impl;
}

static int on_init(struct raft_io *io, raft_id id, const char *address)
{
	return 0;
}

static void on_close(struct raft_io *io, raft_io_close_cb cb)
{
	struct consensus *c = of(io);

	consensus_sends_end(c);
	consensus_writes_end(c);
	cb(io);
}

/* Reading. */

static int to_snapshot(const struct consensus_log_snapshot *s,
		       struct raft_snapshot **ret)
{
	struct raft_snapshot *snapshot = raft_calloc(1, sizeof(*snapshot));

	if (!snapshot)
		return RAFT_NOMEM;
	snapshot->index = s->index;
	snapshot->term = s->term;
	snapshot->configuration_index = s->servers.index;
	snapshot->bufs = raft_calloc(1, sizeof(*snapshot->bufs));
	snapshot->n_bufs = 1;
	if (snapshot->bufs)
		snapshot->bufs[0] = (struct raft_buffer){
			raft_malloc(s->state.iov_len + 1), s->state.iov_len};
	if (!snapshot->bufs || !snapshot->bufs[0].base ||
	    consensus_servers_to(&s->servers.servers, &snapshot->configuration)) {
		if (snapshot->bufs)
			raft_free(snapshot->bufs[0].base);
		raft_free(snapshot->bufs);
		raft_free(snapshot);
		return RAFT_NOMEM;
	}
	memcpy(snapshot->bufs[0].base, s->state.iov_base, s->state.iov_len);
	*ret = snapshot;
	return 0;
}

/* Who the servers are, by the snapshot and the entries behind it. */
static int load_servers(struct consensus *c, const struct consensus_log *log)
{
	static const struct consensus_servers_at none;
	int r = 0;

	consensus_servers_reset(c, log->has_snapshot ? &log->snapshot.servers : &none);
	for (size_t i = 0; i < log->n_entries && !r; i++) {
		const struct raft_entry *e = &log->entries[i];

		if (e->type == RAFT_CHANGE && log->first + i > c->committed.index &&
		    (!log->has_snapshot || log->first + i > log->snapshot.index))
			r = consensus_servers_append(
				c, log->first + i,
				(struct iovec){e->buf.base, e->buf.len});
	}
	return r;
}

/* The only voter leads at once: in a term of its own (consensus_guard.c). */
static int begin_term(struct consensus *c)
{
	const struct consensus_servers *s = &consensus_servers_last(c)->servers;
	const struct consensus_server *self = consensus_servers_find(s, c->config.self);

	if (!self || self->role != CONSENSUS_VOTER || consensus_servers_n_voters(s) > 1)
		return 0;
	return consensus_write_term(c, c->term + 1, c->config.self);
}

static int on_load(struct raft_io *io, raft_term *term, raft_id *voted_for,
		   struct raft_snapshot **snapshot, raft_index *start_index,
		   struct raft_entry *entries[], size_t *n_entries)
{
	struct consensus *c = of(io);
	_cleanup_(consensus_log_fini) struct consensus_log log = {0};
	int r;

	r = consensus_log_load(c->store, &log);
	if (r)
		return r == -EBADMSG ? RAFT_CORRUPT : RAFT_IOERR;
	c->term = log.term;
	c->vote = log.vote;
	c->first = log.first;
	c->end = log.first + log.n_entries;
	if (load_servers(c, &log) || begin_term(c))
		return RAFT_IOERR;
	*snapshot = NULL;
	if (log.has_snapshot && to_snapshot(&log.snapshot, snapshot))
		return RAFT_NOMEM;
	c->restoring = log.has_snapshot ? log.snapshot.index : 0;
	*term = c->term;
	*voted_for = c->vote;
	*start_index = log.first;
	*n_entries = log.n_entries;
	*entries = TAKE(log.entries);
	log.n_entries = 0;
	return 0;
}

static int on_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick,
		    raft_io_recv_cb recv)
{
	struct consensus *c = of(io);

	c->on_tick = tick;
	c->on_message = recv;
	return 0;
}

/* consensus_new() and consensus_recover() write these. */
static int on_configuration(struct raft_io *io, const struct raft_configuration *conf)
{
	return RAFT_IOERR;
}

/* Writing. */

static int set(struct consensus *c, uint64_t term, uint64_t vote)
{
	if (!c->broken && consensus_write_term(c, term, vote) < 0)
		consensus_break(c);
	return 0;
}

static int on_set_term(struct raft_io *io, raft_term term)
{
	return set(of(io), term, 0);
}

static int on_set_vote(struct raft_io *io, raft_id vote)
{
	return set(of(io), of(io)->term, vote);
}

static int on_append(struct raft_io *io, struct raft_io_append *req,
		     const struct raft_entry entries[], unsigned n,
		     raft_io_append_cb cb)
{
	struct consensus *c = of(io);
	struct consensus_write *w = consensus_write_new(WRITE_ENTRIES);

	if (!w)
		return RAFT_NOMEM;
	w->first = c->end;
	w->end = c->end += n;
	w->entries = entries;
	w->append = req;
	w->on_append = cb;
	for (unsigned i = 0; i < n; i++) {
		const struct raft_buffer *buf = &entries[i].buf;

		if (entries[i].type == RAFT_CHANGE &&
		    consensus_servers_append(c, w->first + i,
					     (struct iovec){buf->base, buf->len}))
			consensus_break(c);
	}
	consensus_write(c, w);
	return 0;
}

static int on_truncate(struct raft_io *io, raft_index index)
{
	struct consensus *c = of(io);
	struct consensus_write *w = consensus_write_new(WRITE_TRUNCATE);

	if (!w)
		return RAFT_NOMEM;
	w->first = index;
	w->end = c->end;
	c->end = index;
	consensus_servers_truncate(c, index);
	consensus_write(c, w);
	return 0;
}

static int on_snapshot_put(struct raft_io *io, unsigned trailing,
			   struct raft_io_snapshot_put *req,
			   const struct raft_snapshot *snapshot,
			   raft_io_snapshot_put_cb cb)
{
	struct consensus *c = of(io);
	/* Installed: all of the log goes. */
	struct consensus_write *w =
		consensus_write_new(trailing ? WRITE_SNAPSHOT : WRITE_INSTALL);
	struct consensus_log_snapshot s = {.index = snapshot->index,
					   .term = snapshot->term};
	uint64_t keep = snapshot->index > trailing ? snapshot->index - trailing + 1 : 0;

	if (!w)
		return RAFT_NOMEM;
	s.state = (struct iovec){snapshot->bufs[0].base, snapshot->bufs[0].len};
	/* libraft's own is the newest, committed or not. */
	s.servers = *consensus_servers_at(c, snapshot->index);
	if (!trailing) {
		s.servers.index = snapshot->configuration_index;
		(void)consensus_servers_from(&snapshot->configuration,
					     &s.servers.servers);
	}
	w->value = consensus_log_snapshot_pack(&s);
	if (!w->value.iov_base) {
		free(w);
		return RAFT_NOMEM;
	}
	w->first = c->first;
	w->end = trailing ? (keep > c->first ? keep : c->first) : c->end;
	c->first = w->end;
	w->put = req;
	w->on_put = cb;
	w->index = snapshot->index;
	if (!trailing) {
		w->bufs = snapshot->bufs;
		w->servers = s.servers;
		c->first = c->end = snapshot->index + 1;
		consensus_servers_reset(c, NULL);
	}
	consensus_write(c, w);
	return 0;
}

/* Sending. */

static void send_end(struct consensus_send *s, int status)
{
	struct consensus *c = s->c;
	struct consensus_peer *peer = consensus_peer(c, s->node);

	TAILQ_REMOVE(&c->sends, s, in);
	if (s->request && peer && peer->n_sends)
		peer->n_sends--;
	if (s->on_sent)
		s->on_sent(s->send, status);
	free(s);
}

static void on_sent(void *owner, const struct rpc_result *result)
{
	struct consensus_send *s = owner;
	struct consensus *c = s->c;

	consensus_enter(c);
	send_end(s, result->status == RPC_OK ? 0 : RAFT_NOCONNECTION);
	consensus_leave(c);
}

/* No request: it failed, and is told so when the loop turns. */
static void try_send(struct consensus_send *s, const struct raft_message *m)
{
	struct consensus *c = s->c;
	struct consensus_peer *peer = consensus_peer(c, s->node);
	struct raft_message said = *m;
	struct raft_append_entries_result *result = &said.append_entries_result;
	struct raft_request_vote_result *vote = &said.request_vote_result;

	if (!peer || peer->n_sends >= CONSENSUS_MAX_SENDS || c->broken)
		return;
	if (m->type == RAFT_IO_REQUEST_VOTE_RESULT && !vote->vote_granted &&
	    vote->term < c->raft.current_term)
		vote->term = c->raft.current_term; /* consensus_guard.c, 11 */
	if (m->type == RAFT_IO_APPEND_ENTRIES_RESULT && !result->rejected) {
		/* consensus_guard.c, 4 */
		if (result->term != c->matched_term)
			result->last_log_index = 0;
		else if (result->last_log_index > c->matched)
			result->last_log_index = c->matched;
	}
	if (consensus_wire_send(c, s->node, &said, TIMEOUT, on_sent, s, &s->request))
		return;
	peer->n_sends++;
}

static int on_send(struct raft_io *io, struct raft_io_send *req,
		   const struct raft_message *m, raft_io_send_cb cb)
{
	struct consensus *c = of(io);
	struct consensus_send *s = calloc(1, sizeof(*s));

	if (!s)
		return RAFT_NOMEM;
	*s = (struct consensus_send){
		.c = c, .node = (node_id)m->server_id, .send = req, .on_sent = cb};
	if (c->servers_changed)
		consensus_servers_tell_rpc(c);
	TAILQ_INSERT_TAIL(&c->sends, s, in);
	try_send(s, m);
	if (!s->request)
		consensus_turn(c);
	return 0;
}

void consensus_sends_tell(struct consensus *c)
{
	struct consensus_send *s, *failed;
	struct consensus_get *g;

	do {
		failed = NULL;
		TAILQ_FOREACH (s, &c->sends, in)
			if (!s->request)
				failed = s;
		if (failed)
			send_end(failed, RAFT_NOCONNECTION);
	} while (failed);
	while ((g = STAILQ_FIRST(&c->gets))) {
		STAILQ_REMOVE_HEAD(&c->gets, in);
		g->cb(g->get, g->snapshot, g->status);
		free(g);
	}
}

void consensus_sends_end(struct consensus *c)
{
	struct consensus_send *s;
	struct consensus_get *g;

	while ((s = TAILQ_FIRST(&c->sends))) {
		if (s->request)
			rpc_cancel(c->rpc, s->request);
		send_end(s, RAFT_CANCELED);
	}
	while ((g = STAILQ_FIRST(&c->gets))) {
		STAILQ_REMOVE_HEAD(&c->gets, in);
		/* libraft does not lead any more, and frees it. */
		g->cb(g->get, g->snapshot, g->status);
		free(g);
	}
}

static int read_snapshot(struct consensus *c, struct raft_snapshot **ret)
{
	struct consensus_log_snapshot s;
	_cleanup_free_ void *bytes = NULL;
	struct iovec value = {0};
	int r;

	r = c->store->ops->get(c->store->impl, consensus_log_snapshot_key(), &value);
	bytes = value.iov_base;
	if (!r)
		r = consensus_log_snapshot_unpack(value, &s);
	return r ? RAFT_IOERR : to_snapshot(&s, ret);
}

/* Read now: what the store has at this moment is what libraft speaks of. */
static int on_snapshot_get(struct raft_io *io, struct raft_io_snapshot_get *req,
			   raft_io_snapshot_get_cb cb)
{
	struct consensus *c = of(io);
	struct consensus_get *g = calloc(1, sizeof(*g));

	if (!g)
		return RAFT_NOMEM;
	g->get = req;
	g->cb = cb;
	g->status = read_snapshot(c, &g->snapshot);
	STAILQ_INSERT_TAIL(&c->gets, g, in);
	consensus_turn(c);
	return 0;
}

static raft_time on_time(struct raft_io *io)
{
	return env_now(of(io)->env) / NSEC_PER_MSEC;
}

static int on_random(struct raft_io *io, int min, int max)
{
	return min + (int)(env_random_u64(of(io)->env) % ((uint64_t)(max - min) + 1));
}

void consensus_io_init(struct consensus *c)
{
	c->io = (struct raft_io){.version = 1,
				 .impl = c,
				 .init = on_init,
				 .close = on_close,
				 .load = on_load,
				 .start = on_start,
				 .bootstrap = on_configuration,
				 .recover = on_configuration,
				 .set_term = on_set_term,
				 .set_vote = on_set_vote,
				 .send = on_send,
				 .append = on_append,
				 .truncate = on_truncate,
				 .snapshot_put = on_snapshot_put,
				 .snapshot_get = on_snapshot_get,
				 .time = on_time,
				 .random = on_random};
}
