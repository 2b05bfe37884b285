#pragma once
/*
 * The process room on the wire: the only file of it that knows protobuf is
 * process_wire.c.  Calls are typed here; a call ends exactly once, with done().
 */
#include "cleanup.h"
#include "process.h"

enum process_method {
	/* 0x201 is not used. */
	PROCESS_WHERE = RPC_ROOM_PROCESS << 8 | 2,
	PROCESS_SIGNAL = RPC_ROOM_PROCESS << 8 | 3,
	PROCESS_WAIT = RPC_ROOM_PROCESS << 8 | 4,
	PROCESS_CHANGED = RPC_ROOM_PROCESS << 8 | 5,
	PROCESS_PLACED = RPC_ROOM_PROCESS << 8 | 6,
	PROCESS_RESERVE = RPC_ROOM_PROCESS << 8 | 7,
	PROCESS_RELEASE = RPC_ROOM_PROCESS << 8 | 8,
	PROCESS_SINCE = RPC_ROOM_PROCESS << 8 | 9,
	PROCESS_CLAIM = RPC_ROOM_PROCESS << 8 | 10,
	PROCESS_SEEK = RPC_ROOM_PROCESS << 8 | 11,
	PROCESS_GROUP = RPC_ROOM_PROCESS << 8 | 12,
};

extern const struct rpc_method process_methods[];

/* A launch as bytes, for another node's control room: all but stdio, which is -1
 * afterwards. */
int process_launch_pack(const struct process_launch *l, uint8_t **ret, size_t *ret_len);
/* Believes nothing: -EINVAL.  Strings, and descriptors given to it later, are the
 * launch's own. */
int process_launch_unpack(struct process_launch **ret, const uint8_t *data, size_t len);
/* Its descriptors are closed. */
struct process_launch *process_launch_free(struct process_launch *l);
DEFINE_CLEANUP(struct process_launch, process_launch_free)
/* The page for ssi-spawn: @pipes as in process.proto. */
int process_launch_page(const struct process_launch *l, uint32_t pipes, uint8_t **ret,
			size_t *ret_len);

struct wire_signal {
	pid_t pid;
	int signal, code;
	pid_t sender_pid;
	uid_t sender_uid;
	uint64_t value;
	uint32_t generation;
	uint64_t sequence; /* 0: from a caller, not from a shadow */
	bool check;	   /* the sender's right */
	pid_t foreground;  /* of SIGCONT: the group that has the terminal; 0: of no matter */
};

/* To a group, from a sentinel of it. */
struct wire_group {
	struct wire_signal signal; /* pid: of the group; signal 0: only asked */
	pid_t sentinel;
	const pid_t *except;
	size_t n_except;
};

enum wire_change_what { WIRE_ENDED = 0, WIRE_STOPPED = 1, WIRE_WENT_ON = 2 };

struct wire_change {
	pid_t pid;
	uint32_t generation;
	enum wire_change_what what;
	int code, status;
};

enum { WIRE_CLAIMS_MAX = 16384 }; /* in one call; as many as there are records */

struct wire_claim {
	pid_t pid;
	uint32_t generation;
	uint64_t home; /* of a request: incarnation in which its home knew of it, 0: none */
	node_id place; /* of a reply: where it lives, NODE_NONE: nowhere (yet) */
};

/* What a reply says; which fields depends on the method. */
struct wire_answer {
	node_id place;
	uid_t uid;
	uint32_t generation;
	bool ended;
	int code, status;
	uint64_t since;
	const struct wire_claim *claims; /* valid during done() */
	size_t n_claims;
};

struct wire_call;
typedef void (*wire_done_cb)(struct wire_call *c, enum rpc_status status,
			     const char *text, const struct wire_answer *answer);

/* Embedded in its owner; zero it, set done. */
struct wire_call {
	wire_done_cb done;
	struct rpc *rpc;
	struct rpc_request *request; /* NULL: not under way */
};

/* As rpc_call(): 0: done comes once, later; < 0: never. */
int wire_where(struct rpc *rpc, struct wire_call *c, node_id node, pid_t pid);
int wire_signal(struct rpc *rpc, struct wire_call *c, node_id node,
		const struct wire_signal *s);
int wire_wait(struct rpc *rpc, struct wire_call *c, node_id node, pid_t app);
int wire_changed(struct rpc *rpc, struct wire_call *c, node_id node,
		 const struct wire_change *h);
int wire_placed(struct rpc *rpc, struct wire_call *c, node_id node,
		const struct process_record *d, uint64_t incarnation);
int wire_since(struct rpc *rpc, struct wire_call *c, node_id node);
int wire_reserve(struct rpc *rpc, struct wire_call *c, node_id node,
		 const struct process_member *members, size_t n, node_id place);
int wire_release(struct rpc *rpc, struct wire_call *c, node_id node,
		 const struct process_member *members, size_t n, node_id place);
int wire_claim(struct rpc *rpc, struct wire_call *c, node_id node,
	       const struct wire_claim *claims, size_t n);
int wire_seek(struct rpc *rpc, struct wire_call *c, node_id node,
	      const struct wire_claim *sought, size_t n);
int wire_group(struct rpc *rpc, struct wire_call *c, node_id node, const struct wire_group *g);
void wire_cancel(struct wire_call *c);

/* Answers of the handlers, which are in process_internal.h. */
void wire_reply_done(struct rpc_call *call);
void wire_reply_where(struct rpc_call *call, const struct wire_answer *a);
void wire_reply_wait(struct rpc_call *call, const struct wire_answer *a);
void wire_reply_since(struct rpc_call *call, uint64_t incarnation);
void wire_reply_claim(struct rpc_call *call, const struct wire_claim *claims, size_t n);
