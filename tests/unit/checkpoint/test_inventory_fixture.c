#include "test_inventory_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int fixture_root_fd = -1, fixture_proc_fd = -1;

static int skip_all(const char *why)
{
	printf("1..0 # SKIP %s\n", why);
	return FIXTURE_SKIPPED;
}

static bool make_space(void)
{
	return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("proc", "/proc", "proc", 0, NULL) == 0 &&
	       mount("tmpfs", "/mnt", "tmpfs", 0, "mode=0755") == 0;
}

static int finish(pid_t pid)
{
	pid_t ended;
	int status;

	if (pid < 0)
		return 1;
	do
		ended = wait(&status);
	while (ended != pid && (ended > 0 || errno == EINTR));
	return ended == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/*
 * Pid 1 of the space: reaps, and ends as the tests do.  The tests are executed anew,
 * so that their own program and libraries are mapped from the space's mounts.
 */
static int be_init(void)
{
	char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	pid_t pid;

	if (n < 0)
		return 1;
	path[n] = '\0';
	if (!make_space())
		return skip_all("cannot mount in a namespace of our own");
	pid = fork();
	if (!pid) {
		(void)execl(path, path, "inside", NULL);
		_exit(127);
	}
	return finish(pid);
}

static int enter(void)
{
	pid_t pid;
	int status;

	if (unshare(CLONE_NEWPID | CLONE_NEWNS) < 0)
		return skip_all("no namespaces may be made here");
	pid = fork();
	if (pid)
		return finish(pid);
	status = be_init();
	(void)fflush(NULL);
	_exit(status);
}

int fixture_run(int argc, char **argv, int (*tests)(void))
{
	int status;

	if (argc == 2 && !strcmp(argv[1], "inside")) {
		fixture_root_fd = open("/", O_PATH | O_CLOEXEC);
		fixture_proc_fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		return fixture_root_fd < 0 || fixture_proc_fd < 0 ? 1 : tests();
	}
	if (geteuid() != 0)
		return skip_all("needs root");
	(void)fflush(NULL);
	/* Who has unshared can make no thread any more, and a leak checker wants one.
	 */
	status = enter();
	(void)fflush(NULL);
	_exit(status);
}

void subject_fail(const char *condition)
{
	char text[256];
	int fd = open("/mnt/failed", O_WRONLY | O_CREAT | O_TRUNC, 0600);

	(void)snprintf(text, sizeof(text), "%s: %s", condition, strerror(errno));
	if (fd >= 0)
		(void)!write(fd, text, strlen(text));
	_exit(1);
}

void subject_stop(void)
{
	(void)syscall(SYS_kill, (pid_t)syscall(SYS_getpid), SIGSTOP);
}

static void subject_main(void (*hold)(const void *argument), const void *argument)
{
	(void)syscall(SYS_close_range, 0, ~0u, 0);
	HOLD(open("/dev/null", O_RDWR) == 0);
	HOLD(dup(0) == 1 && dup(0) == 2);
	HOLD(chdir("/") == 0);
	if (hold)
		hold(argument);
	subject_stop();
	for (;;)
		(void)pause();
}

static void set_next_pid(pid_t pid)
{
	int fd = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_true(dprintf(fd, "%d", pid - 1) > 0);
	(void)close(fd);
}

pid_t subject_start(void (*hold)(const void *argument), const void *argument, pid_t pid)
{
	pid_t child;
	int status;

	(void)fflush(NULL);
	if (pid)
		set_next_pid(pid);
	child = fork();
	assert_true(child >= 0);
	if (!child)
		subject_main(hold, argument);
	if (pid)
		assert_int_equal(child, pid);
	assert_int_equal(waitpid(child, &status, WUNTRACED), child);
	if (!WIFSTOPPED(status)) {
		char text[256] = "";
		int fd = open("/mnt/failed", O_RDONLY | O_CLOEXEC);

		(void)!read(fd, text, sizeof(text) - 1);
		fail_msg("subject: %s", text);
	}
	return child;
}

void subject_end(pid_t pid)
{
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

struct inventory *subject_take(pid_t pid)
{
	struct inventory *i = NULL;

	assert_int_equal(inventory_take_at(&i, fixture_root_fd, fixture_proc_fd, pid),
			 0);
	assert_non_null(i);
	return i;
}

struct inventory_file *find_fd(struct inventory *i, pid_t pid, int fd)
{
	for (size_t k = 0; k < i->n_files; k++)
		if (i->files[k].pid == pid && i->files[k].fd == fd)
			return &i->files[k];
	fail_msg("no descriptor %d of %d", fd, pid);
	return NULL;
}

/* Each line of the verdict is of a thing that blocks, and of no other. */
static void check_things(const struct inventory_things *t, const char *text)
{
	unsigned n_lines = text != NULL, n_reasons = 0;

	for (const char *p = text; p && *p; p++)
		n_lines += *p == '\n';
	for (size_t k = 0; k < t->n; k++) {
		_cleanup_free_ char *why = strdup(t->list[k].why);
		char *save = NULL;

		if (t->list[k].fate != INVENTORY_BLOCKS)
			continue;
		assert_non_null(text);
		for (char *one = strtok_r(why, ";", &save); one;
		     one = strtok_r(NULL, ";", &save)) {
			n_reasons++;
			if (!strstr(text, one + (*one == ' ')))
				fail_msg("'%s' is not in '%s'", one, text);
		}
	}
	assert_int_equal(n_reasons, n_lines);
}

struct inventory_things *subject_things(pid_t pid, const struct inventory_allow *allow)
{
	struct inventory *i = subject_take(pid);
	struct inventory_things *things = NULL;
	_cleanup_free_ char *text = NULL;

	assert_true(inventory_verdict_at(i, allow, fixture_proc_fd, &text, &things) >=
		    0);
	(void)inventory_free(i);
	return things;
}

char *subject_verdict(pid_t pid, const struct inventory_allow *allow)
{
	struct inventory *i = subject_take(pid);
	struct inventory_things *things = NULL;
	_cleanup_free_ char *again = NULL;
	char *text = NULL;
	int r = inventory_verdict_at(i, allow, fixture_proc_fd, &text, NULL);

	assert_true(r >= 0);
	assert_int_equal(r != 0, text != NULL);
	/* Explained, it is the same. */
	assert_int_equal(
		inventory_verdict_at(i, allow, fixture_proc_fd, &again, &things), r);
	assert_string_equal(again ? again : "", text ? text : "");
	check_things(things, text);
	inventory_things_free(things);
	(void)inventory_free(i);
	return text;
}

void file_write(const char *path, const char *text, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	assert_int_equal(fchmod(fd, mode), 0);
	(void)close(fd);
}
