/*
 * What a process that waits in execve() hands on to its program, and whether another node
 * can have it.
 *
 * Happy path: arguments from its memory, everything else from /proc; a file is named by
 * its path, inode and file system, to be found again there.
 *
 * Failure modes: it ends meanwhile, or changes -> what was read makes no sense, or the
 * exec that follows fails: it stays.
 *
 * Not to be seen from outside, and so not handed on: PDEATHSIG, which most set anew, being a
 * subreaper, and ITIMER_VIRTUAL and ITIMER_PROF.
 */
#include "placement_internal.h"

#include "buf.h"
#include "err.h"
#include "inventory_mount.h"
#include "inventory_proc.h"
#include "process_proc.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/major.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

enum {
	STRINGS_MAX = 65536,
	BYTES_MAX = 2 << 20, /* of arguments and environment */
	DESCRIPTORS_READ_MAX = 4096,
};

struct look {
	struct placement_look *l;
	int mem_fd;
	size_t bytes;
	struct mount_table *mounts;
};

static int stays(struct placement_look *l, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static int stays(struct placement_look *l, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)vsnprintf(l->why, sizeof(l->why), format, args);
	va_end(args);
	return PLACEMENT_E_STAYS;
}

/* -- Memory -- */

static int read_memory(struct look *k, uint64_t at, void *ret, size_t len)
{
	return pread(k->mem_fd, ret, len, (off_t)at) == (ssize_t)len ? 0 : err_origin(-EFAULT);
}

/* Page by page: what is behind its end may not be mapped. */
static int read_string(struct look *k, uint64_t at, char **ret)
{
	_cleanup_buf_ struct buf b = { 0 };

	for (;;) {
		size_t len = 4096 - at % 4096;
		uint8_t *p = buf_reserve(&b, len);
		const uint8_t *end;
		int r;

		if (!p)
			return err_origin(-ENOMEM);
		r = read_memory(k, at, p, len);
		if (r < 0)
			return r;
		end = memchr(p, 0, len);
		if (end) {
			*ret = strdup((char *)b.data);
			return *ret ? 0 : err_origin(-ENOMEM);
		}
		b.len += len;
		at += len;
		k->bytes += len;
		if (k->bytes > BYTES_MAX)
			return err_origin(-E2BIG);
	}
}

static int read_strings(struct look *k, uint64_t at, char ***ret)
{
	_cleanup_buf_ struct buf pointers = { 0 };
	uint64_t p;
	char **v;
	size_t n;
	int r;

	do {
		r = at ? read_memory(k, at + pointers.len, &p, sizeof(p)) : (p = 0, 0);
		if (r == 0)
			r = buf_append(&pointers, &p, sizeof(p));
		if (r < 0)
			return r;
		if (pointers.len / sizeof(p) > STRINGS_MAX)
			return err_origin(-E2BIG);
	} while (p);
	n = pointers.len / sizeof(p) - 1;
	v = calloc(n + 1, sizeof(*v));
	if (!v)
		return err_origin(-ENOMEM);
	*ret = v;
	for (size_t i = 0; i < n; i++) {
		memcpy(&p, pointers.data + i * sizeof(p), sizeof(p));
		r = read_string(k, p, &v[i]);
		if (r < 0)
			return r;
		k->bytes += strlen(v[i]);
	}
	return 0;
}

static int look_at_memory(struct look *k)
{
	struct placement_look *l = k->l;
	const uint64_t *a = l->call.args;
	uint64_t path = a[0], argv = a[1], envp = a[2];
	char name[32];
	int r;

	if (l->call.nr == SYS_execveat) {
		if ((int)a[0] != AT_FDCWD || a[4] != 0)
			return stays(l, "its program is not named by a path");
		path = a[1];
		argv = a[2];
		envp = a[3];
	}
	(void)snprintf(name, sizeof(name), "%d/mem", l->call.pid);
	k->mem_fd = openat(l->proc_fd, name, O_RDONLY | O_CLOEXEC);
	if (k->mem_fd < 0)
		return err_origin(-errno);
	r = read_string(k, path, &l->exec.program);
	if (r == 0)
		r = read_strings(k, argv, &l->exec.launch.argv);
	if (r == 0)
		r = read_strings(k, envp, &l->exec.launch.envp);
	if (r < 0)
		return r;
	if (!l->exec.program[0] || !argv || !l->exec.launch.argv[0])
		return stays(l, "it has no arguments");
	l->argv = argv;
	l->empty = path + strlen(l->exec.program);
	return 0;
}

/* -- /proc/PID -- */

static int read_file(struct look *k, const char *file, struct buf *ret)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "%d/%s", k->l->call.pid, file);
	return proc_read(k->l->proc_fd, path, 1 << 20, ret);
}

/* A line of four equal numbers. */
static bool four(const char *text, const char *key, unsigned *ret)
{
	const char *p = proc_field(text, key);
	unsigned v[4];

	if (!p || sscanf(p, "%u %u %u %u", &v[0], &v[1], &v[2], &v[3]) != 4)
		return false;
	*ret = v[0];
	return v[0] == v[1] && v[0] == v[2] && v[0] == v[3];
}

static uint64_t hex(const char *text, const char *key)
{
	const char *p = proc_field(text, key);

	return p ? strtoull(p, NULL, 16) : ~0ull;
}

static unsigned long decimal(const char *text, const char *key)
{
	const char *p = proc_field(text, key);

	return p ? strtoul(p, NULL, 10) : ~0ul;
}

static int read_groups(struct placement_look *l, const char *text)
{
	struct process_caller *c = &l->exec.launch.caller;
	const char *p = proc_field(text, "Groups:");
	char *end;

	for (; p && *p && *p != '\n'; p = end) {
		unsigned long gid = strtoul(p, &end, 10);

		if (end == p)
			break;
		if (c->n_groups == N_ELEMENTS(c->groups))
			return stays(l, "it is in many groups");
		c->groups[c->n_groups++] = (gid_t)gid;
	}
	return 0;
}

/* As ssi-spawn makes them: all of root's, none of others. */
static bool plain_capabilities(const char *text, const char *init, uid_t uid)
{
	uint64_t all = hex(init, "CapBnd:"), want = uid == 0 ? all : 0;

	return hex(text, "CapBnd:") == all && hex(text, "CapPrm:") == want &&
	       hex(text, "CapEff:") == want && hex(text, "CapInh:") == 0 &&
	       hex(text, "CapAmb:") == 0;
}

static int look_at_status(struct look *k)
{
	struct placement_look *l = k->l;
	struct placement_exec *x = &l->exec;
	_cleanup_buf_ struct buf b = { 0 }, init = { 0 };
	unsigned uid, gid;
	const char *text;
	int r;

	r = read_file(k, "status", &b);
	if (r == 0)
		r = proc_read(l->proc_fd, "1/status", 1 << 16, &init);
	if (r < 0)
		return r;
	text = (const char *)b.data;
	if (!four(text, "Uid:", &uid) || !four(text, "Gid:", &gid))
		return stays(l, "it has the rights of two users");
	if (!plain_capabilities(text, (const char *)init.data, uid))
		return stays(l, "it has other capabilities than its user");
	/* The one filter is ours. */
	if (decimal(text, "NoNewPrivs:") != 0 || decimal(text, "Seccomp_filters:") != 1)
		return stays(l, "it has restricted itself");
	if (decimal(text, "Threads:") != 1)
		return stays(l, "it has several threads");
	if (decimal(text, "TracerPid:") != 0)
		return stays(l, "it is traced");
	x->launch.caller.uid = uid;
	x->launch.caller.gid = gid;
	x->launch.umask = (mode_t)strtoul(proc_field(text, "Umask:") ?: "022", NULL, 8);
	x->blocked = hex(text, "SigBlk:");
	x->ignored = hex(text, "SigIgn:");
	return read_groups(l, text);
}

static int look_at_limits(struct look *k)
{
	/* In the kernel's order of names. */
	static const struct {
		const char *name;
		int resource;
	} limits[] = {
		{ "Max cpu time", RLIMIT_CPU },
		{ "Max file size", RLIMIT_FSIZE },
		{ "Max data size", RLIMIT_DATA },
		{ "Max stack size", RLIMIT_STACK },
		{ "Max core file size", RLIMIT_CORE },
		{ "Max resident set", RLIMIT_RSS },
		{ "Max processes", RLIMIT_NPROC },
		{ "Max open files", RLIMIT_NOFILE },
		{ "Max locked memory", RLIMIT_MEMLOCK },
		{ "Max address space", RLIMIT_AS },
		{ "Max file locks", RLIMIT_LOCKS },
		{ "Max pending signals", RLIMIT_SIGPENDING },
		{ "Max msgqueue size", RLIMIT_MSGQUEUE },
		{ "Max nice priority", RLIMIT_NICE },
		{ "Max realtime priority", RLIMIT_RTPRIO },
		{ "Max realtime timeout", RLIMIT_RTTIME },
	};
	_cleanup_buf_ struct buf b = { 0 };
	int r = read_file(k, "limits", &b);

	for (size_t i = 0; r == 0 && i < N_ELEMENTS(limits); i++) {
		struct rlimit *ret = &k->l->exec.launch.limits[limits[i].resource];
		const char *p = proc_field((const char *)b.data, limits[i].name);
		char soft[24], hard[24];

		if (!p || sscanf(p, "%23s %23s", soft, hard) != 2)
			return err_origin(-EPROTO);
		*ret = (struct rlimit){ RLIM_INFINITY, RLIM_INFINITY };
		if (strcmp(soft, "unlimited") != 0)
			ret->rlim_cur = strtoull(soft, NULL, 10);
		if (strcmp(hard, "unlimited") != 0)
			ret->rlim_max = strtoull(hard, NULL, 10);
	}
	return r;
}

static bool same_affinity(pid_t pid)
{
	cpu_set_t own, init;

	return sched_getaffinity(pid, sizeof(own), &own) == 0 &&
	       sched_getaffinity(1, sizeof(init), &init) == 0 && CPU_EQUAL(&own, &init);
}

static int look_at_scheduling(struct look *k)
{
	struct placement_look *l = k->l;

	if (sched_getscheduler(l->call.pid) != SCHED_OTHER)
		return stays(l, "it has a scheduling policy of its own");
	if (!same_affinity(l->call.pid))
		return stays(l, "it is bound to processors of this node");
	errno = 0;
	l->exec.launch.nice = getpriority(PRIO_PROCESS, (id_t)l->call.pid);
	return errno ? err_origin(-errno) : 0;
}

static bool same_link(struct look *k, const char *what)
{
	char own[256], init[256], path[64];
	int r;

	(void)snprintf(path, sizeof(path), "%d/%s", k->l->call.pid, what);
	r = proc_link(k->l->proc_fd, path, own, sizeof(own));
	(void)snprintf(path, sizeof(path), "1/%s", what);
	return r == 0 && proc_link(k->l->proc_fd, path, init, sizeof(init)) == 0 &&
	       !strcmp(own, init);
}

static bool has_children(struct look *k)
{
	_cleanup_buf_ struct buf b = { 0 };
	char path[64];

	(void)snprintf(path, sizeof(path), "task/%d/children", k->l->call.pid);
	return read_file(k, path, &b) < 0 || b.len > 0;
}

static int read_family(struct look *k, pid_t pid, struct process_member *ret)
{
	struct proc_stat s = { 0 };
	int r = proc_stat_read(k->l->proc_fd, pid, &s);

	*ret = (struct process_member){ .pid = pid, .ppid = s.ppid, .pgid = s.pgid, .sid = s.sid,
					.uid = k->l->exec.launch.caller.uid,
					.gid = k->l->exec.launch.caller.gid };
	return r;
}

static int look_at_family(struct look *k)
{
	struct placement_look *l = k->l;
	struct process_member *m = &l->member, *parent = &l->parent;
	int r;

	if (!same_link(k, "root") || !same_link(k, "ns/mnt") || !same_link(k, "ns/user") ||
	    !same_link(k, "ns/net") || !same_link(k, "ns/pid_for_children") ||
	    !same_link(k, "ns/ipc") || !same_link(k, "ns/uts"))
		return stays(l, "it has namespaces of its own");
	if (has_children(k))
		return stays(l, "it has children");
	r = read_family(k, l->call.pid, m);
	if (r == 0)
		r = capability_read(l->proc_fd, m->pid, &m->capabilities);
	if (r < 0)
		return r;
	if (m->ppid < SPACE_PID_MIN)
		return stays(l, "its parent has ended");
	r = read_family(k, m->ppid, parent);
	if (r < 0)
		return r;
	if (parent->sid < SPACE_PID_MIN || parent->pgid < SPACE_PID_MIN ||
	    (m->sid != parent->sid && m->sid != m->pid))
		return stays(l, "its session is another one's");
	return 0;
}

/* -- Terminal -- */

enum { PTS_MAJOR = 136 };

/* It sets up groups and who is in the foreground, which only the home of the session can. */
static bool is_shell_for_the_user(const struct placement_exec *x)
{
	static const char *const shells[] = { "sh",  "bash", "dash", "zsh",    "ksh",
					      "mksh", "fish", "tcsh", "busybox" };
	const char *name = strrchr(x->program, '/');

	if (x->launch.argv[1] && x->launch.argv[1][0] != '-')
		return false;
	for (char **a = x->launch.argv + 1; *a; a++)
		if (!strcmp(*a, "-c"))
			return false;
	name = name ? name + 1 : x->program;
	for (size_t i = 0; i < N_ELEMENTS(shells); i++)
		if (!strcmp(name, shells[i]))
			return true;
	return false;
}

static int look_at_terminal(struct look *k)
{
	struct placement_exec *x = &k->l->exec;
	struct tty_state *t = &x->terminal;
	struct proc_stat s;
	int r = proc_stat_read(k->l->proc_fd, k->l->call.pid, &s);

	if (r < 0 || !s.terminal)
		return r;
	/* As the kernel packs major and minor into 32 bits. */
	if ((s.terminal >> 8 & 0xfff) != PTS_MAJOR)
		return stays(k->l, "its terminal is no pseudo-terminal");
	if (is_shell_for_the_user(x))
		return stays(k->l, "it is a shell at a terminal");
	t->number = (s.terminal & 0xff) | (s.terminal >> 12 & 0xfff00);
	t->session = s.sid;
	t->foreground = s.foreground;
	x->has_terminal = true;
	r = tty_look(k->l->root_fd, t);
	return r == -ENOENT ? stays(k->l, "its terminal is hung up") : r;
}

static bool is_its_terminal(const struct placement_exec *x, const struct statx *st)
{
	if (!x->has_terminal || !S_ISCHR(st->stx_mode))
		return false;
	return (st->stx_rdev_major == PTS_MAJOR && st->stx_rdev_minor == x->terminal.number) ||
	       (st->stx_rdev_major == TTYAUX_MAJOR && st->stx_rdev_minor == 0);
}

/* -- Files -- */

static int add_same(struct look *k, const char *path, const struct statx *st)
{
	struct placement_exec *x = &k->l->exec;
	struct placement_same *same = &x->same[x->n_same];
	char buf[512];
	const char *name = mount_table_name(k->mounts, st, buf, sizeof(buf));

	if (!name || x->n_same == PLACEMENT_SAME_MAX)
		return stays(k->l, "%s is on no file system of the space", path);
	*same = (struct placement_same){ strdup(path), st->stx_ino, strdup(name) };
	x->n_same++; /* also half: fini frees it */
	return same->path && same->file_system ? 0 : err_origin(-ENOMEM);
}

static int look_at_directory(struct look *k)
{
	struct placement_look *l = k->l;
	char name[32], path[4096];
	struct statx st;
	int r;

	(void)snprintf(name, sizeof(name), "%d/cwd", l->call.pid);
	r = proc_link(l->proc_fd, name, path, sizeof(path));
	if (r == 0)
		r = proc_stat(l->proc_fd, name, 0, &st);
	if (r < 0)
		return r;
	l->exec.launch.cwd = strdup(path);
	return l->exec.launch.cwd ? add_same(k, path, &st) : err_origin(-ENOMEM);
}

/*
 * Where files are a node's own, as far as programs hand each other any.  Who names one in its
 * arguments has it here, and a program elsewhere would not find it, or leave it there.
 */
static int look_at_arguments(struct look *k)
{
	static const char *const own[] = { "/tmp/", "/var/", "/run/", "/dev/shm/", "/home/",
					   "/root/" };

	for (size_t i = 0; i < N_ELEMENTS(own); i++) {
		char directory[16];
		struct statx st;
		char **arg = k->l->exec.launch.argv;
		int r;

		while (*arg && !strstr(*arg, own[i]))
			arg++;
		if (!*arg)
			continue;
		(void)snprintf(directory, sizeof(directory), "%.*s", (int)strlen(own[i]) - 1,
			       own[i]);
		r = proc_stat(k->l->root_fd, directory + 1, 0, &st);
		if (r == 0)
			r = add_same(k, directory, &st);
		if (r != 0)
			return r;
	}
	return 0;
}

static int look_at_program(struct look *k)
{
	struct placement_look *l = k->l;
	struct placement_exec *x = &l->exec;
	_cleanup_close_ int fd = -1, data = -1;
	char path[8192], self[32];
	struct stat st;

	(void)snprintf(path, sizeof(path), "%s%s%s", x->program[0] == '/' ? "" : x->launch.cwd,
		       x->program[0] == '/' ? "" : "/", x->program);
	fd = root_open(l->root_fd, path, 0, 0);
	if (fd < 0 || fstat(fd, &st) < 0)
		return stays(l, "its program is not there");
	if (!S_ISREG(st.st_mode) || !(st.st_mode & 0111))
		return stays(l, "its program cannot be executed");
	if (st.st_mode & (S_ISUID | S_ISGID))
		return stays(l, "its program changes its rights");
	(void)snprintf(self, sizeof(self), "self/fd/%d", fd);
	data = openat(l->proc_fd, self, O_RDONLY | O_CLOEXEC);
	if (data < 0 || fgetxattr(data, "security.capability", NULL, 0) >= 0)
		return stays(l, "its program changes its rights");
	x->program_size = (uint64_t)st.st_size;
	x->program_changed = (uint64_t)st.st_mtim.tv_sec * NSEC_PER_SEC +
			     (uint64_t)st.st_mtim.tv_nsec;
	return 0;
}

/* -- Descriptors -- */

static int read_flags(struct look *k, pid_t pid, int number, uint32_t *ret_flags,
		      uint64_t *ret_offset)
{
	_cleanup_buf_ struct buf b = { 0 };
	const char *flags, *offset;
	char path[64];
	int r;

	(void)snprintf(path, sizeof(path), "%d/fdinfo/%d", pid, number);
	r = proc_read(k->l->proc_fd, path, 1 << 20, &b);
	if (r < 0)
		return r;
	flags = proc_field((const char *)b.data, "flags:");
	offset = proc_field((const char *)b.data, "pos:");
	if (!flags || !offset)
		return err_origin(-EPROTO);
	*ret_flags = (uint32_t)strtoul(flags, NULL, 8);
	*ret_offset = strtoull(offset, NULL, 10);
	return 0;
}

/* The very open file, and so its offset, that @number is of the process that we look at. */
static bool is_same_file(struct look *k, int number, pid_t pid, int fd)
{
	return syscall(SYS_kcmp, k->l->call.pid, pid, KCMP_FILE, number, fd) == 0;
}

static bool can_be_read(struct look *k, int number, pid_t pid, int fd)
{
	uint32_t flags;
	uint64_t offset;

	return read_flags(k, pid, fd, &flags, &offset) == 0 && (flags & O_ACCMODE) != O_WRONLY;
}

/* Another process with a descriptor of the same @link as @number that @is so; 0: none has. */
static pid_t find_other(struct look *k, int number, const char *link,
			bool (*is)(struct look *k, int number, pid_t pid, int fd))
{
	pid_t pid = k->l->call.pid;
	_cleanup_free_ int *pids = NULL;
	size_t n_pids = 0;

	if (proc_numbers(k->l->proc_fd, ".", 4 << 20, &pids, &n_pids) < 0)
		return 1; /* nobody knows */
	for (size_t i = 0; i < n_pids; i++) {
		_cleanup_free_ int *fds = NULL;
		size_t n_fds = 0;
		char path[64], other[4096];

		if (pids[i] < SPACE_PID_MIN || pids[i] == pid)
			continue;
		(void)snprintf(path, sizeof(path), "%d/fd", pids[i]);
		if (proc_numbers(k->l->proc_fd, path, DESCRIPTORS_READ_MAX, &fds, &n_fds) < 0)
			continue;
		for (size_t f = 0; f < n_fds; f++) {
			(void)snprintf(path, sizeof(path), "%d/fd/%d", pids[i], fds[f]);
			if (proc_link(k->l->proc_fd, path, other, sizeof(other)) == 0 &&
			    !strcmp(link, other) && is(k, number, pids[i], fds[f]))
				return pids[i];
		}
	}
	return 0;
}

static bool is_running(struct look *k, pid_t pid)
{
	struct proc_stat s;

	return proc_stat_read(k->l->proc_fd, pid, &s) == 0 && s.state == 'R';
}

/* What is read ahead of a pipe may be another's.  A shell that starts a pipeline closes its own
 * end only after its fork: a moment is given to it, unless it waits already, for this one say. */
static pid_t find_other_reader(struct look *k, int number, const char *link)
{
	pid_t other = find_other(k, number, link, can_be_read);

	for (unsigned us = 1000; us <= 16000 && other == k->l->member.ppid && is_running(k, other);
	     us *= 2) {
		(void)usleep(us);
		other = find_other(k, number, link, can_be_read);
	}
	return other;
}

static int add_file(struct look *k, struct placement_descriptor *d, const char *link,
		    const struct statx *st)
{
	bool append = (d->flags & O_ACCMODE) == O_WRONLY && d->flags & O_APPEND;

	if (link[0] != '/' || strlen(link) > 4000 || strstr(link, " (deleted)"))
		return stays(k->l, "descriptor %d has no path", d->number);
	d->path = strdup(link);
	if (!d->path)
		return err_origin(-ENOMEM);
	if (proc_plain_device(st->stx_mode, makedev(st->stx_rdev_major, st->stx_rdev_minor)))
		return 0;
	if (!S_ISREG(st->stx_mode) && !S_ISDIR(st->stx_mode))
		return stays(k->l, "descriptor %d is %.80s", d->number, link);
	if (!append && find_other(k, d->number, link, is_same_file))
		return stays(k->l, "descriptor %d is shared", d->number);
	d->inode = st->stx_ino;
	return add_same(k, link, st);
}

static int get_fd(pid_t pid, int number)
{
	_cleanup_close_ int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);

	return pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, number, 0);
}

static int add_pipe(struct look *k, struct placement_descriptor *d, const char *link,
		    const struct statx *st)
{
	struct placement_exec *x = &k->l->exec;
	_cleanup_close_ int fd = get_fd(k->l->call.pid, d->number);
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	bool reads = (d->flags & O_ACCMODE) == O_RDONLY;
	pid_t other_reader;
	struct stat other;

	if (fd < 0)
		return err_origin(-EBADF);
	if ((d->flags & O_ACCMODE) == O_RDWR || d->flags & O_DIRECT)
		return stays(k->l, "descriptor %d is a pipe in packet mode", d->number);
	d->kind = !reads					 ? PLACEMENT_PIPE :
		  poll(&poll_fd, 1, 0) == 1 && poll_fd.revents == POLLHUP ? PLACEMENT_ENDED :
								  PLACEMENT_INPUT;
	for (d->given = 0; d->given < x->n_given; d->given++)
		if (x->given[d->given] >= 0 && fstat(x->given[d->given], &other) == 0 &&
		    other.st_ino == st->stx_ino)
			return x->input[d->given] == reads ?
				       0 :
				       stays(k->l, "descriptor %d is a pipe to itself", d->number);
	other_reader = d->kind == PLACEMENT_INPUT ? find_other_reader(k, d->number, link) : 0;
	if (other_reader)
		return stays(k->l, "descriptor %d is a pipe that process %d reads as well",
			     d->number, other_reader);
	if (x->n_given == PLACEMENT_GIVEN_MAX)
		return stays(k->l, "it has many pipes");
	d->given = (unsigned)x->n_given;
	x->input[x->n_given] = d->kind == PLACEMENT_INPUT;
	x->given[x->n_given++] = d->kind == PLACEMENT_ENDED ? -1 : TAKE_FD(fd);
	return 0;
}

static int look_at_descriptor(struct look *k, int number)
{
	struct placement_exec *x = &k->l->exec;
	struct placement_descriptor *d = &x->descriptors[x->n_descriptors];
	char path[64], link[4096];
	struct statx st;
	int r;

	(void)snprintf(path, sizeof(path), "%d/fd/%d", k->l->call.pid, number);
	*d = (struct placement_descriptor){ .number = number };
	r = read_flags(k, k->l->call.pid, number, &d->flags, &d->offset);
	if (r < 0 || d->flags & O_CLOEXEC)
		return r;
	r = proc_link(k->l->proc_fd, path, link, sizeof(link));
	if (r == 0)
		r = proc_stat(k->l->proc_fd, path, 0, &st);
	if (r < 0)
		return r;
	if (number > PLACEMENT_NUMBER_MAX || x->n_descriptors == PLACEMENT_DESCRIPTORS_MAX)
		return stays(k->l, "it has many descriptors");
	x->n_descriptors++; /* also half: fini frees it */
	if (is_its_terminal(x, &st)) {
		d->kind = PLACEMENT_TERMINAL;
		return 0;
	}
	if (!strncmp(link, "pipe:", 5))
		return add_pipe(k, d, link, &st);
	return add_file(k, d, link, &st);
}

static int look_at_descriptors(struct look *k)
{
	_cleanup_free_ int *fds = NULL;
	size_t n = 0;
	char path[32];
	int r;

	(void)snprintf(path, sizeof(path), "%d/fd", k->l->call.pid);
	r = proc_numbers(k->l->proc_fd, path, DESCRIPTORS_READ_MAX, &fds, &n);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = look_at_descriptor(k, fds[i]);
	return r;
}

int placement_look(struct placement_look *l)
{
	static int (*const steps[])(struct look *k) = {
		look_at_memory,	  look_at_status,  look_at_family,    look_at_terminal,
		look_at_scheduling, look_at_limits, look_at_directory, look_at_program,
		look_at_arguments, look_at_descriptors,
	};
	struct look k = { .l = l, .mem_fd = -1 };
	int r = mount_table_new(&k.mounts, l->proc_fd);

	for (size_t i = 0; r == 0 && i < N_ELEMENTS(steps); i++)
		r = steps[i](&k);
	mount_table_free(k.mounts);
	(void)close_fd(k.mem_fd);
	return r;
}

int placement_find(int root_fd, int proc_fd, const struct placement_exec *x, char *why,
		   size_t why_size)
{
	_cleanup_(mount_table_freep) struct mount_table *mounts = NULL;
	int r = mount_table_new(&mounts, proc_fd);

	for (size_t i = 0; r == 0 && i < x->n_same; i++) {
		const struct placement_same *same = &x->same[i];
		_cleanup_close_ int fd = root_open(root_fd, same->path, O_NOFOLLOW, 0);
		const char *name = NULL;
		char buf[512];
		struct statx st;

		if (fd >= 0 && proc_stat(fd, "", AT_EMPTY_PATH, &st) == 0)
			name = mount_table_name(mounts, &st, buf, sizeof(buf));
		if (!name || st.stx_ino != same->inode || strcmp(name, same->file_system) != 0) {
			(void)snprintf(why, why_size, "%.80s is another one there", same->path);
			return PLACEMENT_E_STAYS;
		}
	}
	return r;
}

static void free_strings(char **v)
{
	for (size_t i = 0; v && v[i]; i++)
		free(v[i]);
	free(v);
}

void placement_exec_fini(struct placement_exec *x)
{
	free_strings(x->launch.argv);
	free_strings(x->launch.envp);
	free(x->launch.cwd);
	free(x->program);
	for (size_t i = 0; i < x->n_descriptors; i++)
		free(x->descriptors[i].path);
	for (size_t i = 0; i < x->n_same; i++) {
		free(x->same[i].path);
		free(x->same[i].file_system);
	}
	for (size_t i = 0; i < x->n_given; i++)
		(void)close_fd(x->given[i]);
	*x = (struct placement_exec){ 0 };
}
