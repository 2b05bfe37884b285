/*
 * A restarted tree needs its old PIDs: at the home of each a shadow is made anew.
 *
 * Homes are asked one after the other.  Failure modes: a PID is in use, a home
 * refuses -> what was reserved is released, the asker is told; a home is not in
 * the view -> its PIDs are free, since a node that is lost runs nothing; ssid dies
 * before the tree stands -> what it had asked for is in a state memfd, and its
 * successor releases that; a release is not answered -> asked again until it is, or a
 * view excludes the home.
 */
#include "process_internal.h"

#include "err.h"
#include "log.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

static const nsec_t again_after = 500 * NSEC_PER_MSEC;

/* Asked for, and neither standing here nor released yet. */
struct reserved {
	_Atomic pid_t pid; /* 0: free; written last */
	uint32_t generation;
};

enum { RESERVED_MAX = 16384 };

struct reserve_ask {
	struct process_room *room;
	struct wire_call call;
	struct env_timer turn; /* asks from the loop: done never comes inline */
	bool release;
	node_id place;
	node_id home; /* that is asked now */
	process_reserve_cb done;
	void *owner;
	TAILQ_ENTRY(reserve_ask) entry;
	size_t n;
	struct process_member members[];
};

/* -- What a successor must know -- */

static struct reserved *slot_of(struct process_room *p, pid_t pid)
{
	for (size_t i = 0; i < RESERVED_MAX; i++)
		if (p->reserved[i].pid == pid)
			return &p->reserved[i];
	return NULL;
}

static int note(struct process_room *p, const struct process_member *m)
{
	struct reserved *slot = slot_of(p, m->pid);

	if (!slot)
		slot = slot_of(p, 0);
	if (!slot)
		return err_origin(-ENOSPC);
	slot->generation = m->generation;
	slot->pid = m->pid;
	return 0;
}

void reserve_forget(struct process_room *p, pid_t pid, uint32_t generation)
{
	struct reserved *slot = slot_of(p, pid);

	if (slot && slot->generation == generation)
		slot->pid = 0;
}

static void finish(struct reserve_ask *a, enum rpc_status status, const char *text)
{
	TAILQ_REMOVE(&a->room->reserve_asks, a, entry);
	env_disarm(a->room->env, &a->turn);
	for (size_t i = 0; a->release && i < a->n; i++)
		reserve_forget(a->room, a->members[i].pid, a->members[i].generation);
	if (a->done)
		a->done(a->owner, status, text);
	free(a);
}

/* Homes are asked in the order of their ids. */
static node_id next_home(const struct reserve_ask *a)
{
	node_id best = NODE_NONE;

	for (size_t i = 0; i < a->n; i++) {
		node_id home = membership_home(a->room->membership, a->members[i].pid);

		if (home > a->home && room_up(a->room, home) && (!best || home < best))
			best = home;
	}
	return best;
}

static int ask_home(struct reserve_ask *a)
{
	_cleanup_free_ struct process_member *some = calloc(a->n, sizeof(*some));
	size_t n = 0;

	if (!some)
		return err_origin(-ENOMEM);
	for (size_t i = 0; i < a->n; i++)
		if (membership_home(a->room->membership, a->members[i].pid) == a->home)
			some[n++] = a->members[i];
	return (a->release ? wire_release : wire_reserve)(a->room->rpc, &a->call,
							  a->home, some, n, a->place);
}

static void ask_next(struct reserve_ask *a)
{
	a->home = next_home(a);
	if (a->home == NODE_NONE)
		finish(a, RPC_OK, "");
	else if (ask_home(a) < 0)
		finish(a, RPC_FAILED, "out of memory");
}

static void on_answer(struct wire_call *c, enum rpc_status status, const char *text,
		      const struct wire_answer *answer)
{
	struct reserve_ask *a = container_of(c, struct reserve_ask, call);

	if (a->release && (status == RPC_DOWN || status == RPC_TIMEOUT) &&
	    room_up(a->room, a->home)) {
		a->home--; /* the same once more */
		(void)env_arm(a->room->env, &a->turn, again_after);
	} else if (status == RPC_OK || a->release) {
		ask_next(a);
	} else {
		(void)process_release(a->room, a->members, a->n);
		finish(a, status, text);
	}
}

static void on_turn(struct env_timer *t)
{
	ask_next(container_of(t, struct reserve_ask, turn));
}

static int ask(struct process_room *p, const struct process_member *members,
	       size_t n_members, node_id place, bool release, process_reserve_cb done,
	       void *owner)
{
	struct reserve_ask *a;
	int r;

	a = calloc(1, sizeof(*a) + n_members * sizeof(*members));
	if (!a)
		return err_origin(-ENOMEM);
	*a = (struct reserve_ask){.room = p,
				  .call.done = on_answer,
				  .turn.cb = on_turn,
				  .release = release,
				  .place = place,
				  .done = done,
				  .owner = owner,
				  .n = n_members};
	memcpy(a->members, members, n_members * sizeof(*members));
	r = env_arm(p->env, &a->turn, 0);
	if (r < 0) {
		free(a);
		return r;
	}
	TAILQ_INSERT_TAIL(&p->reserve_asks, a, entry);
	return 0;
}

int process_reserve(struct process_room *p, const struct process_member *members,
		    size_t n_members, node_id place, process_reserve_cb done,
		    void *owner)
{
	for (size_t i = 0; i < n_members; i++) {
		int r = note(p, &members[i]);

		if (r < 0)
			return r;
	}
	return ask(p, members, n_members, place, false, done, owner);
}

int process_release(struct process_room *p, const struct process_member *members,
		    size_t n_members)
{
	return ask(p, members, n_members, NODE_NONE, true, NULL, NULL);
}

void reserve_fini(struct process_room *p)
{
	struct reserve_ask *a;

	while ((a = TAILQ_FIRST(&p->reserve_asks))) {
		TAILQ_REMOVE(&p->reserve_asks, a, entry);
		wire_cancel(&a->call);
		env_disarm(p->env, &a->turn);
		free(a);
	}
	if (p->reserved)
		(void)munmap(p->reserved, RESERVED_MAX * sizeof(struct reserved));
}

int reserve_start(struct process_room *p)
{
	void *mapped;
	bool fresh;
	int r = space_state(p->space, "process/reserved",
			    RESERVED_MAX * sizeof(struct reserved), &mapped, &fresh);

	if (r != 0)
		return err_fold(r);
	p->reserved = mapped;
	p->reserved_abandoned = !fresh;
	return 0;
}

static bool stands(struct process_room *p, const struct reserved *slot)
{
	const struct process_entry *e = process_table_find(p->table, slot->pid);

	return e && e->record.generation == slot->generation &&
	       (e->record.state == PROCESS_HERE || e->record.state == PROCESS_GUEST);
}

/* Nothing of a tree that a predecessor was restoring lives on. */
static void release_abandoned(struct process_room *p)
{
	_cleanup_free_ struct process_member *left = NULL;
	size_t n = 0;

	left = calloc(RESERVED_MAX, sizeof(*left));
	if (!left)
		return;
	for (size_t i = 0; i < RESERVED_MAX && n < PROCESS_MEMBERS_MAX; i++) {
		pid_t pid = p->reserved[i].pid;

		/* Recorded, and not crossed out here any more. */
		if (pid && stands(p, &p->reserved[i]))
			p->reserved[i].pid = 0;
		else if (pid) /* its family does not matter any more */
			left[n++] = (struct process_member){
				.pid = pid,
				.pgid = pid,
				.sid = pid,
				.app = pid,
				.generation = p->reserved[i].generation};
	}
	if (n)
		log_notice("%zu PIDs that were reserved for a restart are released", n);
	if (n && process_release(p, left, n) < 0)
		return;
	p->reserved_abandoned = n == PROCESS_MEMBERS_MAX;
}

void reserve_on_view(struct process_room *p)
{
	if (p->reserved_abandoned)
		release_abandoned(p);
}

/* -- At the home -- */

static void release_one(struct process_room *p, const struct process_member *m)
{
	const struct process_entry *e = process_table_find(p->table, m->pid);

	if (!e || e->record.state != PROCESS_AWAY ||
	    e->record.generation != m->generation)
		return;
	process_table_remove(p->table, m->pid); /* its exit is reaped in silence */
	trace_release(p, m->pid);
	if (room_is_shadow(p, m->pid))
		(void)process_kernel_signal(m->pid, SIGKILL);
	shadow_drop(p, m->pid);
}

int reserve_one(struct process_room *p, const struct process_member *m, node_id place)
{
	const struct process_entry *found = process_table_find(p->table, m->pid);
	struct process_entry e = {.record = {.pid = m->pid,
					     .app = m->app,
					     .name = m->name,
					     .root = m->pid,
					     .home = room_self(p),
					     .place = place,
					     .generation = m->generation,
					     .state = PROCESS_AWAY,
					     .uid = m->uid},
				  .place_incarnation = place_incarnation(p, place)};
	int r;

	if (found && found->record.state == PROCESS_AWAY &&
	    found->record.place == place && found->record.generation == m->generation)
		return 0; /* asked again */
	if (found && found->record.state != PROCESS_ENDED)
		return PROCESS_E_TAKEN;
	shadow_drop(p, m->pid);
	r = shadow_spawn(p, m, -1, m->ppid == 0 ? SPACE_SPAWN_TRACK : 0);
	if (r != 0)
		return r;
	r = room_put(p, &e);
	if (r < 0) {
		(void)process_kernel_signal(m->pid, SIGKILL);
		shadow_drop(p, m->pid);
	}
	return r;
}

void reserve_on_call(struct process_room *p, struct rpc_call *call,
		     const struct process_member *members, size_t n, node_id place)
{
	for (size_t i = 0; i < n; i++) {
		int r = reserve_one(p, &members[i], place);

		if (r == 0)
			continue;
		for (size_t k = 0; k < i; k++)
			release_one(p, &members[k]);
		if (r == PROCESS_E_TAKEN)
			rpc_fail(call, RPC_CONFLICT, "pid %d is in use",
				 members[i].pid);
		else
			rpc_fail(call, RPC_FAILED, "no shadow could be made");
		return;
	}
	wire_reply_done(call);
}

void release_on_call(struct process_room *p, struct rpc_call *call,
		     const struct process_member *members, size_t n, node_id place)
{
	for (size_t i = 0; i < n; i++)
		release_one(p, &members[i]);
	wire_reply_done(call);
}
