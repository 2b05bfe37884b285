/*
 * What a program inherits, and what its parent learns of it.
 *
 *   heir FILE       start, while all processors are busy, this program again as a child in many
 *                   ways, and print what it found: the same text wherever the children
 *                   run.  FILE: each child appends the node where it ran
 *   heir FILE CASE  a child
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *where, *program;

static void note_where(const char *what)
{
	struct utsname u;
	char line[128];
	int fd = open(where, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);

	(void)uname(&u);
	(void)!write(fd, line, snprintf(line, sizeof(line), "%s %s\n", what, u.nodename));
	(void)close(fd);
}

/* -- Children -- */

static void print_signals(void)
{
	struct sigaction old;
	sigset_t blocked;

	(void)sigprocmask(SIG_BLOCK, NULL, &blocked);
	for (int s = 1; s < 32; s++) {
		if (sigismember(&blocked, s))
			printf(" blocked:%d", s);
		if (sigaction(s, NULL, &old) == 0 && old.sa_handler == SIG_IGN)
			printf(" ignored:%d", s);
	}
	printf("\n");
}

static void print_descriptors(void)
{
	for (int fd = 0; fd < 32; fd++) {
		int flags = fcntl(fd, F_GETFL);
		struct stat st;

		if (flags < 0 || fstat(fd, &st) < 0)
			continue;
		printf(" %d:%o:%x:%ld", fd, st.st_mode & S_IFMT, flags & ~O_LARGEFILE,
		       S_ISREG(st.st_mode) ? (long)lseek(fd, 0, SEEK_CUR) : 0);
	}
	printf("\n");
}

/* Have a child, tell its PID to descriptor 7, and wait for it: it says what it is told, and there
 * that it did. */
static int nest(void)
{
	siginfo_t info;
	sigset_t set;
	int status;
	pid_t pid;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 2);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	pid = fork();
	if (pid == 0) {
		while (sigwaitinfo(&set, &info) < 0)
			;
		printf("told %d by the first %d, of its user %d, in its way %d\n",
		       info.si_value.sival_int, info.si_pid == atoi(getenv("PARENT")),
		       info.si_uid == getuid(), info.si_code == SI_QUEUE);
		(void)fflush(stdout);
		(void)!write(7, "", 1);
		pause();
	}
	(void)!write(7, &pid, sizeof(pid));
	(void)close(7);
	(void)waitpid(pid, &status, 0);
	printf("nested: signal %d\n", WTERMSIG(status));
	(void)fflush(stdout);
	return 0;
}

static int child(const char *what)
{
	char text[256];
	struct rlimit l;
	siginfo_t info;
	mode_t mask;

	note_where(what);
	if (!strcmp(what, "inherit")) {
		mask = umask(0);
		printf("umask %o nice %d cwd %s\n", mask, getpriority(PRIO_PROCESS, 0),
		       getcwd(text, sizeof(text)));
		printf("HEIR=%s EMPTY=[%s]\n", getenv("HEIR"), getenv("EMPTY"));
		for (int i = 0; i < RLIM_NLIMITS; i++)
			if (getrlimit(i, &l) == 0)
				printf("limit %d %lx %lx\n", i, l.rlim_cur, l.rlim_max);
		printf("uid %d %d gid %d %d groups %d\n", getuid(), geteuid(), getgid(), getegid(),
		       getgroups(0, NULL));
		print_signals();
		print_descriptors();
	} else if (!strcmp(what, "family")) {
		printf("parent %d group %d session %d\n", getppid() == atoi(getenv("PARENT")),
		       getpgrp() == atoi(getenv("GROUP")), getsid(0) == atoi(getenv("SESSION")));
		printf("alive %d\n", kill(getppid(), 0));
	} else if (!strcmp(what, "leader")) {
		printf("leads %d session %d\n", getpgrp() == getpid(),
		       getsid(0) == atoi(getenv("SESSION")));
	} else if (!strcmp(what, "signal parent")) {
		/* With siginfo; the parent answers. */
		union sigval v = { .sival_int = 77 };

		(void)sigqueue(getppid(), SIGRTMIN + 3, v);
		pause();
	} else if (!strcmp(what, "stop")) {
		(void)raise(SIGSTOP);
		pause(); /* its end must not overtake the news that it goes on */
	} else if (!strcmp(what, "wait")) {
		pause();
	} else if (!strcmp(what, "alarm")) {
		pause();
	} else if (!strcmp(what, "pending")) {
		sigset_t pending;

		(void)sigpending(&pending);
		printf("pending %d", sigismember(&pending, SIGUSR2));
		(void)sigaddset(&pending, SIGRTMIN + 1);
		while (sigtimedwait(&pending, &info, &(struct timespec){ 0 }) > 0)
			printf(" %d:%d:%d", info.si_signo, info.si_code, info.si_value.sival_int);
		printf("\n");
	} else if (!strcmp(what, "read")) {
		ssize_t n = read(5, text, 4);

		printf("read %zd %.*s\n", n, (int)n, text);
	} else if (!strcmp(what, "append")) {
		(void)!write(6, "child\n", 6);
	} else if (!strcmp(what, "grandchild")) {
		pid_t pid = fork();
		int status;

		if (pid == 0)
			_exit(33);
		printf("waited %d", waitpid(pid, &status, 0) == pid);
		printf(" status %d\n", WEXITSTATUS(status));
	} else if (!strcmp(what, "nest")) {
		return nest();
	} else if (!strncmp(what, "exit ", 5)) {
		return atoi(what + 5);
	} else if (!strncmp(what, "kill ", 5)) {
		(void)kill(getpid(), atoi(what + 5));
		pause();
	} else if (!strcmp(what, "burn")) {
		for (;;)
			;
	}
	(void)fflush(stdout);
	return 0;
}

/* -- The parent -- */

static pid_t start(const char *what, posix_spawnattr_t *attributes)
{
	const char *argv[] = { program, where, what, NULL };
	pid_t pid;
	int r = posix_spawn(&pid, program, NULL, attributes, (char **)argv, environ);

	if (r) {
		printf("%s: %s\n", what, strerror(r));
		return -1;
	}
	return pid;
}

static void report(const char *what, pid_t pid, int options)
{
	siginfo_t info = { 0 };

	if (waitid(P_PID, (id_t)pid, &info, options) < 0)
		printf("%s: %s\n", what, strerror(errno));
	else
		printf("%s: pid %d code %d status %d uid %d\n", what, info.si_pid == pid,
		       info.si_code, info.si_status, info.si_uid == getuid());
	(void)fflush(stdout);
}

static void run(const char *what)
{
	(void)fflush(stdout);
	report(what, start(what, NULL), WEXITED);
}

static void set_number(const char *name, int value)
{
	char text[16];

	(void)snprintf(text, sizeof(text), "%d", value);
	(void)setenv(name, text, 1);
}

static void families(void)
{
	posix_spawnattr_t leads;
	pid_t pid;

	set_number("PARENT", getpid());
	set_number("GROUP", getpgrp());
	set_number("SESSION", getsid(0));
	run("family");
	(void)posix_spawnattr_init(&leads);
	(void)posix_spawnattr_setflags(&leads, POSIX_SPAWN_SETPGROUP);
	pid = start("leader", &leads);
	report("leader", pid, WEXITED);
	pid = start("wait", &leads);
	printf("group of it %d, signalled %d\n", getpgid(pid) == pid, kill(-pid, SIGTERM));
	report("killed as a group", pid, WEXITED);
}

static void signals(void)
{
	siginfo_t info = { 0 };
	sigset_t set;
	pid_t pid;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 3);
	sigaddset(&set, SIGCHLD);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	sigdelset(&set, SIGCHLD);
	pid = start("signal parent", NULL);
	while (sigwaitinfo(&set, &info) < 0)
		;
	printf("signal: value %d from it %d\n", info.si_value.sival_int, info.si_pid == pid);
	(void)kill(pid, SIGHUP);
	report("answered", pid, WEXITED);

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	while (sigtimedwait(&set, &info, &(struct timespec){ 0 }) > 0)
		;
	pid = start("exit 6", NULL);
	while (sigwaitinfo(&set, &info) < 0)
		;
	printf("SIGCHLD: pid %d code %d status %d\n", info.si_pid == pid, info.si_code,
	       info.si_status);
	report("its end", pid, WEXITED);

	pid = start("stop", NULL);
	report("stopped", pid, WSTOPPED);
	(void)kill(pid, SIGCONT);
	report("went on", pid, WCONTINUED);
	(void)kill(pid, SIGTERM);
	report("ended", pid, WEXITED);
	(void)sigprocmask(SIG_UNBLOCK, &set, NULL);
}

/* What the kernel keeps of a process over its exec. */
static void kept(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		const struct itimerval soon = { .it_value.tv_usec = 700000 };

		(void)setitimer(ITIMER_REAL, &soon, NULL);
		(void)execl(program, program, where, "alarm", NULL);
		_exit(1);
	}
	report("alarm", pid, WEXITED);
	pid = fork();
	if (pid == 0) {
		sigset_t set;

		sigemptyset(&set);
		sigaddset(&set, SIGUSR2);
		sigaddset(&set, SIGRTMIN + 1);
		(void)sigprocmask(SIG_BLOCK, &set, NULL);
		for (int i = 1; i < 4; i++)
			(void)sigqueue(getpid(), SIGRTMIN + 1, (union sigval){ .sival_int = i });
		(void)raise(SIGUSR2);
		(void)execl(program, program, where, "pending", NULL);
		_exit(1);
	}
	report("pending", pid, WEXITED);
}

/* A process that only its PID is known of. */
static void far(void)
{
	int ends[2], lives, fd, sent, ready, dies;
	pid_t nested = 0, pid;

	(void)pipe2(ends, O_CLOEXEC);
	(void)dup2(ends[1], 7);
	pid = start("nest", NULL);
	(void)close(ends[1]);
	(void)close(7);
	(void)!read(ends[0], &nested, sizeof(nested));
	lives = kill(nested, 0);
	(void)sigqueue(nested, SIGRTMIN + 2, (union sigval){ .sival_int = 88 });
	(void)!read(ends[0], &(char){ 0 }, 1);
	(void)close(ends[0]);
	fd = (int)syscall(SYS_pidfd_open, nested, 0);
	sent = (int)syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0);
	ready = poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, 20000);
	report("nest", pid, WEXITED);
	dies = kill(nested, 0) < 0 ? errno : 0;
	printf("far: lives %d descriptor %d sent %d ready %d, then %d\n", lives, fd >= 0, sent, ready,
	       dies);
	(void)close(fd);
}

static void files(void)
{
	char name[] = "heir.XXXXXX";
	int fd = mkstemp(name), log = open("heir.log", O_WRONLY | O_APPEND | O_CREAT | O_TRUNC, 0600);
	char text[64] = { 0 };
	int log_in;

	(void)!write(fd, "abcdefgh", 8);
	(void)close(fd);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	(void)lseek(fd, 2, SEEK_SET);
	(void)dup2(log, 6);
	(void)close(log);
	run("append");
	(void)!write(6, "parent\n", 7);
	/* Its own only: the offset is nobody else's. */
	(void)fflush(stdout);
	if (fork() == 0) {
		(void)dup2(open(name, O_RDONLY), 5);
		(void)lseek(5, 2, SEEK_SET);
		(void)close(fd);
		(void)execl(program, program, where, "read", NULL);
		_exit(1);
	}
	(void)wait(NULL);
	/* Shared: who reads after the child goes on where it ended. */
	(void)dup2(fd, 5);
	run("read");
	printf("then at %ld\n", (long)lseek(5, 0, SEEK_CUR));
	(void)close(5);
	(void)close(6);
	(void)close(fd);
	log_in = open("heir.log", O_RDONLY);
	(void)!read(log_in, text, sizeof(text) - 1);
	printf("log: %s", text);
	(void)close(log_in);
	(void)unlink(name);
	(void)unlink("heir.log");
}

int main(int argc, char **argv)
{
	const struct rlimit core = { 0, 4096 };
	pid_t burners[64];
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	program = argv[0];
	where = argv[1];
	if (argc > 2)
		return child(argv[2]);
	n = n < 64 ? n : 64;
	for (long i = 0; i < n; i++)
		burners[i] = start("burn", NULL);
	(void)usleep(300000);
	(void)umask(027);
	(void)setpriority(PRIO_PROCESS, 0, 3);
	(void)setrlimit(RLIMIT_CORE, &core);
	(void)setenv("HEIR", "a b\tc", 1);
	(void)setenv("EMPTY", "", 1);
	(void)signal(SIGQUIT, SIG_IGN);
	run("inherit");
	families();
	signals();
	kept();
	far();
	files();
	for (int i = 0; i < 4; i++) {
		static const char *const ends[] = { "exit 0", "exit 255", "kill 9", "kill 15" };

		run(ends[i]);
	}
	run("grandchild");
	program = "./no-such-program";
	(void)start("exit 0", NULL);
	program = "/etc/passwd";
	(void)start("exit 0", NULL);
	for (long i = 0; i < n; i++) {
		(void)kill(burners[i], SIGKILL);
		report("burner", burners[i], WEXITED);
	}
	return 11;
}
