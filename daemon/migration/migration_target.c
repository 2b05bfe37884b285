/*
 * The side where a tree arrives.
 *
 * Happy path: asked -> are its files here? a store for its images; chunks fill it;
 * RESTORE makes the pipes, lets shadows give way, restores the tree frozen, compares it
 * with what the source says it is, and answers when the memory that came behind it is
 * in its place as well; COMMIT opens the streams and thaws it.
 *
 * Failure modes: before COMMIT anything ends with nothing left here and our
 * shadows as they stood.  A source that says nothing for IDLE_MAX is given up,
 * unless the tree is ready: then only COMMIT, ABORT or a view decides, or the source's
 * node, when it was back with a new space before any view had it out.  A node without
 * its lease takes no COMMIT, and one that a view had excluded gives up what is not
 * committed: its source has gone on without it.
 */
#include "migration_pages.h"
#include "migration_wire.h"

#include "cleanup.h"
#include "err.h"
#include "fault.h"
#include "log.h"
#include "manifest.h"
#include "process_proc.h"
#include "shadow_protocol.h"
#include "sm.h"
#include "space_group.h"

#include <inttypes.h>
#include <stdarg.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum {
	ASKED,
	RECEIVING,
	RESTORING,
	COMPARING,
	READY, /* restored, right, frozen */
	COMMITTED,
	UNDOING,
	GONE,
};

static const struct sm_state states[] = {
	[ASKED] = {"asked", SM_TO(RECEIVING) | SM_TO(UNDOING)},
	[RECEIVING] = {"receiving", SM_TO(RESTORING) | SM_TO(UNDOING)},
	[RESTORING] = {"restoring", SM_TO(COMPARING) | SM_TO(UNDOING)},
	[COMPARING] = {"comparing", SM_TO(READY) | SM_TO(UNDOING)},
	[READY] = {"ready", SM_TO(COMMITTED) | SM_TO(UNDOING)},
	[COMMITTED] = {"committed", SM_TO(GONE)},
	[UNDOING] = {"undoing", SM_TO(GONE)},
	[GONE] = {"gone", 0},
};

/* A restore in place takes the pipes, criu's socket and the shadow's program along. */
static_assert(TREE_PIPES_MAX + 2 <= SHADOW_FDS_MAX,
	      "more pipes than a shadow passes on");

static const nsec_t IDLE_MAX = 60 * NSEC_PER_SEC;
static const nsec_t LOOK_AGAIN = NSEC_PER_SEC / 2;
static const nsec_t KILL_MAX = 5 * NSEC_PER_SEC;
static const nsec_t RESTORE_MAX = 120 * NSEC_PER_SEC;

/* A limit of tasks is reached: the kernel's own words do not say so. */
static const char *why(int r)
{
	return r == -EAGAIN ? "no more processes are allowed (pids.max)" : strerror(-r);
}

struct migration_target {
	LIST_ENTRY(migration_target) entry;
	struct migration_room *room;
	struct sm sm;
	uint64_t id;
	node_id source;
	uint64_t incarnation; /* ours, when we were asked */
	uint64_t source_incarnation; /* 0: it did not say */
	pid_t root;
	struct env_timer idle;
	struct image_store *images;
	struct inventory *saved, *restored;
	struct process_member *members;
	size_t n_members;
	struct tree_pipes *pipes;
	struct process_arrival *arrival;
	struct space_group *group;
	struct criu_run *run;
	struct migration_pages *pages;	 /* NULL: the images hold all memory */
	bool right;			 /* COMPARING: it is what it was */
	bool in_place, stands;		 /* of the root; the tree is restored */
	struct process_pending *pending; /* what the images held */
	struct process_departure *back;	 /* into the shadow that it was */
	struct rpc_call *aborted;	 /* the ABORT, answered when it is done */
	struct rpc_call *call;		 /* the ASK, then the RESTORE to be answered */
	struct env_work work;
	bool working;
	int work_result;
	char *difference;
	bool dry_run; /* it is only asked */
	struct inventory_things *things; /* of these, what is in the way */
	struct migration_outcome outcome;
};

static void undo(struct migration_target *t);

static void target_free(struct migration_target *t)
{
	env_disarm(t->room->n.env, &t->idle);
	LIST_REMOVE(t, entry);
	t->room->n_targets--;
	migration_pages_free(t->pages);
	image_store_free(t->images);
	inventory_free(t->saved);
	inventory_free(t->restored);
	tree_pipes_free(t->pipes);
	process_pending_free(t->pending);
	space_group_close(t->group);
	inventory_things_free(t->things);
	free(t->members);
	free(t->difference);
	free(t);
}

static struct migration_target *find(struct migration_room *m, uint64_t id,
				     node_id source)
{
	struct migration_target *t;

	LIST_FOREACH (t, &m->targets, entry)
		if (t->id == id && t->source == source)
			return t;
	return NULL;
}

static int journal(struct migration_target *t, enum migration_step step)
{
	struct migration_entry e = {.id = t->id,
				    .side = MIGRATION_TARGET,
				    .step = step,
				    .root = t->root,
				    .peer = t->source,
				    .recorded = step == MIGRATION_STEP_COMMITTED &&
						!t->arrival};

	if (t->members) {
		e.generation = t->members[0].generation;
		e.app = t->members[0].app;
		e.name = t->members[0].name;
	}
	return migration_journal_set(t->room->journal, &e);
}

static void fail(struct migration_target *t, enum rpc_status status, const char *format,
		 ...) __attribute__((format(printf, 3, 4)));

static void fail(struct migration_target *t, enum rpc_status status, const char *format,
		 ...)
{
	va_list ap;

	va_start(ap, format);
	if (t->outcome.status == RPC_OK)
		migration_outcome_set(&t->outcome, status, format, ap);
	va_end(ap);
	undo(t);
}

static void on_undo_work(struct env_work *work)
{
	struct migration_target *t = container_of(work, struct migration_target, work);

	t->work_result = t->group ? space_group_kill(t->group, KILL_MAX) : 0;
}

static void undone(struct migration_target *t)
{
	Ssi__Envelope__Empty reply = SSI__ENVELOPE__EMPTY__INIT;

	if (t->arrival)
		process_arrive_end(t->arrival, false);
	if (t->call)
		rpc_fail(t->call, t->outcome.status, "%s", t->outcome.text);
	if (t->aborted)
		rpc_reply(t->aborted, &reply.base, RPC_NO_BULK);
	log_notice("process %d: did not arrive: %s", t->root, t->outcome.text);
	(void)journal(t, MIGRATION_STEP_NONE);
	sm_move(&t->sm, GONE);
	target_free(t);
}

static void on_undone(struct env_work *work)
{
	struct migration_target *t = container_of(work, struct migration_target, work);

	if (t->work_result != 0)
		log_error("process %d: what was restored of it would not die", t->root);
	undone(t);
}

/* A child that came home: its parent is not to see it die, so it turns back. */

static void on_back_work(struct env_work *work)
{
	struct migration_target *t = container_of(work, struct migration_target, work);

	t->work_result = process_depart_work(t->back);
}

static void on_back(struct env_work *work)
{
	struct migration_target *t = container_of(work, struct migration_target, work);

	if (t->work_result != 0)
		log_error("process %d: its shadow does not stand again: %s", t->root,
			  strerror(-err_fold(t->work_result)));
	process_depart_end(t->back);
	undone(t);
}

/* False: it cannot. */
static bool turn_back(struct migration_target *t)
{
	if (!t->stands || !t->in_place ||
	    process_arrive_back(t->arrival, t->group, &t->back) != 0)
		return false;
	process_depart_pending(t->back, TAKE(t->pending));
	t->work = (struct env_work){.work = on_back_work, .done = on_back};
	t->working = env_work(t->room->n.env, &t->work) == 0;
	if (t->working)
		return true;
	on_back_work(&t->work);
	on_back(&t->work);
	return true;
}

/* Kill what stands, put the shadows back, forget. */
static void undo(struct migration_target *t)
{
	if (t->sm.state != UNDOING) {
		sm_move(&t->sm, UNDOING);
		/* Nobody is to wait for memory that does not come any more. */
		if (t->pages)
			migration_pages_give_up(t->pages, &t->outcome);
		/* What a killed criu leaves of a shadow is a death that its parent
		 * sees. */
		if (t->run && !t->in_place)
			criu_cancel(t->run);
	}
	/* Both call back here, or it is what undoes. */
	if (t->run || t->working || turn_back(t))
		return;
	t->work = (struct env_work){.work = on_undo_work, .done = on_undone};
	t->working = env_work(t->room->n.env, &t->work) == 0;
	if (t->working)
		return;
	on_undo_work(&t->work);
	on_undone(&t->work);
}

static void commit(struct migration_target *t);

/* The tree that it left is no more.  Everything arrived -> it lives here; else it died there. */
static bool source_is_over(struct migration_target *t)
{
	bool over = t->source_incarnation ?
			    process_is_over(t->room->n.process, t->source,
					    t->source_incarnation) :
			    !membership_is_up(t->room->n.membership, t->source);

	if (over && t->sm.state == READY)
		commit(t);
	else if (over && t->sm.state != UNDOING)
		fail(t, RPC_DOWN, "the source left the cluster");
	return over;
}

/* Of a tree that is being restored, or stands restored. */
static bool lacks_memory(const struct migration_target *t)
{
	return t->pages && !migration_pages_are_over(t->pages);
}

static void on_idle(struct env_timer *timer)
{
	struct migration_target *t = container_of(timer, struct migration_target, idle);

	if (t->sm.state == RECEIVING || lacks_memory(t))
		fail(t, RPC_TIMEOUT, "the source has gone silent");
	else if (t->sm.state == READY && !source_is_over(t))
		(void)env_arm(t->room->n.env, &t->idle, LOOK_AGAIN);
}

static void alive(struct migration_target *t)
{
	(void)env_arm(t->room->n.env, &t->idle, IDLE_MAX);
}

/* Ask. */

/* RPC_OK, or why a tree like this cannot live here. */
static void judge(struct migration_room *m, const Ssi__Migration__AskRequest *q,
		  struct migration_outcome *o)
{
	const uint64_t available = membership_own_load(m->n.membership).memory_available;
	const char *lacks = migration_unready(m);
	_cleanup_free_ char *missing = NULL;
	struct manifest needs = {.cpu_flags = q->cpu_flags};

	/* A new ssid learns with its lease which incarnation of its node it is. */
	if (lacks)
		return migration_outcome(o, RPC_DOWN, "that node %s", lacks);
	if (m->n_targets > MIGRATION_CONCURRENT_MAX)
		return migration_outcome(o, RPC_CONFLICT,
					 "%u moves to this node are under way",
					 m->n_targets);
	if (!criu_features(m->n.criu)->check_ok)
		return migration_outcome(
			o, RPC_UNSUPPORTED,
			"CRIU does not work there: see ssi doctor on it");
	if (!criu_features(m->n.criu)->restore_in_place &&
	    process_arrive_in_place(m->n.process, q->root))
		return migration_outcome(o, RPC_UNSUPPORTED,
					 "process %d has its parent there, to whom only a patched "
					 "CRIU restores it: see ssi doctor on it", q->root);
	if (q->bytes > m->n.image_max_bytes)
		return migration_outcome(o, RPC_FAILED,
					 "its %llu MiB of memory are more than "
					 "image_max_mb allows there, "
					 "see ssid.conf(5)",
					 (unsigned long long)q->bytes >> 20);
	/* Twice: the images stand in memory beside the restored tree for a moment. */
	if (2 * q->bytes > available)
		return migration_outcome(o, RPC_FAILED,
					 "not enough memory there: %llu MiB are "
					 "needed, %llu are available",
					 (unsigned long long)(2 * q->bytes) >> 20,
					 (unsigned long long)available >> 20);
	if (manifest_missing_cpu_flags(&needs, &missing) < 0)
		return migration_outcome(o, RPC_FAILED, "out of memory");
	if (missing)
		return migration_outcome(o, RPC_UNSUPPORTED,
					 "the processor there lacks %s", missing);
}

/*
 * Who leads no session is born in it by a placeholder that has its number: where kin of the
 * session stand that number is taken, and only a shadow of its own could become it.
 */
static void judge_session(struct migration_target *t)
{
	const struct inventory_task *root = &t->saved->tasks[0];
	struct proc_stat s;

	if (root->sid != t->root && !process_arrive_in_place(t->room->n.process, t->root) &&
	    proc_stat_read(space_proc_fd(t->room->n.space), root->sid, &s) == 0)
		migration_outcome(&t->outcome, RPC_UNSUPPORTED,
				  "session %d of process %d exists there already, and only a "
				  "process born in it can enter it", root->sid, t->root);
}

/* Looking for its files may wait for a slow file system: a worker does. */
static void on_present_work(struct env_work *work)
{
	struct migration_target *t = container_of(work, struct migration_target, work);

	t->work_result = inventory_present(t->saved, t->room->n.space, false, &t->difference,
					   t->dry_run ? &t->things : NULL);
}

/* A criu that was started for nobody will do: see criu_restore(). */
static bool takes_any_criu(const struct inventory *i)
{
	for (size_t k = 0; k < i->n_files; k++)
		if (i->files[k].type == INVENTORY_PIPE)
			return false;
	return i->n_tasks && i->tasks[0].sid == i->tasks[0].pid;
}

/* Of a dry run nothing stands here. */
static void tell(struct migration_target *t)
{
	Ssi__Migration__AskReply reply = SSI__MIGRATION__ASK_REPLY__INIT;
	_cleanup_free_ Ssi__Migration__Thing **things = NULL;

	inventory_things_cut(t->things);
	if (migration_things_format(t->things, &things) < 0) {
		rpc_fail(t->call, RPC_FAILED, "out of memory");
	} else {
		if (t->work_result > 0)
			migration_outcome(&t->outcome, RPC_UNSUPPORTED, "%s", t->difference);
		reply.refused = t->outcome.status;
		reply.why = t->outcome.text;
		reply.things = things;
		reply.n_things = t->things->n;
		rpc_reply(t->call, &reply.base, RPC_NO_BULK);
	}
	sm_move(&t->sm, UNDOING);
	sm_move(&t->sm, GONE);
	target_free(t);
}

static void on_present(struct env_work *work)
{
	struct migration_target *t = container_of(work, struct migration_target, work);
	Ssi__Migration__AskReply reply = SSI__MIGRATION__ASK_REPLY__INIT;

	t->working = false;
	if (t->sm.state == UNDOING)
		return undo(t);
	if (t->dry_run && t->work_result >= 0)
		return tell(t);
	if (t->work_result > 0)
		return fail(t, RPC_UNSUPPORTED, "%s", t->difference);
	if (t->work_result < 0)
		return fail(t, RPC_FAILED, "its files cannot be looked for there: %s",
			    why(t->work_result));
	/* The forecast has done its work: what is restored is compared with the frozen tree. */
	t->saved = inventory_free(t->saved);
	sm_move(&t->sm, RECEIVING);
	alive(t);
	reply.pages = pages_may_be_placed();
	rpc_reply(t->call, &reply.base, RPC_NO_BULK);
	t->call = NULL;
}

/* Outcome other than 0: t->outcome says why. */
static void open_target(struct migration_target *t, const Ssi__Migration__AskRequest *q)
{
	char name[64];

	judge(t->room, q, &t->outcome);
	if (t->outcome.status != RPC_OK)
		return undo(t);
	if (inventory_parse(&t->saved, (const char *)q->inventory.data,
			    q->inventory.len) != 0)
		return fail(t, RPC_USAGE, "not an inventory");
	judge_session(t);
	if (t->outcome.status != RPC_OK)
		return undo(t);
	snprintf(name, sizeof(name), "arrive.%" PRIx64, t->id);
	if (!t->dry_run && (image_store_new(&t->images, t->room->n.private_dir_fd, name,
					    t->room->n.image_max_bytes) != 0 ||
			    journal(t, MIGRATION_STEP_OPEN) != 0))
		return fail(t, RPC_FAILED, IMAGE_NO_ROOM);
	if (!t->dry_run && takes_any_criu(t->saved))
		criu_warm(t->room->n.criu);
	t->work = (struct env_work){.work = on_present_work, .done = on_present};
	t->working = env_work(t->room->n.env, &t->work) == 0;
	if (!t->working)
		fail(t, RPC_FAILED, "out of memory");
}

void migration_target_on_ask(struct migration_room *m, struct rpc_call *call,
			     const Ssi__Migration__AskRequest *q)
{
	struct migration_target *t;
	char text[128];
	const char *why = membership_refusal(m->n.membership, rpc_self(m->n.rpc), text,
					     sizeof(text));

	if (why)
		return rpc_fail(call, RPC_DOWN, "%s", why);
	if (find(m, q->id, rpc_call_peer(call)))
		return rpc_fail(call, RPC_CONFLICT, "this move is under way");
	t = calloc(1, sizeof(*t));
	if (!t)
		return rpc_fail(call, RPC_FAILED, "out of memory");
	t->room = m;
	t->id = q->id;
	t->source = rpc_call_peer(call);
	t->incarnation = migration_own_incarnation(m);
	t->source_incarnation = q->incarnation;
	t->root = q->root;
	t->dry_run = q->dry_run;
	t->call = call;
	t->idle.cb = on_idle;
	sm_init(&t->sm, "arrival", states, t->id, ASKED);
	LIST_INSERT_HEAD(&m->targets, t, entry);
	m->n_targets++;
	open_target(t, q);
}

/* Chunks. */

void migration_target_on_chunk(struct migration_room *m, struct rpc_call *call,
			       const Ssi__Migration__ChunkRequest *q, struct iovec bulk)
{
	struct migration_target *t = find(m, q->id, rpc_call_peer(call));
	Ssi__Envelope__Empty reply = SSI__ENVELOPE__EMPTY__INIT;
	struct image_sink sink;
	int r;

	if (!t || t->sm.state != RECEIVING)
		return rpc_fail(call, RPC_NOT_FOUND, "no such move is under way there");
	sink = image_store_sink(t->images);
	r = q->close ? sink.close(sink.owner, q->file)
		     : sink.write(sink.owner, q->file, bulk.iov_base, bulk.iov_len);
	if (r == IMAGE_E_FULL)
		rpc_fail(call, RPC_FAILED, IMAGE_NO_ROOM);
	else if (r != 0)
		rpc_fail(call, RPC_USAGE, "not an image: %.64s", q->file);
	else
		rpc_reply(call, &reply.base, RPC_NO_BULK);
	alive(t);
}

/* Restore. */

static void on_compare_work(struct env_work *work)
{
	struct migration_target *t = container_of(work, struct migration_target, work);
	struct space *space = t->room->n.space;

	t->work_result = inventory_take(&t->restored, space, t->root);
	if (t->work_result == 0)
		t->work_result = inventory_give_capabilities(t->saved, space);
	if (t->work_result == 0)
		t->work_result =
			process_pending_read(space_proc_fd(space), t->members,
					     t->n_members, &t->pending);
	if (t->work_result == 0)
		t->work_result = inventory_compare(t->saved, t->restored, space, false,
						   &t->difference);
}

static void maybe_ready(struct migration_target *t)
{
	Ssi__Envelope__Empty reply = SSI__ENVELOPE__EMPTY__INIT;

	if (!t->right || lacks_memory(t))
		return;
	sm_move(&t->sm, READY);
	(void)env_arm(t->room->n.env, &t->idle, LOOK_AGAIN);
	(void)fault("migration.ready");
	rpc_reply(t->call, &reply.base, RPC_NO_BULK);
	t->call = NULL;
}

static void on_compared(struct env_work *work)
{
	struct migration_target *t = container_of(work, struct migration_target, work);

	t->working = false;
	if (t->sm.state == UNDOING)
		return undo(t);
	if (t->work_result > 0)
		return fail(t, RPC_UNSUPPORTED, "it would not be the same there: %s",
			    t->difference);
	if (t->work_result < 0)
		return fail(t, RPC_FAILED, "the copy cannot be looked at: %s",
			    why(t->work_result));
	t->right = true;
	maybe_ready(t);
}

/* Memory. */

static void on_pages_over(void *owner, const char *problem)
{
	struct migration_target *t = owner;

	if (problem)
		return fail(t, RPC_FAILED, "its memory cannot be restored there: %s",
			    problem);
	maybe_ready(t);
}

void migration_target_on_pages(struct migration_room *m, struct rpc_call *call,
			       const Ssi__Migration__PagesRequest *q, struct iovec bulk)
{
	struct migration_target *t = find(m, q->id, rpc_call_peer(call));

	if (t && t->sm.state == UNDOING)
		return rpc_fail(call, t->outcome.status, "%s", t->outcome.text);
	if (!t || !lacks_memory(t))
		return rpc_fail(call, RPC_NOT_FOUND, "no such move is under way there");
	(void)fault("migration.placed");
	alive(t);
	migration_pages_take(t->pages, call, q, bulk);
}

static void on_restored(void *owner, bool ok, const char *text)
{
	struct migration_target *t = owner;

	t->run = NULL;
	t->stands = ok;
	/* To turn it back it is looked at as well: it has signals. */
	if (t->sm.state == UNDOING && !(ok && t->in_place))
		return undo(t);
	if (!ok)
		return fail(t, RPC_FAILED, "it cannot be restored there: %s", text);
	if (t->sm.state != UNDOING)
		sm_move(&t->sm, COMPARING);
	if (t->pages)
		migration_pages_stand(t->pages);
	t->images = image_store_free(t->images);
	t->work = (struct env_work){.work = on_compare_work, .done = on_compared};
	t->working = env_work(t->room->n.env, &t->work) == 0;
	if (!t->working)
		fail(t, RPC_FAILED, "out of memory");
}

static int exec_in_place(void *owner, const char *criu, const int *fds, size_t n_fds)
{
	struct migration_target *t = owner;

	return process_arrive_exec(t->arrival, criu, fds, n_fds);
}

static int take_request(struct migration_target *t,
			const Ssi__Migration__RestoreRequest *q)
{
	int r = inventory_parse(&t->saved, (const char *)q->inventory.data,
				q->inventory.len);

	if (r == 0)
		r = migration_members_parse(&t->members, q->members, q->n_members);
	if (r == 0 && t->members[0].pid != t->root)
		r = err_origin(-EBADMSG);
	if (r == 0)
		r = migration_pipes_parse(&t->pipes, &t->room->pipes, q->pipes,
					  q->n_pipes);
	t->n_members = q->n_members;
	if (r == 0 && q->pages)
		r = migration_pages_new(&t->pages, t->room->n.env, on_pages_over, t);
	return err_fold(r);
}

static int restore(struct migration_target *t)
{
	struct criu_restore_spec spec = {
		.images = t->images,
		.root = t->root,
		.sid = t->members[0].sid,
		.pgid = t->members[0].pgid,
		.exec_in_place = exec_in_place,
		.timeout = RESTORE_MAX,
	};
	char name[64];
	int r;

	snprintf(name, sizeof(name), "arrive.%" PRIx64, t->id);
	r = space_group_open(t->room->n.space, name, &t->group);
	if (r == 0)
		r = image_store_prepare(t->images);
	if (r != 0)
		return err_fold(r);
	spec.group = t->group;
	spec.pages = t->pages ? migration_pages_placer(t->pages) : NULL;
	spec.inherit = tree_pipes_inherit(t->pipes, &spec.n_inherit);
	r = process_arrive_begin(t->room->n.process, t->members, t->n_members,
				 &spec.in_place, &t->arrival);
	if (r != 0)
		return r;
	t->in_place = spec.in_place;
	return err_fold(criu_restore(t->room->n.criu, &spec, on_restored, t, &t->run));
}

void migration_target_on_restore(struct migration_room *m, struct rpc_call *call,
				 const Ssi__Migration__RestoreRequest *q)
{
	struct migration_target *t = find(m, q->id, rpc_call_peer(call));
	int r;

	if (!t || t->sm.state != RECEIVING)
		return rpc_fail(call, RPC_NOT_FOUND, "no such move is under way there");
	env_disarm(m->n.env, &t->idle);
	sm_move(&t->sm, RESTORING);
	t->call = call;
	r = take_request(t, q);
	if (r < 0)
		return fail(t, RPC_USAGE, "the request to restore makes no sense: %s",
			    strerror(-r));
	if (t->pages)
		alive(t);
	r = restore(t);
	if (r == PROCESS_E_TAKEN)
		fail(t, RPC_CONFLICT, "one of its PIDs is in use there");
	else if (r != 0)
		fail(t, RPC_FAILED, "it cannot be restored there: %s",
		     why(err_fold(r)));
}

/* Commit. */

static void commit(struct migration_target *t)
{
	int r;

	sm_move(&t->sm, COMMITTED);
	(void)journal(t, MIGRATION_STEP_COMMITTED);
	(void)fault("migration.commit_taken");
	process_arrive_end(TAKE(t->arrival), true);
	(void)journal(t, MIGRATION_STEP_COMMITTED);
	tree_pipes_open(t->pipes);
	r = space_group_thaw(t->group);
	if (r != 0)
		log_error("process %d: arrived, cannot be thawed: %s", t->root,
			  strerror(-err_fold(r)));
	log_info("process %d: arrived", t->root);
	sm_move(&t->sm, GONE);
	target_free(t);
}

void migration_target_on_commit(struct migration_room *m, struct rpc_call *call,
				const Ssi__Migration__CommitRequest *q)
{
	struct migration_target *t = find(m, q->id, rpc_call_peer(call));
	Ssi__Envelope__Empty reply = SSI__ENVELOPE__EMPTY__INIT;
	bool done = migration_journal_step(m->journal, q->id, MIGRATION_TARGET) ==
		    MIGRATION_STEP_COMMITTED;

	if (!done && !membership_lease_held(m->n.membership))
		return rpc_fail(call, RPC_DOWN,
				"that node is out of touch with the cluster");
	if (!done && (!t || t->sm.state != READY))
		return rpc_fail(call, RPC_NOT_FOUND, "no such move is ready there");
	if (!done)
		commit(t);
	rpc_reply(call, &reply.base, RPC_NO_BULK);
}

/* False: answered.  Our space may have begun anew since, and the copy have run in the one before. */
static bool knows_of(struct migration_room *m, struct rpc_call *call, uint64_t incarnation)
{
	uint64_t since = process_since(m->n.process);

	if (!since)
		rpc_fail(call, RPC_DOWN, "that node does not know yet when it began");
	else if (since > incarnation)
		rpc_fail(call, RPC_NOT_FOUND, "that node began anew");
	return since && since <= incarnation;
}

void migration_target_on_abort(struct migration_room *m, struct rpc_call *call,
			       const Ssi__Migration__AbortRequest *q)
{
	struct migration_target *t = find(m, q->id, rpc_call_peer(call));
	Ssi__Envelope__Empty reply = SSI__ENVELOPE__EMPTY__INIT;

	if (q->incarnation && !knows_of(m, call, q->incarnation))
		return;
	if (migration_journal_step(m->journal, q->id, MIGRATION_TARGET) ==
	    MIGRATION_STEP_COMMITTED)
		return rpc_fail(call, RPC_CONFLICT, "it runs there already");
	/* Answered when nothing of it stands, so that the next move finds all as it
	 * was. */
	if (t && !t->aborted)
		t->aborted = call;
	else
		rpc_reply(call, &reply.base, RPC_NO_BULK);
	if (t && t->sm.state != UNDOING)
		fail(t, RPC_FAILED, "the source has given up");
}

/*
 * The answer decides: OPEN only while the tree is ready, which a COMMIT sent
 * before will still find so; whoever undoes it afterwards is told by the source.
 * A source that asks and has memory to send is a new ssid, which does not go on with
 * it.
 */
void migration_target_on_query(struct migration_room *m, struct rpc_call *call,
			       const Ssi__Migration__QueryRequest *q)
{
	struct migration_target *t = find(m, q->id, rpc_call_peer(call));
	Ssi__Migration__QueryReply reply = SSI__MIGRATION__QUERY_REPLY__INIT;
	bool lost = t && lacks_memory(t);

	if (!knows_of(m, call, q->incarnation))
		return;
	if (migration_journal_step(m->journal, q->id, MIGRATION_TARGET) ==
	    MIGRATION_STEP_COMMITTED)
		reply.state = SSI__MIGRATION__QUERY_REPLY__STATE__COMMITTED;
	else if (t && t->sm.state != UNDOING && !lost)
		reply.state = SSI__MIGRATION__QUERY_REPLY__STATE__OPEN;
	rpc_reply(call, &reply.base, RPC_NO_BULK);
	if (lost)
		fail(t, RPC_DOWN, "the source lost its memory on the way");
}

/* Or is: one that was removed still hears of views. */
static bool was_out(const struct migration_target *t)
{
	const struct migration_room *m = t->room;

	return migration_own_incarnation(m) != t->incarnation ||
	       !membership_is_up(m->n.membership, rpc_self(m->n.rpc));
}

void migration_target_on_view(struct migration_room *m)
{
	struct migration_target *t, *next;

	for (t = LIST_FIRST(&m->targets); t; t = next) {
		next = LIST_NEXT(t, entry);
		if (t->sm.state == UNDOING)
			continue;
		if (was_out(t)) {
			fail(t, RPC_DOWN, "this node was out of the cluster");
			continue;
		}
		(void)source_is_over(t);
	}
}

static int adopt_tree(struct migration_room *m, const struct migration_entry *e,
		      const struct inventory *i)
{
	_cleanup_free_ struct process_member *members = NULL;
	size_t n;
	int r = migration_members_of(i, &members, &n);

	if (r < 0)
		return r;
	for (size_t k = 0; k < n; k++) {
		members[k].app = e->app;
		members[k].name = e->name;
		members[k].generation = e->generation;
	}
	return process_arrive_adopt(m->n.process, members, n);
}

void migration_target_adopt(struct migration_room *m, const struct migration_entry *e)
{
	struct migration_entry recorded = *e;
	struct inventory *i = NULL;
	int r = inventory_take(&i, m->n.space, e->root);

	recorded.recorded = true;
	if (r == 0)
		r = adopt_tree(m, e, i);
	if (r < 0 && r != -ESRCH) /* that has ended */
		log_error("process %d: arrived, has no record here: %s", e->root,
			  strerror(-r));
	inventory_free(i);
	(void)migration_journal_set(m->journal, &recorded);
}

/* What stands in the places of our shadows becomes shadows again. */
static void send_back(struct migration_room *m, const struct migration_entry *e,
		      struct space_group *group)
{
	_cleanup_free_ struct process_member *members = NULL;
	struct inventory *i = NULL;
	size_t n = 0;
	int r = inventory_take(&i, m->n.space, e->root);

	if (r == 0)
		r = migration_members_of(i, &members, &n);
	if (r < 0 && r != -ESRCH)
		log_error("process %d: its half-made copy cannot be looked at: %s",
			  e->root, strerror(-r));
	process_arrive_left(m->n.process, e->root, members, n, group);
	inventory_free(i);
}

/* A predecessor's arrival that was not committed: nothing of it may live on. */
void migration_target_resume(struct migration_room *m, const struct migration_entry *e)
{
	struct migration_entry none = *e;
	struct space_group *group;
	char name[64];

	snprintf(name, sizeof(name), "arrive.%" PRIx64, e->id);
	if (space_group_open(m->n.space, name, &group) != 0)
		return log_error("process %d: its half-made copy cannot be reached",
				 e->root);
	if (e->step == MIGRATION_STEP_COMMITTED) {
		/* Perhaps not thawed yet; streams are the stream room's to find again.
		 */
		if (space_group_thaw(group) != 0)
			log_error("process %d: cannot be thawed", e->root);
	} else {
		send_back(m, e, group);
		none.step = MIGRATION_STEP_NONE;
		(void)migration_journal_set(m->journal, &none);
	}
	space_group_close(group);
}

void migration_targets_free(struct migration_room *m)
{
	while (!LIST_EMPTY(&m->targets))
		target_free(LIST_FIRST(&m->targets));
}
