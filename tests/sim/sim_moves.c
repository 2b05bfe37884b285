/* Building, joining, dying. */
#include "sim_moves.h"

#include "cleanup.h"
#include "membership_token.h"
#include "rpc_internal.h"

#include <inttypes.h>
#include <string.h>

static void on_view(void *owner, const struct membership_view *v)
{
	struct machine *m = owner;
	struct sim *s = m->sim;

	world_note(s->w, m->slot, "view %" PRIu64, v->epoch);
	m->epoch = v->epoch;
	sim_moves_on_view(s, v);
	if (!m->migration)
		return;
	process_on_view(m->process);
	migration_on_view(m->migration);
	if (m->hotplug)
		hotplug_on_view(m->hotplug);
}

static void on_lease(void *owner, bool held)
{
	struct machine *m = owner;

	world_note(m->sim->w, m->slot, "lease %d", held);
	if (!held && m->migration)
		fence_on_lease_end(&m->fence);
}

static void on_renewed(void *owner, nsec_t until)
{
	struct machine *m = owner;

	if (m->migration)
		fence_on_renewed(&m->fence, until);
}

static void on_thawed(void *owner)
{
	migration_on_view(((struct machine *)owner)->migration);
}

static void on_pid_block(void *owner, pid_t first, uint32_t count)
{
	struct machine *m = owner;

	(void)space_pids_add(m->space, first, (pid_t)count);
}

static void get_load(void *owner, struct membership_load *ret)
{
	(void)owner;
	*ret = (struct membership_load){ .n_cpus = 2,
					 .memory_total = 8ull << 30,
					 .memory_available = 4ull << 30 };
}

static void on_exit_of(void *owner, const struct space_exit *exit)
{
	struct machine *m = owner;

	if (m->process)
		process_on_exit(m->process, exit);
}

static void on_stop_of(void *owner, pid_t pid, int signal)
{
	struct machine *m = owner;

	if (m->process)
		process_on_stop(m->process, pid, signal);
}

static void on_lost(void *owner)
{
	struct machine *m = owner;

	world_fail(m->sim->w, "the space of machine %u is lost", m->slot);
}

static void on_halt(void *owner)
{
	struct machine *m = owner;

	world_fail(m->sim->w, "machine %u is to stop", m->slot);
}

static int build_hotplug(struct machine *m)
{
	struct hotplug_neighbours n = { .env = world_env(m->sim->w, m->slot),
					.rpc = m->rpc,
					.membership = m->membership,
					.process = m->process,
					.migration = m->migration,
					.on_halt = on_halt,
					.owner = m };

	return m->sim->changes ? hotplug_new(&m->hotplug, &n) : 0;
}

static int build(struct machine *m)
{
	static const struct membership_events membership = { on_view, on_lease, on_pid_block,
							     get_load, on_renewed };
	static const struct space_events space = { on_exit_of, on_stop_of, on_lost };
	struct world *w = m->sim->w;
	const struct env *env = world_env(w, m->slot);
	struct membership_config config = {
		.self = m->id,
		.name = m->name,
		.address = world_address(w, m->slot),
		.leader = 1,
		.leader_address = world_address(w, 1),
		.lease = 2 * NSEC_PER_SEC,
		.ca_pem = m->slot == 1 ? "CA" : NULL,
		.ca_key_pem = m->slot == 1 ? "KEY" : NULL,
	};
	struct migration_neighbours n = { .env = env, .private_dir_fd = -1,
					  .image_max_bytes = 64 << 20 };
	int r = space_new(&m->space, env, &(struct space_config){ 0 }, &space, m);

	if (r == 0)
		r = rpc_new(&m->rpc, env, m->id);
	if (r == 0) {
		world_listen(w, m->slot, rpc_events(), m->rpc);
		rpc_set_transport(m->rpc, world_transport(w, m->slot));
		r = membership_new(&m->membership, env, world_store(w, m->slot), m->rpc, &config,
				   &membership, m);
	}
	if (r == 0)
		r = process_room_new(&m->process, env, m->space, m->rpc, m->membership,
				     "");
	if (r == 0)
		r = criu_new(&m->criu, env, m->space, &(struct criu_config){ 0 });
	n.space = m->space;
	n.rpc = m->rpc;
	n.membership = m->membership;
	n.process = m->process;
	n.criu = m->criu;
	m->fence = (struct fence){ .env = env,
				   .space = m->space,
				   .process = m->process,
				   .membership = m->membership,
				   .self = m->id,
				   .on_thawed = on_thawed,
				   .owner = m };
	if (r == 0)
		r = migration_room_new(&m->migration, &n);
	return r ? r : build_hotplug(m);
}

static int start(void *owner, unsigned slot)
{
	struct sim *s = owner;
	struct machine *m = &s->machines[slot];

	world_act(s->w, slot);
	m->epoch = 0;
	m->boot++;
	world_check(s->w, build(m) == 0, "machine %u does not start", slot);
	world_act(s->w, 0);
	return 0;
}

/* Nothing of this is what a killed ssid does: it is memory that is given back. */
static void kill_rooms(void *owner, unsigned slot)
{
	struct sim *s = owner;
	struct machine *m = &s->machines[slot];
	struct sim_machine *k = &s->kernel.machines[slot];
	struct rpc_request *q;

	world_act(s->w, slot);
	sim_kernel_dying(k);
	m->hotplug = hotplug_free(m->hotplug);
	m->process = process_room_free(m->process);
	m->membership = membership_free(m->membership);
	while ((q = TAILQ_FIRST(&m->rpc->by_due)))
		rpc_cancel(m->rpc, q);
	m->migration = migration_room_free(m->migration);
	m->rpc = rpc_free(m->rpc);
	m->criu = criu_free(m->criu);
	m->space = space_free(m->space);
	sim_kernel_died(k, m->power);
	m->power = false;
	if (slot == 1)
		s->joining = 0;
	world_act(s->w, 0);
}

static void on_step(void *owner)
{
	struct sim *s = owner;

	sim_moves_check(s);
	for (unsigned i = 1; i <= N_MACHINES; i++)
		if (s->kernel.machines[i].dying)
			world_crash(s->w, i, false);
}

const struct world_rooms sim_moves_rooms = { start, kill_rooms, on_step };

/* Joining. */

/* NULL: nobody. */
static struct membership *leading(struct sim *s)
{
	for (unsigned i = 1; i <= N_MACHINES; i++)
		if (s->machines[i].membership && membership_leads(s->machines[i].membership))
			return s->machines[i].membership;
	return NULL;
}

static void on_join_reply(void *owner, const uint8_t *data, size_t len)
{
	struct sim *s = owner;
	struct machine *m = &s->machines[s->joining];
	_cleanup_(membership_join_reply_fini) struct membership_join_reply reply = { 0 };

	s->joining = 0;
	world_check(s->w,
		    !membership_join_reply_unpack((struct iovec){ (void *)data, len }, &reply),
		    "not a join reply");
	if (reply.status == JOIN_TRY_AGAIN) /* another leads by now */
		return;
	world_check(s->w, reply.status == JOIN_ADMITTED, "refused: %s", reply.text);
	m->id = reply.id;
	world_set_id(s->w, m->slot, m->id);
	world_boot(s->w, m->slot);
}

static void on_token(void *owner, int result, const char *text)
{
	struct sim *s = owner;
	struct machine *m = &s->machines[s->joining];
	struct membership_token token;
	struct membership_join_request q = { .csr = (char *)"CSR x" };
	_cleanup_free_ uint8_t *data = NULL;
	size_t len;

	if (result || !leading(s)) {
		s->joining = 0;
		return;
	}
	world_check(s->w, !membership_token_parse(text, &token), "not a token: %s", text);
	memcpy(q.secret, token.secret, sizeof(q.secret));
	strcpy(q.name, m->name);
	strcpy(q.address, world_address(s->w, m->slot));
	world_check(s->w, !membership_join_request_pack(&q, &data, &len), "no memory");
	membership_on_join(leading(s), data, len, on_join_reply, s);
}

static void on_joining(void *arg)
{
	struct sim *s = arg;
	bool busy = s->joining;

	for (unsigned i = 2; i <= N_MACHINES && !s->joining; i++)
		if (!s->machines[i].id)
			s->joining = i;
	if (!s->joining)
		return;
	if (!busy && (!leading(s) || membership_new_token(leading(s), NSEC_PER_SEC * 60, on_token,
							  s)))
		s->joining = 0;
	(void)world_at(s->w, NSEC_PER_SEC, on_joining, s);
}

void sim_moves_join(struct sim *s)
{
	(void)world_at(s->w, NSEC_PER_SEC, on_joining, s);
}
