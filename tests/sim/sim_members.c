/*
 * Each machine counts once for what is waited for, when it is told a view that says so:
 * nothing is searched for after a step.
 */
#include "sim_members.h"

#include "cleanup.h"
#include "membership_token.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct machine {
	struct sim_members *s;
	unsigned slot;
	node_id id; /* 0: not a member yet */
	char name[16];
	char *token;
	struct rpc *rpc;
	struct membership *m;
	bool knows; /* what is waited for */
};

struct sim_members {
	struct world *w;
	unsigned n_machines, n_joined;
	node_id lost;	/* waited for; NODE_NONE: for n_up */
	unsigned n_up;
	unsigned n_running, n_knowing;
	epoch_t epoch;
	struct machine machines[]; /* 0 is none */
};

#define AGAIN (100 * NSEC_PER_MSEC)

static bool says_so(const struct sim_members *s, const struct membership_view *v)
{
	unsigned n = 0;

	for (size_t i = 0; i < v->n_nodes; i++) {
		if (s->lost && v->nodes[i].id == s->lost)
			return v->nodes[i].state == MEMBER_LOST;
		n += v->nodes[i].state == MEMBER_UP;
	}
	return !s->lost && n >= s->n_up;
}

static void set_knows(struct machine *n, bool knows)
{
	n->s->n_knowing += (unsigned)knows - (unsigned)n->knows;
	n->knows = knows;
}

static void on_view(void *owner, const struct membership_view *v)
{
	struct machine *n = owner;

	if (v->epoch > n->s->epoch)
		n->s->epoch = v->epoch;
	set_knows(n, says_so(n->s, v));
}

static void on_lease(void *owner, bool held)
{
	(void)owner;
	(void)held;
}

static void on_pid_block(void *owner, pid_t first, uint32_t count)
{
	(void)owner;
	(void)first;
	(void)count;
}

static void get_load(void *owner, struct membership_load *ret)
{
	const struct machine *n = owner;

	*ret = (struct membership_load){ .n_cpus = 64,
					 .running = n->slot,
					 .memory_total = 256ull << 30,
					 .memory_available = 200ull << 30,
					 .n_processes = 100 };
}

static int start(void *owner, unsigned slot)
{
	static const struct membership_events events = { on_view, on_lease, on_pid_block,
							 get_load, NULL };
	struct sim_members *s = owner;
	struct machine *n = &s->machines[slot];
	struct membership_config config = {
		.self = n->id,
		.name = n->name,
		.address = world_address(s->w, slot),
		.leader = 1,
		.leader_address = world_address(s->w, 1),
		.ca_pem = slot == 1 ? "CA" : NULL,
		.ca_key_pem = slot == 1 ? "KEY" : NULL,
	};

	world_check(s->w, !rpc_new(&n->rpc, world_env(s->w, slot), n->id), "rpc_new");
	world_listen(s->w, slot, rpc_events(), n->rpc);
	rpc_set_transport(n->rpc, world_transport(s->w, slot));
	world_check(s->w,
		    !membership_new(&n->m, world_env(s->w, slot), world_store(s->w, slot), n->rpc,
				    &config, &events, n),
		    "membership_new");
	s->n_running++;
	return 0;
}

static void kill_rooms(void *owner, unsigned slot)
{
	struct sim_members *s = owner;
	struct machine *n = &s->machines[slot];

	set_knows(n, false);
	n->m = membership_free(n->m);
	n->rpc = rpc_free(n->rpc);
	s->n_running--;
}

unsigned sim_members_leader(const struct sim_members *s)
{
	for (unsigned i = 1; i <= s->n_machines; i++)
		if (s->machines[i].m && membership_leads(s->machines[i].m))
			return i;
	return 0;
}

/* Joining. */

static void on_token(void *owner, int result, const char *text)
{
	struct machine *n = owner;

	world_check(n->s->w, !result, "no token for machine %u: %d", n->slot, result);
	n->token = strdup(text);
}

static void join(void *arg);

static void on_reply(void *owner, const uint8_t *data, size_t len)
{
	_cleanup_(membership_join_reply_fini) struct membership_join_reply reply = { 0 };
	struct machine *n = owner;
	struct world *w = n->s->w;

	world_check(w, !membership_join_reply_unpack((struct iovec){ (void *)data, len }, &reply),
		    "not a join reply");
	if (reply.status == JOIN_TRY_AGAIN) {
		(void)world_at(w, AGAIN, join, n);
		return;
	}
	world_check(w, reply.status == JOIN_ADMITTED, "machine %u is refused: %s", n->slot,
		    reply.text);
	n->id = reply.id;
	world_set_id(w, n->slot, n->id);
	world_boot(w, n->slot);
}

static void join(void *arg)
{
	struct machine *n = arg;
	unsigned leader = sim_members_leader(n->s);
	struct membership_join_request q = { .csr = (char *)"CSR" };
	struct membership_token token;
	_cleanup_free_ uint8_t *data = NULL;
	size_t len;

	world_check(n->s->w, leader && n->token && !membership_token_parse(n->token, &token),
		    "machine %u cannot join", n->slot);
	memcpy(q.secret, token.secret, sizeof(q.secret));
	strcpy(q.name, n->name);
	strcpy(q.address, world_address(n->s->w, n->slot));
	world_check(n->s->w, !membership_join_request_pack(&q, &data, &len), "no memory");
	membership_on_join(n->s->machines[leader].m, data, len, on_reply, n);
}

void sim_members_join(struct sim_members *s, unsigned n)
{
	unsigned first = s->n_joined + 1, leader = sim_members_leader(s);

	world_check(s->w, leader && s->n_joined + n <= s->n_machines, "nobody to join, or by");
	for (unsigned i = 0; i < n; i++)
		world_check(s->w,
			    !membership_new_token(s->machines[leader].m, 3600 * NSEC_PER_SEC,
						  on_token, &s->machines[first + i]),
			    "no token");
	world_run(s->w, NSEC_PER_SEC);
	for (unsigned i = 0; i < n; i++)
		join(&s->machines[first + i]);
	s->n_joined += n;
}

/* Waiting. */

static nsec_t until_known(struct sim_members *s, nsec_t limit)
{
	nsec_t since = world_now(s->w);

	for (unsigned i = 1; i <= s->n_machines; i++)
		if (s->machines[i].m)
			set_knows(&s->machines[i],
				  membership_view(s->machines[i].m) &&
					  says_so(s, membership_view(s->machines[i].m)));
	while (s->n_knowing < s->n_running || (!s->lost && s->n_running < s->n_up))
		world_check(s->w, world_step(s->w) && world_now(s->w) - since <= limit,
			    "%u of %u machines know it, view %" PRIu64, s->n_knowing,
			    s->n_running, s->epoch);
	return world_now(s->w) - since;
}

nsec_t sim_members_until_up(struct sim_members *s, unsigned n, nsec_t limit)
{
	s->lost = NODE_NONE;
	s->n_up = n;
	return until_known(s, limit);
}

nsec_t sim_members_until_lost(struct sim_members *s, unsigned slot, nsec_t limit)
{
	s->lost = s->machines[slot].id;
	return until_known(s, limit);
}

struct world *sim_members_world(const struct sim_members *s)
{
	return s->w;
}

struct membership *sim_members_room(const struct sim_members *s, unsigned slot)
{
	return s->machines[slot].m;
}

epoch_t sim_members_epoch(const struct sim_members *s)
{
	return s->epoch;
}

struct sim_members *sim_members_new(uint64_t seed, unsigned n_machines)
{
	static const struct world_rooms rooms = { start, kill_rooms, NULL };
	struct sim_members *s = calloc(1, sizeof(*s) + (n_machines + 1) * sizeof(s->machines[0]));

	if (!s)
		abort();
	s->w = world_new(seed, n_machines, &rooms, s);
	s->n_machines = n_machines;
	for (unsigned i = 1; i <= n_machines; i++) {
		s->machines[i] = (struct machine){ .s = s, .slot = i, .id = i == 1 };
		(void)snprintf(s->machines[i].name, sizeof(s->machines[i].name), "n%u", i);
		world_set_id(s->w, i, i == 1 ? 1 : 100000 + i);
	}
	world_boot(s->w, 1);
	s->n_joined = 1;
	(void)sim_members_until_up(s, 1, 20 * NSEC_PER_SEC);
	return s;
}

struct sim_members *sim_members_free(struct sim_members *s)
{
	if (!s)
		return NULL;
	s->w = world_free(s->w);
	for (unsigned i = 1; i <= s->n_machines; i++)
		free(s->machines[i].token);
	free(s);
	return NULL;
}
