/* Methods, and the conversions between messages and our own types. */
#include "migration_wire.h"

#include "cleanup.h"
#include "err.h"

RPC_HANDLER(on_move, struct migration_room, Ssi__Migration__MoveRequest)
{
	migration_source_begin(self, call, req);
}

RPC_HANDLER(on_progress, struct migration_room, Ssi__Migration__Progress)
{
	Ssi__Envelope__Empty reply = SSI__ENVELOPE__EMPTY__INIT;

	migration_watch_progress(self, req->watch, req->step, req->bytes, req->total);
	rpc_reply(call, &reply.base, RPC_NO_BULK);
}

RPC_HANDLER(on_ask, struct migration_room, Ssi__Migration__AskRequest)
{
	migration_target_on_ask(self, call, req);
}

RPC_HANDLER(on_chunk, struct migration_room, Ssi__Migration__ChunkRequest)
{
	migration_target_on_chunk(self, call, req, bulk);
}

RPC_HANDLER(on_restore, struct migration_room, Ssi__Migration__RestoreRequest)
{
	migration_target_on_restore(self, call, req);
}

RPC_HANDLER(on_commit, struct migration_room, Ssi__Migration__CommitRequest)
{
	migration_target_on_commit(self, call, req);
}

RPC_HANDLER(on_abort, struct migration_room, Ssi__Migration__AbortRequest)
{
	migration_target_on_abort(self, call, req);
}

RPC_HANDLER(on_query, struct migration_room, Ssi__Migration__QueryRequest)
{
	migration_target_on_query(self, call, req);
}

#define EMPTY ssi__envelope__empty__descriptor

const struct rpc_method migration_methods[] = {
	RPC_METHOD(MIGRATION_MOVE, on_move, ssi__migration__move_request__descriptor,
		   ssi__migration__move_reply__descriptor),
	RPC_METHOD(MIGRATION_PROGRESS, on_progress, ssi__migration__progress__descriptor, EMPTY),
	RPC_METHOD(MIGRATION_ASK, on_ask, ssi__migration__ask_request__descriptor, EMPTY),
	RPC_METHOD(MIGRATION_CHUNK, on_chunk, ssi__migration__chunk_request__descriptor, EMPTY),
	RPC_METHOD(MIGRATION_RESTORE, on_restore, ssi__migration__restore_request__descriptor,
		   EMPTY),
	RPC_METHOD(MIGRATION_COMMIT, on_commit, ssi__migration__commit_request__descriptor, EMPTY),
	RPC_METHOD(MIGRATION_ABORT, on_abort, ssi__migration__abort_request__descriptor, EMPTY),
	RPC_METHOD(MIGRATION_QUERY, on_query, ssi__migration__query_request__descriptor,
		   ssi__migration__query_reply__descriptor),
	{ 0 },
};

static bool is_pid(int32_t pid)
{
	return pid > 0 && pid < MEMBERSHIP_PID_MAX;
}

int migration_members_parse(struct process_member **ret, Ssi__Migration__Member *const *list,
			    size_t n)
{
	_cleanup_free_ struct process_member *members = NULL;

	if (n == 0 || n > MIGRATION_MEMBERS_MAX)
		return err_origin(-EBADMSG);
	members = calloc(n, sizeof(*members));
	if (!members)
		return err_origin(-ENOMEM);
	for (size_t i = 0; i < n; i++) {
		const Ssi__Migration__Member *m = list[i];

		/* Exactly the first is the root; a session or group may be of a process
		 * that has ended, not of none. */
		if (!is_pid(m->pid) || !is_pid(m->pgid) || !is_pid(m->sid) || !is_pid(m->app) ||
		    (i == 0 ? m->ppid != 0 : !is_pid(m->ppid)))
			return err_origin(-EBADMSG);
		members[i] = (struct process_member){
			.pid = m->pid, .ppid = m->ppid, .pgid = m->pgid, .sid = m->sid,
			.app = m->app, .uid = m->uid, .generation = m->generation,
		};
	}
	*ret = TAKE(members);
	return 0;
}

int migration_members_format(const struct process_member *members, size_t n,
			     Ssi__Migration__Member ***ret)
{
	/* One piece: the pointers, then what they point to. */
	size_t head = n * sizeof(Ssi__Migration__Member *);
	uint8_t *block = calloc(1, head + n * sizeof(Ssi__Migration__Member) + 1);
	Ssi__Migration__Member **list = (void *)block;
	Ssi__Migration__Member *body = (void *)(block + head);

	if (!block)
		return err_origin(-ENOMEM);
	for (size_t i = 0; i < n; i++) {
		const struct process_member *m = &members[i];

		ssi__migration__member__init(&body[i]);
		list[i] = &body[i];
		body[i].pid = m->pid;
		body[i].ppid = m->ppid;
		body[i].pgid = m->pgid;
		body[i].sid = m->sid;
		body[i].app = m->app;
		body[i].uid = m->uid;
		body[i].generation = m->generation;
	}
	*ret = list;
	return 0;
}

int migration_pipes_format(const struct tree_pipes *p, Ssi__Migration__Pipe ***ret)
{
	size_t n = tree_pipes_count(p), head = n * sizeof(Ssi__Migration__Pipe *);
	uint8_t *block = calloc(1, head + n * sizeof(Ssi__Migration__Pipe) + 1);
	Ssi__Migration__Pipe **list = (void *)block, *body = (void *)(block + head);

	if (!block)
		return err_origin(-ENOMEM);
	for (size_t i = 0; i < n; i++) {
		const struct tree_pipe *pipe = tree_pipes_get(p, i);

		ssi__migration__pipe__init(&body[i]);
		list[i] = &body[i];
		body[i].inode = pipe->inode;
		body[i].id = pipe->id;
		body[i].console = pipe->console;
		body[i].input = pipe->input;
		body[i].position = pipe->position;
		body[i].rest.data = pipe->rest;
		body[i].rest.len = pipe->n_rest;
	}
	*ret = list;
	return 0;
}

int migration_pipes_parse(struct tree_pipes **ret, const struct tree_pipes_context *context,
			  Ssi__Migration__Pipe *const *list, size_t n)
{
	struct tree_pipe pipes[TREE_PIPES_MAX];

	if (n > TREE_PIPES_MAX)
		return err_origin(-EBADMSG);
	for (size_t i = 0; i < n; i++)
		pipes[i] = (struct tree_pipe){
			.inode = list[i]->inode, .input = list[i]->input, .id = list[i]->id,
			.console = list[i]->console, .position = list[i]->position,
			.rest = list[i]->rest.data, .n_rest = list[i]->rest.len,
		};
	return tree_pipes_make(ret, context, pipes, n);
}
