/* Runs of the real criu, in a space of the test's own. */
#include "test_criu_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>

enum { STORE_MAX = 512 << 20 };

static struct criu_fixture fixture, *const f = &fixture;

static int setup(void **state)
{
	criu_fixture_open(f);
	return 0;
}

static int teardown(void **state)
{
	criu_fixture_close(f);
	return 0;
}

static void tell(const char *what, const struct outcome *o)
{
	(void)printf("# %s: %s in %.1f ms%s%s\n", what, o->ok ? "done" : "failed",
		     (double)o->took / NSEC_PER_MSEC, o->text[0] ? ": " : "", o->text);
}

static void criu_is_known_and_what_it_can(void **state)
{
	const struct criu_features *c = criu_features(f->criu);

	assert_true(c->known);
	assert_true(c->check_ok);
	assert_string_equal(c->problem, "");
	assert_string_not_equal(c->version, "");
	(void)printf("# criu %s stream %d in_place %d user_processes %d\n", c->version,
		     c->stream, c->restore_in_place, c->user_processes);
}

/* What it can is that of the program that answers, not of the file at the path. */
static void a_script_that_runs_criu_is_seen_through(void **state)
{
	struct criu_features known = *criu_features(f->criu), seen;
	FILE *script = fopen("/mnt/criu", "we");

	assert_non_null(script);
	(void)fprintf(script, "#!/bin/sh\nexec %s \"$@\"\n", criu_fixture_criu());
	assert_int_equal(fchmod(fileno(script), 0755), 0);
	assert_int_equal(fclose(script), 0);
	criu_fixture_install(f, "/mnt/criu");
	seen = *criu_features(f->criu);
	assert_true(seen.check_ok);
	assert_int_equal(seen.stream, known.stream);
	assert_int_equal(seen.restore_in_place, known.restore_in_place);
	assert_int_equal(seen.user_processes, known.user_processes);
}

static void whose_processes_it_dumps_is_known_beforehand(void **state)
{
	struct inventory_task tasks[] = { { .pid = 400, .comm = "init" },
					  { .pid = 401, .uid = 1000, .comm = "xz" } };
	struct inventory i = { .tasks = tasks, .n_tasks = 1 };
	bool all = criu_features(f->criu)->user_processes;
	char text[256] = "";

	assert_true(criu_may_dump(f->criu, &i, text, sizeof(text)));
	i.n_tasks = 2;
	assert_int_equal(criu_may_dump(f->criu, &i, text, sizeof(text)), all);
	assert_int_equal(strstr(text, "401 (xz)") != NULL, !all);
	tasks[1].uid = 0;
	tasks[1].gid = 100;
	assert_int_equal(criu_may_dump(f->criu, &i, text, sizeof(text)), all);
}

/* Bytes of memory that the images take. */
static uint64_t resident(const struct image_store *store)
{
	uint64_t bytes = 0, size;
	struct stat st;

	for (size_t i = 0; i < image_store_n_files(store); i++) {
		assert_int_equal(fstatat(image_store_dir_fd(store),
					 image_store_file(store, i, &size), &st, 0),
				 0);
		bytes += (uint64_t)st.st_blocks * 512;
	}
	return bytes;
}

/* Dump @v, kill it, restore it frozen; @v is then the restored one. */
static void round_trip(const char *what, struct victim *v, struct criu_restore_spec spec)
{
	struct image_store *store = fixture_store(f, STORE_MAX);
	struct space_group *group;
	struct outcome o;
	uint64_t before;

	if (!spec.root)
		spec.root = spec.sid = spec.pgid = v->pid;
	o = fixture_dump(f, v, spec.root, spec.sid != spec.root, store);
	tell(what, &o);
	assert_true(o.ok);
	(void)printf("# %s: %zu files, %llu bytes\n", what, image_store_n_files(store),
		     (unsigned long long)image_store_bytes(store));
	before = f->counters[0];
	assert_true(victim_stands(f, 0));
	victim_end(f, v);
	assert_int_equal(image_store_prepare(store), 0);
	o = fixture_restore(f, spec, store, &group);
	tell(what, &o);
	assert_true(o.ok);
	assert_in_range(resident(store), 0, 1 << 20);
	image_store_free(store);
	assert_true(victim_stands(f, 0));
	assert_int_equal(f->counters[0], before);
	assert_int_equal(fixture_left(f), 0);
	assert_int_equal(fixture_stat(f, spec.root, 4), 1);
	assert_int_equal(fixture_stat(f, spec.root, 5), spec.pgid);
	assert_int_equal(fixture_stat(f, spec.root, 6), spec.sid);
	*v = (struct victim){ spec.root, group };
	assert_int_equal(space_group_thaw(group), 0);
}

static void a_tiny_process_comes_back_frozen_and_goes_on_when_thawed(void **state)
{
	struct victim v = victim_start(f, "count", NULL, NULL, 0);

	round_trip("tiny", &v, (struct criu_restore_spec){ 0 });
	assert_true(victim_counts(f, 0));
	round_trip("tiny again", &v, (struct criu_restore_spec){ 0 });
	assert_true(victim_counts(f, 0));
	victim_end(f, &v);
}

static bool nothing_is_left(void *owner)
{
	return fixture_left(f) == 0;
}

static void a_warm_criu_dumps_and_restores(void **state)
{
	struct victim v = victim_start(f, "count", NULL, NULL, 0);
	struct image_store *store = fixture_store(f, STORE_MAX);
	struct criu_restore_spec spec = { .root = v.pid, .sid = v.pid, .pgid = v.pid };
	struct outcome o;

	criu_warm(f->criu);
	criu_warm(f->criu);
	assert_int_equal(fixture_left(f), 2); /* one leaf, one directory */
	o = fixture_dump(f, &v, v.pid, false, store);
	tell("warm", &o);
	assert_true(o.ok);
	/* Another would still stand. */
	assert_int_equal(fixture_left(f), 0);
	victim_end(f, &v);
	criu_warm(f->criu);
	assert_int_equal(image_store_prepare(store), 0);
	o = fixture_restore(f, spec, store, &v.group);
	tell("warm", &o);
	assert_true(o.ok);
	assert_int_equal(fixture_left(f), 0);
	assert_int_equal(space_group_thaw(v.group), 0);
	v.pid = spec.root;
	assert_true(victim_counts(f, 0));
	victim_end(f, &v);
	image_store_free(store);
}

static void a_warm_criu_that_nobody_takes_goes(void **state)
{
	criu_warm(f->criu);
	assert_int_equal(fixture_left(f), 2);
	criu_fixture_wait(f, nothing_is_left, NULL);
}

static void four_threads_come_back(void **state)
{
	struct victim v = victim_start(f, "threads", "4", NULL, 0);

	round_trip("4 threads", &v, (struct criu_restore_spec){ 0 });
	for (int i = 0; i < 4; i++)
		assert_true(victim_counts(f, i));
	victim_end(f, &v);
}

static void a_tree_comes_back_into_one_group(void **state)
{
	struct victim v = victim_start(f, "tree", "4", NULL, 0);
	_cleanup_free_ pid_t *pids = NULL;
	size_t n = 0;

	round_trip("4 processes", &v, (struct criu_restore_spec){ 0 });
	assert_int_equal(space_group_pids(v.group, &pids, &n), 0);
	assert_int_equal(n, 4);
	for (int i = 0; i < 4; i++)
		assert_true(victim_counts(f, i));
	victim_end(f, &v);
}

static void a_process_of_an_ordinary_user_comes_back(void **state)
{
	struct victim v = victim_start(f, "user", "1000", NULL, 0);
	char path[32];
	struct stat st;

	if (!criu_features(f->criu)->user_processes) {
		struct image_store *store = fixture_store(f, STORE_MAX);
		struct outcome o = fixture_dump(f, &v, v.pid, false, store);

		tell("uid 1000", &o);
		assert_false(o.ok);
		assert_non_null(strstr(o.text, "CAP_SYS_RESOURCE"));
		image_store_free(store);
		victim_end(f, &v);
		return;
	}
	round_trip("uid 1000", &v, (struct criu_restore_spec){ 0 });
	(void)snprintf(path, sizeof(path), "%d", v.pid);
	assert_int_equal(fstatat(space_proc_fd(f->space), path, &st, 0), 0);
	assert_int_equal(st.st_uid, 1000);
	assert_true(victim_counts(f, 0));
	victim_end(f, &v);
}

static void sixty_four_mebibytes_come_back_unchanged(void **state)
{
	struct victim v = victim_start(f, "memory", "64", NULL, 0);

	round_trip("64 MiB", &v, (struct criu_restore_spec){ 0 });
	assert_true(victim_counts(f, 0));
	victim_end(f, &v);
}

static bool is_filtered(pid_t pid)
{
	char path[32], text[4096] = { 0 };
	_cleanup_close_ int fd = -1;
	const char *p;

	(void)snprintf(path, sizeof(path), "%d/status", pid);
	fd = openat(space_proc_fd(f->space), path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
	p = strstr(text, "\nSeccomp:");
	assert_non_null(p);
	return atoi(p + 9) != 0;
}

static void a_filtered_process_comes_back_without_its_filter(void **state)
{
	struct victim v = victim_start(f, "seccomp", NULL, NULL, 0);

	assert_true(is_filtered(v.pid));
	round_trip("seccomp", &v, (struct criu_restore_spec){ 0 });
	assert_false(is_filtered(v.pid));
	assert_true(victim_counts(f, 0));
	victim_end(f, &v);
}

/* The session's leader is in the same group, so that it goes too. */
static void child_of(const char *grouped)
{
	struct victim v = victim_start(f, "child", grouped, NULL, 0);
	struct criu_restore_spec spec = { .root = (pid_t)f->counters[1], .sid = v.pid,
					  .pgid = grouped[0] == '1' ? (pid_t)f->counters[2] : v.pid };
	struct space_group *only;

	/* Of the three only the child is to be dumped. */
	assert_int_equal(space_group_open(f->space, "test.child", &only), 0);
	assert_int_equal(space_group_take(only, spec.root), 0);
	{
		struct victim child = { spec.root, only };
		struct image_store *store = fixture_store(f, STORE_MAX);
		struct space_group *group;
		struct outcome o = fixture_dump(f, &child, spec.root, true, store);

		tell("child", &o);
		assert_true(o.ok);
		assert_int_equal(space_group_kill(only, 10 * NSEC_PER_SEC), 0);
		space_group_close(only);
		victim_end(f, &v);
		o = fixture_restore(f, spec, store, &group);
		tell("child", &o);
		assert_true(o.ok);
		assert_true(victim_stands(f, 0));
		assert_int_equal(fixture_stat(f, spec.root, 4), 1);
		assert_int_equal(fixture_stat(f, spec.root, 5), spec.pgid);
		assert_int_equal(fixture_stat(f, spec.root, 6), spec.sid);
		assert_int_equal(fixture_stat(f, spec.sid, 4), -1);
		assert_int_equal(space_group_thaw(group), 0);
		assert_true(victim_counts(f, 0));
		child = (struct victim){ spec.root, group };
		victim_end(f, &child);
		image_store_free(store);
	}
}

static void a_child_comes_back_into_the_session_of_its_dead_leader(void **state)
{
	child_of("0");
}

static void a_child_comes_back_into_the_group_of_its_dead_brother(void **state)
{
	child_of("1");
}

static void a_session_that_stands_here_is_named(void **state)
{
	struct victim v = victim_start(f, "child", "0", NULL, 0);
	struct criu_restore_spec spec = { .root = (pid_t)f->counters[1], .sid = v.pid,
					  .pgid = v.pid };
	struct image_store *store = fixture_store(f, STORE_MAX);
	struct space_group *group;
	struct outcome o = fixture_restore(f, spec, store, &group);

	tell("session taken", &o);
	assert_false(o.ok);
	assert_non_null(strstr(o.text, "session"));
	space_group_close(group);
	image_store_free(store);
	assert_int_equal(fixture_left(f), 0);
	assert_true(victim_counts(f, 0));
	victim_end(f, &v);
}

static ino_t inode_of(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_ino;
}

static void pipes_are_replaced_by_those_it_inherits(void **state)
{
	int in[2], out[2], new_in[2], new_out[2];
	char keys[2][32], byte[8] = { 0 };
	struct criu_inherit inherit[2];
	struct victim v;

	assert_int_equal(pipe2(in, O_CLOEXEC) | pipe2(out, O_CLOEXEC), 0);
	assert_int_equal(pipe2(new_in, O_CLOEXEC) | pipe2(new_out, O_CLOEXEC), 0);
	v = victim_start(f, "echo", NULL, (int[]){ in[0], out[1] }, 2);
	(void)snprintf(keys[0], sizeof(keys[0]), "pipe:[%lu]", (unsigned long)inode_of(in[0]));
	(void)snprintf(keys[1], sizeof(keys[1]), "pipe:[%lu]", (unsigned long)inode_of(out[1]));
	inherit[0] = (struct criu_inherit){ keys[0], new_in[0] };
	inherit[1] = (struct criu_inherit){ keys[1], new_out[1] };
	round_trip("pipes", &v, (struct criu_restore_spec){ .root = v.pid, .sid = v.pid,
							    .pgid = v.pid, .inherit = inherit,
							    .n_inherit = 2 });
	close(new_in[0]);
	close(new_out[1]);
	assert_int_equal(write(new_in[1], "hello", 5), 5);
	assert_int_equal(read(new_out[0], byte, sizeof(byte)), 5);
	assert_string_equal(byte, "hello");
	close(new_in[1]); /* nobody else holds an end: it sees the end of its input */
	assert_int_equal(read(new_out[0], byte, sizeof(byte)), 0);
	criu_fixture_turn(f, 20 * NSEC_PER_MSEC);
	assert_true(f->n_exits > 0);
	assert_int_equal(f->exits[f->n_exits - 1].pid, v.pid);
	assert_int_equal(f->exits[f->n_exits - 1].status, 33);
	victim_end(f, &v);
	for (int i = 0; i < 2; i++)
		close(in[i]), close(out[i]);
	close(new_out[0]);
}

static void refused(const char *mode, const char *text)
{
	struct victim v = victim_start(f, mode, NULL, NULL, 0);
	struct image_store *store = fixture_store(f, STORE_MAX);
	struct outcome o = fixture_dump(f, &v, v.pid, false, store);

	tell("refused", &o);
	assert_false(o.ok);
	assert_non_null(strstr(o.text, text));
	assert_true(victim_stands(f, 0));
	assert_int_equal(space_group_thaw(v.group), 0);
	assert_true(victim_counts(f, 0));
	assert_int_equal(fixture_left(f), 0);
	image_store_free(store);
	victim_end(f, &v);
}

static void a_device_is_named_and_its_process_lives_on(void **state)
{
	refused("device", "Can't dump file 3 of that type");
}

static void io_uring_is_named_and_its_process_lives_on(void **state)
{
	refused("io_uring", "io_uring");
}

static void a_full_store_ends_the_dump(void **state)
{
	struct victim v = victim_start(f, "memory", "16", NULL, 0);
	struct image_store *store = fixture_store(f, 1 << 20);
	struct outcome o = fixture_dump(f, &v, v.pid, false, store);

	tell("full", &o);
	assert_false(o.ok);
	assert_string_equal(o.text, IMAGE_NO_ROOM);
	assert_int_equal(space_group_thaw(v.group), 0);
	assert_true(victim_counts(f, 0));
	image_store_free(store);
	victim_end(f, &v);
}

static void resize_private_dir(const char *size)
{
	assert_int_equal(mount("tmpfs", fixture_config.private_dir, "tmpfs",
			       MS_REMOUNT | MS_NOSUID | MS_NODEV, size), 0);
}

/* A criu that streams needs the room for the store alone: so the sink here needs none. */
static int count_bytes(void *owner, const char *file, const void *data, size_t len)
{
	*(size_t *)owner += len;
	return 0;
}

static int count_file(void *owner, const char *file)
{
	return 0;
}

static void a_dump_beyond_the_private_tmpfs_needs_a_criu_that_streams(void **state)
{
	struct victim v = victim_start(f, "memory", "32", NULL, 0);
	size_t bytes = 0;
	struct criu_dump_spec spec = { .root = v.pid, .group = v.group,
				       .sink = { count_bytes, count_file, &bytes },
				       .timeout = 60 * NSEC_PER_SEC };
	struct outcome o = { 0 };
	struct criu_run *run;

	resize_private_dir("size=8m");
	assert_int_equal(space_group_freeze(v.group, 10 * NSEC_PER_SEC), 0);
	assert_int_equal(criu_dump(f->criu, &spec, on_outcome, &o, &run), 0);
	criu_fixture_wait(f, outcome_is_there, &o);
	tell("32 MiB through 8", &o);
	assert_int_equal(o.ok, criu_features(f->criu)->stream);
	if (o.ok) {
		assert_true(bytes > 32 << 20);
	} else {
		assert_non_null(strstr(o.text, "no room for its images"));
		assert_null(strchr(o.text, '\n'));
	}
	resize_private_dir("size=50%");
	assert_int_equal(fixture_left(f), 0);
	assert_true(victim_stands(f, 0));
	assert_int_equal(space_group_thaw(v.group), 0);
	assert_true(victim_counts(f, 0));
	victim_end(f, &v);
}

/* Whoever takes the images may keep them on the same tmpfs: they stand there once. */
static void images_on_the_way_take_no_second_room(void **state)
{
	struct victim v = victim_start(f, "memory", "32", NULL, 0);
	struct image_store *store = fixture_store(f, STORE_MAX);
	struct outcome o;

	resize_private_dir("size=40m");
	o = fixture_dump(f, &v, v.pid, false, store);
	tell("32 MiB in 40", &o);
	assert_true(o.ok);
	assert_true(image_store_bytes(store) > 32 << 20);
	image_store_free(store);
	resize_private_dir("size=50%");
	victim_end(f, &v);
}

static void a_truncated_image_leaves_nothing(void **state)
{
	struct victim v = victim_start(f, "tree", "3", NULL, 0);
	struct image_store *store = fixture_store(f, STORE_MAX);
	/* Without our patch criu reads on for ever, until the deadline. */
	struct criu_restore_spec spec = { .root = v.pid, .sid = v.pid, .pgid = v.pid,
					  .timeout = 5 * NSEC_PER_SEC };
	struct outcome o = fixture_dump(f, &v, v.pid, false, store);
	_cleanup_free_ pid_t *pids = NULL;
	struct space_group *group;
	size_t n = 0;
	int fd;

	assert_true(o.ok);
	victim_end(f, &v);
	fd = openat(image_store_dir_fd(store), "pages-1.img", O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 8192), 0);
	close(fd);
	o = fixture_restore(f, spec, store, &group);
	tell("truncated", &o);
	assert_false(o.ok);
	assert_string_not_equal(o.text, "");
	assert_int_equal(space_group_pids(group, &pids, &n), 0);
	assert_int_equal(n, 0);
	criu_fixture_turn(f, 20 * NSEC_PER_MSEC);
	assert_int_equal(fixture_stat(f, spec.root, 4), -1);
	assert_int_equal(fixture_left(f), 0);
	space_group_close(group);
	image_store_free(store);
}

/* Ending badly while criu works. */

enum how { CANCEL, TIME_OUT, KILL_CRIU };

struct criu_search {
	const struct victim *victim;
	pid_t pid;
};

/* The criu of the newest run.  Not by space_group_open(): to close an empty group removes it,
 * and the run is not over because criu is gone. */
static int pid_of_criu(void *owner, const char *name)
{
	struct criu_search *s = owner;
	_cleanup_close_ int fd = -1;
	char path[64], text[32] = { 0 };

	(void)snprintf(path, sizeof(path), "../%s/cgroup.procs", name);
	fd = openat(space_group_fd(s->victim->group), path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && read(fd, text, sizeof(text) - 1) > 0)
		s->pid = atoi(text);
	return 0;
}

static void spoil(struct criu_run *run, const struct victim *v, enum how how)
{
	struct criu_search search = { .victim = v };

	if (how == CANCEL) {
		criu_cancel(run);
		return;
	}
	assert_int_equal(space_group_each(f->space, "criu.", pid_of_criu, &search), 0);
	if (search.pid)
		(void)kill(search.pid, how == TIME_OUT ? SIGSTOP : SIGKILL);
}

/* A zombie has no memory. */
static bool victim_is_gone(const struct victim *v)
{
	return fixture_stat(f, v->pid, 23) <= 0;
}

static void spoil_dump(enum how how, nsec_t after)
{
	struct victim v = victim_start(f, "memory", "48", NULL, 0);
	struct image_store *store = fixture_store(f, STORE_MAX);
	struct criu_dump_spec spec = { .root = v.pid, .group = v.group,
				       .sink = image_store_sink(store),
				       .timeout = how == TIME_OUT ? NSEC_PER_SEC : 60 * NSEC_PER_SEC };
	struct outcome o = { 0 };
	struct criu_run *run;
	nsec_t start;

	assert_int_equal(space_group_freeze(v.group, 10 * NSEC_PER_SEC), 0);
	assert_int_equal(criu_dump(f->criu, &spec, on_outcome, &o, &run), 0);
	criu_fixture_turn(f, after);
	start = env_now(f->env);
	if (!o.done)
		spoil(run, &v, how);
	criu_fixture_wait(f, outcome_is_there, &o);
	o.took = env_now(f->env) - start;
	tell("spoilt dump", &o);
	assert_true(victim_stands(f, 0));
	assert_int_equal(space_group_thaw(v.group), 0);
	criu_fixture_turn(f, 20 * NSEC_PER_MSEC);
	/* Killed while its parasite ran: ARCHITECTURE.md, "Not done in this form". */
	if (how == KILL_CRIU && victim_is_gone(&v))
		print_message("a killed criu's parasite took its process along\n");
	else
		assert_true(victim_counts(f, 0));
	assert_int_equal(fixture_left(f), 0);
	image_store_free(store);
	victim_end(f, &v);
}

static void spoil_restore(enum how how, nsec_t after)
{
	struct victim v = victim_start(f, "memory", "48", NULL, 0);
	struct image_store *store = fixture_store(f, STORE_MAX);
	struct criu_restore_spec spec = { .root = v.pid, .sid = v.pid, .pgid = v.pid,
					  .images = store,
					  .timeout = how == TIME_OUT ? NSEC_PER_SEC : 60 * NSEC_PER_SEC };
	struct outcome o = fixture_dump(f, &v, v.pid, false, store);
	_cleanup_free_ pid_t *pids = NULL;
	struct criu_run *run;
	nsec_t start;
	size_t n = 0;

	assert_true(o.ok);
	victim_end(f, &v);
	assert_int_equal(space_group_open(f->space, "test.spoilt", &v.group), 0);
	spec.group = v.group;
	o = (struct outcome){ 0 };
	assert_int_equal(criu_restore(f->criu, &spec, on_outcome, &o, &run), 0);
	criu_fixture_turn(f, after);
	start = env_now(f->env);
	if (!o.done)
		spoil(run, &v, how);
	criu_fixture_wait(f, outcome_is_there, &o);
	o.took = env_now(f->env) - start;
	tell("spoilt restore", &o);
	assert_int_equal(space_group_pids(v.group, &pids, &n), 0);
	assert_int_equal(n, o.ok ? 1 : 0);
	if (o.ok) {
		victim_end(f, &v);
	} else {
		criu_fixture_turn(f, 20 * NSEC_PER_MSEC);
		assert_int_equal(fixture_stat(f, spec.root, 4), -1);
		space_group_close(v.group);
	}
	assert_int_equal(fixture_left(f), 0);
	image_store_free(store);
}

static void a_cancelled_run_leaves_what_it_found(void **state)
{
	static const unsigned ms[] = { 0, 5, 15, 30, 60 };

	for (size_t i = 0; i < N_ELEMENTS(ms); i++) {
		spoil_dump(CANCEL, ms[i] * NSEC_PER_MSEC);
		spoil_restore(CANCEL, ms[i] * NSEC_PER_MSEC);
	}
}

static void a_killed_criu_leaves_what_it_found(void **state)
{
	static const unsigned ms[] = { 5, 15, 30, 60 };

	for (size_t i = 0; i < N_ELEMENTS(ms); i++) {
		spoil_dump(KILL_CRIU, ms[i] * NSEC_PER_MSEC);
		spoil_restore(KILL_CRIU, ms[i] * NSEC_PER_MSEC);
	}
}

static void a_stopped_criu_meets_the_deadline(void **state)
{
	spoil_dump(TIME_OUT, 10 * NSEC_PER_MSEC);
	spoil_restore(TIME_OUT, 10 * NSEC_PER_MSEC);
}

/* Flow control. */

struct slow {
	struct image_sink store;
	struct criu_run *run;
	size_t bytes;
	bool paused;
};

static int slow_write(void *owner, const char *file, const void *data, size_t len)
{
	struct slow *s = owner;

	assert_false(s->paused);
	s->bytes += len;
	if (s->bytes > 4 << 20) {
		s->paused = true;
		criu_dump_pause(s->run, true);
	}
	return s->store.write(s->store.owner, file, data, len);
}

static int slow_close(void *owner, const char *file)
{
	struct slow *s = owner;

	return s->store.close(s->store.owner, file);
}

static void a_pause_holds_the_bytes_back(void **state)
{
	struct victim v = victim_start(f, "memory", "32", NULL, 0);
	struct image_store *store = fixture_store(f, STORE_MAX);
	struct slow slow = { .store = image_store_sink(store) };
	struct criu_dump_spec spec = { .root = v.pid, .group = v.group,
				       .sink = { slow_write, slow_close, &slow },
				       .timeout = 60 * NSEC_PER_SEC };
	struct outcome o = { 0 };
	int rounds = 0;

	assert_int_equal(space_group_freeze(v.group, 10 * NSEC_PER_SEC), 0);
	assert_int_equal(criu_dump(f->criu, &spec, on_outcome, &o, &slow.run), 0);
	while (!o.done && ++rounds < 1000) {
		criu_fixture_turn(f, 20 * NSEC_PER_MSEC);
		if (slow.paused) {
			assert_true(victim_stands(f, 0));
			slow.paused = false;
			slow.bytes = 0;
			criu_dump_pause(slow.run, false);
		}
	}
	assert_true(o.ok);
	assert_true(image_store_bytes(store) > 32 << 20);
	image_store_free(store);
	victim_end(f, &v);
}

static void a_successor_sweeps_what_its_predecessor_left(void **state)
{
	static const char *const argv[] = { "/bin/sleep", "1000", NULL };
	struct space_spawn spec = { .argv = argv, .flags = SPACE_SPAWN_SERVICE };
	struct space_group *g;
	int image;
	pid_t pid;

	assert_int_equal(space_group_open(f->space, "criu.4711", &g), 0);
	spec.group_fd = space_group_fd(g);
	assert_int_equal(space_spawn(f->space, &spec, &pid, NULL), 0);
	assert_int_equal(mkdirat(f->private_dir_fd, "criu.4711", 0700), 0);
	image = openat(f->private_dir_fd, "criu.4711/pages-1.img", O_CREAT | O_CLOEXEC, 0600);
	assert_true(image >= 0);
	close(image);
	assert_int_equal(fixture_left(f), 2);
	assert_int_equal(criu_sweep(f->criu), 0);
	assert_int_equal(fixture_left(f), 0);
	space_group_close(g);
}

/* In place: what stands in for ssi-shadow is criu_victim, see there. */

static pid_t stand_in(int *ret_socket, pid_t pid, int group_fd)
{
	const char *const argv[] = { criu_fixture_victim(), "/mnt/counters", "stand", NULL };
	int ends[2];
	struct space_spawn spec = { .argv = argv, .fds = &ends[1], .n_fds = 1, .set_tid = pid,
				    .group_fd = group_fd, .flags = SPACE_SPAWN_TRACK };

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
	assert_int_equal(space_spawn(f->space, &spec, &pid, NULL), 0);
	close(ends[1]);
	*ret_socket = ends[0];
	return pid;
}

static int tell_to_exec(void *owner, const char *criu, const int *fds, size_t n_fds)
{
	struct outcome *o = owner;
	char control[CMSG_SPACE(16 * sizeof(int))] = { 0 };
	struct iovec iov = { (void *)criu, strlen(criu) + 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
			    .msg_controllen = CMSG_SPACE(n_fds * sizeof(int)) };
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);

	*h = (struct cmsghdr){ CMSG_LEN(n_fds * sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
	memcpy(CMSG_DATA(h), fds, n_fds * sizeof(int));
	assert_true(sendmsg(o->socket, &m, 0) > 0);
	return 0;
}

static void in_place(bool truncated)
{
	struct victim v = victim_start(f, "threads", "2", NULL, 0);
	struct image_store *store = fixture_store(f, STORE_MAX);
	struct criu_restore_spec spec = { .root = v.pid, .sid = v.pid, .pgid = v.pid,
					  .images = store, .in_place = true,
					  .exec_in_place = tell_to_exec,
					  .timeout = 60 * NSEC_PER_SEC };
	struct outcome o = fixture_dump(f, &v, v.pid, false, store);
	struct space_group *old;
	struct criu_run *run;
	nsec_t start;

	assert_true(o.ok);
	victim_end(f, &v);
	f->counters[3] = 0;
	if (truncated) {
		int fd = openat(image_store_dir_fd(store), "pages-1.img", O_WRONLY | O_CLOEXEC);

		assert_true(fd >= 0 && ftruncate(fd, 8192) == 0);
		close(fd);
	}
	assert_int_equal(space_group_open(f->space, "test.shadow", &old), 0);
	assert_int_equal(space_group_open(f->space, "test.in_place", &v.group), 0);
	spec.group = v.group;
	o = (struct outcome){ 0 };
	assert_int_equal(stand_in(&o.socket, v.pid, space_group_fd(old)), v.pid);
	assert_true(victim_counts(f, 3));
	if (!criu_features(f->criu)->restore_in_place) {
		assert_int_equal(criu_restore(f->criu, &spec, on_outcome, &o, &run), -EOPNOTSUPP);
		assert_true(victim_counts(f, 3));
		assert_int_equal(fixture_left(f), 0);
		space_group_close(v.group);
		v.group = old;
		victim_end(f, &v);
		close(o.socket);
		image_store_free(store);
		return;
	}
	start = env_now(f->env);
	assert_int_equal(criu_restore(f->criu, &spec, on_outcome, &o, &run), 0);
	criu_fixture_wait(f, outcome_is_there, &o);
	o.took = env_now(f->env) - start;
	tell(truncated ? "in place, truncated" : "in place", &o);
	assert_int_equal(o.ok, !truncated);
	assert_int_equal(fixture_stat(f, v.pid, 4), 1);
	assert_int_equal(fixture_left(f), 0);
	if (truncated) {
		/* The shadow again, in its cgroup. */
		assert_true(victim_counts(f, 4));
		space_group_close(v.group);
		v.group = old;
	} else {
		assert_true(victim_stands(f, 0));
		assert_int_equal(space_group_thaw(v.group), 0);
		assert_true(victim_counts(f, 0));
		assert_true(victim_counts(f, 1));
		space_group_close(old);
		assert_false(fixture_has_zombie_child(f, v.pid));
	}
	victim_end(f, &v);
	close(o.socket);
	image_store_free(store);
}

static void a_shadow_becomes_the_process_again(void **state)
{
	in_place(false);
}

static void a_shadow_stands_again_when_that_fails(void **state)
{
	in_place(true);
}

static int tests(void)
{
	const struct CMUnitTest all[] = {
#define TEST(name_) cmocka_unit_test_setup_teardown(name_, setup, teardown)
		TEST(criu_is_known_and_what_it_can),
		TEST(a_script_that_runs_criu_is_seen_through),
		TEST(whose_processes_it_dumps_is_known_beforehand),
		TEST(a_tiny_process_comes_back_frozen_and_goes_on_when_thawed),
		TEST(a_warm_criu_dumps_and_restores),
		TEST(a_warm_criu_that_nobody_takes_goes),
		TEST(four_threads_come_back),
		TEST(a_tree_comes_back_into_one_group),
		TEST(a_process_of_an_ordinary_user_comes_back),
		TEST(sixty_four_mebibytes_come_back_unchanged),
		TEST(a_filtered_process_comes_back_without_its_filter),
		TEST(a_child_comes_back_into_the_session_of_its_dead_leader),
		TEST(a_child_comes_back_into_the_group_of_its_dead_brother),
		TEST(a_session_that_stands_here_is_named),
		TEST(pipes_are_replaced_by_those_it_inherits),
		TEST(a_device_is_named_and_its_process_lives_on),
		TEST(io_uring_is_named_and_its_process_lives_on),
		TEST(a_full_store_ends_the_dump),
		TEST(a_dump_beyond_the_private_tmpfs_needs_a_criu_that_streams),
		TEST(images_on_the_way_take_no_second_room),
		TEST(a_truncated_image_leaves_nothing),
		TEST(a_pause_holds_the_bytes_back),
		TEST(a_cancelled_run_leaves_what_it_found),
		TEST(a_killed_criu_leaves_what_it_found),
		TEST(a_stopped_criu_meets_the_deadline),
		TEST(a_shadow_becomes_the_process_again),
		TEST(a_shadow_stands_again_when_that_fails),
		TEST(a_successor_sweeps_what_its_predecessor_left),
	};

	return cmocka_run_group_tests(all, NULL, NULL);
}

int main(int argc, char **argv)
{
	return criu_fixture_main(argc, argv, tests);
}
