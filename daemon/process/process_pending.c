/* The pending signals of a frozen process, counted without taking them. */
#include "process_pending.h"

#include "cleanup.h"
#include "err.h"
#include "process_proc.h"

#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

enum { PENDING_MAX = 65536 };

struct process_pending *process_pending_free(struct process_pending *pending)
{
	free(pending);
	return NULL;
}

DEFINE_CLEANUP(struct process_pending, process_pending_free)

/* @flags: PTRACE_PEEKSIGINFO_SHARED: of the process, 0: of the thread. */
static int count_queue(pid_t pid, unsigned flags, uint16_t count[65])
{
	siginfo_t infos[16];
	struct __ptrace_peeksiginfo_args args = {.flags = flags, .nr = 16};
	long n;

	do {
		n = ptrace(PTRACE_PEEKSIGINFO, pid, &args, infos);
		if (n < 0)
			return err_origin(-errno);
		for (long i = 0; i < n; i++)
			if (infos[i].si_signo > 0 && infos[i].si_signo < 65)
				count[infos[i].si_signo]++;
		args.off += n;
	} while (n == 16 && args.off < PENDING_MAX);
	return 0;
}

static bool is_zombie(int proc_fd, pid_t pid)
{
	struct proc_stat s;

	return proc_stat_read(proc_fd, pid, &s) == 0 && s.state == 'Z' && s.n_threads <= 1;
}

static int count_process(int proc_fd, pid_t pid, uint16_t count[65])
{
	int status, r;

	if (ptrace(PTRACE_SEIZE, pid, 0, 0) < 0) {
		r = -errno;
		/* Whom no signal reaches any more, and no tracer. */
		return is_zombie(proc_fd, pid) ? 0 : err_origin(r);
	}
	r = ptrace(PTRACE_INTERRUPT, pid, 0, 0) < 0 ||
			    waitpid(pid, &status, __WALL) != pid
		    ? err_origin(-errno)
		    : 0;
	if (r == 0)
		r = count_queue(pid, PTRACE_PEEKSIGINFO_SHARED, count);
	if (r == 0)
		r = count_queue(pid, 0, count);
	(void)ptrace(PTRACE_DETACH, pid, 0, 0);
	return r;
}

int process_pending_read(int proc_fd, const struct process_member *members,
			 size_t n_members, struct process_pending **ret)
{
	_cleanup_(process_pending_freep) struct process_pending *p = NULL;
	int r;

	p = calloc(1, sizeof(*p) + n_members * sizeof(p->of[0]));
	if (!p)
		return err_origin(-ENOMEM);
	p->n = n_members;
	for (size_t i = 0; i < n_members; i++) {
		p->of[i].pid = members[i].pid;
		r = count_process(proc_fd, members[i].pid, p->of[i].count);
		if (r < 0)
			return r;
	}
	*ret = TAKE(p);
	return 0;
}
