/*
 * The room: ends are made, found and closed; a predecessor's are found again.
 */
#include "stream_internal.h"

#include "err.h"

#include <sys/stat.h>

/* What is at @fd, a pipe or a terminal: the end's mark and number. */
static int identify(int fd, struct stream_mark *mark, ino_t *ret)
{
	struct stat st;
	int number;

	if (fstat(fd, &st) < 0)
		return err_origin(-errno);
	*ret = st.st_ino;
	if (S_ISFIFO(st.st_mode))
		return 0;
	number = terminal_number(fd);
	if (number < 0)
		return err_origin(-EINVAL);
	mark->flags |= STREAM_TERMINAL;
	*ret = (ino_t)number;
	return 0;
}

static int on_restored(void *owner, uint64_t id, const struct stream_mark *mark,
		       struct stream_hand *hand)
{
	struct stream_room *s = owner;
	struct stream_mark unused;
	struct stream_end *e;
	ino_t inode = 0;
	int r = 0;

	if (hand->pipe >= 0)
		r = identify(hand->pipe, &unused, &inode);
	if (r == 0)
		r = stream_end_new(s, id, mark, hand, inode, &e);
	if (r < 0) {
		stream_hand_fini(hand);
		return r;
	}
	e->doubtful = stream_end_is(e, STREAM_CUT);
	if (e->doubtful) {
		if (stream_end_is_deserted(e))
			stream_end_close(e);
		return 0;
	}
	/* Killed between the flag and what follows from it. */
	if (stream_end_is(e, STREAM_BREAKS) ||
	    (stream_end_is_reader(e) && stream_end_is(e, STREAM_ENDED)))
		stream_hand_release(&e->hand);
	else if (e->hand.pipe < 0)
		stream_end_set_flag(e, STREAM_BREAKS);
	(void)env_arm(s->env, &e->again, 0);
	return 0;
}

int stream_room_new(struct stream_room **ret, const struct env *env, struct space *space,
		    struct rpc *rpc)
{
	struct stream_room *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_origin(-ENOMEM);
	s->env = env;
	s->rpc = rpc;
	s->space = space;
	s->next_id = (uint32_t)env_random_u64(env);
	LIST_INIT(&s->ends);
	r = stream_slots_new(&s->slots, space);
	if (r == 0)
		r = stream_slots_restore(s->slots, on_restored, s);
	if (r == 0)
		stream_terminals_restored(s);
	if (r == 0)
		r = rpc_register(rpc, stream_methods, s);
	if (r < 0) {
		stream_room_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

struct stream_room *stream_room_free(struct stream_room *s)
{
	if (!s)
		return NULL;
	while (!LIST_EMPTY(&s->ends))
		stream_end_free(LIST_FIRST(&s->ends));
	stream_slots_free(s->slots);
	free(s);
	return NULL;
}

void stream_on_node_lost(struct stream_room *s, node_id node)
{
	struct stream_end *e, *next;

	for (e = LIST_FIRST(&s->ends); e; e = next) {
		next = LIST_NEXT(e, entry);
		if (e->mark.peer != node)
			continue;
		if (stream_end_is(e, STREAM_CUT)) {
			e->lost = true;
		} else if (stream_end_is_reader(e) || stream_end_is(e, STREAM_BREAKS)) {
			stream_end_close(e);
		} else {
			stream_end_set_flag(e, STREAM_ENDED);
			stream_end_pump(e);
		}
	}
}

stream_id stream_new_id(struct stream_room *s)
{
	stream_id id;

	do
		id = (uint64_t)rpc_self(s->rpc) << 32 | s->next_id++;
	while (stream_end_find(s, id, STREAM_READER) || stream_end_find(s, id, STREAM_WRITER));
	return id;
}

/* Opening and closing. */

static void forget_deserted(struct stream_room *s)
{
	struct stream_end *e, *next;

	for (e = LIST_FIRST(&s->ends); e; e = next) {
		next = LIST_NEXT(e, entry);
		if (stream_end_is(e, STREAM_CUT) && stream_end_is_deserted(e))
			stream_end_close(e);
	}
}

static int open_end(struct stream_room *s, stream_id id, struct stream_mark mark, pid_t holder,
		    int owned_fd, uint64_t position, const void *rest, size_t n_rest)
{
	enum stream_role role = mark.role;
	_cleanup_close_ int fd = owned_fd;
	struct stream_hand hand;
	struct stream_end *e;
	ino_t inode;
	int r;

	r = identify(fd, &mark, &inode);
	if (r < 0)
		return r;
	if ((role == STREAM_WRITER && n_rest > position) || position > UINT64_MAX / 4 ||
	    (role == STREAM_WRITER && mark.peer == NODE_NONE))
		return err_origin(-EINVAL);
	forget_deserted(s);
	e = stream_end_find(s, id, role);
	if (e && stream_end_is(e, STREAM_CUT) && e->inode == inode) {
		stream_end_uncut(e);
		return 0;
	}
	if (e && !stream_end_is(e, STREAM_CUT))
		return err_origin(-EEXIST);
	if (e)
		stream_end_close(e);
	r = stream_hand_init(&hand, s->slots, id, &mark, fd,
			     role == STREAM_READER ? position : position - n_rest, rest, n_rest);
	if (r < 0)
		return r;
	stream_hand_set_pid(&hand, holder);
	r = stream_end_new(s, id, &mark, &hand, inode, &e);
	if (r < 0) {
		hand.pipe = -1;
		stream_hand_drop(&hand);
		stream_hand_fini(&hand);
		return r;
	}
	(void)TAKE_FD(fd);
	stream_end_announce(e);
	return 0;
}

int stream_open(struct stream_room *s, stream_id id, enum stream_role role, node_id peer,
		int owned_fd, uint64_t position, const void *rest, size_t n_rest)
{
	struct stream_mark mark = { .role = (uint8_t)role, .peer = peer };

	return open_end(s, id, mark, 0, owned_fd, position, rest, n_rest);
}

int stream_hold(struct stream_room *s, stream_id id, node_id peer, int owned_fd, pid_t pid)
{
	struct stream_mark mark = { .role = STREAM_READER, .flags = STREAM_HELD, .peer = peer };

	return open_end(s, id, mark, pid, owned_fd, 0, NULL, 0);
}

/* What @pid holds; 0: whoever. */
static struct stream_end *find_held(struct stream_room *s, pid_t pid)
{
	struct stream_end *e;

	LIST_FOREACH(e, &s->ends, entry)
		if (stream_end_is(e, STREAM_HELD) && (!pid || stream_hand_pid(&e->hand) == pid))
			return e;
	return NULL;
}

void stream_go(struct stream_room *s, pid_t pid)
{
	struct stream_end *e;

	while ((e = find_held(s, pid))) {
		stream_end_clear_flag(e, STREAM_HELD);
		stream_end_announce(e);
	}
}

void stream_stay(struct stream_room *s, pid_t pid)
{
	struct stream_end *e;

	while ((e = find_held(s, pid))) {
		stream_end_clear_flag(e, STREAM_HELD);
		stream_end_break(e);
	}
}

int stream_by_pipe(const struct stream_room *s, ino_t pipe, enum stream_role role,
		   struct stream_info *ret)
{
	const struct stream_end *e;

	LIST_FOREACH(e, &s->ends, entry)
		if (e->hand.pipe >= 0 && e->inode == pipe && e->mark.role == role &&
		    !stream_end_is(e, STREAM_CUT | STREAM_TERMINAL | STREAM_HELD)) {
			*ret = (struct stream_info){ e->id, e->mark.peer };
			return 0;
		}
	return STREAM_E_ABSENT;
}

int stream_close(struct stream_room *s, stream_id id, enum stream_role role)
{
	struct stream_end *e = stream_end_find(s, id, role);

	if (!e || stream_end_is(e, STREAM_BREAKS))
		return STREAM_E_ABSENT;
	if (role == STREAM_WRITER || stream_end_is(e, STREAM_CUT)) {
		e->mark.flags &= (uint8_t)~STREAM_CUT;
		stream_end_break(e);
		return 0;
	}
	if (!stream_end_is(e, STREAM_ENDED))
		stream_end_stop_reading(e);
	stream_end_pump(e);
	return 0;
}
