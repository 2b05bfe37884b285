/*
 * The side that a tree leaves.
 *
 * Happy path: hold the tree, look what it has, ask the target, freeze, look
 * again, dump and ship, cut its streams, have it restored, COMMIT, become
 * shadows, answer.
 *
 * Failure modes: anything before RESTORE -> the target is told to forget, the tree
 * thaws and runs on, the asker gets one line.  Once RESTORE was sent the target may
 * have a copy that is ready, which runs if a view excludes us: so the tree stays frozen
 * until the target has acknowledged the abort, has said that it runs there (then we
 * depart), or a view excludes it.  After COMMIT was sent and before it was answered
 * the target is asked again and again, with the same three answers.
 */
#include "migration_wire.h"

#include "cleanup.h"
#include "err.h"
#include "fault.h"
#include "log.h"
#include "manifest.h"
#include "sm.h"
#include "space_group.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
	LOOKING, /* at what it holds */
	ASKING,
	FREEZING,
	DUMPING,
	RESTORING,
	COMMITTING,
	QUERYING,
	DEPARTING,
	UNDOING,
	ENDED,
};

static const struct sm_state states[] = {
	[LOOKING] = { "looking", SM_TO(ASKING) | SM_TO(UNDOING) },
	[ASKING] = { "asking", SM_TO(FREEZING) | SM_TO(UNDOING) },
	[FREEZING] = { "freezing", SM_TO(DUMPING) | SM_TO(UNDOING) },
	[DUMPING] = { "dumping", SM_TO(RESTORING) | SM_TO(UNDOING) },
	[RESTORING] = { "restoring", SM_TO(COMMITTING) | SM_TO(UNDOING) },
	[COMMITTING] = { "committing", SM_TO(DEPARTING) | SM_TO(QUERYING) | SM_TO(UNDOING) },
	[QUERYING] = { "querying", SM_TO(DEPARTING) | SM_TO(UNDOING) },
	[DEPARTING] = { "departing", SM_TO(ENDED) },
	[UNDOING] = { "undoing", SM_TO(DEPARTING) | SM_TO(ENDED) },
	[ENDED] = { "ended", 0 },
};

enum {
	WINDOW = 8 << 20,      /* image bytes under way */
	PIECE = 256 << 10,     /* bytes a message */
	FROZEN_MAX_S = 30,     /* to freeze a tree */
};

struct migration_source {
	LIST_ENTRY(migration_source) entry;
	struct migration_room *room;
	struct sm sm;
	uint64_t id;
	pid_t root;
	node_id target;
	bool dry_run, held, asked;
	bool resumed; /* begun by a predecessor of this ssid */
	bool may_be_ready; /* RESTORE was sent, and no abort acknowledged */
	bool aborting;     /* an abort is under way, or waits for its turn */
	uint32_t generation; /* of the copy; 0: not known yet */
	nsec_t deadline;
	struct env_timer timer;
	struct rpc_call *call; /* who asked; NULL after a restart of ssid */
	node_id watcher;
	uint64_t watch;

	struct env_work work; /* of LOOKING and FREEZING */
	int work_result;
	struct inventory *inventory;
	struct space_group *group;
	struct process_member *members;
	size_t n_members;
	struct process_pending *pending;
	nsec_t frozen_at, frozen_for;

	struct criu_run *dump;
	bool dump_done, paused;
	uint64_t shipped;
	size_t under_way;
	struct tree_pipes *pipes;
	struct process_departure *departure;
	struct migration_outcome outcome;
};

static void next_ask(struct migration_source *s);
static void next_freeze(struct migration_source *s);
static void next_dump(struct migration_source *s);
static void next_restore(struct migration_source *s);
static void next_commit(struct migration_source *s);
static void next_depart(struct migration_source *s);
static void undo(struct migration_source *s);
static void committed(struct migration_source *s);
static void on_timer(struct env_timer *timer);

static const char *target_name(const struct migration_source *s)
{
	const struct membership_node *n = membership_node(s->room->n.membership, s->target);

	return n ? n->name : "?";
}

static void source_free(struct migration_source *s)
{
	env_disarm(s->room->n.env, &s->timer);
	LIST_REMOVE(s, entry);
	s->room->n_sources--;
	inventory_free(s->inventory);
	tree_pipes_free(s->pipes);
	space_group_close(s->group);
	process_pending_free(s->pending);
	free(s->members);
	free(s);
}

static void journal(struct migration_source *s, enum migration_step step)
{
	struct migration_entry e = { .id = s->id, .side = MIGRATION_SOURCE, .step = step,
				     .root = s->root, .peer = s->target,
				     .generation = s->generation };

	(void)migration_journal_set(s->room->journal, &e);
}

/* The end of every move: answer, let the tree go, forget. */
static void finish(struct migration_source *s)
{
	Ssi__Migration__MoveReply reply = SSI__MIGRATION__MOVE_REPLY__INIT;

	sm_move(&s->sm, ENDED);
	journal(s, MIGRATION_STEP_NONE);
	if (s->held)
		process_unhold(s->room->n.process, s->root);
	reply.frozen_ns = s->frozen_for;
	reply.bytes = s->shipped;
	if (s->call && s->outcome.status == RPC_OK)
		rpc_reply(s->call, &reply.base, RPC_NO_BULK);
	else if (s->call)
		rpc_fail(s->call, s->outcome.status, "%s", s->outcome.text);
	source_free(s);
}

static void forget_reply(void *owner, const struct rpc_result *result)
{
}

static void progress(struct migration_source *s, const char *step, uint64_t bytes, uint64_t total)
{
	Ssi__Migration__Progress q = SSI__MIGRATION__PROGRESS__INIT;

	if (!s->watcher)
		return;
	q.watch = s->watch;
	q.step = (char *)step;
	q.bytes = bytes;
	q.total = total;
	(void)rpc_call(s->room->n.rpc, s->watcher, MIGRATION_PROGRESS, &q.base, RPC_NO_BULK,
		       5 * NSEC_PER_SEC, forget_reply, NULL, NULL);
}

static nsec_t time_left(const struct migration_source *s)
{
	nsec_t now = env_now(s->room->n.env);

	return s->deadline > now ? s->deadline - now : 1;
}

/* The first failure is the one to tell. */
static void fail(struct migration_source *s, enum rpc_status status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void fail(struct migration_source *s, enum rpc_status status, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	if (s->outcome.status == RPC_OK)
		migration_outcome_set(&s->outcome, status, format, ap);
	va_end(ap);
	undo(s);
}

static void send_abort(struct migration_source *s)
{
	Ssi__Migration__AbortRequest q = SSI__MIGRATION__ABORT_REQUEST__INIT;

	q.id = s->id;
	(void)rpc_call(s->room->n.rpc, s->target, MIGRATION_ABORT, &q.base, RPC_NO_BULK,
		       10 * NSEC_PER_SEC, forget_reply, NULL, NULL);
}

/* A view says so; that none says anything of it is no answer. */
static bool target_excluded(const struct migration_source *s)
{
	const struct membership_node *n = membership_node(s->room->n.membership, s->target);

	return n && n->state != MEMBER_UP;
}

static void on_aborted(void *owner, const struct rpc_result *result)
{
	struct migration_source *s = owner;

	if (result->status == RPC_CONFLICT) {
		s->outcome = (struct migration_outcome){ .status = RPC_OK };
		return committed(s);
	}
	if (result->status != RPC_OK && !target_excluded(s)) {
		(void)env_arm(s->room->n.env, &s->timer, NSEC_PER_SEC / 4);
		return;
	}
	s->aborting = s->asked = s->may_be_ready = false;
	undo(s);
}

static void abort_surely(struct migration_source *s)
{
	Ssi__Migration__AbortRequest q = SSI__MIGRATION__ABORT_REQUEST__INIT;

	q.id = s->id;
	s->aborting = true;
	if (rpc_call(s->room->n.rpc, s->target, MIGRATION_ABORT, &q.base, RPC_NO_BULK,
		     3 * NSEC_PER_SEC, on_aborted, s, NULL) != 0)
		(void)env_arm(s->room->n.env, &s->timer, NSEC_PER_SEC / 4);
}

/* What a predecessor cut, without having told us what. */
static void uncut(struct migration_source *s)
{
	struct inventory *i = NULL;

	if (inventory_take(&i, s->room->n.space, s->root) != 0)
		return;
	for (size_t k = 0; k < i->n_files; k++)
		if (i->files[k].type == INVENTORY_PIPE)
			(void)stream_uncut(s->room->n.stream, i->files[k].inode);
	inventory_free(i);
}

/* When nothing of it stands on the target, or will: run on. */
static void undo(struct migration_source *s)
{
	int r;

	if (s->sm.state != UNDOING) {
		sm_move(&s->sm, UNDOING);
		if (s->dump)
			criu_cancel(s->dump);
	}
	/* All refer to us, and call back here when they are over. */
	if (s->dump || s->under_way || s->aborting)
		return;
	if (s->may_be_ready)
		return abort_surely(s);
	if (s->asked)
		send_abort(s);
	if (s->pipes)
		tree_pipes_undo(s->pipes);
	if (s->resumed)
		uncut(s);
	r = s->group ? space_group_thaw(s->group) : 0;
	if (r != 0)
		log_error("process %d: cannot be thawed: %s", s->root, strerror(-err_fold(r)));
	if (s->outcome.status != RPC_OK)
		log_notice("process %d: not moved to %s, it goes on here: %s", s->root,
			   target_name(s), s->outcome.text);
	finish(s);
}

/* Looking: what does it hold, and may it move? */

static void on_look_work(struct env_work *work)
{
	struct migration_source *s = container_of(work, struct migration_source, work);

	s->work_result = inventory_take(&s->inventory, s->room->n.space, s->root);
}

/* false: it has failed. */
static bool judge(struct migration_source *s)
{
	ino_t inodes[TREE_PIPES_MAX];
	struct inventory_allow allow = { .pipes = inodes };
	_cleanup_free_ char *text = NULL;
	int r = s->work_result;
	char line[256];

	if (r == -ESRCH) {
		fail(s, RPC_NOT_FOUND, "process %d has ended", s->root);
		return false;
	}
	if (r == 0)
		r = tree_pipes_allow(&s->room->pipes, s->inventory, inodes, &allow.n_pipes);
	if (r == 0)
		r = inventory_verdict(s->inventory, &allow, s->room->n.space, &text);
	if (r == 0 && criu_may_dump(s->room->n.criu, s->inventory, line, sizeof(line)))
		return true;
	if (r >= 0)
		fail(s, RPC_UNSUPPORTED, "process %d cannot move: %s", s->root,
		     r ? text : line);
	else
		fail(s, RPC_FAILED, "process %d cannot be looked at: %s", s->root, strerror(-r));
	return false;
}

static void on_looked(struct env_work *work)
{
	struct migration_source *s = container_of(work, struct migration_source, work);

	if (judge(s))
		next_ask(s);
}

static void start(struct migration_source *s)
{
	struct process_record record;
	int r;

	if (!membership_is_up(s->room->n.membership, s->target))
		return fail(s, RPC_DOWN, "the target is not up: see ssi-nodes");
	r = process_hold(s->room->n.process, s->root);
	if (r == PROCESS_E_BUSY)
		return fail(s, RPC_CONFLICT, "process %d is being moved or saved already",
			    s->root);
	if (r != 0)
		return fail(s, RPC_NOT_FOUND, "no process %d here", s->root);
	s->held = true;
	if (process_record(s->room->n.process, s->root, &record) == 0 &&
	    record.state == PROCESS_AWAY)
		return fail(s, RPC_CONFLICT, "process %d has just left", s->root);
	journal(s, MIGRATION_STEP_OPEN);
	s->work = (struct env_work){ .work = on_look_work, .done = on_looked };
	if (env_work(s->room->n.env, &s->work) < 0)
		fail(s, RPC_FAILED, "out of memory");
}

/* Asking. */

static void on_asked(void *owner, const struct rpc_result *result)
{
	struct migration_source *s = owner;

	if (result->status != RPC_OK)
		return fail(s, result->status, "%s", result->text);
	if (s->dry_run)
		return undo(s);
	if (fault("migration.asked") < 0)
		return fail(s, RPC_FAILED, "fault point");
	next_freeze(s);
}

static void next_ask(struct migration_source *s)
{
	Ssi__Migration__AskRequest q = SSI__MIGRATION__ASK_REQUEST__INIT;
	_cleanup_free_ char *text = NULL, *flags = NULL;

	sm_move(&s->sm, ASKING);
	progress(s, "ask", 0, 0);
	if (inventory_format(s->inventory, &text, &q.inventory.len) < 0 ||
	    manifest_own_cpu_flags(&flags) < 0)
		return fail(s, RPC_FAILED, "out of memory");
	q.id = s->id;
	q.root = s->root;
	q.inventory.data = (uint8_t *)text;
	q.cpu_flags = flags;
	for (size_t i = 0; i < s->inventory->n_tasks; i++)
		q.bytes += s->inventory->tasks[i].rss_bytes;
	s->asked = true;
	if (!s->dry_run)
		criu_warm(s->room->n.criu);
	if (rpc_call(s->room->n.rpc, s->target, MIGRATION_ASK, &q.base, RPC_NO_BULK,
		     10 * NSEC_PER_SEC, on_asked, s, NULL) != 0)
		fail(s, RPC_FAILED, "out of memory");
}

/* Freezing. */

/* What /proc says of the members; whose they are is told by name_members(). */
static int make_members(struct migration_source *s)
{
	s->n_members = s->inventory->n_tasks;
	if (s->n_members > MIGRATION_MEMBERS_MAX)
		return err_origin(-E2BIG);
	s->members = calloc(s->n_members, sizeof(*s->members));
	if (!s->members)
		return err_origin(-ENOMEM);
	for (size_t i = 0; i < s->n_members; i++) {
		const struct inventory_task *t = &s->inventory->tasks[i];

		s->members[i] = (struct process_member){
			.pid = t->pid, .ppid = i == 0 ? 0 : t->ppid, .pgid = t->pgid,
			.sid = t->sid, .uid = t->uid,
		};
	}
	return 0;
}

/* On the loop, where the records are. */
static void name_members(struct migration_source *s)
{
	struct process_record record = { .pid = s->root, .app = s->root };

	(void)process_record(s->room->n.process, s->root, &record);
	/* After a restart of ssid: as the copy was told, whatever the record says by now. */
	if (!s->generation)
		s->generation = record.generation + 1;
	for (size_t i = 0; i < s->n_members; i++) {
		s->members[i].app = record.app ? record.app : s->root;
		s->members[i].generation = s->generation;
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
		r = space_group_freeze(s->group, FROZEN_MAX_S * NSEC_PER_SEC);
	if (r == 0) {
		s->inventory = inventory_free(s->inventory);
		r = inventory_take(&s->inventory, s->room->n.space, s->root);
	}
	if (r == 0)
		r = make_members(s);
	/* The signals that the images will hold. */
	if (r == 0)
		r = process_pending_read(s->members, s->n_members, &s->pending);
	s->work_result = r;
}

static void on_frozen(struct env_work *work)
{
	struct migration_source *s = container_of(work, struct migration_source, work);
	int r = s->work_result;

	s->frozen_at = env_now(s->room->n.env);
	if (r == SPACE_GROUP_E_TIMEOUT)
		return fail(s, RPC_TIMEOUT, "process %d would not freeze in %d s", s->root,
			    FROZEN_MAX_S);
	if (r > 0)
		s->work_result = -ESRCH;
	/* Judged again: it ran on until now. */
	if (!judge(s))
		return;
	name_members(s);
	r = tree_pipes_find(&s->pipes, &s->room->pipes, s->inventory);
	if (r < 0)
		return fail(s, RPC_FAILED, "process %d: %s", s->root, strerror(-r));
	if (fault("migration.frozen") < 0)
		return fail(s, RPC_FAILED, "fault point");
	next_dump(s);
}

static void next_freeze(struct migration_source *s)
{
	sm_move(&s->sm, FREEZING);
	progress(s, "freeze", 0, 0);
	s->work = (struct env_work){ .work = on_freeze_work, .done = on_frozen };
	if (env_work(s->room->n.env, &s->work) < 0)
		fail(s, RPC_FAILED, "out of memory");
}

/* Dumping and shipping. */

/* A piece in flight. */
struct piece {
	struct migration_source *source;
	size_t len;
};

static void dump_maybe_over(struct migration_source *s)
{
	if (!s->dump_done || s->under_way || s->sm.state != DUMPING)
		return;
	if (fault("migration.shipped") < 0)
		return fail(s, RPC_FAILED, "fault point");
	next_restore(s);
}

static void on_piece(void *owner, const struct rpc_result *result)
{
	struct piece *p = owner;
	struct migration_source *s = p->source;

	s->under_way -= p->len;
	free(p);
	if (result->status != RPC_OK && s->outcome.status == RPC_OK)
		migration_outcome(&s->outcome, result->status, "%s", result->text);
	if (s->outcome.status != RPC_OK)
		return undo(s);
	if (s->paused && s->under_way < WINDOW / 2) {
		s->paused = false;
		criu_dump_pause(s->dump, false);
	}
	dump_maybe_over(s);
}

static int ship(struct migration_source *s, const char *file, const void *data, size_t len,
		bool last)
{
	Ssi__Migration__ChunkRequest q = SSI__MIGRATION__CHUNK_REQUEST__INIT;
	struct piece *p = malloc(sizeof(*p));
	int r;

	if (!p)
		return err_origin(-ENOMEM);
	/* Even an empty piece counts, so that the last one is waited for. */
	*p = (struct piece){ s, len ? len : 1 };
	q.id = s->id;
	q.file = (char *)file;
	q.close = last;
	r = rpc_call(s->room->n.rpc, s->target, MIGRATION_CHUNK, &q.base,
		     (struct iovec){ (void *)data, len }, time_left(s), on_piece, p, NULL);
	if (r != 0) {
		free(p);
		return err_fold(r);
	}
	s->under_way += p->len;
	s->shipped += len;
	return 0;
}

static int on_image_write(void *owner, const char *file, const void *data, size_t len)
{
	struct migration_source *s = owner;
	int r = 0;

	for (size_t at = 0; r == 0 && at < len; at += PIECE)
		r = ship(s, file, (const char *)data + at, len - at < PIECE ? len - at : PIECE,
			 false);
	if (r == 0 && !s->paused && s->under_way > WINDOW) {
		s->paused = true;
		criu_dump_pause(s->dump, true);
		progress(s, "ship", s->shipped, 0);
	}
	return r;
}

static int on_image_close(void *owner, const char *file)
{
	return ship(owner, file, NULL, 0, true);
}

static void on_dumped(void *owner, bool ok, const char *text)
{
	struct migration_source *s = owner;

	s->dump = NULL;
	s->dump_done = true;
	if (!ok && s->outcome.status == RPC_OK)
		migration_outcome(&s->outcome, RPC_UNSUPPORTED,
				      "process %d cannot be dumped: %s", s->root, text);
	if (s->outcome.status != RPC_OK)
		return undo(s);
	dump_maybe_over(s);
}

static void next_dump(struct migration_source *s)
{
	const struct process_member *root = &s->members[0];
	struct criu_dump_spec spec = {
		.root = s->root,
		.group = s->group,
		.shell_job = root->sid != root->pid,
		.sink = { on_image_write, on_image_close, s },
		.timeout = time_left(s),
	};

	sm_move(&s->sm, DUMPING);
	progress(s, "ship", 0, 0);
	if (criu_dump(s->room->n.criu, &spec, on_dumped, s, &s->dump) != 0)
		fail(s, RPC_FAILED, "criu cannot be started: see ssi doctor");
}

/* Restoring, on the target. */

static void on_restored(void *owner, const struct rpc_result *result)
{
	struct migration_source *s = owner;

	if (result->status != RPC_OK)
		return fail(s, result->status, "%s", result->text);
	if (fault("migration.restored") < 0)
		return fail(s, RPC_FAILED, "fault point");
	next_commit(s);
}

static void next_restore(struct migration_source *s)
{
	Ssi__Migration__RestoreRequest q = SSI__MIGRATION__RESTORE_REQUEST__INIT;
	_cleanup_free_ Ssi__Migration__Member **members = NULL;
	_cleanup_free_ Ssi__Migration__Pipe **pipes = NULL;
	_cleanup_free_ char *text = NULL;
	int r;

	sm_move(&s->sm, RESTORING);
	progress(s, "restore", s->shipped, s->shipped);
	r = tree_pipes_cut(s->pipes);
	if (r == 0)
		r = inventory_format(s->inventory, &text, &q.inventory.len);
	if (r == 0)
		r = migration_members_format(s->members, s->n_members, &members);
	if (r == 0)
		r = migration_pipes_format(s->pipes, &pipes);
	q.id = s->id;
	q.inventory.data = (uint8_t *)text;
	q.members = members;
	q.n_members = s->n_members;
	q.pipes = pipes;
	q.n_pipes = tree_pipes_count(s->pipes);
	s->may_be_ready = r == 0;
	journal(s, MIGRATION_STEP_DECIDING);
	if (r == 0)
		r = err_fold(rpc_call(s->room->n.rpc, s->target, MIGRATION_RESTORE, &q.base,
				      RPC_NO_BULK, time_left(s), on_restored, s, NULL));
	if (r < 0)
		fail(s, RPC_FAILED, "process %d: %s", s->root, strerror(-r));
}

/* Committing: from here on only the target, or a view without it, may say what is so. */

static void query(struct migration_source *s);
static void send_commit(struct migration_source *s);

static void committed(struct migration_source *s)
{
	s->frozen_for = env_now(s->room->n.env) - s->frozen_at;
	journal(s, MIGRATION_STEP_COMMITTED);
	(void)fault("migration.committed");
	next_depart(s);
}

static void on_timer(struct env_timer *timer)
{
	struct migration_source *s = container_of(timer, struct migration_source, timer);

	if (s->sm.state == UNDOING)
		abort_surely(s);
	else
		query(s);
}

static void on_queried(void *owner, const struct rpc_result *result)
{
	const Ssi__Migration__QueryReply *reply = (const void *)result->reply;
	struct migration_source *s = owner;

	if (result->status == RPC_OK && reply->state == SSI__MIGRATION__QUERY_REPLY__STATE__COMMITTED)
		return committed(s);
	if (result->status == RPC_OK && reply->state == SSI__MIGRATION__QUERY_REPLY__STATE__UNKNOWN)
		return fail(s, RPC_FAILED, "the target lost the copy before it ran");
	if (target_excluded(s))
		return fail(s, RPC_DOWN, "the target left the cluster");
	/* It stands ready: our COMMIT did not come through, and may come twice. */
	if (result->status == RPC_OK)
		return send_commit(s);
	(void)env_arm(s->room->n.env, &s->timer, NSEC_PER_SEC);
}

static void on_committed(void *owner, const struct rpc_result *result)
{
	struct migration_source *s = owner;

	if (result->status == RPC_OK)
		return committed(s);
	if (s->sm.state == QUERYING) {
		(void)env_arm(s->room->n.env, &s->timer, NSEC_PER_SEC / 4);
		return;
	}
	log_warning("process %d: %s has not acknowledged the commit (%s), asking until it does "
		    "or leaves",
		    s->root, target_name(s), result->text);
	sm_move(&s->sm, QUERYING);
	query(s);
}

static void query(struct migration_source *s)
{
	Ssi__Migration__QueryRequest q = SSI__MIGRATION__QUERY_REQUEST__INIT;
	struct rpc_result down = { .status = RPC_DOWN, .text = "" };

	q.id = s->id;
	if (rpc_call(s->room->n.rpc, s->target, MIGRATION_QUERY, &q.base, RPC_NO_BULK,
		     3 * NSEC_PER_SEC, on_queried, s, NULL) != 0)
		on_queried(s, &down);
}

static void send_commit(struct migration_source *s)
{
	Ssi__Migration__CommitRequest q = SSI__MIGRATION__COMMIT_REQUEST__INIT;
	struct rpc_result down = { .status = RPC_DOWN, .text = "out of memory" };

	q.id = s->id;
	if (rpc_call(s->room->n.rpc, s->target, MIGRATION_COMMIT, &q.base, RPC_NO_BULK,
		     10 * NSEC_PER_SEC, on_committed, s, NULL) != 0)
		on_committed(s, &down);
}

static void next_commit(struct migration_source *s)
{
	sm_move(&s->sm, COMMITTING);
	progress(s, "commit", s->shipped, s->shipped);
	send_commit(s);
}

/* Departing: the originals become shadows, or go. */

static void on_depart_work(struct env_work *work)
{
	struct migration_source *s = container_of(work, struct migration_source, work);

	s->work_result = process_depart_work(s->departure);
}

static void on_departed(struct env_work *work)
{
	struct migration_source *s = container_of(work, struct migration_source, work);

	if (s->work_result != 0)
		log_error("process %d: its shadow does not stand: %s", s->root,
			  strerror(-err_fold(s->work_result)));
	process_depart_end(s->departure);
	log_info("process %d: moved to %s, frozen for %llu ms", s->root, target_name(s),
		 s->frozen_for / NSEC_PER_MSEC);
	(void)fault("migration.departed");
	finish(s);
}

static void next_depart(struct migration_source *s)
{
	int r;

	sm_move(&s->sm, DEPARTING);
	if (s->pipes)
		tree_pipes_commit(s->pipes, s->target);
	r = process_depart_begin(s->room->n.process, s->members, s->n_members, s->group,
				 s->target, &s->departure);
	if (r == 0) {
		process_depart_pending(s->departure, TAKE(s->pending));
		s->work = (struct env_work){ .work = on_depart_work, .done = on_departed };
		r = env_work(s->room->n.env, &s->work);
	}
	if (r == 0)
		return;
	/* Without memory there is no shadow; a second live copy there must not be. */
	log_error("process %d: no memory for its shadow, the original is killed", s->root);
	(void)space_group_kill(s->group, 2 * NSEC_PER_SEC);
	finish(s);
}

static struct migration_source *source_new(struct migration_room *m, uint64_t id, pid_t root,
					   node_id target)
{
	struct migration_source *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->room = m;
	s->id = id;
	s->root = root;
	s->target = target;
	s->timer.cb = on_timer;
	sm_init(&s->sm, "migration", states, id, LOOKING);
	LIST_INSERT_HEAD(&m->sources, s, entry);
	m->n_sources++;
	return s;
}

void migration_source_begin(struct migration_room *m, struct rpc_call *call,
			    const Ssi__Migration__MoveRequest *q)
{
	struct migration_source *s;

	if (m->n_sources >= MIGRATION_CONCURRENT_MAX)
		return rpc_fail(call, RPC_CONFLICT, "%u moves from this node are under way",
				m->n_sources);
	s = source_new(m, (uint64_t)rpc_self(m->n.rpc) << 32 | (uint32_t)m->next_number++, q->pid,
		       q->target);
	if (!s)
		return rpc_fail(call, RPC_FAILED, "out of memory");
	s->call = call;
	s->dry_run = q->dry_run;
	s->deadline = env_now(m->n.env) + q->timeout_ns;
	s->watcher = q->watcher;
	s->watch = q->watch;
	start(s);
}

void migration_source_on_view(struct migration_room *m)
{
	struct migration_source *s, *next;

	for (s = LIST_FIRST(&m->sources); s; s = next) {
		next = LIST_NEXT(s, entry);
		if (s->sm.state == QUERYING && s->timer.due && target_excluded(s)) {
			env_disarm(m->n.env, &s->timer);
			fail(s, RPC_DOWN, "the target left the cluster");
		}
	}
}

/*
 * A predecessor's move.  The tree is still frozen in its group.  Before RESTORE was
 * sent it is ours to undo; after, the target is asked, and gets its COMMIT when it is
 * ready: a copy that was restored into its shadow cannot be given up unseen.
 */
void migration_source_resume(struct migration_room *m, const struct migration_entry *e)
{
	struct migration_source *s = source_new(m, e->id, e->root, e->peer);
	char name[64];

	if (!s)
		return log_error("process %d: no memory to end its move", e->root);
	s->asked = s->resumed = true;
	s->may_be_ready = e->step == MIGRATION_STEP_DECIDING;
	s->generation = e->generation;
	s->deadline = env_now(m->n.env) + 60 * NSEC_PER_SEC;
	s->frozen_at = env_now(m->n.env);
	s->held = process_hold(m->n.process, s->root) == 0;
	snprintf(name, sizeof(name), "move.%" PRIx64, s->id);
	if (space_group_open(m->n.space, name, &s->group) != 0)
		s->group = NULL;
	if (e->step == MIGRATION_STEP_OPEN || !s->group)
		return fail(s, RPC_FAILED, "ssid was restarted in the middle");
	s->work_result = inventory_take(&s->inventory, m->n.space, s->root);
	if (s->work_result == 0)
		s->work_result = make_members(s);
	if (s->work_result == 0)
		name_members(s);
	if (s->work_result == 0)
		s->work_result = tree_pipes_find(&s->pipes, &m->pipes, s->inventory);
	if (s->work_result < 0)
		log_error("process %d: cannot be looked at after a restart: %s", s->root,
			  strerror(-s->work_result));
	sm_init(&s->sm, "migration", states, s->id,
		e->step == MIGRATION_STEP_COMMITTED ? COMMITTING : QUERYING);
	if (e->step == MIGRATION_STEP_COMMITTED)
		return committed(s);
	query(s);
}

void migration_sources_free(struct migration_room *m)
{
	while (!LIST_EMPTY(&m->sources))
		source_free(LIST_FIRST(&m->sources));
}
