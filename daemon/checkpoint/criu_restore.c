/*
 * Restores.
 *
 * happy path: criu is a child of ssi-init, in its own leaf, and makes the root its
 * sibling, in the tree's group.  At "pre-resume" every thread stands at its last trap
 * before the program, traced by criu: the group is frozen, so that detaching (and criu's
 * death, too) lets the tree go no further than the freezer.  Then criu answers and ends.
 * Whatever was born in criu's leaf (in place, or all of it by a criu without our patch) is
 * moved into the frozen group: each such move waits for a grace period of the kernel's.
 *
 * The root's session and group.  A root that leads its session makes it.  One
 * that does not inherits both from criu, which therefore is exec'd by a
 * placeholder (ssi_placeholder.c) that has the session's PID, or the group's.
 * Whoever has that PID here already has the session too, and a process enters a
 * session by birth only: then the way home is in place, by the shadow.
 *
 * In place: the shadow, moved into the leaf, execs criu and itself becomes the
 * root.  If criu gives up it turns back into the shadow and is put back to where
 * it was; only when criu had to be killed, PID and shadow are gone.
 *
 * criu goes on whatever we answer at "pre-resume", and if nobody is there to answer:
 * an ssid that dies just then leaves a running tree, which its successor kills, in the
 * leaf by criu_sweep(), in the group by what it knows of moves and restarts under way.
 *
 * failure modes: leaf and group are killed.  They are frozen first, for a tracer that dies
 * lets its tasks run.
 */
#include "criu_internal.h"

#include "err.h"
#include "inject.h"
#include "log.h"
#include "pages.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define FREEZE_MAX (5 * NSEC_PER_SEC)
/* Before killing: best effort. */
#define FREEZE_SHORT (500 * NSEC_PER_MSEC)
#define KILL_MAX (5 * NSEC_PER_SEC)

/* Holding. */

static void on_hold_work(struct env_work *work)
{
	struct criu_run *run = container_of(work, struct criu_run, work);
	struct space_group *group = run->restore.group;
	int r;

	r = space_group_freeze(group, FREEZE_MAX);
	if (r == 0)
		r = space_group_take_tree(group, run->restore.root);
	/* The coordinator, who asks, is a child of the root and of its tree only so far. */
	if (r == 0 && run->restore.in_place)
		r = space_group_take(run->leaf, run->sender);
	if (r == 0)
		r = space_group_freeze(group, FREEZE_MAX);
	run->work_result = r;
}

static void on_held(struct env_work *work)
{
	struct criu_run *run = container_of(work, struct criu_run, work);

	criu_run_held(run, run->work_result);
}

void criu_restore_hold(struct criu_run *run)
{
	run->work = (struct env_work){ .work = on_hold_work, .done = on_held };
	if (env_work(run->criu->env, &run->work) < 0)
		return criu_run_stop(run, "out of memory");
	sm_move(&run->sm, CRIU_RUN_HOLDING);
}

/* Where a shadow was. */

static int move_shadow_in(struct criu_run *run)
{
	char where[SPACE_WHERE_MAX];
	int r = space_group_where(space_proc_fd(run->space), run->restore.root, where);

	if (r < 0)
		return r;
	run->home = strdup(where);
	if (!run->home)
		return err_origin(-ENOMEM);
	return err_fold(space_group_take(run->leaf, run->restore.root));
}

static void move_shadow_back(struct criu_run *run)
{
	int r = space_group_return(run->space, run->restore.root, run->home);

	if (r != 0)
		log_warning("the shadow %d cannot be put back into its cgroup: %s",
			    run->restore.root, strerror(-err_fold(r)));
}

/* The end. */

/*
 * The coordinator of a restore in place is a child of the root that only a wait for
 * clones sees; nobody but us can bury it.  The root alone leaves its frozen group for
 * that, every thread of it held.
 */
static void bury_coordinator(struct criu_run *run)
{
	const long args[6] = { run->sender, 0, __WALL };
	pid_t root = run->restore.root;
	struct inject *i;
	long got = 0;
	int r;

	r = inject_attach(&i, space_proc_fd(run->space), root);
	if (r == 0) {
		r = space_group_take(run->leaf, root);
		if (r == 0)
			r = inject_call(i, SYS_wait4, args, &got);
		if (space_group_take(run->restore.group, root) != 0)
			log_error("process %d escaped its group", root);
		inject_detach(i);
	}
	if (r != 0 || got != run->sender)
		log_warning("process %d keeps a dead child %d of criu's", root, run->sender);
}

static void kill_tree(struct criu_run *run)
{
	struct space_group *group = run->restore.group;

	(void)space_group_freeze(run->leaf, FREEZE_SHORT);
	(void)space_group_freeze(group, FREEZE_SHORT);
	/* criu first, which might have more of it born; whether that works is seen at its end. */
	(void)space_group_kill(run->leaf, KILL_MAX);
	if (space_group_kill(group, KILL_MAX) != 0)
		log_error("what was restored of process %d would not die", run->restore.root);
}

void criu_restore_end(struct criu_run *run, bool ok)
{
	bool in_place = run->restore.in_place;

	if (ok && in_place)
		return bury_coordinator(run);
	if (ok)
		return;
	/* It gave up in order: the shadow stands again. */
	if (in_place && !run->stop && run->hung_up && !run->taken)
		move_shadow_back(run);
	kill_tree(run);
}

/* The beginning. */

static int ask(struct criu_run *run, int fd)
{
	const struct criu_restore_spec *s = &run->restore;
	Ssi__Criu__InheritFd inherit[SPACE_FDS_MAX], *list[SPACE_FDS_MAX];
	Ssi__Criu__Request q = SSI__CRIU__REQUEST__INIT;
	Ssi__Criu__Options o;

	criu_swrk_options(run, image_store_dir_fd(s->images), &o);
	for (size_t i = 0; i < s->n_inherit; i++) {
		ssi__criu__inherit_fd__init(&inherit[i]);
		inherit[i].key = (char *)s->inherit[i].key;
		inherit[i].fd = 4 + (int)i;
		list[i] = &inherit[i];
	}
	o.inherit_fd = list;
	o.n_inherit_fd = s->n_inherit;
	o.has_notify_scripts = o.has_rst_sibling = o.has_shell_job = o.has_auto_dedup = true;
	o.auto_dedup = true;
	o.has_lazy_pages = o.lazy_pages = s->pages != NULL;
	o.notify_scripts = true;
	o.rst_sibling = !s->in_place;
	o.shell_job = s->sid != s->root;
	o.has_restore_in_place = s->in_place;
	o.has_in_place_fallback_fd = o.has_in_place_keep_fd = s->in_place;
	o.restore_in_place = s->in_place;
	o.in_place_fallback_fd = 4 + (int)s->n_inherit;
	o.in_place_keep_fd = o.in_place_fallback_fd + 1; /* the shadow's own, behind ours */
	o.has_restore_cgroup_fd = !s->in_place;
	o.restore_cgroup_fd = space_group_fd(s->group);
	q.type = SSI__CRIU__TYPE__RESTORE;
	q.opts = &o;
	return criu_swrk_send(fd, &q);
}

static int exec_in_place(struct criu_run *run, int theirs)
{
	const struct criu_restore_spec *s = &run->restore;
	_cleanup_close_ int fallback = -1;
	int fds[SPACE_FDS_MAX] = { theirs }, r;
	_cleanup_free_ char *path = NULL;

	if (asprintf(&path, "%s/ssi-shadow", run->criu->libexec_dir) < 0)
		return err_origin(-ENOMEM);
	fallback = open(path, O_PATH | O_CLOEXEC);
	if (fallback < 0)
		return err_origin(-errno);
	for (size_t i = 0; i < s->n_inherit; i++)
		fds[1 + i] = s->inherit[i].fd;
	fds[1 + s->n_inherit] = fallback;
	r = move_shadow_in(run);
	if (r == 0)
		r = s->exec_in_place(run->owner, run->criu->path, fds, 2 + s->n_inherit);
	return err_fold(r);
}

/* Whose place must be held for the root to have it?  See above. */
static bool needs_session(const struct criu_restore_spec *s)
{
	return s->sid > 0 && s->sid != s->root;
}

static bool needs_group(const struct criu_restore_spec *s)
{
	return s->sid != s->root && s->pgid > 0 && s->pgid != s->sid && s->pgid != s->root;
}

/* criu itself, or a placeholder which becomes it.  SPACE_E_*. */
static int spawn(struct criu_run *run, int theirs)
{
	const struct criu_restore_spec *s = &run->restore;
	bool session = needs_session(s), group = needs_group(s);
	char sid[16], pgid[16];
	_cleanup_free_ char *path = NULL;
	const char *const placeholder[] = { NULL, sid, pgid, run->criu->path,
					    "--no-default-config", "swrk", "3", NULL };
	const char *argv[N_ELEMENTS(placeholder)];

	if (!session && !group)
		return criu_run_spawn(run, NULL, 0, theirs, true);
	if (asprintf(&path, "%s/ssi-placeholder", run->criu->libexec_dir) < 0)
		return err_origin(-ENOMEM);
	(void)snprintf(sid, sizeof(sid), "%d", session ? s->sid : 0);
	(void)snprintf(pgid, sizeof(pgid), "%d", group ? s->pgid : 0);
	memcpy(argv, placeholder, sizeof(argv));
	argv[0] = path;
	/* The session's placeholder leaves as soon as it has made the group's. */
	return criu_run_spawn(run, argv, session ? s->sid : s->pgid, theirs, !(session && group));
}

static int start(struct criu_run *run)
{
	const struct criu_restore_spec *s = &run->restore;
	_cleanup_close_ int ours = -1, theirs = -1;
	int ends[2], r;

	r = criu_run_socket(ends);
	if (r < 0)
		return r;
	ours = ends[0];
	theirs = ends[1];
	if (s->pages)
		r = pages_placer_listen(s->pages, run->dir_fd);
	if (r == 0)
		r = ask(run, ours);
	if (r == 0)
		r = criu_run_begin(run, TAKE_FD(ours));
	if (r < 0)
		return r;
	if (s->in_place)
		return exec_in_place(run, theirs);
	r = spawn(run, theirs);
	if (r == SPACE_E_PID_TAKEN) {
		criu_run_stop(run, "session %d of process %d exists here already, and only a "
				   "process born in it can enter it", s->sid, s->root);
		return 0;
	}
	return err_fold(r);
}

/* Any criu will do that inherits nothing, no session, no descriptors, no bound. */
static struct criu_run *take(struct criu *c, const struct criu_restore_spec *s,
			     criu_done_cb done, void *owner)
{
	if (s->in_place || s->n_inherit || needs_session(s) || needs_group(s) ||
	    space_pids_are_few(c->space))
		return NULL;
	return criu_run_take(c, CRIU_RUN_RESTORE, s->timeout, done, owner);
}

int criu_restore(struct criu *c, const struct criu_restore_spec *spec, criu_done_cb done,
		 void *owner, struct criu_run **ret)
{
	struct criu_run *run;
	int r;

	if (spec->n_inherit > SPACE_FDS_MAX - 2)
		return err_origin(-E2BIG);
	if (spec->in_place && !c->features.restore_in_place)
		return err_origin(-EOPNOTSUPP);
	run = take(c, spec, done, owner);
	if (run) {
		run->restore = *spec;
		if ((spec->pages &&
		     pages_placer_listen(spec->pages, run->dir_fd) < 0) ||
		    ask(run, run->talk.fd) < 0)
			criu_run_stop(run, "criu cannot be asked");
		*ret = run;
		return 0;
	}
	r = criu_run_new(c, CRIU_RUN_RESTORE, spec->timeout, done, owner, &run);
	if (r < 0)
		return r;
	run->restore = *spec;
	r = start(run);
	if (r < 0) {
		if (run->home)
			move_shadow_back(run);
		criu_run_free(run);
		return r;
	}
	*ret = run;
	return 0;
}
