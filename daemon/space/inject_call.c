/*
 * One system call in a stopped thread.
 *
 * Before and after, the thread stands in a PTRACE_EVENT_STOP, which is inside the
 * kernel's signal handling, on the way to user mode: the place where putting back
 * the registers of an interrupted call makes the kernel restart it.  So a call is:
 * set registers, run to its entry, run to its exit, interrupt, run into that stop.
 */
#include "inject_internal.h"

#include "err.h"

#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#ifndef PTRACE_GET_SYSCALL_INFO
#define PTRACE_GET_SYSCALL_INFO 0x420e
#endif

enum { OP_EXIT = 2 }; /* PTRACE_SYSCALL_INFO_EXIT */

static int lost(struct inject *i)
{
	i->gone = true;
	return INJECT_E_GONE;
}

static int resume(struct inject *i, enum __ptrace_request how)
{
	if (ptrace(how, i->carrier, NULL, NULL) == 0)
		return 0;
	return errno == ESRCH ? lost(i) : err_origin(-errno);
}

static bool at_exit(const struct inject *i)
{
	uint8_t info[128] = { 0 };

	return ptrace(PTRACE_GET_SYSCALL_INFO, i->carrier, sizeof(info), info) > 0 &&
	       info[0] == OP_EXIT;
}

/* A traced thread that exec() or a signal kills counts until its tracer has buried it: neither
 * the exec() nor the end of the process comes to us before. */
static void bury_others(struct inject *i)
{
	for (size_t n = 0; n < i->n_threads; n++) {
		pid_t tid = i->threads[n];
		int status;

		if (tid == i->carrier || waitpid(tid, &status, __WALL | WNOHANG) != tid ||
		    WIFSTOPPED(status))
			continue;
		i->threads[n--] = i->threads[--i->n_threads];
	}
}

static int wait_carrier(struct inject *i, bool exec, nsec_t deadline, int *ret_status)
{
	int r;

	for (;;) {
		/* Other threads must be looked at in between. */
		nsec_t slice = i->n_threads > 1 ? inject_now() + NSEC_PER_MSEC : deadline;

		r = inject_wait(i->carrier, slice, ret_status);
		if (r == INJECT_E_GONE && exec && i->carrier != i->pid) {
			i->carrier = i->pid; /* the one that called exec() is the leader now */
			continue;
		}
		if (r != INJECT_E_TIMEOUT || inject_now() > deadline)
			return r == INJECT_E_GONE ? lost(i) : r;
		bury_others(i);
	}
}

/* A signal came through the mask: SIGSTOP, which waits, or a fault of ours. */
static int hold_signal(struct inject *i, int signal)
{
	if (signal != SIGSTOP)
		return err_origin(-EFAULT);
	i->held_stop = true;
	return 0;
}

/* From anywhere in the kernel into the stop described above. */
static int come_to_rest(struct inject *i)
{
	nsec_t deadline = inject_now() + INJECT_DEADLINE_MS * NSEC_PER_MSEC;
	int status, r;

	if (ptrace(PTRACE_INTERRUPT, i->carrier, NULL, NULL) < 0)
		return errno == ESRCH ? lost(i) : err_origin(-errno);
	for (;;) {
		r = resume(i, PTRACE_CONT);
		if (r == 0)
			r = wait_carrier(i, false, deadline, &status);
		if (r != 0 || inject_stop_is_event(status, PTRACE_EVENT_STOP))
			break;
		if (WSTOPSIG(status) == SIGSTOP)
			i->held_stop = true;
	}
	i->stuck = r == INJECT_E_TIMEOUT;
	return r;
}

static void become_replaced(struct inject *i)
{
	i->replaced = true;
	i->scratch = 0;
	i->threads[0] = i->carrier = i->pid;
	i->n_threads = 1;
}

/* The deadline is over.  Whatever state the call is in, stop it. */
static int give_up(struct inject *i)
{
	nsec_t deadline = inject_now() + INJECT_DEADLINE_MS * NSEC_PER_MSEC / 4;
	int status, r;

	(void)ptrace(PTRACE_INTERRUPT, i->carrier, NULL, NULL);
	do {
		r = wait_carrier(i, false, deadline, &status);
		if (r == 0 && !inject_stop_is_event(status, PTRACE_EVENT_STOP))
			r = resume(i, PTRACE_CONT);
		else
			break;
	} while (r == 0);
	i->stuck = r == INJECT_E_TIMEOUT;
	return r == 0 ? INJECT_E_TIMEOUT : r;
}

/* To the exit of the call. */
static int run_to_exit(struct inject *i, bool exec, nsec_t deadline)
{
	int status, r;

	for (;;) {
		r = resume(i, PTRACE_SYSCALL);
		if (r == 0)
			r = wait_carrier(i, exec, deadline, &status);
		if (r == INJECT_E_TIMEOUT)
			return give_up(i);
		if (r != 0)
			return r;
		if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
			if (at_exit(i))
				return 0;
		} else if (inject_stop_is_event(status, PTRACE_EVENT_EXEC)) {
			become_replaced(i);
		} else if (!(status >> 16)) {
			r = hold_signal(i, WSTOPSIG(status));
			if (r < 0) {
				(void)come_to_rest(i);
				return r;
			}
		}
	}
}

int inject_run(struct inject *i, long nr, const long args[static 6], bool exec, long *ret)
{
	nsec_t deadline = inject_now() + INJECT_DEADLINE_MS * NSEC_PER_MSEC;
	inject_regs regs;
	long result;
	int r;

	if (i->gone)
		return INJECT_E_GONE;
	if (i->stuck)
		return INJECT_E_TIMEOUT;
	do {
		regs = i->saved;
		inject_regs_call(&regs, i->insn, nr, args);
		if (ptrace(PTRACE_SETREGS, i->carrier, NULL, &regs) < 0)
			return errno == ESRCH ? lost(i) : err_origin(-errno);
		r = run_to_exit(i, exec, deadline);
		if (r != 0)
			return r;
		if (ptrace(PTRACE_GETREGS, i->carrier, NULL, &regs) < 0)
			return errno == ESRCH ? lost(i) : err_origin(-errno);
		result = inject_regs_result(&regs);
		r = come_to_rest(i);
		if (r != 0)
			return r;
	} while (inject_result_restarts(result) && !i->replaced);
	*ret = result;
	return 0;
}

int inject_call(struct inject *i, long nr, const long args[static 6], long *ret)
{
	return inject_run(i, nr, args, false, ret);
}
