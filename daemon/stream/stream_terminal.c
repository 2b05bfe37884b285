/*
 * Terminals: two ends with one master.
 *
 * Happy path: what is typed comes to the writer, which puts it into the master; what
 * the program writes comes to the reader.  The leader of the session ends: the kernel
 * hangs the slave up, nobody can write to it any more, so what the reader takes until
 * there is nothing more is the rest; then both ends go, and the terminal with them.
 *
 * The program may close its terminal, and open /dev/tty later: until its leader ends
 * that is silence, and no end.
 *
 * Failure modes: ssi-run goes away, or its node: the stream of what is typed ends; the
 * writer closes and the reader gives the master up, and with the last duplicate of
 * the master the kernel hangs up: SIGHUP to the session.  ssid is killed: ssi-init has
 * the master, so the program waits; killed between the two ends of one terminal, its
 * successor ends the other.
 */
#include "stream_internal.h"

#include "err.h"
#include "stream.pb-c.h"

static const nsec_t RESIZE_TIMEOUT = 5 * NSEC_PER_SEC;

static bool is_over(const struct stream_end *e)
{
	return stream_end_is(e, STREAM_BREAKS) ||
	       (stream_end_is_reader(e) && stream_end_is(e, STREAM_ENDED));
}

/* The other end at its terminal that is not over. */
static struct stream_end *partner_of(const struct stream_end *e)
{
	struct stream_end *p;

	LIST_FOREACH (p, &e->room->ends, entry)
		if (p != e && stream_end_is(p, STREAM_TERMINAL) && !is_over(p) &&
		    p->inode == e->inode && p->mark.role != e->mark.role)
			return p;
	return NULL;
}

void stream_end_hang_up(struct stream_end *e)
{
	struct stream_end *p = stream_end_is(e, STREAM_TERMINAL) ? partner_of(e) : NULL;

	if (p && !stream_end_is(p, STREAM_CUT))
		stream_end_give_up(p);
}

bool stream_end_may_be_opened(const struct stream_end *e)
{
	return stream_end_is(e, STREAM_TERMINAL) && !stream_end_is(e, STREAM_LAST) &&
	       stream_hand_pid(&e->hand);
}

void stream_terminals_restored(struct stream_room *s)
{
	struct stream_end *e;

	LIST_FOREACH (e, &s->ends, entry)
		if (stream_end_is(e, STREAM_TERMINAL) &&
		    !stream_end_is(e, STREAM_CUT) && !is_over(e) && !partner_of(e))
			stream_end_give_up(e);
}

int stream_terminal_make(struct stream_room *s, const struct terminal_setup *setup,
			 int *ret_master, int *ret_slave)
{
	return terminal_make(s->space, setup, ret_master, ret_slave);
}

int stream_terminal_leads(struct stream_room *s, stream_id id, pid_t leader)
{
	struct stream_end *e = stream_end_find(s, id, STREAM_READER);

	if (!e || !stream_end_is(e, STREAM_TERMINAL))
		return STREAM_E_ABSENT;
	stream_hand_set_pid(&e->hand, leader);
	return 0;
}

void stream_on_exit(struct stream_room *s, pid_t pid)
{
	struct stream_end *e, *next;

	for (e = LIST_FIRST(&s->ends); e; e = next) {
		next = LIST_NEXT(e, entry);
		if (!stream_end_is_reader(e) || !stream_end_is(e, STREAM_TERMINAL) ||
		    is_over(e) || stream_hand_pid(&e->hand) != pid)
			continue;
		stream_end_set_flag(e, STREAM_LAST);
		(void)env_arm(s->env, &e->again, 0);
	}
}

int stream_resize(struct stream_room *s, stream_id id, const struct winsize *size,
		  rpc_done_cb done, void *owner)
{
	struct stream_end *e = stream_end_find(s, id, STREAM_READER);
	Ssi__Stream__ResizeRequest q = SSI__STREAM__RESIZE_REQUEST__INIT;

	if (!e)
		return STREAM_E_ABSENT;
	q.id = id;
	q.rows = size->ws_row;
	q.columns = size->ws_col;
	q.x_pixels = size->ws_xpixel;
	q.y_pixels = size->ws_ypixel;
	return rpc_call(s->rpc, e->mark.peer, STREAM_RESIZE, &q.base, RPC_NO_BULK,
			RESIZE_TIMEOUT, done, owner, NULL);
}
