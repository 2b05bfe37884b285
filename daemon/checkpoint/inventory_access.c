#include "inventory_internal.h"

#include "err.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * The kernel is asked, not imitated: a child of ours takes the task's file system
 * identity (fsuid, fsgid, groups, effective capabilities) and calls
 * faccessat2() on what the task has open.  So mode bits, lists, read-only mounts
 * and a server's own view all count.
 *
 * Only the *file system* identity: real, effective and saved ids stay root's, so
 * the user can neither signal nor trace the child (which is a copy of ssid).
 *
 * The child finds each file anew through /proc and holds it by O_PATH (which asks no
 * server); a file that is no longer the one in the list answers ACCESS_CHANGED.
 */

enum { GROUPS_MAX = 65536 };
static const nsec_t ask_timeout = 5 * NSEC_PER_SEC;

struct identity {
	pid_t pid;
	uid_t fsuid;
	gid_t fsgid;
	gid_t *groups;
	size_t n_groups;
	uint64_t capabilities;
};

struct question {
	int proc_fd;
	const struct identity *identities;
	struct access_check *checks;
	const size_t *identity_of; /* of each check */
	size_t n_checks;
	/* Ours, before */
	uint32_t permitted[2], inheritable[2];
	int n_own_groups;
	gid_t *own_groups;
};

static bool set_effective(const struct question *q, uint64_t effective)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2];

	for (int k = 0; k < 2; k++)
		d[k] = (struct __user_cap_data_struct){
			.effective =
				q->permitted[k] & (uint32_t)(effective >> (32 * k)),
			.permitted = q->permitted[k],
			.inheritable = q->inheritable[k],
		};
	return syscall(SYS_capset, &h, d) == 0;
}

/* Raw calls: the C library would ask all of a copied process's threads, which are not
 * there. */
static bool become(const struct question *q, uid_t uid, gid_t gid, size_t n_groups,
		   const gid_t *groups, uint64_t capabilities)
{
	/* First all of ours, to be allowed to. */
	if (!set_effective(q, UINT64_MAX) ||
	    syscall(SYS_setgroups, n_groups, groups) < 0)
		return false;
	(void)syscall(SYS_setfsgid, gid);
	(void)syscall(SYS_setfsuid, uid);
	/* The kernel took it off with the change of identity. */
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* These two cannot fail aloud. */
	return (gid_t)syscall(SYS_setfsgid, -1) == gid &&
	       (uid_t)syscall(SYS_setfsuid, -1) == uid &&
	       set_effective(q, capabilities);
}

static uint8_t answer_one(const struct question *q, const struct access_check *c,
			  const struct identity *id)
{
	char path[INVENTORY_LINK_MAX];
	uint8_t answer = ACCESS_DENIED;
	struct statx st;
	int fd;

	inventory_link(c->file, path);
	fd = openat(q->proc_fd, path, O_PATH | O_CLOEXEC);
	if (fd < 0 || proc_stat(fd, "", AT_EMPTY_PATH, &st) < 0 ||
	    st.stx_ino != c->file->inode || st.stx_mode != c->file->mode ||
	    makedev(st.stx_dev_major, st.stx_dev_minor) != c->file->device) {
		(void)close_fd(fd);
		return ACCESS_CHANGED;
	}
	if (!become(q, id->fsuid, id->fsgid, id->n_groups, id->groups,
		    id->capabilities))
		_exit(2);
	if (syscall(SYS_faccessat2, fd, "", c->mode, AT_EACCESS | AT_EMPTY_PATH) == 0)
		answer = ACCESS_GRANTED;
	if (!become(q, 0, 0, (size_t)q->n_own_groups, q->own_groups, UINT64_MAX))
		_exit(3);
	(void)close(fd);
	return answer;
}

static void child(void *argument, int out_fd)
{
	const struct question *q = argument;

	for (size_t k = 0; k < q->n_checks; k++) {
		uint8_t answer =
			answer_one(q, &q->checks[k], &q->identities[q->identity_of[k]]);

		child_write(out_fd, &answer, 1);
	}
}

static int read_groups(const char *text, struct identity *id)
{
	size_t n = 0;

	for (const char *p = text; *p && *p != '\n'; p++)
		n += *p == ' ' || *p == '\t';
	if (n > GROUPS_MAX)
		return err_origin(-E2BIG);
	id->groups = calloc(n + 1, sizeof(*id->groups));
	if (!id->groups)
		return err_origin(-ENOMEM);
	for (;;) {
		text += strspn(text, " \t");
		if (*text < '0' || *text > '9' || id->n_groups > n)
			return 0;
		id->groups[id->n_groups++] = (gid_t)strtoul(text, (char **)&text, 10);
	}
}

/* Capabilities in a user namespace of its own are none here. */
static bool in_our_user_namespace(int proc_fd, pid_t pid)
{
	char path[64], ours[64], its[64];

	(void)snprintf(path, sizeof(path), "%d/ns/user", pid);
	return proc_link(proc_fd, path, its, sizeof(its)) == 0 &&
	       proc_link(proc_fd, "self/ns/user", ours, sizeof(ours)) == 0 &&
	       !strcmp(ours, its);
}

static int read_identity(int proc_fd, pid_t pid, struct identity *id)
{
	_cleanup_buf_ struct buf b = {0};
	const char *uid, *gid, *groups, *caps;
	char path[32];
	int r;

	(void)snprintf(path, sizeof(path), "%d/status", pid);
	r = proc_read(proc_fd, path, 1 << 20, &b);
	if (r < 0)
		return r;
	uid = proc_field((char *)b.data, "Uid:");
	gid = proc_field((char *)b.data, "Gid:");
	groups = proc_field((char *)b.data, "Groups:");
	caps = proc_field((char *)b.data, "CapEff:");
	if (!uid || !gid || !groups || !caps ||
	    sscanf(uid, "%*u %*u %*u %u", &id->fsuid) != 1 ||
	    sscanf(gid, "%*u %*u %*u %u", &id->fsgid) != 1)
		return err_origin(-EBADMSG);
	id->pid = pid;
	if (in_our_user_namespace(proc_fd, pid))
		id->capabilities = strtoull(caps, NULL, 16);
	return read_groups(groups, id);
}

static int read_own(struct question *q)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2];

	if (syscall(SYS_capget, &h, d) < 0)
		return err_origin(-errno);
	for (int k = 0; k < 2; k++) {
		q->permitted[k] = d[k].permitted;
		q->inheritable[k] = d[k].inheritable;
	}
	q->n_own_groups = getgroups(0, NULL);
	if (q->n_own_groups < 0)
		return err_origin(-errno);
	q->own_groups = calloc((size_t)q->n_own_groups + 1, sizeof(gid_t));
	if (!q->own_groups)
		return err_origin(-ENOMEM);
	q->n_own_groups = getgroups(q->n_own_groups, q->own_groups);
	return q->n_own_groups < 0 ? err_origin(-errno) : 0;
}

static int ask(struct question *q)
{
	_cleanup_buf_ struct buf b = {0};
	int r = child_ask(child, q, ask_timeout, q->n_checks, &b);

	if (r < 0)
		return r;
	if (b.len != q->n_checks)
		return err_origin(-EIO);
	for (size_t k = 0; k < q->n_checks; k++)
		q->checks[k].answer = b.data[k];
	return 0;
}

int access_ask(int proc_fd, struct access_check *checks, size_t n)
{
	struct question q = {.proc_fd = proc_fd, .checks = checks, .n_checks = n};
	_cleanup_free_ struct identity *identities = NULL;
	_cleanup_free_ size_t *of = NULL;
	size_t n_identities = 0;
	int r;

	if (!n)
		return 0;
	identities = calloc(n, sizeof(*identities));
	of = calloc(n, sizeof(*of));
	if (!identities || !of)
		return err_origin(-ENOMEM);
	r = read_own(&q);
	for (size_t k = 0; k < n && r == 0; k++) {
		pid_t pid = checks[k].file->pid;

		/* A task's files stand together. */
		if (!n_identities || identities[n_identities - 1].pid != pid)
			r = read_identity(proc_fd, pid, &identities[n_identities++]);
		of[k] = n_identities - 1;
	}
	q.identities = identities;
	q.identity_of = of;
	if (r == 0)
		r = ask(&q);
	for (size_t k = 0; k < n_identities; k++)
		free(identities[k].groups);
	free(q.own_groups);
	return r;
}
