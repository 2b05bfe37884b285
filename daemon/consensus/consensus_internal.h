#pragma once
/*
 * What consensus's own files share.
 *
 * consensus.c owns the room: libraft's life, who leads, proposals, what the owner is
 * told.  consensus_change.c changes roles and hands over.  consensus_io.c is libraft's
 * raft_io, over consensus_write.c (the store, one batch after the other) and
 * consensus_wire.c (messages as calls).  consensus_guard.c stands between what comes in
 * and libraft, where 0.15 would do what Raft does not.  consensus_servers.c knows which
 * servers the log says there are; consensus_log.c is bytes in the store.
 */
#include "consensus.h"

#include "cleanup.h"

#include <raft.h>
#include <sys/queue.h>

enum {
	CONSENSUS_MAX_SERVERS = 32,
	CONSENSUS_MAX_PROPOSALS = 64, /* not yet committed */
	CONSENSUS_MAX_LOG = 1 << 16,  /* entries that a store may hold */
	CONSENSUS_BATCH_ENTRIES = 64, /* of one message */
	CONSENSUS_BATCH_BYTES = 256 << 10,
	CONSENSUS_MAX_SENDS = 64, /* to one server, not yet read by it */
	CONSENSUS_SNAPSHOT_MAX = TRANSPORT_BULK_MAX - (8 << 10),
};

#define CONSENSUS_BACKOFF_MIN (100 * NSEC_PER_MSEC)
#define CONSENSUS_BACKOFF_MAX (5 * NSEC_PER_SEC)
#define CONSENSUS_INSTALL     (5 * NSEC_PER_SEC) /* of a snapshot, then once more */
#define CONSENSUS_CATCH_UP    (5 * NSEC_PER_SEC) /* a round of it */

/* A value: what the servers are, in the order of the log's entry. */
struct consensus_servers {
	size_t n;
	struct consensus_server of[CONSENSUS_MAX_SERVERS];
};

/* ... and where the log says so. */
struct consensus_servers_at {
	STAILQ_ENTRY(consensus_servers_at) in;
	uint64_t index;
	struct consensus_servers servers;
};

STAILQ_HEAD(consensus_servers_list, consensus_servers_at);

enum consensus_write_kind {
	WRITE_ENTRIES,
	WRITE_TRUNCATE,
	WRITE_SNAPSHOT, /* of the state here */
	WRITE_INSTALL,	/* of the leader's: instead of the log */
};

/* What libraft wants in the store. */
struct consensus_write {
	STAILQ_ENTRY(consensus_write) in;
	enum consensus_write_kind kind;
	uint64_t first, end; /* entries: written, or deleted */
	struct raft_io_append *append;
	raft_io_append_cb on_append;
	const struct raft_entry *entries; /* libraft's, until told */
	struct raft_io_snapshot_put *put;
	raft_io_snapshot_put_cb on_put;
	struct raft_buffer *bufs; /* WRITE_INSTALL: libraft's */
	uint64_t index;		  /* of the snapshot */
	struct consensus_servers_at servers;
	struct iovec value;
};

STAILQ_HEAD(consensus_write_list, consensus_write);

/* A batch that the store has. */
struct consensus_batch {
	struct consensus *c;
	struct consensus_write_list writes;
	bool ended; /* libraft's instance has: its writes were told */
};

/* A message that a server has not read yet. */
struct consensus_send {
	TAILQ_ENTRY(consensus_send) in;
	struct consensus *c;
	node_id node;
	struct rpc_request *request; /* NULL: it failed */
	struct raft_io_send *send;
	raft_io_send_cb on_sent;
};

TAILQ_HEAD(consensus_send_list, consensus_send);

/* A snapshot that libraft wants to send. */
struct consensus_get {
	STAILQ_ENTRY(consensus_get) in;
	struct raft_io_snapshot_get *get;
	raft_io_snapshot_get_cb cb;
	struct raft_snapshot *snapshot;
	int status;
};

STAILQ_HEAD(consensus_get_list, consensus_get);

struct consensus_proposal {
	TAILQ_ENTRY(consensus_proposal) in;
	struct consensus *c;
	struct raft_apply apply;
	struct raft_buffer command; /* libraft's as soon as it has it */
	consensus_done_cb done;
	void *owner;
	int result;
};

TAILQ_HEAD(consensus_proposal_list, consensus_proposal);

struct consensus_change {
	struct raft_change change;
	struct consensus_server wanted;
	unsigned n_steps;
	consensus_done_cb done; /* NULL: none is under way */
	void *owner;
	bool under_way; /* libraft has ->change */
	bool next;	/* look again what is to be done */
	bool ended;
	int result;
};

struct consensus_hand_over {
	struct raft_transfer transfer;
	consensus_done_cb done; /* NULL: none is under way */
	void *owner;
	bool ended;
	int result;
};

struct consensus_peer {
	node_id node;
	unsigned n_sends;
	uint64_t followed_term; /* the last in which it answered, ... */
	nsec_t followed;	/* ... to what was sent at this moment */
};

struct consensus {
	const struct env *env;
	const struct store *store;
	struct rpc *rpc;
	struct consensus_config config;
	char address[64];
	const struct consensus_events *events;
	void *owner;

	/* libraft's instance: from raft_init() to raft_close() */
	struct raft raft;
	struct raft_io io;
	struct raft_fsm fsm;
	bool open;
	bool broken;	 /* a write failed: nothing of this instance leaves any more */
	unsigned inside; /* libraft is on the stack */
	raft_io_tick_cb on_tick;
	raft_io_recv_cb on_message;
	struct env_timer ticker, turn, retry;
	nsec_t backoff;

	/* the store */
	uint64_t term, vote; /* as durable */
	uint64_t first, end; /* entries, when all writes are done */
	struct consensus_write_list queued;
	struct consensus_batch *writing;
	uint64_t restoring; /* the index of the snapshot that libraft restores */

	/* links */
	struct consensus_send_list sends;
	struct consensus_get_list gets;
	struct consensus_peer peers[CONSENSUS_MAX_SERVERS + 1];
	size_t n_peers;
	struct consensus_server guest; /* a leader that is in no log here yet */

	/* servers: committed in this instance; what its log says behind that; told */
	struct consensus_servers_at committed;
	struct consensus_servers_list pending;
	struct consensus_servers_at known;
	bool servers_changed;

	/* guards */
	uint64_t matched_term, matched; /* up to it the log is that leader's */
	uint64_t n_truncating;		/* truncations that wait for the store */
	nsec_t leader_heard;
	struct raft_message held; /* RAFT_IO_TIMEOUT_NOW */
	bool holds;
	struct raft_server *lent; /* a voter for one message */
	int lent_role;
	uint64_t taken_term; /* of the newest AppendRequest that libraft had, ... */
	nsec_t taken;	     /* ... and when its sender sent it */
	nsec_t followed;     /* this node last took one, or led; at least its start */
	uint64_t voted_term; /* the last that it was given votes in, ... */
	nsec_t voted;	     /* ... and the latest ->followed of those who gave them */

	/* leading */
	uint64_t term_led;	/* libraft leads, the barrier is for this term */
	nsec_t followed_before; /* the latest ->followed of those who elected it */
	uint64_t barrier_index; /* 0: not proposed yet */
	struct raft_barrier *barrier;
	bool leading; /* the barrier is applied */
	bool told_leading;
	uint64_t told_term, told_servers;
	node_id told_leader;

	uint64_t applied; /* in the life of the room */
	struct consensus_proposal_list wanted, proposed,
		ended; /* wanted: libraft was busy */
	size_t n_proposals;
	struct consensus_change change;
	struct consensus_hand_over hand_over;
};

/* consensus.c: around every call of libraft */
void consensus_enter(struct consensus *c);
void consensus_leave(struct consensus *c);
/* The store failed: end this instance as soon as libraft is off the stack. */
void consensus_break(struct consensus *c);
/* The owner is told when the loop turns. */
void consensus_turn(struct consensus *c);

/* libraft leads, and all of earlier terms is applied. */
bool consensus_is_ready(const struct consensus *c);

/* consensus_change.c: when the loop turns */
void consensus_change_next(struct consensus *c);
void consensus_change_tell(struct consensus *c);

/* consensus_io.c */
void consensus_io_init(struct consensus *c);
void consensus_sends_end(struct consensus *c);
/* Those that failed at once, and snapshots that were read. */
void consensus_sends_tell(struct consensus *c);

/* consensus_write.c */
struct consensus_write *consensus_write_new(enum consensus_write_kind kind);
void consensus_write(struct consensus *c, struct consensus_write *owned_write);
bool consensus_is_writing(const struct consensus *c);
/* libraft's instance ends: it is told of all. */
void consensus_writes_end(struct consensus *c);
void consensus_writes_fini(struct consensus *c);
/* Durable on return. */
int consensus_write_term(struct consensus *c, uint64_t term, uint64_t vote);

/* consensus_guard.c */
bool consensus_guard_tick(struct consensus *c);
/* False: not for libraft, and freed. */
bool consensus_guard_message(struct consensus *c, struct raft_message *m);
void consensus_guard_after(struct consensus *c, const struct raft_message *m,
			   uint64_t last, uint64_t last_term);
/* The term of the entry at @index in libraft's log, 0: unknown. */
uint64_t consensus_guard_term_at(const struct raft *r, uint64_t index);
void consensus_message_fini(struct raft_message *m);
void consensus_entries_last(const struct raft_message *m, uint64_t *ret_index,
			    uint64_t *ret_term);

/* consensus_servers.c */
const struct consensus_server *consensus_servers_find(const struct consensus_servers *s,
						      node_id node);
size_t consensus_servers_n_voters(const struct consensus_servers *s);
/* As libraft's entries have them.  -EBADMSG. */
int consensus_servers_unpack(struct iovec bytes, struct consensus_servers *ret);
int consensus_servers_from(const struct raft_configuration *conf,
			   struct consensus_servers *ret);
/* raft_malloc()ed inside. */
int consensus_servers_to(const struct consensus_servers *s,
			 struct raft_configuration *ret);
int consensus_servers_pack(const struct consensus_servers *s, struct raft_buffer *ret);
/* What the log says of servers: an entry was added, gone from @index on, all is
 * replaced. */
int consensus_servers_append(struct consensus *c, uint64_t index, struct iovec bytes);
void consensus_servers_truncate(struct consensus *c, uint64_t index);
void consensus_servers_reset(struct consensus *c,
			     const struct consensus_servers_at *committed);
/* The last ones up to @index; the last of all. */
const struct consensus_servers_at *consensus_servers_at(const struct consensus *c,
							uint64_t index);
const struct consensus_servers_at *consensus_servers_last(const struct consensus *c);
/* Entries were applied. */
void consensus_servers_commit(struct consensus *c);
/* Who may be called, and at which address. */
void consensus_servers_tell_rpc(struct consensus *c);
struct consensus_peer *consensus_peer(struct consensus *c, node_id node);

/* consensus_log.c */
enum { CONSENSUS_KEY_MAX = 32 };

struct consensus_log_snapshot {
	uint64_t index, term;
	struct consensus_servers_at servers;
	struct iovec state; /* within what was decoded */
};

struct consensus_log {
	uint64_t term, vote;
	bool has_snapshot;
	struct consensus_log_snapshot snapshot;
	struct iovec snapshot_value; /* what snapshot.state points into */
	uint64_t first;		     /* of the entries; 1 if there is nothing */
	size_t n_entries;
	struct raft_entry *entries; /* raft_malloc()ed, each its own batch */
};

size_t consensus_log_entry_key(uint64_t index, uint8_t ret[static CONSENSUS_KEY_MAX]);
struct iovec consensus_log_term_key(void);
struct iovec consensus_log_snapshot_key(void);
/* malloc()ed; base NULL: no memory */
struct iovec consensus_log_entry_pack(uint64_t index, const struct raft_entry *entry);
struct iovec consensus_log_snapshot_pack(const struct consensus_log_snapshot *snapshot);
enum { CONSENSUS_TERM_LEN = 24 };
void consensus_log_term_pack(uint64_t term, uint64_t vote,
			     uint8_t ret[static CONSENSUS_TERM_LEN]);
/* -EBADMSG: not what was written. */
int consensus_log_entry_unpack(struct iovec value, uint64_t index, uint64_t *ret_term,
			       uint8_t *ret_type, struct iovec *ret_data);
int consensus_log_snapshot_unpack(struct iovec value,
				  struct consensus_log_snapshot *ret);
int consensus_log_term_unpack(struct iovec value, uint64_t *ret_term,
			      uint64_t *ret_vote);
/* All of it, checked as a whole. */
int consensus_log_load(const struct store *store, struct consensus_log *ret);
void consensus_log_fini(struct consensus_log *log);

/* consensus_wire.c */
extern const struct rpc_method consensus_methods[];
/* 0: done comes; @m is copied. */
int consensus_wire_send(struct consensus *c, node_id node, const struct raft_message *m,
			nsec_t timeout, rpc_done_cb done, void *owner,
			struct rpc_request **ret);
/* consensus.c: @m's memory becomes the room's.  @when: of append and its answer, when it was sent
 * by the leader's clock; of a vote, when by ours its sender followed an earlier one. */
void consensus_receive(struct consensus *c, node_id from, const char *address,
		       nsec_t when, struct raft_message *m);
