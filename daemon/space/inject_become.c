/*
 * Another program instead of the one that a process is about to start.
 *
 * happy path: it waits in execve(), in a call that the kernel would begin again after an
 * interruption; its registers are set to another execveat() at that same instruction, and it
 * runs on.  That is one step: whoever traces it may be killed before or after, and the process
 * starts the one program or the other.
 * failure modes: it waits in another call, or the new one fails -> it begins its own
 * again; it ends meanwhile.
 */
#include "inject_internal.h"

#include "err.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

DEFINE_CLEANUP(struct inject, inject_detach)

static uint64_t begin_of_call(const inject_regs *r)
{
	return inject_regs_ip(r) - sizeof(inject_syscall_insn);
}

static int set_call(struct inject *i, long nr, const long args[static 6])
{
	inject_regs regs = i->saved;

	inject_regs_call(&regs, begin_of_call(&i->saved), nr, args);
	if (ptrace(PTRACE_SETREGS, i->pid, NULL, &regs) == 0)
		return 0;
	return errno == ESRCH ? INJECT_E_GONE : err_origin(-errno);
}

/* As the kernel would have done. */
static void set_own_call(struct inject *i)
{
	long args[6];

	inject_regs_args(&i->saved, args);
	(void)set_call(i, inject_regs_number(&i->saved), args);
}

/* 0: it has become the program.  -EPROTO: the call has failed. */
static int run(struct inject *i)
{
	nsec_t deadline = inject_now() + INJECT_DEADLINE_MS * NSEC_PER_MSEC;
	int n_stops = 0, status, r;
	long signal = 0;

	for (;;) {
		if (ptrace(PTRACE_SYSCALL, i->pid, NULL, signal) < 0)
			return errno == ESRCH ? INJECT_E_GONE : err_origin(-errno);
		signal = 0;
		r = inject_wait(i->pid, deadline, &status);
		if (r != 0)
			return r;
		if (inject_stop_is_event(status, PTRACE_EVENT_EXEC))
			return 0;
		if (WSTOPSIG(status) == (SIGTRAP | 0x80) && ++n_stops == 2)
			return -EPROTO;
		if (!(status >> 16) && WSTOPSIG(status) != (SIGTRAP | 0x80))
			signal = WSTOPSIG(status); /* as if we were not there */
	}
}

static bool waits_in(const struct inject *i, long nr)
{
	return inject_regs_usable(&i->saved) && inject_regs_in_syscall(&i->saved) &&
	       inject_regs_number(&i->saved) == nr &&
	       inject_result_restarts(inject_regs_result(&i->saved));
}

int inject_become(int proc_fd, pid_t pid, long nr, int fd, uint64_t empty, uint64_t argv)
{
	_cleanup_(inject_detachp) struct inject *i = calloc(1, sizeof(*i));
	int r;

	if (!i)
		return err_origin(-ENOMEM);
	i->pid = i->carrier = pid;
	i->mem_fd = -1;
	i->proc_fd = fcntl(proc_fd, F_DUPFD_CLOEXEC, 3);
	if (i->proc_fd < 0)
		return err_origin(-errno);
	r = inject_seize_all(i);
	if (r != 0)
		return r;
	if (i->n_threads != 1 || ptrace(PTRACE_GETREGS, pid, NULL, &i->saved) < 0 ||
	    !waits_in(i, nr))
		return -EAGAIN;
	r = set_call(i, SYS_execveat, (long[6]){ fd, (long)empty, (long)argv, 0, AT_EMPTY_PATH });
	if (r == 0)
		r = run(i);
	if (r == -EPROTO)
		set_own_call(i);
	return r;
}
