/*
 * A process that comes by exec, and its kin: shadows of its parent and of the leaders of
 * its session and group, so that the kernel here knows the family that it has where it
 * comes from.
 *
 * Happy path: the leader of the session is made by ssi-init and leads one, the others are
 * its children; the parent's shadow makes one for the process, which execs ssi-spawn, and
 * that the program.  Signals to kin are sent on to the home of whom they stand for; how a
 * child ended is told by the parent's shadow, and buried when its home knows.
 *
 * Kin stand for as long as whom they stand for lives: its home is asked once a second.  Then
 * they end, and what is left of their children has ssi-init as its parent, by the kernel's
 * rules.  Those whom a call has named (process_named.c) stand alone, in no family.
 *
 * Failure modes: ssid starts again -> the records say who is kin, their sockets are kept,
 * and the shadows tell again of children that nobody buried; a shadow cannot be made,
 * since only the number of a group is left of its leader -> the group is there, which is
 * all that was wanted.
 */
#include "process_internal.h"

#include "cleanup.h"
#include "err.h"
#include "log.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>

static const nsec_t ask_every = NSEC_PER_SEC, alone_for = 2 * NSEC_PER_SEC;
static const nsec_t LASTS = INT64_MAX;
enum { NOBODY = 65534 };

struct kin_ask {
	struct process_room *room;
	pid_t pid;
	LIST_ENTRY(kin_ask) entry;
};

/* -- Who stands -- */

/* Who stands alone has no family. */
static bool stands_as_kin(struct process_room *p, pid_t pid)
{
	const struct process_entry *e = process_table_find(p->table, pid);

	return shadow_stands(p, pid) && !(e && e->alone_until);
}

static int stand(struct process_room *p, const struct process_member *m, nsec_t alone_until)
{
	node_id home = membership_home(p->membership, m->pid);
	struct process_entry e = {.record = {.pid = m->pid,
					     .app = m->app,
					     .root = m->pid,
					     .home = home,
					     .place = home,
					     .state = PROCESS_KIN,
					     .uid = m->uid},
				  .alone_until = alone_until};
	_cleanup_close_ int leaf = -1;
	int r;

	if (stands_as_kin(p, m->pid))
		return 0;
	if (home == NODE_NONE || home == room_self(p) || !room_is_free(p, m->pid))
		return PROCESS_E_TAKEN;
	r = capability_leaf(p->space, &m->capabilities, &leaf);
	if (r == 0)
		r = room_put(p, &e);
	if (r < 0)
		return r;
	(void)env_arm(p->env, &p->kin_timer, ask_every);
	/* Those that they become parents of are asked of, as at home. */
	r = m->ppid ? shadow_fork(p, m, 0) : shadow_spawn(p, m, leaf, SPACE_SPAWN_ASK);
	if (r != 0)
		process_table_remove(p->table, m->pid);
	else if (!alone_until)
		sentinel_stand(p, m);
	return r;
}

/* A leader, of whom only the number is known. */
static int stand_leader(struct process_room *p, const struct process_member *like, pid_t pid,
			pid_t under)
{
	struct process_member m = *like;

	m.pid = m.pgid = pid;
	m.ppid = under;
	return stand(p, &m, 0);
}

/* All others of the session have the terminal from their parents: its leader is the first. */
static int stand_session(struct process_room *p, const struct process_member *parent,
			 const int *terminal)
{
	const struct shadow_command c = {.verb = SHADOW_TERMINAL};
	struct process_member m = *parent;
	int r;

	m.ppid = 0;
	r = m.sid == m.pid ? stand(p, &m, 0) : stand_leader(p, parent, m.sid, 0);
	return r == 0 && terminal ? shadow_send(p, m.sid, &c, terminal, 2) : r;
}

static int stand_parent(struct process_room *p, const struct process_member *parent,
			const int *terminal)
{
	struct process_member m = *parent;
	int r;

	if (stands_as_kin(p, m.pid) && !terminal)
		return 0;
	r = stand_session(p, parent, terminal);
	m.ppid = m.sid;
	if (r == 0 && m.pgid != m.pid && m.pgid != m.sid)
		r = stand_leader(p, parent, m.pgid, m.sid);
	return r == 0 && m.pid != m.sid ? stand(p, &m, 0) : r;
}

static int stand_kin(struct process_room *p, const struct process_member *m,
		     const struct process_member *its_parent, const int *terminal)
{
	struct process_member parent = *its_parent;
	int r;

	parent.capabilities = m->capabilities; /* so that it is born with them */
	r = stand_parent(p, &parent, terminal);
	if (r != 0 || m->pgid == m->pid || m->pgid == parent.pgid || m->pgid == parent.sid)
		return r;
	return stand_leader(p, &parent, m->pgid, parent.pid);
}

/* -- Alone -- */

enum kin_stands kin_stand_alone(struct process_room *p, pid_t pid, uid_t uid, bool lasts)
{
	const struct process_member m = {
		.pid = pid, .pgid = pid, .sid = pid, .app = pid, .uid = uid, .gid = NOBODY,
		.capabilities = capability_initial(false)};
	const struct process_entry *found = process_table_find(p->table, pid);
	nsec_t until = lasts ? LASTS : env_now(p->env) + alone_for;
	struct process_entry e;

	if (!found)
		return stand(p, &m, until) == 0 ? KIN_COMES : KIN_IS_NONE;
	if (found->record.state != PROCESS_KIN)
		return KIN_IS_NONE;
	if (!found->alone_until)
		return KIN_STANDS;
	e = *found;
	if (e.alone_until != LASTS)
		e.alone_until = until;
	(void)room_put(p, &e); /* replaces: cannot be full */
	return shadow_has_become(p, pid) ? KIN_STANDS : KIN_COMES;
}

/* -- Coming -- */

int process_come_exec(struct process_room *p, const struct process_member *m,
		      const struct process_member *parent, const int terminal[2],
		      const char *argv0, const int *fds, size_t n_fds)
{
	struct process_entry e = {.record = {.pid = m->pid,
					     .app = m->app,
					     .root = m->pid,
					     .home = membership_home(p->membership, m->pid),
					     .place = room_self(p),
					     .generation = m->generation,
					     .state = PROCESS_GUEST,
					     .uid = m->uid,
					     .bound = true, /* as its kin */
					     .moving = true},
				  .kept = true};
	struct process_member member = *m;
	struct shadow_command c = {.verb = SHADOW_EXEC};
	int r;

	if (e.record.home == NODE_NONE || e.record.home == room_self(p) || !room_is_free(p, m->pid))
		return PROCESS_E_TAKEN;
	c.n_data = (uint32_t)strlen(argv0) + 1;
	if (c.n_data > sizeof(c.data))
		return err_origin(-ENAMETOOLONG);
	memcpy(c.data, argv0, c.n_data);
	place_note(p, true); /* a node takes nobody before it knows */
	r = stand_kin(p, m, parent, terminal);
	if (r != 0)
		return r;
	r = room_put(p, &e);
	if (r < 0)
		return r;
	member.ppid = parent->pid;
	r = shadow_fork(p, &member, SHADOW_KEEP);
	if (r == 0)
		sentinel_stand(p, &member); /* before it is a program's */
	if (r == 0)
		r = shadow_send(p, m->pid, &c, fds, n_fds);
	if (r != 0)
		process_come_abort(p, m->pid);
	return r;
}

void process_come_commit(struct process_room *p, pid_t pid)
{
	const struct process_entry *found = process_table_find(p->table, pid);
	struct process_entry e;
	struct proc_stat s;

	if (!found || found->record.state != PROCESS_GUEST || !found->record.moving)
		return;
	e = *found;
	e.record.moving = false;
	e.place_incarnation = place_incarnation(p, e.record.home);
	(void)room_put(p, &e); /* replaces: cannot be full */
	/* Killed meanwhile, and buried as one that would not come. */
	if (proc_stat_read(space_proc_fd(p->space), pid, &s) < 0)
		change_tell(p, &e.record, WIRE_ENDED, CLD_KILLED, SIGKILL);
}

void process_come_abort(struct process_room *p, pid_t pid)
{
	const struct process_entry *e = process_table_find(p->table, pid);

	if (!e || e->record.state != PROCESS_GUEST || !e->record.moving)
		return;
	shadow_drop(p, pid);
	process_table_remove(p->table, pid);
	(void)process_kernel_signal(pid, SIGKILL);
}

/* -- Their children -- */

void kin_bury(struct process_room *p, pid_t pid)
{
	struct shadow_command c = {.verb = SHADOW_REAP, .value = pid};
	struct proc_stat s;

	if (proc_stat_read(space_proc_fd(p->space), pid, &s) < 0 || s.state != 'Z')
		return;
	shadow_command(p, s.ppid, &c); /* its parent may be no shadow */
	if (s.pgid == pid)
		sentinel_look(p); /* its PID is not free as long as its group is there */
}

void kin_on_child(struct process_room *p, pid_t parent, pid_t pid, int code, int status)
{
	const struct process_entry *e = process_table_find(p->table, pid);
	bool guest = e && e->record.state == PROCESS_GUEST && !e->record.moving;
	struct proc_stat s;

	/* The kernel's word, not the shadow's. */
	if (proc_stat_read(space_proc_fd(p->space), pid, &s) < 0 || s.ppid != parent)
		return;
	if (code == CLD_STOPPED || code == CLD_CONTINUED || code == CLD_TRAPPED) {
		if (guest)
			change_tell(p, &e->record,
				    code == CLD_CONTINUED ? WIRE_WENT_ON : WIRE_STOPPED, 0,
				    status);
		return;
	}
	if (guest)
		change_tell(p, &e->record, WIRE_ENDED, code, status);
	else if (!e || e->record.state != PROCESS_ENDED)
		kin_bury(p, pid); /* it left, or did not come */
}

/* -- For how long -- */

/* Its parent's shadow will not tell any more how it ends. */
static void watch_orphan(struct process_room *p, const struct process_entry *e)
{
	struct process_entry changed = *e;

	changed.kept = false;
	(void)room_put(p, &changed); /* replaces: cannot be full */
	if (guest_watch(p, changed.record.pid) < 0) /* it has ended, and nobody knows how */
		change_tell(p, &changed.record, WIRE_ENDED, CLD_EXITED, 0);
}

/* Children of @parent, also when it has gone already. */
static void orphan(struct process_room *p, pid_t parent)
{
	const struct process_entry *e;
	struct proc_stat s;
	size_t cursor = 0;

	while ((e = process_table_next(p->table, &cursor)))
		if (e->kept && e->record.state == PROCESS_GUEST && !e->record.moving &&
		    (proc_stat_read(space_proc_fd(p->space), e->record.pid, &s) < 0 ||
		     s.ppid == parent || s.ppid == 1))
			watch_orphan(p, e);
}

bool kin_end(struct process_room *p, pid_t pid)
{
	const struct process_entry *e = process_table_find(p->table, pid);

	if (!e || e->record.state != PROCESS_KIN)
		return false;
	orphan(p, pid);
	process_table_remove(p->table, pid);
	trace_release(p, pid);
	shadow_drop(p, pid);
	if (room_is_shadow(p, pid))
		(void)process_kernel_signal(pid, SIGKILL);
	sentinel_look(p);
	return true;
}

static void on_where(void *owner, enum rpc_status status, const char *text, node_id place,
		     uid_t uid, uint32_t generation)
{
	struct kin_ask *a = owner;

	LIST_REMOVE(a, entry);
	if (status == RPC_NOT_FOUND)
		(void)kin_end(a->room, a->pid);
	free(a);
}

static bool is_asked(struct process_room *p, pid_t pid)
{
	struct kin_ask *a;

	LIST_FOREACH (a, &p->kin_asks, entry)
		if (a->pid == pid)
			return true;
	return false;
}

static void ask(struct process_room *p, pid_t pid)
{
	struct kin_ask *a = is_asked(p, pid) ? NULL : calloc(1, sizeof(*a));

	if (!a)
		return;
	*a = (struct kin_ask){.room = p, .pid = pid};
	LIST_INSERT_HEAD(&p->kin_asks, a, entry);
	if (process_where(p, pid, on_where, a) < 0) {
		LIST_REMOVE(a, entry);
		free(a);
	}
}

void kin_on_timer(struct env_timer *t)
{
	struct process_room *p = container_of(t, struct process_room, kin_timer);
	const struct process_entry *e;
	size_t cursor = 0;
	bool any = false;

	while ((e = process_table_next(p->table, &cursor))) {
		if (e->record.state != PROCESS_KIN)
			continue;
		any = true;
		if (e->alone_until && env_now(p->env) > e->alone_until &&
		    !shadow_waits(p, e->record.pid))
			(void)kin_end(p, e->record.pid);
		else
			ask(p, e->record.pid);
	}
	if (any)
		(void)env_arm(p->env, &p->kin_timer, ask_every);
}

void kin_fini(struct process_room *p)
{
	struct kin_ask *a;

	env_disarm(p->env, &p->kin_timer);
	while ((a = LIST_FIRST(&p->kin_asks))) {
		LIST_REMOVE(a, entry);
		free(a);
	}
}

void kin_hung_up(struct process_room *p, pid_t pid, bool stood)
{
	struct wire_signal killed = {.pid = pid, .signal = SIGKILL, .code = SI_KERNEL};

	orphan(p, pid);
	process_table_remove(p->table, pid);
	shadow_drop(p, pid);
	if (stood)
		signal_forward(p, &killed);
}
