/*
 * Happy path: a view has a member LOST that was not before; the leader runs the command
 * with its name, id and address, and logs that it succeeded.
 *
 * Failure modes: it fails, cannot be started -> logged; it does not end -> killed at its
 * deadline, with all that it has started; the member comes back meanwhile -> killed at once;
 * the leader changes or dies -> the next one runs it for those whose loss is younger than the
 * deadline.
 */
#include "fence_command.h"

#include "cleanup.h"
#include "err.h"
#include "log.h"
#include "space_group.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>

/* A member that is LOST. */
struct loss {
	struct fence_command *room;
	LIST_ENTRY(loss) entry;
	node_id node;
	uint64_t incarnation;
	nsec_t seen;
	bool tried, over; /* over: back again, or its time is up */
	pid_t pid;	  /* of the command, 0: it does not run */
	struct space_group *group;
	struct env_timer deadline;
	struct env_work kill;
	bool killing;
};

struct fence_command {
	const struct env *env;
	struct space *space;
	struct membership *membership;
	const char *command;
	nsec_t timeout;
	bool began; /* views have come: what is LOST from now on is news */
	LIST_HEAD(, loss) losses;
};

static const char *name_of(const struct loss *l)
{
	const struct membership_node *n = membership_node(l->room->membership, l->node);

	return n ? n->name : "?";
}

static void loss_free(struct loss *l)
{
	LIST_REMOVE(l, entry);
	env_disarm(l->room->env, &l->deadline);
	space_group_close(l->group);
	free(l);
}

/* -- Its end -- */

static void on_kill_work(struct env_work *work)
{
	struct loss *l = container_of(work, struct loss, kill);

	(void)space_group_kill(l->group, 2 * NSEC_PER_SEC);
}

static void settle(struct loss *l)
{
	if (!l->pid && !l->killing && l->over)
		loss_free(l);
}

static void on_killed(struct env_work *work)
{
	struct loss *l = container_of(work, struct loss, kill);

	l->killing = false;
	l->group = space_group_close(l->group);
	settle(l);
}

static void end(struct loss *l)
{
	if (!l->pid || l->killing)
		return;
	l->kill = (struct env_work){ .work = on_kill_work, .done = on_killed };
	l->killing = env_work(l->room->env, &l->kill) == 0;
}

static void on_deadline(struct env_timer *timer)
{
	struct loss *l = container_of(timer, struct loss, deadline);

	log_error("fence_command for node %s has not ended within %llu s and is killed: the node may "
		  "still run, outside of the cluster NODE=%s",
		  name_of(l), (unsigned long long)(l->room->timeout / NSEC_PER_SEC), name_of(l));
	end(l);
}

static void tell_end(const struct loss *l, const struct space_exit *e)
{
	if (l->killing)
		log_info("fence_command for node %s was ended NODE=%s", name_of(l), name_of(l));
	else if (e->code == CLD_EXITED && e->status == 0)
		log_notice("node %s is fenced by %s NODE=%s", name_of(l), l->room->command,
			   name_of(l));
	else
		log_error("fence_command for node %s failed (%s %d): the node may still run, outside of "
			  "the cluster NODE=%s",
			  name_of(l), e->code == CLD_EXITED ? "exit status" : "signal", e->status,
			  name_of(l));
}

bool fence_command_on_exit(struct fence_command *f, const struct space_exit *e)
{
	struct loss *l;

	LIST_FOREACH(l, &f->losses, entry)
		if (l->pid == e->pid)
			break;
	if (!l)
		return false;
	tell_end(l, e);
	l->pid = 0;
	env_disarm(f->env, &l->deadline);
	(void)space_reap(f->space, e->pid);
	if (!l->killing)
		l->group = space_group_close(l->group);
	settle(l);
	return true;
}

/* -- Its beginning -- */

static int start(struct loss *l, const struct membership_node *n)
{
	struct fence_command *f = l->room;
	char id[16], env_name[NODE_NAME_MAX + 16], env_id[32], env_address[96], leaf[32];
	const char *argv[] = { f->command, n->name, id, n->address, NULL };
	const char *envp[] = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			       env_name, env_id, env_address, NULL };
	struct space_spawn spec = { .argv = argv, .envp = envp,
				    .flags = SPACE_SPAWN_TRACK | SPACE_SPAWN_SERVICE |
					     SPACE_SPAWN_BOUND };
	int r;

	(void)snprintf(id, sizeof(id), "%u", n->id);
	(void)snprintf(env_name, sizeof(env_name), "SSI_NODE=%s", n->name);
	(void)snprintf(env_id, sizeof(env_id), "SSI_NODE_ID=%u", n->id);
	(void)snprintf(env_address, sizeof(env_address), "SSI_NODE_ADDRESS=%s", n->address);
	(void)snprintf(leaf, sizeof(leaf), "fence.%u.%llu", n->id,
		       (unsigned long long)n->incarnation);
	r = space_group_open(f->space, leaf, &l->group);
	if (r == 0) {
		spec.group_fd = space_group_fd(l->group);
		r = space_spawn(f->space, &spec, &l->pid, NULL);
	}
	if (r == 0)
		r = env_arm(f->env, &l->deadline, f->timeout);
	return err_fold(r);
}

static void run(struct loss *l)
{
	const struct membership_node *n = membership_node(l->room->membership, l->node);
	int r;

	l->tried = true;
	log_info("fencing node %s: %s NODE=%s", n->name, l->room->command, n->name);
	r = start(l, n);
	if (r < 0)
		log_error("fence_command for node %s could not be run: %s; the node may still run, "
			  "outside of the cluster NODE=%s",
			  n->name, strerror(-r), n->name);
}

static struct loss *find(struct fence_command *f, const struct membership_node *n)
{
	struct loss *l;

	LIST_FOREACH(l, &f->losses, entry)
		if (l->node == n->id && l->incarnation == n->incarnation && !l->over)
			return l;
	return NULL;
}

static void note(struct fence_command *f, const struct membership_node *n)
{
	struct loss *l = calloc(1, sizeof(*l));

	if (!l) {
		log_error("no memory to fence node %s NODE=%s", n->name, n->name);
		return;
	}
	*l = (struct loss){ .room = f, .node = n->id, .incarnation = n->incarnation,
			    .seen = env_now(f->env), .tried = !f->began,
			    .deadline.cb = on_deadline };
	LIST_INSERT_HEAD(&f->losses, l, entry);
}

static bool is_still_lost(const struct loss *l)
{
	const struct membership_node *n = membership_node(l->room->membership, l->node);

	return n && n->state == MEMBER_LOST && n->incarnation == l->incarnation;
}

void fence_command_on_view(struct fence_command *f, const struct membership_view *view)
{
	struct loss *l, *next;

	if (!f->command[0])
		return;
	for (size_t i = 0; i < view->n_nodes; i++)
		if (view->nodes[i].state == MEMBER_LOST && !find(f, &view->nodes[i]))
			note(f, &view->nodes[i]);
	f->began = true;
	for (l = LIST_FIRST(&f->losses); l; l = next) {
		next = LIST_NEXT(l, entry);
		l->over = !is_still_lost(l);
		if (l->over)
			end(l);
		else if (!l->tried && membership_leads(f->membership) &&
			 env_now(f->env) - l->seen < f->timeout)
			run(l);
		settle(l);
	}
}

int fence_command_new(struct fence_command **ret, const struct env *env, struct space *space,
		      struct membership *membership, const char *command, nsec_t timeout)
{
	struct fence_command *f = calloc(1, sizeof(*f));

	if (!f)
		return err_origin(-ENOMEM);
	*f = (struct fence_command){ .env = env, .space = space, .membership = membership,
				     .command = command, .timeout = timeout };
	LIST_INIT(&f->losses);
	*ret = f;
	return 0;
}
