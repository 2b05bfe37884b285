/*
 * Links of the simulated network.
 *
 * A link is two ends, one on each machine.  Frames wait at the end that they go
 * to, in order; between links nothing is ordered.  A cut holds frames back (TCP
 * sends again), and takes the link down when it lasts.  Closing, a crash and a
 * break lose what is under way, or do not: both happen.
 */
#include "world_internal.h"

#include "transport_wire.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

struct frame {
	STAILQ_ENTRY(frame) in;
	struct transport_frame frame;
	nsec_t due;
	size_t len;
	uint8_t data[];
};

struct transport_link {
	LIST_ENTRY(transport_link) in;
	struct world_machine *machine;
	struct transport_link *other; /* NULL: it is gone */
	node_id peer;
	unsigned peer_slot;
	bool up, closed, wants_write;
	const char *reason; /* of going down */
	struct world_event *step, *deliver, *down, *give_up, *writable;
	STAILQ_HEAD(, frame) frames;
	size_t bytes;
	nsec_t last_due;
};

static nsec_t delay(struct world *w)
{
	/* Mostly a LAN, now and then a retransmission. */
	return world_chance(w, 20) ? 20 * NSEC_PER_MSEC + world_below(w, 300 * NSEC_PER_MSEC) :
				     50 * NSEC_PER_USEC + world_below(w, 2 * NSEC_PER_MSEC);
}

static struct transport_link *end_new(struct world_machine *m, unsigned peer_slot)
{
	struct transport_link *l = calloc(1, sizeof(*l));

	assert(l);
	l->machine = m;
	l->peer_slot = peer_slot;
	l->peer = m->w->machines[peer_slot].id;
	STAILQ_INIT(&l->frames);
	LIST_INSERT_HEAD(&m->links, l, in);
	return l;
}

static void forget_event(struct world *w, struct world_event **e)
{
	if (*e)
		world_unschedule(w, TAKE(*e));
}

static void end_free(struct transport_link *l)
{
	struct world *w = l->machine->w;
	struct frame *f;

	forget_event(w, &l->step);
	forget_event(w, &l->deliver);
	forget_event(w, &l->down);
	forget_event(w, &l->give_up);
	forget_event(w, &l->writable);
	while ((f = STAILQ_FIRST(&l->frames))) {
		STAILQ_REMOVE_HEAD(&l->frames, in);
		free(f);
	}
	if (l->other)
		l->other->other = NULL;
	LIST_REMOVE(l, in);
	free(l);
}

static void fire_down(struct world *w, struct world_event *e)
{
	struct transport_link *l = e->arg;
	struct world_machine *m = l->machine;

	l->down = NULL;
	l->closed = true;
	world_note(w, m->slot, "link with %u: %s", l->peer_slot, l->reason);
	if (m->events)
		m->events->on_down(m->events_owner, l, l->up ? l->peer : NODE_NONE, l->reason);
	end_free(l);
}

static void down_later(struct transport_link *l, nsec_t after, const char *reason)
{
	struct world *w = l->machine->w;

	if (l->down)
		return;
	l->reason = reason;
	l->down = world_schedule(w, after, l->machine->slot, "link goes down", fire_down, l);
}

/* This end is gone: the other one hears it, sooner or later. */
static void tell_other(struct transport_link *l, const char *reason)
{
	struct world *w = l->machine->w;
	struct transport_link *other = l->other;
	unsigned a = l->machine->slot, b = l->peer_slot;

	if (!other)
		return;
	other->other = NULL;
	l->other = NULL;
	down_later(other,
		   *world_cut_at(w, a, b) ? WORLD_GIVE_UP :
		   world_chance(w, 500) ? delay(w) + 400 * NSEC_PER_MSEC : /* after the data */
					  50 * NSEC_PER_USEC,
		   reason);
}

static void fire_deliver(struct world *w, struct world_event *e);

static void deliver_next(struct transport_link *l)
{
	struct frame *f = STAILQ_FIRST(&l->frames);
	struct world *w = l->machine->w;

	if (f && !l->deliver)
		l->deliver = world_schedule(w, f->due > w->now ? f->due - w->now : 0,
					    l->machine->slot, "frame", fire_deliver, l);
}

static void fire_writable(struct world *w, struct world_event *e)
{
	struct transport_link *l = e->arg;

	(void)w;
	l->writable = NULL;
	if (!l->closed && l->up)
		l->machine->events->on_writable(l->machine->events_owner, l);
}

static void fire_deliver(struct world *w, struct world_event *e)
{
	struct transport_link *l = e->arg, *from = l->other;
	struct world_machine *m = l->machine;
	struct frame *f = STAILQ_FIRST(&l->frames);
	int r;

	l->deliver = NULL;
	if (l->closed)
		return;
	if (!l->up || *world_cut_at(w, l->peer_slot, m->slot)) {
		f->due = w->now + 20 * NSEC_PER_MSEC;
		deliver_next(l);
		return;
	}
	STAILQ_REMOVE_HEAD(&l->frames, in);
	l->bytes -= f->len;
	m->use.received++;
	m->use.received_bytes += TRANSPORT_HEADER_SIZE + f->len;
	world_note(w, m->slot, "from %u: kind %u method %#x id %llu epoch %llu, %zu bytes",
		   l->peer_slot, f->frame.kind, f->frame.method, (unsigned long long)f->frame.id,
		   (unsigned long long)f->frame.epoch, f->frame.message.iov_len);
	deliver_next(l);
	if (from && from->wants_write && l->bytes <= WORLD_QUEUE / 2 && !from->writable) {
		from->wants_write = false;
		from->writable = world_schedule(w, delay(w), from->machine->slot, "writable",
						fire_writable, from);
	}
	r = m->events->on_frame(m->events_owner, l, &f->frame);
	free(f);
	if (r && !l->closed) {
		l->closed = true;
		down_later(l, 0, "protocol error");
		tell_other(l, "closed by peer");
	}
}

static void fire_up(struct world *w, struct world_event *e)
{
	struct transport_link *l = e->arg;

	l->step = NULL;
	if (l->closed || l->down)
		return;
	forget_event(w, &l->give_up);
	l->up = true;
	l->machine->events->on_up(l->machine->events_owner, l, l->peer);
}

/* The acceptor's process answers: both ends come up, either one first. */
static void fire_accept(struct world *w, struct world_event *e)
{
	struct transport_link *l = e->arg;

	l->step = NULL;
	if (l->closed || l->down || !l->other)
		return;
	l->step = world_schedule(w, delay(w), l->machine->slot, "link up", fire_up, l);
	l->other->step = world_schedule(w, delay(w), l->other->machine->slot, "link up",
					fire_up, l->other);
}

static void fire_give_up(struct world *w, struct world_event *e)
{
	struct transport_link *l = e->arg;
	unsigned a = l->machine->slot, b = l->peer_slot;

	l->give_up = NULL;
	if (!l->up || *world_cut_at(w, a, b) || *world_cut_at(w, b, a))
		down_later(l, 0, "connection timed out");
}

static void fire_connect(struct world *w, struct world_event *e)
{
	struct transport_link *l = e->arg, *other;
	unsigned a = l->machine->slot, b = l->peer_slot;

	l->step = NULL;
	if (l->closed)
		return;
	if (*world_cut_at(w, a, b) || *world_cut_at(w, b, a))
		return; /* it gives up */
	if (!w->machines[b].running || !w->machines[b].events) {
		down_later(l, 0, "connection refused");
		return;
	}
	other = end_new(&w->machines[b], a);
	other->other = l;
	l->other = other;
	other->step = world_schedule(w, delay(w), b, "accept", fire_accept, other);
	other->give_up = world_schedule(w, WORLD_GIVE_UP, b, "give up", fire_give_up, other);
}

static unsigned slot_at(struct world *w, const char *address)
{
	unsigned high = 0, low = 0, slot;

	(void)sscanf(address, WORLD_ADDRESS, &high, &low);
	slot = high << 8 | low;
	assert(slot >= 1 && slot <= w->n_machines && !strcmp(w->machines[slot].address, address));
	return slot;
}

static int op_connect(void *impl, node_id peer, const char *address,
		      struct transport_link **ret)
{
	struct world_machine *m = impl;
	struct world *w = m->w;
	struct transport_link *l;
	unsigned slot;

	assert(m->running);
	slot = slot_at(w, address);
	l = end_new(m, slot);
	if (w->machines[slot].id != peer)
		down_later(l, delay(w), "the peer is another node");
	l->step = world_schedule(w, delay(w), m->slot, "connect", fire_connect, l);
	l->give_up = world_schedule(w, WORLD_GIVE_UP, m->slot, "give up", fire_give_up, l);
	*ret = l;
	return 0;
}

static int op_send(void *impl, struct transport_link *l, const struct transport_frame *frame)
{
	struct world_machine *m = impl;
	size_t len = frame->message.iov_len + frame->bulk.iov_len;
	struct transport_link *to = l->other;
	struct frame *f;

	assert(l->machine == m && l->up);
	if (!m->running || m->muted)
		return 0; /* it is being killed */
	if (l->closed)
		return TRANSPORT_E_DOWN;
	if (!to) {
		/* Into the void: its kernel answers with a reset, if it gets there. */
		down_later(l,
			   *world_cut_at(m->w, m->slot, l->peer_slot) ? WORLD_GIVE_UP :
									delay(m->w),
			   "connection reset");
		return 0;
	}
	if (to->bytes && to->bytes + len > WORLD_QUEUE) {
		l->wants_write = true;
		return TRANSPORT_E_FULL;
	}
	f = malloc(sizeof(*f) + len);
	assert(f);
	f->frame = *frame;
	f->len = len;
	if (frame->message.iov_len)
		memcpy(f->data, frame->message.iov_base, frame->message.iov_len);
	if (frame->bulk.iov_len)
		memcpy(f->data + frame->message.iov_len, frame->bulk.iov_base,
		       frame->bulk.iov_len);
	f->frame.message.iov_base = f->data;
	f->frame.bulk.iov_base = f->data + frame->message.iov_len;
	f->due = m->w->now + delay(m->w);
	if (to->last_due > f->due)
		f->due = to->last_due;
	to->last_due = f->due;
	STAILQ_INSERT_TAIL(&to->frames, f, in);
	to->bytes += len;
	m->use.sent++;
	m->use.sent_bytes += TRANSPORT_HEADER_SIZE + len;
	deliver_next(to);
	return 0;
}

static void op_close(void *impl, struct transport_link *l, const char *reason)
{
	struct world_machine *m = impl;

	assert(l->machine == m);
	if (l->closed || !m->running || m->muted)
		return;
	l->closed = true;
	world_note(m->w, m->slot, "closes link with %u: %s", l->peer_slot, reason);
	down_later(l, world_below(m->w, NSEC_PER_MSEC), reason);
	tell_other(l, "closed by peer");
}

const struct transport_ops world_transport_ops = { op_connect, op_send, op_close };

void world_net_crash(struct world_machine *m, bool silent)
{
	struct transport_link *l;

	while ((l = LIST_FIRST(&m->links))) {
		struct transport_link *other = l->other;

		if (other) {
			other->other = NULL;
			l->other = NULL;
			down_later(other,
				   silent ? world_below(m->w, WORLD_GIVE_UP) : delay(m->w),
				   silent ? "connection timed out" : "connection reset");
		}
		end_free(l);
	}
}

void world_net_cut(struct world *w, unsigned from, unsigned to)
{
	struct transport_link *l;

	for (unsigned i = 0; i < 2; i++, from ^= to, to ^= from, from ^= to)
		LIST_FOREACH(l, &w->machines[from].links, in)
			if (l->peer_slot == to && !l->give_up)
				l->give_up = world_schedule(
					w, WORLD_GIVE_UP + delay(w), from, "give up",
					fire_give_up, l);
}

void world_break(struct world *w, unsigned a, unsigned b)
{
	struct transport_link *l;

	world_note(w, a, "links with %u break", b);
	LIST_FOREACH(l, &w->machines[a].links, in)
		if (l->peer_slot == b && l->other) {
			tell_other(l, "connection reset");
			down_later(l, delay(w), "connection reset");
		}
}
