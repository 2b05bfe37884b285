/* The messages of criu_rpc.proto, one a packet. */
#include "criu_internal.h"

#include "err.h"

#include <sys/socket.h>

enum {
	MESSAGE_MAX = 64 << 10,
	LOG_LEVEL_WARN = 2, /* errors and warnings */
	MANAGE_CGROUPS_IGNORE = 0,
	NETWORK_LOCK_SKIP = 3,
};

int criu_swrk_send(int fd, const Ssi__Criu__Request *q)
{
	size_t n = ssi__criu__request__get_packed_size(q);
	_cleanup_free_ uint8_t *bytes = malloc(n + 1);

	if (!bytes)
		return err_origin(-ENOMEM);
	(void)ssi__criu__request__pack(q, bytes);
	if (send(fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)n)
		return err_origin(-errno);
	return 0;
}

int criu_swrk_acknowledge(int fd)
{
	Ssi__Criu__Request q = SSI__CRIU__REQUEST__INIT;

	q.type = SSI__CRIU__TYPE__NOTIFY;
	q.has_notify_success = q.notify_success = true;
	return criu_swrk_send(fd, &q);
}

/* Descriptors may come beside a message (a terminal's master): nobody asked for one. */
static void take_control(struct msghdr *m, pid_t *sender)
{
	for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h)) {
		if (h->cmsg_level != SOL_SOCKET)
			continue;
		if (h->cmsg_type == SCM_CREDENTIALS) {
			*sender = ((struct ucred *)CMSG_DATA(h))->pid;
		} else if (h->cmsg_type == SCM_RIGHTS) {
			size_t n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);

			for (size_t i = 0; i < n; i++)
				(void)close(((int *)CMSG_DATA(h))[i]);
		}
	}
}

int criu_swrk_receive(int fd, Ssi__Criu__Response **ret, pid_t *ret_sender)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(sizeof(int))];
	} control;
	_cleanup_free_ uint8_t *bytes = malloc(MESSAGE_MAX);
	struct iovec iov = { bytes, MESSAGE_MAX };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	Ssi__Criu__Response *p;
	ssize_t n;

	if (!bytes)
		return err_origin(-ENOMEM);
	n = recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return CRIU_SWRK_E_AGAIN;
	if (n == 0 || (n < 0 && errno == ECONNRESET))
		return CRIU_SWRK_E_END;
	if (n < 0)
		return err_origin(-errno);
	take_control(&m, ret_sender);
	if (m.msg_flags & MSG_TRUNC)
		return err_origin(-EMSGSIZE);
	p = ssi__criu__response__unpack(NULL, n, bytes);
	if (!p)
		return err_origin(-EBADMSG);
	*ret = p;
	return 0;
}

void criu_swrk_options(struct criu_run *run, int dir_fd, Ssi__Criu__Options *o)
{
	ssi__criu__options__init(o);
	o->images_dir_fd = dir_fd;
	o->has_work_dir_fd = true;
	o->work_dir_fd = run->dir_fd;
	o->log_file = (char *)CRIU_LOG_FILE;
	o->has_log_level = true;
	o->log_level = LOG_LEVEL_WARN;
	o->has_manage_cgroups_mode = true;
	o->manage_cgroups_mode = MANAGE_CGROUPS_IGNORE;
	o->has_network_lock = true;
	o->network_lock = NETWORK_LOCK_SKIP;
	o->has_timeout = true;
	o->timeout = (uint32_t)(run->timeout / NSEC_PER_SEC) + 1;
}
