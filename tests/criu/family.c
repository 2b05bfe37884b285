/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "family.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define SHADOW	"/run/shadow" /* set-uid root: P is an ordinary user */
#define CONTROL 3	      /* the shadow's socket */

static const struct sockaddr_un control_address = {AF_UNIX, "\0criu-test-control"};

/* Commands to the shadow; COME comes with two descriptors */
enum { COME, FORK, END };
struct command {
	int what, arg;
};

/* ---- P ---- */

static void *idle(void *arg)
{
	for (;;)
		pause();
	return arg;
}

/*
 * Says by its name how many children it has reaped, how many signals it has
 * had, and how many children it should not have had.  All signals are blocked and taken
 * by sigwaitinfo(), so what is lost while P is not itself is lost for good.
 */
static void p_main(void)
{
	int n_children = 0, n_signals = 0, n_others = 0, status;
	char name[64]; /* of which 15 characters are used */
	siginfo_t info;
	pthread_t t;
	sigset_t set;

	app_alone();
	setpgid(0, 0);
	sigfillset(&set);
	sigprocmask(SIG_SETMASK, &set, NULL);
	if (pthread_create(&t, NULL, idle, NULL) ||
	    pthread_create(&t, NULL, idle, NULL))
		_exit(1);
	for (;;) {
		snprintf(name, sizeof(name), "p %d %d %d", n_children, n_signals,
			 n_others);
		prctl(PR_SET_NAME, name);
		switch (sigwaitinfo(&set, &info)) {
		case SIGCHLD:
			while (waitpid(-1, &status, WNOHANG) > 0)
				if (WIFEXITED(status) &&
				    WEXITSTATUS(status) == CHILD_STATUS)
					n_children++;
				else
					n_others++;
			break;
		case SIGUSR2:
			n_signals++;
			break;
		case SIGUSR1:
			execl(SHADOW, "shadow", NULL);
			_exit(2);
		case SIGTERM:
			_exit(P_STATUS);
		}
	}
}

/* ---- the parent ---- */

static struct seen *seen;

static void on_sigchld(int sig)
{
	seen->n_signals++;
}

static void parent_main(struct family *f, int ready)
{
	siginfo_t info;
	pid_t p;

	setsid();
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (setgroups(0, NULL) || setresgid(f->uid, f->uid, f->uid) ||
	    setresuid(f->uid, f->uid, f->uid))
		_exit(1);
	signal(SIGCHLD, on_sigchld);
	p = fork();
	if (!p)
		p_main();
	if (write(ready, &p, sizeof(p)) != sizeof(p))
		_exit(1);
	for (;;) {
		if (waitid(P_ALL, 0, &info, WEXITED | WSTOPPED | WCONTINUED)) {
			if (errno == EINTR)
				continue;
			pause();
		}
		seen->code = info.si_code;
		seen->status = info.si_status;
		seen->pid = info.si_pid;
		seen->n_events++;
	}
}

/* ---- the shadow ---- */

static void shadow_come(int swrk, int fallback)
{
	/* The numbers that the request speaks of; all without CLOEXEC */
	if (dup2(swrk, 10) != 10 || dup2(fallback, 11) != 11 ||
	    fcntl(CONTROL, F_SETFD, 0))
		_exit(101);
	close_range(4, 9, 0);
	close_range(12, ~0U, 0);
	execl(CRIU, CRIU, "swrk", "10", NULL);
	_exit(102);
}

static void shadow_fork(int usec)
{
	if (fork())
		return;
	close_range(0, ~0U, 0);
	usleep(usec);
	_exit(CHILD_STATUS);
}

void family_shadow_main(int argc, char **argv)
{
	struct report r = {.pid = getpid(),
			   .ppid = getppid(),
			   .pgid = getpgrp(),
			   .sid = getsid(0)};
	union {
		char buf[CMSG_SPACE(2 * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct command c;
	struct iovec iov = {&c, sizeof(c)};
	struct cmsghdr *h;
	struct dirent *e;
	sigset_t all;
	DIR *d;

	if (strcmp(argv[0], "shadow") && strcmp(argv[0], "ssi-shadow"))
		return;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	while (waitpid(-1, NULL, __WCLONE) > 0)
		r.coordinator = true;
	d = opendir("/proc/self/fd");
	while (d && (e = readdir(d)))
		/* glibc opens 0 to 2 when they are closed and the program is set-uid */
		r.n_fds += atoi(e->d_name) > 2 && atoi(e->d_name) != dirfd(d);
	if (d)
		closedir(d);
	r.back = !strcmp(argv[0], "ssi-shadow");
	if (!r.back) {
		int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

		if (fd < 0 ||
		    connect(fd, (void *)&control_address, sizeof(control_address)))
			_exit(103);
		if (fd != CONTROL && (dup2(fd, CONTROL) != CONTROL || close(fd)))
			_exit(104);
	}
	if (send(CONTROL, &r, sizeof(r), MSG_NOSIGNAL) != sizeof(r))
		_exit(105);
	for (;;) {
		struct msghdr m = {.msg_iov = &iov,
				   .msg_iovlen = 1,
				   .msg_control = &control,
				   .msg_controllen = sizeof(control)};

		if (recvmsg(CONTROL, &m, 0) != sizeof(c))
			_exit(106);
		h = CMSG_FIRSTHDR(&m);
		switch (c.what) {
		case COME:
			if (h)
				shadow_come(((int *)CMSG_DATA(h))[0],
					    ((int *)CMSG_DATA(h))[1]);
			break;
		case FORK:
			shadow_fork(c.arg);
			break;
		case END:
			_exit(c.arg);
		}
	}
}

/* ---- the test ---- */

static void command(struct family *f, int what, int arg, const int *fds, int n_fds)
{
	union {
		char buf[CMSG_SPACE(2 * sizeof(int))];
		struct cmsghdr align;
	} control = {};
	struct command c = {what, arg};
	struct iovec iov = {&c, sizeof(c)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *h;

	if (n_fds) {
		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		h = CMSG_FIRSTHDR(&m);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(h), fds, n_fds * sizeof(int));
	}
	if (sendmsg(f->control, &m, MSG_NOSIGNAL) != sizeof(c))
		fail("command to the shadow: %m");
}

/* A copy of this program; flags as of memfd_create() and open() */
static void copy_self(int to)
{
	int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct stat st;

	check(from >= 0 && !fstat(from, &st));
	while (st.st_size > 0) {
		ssize_t n = sendfile(to, from, NULL, st.st_size);

		check(n > 0);
		st.st_size -= n;
	}
	close(from);
}

void family_start(struct family *f, uid_t uid)
{
	int ready[2], fd;

	*f = (struct family){.uid = uid, .control = -1};
	fd = open(SHADOW, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
	check(fd >= 0);
	copy_self(fd);
	check(!fchmod(fd, 04755));
	close(fd);

	f->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (f->listener < 0 ||
	    bind(f->listener, (void *)&control_address, sizeof(control_address)) ||
	    listen(f->listener, 5))
		fail("listener: %m");

	seen = mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(seen != MAP_FAILED);
	f->seen = seen;
	check(!pipe2(ready, O_CLOEXEC));
	fflush(stdout);
	f->parent = fork();
	check(f->parent >= 0);
	if (!f->parent) {
		close(f->listener);
		parent_main(f, ready[1]);
	}
	check(read(ready[0], &f->p, sizeof(f->p)) == sizeof(f->p));
	close(ready[0]);
	close(ready[1]);
	leaf_create(&f->leaf, "in-place");
	leaf_add(&f->leaf, f->p);
	family_expect_p(f);
}

void family_leave(struct family *f)
{
	CriuOpts opts;
	struct swrk s;

	images_clear();
	opts_init(&opts, "dump.log");
	opts.has_pid = true;
	opts.pid = f->p;
	opts.has_leave_running = opts.leave_running = true;
	opts.has_shell_job = opts.shell_job =
		true; /* the session leader is not dumped */
	swrk_must(&s, CRIU_REQ_TYPE__DUMP, &opts, NULL, NULL, NULL);
	kill(f->p, SIGUSR1);
}

void family_expect_shadow(struct family *f, struct report *ret)
{
	struct pollfd p[2] = {{f->listener, POLLIN, 0}, {f->control, POLLIN, 0}};

	if (poll(p, 2, 10000) <= 0)
		fail("no shadow appears");
	if (p[0].revents) {
		if (f->control >= 0)
			close(f->control);
		f->control = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC);
		check(f->control >= 0);
	}
	if (recv(f->control, ret, sizeof(*ret), 0) != sizeof(*ret)) {
		show_log("restore.log");
		fail("the shadow is gone");
	}
	check(ret->pid == f->p);
	check(ret->ppid == f->parent);
	check(ret->pgid == f->p);
	check(ret->sid == f->parent);
}

void family_fork(struct family *f, int usec)
{
	command(f, FORK, usec, NULL, 0);
	f->n_children++;
}

void family_signal(struct family *f)
{
	kill(f->p, SIGUSR2);
	f->n_signals++;
}

void family_come(struct family *f, struct swrk *s)
{
	CriuOpts opts;
	int fds[2];

	swrk_pair(s, &fds[0]);
	fds[1] = memfd_create("ssi-shadow", MFD_CLOEXEC);
	check(fds[1] >= 0);
	copy_self(fds[1]);
	opts_init(&opts, "restore.log");
	opts.has_restore_in_place = opts.restore_in_place = true;
	opts.has_in_place_fallback_fd = true;
	opts.in_place_fallback_fd = 11;
	opts.has_in_place_keep_fd = true;
	opts.in_place_keep_fd = CONTROL;
	opts.has_shell_job = opts.shell_job = true;
	opts.has_notify_scripts = opts.notify_scripts = true;
	swrk_send(s, CRIU_REQ_TYPE__RESTORE, &opts);
	command(f, COME, 0, fds, 2);
	close(fds[0]);
	close(fds[1]);
}

void family_expect_p(struct family *f)
{
	char path[64], want[32], line[64] = "", status[4096];
	int tries, fd;
	ssize_t n;

	if (f->control >= 0)
		close(f->control);
	f->control = -1;
	snprintf(path, sizeof(path), "/proc/%d/status", f->p);
	snprintf(want, sizeof(want), "Name:\tp %d %d 0\n", f->n_children, f->n_signals);
	for (tries = 0; tries < 5000; tries++) {
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			fail("P is gone");
		n = read(fd, status, sizeof(status) - 1);
		close(fd);
		status[n > 0 ? n : 0] = '\0';
		if (!strncmp(status, want, strlen(want)) &&
		    strstr(status, "\nThreads:\t3\n"))
			return;
		usleep(1000);
	}
	snprintf(line, sizeof(line), "%.*s", (int)strcspn(status, "\n"), status);
	fail("P says \"%s\" and not \"%.*s\", or has not three threads", line,
	     (int)strlen(want) - 1, want);
}

#ifdef __x86_64__
/* Where the vDSO of P has a system call instruction */
static unsigned long find_syscall(pid_t pid)
{
	unsigned long start = 0, end = 0, i;
	static unsigned char code[65536];
	char path[64], line[512];
	struct iovec to, from;
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	maps = fopen(path, "re");
	check(maps);
	while (fgets(line, sizeof(line), maps))
		if (strstr(line, "[vdso]"))
			sscanf(line, "%lx-%lx", &start, &end);
	fclose(maps);
	to = (struct iovec){code, end - start};
	from = (struct iovec){(void *)start, end - start};
	check(start && end - start <= sizeof(code));
	check(process_vm_readv(pid, &to, 1, &from, 1, 0) == (ssize_t)(end - start));
	for (i = 0; i + 1 < end - start; i++)
		if (code[i] == 0x0f && code[i + 1] == 0x05)
			return start + i;
	fail("no system call instruction in the vDSO");
}

bool family_reap(struct family *f, pid_t coordinator)
{
	struct user_regs_struct saved, regs;
	int status, i;

	check(!ptrace(PTRACE_SEIZE, f->p, 0, PTRACE_O_TRACESYSGOOD));
	check(!ptrace(PTRACE_INTERRUPT, f->p, 0, 0));
	check(waitpid(f->p, &status, __WALL) == f->p && WIFSTOPPED(status));
	check(!ptrace(PTRACE_GETREGS, f->p, 0, &saved));
	/* P waits in sigwaitinfo(), which ends with EINTR instead of being restarted */
	regs = saved;
	regs.rip = find_syscall(f->p);
	regs.orig_rax = -1;
	regs.rax = SYS_wait4;
	regs.rdi = coordinator;
	regs.rsi = regs.r10 = 0;
	regs.rdx = __WCLONE;
	check(!ptrace(PTRACE_SETREGS, f->p, 0, &regs));
	for (i = 0; i < 2; i++) { /* entry and exit */
		check(!ptrace(PTRACE_SYSCALL, f->p, 0, 0));
		check(waitpid(f->p, &status, __WALL) == f->p && WIFSTOPPED(status));
	}
	check(!ptrace(PTRACE_GETREGS, f->p, 0, &regs));
	check(!ptrace(PTRACE_SETREGS, f->p, 0, &saved));
	check(!ptrace(PTRACE_DETACH, f->p, 0, 0));
	return (pid_t)regs.rax == coordinator;
}
#else
bool family_reap(struct family *f, pid_t coordinator)
{
	printf("  not tried: system calls are injected on x86-64 only\n");
	return true;
}
#endif

void family_expect_unseen(struct family *f)
{
	if (f->seen->n_signals || f->seen->n_events)
		fail("the parent has had %d SIGCHLD and %d events, the last about %d: "
		     "code %d status %d",
		     f->seen->n_signals, f->seen->n_events, f->seen->pid, f->seen->code,
		     f->seen->status);
}

void family_end(struct family *f)
{
	int tries;

	family_expect_unseen(f);
	if (f->control >= 0)
		command(f, END, P_STATUS, NULL, 0);
	else
		kill(f->p, SIGTERM);
	for (tries = 0; tries < 5000 && !f->seen->n_events; tries++)
		usleep(1000);
	usleep(100000);
	check(f->seen->n_events == 1);
	check(f->seen->n_signals == 1);
	check(f->seen->pid == f->p);
	check(f->seen->code == CLD_EXITED);
	check(f->seen->status == P_STATUS);
	kill(f->parent, SIGKILL);
	waitpid(f->parent, NULL, 0);
	leaf_remove(&f->leaf);
	close(f->listener);
}
