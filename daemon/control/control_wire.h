#pragma once
/* Methods between the control rooms of two nodes, and who serves them. */
#include "control_internal.h"
#include "envelope.pb-c.h"

enum {
	CONTROL_LIST = RPC_ROOM_CONTROL << 8 | 1,
	CONTROL_LAUNCH = RPC_ROOM_CONTROL << 8 | 2,
	CONTROL_PING = RPC_ROOM_CONTROL << 8 | 3,
	CONTROL_CAPABILITIES = RPC_ROOM_CONTROL << 8 | 4,
};

/* control_view.c */
void control_serve_list(struct control *control, struct rpc_call *call,
			const Ssi__Control__ListRequest *q);
/* control_nodes.c */
void control_serve_ping(struct rpc_call *call);
/* control_capabilities.c */
void control_serve_capabilities(struct control *control, struct rpc_call *call,
				const Ssi__Control__CapabilitiesRequest *q);
/* control_run.c */
void control_serve_launch(struct control *control, struct rpc_call *call,
			  const Ssi__Control__LaunchRequest *q);
