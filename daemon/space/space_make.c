/*
 * Making the space.
 *
 * happy path: a tmpfs at private_dir, the two cgroups, a listening init.sock; then
 * a daemonised child with new namespaces, which makes its own mounts and becomes
 * ssi-init, which says when it is ready.
 * failure modes: whatever fails in the child is told over a pipe, with the name of
 * the step; the half-made space dies with that child.
 */
#include "space_internal.h"

#include "err.h"
#include "log.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <sys/wait.h>

struct step_mount {
	const char *source, *target, *type, *data;
	unsigned long flags;
	bool optional; /* where the directory is missing */
};

static const struct step_mount mounts[] = {
	{ NULL, "/", NULL, NULL, MS_REC | MS_PRIVATE, false },
	{ "proc", "/proc", "proc", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, false },
	{ "devpts", "/dev/pts", "devpts", "newinstance,ptmxmode=0666,mode=0620,gid=5",
	  MS_NOSUID | MS_NOEXEC, false },
	{ "tmpfs", "/dev/shm", "tmpfs", "mode=1777", MS_NOSUID | MS_NODEV, false },
	{ "mqueue", "/dev/mqueue", "mqueue", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC, true },
};

struct making {
	const struct space_config *config;
	int listen_fd, work_fd, init_fd, ready_fd;
};

/* What the child says over the pipe: ssi-init's result alone, or a step that failed. */
struct report {
	int32_t error;
	char step[60];
};

static void fail(const struct making *m, const char *step)
{
	struct report report = { .error = -errno };

	(void)snprintf(report.step, sizeof(report.step), "%s", step);
	(void)!write(m->ready_fd, &report, sizeof(report));
	_exit(1);
}

static void make_mounts(const struct making *m)
{
	struct statfs fs;

	for (size_t i = 0; i < N_ELEMENTS(mounts); i++) {
		const struct step_mount *s = &mounts[i];

		if (s->optional && access(s->target, F_OK) < 0)
			continue;
		if (mount(s->source, s->target, s->type, s->flags, s->data) < 0)
			fail(m, s->target);
	}
	/* Some hosts bind their own terminals' ptmx over /dev/ptmx. */
	if (statfs("/dev/ptmx", &fs) == 0 && fs.f_type == DEVPTS_SUPER_MAGIC &&
	    mount("/dev/pts/ptmx", "/dev/ptmx", NULL, MS_BIND, NULL) < 0)
		fail(m, "/dev/ptmx");
}

/* Put the descriptors where init_wire.h says, /dev/null of the space below, nothing above. */
static void place_descriptors(struct making *m)
{
	int *const places[] = { &m->listen_fd, &m->work_fd, &m->ready_fd };
	int null;

	for (size_t i = 0; i < N_ELEMENTS(places); i++) {
		int fd = fcntl(*places[i], F_DUPFD_CLOEXEC, INIT_FD_READY + 1);

		if (fd < 0)
			fail(m, "dup");
		*places[i] = fd;
	}
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0)
		fail(m, "/dev/null");
	for (int i = 0; i < 3; i++)
		if (dup2(null, i) < 0)
			fail(m, "dup");
	for (size_t i = 0; i < N_ELEMENTS(places); i++)
		if (dup2(*places[i], INIT_FD_LISTEN + (int)i) < 0)
			fail(m, "dup");
	m->ready_fd = INIT_FD_READY;
	if (syscall(SYS_close_range, INIT_FD_READY + 1u, ~0u, 0u) < 0)
		fail(m, "close_range");
}

static _Noreturn void become_init(struct making *m)
{
	char path[PATH_MAX];

	(void)snprintf(path, sizeof(path), "%s/ssi-init", m->config->libexec_dir);
	make_mounts(m);
	place_descriptors(m);
	(void)execve(path, (char *const[]){ "ssi-init", NULL }, (char *const[]){ NULL });
	fail(m, "ssi-init");
	_exit(1);
}

/* In a child of ours: make ssi-init and leave it behind as an orphan. */
static _Noreturn void leave_init(struct making *m)
{
	struct clone_args args = {
		.flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS,
		.exit_signal = SIGCHLD,
	};
	int procs = openat(m->init_fd, "cgroup.procs", O_WRONLY | O_CLOEXEC);
	long pid;

	(void)setsid();
	if (procs < 0 || write(procs, "0", 1) != 1)
		fail(m, "cgroup.procs");
	pid = syscall(SYS_clone3, &args, sizeof(args));
	if (pid == 0)
		become_init(m);
	if (pid < 0)
		fail(m, "clone3");
	_exit(0);
}

static int run_init(struct making *m)
{
	struct report report = { 0 };
	_cleanup_close_ int ready = -1, report_end = -1;
	struct pollfd wait;
	int ends[2], n;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return err_origin(-errno);
	ready = ends[0];
	m->ready_fd = report_end = ends[1];
	pid = fork();
	if (pid < 0)
		return err_origin(-errno);
	if (pid == 0)
		leave_init(m);
	report_end = close_fd(report_end);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	wait = (struct pollfd){ ready, POLLIN, 0 };
	n = poll(&wait, 1, 10000);
	if (n <= 0)
		return err_origin(n ? -errno : -ETIMEDOUT);
	n = read(ready, &report, sizeof(report));
	if (n < (int)sizeof(report.error)) {
		report.error = -ECHILD;
		strcpy(report.step, "ssi-init");
	}
	if (report.error < 0)
		log_error("making the space failed at %s: %s",
			  report.step[0] ? report.step : "the start of ssi-init",
			  strerror(-report.error));
	return err_origin(report.error);
}

static int listen_at(const char *runtime_dir, int *ret_fd)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	_cleanup_close_ int fd = -1;
	mode_t old;
	int r;

	r = snprintf(address.sun_path, sizeof(address.sun_path), "%s/init.sock", runtime_dir);
	if (r >= (int)sizeof(address.sun_path))
		return err_origin(-ENAMETOOLONG);
	if (unlink(address.sun_path) < 0 && errno != ENOENT)
		return err_origin(-errno);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_origin(-errno);
	old = umask(0177);
	r = bind(fd, (struct sockaddr *)&address, sizeof(address));
	(void)umask(old);
	if (r < 0 || listen(fd, 16) < 0)
		return err_origin(-errno);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/*
 * A tmpfs that daemon and space both see, empty: what was in it died with the old space.
 * Images are appended to it in large pieces: within_size lets newer kernels take folios as
 * large as a piece for them, which cost half as much as pages to write, to read and to give
 * back, and never a whole huge page for the small ones.
 */
static int make_private(const char *path)
{
	static const char *const options[] = { "mode=0700,huge=within_size", "mode=0700" };
	int r = -1;

	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return err_origin(-errno);
	while (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
		;
	/* A kernel without large pages knows no such option. */
	for (size_t i = 0; r < 0 && i < N_ELEMENTS(options); i++)
		r = mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, options[i]);
	return r < 0 ? err_origin(-errno) : 0;
}

int space_make(const struct space_config *config)
{
	_cleanup_close_ int listen_fd = -1, work_fd = -1, init_fd = -1;
	struct making m = { .config = config };
	int r;

	space_cgroup_clear();
	r = make_private(config->private_dir);
	if (r == 0)
		r = space_cgroup_open("init", NULL, 0, &init_fd);
	if (r == 0)
		r = space_cgroup_open("work", NULL, 0, &work_fd);
	if (r == 0)
		r = listen_at(config->runtime_dir, &listen_fd);
	if (r < 0)
		return r;
	m.listen_fd = listen_fd;
	m.work_fd = work_fd;
	m.init_fd = init_fd;
	return run_init(&m);
}
