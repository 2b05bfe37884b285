#include "checkpoint_internal.h"

#include "cleanup.h"

#include <string.h>

RPC_HANDLER(on_save, struct checkpoint_room, Ssi__Checkpoint__SaveRequest)
{
	checkpoint_save_begin(self, call, req);
}

RPC_HANDLER(on_restart, struct checkpoint_room, Ssi__Checkpoint__RestartRequest)
{
	checkpoint_restart_begin(self, call, req);
}

const struct rpc_method checkpoint_methods[] = {
	RPC_METHOD(CHECKPOINT_SAVE, on_save, ssi__checkpoint__save_request__descriptor,
		   ssi__checkpoint__save_reply__descriptor),
	RPC_METHOD(CHECKPOINT_RESTART, on_restart, ssi__checkpoint__restart_request__descriptor,
		   ssi__checkpoint__restart_reply__descriptor),
	{ 0 },
};

bool checkpoint_caller_parse(struct process_caller *ret, const Ssi__Checkpoint__Caller *q)
{
	if (!q || q->n_groups > N_ELEMENTS(ret->groups))
		return false;
	*ret = (struct process_caller){ .uid = q->uid, .gid = q->gid, .n_groups = q->n_groups };
	for (size_t i = 0; i < q->n_groups; i++)
		ret->groups[i] = q->groups[i];
	return true;
}

void checkpoint_caller_format(const struct process_caller *caller, Ssi__Checkpoint__Caller *ret,
			      uint32_t groups[static 64])
{
	ssi__checkpoint__caller__init(ret);
	ret->uid = caller->uid;
	ret->gid = caller->gid;
	ret->n_groups = caller->n_groups;
	ret->groups = groups;
	for (size_t i = 0; i < caller->n_groups; i++)
		groups[i] = caller->groups[i];
}

char *checkpoint_path_parse(const ProtobufCBinaryData *b)
{
	if (b->len == 0 || b->len > 4000 || b->data[0] != '/' || memchr(b->data, 0, b->len))
		return NULL;
	return strndup((const char *)b->data, b->len);
}
