/*
 * The other nodes: who is in the view, and by which link they are reached.
 *
 * Happy path: the first request for a node opens a link to its address in the
 * view; later ones take the same link, whoever opened it.  A link without work
 * for a minute is closed.
 *
 * Failure modes: no link comes up -> what waits ends with RPC_DOWN.  Both nodes
 * open one at the same time -> requests take the one that the lower id opened,
 * the other is closed when it has no work left.  A second link long after the
 * first, or from the same opener, means that the peer has lost the first.  A
 * node leaves the view -> its requests end, its links are closed; those of a server
 * stay, since the rooms below views talk to it on them.  It was out of the cluster
 * and is in again -> its requests end, since it may have given up what they are about.
 */
#include "rpc_internal.h"

#include "err.h"

#include <string.h>

static struct rpc_remote *remote_find(const struct rpc *rpc, node_id node)
{
	struct rpc_remote *remote;

	HASH_FIND(hh, rpc->remotes, &node, sizeof(node), remote);
	return remote;
}

struct rpc_remote *rpc_remote_get(struct rpc *rpc, node_id node)
{
	struct rpc_remote *remote = remote_find(rpc, node);

	if (remote)
		return remote;
	remote = calloc(1, sizeof(*remote));
	if (!remote)
		return NULL;
	remote->rpc = rpc;
	remote->node = node;
	TAILQ_INIT(&remote->waiting);
	LIST_INIT(&remote->links);
	HASH_ADD(hh, rpc->remotes, node, sizeof(node), remote);
	if (!remote->hh.tbl) {
		free(remote);
		return NULL;
	}
	return remote;
}

static void remote_free(struct rpc_remote *remote)
{
	HASH_DEL(remote->rpc->remotes, remote);
	free(remote->address);
	free(remote->server_address);
	free(remote);
}

static void remote_free_unused(struct rpc_remote *remote)
{
	if (!remote->in_view && !remote->server_address && LIST_EMPTY(&remote->links) && !remote->n_calls &&
	    TAILQ_EMPTY(&remote->waiting))
		remote_free(remote);
}

void rpc_remotes_fini(struct rpc *rpc)
{
	struct rpc_remote *remote, *next;
	struct rpc_link *link;

	HASH_ITER(hh, rpc->remotes, remote, next) {
		while ((link = LIST_FIRST(&remote->links)))
			(void)rpc_link_free(link);
		remote_free(remote);
	}
}

void rpc_remote_fail(struct rpc_remote *remote, bool all, const char *reason)
{
	struct rpc_request *q, *next;

	for (q = TAILQ_FIRST(&remote->waiting); q; q = next) {
		next = TAILQ_NEXT(q, in);
		if (all || !rpc_is_below_views(q->method->id))
			rpc_request_end(q, RPC_DOWN, "node %s: %s",
					rpc_name(remote->rpc, remote->node), reason);
	}
}

bool rpc_remote_is_in(const struct rpc_remote *remote, uint16_t method)
{
	if (rpc_is_below_views(method))
		return remote->in_view || remote->server_address;
	return remote->in_view && remote->since != RPC_NEVER;
}

static bool is_race(const struct rpc_link *a, const struct rpc_link *b)
{
	return a->up_at < b->up_at + RPC_RACE && b->up_at < a->up_at + RPC_RACE;
}

/* Both nodes come to the same answer, since they know who opened which. */
static bool is_better(const struct rpc_link *a, const struct rpc_link *b)
{
	bool self_is_lower = a->rpc->self < a->remote->node;

	if (a->opened_here != b->opened_here && is_race(a, b))
		return a->opened_here == self_is_lower;
	return a->up_at > b->up_at;
}

void rpc_remote_choose(struct rpc_remote *remote)
{
	struct rpc_link *best = NULL, *link;

	LIST_FOREACH(link, &remote->links, in)
		if (link->up && !link->closing && (!best || is_better(link, best)))
			best = link;
	remote->link = best;
	LIST_FOREACH(link, &remote->links, in)
		if (link != best && link->up && !link->closing &&
		    (link->opened_here == best->opened_here || !is_race(link, best)))
			rpc_link_close(link, "replaced by a newer link");
}

void rpc_remote_push(struct rpc_remote *remote)
{
	struct rpc_request *q;
	int r;

	while ((q = TAILQ_FIRST(&remote->waiting))) {
		if (!remote->link) {
			if (!remote->opening && rpc_link_open(remote))
				rpc_remote_fail(remote, true, "cannot open a link");
			return;
		}
		if (remote->link->full)
			return;
		r = rpc_link_send_request(remote->link, q);
		if (r == TRANSPORT_E_FULL) {
			remote->link->full = true;
		} else if (r > 0) {
			remote->link->closing = true;
			rpc_remote_choose(remote);
		} else if (r < 0) {
			rpc_request_end(q, RPC_FAILED, "node %s: cannot send: %s",
					rpc_name(remote->rpc, remote->node), strerror(-r));
		}
	}
}

void rpc_remote_submit(struct rpc_request *q)
{
	struct rpc *rpc = q->rpc;
	struct rpc_remote *remote = remote_find(rpc, q->node);
	size_t len = q->message_len + q->bulk_len;

	if (!remote || !rpc_remote_is_in(remote, q->method->id)) {
		rpc_request_end(q, RPC_DOWN, "node %s is not in view %llu",
				rpc_name(rpc, q->node),
				(unsigned long long)rpc->epoch);
		return;
	}
	if (!rpc->transport) {
		rpc_request_end(q, RPC_DOWN, "this node has no network yet");
		return;
	}
	if (remote->n_waiting >= RPC_MAX_WAITING ||
	    remote->waiting_bytes + len > RPC_MAX_WAITING_BYTES) {
		rpc_request_end(q, RPC_CONFLICT, "too much waits to be sent to node %s",
				rpc_name(rpc, q->node));
		return;
	}
	rpc_request_detach(q);
	sm_move(&q->sm, REQUEST_WAITING);
	q->remote = remote;
	TAILQ_INSERT_TAIL(&remote->waiting, q, in);
	remote->n_waiting++;
	remote->waiting_bytes += len;
	rpc_remote_push(remote);
}

size_t rpc_queued(struct rpc *rpc, node_id node)
{
	struct rpc_remote *remote = remote_find(rpc, node);

	return remote ? remote->waiting_bytes : 0;
}

void rpc_remote_silent(struct rpc_remote *remote, nsec_t since)
{
	if (!remote->silent_since && since > remote->heard)
		remote->silent_since = since;
}

void rpc_remote_heard(struct rpc_remote *remote)
{
	remote->heard = env_now(remote->rpc->env);
	remote->silent_since = 0;
}

nsec_t rpc_silent_since(const struct rpc *rpc, node_id node)
{
	const struct rpc_remote *remote = remote_find(rpc, node);

	return remote && remote->in_view ? remote->silent_since : 0;
}

void rpc_remote_early(struct rpc_request *q, const char *text)
{
	struct rpc *rpc = q->rpc;

	rpc_request_detach(q);
	sm_move(&q->sm, REQUEST_EARLY);
	(void)strncpy(q->text, text, sizeof(q->text) - 1);
	TAILQ_INSERT_TAIL(&rpc->early, q, in);
	if (TAILQ_FIRST(&rpc->early) == q)
		(void)env_arm(rpc->env, &rpc->again, RPC_AGAIN);
}

void rpc_on_again(struct env_timer *timer)
{
	struct rpc *rpc = container_of(timer, struct rpc, again);
	struct rpc_request *q;

	/* None comes into the list in here. */
	while ((q = TAILQ_FIRST(&rpc->early)))
		rpc_remote_submit(q);
}

static void fail(struct rpc_remote *remote, bool all, const char *reason)
{
	struct rpc_link *link;

	rpc_remote_fail(remote, all, reason);
	LIST_FOREACH(link, &remote->links, in)
		rpc_link_fail(link, all, reason);
}

static void leave_view(struct rpc_remote *remote)
{
	struct rpc_link *link;

	remote->in_view = false;
	fail(remote, true, "it is no longer in the view");
	if (remote->server_address)
		return;
	LIST_FOREACH(link, &remote->links, in)
		rpc_link_close(link, "the node is no longer in the view");
}

static void enter_view(struct rpc_remote *remote)
{
	if (remote->in_view && remote->since != remote->next_since)
		fail(remote, false, "it was out of the cluster");
	if (!remote->in_view || remote->since != remote->next_since)
		remote->silent_since = 0;
	remote->in_view = true;
	remote->since = remote->next_since;
}

static int set_address(char **address, const char *wanted)
{
	char *copy;

	if (*address && !strcmp(*address, wanted))
		return 0;
	copy = strdup(wanted);
	if (!copy)
		return err_origin(-ENOMEM);
	free(*address);
	*address = copy;
	return 0;
}

/* All that can fail, before anything changes. */
static int view_prepare(struct rpc *rpc, const struct rpc_peer *peers, size_t n_peers)
{
	for (size_t i = 0; i < n_peers; i++) {
		struct rpc_remote *remote;
		int r;

		if (peers[i].node == rpc->self)
			continue;
		remote = rpc_remote_get(rpc, peers[i].node);
		if (!remote)
			return err_origin(-ENOMEM);
		r = set_address(&remote->address, peers[i].address);
		if (r)
			return r;
	}
	return 0;
}

int rpc_set_view(struct rpc *rpc, epoch_t epoch, const struct rpc_peer *peers, size_t n_peers)
{
	struct rpc_remote *remote, *next;
	int r;

	r = view_prepare(rpc, peers, n_peers);
	if (r)
		return r;
	HASH_ITER(hh, rpc->remotes, remote, next)
		remote->seen = false;
	for (size_t i = 0; i < n_peers; i++) {
		if (peers[i].node == rpc->self) {
			rpc->since = peers[i].since;
			continue;
		}
		remote = remote_find(rpc, peers[i].node);
		remote->seen = true;
		remote->next_since = peers[i].since;
	}
	rpc->epoch = epoch;
	HASH_ITER(hh, rpc->remotes, remote, next) {
		if (remote->seen)
			enter_view(remote);
		else if (remote->in_view)
			leave_view(remote);
	}
	return 0;
}

/* A server no more: outside of the view it is nobody. */
static void leave_servers(struct rpc_remote *remote)
{
	struct rpc_link *link;

	free(TAKE(remote->server_address));
	if (remote->in_view)
		return;
	fail(remote, true, "it is no longer a server");
	LIST_FOREACH(link, &remote->links, in)
		rpc_link_close(link, "the node is no longer a server");
}

int rpc_set_servers(struct rpc *rpc, const struct rpc_peer *servers, size_t n_servers)
{
	struct rpc_remote *remote, *next;

	HASH_ITER(hh, rpc->remotes, remote, next)
		remote->seen = false;
	for (size_t i = 0; i < n_servers; i++) {
		int r;

		if (servers[i].node == rpc->self)
			continue;
		remote = rpc_remote_get(rpc, servers[i].node);
		if (!remote)
			return err_origin(-ENOMEM);
		r = set_address(&remote->server_address, servers[i].address);
		if (r)
			return r;
		remote->seen = true;
	}
	HASH_ITER(hh, rpc->remotes, remote, next)
		if (!remote->seen && remote->server_address)
			leave_servers(remote);
	return 0;
}

void rpc_on_sweep(struct env_timer *timer)
{
	struct rpc *rpc = container_of(timer, struct rpc, sweep);
	nsec_t now = env_now(rpc->env);
	struct rpc_remote *remote, *next;
	struct rpc_link *link;

	HASH_ITER(hh, rpc->remotes, remote, next) {
		LIST_FOREACH(link, &remote->links, in) {
			nsec_t limit = link == remote->link ? RPC_IDLE : RPC_EXTRA_IDLE;

			if (link->up && !link->closing && rpc_link_is_idle(link) &&
			    now - link->active_at >= limit)
				rpc_link_close(link, "idle");
		}
		remote_free_unused(remote);
	}
	(void)env_arm(rpc->env, &rpc->sweep, RPC_SWEEP);
}
