/*
 * Which servers there are, as the log says.
 *
 * Happy path: every entry that changes them is noted when it is appended, becomes
 * committed when it is applied, and with that is known to the owner.
 *
 * Failure modes: entries are truncated -> what they said is, and libraft's
 * configuration is set to what the log says now.  libraft's own way back is not taken:
 * it needs the entry of the committed configuration, which a snapshot may have
 * replaced, and knows of no change that it read from the store.
 */
#include "consensus_internal.h"

#include "err.h"
#include "log.h"

#include <string.h>

const struct consensus_server *consensus_servers_find(const struct consensus_servers *s,
						      node_id node)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->of[i].node == node)
			return &s->of[i];
	return NULL;
}

size_t consensus_servers_n_voters(const struct consensus_servers *s)
{
	size_t n = 0;

	for (size_t i = 0; i < s->n; i++)
		n += s->of[i].role == CONSENSUS_VOTER;
	return n;
}

/* libraft: a server that has no log yet is a spare. */
static int to_raft(enum consensus_role role)
{
	return role == CONSENSUS_VOTER	   ? RAFT_VOTER
	       : role == CONSENSUS_STANDBY ? RAFT_STANDBY
					   : RAFT_SPARE;
}

static int add(struct consensus_servers *s, uint64_t id, const char *address,
	       size_t len, int role)
{
	static const enum consensus_role roles[] = {[RAFT_STANDBY] = CONSENSUS_STANDBY,
						    [RAFT_VOTER] = CONSENSUS_VOTER,
						    [RAFT_SPARE] = CONSENSUS_NONE};
	struct consensus_server *server;

	if (s->n == CONSENSUS_MAX_SERVERS || !id || id > UINT32_MAX || !len ||
	    len >= sizeof(server->address) || role < 0 || role > RAFT_SPARE ||
	    consensus_servers_find(s, (node_id)id))
		return err_origin(-EBADMSG);
	for (size_t i = 0; i < s->n; i++)
		if (!strcmp(s->of[i].address, address))
			return err_origin(-EBADMSG);
	server = &s->of[s->n++];
	server->node = (node_id)id;
	server->role = roles[role];
	memcpy(server->address, address, len + 1);
	return 0;
}

/* A byte of version, 8 of number; of each server 8 of id, the address with its zero,
 * one of role; zeroes up to a multiple of 8.  Numbers are little-endian. */
int consensus_servers_unpack(struct iovec bytes, struct consensus_servers *ret)
{
	const uint8_t *p = bytes.iov_base, *end = p + bytes.iov_len;
	uint64_t n, id;
	int r;

	ret->n = 0;
	if (bytes.iov_len < 1 + sizeof(n) || *p++ != 1)
		return err_origin(-EBADMSG);
	memcpy(&n, p, sizeof(n));
	p += sizeof(n);
	n = le64toh(n);
	if (!n || n > CONSENSUS_MAX_SERVERS)
		return err_origin(-EBADMSG);
	while (n--) {
		const uint8_t *zero;

		if ((size_t)(end - p) < sizeof(id))
			return err_origin(-EBADMSG);
		memcpy(&id, p, sizeof(id));
		p += sizeof(id);
		zero = memchr(p, 0, (size_t)(end - p));
		if (!zero || zero + 1 == end)
			return err_origin(-EBADMSG);
		r = add(ret, le64toh(id), (const char *)p, (size_t)(zero - p), zero[1]);
		if (r)
			return r;
		p = zero + 2;
	}
	return end - p < 8 ? 0 : err_origin(-EBADMSG);
}

int consensus_servers_from(const struct raft_configuration *conf,
			   struct consensus_servers *ret)
{
	ret->n = 0;
	for (unsigned i = 0; i < conf->n; i++) {
		const struct raft_server *s = &conf->servers[i];
		int r = add(ret, s->id, s->address, strlen(s->address), s->role);

		if (r)
			return r;
	}
	return 0;
}

int consensus_servers_to(const struct consensus_servers *s,
			 struct raft_configuration *ret)
{
	raft_configuration_init(ret);
	for (size_t i = 0; i < s->n; i++)
		if (raft_configuration_add(ret, s->of[i].node, s->of[i].address,
					   to_raft(s->of[i].role))) {
			raft_configuration_close(ret);
			return err_origin(-ENOMEM);
		}
	return 0;
}

int consensus_servers_pack(const struct consensus_servers *s, struct raft_buffer *ret)
{
	struct raft_configuration conf;
	int r;

	r = consensus_servers_to(s, &conf);
	if (r)
		return r;
	r = raft_configuration_encode(&conf, ret) ? err_origin(-ENOMEM) : 0;
	raft_configuration_close(&conf);
	return r;
}

const struct consensus_servers_at *consensus_servers_last(const struct consensus *c)
{
	return consensus_servers_at(c, UINT64_MAX);
}

const struct consensus_servers_at *consensus_servers_at(const struct consensus *c,
							uint64_t index)
{
	const struct consensus_servers_at *at = &c->committed, *next;

	STAILQ_FOREACH (next, &c->pending, in)
		if (next->index <= index)
			at = next;
	return at;
}

int consensus_servers_append(struct consensus *c, uint64_t index, struct iovec bytes)
{
	struct consensus_servers_at *at = calloc(1, sizeof(*at));
	int r;

	if (!at)
		return err_origin(-ENOMEM);
	r = consensus_servers_unpack(bytes, &at->servers);
	if (r) {
		free(at);
		return r;
	}
	at->index = index;
	STAILQ_INSERT_TAIL(&c->pending, at, in);
	c->servers_changed = true;
	return 0;
}

/* libraft takes what the log says. */
static void set_configuration(struct consensus *c)
{
	const struct consensus_servers_at *last = consensus_servers_last(c);
	struct raft_configuration conf;

	if (consensus_servers_to(&last->servers, &conf)) {
		consensus_break(c);
		return;
	}
	raft_configuration_close(&c->raft.configuration);
	c->raft.configuration = conf;
	c->raft.configuration_index = last->index;
	c->raft.configuration_uncommitted_index = 0;
}

void consensus_servers_truncate(struct consensus *c, uint64_t index)
{
	struct consensus_servers_list keep = STAILQ_HEAD_INITIALIZER(keep);
	struct consensus_servers_at *at;
	bool gone = false;

	while ((at = STAILQ_FIRST(&c->pending))) {
		STAILQ_REMOVE_HEAD(&c->pending, in);
		if (at->index < index) {
			STAILQ_INSERT_TAIL(&keep, at, in);
			continue;
		}
		gone = true;
		free(at);
	}
	STAILQ_CONCAT(&c->pending, &keep);
	c->servers_changed = true;
	if (gone)
		set_configuration(c);
}

void consensus_servers_reset(struct consensus *c,
			     const struct consensus_servers_at *committed)
{
	struct consensus_servers_at *at;

	while ((at = STAILQ_FIRST(&c->pending))) {
		STAILQ_REMOVE_HEAD(&c->pending, in);
		free(at);
	}
	if (committed)
		c->committed = *committed;
	c->servers_changed = true;
}

static int by_node(const void *a, const void *b)
{
	node_id x = ((const struct consensus_server *)a)->node,
		y = ((const struct consensus_server *)b)->node;

	return (x > y) - (x < y);
}

void consensus_servers_commit(struct consensus *c)
{
	struct consensus_servers_at *at;

	while ((at = STAILQ_FIRST(&c->pending)) && at->index <= c->raft.last_applied) {
		STAILQ_REMOVE_HEAD(&c->pending, in);
		c->committed = *at;
		free(at);
		c->servers_changed = true;
	}
	/* A new instance begins at its snapshot: what is known already stays known. */
	if (c->committed.index <= c->known.index)
		return;
	c->known = c->committed;
	qsort(c->known.servers.of, c->known.servers.n, sizeof(c->known.servers.of[0]),
	      by_node);
	consensus_turn(c);
}

struct consensus_peer *consensus_peer(struct consensus *c, node_id node)
{
	for (size_t i = 0; i < c->n_peers; i++)
		if (c->peers[i].node == node)
			return &c->peers[i];
	return NULL;
}

static void add_peers(struct consensus *c, const struct consensus_server *servers,
		      size_t n, struct consensus_peer *peers,
		      struct rpc_peer *addresses, size_t *n_peers)
{
	for (size_t i = 0; i < n; i++) {
		const struct consensus_peer *old = consensus_peer(c, servers[i].node);
		size_t j = 0;

		while (j < *n_peers && peers[j].node != servers[i].node)
			j++;
		if (j < *n_peers || j > CONSENSUS_MAX_SERVERS ||
		    servers[i].node == c->config.self)
			continue;
		peers[j] =
			old ? *old : (struct consensus_peer){.node = servers[i].node};
		addresses[j] = (struct rpc_peer){servers[i].node, servers[i].address};
		++*n_peers;
	}
}

void consensus_servers_tell_rpc(struct consensus *c)
{
	const struct consensus_servers_at *last = consensus_servers_last(c);
	struct consensus_peer peers[CONSENSUS_MAX_SERVERS + 1];
	struct rpc_peer addresses[CONSENSUS_MAX_SERVERS + 1];
	size_t n = 0;

	c->servers_changed = false;
	/* The leader first: whoever sent last is answered. */
	add_peers(c, &c->guest, c->guest.node != NODE_NONE, peers, addresses, &n);
	add_peers(c, last->servers.of, last->servers.n, peers, addresses, &n);
	add_peers(c, c->committed.servers.of, c->committed.servers.n, peers, addresses,
		  &n);
	if (rpc_set_servers(c->rpc, addresses, n)) {
		log_warning("cannot take the addresses of the servers: out of memory, "
			    "trying "
			    "again later");
		c->servers_changed = true;
	}
	memcpy(c->peers, peers, n * sizeof(*peers));
	c->n_peers = n;
}
