/* Waiting for threads, and stopping all of a process. */
#include "inject_internal.h"

#include "err.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>

#ifndef PTRACE_O_SUSPEND_SECCOMP
#define PTRACE_O_SUSPEND_SECCOMP (1 << 21)
#endif

nsec_t inject_now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_BOOTTIME, &t);
	return t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

/* waitpid() knows no deadline: look, more and more slowly. */
int inject_wait(pid_t tid, nsec_t deadline, int *ret_status)
{
	struct timespec nap = { .tv_nsec = 20000 };
	int status;
	pid_t r;

	for (int n = 0;; n++) {
		r = waitpid(tid, &status, __WALL | WNOHANG);
		if (r < 0 && errno != EINTR)
			return INJECT_E_GONE;
		if (r == tid)
			break;
		if (inject_now() > deadline)
			return INJECT_E_TIMEOUT;
		if (n < 50) {
			(void)sched_yield();
			continue;
		}
		(void)nanosleep(&nap, NULL);
		if (nap.tv_nsec < 500000)
			nap.tv_nsec *= 2;
	}
	if (!WIFSTOPPED(status))
		return INJECT_E_GONE;
	*ret_status = status;
	return 0;
}

FILE *inject_open_proc(const struct inject *i, const char *format, pid_t tid)
{
	char path[64];
	int fd;

	(void)snprintf(path, sizeof(path), format, i->pid, tid);
	fd = openat(i->proc_fd, path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? NULL : fdopen(fd, "r");
}

/* State letter and tracer of a thread; 'X' when it is gone. */
static char look_at(const struct inject *i, pid_t tid, int *ret_tracer)
{
	FILE *f = inject_open_proc(i, "%d/task/%d/status", tid);
	char line[256], state = 'X';

	*ret_tracer = 0;
	while (f && fgets(line, sizeof(line), f)) {
		(void)sscanf(line, "State: %c", &state);
		(void)sscanf(line, "TracerPid: %d", ret_tracer);
	}
	if (f)
		(void)fclose(f);
	return state;
}

/* One that sleeps uninterruptibly would stop when it wakes, after we had given up and could
 * not detach it any more: let it wake first. */
static int wait_interruptible(const struct inject *i, pid_t tid, nsec_t deadline)
{
	const struct timespec nap = { .tv_nsec = 1000000 };
	int ignored;

	while (look_at(i, tid, &ignored) == 'D') {
		if (inject_now() > deadline)
			return INJECT_E_TIMEOUT;
		(void)nanosleep(&nap, NULL);
	}
	return 0;
}

/* Why PTRACE_SEIZE gave EPERM.  0: a dead leader, leave it out. */
static int explain_refusal(const struct inject *i, pid_t tid)
{
	int tracer;
	char state = look_at(i, tid, &tracer);

	if (state == 'Z' || state == 'X')
		return 0;
	return tracer ? INJECT_E_TRACED : err_origin(-EPERM);
}

bool inject_is_seized(const struct inject *i, pid_t tid)
{
	for (size_t n = 0; n < i->n_threads; n++)
		if (i->threads[n] == tid)
			return true;
	return false;
}

static int seize(struct inject *i, pid_t tid, nsec_t deadline)
{
	const unsigned long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC;
	pid_t *longer;
	int r;

	r = wait_interruptible(i, tid, deadline);
	if (r != 0)
		return r;
	longer = reallocarray(i->threads, i->n_threads + 1, sizeof(*longer));
	if (!longer)
		return err_origin(-ENOMEM);
	i->threads = longer;
	/* Filters of the application are not for our calls; not every kernel can do that. */
	if (ptrace(PTRACE_SEIZE, tid, NULL, options | PTRACE_O_SUSPEND_SECCOMP) < 0 &&
	    ptrace(PTRACE_SEIZE, tid, NULL, options) < 0) {
		if (errno == ESRCH)
			return 0;
		return errno == EPERM ? explain_refusal(i, tid) : err_origin(-errno);
	}
	i->threads[i->n_threads++] = tid;
	if (ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) < 0 && errno != ESRCH)
		return err_origin(-errno);
	return 0;
}

/* A signal that was already being delivered goes on; its handler runs after detach. */
static int wait_interrupted(pid_t tid, nsec_t deadline)
{
	int status, r;

	for (;;) {
		r = inject_wait(tid, deadline, &status);
		if (r != 0 || inject_stop_is_event(status, PTRACE_EVENT_STOP))
			return r;
		(void)ptrace(PTRACE_CONT, tid, NULL, status >> 16 ? 0L : (long)WSTOPSIG(status));
	}
}

/* Seize what is new; *ret_new: how many were. */
static int seize_new(struct inject *i, nsec_t deadline, size_t *ret_new)
{
	size_t before = i->n_threads;
	struct dirent *e;
	char path[32];
	int fd, r = 0;
	DIR *dir;

	(void)snprintf(path, sizeof(path), "%d/task", i->pid);
	fd = openat(i->proc_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir)
		return INJECT_E_GONE;
	while (r == 0 && (e = readdir(dir))) {
		pid_t tid = atoi(e->d_name);

		if (tid > 0 && !inject_is_seized(i, tid))
			r = seize(i, tid, deadline);
	}
	(void)closedir(dir);
	*ret_new = i->n_threads - before;
	for (size_t n = before; r == 0 && n < i->n_threads; n++) {
		r = wait_interrupted(i->threads[n], deadline);
		if (r == INJECT_E_GONE) { /* one thread less */
			i->threads[n--] = i->threads[--i->n_threads];
			r = 0;
		}
	}
	return r;
}

int inject_seize_all(struct inject *i)
{
	nsec_t deadline = inject_now() + INJECT_DEADLINE_MS * NSEC_PER_MSEC;
	size_t n_new = 1;
	int r = 0;

	while (r == 0 && n_new)
		r = seize_new(i, deadline, &n_new);
	if (r == 0 && !i->n_threads)
		r = INJECT_E_GONE;
	return r;
}
