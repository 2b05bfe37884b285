#pragma once
/*
 * What rpc's own files share: requests, links, calls being answered.
 *
 * rpc.c owns requests and time, rpc_remote.c the other nodes and who of them is
 * in the view, rpc_link.c links, rpc_serve.c calls; rpc_wire.c packs and unpacks.
 */
#include "rpc.h"

#include "cleanup.h"
#include "sm.h"

#include <sys/queue.h>
#include <uthash.h>

enum {
	RPC_MAX_TABLES = 16,
	RPC_MAX_CALLS = 1024,	      /* being answered, for one node */
	RPC_MAX_WAITING = 1024,	      /* waiting to be sent, to one node */
	RPC_MAX_WAITING_BYTES = 16 << 20,
	RPC_MAX_OUT_BYTES = 32 << 20, /* replies that a node does not read */
};

#define RPC_SWEEP (5 * NSEC_PER_SEC)
#define RPC_IDLE (60 * NSEC_PER_SEC)
#define RPC_EXTRA_IDLE (5 * NSEC_PER_SEC) /* of a link that is not the chosen one */
#define RPC_RACE (10 * NSEC_PER_SEC) /* opened within it: at the same time */
#define RPC_AGAIN (50 * NSEC_PER_MSEC) /* to a node whose view is older than ours */

enum rpc_request_state {
	REQUEST_NEW,
	REQUEST_WAITING, /* in remote->waiting: no link yet, or its queue is full */
	REQUEST_SENT,	 /* in link->sent and rpc->by_id */
	REQUEST_EARLY,	 /* in rpc->early: its node does not know us yet */
	REQUEST_LOCAL,	 /* in rpc->local: to this node, not yet served */
	REQUEST_SERVED,	 /* to this node, ->served is answering it */
	REQUEST_ENDED,	 /* in rpc->ended: done comes when the loop turns */
	REQUEST_DONE,
};

struct rpc_request {
	TAILQ_ENTRY(rpc_request) by_due; /* always */
	TAILQ_ENTRY(rpc_request) in;	 /* by state */
	UT_hash_handle hh;
	struct sm sm;
	struct rpc *rpc;
	const struct rpc_method *method;
	uint64_t id;
	uint64_t turn; /* of the loop, when it came into rpc->local or ->ended */
	epoch_t epoch; /* of our view, when it was made */
	node_id node;
	struct rpc_remote *remote;
	struct rpc_link *link;
	struct rpc_call *served;
	nsec_t timeout, due;
	rpc_done_cb done;
	void *owner;
	uint8_t *data; /* the packed request, then a local reply: message, bulk.  Once sent,
			* only of the rooms above views: they may be told that it was early */
	size_t message_len, bulk_len;
	enum rpc_status status;
	char text[RPC_TEXT_MAX];
};

TAILQ_HEAD(rpc_request_list, rpc_request);

struct rpc_call {
	LIST_ENTRY(rpc_call) in; /* link->calls or rpc->orphans */
	struct rpc *rpc;
	const struct rpc_method *method;
	struct rpc_remote *remote;   /* whose account it is on; NULL: local */
	struct rpc_link *link;	     /* NULL: local, or gone */
	struct rpc_request *request; /* local; NULL: nobody waits any more */
	uint64_t id;
	node_id peer;
	epoch_t epoch; /* of the view in which it was made */
	bool notify;
};

LIST_HEAD(rpc_call_list, rpc_call);

/* A reply that the transport did not take yet. */
struct rpc_out {
	STAILQ_ENTRY(rpc_out) in;
	struct transport_frame frame;
	uint8_t data[];
};

struct rpc_link {
	UT_hash_handle hh; /* by ->link */
	LIST_ENTRY(rpc_link) in;
	struct transport_link *link;
	struct rpc *rpc;
	struct rpc_remote *remote;
	bool opened_here, up, full, closing;
	nsec_t up_at, active_at;
	struct rpc_request_list sent;
	struct rpc_call_list calls;
	STAILQ_HEAD(, rpc_out) out;
	size_t out_bytes;
};

/* Another node. */
struct rpc_remote {
	UT_hash_handle hh; /* by ->node */
	struct rpc *rpc;
	node_id node;
	bool in_view, seen; /* seen: the mark of whoever sets a list */
	epoch_t since, next_since; /* see rpc_peer; next: while a view is set */
	char *address;	      /* in the view */
	char *server_address; /* NULL: no server */
	LIST_HEAD(, rpc_link) links;
	struct rpc_link *link; /* up, the one that requests take */
	struct rpc_link *opening;
	nsec_t heard, silent_since; /* see rpc_silent_since() */
	struct rpc_request_list waiting;
	size_t n_waiting, waiting_bytes;
	size_t n_calls;
};

struct rpc_table {
	const struct rpc_method *methods;
	void *room;
};

struct rpc {
	const struct env *env;
	const struct transport *transport;
	node_id self;
	epoch_t epoch, since; /* of this node: see rpc_peer */
	rpc_name_cb name;
	void *name_owner;
	char numbers[2][12]; /* in place of names; @number is the next one to use */
	unsigned number;
	bool stopping;
	uint64_t next_id;
	uint64_t turn_number;
	struct env_timer turn, deadline, sweep, again;
	struct rpc_table tables[RPC_MAX_TABLES];
	size_t n_tables;
	struct rpc_request_list by_due, local, ended, early;
	struct rpc_request *by_id;
	struct rpc_call_list orphans; /* calls without a link: local, or it went down */
	struct rpc_remote *remotes;
	struct rpc_link *links;
	struct rpc_counters counters;
};

/* rpc.c */
const struct rpc_method *rpc_method_find(const struct rpc *rpc, uint16_t id, void **ret_room);
/* Out of its queue; what it waited for is forgotten. */
void rpc_request_detach(struct rpc_request *q);
/* End @q when the loop turns. */
void rpc_request_end(struct rpc_request *q, enum rpc_status status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* The owner is told now, @q is freed. */
void rpc_request_done(struct rpc_request *q, const struct rpc_result *result);
void rpc_request_queue(struct rpc_request *q, struct rpc_request_list *list);

/* Of the rooms that make the views. */
static inline bool rpc_is_below_views(uint16_t method)
{
	return method >> 8 == RPC_ROOM_MEMBERSHIP || method >> 8 == RPC_ROOM_CONSENSUS;
}

/* rpc_remote.c */
struct rpc_remote *rpc_remote_get(struct rpc *rpc, node_id node);
/* Send what waits for @remote, opening a link if there is none. */
void rpc_remote_push(struct rpc_remote *remote);
/* A link came up, or is no longer good: which one do requests take? */
void rpc_remote_choose(struct rpc_remote *remote);
void rpc_remote_submit(struct rpc_request *q);
/* @q was refused for a view that @q's node does not have yet. */
void rpc_remote_early(struct rpc_request *q, const char *text);
void rpc_on_again(struct env_timer *timer);
/* Does @method reach it, and may it call @method? */
bool rpc_remote_is_in(const struct rpc_remote *remote, uint16_t method);
/* End all that waits, or what waits for the rooms above views. */
void rpc_remote_fail(struct rpc_remote *remote, bool all, const char *reason);
/* It was asked at @since, in vain; something came from it. */
void rpc_remote_silent(struct rpc_remote *remote, nsec_t since);
void rpc_remote_heard(struct rpc_remote *remote);
void rpc_on_sweep(struct env_timer *timer);
void rpc_remotes_fini(struct rpc *rpc);

/* rpc_link.c */
int rpc_link_open(struct rpc_remote *remote);
/* TRANSPORT_E_*; @q is on its way or where it was. */
int rpc_link_send_request(struct rpc_link *link, struct rpc_request *q);
/* A reply: kept while the transport is full. */
void rpc_link_send(struct rpc_link *link, const struct transport_frame *frame);
void rpc_link_close(struct rpc_link *link, const char *reason);
/* End what was sent on it, or of that what is of the rooms above views. */
void rpc_link_fail(struct rpc_link *link, bool all, const char *reason);
bool rpc_link_is_idle(const struct rpc_link *link);
struct rpc_link *rpc_link_free(struct rpc_link *link);

/* rpc_serve.c: the results of on_frame */
int rpc_serve_request(struct rpc_link *link, const struct transport_frame *frame);
void rpc_serve_local(struct rpc_request *q);
void rpc_calls_orphan(struct rpc_link *link);
void rpc_calls_fini(struct rpc *rpc);

/* rpc_wire.c */

/* Unpack with bounded memory; NULL: not such a message, too big, no memory. */
ProtobufCMessage *rpc_unpack(const ProtobufCMessageDescriptor *type, struct iovec bytes);
void rpc_unpacked_free(ProtobufCMessage *message);
/* malloc()ed; the message, then the bulk behind it.  -EMSGSIZE. */
int rpc_pack(const ProtobufCMessage *message, struct iovec bulk, uint8_t **ret_data,
	     size_t *ret_message_len);
/* A Failure's bytes in @ret; status and text of one, cleaned for people. */
size_t rpc_failure_pack(enum rpc_status status, const char *text,
			uint8_t ret[static RPC_TEXT_MAX + 32]);
int rpc_failure_unpack(struct iovec bytes, enum rpc_status *ret_status,
		       char ret_text[static RPC_TEXT_MAX]);

static inline void rpc_unpacked_freep(ProtobufCMessage **message)
{
	rpc_unpacked_free(*message);
}
