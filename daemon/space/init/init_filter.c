/*
 * What a child asks pid 1 for: the program of its filter of seccomp.
 *
 * A call that names a process is asked only if that one's PID is not of our own: of ours
 * whoever has it is here, or its shadow, and so the kernel knows best.  PIDs are never taken
 * from a node, so this holds for as long as the child and its children live.  It is not only
 * faster: who waits for an answer is interrupted by a signal with a handler without
 * SA_RESTART, as dash has one for SIGCHLD, and its kill() would fail as it never does.
 */
#include "ssi_init_internal.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#endif

enum {
	OWN_MAX = 16,  /* runs; what is in others is asked */
	CODE_MAX = 64, /* instructions of all else */
};

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ASK BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF)
#define PASS BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define IS(value, skip_if, skip_else) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), skip_if, skip_else)
#define IS_ABOVE(value, skip_if, skip_else) BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, (value), skip_if, skip_else)
#define IF(value, then) IS((value), 0, 1), then

static size_t pass_own(struct sock_filter *ret)
{
	size_t n_runs, n = 0;
	const struct pids_run *runs = pids_runs(&n_runs);

	for (size_t i = 0; i < n_runs && i < OWN_MAX; i++) {
		const uint32_t first = (uint32_t)runs[i].first, last = first + (uint32_t)runs[i].n - 1;

		ret[n++] = (struct sock_filter)IS_ABOVE(first - 1, 0, 2);
		ret[n++] = (struct sock_filter)IS_ABOVE(last, 1, 0);
		ret[n++] = (struct sock_filter)PASS;
	}
	return n;
}

/* A task has one listener at most, so there is one filter, of what is asked for.  The calls of
 * i386 that start a program are not asked: those stay here. */
int filter_set(bool forks, bool execs)
{
	static const struct sock_filter fork_calls[] = {
		LOAD(arch),
#ifdef __x86_64__
		IS(AUDIT_ARCH_I386, 0, 10),
		LOAD(nr),
		IF(2, ASK),
		IF(120, ASK),
		IF(190, ASK),
		IF(435, ASK),
		PASS,
#endif
		IS(ARCH, 1, 0),
		PASS,
		LOAD(nr),
		BPF_STMT(BPF_ALU | BPF_AND | BPF_K, ~X32_BIT),
#ifdef SYS_fork
		IF(SYS_fork, ASK),
		IF(SYS_vfork, ASK),
#endif
		IF(SYS_clone, ASK),
		IF(SYS_clone3, ASK),
	};
	static const struct sock_filter exec_calls[] = {
		LOAD(arch),
		IS(ARCH, 1, 0),
		PASS,
		LOAD(nr),
		IF(SYS_execve, ASK),
		IF(SYS_execveat, ASK),
		IS(SYS_kill, 3, 0),
		IS(SYS_rt_sigqueueinfo, 2, 0),
		IS(SYS_pidfd_open, 1, 0),
		PASS,
		LOAD(args[0]), /* its lower half, where that comes first */
		IS_ABOVE(INT32_MAX, 0, 1), /* of several processes: below 1 */
		PASS,
		IF(0, PASS),
	};
	static const struct sock_filter ask = ASK, pass = PASS;
	struct sock_filter code[CODE_MAX + 3 * OWN_MAX];
	size_t n = 0;

	if (forks) {
		memcpy(code, fork_calls, sizeof(fork_calls));
		n = sizeof(fork_calls) / sizeof(*fork_calls);
	}
	if (execs) {
		memcpy(code + n, exec_calls, sizeof(exec_calls));
		n += sizeof(exec_calls) / sizeof(*exec_calls);
		n += pass_own(code + n);
	}
	code[n++] = execs ? ask : pass;
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER,
			    &(struct sock_fprog){ (unsigned short)n, code });
}
