/*
 * What stands in the store: one value for term and vote, one for the snapshot, one for
 * each entry, under its index.
 *
 * A value begins with a checksum over the rest (the store has none) that starts from
 * its kind, so that one is not taken for another; an entry also names its index.
 *
 * Failure modes: torn or foreign bytes, entries with a gap, terms that go back ->
 * -EBADMSG, said once in the log.  A write takes back what it displaced in the same
 * batch, so a crash leaves no gap.
 */
#include "consensus_internal.h"

#include "err.h"
#include "log.h"

#include <endian.h>
#include <inttypes.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

enum kind { KIND_TERM = 1, KIND_ENTRY, KIND_SNAPSHOT };

static const char PREFIX[] = "consensus/entry/", TERM[] = "consensus/term",
		  SNAPSHOT[] = "consensus/snapshot";

struct entry_head {
	uint64_t sum, index, term, type;
};

struct snapshot_head {
	uint64_t sum, index, term, servers_index, servers_len;
};

struct term_value {
	uint64_t sum, term, vote;
};

_Static_assert(sizeof(struct term_value) == CONSENSUS_TERM_LEN, "");

static uint64_t sum_of(enum kind kind, const void *value, size_t len)
{
	return htole64(XXH3_64bits_withSeed((const uint8_t *)value + sizeof(uint64_t),
					    len - sizeof(uint64_t), kind));
}

static bool is_whole(enum kind kind, struct iovec value, void *head, size_t head_len)
{
	uint64_t sum;

	if (value.iov_len < head_len)
		return false;
	memcpy(head, value.iov_base, head_len);
	memcpy(&sum, value.iov_base, sizeof(sum));
	return sum == sum_of(kind, value.iov_base, value.iov_len);
}

size_t consensus_log_entry_key(uint64_t index, uint8_t ret[static CONSENSUS_KEY_MAX])
{
	uint64_t be = htobe64(index);

	memcpy(ret, PREFIX, sizeof(PREFIX) - 1);
	memcpy(ret + sizeof(PREFIX) - 1, &be, sizeof(be));
	return sizeof(PREFIX) - 1 + sizeof(be);
}

struct iovec consensus_log_term_key(void)
{
	return (struct iovec){(void *)TERM, sizeof(TERM) - 1};
}

struct iovec consensus_log_snapshot_key(void)
{
	return (struct iovec){(void *)SNAPSHOT, sizeof(SNAPSHOT) - 1};
}

void consensus_log_term_pack(uint64_t term, uint64_t vote,
			     uint8_t ret[static CONSENSUS_TERM_LEN])
{
	struct term_value v = {0, htole64(term), htole64(vote)};

	v.sum = sum_of(KIND_TERM, &v, sizeof(v));
	memcpy(ret, &v, sizeof(v));
}

int consensus_log_term_unpack(struct iovec value, uint64_t *ret_term,
			      uint64_t *ret_vote)
{
	struct term_value v;

	if (value.iov_len != sizeof(v) || !is_whole(KIND_TERM, value, &v, sizeof(v)))
		return err_origin(-EBADMSG);
	*ret_term = le64toh(v.term);
	*ret_vote = le64toh(v.vote);
	return 0;
}

static bool is_type(uint64_t type)
{
	return type == RAFT_COMMAND || type == RAFT_BARRIER || type == RAFT_CHANGE;
}

struct iovec consensus_log_entry_pack(uint64_t index, const struct raft_entry *entry)
{
	struct entry_head h = {0, htole64(index), htole64(entry->term),
			       htole64(entry->type)};
	struct iovec v = {NULL, sizeof(h) + entry->buf.len};

	v.iov_base = malloc(v.iov_len);
	if (!v.iov_base)
		return v;
	memcpy(v.iov_base, &h, sizeof(h));
	if (entry->buf.len)
		memcpy((uint8_t *)v.iov_base + sizeof(h), entry->buf.base,
		       entry->buf.len);
	h.sum = sum_of(KIND_ENTRY, v.iov_base, v.iov_len);
	memcpy(v.iov_base, &h.sum, sizeof(h.sum));
	return v;
}

int consensus_log_entry_unpack(struct iovec value, uint64_t index, uint64_t *ret_term,
			       uint8_t *ret_type, struct iovec *ret_data)
{
	struct entry_head h;

	if (!is_whole(KIND_ENTRY, value, &h, sizeof(h)) || le64toh(h.index) != index ||
	    !h.term || !is_type(le64toh(h.type)))
		return err_origin(-EBADMSG);
	*ret_term = le64toh(h.term);
	*ret_type = (uint8_t)le64toh(h.type);
	*ret_data = (struct iovec){(uint8_t *)value.iov_base + sizeof(h),
				   value.iov_len - sizeof(h)};
	return 0;
}

struct iovec consensus_log_snapshot_pack(const struct consensus_log_snapshot *s)
{
	struct snapshot_head h = {0, htole64(s->index), htole64(s->term),
				  htole64(s->servers.index)};
	struct raft_buffer servers;
	struct iovec v = {0};
	uint8_t *p;

	if (consensus_servers_pack(&s->servers.servers, &servers))
		return v;
	h.servers_len = htole64(servers.len);
	v.iov_len = sizeof(h) + servers.len + s->state.iov_len;
	p = v.iov_base = malloc(v.iov_len);
	if (p) {
		memcpy(p, &h, sizeof(h));
		memcpy(p + sizeof(h), servers.base, servers.len);
		if (s->state.iov_len)
			memcpy(p + sizeof(h) + servers.len, s->state.iov_base,
			       s->state.iov_len);
		h.sum = sum_of(KIND_SNAPSHOT, p, v.iov_len);
		memcpy(p, &h.sum, sizeof(h.sum));
	}
	raft_free(servers.base);
	return v;
}

int consensus_log_snapshot_unpack(struct iovec value,
				  struct consensus_log_snapshot *ret)
{
	struct snapshot_head h;
	uint8_t *p = value.iov_base;
	size_t len;
	int r;

	if (!is_whole(KIND_SNAPSHOT, value, &h, sizeof(h)))
		return err_origin(-EBADMSG);
	len = le64toh(h.servers_len);
	if (len > value.iov_len - sizeof(h))
		return err_origin(-EBADMSG);
	r = consensus_servers_unpack((struct iovec){p + sizeof(h), len},
				     &ret->servers.servers);
	if (r)
		return r;
	ret->index = le64toh(h.index);
	ret->term = le64toh(h.term);
	ret->servers.index = le64toh(h.servers_index);
	ret->state =
		(struct iovec){p + sizeof(h) + len, value.iov_len - sizeof(h) - len};
	if (!ret->term || !ret->servers.index || ret->servers.index > ret->index)
		return err_origin(-EBADMSG);
	return 0;
}

/* Reading all of it. */

struct loading {
	const struct store *store;
	struct consensus_log *log;
	size_t room;
};

static int load_term(struct loading *l)
{
	_cleanup_free_ void *bytes = NULL;
	struct iovec v = {0};
	int r = l->store->ops->get(l->store->impl, consensus_log_term_key(), &v);

	bytes = v.iov_base;
	if (r)
		return r == STORE_E_ABSENT ? 0 : r;
	r = consensus_log_term_unpack(v, &l->log->term, &l->log->vote);
	if (r)
		log_error("the term of the log of consensus is damaged in the store");
	return r;
}

static int load_snapshot(struct loading *l)
{
	struct consensus_log *log = l->log;
	int r;

	r = l->store->ops->get(l->store->impl, consensus_log_snapshot_key(),
			       &log->snapshot_value);
	if (r)
		return r == STORE_E_ABSENT ? 0 : r;
	r = consensus_log_snapshot_unpack(log->snapshot_value, &log->snapshot);
	log->has_snapshot = !r;
	if (r)
		log_error("the snapshot of consensus is damaged in the store");
	return r;
}

static int add_entry(struct loading *l, uint64_t term, uint8_t type, struct iovec data)
{
	struct consensus_log *log = l->log;
	struct raft_entry *e;

	if (log->n_entries == l->room) {
		size_t room = l->room ? 2 * l->room : 64;

		e = raft_realloc(log->entries, room * sizeof(*e));
		if (!e)
			return err_origin(-ENOMEM);
		log->entries = e;
		l->room = room;
	}
	e = &log->entries[log->n_entries];
	*e = (struct raft_entry){.term = term, .type = type, .buf.len = data.iov_len};
	e->batch = e->buf.base = raft_malloc(data.iov_len + 1);
	if (!e->batch)
		return err_origin(-ENOMEM);
	if (data.iov_len)
		memcpy(e->buf.base, data.iov_base, data.iov_len);
	log->n_entries++;
	return 0;
}

static int on_entry(void *owner, struct iovec key, struct iovec value)
{
	struct loading *l = owner;
	struct consensus_log *log = l->log;
	struct consensus_servers servers;
	uint64_t be, index, term;
	struct iovec data;
	uint8_t type;

	if (key.iov_len != sizeof(PREFIX) - 1 + sizeof(be))
		return err_origin(-EBADMSG);
	memcpy(&be, (uint8_t *)key.iov_base + sizeof(PREFIX) - 1, sizeof(be));
	index = be64toh(be);
	if (!log->n_entries)
		log->first = index;
	if (!index || index != log->first + log->n_entries ||
	    log->n_entries >= CONSENSUS_MAX_LOG ||
	    consensus_log_entry_unpack(value, index, &term, &type, &data) ||
	    (log->n_entries && term < log->entries[log->n_entries - 1].term) ||
	    (type == RAFT_CHANGE && consensus_servers_unpack(data, &servers)))
		return err_origin(-EBADMSG);
	return add_entry(l, term, type, data);
}

/* Do the pieces fit? */
static bool is_log(const struct consensus_log *log)
{
	const struct consensus_log_snapshot *s = &log->snapshot;
	uint64_t last = log->first + log->n_entries - 1;

	if (log->n_entries && log->entries[log->n_entries - 1].term > log->term)
		return false;
	if (!log->has_snapshot)
		return !log->n_entries ||
		       (log->first == 1 && log->entries[0].type == RAFT_CHANGE);
	if (s->term > log->term)
		return false;
	if (!log->n_entries)
		return true;
	if (log->first > s->index + 1 || last < s->index)
		return false;
	return log->first > s->index ||
	       log->entries[s->index - log->first].term == s->term;
}

int consensus_log_load(const struct store *store, struct consensus_log *ret)
{
	struct consensus_log log = {.first = 1};
	struct loading l = {.store = store, .log = &log};
	int r;

	r = load_term(&l);
	if (!r)
		r = load_snapshot(&l);
	if (!r) {
		r = store->ops->each(store->impl,
				     (struct iovec){(void *)PREFIX, sizeof(PREFIX) - 1},
				     on_entry, &l);
		if (!r && !is_log(&log))
			r = err_origin(-EBADMSG);
		if (r == -EBADMSG)
			log_error("the log of consensus is damaged in the store, "
				  "behind entry "
				  "%" PRIu64,
				  log.first + log.n_entries - 1);
	}
	if (r) {
		consensus_log_fini(&log);
		return err_fold(r);
	}
	if (!log.n_entries && log.has_snapshot)
		log.first = log.snapshot.index + 1;
	*ret = log;
	return 0;
}

void consensus_log_fini(struct consensus_log *log)
{
	for (size_t i = 0; i < log->n_entries; i++)
		raft_free(log->entries[i].batch);
	raft_free(log->entries);
	free(log->snapshot_value.iov_base);
	*log = (struct consensus_log){0};
}
