/*
 * How does an application end?  The asker's node asks its home; the home answers
 * at the end, or after a while that it goes on, and is asked again.
 *
 * Failure modes: a call is lost, the home's ssid starts again -> asked again; the
 * home is out of the cluster -> all nodes are asked, of which the one that runs the
 * application answers; nobody has it for some seconds -> the waiter is told so.
 */
#include "process_internal.h"

#include "err.h"

static const nsec_t answer_after = 20 * NSEC_PER_SEC;
static const nsec_t ask_again_after = NSEC_PER_SEC;
enum { ABSENT_MAX = 5 }; /* between two nodes it may be nowhere for a moment */

static void free_ask(struct wait_ask *a)
{
	TAILQ_REMOVE(&a->room->wait_asks, a, entry);
	wire_cancel(&a->call);
	find_cancel(&a->find);
	env_disarm(a->room->env, &a->again);
	free(a);
}

static void finish(struct wait_ask *a, enum rpc_status status, const char *text,
		   int code, int exit_status)
{
	process_wait_cb done = a->done;
	void *owner = a->owner;

	free_ask(a);
	done(owner, status, text, code, exit_status);
}

static void on_found(struct find *f, enum rpc_status status, const char *text,
		     const struct wire_answer *answer);

static void ask(struct wait_ask *a)
{
	node_id home = membership_home(a->room->membership, a->app);

	if (room_home_is_out(a->room, a->app)) {
		if (find_start(a->room, &a->find, wire_wait, a->app, on_found) < 0)
			(void)env_arm(a->room->env, &a->again, ask_again_after);
		return;
	}
	if (home == NODE_NONE)
		home = room_self(a->room); /* which will say that it knows of none */
	if (wire_wait(a->room->rpc, &a->call, home, a->app) < 0)
		(void)env_arm(a->room->env, &a->again, ask_again_after);
}

static void on_again(struct env_timer *t)
{
	ask(container_of(t, struct wait_ask, again));
}

static void on_found(struct find *f, enum rpc_status status, const char *text,
		     const struct wire_answer *answer)
{
	struct wait_ask *a = container_of(f, struct wait_ask, find);

	a->n_absent = status == RPC_OK ? 0 : a->n_absent + 1;
	if (status == RPC_OK && answer->ended)
		finish(a, RPC_OK, "", answer->code, answer->status);
	else if (status == RPC_OK)
		ask(a);
	else if (a->n_absent < ABSENT_MAX)
		(void)env_arm(a->room->env, &a->again, ask_again_after);
	else
		finish(a, status, text, 0, 0);
}

static void on_answer(struct wire_call *c, enum rpc_status status, const char *text,
		      const struct wire_answer *answer)
{
	struct wait_ask *a = container_of(c, struct wait_ask, call);

	if (status == RPC_OK && answer->ended) {
		finish(a, RPC_OK, "", answer->code, answer->status);
	} else if (status == RPC_OK) {
		ask(a);
	} else if (status == RPC_TIMEOUT || status == RPC_DOWN ||
		   status == RPC_STALE) {
		(void)env_arm(a->room->env, &a->again, ask_again_after);
	} else {
		finish(a, status, text, 0, 0);
	}
}

int process_wait(struct process_room *p, pid_t app, process_wait_cb done, void *owner)
{
	struct wait_ask *a = calloc(1, sizeof(*a));

	if (!a)
		return err_origin(-ENOMEM);
	*a = (struct wait_ask){.room = p,
			       .call.done = on_answer,
			       .again.cb = on_again,
			       .app = app,
			       .done = done,
			       .owner = owner};
	TAILQ_INSERT_TAIL(&p->wait_asks, a, entry);
	ask(a);
	return 0;
}

void process_wait_cancel(struct process_room *p, void *owner)
{
	struct wait_ask *a, *next;

	for (a = TAILQ_FIRST(&p->wait_asks); a; a = next) {
		next = TAILQ_NEXT(a, entry);
		if (a->owner == owner)
			free_ask(a);
	}
}

static void answer(struct wait_call *w, const struct process_record *d);

/* It goes on, as far as we can say: who waits asks again, and where it is right to. */
static void turn_away(struct wait_call *w, struct process_room *p)
{
	TAILQ_REMOVE(&p->wait_calls, w, entry);
	answer(w, NULL);
	free(w);
}

/* A home that is gone cannot answer: whoever sleeps between two questions asks now.  One
 * that is back answers itself. */
void wait_on_view(struct process_room *p)
{
	struct wait_call *w, *next;
	struct wait_ask *a;

	TAILQ_FOREACH (a, &p->wait_asks, entry)
		if (!a->call.request && !a->find.n && room_home_is_out(p, a->app))
			(void)env_arm(p->env, &a->again, 0);
	for (w = TAILQ_FIRST(&p->wait_calls); w; w = next) {
		next = TAILQ_NEXT(w, entry);
		if (membership_home(p->membership, w->app) != room_self(p) &&
		    !room_home_is_out(p, w->app))
			turn_away(w, p);
	}
}

void wait_moved(struct process_room *p, pid_t app)
{
	struct wait_call *w, *next;

	for (w = TAILQ_FIRST(&p->wait_calls); w; w = next) {
		next = TAILQ_NEXT(w, entry);
		if (w->app == app && membership_home(p->membership, app) != room_self(p))
			turn_away(w, p);
	}
}

/* -- At the home, or at the place when the home is out -- */

static void answer(struct wait_call *w, const struct process_record *d)
{
	struct wire_answer a = {0};

	if (d)
		a = (struct wire_answer){
			.ended = true, .code = d->code, .status = d->status};
	wire_reply_wait(w->call, &a);
}

void wait_on_call(struct process_room *p, struct rpc_call *call, pid_t app)
{
	const struct process_entry *found = process_table_find(p->table, app);
	struct wait_call *w;

	if (!found || found->record.app != app ||
	    (found->record.home != room_self(p) && !room_home_is_out(p, app))) {
		rpc_fail(call, RPC_NOT_FOUND, "no application %d", app);
		return;
	}
	if (found->record.state == PROCESS_ENDED) {
		struct process_entry e = *found;
		struct wait_call now = {.call = call};

		answer(&now, &e.record);
		/* At its place that is for the home to know. */
		e.told = e.told || e.record.home == room_self(p);
		(void)room_put(p, &e);
		return;
	}
	w = calloc(1, sizeof(*w));
	if (!w) {
		rpc_fail(call, RPC_FAILED, "out of memory");
		return;
	}
	*w = (struct wait_call){
		.call = call, .app = app, .until = env_now(p->env) + answer_after};
	TAILQ_INSERT_TAIL(&p->wait_calls, w, entry);
}

bool wait_settle(struct process_room *p, const struct process_record *d)
{
	struct wait_call *w, *next;
	bool told = false;

	for (w = TAILQ_FIRST(&p->wait_calls); w; w = next) {
		next = TAILQ_NEXT(w, entry);
		if (w->app != d->pid)
			continue;
		TAILQ_REMOVE(&p->wait_calls, w, entry);
		answer(w, d);
		free(w);
		told = true;
	}
	return told;
}

void wait_sweep(struct process_room *p)
{
	struct wait_call *w, *next;

	for (w = TAILQ_FIRST(&p->wait_calls); w; w = next) {
		next = TAILQ_NEXT(w, entry);
		if (w->until <= env_now(p->env))
			turn_away(w, p);
	}
}

void wait_fini(struct process_room *p)
{
	struct wait_call *w;

	while (!TAILQ_EMPTY(&p->wait_asks))
		free_ask(TAILQ_FIRST(&p->wait_asks));
	while ((w = TAILQ_FIRST(&p->wait_calls))) {
		TAILQ_REMOVE(&p->wait_calls, w, entry);
		rpc_fail(w->call, RPC_DOWN, "ssid stops");
		free(w);
	}
}
