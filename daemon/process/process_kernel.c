#include "process_kernel.h"

#include "cleanup.h"
#include "err.h"
#include "shadow_protocol.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>

int process_kernel_signal(pid_t pid, int signal)
{
	return kill(pid, signal) < 0 ? -errno : 0;
}

int process_kernel_queue(pid_t pid, int signal, const siginfo_t *info)
{
	return syscall(SYS_rt_sigqueueinfo, pid, signal, info) < 0 ? -errno : 0;
}

int process_kernel_watch(pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	return fd < 0 ? err_origin(-errno) : fd;
}

static const struct sockaddr_un address = {.sun_family = AF_UNIX,
					   .sun_path = SHADOW_SOCKET};

int process_kernel_listen(int *ret_fd)
{
	_cleanup_close_ int fd = -1;

	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_origin(-errno);
	(void)unlink(SHADOW_SOCKET);
	if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
	    chmod(SHADOW_SOCKET, 0600) < 0 || listen(fd, 64) < 0)
		return err_origin(-errno);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int process_kernel_connect(int listen_fd, int *ret_ours, int *ret_theirs)
{
	_cleanup_close_ int theirs = -1;
	int ours;

	theirs = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (theirs < 0)
		return err_origin(-errno);
	if (connect(theirs, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return err_origin(-errno);
	ours = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (ours < 0)
		return err_origin(-errno);
	*ret_ours = ours;
	*ret_theirs = TAKE_FD(theirs);
	return 0;
}

void process_kernel_moment(void)
{
	(void)nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
}
