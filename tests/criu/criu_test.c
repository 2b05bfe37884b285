/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "criu_test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* In the environment of the program that runs inside: the pid outside */
#define INSIDE "CRIU_TEST_INSIDE"

static char leaf_prefix[160]; /* "" when there is no cgroup v2 */

void test_fail(const char *file, int line, const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fprintf(stderr, "%s:%d: ", file, line);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

void test_skip(const char *format, ...)
{
	va_list args;

	printf("skipped: ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
	exit(77);
}

/* CRIU's probe of TCP repair needs a network to connect to */
static void loopback_up(void)
{
	struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &r))
		fail("lo: %m");
	close(fd);
}

/* Names of leaves begin with the pid outside, so tests may run side by side */
static void find_leaves(const char *pid)
{
	char line[512], mount[128];
	FILE *f = fopen("/proc/self/mounts", "re");

	while (f && !leaf_prefix[0] && fgets(line, sizeof(line), f))
		if (sscanf(line, "%*s %127s cgroup2 ", mount) == 1 &&
		    strstr(line, " cgroup2 "))
			snprintf(leaf_prefix, sizeof(leaf_prefix), "%s/criu-test-%s",
				 mount, pid);
	if (f)
		fclose(f);
}

/* What a test that failed has left; its processes are about to be gone */
static void remove_leaves(void)
{
	char pattern[256];
	glob_t g;
	size_t i;

	snprintf(pattern, sizeof(pattern), "%s-*", leaf_prefix);
	if (!leaf_prefix[0] || glob(pattern, 0, NULL, &g))
		return;
	for (i = 0; i < g.gl_pathc; i++) {
		struct leaf leaf;

		snprintf(leaf.path, sizeof(leaf.path), "%s", g.gl_pathv[i]);
		leaf_remove(&leaf);
	}
	globfree(&g);
}

/*
 * The program starts anew inside: what it has open and mapped so far belongs
 * to mounts of the other namespace, which CRIU refuses.
 */
void test_enter(int argc, char **argv)
{
	char self[4096], pid[16];
	ssize_t n;
	pid_t child;
	int status;

	if (getenv(INSIDE)) {
		find_leaves(getenv(INSIDE));
		unsetenv(INSIDE);
		if (mkdir(IMAGES, 0755))
			fail("%s: %m", IMAGES);
		return;
	}
	if (geteuid())
		test_skip("needs root");
	if (access(CRIU, X_OK))
		test_skip("no " CRIU ", see setup/criu");

	n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (n < 0)
		fail("/proc/self/exe: %m");
	self[n] = '\0';

	snprintf(pid, sizeof(pid), "%d", getpid());
	find_leaves(pid);
	if (unshare(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS |
		    CLONE_NEWNET))
		test_skip("no namespaces here: %s", strerror(errno));
	child = fork();
	if (child < 0)
		fail("fork: %m");
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
		    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC,
			  NULL) ||
		    mount("tmpfs", "/run", "tmpfs", MS_NODEV, "mode=755"))
			fail("mount: %m");
		loopback_up();
		setenv(INSIDE, pid, 1);
		argv[argc] = NULL;
		execv(self, argv);
		fail("%s: %m", self);
	}
	if (waitpid(child, &status, 0) != child)
		fail("waitpid: %m");
	remove_leaves();
	exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

void images_clear(void)
{
	char path[4096];
	struct dirent *e;
	DIR *d = opendir(IMAGES);

	check(d);
	while ((e = readdir(d))) {
		snprintf(path, sizeof(path), IMAGES "/%s", e->d_name);
		unlink(path);
	}
	closedir(d);
}

static void write_file(const char *dir, const char *name, const char *text)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		fail("%s: %m", path);
	close(fd);
}

static void write_pid(const char *dir, pid_t pid)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", pid);
	write_file(dir, "cgroup.procs", text);
}

bool leaf_create(struct leaf *leaf, const char *name)
{
	snprintf(leaf->path, sizeof(leaf->path), "%s-%s", leaf_prefix, name);
	if (!leaf_prefix[0] || mkdir(leaf->path, 0755))
		leaf->path[0] = '\0';
	return leaf->path[0];
}

void leaf_add(const struct leaf *leaf, pid_t pid)
{
	if (leaf->path[0])
		write_pid(leaf->path, pid);
}

void leaf_leave(const struct leaf *leaf, pid_t pid)
{
	char parent[256];

	if (!leaf->path[0])
		return;
	snprintf(parent, sizeof(parent), "%.*s",
		 (int)(strrchr(leaf->path, '/') - leaf->path), leaf->path);
	write_pid(parent, pid);
}

void leaf_freeze(const struct leaf *leaf, bool freeze)
{
	char path[512], text[256];
	struct pollfd p;
	ssize_t n;

	if (!leaf->path[0])
		return;
	write_file(leaf->path, "cgroup.freeze", freeze ? "1" : "0");
	snprintf(path, sizeof(path), "%s/cgroup.events", leaf->path);
	p = (struct pollfd){.fd = open(path, O_RDONLY | O_CLOEXEC), .events = POLLPRI};
	check(p.fd >= 0);
	for (;;) {
		n = pread(p.fd, text, sizeof(text) - 1, 0);
		check(n > 0);
		text[n] = '\0';
		if (strstr(text, freeze ? "frozen 1" : "frozen 0"))
			break;
		if (poll(&p, 1, 5000) != 1)
			fail("the leaf does not %s", freeze ? "freeze" : "thaw");
	}
	close(p.fd);
}

void leaf_remove(const struct leaf *leaf)
{
	int tries;

	/* A dead process leaves its cgroup a moment after it was reaped */
	for (tries = 0; leaf->path[0] && rmdir(leaf->path) && tries < 1000; tries++)
		usleep(1000);
}

void swrk_pair(struct swrk *s, int *ret_worker_fd)
{
	int sk[2], on = 1;

	*s = (struct swrk){.fd = -1};
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sk) ||
	    setsockopt(sk[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)))
		fail("socketpair: %m");
	s->fd = sk[0];
	*ret_worker_fd = sk[1];
}

void swrk_start(struct swrk *s)
{
	char arg[16];
	int fd;

	swrk_pair(s, &fd);
	fflush(stdout);
	s->pid = fork();
	check(s->pid >= 0);
	if (!s->pid) {
		fcntl(fd, F_SETFD, 0);
		snprintf(arg, sizeof(arg), "%d", fd);
		execl(CRIU, CRIU, "swrk", arg, NULL);
		_exit(127);
	}
	close(fd);
}

static void send_req(struct swrk *s, CriuReq *req)
{
	uint8_t buf[4096];
	size_t n = criu_req__get_packed_size(req);

	check(n <= sizeof(buf));
	criu_req__pack(req, buf);
	if (send(s->fd, buf, n, MSG_NOSIGNAL) != (ssize_t)n)
		fail("request: %m");
}

void swrk_send(struct swrk *s, CriuReqType type, CriuOpts *opts)
{
	CriuReq req = CRIU_REQ__INIT;

	req.type = type;
	req.opts = opts;
	send_req(s, &req);
}

/* The next message, with the pid of its sender; NULL at the end */
static CriuResp *recv_resp(struct swrk *s)
{
	union {
		char buf[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	uint8_t buf[16384];
	struct iovec iov = {buf, sizeof(buf)};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = &control,
			   .msg_controllen = sizeof(control)};
	struct pollfd p = {.fd = s->fd, .events = POLLIN};
	struct cmsghdr *c;
	ssize_t n;

	if (poll(&p, 1, 20000) != 1)
		fail("criu does not answer; so far: %s", s->events);
	n = recvmsg(s->fd, &m, MSG_CMSG_CLOEXEC);
	if (n <= 0)
		return NULL;
	for (c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_CREDENTIALS)
			s->sender = ((struct ucred *)CMSG_DATA(c))->pid;
		else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
			close(*(int *)CMSG_DATA(c));
	return criu_resp__unpack(NULL, n, buf);
}

bool swrk_answer(struct swrk *s, swrk_notify_cb on_notify, void *owner,
		 pid_t *ret_restored)
{
	CriuReq req = CRIU_REQ__INIT;
	CriuResp *resp;
	bool success;

	for (;;) {
		resp = recv_resp(s);
		if (!resp)
			return false;
		if (resp->type != CRIU_REQ_TYPE__NOTIFY)
			break;
		snprintf(s->events + strlen(s->events),
			 sizeof(s->events) - strlen(s->events), " %s",
			 resp->notify->script);
		req.type = CRIU_REQ_TYPE__NOTIFY;
		req.has_notify_success = true;
		req.notify_success =
			on_notify ? on_notify(s, resp->notify, owner) : true;
		criu_resp__free_unpacked(resp, NULL);
		if (s->fd < 0) /* the callback hung up */
			return false;
		send_req(s, &req);
	}
	success = resp->success;
	if (ret_restored && resp->restore)
		*ret_restored = resp->restore->pid;
	criu_resp__free_unpacked(resp, NULL);
	return success;
}

void swrk_end(struct swrk *s)
{
	char c;
	struct pollfd p = {.fd = s->fd, .events = POLLIN};

	if (s->fd >= 0) {
		if (poll(&p, 1, 20000) != 1 || recv(s->fd, &c, 1, 0) > 0)
			fail("criu does not end");
		close(s->fd);
		s->fd = -1;
	}
	if (s->pid)
		waitpid(s->pid, NULL, 0);
}

void swrk_must(struct swrk *s, CriuReqType type, CriuOpts *opts, swrk_notify_cb on_notify,
	       void *owner, pid_t *ret_restored)
{
	swrk_start(s);
	swrk_send(s, type, opts);
	if (!swrk_answer(s, on_notify, owner, ret_restored)) {
		show_log(opts->log_file);
		fail("the %s fails", type == CRIU_REQ_TYPE__DUMP ? "dump" : "restore");
	}
	swrk_end(s);
}

void app_alone(void)
{
	close_range(0, ~0U, 0);
	open("/dev/null", O_RDWR);
	dup(0);
	dup(0);
	chdir("/");
}

void app_wait_for(int signal)
{
	sigset_t set;
	int sig;

	sigemptyset(&set);
	sigaddset(&set, signal);
	sigwait(&set, &sig);
}

void show_log(const char *name)
{
	char line[1024];
	FILE *f;

	snprintf(line, sizeof(line), IMAGES "/%s", name);
	f = fopen(line, "re");
	if (!f)
		return;
	while (fgets(line, sizeof(line), f))
		if (strstr(line, "Error") || strstr(line, "Warn"))
			fputs(line, stdout);
	fclose(f);
}

void opts_init(CriuOpts *opts, const char *log)
{
	criu_opts__init(opts);
	opts->images_dir_fd = -1;
	opts->images_dir = (char *)IMAGES;
	opts->has_log_level = true;
	opts->log_level = 4;
	opts->log_file = (char *)log;
	opts->has_manage_cgroups_mode = true;
	opts->manage_cgroups_mode = CRIU_CG_MODE__IGNORE;
}
