/*
 * Happy path of migration_move(): the process's home says where it is; that
 * node is asked to move it and answers at the end; progress comes as messages
 * of its own meanwhile.
 *
 * Failure modes: no such process, not his -> answered at once; it is already
 * there -> success without a move; the ssid that moves it dies, or its node -> the
 * commit rule (see migration.h) decides who runs it, and migration_follow.c finds out.
 */
#include "migration_wire.h"

#include "cleanup.h"
#include "err.h"
#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { JOURNAL_READ = 256 };

void migration_outcome_set(struct migration_outcome *o, enum rpc_status status,
			   const char *format, va_list ap)
{
	char lines[2 * RPC_TEXT_MAX], *save = NULL;
	size_t len = 0;

	o->status = status;
	o->text[0] = '\0';
	vsnprintf(lines, sizeof(lines), format, ap);
	for (char *line = strtok_r(lines, "\n", &save); line && len < sizeof(o->text);
	     line = strtok_r(NULL, "\n", &save))
		len += (size_t)snprintf(o->text + len, sizeof(o->text) - len, "%s%s",
					len ? "; " : "", line);
}

void migration_outcome(struct migration_outcome *o, enum rpc_status status,
		       const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	migration_outcome_set(o, status, format, ap);
	va_end(ap);
}

uint64_t migration_own_incarnation(const struct migration_room *m)
{
	const struct membership_node *self =
		membership_node(m->n.membership, rpc_self(m->n.rpc));

	return self ? self->incarnation : 0;
}

const char *migration_unready(const struct migration_room *m)
{
	if (!membership_lease_held(m->n.membership))
		return "is out of touch with the cluster";
	/* Nor before what a predecessor left is ended: by the journal, where nothing of ours
	 * may stand yet. */
	if (!m->resumed || space_is_frozen(m->n.space))
		return "was fenced and looks what is still its own";
	return NULL;
}

int migration_members_of(const struct inventory *i, struct process_member **ret,
			 size_t *ret_n)
{
	struct process_member *members;

	if (i->n_tasks > PROCESS_MEMBERS_MAX)
		return err_origin(-E2BIG);
	members = calloc(i->n_tasks, sizeof(*members));
	if (!members)
		return err_origin(-ENOMEM);
	for (size_t k = 0; k < i->n_tasks; k++) {
		const struct inventory_task *t = &i->tasks[k];

		members[k] = (struct process_member){
			.pid = t->pid,
			.ppid = k == 0 ? 0 : t->ppid,
			.pgid = t->pgid,
			.sid = t->sid,
			.uid = t->uid,
			.gid = t->gid,
		};
	}
	*ret = members;
	*ret_n = i->n_tasks;
	return 0;
}

void migration_watch_end(struct migration_watch *w,
			 const struct migration_result *result)
{
	LIST_REMOVE(w, entry);
	env_disarm(w->room->n.env, &w->again);
	if (w->owner)
		w->done(w->owner, result);
	free(w);
}

void migration_watch_fail(struct migration_watch *w, enum rpc_status status,
			  const char *format, ...)
{
	struct migration_outcome o;
	va_list ap;

	va_start(ap, format);
	migration_outcome_set(&o, status, format, ap);
	va_end(ap);
	migration_watch_end(w, &(struct migration_result){.status = o.status,
							  .text = o.text,
							  .from = w->from});
}

void migration_watch_progress(struct migration_room *m, uint64_t number,
			      const char *step, uint64_t bytes, uint64_t total)
{
	struct migration_watch *w;

	LIST_FOREACH (w, &m->watches, entry)
		if (w->number == number && w->owner && w->progress)
			w->progress(w->owner, step, bytes, total);
}

/* False: without memory for it, or it is none. */
static bool read_forecast(const Ssi__Migration__Forecast *f, struct migration_forecast *ret,
			  struct inventory_thing **ret_things)
{
	if (migration_things_parse(ret_things, f->things, f->n_things) < 0)
		return false;
	*ret = (struct migration_forecast){
		.refused = f->refused > RPC_OK && f->refused <= RPC_STALE ? f->refused : RPC_OK,
		.why = f->why,
		.bytes = f->bytes,
		.frozen = f->frozen_ns,
		.n_moves = f->moves,
		.things = *ret_things,
		.n_things = f->n_things,
		.n_more = f->more,
	};
	return true;
}

static void on_moved(void *owner, const struct rpc_result *r)
{
	const Ssi__Migration__MoveReply *reply = (const void *)r->reply;
	_cleanup_free_ struct inventory_thing *things = NULL;
	struct migration_watch *w = owner;
	struct migration_forecast forecast;
	struct migration_result result = {
		.status = r->status,
		.text = r->text,
		.from = w->from,
		.frozen = reply ? reply->frozen_ns : 0,
		.bytes = reply ? reply->bytes : 0,
	};

	/* Its link broke: it may be moving it yet, or have moved it. */
	if ((r->status == RPC_DOWN || r->status == RPC_TIMEOUT) && !r->answered &&
	    w->from != rpc_self(w->room->n.rpc) && !w->request.dry_run)
		return migration_follow(w);
	if (reply && reply->forecast) {
		if (!read_forecast(reply->forecast, &forecast, &things))
			return migration_watch_fail(w, RPC_FAILED, "out of memory");
		result.forecast = &forecast;
	}
	migration_watch_end(w, &result);
}

static void on_where(void *owner, enum rpc_status status, const char *text,
		     node_id place, uid_t uid, uint32_t generation)
{
	struct migration_watch *w = owner;
	Ssi__Migration__MoveRequest q = SSI__MIGRATION__MOVE_REQUEST__INIT;

	if (status != RPC_OK)
		return migration_watch_fail(w, status, "%s", text);
	w->from = place;
	if (!process_may_signal(&w->request.caller, uid)) {
		return migration_watch_fail(
			w, RPC_NOT_PERMITTED,
			"process %d belongs to user %u: not permitted", w->request.pid,
			uid);
	}
	if (w->request.follow && place != w->request.target)
		return migration_follow(w);
	if (place == w->request.target) {
		struct migration_result result = {
			.status = RPC_OK,
			.from = w->request.follow ? NODE_NONE : place,
		};

		return migration_watch_end(w, &result);
	}
	q.pid = w->request.pid;
	q.target = w->request.target;
	q.uid = w->request.caller.uid;
	q.dry_run = w->request.dry_run;
	q.explain = w->request.explain;
	q.timeout_ns = w->request.timeout;
	q.max_frozen_ns = w->request.max_frozen;
	q.watcher = rpc_self(w->room->n.rpc);
	q.watch = w->number;
	/* The mover keeps to the timeout; a little more covers its undoing. */
	if (rpc_call(w->room->n.rpc, place, MIGRATION_MOVE, &q.base, RPC_NO_BULK,
		     w->request.timeout + 15 * NSEC_PER_SEC, on_moved, w, NULL) != 0)
		migration_watch_fail(w, RPC_FAILED, "out of memory");
}

int migration_move(struct migration_room *m, const struct migration_request *request,
		   migration_progress_cb progress, migration_done_cb done, void *owner)
{
	struct migration_watch *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return err_origin(-ENOMEM);
	*w = (struct migration_watch){
		.room = m,
		.number = m->next_number++,
		.request = *request,
		.progress = progress,
		.done = done,
		.owner = owner,
	};
	LIST_INSERT_HEAD(&m->watches, w, entry);
	r = process_where(m->n.process, request->pid, on_where, w);
	if (r != 0) {
		LIST_REMOVE(w, entry);
		free(w);
	}
	return err_fold(r);
}

void migration_forget(struct migration_room *m, void *owner)
{
	struct migration_watch *w;

	LIST_FOREACH (w, &m->watches, entry)
		if (w->owner == owner)
			w->owner = NULL;
}

static size_t read_journal(const struct migration_room *m, struct migration_entry *ret,
			   size_t max)
{
	size_t n = 0;

	while (n < max && migration_journal_entry(m->journal, n, &ret[n]))
		n++;
	return n;
}

/* As soon as it is known whose home is where: what was committed here has a record before
 * others are asked whether it may go on.  The journal keeps how moves ended: of one that is
 * recorded the tree may have left since, and what stands be another move's half-made copy. */
static void adopt(struct migration_room *m)
{
	struct migration_entry entries[JOURNAL_READ];
	size_t n = read_journal(m, entries, N_ELEMENTS(entries));

	for (size_t i = 0; i < n; i++)
		if (entries[i].side == MIGRATION_TARGET &&
		    entries[i].step == MIGRATION_STEP_COMMITTED && !entries[i].recorded)
			migration_target_adopt(m, &entries[i]);
	m->adopted = true;
}

static void resume_one(struct migration_room *m, const struct migration_entry *e)
{
	if (e->side == MIGRATION_SOURCE)
		migration_source_resume(m, e);
	else
		migration_target_resume(m, e);
}

/* End what a predecessor of this ssid left half-way.  What may have been committed
 * waits, frozen as it is, for the first view: it says whose home is where, and who is
 * up; and for the space to run, since nothing can be done to a process of a frozen one. */
static void resume(struct migration_room *m, bool decided)
{
	struct migration_entry entries[JOURNAL_READ];
	size_t n = read_journal(m, entries, N_ELEMENTS(entries));

	for (size_t i = 0; i < n; i++) {
		const struct migration_entry *e = &entries[i];

		if ((e->side == MIGRATION_SOURCE && e->step == MIGRATION_STEP_OPEN) !=
		    decided)
			resume_one(m, e);
		else if (!decided && e->side == MIGRATION_SOURCE &&
			 process_hold(m->n.process, e->root) == 0)
			process_hold_for(m->n.process, e->root, e->peer);
	}
	m->resumed = decided;
}

static void resume_by_view(struct migration_room *m)
{
	if (!m->adopted)
		adopt(m);
	if (!m->resumed && !space_is_frozen(m->n.space))
		resume(m, true);
}

void migration_on_view(struct migration_room *m)
{
	resume_by_view(m);
	migration_source_on_view(m);
	migration_target_on_view(m);
}

int migration_room_new(struct migration_room **ret,
		       const struct migration_neighbours *n)
{
	struct migration_room *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return err_origin(-ENOMEM);
	m->n = *n;
	m->pipes = (struct tree_pipes_context){n->stream, n->console, rpc_self(n->rpc)};
	LIST_INIT(&m->watches);
	LIST_INIT(&m->sources);
	LIST_INIT(&m->targets);
	/* Numbers of a successor must not meet those of its predecessor. */
	m->next_number = env_random_u64(n->env) >> 33;
	r = migration_journal_new(&m->journal, n->space);
	if (r == 0)
		r = rpc_register(n->rpc, migration_methods, m);
	if (r < 0) {
		migration_room_free(m);
		return r;
	}
	resume(m, false);
	if (membership_view(n->membership))
		resume_by_view(m);
	*ret = m;
	return 0;
}

struct migration_room *migration_room_free(struct migration_room *m)
{
	if (!m)
		return NULL;
	migration_sources_free(m);
	migration_targets_free(m);
	while (!LIST_EMPTY(&m->watches)) {
		struct migration_watch *w = LIST_FIRST(&m->watches);

		LIST_REMOVE(w, entry);
		env_disarm(m->n.env, &w->again);
		free(w);
	}
	m->journal = migration_journal_free(m->journal);
	free(m);
	return NULL;
}
