/*
 * The installation of criu: which one it is and what it can do here.
 *
 * Version and `criu check` are asked of criu itself, by a run like any other,
 * while the loop turns; until it is over check_ok is false.  Our patches are
 * known by the words that they add to the program: to the one at the path, and
 * then to the one that answers, for the path may be a script's.  They decide what is
 * refused before it is tried; how images come is told by the dump itself.
 */
#include "criu_internal.h"

#include "err.h"
#include "image_internal.h"
#include "log.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define CHECK_MAX (30 * NSEC_PER_SEC)
#define CHECK_PAUSE (5 * NSEC_PER_SEC) /* before another one, when it failed */
#define KILL_MAX (5 * NSEC_PER_SEC)

/* Text that only the patched program holds. */
static const char mark_stream[] = "Streaming is for dump and restore only";
static const char mark_limits[] = "Can't parse /proc/%d/limits";
static const char mark_in_place[] = "in_place_fallback_fd";
static const char mark_leave_pages[] = "Pages can be left in tasks that live on";

static bool may_set_limits(void)
{
	unsigned long long effective = 0;
	FILE *f = fopen("/proc/self/status", "re");
	char line[256];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "CapEff: %llx", &effective) == 1)
			break;
	if (f)
		(void)fclose(f);
	return effective >> CAP_SYS_RESOURCE & 1;
}

static void look_into(struct criu *c, int fd)
{
	struct criu_features *f = &c->features;
	struct stat st;
	void *p;

	f->user_processes = may_set_limits();
	if (fd < 0 || fstat(fd, &st) < 0 || st.st_size <= 0)
		return;
	p = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		return;
	f->stream = memmem(p, st.st_size, mark_stream, sizeof(mark_stream) - 1);
	f->restore_in_place = memmem(p, st.st_size, mark_in_place, sizeof(mark_in_place) - 1);
	f->leave_pages =
		memmem(p, st.st_size, mark_leave_pages, sizeof(mark_leave_pages) - 1);
	f->user_processes |= memmem(p, st.st_size, mark_limits, sizeof(mark_limits) - 1) != NULL;
	(void)munmap(p, st.st_size);
}

void criu_look_at(struct criu *c, pid_t pid)
{
	_cleanup_close_ int fd = -1;
	char path[32];

	(void)snprintf(path, sizeof(path), "%d/exe", pid);
	fd = openat(space_proc_fd(c->space), path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		look_into(c, fd);
}

/* It may have failed for want of memory or PIDs, when we began: not for ever. */
static void on_checked(void *owner, bool ok, const char *text)
{
	struct criu *c = owner;
	bool told = c->features.known && !ok;

	c->features.known = true;
	c->features.check_ok = ok;
	(void)snprintf(c->features.problem, sizeof(c->features.problem), "%s", text);
	if (!ok)
		(void)env_arm(c->env, &c->check_again, CHECK_PAUSE);
	if (!ok && !told)
		log_warning("criu does not work here, nothing can be moved or saved: %s", text);
	else if (!ok)
		log_debug("criu does not work here yet: %s", text);
	else if (!c->features.stream || !c->features.leave_pages ||
		 !c->features.restore_in_place || !c->features.user_processes)
		log_notice("criu %s lacks patches, not all can be moved, or as fast: "
			   "see ssi doctor",
			   c->features.version);
}

static int ask(int fd)
{
	Ssi__Criu__Request version = SSI__CRIU__REQUEST__INIT, check = SSI__CRIU__REQUEST__INIT;
	int r;

	version.type = SSI__CRIU__TYPE__VERSION;
	version.has_keep_open = version.keep_open = true;
	check.type = SSI__CRIU__TYPE__CHECK;
	r = criu_swrk_send(fd, &version);
	return r < 0 ? r : criu_swrk_send(fd, &check);
}

static int start_check(struct criu *c)
{
	_cleanup_close_ int ours = -1, theirs = -1;
	struct criu_run *run;
	int ends[2], r;

	r = criu_run_new(c, CRIU_RUN_CHECK, CHECK_MAX, on_checked, c, &run);
	if (r < 0)
		return r;
	r = criu_run_socket(ends);
	if (r == 0) {
		ours = ends[0];
		theirs = ends[1];
		r = ask(ours);
	}
	if (r == 0)
		r = criu_run_begin(run, TAKE_FD(ours));
	if (r == 0)
		r = criu_run_spawn(run, NULL, 0, theirs, true);
	if (r != 0)
		criu_run_free(run);
	return err_fold(r);
}

static void on_check_again(struct env_timer *timer)
{
	struct criu *c = container_of(timer, struct criu, check_again);

	if (start_check(c) < 0)
		on_checked(c, false, "it cannot be started");
}

int criu_new(struct criu **ret, const struct env *env, struct space *space,
	     const struct criu_config *config)
{
	struct criu *c = calloc(1, sizeof(*c));
	_cleanup_close_ int program = -1;
	int r = 0;

	if (!c)
		return err_origin(-ENOMEM);
	*c = (struct criu){ .env = env, .space = space, .path = strdup(config->path),
			    .libexec_dir = strdup(config->libexec_dir) };
	c->check_again.cb = on_check_again;
	c->private_dir_fd = fcntl(config->private_dir_fd, F_DUPFD_CLOEXEC, 3);
	if (c->private_dir_fd < 0)
		r = err_origin(-errno);
	if (!c->path || !c->libexec_dir)
		r = err_origin(-ENOMEM);
	if (r == 0)
		r = criu_sweep(c);
	if (r < 0) {
		criu_free(c);
		return r;
	}
	program = open(c->path, O_RDONLY | O_CLOEXEC);
	look_into(c, program);
	r = start_check(c);
	if (r < 0)
		on_checked(c, false, "it cannot be started");
	*ret = c;
	return 0;
}

/* Nobody is told; what is on another thread ends by itself. */
static void abandon(struct criu_run *run)
{
	bool working = run->sm.state == CRIU_RUN_ENDING || run->sm.state == CRIU_RUN_HOLDING;

	if (run->sm.state != CRIU_RUN_ENDING)
		(void)space_group_kill(run->leaf, KILL_MAX);
	if (!working) {
		criu_run_free(run);
		return;
	}
	env_disarm(run->criu->env, &run->deadline);
	env_unwatch(run->criu->env, &run->talk);
	env_unwatch(run->criu->env, &run->life);
	criu_stream_stop(run->stream);
	run->criu = NULL;
}

struct criu *criu_free(struct criu *c)
{
	struct criu_run *run;

	if (!c)
		return NULL;
	env_disarm(c->env, &c->check_again);
	while ((run = c->runs)) {
		c->runs = run->next;
		abandon(run);
	}
	close_fd(c->private_dir_fd);
	free(c->libexec_dir);
	free(c->path);
	free(c);
	return NULL;
}

const struct criu_features *criu_features(const struct criu *c)
{
	return &c->features;
}

bool criu_may_dump(const struct criu *c, const struct inventory *i, char *ret_text,
		   size_t size)
{
	if (c->features.user_processes)
		return true;
	for (size_t k = 0; k < i->n_tasks; k++) {
		const struct inventory_task *t = &i->tasks[k];

		if (t->uid == 0 && t->gid == 0)
			continue;
		(void)snprintf(ret_text, size,
			       "%d (%s) is not root's, and without CAP_SYS_RESOURCE an unpatched "
			       "criu dumps no other; setup/criu builds one that does",
			       t->pid, t->comm);
		return false;
	}
	return true;
}

/* What a predecessor left. */

struct left {
	struct criu *criu;
	char names[256][32];
	size_t n;
};

static int on_leaf(void *owner, const char *name)
{
	struct left *l = owner;
	unsigned long long number;

	if (l->n == N_ELEMENTS(l->names) || sscanf(name, "criu.%llu", &number) != 1)
		return 0;
	(void)snprintf(l->names[l->n++], sizeof(l->names[0]), "%s", name);
	if (number > l->criu->n_runs)
		l->criu->n_runs = number;
	return 0;
}

static bool is_ours(const struct criu *c, const char *name)
{
	for (const struct criu_run *run = c->runs; run; run = run->next)
		if (strcmp(run->name, name) == 0)
			return true;
	return false;
}

static int sweep_leaf(struct criu *c, const char *name)
{
	struct space_group *g;
	int r;

	if (is_ours(c, name))
		return 0;
	r = space_group_open(c->space, name, &g);
	if (r < 0)
		return r;
	r = space_group_kill(g, KILL_MAX);
	space_group_close(g);
	if (r > 0)
		log_error("%s: what a predecessor left in it would not die", name);
	return r < 0 ? r : 0;
}

static void sweep_directories(struct criu *c)
{
	int fd = openat(c->private_dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!dir) {
		close_fd(fd);
		return;
	}
	while ((e = readdir(dir)))
		if (strncmp(e->d_name, "criu.", 5) == 0 && !is_ours(c, e->d_name))
			(void)image_directory_remove(c->private_dir_fd, e->d_name);
	(void)closedir(dir);
}

int criu_sweep(struct criu *c)
{
	struct left left = { .criu = c };
	int r = space_group_each(c->space, "criu.", on_leaf, &left);

	for (size_t i = 0; r == 0 && i < left.n; i++)
		r = sweep_leaf(c, left.names[i]);
	sweep_directories(c);
	return r;
}
