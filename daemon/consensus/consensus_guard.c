/*
 * What must not reach libraft 0.15, or must not leave it: where it would do what Raft
 * does not.
 *
 * 1  It elects itself without a new term where it is the only voter.  A leader that
 * gave up its vote may still lead that term: here a new term comes first, durably. 2
 * Within a leadership transfer it votes twice in one term. 3  It commits entries of
 * earlier terms by counting who has them (Raft's figure 8).  Until the barrier of its
 * own term is in the leader's store, no answer counts as progress. 4  It answers a
 * leader with the length of its log, not with how far that log is known to be the
 * leader's; what an earlier leader left behind counts as the new one's. An answer says
 * at most what was compared in this term. 5  What it knows of its configuration is late
 * while entries are being written, and it is never told of them once it is no follower:
 * no election begins meanwhile, and the leader's wish for one is kept until then. 6 The
 * same entry may come again while it is first written and then truncated, and is then
 * counted twice: nothing is appended until the store has truncated. 7  Its way back
 * from a configuration: see consensus_servers.c. 8  A standby refuses its vote.  But
 * the entry that makes it a voter is at first in its leader's log alone: whoever has
 * that entry needs this vote.  Who has a vote is for the candidate's log to say
 * (Ongaro's thesis, 4.1). 9  Entries below the snapshot are taken for new ones: they
 * are committed, and left out. 10 It sends what is not yet in its own store.  A server
 * that alone has the entry by which it gives up its vote is elected by nobody and
 * elects nobody: such an entry is sent (consensus_wire.c) when it is durable here. 11
 * It refuses a pre-vote of an old term with that old term: a candidate with the longer
 *    log and one with the later term refuse each other for ever.  The answer says the
 * later term (consensus_io.c).
 */
#include "consensus_internal.h"

#include "log.h"

#include <inttypes.h>
#include <string.h>

static size_t n_entries(const struct raft_log *l)
{
	return l->front <= l->back ? l->back - l->front : l->size - l->front + l->back;
}

uint64_t consensus_guard_term_at(const struct raft *r, uint64_t index)
{
	const struct raft_log *l = &r->log;

	if (index == l->snapshot.last_index)
		return l->snapshot.last_term;
	if (index <= l->offset || index > l->offset + n_entries(l))
		return 0;
	return l->entries[(l->front + (index - 1 - l->offset)) % l->size].term;
}

static bool is_only_voter(const struct consensus *c)
{
	const struct consensus_servers *s = &consensus_servers_last(c)->servers;
	const struct consensus_server *self = consensus_servers_find(s, c->config.self);

	return self && self->role == CONSENSUS_VOTER &&
	       consensus_servers_n_voters(s) == 1;
}

/* 1 */
static bool elect_alone(struct consensus *c)
{
	struct raft *r = &c->raft;

	if (r->state != RAFT_FOLLOWER || !is_only_voter(c) ||
	    r->io->time(r->io) - r->election_timer_start <
		    r->follower_state.randomized_election_timeout)
		return true;
	if (consensus_write_term(c, c->term + 1, c->config.self) < 0) {
		consensus_break(c);
		return false;
	}
	r->current_term = c->term;
	r->voted_for = c->vote;
	return true;
}

bool consensus_guard_tick(struct consensus *c)
{
	if (c->raft.state != RAFT_LEADER && consensus_is_writing(c))
		return false; /* 5 */
	return elect_alone(c);
}

void consensus_message_fini(struct raft_message *m)
{
	struct raft_append_entries *a = &m->append_entries;

	if (m->type == RAFT_IO_APPEND_ENTRIES && a->n_entries) {
		raft_free(a->entries[0].batch);
		raft_free(a->entries);
		a->entries = NULL;
		a->n_entries = 0;
	} else if (m->type == RAFT_IO_INSTALL_SNAPSHOT) {
		raft_free(m->install_snapshot.data.base);
		raft_configuration_close(&m->install_snapshot.conf);
	}
}

/* 9 */
static void leave_out_committed(struct consensus *c, struct raft_append_entries *a)
{
	const struct raft_log *l = &c->raft.log;
	uint64_t skip = l->snapshot.last_index - a->prev_log_index;

	if (a->prev_log_index >= l->snapshot.last_index ||
	    (a->prev_log_index && consensus_guard_term_at(&c->raft, a->prev_log_index)))
		return;
	if (skip < a->n_entries) {
		memmove(a->entries, a->entries + skip,
			(size_t)(a->n_entries - skip) * sizeof(*a->entries));
		a->n_entries -= (unsigned)skip;
	} else if (a->n_entries) {
		raft_free(a->entries[0].batch);
		raft_free(a->entries);
		a->entries = NULL;
		a->n_entries = 0;
	}
	a->prev_log_index = l->snapshot.last_index;
	a->prev_log_term = l->snapshot.last_term;
}

/* The last entry that the leader says it has, with this message. */
void consensus_entries_last(const struct raft_message *m, uint64_t *ret_index,
			    uint64_t *ret_term)
{
	*ret_index = *ret_term = 0;
	if (m->type == RAFT_IO_APPEND_ENTRIES) {
		const struct raft_append_entries *a = &m->append_entries;

		*ret_index = a->prev_log_index + a->n_entries;
		*ret_term = a->n_entries ? a->entries[a->n_entries - 1].term
					 : a->prev_log_term;
	} else if (m->type == RAFT_IO_INSTALL_SNAPSHOT) {
		*ret_index = m->install_snapshot.last_index;
		*ret_term = m->install_snapshot.last_term;
	}
}

static uint64_t term_of_leader(const struct raft_message *m)
{
	return m->type == RAFT_IO_APPEND_ENTRIES ? m->append_entries.term
						 : m->install_snapshot.term;
}

/* 4: is the log here the leader's, up to @last?  By the same term at the same index. */
static void match(struct consensus *c, const struct raft_message *m, uint64_t last,
		  uint64_t last_term)
{
	uint64_t term = term_of_leader(m);

	if (term < c->raft.current_term)
		return;
	if (term != c->matched_term) {
		c->matched_term = term;
		c->matched = 0;
	}
	if (last > c->matched &&
	    (consensus_guard_term_at(&c->raft, last) == last_term ||
	     (m->type == RAFT_IO_INSTALL_SNAPSHOT &&
	      c->raft.log.snapshot.last_index >= last)))
		c->matched = last;
}

static bool is_of_leader(const struct raft_message *m)
{
	return m->type == RAFT_IO_APPEND_ENTRIES || m->type == RAFT_IO_INSTALL_SNAPSHOT;
}

static bool guard_leader(struct consensus *c, struct raft_message *m)
{
	struct raft *r = &c->raft;
	uint64_t last, last_term;

	if (r->state == RAFT_LEADER && term_of_leader(m) == r->current_term) {
		log_error(
			"node %llu says that it leads term %llu, which this node does",
			m->server_id, r->current_term);
		return false;
	}
	if (c->n_truncating && m->type == RAFT_IO_APPEND_ENTRIES &&
	    m->append_entries.n_entries)
		return false; /* 6: the leader sends it again */
	if (m->type == RAFT_IO_APPEND_ENTRIES)
		leave_out_committed(c, &m->append_entries);
	if (term_of_leader(m) >= r->current_term)
		r->configuration_uncommitted_index = 0; /* 7 */
	consensus_entries_last(m, &last, &last_term);
	match(c, m, last, last_term);
	return true;
}

/* 2 */
static bool is_second_vote(const struct consensus *c, const struct raft_request_vote *v)
{
	const struct raft *r = &c->raft;

	return r->transfer && r->transfer->id == v->candidate_id && !v->pre_vote &&
	       v->term == r->current_term && r->voted_for &&
	       r->voted_for != v->candidate_id;
}

/* 8: for this message a voter; who was silent for long is no leader. */
static void lend_vote(struct consensus *c)
{
	struct raft *r = &c->raft;

	if (r->state != RAFT_FOLLOWER)
		return;
	for (unsigned i = 0; i < r->configuration.n; i++) {
		struct raft_server *s = &r->configuration.servers[i];

		if (s->id != r->id || s->role == RAFT_VOTER)
			continue;
		c->lent_role = s->role;
		c->lent = s;
		s->role = RAFT_VOTER;
		if (r->io->time(r->io) - r->election_timer_start >= r->election_timeout)
			r->follower_state.current_leader.id = 0;
	}
}

bool consensus_guard_message(struct consensus *c, struct raft_message *m)
{
	struct raft *r = &c->raft;
	bool wanted = true;

	switch (m->type) {
	case RAFT_IO_APPEND_ENTRIES:
	case RAFT_IO_INSTALL_SNAPSHOT:
		wanted = guard_leader(c, m);
		break;
	case RAFT_IO_APPEND_ENTRIES_RESULT:
		/* 3 */
		if (r->state == RAFT_LEADER && !m->append_entries_result.rejected &&
		    (c->term_led != r->current_term || !c->barrier_index ||
		     c->barrier_index > r->last_stored))
			m->append_entries_result.last_log_index = 0;
		break;
	case RAFT_IO_REQUEST_VOTE:
		wanted = !is_second_vote(c, &m->request_vote);
		if (wanted)
			lend_vote(c);
		break;
	case RAFT_IO_TIMEOUT_NOW:
		wanted = !consensus_is_writing(c) && !is_only_voter(c); /* 5, 1 */
		c->held = *m;
		c->holds = !wanted && !is_only_voter(c);
		break;
	default:
		break;
	}
	if (!wanted)
		consensus_message_fini(m);
	return wanted;
}

/* libraft has taken @m: its vote is given back; does its log hold what the leader said?
 */
void consensus_guard_after(struct consensus *c, const struct raft_message *m,
			   uint64_t last, uint64_t last_term)
{
	if (c->lent)
		c->lent->role = c->lent_role;
	c->lent = NULL;
	if (is_of_leader(m))
		match(c, m, last, last_term);
}
