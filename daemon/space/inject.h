#pragma once
/*
 * The injection door: run system calls in a stopped process, through the
 * syscall instruction of its own vDSO (poking one into shared text kills the
 * threads that run it).  Nothing else in ssid injects.
 *
 * inject_attach() seizes and interrupts *every* thread, so it works on a frozen
 * process, and the process may be thawed afterwards without running an
 * instruction of its own.  Calls need it thawed: a frozen process that is told to
 * run goes back to its freezer (INJECT_E_TIMEOUT).  So: freeze, attach, thaw,
 * call.  Signals that arrive meanwhile stay pending in the kernel, with their
 * siginfo, until detach.  The parent sees nothing.
 *
 * Blocks, every wait bounded by 2 s.  All calls on one struct inject must come
 * from the thread that attached (ptrace's rule): use it within one env_work().
 */
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct inject;

enum {
	_INJECT_E_SUCCESS,
	INJECT_E_GONE,    /* the process ended, before or during the call */
	INJECT_E_TRACED,  /* somebody else traces it */
	INJECT_E_TIMEOUT, /* a thread sleeps uninterruptibly */
};

/* @proc_fd: the /proc of the pid namespace of @pid and of ours, space_proc_fd(). */
int inject_attach(struct inject **ret, int proc_fd, pid_t pid);
/* Registers are put back, an interrupted system call restarts as after a stop that no
 * handler saw.  Also after inject_exec(), when there is nothing to put back. */
struct inject *inject_detach(struct inject *i);

/* One system call in the first live thread, past its seccomp filters; *ret as the kernel
 * returned it (-errno). */
int inject_call(struct inject *i, long nr, const long args[static 6], long *ret);

/* INJECT_SCRATCH bytes of memory to pass arguments in, mapped in the process at the first
 * call and unmapped at detach (its stack may be a goroutine's, with no room).  0: refused. */
enum { INJECT_SCRATCH = 16384 };
uint64_t inject_scratch(struct inject *i);
int inject_read(struct inject *i, uint64_t address, void *ret, size_t len);
int inject_write(struct inject *i, uint64_t address, const void *data, size_t len);

/* Give the process a duplicate of our @fd (socketpair in it, pidfd_getfd, SCM_RIGHTS;
 * the pair is closed again).  *ret is its number there, O_CLOEXEC as asked. */
int inject_give_fd(struct inject *i, int fd, int cloexec, int *ret);

/* Become the program behind descriptor @fd of the *target* (execveat, AT_EMPTY_PATH).  On
 * return the new image stands at its first instruction; other threads are gone.  All signals
 * are blocked in it, pending ones still pend: it sets its own mask.  INJECT_E_* or -errno of
 * the execve(), after which the old program can still be detached. */
int inject_exec(struct inject *i, int fd, const char *const *argv, const char *const *envp);

/*
 * Of a process that waits in call @nr, an execve(), where a signal would make it begin anew:
 * it executes the program behind its descriptor @fd instead, with arguments that it has in its
 * memory (@empty: of a NUL byte) and no environment.  Nothing is mapped in it or written to it,
 * since a child of vfork() has its parent's memory, and there is no moment at which a killed
 * ssid would leave anything else than the one program or the other.  < 0: its own.
 */
int inject_become(int proc_fd, pid_t pid, long nr, int fd, uint64_t empty, uint64_t argv);
