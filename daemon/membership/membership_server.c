/*
 * A server: what the replicated log says, and whether this node leads.
 *
 * Happy path: a command is committed and applied here, in the log's order; this
 * node takes the view that it brings when the loop turns.  Elected, it becomes the
 * leader of membership with all that was committed before.
 *
 * Failure modes: a command that is none is skipped, by every server alike.  No
 * memory to apply one -> this ssid ends, its successor reads the log again: a server
 * that has missed a command must not go on.
 */
#include "membership_internal.h"

#include "err.h"
#include "log.h"

#include <inttypes.h>
#include <string.h>

static _Noreturn void cannot_go_on(const char *what, int error)
{
	log_error("%s: %s; starting again", what, strerror(-error));
	abort();
}

void membership_server_tell_self(struct membership *m)
{
	const struct membership_map *committed = m->state->map;
	struct membership_map *map;

	if (!committed->view->epoch ||
	    (m->map && m->map->view->epoch >= committed->view->epoch))
		return;
	if (membership_map_copy(&map, committed))
		log_warning("no memory for view %" PRIu64 ", taking it later",
			    committed->view->epoch);
	else
		membership_take_view(m, map);
}

static void on_tell(struct env_timer *timer)
{
	membership_server_tell_self(container_of(timer, struct membership, tell_timer));
}

static void on_apply(void *owner, uint64_t index, struct iovec command)
{
	struct membership *m = owner;
	int r = membership_state_apply(m->state, command);

	if (r == -ENOMEM)
		cannot_go_on("a committed command cannot be applied", r);
	if (r)
		log_error("command %" PRIu64 " of the cluster's log makes no sense, skipped",
			  index);
	(void)env_arm(m->env, &m->tell_timer, 0);
}

static int on_snapshot(void *owner, struct iovec *ret)
{
	return membership_state_pack(((struct membership *)owner)->state, ret);
}

static int on_restore(void *owner, struct iovec snapshot)
{
	struct membership *m = owner;
	_cleanup_(membership_state_freep) struct membership_state *state = NULL;
	int r;

	r = membership_state_new(&state);
	if (!r)
		r = membership_state_apply(state, snapshot);
	if (r)
		return err_fold(r);
	membership_state_free(m->state);
	m->state = TAKE(state);
	(void)env_arm(m->env, &m->tell_timer, 0);
	return 0;
}

static void on_leading(void *owner, bool leading, uint64_t term)
{
	struct membership *m = owner;
	int r;

	if (!leading) {
		log_notice("this node leads the cluster no more");
		membership_commit_refuse(m);
		m->leader = membership_leader_free(m);
		return;
	}
	log_notice("this node leads the cluster, term %" PRIu64, term);
	r = membership_leader_new(m);
	if (r)
		cannot_go_on("this node cannot lead", r);
}

static void on_leader(void *owner, node_id leader)
{
	struct membership *m = owner;

	if (leader != NODE_NONE)
		membership_find_referred(m, leader);
}

/* The leader's watch, a few times in a lease, puts them into the map. */
static void on_servers(void *owner)
{
	(void)owner;
}

int membership_server_new(struct membership *m)
{
	static const struct consensus_events events = {
		.apply = on_apply,
		.snapshot = on_snapshot,
		.restore = on_restore,
		.on_leading = on_leading,
		.on_leader = on_leader,
		.on_servers = on_servers,
	};
	struct consensus_config config = {
		.self = m->config.self,
		.address = m->config.address,
		.bootstrap = m->config.self == m->config.leader,
	};
	int r;

	m->tell_timer.cb = on_tell;
	r = membership_state_new(&m->state);
	if (!r)
		r = consensus_new(&m->consensus, m->env, m->store, m->rpc, &config, &events, m);
	return err_fold(r);
}
