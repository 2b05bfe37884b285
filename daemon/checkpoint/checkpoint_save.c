/*
 * Saving a tree, on the node where it runs.
 *
 * Happy path: hold, freeze, look, dump into a private store, thaw (unless it is
 * to be killed: then it stays frozen until its checkpoint is safe), sum up and
 * seal, copy out under the caller's rights, kill if asked, answer.
 *
 * Failure modes: anything -> the tree thaws and runs on, the private store and the
 * half copy go, the caller gets one line.  ssid dies -> its successor finds
 * the group "save.N" and thaws it.
 */
#include "checkpoint_internal.h"

#include "cleanup.h"
#include "err.h"
#include "event.h"
#include "fault.h"
#include "log.h"
#include "process_proc.h"
#include "sm.h"
#include "space_group.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>

enum { FREEZING, DUMPING, SEALING, COPYING, ENDING, ENDED };

static const struct sm_state states[] = {
	[FREEZING] = { "freezing", SM_TO(DUMPING) | SM_TO(ENDING) },
	[DUMPING] = { "dumping", SM_TO(SEALING) | SM_TO(ENDING) },
	[SEALING] = { "sealing", SM_TO(COPYING) | SM_TO(ENDING) },
	[COPYING] = { "copying", SM_TO(ENDING) },
	[ENDING] = { "ending", SM_TO(ENDED) },
	[ENDED] = { "ended", 0 },
};

struct saving {
	struct checkpoint_room *room;
	struct sm sm;
	struct rpc_call *call;
	struct process_caller caller;
	pid_t root;
	bool kill, held;
	char *directory;
	nsec_t deadline, frozen_at, frozen_for;
	uint32_t number;
	struct env_work work;
	int work_result;
	struct space_group *group;
	struct image_store *images;
	struct manifest manifest;
	struct criu_run *dump;
	struct copy *copy;
	struct checkpoint_outcome outcome;
};

static void end(struct saving *s);

static void saving_free(struct saving *s)
{
	inventory_free(s->manifest.inventory);
	free(s->manifest.images);
	free(s->manifest.cpu_flags);
	free(s->manifest.command);
	free(s->manifest.app_name);
	free(s->manifest.description);
	free(s->manifest.stdio);
	image_store_free(s->images);
	space_group_close(s->group);
	free(s->directory);
	free(s);
}

static void fail(struct saving *s, enum rpc_status status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void fail(struct saving *s, enum rpc_status status, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	checkpoint_outcome_set(&s->outcome, status, format, ap);
	va_end(ap);
	end(s);
}

static nsec_t time_left(const struct saving *s)
{
	nsec_t now = env_now(s->room->n.env);

	return s->deadline > now ? s->deadline - now : 1;
}

static void thaw(struct saving *s)
{
	int r;

	if (!s->group || !s->frozen_at)
		return;
	r = space_group_thaw(s->group);
	if (r != 0)
		log_error("process %d: cannot be thawed: %s", s->root, strerror(-err_fold(r)));
	s->frozen_for = env_now(s->room->n.env) - s->frozen_at;
	s->frozen_at = 0;
}

/* The end of all: kill or go on, answer, forget. */

static void on_end_work(struct env_work *work)
{
	struct saving *s = container_of(work, struct saving, work);

	s->work_result = space_group_kill(s->group, 5 * NSEC_PER_SEC);
}

static void tell_saved(const struct saving *s)
{
	struct event e = {
		.type = EVENT_CHECKPOINT_SAVED,
		.pid = s->root,
		.app = s->manifest.app,
		.uid = s->manifest.uid,
		.frozen = s->frozen_for,
		.bytes = s->manifest.bytes,
	};

	snprintf(e.text, sizeof(e.text), "%s", s->manifest.name);
	event_tell(s->room->n.events, &e);
}

static void on_ended(struct env_work *work)
{
	struct saving *s = container_of(work, struct saving, work);
	Ssi__Checkpoint__SaveReply reply = SSI__CHECKPOINT__SAVE_REPLY__INIT;

	sm_move(&s->sm, ENDED);
	thaw(s);
	if (s->held)
		process_unhold(s->room->n.process, s->root);
	reply.name = s->manifest.name;
	reply.bytes = s->manifest.bytes;
	reply.frozen_ns = s->frozen_for;
	if (s->outcome.status == RPC_OK)
		tell_saved(s);
	if (s->outcome.status == RPC_OK)
		rpc_reply(s->call, &reply.base, RPC_NO_BULK);
	else
		rpc_fail(s->call, s->outcome.status, "%s", s->outcome.text);
	saving_free(s);
}

static void end(struct saving *s)
{
	if (s->sm.state != ENDING)
		sm_move(&s->sm, ENDING);
	if (s->dump)
		return criu_cancel(s->dump);
	s->work = (struct env_work){ .work = on_end_work, .done = on_ended };
	if (s->outcome.status == RPC_OK && s->kill && env_work(s->room->n.env, &s->work) == 0)
		return;
	on_ended(&s->work);
}

/* Copying out. */

static void on_copied(void *owner, enum rpc_status status, const char *text)
{
	struct saving *s = owner;

	s->copy = NULL;
	if (status != RPC_OK)
		return fail(s, status, "%s", text);
	(void)fault("checkpoint.saved");
	log_info("process %d: saved as %s", s->root, s->manifest.name);
	end(s);
}

static void next_copy(struct saving *s)
{
	static const struct copy_events events = { .on_end = on_copied };
	struct copy_spec spec = {
		.verb = COPY_OUT,
		.caller = &s->caller,
		.directory = s->directory,
		.make_directory = strcmp(s->directory, s->room->config.directory) == 0,
		.name = s->manifest.name,
		.images_fd = image_store_dir_fd(s->images),
		.timeout = time_left(s),
	};

	sm_move(&s->sm, COPYING);
	if (copy_start(&s->copy, s->room->n.env, s->room->n.space, s->room->config.libexec_dir,
		       &spec, &events, s) != 0)
		fail(s, RPC_FAILED, "no process can be made to copy it: is a limit of processes reached?");
}

/* Sealing. */

static int write_manifest(struct saving *s)
{
	struct image_sink sink = image_store_sink(s->images);
	_cleanup_free_ char *text = NULL;
	size_t len;
	int r;

	r = manifest_format(&s->manifest, s->room->config.seal_key, &text, &len);
	if (r == 0)
		r = sink.write(sink.owner, "manifest", text, len);
	return r == 0 ? sink.close(sink.owner, "manifest") : r;
}

static void on_seal_work(struct env_work *work)
{
	struct saving *s = container_of(work, struct saving, work);

	s->work_result = manifest_add_images(&s->manifest, s->images);
	if (s->work_result == 0)
		s->work_result = write_manifest(s);
}

static void on_sealed(struct env_work *work)
{
	struct saving *s = container_of(work, struct saving, work);

	if (s->work_result == -E2BIG)
		return fail(s, RPC_UNSUPPORTED, "it holds too many files for a manifest");
	if (s->work_result != 0)
		return fail(s, RPC_FAILED, "it cannot be sealed: %s",
			    strerror(-err_fold(s->work_result)));
	next_copy(s);
}

static void next_seal(struct saving *s)
{
	sm_move(&s->sm, SEALING);
	if (!s->kill)
		thaw(s);
	s->work = (struct env_work){ .work = on_seal_work, .done = on_sealed };
	if (env_work(s->room->n.env, &s->work) < 0)
		fail(s, RPC_FAILED, "out of memory");
}

/* Dumping. */

static void on_dumped(void *owner, bool ok, const char *text)
{
	struct saving *s = owner;

	s->dump = NULL;
	if (s->sm.state == ENDING)
		return end(s);
	if (!ok)
		return fail(s, RPC_UNSUPPORTED, "process %d cannot be dumped: %s", s->root, text);
	(void)fault("checkpoint.dumped");
	next_seal(s);
}

static void next_dump(struct saving *s)
{
	const struct inventory_task *root = &s->manifest.inventory->tasks[0];
	struct criu_dump_spec spec = {
		.root = s->root,
		.group = s->group,
		.shell_job = root->sid != root->pid,
		.sink = image_store_sink(s->images),
		.timeout = time_left(s),
	};

	sm_move(&s->sm, DUMPING);
	if (criu_dump(s->room->n.criu, &spec, on_dumped, s, &s->dump) != 0)
		fail(s, RPC_FAILED, "criu cannot be started: see ssi doctor");
}

/* Freezing, and looking. */

static void on_freeze_work(struct env_work *work)
{
	struct saving *s = container_of(work, struct saving, work);
	char name[64];
	int r;

	snprintf(name, sizeof(name), "save.%u", s->number);
	r = space_group_open(s->room->n.space, name, &s->group);
	if (r == 0)
		r = space_group_take_tree(s->group, s->root);
	if (r == 0)
		r = space_group_freeze(s->group, 30 * NSEC_PER_SEC);
	if (r == 0)
		r = inventory_take(&s->manifest.inventory, s->room->n.space, s->root);
	s->work_result = r;
}

/* A file in /proc/PID is root's when the process is not dumpable; the directory is not. */
static bool may_look(int proc, pid_t pid, uid_t uid)
{
	struct proc_stat stat;
	struct stat st;
	char path[32];

	snprintf(path, sizeof(path), "%d/status", pid);
	if (fstatat(proc, path, &st, 0) < 0)
		return false;
	/* In a zombie there is nothing to see. */
	return st.st_uid == uid || (proc_stat_read(proc, pid, &stat) == 0 && stat.state == 'Z' &&
				    stat.n_threads <= 1);
}

/* What one may trace one may save: its files in /proc belong to whom the kernel lets at it. */
static bool may_save(struct saving *s)
{
	const struct inventory *i = s->manifest.inventory;

	if (s->caller.uid == 0)
		return true;
	for (size_t k = 0; k < i->n_tasks; k++)
		if (i->tasks[k].uid != s->caller.uid ||
		    !may_look(space_proc_fd(s->room->n.space), i->tasks[k].pid, s->caller.uid))
			return false;
	return true;
}

/* "inode input" of each pipe that leads to an ssi-run, by descriptor 0, 1, 2 of the root. */
static char *stdio_text(const struct saving *s, const struct inventory_allow *allow)
{
	const struct inventory *i = s->manifest.inventory;
	char *text = strdup("");

	for (size_t k = 0; text && k < i->n_files; k++) {
		const struct inventory_file *f = &i->files[k];
		char *more;

		if (f->pid != s->root || f->type != INVENTORY_PIPE || f->fd < 0 || f->fd > 2)
			continue;
		for (size_t j = 0; j < allow->n_pipes; j++) {
			if (allow->pipes[j] != f->inode)
				continue;
			if (asprintf(&more, "%s%d=%ju ", text, f->fd, (uintmax_t)f->inode) < 0)
				more = NULL;
			free(text);
			text = more;
			break;
		}
	}
	return text;
}

static char *command_of(const struct saving *s)
{
	struct process_info *all = NULL;
	char *command = NULL;
	size_t n = 0;

	if (process_list(s->room->n.process, &all, &n) == 0)
		for (size_t i = 0; i < n; i++)
			if (all[i].pid == s->root)
				command = strdup(all[i].command);
	free(all);
	return command ? command : strdup("?");
}

static int fill_manifest(struct saving *s, const struct inventory_allow *allow)
{
	const struct membership_node *self =
		membership_node(s->room->n.membership, rpc_self(s->room->n.rpc));
	struct process_record record = { .app = s->root };
	struct manifest *m = &s->manifest;
	struct utsname u;
	struct tm tm;
	time_t now;

	(void)process_record(s->room->n.process, s->root, &record);
	(void)uname(&u);
	m->app = record.app ? record.app : s->root;
	m->root = s->root;
	m->uid = m->inventory->tasks[0].uid;
	m->gid = m->inventory->tasks[0].gid;
	m->taken = env_realtime(s->room->n.env);
	now = (time_t)(m->taken / NSEC_PER_SEC);
	(void)gmtime_r(&now, &tm);
	snprintf(m->name, sizeof(m->name), "%d-%04d%02d%02dT%02d%02d%02d.%03u", m->app,
		 tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
		 (unsigned)(m->taken / NSEC_PER_MSEC % 1000));
	snprintf(m->node, sizeof(m->node), "%s", self ? self->name : "?");
	snprintf(m->kernel, sizeof(m->kernel), "%s", u.release);
	m->stdio = stdio_text(s, allow);
	m->command = command_of(s);
	m->app_name = *record.name.text ? strdup(record.name.text) : NULL;
	if (!m->stdio || !m->command || (*record.name.text && !m->app_name))
		return err_origin(-ENOMEM);
	return manifest_own_cpu_flags(&m->cpu_flags);
}

static void on_frozen(struct env_work *work)
{
	struct saving *s = container_of(work, struct saving, work);
	ino_t inodes[TREE_PIPES_MAX];
	struct inventory_allow allow = { .pipes = inodes };
	struct process_record record = { 0 };
	_cleanup_free_ char *text = NULL;
	int r = s->work_result;
	char line[256];

	s->frozen_at = env_now(s->room->n.env);
	if (r == SPACE_GROUP_E_TIMEOUT)
		return fail(s, RPC_TIMEOUT, "process %d would not freeze in time", s->root);
	if (r == -ESRCH || r == SPACE_GROUP_E_GONE)
		return fail(s, RPC_NOT_FOUND, "process %d has ended", s->root);
	if (r != 0)
		return fail(s, RPC_FAILED, "process %d cannot be looked at: %s", s->root,
			    strerror(-err_fold(r)));
	if (!may_save(s))
		return fail(s, RPC_NOT_PERMITTED,
			    "process %d, or a child of it, is not yours to look into", s->root);
	r = tree_pipes_allow(&s->room->pipes, s->manifest.inventory, inodes, &allow.n_pipes);
	(void)process_record(s->room->n.process, s->root, &record);
	allow.bound = record.bound;
	allow.capabilities = 1u << CAPABILITY_CHECKPOINTABLE;
	if (r == 0)
		r = inventory_verdict(s->manifest.inventory, &allow, s->room->n.space, &text, NULL);
	if (r > 0)
		return fail(s, RPC_UNSUPPORTED, "process %d cannot be saved: %s", s->root, text);
	if (r == 0 && !criu_may_dump(s->room->n.criu, s->manifest.inventory, line, sizeof(line)))
		return fail(s, RPC_UNSUPPORTED, "process %d cannot be saved: %s", s->root, line);
	if (r == 0)
		r = fill_manifest(s, &allow);
	if (r < 0)
		return fail(s, RPC_FAILED, "process %d: %s", s->root, strerror(-r));
	(void)fault("checkpoint.frozen");
	next_dump(s);
}

static void start(struct saving *s)
{
	char name[64];
	int r;

	r = process_hold(s->room->n.process, s->root);
	if (r == PROCESS_E_BUSY)
		return fail(s, RPC_CONFLICT, "process %d is being moved or saved already",
			    s->root);
	if (r != 0)
		return fail(s, RPC_NOT_FOUND, "no process %d here", s->root);
	s->held = true;
	snprintf(name, sizeof(name), "save.%u", s->number);
	if (image_store_new(&s->images, s->room->config.private_dir_fd, name,
			    s->room->config.image_max_bytes) != 0)
		return fail(s, RPC_FAILED, IMAGE_NO_ROOM);
	s->work = (struct env_work){ .work = on_freeze_work, .done = on_frozen };
	if (env_work(s->room->n.env, &s->work) < 0)
		fail(s, RPC_FAILED, "out of memory");
}

void checkpoint_save_begin(struct checkpoint_room *c, struct rpc_call *call,
			   const Ssi__Checkpoint__SaveRequest *q)
{
	struct saving *s = calloc(1, sizeof(*s));

	if (!s)
		return rpc_fail(call, RPC_FAILED, "out of memory");
	s->room = c;
	s->call = call;
	s->root = q->pid;
	s->kill = q->kill;
	s->number = c->next_number++;
	s->deadline = env_now(c->n.env) + q->timeout_ns;
	s->directory = checkpoint_path_parse(&q->directory);
	s->manifest.description = strdup(q->description);
	sm_init(&s->sm, "checkpoint", states, s->number, FREEZING);
	if (!checkpoint_caller_parse(&s->caller, q->caller) || !s->directory ||
	    !s->manifest.description || strlen(q->description) > MANIFEST_FIELD_MAX / 2)
		return fail(s, RPC_USAGE, "the request to save makes no sense");
	start(s);
}
