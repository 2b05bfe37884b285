/*
 * Moving, saving and reviving: the rooms do it, this file passes words on.
 */
#include "control_internal.h"
#include "place.h"

#include "inventory.h"
#include "manifest.h"

#include <string.h>

static nsec_t timeout_of(uint32_t ms)
{
	static const nsec_t LONGEST = 600 * NSEC_PER_SEC;

	return ms ? ms * NSEC_PER_MSEC : LONGEST;
}

static const char *node_name(const struct control_connection *c, node_id id)
{
	const struct membership_node *n = membership_node(c->control->n.membership, id);

	return n ? n->name : "?";
}

/* RPC_OK, or the tool has been answered. */
static enum rpc_status may_take(struct control_connection *c, node_id node)
{
	char text[128];
	const char *why = membership_refusal(c->control->n.membership, node, text, sizeof(text));

	if (why)
		control_fail(c, RPC_DOWN, "%s: see ssi-nodes", why);
	return why ? RPC_DOWN : RPC_OK;
}

/* RPC_OK with the node that @name names and which is up, else the tool has been answered. */
static enum rpc_status find_node(struct control_connection *c, const char *name, node_id *ret)
{
	const struct membership_node *n = membership_node_by_name(c->control->n.membership, name);

	if (!n) {
		control_fail(c, RPC_NOT_FOUND, "no node is called %s: see ssi-nodes", name);
		return RPC_NOT_FOUND;
	}
	*ret = n->id;
	return may_take(c, n->id);
}

static const char *fate_name(enum inventory_fate fate)
{
	static const char *const names[] = {
		[INVENTORY_MOVES] = "moves",
		[INVENTORY_FORWARDED] = "forwarded",
		[INVENTORY_BLOCKS] = "blocks",
	};

	return names[fate];
}

/* One malloc()ed block, which refers to @forecast; NULL: out of memory. */
static Ssi__Control__Thing **pack_things(const struct migration_forecast *forecast)
{
	size_t n = forecast->n_things, head = n * sizeof(Ssi__Control__Thing *);
	uint8_t *block = calloc(1, head + n * sizeof(Ssi__Control__Thing) + 1);
	Ssi__Control__Thing **list = (void *)block, *body = (void *)(block + head);

	for (size_t i = 0; block && i < n; i++) {
		const struct inventory_thing *t = &forecast->things[i];

		ssi__control__thing__init(&body[i]);
		list[i] = &body[i];
		body[i].pid = t->pid;
		body[i].what = t->what;
		body[i].is = t->is;
		body[i].fate = (char *)fate_name(t->fate);
		body[i].why = t->why;
	}
	return list;
}

static void on_moved(void *owner, const struct migration_result *result)
{
	struct control_connection *c = owner;
	const struct migration_forecast *f = result->forecast;
	Ssi__Control__Moved moved = SSI__CONTROL__MOVED__INIT;
	Ssi__Control__Forecast forecast = SSI__CONTROL__FORECAST__INIT;
	_cleanup_free_ Ssi__Control__Thing **things = NULL;
	Ssi__Control__Event event = SSI__CONTROL__EVENT__INIT;

	if (result->status != RPC_OK)
		return control_fail(c, result->status, "%s", result->text);
	moved.from = result->from == NODE_NONE ? "" : (char *)node_name(c, result->from);
	moved.frozen_ns = result->frozen;
	moved.bytes = result->bytes;
	if (f) {
		things = pack_things(f);
		if (!things)
			return control_fail(c, RPC_FAILED, "out of memory");
		forecast.refused = f->refused;
		forecast.why = (char *)f->why;
		forecast.moves = f->n_moves;
		forecast.things = things;
		forecast.n_things = f->n_things;
		forecast.more = f->n_more;
		moved.forecast = &forecast;
		moved.frozen_ns = f->frozen;
		moved.bytes = f->bytes;
	}
	event.body_case = SSI__CONTROL__EVENT__BODY_MOVED;
	event.moved = &moved;
	control_send(c, &event, true);
}

void control_on_migrate(struct control_connection *c, const Ssi__Control__MigrateRequest *q)
{
	struct migration_request request = {
		.pid = q->pid,
		.caller = c->caller,
		.dry_run = q->dry_run,
		.explain = q->explain,
		.follow = q->follow,
		.timeout = timeout_of(q->timeout_ms),
		.max_frozen = q->max_frozen_ms * NSEC_PER_MSEC,
	};
	const struct membership_node *node;

	if (q->pid <= 0)
		return control_fail(c, RPC_USAGE, "no process can have PID %d", q->pid);
	node = membership_node_by_name(c->control->n.membership, q->node);
	if (q->follow && node)
		request.target = node->id; /* up or not */
	else if (find_node(c, q->node, &request.target) != RPC_OK)
		return;
	if (migration_move(c->control->n.migration, &request, control_progress, on_moved, c) != 0)
		control_fail(c, RPC_FAILED, "out of memory");
}

static void on_saved(void *owner, const struct checkpoint_saved *result)
{
	struct control_connection *c = owner;
	Ssi__Control__Saved saved = SSI__CONTROL__SAVED__INIT;
	Ssi__Control__Event event = SSI__CONTROL__EVENT__INIT;

	if (result->status != RPC_OK)
		return control_fail(c, result->status, "%s", result->text);
	saved.name = (char *)result->name;
	saved.directory.data = (uint8_t *)result->directory;
	saved.directory.len = strlen(result->directory);
	saved.bytes = result->bytes;
	saved.frozen_ns = result->frozen;
	event.body_case = SSI__CONTROL__EVENT__BODY_SAVED;
	event.saved = &saved;
	control_send(c, &event, true);
}

/* A path from a tool: absolute, or empty for the default.  NULL: neither. */
static char *directory_of(const ProtobufCBinaryData *b)
{
	if (b->len && (b->data[0] != '/' || memchr(b->data, 0, b->len) || b->len > 4000))
		return NULL;
	return strndup((const char *)b->data, b->len);
}

void control_on_checkpoint(struct control_connection *c,
			   const Ssi__Control__CheckpointRequest *q)
{
	_cleanup_free_ char *directory = directory_of(&q->directory);
	struct checkpoint_save request = {
		.pid = q->pid,
		.caller = c->caller,
		.kill = q->kill,
		.directory = directory,
		.description = q->description,
		.timeout = timeout_of(q->timeout_ms),
	};

	if (!directory)
		return control_fail(c, RPC_USAGE, "the directory is not an absolute path");
	if (q->pid <= 0)
		return control_fail(c, RPC_USAGE, "no process can have PID %d", q->pid);
	if (checkpoint_save(c->control->n.checkpoint, &request, control_progress, on_saved, c) != 0)
		control_fail(c, RPC_FAILED, "out of memory");
}

static void on_restarted(void *owner, enum rpc_status status, const char *text, pid_t app,
			 node_id node)
{
	if (status != RPC_OK)
		return control_fail(owner, status, "%s", text);
	control_started(owner, app, node);
}

void control_on_restart(struct control_connection *c, const Ssi__Control__RestartRequest *q)
{
	_cleanup_free_ char *directory = directory_of(&q->directory);
	struct checkpoint_restart request = {
		.name = q->name,
		.directory = directory,
		.target = rpc_self(c->control->n.rpc),
		.caller = c->caller,
		.stdio = { -1, -1, -1 },
		.timeout = timeout_of(q->timeout_ms),
	};
	size_t next = 0;
	int r;

	if (!directory)
		return control_fail(c, RPC_USAGE, "the directory is not an absolute path");
	if (q->node[0] ? find_node(c, q->node, &request.target) != RPC_OK :
			 may_take(c, request.target) != RPC_OK)
		return;
	for (size_t i = 0; i < 3; i++)
		if (q->pipes & 1u << i)
			request.stdio[i] = control_take_fd(c, next++);
	r = checkpoint_restart(c->control->n.checkpoint, &request, control_progress, on_restarted,
			       c);
	if (r != 0)
		control_fail(c, RPC_FAILED, "out of memory");
	for (size_t i = 0; i < 3; i++)
		close_fd(request.stdio[i]);
}

static void fill(const struct checkpoint_entry *e, Ssi__Control__Checkpoint *p)
{
	ssi__control__checkpoint__init(p);
	p->name = (char *)e->name;
	p->problem = e->problem ? (char *)e->problem : "";
	p->text = e->text ? (char *)e->text : "";
	if (!e->manifest)
		return;
	p->app = e->manifest->app;
	p->root = e->manifest->root;
	p->uid = e->manifest->uid;
	p->node = (char *)e->manifest->node;
	p->taken_ns = e->manifest->taken;
	p->bytes = e->manifest->bytes;
	p->command = e->manifest->command;
	p->description = e->manifest->description;
}

static void on_listed(void *owner, enum rpc_status status, const char *text,
		      const struct checkpoint_entry *entries, size_t n_entries)
{
	struct control_connection *c = owner;
	_cleanup_free_ Ssi__Control__Checkpoint *all = calloc(n_entries + 1, sizeof(*all));
	_cleanup_free_ Ssi__Control__Checkpoint **list = calloc(n_entries + 1, sizeof(*list));
	Ssi__Control__Checkpoints reply = SSI__CONTROL__CHECKPOINTS__INIT;
	Ssi__Control__Event event = SSI__CONTROL__EVENT__INIT;

	if (status != RPC_OK)
		return control_fail(c, status, "%s", text);
	if (!all || !list)
		return control_fail(c, RPC_FAILED, "out of memory");
	for (size_t i = 0; i < n_entries; i++) {
		fill(&entries[i], &all[i]);
		list[i] = &all[i];
	}
	reply.checkpoints = list;
	reply.n_checkpoints = n_entries;
	event.body_case = SSI__CONTROL__EVENT__BODY_CHECKPOINTS;
	event.checkpoints = &reply;
	control_send(c, &event, true);
}

void control_on_checkpoints(struct control_connection *c,
			    const Ssi__Control__CheckpointsRequest *q)
{
	_cleanup_free_ char *directory = directory_of(&q->directory);

	if (!directory || (unsigned)q->what > CHECKPOINT_REMOVE)
		return control_fail(c, RPC_USAGE, "the request makes no sense");
	if (checkpoint_browse(c->control->n.checkpoint, (enum checkpoint_what)q->what, q->name,
			      directory, &c->caller, on_listed, c) != 0)
		control_fail(c, RPC_FAILED, "out of memory");
}
