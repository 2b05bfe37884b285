#pragma once
/*
 * Who is in the cluster: the map, its views, leases and PID blocks.
 *
 * Knows: env, store, rpc, consensus.  Tells: its owner, through struct
 * membership_events.
 *
 * The map is the state of a replicated log (consensus.h) among some of the members,
 * the voters: the founder until there are three members, then three to seven of
 * them; one is elected leader.  Every node renews its lease with the leader twice a
 * second and sends its load along; the reply carries the epoch, and the view when
 * the node's is older.  A member whose lease ends is LOST in the next view, and UP
 * again, as a new incarnation, when it returns.
 *
 * Invariants: views are totally ordered by epoch, a node acts only in the
 * newest that it knows; a name, an id and a PID block belong to one member for
 * ever; a member is not declared lost before its lease (by its own clock, with
 * drift) has ended.
 */
#include "env.h"
#include "ids.h"
#include "rpc.h"
#include "store.h"

#include <stdbool.h>

enum {
	MEMBERSHIP_PID_FIRST = 65536,   /* below: services of a node, never leased */
	MEMBERSHIP_PID_BLOCK = 2048,    /* PIDs in a block, of which leases are runs */
	MEMBERSHIP_PID_RUN = 65536,     /* in the longest run that is leased at once */
	MEMBERSHIP_PID_MAX = 4194304,
	MEMBERSHIP_PID_NODES = 1024,    /* so many get a block, whatever others ask for */
};

enum {
	_MEMBERSHIP_E_SUCCESS,
	MEMBERSHIP_E_NO_VIEW,   /* no view came yet */
	MEMBERSHIP_E_EXHAUSTED, /* no PIDs are left for this node, see membership_map_lease_size() */
	MEMBERSHIP_E_NOT_LEADER,
	MEMBERSHIP_E_STATE, /* not from the state that one of the members is in */
	MEMBERSHIP_E_ABSENT, /* a member that is to be added does not answer */
};

enum member_state {
	MEMBER_JOINING, /* in the map, its ssid was not seen yet */
	MEMBER_UP,
	MEMBER_LOST, /* its lease ended */
	MEMBER_LEFT, /* stopped in order */
	MEMBER_LEAVING, /* up, and being removed: nothing new comes to it */
	MEMBER_REMOVED, /* by command, and comes back by command only */
};

struct membership_load {
	uint32_t n_cpus;          /* 0: not heard yet */
	uint32_t running;         /* runnable tasks, times 100 */
	uint64_t memory_total;    /* bytes */
	uint64_t memory_available;
	uint32_t n_processes;     /* of the cluster, here */
	uint32_t store_error;     /* errno of the last write to its store, 0: it went well */
};

static inline bool membership_load_known(const struct membership_load *l)
{
	return l->n_cpus != 0;
}

/* How a member has fared: CLOCK_REALTIME of the leaders that committed it, whole
 * milliseconds, 0: never. */
struct membership_history {
	uint32_t losses;
	nsec_t first;	 /* up for the first time */
	nsec_t changed;	 /* into the state that it is in now */
	nsec_t lost, up, left; /* into that state the last time */
	nsec_t lost_for, left_for; /* in all, before the state that it is in now */
};

struct membership_node {
	node_id id;
	char name[NODE_NAME_MAX + 1];
	char address[64]; /* "10.0.0.1:7777" */
	enum member_state state;
	uint64_t incarnation; /* counts the starts of its ssid that the leader saw */
	epoch_t since;	      /* the first view with this incarnation */
	bool voter;           /* has a vote in who leads */
	struct membership_history history;
	bool witness;	      /* a vote is all that it is there for: it runs no programs */
	struct membership_load load; /* as of its last renewal */
};

struct membership_view {
	epoch_t epoch;
	node_id leader;
	size_t n_nodes; /* every member, UP or not, by id */
	struct membership_node nodes[];
};

struct membership;

struct membership_events {
	/* After rpc has been told; views come in order, each newer than the last. */
	void (*on_view)(void *owner, const struct membership_view *view);
	/* This node may act (true) or its lease has ended (false). */
	void (*on_lease)(void *owner, bool held);
	/* This node holds more PIDs: [first, first + count). */
	void (*on_pid_block)(void *owner, pid_t first, uint32_t count);
	/* Filled by the owner: for the next renewal, or who asks this node. */
	void (*get_load)(void *owner, struct membership_load *ret);
	/* The lease ends then (CLOCK_BOOTTIME) unless it is renewed again, after which this comes
	 * again; before on_lease(true).  May be NULL. */
	void (*on_renewed)(void *owner, nsec_t until);
};

struct membership_config {
	node_id self;
	const char *name;
	const char *address;     /* what others connect to */
	node_id leader;          /* the one that this node joined by, itself if it founded */
	const char *leader_address;
	nsec_t lease;            /* default 2 s */
	uint32_t pids_max;       /* leader: that a node is given altogether; 0: no limit */
	/* Founder only, else NULL: the authority's key and certificate (PEM), to sign joiners;
	 * every voter is told them. */
	const char *ca_pem;
	const char *ca_key_pem;
	const uint8_t *seal_key; /* 32 bytes that every member is given when it joins */
};

int membership_new(struct membership **ret, const struct env *env, const struct store *store,
		   struct rpc *rpc, const struct membership_config *config,
		   const struct membership_events *events, void *owner);
struct membership *membership_free(struct membership *m);
/* Say good-bye to the leader: this node is LEFT, not LOST.  done once, within 1 s. */
int membership_leave(struct membership *m, void (*done)(void *owner), void *owner);

/* The ssid of this node is to stop, and its programs go on: the others lead and decide without it,
 * if that can be.  done once, within two leases. */
int membership_retire(struct membership *m, void (*done)(void *owner), void *owner);

/* On a node that runs no ssid, an operator's word that a majority of the voters is gone for ever:
 * this node alone decides from now on, with what it has; its next view is far ahead of
 * whatever the others may have decided.  MEMBERSHIP_E_ABSENT: it keeps no log, or that of
 * a time when it was a voter.  Blocks. */
int membership_recover(const struct store *store, node_id self, const char *address);

/* The newest view; never NULL after on_view first came, valid until the next. */
const struct membership_view *membership_view(const struct membership *m);
const struct membership_node *membership_node(const struct membership *m, node_id id);
const struct membership_node *membership_node_by_name(const struct membership *m, const char *name);
/* This node's, as of now: in the view it is what the leader heard last. */
struct membership_load membership_own_load(const struct membership *m);
bool membership_lease_held(const struct membership *m);
/* Without the lease: what is missing, and what can be done, in one line for people.  False: the
 * lease is held. */
bool membership_trouble(const struct membership *m, char *ret, size_t size);
/* Why the last renewal was not answered, as " (node 1: it does not answer)"; "": it was. */
const char *membership_unanswered(const struct membership *m);
static inline bool membership_state_is_up(enum member_state state)
{
	return state == MEMBER_UP || state == MEMBER_LEAVING;
}
/* In the cluster: UP, or LEAVING. */
bool membership_is_up(const struct membership *m, node_id id);
/* NULL: something new, a program or a process that moves, may come to @id; else why not, as
 * "n2 is being removed". */
const char *membership_refusal(const struct membership *m, node_id id, char *text, size_t size);

/* Of the time since it was first up, less what it had left for, the part in which it was not
 * lost, in millionths: what a scheduler may expect of it. */
enum { MEMBERSHIP_AVAILABLE = 1000000 };
unsigned membership_availability(const struct membership_node *node, nsec_t now_realtime);

/* The node whose block holds @pid, NODE_NONE for a PID that nobody leased. */
node_id membership_home(const struct membership *m, pid_t pid);
/* Ask the leader for one more run of PIDs; on_pid_block follows.  Idempotent while one is asked
 * for.  MEMBERSHIP_E_*. */
int membership_want_pids(struct membership *m);

/*
 * Leader, for the room that adds and removes members: all of @nodes come to be @to in one
 * view, or none of them.  LEAVING: from UP.  UP: from LEAVING (it stays after all), or from
 * REMOVED, as a new incarnation of an ssid that has asked lately (else
 * MEMBERSHIP_E_ABSENT).  REMOVED: from LEAVING, when it is known to have given up its lease, or
 * when it is not up; never the leader itself.  Those that are @to already stay so.
 * done once, later; what a result other than 0 asked for may yet come to be, when it is
 * MEMBERSHIP_E_NOT_LEADER.
 */
typedef void (*membership_moved_cb)(void *owner, int result);
int membership_move(struct membership *m, const node_id *nodes, size_t n_nodes,
		    enum member_state to, membership_moved_cb done, void *owner);
/* This node, which is LEAVING, acts no more, until a view says what became of it.  MEMBERSHIP_E_STATE. */
int membership_give_up(struct membership *m);
/* Leader: @node, LEAVING, says of this incarnation that it has given up: it gets no lease until
 * it is UP again.  MEMBERSHIP_E_STATE. */
int membership_given_up(struct membership *m, node_id node, uint64_t incarnation);
bool membership_leads(const struct membership *m);
/* Leader: let @node lead, NODE_NONE: a voter that may.  done once: 0, or -EAGAIN and this node
 * leads on. */
int membership_hand_over(struct membership *m, node_id node, membership_moved_cb done,
			 void *owner);

/* A token is one-time, kept as a hash, expires after @lifetime; the leader makes it, whichever
 * node is asked.  @token: "SSI1-<base32 of: CA fingerprint, secret>-<address>"; @result:
 * MEMBERSHIP_E_NOT_LEADER when no leader answers. */
typedef void (*membership_token_cb)(void *owner, int result, const char *token);
int membership_new_token(struct membership *m, nsec_t lifetime, membership_token_cb done,
			 void *owner);
/* Leader: a token that founding_init() made: the SHA-256 of its secret, and when it expires
 * (CLOCK_REALTIME).  Nothing changes when it is known already, used or not. */
typedef void (*membership_added_cb)(void *owner, int result);
int membership_add_token(struct membership *m, const uint8_t hash[static 32], nsec_t expires,
			 membership_added_cb done, void *owner);
/* A joiner's packed ssi.membership.JoinRequest; done gets a packed JoinReply (also for refusals). */
typedef void (*membership_join_cb)(void *owner, const uint8_t *reply, size_t len);
void membership_on_join(struct membership *m, const uint8_t *data, size_t len,
			membership_join_cb done, void *owner);
