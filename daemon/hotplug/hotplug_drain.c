/*
 * A node that is to be removed empties itself.
 *
 * Happy path: the trees of processes that run here are moved, a few at a time, each to
 * the least loaded of the targets, until none is left; then the lease is given up.
 *
 * Failure modes: a tree cannot move to any of the first few targets -> it is told, or with
 * `force` ended, gently at first.  A tree that something else moves or saves is tried
 * again.  The leader asks once more, since a link broke -> it gets the answer of what is
 * under way.  A view says that this node stays -> no more is moved.
 */
#include "hotplug_internal.h"

#include "cleanup.h"
#include "err.h"
#include "fault.h"
#include "log.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

enum {
	AT_ONCE_MAX = 4,  /* moves under way */
	TARGETS_TRIED = 3, /* for one tree */
};

#define TICK (100 * NSEC_PER_MSEC)
#define TERM_MAX (5 * NSEC_PER_SEC) /* to end by themselves */

enum tree_state { TREE_DUE, TREE_MOVING, TREE_GONE, TREE_STAYS };

struct drain_tree {
	struct hotplug_drain *drain;
	enum tree_state state;
	node_id target;
	unsigned n_tried;
	struct hotplug_stay stay; /* who it is, and the last reason */
};

struct hotplug_drain {
	LIST_ENTRY(hotplug_drain) in;
	struct hotplug *h;
	struct rpc_call *call;
	bool look, force, give_up, leaving;
	nsec_t deadline, term_until; /* 0: nothing is being ended */
	node_id *targets;
	unsigned *n_sent; /* to each */
	size_t n_targets;
	node_id watcher;
	uint64_t watch;
	struct env_timer timer;
	struct drain_tree *trees; /* of this round */
	size_t n_trees;
	unsigned n_moving;
	struct hotplug_stays stays;
	uint32_t moved, ended;
};

static void drain_free(struct hotplug_drain *d)
{
	for (size_t i = 0; i < d->n_trees; i++)
		migration_forget(d->h->n.migration, &d->trees[i]);
	env_disarm(d->h->n.env, &d->timer);
	LIST_REMOVE(d, in);
	free(d->trees);
	free(d->targets);
	free(d->n_sent);
	free(d);
}

static void finish(struct hotplug_drain *d, uint64_t incarnation)
{
	Ssi__Hotplug__DrainReply reply = SSI__HOTPLUG__DRAIN_REPLY__INIT;
	struct hotplug_stays_message message;

	hotplug_stays_pack(&d->stays, &message);
	reply.stays = message.list;
	reply.n_stays = d->stays.n;
	reply.n_all = (uint32_t)d->stays.n_all;
	reply.moved = d->moved;
	reply.ended = d->ended;
	reply.incarnation = incarnation;
	rpc_reply(d->call, &reply.base, RPC_NO_BULK);
	drain_free(d);
}

static void give_up(struct hotplug_drain *d, enum rpc_status status, const char *text)
{
	rpc_fail(d->call, status, "%s", text);
	drain_free(d);
}

static void tick(struct hotplug_drain *d)
{
	(void)env_arm(d->h->n.env, &d->timer, TICK);
}

/* The processes that run here. */

static bool is_in(const struct process_info *infos, size_t n, pid_t pid)
{
	for (size_t i = 0; i < n; i++)
		if (infos[i].pid == pid)
			return true;
	return false;
}

static void add_tree(struct hotplug_drain *d, const struct process_info *info)
{
	struct drain_tree *t = &d->trees[d->n_trees++];

	*t = (struct drain_tree){ .drain = d,
				  .stay = { .pid = info->pid, .node = rpc_self(d->h->n.rpc) } };
	(void)snprintf(t->stay.command, sizeof(t->stay.command), "%.63s", info->command);
}

/* Trees of what is there now.  < 0: -errno. */
static int find_trees(struct hotplug_drain *d)
{
	_cleanup_free_ struct process_info *infos = NULL;
	size_t n = 0;
	int r = d->h->n.process ? process_list(d->h->n.process, &infos, &n) : 0;

	if (r != 0)
		return err_fold(r);
	free(d->trees);
	d->n_trees = 0;
	d->trees = calloc(n + 1, sizeof(*d->trees));
	if (!d->trees)
		return err_origin(-ENOMEM);
	for (size_t i = 0; i < n; i++)
		if (infos[i].state != 'Z' && !is_in(infos, n, infos[i].ppid))
			add_tree(d, &infos[i]);
	return 0;
}

/* Moving. */

static size_t pick_target(const struct hotplug_drain *d)
{
	uint64_t best_load = UINT64_MAX;
	size_t best = 0;

	for (size_t i = 0; i < d->n_targets; i++) {
		const struct membership_node *n =
			membership_node(d->h->n.membership, d->targets[i]);
		uint64_t load;

		if (!n || n->state != MEMBER_UP)
			continue;
		load = (n->load.running + 100ull * d->n_sent[i]) /
		       (n->load.n_cpus ? n->load.n_cpus : 1);
		if (load < best_load) {
			best_load = load;
			best = i;
		}
	}
	return best;
}

static void advance(struct hotplug_drain *d);

static void on_moved(void *owner, const struct migration_result *result)
{
	struct drain_tree *t = owner;
	struct hotplug_drain *d = t->drain;

	d->n_moving--;
	(void)snprintf(t->stay.reason, sizeof(t->stay.reason), "%s", result->text);
	if (result->status == RPC_OK || result->status == RPC_NOT_FOUND) {
		t->state = TREE_GONE;
		d->moved += result->status == RPC_OK && !d->look;
	} else if (result->status == RPC_CONFLICT) {
		t->state = TREE_GONE; /* seen again in the next round */
	} else {
		t->state = ++t->n_tried < TARGETS_TRIED && t->n_tried < d->n_targets ?
				   TREE_DUE :
				   TREE_STAYS;
	}
	hotplug_tell_progress(d->h, d->watcher, d->watch, d->moved, d->n_trees, "%s: %s",
			      hotplug_node_name(d->h, rpc_self(d->h->n.rpc)),
			      d->look ? "looking" : "moving");
	advance(d);
}

static void move(struct drain_tree *t)
{
	struct hotplug_drain *d = t->drain;
	struct migration_request request = {
		.pid = t->stay.pid,
		.dry_run = d->look,
		.timeout = d->deadline - env_now(d->h->n.env),
	};
	size_t target = pick_target(d);

	d->n_sent[target]++;
	request.target = d->targets[target];
	t->state = TREE_MOVING;
	d->n_moving++;
	if (migration_move(d->h->n.migration, &request, NULL, on_moved, t) == 0)
		return;
	d->n_moving--;
	t->state = TREE_STAYS;
	(void)snprintf(t->stay.reason, sizeof(t->stay.reason), "out of memory");
}

static void move_some(struct hotplug_drain *d)
{
	for (size_t i = 0; i < d->n_trees && d->n_moving < AT_ONCE_MAX; i++) {
		struct drain_tree *t = &d->trees[i];

		if (t->state == TREE_DUE && d->n_targets) {
			move(t);
		} else if (t->state == TREE_DUE) {
			t->state = TREE_STAYS;
			(void)snprintf(t->stay.reason, sizeof(t->stay.reason), "it is running");
		}
	}
}

/* Ending what cannot move. */

static void on_signalled(void *owner, enum rpc_status status, const char *text)
{
	(void)owner;
	(void)status;
	(void)text;
}

static void signal_all(struct hotplug_drain *d, int signal)
{
	static const struct process_caller root = { .uid = 0 };
	_cleanup_free_ struct process_info *infos = NULL;
	size_t n = 0;

	(void)process_list(d->h->n.process, &infos, &n);
	for (size_t i = 0; i < n; i++)
		(void)process_signal(d->h->n.process, infos[i].pid, signal, &root, on_signalled,
				     d->h);
}

static void end_all(struct hotplug_drain *d)
{
	if (!d->term_until) {
		d->ended = (uint32_t)d->n_trees;
		d->term_until = env_now(d->h->n.env) + TERM_MAX;
		for (size_t i = 0; i < d->n_trees; i++)
			log_notice("process %d (%s) is ended: %s", d->trees[i].stay.pid,
				   d->trees[i].stay.command, d->trees[i].stay.reason);
		signal_all(d, SIGTERM);
	} else if (env_now(d->h->n.env) >= d->term_until) {
		signal_all(d, SIGKILL);
	}
	tick(d);
}

/* Rounds. */

static void count_stays(struct hotplug_drain *d)
{
	d->stays = (struct hotplug_stays){ .n = 0 };
	for (size_t i = 0; i < d->n_trees; i++)
		if (d->trees[i].state == TREE_STAYS)
			hotplug_stays_add(&d->stays, &d->trees[i].stay);
}

/* Moves go on, or the round is over. */
static void advance(struct hotplug_drain *d)
{
	move_some(d);
	if (d->n_moving)
		return;
	count_stays(d);
	if (d->look)
		return finish(d, 0);
	if (!d->stays.n_all)
		return tick(d);
	if (!d->force)
		return finish(d, 0);
	d->stays = (struct hotplug_stays){ .n = 0 };
	end_all(d);
}

static void empty(struct hotplug_drain *d, const struct membership_node *self)
{
	if (d->give_up && membership_give_up(d->h->n.membership) != 0)
		return tick(d);
	(void)fault("hotplug.emptied");
	log_notice("this node is empty: %u trees of processes moved, %u ended", d->moved, d->ended);
	finish(d, self->incarnation);
}

static void on_timer(struct env_timer *timer)
{
	struct hotplug_drain *d = container_of(timer, struct hotplug_drain, timer);
	const struct membership_node *self =
		membership_node(d->h->n.membership, rpc_self(d->h->n.rpc));

	if (d->n_moving)
		return;
	if (env_now(d->h->n.env) >= d->deadline)
		return give_up(d, RPC_TIMEOUT, "it could not be emptied in the time that was given");
	if (d->leaving && self->state != MEMBER_LEAVING)
		return give_up(d, RPC_CONFLICT, "it is not being removed any more");
	/* From that view on nothing new comes. */
	if (d->give_up && !d->look && self->state != MEMBER_LEAVING)
		return tick(d);
	d->leaving = d->give_up && !d->look;
	if (find_trees(d) != 0)
		return give_up(d, RPC_FAILED, "its processes cannot be listed");
	if (!d->n_trees && !d->look)
		return empty(d, self);
	if (d->term_until)
		return end_all(d);
	advance(d);
}

static struct hotplug_drain *drain_new(struct hotplug *h, const Ssi__Hotplug__DrainRequest *q)
{
	struct hotplug_drain *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	*d = (struct hotplug_drain){
		.h = h,
		.look = q->look,
		.force = q->force,
		.give_up = q->give_up,
		.deadline = env_now(h->n.env) + q->timeout_ns,
		.targets = calloc(q->n_targets + 1, sizeof(*d->targets)),
		.n_sent = calloc(q->n_targets + 1, sizeof(*d->n_sent)),
		.n_targets = q->n_targets,
		.watcher = q->watcher,
		.watch = q->watch,
		.timer.cb = on_timer,
	};
	if (!d->targets || !d->n_sent) {
		free(d->targets);
		free(d->n_sent);
		free(d);
		return NULL;
	}
	for (size_t i = 0; i < q->n_targets; i++)
		d->targets[i] = q->targets[i];
	LIST_INSERT_HEAD(&h->drains, d, in);
	return d;
}

/* The one that the leader asks about again. */
static struct hotplug_drain *find_same(struct hotplug *h, const Ssi__Hotplug__DrainRequest *q)
{
	struct hotplug_drain *d;

	LIST_FOREACH(d, &h->drains, in)
		if (d->watch == q->watch && d->look == q->look)
			return d;
	return NULL;
}

void hotplug_drain_begin(struct hotplug *h, struct rpc_call *call,
			 const Ssi__Hotplug__DrainRequest *q)
{
	struct hotplug_drain *d = find_same(h, q);

	if (d) {
		rpc_fail(d->call, RPC_CONFLICT, "asked again");
		d->call = call;
		return;
	}
	d = drain_new(h, q);
	if (!d)
		return rpc_fail(call, RPC_FAILED, "out of memory");
	d->call = call;
	(void)env_arm(h->n.env, &d->timer, 0);
}

void hotplug_drains_free(struct hotplug *h)
{
	while (!LIST_EMPTY(&h->drains))
		drain_free(LIST_FIRST(&h->drains));
}
