/*
 * Happy path: bytes go into the hand by splice() or write(), and out of it by
 * splice(), to /dev/null when the other end has acknowledged them.  What is sent is
 * read from a copy that tee() makes, of pages and not of bytes: what lies before it is
 * sent already and not acknowledged, and leaves the copy unread.
 *
 * SIGKILL comes at any instant, also within a system call.  Only we touch the hand,
 * so FIONREAD says how many bytes are in it, and the slot need only say where they
 * are in the stream.  Its word `place` is either the position of the first byte, which
 * stays as it is while bytes are added, or the position behind the last, which stays while
 * bytes are removed.  So:
 *
 *   add:     place = first | FIRST;   splice or write into the hand
 *   remove:  place = behind | BEHIND; splice out of the hand
 *
 * killed before the store: the word before it is as true, nothing moves between the two
 * steps.  The store is one of 64 bits.  Killed after it, or within the call that
 * follows, or after that: FIONREAD has changed by what was moved, the word has not, and
 * the other position is their sum or difference.  A splice between pipes moves bytes
 * under the locks of both: they are in one of the two, always.  A write cut short adds a
 * prefix, whose rest comes again from the other end, which keeps it until
 * acknowledged; what comes twice is known by its position.
 *
 * An end's life: the hand is made (killed: it is gone), filled with a rest; pipe and
 * hand are kept (killed: the slot is free, so a successor drops them); id and
 * place are written (the same); the mark is written: the end stands.  Its close: the
 * mark is zeroed (killed: the successor drops what is kept), both are dropped.  The
 * duplicate in ssi-init would hide end of file from the program.
 *
 * Failure modes: no privilege to make the hand as big: it holds less, and the stream is
 * slower; ssi-init has no room or does not answer: the end is not made.
 */
#include "stream_hand.h"

#include "err.h"
#include "log.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

enum { SLOTS = 4096, NAME_SIZE = 64 };

/* In the lowest bit of `place`. */
enum { FIRST = 0, BEHIND = 1 };

struct slot {
	uint64_t id;
	uint64_t place; /* position << 1 | FIRST or BEHIND */
	uint64_t mark;  /* peer << 32 | flags << 8 | role; 0: free */
};

struct stream_slots {
	struct space *space;
	struct slot *slots; /* mapped, kept */
	int32_t *pids;      /* the same */
	int null;
	int copy[2]; /* a pipe, empty; -1: to be made */
	uint8_t piece[STREAM_PIECE_MAX];
};

DEFINE_CLEANUP(struct stream_slots, stream_slots_free);

static struct slot *slot_of(const struct stream_hand *h)
{
	return &h->slots->slots[h->slot];
}

static void store(uint64_t *word, uint64_t value)
{
	__atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}

static void name_of(size_t slot, const char *what, char ret[static NAME_SIZE])
{
	(void)snprintf(ret, NAME_SIZE, "stream/end/%zu/%s", slot, what);
}

static void drop(struct stream_hand *h, const char *what)
{
	char name[NAME_SIZE];
	int r;

	name_of(h->slot, what, name);
	r = space_drop(h->slots->space, name);
	if (r < 0)
		log_error("%s: cannot be dropped, its program may wait for an end of file: %s",
			  name, strerror(-r));
}

/* Making. */

/* A pipe in one descriptor, so that nobody ever sees an end of it. */
static int make_own(size_t n_rest, int *ret)
{
	size_t size = n_rest > STREAM_HAND_SIZE ? n_rest : STREAM_HAND_SIZE;
	char path[32];
	int p[2], fd;

	if (pipe2(p, O_CLOEXEC) < 0)
		return err_origin(-errno);
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", p[0]);
	fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		fd = -errno;
	(void)close(p[0]);
	(void)close(p[1]);
	if (fd < 0)
		return err_origin(fd);
	(void)fcntl(fd, F_SETPIPE_SZ, (int)size);
	*ret = fd;
	return 0;
}

/* Room for a big rest is not for more, or it would grow with every move. */
static size_t size_of(int own)
{
	int size = fcntl(own, F_GETPIPE_SZ);

	return size < STREAM_HAND_SIZE ? (size_t)size : STREAM_HAND_SIZE;
}

static int keep(struct stream_slots *s, size_t slot, const char *what, int fd)
{
	char name[NAME_SIZE];

	name_of(slot, what, name);
	return err_fold(space_keep(s->space, name, fd));
}

int stream_hand_init(struct stream_hand *h, struct stream_slots *slots, uint64_t id,
		     const struct stream_mark *mark, int pipe, uint64_t first, const void *rest,
		     size_t n_rest)
{
	_cleanup_close_ int own = -1;
	size_t i = 0;
	int r;

	while (slots->slots[i].mark)
		if (++i == SLOTS)
			return err_origin(-ENOSPC);
	r = make_own(n_rest, &own);
	if (r < 0)
		return r;
	if (n_rest && write(own, rest, n_rest) != (ssize_t)n_rest)
		return err_origin(-ENOBUFS);
	r = keep(slots, i, "pipe", pipe);
	if (r == 0)
		r = keep(slots, i, "hand", own);
	*h = (struct stream_hand){ .slots = slots, .slot = i, .pipe = -1, .own = -1 };
	if (r < 0) {
		drop(h, "pipe");
		return r;
	}
	h->size = size_of(own);
	h->own = TAKE_FD(own);
	h->pipe = pipe;
	h->first = first;
	h->level = n_rest;
	slot_of(h)->id = id;
	slots->pids[i] = 0;
	store(&slot_of(h)->place, first << 1 | FIRST);
	stream_hand_mark(h, mark);
	return 0;
}

void stream_hand_mark(struct stream_hand *h, const struct stream_mark *mark)
{
	store(&slot_of(h)->mark,
	      (uint64_t)mark->peer << 32 | (uint64_t)mark->flags << 8 | mark->role);
}

void stream_hand_set_pid(struct stream_hand *h, pid_t pid)
{
	h->slots->pids[h->slot] = pid;
}

pid_t stream_hand_pid(const struct stream_hand *h)
{
	return h->slots->pids[h->slot];
}

void stream_hand_fini(struct stream_hand *h)
{
	h->pipe = close_fd(h->pipe);
	h->own = close_fd(h->own);
}

void stream_hand_release(struct stream_hand *h)
{
	h->pipe = close_fd(h->pipe);
	drop(h, "pipe");
}

void stream_hand_drop(struct stream_hand *h)
{
	store(&slot_of(h)->mark, 0);
	h->pipe = close_fd(h->pipe);
	drop(h, "pipe");
	drop(h, "hand");
}

/* Moving bytes. */

uint64_t stream_hand_behind(const struct stream_hand *h)
{
	return h->first + h->level;
}

size_t stream_hand_room(const struct stream_hand *h)
{
	return h->level < h->size ? h->size - h->level : 0;
}

bool stream_hand_is_full(const struct stream_hand *h)
{
	struct pollfd p = { h->own, POLLOUT, 0 };

	return h->level >= h->size || poll(&p, 1, 0) != 1;
}

static void before_adding(struct stream_hand *h)
{
	store(&slot_of(h)->place, h->first << 1 | FIRST);
}

static void before_removing(struct stream_hand *h)
{
	store(&slot_of(h)->place, stream_hand_behind(h) << 1 | BEHIND);
}

ssize_t stream_hand_take(struct stream_hand *h)
{
	ssize_t n;

	if (h->level >= h->size)
		return -EAGAIN;
	before_adding(h);
	n = splice(h->pipe, NULL, h->own, NULL, h->size - h->level, SPLICE_F_NONBLOCK);
	if (n < 0)
		return -errno;
	h->level += (size_t)n;
	return n;
}

ssize_t stream_hand_put(struct stream_hand *h, const void *data, size_t len)
{
	size_t room = stream_hand_room(h);
	ssize_t n;

	if (!room)
		return 0;
	before_adding(h);
	n = write(h->own, data, len < room ? len : room);
	if (n < 0)
		return errno == EAGAIN ? 0 : err_origin(-errno);
	h->level += (size_t)n;
	return n;
}

ssize_t stream_hand_give(struct stream_hand *h)
{
	ssize_t n;

	before_removing(h);
	n = splice(h->own, NULL, h->pipe, NULL, h->level, SPLICE_F_NONBLOCK);
	if (n < 0)
		return -errno;
	h->first += (uint64_t)n;
	h->level -= (size_t)n;
	return n ? n : -EAGAIN;
}

int stream_hand_discard(struct stream_hand *h, size_t n)
{
	before_removing(h);
	while (n) {
		ssize_t r = splice(h->own, NULL, h->slots->null, NULL, n,
				   SPLICE_F_NONBLOCK);

		if (r <= 0)
			return err_origin(r < 0 ? -errno : -EIO);
		h->first += (uint64_t)r;
		h->level -= (size_t)r;
		n -= (size_t)r;
	}
	return 0;
}

static void close_copy(struct stream_slots *s)
{
	s->copy[0] = close_fd(s->copy[0]);
	s->copy[1] = close_fd(s->copy[1]);
}

/* With as many places as @pipe has, or what is behind many small pieces would not be
 * reached. */
static int open_copy(struct stream_slots *s, int pipe)
{
	int size = fcntl(pipe, F_GETPIPE_SZ);

	if (s->copy[0] < 0 && pipe2(s->copy, O_CLOEXEC | O_NONBLOCK) < 0)
		return err_origin(-errno);
	if (size > fcntl(s->copy[1], F_GETPIPE_SZ))
		(void)fcntl(s->copy[1], F_SETPIPE_SZ, size);
	return 0;
}

/* False: it was not all. */
static bool skip_copy(struct stream_slots *s, size_t n)
{
	while (n) {
		ssize_t r =
			splice(s->copy[0], NULL, s->null, NULL, n, SPLICE_F_NONBLOCK);

		if (r <= 0)
			return false;
		n -= (size_t)r;
	}
	return true;
}

int stream_hand_peek(struct stream_hand *h, size_t skip, size_t len, struct iovec *ret)
{
	struct stream_slots *s = h->slots;
	int r = open_copy(s, h->own);
	ssize_t n;

	if (r < 0)
		return r;
	*ret = (struct iovec){s->piece, 0};
	if (len > sizeof(s->piece))
		len = sizeof(s->piece);
	n = tee(h->own, s->copy[1], skip + len, SPLICE_F_NONBLOCK);
	if (n < 0)
		r = err_origin(-errno);
	if (n > (ssize_t)skip && skip_copy(s, skip)) {
		n -= (ssize_t)skip;
		ret->iov_len = (size_t)n;
		if (read(s->copy[0], s->piece, (size_t)n) == n)
			return 0;
		r = STREAM_PIPE_E_UNREADABLE;
	}
	close_copy(s); /* what is left in it is for nobody */
	return r;
}

int stream_pipe_peek(int pipe, struct buf *ret)
{
	_cleanup_close_ int in = -1, out = -1;
	uint8_t *to;
	ssize_t n;
	int p[2];

	if (pipe2(p, O_CLOEXEC | O_NONBLOCK) < 0)
		return err_origin(-errno);
	out = p[0];
	in = p[1];
	(void)fcntl(in, F_SETPIPE_SZ, fcntl(pipe, F_GETPIPE_SZ));
	n = tee(pipe, in, INT_MAX, SPLICE_F_NONBLOCK);
	if (n <= 0)
		return n == 0 || errno == EAGAIN ? 0 : err_origin(-errno);
	to = buf_reserve(ret, (size_t)n);
	if (!to)
		return err_origin(-ENOMEM);
	if (read(out, to, (size_t)n) != n)
		return STREAM_PIPE_E_UNREADABLE;
	ret->len += (size_t)n;
	return 0;
}

/* The predecessor's. */

static int kept(struct stream_slots *s, size_t slot, const char *what, int *ret)
{
	char name[NAME_SIZE];

	name_of(slot, what, name);
	return space_kept(s->space, name, ret);
}

/* What the slot and the hand say together. */
static int place(struct stream_hand *h)
{
	uint64_t word = slot_of(h)->place;
	int level;

	if (ioctl(h->own, FIONREAD, &level) < 0)
		return err_origin(-errno);
	h->size = size_of(h->own);
	h->level = (size_t)level;
	h->first = (word & 1) == FIRST ? word >> 1 : (word >> 1) - h->level;
	return 0;
}

/* SPACE_E_ABSENT. */
static int restore_one(struct stream_slots *s, size_t i, struct stream_hand *h)
{
	int r;

	*h = (struct stream_hand){ .slots = s, .slot = i, .pipe = -1, .own = -1 };
	r = kept(s, i, "hand", &h->own);
	if (r != 0)
		return r;
	r = place(h);
	/* The program's pipe may have been given up. */
	if (r == 0)
		r = kept(s, i, "pipe", &h->pipe);
	if (r == SPACE_E_ABSENT)
		r = 0;
	if (r < 0)
		stream_hand_fini(h);
	return r;
}

/* Names without an end: the predecessor was killed while it made or closed one. */
struct leftovers {
	const struct stream_slots *slots;
	char (*names)[NAME_SIZE];
	size_t n;
};

static int on_name(void *owner, const char *name)
{
	struct leftovers *l = owner;
	size_t slot = SLOTS;
	void *more;

	if (sscanf(name, "stream/end/%zu/", &slot) == 1 && slot < SLOTS &&
	    l->slots->slots[slot].mark)
		return 0;
	more = realloc(l->names, (l->n + 1) * sizeof(*l->names));
	if (!more)
		return err_origin(-ENOMEM);
	l->names = more;
	(void)snprintf(l->names[l->n++], NAME_SIZE, "%s", name);
	return 0;
}

static int drop_leftovers(struct stream_slots *s)
{
	struct leftovers l = { .slots = s };
	int r = space_each_kept(s->space, "stream/end/", on_name, &l);

	for (size_t i = 0; r >= 0 && i < l.n; i++)
		r = space_drop(s->space, l.names[i]);
	free(l.names);
	return r < 0 ? r : 0;
}

int stream_slots_restore(struct stream_slots *s,
			 int (*cb)(void *owner, uint64_t id, const struct stream_mark *mark,
				   struct stream_hand *hand),
			 void *owner)
{
	int r;

	for (size_t i = 0; i < SLOTS; i++) {
		uint64_t word = s->slots[i].mark;
		struct stream_mark mark = { .role = (uint8_t)word,
					    .flags = (uint8_t)(word >> 8),
					    .peer = (node_id)(word >> 32) };
		struct stream_hand h;

		if (!word)
			continue;
		r = restore_one(s, i, &h);
		if (r == 0)
			r = cb(owner, s->slots[i].id, &mark, &h);
		if (r < 0)
			return r;
		if (r == SPACE_E_ABSENT) {
			log_error("stream %" PRIx64 ": what it had in its hand is lost: closed",
				  s->slots[i].id);
			store(&s->slots[i].mark, 0);
		}
	}
	return drop_leftovers(s);
}

int stream_slots_new(struct stream_slots **ret, struct space *space)
{
	_cleanup_(stream_slots_freep) struct stream_slots *s = calloc(1, sizeof(*s));
	void *mapped;
	bool fresh;
	int r;

	if (!s)
		return err_origin(-ENOMEM);
	s->space = space;
	s->copy[0] = s->copy[1] = -1;
	s->null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	if (s->null < 0)
		return err_origin(-errno);
	r = space_state(space, "stream/state", SLOTS * sizeof(struct slot), &mapped, &fresh);
	if (r != 0)
		return err_fold(r);
	s->slots = mapped;
	r = space_state(space, "stream/pids", SLOTS * sizeof(*s->pids), &mapped,
			&fresh);
	if (r != 0)
		return err_fold(r);
	s->pids = mapped;
	*ret = TAKE(s);
	return 0;
}

struct stream_slots *stream_slots_free(struct stream_slots *s)
{
	if (!s)
		return NULL;
	if (s->slots)
		(void)munmap(s->slots, SLOTS * sizeof(struct slot));
	if (s->pids)
		(void)munmap(s->pids, SLOTS * sizeof(*s->pids));
	close_copy(s);
	(void)close_fd(s->null);
	free(s);
	return NULL;
}
