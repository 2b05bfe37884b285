/*
 * A guest's end, stop and going on are told to its home until the home has
 * taken them; then an ended guest is forgotten.
 *
 * Failure modes: the home cannot be reached -> repeated; the home is not in the
 * view -> an end is kept on record and told when it is back; the home says that the guest is not ours
 * (it was given up while this node was lost) -> the guest is killed: one live copy.
 */
#include "process_internal.h"

#include "err.h"
#include "log.h"

#include <signal.h>
#include <sys/wait.h>

static const nsec_t again_after = 300 * NSEC_PER_MSEC;
static const nsec_t drains_for = NSEC_PER_SEC;

static void free_change(struct change *c)
{
	TAILQ_REMOVE(&c->room->changes, c, entry);
	wire_cancel(&c->call);
	env_disarm(c->room->env, &c->again);
	free(c);
}

/* The home has taken it, or there is none. */
static void settled(struct change *c)
{
	struct process_room *p = c->room;
	pid_t pid = c->news.pid;
	bool ended = c->news.what == WIRE_ENDED;

	free_change(c);
	if (!ended)
		return;
	process_table_remove(p->table, pid);
	guest_forget(p, pid);
	(void)space_reap(p->space, pid);
	kin_bury(p, pid);
}

/* Its home is out of the cluster, and may come back with a shadow that waits. */
static void postpone(struct change *c)
{
	struct process_room *p = c->room;
	pid_t pid = c->news.pid;
	bool ended = c->news.what == WIRE_ENDED;

	free_change(c);
	if (!ended)
		return;
	guest_forget(p, pid);
	(void)space_reap(p->space, pid);
	kin_bury(p, pid);
}

/* -- What it wrote -- */

void process_on_output(struct process_room *p, process_drain_cb drain, void *owner)
{
	p->drain = drain;
	p->drain_owner = owner;
}

static bool drains(struct change *c)
{
	struct process_room *p = c->room;
	struct proc_stat s;

	if (c->drains || !p->drain || c->news.what == WIRE_WENT_ON)
		return false;
	c->drains = true;
	return proc_stat_read(space_proc_fd(p->space), c->news.pid, &s) == 0 &&
	       p->drain(p->drain_owner, s.sid, c->news.pid);
}

void process_output_drained(struct process_room *p, pid_t pid)
{
	struct change *c;

	TAILQ_FOREACH (c, &p->changes, entry)
		if (c->news.pid == pid && c->drains)
			(void)env_arm(p->env, &c->again, 0);
}

static void tell(struct change *c)
{
	if (drains(c)) {
		(void)env_arm(c->room->env, &c->again, drains_for);
		return;
	}
	/* Before the first view nobody has a home. */
	bool known = membership_home(c->room->membership, c->news.pid) != NODE_NONE;

	if (known && !room_up(c->room, c->home))
		postpone(c);
	else if (!known ||
		 wire_changed(c->room->rpc, &c->call, c->home, &c->news) < 0)
		(void)env_arm(c->room->env, &c->again, again_after);
}

static void on_again(struct env_timer *t)
{
	tell(container_of(t, struct change, again));
}

static void on_taken(struct wire_call *call, enum rpc_status status, const char *text,
		     const struct wire_answer *answer)
{
	struct change *c = container_of(call, struct change, call);

	if (status == RPC_OK || status == RPC_NOT_FOUND || status == RPC_USAGE)
		settled(c);
	else
		(void)env_arm(c->room->env, &c->again, again_after);
}

static void say_no_more(struct process_room *p, pid_t pid);

static struct change *find_ended(struct process_room *p, pid_t pid)
{
	struct change *c;

	TAILQ_FOREACH (c, &p->changes, entry)
		if (c->news.pid == pid && c->news.what == WIRE_ENDED)
			return c;
	return NULL;
}

void change_tell(struct process_room *p, const struct process_record *d,
		 enum wire_change_what what, int code, int status)
{
	const struct process_entry *found = process_table_find(p->table, d->pid);
	struct change *c;

	if (find_ended(p, d->pid))
		return;
	if (what == WIRE_ENDED && found && found->record.state == PROCESS_GUEST) {
		struct process_entry e = *found;

		e.record.state = PROCESS_ENDED;
		e.record.code = code;
		e.record.status = status;
		e.ended_at = env_now(p->env);
		(void)room_put(p, &e); /* replaces: cannot be full */
		(void)wait_settle(p, &e.record);
		say_no_more(p, d->pid);
	}
	c = calloc(1, sizeof(*c));
	if (!c) {
		log_warning("no memory to tell the end of process %d, left to the next "
			    "start",
			    d->pid);
		return;
	}
	*c = (struct change){.room = p,
			     .call.done = on_taken,
			     .again.cb = on_again,
			     .home = d->home,
			     .news = {.pid = d->pid,
				      .generation = d->generation,
				      .what = what,
				      .code = code,
				      .status = status}};
	TAILQ_INSERT_TAIL(&p->changes, c, entry);
	/* From the loop, so that the caller's record is not gone under its hands. */
	(void)env_arm(p->env, &c->again, 0);
}

/* -- At the home -- */

/* An older copy's end (it was left behind by a move) is no news; a newer one's is, also if
 * it comes before we are told of its move. */
static bool is_news(const struct process_entry *e, node_id peer,
		    const struct wire_change *news)
{
	if (e->record.state != PROCESS_AWAY)
		return false;
	return news->generation > e->record.generation ||
	       (news->generation == e->record.generation && e->record.place == peer);
}

void change_on_call(struct process_room *p, struct rpc_call *call, node_id peer,
		    const struct wire_change *news)
{
	const struct process_entry *e = process_table_find(p->table, news->pid);

	if (room_is_leaving(p, news->pid)) {
		rpc_fail(call, RPC_DOWN, "process %d is about to leave", news->pid);
		return;
	}
	/* Who says so may have gone on when we were out, with one that is the newer: we ask first. */
	if (room_was_fenced(p, call))
		return;
	/* It was coming home and goes on there, which we do not know yet: what stands here would
	 * be taken for nobody's. */
	if (e && e->record.moving) {
		rpc_fail(call, RPC_DOWN, "process %d is on its way", news->pid);
		return;
	}
	if (!e || e->record.home != room_self(p)) {
		rpc_fail(call, RPC_NOT_FOUND, "no process %d of this home", news->pid);
		return;
	}
	if (is_news(e, peer, news)) {
		if (news->what == WIRE_ENDED)
			room_ended(p, news->pid, news->code, news->status);
		else
			shadow_change(p, news->pid, news->what, news->status);
	}
	wire_reply_done(call);
}

/* -- Guests, and who came home, whose parent is not ssi-init -- */

static void on_guest_end(struct env_fd *watch, unsigned events)
{
	struct guest *g = container_of(watch, struct guest, watch);
	struct process_room *p = g->room;
	const struct process_entry *e = process_table_find(p->table, g->pid);

	env_unwatch(p->env, watch);
	/* Its parent reaps it here, so the status is the parent's.  At home the parent
	 * is a shadow, which does not ask. */
	if (e && e->record.state == PROCESS_GUEST) {
		change_tell(p, &e->record, WIRE_ENDED, CLD_EXITED, 0);
		return;
	}
	/* Known for a while: where it has been may say only now that it is there. */
	if (e && e->record.state == PROCESS_HERE)
		room_ended(p, g->pid, CLD_EXITED, 0);
	guest_forget(p, g->pid);
}

int guest_watch(struct process_room *p, pid_t pid)
{
	struct guest *g;
	int r;

	guest_forget(p, pid);
	g = calloc(1, sizeof(*g));
	if (!g)
		return err_origin(-ENOMEM);
	*g = (struct guest){.room = p, .pid = pid, .watch.cb = on_guest_end};
	g->watch.fd = process_kernel_watch(pid);
	if (g->watch.fd < 0) {
		r = g->watch.fd;
		free(g);
		return r;
	}
	r = env_watch(p->env, &g->watch, ENV_READ);
	if (r < 0) {
		(void)close(g->watch.fd);
		free(g);
		return r;
	}
	HASH_ADD_INT(p->guests, pid, g);
	return 0;
}

void guest_forget(struct process_room *p, pid_t pid)
{
	struct guest *g;

	say_no_more(p, pid);
	HASH_FIND_INT(p->guests, &pid, g);
	if (!g)
		return;
	HASH_DEL(p->guests, g);
	env_unwatch(p->env, &g->watch);
	(void)close(g->watch.fd);
	free(g);
}

/* -- Where guests are -- */

struct placed {
	uint64_t home_incarnation; /* that is told */
	struct wire_call call;
	struct env_timer again;
	struct process_room *room;
	struct process_record record;
	TAILQ_ENTRY(placed) entry;
};

static void free_placed(struct placed *d)
{
	TAILQ_REMOVE(&d->room->placed, d, entry);
	wire_cancel(&d->call);
	env_disarm(d->room->env, &d->again);
	free(d);
}

/* It is a guest no more.  Its home may forget it as soon as it hears so, and must not hear
 * afterwards that it runs. */
static void say_no_more(struct process_room *p, pid_t pid)
{
	struct placed *d, *next;

	for (d = TAILQ_FIRST(&p->placed); d; d = next) {
		next = TAILQ_NEXT(d, entry);
		if (d->record.pid == pid)
			free_placed(d);
	}
}

static bool is_still_here(const struct placed *d)
{
	const struct process_entry *e =
		process_table_find(d->room->table, d->record.pid);

	return e && e->record.state == PROCESS_GUEST &&
	       e->record.generation == d->record.generation;
}

static void ask_home(struct placed *d)
{
	struct process_room *p = d->room;

	d->home_incarnation = place_incarnation(p, d->record.home);
	if (wire_placed(p->rpc, &d->call, d->record.home, &d->record,
			place_incarnation(p, room_self(p))) < 0)
		(void)env_arm(p->env, &d->again, again_after);
}

static void say(struct placed *d)
{
	if (!is_still_here(d) || !room_up(d->room, d->record.home))
		free_placed(d); /* said again when its home comes back */
	else if (space_is_frozen(d->room->space) ||
		 signal_held_for(d->room, d->record.pid) != NODE_NONE) /* it may be no more ours */
		(void)env_arm(d->room->env, &d->again, again_after);
	else
		ask_home(d);
}

static void on_say_again(struct env_timer *t)
{
	say(container_of(t, struct placed, again));
}

static void home_knows(const struct placed *d)
{
	struct process_entry e = *process_table_find(d->room->table, d->record.pid);

	e.place_incarnation = d->home_incarnation;
	(void)room_put(d->room, &e); /* replaces: cannot be full */
}

static void on_placed_answer(struct wire_call *c, enum rpc_status status,
			     const char *text, const struct wire_answer *answer)
{
	struct placed *d = container_of(c, struct placed, call);

	/* One that may have left runs there already: the move that holds it will say. */
	if (status == RPC_TIMEOUT || status == RPC_DOWN || status == RPC_STALE ||
	    (status == RPC_NOT_FOUND && room_is_leaving(d->room, d->record.pid))) {
		(void)env_arm(d->room->env, &d->again, again_after);
		return;
	}
	if (status == RPC_OK && is_still_here(d))
		home_knows(d);
	if (status == RPC_NOT_FOUND && is_still_here(d)) {
		log_notice("process %d is killed: %s PID=%d", d->record.pid, text,
			   d->record.pid);
		(void)process_kernel_signal(d->record.pid, SIGKILL);
	}
	free_placed(d);
}

void change_say_placed(struct process_room *p, const struct process_record *r)
{
	struct placed *d = calloc(1, sizeof(*d));

	if (!d) {
		log_warning("no memory to tell node %s where process %d is, left to "
			    "the next view",
			    rpc_name(p->rpc, r->home), r->pid);
		return;
	}
	*d = (struct placed){.call.done = on_placed_answer,
			     .again.cb = on_say_again,
			     .room = p,
			     .record = *r};
	TAILQ_INSERT_TAIL(&p->placed, d, entry);
	say(d);
}

void change_on_view(struct process_room *p)
{
	const struct process_entry *e;
	size_t cursor = 0;

	while ((e = process_table_next(p->table, &cursor))) {
		const struct process_record *d = &e->record;

		if (!room_up(p, d->home) || d->home == room_self(p))
			continue;
		if (d->state == PROCESS_GUEST && !d->moving)
			change_say_placed(p, d);
		else if (d->state == PROCESS_ENDED && !e->told)
			change_tell(p, d, WIRE_ENDED, d->code, d->status);
	}
}

void change_fini(struct process_room *p)
{
	struct guest *g, *next;

	while (!TAILQ_EMPTY(&p->changes))
		free_change(TAILQ_FIRST(&p->changes));
	while (!TAILQ_EMPTY(&p->placed))
		free_placed(TAILQ_FIRST(&p->placed));
	HASH_ITER (hh, p->guests, g, next)
		guest_forget(p, g->pid);
}
