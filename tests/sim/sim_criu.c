/*
 * A criu: it dumps a frozen tree into a few files, and makes one of them again.
 *
 * Runs take a while, in which ssid may be killed and processes end, and fail by chance.
 * What a killed ssid's restore has made so far stays in criu's leaf until a successor
 * sweeps it.  In place is not done: the shadow refuses, and such moves are refused when
 * they are asked for, as with a criu that is not patched.
 */
#include "sim_proc.h"

#include "cleanup.h"
#include "criu.h"
#include "inventory_internal.h"
#include "manifest.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

/* Inventories: the tree, and nothing else. */

static void add_below(struct inventory *i, struct sim_machine *m, pid_t parent, bool root)
{
	struct sim_process *p;

	LIST_FOREACH(p, &m->processes, in) {
		struct inventory_task t = { .pid = p->pid,
					    .ppid = root ? 0 : p->ppid,
					    .pgid = p->pgid,
					    .sid = p->sid,
					    .uid = p->uid,
					    .n_threads = 1,
					    .capabilities = p->capabilities,
					    .rss_bytes = 1 << 20 };

		if (p->zombie || (root ? p->pid : p->ppid) != parent)
			continue;
		strcpy(t.comm, p->shadow ? "ssi-shadow" : "simulated");
		(void)inventory_add_task(i, &t);
		add_below(i, m, p->pid, false);
	}
}

int inventory_take(struct inventory **ret, struct space *space, pid_t root)
{
	struct inventory *i = calloc(1, sizeof(*i));
	unsigned none;

	assert(i);
	(void)inventory_add_file_system(i, "none", &none);
	add_below(i, sim_machine_of(space), root, true);
	if (!i->n_tasks) {
		inventory_free(i);
		return -ESRCH;
	}
	*ret = i;
	return 0;
}

int inventory_give_capabilities(const struct inventory *i, struct space *space)
{
	for (size_t k = 0; k < i->n_tasks; k++) {
		struct sim_process *p = sim_find(sim_machine_of(space), i->tasks[k].pid);

		if (!p)
			return -ESRCH;
		p->capabilities = i->tasks[k].capabilities;
	}
	return 0;
}

int inventory_find_shared(struct inventory *i, int proc_fd)
{
	(void)i;
	(void)proc_fd;
	return 0;
}

static int refuse(char **ret_text, const char *text)
{
	*ret_text = strdup(text);
	assert(*ret_text);
	return INVENTORY_E_BLOCKED;
}

static struct inventory_things *no_things(void)
{
	struct inventory_things *t = calloc(1, sizeof(*t));

	assert(t);
	return t;
}

int inventory_verdict(const struct inventory *i, const struct inventory_allow *allow,
		      struct space *space, char **ret_text,
		      struct inventory_things **ret_things)
{
	(void)allow;
	(void)space;
	if (ret_things)
		*ret_things = no_things();
	for (size_t k = 0; k < i->n_tasks; k++)
		if (!strcmp(i->tasks[k].comm, "ssi-shadow"))
			return refuse(ret_text, "one of it is away");
	if (!sim_kernel->calm && world_chance(sim_kernel->w, 20))
		return refuse(ret_text, "io_uring");
	return 0;
}

int inventory_present(const struct inventory *i, struct space *space, bool same_node,
		      char **ret_text, struct inventory_things **ret_things)
{
	(void)i;
	(void)space;
	(void)same_node;
	if (ret_things)
		*ret_things = no_things();
	if (!sim_kernel->calm && world_chance(sim_kernel->w, 20))
		return refuse(ret_text, "no such file");
	return 0;
}

int inventory_compare(const struct inventory *saved, const struct inventory *restored,
		      struct space *space, bool same_node, char **ret_text)
{
	(void)space;
	(void)same_node;
	if (saved->n_tasks != restored->n_tasks)
		return refuse(ret_text, "not as many processes");
	for (size_t k = 0; k < saved->n_tasks; k++)
		if (!inventory_find_task(restored, saved->tasks[k].pid))
			return refuse(ret_text, "another process");
	if (!sim_kernel->calm && world_chance(sim_kernel->w, 20))
		return refuse(ret_text, "another file");
	return 0;
}

/* What any processor has: nothing is looked up in this machine's. */
int manifest_own_cpu_flags(char **ret)
{
	*ret = strdup("fpu");
	return *ret ? 0 : -ENOMEM;
}

int manifest_missing_cpu_flags(const struct manifest *m, char **ret)
{
	(void)m;
	*ret = NULL;
	return 0;
}

/* Images, in memory. */

enum { FILES = 8 };

struct image_store {
	size_t n;
	struct {
		char name[32];
		uint8_t *data;
		size_t len;
		bool closed;
	} files[FILES];
	uint64_t bytes, max;
};

int image_store_new(struct image_store **ret, int dir_fd, const char *name, uint64_t max_bytes)
{
	(void)dir_fd;
	(void)name;
	*ret = calloc(1, sizeof(**ret));
	assert(*ret);
	(*ret)->max = max_bytes;
	return 0;
}

struct image_store *image_store_free(struct image_store *s)
{
	for (size_t i = 0; s && i < s->n; i++)
		free(s->files[i].data);
	free(s);
	return NULL;
}

static int file_of(struct image_store *s, const char *name)
{
	for (size_t i = 0; i < s->n; i++)
		if (!strcmp(s->files[i].name, name))
			return (int)i;
	if (s->n == FILES)
		return -1;
	(void)snprintf(s->files[s->n].name, sizeof(s->files[0].name), "%s", name);
	return (int)s->n++;
}

static int on_write(void *owner, const char *file, const void *data, size_t len)
{
	struct image_store *s = owner;
	int i = file_of(s, file);

	if (i < 0 || s->files[i].closed)
		return IMAGE_E_NAME;
	if (s->bytes + len > s->max)
		return IMAGE_E_FULL;
	s->files[i].data = realloc(s->files[i].data, s->files[i].len + len + 1);
	assert(s->files[i].data);
	memcpy(s->files[i].data + s->files[i].len, data, len);
	s->files[i].len += len;
	s->bytes += len;
	return 0;
}

static int on_close(void *owner, const char *file)
{
	struct image_store *s = owner;
	int i = file_of(s, file);

	if (i < 0 || s->files[i].closed)
		return IMAGE_E_NAME;
	s->files[i].closed = true;
	return 0;
}

struct image_sink image_store_sink(struct image_store *s)
{
	return (struct image_sink){ on_write, on_close, s };
}

int image_store_prepare(struct image_store *s)
{
	(void)s;
	return 0;
}

/* Runs. */

struct image_task {
	pid_t pid, ppid, pgid, sid;
	uid_t uid;
	uint64_t step;
	unsigned pending;
	bool stopped;
	unsigned n_pieces; /* that are not in the images */
};

enum { TASKS = 32, PIECE = 48 << 10 };

struct criu_run {
	LIST_ENTRY(criu_run) in;
	struct criu *criu;
	struct env_timer timer;
	criu_done_cb done;
	void *owner;
	bool dumps, paused, cancelled, stands;
	const char *problem;
	struct criu_dump_spec dump;
	struct criu_restore_spec restore;
	struct image_task tasks[TASKS];
	size_t n_tasks;
	unsigned n_pieces;
	struct space_group *leaf;
};

struct criu {
	const struct env *env;
	struct space *space;
	struct sim_machine *machine;
	struct criu_features features;
	LIST_HEAD(, criu_run) runs;
};

static void again(struct criu_run *run, unsigned max_ms)
{
	(void)env_arm(run->criu->env, &run->timer,
		      world_below(sim_kernel->w, max_ms * NSEC_PER_MSEC));
}

static bool fails(void)
{
	return !sim_kernel->calm && world_chance(sim_kernel->w, 25);
}

static struct criu_run *run_free(struct criu_run *run)
{
	env_disarm(run->criu->env, &run->timer);
	LIST_REMOVE(run, in);
	space_group_close(run->leaf);
	free(run);
	return NULL;
}

static void finish(struct criu_run *run, const char *problem)
{
	criu_done_cb done = run->done;
	void *owner = run->owner;

	run_free(run);
	done(owner, !problem, problem ? problem : "");
}

/* Dumps. */

static bool is_frozen(const struct criu_run *run, pid_t pid)
{
	struct sim_process *p = sim_find(run->criu->machine, pid);

	return p && !p->zombie && p->group && p->group->frozen;
}

static void dump_tree(struct criu_run *run)
{
	struct sim_machine *m = run->criu->machine;
	struct inventory *i;

	if (inventory_take(&i, run->criu->space, run->dump.root) != 0) {
		run->problem = "it is gone";
		return;
	}
	assert(i->n_tasks <= TASKS);
	for (size_t k = 0; k < i->n_tasks; k++) {
		struct sim_process *p = sim_find(m, i->tasks[k].pid);

		world_check(sim_kernel->w, is_frozen(run, p->pid),
			    "process %d is dumped and not frozen", p->pid);
		run->tasks[run->n_tasks++] =
			(struct image_task){p->pid,
					    k ? p->ppid : 0,
					    p->pgid,
					    p->sid,
					    p->uid,
					    p->step,
					    p->pending,
					    p->stopped,
					    run->dump.leave_pages ? p->n_pieces : 0};
	}
	inventory_free(i);
	if (run->dump.sink.write(run->dump.sink.owner, "tree.img", run->tasks,
				 run->n_tasks * sizeof(run->tasks[0])) != 0 ||
	    run->dump.sink.close(run->dump.sink.owner, "tree.img") != 0)
		run->problem = "its images are not taken";
	if (!run->dump.leave_pages)
		run->n_pieces = (unsigned)world_below(sim_kernel->w, 5);
}

static void dump_piece(struct criu_run *run)
{
	static const uint8_t pages[PIECE];
	const struct image_sink *sink = &run->dump.sink;

	if (sink->write(sink->owner, "pages.img", pages,
			1 + world_below(sim_kernel->w, sizeof(pages))) != 0 ||
	    (--run->n_pieces == 0 && sink->close(sink->owner, "pages.img") != 0))
		run->problem = "its images are not taken";
}

static void step_dump(struct criu_run *run)
{
	if (run->cancelled)
		return finish(run, "cancelled");
	if (run->problem)
		return finish(run, run->problem);
	if (run->paused)
		return;
	if (!run->n_tasks)
		dump_tree(run);
	else if (run->n_pieces)
		dump_piece(run);
	else if (fails())
		return finish(run, "criu has failed");
	else {
		for (size_t k = 0; k < run->n_tasks; k++)
			if (!is_frozen(run, run->tasks[k].pid))
				return finish(run, "one of it has ended");
		return finish(run, NULL);
	}
	again(run, 10);
}

/* Restores. */

static void make_task(struct criu_run *run, const struct image_task *t)
{
	struct sim_machine *m = run->criu->machine;
	struct sim_process *p = sim_process_new(m, t->pid, t->ppid ? t->ppid : 1);
	struct sim_soul *soul;

	p->pgid = t->pgid;
	p->sid = t->sid;
	p->uid = t->uid;
	p->step = t->step;
	p->pending = t->pending;
	p->stopped = t->stopped;
	p->missing = (1u << t->n_pieces) - 1;
	p->restoring = true;
	/* Numbers are given again after their soul has ended: the last one. */
	LIST_FOREACH(soul, &m->kernel->souls, in)
		if (soul->pid == t->pid && !p->soul)
			p->soul = soul;
	assert(p->soul);
	p->group = sim_group(m, space_group_path(run->leaf)); /* born there */
}

static bool make_tree(struct criu_run *run)
{
	struct image_store *s = (struct image_store *)run->restore.images;
	int i = file_of(s, "tree.img");

	assert(i >= 0 && s->files[i].closed && s->files[i].len <= sizeof(run->tasks));
	memcpy(run->tasks, s->files[i].data, s->files[i].len);
	run->n_tasks = s->files[i].len / sizeof(run->tasks[0]);
	for (size_t k = 0; k < run->n_tasks; k++)
		if (sim_find(run->criu->machine, run->tasks[k].pid))
			return false;
	for (size_t k = 0; k < run->n_tasks; k++)
		make_task(run, &run->tasks[k]);
	if (run->restore.pages)
		*run->restore.pages =
			(struct pages_placer){run->criu->machine, run->restore.root};
	return true;
}

/* Before its first instruction: into its group, which is frozen. */
static bool hold_tree(struct criu_run *run)
{
	struct sim_machine *m = run->criu->machine;

	sim_group_freeze(m, sim_group(m, space_group_path(run->restore.group)), true);
	for (size_t k = 0; k < run->n_tasks; k++) {
		struct sim_process *p = sim_find(m, run->tasks[k].pid);

		if (!p || p->zombie)
			return false;
	}
	for (size_t k = 0; k < run->n_tasks; k++) {
		if (space_group_take(run->restore.group, run->tasks[k].pid) != 0)
			return false;
		sim_find(m, run->tasks[k].pid)->restoring = false;
	}
	return true;
}

static void give_up(struct criu_run *run, const char *problem)
{
	(void)space_group_kill(run->leaf, NSEC_PER_SEC);
	(void)space_group_kill(run->restore.group, NSEC_PER_SEC);
	finish(run, problem);
}

static void step_restore(struct criu_run *run)
{
	if (run->cancelled)
		return give_up(run, "cancelled");
	if (fails())
		return give_up(run, "criu has failed");
	if (run->stands)
		return finish(run, NULL);
	if (!run->n_tasks) {
		if (!make_tree(run))
			return give_up(run, "a PID is in use");
	} else {
		run->stands = hold_tree(run);
		if (!run->stands)
			return give_up(run, "one of it has ended");
	}
	again(run, 20);
}

static void on_timer(struct env_timer *timer)
{
	struct criu_run *run = container_of(timer, struct criu_run, timer);

	/* It stands as well, but can be killed. */
	if (run->criu->machine->frozen_at && !run->cancelled)
		again(run, 200);
	else if (run->dumps)
		step_dump(run);
	else
		step_restore(run);
}

static struct criu_run *run_new(struct criu *c, criu_done_cb done, void *owner)
{
	struct criu_run *run = calloc(1, sizeof(*run));
	char name[32];

	assert(run);
	run->criu = c;
	run->timer.cb = on_timer;
	run->done = done;
	run->owner = owner;
	(void)snprintf(name, sizeof(name), "criu.%u", ++c->machine->n_criu);
	(void)space_group_open(c->space, name, &run->leaf);
	LIST_INSERT_HEAD(&c->runs, run, in);
	again(run, 40);
	return run;
}

int criu_dump(struct criu *c, const struct criu_dump_spec *spec, criu_done_cb done, void *owner,
	      struct criu_run **ret)
{
	struct criu_run *run = run_new(c, done, owner);

	run->dumps = true;
	run->dump = *spec;
	*ret = run;
	return 0;
}

void criu_dump_pause(struct criu_run *run, bool pause)
{
	run->paused = pause;
	if (!pause)
		again(run, 5);
}

int criu_restore(struct criu *c, const struct criu_restore_spec *spec, criu_done_cb done,
		 void *owner, struct criu_run **ret)
{
	struct criu_run *run;

	if (spec->in_place)
		return -EOPNOTSUPP;
	run = run_new(c, done, owner);
	run->restore = *spec;
	*ret = run;
	return 0;
}

void criu_cancel(struct criu_run *run)
{
	run->cancelled = true;
	again(run, 20);
}

const struct criu_features *criu_features(const struct criu *c)
{
	return &c->features;
}

bool criu_may_dump(const struct criu *c, const struct inventory *i, char *ret_text, size_t size)
{
	(void)c;
	(void)i;
	(void)ret_text;
	(void)size;
	return true;
}

void criu_warm(struct criu *c)
{
	(void)c;
}

int criu_sweep(struct criu *c)
{
	struct sim_group *g;

again:
	LIST_FOREACH(g, &c->machine->groups, in)
		if (!strncmp(g->name, "criu.", 5)) {
			sim_group_kill(c->machine, g);
			LIST_REMOVE(g, in);
			free(g);
			goto again;
		}
	return 0;
}

int criu_new(struct criu **ret, const struct env *env, struct space *space,
	     const struct criu_config *config)
{
	struct criu *c = calloc(1, sizeof(*c));

	(void)config;
	assert(c);
	c->env = env;
	c->space = space;
	c->machine = sim_machine_of(space);
	c->features = (struct criu_features){.known = true,
					     .check_ok = true,
					     .user_processes = true,
					     .stream = true,
					     .leave_pages = true};
	LIST_INIT(&c->runs);
	*ret = c;
	return criu_sweep(c);
}

struct criu *criu_free(struct criu *c)
{
	while (c && !LIST_EMPTY(&c->runs))
		run_free(LIST_FIRST(&c->runs));
	free(c);
	return NULL;
}
