/*
 * A process to be dumped and restored: it counts in a shared file, so that a test
 * sees whether it runs.
 *
 * criu_victim COUNTERS MODE [NUMBER]: COUNTERS is a file of 64 u64.  Counter 0 is
 * the main thread's; see main() for the modes.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile uint64_t *counters;

static void count_once(int slot)
{
	counters[slot]++;
	usleep(200);
}

static void *count(void *slot)
{
	for (;;)
		count_once((int)(intptr_t)slot);
	return NULL;
}

static void count_in_threads(int n)
{
	for (intptr_t i = 1; i < n; i++) {
		pthread_t thread;

		if (pthread_create(&thread, NULL, count, (void *)i) != 0)
			_exit(3);
	}
	count(0);
}

/* Counts as long as its memory is what it wrote. */
static void count_memory(size_t mib)
{
	size_t n = (mib << 20) / sizeof(uint64_t);
	uint64_t *p = mmap(NULL, n * sizeof(*p), PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		_exit(3);
	for (size_t i = 0; i < n; i++)
		p[i] = i * 0x9e3779b97f4a7c15;
	for (;;) {
		for (size_t i = 0; i < n; i += 509)
			if (p[i] != i * 0x9e3779b97f4a7c15)
				_exit(4);
		count_once(0);
	}
}

static void become_user(int uid)
{
	if (setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0)
		_exit(3);
	count(0);
}

/* A child that counts, in our session; in a group of its elder brother's with @grouped. */
static void leave_child(int grouped)
{
	pid_t brother = 0, child;

	if (grouped) {
		brother = fork();
		if (brother == 0)
			for (;;)
				pause();
		(void)setpgid(brother, brother);
	}
	child = fork();
	if (child == 0) {
		if (brother)
			(void)setpgid(0, brother);
		counters[2] = (uint64_t)brother;
		counters[1] = (uint64_t)getpid();
		count(0);
	}
	for (;;)
		pause();
}

/* From descriptor 3 to 4, until the end of 3. */
static void echo(void)
{
	char bytes[256];
	ssize_t n;

	counters[0]++;
	while ((n = read(3, bytes, sizeof(bytes))) > 0)
		(void)!write(4, bytes, (size_t)n);
	_exit(n == 0 ? 33 : 5);
}

/* A filter that allows everything. */
static void filter(void)
{
	struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog program = { 1, &allow };

	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
		_exit(3);
	count(0);
}

static void hold(int fd)
{
	if (fd < 0)
		_exit(3);
	count(0);
}

/* As a shadow: count in 3 until descriptors come with the path of criu, then become criu
 * with them as 3, 4, ... and our own socket behind. */
static void stand(void)
{
	char path[256], control[CMSG_SPACE(16 * sizeof(int))];
	struct iovec iov = { path, sizeof(path) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
			    .msg_controllen = sizeof(control) };
	struct cmsghdr *h;
	int n, fds[16], own;

	while (recvmsg(3, &m, MSG_DONTWAIT) <= 0) {
		m.msg_controllen = sizeof(control);
		count_once(3);
	}
	h = CMSG_FIRSTHDR(&m);
	n = h ? (int)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int)) : 0;
	if (n)
		memcpy(fds, CMSG_DATA(h), n * sizeof(int));
	own = fcntl(3, F_DUPFD, 64);
	for (int i = 0; i < n; i++)
		fds[i] = fcntl(fds[i], F_DUPFD, 64);
	for (int i = 0; i < n; i++)
		(void)dup2(fds[i], 3 + i);
	(void)dup2(own, 3 + n);
	(void)syscall(SYS_close_range, 4 + n, ~0u, 0);
	(void)execl(path, path, "swrk", "3", NULL);
	_exit(6);
}

/* A child each for the counters 1 to n - 1. */
static void count_in_tree(int n)
{
	for (int i = 1; i < n; i++)
		if (fork() == 0)
			count((void *)(intptr_t)i);
	count(0);
}

/* A device of a kind that criu refuses; not every machine has every device. */
static int open_device(void)
{
	static const char *const paths[] = { "/dev/fuse", "/dev/loop-control", "/dev/hwrng",
					     "/dev/uinput", "/dev/vhost-vsock" };
	int fd = -1;

	for (size_t i = 0; fd < 0 && i < sizeof(paths) / sizeof(*paths); i++)
		fd = open(paths[i], O_RDWR);
	return fd;
}

/* argv[0] alone: what criu executes when a restore in place fails; counts in 4. */
int main(int argc, char **argv)
{
	int fd = open(argc > 2 ? argv[1] : "/mnt/counters", O_RDWR);
	int number = argc > 3 ? atoi(argv[3]) : 0;
	const char *mode = argc > 2 ? argv[2] : "fallback";

	if (fd < 0)
		return 2;
	counters = mmap(NULL, 64 * sizeof(*counters), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	(void)close(fd);
	if (counters == MAP_FAILED)
		return 2;
	(void)setsid();
	while (!strcmp(mode, "fallback"))
		count_once(4);
	if (!strcmp(mode, "threads"))
		count_in_threads(number);
	if (!strcmp(mode, "tree"))
		count_in_tree(number);
	if (!strcmp(mode, "memory"))
		count_memory((size_t)number);
	if (!strcmp(mode, "user"))
		become_user(number);
	if (!strcmp(mode, "child"))
		leave_child(number);
	if (!strcmp(mode, "echo"))
		echo();
	if (!strcmp(mode, "stand"))
		stand();
	if (!strcmp(mode, "seccomp"))
		filter();
	if (!strcmp(mode, "device"))
		hold(open_device());
	if (!strcmp(mode, "io_uring"))
		hold((int)syscall(SYS_io_uring_setup, 8, (char[120]){ 0 }));
	count(0);
}
