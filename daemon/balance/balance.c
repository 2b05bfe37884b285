/*
 * Happy path: as long as more computes here than there are processors, the processes are looked
 * at four times a second; one of them is moved, and looked is again when that is done.
 *
 * Failure modes: the move fails, or is refused -> it is tried once more, to another node (where
 * nothing of its session may stand, say); no lease, or nobody else has room -> nothing moves.
 */
#include "balance.h"

#include "balance_pick.h"
#include "capability.h"
#include "cleanup.h"
#include "err.h"
#include "log.h"

#include <stdlib.h>

enum { REFUSED_MAX = 256, TRIES_MAX = 2, LOOK_FRACTION = 20 };

static const nsec_t look_every = 250 * NSEC_PER_MSEC, move_within = 30 * NSEC_PER_SEC;

struct refused {
	pid_t pid;
	node_id node;
};

struct balance {
	struct balance_neighbours n;
	struct env_timer timer;
	nsec_t look_took;
	uint32_t n_busy; /* here, at the last look */
	pid_t moving;
	node_id target; /* of that one, or of who may move and was asked for last */
	struct refused refused[REFUSED_MAX];
	size_t n_refused; /* the next replaces the oldest */
};

/* A look at thousands takes long: a twentieth of the time at most. */
static void look_later(struct balance *b)
{
	nsec_t pause = LOOK_FRACTION * b->look_took;

	if (env_arm(b->n.env, &b->timer, pause > look_every ? pause : look_every) < 0)
		log_warning("out of memory: children that compute are moved no more");
}

static void on_moved(void *owner, const struct migration_result *result)
{
	struct balance *b = owner;

	if (result->status == RPC_OK) {
		placement_note(b->n.placement, b->moving, b->target);
	} else {
		log_debug("process %d computes on here: %s", b->moving, result->text);
		b->refused[b->n_refused++ % REFUSED_MAX] = (struct refused){ b->moving, b->target };
	}
	look_later(b);
}

/* NODE_NONE: none has room, or would take it. */
static node_id find_target(const struct balance *b, pid_t pid)
{
	node_id not[TRIES_MAX];
	size_t n = 0;

	for (size_t i = 0; i < b->n_refused && i < REFUSED_MAX; i++) {
		if (b->refused[i].pid != pid)
			continue;
		not[n++] = b->refused[i].node;
		if (n == TRIES_MAX)
			return NODE_NONE;
	}
	return placement_elsewhere(b->n.placement, b->n_busy - 1, not, n);
}

static bool has_distant_fork(const struct balance *b, pid_t pid)
{
	return capability_has(space_proc_fd(b->n.space), pid, CAPABILITY_DISTANT_FORK);
}

/* A child that has started no program, and has not moved. */
static bool may_move(void *owner, const struct process_info *info)
{
	struct balance *b = owner;
	struct process_record d;
	node_id target;

	if (info->pid == info->app || placement_knows(b->n.placement, info->pid) ||
	    process_record(b->n.process, info->pid, &d) != 0 || d.state != PROCESS_HERE ||
	    d.generation || d.moving || !has_distant_fork(b, info->pid) ||
	    !has_distant_fork(b, info->ppid))
		return false;
	target = find_target(b, info->pid);
	if (target != NODE_NONE)
		b->target = target;
	return target != NODE_NONE;
}

static bool move_one(struct balance *b, uint32_t n_cpus)
{
	_cleanup_free_ struct process_info *infos = NULL;
	const struct process_info *info;
	struct migration_request request = { .timeout = move_within };
	size_t n;

	if (process_list(b->n.process, &infos, &n) != 0)
		return false;
	info = balance_pick(infos, n, n_cpus, &b->n_busy, may_move, b);
	if (!info)
		return false;
	request.pid = b->moving = info->pid;
	request.target = b->target;
	return migration_move(b->n.migration, &request, NULL, on_moved, b) == 0;
}

static void on_look(struct env_timer *timer)
{
	struct balance *b = container_of(timer, struct balance, timer);
	const struct membership_load load = membership_own_load(b->n.membership);
	const nsec_t began = env_now(b->n.env);
	bool moves = load.running > 100 * load.n_cpus &&
		     membership_lease_held(b->n.membership) && move_one(b, load.n_cpus);

	b->look_took = env_now(b->n.env) - began;
	if (!moves)
		look_later(b);
}

int balance_new(struct balance **ret, const struct balance_neighbours *n)
{
	struct balance *b = calloc(1, sizeof(*b));
	int r;

	if (!b)
		return err_origin(-ENOMEM);
	*b = (struct balance){ .n = *n, .timer.cb = on_look };
	r = env_arm(n->env, &b->timer, look_every);
	if (r < 0) {
		free(b);
		return err_fold(r);
	}
	*ret = b;
	return 0;
}
