#pragma once
/*
 * Typed request/reply between nodes, over transport's links.
 *
 * Knows: env, transport, membership's addresses (told, never asked).  Tells:
 * rooms, through their method tables and the done callback of each call.
 *
 * Invariants: a call ends exactly once, with a reply, a failure or a timeout; a
 * request is answered exactly once; every request is idempotent or carries an
 * operation id of its own, since a call whose link broke may have been served.
 * protobuf-c is known here and in a room's <room>_wire.c; nowhere else.
 * Calls to this very node take the same path, through the loop, without a link.
 */
#include "env.h"
#include "ids.h"
#include "transport.h"

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>

struct rpc;
struct rpc_call;    /* a request that this node is answering */
struct rpc_request; /* a request that this node has made */

/* How a call ended.  On the wire: never raw errno. */
enum rpc_status {
	RPC_OK = 0,
	RPC_FAILED = 1,        /* see text */
	RPC_USAGE = 2,         /* the request makes no sense */
	RPC_NOT_PERMITTED = 3,
	RPC_NOT_FOUND = 4,     /* no such process, node, application, checkpoint */
	RPC_UNSUPPORTED = 5,   /* a resource that cannot be moved or saved */
	RPC_CONFLICT = 6,      /* pid in use, busy */
	RPC_TIMEOUT = 7,
	RPC_DOWN = 8,          /* no cluster, or the node cannot be reached */
	RPC_STALE = 9,         /* one of both has been out of the cluster since it was made */
};

/* The result of a call, valid during the done callback. */
struct rpc_result {
	enum rpc_status status;
	const char *text; /* one line for people when status is not RPC_OK; never NULL */
	const ProtobufCMessage *reply; /* of the type expected; NULL unless RPC_OK */
	struct iovec bulk;
	bool answered; /* by whom it was for; false: whether it served the call may be unknown */
};

typedef void (*rpc_done_cb)(void *owner, const struct rpc_result *result);

struct rpc_method {
	uint16_t id; /* room << 8 | n, never reused */
	const char *name;
	const ProtobufCMessageDescriptor *request;
	const ProtobufCMessageDescriptor *reply;
	/* Answer by rpc_reply() or rpc_fail(), now or later, exactly once.  @req
	 * and @bulk are valid during this call. */
	void (*handle)(void *room, struct rpc_call *call, const ProtobufCMessage *req,
		       struct iovec bulk);
};

/*
 * RPC_HANDLER(on_join, struct membership, Ssi__Membership__JoinRequest) { ... }
 * gives a function whose arguments (self, call, req, bulk) have their true
 * types, and on_join_thunk, the only place where a cast is made.
 */
#define RPC_HANDLER(fn_, room_, msg_)                                                \
	static void fn_(room_ *self, struct rpc_call *call, const msg_ *req,         \
			struct iovec bulk);                                          \
	static void fn_##_thunk(void *room, struct rpc_call *call,                   \
				const ProtobufCMessage *req, struct iovec bulk)      \
	{                                                                            \
		fn_(room, call, (const msg_ *)req, bulk);                            \
	}                                                                            \
	static void fn_(room_ *self, struct rpc_call *call, const msg_ *req,         \
			struct iovec bulk)

#define RPC_METHOD(id_, fn_, request_, reply_)                                       \
	{                                                                            \
		(id_), #fn_, &(request_), &(reply_), fn_##_thunk                     \
	}

/* First byte of a method id. */
enum {
	RPC_ROOM_MEMBERSHIP = 1,
	RPC_ROOM_PROCESS = 2,
	RPC_ROOM_STREAM = 3,
	RPC_ROOM_MIGRATION = 4,
	RPC_ROOM_CHECKPOINT = 5,
	RPC_ROOM_CONTROL = 6,
	RPC_ROOM_CONSENSUS = 7,
	RPC_ROOM_HOTPLUG = 8,
	RPC_ROOM_EVENTS = 9,
	RPC_ROOM_PLACEMENT = 10,
};

int rpc_new(struct rpc **ret, const struct env *env, node_id self);
struct rpc *rpc_free(struct rpc *rpc); /* ends every call with RPC_DOWN */

/* What users call a node, for the texts of failures: told by membership, NULL: not known. */
typedef const char *(*rpc_name_cb)(void *owner, node_id node);
void rpc_set_names(struct rpc *rpc, rpc_name_cb name, void *owner);
/* Its name, else its number; good until the second call after this. */
const char *rpc_name(struct rpc *rpc, node_id node);

/* The links; before it, calls to other nodes fail with RPC_DOWN.  rpc is the owner of
 * the events that rpc_events() returns. */
const struct transport_events *rpc_events(void);
void rpc_set_transport(struct rpc *rpc, const struct transport *transport);

/* @methods ends with a zero row and outlives the rpc. */
int rpc_register(struct rpc *rpc, const struct rpc_method *methods, void *room);

#define RPC_NEVER UINT64_MAX

enum { RPC_TEXT_MAX = 256 }; /* of a failure, and its NUL; the rest is cut off */

/*
 * Told by membership on every view: who is in, where, and the epoch.  Calls to
 * nodes that are not in it end with RPC_DOWN, their links are closed; requests
 * from nodes outside of it are refused with RPC_STALE, except to membership and
 * consensus, which make the views.
 *
 * A request carries the epoch of the view in which it was made.  It is served if that is
 * a view since which neither end has been out of the cluster: what else has changed
 * meanwhile, say who has a vote, is no matter between the two.  A receiver that does
 * not know the sender yet, since its view is the older one, is asked again.
 */
struct rpc_peer {
	node_id node;
	const char *address;
	epoch_t since; /* up in all views from this one; RPC_NEVER: only the rooms that
			* make the views talk to it */
};
/* @peers may have this node among them. */
int rpc_set_view(struct rpc *rpc, epoch_t epoch, const struct rpc_peer *peers, size_t n_peers);
/*
 * Told by consensus: the servers.  Calls to membership and consensus reach them outside of
 * any view as well, at this address; in a view it is the view's that counts.
 */
int rpc_set_servers(struct rpc *rpc, const struct rpc_peer *servers, size_t n_servers);

/*
 * Call @method of @node.  0: done comes exactly once, later, never inline,
 * within @timeout.  The request is packed before this returns; @bulk is copied.
 * ret_request (may be NULL) allows rpc_cancel(), after which done never comes.
 */
int rpc_call(struct rpc *rpc, node_id node, uint16_t method, const ProtobufCMessage *request,
	     struct iovec bulk, nsec_t timeout, rpc_done_cb done, void *owner,
	     struct rpc_request **ret_request);
void rpc_cancel(struct rpc *rpc, struct rpc_request *request);

/* Bytes queued for @node and not yet sent: senders of bulk stay below a window of
 * their own by counting replies, and may look here as well. */
size_t rpc_queued(struct rpc *rpc, node_id node);

/* Since when @node, which is in the view, was asked in vain: nothing at all came from it, or no
 * link comes up.  0: it is not so, or nobody has asked it. */
nsec_t rpc_silent_since(const struct rpc *rpc, node_id node);

void rpc_reply(struct rpc_call *call, const ProtobufCMessage *reply, struct iovec bulk);
void rpc_fail(struct rpc_call *call, enum rpc_status status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
node_id rpc_call_peer(const struct rpc_call *call);
/* Was it made in a view that is still to come here? */
bool rpc_call_is_ahead(const struct rpc_call *call);

struct rpc_counters {
	uint64_t calls, failed, timeouts; /* made here */
	uint64_t served, refused;	  /* made by others */
	uint64_t broken;		  /* frames that closed their link */
	uint64_t orphans;		  /* replies that nobody waited for any more */
	uint64_t links;			  /* that came up */
};

const struct rpc_counters *rpc_counters(const struct rpc *rpc);
node_id rpc_self(const struct rpc *rpc);
const struct env *rpc_env(const struct rpc *rpc);

#define RPC_NO_BULK ((struct iovec){ 0 })
