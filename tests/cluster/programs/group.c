/*
 * A process group whose members may be on several nodes, and what each is sent.
 *
 *   group FILE N        be its leader, with N members, while all processors are busy;
 * each of them has two children of its own.  Everybody appends to FILE NAME is PID on
 * NODE and for each signal NAME got SIGNAL code CODE from PID uid UID value VALUE
 *                       SIGUSR2: send SIGUSR1 to the own group.  SIGINT: end, the
 * leader when all members have group FILE NAME m   be a member
 */
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *program, *file;

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void say(const char *format, ...)
{
	char line[256];
	va_list ap;
	int fd = open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666), n;

	va_start(ap, format);
	n = vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	(void)!write(fd, line, (size_t)n);
	(void)close(fd);
}

static void block(sigset_t *ret)
{
	sigemptyset(ret);
	sigaddset(ret, SIGUSR1);
	sigaddset(ret, SIGUSR2);
	sigaddset(ret, SIGINT);
	sigaddset(ret, SIGCONT);
	sigaddset(ret, SIGRTMIN + 1);
	(void)sigprocmask(SIG_BLOCK, ret, NULL);
}

/* Until SIGINT. */
static void listen_as(const char *name, const sigset_t *set)
{
	struct utsname u;
	siginfo_t i;

	(void)uname(&u);
	say("%s is %d on %s\n", name, getpid(), u.nodename);
	do {
		if (sigwaitinfo(set, &i) < 0)
			continue;
		say("%s got %d code %d from %d uid %d value %d\n", name, i.si_signo,
		    i.si_code, i.si_pid, i.si_uid, i.si_value.sival_int);
		if (i.si_signo == SIGUSR2)
			(void)kill(0, SIGUSR1);
	} while (i.si_signo != SIGINT);
}

static int member(const char *name, const sigset_t *set)
{
	char child[32];

	for (int k = 1; k <= 2; k++)
		if (fork() == 0) {
			(void)snprintf(child, sizeof(child), "%s.%d", name, k);
			listen_as(child, set);
			return 0;
		}
	listen_as(name, set);
	while (wait(NULL) > 0)
		;
	return 0;
}

static pid_t start(const char *name, const char *what, short flags)
{
	const char *argv[] = {program, file, name, what, NULL};
	posix_spawnattr_t attributes;
	pid_t pid;

	(void)posix_spawnattr_init(&attributes);
	(void)posix_spawnattr_setflags(&attributes, flags);
	if (posix_spawn(&pid, program, NULL, &attributes, (char **)argv, environ))
		exit(1);
	return pid;
}

int main(int argc, char **argv)
{
	long n_burners = sysconf(_SC_NPROCESSORS_ONLN), n = atoi(argv[2]);
	pid_t burners[64];
	char name[16];
	sigset_t set;

	program = argv[0];
	file = argv[1];
	block(&set);
	if (argc > 3 && !strcmp(argv[3], "m"))
		return member(argv[2], &set);
	if (argc > 3) { /* a burner, in a group of its own */
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			;
	}
	for (long k = 0; k < n_burners && k < 64; k++)
		burners[k] = start("burner", "b", POSIX_SPAWN_SETPGROUP);
	(void)usleep(300000);
	for (long k = 1; k <= n; k++) {
		(void)snprintf(name, sizeof(name), "m%ld", k);
		(void)start(name, "m", 0);
	}
	listen_as("leader", &set);
	for (long k = 0; k < n; k++)
		(void)wait(NULL);
	for (long k = 0; k < n_burners && k < 64; k++)
		(void)kill(burners[k], SIGKILL);
	return 0;
}
