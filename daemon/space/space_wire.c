#include "space_internal.h"

#include "err.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

enum { ANSWER_SECONDS = 2, FDS_MAX = 64 };

static int send_request(int fd, const struct init_request *request, const int *fds, size_t n_fds)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(FDS_MAX * sizeof(int))];
	} control = { 0 };
	struct iovec io = { (void *)request, sizeof(*request) };
	struct msghdr h = { .msg_iov = &io, .msg_iovlen = 1 };

	if (n_fds > FDS_MAX)
		return err_origin(-EINVAL);
	if (n_fds) {
		h.msg_control = &control;
		h.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(&control.align), fds, n_fds * sizeof(int));
	}
	if (sendmsg(fd, &h, MSG_NOSIGNAL) < 0)
		return err_origin(-errno);
	return 0;
}

static int receive_reply(int fd, struct init_reply *ret, int *ret_fds, size_t n_ret_fds)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(FDS_MAX * sizeof(int))];
	} control;
	struct iovec io = { ret, sizeof(*ret) };
	struct msghdr h = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	ssize_t n;

	for (size_t i = 0; i < n_ret_fds; i++)
		ret_fds[i] = -1;
	do
		n = recvmsg(fd, &h, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return err_origin(errno == EAGAIN ? -ETIMEDOUT : -errno);
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&h); n && c; c = CMSG_NXTHDR(&h, c)) {
		size_t n_fds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		for (size_t i = 0; c->cmsg_type == SCM_RIGHTS && i < n_fds; i++) {
			int got;

			memcpy(&got, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (i < n_ret_fds)
				ret_fds[i] = got;
			else
				(void)close(got);
		}
	}
	if (n != sizeof(*ret))
		return err_origin(n ? -EPROTO : -ECONNRESET);
	if (h.msg_flags & MSG_CTRUNC)
		return err_origin(-EMFILE);
	return 0;
}

int space_wire_call(int fd, struct init_request *request, const int *fds, size_t n_fds,
		    struct init_reply *ret, int *ret_fds, size_t n_ret_fds)
{
	int r;

	request->version = INIT_WIRE_VERSION;
	r = send_request(fd, request, fds, n_fds);
	if (r < 0)
		return r;
	r = receive_reply(fd, ret, ret_fds, n_ret_fds);
	if (r < 0)
		for (size_t i = 0; i < n_ret_fds; i++)
			ret_fds[i] = close_fd(ret_fds[i]);
	return r;
}

int space_wire_open(const char *runtime_dir, uint32_t flags, int *ret_fd,
		    int ret_space_fds[static 3])
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval patience = { .tv_sec = ANSWER_SECONDS };
	struct init_request request = { .verb = INIT_HELLO, .flags = flags };
	struct init_reply reply;
	_cleanup_close_ int fd = -1;
	int r;

	r = snprintf(address.sun_path, sizeof(address.sun_path), "%s/init.sock", runtime_dir);
	if (r >= (int)sizeof(address.sun_path))
		return err_origin(-ENAMETOOLONG);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_origin(-errno);
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		if (errno == ENOENT || errno == ECONNREFUSED)
			return SPACE_WIRE_E_ABSENT;
		return err_origin(-errno);
	}
	r = space_wire_call(fd, &request, NULL, 0, &reply, ret_space_fds, 3);
	if (r == 0 && (reply.result != 0 || ret_space_fds[2] < 0)) {
		for (size_t i = 0; i < 3; i++)
			ret_space_fds[i] = close_fd(ret_space_fds[i]);
		r = err_origin(reply.result < 0 ? reply.result : -EPROTO);
	}
	if (r < 0)
		return r;
	*ret_fd = TAKE_FD(fd);
	return 0;
}
