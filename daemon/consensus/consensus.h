#pragma once
/*
 * One log of commands, replicated among the voters; what is committed of it is
 * applied on every server in the same order.
 *
 * Knows: env, store, rpc.  Tells: its owner, through struct consensus_events.
 *
 * The deciding is Raft's, and libraft's (0.15 in Debian 12); this room gives it our
 * links, our store and our clock, and is the only one that sees it.  Pre-vote and
 * check-quorum are on.  Servers are voters, or standbys, which have the log and no
 * vote.  Every node has a consensus; one that is no server is silent, until a
 * leader adds it.
 *
 * Invariants: one leader in a term; what is committed is never lost while a majority
 * of the voters keeps its stores; a term and a vote are durable before they are
 * told, an entry before it is acknowledged.  The log is bounded by snapshots.
 */
#include "env.h"
#include "ids.h"
#include "rpc.h"
#include "store.h"

#include <stdbool.h>

struct consensus;

enum {
	_CONSENSUS_E_SUCCESS,
	CONSENSUS_E_NOT_LEADER,
	CONSENSUS_E_BUSY,  /* another change of the servers is under way */
	CONSENSUS_E_LOST,  /* leadership was lost meanwhile: it may be committed later, or never */
	CONSENSUS_E_STUCK, /* the new server does not catch up */
};

enum { CONSENSUS_COMMAND_MAX = 256 << 10 };

enum consensus_role {
	CONSENSUS_NONE,    /* no server; among the servers: about to become one */
	CONSENSUS_STANDBY, /* has the log, no vote */
	CONSENSUS_VOTER,
};

struct consensus_server {
	node_id node;
	char address[64];
	enum consensus_role role;
};

/* None of them may free the room.  apply, snapshot and restore may also come during
 * consensus_new(); the others are told when the loop turns. */
struct consensus_events {
	/* Committed, in order; each once in the life of this room, which begins with restore()
	 * of the last snapshot, if there is one, and all that follows it. */
	void (*apply)(void *owner, uint64_t index, struct iovec command);
	/* The state that all applied commands made.  *ret: malloc()ed, becomes the room's. */
	int (*snapshot)(void *owner, struct iovec *ret);
	/* Instead of everything applied so far. */
	int (*restore)(void *owner, struct iovec state);
	/* This node leads, and everything committed in earlier terms has been applied; or it
	 * leads no more (what it proposed has ended before). */
	void (*on_leading)(void *owner, bool leading, uint64_t term);
	/* Who leads, as far as this server knows; NODE_NONE: nobody. */
	void (*on_leader)(void *owner, node_id leader);
	/* The servers have changed, committed. */
	void (*on_servers)(void *owner);
};

struct consensus_config {
	node_id self;
	const char *address;
	/* The first server of a new cluster: its only voter, if the store holds nothing yet. */
	bool bootstrap;
	nsec_t heartbeat;         /* 0: 100 ms */
	nsec_t election_timeout;  /* 0: 500 ms; drawn between this and twice this */
	unsigned snapshot_after;  /* entries; 0: 256 */
	unsigned snapshot_keep;   /* entries kept behind a snapshot; 0: 64 */
};

/* Reads the store, applies what is known to be committed, and takes part.  -EBADMSG: what
 * stands in the store is damaged; said in the log. */
int consensus_new(struct consensus **ret, const struct env *env, const struct store *store,
		  struct rpc *rpc, const struct consensus_config *config,
		  const struct consensus_events *events, void *owner);
/* Callbacks of requests under way never come. */
struct consensus *consensus_free(struct consensus *c);

bool consensus_leads(const struct consensus *c);
node_id consensus_leader(const struct consensus *c);
uint64_t consensus_term(const struct consensus *c);
/* The servers, as committed, by node; valid until the next on_servers. */
const struct consensus_server *consensus_servers(const struct consensus *c, size_t *ret_n);
/* Leader: the latest moment (env_now()) of which it is known that a majority of the voters
 * still followed this node then: what they have answered was sent at that moment or later. */
nsec_t consensus_followed_at(const struct consensus *c);
/* Leader: the latest moment at which a majority may still have followed an earlier one: no
 * consensus_followed_at() of theirs was later.  By what those who elected this node knew. */
nsec_t consensus_followed_before(const struct consensus *c);

/* @result: 0, committed and applied here; CONSENSUS_E_LOST; or -errno and nothing was
 * proposed.  Later, never inline. */
typedef void (*consensus_done_cb)(void *owner, int result);

/* Leader.  @command is copied.  CONSENSUS_E_NOT_LEADER; -EMSGSIZE; -EAGAIN: too many are
 * under way. */
int consensus_propose(struct consensus *c, struct iovec command, consensus_done_cb done,
		      void *owner);
/* Leader: make @node a server of this role, or none.  A voter is a standby until it has
 * caught up.  CONSENSUS_E_NOT_LEADER, CONSENSUS_E_BUSY; -EINVAL: a leader does not give
 * up its own vote, it hands over first; done may say CONSENSUS_E_STUCK. */
int consensus_set_role(struct consensus *c, node_id node, const char *address,
		       enum consensus_role role, consensus_done_cb done, void *owner);
/* Leader: hand over to @node, NODE_NONE: to whom it may.  done when another leads, or when an
 * election timeout has passed (CONSENSUS_E_STUCK): this node then leads on. */
int consensus_transfer(struct consensus *c, node_id node, consensus_done_cb done, void *owner);

/* On a node that runs no ssid, an operator's word: make this server the only voter of what
 * its store holds, committed or not.  Loses what only others had.  0, CONSENSUS_E_NOT_LEADER: its
 * store holds no log.  Blocks. */
int consensus_recover(const struct store *store, node_id self, const char *address);
