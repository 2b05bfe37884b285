/*
 * Leaving.  An end that is cut only sleeps: its bytes are copied, so undoing it is to
 * wake it.  Whether the move is done is known when its program is gone.
 */
#include "stream_internal.h"

#include "err.h"

#include <fcntl.h>
#include <sys/ioctl.h>

void stream_end_uncut(struct stream_end *e)
{
	stream_end_clear_flag(e, STREAM_CUT);
	e->joined = e->doubtful = false;
	stream_end_present(e);
	if (e->lost)
		return stream_end_break(e);
	stream_end_announce(e);
}

int stream_uncut(struct stream_room *s, ino_t pipe)
{
	struct stream_end *e;

	LIST_FOREACH(e, &s->ends, entry)
		if (stream_end_is(e, STREAM_CUT) &&
		    !stream_end_is(e, STREAM_TERMINAL) && e->inode == pipe) {
			stream_end_uncut(e);
			return 0;
		}
	return STREAM_E_ABSENT;
}

/* All that is in @pipe, of which there must be @n bytes. */
static int copy_of(int pipe, size_t n, struct buf *ret)
{
	size_t before = ret->len;
	int r = stream_pipe_peek(pipe, ret);

	if (r == 0 && ret->len - before != n)
		return err_origin(-EIO);
	return err_fold(r);
}

static int copy_rest(const struct stream_end *e, int app_fd, struct buf *ret)
{
	int unread, fd = stream_end_is_reader(e) ? e->hand.pipe : app_fd, r = 0;

	if (ioctl(fd, FIONREAD, &unread) < 0)
		return err_origin(-errno);
	if ((size_t)unread + e->hand.level > STREAM_REST_MAX)
		return err_origin(-E2BIG);
	/* Behind what a reader has comes what is in the pipe, before what a writer has. */
	if (stream_end_is_reader(e))
		r = copy_of(e->hand.own, e->hand.level, ret);
	if (r == 0)
		r = copy_of(fd, (size_t)unread, ret);
	if (r == 0 && !stream_end_is_reader(e))
		r = copy_of(e->hand.own, e->hand.level, ret);
	return r;
}

int stream_cut(struct stream_room *s, stream_id id, enum stream_role role, int app_fd,
	       struct stream_cut *ret)
{
	struct stream_end *e = stream_end_find(s, id, role);
	_cleanup_buf_ struct buf rest = { 0 };
	_cleanup_close_ int fd = -1;
	int r;

	if (!e || e->hand.pipe < 0 || stream_end_is(e, STREAM_CUT))
		return STREAM_E_ABSENT;
	r = copy_rest(e, app_fd, &rest);
	if (r < 0)
		return r;
	fd = fcntl(e->hand.pipe, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return err_origin(-errno);
	stream_end_set_flag(e, STREAM_CUT);
	stream_end_quiet(e);
	*ret = (struct stream_cut){ stream_end_position(e), TAKE_FD(fd), TAKE(rest.data),
				    rest.len };
	return 0;
}
