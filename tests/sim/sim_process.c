/* What the process room asks of /proc, of the kernel, and of ptrace. */
#include "sim_proc.h"

#include "cleanup.h"
#include "process_kernel.h"
#include "process_pending.h"
#include "process_proc.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

static struct sim_process *look_up(int proc_fd, pid_t pid)
{
	return sim_find(&sim_kernel->machines[proc_fd - SIM_PROC_FD], pid);
}

int proc_stat_read(int proc_fd, pid_t pid, struct proc_stat *ret)
{
	const struct sim_process *p = look_up(proc_fd, pid);

	if (!p)
		return -ENOENT;
	*ret = (struct proc_stat){
		.pid = p->pid,
		.ppid = p->ppid,
		.pgid = p->pgid,
		.sid = p->sid,
		.state = p->zombie ? 'Z' : p->stopped ? 'T' : 'S',
		.n_threads = 1,
		.comm = "simulated",
	};
	return 0;
}

int proc_status_read(int proc_fd, pid_t pid, uid_t *ret_uid, uint64_t *ret_pending)
{
	const struct sim_process *p = look_up(proc_fd, pid);

	if (!p)
		return -ENOENT;
	*ret_uid = p->uid;
	if (ret_pending)
		*ret_pending = p->pending ? 1ull << (SIGUSR1 - 1) : 0;
	return 0;
}

unsigned proc_filters(int proc_fd, pid_t pid)
{
	return 0;
}

int proc_cmdline_read(int proc_fd, pid_t pid, char *ret, size_t size, size_t *ret_len)
{
	if (!look_up(proc_fd, pid) || size < 10)
		return -ENOENT;
	memcpy(ret, "simulated", 10);
	*ret_len = 10;
	return 0;
}

int proc_exe_stat(int proc_fd, pid_t pid, struct stat *ret)
{
	const struct sim_process *p = look_up(proc_fd, pid);

	if (!p || p->zombie)
		return -ENOENT;
	return fstatat(sim_kernel->root_fd, p->shadow ? "ssi-shadow" : "program", ret, 0) < 0 ?
		       -errno :
		       0;
}

int proc_each(int proc_fd, int (*cb)(void *owner, pid_t pid), void *owner)
{
	struct sim_process *p, *next;
	int r = 0;

	for (p = LIST_FIRST(&sim_kernel->machines[proc_fd - SIM_PROC_FD].processes); p && !r;
	     p = next) {
		next = LIST_NEXT(p, in);
		r = cb(owner, p->pid);
	}
	return r;
}

int process_kernel_signal(pid_t pid, int signal)
{
	struct sim_machine *m = sim_here();

	return sim_is_deaf(m) ? 0 : sim_signal(m, pid, signal, NULL, true);
}

int process_kernel_queue(pid_t pid, int signal, const siginfo_t *info)
{
	struct sim_machine *m = sim_here();

	return sim_is_deaf(m) ? 0 : sim_signal(m, pid, signal, info, true);
}

int process_kernel_watch(pid_t pid)
{
	struct sim_machine *m = sim_here();
	struct sim_process *p = sim_find(m, pid);
	int ends[2];

	if (!p)
		return -ESRCH;
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	if (p->zombie || p->n_pidfds == SIM_PIDFDS)
		(void)close(ends[1]);
	else
		p->pidfds[p->n_pidfds++] = ends[1];
	return sim_give(m, ends[0]);
}

int process_kernel_listen(int *ret_fd)
{
	*ret_fd = -1;
	return 0;
}

int process_kernel_connect(int listen_fd, int *ret_ours, int *ret_theirs)
{
	struct sim_machine *m = sim_here();
	int ends[2];

	(void)listen_fd;
	if (sim_is_deaf(m))
		return -ENOTCONN;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0)
		return -errno;
	*ret_ours = sim_give(m, ends[0]);
	*ret_theirs = sim_give(m, ends[1]);
	return 0;
}

void process_kernel_moment(void)
{
	world_spend(sim_kernel->w, 200000);
}

int process_pending_read(int proc_fd, const struct process_member *members,
			 size_t n_members, struct process_pending **ret)
{
	struct sim_machine *m = sim_here();
	struct process_pending *pending =
		calloc(1, sizeof(*pending) + n_members * sizeof(pending->of[0]));

	assert(pending);
	pending->n = n_members;
	for (size_t i = 0; i < n_members; i++) {
		struct sim_process *p = sim_find(m, members[i].pid);

		pending->of[i].pid = members[i].pid;
		if (!p || p->zombie) {
			free(pending);
			return -ESRCH;
		}
		pending->of[i].count[SIGUSR1] = (uint16_t)p->pending;
	}
	*ret = pending;
	return 0;
}

struct process_pending *process_pending_free(struct process_pending *pending)
{
	free(pending);
	return NULL;
}
