/*
 * Probes of system calls and devices: each is tried, not looked up by version.
 * What makes a process or changes ours happens in a child.
 */
#include "kernel_internal.h"

#include "cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* linux/sched.h and sched.h do not agree; the one struct that is wanted from it. */
struct clone3_arguments {
	uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
	uint64_t set_tid, set_tid_size, cgroup;
};

#ifndef UFFD_FEATURE_MINOR_SHMEM
#define UFFD_FEATURE_MINOR_SHMEM (1 << 10)
#endif
enum {
	FEATURE_WP_HUGETLBFS_SHMEM = 1 << 12,
	FEATURE_WP_ASYNC = 1 << 15,
};

/* errno of @test in a child, 0 when it succeeded. */
static int in_child(int (*test)(void))
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return errno;
	if (pid == 0)
		_exit(test());
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
}

static void from_errno(struct kernel_row *row, int error, enum kernel_state otherwise,
		       const char *remedy)
{
	kernel_say(row, error ? otherwise : KERNEL_OK, remedy, "%s",
		   error ? strerror(error) : "works");
}

static void probe_userfaultfd(struct kernel_row *row)
{
	static const char *const remedy =
		"shared memory across nodes and lazy migration are off, moves to this node copy memory "
		"into images first; needs CONFIG_USERFAULTFD and root";
	struct uffdio_api api = { .api = UFFD_API };
	_cleanup_close_ int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	bool wp, minor, async;

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0) {
		kernel_say(row, KERNEL_MISSING, remedy, "%s", strerror(errno));
		return;
	}
	minor = api.features & UFFD_FEATURE_MINOR_SHMEM;
	wp = api.features & FEATURE_WP_HUGETLBFS_SHMEM;
	async = api.features & FEATURE_WP_ASYNC;
	kernel_say(row, minor && wp && async ? KERNEL_OK : KERNEL_WARN,
		   "pre-copy and fast page installation are off; use a newer kernel (6.7)",
		   "minor faults %s, write protection of shared memory %s, asynchronous %s",
		   minor ? "yes" : "no", wp ? "yes" : "no", async ? "yes" : "no");
}

static void probe_fuse(struct kernel_row *row)
{
	_cleanup_close_ int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	from_errno(row, fd < 0 ? errno : 0, KERNEL_MISSING,
		   "/ssi and the cluster's /proc are off; load the module fuse");
}

static int own_process(int *ret_pidfd)
{
	*ret_pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	return *ret_pidfd < 0 ? errno : 0;
}

static void probe_pidfd_getfd(struct kernel_row *row)
{
	_cleanup_close_ int pidfd = -1, copy = -1;
	int error = own_process(&pidfd);

	if (!error) {
		copy = (int)syscall(SYS_pidfd_getfd, pidfd, pidfd, 0);
		error = copy < 0 ? errno : 0;
	}
	from_errno(row, error, KERNEL_MISSING,
		   "processes cannot be moved; needs kernel 5.6 and no filter on ssid");
}

/* A child with a PID of our choice, far away from the cursor. */
static int test_set_tid(void)
{
	pid_t wanted, pid;
	struct clone3_arguments args = { .exit_signal = SIGCHLD, .set_tid = (uintptr_t)&wanted,
					 .set_tid_size = 1 };

	for (wanted = 20000; wanted < 20100; wanted++) {
		pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
		if (pid == 0)
			_exit(0);
		if (pid > 0) {
			(void)waitpid(pid, NULL, 0);
			return 0;
		}
		if (errno != EEXIST)
			break;
	}
	return errno;
}

static void probe_set_tid(struct kernel_row *row)
{
	from_errno(row, in_child(test_set_tid), KERNEL_MISSING,
		   "processes cannot keep their PIDs; needs kernel 5.5 and CAP_SYS_ADMIN or "
		   "CAP_CHECKPOINT_RESTORE");
}

static int test_namespaces(void)
{
	return unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS) < 0 ? errno : 0;
}

static void probe_namespaces(struct kernel_row *row)
{
	from_errno(row, in_child(test_namespaces), KERNEL_MISSING,
		   "ssid cannot start; it must run as root with CAP_SYS_ADMIN");
}

static void probe_seccomp(struct kernel_row *row)
{
	struct seccomp_notif_sizes sizes;

	from_errno(row, syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) < 0 ? errno : 0,
		   KERNEL_MISSING,
		   "signals to processes without a shadow here are not forwarded; needs "
		   "CONFIG_SECCOMP_FILTER");
}

static void probe_overlayfs(struct kernel_row *row)
{
	char line[128];
	FILE *f = fopen("/proc/filesystems", "re");
	bool found = false;

	while (f && fgets(line, sizeof(line), f))
		found |= strcmp(line, "nodev\toverlay\n") == 0;
	if (f)
		(void)fclose(f);
	kernel_say(row, found ? KERNEL_OK : KERNEL_WARN,
		   "ssi-lab needs it, ssid does not; load the module overlay", "%s",
		   found ? "present" : "not loaded");
}

static void probe_memfd(struct kernel_row *row)
{
	_cleanup_close_ int fd = memfd_create("probe", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	from_errno(row, fd < 0 ? errno : 0, KERNEL_MISSING, "ssid cannot start");
}

static void probe_module(struct kernel_row *row)
{
	_cleanup_close_ int fd = open("/dev/ssi", O_RDWR | O_CLOEXEC);

	kernel_say(row, fd < 0 ? KERNEL_WARN : KERNEL_OK,
		   "optional: remote processes in the kernel's own /proc; not made yet",
		   "%s", fd < 0 ? "not loaded" : "loaded");
}

const struct kernel_probe kernel_call_probes[] = {
	{ "namespaces", probe_namespaces },
	{ "clone3 set_tid", probe_set_tid },
	{ "pidfd_getfd", probe_pidfd_getfd },
	{ "memfd", probe_memfd },
	{ "seccomp notification", probe_seccomp },
	{ "userfaultfd", probe_userfaultfd },
	{ "fuse", probe_fuse },
	{ "overlayfs", probe_overlayfs },
	{ "ssi module", probe_module },
};
const size_t n_kernel_call_probes = N_ELEMENTS(kernel_call_probes);
