/*
 * ssi-spawn: the last step of a launch.
 *
 * ssi-init starts it as root inside the space, with a packed ssi.process.Launch
 * at descriptor 3, a terminal if the page says so, and pipe ends behind it.  It becomes
 * the caller (groups, ids, session, mask, limits, directory) and executes the program.
 *
 * The page comes from ssid, but what it says of limits and nice is the caller's
 * own word: so both are set after root was given up, and the kernel refuses what
 * the caller could not have had.
 *
 * Failure modes: no such program -> one line on its standard error, or the pipe that is
 * only for that, and exit 127;
 * not executable, or the directory cannot be entered -> a line and 126, as a shell;
 * a page that makes no sense -> 125.
 *
 * With an Exec in the page it goes on in ssi_spawn_exec.c.
 */
#include "ssi_spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static int report_fd = STDERR_FILENO;

_Noreturn void fail(int status, const char *what, int error)
{
	char line[4352];
	int n;

	n = snprintf(line, sizeof(line), "ssi-run: %.4096s: %s\n", what,
		     strerror(error));
	(void)!write(report_fd, line, n);
	_exit(status);
}

static Ssi__Process__Launch *read_page(void)
{
	struct stat st;
	void *page;

	if (fstat(PAGE_FD, &st) < 0 || st.st_size <= 0)
		return NULL;
	page = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, PAGE_FD, 0);
	if (page == MAP_FAILED)
		return NULL;
	return ssi__process__launch__unpack(NULL, st.st_size, page);
}

char *string_of(const ProtobufCBinaryData *d)
{
	return strndup((const char *)d->data, d->len);
}

char **strings_of(const ProtobufCBinaryData *list, size_t n)
{
	char **v = calloc(n + 1, sizeof(*v));

	for (size_t i = 0; v && i < n; i++)
		v[i] = string_of(&list[i]);
	return v;
}

/* The given pipe ends and the terminal become 0-2; the rest is the space's /dev/null.
 * The lowest descriptors are free to be overwritten: what was given begins above them.
 */
static int set_stdio(const Ssi__Process__Launch *l)
{
	int next = FIRST_FD, null;

	if (l->terminal && ioctl(next++, TIOCSCTTY, 0) < 0)
		return -errno;
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0)
		return -errno;
	for (int fd = 0; fd < 3; fd++) {
		int from = null;

		if (l->terminal & 1u << fd)
			from = FIRST_FD;
		else if (l->pipes & 1u << fd)
			from = next++;
		if (dup2(from, fd) < 0)
			return -errno;
	}
	if (l->report) {
		/* In the place of the page, which is mapped. */
		if (dup3(STDERR_FILENO, PAGE_FD, O_CLOEXEC) < 0 ||
		    dup2(null, STDERR_FILENO) < 0)
			return -errno;
		report_fd = PAGE_FD;
	}
	return close_range(PAGE_FD + !!l->report, ~0u, 0) < 0 ? -errno : 0;
}

static bool is_in(uint64_t set, int signal)
{
	return signal < 65 && set & 1ull << (signal - 1);
}

void set_signals(uint64_t ignored, uint64_t blocked)
{
	sigset_t mask;

	for (int s = 1; s < _NSIG; s++)
		(void)signal(s, is_in(ignored, s) ? SIG_IGN : SIG_DFL);
	sigemptyset(&mask);
	for (int s = 1; s < _NSIG; s++)
		if (is_in(blocked, s))
			(void)sigaddset(&mask, s);
	(void)sigprocmask(SIG_SETMASK, &mask, NULL);
}

/* ssi-init may be spared by the OOM killer; programs are not. */
static void set_oom_score(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	(void)!write(fd, "0", 1);
	(void)close(fd);
}

static int set_ids(const Ssi__Process__Launch *l)
{
	gid_t groups[64];

	if (l->n_groups > 64)
		return -EINVAL;
	for (size_t i = 0; i < l->n_groups; i++)
		groups[i] = l->groups[i];
	if (setgroups(l->n_groups, groups) < 0 ||
	    setresgid(l->gid, l->gid, l->gid) < 0 ||
	    setresuid(l->uid, l->uid, l->uid) < 0)
		return -errno;
	return 0;
}

static rlim_t lower(rlim_t a, rlim_t b)
{
	return a < b ? a : b; /* RLIM_INFINITY is the largest number */
}

/* What may not be raised stays as low as it is. */
void set_limit(const Ssi__Process__Limit *l)
{
	struct rlimit now, want = {.rlim_cur = l->soft, .rlim_max = l->hard};

	if (l->resource >= RLIM_NLIMITS || want.rlim_cur > want.rlim_max)
		return;
	if (setrlimit(l->resource, &want) == 0 || getrlimit(l->resource, &now) < 0)
		return;
	want.rlim_max = lower(want.rlim_max, now.rlim_max);
	want.rlim_cur = lower(want.rlim_cur, want.rlim_max);
	(void)setrlimit(l->resource, &want);
}

static void become(const Ssi__Process__Launch *l)
{
	int r;

	set_oom_score();
	(void)umask(l->umask & 0777);
	r = set_ids(l);
	if (r < 0)
		fail(EXIT_CANNOT, "cannot become the caller", -r);
	(void)setpriority(PRIO_PROCESS, 0, l->nice);
}

int main(void)
{
	Ssi__Process__Launch *l = read_page();
	char **argv, **envp, *cwd;

	if (l && l->n_argv > 0 && l->exec) {
		become(l);
		run_exec(l);
	}
	/* The session first: its leader alone takes a terminal. */
	(void)setsid();
	if (!l || l->n_argv == 0 || set_stdio(l) < 0)
		return EXIT_PAGE;
	argv = strings_of(l->argv, l->n_argv);
	envp = strings_of(l->envp, l->n_envp);
	cwd = string_of(&l->cwd);
	if (!argv || !envp || !cwd || !argv[0])
		fail(EXIT_CANNOT, "ssi-spawn", ENOMEM);
	become(l);
	for (size_t i = 0; i < l->n_limits; i++)
		set_limit(l->limits[i]);
	if (chdir(cwd) < 0)
		fail(EXIT_CANNOT, cwd, errno);
	set_signals(0, 0);
	environ = envp; /* execvp() looks for PATH there */
	(void)execvp(argv[0], argv);
	fail(errno == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT, argv[0], errno);
}
