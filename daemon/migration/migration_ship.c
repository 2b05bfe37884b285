/*
 * The side that a tree leaves: its image, then its copy on the target.
 *
 * Happy path: criu dumps the frozen tree into pieces, of which a window is under way;
 * when all have arrived its streams are cut, and RESTORE is sent.  Of a lone process
 * the images may lack the memory; it is read and sent behind RESTORE, while the target
 * restores the process, and is answered when it is there.  Not of several: what they
 * share since a fork would be told apart.
 *
 * Failure modes: criu fails, a piece is refused -> undone; from RESTORE on the target
 * may have a copy that is ready, and migration_settle.c decides.
 */
#include "migration_source.h"

#include "cleanup.h"
#include "err.h"
#include "fault.h"

#include <string.h>

enum {
	WINDOW = 2 << 20,  /* image bytes under way: each stands in memory twice */
	PIECE = 256 << 10, /* bytes a message */
};

static void next_restore(struct migration_source *s);
static void next_pages(struct migration_source *s);
static void ship_pages(struct migration_source *s);

/* A piece in flight. */
struct piece {
	struct migration_source *source;
	size_t len;
};

static void dump_maybe_over(struct migration_source *s)
{
	if (!s->dump_done || s->under_way || s->sm.state != SOURCE_DUMPING)
		return;
	if (fault("migration.shipped") < 0)
		return source_fail(s, RPC_FAILED, "fault point");
	next_restore(s);
}

static void on_piece(void *owner, const struct rpc_result *result)
{
	struct piece *p = owner;
	struct migration_source *s = p->source;

	s->under_way -= p->len;
	free(p);
	if (result->status != RPC_OK)
		return source_refused(s, result);
	if (s->outcome.status != RPC_OK)
		return source_undo(s);
	if (s->paused && s->under_way < WINDOW / 2) {
		s->paused = false;
		if (s->dump)
			criu_dump_pause(s->dump, false);
		else
			next_pages(s);
	}
	if (s->last_waits && !s->under_way) {
		s->last_waits = false;
		return ship_pages(s);
	}
	dump_maybe_over(s);
}

static int send_piece(struct migration_source *s, uint16_t method,
		      const ProtobufCMessage *q, const void *data, size_t len)
{
	struct piece *p = malloc(sizeof(*p));
	int r;

	if (!p)
		return err_origin(-ENOMEM);
	/* Even an empty piece counts, so that the last one is waited for. */
	*p = (struct piece){s, len ? len : 1};
	r = rpc_call(s->room->n.rpc, s->target, method, q,
		     (struct iovec){(void *)data, len}, source_time_left(s), on_piece,
		     p, NULL);
	if (r != 0) {
		free(p);
		return err_fold(r);
	}
	s->under_way += p->len;
	s->shipped += len;
	return 0;
}

static int ship(struct migration_source *s, const char *file, const void *data,
		size_t len, bool last)
{
	Ssi__Migration__ChunkRequest q = SSI__MIGRATION__CHUNK_REQUEST__INIT;

	q.id = s->id;
	q.file = (char *)file;
	q.close = last;
	return send_piece(s, MIGRATION_CHUNK, &q.base, data, len);
}

static int on_image_write(void *owner, const char *file, const void *data, size_t len)
{
	struct migration_source *s = owner;
	int r = s->reader ? pages_reader_image(s->reader, file, data, len) : 0;

	for (size_t at = 0; r == 0 && at < len; at += PIECE)
		r = ship(s, file, (const char *)data + at,
			 len - at < PIECE ? len - at : PIECE, false);
	if (r == 0 && !s->paused && s->under_way > WINDOW) {
		s->paused = true;
		criu_dump_pause(s->dump, true);
		source_progress(s, "ship", s->shipped, 0);
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
		return source_undo(s);
	dump_maybe_over(s);
}

/* Memory, behind RESTORE. */

static void ship_pages(struct migration_source *s)
{
	Ssi__Migration__PagesRequest q = SSI__MIGRATION__PAGES_REQUEST__INIT;
	const struct pages_piece *p = s->piece;
	uint64_t at[PAGES_RUNS_MAX], len[PAGES_RUNS_MAX];
	int r;

	for (size_t i = 0; i < p->n_runs; i++) {
		at[i] = p->runs[i].at;
		len[i] = p->runs[i].len;
	}
	q.id = s->id;
	q.at = at;
	q.len = len;
	q.n_at = q.n_len = p->n_runs;
	q.last = s->read_all = !p->n_runs;
	r = send_piece(s, MIGRATION_PAGES, &q.base, p->data, p->len);
	if (r < 0)
		return source_fail(s, RPC_FAILED, "process %d: %s", s->root,
				   strerror(-r));
	if (fault("migration.paged") < 0)
		return source_fail(s, RPC_FAILED, "fault point");
	if (s->read_all)
		return source_progress(s, "restore", s->shipped, s->shipped);
	next_pages(s);
}

static void on_read_work(struct env_work *work)
{
	struct migration_source *s = container_of(work, struct migration_source, work);

	s->work_result = pages_reader_next(s->reader, s->piece);
}

static void on_read(struct env_work *work)
{
	struct migration_source *s = container_of(work, struct migration_source, work);

	s->reading = false;
	if (s->outcome.status != RPC_OK)
		return source_undo(s);
	if (s->work_result < 0)
		return source_fail(s, RPC_FAILED,
				   "the memory of process %d cannot be read: %s",
				   s->root, strerror(-s->work_result));
	/* What there says that all is there comes behind all: two links between two nodes keep no
	 * order, and a piece may be refused that was sent before others. */
	s->last_waits = !s->piece->n_runs && s->under_way;
	if (!s->last_waits)
		ship_pages(s);
}

/* One piece is read while others are under way. */
static void next_pages(struct migration_source *s)
{
	if (!s->reader || s->reading || s->read_all || s->paused)
		return;
	if (s->under_way > WINDOW) {
		s->paused = true;
		return source_progress(s, "ship", s->shipped, 0);
	}
	s->work = (struct env_work){.work = on_read_work, .done = on_read};
	s->reading = env_work(s->room->n.env, &s->work) == 0;
	if (!s->reading)
		source_fail(s, RPC_FAILED, "out of memory");
}

/* Restoring, on the target. */

static void on_restored(void *owner, const struct rpc_result *result)
{
	struct migration_source *s = owner;

	s->restore = NULL;
	if (result->status != RPC_OK)
		return source_refused(s, result);
	/* It was late, and is being aborted. */
	if (s->outcome.status != RPC_OK)
		return source_undo(s);
	if (fault("migration.restored") < 0)
		return source_fail(s, RPC_FAILED, "fault point");
	if (source_in_time(s))
		source_commit(s);
}

static void next_restore(struct migration_source *s)
{
	const struct membership_node *target =
		membership_node(s->room->n.membership, s->target);
	Ssi__Migration__RestoreRequest q = SSI__MIGRATION__RESTORE_REQUEST__INIT;
	_cleanup_free_ Ssi__Process__Member **members = NULL;
	_cleanup_free_ Ssi__Migration__Pipe **pipes = NULL;
	_cleanup_free_ char *text = NULL;
	int r;

	sm_move(&s->sm, SOURCE_RESTORING);
	if (!s->reader)
		source_progress(s, "restore", s->shipped, s->shipped);
	r = tree_pipes_cut(s->pipes);
	if (r == 0)
		r = inventory_format(s->inventory, &text, &q.inventory.len);
	if (r == 0)
		r = process_members_pack(s->members, s->n_members, &members);
	if (r == 0)
		r = migration_pipes_format(s->pipes, &pipes);
	q.id = s->id;
	q.inventory.data = (uint8_t *)text;
	q.members = members;
	q.n_members = s->n_members;
	q.pipes = pipes;
	q.n_pipes = tree_pipes_count(s->pipes);
	q.pages = s->reader != NULL;
	s->may_be_ready = r == 0;
	s->target_incarnation = target ? target->incarnation : 0;
	source_journal(s, MIGRATION_STEP_DECIDING);
	if (r == 0)
		r = err_fold(rpc_call(s->room->n.rpc, s->target, MIGRATION_RESTORE,
				      &q.base, RPC_NO_BULK, source_time_left(s),
				      on_restored, s, &s->restore));
	if (r < 0)
		return source_fail(s, RPC_FAILED, "process %d: %s", s->root,
				   strerror(-r));
	next_pages(s);
}

static bool may_leave_pages(const struct migration_source *s)
{
	return s->may_leave_pages && criu_features(s->room->n.criu)->leave_pages &&
	       s->n_members == 1;
}

static int open_reader(struct migration_source *s)
{
	s->piece = malloc(sizeof(*s->piece));
	if (!s->piece)
		return err_origin(-ENOMEM);
	return pages_reader_new(&s->reader, space_proc_fd(s->room->n.space), s->root);
}

void source_ship(struct migration_source *s)
{
	const struct process_member *root = &s->members[0];
	struct criu_dump_spec spec = {
		.root = s->root,
		.group = s->group,
		.shell_job = root->sid != root->pid,
		.sink = {on_image_write, on_image_close, s},
		.timeout = source_time_left(s),
	};

	sm_move(&s->sm, SOURCE_DUMPING);
	source_progress(s, "ship", 0, 0);
	if (may_leave_pages(s) && open_reader(s) < 0)
		return source_fail(s, RPC_FAILED, "process %d cannot be read", s->root);
	spec.leave_pages = s->reader != NULL;
	if (criu_dump(s->room->n.criu, &spec, on_dumped, s, &s->dump) != 0)
		source_fail(s, RPC_FAILED, "criu cannot be started: see ssi doctor");
}
