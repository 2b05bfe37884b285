/*
 * A dump that leaves the memory of a task where it is, and a restore into which that is
 * put only when all else of it stands: what the program wrote is there again, in its
 * threads' stacks and behind PROT_NONE as well, and the restore needs none of it.
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Fails without 0009-leave-pages.
 */
#include "criu_test.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES	4096
#define PAGE	4096
#define THREADS 3
#define LAZY	(1 << 1) /* CRIU's PE_LAZY */
#define PRESENT (1 << 2) /* and PE_PRESENT */
#define HEAD	12	 /* two magic numbers and a length */

/* The application. */

static _Atomic int *n_ready; /* of its threads; shared, and so in the images */

static void *thread(void *arg)
{
	volatile uint64_t mine[PAGE]; /* eight pages of its stack */

	for (size_t i = 0; i < PAGE; i++)
		mine[i] = i ^ (uintptr_t)arg;
	++*n_ready;
	app_wait_for(SIGUSR1);
	for (size_t i = 0; i < PAGE; i++)
		if (mine[i] != (i ^ (uintptr_t)arg))
			_exit(3);
	return arg;
}

static uint64_t *area(void)
{
	void *p = mmap(NULL, (size_t)PAGES * PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		_exit(2);
	return p;
}

static void app(void)
{
	uint64_t *whole = area(), *sparse = area(), *hidden = area();
	pthread_t threads[THREADS];
	sigset_t set;

	app_alone();
	setsid();
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (size_t i = 0; i < PAGES; i++) {
		whole[i * PAGE / 8] = hidden[i * PAGE / 8] = i + 1;
		if (i % 2)
			sparse[i * PAGE / 8] = i + 1;
	}
	mprotect(hidden, (size_t)PAGES * PAGE, PROT_NONE);
	for (size_t i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, thread, (void *)(i + 1));
	app_wait_for(SIGUSR1);
	mprotect(hidden, (size_t)PAGES * PAGE, PROT_READ);
	for (size_t i = 0; i < PAGES; i++)
		if (whole[i * PAGE / 8] != i + 1 || hidden[i * PAGE / 8] != i + 1 ||
		    sparse[i * PAGE / 8] != (i % 2 ? i + 1 : 0))
			_exit(4);
	for (size_t i = 0; i < THREADS; i++)
		pthread_kill(threads[i], SIGUSR1);
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	_exit(42);
}

/* What its dump left. */

static struct run {
	uint64_t at, n; /* pages */
	uint8_t *data;
} runs[2 * PAGES];
static size_t n_runs, n_pages;

static void read_run(int mem, uint64_t at, uint64_t n)
{
	struct run *r = &runs[n_runs++];

	check(n_runs < 2 * PAGES);
	*r = (struct run){at, n, malloc(n * PAGE)};
	check(r->data &&
	      pread(mem, r->data, n * PAGE, (off_t)at) == (ssize_t)(n * PAGE));
	n_pages += n;
}

static uint64_t varint(const uint8_t **p)
{
	uint64_t n = 0;

	for (int shift = 0;; shift += 7) {
		n |= (uint64_t)(**p & 0x7f) << shift;
		if (!(*(*p)++ & 0x80))
			return n;
	}
}

/* A pagemap_entry of images/pagemap.proto: all of its fields are numbers. */
static void take_entry(int mem, const uint8_t *p, const uint8_t *end)
{
	uint64_t field[16] = {0};

	while (p < end) {
		uint64_t key = varint(&p);

		check(!(key & 7) && key >> 3 < 16);
		field[key >> 3] = varint(&p);
	}
	if ((field[4] & (LAZY | PRESENT)) == LAZY)
		read_run(mem, field[1], field[5]);
}

static void read_memory(pid_t pid)
{
	static uint8_t map[1 << 20];
	uint32_t size;
	size_t len, at = HEAD;
	char path[64];
	int fd, mem;

	snprintf(path, sizeof(path), IMAGES "/pagemap-%d.img", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	check(fd >= 0);
	len = (size_t)read(fd, map, sizeof(map));
	close(fd);
	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	mem = open(path, O_RDONLY | O_CLOEXEC);
	check(mem >= 0 && len > HEAD && len < sizeof(map));
	memcpy(&size, map + 8, 4);
	for (at += size; at < len; at += size) {
		memcpy(&size, map + at, 4);
		at += 4;
		take_entry(mem, map + at, map + at + size);
	}
	close(mem);
}

/* Its restore. */

static int listen_for_criu(void)
{
	struct sockaddr_un a = {AF_UNIX, IMAGES "/lazy-pages.socket"};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	check(fd >= 0 && !bind(fd, (void *)&a, sizeof(a)) && !listen(fd, 1));
	return fd;
}

/* A PID, and a byte with the descriptor; both wait in the socket. */
static int take_uffd(int listener, pid_t pid)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov;
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = &control,
			   .msg_controllen = sizeof(control)};
	int sk = accept4(listener, NULL, NULL, SOCK_CLOEXEC), sent;
	char c;

	iov = (struct iovec){&c, 1};
	check(sk >= 0 && recv(sk, &sent, sizeof(sent), MSG_WAITALL) == sizeof(sent));
	check(sent == pid);
	check(recvmsg(sk, &m, MSG_CMSG_CLOEXEC) == 1 && CMSG_FIRSTHDR(&m));
	close(sk);
	return *(int *)CMSG_DATA(CMSG_FIRSTHDR(&m));
}

static void place(int uffd)
{
	for (size_t i = 0; i < n_runs; i++) {
		struct uffdio_copy c = {.dst = runs[i].at,
					.src = (uintptr_t)runs[i].data,
					.len = runs[i].n * PAGE};

		if (ioctl(uffd, UFFDIO_COPY, &c))
			fail("%#llx: %m", (unsigned long long)c.dst);
	}
}

struct restore {
	int listener;
	pid_t pid;
	bool stands; /* all of it did, while its memory was not there */
};

static bool on_notify(struct swrk *s, const CriuNotify *n, void *owner)
{
	struct restore *r = owner;
	int uffd;

	if (strcmp(n->script, "pre-resume"))
		return true;
	uffd = take_uffd(r->listener, r->pid);
	place(uffd);
	close(uffd);
	return r->stands = true;
}

int main(int argc, char **argv)
{
	struct restore restore;
	struct leaf leaf;
	struct stat st;
	CriuOpts opts;
	struct swrk s;
	pid_t pid, restored = 0;
	int status;

	test_enter(argc, argv);
	n_ready = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);
	check(n_ready != MAP_FAILED);
	fflush(stdout);
	pid = fork();
	check(pid >= 0);
	if (!pid)
		app();
	while (*n_ready < THREADS)
		usleep(10000);

	/* Frozen from before the dump on: its memory is read when criu is gone. */
	check(leaf_create(&leaf, "pages"));
	leaf_add(&leaf, pid);
	leaf_freeze(&leaf, true);
	opts_init(&opts, "dump.log");
	opts.has_pid = opts.has_leave_running = opts.leave_running = true;
	opts.pid = pid;
	opts.freeze_cgroup = leaf.path;
	opts.has_leave_pages = opts.leave_pages = true;
	swrk_must(&s, CRIU_REQ_TYPE__DUMP, &opts, NULL, NULL, NULL);
	read_memory(pid);
	check(!stat(IMAGES "/pages-1.img", &st));
	printf("%zu pages in %zu runs were left, the image has %lld bytes\n", n_pages,
	       n_runs, (long long)st.st_size);
	check(n_pages >= 2 * PAGES + PAGES / 2 && st.st_size < PAGES * PAGE / 8);
	kill(pid, SIGKILL);
	leaf_freeze(&leaf, false);
	check(waitpid(pid, &status, 0) == pid);
	leaf_remove(&leaf);

	restore = (struct restore){listen_for_criu(), pid, false};
	opts_init(&opts, "restore.log");
	opts.has_rst_sibling = opts.rst_sibling = true;
	opts.has_notify_scripts = opts.notify_scripts = true;
	opts.has_lazy_pages = opts.lazy_pages = true;
	swrk_must(&s, CRIU_REQ_TYPE__RESTORE, &opts, on_notify, &restore, &restored);
	check(restored == pid && restore.stands);
	kill(pid, SIGUSR1);
	check(waitpid(pid, &status, 0) == pid);
	printf("it ends with %#x\n", status);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 42);
	return 0;
}
