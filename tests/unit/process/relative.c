/*
 * A parent with one child, for tests of shadows: says everything that it sees of
 * it.  `relative MODE`: the child has four threads and ticks; it says the signals it
 * gets.
 */
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void say(const char *format, ...)
{
	char line[256];
	va_list ap;
	int n;

	va_start(ap, format);
	n = vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	(void)!write(1, line, n);
}

static void on_sigchld(int s, siginfo_t *i, void *c)
{
	say("SIGCHLD code %d status %d\n", i->si_code, i->si_status);
}

static void on_signal(int s, siginfo_t *i, void *c)
{
	say("child got %d code %d pid %d uid %d value %d\n", s, i->si_code, i->si_pid,
	    i->si_uid, i->si_value.sival_int);
}

static void *stay(void *arg)
{
	for (;;)
		(void)sleep(1);
	return NULL;
}

static _Noreturn void child(int timer)
{
	struct sigaction a = {.sa_sigaction = on_signal,
			      .sa_flags = SA_SIGINFO | SA_RESTART};
	struct itimerval soon = {.it_value.tv_usec = 300000,
				 .it_interval.tv_usec = 50000};
	pthread_t t;

	(void)sigaction(SIGUSR1, &a, NULL);
	(void)sigaction(SIGUSR2, &a, NULL);
	(void)sigaction(SIGRTMIN, &a, NULL);
	for (int i = 0; i < 3; i++)
		(void)pthread_create(&t, NULL, stay, NULL);
	if (timer)
		(void)setitimer(ITIMER_REAL, &soon, NULL);
	say("child ready\n");
	for (;;)
		(void)pause();
}

int main(int argc, char **argv)
{
	struct sigaction a = {.sa_sigaction = on_sigchld,
			      .sa_flags = SA_SIGINFO | SA_RESTART};
	int status;
	pid_t pid;

	if (argc > 1 && !strcmp(argv[1], "alone"))
		child(0);
	(void)sigaction(SIGCHLD, &a, NULL);
	pid = fork();
	if (pid == 0)
		child(argc > 1 && !strcmp(argv[1], "timer"));
	say("pid %d\n", pid);
	for (;;) {
		if (waitpid(pid, &status, WUNTRACED | WCONTINUED) < 0)
			continue;
		say("wait %s %d\n",
		    WIFEXITED(status)	  ? "exited"
		    : WIFSIGNALED(status) ? "killed"
		    : WIFSTOPPED(status)  ? "stopped"
					  : "continued",
		    WIFEXITED(status)	  ? WEXITSTATUS(status)
		    : WIFSIGNALED(status) ? WTERMSIG(status)
		    : WIFSTOPPED(status)  ? WSTOPSIG(status)
					  : 0);
		if (WIFEXITED(status) || WIFSIGNALED(status))
			return 0;
	}
}
