#include "tree_pipes.h"

#include "buf.h"
#include "cleanup.h"
#include "err.h"
#include "log.h"
#include "stream_hand.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

struct pipe_end {
	struct tree_pipe pipe;
	bool local;     /* leaving: its other end is ssi-run's, here */
	int program_fd; /* the tree's end */
	int stream_fd;  /* the other one, while it is ours to hold: cut, or made and not yet open */
	char key[32];
};

struct tree_pipes {
	struct tree_pipes_context context;
	size_t n;
	struct pipe_end ends[TREE_PIPES_MAX];
	struct criu_inherit inherit[TREE_PIPES_MAX];
};

/* Which stream, or pipe of an ssi-run here, is this one? */
static bool identify(const struct tree_pipes_context *context, const struct inventory_file *f,
		     struct pipe_end *ret)
{
	bool input = (f->flags & O_ACCMODE) == O_RDONLY;
	enum stream_role far = input ? STREAM_WRITER : STREAM_READER;
	enum stream_role near = input ? STREAM_READER : STREAM_WRITER;
	struct stream_info info, other;

	*ret = (struct pipe_end){ .pipe = { .inode = f->inode, .input = input },
				  .program_fd = -1, .stream_fd = -1 };
	if (console_has(context->console, f->inode, &ret->pipe.input)) {
		ret->local = true;
	} else if (stream_by_pipe(context->stream, f->inode, far, &info) == 0) {
		/* Others have it too, here or there: the stream stays theirs, and the tree
		 * gets one of its own to this pipe. */
		ret->local = f->shared ||
			     stream_by_pipe(context->stream, f->inode, near, &other) == 0;
		ret->pipe.id = info.id;
		ret->pipe.console = info.peer;
	} else {
		return false;
	}
	if (ret->local)
		ret->pipe.console = context->self;
	return true;
}

int tree_pipes_allow(const struct tree_pipes_context *context, const struct inventory *i,
			  ino_t ret[static TREE_PIPES_MAX], size_t *ret_n)
{
	size_t n = 0;

	for (size_t k = 0; k < i->n_files; k++) {
		const struct inventory_file *f = &i->files[k];
		struct pipe_end end;
		bool known = f->type != INVENTORY_PIPE;

		for (size_t j = 0; j < n && !known; j++)
			known = ret[j] == f->inode;
		if (known || !identify(context, f, &end))
			continue;
		if (n == TREE_PIPES_MAX)
			return err_origin(-E2BIG);
		ret[n++] = f->inode;
	}
	*ret_n = n;
	return 0;
}

/* A duplicate of descriptor @fd of @pid. */
static int steal_fd(pid_t pid, int fd, int *ret)
{
	_cleanup_close_ int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	int r;

	if (pidfd < 0)
		return err_origin(-errno);
	r = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
	if (r < 0)
		return err_origin(-errno);
	*ret = r;
	return 0;
}

/* The end of pipe @inode, and a duplicate of the tree's descriptor. */
static int find_end(const struct tree_pipes_context *context, const struct inventory *i,
		    ino_t inode, struct pipe_end *ret)
{
	for (size_t k = 0; k < i->n_files; k++) {
		const struct inventory_file *f = &i->files[k];
		int wanted;

		if (f->type != INVENTORY_PIPE || f->inode != inode ||
		    !identify(context, f, ret))
			continue;
		wanted = ret->pipe.input ? O_RDONLY : O_WRONLY;
		if ((f->flags & O_ACCMODE) == wanted)
			return steal_fd(f->pid, f->fd, &ret->program_fd);
	}
	return err_origin(-ENOENT);
}

static stream_id id_of(const struct tree_pipes_context *context, uint64_t move, ino_t inode)
{
	uint64_t mixed = (move ^ (uint64_t)inode << 32 ^ inode) * 0x9e3779b97f4a7c15u;

	return (uint64_t)context->self << 32 | mixed >> 32;
}

int tree_pipes_find(struct tree_pipes **ret, const struct tree_pipes_context *context,
		    const struct inventory *i, uint64_t move)
{
	struct tree_pipes *p = calloc(1, sizeof(*p));
	ino_t inodes[TREE_PIPES_MAX];
	size_t n;
	int r;

	if (!p)
		return err_origin(-ENOMEM);
	p->context = *context;
	r = tree_pipes_allow(context, i, inodes, &n);
	for (size_t k = 0; r == 0 && k < n; k++) {
		struct pipe_end *end = &p->ends[p->n++];

		*end = (struct pipe_end){ .program_fd = -1, .stream_fd = -1 };
		r = find_end(context, i, inodes[k], end);
		if (end->local)
			end->pipe.id = id_of(context, move, inodes[k]);
	}
	if (r < 0) {
		tree_pipes_free(p);
		return r;
	}
	*ret = p;
	return 0;
}

struct tree_pipes *tree_pipes_free(struct tree_pipes *p)
{
	if (!p)
		return NULL;
	for (size_t i = 0; i < p->n; i++) {
		close_fd(p->ends[i].program_fd);
		close_fd(p->ends[i].stream_fd);
		free(p->ends[i].pipe.rest);
	}
	free(p);
	return NULL;
}

/* Our role at the end which is not the tree's. */
static enum stream_role far_role(const struct pipe_end *end)
{
	return end->pipe.input ? STREAM_WRITER : STREAM_READER;
}

/* Its stream has ended since it was found: what is in the pipe is all that will come. */
static int take_last(struct pipe_end *end)
{
	_cleanup_buf_ struct buf rest = { 0 };
	int r = end->pipe.input ? stream_pipe_peek(end->program_fd, &rest) : 0;

	if (r != 0)
		return err_fold(r);
	end->pipe.console = NODE_NONE;
	end->pipe.n_rest = rest.len;
	end->pipe.rest = TAKE(rest.data);
	return 0;
}

int tree_pipes_cut(struct tree_pipes *p)
{
	for (size_t i = 0; i < p->n; i++) {
		struct pipe_end *end = &p->ends[i];
		struct stream_cut cut;
		int r;

		if (end->local)
			continue;
		r = stream_cut(p->context.stream, end->pipe.id, far_role(end), end->program_fd, &cut);
		if (r == STREAM_E_ABSENT && (r = take_last(end)) == 0)
			continue;
		if (r != 0) {
			tree_pipes_undo(p);
			return err_fold(r);
		}
		end->pipe.position = cut.position;
		end->stream_fd = cut.owned_fd;
		end->pipe.rest = cut.owned_rest;
		end->pipe.n_rest = cut.n_rest;
	}
	return 0;
}

void tree_pipes_commit(struct tree_pipes *p, node_id target)
{
	for (size_t i = 0; i < p->n; i++) {
		struct pipe_end *end = &p->ends[i];
		int r;

		if (!end->local)
			continue;
		r = stream_open(p->context.stream, end->pipe.id,
				end->pipe.input ? STREAM_READER : STREAM_WRITER, target,
				TAKE_FD(end->program_fd), 0, NULL, 0);
		if (r != 0)
			log_error("stream %" PRIx64 ": cannot follow its process: %s", end->pipe.id,
				  strerror(-err_fold(r)));
	}
}

/* End of file behind the last bytes, or nobody who reads. */
static void end_far(struct pipe_end *end)
{
	/* An empty pipe takes as much as one held. */
	if (end->pipe.n_rest &&
	    write(end->stream_fd, end->pipe.rest, end->pipe.n_rest) != (ssize_t)end->pipe.n_rest)
		log_error("input of a process that arrived is lost: %s", strerror(errno));
	end->stream_fd = close_fd(end->stream_fd);
}

/* Open an end with what its predecessor had in its hands. */
static void open_far(struct pipe_end *end, struct stream_room *stream)
{
	int r;

	if (end->pipe.console == NODE_NONE)
		return end_far(end);
	/* A stream that nobody wants: end of file to read, a drain of its own to write to. */
	if (!end->pipe.id && end->pipe.input) {
		end->stream_fd = close_fd(end->stream_fd);
		return;
	}
	if (!end->pipe.id) {
		end->pipe.console = NODE_NONE;
		end->pipe.id = stream_new_id(stream);
	}
	r = stream_open(stream, end->pipe.id, far_role(end), end->pipe.console, TAKE_FD(end->stream_fd),
			    end->pipe.position, end->pipe.rest, end->pipe.n_rest);

	if (r != 0)
		log_error("stream %" PRIx64 ": cannot be joined: %s", end->pipe.id,
			  strerror(-err_fold(r)));
}

void tree_pipes_undo(struct tree_pipes *p)
{
	for (size_t i = 0; i < p->n; i++)
		if (!p->ends[i].local && p->ends[i].stream_fd >= 0)
			open_far(&p->ends[i], p->context.stream);
}

static int make_one(struct pipe_end *end, const struct tree_pipe *q)
{
	int p[2];

	end->pipe = *q;
	end->pipe.rest = NULL;
	snprintf(end->key, sizeof(end->key), "pipe:[%ju]", (uintmax_t)q->inode);
	if (pipe2(p, O_CLOEXEC) < 0)
		return err_origin(-errno);
	end->program_fd = p[!q->input];
	end->stream_fd = p[q->input];
	if (!q->n_rest)
		return 0;
	end->pipe.rest = malloc(q->n_rest);
	if (!end->pipe.rest)
		return err_origin(-ENOMEM);
	memcpy(end->pipe.rest, q->rest, q->n_rest);
	return 0;
}

int tree_pipes_make(struct tree_pipes **ret, const struct tree_pipes_context *context,
		    const struct tree_pipe *list, size_t n)
{
	struct tree_pipes *p;
	int r = 0;

	if (n > TREE_PIPES_MAX)
		return err_origin(-E2BIG);
	p = calloc(1, sizeof(*p));
	if (!p)
		return err_origin(-ENOMEM);
	p->context = *context;
	for (size_t i = 0; r == 0 && i < n; i++) {
		struct pipe_end *end = &p->ends[p->n++];

		*end = (struct pipe_end){ .program_fd = -1, .stream_fd = -1 };
		r = make_one(end, &list[i]);
		p->inherit[i] = (struct criu_inherit){ end->key, end->program_fd };
	}
	if (r < 0) {
		tree_pipes_free(p);
		return r;
	}
	*ret = p;
	return 0;
}

size_t tree_pipes_count(const struct tree_pipes *p)
{
	return p->n;
}

const struct tree_pipe *tree_pipes_get(const struct tree_pipes *p, size_t i)
{
	return &p->ends[i].pipe;
}

const struct criu_inherit *tree_pipes_inherit(const struct tree_pipes *p, size_t *ret_n)
{
	*ret_n = p->n;
	return p->inherit;
}

void tree_pipes_open(struct tree_pipes *p)
{
	for (size_t i = 0; i < p->n; i++) {
		p->ends[i].program_fd = close_fd(p->ends[i].program_fd);
		open_far(&p->ends[i], p->context.stream);
	}
}
