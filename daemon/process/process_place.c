/*
 * Places that are no more.
 *
 * Happy path: what ran on a node that a view has not up has ended by SIGKILL.  A node may be
 * back before any view has it out.  Then it is up by a later incarnation than when our
 * process was there, and is asked since which one its space stands: what was there before
 * has ended too.
 *
 * Failure modes: it does not answer -> asked again until it does, or a view has it out;
 * our ssid starts again -> it is asked again; it has moved on, or its copy ran when that node
 * was lost, and nobody could say so yet -> all nodes are asked first (process_seek.c), and who
 * has it will say so.
 */
#include "process_internal.h"

#include "err.h"
#include "log.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

static const nsec_t again_after = 500 * NSEC_PER_MSEC;

static void look_lost(struct process_room *p);

/* A node that has been asked. */
struct place {
	struct process_room *room;
	node_id node;
	uint64_t incarnation; /* that it was asked in */
	bool answered;
	uint64_t since;
	struct wire_call call;
	struct env_timer again;
	UT_hash_handle hh;
};

uint64_t place_incarnation(const struct process_room *p, node_id node)
{
	const struct membership_node *n = membership_node(p->membership, node);

	return n ? n->incarnation : 0;
}

static void end_there(struct process_room *p, const struct process_record *d)
{
	log_notice("process %d ended: node %s, where it ran, %s PID=%d", d->pid,
		   rpc_name(p->rpc, d->place),
		   room_up(p, d->place) ? "began anew" : "is lost", d->pid);
	room_ended(p, d->pid, CLD_KILLED, SIGKILL);
}

/* -- Asking -- */

static void ask(struct place *place)
{
	if (!room_up(place->room, place->node))
		return; /* the view has told */
	if (wire_since(place->room->rpc, &place->call, place->node) < 0)
		(void)env_arm(place->room->env, &place->again, again_after);
}

static void on_again(struct env_timer *t)
{
	ask(container_of(t, struct place, again));
}

static void on_answer(struct wire_call *c, enum rpc_status status, const char *text,
		      const struct wire_answer *a)
{
	struct place *place = container_of(c, struct place, call);
	struct process_room *p = place->room;

	if (status != RPC_OK) {
		(void)env_arm(p->env, &place->again, again_after);
		return;
	}
	place->answered = true;
	place->since = a->since;
	look_lost(p);
}

/* NULL: without memory, until the next view. */
static struct place *look(struct process_room *p, node_id node)
{
	uint64_t incarnation = place_incarnation(p, node);
	struct place *place;

	HASH_FIND_INT(p->places, &node, place);
	if (!place) {
		place = calloc(1, sizeof(*place));
		if (!place)
			return NULL;
		place->room = p;
		place->node = node;
		place->call.done = on_answer;
		place->again.cb = on_again;
		HASH_ADD_INT(p->places, node, place);
	}
	if (place->incarnation == incarnation)
		return place;
	place->incarnation = incarnation;
	place->answered = false;
	wire_cancel(&place->call);
	ask(place);
	return place;
}

bool process_is_over(struct process_room *p, node_id node, uint64_t incarnation)
{
	uint64_t known = place_incarnation(p, node);
	struct place *place;

	if (known < incarnation) /* our view is the older one */
		return false;
	if (!room_up(p, node))
		return true;
	if (known == incarnation)
		return false;
	place = look(p, node);
	return place && place->answered && incarnation < place->since;
}

/* -- What was there -- */

/* One that is coming home, or about to stand there, is judged when that is decided. */
static bool is_lost(struct process_room *p, const struct process_entry *e)
{
	return e->record.state == PROCESS_AWAY && !e->record.moving &&
	       process_is_over(p, e->record.place, e->place_incarnation);
}

static void on_sought(void *owner, const struct process_sought *sought, size_t n)
{
	struct process_room *p = owner;

	p->seeking = false;
	for (size_t i = 0; i < n; i++) {
		const struct process_entry *e = process_table_find(p->table, sought[i].pid);

		if (!sought[i].found && e && e->record.generation == sought[i].generation &&
		    is_lost(p, e))
			end_there(p, &e->record);
	}
	/* Who was found is not yet where it is, for us; others were lost meanwhile. */
	(void)env_arm(p->env, &p->look_lost, again_after);
}

static void look_lost(struct process_room *p)
{
	_cleanup_free_ struct process_sought *lost = NULL;
	const struct process_entry *e;
	size_t cursor = 0, n = 0;

	if (!p->viewed || p->seeking)
		return;
	while ((e = process_table_next(p->table, &cursor))) {
		if (!is_lost(p, e))
			continue;
		if (!lost)
			lost = calloc(process_table_n(p->table), sizeof(*lost));
		if (!lost)
			break;
		lost[n++] = (struct process_sought){.pid = e->record.pid,
						    .generation = e->record.generation};
	}
	/* Without memory it is left to the next look. */
	p->seeking = n && process_seek(p, lost, n, on_sought, p) == 0;
}

static void on_look_lost(struct env_timer *t)
{
	look_lost(container_of(t, struct process_room, look_lost));
}

void place_settled(struct process_room *p, pid_t pid)
{
	const struct process_entry *e = process_table_find(p->table, pid);

	if (e && is_lost(p, e))
		look_lost(p);
}

static void forget_lost(struct process_room *p)
{
	struct place *place, *next;

	HASH_ITER (hh, p->places, place, next)
		if (!room_up(p, place->node)) {
			wire_cancel(&place->call);
			env_disarm(p->env, &place->again);
			place->incarnation = 0;
		}
}

void place_on_view(struct process_room *p)
{
	p->viewed |= membership_lease_held(p->membership);
	place_note(p, p->viewed);
	if (!p->viewed)
		return;
	forget_lost(p);
	look_lost(p);
}

/* -- Being asked -- */

void place_note(struct process_room *p, bool is_known)
{
	if (!*p->since && is_known)
		*p->since = place_incarnation(p, room_self(p));
}

uint64_t process_since(struct process_room *p)
{
	place_note(p, membership_lease_held(p->membership));
	return *p->since;
}

void place_on_call(struct process_room *p, struct rpc_call *call)
{
	if (process_since(p))
		wire_reply_since(call, *p->since);
	else
		rpc_fail(call, RPC_DOWN, "that node does not know yet");
}

int place_start(struct process_room *p, bool table_is_fresh)
{
	void *mapped;
	bool fresh;
	int r = space_state(p->space, "process/since", sizeof(*p->since), &mapped, &fresh);

	p->look_lost.cb = on_look_lost;
	if (r != 0)
		return err_fold(r);
	p->since = mapped;
	/* An ssid that did not write this down made the table. */
	if (fresh && !table_is_fresh)
		*p->since = 1;
	return 0;
}

void place_fini(struct process_room *p)
{
	struct place *place, *next;

	env_disarm(p->env, &p->look_lost);
	HASH_ITER (hh, p->places, place, next) {
		HASH_DEL(p->places, place);
		wire_cancel(&place->call);
		env_disarm(p->env, &place->again);
		free(place);
	}
	if (p->since)
		(void)munmap(p->since, sizeof(*p->since));
}
