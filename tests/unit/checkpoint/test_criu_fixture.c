#include "test_criu_fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>

#define COUNTERS "/mnt/counters"
#define LIBEXEC "/mnt/libexec"

/* Of groups and stores, never used again: a failed test may leave one. */
static unsigned n_names;

static const char *placeholder_dir, *criu_path, *victim_path;

int criu_fixture_main(int argc, char **argv, int (*tests)(void))
{
	if (argc < 5 || access(argv[3], X_OK) < 0) {
		(void)printf("1..0 # skip no criu at %s: run setup/setup --tests\n",
			     argc > 3 ? argv[3] : "(not given)");
		return 77;
	}
	/* criu keeps what it learned of the kernel in /run, if that is a tmpfs. */
	if (geteuid() == 0 &&
	    (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	     mount("tmpfs", "/run", "tmpfs", 0, NULL) < 0)) {
		perror("a private /run");
		return 99;
	}
	placeholder_dir = argv[2];
	criu_path = argv[3];
	victim_path = argv[4];
	return fixture_main(argc, argv, tests);
}

const char *criu_fixture_criu(void)
{
	return criu_path;
}

const char *criu_fixture_victim(void)
{
	return victim_path;
}

/* The loop. */

struct waiting {
	struct criu_fixture *f;
	bool (*done)(void *owner);
	void *owner;
	struct env_timer timer;
	nsec_t deadline;
};

static void on_tick(struct env_timer *timer)
{
	struct waiting *w = container_of(timer, struct waiting, timer);

	if ((w->done && w->done(w->owner)) || env_now(w->f->env) >= w->deadline)
		env_event_stop(w->f->loop);
	else
		(void)env_arm(w->f->env, timer, 500 * NSEC_PER_USEC);
}

static void turn(struct criu_fixture *f, nsec_t span, bool (*done)(void *owner), void *owner)
{
	struct waiting w = { .f = f, .done = done, .owner = owner,
			     .deadline = env_now(f->env) + span };

	w.timer.cb = on_tick;
	assert_int_equal(env_arm(f->env, &w.timer, 0), 0);
	assert_true(env_event_run(f->loop) >= 0);
	env_disarm(f->env, &w.timer);
}

void criu_fixture_wait(struct criu_fixture *f, bool (*done)(void *owner), void *owner)
{
	turn(f, 60 * NSEC_PER_SEC, done, owner);
	assert_true(done(owner));
}

void criu_fixture_turn(struct criu_fixture *f, nsec_t span)
{
	turn(f, span, NULL, NULL);
}

/* Opening and closing. */

static void on_exit_told(void *owner, const struct space_exit *exit)
{
	struct criu_fixture *f = owner;

	if (f->n_exits < N_ELEMENTS(f->exits))
		f->exits[f->n_exits++] = *exit;
}

static void on_stop_told(void *owner, pid_t pid, int signal)
{
}

static void on_lost_told(void *owner)
{
	fail_msg("the space is lost");
}

/* criu_victim is the shadow, too. */
static void make_libexec(void)
{
	char path[512];

	(void)snprintf(path, sizeof(path), "%s/ssi-placeholder", placeholder_dir);
	(void)mkdir(LIBEXEC, 0755);
	(void)symlink(path, LIBEXEC "/ssi-placeholder");
	(void)symlink(victim_path, LIBEXEC "/ssi-shadow");
}

static bool is_known(void *owner)
{
	const struct criu_fixture *f = owner;

	return criu_features(f->criu)->known;
}

void criu_fixture_install(struct criu_fixture *f, const char *path)
{
	struct criu_config config = { .path = path, .libexec_dir = LIBEXEC,
				      .private_dir_fd = f->private_dir_fd };

	f->criu = criu_free(f->criu);
	assert_int_equal(criu_new(&f->criu, f->env, f->space, &config), 0);
	criu_fixture_wait(f, is_known, f);
}

void criu_fixture_open(struct criu_fixture *f)
{
	static const struct space_events events = { on_exit_told, on_stop_told, on_lost_told };
	int fd;

	*f = (struct criu_fixture){ 0 };
	make_libexec();
	assert_int_equal(env_event_new(&f->loop), 0);
	f->env = env_event_env(f->loop);
	assert_int_equal(space_new(&f->space, f->env, &fixture_config, &events, f), 0);
	f->private_dir_fd = open(fixture_config.private_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	criu_fixture_install(f, criu_path);
	fd = open(COUNTERS, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	assert_true(fd >= 0 && ftruncate(fd, 4096) == 0 && fchmod(fd, 0666) == 0);
	f->counters = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	memset((void *)f->counters, 0, 4096);
}

void criu_fixture_close(struct criu_fixture *f)
{
	(void)munmap((void *)f->counters, 4096);
	f->criu = criu_free(f->criu);
	f->space = space_free(f->space);
	close(f->private_dir_fd);
	f->loop = env_event_free(f->loop);
}

/* Victims. */

static struct space_group *new_group(struct criu_fixture *f)
{
	struct space_group *g;
	char name[32];

	(void)snprintf(name, sizeof(name), "test.%u", ++n_names);
	assert_int_equal(space_group_open(f->space, name, &g), 0);
	return g;
}

static bool counts_at_all(void *owner)
{
	const struct criu_fixture *f = owner;

	return f->counters[0] > 0;
}

struct victim victim_start(struct criu_fixture *f, const char *mode, const char *number,
			   const int *fds, size_t n_fds)
{
	const char *const argv[] = { victim_path, COUNTERS, mode, number, NULL };
	struct victim v = { .group = new_group(f) };
	struct space_spawn spec = { .argv = argv, .fds = fds, .n_fds = n_fds,
				    .group_fd = space_group_fd(v.group),
				    .flags = SPACE_SPAWN_TRACK };

	memset((void *)f->counters, 0, 4096);
	assert_int_equal(space_spawn(f->space, &spec, &v.pid, NULL), 0);
	criu_fixture_wait(f, counts_at_all, f);
	return v;
}

void victim_end(struct criu_fixture *f, struct victim *v)
{
	assert_int_equal(space_group_kill(v->group, 20 * NSEC_PER_SEC), 0);
	v->group = space_group_close(v->group);
	criu_fixture_turn(f, 20 * NSEC_PER_MSEC);
	assert_int_equal(space_reap(f->space, v->pid), 0);
}

bool victim_counts(struct criu_fixture *f, int slot)
{
	uint64_t before = f->counters[slot];

	/* On a busy machine its turn comes late. */
	for (int i = 0; i < 20000 && f->counters[slot] == before; i++)
		criu_fixture_turn(f, NSEC_PER_MSEC);
	return f->counters[slot] != before;
}

bool victim_stands(struct criu_fixture *f, int slot)
{
	uint64_t before = f->counters[slot];

	criu_fixture_turn(f, 50 * NSEC_PER_MSEC);
	return f->counters[slot] == before;
}

/* Runs. */

void on_outcome(void *owner, bool ok, const char *text)
{
	struct outcome *o = owner;

	assert_false(o->done);
	o->done = true;
	o->ok = ok;
	(void)snprintf(o->text, sizeof(o->text), "%s", text);
}

bool outcome_is_there(void *owner)
{
	return ((struct outcome *)owner)->done;
}

struct image_store *fixture_store(struct criu_fixture *f, uint64_t max_bytes)
{
	struct image_store *s;
	char name[32];

	(void)snprintf(name, sizeof(name), "store.%u", ++n_names);
	assert_int_equal(image_store_new(&s, f->private_dir_fd, name, max_bytes), 0);
	return s;
}

struct outcome fixture_dump(struct criu_fixture *f, const struct victim *v, pid_t root,
			    bool shell_job, struct image_store *store)
{
	struct criu_dump_spec spec = { .root = root, .group = v->group, .shell_job = shell_job,
				       .sink = image_store_sink(store),
				       .timeout = 60 * NSEC_PER_SEC };
	struct outcome o = { 0 };
	struct criu_run *run;
	nsec_t start;

	assert_int_equal(space_group_freeze(v->group, 10 * NSEC_PER_SEC), 0);
	start = env_now(f->env);
	assert_int_equal(criu_dump(f->criu, &spec, on_outcome, &o, &run), 0);
	criu_fixture_wait(f, outcome_is_there, &o);
	o.took = env_now(f->env) - start;
	return o;
}

struct outcome fixture_restore(struct criu_fixture *f, struct criu_restore_spec spec,
			       const struct image_store *store, struct space_group **ret)
{
	struct outcome o = { 0 };
	struct criu_run *run;
	nsec_t start = env_now(f->env);

	spec.images = store;
	spec.group = *ret = new_group(f);
	spec.timeout = spec.timeout ? spec.timeout : 60 * NSEC_PER_SEC;
	assert_int_equal(criu_restore(f->criu, &spec, on_outcome, &o, &run), 0);
	criu_fixture_wait(f, outcome_is_there, &o);
	o.took = env_now(f->env) - start;
	return o;
}

static int count_name(void *owner, const char *name)
{
	(*(size_t *)owner)++;
	return 0;
}

size_t fixture_left(struct criu_fixture *f)
{
	DIR *dir = opendir(fixture_config.private_dir);
	struct dirent *e;
	size_t n = 0;

	assert_int_equal(space_group_each(f->space, "criu.", count_name, &n), 0);
	assert_non_null(dir);
	while ((e = readdir(dir)))
		n += strncmp(e->d_name, "criu.", 5) == 0;
	(void)closedir(dir);
	return n;
}

int fixture_stat(struct criu_fixture *f, pid_t pid, int field)
{
	char path[32], text[512] = { 0 };
	_cleanup_close_ int fd = -1;
	const char *p;

	(void)snprintf(path, sizeof(path), "%d/stat", pid);
	fd = openat(space_proc_fd(f->space), path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		return -1;
	p = strrchr(text, ')');
	for (int i = 2; p && i < field; i++)
		p = strchr(p + 1, ' ');
	return p ? atoi(p) : -1;
}

bool fixture_has_zombie_child(struct criu_fixture *f, pid_t pid)
{
	_cleanup_close_ int proc = openat(space_proc_fd(f->space), ".", O_RDONLY | O_CLOEXEC);
	DIR *dir = fdopendir(proc);
	struct dirent *e;
	bool found = false;

	assert_non_null(dir);
	TAKE_FD(proc);
	while (!found && (e = readdir(dir)))
		found = atoi(e->d_name) > 0 && fixture_stat(f, atoi(e->d_name), 4) == pid;
	(void)closedir(dir);
	return found;
}
