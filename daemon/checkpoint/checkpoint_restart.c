/*
 * Reviving a saved tree, on the node where it shall live.
 *
 * Happy path: copy it in under the caller's rights, believe only the copy: seal,
 * sums, rights, processor, files; reserve its PIDs at their homes; restore it
 * frozen; compare it with the manifest; let it run; answer.
 *
 * Failure modes: anything -> what stands of it is killed, the PIDs are given back,
 * the copy goes, the caller gets one line.
 */
#include "checkpoint_internal.h"

#include "cleanup.h"
#include "err.h"
#include "event.h"
#include "fault.h"
#include "log.h"
#include "sm.h"
#include "space_group.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum { FETCHING, CHECKING, RESERVING, RESTORING, COMPARING, RUNNING, UNDOING, ENDED };

static const struct sm_state states[] = {
	[FETCHING] = { "fetching", SM_TO(CHECKING) | SM_TO(UNDOING) },
	[CHECKING] = { "checking", SM_TO(RESERVING) | SM_TO(UNDOING) },
	[RESERVING] = { "reserving", SM_TO(RESTORING) | SM_TO(UNDOING) },
	[RESTORING] = { "restoring", SM_TO(COMPARING) | SM_TO(UNDOING) },
	[COMPARING] = { "comparing", SM_TO(RUNNING) | SM_TO(UNDOING) },
	[RUNNING] = { "running", SM_TO(ENDED) },
	[UNDOING] = { "undoing", SM_TO(ENDED) },
	[ENDED] = { "ended", 0 },
};

enum { TRIES_MAX = 10 }; /* to reserve the PIDs */

struct reviving {
	struct checkpoint_room *room;
	struct sm sm;
	struct rpc_call *call;
	struct process_caller caller;
	stream_id streams[3];
	char *directory, *name;
	nsec_t deadline;
	uint32_t number;
	struct copy *copy;
	struct image_store *images;
	struct buf text; /* of the manifest */
	struct manifest *manifest;
	struct env_work work;
	int work_result;
	char *problem;
	struct process_member *members;
	size_t n_members;
	bool reserved;
	unsigned tries;
	struct env_timer again;
	struct tree_pipes *pipes;
	struct process_arrival *arrival;
	struct space_group *group;
	struct criu_run *run;
	struct inventory *restored;
	struct checkpoint_outcome outcome;
};

static void undo(struct reviving *v);

static void reviving_free(struct reviving *v)
{
	env_disarm(v->room->n.env, &v->again);
	image_store_free(v->images);
	manifest_free(v->manifest);
	inventory_free(v->restored);
	tree_pipes_free(v->pipes);
	space_group_close(v->group);
	buf_fini(&v->text);
	free(v->members);
	free(v->problem);
	free(v->directory);
	free(v->name);
	free(v);
}

static void fail(struct reviving *v, enum rpc_status status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void fail(struct reviving *v, enum rpc_status status, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	checkpoint_outcome_set(&v->outcome, status, format, ap);
	va_end(ap);
	undo(v);
}

static nsec_t time_left(const struct reviving *v)
{
	nsec_t now = env_now(v->room->n.env);

	return v->deadline > now ? v->deadline - now : 1;
}

static const char *self_name(const struct reviving *v)
{
	const struct membership_node *self =
		membership_node(v->room->n.membership, rpc_self(v->room->n.rpc));

	return self ? self->name : "?";
}

static void on_undo_work(struct env_work *work)
{
	struct reviving *v = container_of(work, struct reviving, work);

	v->work_result = v->group ? space_group_kill(v->group, 5 * NSEC_PER_SEC) : 0;
}

static void on_undone(struct env_work *work)
{
	struct reviving *v = container_of(work, struct reviving, work);

	sm_move(&v->sm, ENDED);
	if (v->work_result != 0)
		log_error("checkpoint %s: what was restored of it would not die", v->name);
	if (v->arrival)
		process_arrive_end(v->arrival, false);
	if (v->reserved)
		(void)process_release(v->room->n.process, v->members, v->n_members);
	/* What this node lacks another may have. */
	rpc_fail(v->call, v->outcome.status, v->outcome.status == RPC_FAILED ? "on %s: %s" : "%.0s%s",
		 self_name(v), v->outcome.text);
	reviving_free(v);
}

static void undo(struct reviving *v)
{
	if (v->sm.state != UNDOING)
		sm_move(&v->sm, UNDOING);
	if (v->run)
		return criu_cancel(v->run);
	v->work = (struct env_work){ .work = on_undo_work, .done = on_undone };
	if (env_work(v->room->n.env, &v->work) == 0)
		return;
	on_undo_work(&v->work);
	on_undone(&v->work);
}

/* Running. */

/* Files that it wrote to after it was saved: back to what they were.  Not those open for
 * appending, whose later lines may be somebody else's. */
static bool was_written(const struct inventory_file *f)
{
	return f->fd >= 0 && f->type == INVENTORY_FILE && !f->deleted &&
	       (f->flags & O_ACCMODE) != O_RDONLY && !(f->flags & O_APPEND);
}

static void cut_back(const struct inventory_file *f)
{
	_cleanup_close_ int pidfd = (int)syscall(SYS_pidfd_open, f->pid, 0);
	/* Its own descriptor, which was compared: no path is walked again. */
	_cleanup_close_ int fd = pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, f->fd, 0);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 ||
	    ((uint64_t)st.st_size > f->size && ftruncate(fd, (off_t)f->size) < 0))
		log_error("process %d: %s keeps what was written to it since the checkpoint: %s",
			  f->pid, f->path, strerror(errno));
}

/* The first file that lost bytes since, which nobody can give back; NULL: none. */
static const struct inventory_file *find_shrunk(const struct reviving *v)
{
	const struct inventory *saved = v->manifest->inventory, *now = v->restored;

	for (size_t a = 0; a < saved->n_files; a++)
		for (size_t b = 0; was_written(&saved->files[a]) && b < now->n_files; b++)
			if (now->files[b].pid == saved->files[a].pid &&
			    now->files[b].fd == saved->files[a].fd &&
			    now->files[b].size < saved->files[a].size)
				return &saved->files[a];
	return NULL;
}

static void tell_revived(const struct reviving *v)
{
	struct event e = {
		.type = EVENT_APP_REVIVED,
		.pid = v->manifest->root,
		.app = v->manifest->app,
		.uid = v->manifest->uid,
	};

	(void)snprintf(e.text, sizeof(e.text), "%s", v->manifest->name);
	event_tell(v->room->n.events, &e);
}

static void run(struct reviving *v)
{
	Ssi__Checkpoint__RestartReply reply = SSI__CHECKPOINT__RESTART_REPLY__INIT;
	int r;

	sm_move(&v->sm, RUNNING);
	for (size_t i = 0; i < v->manifest->inventory->n_files; i++)
		if (was_written(&v->manifest->inventory->files[i]))
			cut_back(&v->manifest->inventory->files[i]);
	process_arrive_end(v->arrival, true);
	tree_pipes_open(v->pipes);
	r = space_group_thaw(v->group);
	if (r != 0)
		log_error("process %d: restored, cannot be thawed: %s", v->manifest->root,
			  strerror(-err_fold(r)));
	log_info("process %d: restored from %s", v->manifest->root, v->name);
	reply.app = v->manifest->app;
	tell_revived(v);
	rpc_reply(v->call, &reply.base, RPC_NO_BULK);
	sm_move(&v->sm, ENDED);
	reviving_free(v);
}

/* Comparing. */

static bool same_node(const struct reviving *v)
{
	return strcmp(self_name(v), v->manifest->node) == 0;
}

static void on_compare_work(struct env_work *work)
{
	struct reviving *v = container_of(work, struct reviving, work);
	struct space *space = v->room->n.space;

	v->work_result = inventory_take(&v->restored, space, v->manifest->root);
	if (v->work_result == 0)
		v->work_result = inventory_give_capabilities(v->manifest->inventory, space);
	if (v->work_result == 0)
		v->work_result = inventory_compare(v->manifest->inventory, v->restored, space,
						   same_node(v), &v->problem);
}

static void on_compared(struct env_work *work)
{
	struct reviving *v = container_of(work, struct reviving, work);
	const struct inventory_file *shrunk = v->work_result == 0 ? find_shrunk(v) : NULL;

	if (shrunk)
		return fail(v, RPC_UNSUPPORTED, "%s has lost bytes since the checkpoint",
			    shrunk->path);
	if (v->work_result > 0)
		return fail(v, RPC_NOT_PERMITTED, "it would not be what was saved: %s",
			    v->problem);
	if (v->work_result < 0)
		return fail(v, RPC_FAILED, "the restored process cannot be looked at: %s",
			    strerror(-v->work_result));
	(void)fault("checkpoint.restored");
	run(v);
}

/* Restoring. */

static void on_restored(void *owner, bool ok, const char *text)
{
	struct reviving *v = owner;

	v->run = NULL;
	if (v->sm.state == UNDOING)
		return undo(v);
	if (!ok)
		return fail(v, RPC_FAILED, "%s cannot be restored: %s", v->name, text);
	sm_move(&v->sm, COMPARING);
	v->work = (struct env_work){ .work = on_compare_work, .done = on_compared };
	if (env_work(v->room->n.env, &v->work) < 0)
		fail(v, RPC_FAILED, "out of memory");
}

static int exec_in_place(void *owner, const char *criu, const int *fds, size_t n_fds)
{
	struct reviving *v = owner;

	return process_arrive_exec(v->arrival, criu, fds, n_fds);
}

/* Its standard streams, as the manifest names them, lead to the asker's; those that
 * nobody wants lead nowhere. */
static int make_pipes(struct reviving *v)
{
	struct tree_pipe pipes[3];
	size_t n = 0;

	for (const char *p = v->manifest->stdio; *p; p += strcspn(p, " ") + 1) {
		uintmax_t inode;
		int fd;

		if (n == N_ELEMENTS(pipes) || sscanf(p, "%d=%ju", &fd, &inode) != 2 || fd < 0 ||
		    fd > 2)
			return err_origin(-EBADMSG);
		pipes[n++] = (struct tree_pipe){ .inode = (ino_t)inode, .input = fd == 0,
						 .id = v->streams[fd],
						 .console = rpc_call_peer(v->call) };
	}
	return tree_pipes_make(&v->pipes, &v->room->pipes, pipes, n);
}

static int restore(struct reviving *v)
{
	struct criu_restore_spec spec = {
		.images = v->images,
		.root = v->manifest->root,
		.sid = v->members[0].sid,
		.pgid = v->members[0].pgid,
		.exec_in_place = exec_in_place,
		.timeout = time_left(v),
	};
	char name[64];
	int r;

	snprintf(name, sizeof(name), "revive.%u", v->number);
	r = make_pipes(v);
	if (r == 0)
		r = space_group_open(v->room->n.space, name, &v->group);
	if (r == 0)
		r = image_store_prepare(v->images);
	if (r != 0)
		return err_fold(r);
	spec.group = v->group;
	spec.inherit = tree_pipes_inherit(v->pipes, &spec.n_inherit);
	r = process_arrive_begin(v->room->n.process, v->members, v->n_members, &spec.in_place,
				 &v->arrival);
	if (r != 0)
		return r;
	return err_fold(criu_restore(v->room->n.criu, &spec, on_restored, v, &v->run));
}

/* Reserving. */

static void reserve(struct reviving *v);

static void on_again(struct env_timer *timer)
{
	struct reviving *v = container_of(timer, struct reviving, again);

	/* A late release of the last try is not to hit this one. */
	for (size_t i = 0; i < v->n_members; i++)
		v->members[i].generation++;
	reserve(v);
}

static void on_reserved(void *owner, enum rpc_status status, const char *text)
{
	struct reviving *v = owner;
	int r;

	/* What stood in the way may be on its way out: a shadow that an earlier try gave
	 * back, or the process itself, killed a moment ago. */
	if (status == RPC_CONFLICT && v->tries++ < TRIES_MAX &&
	    env_arm(v->room->n.env, &v->again, 100 * NSEC_PER_MSEC) == 0)
		return;
	if (status != RPC_OK)
		return fail(v, status, "%s", text);
	v->reserved = true;
	sm_move(&v->sm, RESTORING);
	r = restore(v);
	if (r == PROCESS_E_TAKEN)
		fail(v, RPC_CONFLICT, "a PID of %s is in use on its home node: is it still running?",
		     v->name);
	else if (r != 0)
		fail(v, RPC_FAILED, "%s cannot be restored: %s", v->name,
		     strerror(-err_fold(r)));
}

/* Of its application; a manifest of another version may have one that we would not give. */
static struct process_name name_of(const struct manifest *m)
{
	struct process_name name = { 0 };

	if (m->app_name && process_name_ok(m->app_name))
		(void)snprintf(name.text, sizeof(name.text), "%s", m->app_name);
	return name;
}

static int make_members(struct reviving *v)
{
	const struct inventory *i = v->manifest->inventory;

	v->n_members = i->n_tasks;
	v->members = calloc(v->n_members, sizeof(*v->members));
	if (!v->members)
		return err_origin(-ENOMEM);
	for (size_t k = 0; k < i->n_tasks; k++)
		v->members[k] = (struct process_member){
			.pid = i->tasks[k].pid, .ppid = k == 0 ? 0 : i->tasks[k].ppid,
			.pgid = i->tasks[k].pgid, .sid = i->tasks[k].sid, .app = v->manifest->app,
			.uid = i->tasks[k].uid, .gid = i->tasks[k].gid,
			/* Newer than whatever its home remembers of it. */
			.generation = (uint32_t)(env_realtime(v->room->n.env) / NSEC_PER_SEC),
			.name = name_of(v->manifest),
		};
	return 0;
}

static void reserve(struct reviving *v)
{
	int r = process_reserve(v->room->n.process, v->members, v->n_members,
				rpc_self(v->room->n.rpc), on_reserved, v);

	if (r != 0)
		fail(v, RPC_FAILED, "its PIDs cannot be reserved: %s", strerror(-err_fold(r)));
}

static void next_reserve(struct reviving *v)
{
	sm_move(&v->sm, RESERVING);
	if (make_members(v) < 0)
		return fail(v, RPC_FAILED, "out of memory");
	reserve(v);
}

/* Checking. */

static void on_check_work(struct env_work *work)
{
	struct reviving *v = container_of(work, struct reviving, work);
	const char *why = "";
	int r;

	r = manifest_parse(&v->manifest, (const char *)v->text.data, v->text.len,
			   v->room->config.seal_key, &why);
	if (r != 0) {
		v->work_result = asprintf(&v->problem, "%s: %s", v->name, why) < 0 ? -ENOMEM : 1;
		return;
	}
	r = manifest_check_images(v->manifest, v->images, &v->problem);
	if (r == 0)
		r = inventory_present(v->manifest->inventory, v->room->n.space, same_node(v),
				      &v->problem, NULL);
	v->work_result = r;
}

static void on_checked(struct env_work *work)
{
	struct reviving *v = container_of(work, struct reviving, work);
	_cleanup_free_ char *missing = NULL;

	if (v->work_result > 0)
		return fail(v, RPC_UNSUPPORTED, "%s",
			    v->problem ? v->problem : "it is not sound");
	if (v->work_result < 0)
		return fail(v, RPC_FAILED, "%s cannot be checked: %s", v->name,
			    strerror(-v->work_result));
	if (v->caller.uid != 0 && v->caller.uid != v->manifest->uid)
		return fail(v, RPC_NOT_PERMITTED, "%s is user %u's: only he or root may revive it",
			    v->name, v->manifest->uid);
	if (manifest_missing_cpu_flags(v->manifest, &missing) < 0)
		return fail(v, RPC_FAILED, "out of memory");
	if (missing)
		return fail(v, RPC_UNSUPPORTED, "the processor here lacks %s", missing);
	next_reserve(v);
}

/* Fetching. */

static int on_fetched_name(void *owner, const char *name)
{
	struct reviving *v = owner;
	char *copy = strdup(name);

	if (!copy)
		return err_origin(-ENOMEM);
	free(v->name);
	v->name = copy;
	return 0;
}

static int on_fetched_piece(void *owner, const char *file, const void *data, size_t len, bool last)
{
	struct reviving *v = owner;
	struct image_sink sink = image_store_sink(v->images);

	if (strcmp(file, "manifest") == 0)
		return v->text.len + len > MANIFEST_TEXT_MAX ? err_origin(-EBADMSG)
							     : buf_append(&v->text, data, len);
	if (last)
		return sink.close(sink.owner, file);
	return sink.write(sink.owner, file, data, len) == IMAGE_E_FULL ? -ENOSPC : 0;
}

static void on_fetched(void *owner, enum rpc_status status, const char *text)
{
	struct reviving *v = owner;

	v->copy = NULL;
	if (status != RPC_OK)
		return fail(v, status, "%s", text);
	sm_move(&v->sm, CHECKING);
	v->work = (struct env_work){ .work = on_check_work, .done = on_checked };
	if (env_work(v->room->n.env, &v->work) < 0)
		fail(v, RPC_FAILED, "out of memory");
}

static void start(struct reviving *v)
{
	static const struct copy_events events = { on_fetched_name, on_fetched_piece, on_fetched };
	struct copy_spec spec = {
		.verb = COPY_IN,
		.caller = &v->caller,
		.directory = v->directory,
		.name = v->name,
		.images_fd = -1,
		.timeout = time_left(v),
	};
	char name[64];

	snprintf(name, sizeof(name), "revive.%u", v->number);
	if (image_store_new(&v->images, v->room->config.private_dir_fd, name,
			    v->room->config.image_max_bytes) != 0)
		return fail(v, RPC_FAILED, IMAGE_NO_ROOM);
	if (copy_start(&v->copy, v->room->n.env, v->room->n.space, v->room->config.libexec_dir,
		       &spec, &events, v) != 0)
		fail(v, RPC_FAILED, "no process can be made to fetch it: is a limit of processes reached?");
}

void checkpoint_restart_begin(struct checkpoint_room *c, struct rpc_call *call,
			      const Ssi__Checkpoint__RestartRequest *q)
{
	struct reviving *v = calloc(1, sizeof(*v));

	if (!v)
		return rpc_fail(call, RPC_FAILED, "out of memory");
	v->room = c;
	v->call = call;
	v->number = c->next_number++;
	v->deadline = env_now(c->n.env) + q->timeout_ns;
	v->directory = checkpoint_path_parse(&q->directory);
	v->name = strdup(q->name);
	v->again.cb = on_again;
	sm_init(&v->sm, "restart", states, v->number, FETCHING);
	if (!checkpoint_caller_parse(&v->caller, q->caller) || !v->directory || !v->name ||
	    q->n_streams != N_ELEMENTS(v->streams))
		return fail(v, RPC_USAGE, "the request to restart makes no sense");
	for (size_t i = 0; i < N_ELEMENTS(v->streams); i++)
		v->streams[i] = q->streams[i];
	start(v);
}
