/*
 * Calls that name a process of another node: kill() and its like, pidfd_open().
 *
 * Happy path: its home says that it lives; a shadow of it stands here then, alone, as kin of
 * nobody, and the call goes on in the kernel, which checks the caller's rights.  What the
 * shadow takes goes to its process as from any kin, with who sent it; a pidfd of it is ready
 * when it has ended.
 *
 * Such a shadow stands for a moment, behind a pidfd_open() until its process ends.
 *
 * Failure modes: its process has ended, or its home is not heard -> the call goes on, and finds
 * whom the kernel here knows; the caller is interrupted by a signal -> it calls again; ssid
 * dies -> ssi-init lets the caller go on.
 *
 * Not so: the process is the leader of a group and a session of its own here, so getpgid() and
 * getsid() of it are its PID; a group is signalled where its members are.
 */
#include "process_internal.h"

#include "err.h"

#include <sys/syscall.h>

static const nsec_t stands_within = 2 * NSEC_PER_SEC;
static const nsec_t look_every = 2 * NSEC_PER_MSEC;

struct named {
	struct process_room *room;
	uint64_t call;
	pid_t pid;
	bool lasts; /* for as long as its process */
	bool ends;  /* its shadow is about to be gone */
	nsec_t deadline;
	struct env_timer timer;
	LIST_ENTRY(named) entry;
};

static void go_on(struct named *n)
{
	/* Interrupted, it calls again. */
	(void)space_exec_go(n->room->space, n->call);
	LIST_REMOVE(n, entry);
	env_disarm(n->room->env, &n->timer);
	free(n);
}

static bool exists(struct process_room *p, pid_t pid)
{
	struct proc_stat s;

	return proc_stat_read(space_proc_fd(p->space), pid, &s) == 0;
}

/* Its shadow comes, or goes. */
static void on_timer(struct env_timer *t)
{
	struct named *n = container_of(t, struct named, timer);
	struct process_room *p = n->room;

	if (env_now(p->env) < n->deadline && n->ends && exists(p, n->pid))
		(void)env_arm(p->env, &n->timer, look_every);
	else
		go_on(n);
}

static void wait_for(struct named *n, bool end)
{
	n->ends = end;
	n->deadline = env_now(n->room->env) + stands_within;
	if (env_arm(n->room->env, &n->timer, end ? look_every : stands_within) < 0)
		go_on(n);
}

static void on_where(void *owner, enum rpc_status status, const char *text, node_id place,
		     uid_t uid, uint32_t generation)
{
	struct named *n = owner;
	struct process_room *p = n->room;
	enum kin_stands stands = KIN_IS_NONE;

	if (status == RPC_OK && place != room_self(p))
		stands = kin_stand_alone(p, n->pid, uid, n->lasts);
	else if (status == RPC_NOT_FOUND && kin_end(p, n->pid))
		return wait_for(n, true);
	if (stands == KIN_COMES)
		return wait_for(n, false);
	go_on(n);
}

void named_on_stand(struct process_room *p, pid_t pid)
{
	struct named *n, *next;

	for (n = LIST_FIRST(&p->named); n; n = next) {
		next = LIST_NEXT(n, entry);
		if (n->pid == pid && n->deadline && !n->ends)
			go_on(n);
	}
}

static bool is_elsewhere(struct process_room *p, pid_t pid)
{
	const struct process_entry *e = process_table_find(p->table, pid);
	node_id home = membership_home(p->membership, pid);

	return home != NODE_NONE && home != room_self(p) &&
	       ((e && e->record.state == PROCESS_KIN) || !exists(p, pid));
}

bool process_call_names(int nr)
{
	return nr == SYS_kill || nr == SYS_rt_sigqueueinfo || nr == SYS_pidfd_open;
}

void process_on_call(struct process_room *p, const struct space_exec *call)
{
	pid_t pid = (pid_t)call->args[0];
	struct named *n = is_elsewhere(p, pid) ? calloc(1, sizeof(*n)) : NULL;

	if (!n) {
		(void)space_exec_go(p->space, call->id);
		return;
	}
	*n = (struct named){.room = p,
			    .call = call->id,
			    .pid = pid,
			    .lasts = call->nr == SYS_pidfd_open,
			    .timer.cb = on_timer};
	LIST_INSERT_HEAD(&p->named, n, entry);
	if (process_where(p, pid, on_where, n) < 0)
		go_on(n);
}

void named_fini(struct process_room *p)
{
	struct named *n;

	while ((n = LIST_FIRST(&p->named))) {
		LIST_REMOVE(n, entry);
		env_disarm(p->env, &n->timer);
		free(n);
	}
}
