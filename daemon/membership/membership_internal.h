#pragma once
/*
 * What membership's own files share.
 *
 * membership.c is a member, membership_find.c how it finds the leader,
 * membership_trouble.c what it lacks when it finds none, membership_reach.c whom it asks in
 * vain, membership_cuts.c what the leader makes of that,
 * membership_known.c the last view, written down for its successor,
 * membership_recover.c what an operator does when a majority is gone for ever,
 * membership_server.c a server of the replicated log, membership_leader.c the
 * leader's renewals and leases, membership_move.c members that are added and removed by
 * command, membership_retire.c a node whose ssid is to stop, membership_voters.c who should
 * have a vote, membership_history.c how members have fared,
 * membership_commit.c changes of the map, membership_changes.c what of it is told,
 * membership_admit.c tokens and joins;
 * membership_wire.c, _join.c and _state.c are those that see protobuf.
 */
#include "consensus.h"
#include "membership_map.h"
#include "membership_state.h"
#include "membership_token.h"

#include <sys/queue.h>
#include <uthash.h>

enum {
	MEMBERSHIP_MAX_LOADS = 64,  /* in one renewal's reply */
	MEMBERSHIP_MAX_JOINS = 128, /* being decided */
	MEMBERSHIP_MAX_UNREACHED = 16, /* that one member tells of */
};

/* 1 << 8 | n */
enum membership_method {
	MEMBERSHIP_RENEW = RPC_ROOM_MEMBERSHIP << 8 | 1,
	MEMBERSHIP_LEAVE = RPC_ROOM_MEMBERSHIP << 8 | 2,
	MEMBERSHIP_WANT_PIDS = RPC_ROOM_MEMBERSHIP << 8 | 3,
	MEMBERSHIP_TELL = RPC_ROOM_MEMBERSHIP << 8 | 4,
	MEMBERSHIP_NEW_TOKEN = RPC_ROOM_MEMBERSHIP << 8 | 5,
	MEMBERSHIP_PROBE = RPC_ROOM_MEMBERSHIP << 8 | 6,
};

/* Members that are up, and asked in vain. */
struct membership_unreached {
	size_t n;
	node_id nodes[MEMBERSHIP_MAX_UNREACHED];
};

struct membership_renewal {
	uint64_t start;
	uint64_t incarnation; /* 0: not told yet */
	epoch_t epoch;
	struct membership_load load;
	struct membership_unreached unreached;
};

struct membership_renewed {
	epoch_t epoch;
	uint64_t incarnation;
	nsec_t lease;
	const struct membership_map *view; /* NULL: the sender's is the newest */
	node_id leader; /* not NODE_NONE: no lease, this one leads */
	node_id cut_from; /* not NODE_NONE: no lease, before this one is reached */
	size_t n_loads;
	struct {
		node_id node;
		struct membership_load load;
	} loads[MEMBERSHIP_MAX_LOADS];
};

struct membership_leader;
struct membership_hand_over;

struct membership {
	const struct env *env;
	const struct store *store;
	struct rpc *rpc;
	struct consensus *consensus;
	struct membership_state *state; /* as applied here; a map of epoch 0 but on servers */
	const struct membership_events *events;
	void *owner;
	struct membership_config config; /* strings are copies below */
	char name[NODE_NAME_MAX + 1], address[64], leader_address[64];
	uint8_t seal_key[32];
	char *ca_pem, *ca_key_pem;
	uint64_t start; /* drawn at this start */
	nsec_t started_at;
	uint64_t incarnation;
	struct membership_map *map; /* NULL before the first view */
	node_id target;		  /* whom to renew with next */
	node_id bystander;	  /* the last without a vote that was asked for the leader */
	node_id asked;		  /* with the last renewal */
	struct {
		node_id node;
		nsec_t at;
	} answered[8];		  /* those who were asked of late; oldest replaced */
	char unanswered[96];	  /* see membership_unanswered() */
	bool recovered;		  /* by membership_recover(), and no view was committed since */
	bool lease_told;	    /* what the owner was told last */
	bool told;		    /* else the lease of a predecessor may last */
	bool given_up;		    /* and takes none until a view has settled that */
	node_id cut_from;	    /* gets none before this one is reached; NODE_NONE: not so */
	nsec_t lease_until;	    /* by this node's clock; 0: none */
	nsec_t sent_at;		    /* the renewal that is under way */
	struct env_timer renew_timer, lease_timer, tell_timer;
	struct env_timer known_timer; /* armed: the map was not told yet */
	struct rpc_request *renewing, *wanting, *leaving;
	struct membership_hand_over *hand_over; /* under way, or NULL */
	struct {
		void (*done)(void *owner); /* NULL: its ssid is not to stop */
		void *owner;
		struct env_timer timer;
		nsec_t until;
		bool handing;
	} retire;
	void (*left)(void *owner); /* not NULL: leaving */
	void *left_owner;
	struct membership_leader *leader; /* NULL: this node is not */
};

/* membership_trouble.c */

/* The one who was asked last has answered. */
void membership_trouble_answered(struct membership *m);
/* Within the last lease? */
bool membership_has_answered(const struct membership *m, node_id node);
/* He has not, as @why says. */
void membership_trouble_unanswered(struct membership *m, const char *why);

/* membership_find.c */

/* Whom to ask now. */
node_id membership_find_target(const struct membership *m);
/* It does not answer, or does not know who leads: another one next time. */
void membership_find_failed(struct membership *m);
/* It says that @leader leads. */
void membership_find_referred(struct membership *m, node_id leader);

/* membership_reach.c */

/* For the next renewal; and they are asked again. */
void membership_reach_look(struct membership *m, struct membership_unreached *ret);

/* membership.c */

/* @owned_map is a newer view, or is dropped. */
void membership_take_view(struct membership *m, struct membership_map *owned_map);
/* @changes of view @base; of another than ours: for a whole one, the leader is asked. */
void membership_take_changes(struct membership *m, epoch_t base,
			     const struct membership_map *changes);
/* Tell the owner of our map; @old: what it was told before, or NULL. */
void membership_announce(struct membership *m, const struct membership_map *old);
/* @renewed is NULL unless RPC_OK. */
void membership_on_renewed(struct membership *m, enum rpc_status status, const char *text,
			   const struct membership_renewed *renewed);
void membership_on_wanted(struct membership *m, enum rpc_status status, const char *text);
void membership_on_left(struct membership *m, enum rpc_status status, const char *text);

/* membership_known.c */
int membership_known_load(struct membership *m);
/* Epoch 0: none. */
int membership_known_read(const struct store *store, struct membership_map **ret);
void membership_known_save(struct membership *m);

/* What the leader waits for to be durable; embedded in the request that waits. */
struct membership_change {
	TAILQ_ENTRY(membership_change) in;
	LIST_ENTRY(membership_change) tokens; /* of leader->tokens, if it is about one */
	/* A token's record that becomes durable together with the map. */
	bool has_token;
	struct membership_token_change token;
	/* @result: 0 or -errno, and nothing was changed.  Frees the change; so does drop,
	 * which is for the end of the room and tells nobody. */
	void (*done)(struct membership_change *change, struct membership *m, int result);
	void (*drop)(struct membership_change *change);
};

TAILQ_HEAD(membership_change_list, membership_change);

/* Heard of since this start of the leader. */
struct membership_lease {
	UT_hash_handle hh;
	node_id node;
	nsec_t heard;
	uint64_t start; /* of the ssid that was heard of; 0: none was */
	bool given_up;	/* and gets no lease: it is being removed */
	nsec_t asked;	/* as heard, but it goes on while ->cut_from */
	node_id cut_from; /* and gets no lease: it does not reach this one; or NODE_NONE */
	struct membership_unreached unreached;
	struct membership_load load;
};

struct membership_commit;

struct membership_leader {
	struct membership *m;
	struct membership_map *next;	  /* the state's, with every change decided since */
	struct membership_map *told;	  /* the last that was told to all, or the first found */
	nsec_t committed_at;		  /* the last map */
	bool dirty;			  /* next differs from what was last proposed */
	bool authority;			  /* the founder's is to be proposed */
	bool changing;			  /* a change of the servers is under way */
	bool handing;			  /* this node was removed, and hands over */
	bool exhausted;			  /* that no PIDs are left was logged */
	struct membership_commit *commit; /* under way, or NULL */
	struct membership_change_list waiting;
	LIST_HEAD(, membership_change) tokens; /* being decided */
	struct membership_lease *leases;
	struct env_timer watch, flush;
	nsec_t watched_at;
	nsec_t patient_until; /* nobody is lost before */
	size_t load_turn; /* whose loads come next */
	size_t n_joins;
};

/* membership_leader.c */
int membership_leader_new(struct membership *m);
struct membership_leader *membership_leader_free(struct membership *m);
void membership_leader_renew(struct membership *m, struct rpc_call *call,
			     const struct membership_renewal *renewal);
void membership_leader_leave(struct membership *m, struct rpc_call *call, uint64_t start);
/* By this leader, and a moment ago: it is not handed over to the dead. */
bool membership_leader_has_heard(struct membership *m, node_id node);
/* It comes up, and has some already or is given its first, in next. */
void membership_leader_first_pids(struct membership *m, node_id node);
/* @pids: that it holds, which makes the request idempotent. */
void membership_leader_want_pids(struct membership *m, struct rpc_call *call, uint32_t pids);

/* The lease record of @node, NULL: nothing was heard of it. */
struct membership_lease *membership_lease_find(struct membership_leader *l, node_id node);

/* membership_cuts.c */

/* Two members, both in touch with the leader, of whom one does not reach the other. */
struct membership_cut {
	node_id a, b;
};
/* Who is to be taken out first, so that few are; of equals the higher id.  NODE_NONE: there
 * are none. */
node_id membership_cuts_next(const struct membership_cut *cuts, size_t n);
/* Leader: whose leases are not renewed any more, or are again: lease->cut_from. */
void membership_cuts_watch(struct membership *m, nsec_t now);
/* Leader: a member that is up, and that @node, which is out, says it does not reach. */
node_id membership_cuts_of(struct membership *m, node_id node);

/* membership_server.c */
int membership_server_new(struct membership *m);
/* What is committed is this node's own view before anybody else's: a new leader may have
 * one that the last did not live to tell. */
void membership_server_tell_self(struct membership *m);

/* membership_voters.c */

/* What stands for a vote. */
struct membership_voter {
	node_id node;
	bool up;    /* its lease is renewed, or if it is removed, it answers */
	bool gone;  /* and has not been for long */
	bool removed; /* and no member any more */
	bool voter;
};
/* The next change of the voters, one at a time: one voter until there are three members, then
 * three, five, seven; whoever is gone is replaced, by the lowest id that is up, before he
 * loses his vote.  @self, the leader, keeps his.  NODE_NONE: all is well, or nothing can be
 * done. */
node_id membership_voters_next(const struct membership_voter *v, size_t n, node_id self,
			       bool *ret_vote);

/* membership_recover.c */
int membership_recover_load(struct membership *m);
/* How far its next view is from the last. */
epoch_t membership_recover_step(const struct membership *m);
void membership_recover_done(struct membership *m);

/* membership_changes.c */
enum {
	_MEMBERSHIP_CHANGES_E_SUCCESS,
	MEMBERSHIP_CHANGES_E_WHOLE, /* the view is to be told whole */
};
/* A map of what in @map is not as in @base, and is no whole one. */
int membership_changes_new(struct membership_map **ret, const struct membership_map *base,
			   const struct membership_map *map);
/* @changes of @base, in a copy of it.  -EBADMSG: they are none of that. */
int membership_changes_apply(struct membership_map **ret, const struct membership_map *base,
			     const struct membership_map *changes);

/* membership_commit.c */

/* leader->next afresh, from what is committed, or the first map. */
int membership_commit_begin(struct membership *m);
/* @change->done comes when all that was changed in leader->next before this is durable. */
void membership_commit(struct membership *m, struct membership_change *change);
/* The same, but done never comes before this returns. */
void membership_commit_later(struct membership *m, struct membership_change *change);
/* Begin a write, if something has changed and none is under way. */
void membership_commit_flush(struct membership *m);
/* This node leads no more: what waits is refused. */
void membership_commit_refuse(struct membership *m);
void membership_commit_fini(struct membership *m);

/* membership_wire.c */
extern const struct rpc_method membership_methods[];

int membership_wire_renew(struct membership *m, const struct membership_renewal *renewal);
int membership_wire_leave(struct membership *m);
void membership_wire_probe(struct membership *m, node_id node);
int membership_wire_want_pids(struct membership *m, uint32_t pids);
int membership_wire_new_token(struct membership *m, nsec_t lifetime, membership_token_cb done,
			      void *owner);
/* A view, whole, or (@base not 0) what it changes of the one with that epoch. */
int membership_wire_tell(struct membership *m, node_id node, const struct membership_map *map,
			 epoch_t base);
void membership_wire_renewed(struct rpc_call *call, const struct membership_renewed *renewed);
void membership_wire_reply_empty(struct rpc_call *call);
/* As in the store; malloc()ed. */
int membership_wire_map_pack(const struct membership_map *map, uint8_t **ret, size_t *ret_len);
/* -EBADMSG: not a map, or not one that can be. */
int membership_wire_map_unpack(struct iovec bytes, struct membership_map **ret);
