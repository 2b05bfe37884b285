/*
 * This node's ssid is to stop, in order: the others lead and decide without it.
 *
 * Happy path: a leader hands over; the only voter gives somebody else a vote first, and waits
 * until the new leader, who sees one voter too many, has taken its own.
 *
 * Votes of three and more stay as they are, also when too few others are up: with them
 * every decision is on two disks, and machines that are all switched off in order would leave
 * the last one alone with it.
 *
 * Failure modes: nobody can, or not in time -> it stops anyway, as if it was killed.
 */
#include "membership_internal.h"

#include "err.h"

#include <errno.h>

enum {
	PATIENCE_LEASES = 2,
	LOOK_FRACTION = 40, /* of a lease, between looks */
};

/* How many there are by the log; is this node one of them? */
static size_t n_voters(const struct membership *m, bool *ret_self)
{
	size_t n, n_voters = 0;
	const struct consensus_server *s = consensus_servers(m->consensus, &n);

	*ret_self = false;
	for (size_t i = 0; i < n; i++) {
		n_voters += s[i].role == CONSENSUS_VOTER;
		*ret_self |= s[i].role == CONSENSUS_VOTER && s[i].node == m->config.self;
	}
	return n_voters;
}

/* Who is out of the servers hears of it by the view alone. */
static bool is_one_of_two(const struct membership *m)
{
	const struct membership_node *self = membership_node(m, m->config.self);
	bool votes;

	return n_voters(m, &votes) == 2 && votes && self && (self->voter || m->leader);
}

static void on_look(struct env_timer *timer)
{
	struct membership *m = container_of(timer, struct membership, retire.timer);
	nsec_t now = env_now(m->env);
	void (*done)(void *owner) = m->retire.done;

	if (now < m->retire.until && (m->retire.handing || is_one_of_two(m))) {
		(void)env_arm(m->env, &m->retire.timer, m->config.lease / LOOK_FRACTION);
		return;
	}
	m->retire.done = NULL;
	if (done)
		done(m->retire.owner);
}

static void on_handed(void *owner, int result)
{
	((struct membership *)owner)->retire.handing = false;
}

/* Who leads then; NODE_NONE: one of the other voters. */
static node_id heir(struct membership *m)
{
	const struct membership_view *view = m->map->view;
	bool votes;

	for (size_t i = 0; n_voters(m, &votes) == 1 && i < view->n_nodes; i++)
		if (view->nodes[i].state == MEMBER_UP && view->nodes[i].id != m->config.self &&
		    membership_leader_has_heard(m, view->nodes[i].id))
			return view->nodes[i].id;
	return NODE_NONE;
}

int membership_retire(struct membership *m, void (*done)(void *owner), void *owner)
{
	if (m->retire.done)
		return err_origin(-EALREADY);
	m->retire.done = done;
	m->retire.owner = owner;
	m->retire.until = env_now(m->env) + PATIENCE_LEASES * m->config.lease;
	m->retire.timer.cb = on_look;
	m->retire.handing = m->leader && m->map && !membership_hand_over(m, heir(m), on_handed, m);
	return env_arm(m->env, &m->retire.timer, 0);
}
