/*
 * The hard bound of PIDs, for a node that has few.
 *
 * The kernel gives out numbers upwards from ns_last_pid, for ever.  A long run of
 * numbers is watched by ssid, which moves the cursor back in time; a short one is
 * gone before any watch has looked.  So every child that is bound has a filter of
 * seccomp which asks here before each fork, vfork, clone and clone3: we see that
 * there is a number for it in front of the cursor, move the cursor if there is
 * none, and let the call go on.  Nothing is emulated.
 *
 * Happy path: looking ahead of the cursor counts numbers that are free until the
 * end of its run; less those that are spoken for, that is our credit, and each
 * fork takes one of it.
 *
 * Who was let through may have taken its number or not, and cannot be asked.  So
 * whoever was counts as under way until it asks again, ends, or is seen in another
 * call than these.  Each needs one number; SPARE are for those who do not ask:
 * ssid's threads, workers of io_uring, a write of the cursor that a fork under way
 * on another processor undoes.
 *
 * A node that has plenty is watched by ssid; as long as there is none, by us, in the
 * same way: runs that are long, a margin, every 20 ms.
 *
 * Why here: pid 1 outlives every process that has the filter, so there is always
 * somebody who answers, the same one who received the call, and no ENOSYS.
 *
 * Failure modes: no run has enough -> EAGAIN, as from a kernel without PIDs.  The
 * cursor is outside of the runs all the same -> it is moved back, and ssid is told
 * from where to where, to end what was born there.
 */
#include "ssi_init_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum {
	RUNS_MAX = 2048,
	SPARE = 64,
	BATCH = 128,	      /* looked for beyond what is needed */
	UNDER_WAY_MAX = 2048, /* of a table of twice as many */
	PURGE_MIN = 32,
	PERIOD_MS = 20,
	LONG = 65536, /* a run that can be watched */
	MARGIN = 16384,
	FULL_PERIODS = 10, /* between looks, if there was nothing to be seen */
	TURN_MAX = 64,	   /* answers, or one look, before ssi-init's others have their turn */
};

static struct pids_run runs[RUNS_MAX];
static size_t n_runs, current;
static unsigned credit;
static struct pids_run window; /* where it was counted */
static unsigned full;	    /* there was none: so many ticks until we look again */
static unsigned n_looks;
static bool bound;	    /* forks are looked at */
static bool alone;	    /* ssid is not there */
static pid_t seen;	    /* the cursor at the last tick */
static bool low;	    /* to be told: the last run was left */
static pid_t stray, last_stray; /* to be told; 0: none */

static pid_t under_way[2 * UNDER_WAY_MAX]; /* 0: free; open addressing */
static size_t n_under_way, purge_at = PURGE_MIN;

static int cursor_fd = -1, proc_fd = -1, events_fd = -1, timer_fd = -1;
static size_t n_listeners, listeners_max;

/* What an event of events_fd is about: the descriptor, and in the high half one of these. */
enum { SOURCE_TIMER, SOURCE_CHILD, SOURCE_LISTENER };

/* The cursor. */

static pid_t cursor_read(void)
{
	char text[16] = { 0 };

	return pread(cursor_fd, text, sizeof(text) - 1, 0) > 0 ? atoi(text) : -1;
}

static void cursor_write(pid_t next)
{
	char text[16];
	int n = snprintf(text, sizeof(text), "%d", next - 1);

	(void)!pwrite(cursor_fd, text, n, 0);
}

static bool inside(const struct pids_run *r, pid_t last)
{
	/* first - 1: the cursor before the first number was given out */
	return last >= r->first - 1 && last < r->first + r->n;
}

/* A number is taken as long as a process, thread, group or session has it. */
static bool is_free(pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	if (fd >= 0)
		(void)close(fd);
	return fd < 0 && errno == ESRCH;
}

/* How many from @from on, until there are enough; *ret: where that was. */
static unsigned count_free(const struct pids_run *r, pid_t from, unsigned enough, struct pids_run *ret)
{
	unsigned n = 0;
	pid_t pid;

	for (pid = from; pid < r->first + r->n && n < enough; pid++)
		n += is_free(pid);
	*ret = (struct pids_run){ from, pid - from };
	return n;
}

/* Who was let through. */

static pid_t *slot_of(pid_t tid)
{
	size_t i = (uint32_t)tid * 2654435761u % (2 * UNDER_WAY_MAX);

	while (under_way[i] && under_way[i] != tid)
		i = (i + 1) % (2 * UNDER_WAY_MAX);
	return &under_way[i];
}

static void note(pid_t tid)
{
	pid_t *slot = slot_of(tid);

	n_under_way += !*slot;
	*slot = tid;
}

static bool is_fork(long nr)
{
	static const long native[] = {
#ifdef SYS_fork
		SYS_fork, SYS_vfork,
#endif
		SYS_clone, SYS_clone3,
#ifdef __x86_64__
		2, 120, 190, /* fork, clone and vfork of i386, where clone3 is the same */
#endif
	};

	for (size_t i = 0; i < sizeof(native) / sizeof(*native); i++)
		if ((nr & ~(long)X32_BIT) == native[i])
			return true;
	return false;
}

/* "running", or the number of the call in which it waits, -1 in none. */
static bool may_be_forking(pid_t tid)
{
	char path[32], text[32] = { 0 };
	ssize_t n;
	int fd;

	(void)snprintf(path, sizeof(path), "%d/syscall", tid);
	fd = openat(proc_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno != ENOENT && errno != ESRCH;
	n = read(fd, text, sizeof(text) - 1);
	if (n < 0)
		n = errno == ESRCH ? 0 : -1;
	(void)close(fd);
	if (n <= 0)
		return n < 0;
	return text[0] == 'r' || is_fork(atol(text));
}

static void purge(void)
{
	static pid_t old[2 * UNDER_WAY_MAX];

	memcpy(old, under_way, sizeof(old));
	memset(under_way, 0, sizeof(under_way));
	n_under_way = 0;
	for (size_t i = 0; i < 2 * UNDER_WAY_MAX; i++)
		if (old[i] && may_be_forking(old[i]))
			note(old[i]);
	purge_at = 2 * n_under_way + PURGE_MIN;
}

/* Credit. */

static struct pids_run *run_of(pid_t last)
{
	for (size_t i = 0; i < n_runs; i++) {
		struct pids_run *r = &runs[(current + i) % n_runs];

		if (!inside(r, last))
			continue;
		current = r - runs;
		return r;
	}
	return NULL;
}

static void note_stray(pid_t last)
{
	const struct pids_run *r = &runs[current];

	if (!stray)
		stray = r->first + r->n;
	last_stray = last;
}

static bool look_ahead(const struct pids_run *r, pid_t from)
{
	unsigned need = (unsigned)n_under_way + SPARE;
	unsigned n = count_free(r, from, need + BATCH, &window);

	credit = n > need ? n - need : 0;
	return credit > 0;
}

/* The next run with room, ours last of all: from its beginning. */
static bool move_on(void)
{
	for (size_t i = 1; i <= n_runs; i++) {
		size_t next = (current + i) % n_runs;

		if (!look_ahead(&runs[next], runs[next].first))
			continue;
		low |= next <= current;
		current = next;
		cursor_write(runs[next].first);
		return true;
	}
	low = true;
	return false;
}

static void look(void)
{
	pid_t last = cursor_read();
	const struct pids_run *r;

	credit = 0;
	n_looks++;
	if (last < 0 || !n_runs)
		return;
	if (n_under_way >= purge_at)
		purge();
	r = run_of(last);
	if (!r)
		note_stray(last);
	if (r && look_ahead(r, last + 1))
		return;
	if (move_on())
		return;
	purge();
	if (r && look_ahead(r, last + 1))
		return;
	if (move_on())
		return;
	full = FULL_PERIODS;
	if (!r)
		cursor_write(runs[current].first); /* at least ours */
}

bool pids_take(pid_t tid)
{
	if (!bound)
		return true;
	if (full)
		return false;
	if (!credit || !inside(&window, cursor_read()))
		look();
	if (credit && n_under_way >= UNDER_WAY_MAX)
		purge();
	if (!credit || n_under_way >= UNDER_WAY_MAX)
		return false;
	credit--;
	if (tid)
		note(tid);
	return true;
}

const struct pids_run *pids_runs(size_t *ret_n)
{
	*ret_n = n_runs;
	return runs;
}

/* Children: each hands its listener over, and goes on when it is ours. */

static int send_fd(int socket, int fd)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	char byte = 0;
	struct iovec io = { &byte, 1 };
	struct msghdr h = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = &control,
			    .msg_controllen = sizeof(control) };

	control.align.cmsg_level = SOL_SOCKET;
	control.align.cmsg_type = SCM_RIGHTS;
	control.align.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&control.align), &fd, sizeof(int));
	return sendmsg(socket, &h, MSG_NOSIGNAL) == 1 ? 0 : -1;
}

static int receive_fd(int socket)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	char byte;
	struct iovec io = { &byte, 1 };
	struct msghdr h = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	struct cmsghdr *c;
	int fd;

	if (recvmsg(socket, &h, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) != 1)
		return -1;
	c = CMSG_FIRSTHDR(&h);
	if (!c || c->cmsg_type != SCM_RIGHTS)
		return -1;
	memcpy(&fd, CMSG_DATA(c), sizeof(int));
	return fd;
}

static int wait_for(int fd, uint64_t source)
{
	struct epoll_event e = { .events = EPOLLIN, .data.u64 = source << 32 | (uint32_t)fd };

	return epoll_ctl(events_fd, EPOLL_CTL_ADD, fd, &e);
}

/* A child of ours that has not come to its exec has it too, so close() alone would leave it
 * in the list, under a number that is soon another's. */
static void forget(int fd)
{
	(void)epoll_ctl(events_fd, EPOLL_CTL_DEL, fd, NULL);
	(void)close(fd);
}

bool pids_are_bound(void)
{
	return bound;
}

int pids_bind_prepare(int ret_ends[2])
{
	if (n_listeners >= listeners_max)
		return INIT_E_FULL;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret_ends) < 0)
		return -errno;
	return 0;
}

void pids_bind_child(const int ends[2], bool forks, bool execs)
{
	int listener = filter_set(forks, execs);
	char byte;

	(void)close(ends[0]);
	/* No answer: nobody holds it, and each fork would fail. */
	if (listener < 0 || send_fd(ends[1], listener) < 0 || read(ends[1], &byte, 1) != 1)
		_exit(126);
	(void)close(listener);
	(void)close(ends[1]);
}

void pids_bind_parent(const int ends[2], bool born)
{
	(void)close(ends[1]);
	if (!born || wait_for(ends[0], SOURCE_CHILD) < 0)
		(void)close(ends[0]);
}

static void take_listener(int child)
{
	int fd = receive_fd(child);

	if (fd >= 0 && wait_for(fd, SOURCE_LISTENER) == 0) {
		n_listeners++;
		(void)send(child, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
	} else if (fd >= 0) {
		(void)close(fd);
	}
	forget(child);
}

/* Forks, and programs that are started. */

static void answer(int listener)
{
	/* Room for a kernel with longer ones. */
	static union {
		struct seccomp_notif of;
		char room[512];
	} call;
	static union {
		struct seccomp_notif_resp of;
		char room[512];
	} reply;

	memset(&call, 0, sizeof(call));
	memset(&reply, 0, sizeof(reply));
	if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call) < 0)
		return; /* a signal was faster: it comes again */
	if (exec_is(call.of.data.nr)) {
		exec_ask(listener, &call.of);
		return;
	}
	reply.of.id = call.of.id;
	if (pids_take((pid_t)call.of.pid))
		reply.of.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
	else
		reply.of.error = -EAGAIN;
	(void)ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &reply);
}

/* In the place of ssid. */
static void watch(pid_t last)
{
	const struct pids_run *r = run_of(last);

	if (last < 0 || !n_runs || (r && r->n >= LONG && r->first + r->n - last > MARGIN))
		return;
	if (!r)
		note_stray(last);
	for (size_t i = 1; i <= n_runs; i++) {
		size_t next = (current + i) % n_runs;

		if (runs[next].n < LONG)
			continue;
		current = next;
		cursor_write(runs[next].first);
		return;
	}
}

static void on_tick(void)
{
	uint64_t ignored;
	pid_t last;

	(void)!read(timer_fd, &ignored, sizeof(ignored));
	last = cursor_read();
	full -= full > 0;
	if (!bound && alone)
		watch(last);
	else if (bound && last != seen && (!full || !run_of(last)))
		look();
	seen = cursor_read();
}

static void serve(const struct epoll_event *e)
{
	int fd = (int)(uint32_t)e->data.u64;

	switch (e->data.u64 >> 32) {
	case SOURCE_TIMER:
		on_tick();
		break;
	case SOURCE_CHILD:
		take_listener(fd);
		break;
	case SOURCE_LISTENER:
		if (e->events & EPOLLIN) {
			answer(fd);
		} else if (e->events & EPOLLHUP) { /* the last who had the filter has ended */
			exec_forget(fd);
			forget(fd);
			n_listeners--;
		}
		break;
	}
}

void pids_serve(void)
{
	unsigned before = n_looks;
	struct epoll_event e;

	for (int i = 0; i < TURN_MAX && n_looks == before; i++) {
		if (epoll_wait(events_fd, &e, 1, 0) <= 0)
			return;
		serve(&e);
	}
}

/* What ssid says. */

static int set_timer(void)
{
	bool on = bound || (alone && n_runs);
	const struct timespec period = { 0, on ? PERIOD_MS * 1000000L : 0 };

	return timerfd_settime(timer_fd, 0, &(struct itimerspec){ period, period }, NULL);
}

void pids_leave_alone(bool is_alone)
{
	alone = is_alone;
	(void)set_timer();
}

static int add_run(pid_t first, pid_t n)
{
	size_t kept = 0;

	for (size_t i = 0; i < n_runs; i++)
		if (first >= runs[i].first && first + n <= runs[i].first + runs[i].n)
			return 0;
	/* It may be what became of some. */
	for (size_t i = 0; i < n_runs; i++)
		if (runs[i].first < first || runs[i].first + runs[i].n > first + n)
			runs[kept++] = runs[i];
	if (kept == RUNS_MAX)
		return -ENOSPC;
	runs[kept++] = (struct pids_run){ first, n };
	n_runs = kept;
	current = 0;
	credit = 0;
	full = 0;
	return 0;
}

/* It is not watched. */
static void leave_short_run(void)
{
	pid_t last = cursor_read();
	const struct pids_run *r = run_of(last);

	if (r && r->n < LONG)
		watch(last);
}

int pids_set(pid_t first, pid_t n, bool plenty)
{
	static const uint32_t notify = SECCOMP_RET_USER_NOTIF;
	int r;

	if (first <= INIT_PID_SERVICE_MAX || n <= 0 || n > INIT_PID_MAX - first)
		return -EINVAL;
	if (plenty) {
		bound = false;
		r = add_run(first, n);
		leave_short_run();
		return r < 0 ? r : set_timer();
	}
	if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &notify) < 0)
		return -ENOSYS;
	r = add_run(first, n);
	if (r < 0 || bound)
		return r;
	/* Whoever was born before did not stray. */
	if (!run_of(cursor_read()))
		cursor_write(first);
	bound = true;
	look();
	return set_timer();
}

bool pids_tell(bool (*tell)(const struct init_event *event))
{
	if (low && !tell(&(struct init_event){ INIT_EVENT_PIDS_LOW, 0, 0, 0 }))
		return false;
	low = false;
	if (stray && !tell(&(struct init_event){ INIT_EVENT_PIDS_STRAY, stray, 0, last_stray }))
		return false;
	stray = 0;
	return true;
}

int pids_start(int proc)
{
	struct rlimit files = { 0 };

	proc_fd = proc;
	(void)getrlimit(RLIMIT_NOFILE, &files);
	listeners_max = files.rlim_cur / 2;
	cursor_fd = open("/proc/sys/kernel/ns_last_pid", O_RDWR | O_CLOEXEC);
	events_fd = epoll_create1(EPOLL_CLOEXEC);
	timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (cursor_fd < 0 || events_fd < 0 || timer_fd < 0 ||
	    wait_for(timer_fd, SOURCE_TIMER) < 0)
		return -errno;
	return events_fd;
}
