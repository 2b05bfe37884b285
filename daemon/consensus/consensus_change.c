/*
 * The servers change, the leader hands over.
 *
 * Happy path: one step of libraft after the other (add as spare, standby, voter; or
 * remove) until the node is what was asked for; each is a commit of its own.
 *
 * A leader does not touch its own role: it would have to be elected once more by a log
 * that says that it is no voter, if it dies before that is known to the others, and
 * libraft elects nobody so.  It hands over first.
 *
 * Failure modes: leadership is lost -> CONSENSUS_E_LOST, and whoever leads next finds
 * the servers as far as they came.  A standby does not catch up -> CONSENSUS_E_STUCK,
 * it stays a standby.
 */
#include "consensus_internal.h"

#include "err.h"

#include <string.h>

enum { MAX_STEPS = 6 };

static void change_end(struct consensus *c, int result)
{
	c->change.ended = true;
	c->change.result = result;
	consensus_turn(c);
}

static void on_changed(struct raft_change *req, int status)
{
	struct consensus *c = req->data;

	c->change.under_way = false;
	if (status == RAFT_NOCONNECTION)
		change_end(c, CONSENSUS_E_STUCK);
	else if (status)
		change_end(c, CONSENSUS_E_LOST);
	else
		c->change.next = true;
	consensus_turn(c);
}

/* What brings @is nearer to what is wanted; 1: nothing is left to do. */
static int step(struct consensus *c, const struct consensus_server *is)
{
	struct consensus_change *ch = &c->change;
	const struct consensus_server *wanted = &ch->wanted;
	struct raft *r = &c->raft;

	if (!is)
		return wanted->role == CONSENSUS_NONE
			       ? -1
			       : raft_add(r, &ch->change, wanted->node, wanted->address,
					  on_changed);
	if (wanted->role == CONSENSUS_NONE || strcmp(is->address, wanted->address) != 0)
		return raft_remove(r, &ch->change, wanted->node, on_changed);
	if (is->role == wanted->role)
		return -1;
	if (is->role == CONSENSUS_NONE || wanted->role == CONSENSUS_STANDBY)
		return raft_assign(r, &ch->change, wanted->node, RAFT_STANDBY,
				   on_changed);
	return raft_assign(r, &ch->change, wanted->node, RAFT_VOTER, on_changed);
}

void consensus_change_next(struct consensus *c)
{
	struct consensus_change *ch = &c->change;
	int r;

	if (!ch->done || !ch->next || ch->ended)
		return;
	ch->next = false;
	consensus_enter(c);
	r = step(c, consensus_servers_find(&c->committed.servers, ch->wanted.node));
	if (r == -1) {
		change_end(c, 0);
	} else if (r == RAFT_NOTLEADER || ++ch->n_steps > MAX_STEPS) {
		change_end(c, CONSENSUS_E_LOST);
	} else if (r == RAFT_CANTCHANGE) {
		/* What another leader began is not committed yet: it will be. */
		change_end(c, CONSENSUS_E_BUSY);
	} else if (r) {
		change_end(c, err_origin(r == RAFT_NOMEM ? -ENOMEM : -EINVAL));
	} else {
		ch->under_way = true;
	}
	consensus_leave(c);
}

static bool is_taken(const struct consensus *c, node_id node, const char *address)
{
	const struct consensus_servers *s = &c->committed.servers;

	for (size_t i = 0; i < s->n; i++)
		if (s->of[i].node != node && !strcmp(s->of[i].address, address))
			return true;
	return false;
}

int consensus_set_role(struct consensus *c, node_id node, const char *address,
		       enum consensus_role role, consensus_done_cb done, void *owner)
{
	const struct consensus_server *is =
		consensus_servers_find(&c->committed.servers, node);
	struct consensus_server wanted = {.node = node, .role = role};

	if (!consensus_leads(c))
		return CONSENSUS_E_NOT_LEADER;
	if (c->change.done || c->hand_over.done ||
	    c->raft.configuration_uncommitted_index)
		return CONSENSUS_E_BUSY;
	if (node == NODE_NONE || role < CONSENSUS_NONE || role > CONSENSUS_VOTER ||
	    !*address || strlen(address) >= sizeof(wanted.address) ||
	    (node == c->config.self &&
	     (role != CONSENSUS_VOTER || (is && strcmp(is->address, address) != 0))) ||
	    (role != CONSENSUS_NONE && is_taken(c, node, address)) ||
	    (!is && role != CONSENSUS_NONE &&
	     c->committed.servers.n == CONSENSUS_MAX_SERVERS))
		return err_origin(-EINVAL);
	memcpy(wanted.address, address, strlen(address) + 1);
	c->change = (struct consensus_change){.change.data = c,
					      .wanted = wanted,
					      .done = done,
					      .owner = owner,
					      .next = true};
	consensus_turn(c);
	return 0;
}

/* Handing over. */

static void on_transferred(struct raft_transfer *req)
{
	struct consensus *c = req->data;
	raft_id leader;
	const char *address;

	raft_leader(&c->raft, &leader, &address);
	c->hand_over.ended = true;
	c->hand_over.result = c->raft.state == RAFT_LEADER ? CONSENSUS_E_STUCK
			      : leader			   ? 0
							   : CONSENSUS_E_LOST;
	consensus_turn(c);
}

int consensus_transfer(struct consensus *c, node_id node, consensus_done_cb done,
		       void *owner)
{
	int r;

	if (!consensus_leads(c))
		return CONSENSUS_E_NOT_LEADER;
	if (c->change.done || c->hand_over.done || c->raft.transfer)
		return CONSENSUS_E_BUSY;
	c->hand_over = (struct consensus_hand_over){.transfer.data = c, .owner = owner};
	consensus_enter(c);
	r = raft_transfer(&c->raft, &c->hand_over.transfer, node, on_transferred);
	if (!r)
		c->hand_over.done = done;
	consensus_leave(c);
	return r ? err_origin(-EINVAL) : 0;
}

void consensus_change_tell(struct consensus *c)
{
	struct consensus_change change = c->change;
	struct consensus_hand_over h = c->hand_over;

	if (change.done && change.ended) {
		c->change.done = NULL;
		change.done(change.owner, change.result);
	}
	if (h.done && h.ended) {
		c->hand_over.done = NULL;
		h.done(h.owner, h.result);
	}
}
