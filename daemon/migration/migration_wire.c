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

RPC_HANDLER(on_pages, struct migration_room, Ssi__Migration__PagesRequest)
{
	migration_target_on_pages(self, call, req, bulk);
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

RPC_HANDLER(on_stand, struct migration_room, Ssi__Migration__StandRequest)
{
	migration_on_stand(self, call, req->pid);
}

#define EMPTY ssi__envelope__empty__descriptor

const struct rpc_method migration_methods[] = {
	RPC_METHOD(MIGRATION_MOVE, on_move, ssi__migration__move_request__descriptor,
		   ssi__migration__move_reply__descriptor),
	RPC_METHOD(MIGRATION_PROGRESS, on_progress,
		   ssi__migration__progress__descriptor, EMPTY),
	RPC_METHOD(MIGRATION_ASK, on_ask, ssi__migration__ask_request__descriptor,
		   ssi__migration__ask_reply__descriptor),
	RPC_METHOD(MIGRATION_CHUNK, on_chunk, ssi__migration__chunk_request__descriptor,
		   EMPTY),
	RPC_METHOD(MIGRATION_RESTORE, on_restore,
		   ssi__migration__restore_request__descriptor, EMPTY),
	RPC_METHOD(MIGRATION_COMMIT, on_commit,
		   ssi__migration__commit_request__descriptor, EMPTY),
	RPC_METHOD(MIGRATION_ABORT, on_abort, ssi__migration__abort_request__descriptor,
		   EMPTY),
	RPC_METHOD(MIGRATION_QUERY, on_query, ssi__migration__query_request__descriptor,
		   ssi__migration__query_reply__descriptor),
	RPC_METHOD(MIGRATION_STAND, on_stand, ssi__migration__stand_request__descriptor,
		   ssi__migration__stand_reply__descriptor),
	RPC_METHOD(MIGRATION_PAGES, on_pages, ssi__migration__pages_request__descriptor,
		   EMPTY),
	{0},
};

int migration_members_parse(struct process_member **ret,
			    Ssi__Process__Member *const *list, size_t n)
{
	/* Exactly the first is the root. */
	for (size_t i = 0; i < n; i++)
		if ((i == 0) != (list[i]->ppid == 0))
			return err_origin(-EBADMSG);
	return process_members_unpack(ret, list, n);
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

int migration_things_format(const struct inventory_things *things,
			    Ssi__Migration__Thing ***ret)
{
	size_t n = things ? things->n : 0, head = n * sizeof(Ssi__Migration__Thing *);
	uint8_t *block = calloc(1, head + n * sizeof(Ssi__Migration__Thing) + 1);
	Ssi__Migration__Thing **list = (void *)block, *body = (void *)(block + head);

	if (!block)
		return err_origin(-ENOMEM);
	for (size_t i = 0; i < n; i++) {
		const struct inventory_thing *t = &things->list[i];

		ssi__migration__thing__init(&body[i]);
		list[i] = &body[i];
		body[i].pid = t->pid;
		body[i].fate = t->fate;
		body[i].what = t->what;
		body[i].is = t->is;
		body[i].why = t->why;
	}
	*ret = list;
	return 0;
}

int migration_things_parse(struct inventory_thing **ret,
			   Ssi__Migration__Thing *const *list, size_t n)
{
	struct inventory_thing *things = calloc(n + 1, sizeof(*things));

	if (!things)
		return err_origin(-ENOMEM);
	for (size_t i = 0; i < n; i++) {
		if (list[i]->fate < INVENTORY_MOVES ||
		    list[i]->fate > INVENTORY_BLOCKS) {
			free(things);
			return err_origin(-EBADMSG);
		}
		things[i] = (struct inventory_thing){
			.pid = list[i]->pid,
			.fate = list[i]->fate,
			.what = list[i]->what,
			.is = list[i]->is,
			.why = list[i]->why,
		};
	}
	*ret = things;
	return 0;
}

int migration_pipes_parse(struct tree_pipes **ret,
			  const struct tree_pipes_context *context,
			  Ssi__Migration__Pipe *const *list, size_t n)
{
	struct tree_pipe pipes[TREE_PIPES_MAX];

	if (n > TREE_PIPES_MAX)
		return err_origin(-EBADMSG);
	for (size_t i = 0; i < n; i++)
		pipes[i] = (struct tree_pipe){
			.inode = list[i]->inode,
			.input = list[i]->input,
			.id = list[i]->id,
			.console = list[i]->console,
			.position = list[i]->position,
			.rest = list[i]->rest.data,
			.n_rest = list[i]->rest.len,
		};
	return tree_pipes_make(ret, context, pipes, n);
}
