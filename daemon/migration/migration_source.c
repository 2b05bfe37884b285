/*
 * The side that a tree leaves: from the asker's wish to the frozen tree.
 *
 * Happy path: hold the tree, look what it has, ask the target, freeze, look
 * again; then migration_ship.c.
 *
 * Failure modes: all end in source_fail(): the target is told to forget, the tree
 * thaws and runs on, the asker gets one line.
 */
#include "migration_source.h"

#include "cleanup.h"
#include "err.h"
#include "fault.h"
#include "log.h"
#include "manifest.h"
#include "space_group.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const nsec_t FREEZE_MAX = 30 * NSEC_PER_SEC;
static const nsec_t ASK_MAX = 10 * NSEC_PER_SEC;
enum { IMAGES_BYTES = 64 << 10 }; /* of a process, besides its memory */

const struct sm_state source_states[] = {
	[SOURCE_LOOKING] = {"looking", SM_TO(SOURCE_ASKING) | SM_TO(SOURCE_UNDOING)},
	[SOURCE_ASKING] = {"asking", SM_TO(SOURCE_FREEZING) | SM_TO(SOURCE_UNDOING)},
	[SOURCE_FREEZING] = {"freezing", SM_TO(SOURCE_DUMPING) | SM_TO(SOURCE_UNDOING)},
	[SOURCE_DUMPING] = {"dumping", SM_TO(SOURCE_RESTORING) | SM_TO(SOURCE_UNDOING)},
	[SOURCE_RESTORING] = {"restoring",
			      SM_TO(SOURCE_COMMITTING) | SM_TO(SOURCE_UNDOING)},
	[SOURCE_COMMITTING] = {"committing", SM_TO(SOURCE_DEPARTING) |
						     SM_TO(SOURCE_QUERYING) |
						     SM_TO(SOURCE_UNDOING)},
	[SOURCE_QUERYING] = {"querying",
			     SM_TO(SOURCE_DEPARTING) | SM_TO(SOURCE_UNDOING)},
	[SOURCE_DEPARTING] = {"departing", SM_TO(SOURCE_ENDED)},
	[SOURCE_UNDOING] = {"undoing", SM_TO(SOURCE_DEPARTING) | SM_TO(SOURCE_ENDED)},
	[SOURCE_ENDED] = {"ended", 0},
};

static void next_ask(struct migration_source *s);
static void next_freeze(struct migration_source *s);
static void on_limit(struct env_timer *timer);

uint64_t source_next_id(struct migration_room *m)
{
	return (uint64_t)rpc_self(m->n.rpc) << 32 | (uint32_t)m->next_number++;
}

struct migration_source *source_new(struct migration_room *m, uint64_t id, pid_t root,
				    node_id target)
{
	struct migration_source *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->room = m;
	s->id = id;
	s->root = root;
	s->target = target;
	s->timer.cb = source_on_timer;
	s->limit.cb = on_limit;
	sm_init(&s->sm, "migration", source_states, id, SOURCE_LOOKING);
	LIST_INSERT_HEAD(&m->sources, s, entry);
	m->n_sources++;
	return s;
}

void source_free(struct migration_source *s)
{
	env_disarm(s->room->n.env, &s->timer);
	env_disarm(s->room->n.env, &s->limit);
	LIST_REMOVE(s, entry);
	s->room->n_sources--;
	inventory_free(s->inventory);
	inventory_free(s->before);
	inventory_things_free(s->things);
	tree_pipes_free(s->pipes);
	space_group_close(s->group);
	pages_reader_free(s->reader);
	free(s->piece);
	process_pending_free(s->pending);
	free(s->members);
	free(s);
}

void source_journal(struct migration_source *s, enum migration_step step)
{
	struct migration_entry e = {.id = s->id,
				    .side = MIGRATION_SOURCE,
				    .step = step,
				    .root = s->root,
				    .peer = s->target,
				    .generation = s->generation,
				    .incarnation = s->target_incarnation};

	(void)migration_journal_set(s->room->journal, &e);
	if (s->held)
		process_hold_for(s->room->n.process, s->root,
				 step == MIGRATION_STEP_DECIDING ||
						 step == MIGRATION_STEP_COMMITTED ?
					 s->target : NODE_NONE);
}

const char *source_target_name(const struct migration_source *s)
{
	const struct membership_node *n =
		membership_node(s->room->n.membership, s->target);

	return n ? n->name : "?";
}

void source_forget_reply(void *owner, const struct rpc_result *result)
{
}

void source_progress(struct migration_source *s, const char *step, uint64_t bytes,
		     uint64_t total)
{
	Ssi__Migration__Progress q = SSI__MIGRATION__PROGRESS__INIT;

	if (!s->watcher)
		return;
	q.watch = s->watch;
	q.step = (char *)step;
	q.bytes = bytes;
	q.total = total;
	(void)rpc_call(s->room->n.rpc, s->watcher, MIGRATION_PROGRESS, &q.base,
		       RPC_NO_BULK, 5 * NSEC_PER_SEC, source_forget_reply, NULL, NULL);
}

nsec_t source_time_left(const struct migration_source *s)
{
	nsec_t now = env_now(s->room->n.env);

	return s->deadline > now ? s->deadline - now : 1;
}

static nsec_t least(nsec_t a, nsec_t b)
{
	return a < b ? a : b;
}

/* Until it has stood still for as long as it may. */
static nsec_t still_left(const struct migration_source *s)
{
	nsec_t still = env_now(s->room->n.env) - s->freezing_at;

	if (!s->max_frozen || !s->freezing_at)
		return RPC_NEVER;
	return s->max_frozen > still ? s->max_frozen - still : 0;
}

bool source_in_time(struct migration_source *s)
{
	if (s->deadline <= env_now(s->room->n.env))
		source_fail(s, RPC_TIMEOUT, "process %d has not moved to %s in the time given",
			    s->root, source_target_name(s));
	else if (!still_left(s))
		source_fail(s, RPC_TIMEOUT,
			    "process %d cannot move to %s: it would stand still for longer "
			    "than %llu ms",
			    s->root, source_target_name(s),
			    (unsigned long long)(s->max_frozen / NSEC_PER_MSEC));
	else
		return true;
	return false;
}

static void arm_limit(struct migration_source *s)
{
	(void)env_arm(s->room->n.env, &s->limit, least(source_time_left(s), still_left(s)));
}

static void on_limit(struct env_timer *timer)
{
	struct migration_source *s = container_of(timer, struct migration_source, limit);

	/* Once COMMIT is sent it is not ours to give up. */
	if ((s->sm.state == SOURCE_DUMPING || s->sm.state == SOURCE_RESTORING) &&
	    source_in_time(s))
		arm_limit(s);
}

void source_predict(const struct migration_source *s, uint64_t *ret_bytes, nsec_t *ret_frozen,
		    unsigned *ret_n_moves)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < s->inventory->n_tasks; i++)
		bytes += s->inventory->tasks[i].own_bytes + IMAGES_BYTES;
	*ret_frozen = migration_past_predict(&s->room->past, bytes, ret_n_moves);
	*ret_bytes = bytes;
}

/* As far as can be foreseen.  False: it has failed. */
static bool is_short_enough(struct migration_source *s)
{
	uint64_t bytes;
	nsec_t frozen;
	unsigned n_moves;

	source_predict(s, &bytes, &frozen, &n_moves);
	if (!s->max_frozen || frozen <= s->max_frozen)
		return true;
	source_fail(s, RPC_TIMEOUT,
		    "process %d cannot move to %s: it would stand still for some %llu ms, more "
		    "than %llu",
		    s->root, source_target_name(s),
		    (unsigned long long)(frozen / NSEC_PER_MSEC),
		    (unsigned long long)(s->max_frozen / NSEC_PER_MSEC));
	return false;
}

void source_fail(struct migration_source *s, enum rpc_status status, const char *format,
		 ...)
{
	va_list ap;

	va_start(ap, format);
	if (s->outcome.status == RPC_OK)
		migration_outcome_set(&s->outcome, status, format, ap);
	va_end(ap);
	source_undo(s);
}

void source_refused(struct migration_source *s, const struct rpc_result *result)
{
	source_fail(s, result->status, "process %d cannot move to %s: %s", s->root,
		    source_target_name(s), result->text);
}

/* Looking: what does it hold, and may it move? */

static void on_look_work(struct env_work *work)
{
	struct migration_source *s = container_of(work, struct migration_source, work);

	s->work_result = inventory_take(&s->inventory, s->room->n.space, s->root);
}

/* false: it has failed.  What is explained goes on refused, to hear what else is in the way. */
static bool judge(struct migration_source *s)
{
	ino_t inodes[TREE_PIPES_MAX];
	struct inventory_allow allow = {.pipes = inodes};
	struct process_record record = {0};
	_cleanup_free_ char *text = NULL;
	int r = s->work_result;
	char line[256];

	if (r == -ESRCH) {
		source_fail(s, RPC_NOT_FOUND, "process %d has ended", s->root);
		return false;
	}
	if (r == 0)
		r = tree_pipes_allow(&s->room->pipes, s->inventory, inodes,
				     &allow.n_pipes);
	(void)process_record(s->room->n.process, s->root, &record);
	allow.bound = record.bound;
	allow.capabilities = 1u << CAPABILITY_CAN_MIGRATE;
	s->things = inventory_things_free(s->things);
	if (r == 0)
		r = inventory_verdict(s->inventory, &allow, s->room->n.space, &text,
				      s->explain ? &s->things : NULL);
	if (r == 0 && criu_may_dump(s->room->n.criu, s->inventory, line, sizeof(line)))
		return true;
	if (r >= 0 && s->explain) {
		migration_outcome(&s->outcome, RPC_UNSUPPORTED,
				  "process %d cannot move: %s", s->root, r ? text : line);
		return true;
	}
	if (r >= 0)
		source_fail(s, RPC_UNSUPPORTED, "process %d cannot move: %s", s->root,
			    r ? text : line);
	else
		source_fail(s, RPC_FAILED, "process %d cannot be looked at: %s",
			    s->root, strerror(-r));
	return false;
}

/* Nothing has changed since it was refused: so it is again. */
static bool refused_still(struct migration_source *s)
{
	if (!s->before || s->work_result != 0 ||
	    !inventory_same_things(s->before, s->inventory))
		return false;
	s->n_refused = REFUSALS_MAX;
	s->outcome = s->refusal;
	source_undo(s);
	return true;
}

static void on_looked(struct env_work *work)
{
	struct migration_source *s = container_of(work, struct migration_source, work);

	if (!refused_still(s) && judge(s) && source_in_time(s))
		next_ask(s);
}

void source_start(struct migration_source *s)
{
	struct process_record record;
	char text[128];
	const char *why = membership_refusal(s->room->n.membership, s->target, text,
					     sizeof(text));
	const char *lacks = migration_unready(s->room);
	int r;

	if (lacks)
		return source_fail(s, RPC_DOWN, "process %d cannot move: its node %s",
				   s->root, lacks);
	if (why)
		return source_fail(s, RPC_DOWN,
				   "process %d cannot move: %s, see ssi-nodes", s->root,
				   why);
	r = s->held ? 0 : process_hold(s->room->n.process, s->root);
	if (r == PROCESS_E_BUSY)
		return source_fail(s, RPC_CONFLICT,
				   "process %d is being moved or saved already",
				   s->root);
	if (r != 0)
		return source_fail(s, RPC_NOT_FOUND, "no process %d here", s->root);
	s->held = true;
	if (process_record(s->room->n.process, s->root, &record) == 0 &&
	    record.state == PROCESS_AWAY)
		return source_fail(s, RPC_CONFLICT, "process %d has just left",
				   s->root);
	source_journal(s, MIGRATION_STEP_OPEN);
	s->work = (struct env_work){.work = on_look_work, .done = on_looked};
	if (env_work(s->room->n.env, &s->work) < 0)
		source_fail(s, RPC_FAILED, "out of memory");
}

/* Asking. */

/* Nothing was made there. */
static void told(struct migration_source *s, const Ssi__Migration__AskReply *reply)
{
	_cleanup_free_ struct inventory_thing *list = NULL;
	struct inventory_things theirs = {.n = reply->n_things};
	int r = migration_things_parse(&list, reply->things, reply->n_things);

	s->asked = false;
	theirs.list = list;
	if (r == 0 && s->things)
		r = inventory_things_mark(s->things, &theirs);
	if (r < 0)
		return source_fail(s, RPC_FAILED, "process %d: %s", s->root, strerror(-r));
	if (reply->refused)
		return source_refused(s, &(struct rpc_result){.status = reply->refused,
							      .text = reply->why});
	if (is_short_enough(s))
		source_undo(s);
}

static void on_asked(void *owner, const struct rpc_result *result)
{
	const Ssi__Migration__AskReply *reply = (const void *)result->reply;
	struct migration_source *s = owner;

	if (result->status != RPC_OK)
		return source_refused(s, result);
	if (s->dry_run)
		return told(s, reply);
	if (!is_short_enough(s) || !source_in_time(s))
		return;
	s->may_leave_pages = reply->pages;
	if (fault("migration.asked") < 0)
		return source_fail(s, RPC_FAILED, "fault point");
	next_freeze(s);
}

static void next_ask(struct migration_source *s)
{
	Ssi__Migration__AskRequest q = SSI__MIGRATION__ASK_REQUEST__INIT;
	_cleanup_free_ char *text = NULL, *flags = NULL;

	sm_move(&s->sm, SOURCE_ASKING);
	source_progress(s, "ask", 0, 0);
	if (inventory_format(s->inventory, &text, &q.inventory.len) < 0 ||
	    manifest_own_cpu_flags(&flags) < 0)
		return source_fail(s, RPC_FAILED, "out of memory");
	q.id = s->id;
	q.root = s->root;
	q.inventory.data = (uint8_t *)text;
	q.cpu_flags = flags;
	q.dry_run = s->dry_run;
	q.incarnation = s->incarnation = migration_own_incarnation(s->room);
	for (size_t i = 0; i < s->inventory->n_tasks; i++)
		q.bytes += s->inventory->tasks[i].rss_bytes;
	s->asked = true;
	if (!s->dry_run)
		criu_warm(s->room->n.criu);
	if (rpc_call(s->room->n.rpc, s->target, MIGRATION_ASK, &q.base, RPC_NO_BULK,
		     least(ASK_MAX, source_time_left(s)), on_asked, s, NULL) != 0)
		source_fail(s, RPC_FAILED, "out of memory");
}

/* Freezing. */

/* Above each member's own: one that had moved alone has a higher one than the root. */
static uint32_t next_generation(struct migration_source *s)
{
	struct process_record record;
	uint32_t highest = 0;

	for (size_t i = 0; i < s->n_members; i++)
		if (process_record(s->room->n.process, s->members[i].pid, &record) ==
			    0 &&
		    record.generation > highest)
			highest = record.generation;
	return highest + 1;
}

/* On the loop, where the records are. */
void source_name_members(struct migration_source *s)
{
	struct process_record record = {.pid = s->root, .app = s->root};

	(void)process_record(s->room->n.process, s->root, &record);
	/* After a restart of ssid: as the copy was told, whatever the record says by
	 * now. */
	if (!s->generation)
		s->generation = next_generation(s);
	for (size_t i = 0; i < s->n_members; i++) {
		s->members[i].app = record.app;
		s->members[i].name = record.name;
		s->members[i].generation = s->generation;
		process_carry(s->room->n.process, &s->members[i]);
	}
}

static void on_freeze_work(struct env_work *work)
{
	struct migration_source *s = container_of(work, struct migration_source, work);
	char name[64];
	int r;

	snprintf(name, sizeof(name), "move.%" PRIx64, s->id);
	r = space_group_open(s->room->n.space, name, &s->group);
	if (r == 0)
		r = space_group_take_tree(s->group, s->root);
	if (r == 0)
		r = space_group_freeze(s->group, s->freeze_max);
	if (r == 0) {
		s->inventory = inventory_free(s->inventory);
		r = inventory_take(&s->inventory, s->room->n.space, s->root);
	}
	if (r == 0)
		r = migration_members_of(s->inventory, &s->members, &s->n_members);
	if (r == 0)
		r = inventory_find_shared(s->inventory,
					  space_proc_fd(s->room->n.space));
	/* The signals that the images will hold. */
	if (r == 0)
		r = process_pending_read(space_proc_fd(s->room->n.space), s->members,
					 s->n_members, &s->pending);
	s->work_result = r;
}

static void on_frozen(struct env_work *work)
{
	struct migration_source *s = container_of(work, struct migration_source, work);
	int r = s->work_result;

	s->frozen_at = env_now(s->room->n.env);
	if (!source_in_time(s))
		return;
	if (r == SPACE_GROUP_E_TIMEOUT)
		return source_fail(s, RPC_TIMEOUT,
				   "process %d would not freeze in time", s->root);
	if (r > 0)
		s->work_result = -ESRCH;
	/* Judged again: it ran on until now. */
	if (!judge(s))
		return;
	source_name_members(s);
	r = tree_pipes_find(&s->pipes, &s->room->pipes, s->inventory, s->id);
	if (r < 0)
		return source_fail(s, RPC_FAILED, "process %d: %s", s->root,
				   strerror(-r));
	if (fault("migration.frozen") < 0)
		return source_fail(s, RPC_FAILED, "fault point");
	if (!source_in_time(s))
		return;
	arm_limit(s);
	source_ship(s);
}

static void next_freeze(struct migration_source *s)
{
	sm_move(&s->sm, SOURCE_FREEZING);
	source_progress(s, "freeze", 0, 0);
	s->freezing_at = env_now(s->room->n.env);
	s->freeze_max = least(FREEZE_MAX, least(source_time_left(s), still_left(s)));
	s->work = (struct env_work){.work = on_freeze_work, .done = on_frozen};
	if (env_work(s->room->n.env, &s->work) < 0)
		source_fail(s, RPC_FAILED, "out of memory");
}

void migration_source_begin(struct migration_room *m, struct rpc_call *call,
			    const Ssi__Migration__MoveRequest *q)
{
	struct migration_source *s;

	if (m->n_sources >= MIGRATION_CONCURRENT_MAX)
		return rpc_fail(call, RPC_CONFLICT,
				"%u moves from this node are under way", m->n_sources);
	s = source_new(m, source_next_id(m), q->pid, q->target);
	if (!s)
		return rpc_fail(call, RPC_FAILED, "out of memory");
	s->call = call;
	s->dry_run = q->dry_run || q->explain;
	s->explain = q->explain;
	s->deadline = env_now(m->n.env) + q->timeout_ns;
	s->max_frozen = q->max_frozen_ns;
	s->watcher = q->watcher;
	s->watch = q->watch;
	source_start(s);
}

void migration_sources_free(struct migration_room *m)
{
	while (!LIST_EMPTY(&m->sources))
		source_free(LIST_FIRST(&m->sources));
}
