/*
 * The side that a tree leaves: how it ends.
 *
 * Happy path: COMMIT, become shadows, answer.
 *
 * Failure modes: before RESTORE was sent the tree simply thaws; refused for what it
 * holds, it is tried again if that has changed a moment later.  Once it was sent the
 * target may have a copy that is ready, which runs if a view excludes us: so the tree
 * stays frozen until the target has acknowledged the abort, has said that it runs there
 * (then we depart), or a view excludes it and no other node has a copy that moved on from
 * there.  After COMMIT was sent and before it was
 * answered the target is asked again and again, with the same three answers.
 */
#include "migration_source.h"

#include "cleanup.h"
#include "err.h"
#include "event.h"
#include "fault.h"
#include "log.h"
#include "space_group.h"

#include <stdio.h>
#include <string.h>

static const nsec_t REFUSED_PAUSE = NSEC_PER_SEC / 20;

static void abort_surely(struct migration_source *s);
static void send_commit(struct migration_source *s);

/*
 * What was in the way may be gone in a moment: a program that is being loaded maps files
 * of its node's own, another locks a file only to write a line.  False: no more of it.
 */
static bool try_again(struct migration_source *s)
{
	struct migration_room *m = s->room;
	struct migration_source *next;

	if (s->outcome.status != RPC_UNSUPPORTED || s->resumed || !s->inventory ||
	    s->n_refused + 1 >= REFUSALS_MAX || s->deadline <= env_now(m->n.env))
		return false;
	(void)fault("migration.refused");
	next = source_new(m, source_next_id(m), s->root, s->target);
	if (!next)
		return false;
	if (env_arm(m->n.env, &next->timer, REFUSED_PAUSE) < 0) {
		source_free(next);
		return false;
	}
	next->call = TAKE(s->call);
	next->dry_run = s->dry_run;
	next->explain = s->explain;
	next->things = TAKE(s->things);
	next->held = s->held;
	s->held = false;
	next->deadline = s->deadline;
	next->max_frozen = s->max_frozen;
	next->watcher = s->watcher;
	next->watch = s->watch;
	next->before = TAKE(s->inventory);
	next->refusal = s->outcome;
	next->n_refused = s->n_refused + 1;
	return true;
}

static void tell(const struct migration_source *s, bool moved)
{
	struct event e = {
		.type = moved ? EVENT_PROCESS_MOVED : EVENT_MOVE_FAILED,
		.to = s->target,
		.pid = s->root,
		.frozen = moved ? s->frozen_for : 0,
		.bytes = moved ? s->shipped : 0,
	};
	struct process_record record = {.app = s->root};

	if (s->dry_run || (!moved && s->outcome.status == RPC_OK))
		return;
	(void)process_record(s->room->n.process, s->root, &record);
	e.app = s->n_members ? s->members[0].app : record.app;
	e.uid = s->n_members ? s->members[0].uid : record.uid;
	if (!moved)
		(void)snprintf(e.text, sizeof(e.text), "%.*s", (int)sizeof(e.text) - 1,
			       s->outcome.text);
	event_tell(s->room->n.events, &e);
}

static void answer(struct migration_source *s)
{
	Ssi__Migration__MoveReply reply = SSI__MIGRATION__MOVE_REPLY__INIT;
	Ssi__Migration__Forecast f = SSI__MIGRATION__FORECAST__INIT;
	_cleanup_free_ Ssi__Migration__Thing **things = NULL;

	reply.frozen_ns = s->frozen_for;
	reply.bytes = s->shipped;
	if (s->things && s->inventory) {
		inventory_things_cut(s->things);
		if (migration_things_format(s->things, &things) < 0)
			return rpc_fail(s->call, RPC_FAILED, "out of memory");
		f.things = things;
		f.n_things = s->things->n;
		f.more = s->things->n_more;
		f.refused = s->outcome.status;
		f.why = s->outcome.text;
		source_predict(s, &f.bytes, &f.frozen_ns, &f.moves);
		reply.forecast = &f;
	} else if (s->outcome.status != RPC_OK) {
		return rpc_fail(s->call, s->outcome.status, "%s", s->outcome.text);
	}
	rpc_reply(s->call, &reply.base, RPC_NO_BULK);
}

/* The end of every move: answer, let the tree go, forget. */
static void finish(struct migration_source *s)
{
	bool moved = s->sm.state == SOURCE_DEPARTING;

	sm_move(&s->sm, SOURCE_ENDED);
	/* A piece was refused, and the target's word on all of it is still to come. */
	if (s->restore)
		rpc_cancel(s->room->n.rpc, TAKE(s->restore));
	source_journal(s, MIGRATION_STEP_NONE);
	if (try_again(s))
		return source_free(s);
	tell(s, moved);
	if (s->outcome.status != RPC_OK && !s->dry_run)
		log_notice("process %d: not moved to %s, it goes on here: %s", s->root,
			   source_target_name(s), s->outcome.text);
	if (s->held)
		process_unhold(s->room->n.process, s->root);
	if (moved && !s->resumed)
		migration_past_add(&s->room->past, s->shipped, s->frozen_for);
	if (s->call)
		answer(s);
	source_free(s);
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
	log_info("process %d: moved to %s, frozen for %llu ms", s->root,
		 source_target_name(s), s->frozen_for / NSEC_PER_MSEC);
	(void)fault("migration.departed");
	finish(s);
}

static void next_depart(struct migration_source *s)
{
	int r;

	/* Nothing can be injected while the whole space is frozen. */
	if (space_is_frozen(s->room->n.space)) {
		s->committed = true;
		(void)env_arm(s->room->n.env, &s->timer, NSEC_PER_SEC / 4);
		return;
	}
	sm_move(&s->sm, SOURCE_DEPARTING);
	/* A predecessor came as far as to have no root left, and perhaps no shadow of it:
	 * what stands in the group runs there. */
	if (s->resumed && !s->n_members) {
		process_arrive_left(s->room->n.process, s->root, NULL, 0, s->group);
		return finish(s);
	}
	if (s->pipes)
		tree_pipes_commit(s->pipes, s->target);
	r = process_depart_begin(s->room->n.process, s->members, s->n_members, s->group,
				 s->target, s->target_incarnation, &s->departure);
	if (r == 0) {
		process_depart_pending(s->departure, TAKE(s->pending));
		s->work =
			(struct env_work){.work = on_depart_work, .done = on_departed};
		r = env_work(s->room->n.env, &s->work);
	}
	if (r == 0)
		return;
	/* Without memory there is no shadow; a second live copy there must not be. */
	log_error("process %d: no memory for its shadow, the original is killed",
		  s->root);
	(void)space_group_kill(s->group, 2 * NSEC_PER_SEC);
	finish(s);
}

/* Undoing. */

static void send_abort(struct migration_source *s)
{
	Ssi__Migration__AbortRequest q = SSI__MIGRATION__ABORT_REQUEST__INIT;

	q.id = s->id;
	(void)rpc_call(s->room->n.rpc, s->target, MIGRATION_ABORT, &q.base, RPC_NO_BULK,
		       10 * NSEC_PER_SEC, source_forget_reply, NULL, NULL);
}

/* A view says so; that none says anything of it is no answer, nor one that is older than the
 * move, as the last that is written down may be when ssid was started again. */
static bool target_excluded(const struct migration_source *s)
{
	const struct membership_node *n =
		membership_node(s->room->n.membership, s->target);

	return n && !membership_state_is_up(n->state) &&
	       n->incarnation >= s->target_incarnation;
}

/*
 * A view has the target out, or it began anew; but before that the copy may have run there, and
 * have moved on to a node that is up: then that one has it.
 */
static void given_up(struct migration_source *s)
{
	if (s->sm.state == SOURCE_UNDOING) {
		process_stay(s->room->n.process, s->members, s->n_members);
		s->aborting = s->asked = s->may_be_ready = false;
		return source_undo(s);
	}
	source_fail(s, RPC_DOWN, "process %d cannot move: %s left the cluster", s->root,
		    source_target_name(s));
}

static void on_sought(void *owner, const struct process_sought *sought, size_t n)
{
	struct migration_source *s = owner;
	const struct process_sought *ran = NULL; /* a member that did, if possible the root */
	bool waits = false;

	for (size_t i = n; i-- > 0;) {
		waits |= sought[i].found && sought[i].place == NODE_NONE;
		if (sought[i].found && sought[i].generation >= s->generation)
			ran = &sought[i];
	}
	/* Nor given up when the target is back by now: it asks us, or we it. */
	if (waits || (!ran && !s->anew && !target_excluded(s))) {
		(void)env_arm(s->room->n.env, &s->timer, NSEC_PER_SEC / 4);
		return;
	}
	if (!ran)
		return given_up(s);
	/* The others ended with the target, which their homes find out, or tell where they are. */
	if (ran == sought) {
		s->target = ran->place;
		s->target_incarnation = 0;
	}
	s->outcome = (struct migration_outcome){.status = RPC_OK};
	source_committed(s);
}

/* A child may have moved on by itself, and its parent have ended. */
static void settle_without_target(struct migration_source *s)
{
	size_t n = s->n_members ? s->n_members : 1; /* a predecessor may have left none */
	_cleanup_free_ struct process_sought *sought = calloc(n, sizeof(*sought));

	for (size_t i = 0; sought && i < n; i++)
		sought[i].pid = i ? s->members[i].pid : s->root;
	if (!sought || process_seek(s->room->n.process, sought, n, on_sought, s) != 0)
		(void)env_arm(s->room->n.env, &s->timer, NSEC_PER_SEC);
}

static void on_aborted(void *owner, const struct rpc_result *result)
{
	struct migration_source *s = owner;

	if (result->status == RPC_CONFLICT) {
		s->outcome = (struct migration_outcome){.status = RPC_OK};
		return source_committed(s);
	}
	/* Nor is the target's word enough when we may have been out ourselves: what a migration holds
	 * no fenced node asks for, and another may have gone on with it meanwhile. */
	s->anew = result->status == RPC_NOT_FOUND ||
		  (result->status == RPC_OK &&
		   migration_own_incarnation(s->room) != s->incarnation);
	if (s->anew || (result->status != RPC_OK && target_excluded(s)))
		return settle_without_target(s);
	if (result->status != RPC_OK) {
		(void)env_arm(s->room->n.env, &s->timer, NSEC_PER_SEC / 4);
		return;
	}
	s->aborting = s->asked = s->may_be_ready = false;
	source_undo(s);
}

static void abort_surely(struct migration_source *s)
{
	Ssi__Migration__AbortRequest q = SSI__MIGRATION__ABORT_REQUEST__INIT;

	q.id = s->id;
	q.incarnation = s->target_incarnation;
	s->aborting = true;
	if (rpc_call(s->room->n.rpc, s->target, MIGRATION_ABORT, &q.base, RPC_NO_BULK,
		     3 * NSEC_PER_SEC, on_aborted, s, NULL) != 0)
		(void)env_arm(s->room->n.env, &s->timer, NSEC_PER_SEC / 4);
}

/* When nothing of it stands on the target, or will: run on. */
void source_undo(struct migration_source *s)
{
	int r;

	if (s->sm.state != SOURCE_UNDOING) {
		sm_move(&s->sm, SOURCE_UNDOING);
		if (s->dump)
			criu_cancel(s->dump);
	}
	/* All refer to us, and call back here when they are over. */
	if (s->dump || s->under_way || s->reading || s->aborting)
		return;
	if (s->may_be_ready)
		return abort_surely(s);
	if (s->asked)
		send_abort(s);
	if (s->pipes)
		tree_pipes_undo(s->pipes);
	if (s->resumed)
		source_uncut(s);
	r = s->group ? space_group_thaw(s->group) : 0;
	if (r != 0)
		log_error("process %d: cannot be thawed: %s", s->root,
			  strerror(-err_fold(r)));
	finish(s);
}

/* Committing: only the target, or a view without it, may say what is so. */

void source_committed(struct migration_source *s)
{
	s->frozen_for = env_now(s->room->n.env) - s->frozen_at;
	source_journal(s, MIGRATION_STEP_COMMITTED);
	(void)fault("migration.committed");
	next_depart(s);
}

static void on_queried(void *owner, const struct rpc_result *result)
{
	const Ssi__Migration__QueryReply *reply = (const void *)result->reply;
	struct migration_source *s = owner;

	if (result->status == RPC_OK &&
	    reply->state == SSI__MIGRATION__QUERY_REPLY__STATE__COMMITTED)
		return source_committed(s);
	if (result->status == RPC_OK &&
	    reply->state == SSI__MIGRATION__QUERY_REPLY__STATE__UNKNOWN)
		return source_fail(
			s, RPC_FAILED,
			"process %d cannot move: %s lost the copy before it ran",
			s->root, source_target_name(s));
	s->anew = result->status == RPC_NOT_FOUND;
	if (s->anew || target_excluded(s))
		return settle_without_target(s);
	/* It stands ready: our COMMIT did not come through, and may come twice. */
	if (result->status == RPC_OK)
		return send_commit(s);
	(void)env_arm(s->room->n.env, &s->timer, NSEC_PER_SEC);
}

static void on_committed(void *owner, const struct rpc_result *result)
{
	struct migration_source *s = owner;

	if (result->status == RPC_OK)
		return source_committed(s);
	if (s->sm.state == SOURCE_QUERYING) {
		(void)env_arm(s->room->n.env, &s->timer, NSEC_PER_SEC / 4);
		return;
	}
	log_warning("process %d: %s has not acknowledged the commit (%s), asking until "
		    "it does or leaves",
		    s->root, source_target_name(s), result->text);
	sm_move(&s->sm, SOURCE_QUERYING);
	source_query(s);
}

void source_query(struct migration_source *s)
{
	Ssi__Migration__QueryRequest q = SSI__MIGRATION__QUERY_REQUEST__INIT;
	struct rpc_result down = {.status = RPC_DOWN, .text = ""};

	q.id = s->id;
	q.incarnation = s->target_incarnation;
	if (rpc_call(s->room->n.rpc, s->target, MIGRATION_QUERY, &q.base, RPC_NO_BULK,
		     3 * NSEC_PER_SEC, on_queried, s, NULL) != 0)
		on_queried(s, &down);
}

static void send_commit(struct migration_source *s)
{
	Ssi__Migration__CommitRequest q = SSI__MIGRATION__COMMIT_REQUEST__INIT;
	struct rpc_result down = {.status = RPC_DOWN, .text = "out of memory"};

	q.id = s->id;
	if (rpc_call(s->room->n.rpc, s->target, MIGRATION_COMMIT, &q.base, RPC_NO_BULK,
		     10 * NSEC_PER_SEC, on_committed, s, NULL) != 0)
		on_committed(s, &down);
}

void source_commit(struct migration_source *s)
{
	sm_move(&s->sm, SOURCE_COMMITTING);
	source_progress(s, "commit", s->shipped, s->shipped);
	send_commit(s);
}

void source_on_timer(struct env_timer *timer)
{
	struct migration_source *s =
		container_of(timer, struct migration_source, timer);

	if (s->sm.state == SOURCE_LOOKING)
		source_start(s);
	else if (s->committed)
		next_depart(s);
	else if (s->sm.state == SOURCE_UNDOING)
		abort_surely(s);
	else
		source_query(s);
}

void migration_source_on_view(struct migration_room *m)
{
	struct migration_source *s, *next;

	for (s = LIST_FIRST(&m->sources); s; s = next) {
		next = LIST_NEXT(s, entry);
		if (s->sm.state == SOURCE_QUERYING && s->timer.due && !s->committed &&
		    target_excluded(s)) {
			env_disarm(m->n.env, &s->timer);
			settle_without_target(s);
		}
	}
}
