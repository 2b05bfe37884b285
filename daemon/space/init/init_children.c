/*
 * The children of ssi-init.
 *
 * happy path: a tracked child ends; waitid(WNOWAIT) reads how, the zombie stays,
 * so its PID stays taken; the end is told until INIT_REAP buries it.  Orphans and
 * untracked children are buried at once.
 * failure modes: waitid(P_ALL) always returns the same first zombie, so one that
 * is kept hides those behind it; then every child is asked by its own PID, from
 * the kernel's list of our children.  The table is full: tracking is refused.
 */
#include "ssi_init_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	TRACK_MAX = 16384,
	N_BUCKETS = 1024,
	NONE = TRACK_MAX,
};

static struct child {
	pid_t pid; /* 0: free */
	int code, status;
	int stopped; /* the signal, SIGCONT after it, 0 never */
	bool dead;
	bool tell_exit, tell_stop;
	uint16_t next;
} children[TRACK_MAX];
static uint16_t buckets[N_BUCKETS];
static size_t end; /* no entry is used from @end on */
static int list_fd = -1;

int children_start(void)
{
	for (size_t i = 0; i < N_BUCKETS; i++)
		buckets[i] = NONE;
	list_fd = open("/proc/1/task/1/children", O_RDONLY | O_CLOEXEC);
	return list_fd < 0 ? -errno : 0;
}

static struct child *find(pid_t pid)
{
	uint16_t i = buckets[pid % N_BUCKETS];

	while (i != NONE && children[i].pid != pid)
		i = children[i].next;
	return i == NONE ? NULL : &children[i];
}

int children_track(pid_t pid)
{
	siginfo_t info = { 0 };
	struct child *c;

	if (pid <= 1 || waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0)
		return INIT_E_ABSENT;
	if (find(pid))
		return 0;
	for (c = children; c < children + TRACK_MAX && c->pid; c++)
		;
	if (c == children + TRACK_MAX)
		return INIT_E_FULL;
	*c = (struct child){ .pid = pid, .next = buckets[pid % N_BUCKETS] };
	buckets[pid % N_BUCKETS] = c - children;
	if ((size_t)(c - children) >= end)
		end = c - children + 1;
	return 0;
}

void children_reap(pid_t pid)
{
	struct child *c = pid > 1 ? find(pid) : NULL;
	siginfo_t info;
	uint16_t *link;

	if (!c)
		return;
	for (link = &buckets[pid % N_BUCKETS]; &children[*link] != c;)
		link = &children[*link].next;
	*link = c->next;
	c->pid = 0;
	while (end && !children[end - 1].pid)
		end--;
	/* One that lives is now an ordinary child, buried when it ends. */
	(void)waitid(P_PID, pid, &info, WEXITED | WNOHANG);
}

static void note_exit(struct child *c, const siginfo_t *info)
{
	c->dead = true;
	c->code = info->si_code;
	c->status = info->si_status;
	c->tell_exit = true;
}

/* Ask one child; true if it was buried. */
static bool collect_one(pid_t pid)
{
	struct child *c = find(pid);
	siginfo_t info = { 0 };

	if (c && c->dead)
		return false;
	if (waitid(P_PID, pid, &info, WEXITED | WNOHANG | (c ? WNOWAIT : 0)) < 0 || !info.si_pid)
		return false;
	if (!c)
		return true;
	note_exit(c, &info);
	return false;
}

/* Burying moves the kernel's list under our position, so a pass may miss some. */
static bool collect_all(void)
{
	static char text[65536];
	bool buried = false;
	pid_t pid = 0;
	ssize_t n;

	if (lseek(list_fd, 0, SEEK_SET) < 0)
		return false;
	while ((n = read(list_fd, text, sizeof(text))) > 0)
		for (ssize_t i = 0; i < n; i++) {
			if (text[i] >= '0' && text[i] <= '9') {
				pid = pid * 10 + (text[i] - '0');
				continue;
			}
			if (pid)
				buried |= collect_one(pid);
			pid = 0;
		}
	return buried;
}

static void collect_stops(void)
{
	for (;;) {
		siginfo_t info = { 0 };
		struct child *c;

		if (waitid(P_ALL, 0, &info, WSTOPPED | WCONTINUED | WNOHANG) < 0 || !info.si_pid)
			return;
		c = find(info.si_pid);
		if (!c)
			continue;
		c->stopped = info.si_code == CLD_CONTINUED ? SIGCONT : info.si_status;
		c->tell_stop = true;
	}
}

bool children_collect(void)
{
	collect_stops();
	for (int n = 0; n < 4096; n++) {
		siginfo_t info = { 0 };
		struct child *c;

		if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || !info.si_pid)
			return false;
		c = find(info.si_pid);
		if (c && !c->dead)
			note_exit(c, &info);
		if (c) /* a kept zombie stands in front of the others */
			return collect_all();
		(void)waitid(P_PID, info.si_pid, &info, WEXITED | WNOHANG);
	}
	return true;
}

void children_tell_again(void)
{
	for (size_t i = 0; i < end; i++) {
		children[i].tell_exit = children[i].dead;
		children[i].tell_stop = children[i].stopped && !children[i].dead;
	}
}

bool children_tell(bool (*tell)(const struct init_event *event))
{
	for (size_t i = 0; i < end; i++) {
		struct child *c = &children[i];

		if (!c->pid)
			continue;
		if (c->tell_stop) {
			if (!tell(&(struct init_event){ INIT_EVENT_STOP, c->pid, 0, c->stopped }))
				return false;
			c->tell_stop = false;
		}
		if (c->tell_exit) {
			if (!tell(&(struct init_event){ INIT_EVENT_EXIT, c->pid, c->code,
							c->status }))
				return false;
			c->tell_exit = false;
		}
	}
	return true;
}
