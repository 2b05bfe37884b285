/*
 * Attaching and detaching.
 *
 * happy path: seize and interrupt every thread, again until no new one appears;
 * each stands in the kernel, on its way back to user mode.  All signals of the
 * thread that runs our calls are blocked, so they stay in the kernel's queues.
 * To detach, registers and mask are put back while it stands in that same place:
 * the kernel then restarts or interrupts its system call by its own rules.
 * failure modes: somebody traces it, it ends, or a thread sleeps uninterruptibly:
 * those already seized are let go as if nothing had been.
 */
#include "inject_internal.h"

#include "err.h"
#include "log.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#ifndef PTRACE_GET_RSEQ_CONFIGURATION
#define PTRACE_GET_RSEQ_CONFIGURATION 0x420f
#endif

/* The kernel's ABI, not in every libc. */
struct rseq_configuration {
	uint64_t abi_pointer;
	uint32_t abi_size, signature, flags, pad;
};

struct rseq_section {
	uint32_t version, flags;
	uint64_t start_ip, post_commit_offset, abort_ip;
};

/* Stopped inside a restartable sequence, it must go on at the abort handler, as after any
 * preemption: the kernel forgets the section when it sees our instruction pointer. */
static void leave_rseq(struct inject *i)
{
	struct rseq_configuration c = { 0 };
	struct rseq_section s;
	uint64_t ip = inject_regs_ip(&i->saved), address = 0;

	if (inject_regs_in_syscall(&i->saved) ||
	    ptrace(PTRACE_GET_RSEQ_CONFIGURATION, i->carrier, sizeof(c), &c) < 0 ||
	    !c.abi_pointer || inject_read(i, c.abi_pointer + 8, &address, sizeof(address)) != 0 ||
	    !address || inject_read(i, address, &s, sizeof(s)) != 0)
		return;
	if (ip - s.start_ip < s.post_commit_offset)
		inject_regs_set_ip(&i->saved, s.abort_ip);
}

/* The first executable mapping of the wanted kind that holds the instruction. */
static int find_insn(struct inject *i, bool vdso_only)
{
	uint8_t bytes[4096 + 1];
	uint64_t start, end;
	FILE *f = inject_open_proc(i, "%d/maps", 0);
	char line[512], rights[8];
	int r = -ENOENT;

	if (!f)
		return INJECT_E_GONE;
	while (r != 0 && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx %7s", &start, &end, rights) != 3 || rights[2] != 'x' ||
		    strstr(line, "[vsyscall]") || (vdso_only && !strstr(line, "[vdso]")))
			continue;
		for (uint64_t at = start; r != 0 && at < end; at += 4096) {
			size_t len = end - at < sizeof(bytes) ? end - at : sizeof(bytes);
			const uint8_t *p;

			if (inject_read(i, at, bytes, len) != 0)
				break;
			p = memmem(bytes, len, inject_syscall_insn, sizeof(inject_syscall_insn));
			if (p) {
				i->insn = at + (p - bytes);
				r = 0;
			}
		}
	}
	(void)fclose(f);
	return r;
}

static int prepare(struct inject *i)
{
	const uint64_t all = ~UINT64_C(0);
	int r;

	i->carrier = inject_is_seized(i, i->pid) ? i->pid : i->threads[0];
	if (ptrace(PTRACE_GETREGS, i->carrier, NULL, &i->saved) < 0 ||
	    ptrace(PTRACE_GETSIGMASK, i->carrier, sizeof(i->saved_mask), &i->saved_mask) < 0)
		return errno == ESRCH ? INJECT_E_GONE : err_origin(-errno);
	if (!inject_regs_usable(&i->saved))
		return err_origin(-ENOEXEC);
	leave_rseq(i);
	r = find_insn(i, true);
	if (r == -ENOENT)
		r = find_insn(i, false);
	if (r != 0)
		return err_origin(r);
	if (ptrace(PTRACE_SETSIGMASK, i->carrier, sizeof(all), &all) < 0)
		return errno == ESRCH ? INJECT_E_GONE : err_origin(-errno);
	i->ready = true;
	return 0;
}

int inject_open_memory(struct inject *i)
{
	char path[32];

	i->mem_fd = close_fd(i->mem_fd);
	(void)snprintf(path, sizeof(path), "%d/mem", i->pid);
	i->mem_fd = openat(i->proc_fd, path, O_RDWR | O_CLOEXEC);
	if (i->mem_fd < 0)
		return errno == ENOENT || errno == ESRCH ? INJECT_E_GONE : err_origin(-errno);
	return 0;
}

DEFINE_CLEANUP(struct inject, inject_detach)

int inject_attach(struct inject **ret, int proc_fd, pid_t pid)
{
	_cleanup_(inject_detachp) struct inject *i = calloc(1, sizeof(*i));
	int r;

	if (!i)
		return err_origin(-ENOMEM);
	i->pid = pid;
	i->mem_fd = -1;
	i->proc_fd = fcntl(proc_fd, F_DUPFD_CLOEXEC, 3);
	if (i->proc_fd < 0)
		return err_origin(-errno);
	r = inject_open_memory(i);
	if (r == 0)
		r = inject_seize_all(i);
	if (r == 0)
		r = prepare(i);
	if (r != 0)
		return r;
	*ret = TAKE(i);
	return 0;
}

/* A SIGCONT that came after the SIGSTOP which we held cancels it. */
static bool continue_pends(const struct inject *i)
{
	const unsigned long bit = 1ul << (SIGCONT - 1);
	FILE *f = inject_open_proc(i, "%d/status", 0);
	unsigned long pending;
	bool found = false;
	char line[256];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "SigPnd: %lx", &pending) == 1 ||
		    sscanf(line, "ShdPnd: %lx", &pending) == 1)
			found |= pending & bit;
	if (f)
		(void)fclose(f);
	return found;
}

static void put_back(struct inject *i)
{
	const long args[6] = { (long)i->scratch, INJECT_SCRATCH };
	long ignored;

	if (i->scratch && !i->replaced && !i->stuck)
		(void)inject_run(i, SYS_munmap, args, false, &ignored);
	if (i->ready && !i->replaced && !i->gone && !i->stuck) {
		(void)ptrace(PTRACE_SETREGS, i->carrier, NULL, &i->saved);
		(void)ptrace(PTRACE_SETSIGMASK, i->carrier, sizeof(i->saved_mask),
			     &i->saved_mask);
	}
	i->held_stop &= !i->gone && !continue_pends(i);
}

static void let_go(pid_t tid)
{
	int status, r;

	if (ptrace(PTRACE_DETACH, tid, NULL, NULL) == 0)
		return;
	/* Killed meanwhile: its parent learns of it when we have.  Or it runs: stop it first. */
	(void)ptrace(PTRACE_INTERRUPT, tid, NULL, NULL);
	r = inject_wait(tid, inject_now() + INJECT_DEADLINE_MS * NSEC_PER_MSEC, &status);
	if (r == 0)
		(void)ptrace(PTRACE_DETACH, tid, NULL, NULL);
	else if (r == INJECT_E_TIMEOUT)
		log_error("thread %d sleeps uninterruptibly and stays traced until ssid ends", tid);
}

struct inject *inject_detach(struct inject *i)
{
	if (!i)
		return NULL;
	if (!i->gone)
		put_back(i);
	/* A dead leader is told of only when all other threads are buried. */
	for (size_t n = 0; n < i->n_threads; n++)
		if (i->threads[n] != i->pid)
			let_go(i->threads[n]);
	if (inject_is_seized(i, i->pid))
		let_go(i->pid);
	if (i->held_stop)
		(void)kill(i->pid, SIGSTOP);
	(void)close_fd(i->mem_fd);
	(void)close_fd(i->proc_fd);
	free(i->threads);
	free(i);
	return NULL;
}
