/*
 * The tracer of shadows.
 *
 * Happy path: a shadow runs untouched; a stop is passed on and then kept by
 * PTRACE_LISTEN, so that its parent sees it and SIGCONT ends it; an exit is let
 * through if it was ordered, else held.
 *
 * Failure modes: ssid dies -> the kernel lets all tracees go on, and a successor
 * reconciles by state; a shadow cannot be seized (somebody else traces it) -> it is
 * as right as without.
 */
#include "process_internal.h"

#include "err.h"
#include "log.h"

#include <poll.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

enum { RELEASE_MS = 200 };

static void on_event(struct process_room *p, pid_t pid, int status)
{
	int signal = WSTOPSIG(status), event = status >> 16;

	if (event == PTRACE_EVENT_EXIT) {
		if (shadow_may_exit(p, pid))
			(void)ptrace(PTRACE_CONT, pid, 0, 0);
	} else if (event == PTRACE_EVENT_STOP && signal != SIGTRAP) {
		shadow_on_stop(p, pid, signal);
		(void)ptrace(PTRACE_LISTEN, pid, 0, 0);
	} else if (event) {
		(void)ptrace(PTRACE_CONT, pid, 0, 0);
	} else {
		(void)ptrace(PTRACE_CONT, pid, 0, signal);
	}
}

void process_on_sigchld(struct process_room *p)
{
	int status;
	pid_t pid;

	if (!p->tracing)
		return;
	/* Of this thread only: the injection door waits for its own on others. */
	while ((pid = waitpid(-1, &status, __WALL | __WNOTHREAD | WNOHANG)) > 0)
		if (WIFSTOPPED(status))
			on_event(p, pid, status);
}

int process_trace(struct process_room *p)
{
	p->tracing = true;
	shadow_trace_all(p);
	return 0;
}

void trace_seize(struct process_room *p, pid_t pid)
{
	if (p->tracing && room_is_shadow(p, pid) &&
	    ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACEEXIT) < 0)
		log_debug("shadow %d is not traced", pid);
}

void trace_release(struct process_room *p, pid_t pid)
{
	int status;

	if (!p->tracing || ptrace(PTRACE_INTERRUPT, pid, 0, 0) < 0)
		return;
	/* It sleeps in ppoll(): microseconds. */
	for (int i = 0; i < RELEASE_MS; i++) {
		if (waitpid(pid, &status, __WALL | WNOHANG) == pid) {
			(void)ptrace(PTRACE_DETACH, pid, 0, 0);
			return;
		}
		(void)poll(NULL, 0, 1);
	}
}

void trace_go(struct process_room *p, pid_t pid)
{
	if (p->tracing)
		(void)ptrace(PTRACE_CONT, pid, 0, 0);
}
