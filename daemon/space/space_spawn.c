/* Children of ssi-init: made, tracked, reaped. */
#include "space_internal.h"

#include "buf.h"
#include "err.h"

#include <string.h>
#include <sys/mman.h>

static const char *const default_envp[] = {
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NULL
};

int space_outcome(int result)
{
	switch (result) {
	case 0:
		return 0;
	case INIT_E_ABSENT:
		return SPACE_E_ABSENT;
	case INIT_E_PID_TAKEN:
		return SPACE_E_PID_TAKEN;
	case INIT_E_FULL:
		return SPACE_E_FULL;
	}
	return err_origin(-EPROTO);
}

static int append_strings(struct buf *b, const char *const *strings, uint32_t *ret_n)
{
	int r;

	for (*ret_n = 0; strings[*ret_n]; (*ret_n)++) {
		r = buf_append(b, strings[*ret_n], strlen(strings[*ret_n]) + 1);
		if (r < 0)
			return r;
	}
	return 0;
}

/* A memfd as init_wire.h wants it. */
static int pack(const struct space_spawn *spec, int *ret_fd)
{
	struct init_arguments head = { 0 };
	_cleanup_buf_ struct buf b = { 0 };
	_cleanup_close_ int fd = -1;
	int r;

	r = buf_append(&b, &head, sizeof(head));
	if (r == 0)
		r = append_strings(&b, spec->argv, &head.n_argv);
	if (r == 0)
		r = append_strings(&b, spec->envp ? spec->envp : default_envp, &head.n_envp);
	if (r < 0)
		return r;
	memcpy(b.data, &head, sizeof(head));
	fd = memfd_create("ssi-spawn", MFD_CLOEXEC);
	if (fd < 0)
		return err_origin(-errno);
	if (write(fd, b.data, b.len) != (ssize_t)b.len)
		return err_origin(-ENOMEM);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int space_spawn(struct space *s, const struct space_spawn *spec, pid_t *ret_pid, int *ret_pidfd)
{
	struct init_request request = { .verb = INIT_SPAWN, .pid = spec->set_tid };
	_cleanup_close_ int arguments = -1, pidfd = -1;
	int fds[INIT_FDS_MAX], r;
	struct init_reply reply;
	size_t n = 0;

	if (spec->n_fds > SPACE_FDS_MAX)
		return err_origin(-EINVAL);
	r = pack(spec, &arguments);
	if (r < 0)
		return r;
	if (spec->flags & SPACE_SPAWN_TRACK)
		request.flags |= INIT_SPAWN_TRACK;
	if (spec->flags & SPACE_SPAWN_SERVICE)
		request.flags |= INIT_SPAWN_SERVICE;
	if (spec->flags & SPACE_SPAWN_BOUND)
		request.flags |= INIT_SPAWN_BOUND;
	if (spec->flags & SPACE_SPAWN_ASK)
		request.flags |= INIT_SPAWN_ASK;
	fds[n++] = arguments;
	if (spec->group_fd >= 0) {
		request.flags |= INIT_SPAWN_GROUP;
		fds[n++] = spec->group_fd;
	}
	for (size_t i = 0; i < spec->n_fds; i++)
		fds[n++] = spec->fds[i];
	r = space_call(s, &request, fds, n, &reply, &pidfd, 1);
	if (r == 0)
		r = space_outcome(reply.result);
	if (r != 0)
		return r;
	if (ret_pidfd)
		*ret_pidfd = TAKE_FD(pidfd);
	if (ret_pid)
		*ret_pid = reply.pid;
	return 0;
}

static int call_with_pid(struct space *s, enum init_verb verb, pid_t pid)
{
	struct init_request request = { .verb = verb, .pid = pid };
	struct init_reply reply;
	int r = space_call(s, &request, NULL, 0, &reply, NULL, 0);

	return r < 0 ? r : space_outcome(reply.result);
}

int space_track(struct space *s, pid_t pid)
{
	return call_with_pid(s, INIT_TRACK, pid);
}

int space_reap(struct space *s, pid_t pid)
{
	return err_fold(call_with_pid(s, INIT_REAP, pid));
}
