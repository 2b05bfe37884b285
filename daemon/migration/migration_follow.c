/*
 * What became of a move whose mover is gone?
 *
 * Happy path: the target is asked whether the process stands there, then the source,
 * again and again, until one of them has it and does not move it any more.
 *
 * Failure modes: neither has it, repeatedly -> it has ended; neither answers in time ->
 * the asker is told what is known.
 */
#include "migration_wire.h"

#include "cleanup.h"

static const nsec_t FOLLOW_MAX = 40 * NSEC_PER_SEC;
static const nsec_t PAUSE = 300 * NSEC_PER_MSEC;
static const nsec_t CALL_MAX = 3 * NSEC_PER_SEC;
enum { ABSENT_MAX = 5 };

static const char *node_name(const struct migration_watch *w, node_id id)
{
	const struct membership_node *n = membership_node(w->room->n.membership, id);

	return n ? n->name : "?";
}

static void ask(struct migration_watch *w, node_id node, rpc_done_cb done)
{
	Ssi__Migration__StandRequest q = SSI__MIGRATION__STAND_REQUEST__INIT;

	q.pid = w->request.pid;
	if (rpc_call(w->room->n.rpc, node, MIGRATION_STAND, &q.base, RPC_NO_BULK,
		     CALL_MAX, done, w, NULL) != 0)
		migration_watch_fail(w, RPC_FAILED, "out of memory");
}

static void once_more(struct migration_watch *w)
{
	const char *from = node_name(w, w->from), *to = node_name(w, w->request.target);

	if (w->n_absent >= ABSENT_MAX)
		return migration_watch_fail(w, RPC_NOT_FOUND, "process %d has ended",
					    w->request.pid);
	if (env_now(w->room->n.env) < w->follow_until &&
	    env_arm(w->room->n.env, &w->again, PAUSE) == 0)
		return;
	migration_watch_fail(w, RPC_DOWN,
			     "%s does not answer, and %s does not run process %d: see "
			     "ssi-ps when it is back",
			     from, to, w->request.pid);
}

static void on_source(void *owner, const struct rpc_result *result)
{
	const Ssi__Migration__StandReply *reply = (const void *)result->reply;
	struct migration_watch *w = owner;

	if (result->status == RPC_OK && reply->here && !reply->moving)
		return migration_watch_fail(
			w, RPC_FAILED,
			"process %d has not moved and goes on on %s: an "
			"ssid ended in the middle, try again",
			w->request.pid, node_name(w, w->from));
	if (result->status == RPC_OK && !reply->here && !reply->moving)
		w->n_absent++;
	else
		w->n_absent = 0;
	once_more(w);
}

static void on_target(void *owner, const struct rpc_result *result)
{
	const Ssi__Migration__StandReply *reply = (const void *)result->reply;
	struct migration_watch *w = owner;

	if (result->status == RPC_OK && reply->here && !reply->moving)
		return migration_watch_end(
			w, &(struct migration_result){.status = RPC_OK});
	ask(w, w->from, on_source);
}

static void on_again(struct env_timer *timer)
{
	struct migration_watch *w = container_of(timer, struct migration_watch, again);

	ask(w, w->request.target, on_target);
}

void migration_follow(struct migration_watch *w)
{
	w->again.cb = on_again;
	w->follow_until = env_now(w->room->n.env) + FOLLOW_MAX;
	once_more(w);
}

void migration_on_stand(struct migration_room *m, struct rpc_call *call, pid_t pid)
{
	Ssi__Migration__StandReply reply = SSI__MIGRATION__STAND_REPLY__INIT;
	struct process_record record;

	if (process_record(m->n.process, pid, &record) == 0) {
		reply.here =
			record.state == PROCESS_HERE || record.state == PROCESS_GUEST;
		reply.moving = record.moving;
	}
	rpc_reply(call, &reply.base, RPC_NO_BULK);
}
