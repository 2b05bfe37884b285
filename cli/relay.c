#include "relay.h"

#include "cleanup.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

bool relay_live(const struct relay *r)
{
	return r->to >= 0 && (r->from >= 0 || r->len);
}

void relay_prepare(const struct relay *r, struct pollfd ret[static 2])
{
	ret[0] = (struct pollfd){ .fd = r->len ? -1 : r->from, .events = POLLIN };
	/* Watched without data as well: a reader that has gone shows as POLLERR. */
	ret[1] = (struct pollfd){ .fd = r->to, .events = r->len ? POLLOUT : 0 };
}

static void finish(struct relay *r)
{
	close_fd(r->input ? r->to : r->from);
	r->from = r->to = -1;
	r->len = 0;
}

/* Ctrl-D at the beginning of a line is its end; within a line the first one ends the
 * line. */
static ssize_t type_end(struct relay *r)
{
	ssize_t n = r->in_line ? 2 : 1;

	r->from = -1;
	memset(r->bytes, 'D' & 0x1f, (size_t)n);
	return n;
}

/* False: end of file, or an error that is as good as one. */
static bool fill(struct relay *r)
{
	ssize_t n = read(r->from, r->bytes, sizeof(r->bytes));

	if (n < 0)
		return errno == EINTR || errno == EAGAIN;
	r->start = 0;
	if (n == 0 && r->types)
		n = type_end(r);
	else if (n)
		r->in_line = r->bytes[n - 1] != '\n';
	r->len = (size_t)n;
	r->used |= n > 0;
	return n > 0;
}

/* False: nobody reads any more. */
static bool drain(struct relay *r)
{
	size_t piece = r->len < PIPE_BUF ? r->len : PIPE_BUF;
	ssize_t n = write(r->to, r->bytes + r->start, piece);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return true;
	if (n < 0) {
		r->error = errno == EPIPE ? 0 : errno;
		return false;
	}
	r->start += (size_t)n;
	r->len -= (size_t)n;
	return true;
}

bool relay_turn(struct relay *r, const struct pollfd found[static 2])
{
	size_t before = r->len;
	bool live = true;

	if (!relay_live(r))
		return false;
	if (found[1].revents & (POLLERR | POLLNVAL))
		live = false;
	if (live && r->len == 0 && found[0].revents)
		live = fill(r);
	if (live && r->len && (found[1].revents & POLLOUT))
		live = drain(r);
	if (!live)
		finish(r);
	return live && r->len != before;
}
