/*
 * family: a parent that does what standard input says, and a child that tells
 * what reaches it.  Prints "child PID" first.  The child prints
 * "got SIGNAL CODE PID UID VALUE" for each signal.
 *
 *   kill SIGNAL | queue SIGNAL VALUE	the parent sends it to the child
 *   look	"events N wait RESULT CODE STATUS": the SIGCHLDs so far, and one
 *		waitid(WNOHANG) for all kinds of events
 *   wait	the same, but waits for an event
 *   ids	the parent's idea of itself and of the child; the child's as well
 *   exit N	the parent's exit
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t events;

static void on_child(int signal)
{
	events++;
}

static void tell(const char *who)
{
	printf("%s pid %d ppid %d pgid %d sid %d\n", who, getpid(), getppid(),
	       getpgid(0), getsid(0));
}

static int child(void)
{
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	printf("child %d\n", getpid());
	for (;;) {
		siginfo_t si;

		if (sigwaitinfo(&all, &si) < 0)
			continue;
		if (si.si_signo == SIGCONT)
			continue;
		printf("got %d %d %d %d %d\n", si.si_signo, si.si_code, si.si_pid,
		       si.si_uid, si.si_code == SI_QUEUE ? si.si_value.sival_int : 0);
		if (si.si_signo == SIGUSR2)
			tell("child");
		if (si.si_signo == SIGTERM)
			return si.si_code == SI_QUEUE ? si.si_value.sival_int : 7;
		if (si.si_signo == SIGABRT) { /* dies of it */
			sigdelset(&all, SIGABRT);
			(void)signal(SIGABRT, SIG_DFL);
			sigprocmask(SIG_SETMASK, &all, NULL);
			raise(SIGABRT);
		}
	}
}

static void look(int flags)
{
	siginfo_t si = {0};
	int r;

	do
		r = waitid(P_ALL, 0, &si, WEXITED | WSTOPPED | WCONTINUED | flags);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		si.si_pid = -errno;
	printf("events %d wait %d %d %d\n", (int)events, si.si_pid, si.si_code,
	       si.si_status);
}

int main(void)
{
	struct sigaction sa = {.sa_handler = on_child, .sa_flags = SA_RESTART};
	char line[128];
	pid_t pid;
	int a, b;

	setvbuf(stdout, NULL, _IOLBF, 0);
	sigaction(SIGCHLD, &sa, NULL);
	pid = fork();
	if (pid == 0) {
		(void)close(0);
		return child();
	}
	while (fgets(line, sizeof(line), stdin)) {
		union sigval v = {0};

		if (sscanf(line, "kill %d", &a) == 1) {
			printf("sent %d\n", kill(pid, a));
		} else if (sscanf(line, "queue %d %d", &a, &b) == 2) {
			v.sival_int = b;
			printf("sent %d\n", sigqueue(pid, a, v));
		} else if (strcmp(line, "look\n") == 0) {
			look(WNOHANG);
		} else if (strcmp(line, "wait\n") == 0) {
			look(0);
		} else if (strcmp(line, "ids\n") == 0) {
			tell("parent");
		} else if (sscanf(line, "exit %d", &a) == 1) {
			return a;
		}
	}
	return 3;
}
