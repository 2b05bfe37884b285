/*
 * A dump into memory and a restore from it, over RPC, without image files:
 * this is an image streamer in a few lines.  SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Fails without 0002-stream-over-rpc.
 *
 * criu connects to a socket in the images directory.  For each image it sends
 * a name, is told (restore only) whether there is such an image, and sends
 * one end of a pipe.  Many of the pipes are open at the same time, and criu
 * fills or empties them in no fixed order: here each has a thread.
 */
#include "criu_test.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "img-streamer.pb-c.h"

#define DATA (32 << 20)

struct image {
	struct image *next;
	pthread_t thread;
	char name[64];
	uint8_t *data;
	size_t len, room;
	int fd;
};

struct streamer {
	pthread_t thread;
	struct image *images;
	int listener;
	bool dump;
};

static void *take(void *arg)
{
	struct image *i = arg;
	ssize_t n;

	for (;;) {
		if (i->room - i->len < 65536) {
			i->room = i->room ? 2 * i->room : 65536;
			i->data = realloc(i->data, i->room);
			check(i->data);
		}
		n = read(i->fd, i->data + i->len, i->room - i->len);
		if (n <= 0)
			break;
		i->len += n;
	}
	close(i->fd);
	return NULL;
}

static void *give(void *arg)
{
	struct image *i = arg;
	size_t done = 0;
	ssize_t n;

	while (done < i->len) {
		n = write(i->fd, i->data + done, i->len - done);
		if (n <= 0)
			break; /* criu needs no more of it */
		done += n;
	}
	close(i->fd);
	return NULL;
}

static bool recv_all(int sk, void *buf, size_t len)
{
	return recv(sk, buf, len, MSG_WAITALL) == (ssize_t)len;
}

static int recv_fd(int sk)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	char c;
	struct iovec iov = {&c, 1};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = &control,
			   .msg_controllen = sizeof(control)};

	check(recvmsg(sk, &m, MSG_CMSG_CLOEXEC) == 1 && CMSG_FIRSTHDR(&m));
	return *(int *)CMSG_DATA(CMSG_FIRSTHDR(&m));
}

static void send_reply(int sk, bool exists)
{
	ImgStreamerReplyEntry reply = IMG_STREAMER_REPLY_ENTRY__INIT;
	uint8_t buf[4 + 16];
	uint32_t len;

	reply.exists = exists;
	len = img_streamer_reply_entry__pack(&reply, buf + 4);
	memcpy(buf, &len, 4);
	check(send(sk, buf, 4 + len, MSG_NOSIGNAL) == (ssize_t)(4 + len));
}

/* Ends when criu closes its connection; then waits for the pipes */
static void *serve(void *arg)
{
	struct streamer *s = arg;
	ImgStreamerRequestEntry *req;
	struct image *i;
	uint8_t buf[4096];
	uint32_t len;
	int sk = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);

	if (sk < 0)
		return NULL; /* shut down: criu did not come */
	while (recv_all(sk, &len, 4)) {
		check(len <= sizeof(buf) && recv_all(sk, buf, len));
		req = img_streamer_request_entry__unpack(NULL, len, buf);
		check(req);
		for (i = s->images; i && strcmp(i->name, req->filename); i = i->next)
			;
		if (s->dump) {
			check(!i); /* each once */
			i = calloc(1, sizeof(*i));
			check(i);
			snprintf(i->name, sizeof(i->name), "%s", req->filename);
			i->next = s->images;
			s->images = i;
		} else {
			send_reply(sk, i);
		}
		img_streamer_request_entry__free_unpacked(req, NULL);
		if (!i)
			continue;
		i->fd = recv_fd(sk);
		check(!pthread_create(&i->thread, NULL, s->dump ? take : give, i));
	}
	for (i = s->images; i; i = i->next)
		if (i->thread) {
			pthread_join(i->thread, NULL);
			i->thread = 0;
		}
	close(sk);
	return NULL;
}

static void streamer_start(struct streamer *s, bool dump)
{
	struct sockaddr_un addr = {AF_UNIX, IMAGES "/streamer-serve.sock"};

	if (dump)
		strcpy(addr.sun_path, IMAGES "/streamer-capture.sock");
	s->dump = dump;
	s->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s->listener < 0 || bind(s->listener, (void *)&addr, sizeof(addr)) ||
	    listen(s->listener, 1))
		fail("%s: %m", addr.sun_path);
	check(!pthread_create(&s->thread, NULL, serve, s));
}

static void streamer_end(struct streamer *s)
{
	shutdown(s->listener, SHUT_RDWR); /* a connection is not affected */
	pthread_join(s->thread, NULL);
	close(s->listener);
}

static void app(void)
{
	uint32_t *data = mmap(NULL, DATA, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	sigset_t set;
	uint32_t i;
	int sig;

	app_alone();
	setsid();
	for (i = 0; i < DATA / sizeof(*data); i++)
		data[i] = i * 2654435761u;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	sigwait(&set, &sig);
	for (i = 0; i < DATA / sizeof(*data); i++)
		if (data[i] != i * 2654435761u)
			_exit(1);
	_exit(42);
}

int main(int argc, char **argv)
{
	struct streamer streamer = {};
	size_t total = 0, n = 0;
	CriuOpts opts;
	struct image *i;
	struct swrk s;
	pid_t pid, restored = 0;
	int status;

	test_enter(argc, argv);
	signal(SIGPIPE, SIG_IGN);
	fflush(stdout);
	pid = fork();
	check(pid >= 0);
	if (!pid)
		app();
	usleep(200000);

	streamer_start(&streamer, true);
	opts_init(&opts, "dump.log");
	opts.has_pid = true;
	opts.pid = pid;
	opts.has_stream = opts.stream = true;
	opts.has_notify_scripts = opts.notify_scripts = true;
	swrk_must(&s, CRIU_REQ_TYPE__DUMP, &opts, NULL, NULL, NULL);
	streamer_end(&streamer);
	for (i = streamer.images; i; i = i->next, n++)
		total += i->len;
	printf("dump:%s; %zu images, %zu bytes\n", s.events, n, total);
	check(total > DATA);
	check(waitpid(pid, &status, 0) == pid);
	check(access(IMAGES "/inventory.img", F_OK));

	streamer_start(&streamer, false);
	opts_init(&opts, "restore.log");
	opts.has_rst_sibling = opts.rst_sibling = true;
	opts.has_stream = opts.stream = true;
	opts.has_notify_scripts = opts.notify_scripts = true;
	swrk_must(&s, CRIU_REQ_TYPE__RESTORE, &opts, NULL, NULL, &restored);
	streamer_end(&streamer);
	printf("restore:%s\n", s.events);
	check(restored == pid);
	kill(pid, SIGUSR1);
	check(waitpid(pid, &status, 0) == pid);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 42);
	return 0;
}
