/*
 * ssi-shadow: stands in the place of a process that runs on another node.
 *
 * Same PID, parent, children, group and session; no memory and no descriptors of
 * it.  It blocks every signal, takes them from a signalfd into a journal, tells
 * ssid, and ends or stops as ssid says the real process did.  ssid may be gone
 * for any time: nothing is lost.
 *
 * It is set-uid root, so that it can become root again to be replaced by criu
 * when the process comes home, and runs with the real and effective ids of the
 * user, saved uid 0: `ps` and kill(2) see the user's process.
 *
 * What an ordinary user can do with it: start it.  It then ends at once with
 * status 125, before it has done anything, unless descriptor 3 is a socket
 * connected to SHADOW_SOCKET with root's listener behind it.  It reads no argument, no
 * environment and no file, it uses no C library, and cannot be traced or dumped.
 */
#include "shadow_command.h"
#include "shadow_syscall.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>

enum {
	EXIT_NOT_OURS = 125,
	SPARE_FD = 64, /* descriptors wait here before they take their numbers */
	GROUPS_MAX = 1024,
};

struct journal {
	struct shadow_report reports[SHADOW_JOURNAL];
	uint32_t first, n;
	uint64_t sequence;
};

static int sock, signals;
static uid_t user;
static struct journal journal;
static struct shadow_command command;
static int given[SHADOW_FDS_MAX], n_given;
static gid_t groups[GROUPS_MAX];
static pid_t kept[SHADOW_KEPT_MAX]; /* children that are no shadows */
static int n_kept;
static int terminal = -1, foreground = -1; /* see SHADOW_TERMINAL */

void shadow_main(void);
SHADOW_START;

static _Noreturn void leave(int status)
{
	for (;;)
		(void)sys(SYS_exit_group, status);
}

static void set_mask(uint64_t mask)
{
	(void)sys(SYS_rt_sigprocmask, SIG_SETMASK, &mask, 0, sizeof(mask));
}

/* Is ssid on the other end?  The kernel says so, nobody else. */
static int is_ours(int fd)
{
	static const char path[] = SHADOW_SOCKET;
	struct sockaddr_un peer = {0};
	struct ucred cred = {.uid = -1};
	int type = 0, len = sizeof(type), n = sizeof(peer), m = sizeof(cred);

	if (sys(SYS_getsockopt, fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 ||
	    type != SOCK_SEQPACKET)
		return 0;
	if (sys(SYS_getpeername, fd, &peer, &n) < 0 || peer.sun_family != AF_UNIX ||
	    n < (int)(__builtin_offsetof(struct sockaddr_un, sun_path) +
		      sizeof(path)) ||
	    memcmp(peer.sun_path, path, sizeof(path)) != 0)
		return 0;
	return sys(SYS_getsockopt, fd, SOL_SOCKET, SO_PEERCRED, &cred, &m) == 0 &&
	       cred.uid == 0;
}

/* Real and effective: the user's.  Saved: root's, unless no_new_privs forbade it. */
static void lower_rights(void)
{
	(void)sys(SYS_setresuid, -1, user, -1);
	(void)sys(SYS_prctl, PR_SET_DUMPABLE, 0);
}

static void tell(const struct shadow_report *r)
{
	/* Refused when ssid has not read for long: RESUME sends it again. */
	(void)sys(SYS_sendto, sock, r, sizeof(*r), MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void tell_value(uint32_t kind, long value)
{
	struct shadow_report r = {.kind = kind, .value = (int32_t)value};

	tell(&r);
}

static int is_kept(pid_t pid)
{
	for (int i = 0; i < n_kept; i++)
		if (kept[i] == pid)
			return 1;
	return 0;
}

static void tell_child(const siginfo_t *child)
{
	struct shadow_report r = {.kind = SHADOW_CHILD, .value = child->si_pid};

	r.info.ssi_code = child->si_code;
	r.info.ssi_status = child->si_status;
	tell(&r);
}

/* The next child of whom there is such news; 0: none. */
static pid_t next_child(siginfo_t *ret, int options)
{
	ret->si_pid = 0;
	if (sys(SYS_waitid, P_ALL, 0, ret, options | WNOHANG, 0) < 0)
		return 0;
	return ret->si_pid;
}

/* Children are shadows, of which nobody asks how they ended; or kept, then one after the other
 * is told and waits for REAP. */
static void reap(void)
{
	siginfo_t child;

	while (next_child(&child, WSTOPPED | WCONTINUED))
		if (is_kept(child.si_pid))
			tell_child(&child);
	while (next_child(&child, WEXITED | WNOWAIT)) {
		if (is_kept(child.si_pid)) {
			tell_child(&child);
			break;
		}
		(void)sys(SYS_wait4, child.si_pid, 0, WNOHANG, 0);
	}
}

static void reap_kept(pid_t pid)
{
	if (sys(SYS_wait4, pid, 0, WNOHANG, 0) != pid)
		return;
	for (int i = 0; i < n_kept; i++)
		if (kept[i] == pid)
			kept[i--] = kept[--n_kept];
	reap();
}

/* 0: none was pending. */
static int take_signal(void)
{
	struct shadow_report *r =
		&journal.reports[(journal.first + journal.n) % SHADOW_JOURNAL];

	if (sys(SYS_read, signals, &r->info, sizeof(r->info)) != sizeof(r->info))
		return 0;
	if (r->info.ssi_signo == SIGCHLD && r->info.ssi_code > 0) {
		reap();
		return 1;
	}
	r->kind = SHADOW_SIGNAL;
	r->value = 0;
	r->sequence = ++journal.sequence;
	journal.n++;
	tell(r);
	return 1;
}

/* What was pending when it became a shadow comes before anything else. */
static void settle(void)
{
	while (journal.n < SHADOW_JOURNAL && take_signal())
		;
	tell_value(SHADOW_SETTLED, 0);
}

static void acknowledged(uint64_t sequence)
{
	while (journal.n && journal.reports[journal.first].sequence <= sequence) {
		journal.first = (journal.first + 1) % SHADOW_JOURNAL;
		journal.n--;
	}
}

static void resume(uint64_t sequence)
{
	if (journal.sequence < sequence)
		journal.sequence = sequence;
	acknowledged(sequence);
	for (uint32_t i = 0; i < journal.n; i++)
		tell(&journal.reports[(journal.first + i) % SHADOW_JOURNAL]);
	reap();
}

/* The default action of @signal, once. */
static void suffer(int signal)
{
	struct {
		void *handler;
		unsigned long flags;
		void *restorer;
		uint64_t mask;
	} action = {0};

	(void)sys(SYS_rt_sigaction, signal, &action, 0, sizeof(action.mask));
	/* Sent while blocked, then let through: nothing comes in between. */
	(void)sys(SYS_kill, sys(SYS_getpid), signal);
	set_mask(~(1ull << (signal - 1)));
	set_mask(~0ull);
}

static _Noreturn void die_by(int signal)
{
	struct rlimit none = {0};

	(void)sys(SYS_prlimit64, 0, RLIMIT_CORE, &none, 0);
	suffer(signal);
	leave(128 + signal);
}

/* Undoes BECOME's and EXEC's rise, as far as ids go. */
static void be_user(uid_t uid, gid_t gid)
{
	user = uid;
	(void)sys(SYS_setresgid, gid, gid, gid);
	(void)sys(SYS_setresuid, uid, 0, 0);
	lower_rights();
}

static long become(const struct shadow_command *c)
{
	long r = sys(SYS_setresuid, -1, 0, -1);

	if (r < 0)
		return r;
	(void)sys(SYS_setgroups, 0, 0);
	be_user(c->uid, c->gid);
	if (c->flags & SHADOW_SETSID)
		r = sys(SYS_setsid);
	else if (c->value > 0)
		r = sys(SYS_setpgid, 0, c->value);
	return r < 0 ? r : 0;
}

/* Descriptor i of those given becomes 3 + i, our socket the one behind them. */
static long place_fds(void)
{
	long spare = sys(SYS_fcntl, sock, F_DUPFD, SPARE_FD + SHADOW_FDS_MAX);

	if (spare < 0)
		return spare; /* RLIMIT_NOFILE: refused, not half done */
	sock = (int)spare;
	for (int i = 0; i < n_given; i++)
		given[i] = (int)sys(SYS_fcntl, given[i], F_DUPFD, SPARE_FD);
	for (int i = 0; i < n_given; i++)
		(void)sys(SYS_dup3, given[i], SHADOW_FD + i, 0);
	(void)sys(SYS_dup3, sock, SHADOW_FD + n_given, 0);
	sock = SHADOW_FD + n_given;
	(void)sys(SYS_close_range, sock + 1, ~0u, 0);
	terminal = foreground = -1;
	for (int fd = 0; fd < SHADOW_FD; fd++) {
		(void)sys(SYS_close, fd);
		(void)sys(SYS_openat, AT_FDCWD, "/dev/null", O_RDWR, 0);
	}
	n_given = 0;
	return 0;
}

/* What survives exec(): the clock that runs for its process. */
static void take_timer(struct itimerval *ret)
{
	struct itimerval none = {0};

	(void)sys(SYS_setitimer, ITIMER_REAL, &none, ret);
}

static void hello(long can_rise, const struct itimerval *timer)
{
	struct shadow_report r = {.kind = SHADOW_HELLO, .value = can_rise};

	r.info.ssi_pid = (uint32_t)sys(SYS_getpid);
	r.info.ssi_utime = timer->it_value.tv_sec * 1000000ull + timer->it_value.tv_usec;
	r.info.ssi_stime =
		timer->it_interval.tv_sec * 1000000ull + timer->it_interval.tv_usec;
	tell(&r);
}

static void open_signals(void)
{
	uint64_t all = ~0ull;

	signals = (int)sys(SYS_signalfd4, -1, &all, sizeof(all),
			   SFD_CLOEXEC | SFD_NONBLOCK);
}

/* Come home: this very process becomes criu, and criu the restored process. */
static long exec_as_root(struct shadow_command *c)
{
	/* Made on the stack: no pointers in the image, so nothing to relocate. */
	char path[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *envp[] = {path, NULL};
	char *argv[SHADOW_ARGS_MAX + 1];
	gid_t gid = (gid_t)sys(SYS_getgid);
	long r = sys(SYS_setresuid, -1, 0, -1),
	     n_groups = sys(SYS_getgroups, GROUPS_MAX, groups);

	if (r < 0 || shadow_command_args(c, argv) == 0)
		return r < 0 ? r : -EINVAL;
	if (n_groups >= 0)
		(void)sys(SYS_setgroups, 0, 0);
	(void)sys(SYS_setresgid, 0, 0, 0);
	(void)sys(SYS_setresuid, 0, 0, 0);
	r = place_fds();
	if (r == 0)
		r = sys(SYS_execve, argv[0], argv, envp);
	open_signals();
	if (n_groups >= 0)
		(void)sys(SYS_setgroups, n_groups, groups);
	be_user(user, gid);
	return r;
}

/* A child goes on in this loop, with a journal and a socket of its own. */
static void begin_as_child(uint64_t sequence)
{
	const struct itimerval none = {0};

	n_kept = 0;
	terminal = foreground = -1;
	(void)sys(SYS_dup3, given[0], SHADOW_FD, 0);
	sock = SHADOW_FD;
	/* Its parent's, which end with that one. */
	(void)sys(SYS_close_range, 0, sock - 1, 0);
	(void)sys(SYS_close_range, sock + 1, ~0u, 0);
	n_given = 0;
	memset(&journal, 0, sizeof(journal));
	journal.sequence = sequence;
	open_signals();
	hello(1, &none);
}

/* Whose parent has gone at once: for the kernel no relative of anybody, so that it neither
 * makes a group an orphaned one nor keeps it from that. */
static long fork_sentinel(uint64_t sequence)
{
	struct clone_args args = {0}; /* no signal tells of its end */
	int status = 0;
	long r;

	if (n_given != 1 || !is_ours(given[0]))
		return -EINVAL;
	r = sys(SYS_clone3, &args, sizeof(args));
	if (r > 0) {
		(void)sys(SYS_wait4, r, &status, __WALL, 0);
		return status ? -EAGAIN : 0;
	}
	if (r < 0)
		return r;
	r = sys(SYS_clone3, &args, sizeof(args));
	if (r != 0)
		leave(r < 0);
	begin_as_child(sequence);
	return 0;
}

static long fork_shadow(pid_t pid, int keep)
{
	struct clone_args args = {
		.exit_signal = SIGCHLD, .set_tid = (uintptr_t)&pid, .set_tid_size = 1};
	long r;

	if (n_given != 1 || !is_ours(given[0]))
		return -EINVAL;
	if (keep && n_kept == SHADOW_KEPT_MAX)
		return -EAGAIN;
	r = sys(SYS_setresuid, -1, 0, -1);
	if (r < 0)
		return r;
	r = sys(SYS_clone3, &args, sizeof(args));
	lower_rights();
	if (r > 0 && keep)
		kept[n_kept++] = pid;
	if (r != 0)
		return r;
	begin_as_child(0);
	return 0;
}

static long take_terminal(void)
{
	long r;

	if (n_given != 2 || terminal >= 0)
		return -EINVAL;
	r = sys(SYS_ioctl, given[0], TIOCSCTTY, 0);
	if (r < 0)
		return r;
	terminal = given[0];
	foreground = given[1];
	n_given = 0;
	return 0;
}

/* A group that is not here: none of those that are may read it. */
static void change_foreground(void)
{
	int32_t group = 0;

	if (sys(SYS_recvfrom, foreground, &group, sizeof(group), MSG_DONTWAIT, 0, 0) ==
	    sizeof(group)) {
		if (sys(SYS_ioctl, terminal, TIOCSPGRP, &group) < 0) {
			group = (int32_t)sys(SYS_getpgid, 0);
			(void)sys(SYS_ioctl, terminal, TIOCSPGRP, &group);
		}
		return;
	}
	(void)sys(SYS_close, terminal);
	(void)sys(SYS_close, foreground);
	terminal = foreground = -1;
}

static void obey(struct shadow_command *c)
{
	long r;

	switch (c->verb) {
	case SHADOW_ACK:
		acknowledged(c->sequence);
		break;
	case SHADOW_RESUME:
		resume(c->sequence);
		break;
	case SHADOW_NAME:
		(void)sys(SYS_prctl, PR_SET_NAME, c->data);
		break;
	case SHADOW_EXIT:
		leave(c->value);
	case SHADOW_KILL:
		die_by(c->value);
	case SHADOW_STOP:
		suffer(c->value);
		break;
	case SHADOW_BECOME:
	case SHADOW_EXEC:
		r = c->verb == SHADOW_EXEC ? exec_as_root(c) : become(c);
		if (r < 0)
			tell_value(SHADOW_REFUSED, r);
		else
			tell_value(SHADOW_BECAME, 0);
		break;
	case SHADOW_FORK:
		r = fork_shadow(c->value, c->flags & SHADOW_KEEP);
		if (r < 0)
			tell_value(SHADOW_FORKED, r);
		break;
	case SHADOW_SENTINEL:
		r = fork_sentinel(c->sequence);
		if (r < 0)
			tell_value(SHADOW_FORKED, r);
		break;
	case SHADOW_REAP:
		reap_kept(c->value);
		break;
	case SHADOW_TERMINAL:
		r = take_terminal();
		if (r < 0)
			tell_value(SHADOW_REFUSED, r);
		break;
	}
}

static void take_given(struct msghdr *m)
{
	struct cmsghdr *h = CMSG_FIRSTHDR(m);

	n_given = 0;
	if (!h || h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
		return;
	n_given = (int)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));
	memcpy(given, CMSG_DATA(h), n_given * sizeof(int));
}

/* Nobody relocates this program: an address that a compiler put into constant data (clang
 * does, to copy a whole structure) would be that of an image at 0. */
static void *run_time_address(void *p)
{
	__asm__("" : "+r"(p));
	return p;
}

/* 0: the other end is gone for good, with it the real process. */
static int take_command(void)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(given))];
	} control;
	struct iovec iov = {.iov_base = run_time_address(&command),
			    .iov_len = sizeof(command)};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = &control,
			   .msg_controllen = sizeof(control)};
	long n = sys(SYS_recvmsg, sock, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n <= 0)
		return n != 0;
	take_given(&m);
	if (!(m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) && shadow_command_ok(&command, n))
		obey(&command);
	while (n_given > 0)
		(void)sys(SYS_close, given[--n_given]);
	return 1;
}

/* A program that criu execs when it gives a restore in place up finds the socket where
 * it was moved to before; put it back. */
static int find_socket(void)
{
	for (int fd = SHADOW_FD; fd <= SHADOW_FD + SHADOW_FDS_MAX; fd++) {
		if (!is_ours(fd))
			continue;
		if (fd != SHADOW_FD)
			(void)sys(SYS_dup3, fd, SHADOW_FD, 0);
		return SHADOW_FD;
	}
	return -1;
}

/* Of such a restore one child may be left, which is criu itself and about to end. */
static void wait_for_criu(void)
{
	while (sys(SYS_wait4, -1, 0, __WCLONE, 0) > 0)
		;
}

void shadow_main(void)
{
	char root[] = "/";
	struct itimerval timer = {0};

	set_mask(~0ull);
	sock = find_socket();
	if (sock < 0)
		leave(EXIT_NOT_OURS);
	wait_for_criu();
	user = (uid_t)sys(SYS_getuid);
	lower_rights();
	(void)sys(SYS_close_range, 0, SHADOW_FD - 1, 0);
	(void)sys(SYS_close_range, SHADOW_FD + 1, ~0u, 0);
	(void)sys(SYS_chdir, root);
	open_signals();
	take_timer(&timer);
	hello(sys(SYS_setresuid, -1, user, 0) == 0, &timer);
	settle();
	for (;;) {
		struct pollfd f[3] = {{.fd = sock, .events = POLLIN},
				      {.fd = signals},
				      {.fd = foreground, .events = POLLIN}};

		f[1].events = journal.n < SHADOW_JOURNAL ? POLLIN : 0;
		if (sys(SYS_ppoll, f, 3, 0, 0, 0) < 0)
			continue;
		if (f[1].revents & POLLIN)
			(void)take_signal();
		if (f[2].revents)
			change_foreground();
		if (f[0].revents && !take_command())
			die_by(SIGKILL);
	}
}
