#include "control_wire.h"

RPC_HANDLER(on_list, struct control, Ssi__Control__ListRequest)
{
	control_serve_list(self, call, req);
}

RPC_HANDLER(on_launch, struct control, Ssi__Control__LaunchRequest)
{
	control_serve_launch(self, call, req);
}

RPC_HANDLER(on_ping, struct control, Ssi__Envelope__Empty)
{
	control_serve_ping(call);
}

RPC_HANDLER(on_capabilities, struct control, Ssi__Control__CapabilitiesRequest)
{
	control_serve_capabilities(self, call, req);
}

const struct rpc_method control_methods[] = {
	RPC_METHOD(CONTROL_LIST, on_list, ssi__control__list_request__descriptor,
		   ssi__control__list_reply__descriptor),
	RPC_METHOD(CONTROL_LAUNCH, on_launch, ssi__control__launch_request__descriptor,
		   ssi__control__launch_reply__descriptor),
	RPC_METHOD(CONTROL_PING, on_ping, ssi__envelope__empty__descriptor,
		   ssi__envelope__empty__descriptor),
	RPC_METHOD(CONTROL_CAPABILITIES, on_capabilities,
		   ssi__control__capabilities_request__descriptor,
		   ssi__control__capabilities__descriptor),
	{ 0 },
};
