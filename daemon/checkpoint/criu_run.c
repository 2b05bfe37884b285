/*
 * The life of a run of criu.
 *
 * happy path: TALKING: criu works and asks; ANSWERED: it said how it went, and
 * its process and its last image bytes are awaited; ENDING: on another thread the
 * leaf is emptied, the group frozen (or killed, where nothing may be left), and
 * the log read; DONE: done() is told.
 * A warm run is one in TALKING that was asked for nothing yet.
 *
 * failure modes: the deadline, a cancel, a criu that dies or babbles: all lead to
 * ENDING with a text, once.  The leaf is killed whatever criu does: SIGKILL at a
 * cgroup needs nobody's consent.  ENDING has deadlines of its own and no way back.
 */
#include "criu_internal.h"

#include "err.h"
#include "image_internal.h"
#include "log.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#define KILL_MAX (5 * NSEC_PER_SEC)
#define FREEZE_MAX (5 * NSEC_PER_SEC)
/* From criu's answer to its end. */
#define LEAVE_MAX (5 * NSEC_PER_SEC)

/* A tmpfs with less than that left is why a dump failed. */
enum { FEW_BLOCKS = 64 };

static const struct sm_state states[] = {
	[CRIU_RUN_TALKING] = { "talking", SM_TO(CRIU_RUN_HOLDING) | SM_TO(CRIU_RUN_ANSWERED) |
						  SM_TO(CRIU_RUN_ENDING) },
	[CRIU_RUN_HOLDING] = { "holding", SM_TO(CRIU_RUN_TALKING) | SM_TO(CRIU_RUN_ENDING) },
	[CRIU_RUN_ANSWERED] = { "answered", SM_TO(CRIU_RUN_ENDING) },
	[CRIU_RUN_ENDING] = { "ending", SM_TO(CRIU_RUN_DONE) },
	[CRIU_RUN_DONE] = { "done", 0 },
};

static void unlink_run(struct criu_run *run)
{
	struct criu_run **at;

	if (!run->criu)
		return;
	for (at = &run->criu->runs; *at && *at != run; at = &(*at)->next)
		;
	if (*at)
		*at = run->next;
}

struct criu_run *criu_run_free(struct criu_run *run)
{
	if (!run)
		return NULL;
	if (run->criu) {
		env_disarm(run->criu->env, &run->deadline);
		env_unwatch(run->criu->env, &run->talk);
		env_unwatch(run->criu->env, &run->life);
	}
	unlink_run(run);
	criu_stream_free(run->stream);
	criu_files_free(run->files);
	close_fd(run->talk.fd);
	close_fd(run->life.fd);
	space_group_close(run->leaf);
	close_fd(run->dir_fd);
	if (run->private_dir_fd >= 0)
		(void)image_directory_remove(run->private_dir_fd, run->name);
	close_fd(run->private_dir_fd);
	free(run->home);
	free(run);
	return NULL;
}

static int make_directory(struct criu_run *run)
{
	run->private_dir_fd = fcntl(run->criu->private_dir_fd, F_DUPFD_CLOEXEC, 3);
	if (run->private_dir_fd < 0 || mkdirat(run->private_dir_fd, run->name, 0700) < 0)
		return err_origin(-errno);
	run->dir_fd = openat(run->private_dir_fd, run->name,
			     O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return run->dir_fd < 0 ? err_origin(-errno) : 0;
}

static void on_deadline(struct env_timer *timer)
{
	struct criu_run *run = container_of(timer, struct criu_run, deadline);

	if (run->sm.state != CRIU_RUN_ANSWERED)
		return criu_run_stop(run, "criu did not finish within %" PRIu64 " s",
				     (uint64_t)(run->timeout / NSEC_PER_SEC));
	if (run->kind == CRIU_RUN_DUMP && run->success && !criu_dump_is_over(run))
		return criu_run_stop(run, "its images were not taken in time");
	/* Answered well, but some of it stays: the leaf is killed anyway. */
	run->hung_up = true;
	criu_run_look(run);
}

int criu_run_new(struct criu *c, enum criu_run_kind kind, nsec_t timeout, criu_done_cb done,
		 void *owner, struct criu_run **ret)
{
	struct criu_run *run = calloc(1, sizeof(*run));
	int r;

	if (!run)
		return err_origin(-ENOMEM);
	*run = (struct criu_run){ .criu = c, .space = c->space, .next = c->runs, .kind = kind, .timeout = timeout,
				  .done = done, .owner = owner, .dir_fd = -1,
				  .private_dir_fd = -1 };
	run->talk.fd = -1;
	run->life.fd = -1;
	run->deadline.cb = on_deadline;
	c->runs = run;
	(void)snprintf(run->name, sizeof(run->name), "criu.%" PRIu64, ++c->n_runs);
	sm_init(&run->sm, "criu", states, c->n_runs, CRIU_RUN_TALKING);
	r = make_directory(run);
	if (r == 0)
		r = space_group_open(c->space, run->name, &run->leaf);
	if (r != 0) {
		criu_run_free(run);
		return err_fold(r);
	}
	*ret = run;
	return 0;
}

int criu_run_socket(int ret[static 2])
{
	int on = 1;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret) < 0)
		return err_origin(-errno);
	/* Every packet then tells who sent it: of a restore in place, the coordinator. */
	(void)setsockopt(ret[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
	return 0;
}

/* Talking. */

static void on_notify(struct criu_run *run, const Ssi__Criu__Notify *n)
{
	if (run->kind == CRIU_RUN_RESTORE && n && n->script && !strcmp(n->script, "pre-resume"))
		return criu_restore_hold(run);
	if (criu_swrk_acknowledge(run->talk.fd) < 0)
		criu_run_stop(run, "criu does not listen");
}

static void on_version(struct criu_run *run, const Ssi__Criu__Version *v)
{
	if (!run->criu)
		return;
	criu_look_at(run->criu, run->sender);
	if (v)
		(void)snprintf(run->criu->features.version, sizeof(run->criu->features.version),
			       "%d.%d.%d", v->major_number, v->minor_number, v->sublevel);
}

static void on_answer(struct criu_run *run, const Ssi__Criu__Response *p)
{
	run->success = p->has_success && p->success;
	if (p->cr_errmsg)
		(void)snprintf(run->said, sizeof(run->said), "%s", p->cr_errmsg);
	sm_move(&run->sm, CRIU_RUN_ANSWERED);
	/* Bytes on their way keep the run's own deadline. */
	if (!run->stream || !run->success)
		(void)env_arm(run->criu->env, &run->deadline, LEAVE_MAX);
	criu_run_look(run);
}

static void on_message(struct criu_run *run, const Ssi__Criu__Response *p)
{
	static const Ssi__Criu__Type answers[] = {
		[CRIU_RUN_DUMP] = SSI__CRIU__TYPE__DUMP,
		[CRIU_RUN_RESTORE] = SSI__CRIU__TYPE__RESTORE,
		[CRIU_RUN_CHECK] = SSI__CRIU__TYPE__CHECK,
	};

	if (run->sm.state != CRIU_RUN_TALKING)
		return criu_run_stop(run, "criu speaks out of turn");
	if (p->type == SSI__CRIU__TYPE__NOTIFY)
		return on_notify(run, p->notify);
	if (p->type == SSI__CRIU__TYPE__VERSION && run->kind == CRIU_RUN_CHECK)
		return on_version(run, p->version);
	if (p->type == answers[run->kind] || p->type == SSI__CRIU__TYPE__EMPTY)
		return on_answer(run, p);
	criu_run_stop(run, "criu answers what was not asked");
}

/* Was there one? */
static bool take_message(struct criu_run *run)
{
	Ssi__Criu__Response *p;
	int r = criu_swrk_receive(run->talk.fd, &p, &run->sender);

	switch (r) {
	case 0:
		on_message(run, p);
		ssi__criu__response__free_unpacked(p, NULL);
		return true;
	case CRIU_SWRK_E_AGAIN:
		return false;
	case CRIU_SWRK_E_END:
		env_unwatch(run->criu->env, &run->talk);
		run->hung_up = true;
		criu_run_look(run);
		return false;
	}
	criu_run_stop(run, "criu cannot be understood: %s", strerror(-r));
	return false;
}

static void on_talk(struct env_fd *watch, unsigned events)
{
	(void)take_message(container_of(watch, struct criu_run, talk));
}

/* A child of criu's may outlive it with its end of the socket: so its process is watched
 * too.  What it said before it ended counts. */
static void on_exit_of_criu(struct env_fd *watch, unsigned events)
{
	struct criu_run *run = container_of(watch, struct criu_run, life);

	env_unwatch(run->criu->env, &run->life);
	while (!run->hung_up && run->sm.state < CRIU_RUN_ENDING && take_message(run))
		;
	if (run->sm.state >= CRIU_RUN_ENDING || run->hung_up)
		return;
	env_unwatch(run->criu->env, &run->talk);
	run->hung_up = true;
	criu_run_look(run);
}

int criu_run_spawn(struct criu_run *run, const char *const *argv, pid_t set_tid, int peer,
		   bool watched)
{
	struct criu *c = run->criu;
	const char *const plain[] = { c->path, "--no-default-config", "swrk", "3", NULL };
	int fds[SPACE_FDS_MAX] = { peer };
	struct space_spawn spec = {
		.argv = argv ? argv : plain,
		.fds = fds,
		.n_fds = 1 + run->restore.n_inherit,
		.set_tid = set_tid,
		.group_fd = space_group_fd(run->leaf),
		.flags = set_tid ? 0 : SPACE_SPAWN_SERVICE,
	};
	int r;

	/* What it restores is as bound as what is launched; a dump by one that is bound fails. */
	if (run->kind == CRIU_RUN_RESTORE)
		spec.flags |= SPACE_SPAWN_BOUND;
	if (spec.n_fds > SPACE_FDS_MAX)
		return err_origin(-E2BIG);
	for (size_t i = 0; i < run->restore.n_inherit; i++)
		fds[1 + i] = run->restore.inherit[i].fd;
	r = space_spawn(c->space, &spec, NULL, watched ? &run->life.fd : NULL);
	run->life.cb = on_exit_of_criu;
	if (r == 0 && watched)
		r = env_watch(c->env, &run->life, ENV_READ);
	if (r < 0)
		(void)space_group_kill(run->leaf, KILL_MAX);
	return r;
}

int criu_run_begin(struct criu_run *run, int owned_socket)
{
	int r;

	run->talk = (struct env_fd){ .cb = on_talk, .fd = owned_socket };
	r = env_watch(run->criu->env, &run->talk, ENV_READ);
	if (r == 0)
		r = env_arm(run->criu->env, &run->deadline, run->timeout);
	return r;
}

/* Warm. */

static const nsec_t WARM_MAX = 5 * NSEC_PER_SEC;

/* Nobody took it, or it died: whoever comes starts another. */
static void on_cold(void *owner, bool ok, const char *text)
{
}

void criu_warm(struct criu *c)
{
	struct criu_run *run;
	int ends[2], r;

	if (c->warm || criu_run_new(c, CRIU_RUN_WARM, WARM_MAX, on_cold, NULL, &run) < 0)
		return;
	r = criu_run_socket(ends);
	if (r < 0) {
		criu_run_free(run);
		return;
	}
	r = criu_run_begin(run, ends[0]);
	if (r == 0)
		r = criu_run_spawn(run, NULL, 0, ends[1], true);
	close_fd(ends[1]);
	if (r != 0)
		criu_run_free(run);
	else
		c->warm = run;
}

struct criu_run *criu_run_take(struct criu *c, enum criu_run_kind kind, nsec_t timeout,
			       criu_done_cb done, void *owner)
{
	struct criu_run *run = c->warm;

	if (!run || env_arm(c->env, &run->deadline, timeout) < 0)
		return NULL;
	c->warm = NULL;
	run->kind = kind;
	run->timeout = timeout;
	run->done = done;
	run->owner = owner;
	return run;
}

/* Ending. */

static bool went_well(const struct criu_run *run)
{
	return run->success && !run->stop;
}

/* Where a criu that does not stream puts its images, and every criu its log. */
static bool is_full(const struct criu_run *run)
{
	struct statvfs v;

	return fstatvfs(run->dir_fd, &v) == 0 && v.f_bavail < FEW_BLOCKS;
}

/* The cause, if criu's own word is all that is known of it. */
static void find_text(struct criu_run *run)
{
	if (run->stop || run->success)
		return;
	if (run->kind == CRIU_RUN_DUMP && is_full(run)) {
		(void)snprintf(run->text, sizeof(run->text),
			       "no room for its images: criu does not stream and needs it for all of "
			       "them at once, see ssi doctor");
		return;
	}
	if (criu_log_find(run->dir_fd, run->text, sizeof(run->text)) ||
	    criu_log_line(run->said, run->text, sizeof(run->text)))
		return;
	(void)snprintf(run->text, sizeof(run->text), "%s",
		       run->hung_up ? "criu ended without a word, killed for want of memory perhaps" : "criu failed");
}

static void on_end_work(struct env_work *work)
{
	struct criu_run *run = container_of(work, struct criu_run, work);
	int r;

	find_text(run);
	if (run->kind == CRIU_RUN_RESTORE)
		criu_restore_end(run, went_well(run));
	r = space_group_kill(run->leaf, KILL_MAX);
	/* criu thaws the group to work in it, and leaves it so if it is killed then. */
	if (run->kind == CRIU_RUN_DUMP && r == 0)
		r = space_group_freeze(run->dump.group, FREEZE_MAX);
	/* Here, for images that were not passed on take their time to go. */
	if (run->kind == CRIU_RUN_DUMP)
		(void)image_directory_remove(run->private_dir_fd, run->name);
	run->work_result = r;
}

static void on_ended(struct env_work *work)
{
	struct criu_run *run = container_of(work, struct criu_run, work);
	bool ok = went_well(run);

	sm_move(&run->sm, CRIU_RUN_DONE);
	if (run->work_result != 0) {
		log_error("%s: what is left of it cannot be %s", run->name,
			  run->work_result > 0 ? "killed or frozen in time" : "controlled");
		if (ok)
			(void)snprintf(run->text, sizeof(run->text), "criu's processes would not end");
		ok = false;
	}
	if (run->criu)
		run->done(run->owner, ok, ok ? "" : run->text);
	criu_run_free(run);
}

static void end(struct criu_run *run)
{
	const struct env *env = run->criu->env;

	if (run->criu->warm == run)
		run->criu->warm = NULL;
	env_disarm(env, &run->deadline);
	env_unwatch(env, &run->talk);
	env_unwatch(env, &run->life);
	criu_stream_stop(run->stream);
	criu_files_stop(run->files);
	sm_move(&run->sm, CRIU_RUN_ENDING);
	run->work = (struct env_work){ .work = on_end_work, .done = on_ended };
	if (env_work(env, &run->work) == 0)
		return;
	log_error("%s: no thread to end it on, doing it here", run->name);
	on_end_work(&run->work);
	on_ended(&run->work);
}

void criu_run_stop(struct criu_run *run, const char *format, ...)
{
	va_list args;

	if (run->stop || run->sm.state >= CRIU_RUN_ENDING)
		return;
	run->stop = true;
	va_start(args, format);
	(void)vsnprintf(run->text, sizeof(run->text), format, args);
	va_end(args);
	/* The work under way ends it. */
	if (run->sm.state != CRIU_RUN_HOLDING)
		end(run);
}

void criu_run_held(struct criu_run *run, int result)
{
	if (!run->criu) {
		criu_run_free(run);
		return;
	}
	sm_move(&run->sm, CRIU_RUN_TALKING);
	if (run->stop)
		return end(run);
	run->taken = result == 0;
	if (result != 0)
		criu_run_stop(run, "the restored processes cannot be frozen");
	else if (criu_swrk_acknowledge(run->talk.fd) < 0)
		criu_run_stop(run, "criu does not listen");
}

/* The root is a child of ssi-init now (in place: it was already). */
static bool track(struct criu_run *run)
{
	int r;

	if (run->kind != CRIU_RUN_RESTORE || run->restore.in_place)
		return true;
	r = space_track(run->criu->space, run->restore.root);
	if (r == 0)
		return true;
	criu_run_stop(run, "process %d did not become a child of ssi-init", run->restore.root);
	return false;
}

void criu_run_look(struct criu_run *run)
{
	if (run->stop || run->sm.state >= CRIU_RUN_ENDING || !run->hung_up)
		return;
	if (run->sm.state != CRIU_RUN_ANSWERED)
		return criu_run_stop(run, "criu ended before it was done");
	if (run->success && run->kind == CRIU_RUN_DUMP && !criu_dump_collect(run))
		return;
	if (run->success && run->kind == CRIU_RUN_RESTORE && !run->taken)
		return criu_run_stop(run, "criu let the processes run before they were frozen");
	if (run->success && !track(run))
		return;
	end(run);
}

void criu_cancel(struct criu_run *run)
{
	criu_run_stop(run, "cancelled");
}
