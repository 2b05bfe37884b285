/* Memory of the process, descriptors into it, and another program in its place. */
#include "inject_internal.h"

#include "err.h"

#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

uint64_t inject_scratch(struct inject *i)
{
	const long args[6] = { 0, INJECT_SCRATCH, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0 };
	long result;

	if (!i->scratch && inject_run(i, SYS_mmap, args, false, &result) == 0 && result > 0)
		i->scratch = (uint64_t)result;
	return i->scratch;
}

static int memory_outcome(ssize_t n, size_t len)
{
	if (n == (ssize_t)len)
		return 0;
	if (n == 0) /* no address space is left behind it */
		return INJECT_E_GONE;
	return err_origin(-EFAULT);
}

int inject_read(struct inject *i, uint64_t address, void *ret, size_t len)
{
	return memory_outcome(pread(i->mem_fd, ret, len, (off_t)address), len);
}

int inject_write(struct inject *i, uint64_t address, const void *data, size_t len)
{
	return memory_outcome(pwrite(i->mem_fd, data, len, (off_t)address), len);
}

/* The layout of what recvmsg() needs, in the scratch memory. */
struct landing {
	struct msghdr header;
	struct iovec io;
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
	char byte;
};

static int call_or_errno(struct inject *i, long nr, const long args[static 6], long *ret)
{
	int r = inject_call(i, nr, args, ret);

	if (r == 0 && *ret < 0)
		r = err_origin((int)*ret);
	return r;
}

/* Our duplicate of the process's descriptor @number. */
static int fetch(const struct inject *i, int number, int *ret_fd)
{
	_cleanup_close_ int pidfd = (int)syscall(SYS_pidfd_open, i->pid, 0);
	int fd;

	if (pidfd < 0)
		return errno == ESRCH ? INJECT_E_GONE : err_origin(-errno);
	fd = (int)syscall(SYS_pidfd_getfd, pidfd, number, 0);
	if (fd < 0)
		return errno == ESRCH ? INJECT_E_GONE : err_origin(-errno);
	*ret_fd = fd;
	return 0;
}

static int send_fd(int via, int fd)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec io = { "x", 1 };
	struct msghdr h = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = &control,
			    .msg_controllen = sizeof(control) };

	control.align.cmsg_level = SOL_SOCKET;
	control.align.cmsg_type = SCM_RIGHTS;
	control.align.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&control.align), &fd, sizeof(fd));
	return sendmsg(via, &h, MSG_NOSIGNAL | MSG_DONTWAIT) == 1 ? 0 : err_origin(-errno);
}

static int receive_there(struct inject *i, uint64_t at, int socket_there, int cloexec, int *ret)
{
	const long args[6] = { socket_there, (long)(at + offsetof(struct landing, header)),
			       MSG_DONTWAIT | (cloexec ? MSG_CMSG_CLOEXEC : 0) };
	const struct cmsghdr *control;
	struct landing l = { 0 };
	long result;
	int r;

	l.header.msg_iov = (void *)(at + offsetof(struct landing, io));
	l.header.msg_iovlen = 1;
	l.header.msg_control = (void *)(at + offsetof(struct landing, control));
	l.header.msg_controllen = sizeof(l.control);
	l.io = (struct iovec){ (void *)(at + offsetof(struct landing, byte)), 1 };
	r = inject_write(i, at, &l, sizeof(l));
	if (r == 0)
		r = call_or_errno(i, SYS_recvmsg, args, &result);
	if (r == 0)
		r = inject_read(i, at, &l, sizeof(l));
	if (r != 0)
		return r;
	control = (const struct cmsghdr *)l.control;
	if (l.header.msg_flags & MSG_CTRUNC || control->cmsg_type != SCM_RIGHTS ||
	    control->cmsg_len != CMSG_LEN(sizeof(int)))
		return err_origin(-EMFILE);
	memcpy(ret, CMSG_DATA(control), sizeof(*ret));
	return 0;
}

int inject_give_fd(struct inject *i, int fd, int cloexec, int *ret)
{
	uint64_t at = inject_scratch(i);
	const long args[6] = { AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, (long)at };
	_cleanup_close_ int ours = -1;
	int pair[2], number = -1, r;
	long result;

	if (!at)
		return i->gone ? INJECT_E_GONE : err_origin(-ENOMEM);
	r = call_or_errno(i, SYS_socketpair, args, &result);
	if (r == 0)
		r = inject_read(i, at, pair, sizeof(pair));
	if (r != 0)
		return r;
	r = fetch(i, pair[0], &ours);
	if (r == 0)
		r = send_fd(ours, fd);
	if (r == 0)
		r = receive_there(i, at, pair[1], cloexec, &number);
	for (size_t n = 0; n < N_ELEMENTS(pair); n++)
		(void)inject_call(i, SYS_close, (long[6]){ pair[n] }, &result);
	if (r == 0)
		*ret = number;
	return r;
}

/* Write @strings and a vector of their addresses at *at, which moves behind them. */
static int push_strings(struct inject *i, const char *const *strings, uint64_t *at, uint64_t end,
			uint64_t *ret_vector)
{
	uint64_t vector[512], p = *at;
	size_t n;
	int r;

	for (n = 0; strings[n]; n++) {
		size_t len = strlen(strings[n]) + 1;

		if (n + 1 >= N_ELEMENTS(vector) || len > end - p)
			return err_origin(-E2BIG);
		r = inject_write(i, p, strings[n], len);
		if (r != 0)
			return r;
		vector[n] = p;
		p += len;
	}
	vector[n++] = 0;
	p = (p + 7) & ~UINT64_C(7);
	if (p > end || n * sizeof(*vector) > end - p)
		return err_origin(-E2BIG);
	r = inject_write(i, p, vector, n * sizeof(*vector));
	if (r != 0)
		return r;
	*ret_vector = p;
	*at = p + n * sizeof(*vector);
	return 0;
}

int inject_exec(struct inject *i, int fd, const char *const *argv, const char *const *envp)
{
	uint64_t at = inject_scratch(i), end = at + INJECT_SCRATCH, path = at;
	uint64_t argv_there = 0, envp_there = 0;
	long args[6] = { fd, (long)path, 0, 0, AT_EMPTY_PATH }, result;
	int r;

	if (!at)
		return i->gone ? INJECT_E_GONE : err_origin(-ENOMEM);
	at += 8; /* the empty path: fresh memory is zero, but the scratch may be used */
	r = inject_write(i, path, "\0\0\0\0\0\0\0", 8);
	if (r == 0)
		r = push_strings(i, argv, &at, end, &argv_there);
	if (r == 0)
		r = push_strings(i, envp, &at, end, &envp_there);
	if (r != 0)
		return r;
	args[2] = (long)argv_there;
	args[3] = (long)envp_there;
	r = inject_run(i, SYS_execveat, args, true, &result);
	if (r == 0 && !i->replaced)
		return err_origin(result < 0 ? (int)result : -EPROTO);
	return r == 0 ? inject_open_memory(i) : r;
}
