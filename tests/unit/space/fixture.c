#include "fixture.h"

#include "cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

struct space_config fixture_config = {
	.runtime_dir = "/mnt/run",
	.private_dir = "/mnt/run/private",
};

/* An env with the real clock, poll() and no threads. */
static struct env_fd *watches[64];
static unsigned watched[64];
static struct env_timer *timers[64];

static nsec_t clock_of(clockid_t id)
{
	struct timespec t;

	(void)clock_gettime(id, &t);
	return t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

static nsec_t now(void *impl)
{
	return clock_of(CLOCK_BOOTTIME);
}

static int arm(void *impl, struct env_timer *t, nsec_t after)
{
	size_t i = 0;

	t->due = now(NULL) + after;
	if (t->impl)
		return 0;
	while (timers[i])
		assert_true(++i < N_ELEMENTS(timers));
	timers[i] = t;
	t->impl = &timers[i];
	return 0;
}

static void disarm(void *impl, struct env_timer *t)
{
	if (t->impl)
		*(struct env_timer **)t->impl = NULL;
	t->impl = NULL;
	t->due = 0;
}

static int watch(void *impl, struct env_fd *w, unsigned events)
{
	size_t i = 0;

	if (w->impl) {
		watched[(struct env_fd **)w->impl - watches] = events;
		return 0;
	}
	while (watches[i])
		assert_true(++i < N_ELEMENTS(watches));
	watches[i] = w;
	watched[i] = events;
	w->impl = &watches[i];
	return 0;
}

static void unwatch(void *impl, struct env_fd *w)
{
	if (w->impl)
		*(struct env_fd **)w->impl = NULL;
	w->impl = NULL;
}

static const struct env_ops ops = { .now = now, .arm = arm, .disarm = disarm, .watch = watch,
				    .unwatch = unwatch };
static const struct env env = { .ops = &ops };
const struct env *const fixture_env = &env;

static void turn_once(void)
{
	struct pollfd p[N_ELEMENTS(watches)];

	for (size_t i = 0; i < N_ELEMENTS(timers); i++)
		if (timers[i] && timers[i]->due && timers[i]->due <= now(NULL)) {
			timers[i]->due = 0;
			timers[i]->cb(timers[i]);
		}
	for (size_t i = 0; i < N_ELEMENTS(watches); i++)
		p[i] = (struct pollfd){ watches[i] ? watches[i]->fd : -1, POLLIN, 0 };
	(void)poll(p, N_ELEMENTS(p), 5);
	for (size_t i = 0; i < N_ELEMENTS(watches); i++)
		if (p[i].revents && watches[i] && watches[i]->fd == p[i].fd)
			watches[i]->cb(watches[i], ENV_READ);
}

void fixture_wait(bool (*done)(void *owner), void *owner)
{
	nsec_t deadline = now(NULL) + 60 * NSEC_PER_SEC;

	while (!done(owner)) {
		if (now(NULL) > deadline)
			fail_msg("waited for a minute");
		turn_once();
	}
}

void fixture_turn(nsec_t span)
{
	nsec_t deadline = now(NULL) + span;

	while (now(NULL) < deadline)
		turn_once();
}

static void on_exit_told(void *owner, const struct space_exit *exit)
{
	struct fixture *f = owner;

	if (f->n_exits < N_ELEMENTS(f->exits))
		f->exits[f->n_exits++] = *exit;
}

static void on_stop_told(void *owner, pid_t pid, int signal)
{
	struct fixture *f = owner;

	if (f->n_stops == N_ELEMENTS(f->stops))
		return;
	f->stops[f->n_stops].pid = pid;
	f->stops[f->n_stops++].signal = signal;
}

static void on_lost_told(void *owner)
{
	struct fixture *f = owner;

	f->n_lost++;
}

static void on_exec_told(void *owner, const struct space_exec *exec)
{
	struct fixture *f = owner;

	assert_true(f->n_execs < N_ELEMENTS(f->execs));
	f->execs[f->n_execs++] = *exec;
}

static const struct space_events events = { on_exit_told, on_stop_told, on_lost_told,
					    on_exec_told };

void fixture_open(struct fixture *f)
{
	*f = (struct fixture){ 0 };
	assert_int_equal(space_new(&f->space, fixture_env, &fixture_config, &events, f), 0);
}

void fixture_close(struct fixture *f)
{
	f->space = space_free(f->space);
}

struct sought {
	struct fixture *f;
	pid_t pid;
	struct space_exit found;
};

static bool has_ended(void *owner)
{
	struct sought *s = owner;

	for (size_t i = 0; i < s->f->n_exits; i++)
		if (s->f->exits[i].pid == s->pid) {
			s->found = s->f->exits[i];
			return true;
		}
	return false;
}

struct space_exit fixture_exit_of(struct fixture *f, pid_t pid)
{
	struct sought s = { .f = f, .pid = pid };

	fixture_wait(has_ended, &s);
	return s.found;
}

pid_t fixture_sh(struct fixture *f, const char *script, int group_fd)
{
	const char *const argv[] = { "/bin/sh", "-c", script, NULL };
	const struct space_spawn spec = { .argv = argv, .group_fd = group_fd,
					  .flags = SPACE_SPAWN_TRACK };
	pid_t pid = 0;

	assert_int_equal(space_spawn(f->space, &spec, &pid, NULL), 0);
	assert_true(pid > 0);
	return pid;
}

char fixture_state(const struct fixture *f, pid_t pid)
{
	char path[32], text[512] = { 0 };
	_cleanup_close_ int fd = -1;
	const char *end;

	(void)snprintf(path, sizeof(path), "%d/stat", pid);
	fd = openat(space_proc_fd(f->space), path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		return '-';
	end = strrchr(text, ')');
	return end ? end[2] : '-';
}

static void check(bool ok, const char *what)
{
	if (ok)
		return;
	(void)fprintf(stderr, "the test's own namespaces: %s: %s\n", what, strerror(errno));
	_exit(99);
}

/* Where the machine has cgroup v2, before anything is unshared. */
static void find_v2(char *ret, size_t size)
{
	static const char *const places[] = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified" };

	for (size_t i = 0; i < N_ELEMENTS(places); i++) {
		(void)snprintf(ret, size, "%s/cgroup.procs", places[i]);
		if (access(ret, W_OK) == 0) {
			(void)snprintf(ret, size, "%s/ssi-test.%d", places[i], getpid());
			return;
		}
	}
	(void)printf("1..0 # skip no cgroup v2 mounted\n");
	exit(77);
}

static void write_file(const char *dir, const char *name, const char *text)
{
	char path[512];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "we");
	check(f && fputs(text, f) >= 0 && fclose(f) == 0, path);
}

static bool outside;

static _Noreturn void run_ssid(int (*tests)(void))
{
	check(outside || space_enter(&fixture_config) == 0, "space_enter");
	exit(tests());
}

/* Pid 1 of the test: buries orphans, ends with the first process, and all others with it. */
static _Noreturn void run_first(int (*tests)(void))
{
	pid_t ssid;
	int status;

	check(mount("proc", "/proc", "proc", 0, NULL) == 0, "/proc");
	check(mount("tmpfs", "/mnt", "tmpfs", 0, "mode=0755") == 0, "/mnt");
	(void)umount2("/sys/fs/cgroup", MNT_DETACH);
	check(mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, NULL) == 0, "cgroup2");
	ssid = fork();
	if (ssid == 0)
		run_ssid(tests);
	for (;;)
		if (wait(&status) == ssid)
			_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static void remove_tree(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *e;

	while (dir && (e = readdir(dir)))
		if (e->d_type == DT_DIR && e->d_name[0] != '.') {
			char below[1024];

			(void)snprintf(below, sizeof(below), "%s/%s", path, e->d_name);
			remove_tree(below);
		}
	if (dir)
		(void)closedir(dir);
	for (int i = 0; i < 100 && rmdir(path) < 0 && errno == EBUSY; i++)
		(void)usleep(10000);
}

int fixture_main(int argc, char **argv, int (*tests)(void))
{
	char cgroup[256];
	int status = 0;
	pid_t pid;

	if (geteuid() != 0) {
		(void)printf("1..0 # skip needs root, to make namespaces\n");
		return 77;
	}
	fixture_config.libexec_dir = argc > 1 ? argv[1] : ".";
	find_v2(cgroup, sizeof(cgroup));
	check(mkdir(cgroup, 0755) == 0, cgroup);
	pid = fork();
	if (pid == 0) {
		write_file(cgroup, "cgroup.procs", "0");
		check(unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWCGROUP) == 0, "unshare");
		check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0, "private mounts");
		pid = fork();
		if (pid == 0)
			run_first(tests);
		(void)waitpid(pid, &status, 0);
		_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	}
	(void)waitpid(pid, &status, 0);
	remove_tree(cgroup);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int fixture_main_outside(int argc, char **argv, int (*tests)(void))
{
	outside = true;
	return fixture_main(argc, argv, tests);
}
