/*
 * The room: its records, what becomes of them when something ends, and where a
 * process is.
 *
 * Happy path: launch puts a record HERE; the exit moves it to ENDED, waiters are
 * told, and after a while it is forgotten.  A process that left is AWAY until
 * its place tells the end; one that came is a GUEST whose end its home is told.
 *
 * Failure modes: ssid dies at any moment -> the table says what was, ssi-init
 * tells every exit again, shadows are taken back by their kept sockets; a place
 * is lost -> its processes ended by SIGKILL; a home is lost -> guests go on.
 */
#include "process_internal.h"

#include "cleanup.h"
#include "err.h"
#include "event.h"
#include "log.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

enum { ANCESTORS_MAX = 4096 };

static const nsec_t sweep_every = 5 * NSEC_PER_SEC;
static const nsec_t known_after_end = 600 * NSEC_PER_SEC;
static const nsec_t known_after_told = 30 * NSEC_PER_SEC;

DEFINE_CLEANUP(struct process_room, process_room_free)

bool room_up(const struct process_room *p, node_id node)
{
	return node == room_self(p) || membership_is_up(p->membership, node);
}

bool room_home_is_out(const struct process_room *p, pid_t pid)
{
	node_id home = membership_home(p->membership, pid);

	return home != NODE_NONE && !room_up(p, home);
}

/* -- What /proc says -- */

bool room_is_shadow(struct process_room *p, pid_t pid)
{
	struct stat st;

	return proc_exe_stat(space_proc_fd(p->space), pid, &st) == 0 &&
	       st.st_ino == p->shadow_program.st_ino &&
	       st.st_dev == p->shadow_program.st_dev;
}

int room_real(struct process_room *p, pid_t pid, struct proc_stat *ret)
{
	struct proc_stat s;

	if (pid < SPACE_PID_MIN ||
	    proc_stat_read(space_proc_fd(p->space), pid, &s) < 0 || s.state == 'Z' ||
	    s.state == 'X' || room_is_shadow(p, pid))
		return PROCESS_E_ABSENT;
	*ret = s;
	return 0;
}

bool room_is_free(struct process_room *p, pid_t pid)
{
	const struct process_entry *e = process_table_find(p->table, pid);
	struct proc_stat s;

	return (!e || e->record.state == PROCESS_ENDED) &&
	       proc_stat_read(space_proc_fd(p->space), pid, &s) < 0;
}

bool room_was_fenced(const struct process_room *p, struct rpc_call *call)
{
	if (!p->claim && !space_is_frozen(p->space))
		return false;
	rpc_fail(call, RPC_DOWN, "this node was fenced and looks what is still its own");
	return true;
}

bool room_is_leaving(struct process_room *p, pid_t pid)
{
	struct proc_stat s;

	return signal_held(p, pid) && room_real(p, pid, &s) == 0;
}

pid_t process_parent(struct process_room *p, pid_t pid)
{
	struct proc_stat s;

	return proc_stat_read(space_proc_fd(p->space), pid, &s) < 0 ? 0 : s.ppid;
}

bool room_below(struct process_room *p, pid_t pid, pid_t ancestor)
{
	struct proc_stat s;

	for (int i = 0; pid >= SPACE_PID_MIN && i < ANCESTORS_MAX; i++) {
		if (pid == ancestor)
			return true;
		if (proc_stat_read(space_proc_fd(p->space), pid, &s) < 0)
			return false;
		pid = s.ppid;
	}
	return false;
}

/* The nearest ancestor with a record says; an orphan asks its session and group.  NULL:
 * none has one, and *ret_last is the last that was asked. */
static const struct process_entry *find_family(struct process_room *p, const struct proc_stat *s,
					       pid_t *ret_last)
{
	const struct process_entry *e;
	struct proc_stat up = *s;

	for (int i = 0; i < ANCESTORS_MAX; i++) {
		e = process_table_find(p->table, up.pid);
		if (e)
			return e;
		*ret_last = up.pid;
		if (up.ppid < SPACE_PID_MIN ||
		    proc_stat_read(space_proc_fd(p->space), up.ppid, &up) < 0)
			break;
	}
	e = process_table_find(p->table, s->sid);
	return e ? e : process_table_find(p->table, s->pgid);
}

pid_t room_app(struct process_room *p, const struct proc_stat *s)
{
	pid_t last = s->pid;
	const struct process_entry *e = find_family(p, s, &last);

	return e ? e->record.app : last;
}

nsec_t process_frozen_at(const struct process_room *p)
{
	return space_frozen_at(p->space);
}

bool process_may_start(struct process_room *p)
{
	return space_may_run(p->space);
}

/* -- Records -- */

static bool forgettable(const struct process_room *p, const struct process_entry *e,
			bool full)
{
	nsec_t age = env_now(p->env) - e->ended_at;

	if (e->record.state != PROCESS_ENDED)
		return false;
	if (e->record.home != room_self(p))
		return e->told || (full && !room_up(p, e->record.home));
	return age > known_after_end || (e->told && (full || age > known_after_told));
}

static void forget_ended(struct process_room *p, bool full)
{
	const struct process_entry *e;
	size_t cursor = 0;

	while ((e = process_table_next(p->table, &cursor)))
		if (forgettable(p, e, full))
			process_table_remove(p->table, e->record.pid);
}

int room_put(struct process_room *p, const struct process_entry *e)
{
	int r = process_table_put(p->table, e);

	if (r == PROCESS_TABLE_E_FULL) {
		forget_ended(p, true);
		r = process_table_put(p->table, e);
	}
	if (r == PROCESS_TABLE_E_FULL)
		return err_origin(-ENOSPC);
	return r;
}

static void tell_ended(const struct process_room *p, const struct process_record *d)
{
	struct event e = { .type = EVENT_APP_ENDED,
			   .node = d->place,
			   .pid = d->pid,
			   .app = d->app,
			   .uid = d->uid,
			   .code = d->code,
			   .status = d->status };

	if (d->pid == d->app)
		event_tell(p->events, &e);
}

/* At its home: it is over.  Its shadow ends as it did, whoever waits is told. */
void room_ended(struct process_room *p, pid_t pid, int code, int status)
{
	const struct process_entry *found = process_table_find(p->table, pid);
	struct process_entry e;

	if (!found || found->record.state == PROCESS_ENDED)
		return;
	e = *found;
	e.record.state = PROCESS_ENDED;
	e.record.code = code;
	e.record.status = status;
	e.ended_at = env_now(p->env);
	e.told = wait_settle(p, &e.record) || e.record.pid != e.record.app;
	(void)room_put(p, &e); /* replaces: cannot be full */
	tell_ended(p, &e.record);
	shadow_end(p, pid, code, status);
}

void process_on_exit(struct process_room *p, const struct space_exit *exit)
{
	const struct process_entry *e = process_table_find(p->table, exit->pid);
	struct proc_stat s;

	/* Late news of a shadow that gave way: its PID is lived in again. */
	if (proc_stat_read(space_proc_fd(p->space), exit->pid, &s) == 0 &&
	    s.state != 'Z' && s.state != 'X')
		return;
	if (e && e->record.state == PROCESS_AWAY && e->record.moving)
		return; /* it gives way to the process that comes home: arrival reaps it
			 */
	if (e && e->record.state == PROCESS_AWAY) {
		shadow_killed(p, exit->pid);
		return; /* stays a zombie, its PID taken, until the real one is dead */
	}
	if (e && e->record.state == PROCESS_GUEST) {
		change_tell(p, &e->record, WIRE_ENDED, exit->code, exit->status);
		return;
	}
	if (e && e->record.state == PROCESS_HERE)
		room_ended(p, exit->pid, exit->code, exit->status);
	(void)space_reap(p->space, exit->pid);
}

void process_on_stop(struct process_room *p, pid_t pid, int signal)
{
	const struct process_entry *e = process_table_find(p->table, pid);

	if (e && e->record.state == PROCESS_GUEST)
		change_tell(p, &e->record,
			    signal == SIGCONT ? WIRE_WENT_ON : WIRE_STOPPED, 0, signal);
	else if (e && e->record.state == PROCESS_AWAY)
		shadow_on_stop(p, pid, signal); /* of others its tracer hears */
}

void process_on_view(struct process_room *p)
{
	place_on_view(p);
	reserve_on_view(p);
	change_on_view(p);
	wait_on_view(p);
}

bool room_is_half_made(const struct process_room *p, pid_t pid)
{
	const struct process_entry *e = process_table_find(p->table, pid);
	node_id home = membership_home(p->membership, pid);

	if (home == NODE_NONE || home == room_self(p))
		return false;
	return !e || (e->record.state == PROCESS_GUEST && e->record.moving);
}

int process_record(struct process_room *p, pid_t pid, struct process_record *ret)
{
	const struct process_entry *e = process_table_find(p->table, pid);
	struct process_record d;
	struct proc_stat s;
	pid_t last = pid;

	/* A child's number may have been given again. */
	if (e && e->record.state == PROCESS_ENDED && pid != e->record.app &&
	    room_real(p, pid, &s) == 0)
		e = NULL;
	if (e) {
		d = e->record;
		if (d.state == PROCESS_KIN || d.state == PROCESS_SENTINEL)
			return PROCESS_E_ABSENT;
	} else {
		if (room_real(p, pid, &s) != 0 || room_is_half_made(p, pid))
			return PROCESS_E_ABSENT;
		e = find_family(p, &s, &last);
		d = (struct process_record){.pid = pid,
					    .app = last,
					    .root = pid,
					    .home = membership_home(p->membership, pid),
					    .place = room_self(p)};
		if (e) {
			d.app = e->record.app;
			d.name = e->record.name;
			d.bound = e->record.bound;
		}
		if (d.home == NODE_NONE)
			d.home = d.place;
		d.state = d.home == d.place ? PROCESS_HERE : PROCESS_GUEST;
		if (proc_status_read(space_proc_fd(p->space), pid, &d.uid, NULL) < 0)
			return PROCESS_E_ABSENT;
	}
	d.moving = d.moving || signal_held(p, pid);
	*ret = d;
	return 0;
}

/* -- Where -- */

struct where_ask {
	struct process_room *room;
	struct wire_call call;
	struct find find;
	pid_t pid;
	process_where_cb done;
	void *owner;
	TAILQ_ENTRY(where_ask) entry;
};

static void end_where(struct where_ask *w, enum rpc_status status, const char *text,
		      const struct wire_answer *a)
{
	TAILQ_REMOVE(&w->room->where_asks, w, entry);
	w->done(w->owner, status, text, a->place, a->uid, a->generation);
	free(w);
}

static void on_where_answer(struct wire_call *c, enum rpc_status status,
			    const char *text, const struct wire_answer *a)
{
	end_where(container_of(c, struct where_ask, call), status, text, a);
}

static void on_where_found(struct find *f, enum rpc_status status, const char *text,
			   const struct wire_answer *a)
{
	end_where(container_of(f, struct where_ask, find), status, text, a);
}

int process_where(struct process_room *p, pid_t pid, process_where_cb done, void *owner)
{
	node_id home = membership_home(p->membership, pid);
	struct process_record d;
	struct where_ask *w;
	int r;

	/* It never had a home, or that is out and it is here: only we can know. */
	if (home == NODE_NONE || (!room_up(p, home) && process_record(p, pid, &d) == 0))
		home = room_self(p);
	w = calloc(1, sizeof(*w));
	if (!w)
		return err_origin(-ENOMEM);
	*w = (struct where_ask){.room = p,
				.call.done = on_where_answer,
				.pid = pid,
				.done = done,
				.owner = owner};
	r = room_up(p, home) ?
		    wire_where(p->rpc, &w->call, home, pid) :
		    find_start(p, &w->find, wire_where, pid, on_where_found);
	if (r < 0) {
		free(w);
		return r;
	}
	TAILQ_INSERT_TAIL(&p->where_asks, w, entry);
	return 0;
}

void room_on_where(struct process_room *p, struct rpc_call *call, pid_t pid)
{
	struct process_record d;
	struct wire_answer a;

	if (room_is_half_made(p, pid) || process_record(p, pid, &d) != 0) {
		rpc_fail(call, RPC_NOT_FOUND, "no process %d in the cluster", pid);
		return;
	}
	if (d.state == PROCESS_ENDED) {
		rpc_fail(call, RPC_NOT_FOUND, "process %d has ended", pid);
		return;
	}
	a = (struct wire_answer){
		.place = d.place, .uid = d.uid, .generation = d.generation};
	wire_reply_where(call, &a);
}

/* This node's space began anew while the process was away: a shadow holds its PID again, a
 * child of ssi-init. */
static int stand_in(struct process_room *p, const struct process_record *d)
{
	struct process_member m = {.pid = d->pid,
				   .pgid = d->pid,
				   .sid = d->pid,
				   .app = d->app,
				   .uid = d->uid};
	int r = shadow_spawn(p, &m, -1, SPACE_SPAWN_TRACK);

	return r == PROCESS_E_TAKEN ? 0 : err_fold(r);
}

/* A node says that it runs one of ours. */
void room_on_placed(struct process_room *p, struct rpc_call *call,
		    const struct process_record *d, uint64_t incarnation)
{
	const struct process_entry *found = process_table_find(p->table, d->pid);
	struct process_entry e = {.record = *d};
	struct proc_stat s;

	if (room_is_leaving(p, d->pid)) {
		rpc_fail(call, RPC_DOWN, "process %d is about to leave", d->pid);
		return;
	}
	/* Or the original, which stands frozen, would be taken for its shadow. */
	if (room_was_fenced(p, call))
		return;
	/* It went on here, when the move to there was given up. */
	if ((!found || found->record.state == PROCESS_HERE) && room_real(p, d->pid, &s) == 0) {
		rpc_fail(call, RPC_NOT_FOUND, "process %d runs at its home", d->pid);
		return;
	}
	if (found) {
		e = *found;
		if (e.record.state == PROCESS_ENDED ||
		    (e.record.state == PROCESS_HERE &&
		     e.record.generation >= d->generation) ||
		    (e.record.generation == d->generation &&
		     e.record.place != d->place)) {
			rpc_fail(call, RPC_NOT_FOUND, "process %d is not yours",
				 d->pid);
			return;
		}
		if (e.record.generation > d->generation) {
			rpc_fail(call, RPC_NOT_FOUND, "process %d moved on", d->pid);
			return;
		}
	}
	if (!found && stand_in(p, d) < 0) {
		rpc_fail(call, RPC_FAILED, "no shadow for process %d", d->pid);
		return;
	}
	e.record.state = PROCESS_AWAY;
	e.record.home = room_self(p);
	e.record.place = d->place;
	e.record.generation = d->generation;
	e.place_incarnation = place_incarnation(p, d->place);
	if (e.place_incarnation < incarnation)
		e.place_incarnation = incarnation; /* our view is the older one */
	if (room_put(p, &e) < 0) {
		rpc_fail(call, RPC_FAILED, "too many processes away from home");
		return;
	}
	wire_reply_done(call);
	shadow_kick(p, d->pid);
}

/* -- Life -- */

static void on_sweep(struct env_timer *t)
{
	struct process_room *p = container_of(t, struct process_room, sweep);

	forget_ended(p, false);
	place_on_view(p); /* the lease may have come behind its view */
	wait_sweep(p);
	(void)env_arm(p->env, &p->sweep, sweep_every);
}

/* An orphan has become a child of ssi-init, which does not know that it matters. */
static void watch_end(struct process_room *p, pid_t pid, pid_t parent)
{
	if (parent != 1 || space_track(p->space, pid) != 0)
		(void)guest_watch(p, pid);
}

/* What a predecessor left: children tell their exits again by themselves, and are zombies until
 * then. */
static void reconcile(struct process_room *p)
{
	const struct process_entry *e;
	struct proc_stat s;
	size_t cursor = 0;
	bool kin = false;

	while ((e = process_table_next(p->table, &cursor))) {
		const struct process_record *d = &e->record;
		bool alive = proc_stat_read(space_proc_fd(p->space), d->pid, &s) == 0;

		if (d->state == PROCESS_KIN)
			kin = true;
		else if (d->state == PROCESS_SENTINEL && !shadow_stands(p, d->pid))
			sentinel_was_killed(p, d->pid);
		else if (d->state == PROCESS_GUEST && !alive)
			change_tell(p, d, WIRE_ENDED, CLD_EXITED, 0);
		else if ((d->state == PROCESS_GUEST || d->state == PROCESS_HERE) &&
			 alive && !(e->kept && room_is_shadow(p, s.ppid)))
			watch_end(p, d->pid, s.ppid);
		else if (d->state == PROCESS_ENDED && d->home != room_self(p) &&
			 !e->told)
			change_tell(p, d, WIRE_ENDED, d->code, d->status);
		else if (d->state == PROCESS_AWAY && !d->moving && !alive && e->unborn)
			arrive_hold(p, d);
		else if (d->state == PROCESS_AWAY && !d->moving && !alive)
			shadow_killed(p, d->pid);
		else if (d->state == PROCESS_HERE && !alive)
			process_table_remove(p->table, d->pid);
	}
	if (kin)
		(void)env_arm(p->env, &p->kin_timer, 0);
}

static int open_table(struct process_room *p, bool *ret_fresh)
{
	void *memory;
	bool fresh = false;
	int r;

	r = space_state(p->space, "process/table", process_table_size(), &memory,
			&fresh);
	if (r != 0)
		return err_fold(r);
	r = process_table_new(&p->table, memory, fresh);
	if (r == PROCESS_TABLE_E_FORMAT) {
		log_warning("process records of another version, beginning with none");
		memset(memory, 0, process_table_size());
		r = process_table_new(&p->table, memory, true);
	}
	*ret_fresh = fresh;
	return err_fold(r);
}

static int stat_shadow_program(struct process_room *p)
{
	if (fstatat(space_root_fd(p->space), p->shadow_path + 1, &p->shadow_program,
		    0) < 0)
		return err_origin(-errno);
	return 0;
}

static int start(struct process_room *p)
{
	bool fresh = false;
	int r;

	r = open_table(p, &fresh);
	if (r < 0)
		return r;
	r = place_start(p, fresh);
	if (r < 0)
		return r;
	r = stat_shadow_program(p);
	if (r < 0)
		return r;
	r = rpc_register(p->rpc, process_methods, p);
	if (r != 0)
		return err_fold(r);
	r = group_start(p);
	if (r < 0)
		return r;
	r = shadow_start(p);
	if (r < 0)
		return r;
	r = reserve_start(p);
	if (r < 0)
		return r;
	reconcile(p);
	return env_arm(p->env, &p->sweep, sweep_every);
}

int process_room_new(struct process_room **ret, const struct env *env,
		     struct space *space, struct rpc *rpc,
		     struct membership *membership, const char *libexec_dir)
{
	_cleanup_(process_room_freep) struct process_room *p = NULL;
	int r;

	p = calloc(1, sizeof(*p));
	if (!p)
		return err_origin(-ENOMEM);
	*p = (struct process_room){.env = env,
				   .space = space,
				   .rpc = rpc,
				   .membership = membership,
				   .sweep.cb = on_sweep,
				   .kin_timer.cb = kin_on_timer,
				   .sentinel_timer.cb = sentinel_on_timer,
				   .shadow_listen_fd = -1};
	TAILQ_INIT(&p->wait_asks);
	TAILQ_INIT(&p->wait_calls);
	TAILQ_INIT(&p->changes);
	TAILQ_INIT(&p->placed);
	TAILQ_INIT(&p->holds);
	TAILQ_INIT(&p->deliveries);
	TAILQ_INIT(&p->signal_asks);
	TAILQ_INIT(&p->where_asks);
	TAILQ_INIT(&p->reserve_asks);
	LIST_INIT(&p->arrivals);
	LIST_INIT(&p->kin_asks);
	LIST_INIT(&p->sentinels);
	LIST_INIT(&p->sentinel_births);
	LIST_INIT(&p->leavings);
	LIST_INIT(&p->named);
	LIST_INIT(&p->drainings);
	LIST_INIT(&p->seeks);
	p->shadow_cookie = env_random_u64(env);
	if (snprintf(p->spawn_path, sizeof(p->spawn_path), "%s/ssi-spawn",
		     libexec_dir) >= (int)sizeof(p->spawn_path) ||
	    snprintf(p->shadow_path, sizeof(p->shadow_path), "%s/ssi-shadow",
		     libexec_dir) >= (int)sizeof(p->shadow_path))
		return err_origin(-ENAMETOOLONG);
	r = start(p);
	if (r < 0)
		return r;
	*ret = TAKE(p);
	return 0;
}

void process_set_events(struct process_room *p, const struct event_sink *events)
{
	p->events = events;
}

struct process_room *process_room_free(struct process_room *p)
{
	struct where_ask *w;

	if (!p)
		return NULL;
	env_disarm(p->env, &p->sweep);
	leave_fini(p);
	named_fini(p);
	kin_fini(p);
	sentinel_fini(p);
	claim_fini(p);
	reserve_fini(p);
	signal_fini(p);
	change_fini(p);
	wait_fini(p);
	place_fini(p);
	seek_fini(p);
	shadow_stop(p);
	group_fini(p);
	while ((w = TAILQ_FIRST(&p->where_asks))) {
		TAILQ_REMOVE(&p->where_asks, w, entry);
		find_cancel(&w->find);
		wire_cancel(&w->call);
		free(w);
	}
	process_table_free(p->table);
	free(p);
	return NULL;
}
