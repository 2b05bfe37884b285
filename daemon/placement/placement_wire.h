#pragma once
/* The room on the wire: what is sent is made here, what comes is checked here. */
#include "placement_internal.h"

enum placement_method {
	PLACEMENT_ASK = RPC_ROOM_PLACEMENT << 8 | 1,
	PLACEMENT_END = RPC_ROOM_PLACEMENT << 8 | 2,
	PLACEMENT_STATE = RPC_ROOM_PLACEMENT << 8 | 3,
};

extern const struct rpc_method placement_methods[];

/* The page for ssi-spawn.  malloc()ed. */
int placement_pack(const struct placement_exec *x, uint8_t **ret, size_t *ret_len);
/* Of a page what ssid itself looks at; the rest is ssi-spawn's, with its user's rights.
 * -EBADMSG; @ret, which was empty, is to be freed in any case. */
int placement_unpack(struct placement_exec *ret, const uint8_t *page, size_t len, size_t n_given);

/* As rpc_call(). */
int placement_wire_ask(struct placement *p, node_id node, const struct placement_look *l,
		       const stream_id *streams, rpc_done_cb done, void *owner,
		       struct rpc_request **ret);
int placement_wire_end(struct placement *p, node_id node, pid_t pid, uint32_t generation,
		       const struct placement_end *end, rpc_done_cb done, void *owner,
		       struct rpc_request **ret);
int placement_wire_state(struct placement *p, node_id node, pid_t pid, uint32_t generation,
			 rpc_done_cb done, void *owner, struct rpc_request **ret);

uint64_t placement_wire_incarnation(const struct rpc_result *result);
bool placement_wire_left(const struct rpc_result *result);

void placement_wire_ready(struct placement *p, struct rpc_call *call);
void placement_wire_done(struct rpc_call *call);
void placement_wire_is_left(struct rpc_call *call, bool left);
