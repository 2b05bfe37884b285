/* Membership in a small simulated cluster, one promise of the header at a time. */
#include "cleanup.h"
#include "log.h"
#include "membership_internal.h"
#include "membership_token.h"
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { N = 3 };

struct node {
	struct fixture *f;
	unsigned slot;
	char name[16];
	struct rpc *rpc;
	struct membership *m;
	unsigned n_views, n_blocks;
	uint32_t n_pids;
	bool lease;
};

struct fixture {
	struct world *w;
	struct node nodes[N + 1];
	unsigned n_tokens, n_replies, n_left, n_added;
	bool witness; /* who joins */
	int token_result;
	char token[256];
	struct membership_join_reply reply;
};

static void on_view(void *owner, const struct membership_view *view)
{
	((struct node *)owner)->n_views++;
}

static void on_lease(void *owner, bool held)
{
	((struct node *)owner)->lease = held;
}

static void on_pid_block(void *owner, pid_t first, uint32_t count)
{
	struct node *n = owner;

	n->n_blocks++;
	n->n_pids += count;
	assert_int_equal(membership_home(n->m, first + (pid_t)count - 1), membership_home(n->m, first));
}

static void get_load(void *owner, struct membership_load *ret)
{
	*ret = (struct membership_load){ .n_cpus = 2, .running = ((struct node *)owner)->slot };
}

static int start(void *owner, unsigned slot)
{
	static const struct membership_events events = { on_view, on_lease, on_pid_block,
							 get_load };
	static const uint8_t seal_key[32] = { 1, 2, 3 };
	struct fixture *f = owner;
	struct node *n = &f->nodes[slot];
	struct membership_config config = {
		.self = slot,
		.name = n->name,
		.address = world_address(f->w, slot),
		.leader = 1,
		.leader_address = world_address(f->w, 1),
		.ca_pem = slot == 1 ? "CA" : NULL,
		.ca_key_pem = slot == 1 ? "KEY" : NULL,
		.seal_key = slot == 1 ? seal_key : NULL,
	};

	n->n_views = n->n_blocks = n->n_pids = 0;
	n->lease = false;
	assert_int_equal(rpc_new(&n->rpc, world_env(f->w, slot), slot), 0);
	world_listen(f->w, slot, rpc_events(), n->rpc);
	rpc_set_transport(n->rpc, world_transport(f->w, slot));
	assert_int_equal(membership_new(&n->m, world_env(f->w, slot), world_store(f->w, slot),
					n->rpc, &config, &events, n),
			 0);
	return 0;
}

static void stop(void *owner, unsigned slot)
{
	struct fixture *f = owner;

	f->nodes[slot].m = membership_free(f->nodes[slot].m);
	f->nodes[slot].rpc = rpc_free(f->nodes[slot].rpc);
}

static void run(struct fixture *f, unsigned ms)
{
	world_run(f->w, ms * NSEC_PER_MSEC);
}

static void on_token(void *owner, int result, const char *token)
{
	struct fixture *f = owner;

	f->n_tokens++;
	f->token_result = result;
	(void)snprintf(f->token, sizeof(f->token), "%s", token ? token : "");
}

static void on_reply(void *owner, const uint8_t *reply, size_t len)
{
	struct fixture *f = owner;

	f->n_replies++;
	membership_join_reply_fini(&f->reply);
	assert_int_equal(membership_join_reply_unpack((struct iovec){ (void *)reply, len },
						      &f->reply),
			 0);
}

static void new_token(struct fixture *f, nsec_t lifetime)
{
	assert_int_equal(membership_new_token(f->nodes[1].m, lifetime, on_token, f), 0);
	run(f, 1200);
	assert_int_equal(f->token_result, 0);
}

/* As the joiner of @slot would, with the last token, at node @at. */
static void send_join(struct fixture *f, unsigned slot, const char *csr, unsigned at)
{
	struct membership_join_request q = { .csr = (char *)csr, .witness = f->witness };
	struct membership_token token;
	_cleanup_free_ uint8_t *data = NULL;
	size_t len;

	assert_int_equal(membership_token_parse(f->token, &token), 0);
	memcpy(q.secret, token.secret, sizeof(q.secret));
	strcpy(q.name, f->nodes[slot].name);
	strcpy(q.address, world_address(f->w, slot));
	assert_int_equal(membership_join_request_pack(&q, &data, &len), 0);
	membership_on_join(f->nodes[at].m, data, len, on_reply, f);
}

static enum membership_join_status join(struct fixture *f, unsigned slot, const char *csr)
{
	unsigned n = f->n_replies;

	send_join(f, slot, csr, 1);
	run(f, 1200);
	assert_int_equal(f->n_replies, n + 1);
	if (f->reply.text[0])
		print_message("# node-%u: %s\n", slot, f->reply.text);
	return f->reply.status;
}

static int setup(void **state)
{
	static const struct world_rooms rooms = { start, stop, NULL };
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->w = world_new(7, N, &rooms, f);
	for (unsigned i = 1; i <= N; i++) {
		f->nodes[i] = (struct node){ .f = f, .slot = i };
		(void)snprintf(f->nodes[i].name, sizeof(f->nodes[i].name), "node-%u", i);
	}
	world_boot(f->w, 1);
	run(f, 2000);
	*state = f;
	return 0;
}

static int setup_three(void **state)
{
	struct fixture *f;

	(void)setup(state);
	f = *state;
	for (unsigned i = 2; i <= N; i++) {
		new_token(f, NSEC_PER_SEC * 60);
		assert_int_equal(join(f, i, "CSR"), JOIN_ADMITTED);
		assert_int_equal(f->reply.id, i);
		world_boot(f->w, i);
		run(f, 2000);
		assert_true(f->nodes[i].lease);
	}
	/* Voters are added one at a time, which takes some heartbeats each. */
	for (unsigned i = 0; i < 100 && !membership_node(f->nodes[3].m, 3)->voter; i++)
		run(f, 100);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	membership_join_reply_fini(&f->reply);
	(void)world_free(f->w);
	free(f);
	return 0;
}

static enum member_state state_of(struct fixture *f, unsigned at, node_id id)
{
	return membership_node(f->nodes[at].m, id)->state;
}

static void a_founder_is_up_alone_and_has_pids(void **state)
{
	struct fixture *f = *state;
	const struct membership_view *v = membership_view(f->nodes[1].m);

	assert_true(f->nodes[1].lease && membership_lease_held(f->nodes[1].m));
	assert_int_equal(v->n_nodes, 1);
	assert_int_equal(v->leader, 1);
	assert_int_equal(v->nodes[0].state, MEMBER_UP);
	assert_int_equal(v->nodes[0].incarnation, 1);
	assert_int_equal(f->nodes[1].n_blocks, 1);
	assert_int_equal(membership_home(f->nodes[1].m, 65536), 1);
}

static void three_nodes_see_each_other_and_their_loads(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 1; i <= N; i++) {
		assert_int_equal(membership_view(f->nodes[i].m)->n_nodes, N);
		assert_int_equal(membership_view(f->nodes[i].m)->epoch,
				 membership_view(f->nodes[1].m)->epoch);
		for (unsigned j = 1; j <= N; j++) {
			assert_true(membership_is_up(f->nodes[i].m, j));
			assert_int_equal(membership_node(f->nodes[i].m, j)->load.running, j);
			assert_int_equal(membership_home(f->nodes[i].m, (pid_t)j * 65536), j);
		}
	}
	assert_int_equal(membership_node_by_name(f->nodes[3].m, "node-2")->id, 2);
	assert_null(membership_node_by_name(f->nodes[3].m, "node-9"));
}

static void who_missed_a_view_asks_at_once(void **state)
{
	struct fixture *f = *state;
	struct membership *m = f->nodes[3].m;
	_cleanup_(membership_map_freep) struct membership_map *changes = NULL;
	epoch_t epoch = membership_view(m)->epoch;
	nsec_t sent = m->sent_at;

	assert_int_equal(membership_map_new(&changes, 1), 0);
	changes->view->epoch = epoch + 2;
	while (m->sent_at == sent || m->renewing)
		run(f, 1);
	sent = m->sent_at;
	membership_take_changes(m, epoch + 1, changes);
	assert_int_equal(membership_view(m)->epoch, epoch);
	run(f, 20);
	assert_true(m->sent_at > sent);
	run(f, 1000);
	assert_true(f->nodes[3].lease);
}

/* A view that was written down has no loads, and a leader may not have been heard yet. */
static void a_node_knows_its_own_load_before_it_hears_from_the_leader(void **state)
{
	struct fixture *f = *state;

	world_crash(f->w, 1, true);
	world_crash(f->w, 3, true);
	world_boot(f->w, 3);
	assert_int_equal(membership_view(f->nodes[3].m)->n_nodes, N);
	assert_int_equal(membership_node(f->nodes[3].m, 3)->load.running, 0);
	assert_int_equal(membership_own_load(f->nodes[3].m).running, 3);
}

static void a_killed_node_is_lost_within_three_seconds(void **state)
{
	struct fixture *f = *state;

	world_crash(f->w, 3, true);
	run(f, 1000);
	assert_int_equal(state_of(f, 2, 3), MEMBER_UP);
	run(f, 2000);
	assert_int_equal(state_of(f, 1, 3), MEMBER_LOST);
	assert_int_equal(state_of(f, 2, 3), MEMBER_LOST);
	world_boot(f->w, 3);
	run(f, 2000);
	assert_true(f->nodes[3].lease);
	assert_int_equal(membership_node(f->nodes[2].m, 3)->incarnation, 2);
	/* Everybody knows that it was lost, and for how long. */
	assert_int_equal(membership_node(f->nodes[2].m, 3)->history.losses, 1);
	assert_true(membership_node(f->nodes[3].m, 3)->history.lost_for > 0);
	assert_int_equal(membership_node(f->nodes[2].m, 1)->history.losses, 0);
	/* Its PIDs are still its own. */
	assert_int_equal(f->nodes[3].n_blocks, 1);
	assert_int_equal(membership_home(f->nodes[2].m, 3 * 65536), 3);
}

static void a_quick_restart_is_a_new_incarnation(void **state)
{
	struct fixture *f = *state;

	world_crash(f->w, 2, false);
	world_boot(f->w, 2);
	run(f, 1500);
	assert_true(f->nodes[2].lease);
	assert_int_equal(membership_node(f->nodes[3].m, 2)->incarnation, 2);
	assert_int_equal(membership_node(f->nodes[3].m, 3)->incarnation, 1);
}

static void a_node_that_is_cut_off_stops_before_it_is_lost(void **state)
{
	struct fixture *f = *state;

	world_cut(f->w, 3, 1, true);
	for (unsigned i = 0; i < 400; i++) {
		run(f, 10);
		if (state_of(f, 1, 3) == MEMBER_LOST)
			break;
	}
	assert_int_equal(state_of(f, 1, 3), MEMBER_LOST);
	assert_false(f->nodes[3].lease);
	assert_false(membership_lease_held(f->nodes[3].m));
	world_heal(f->w);
	run(f, 6000);
	assert_true(f->nodes[3].lease);
	assert_int_equal(membership_node(f->nodes[1].m, 3)->incarnation, 2);
}

static node_id leader_of(struct fixture *f, unsigned at)
{
	return membership_view(f->nodes[at].m)->leader;
}

static void three_nodes_are_three_voters(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 1; i <= N; i++)
		assert_true(membership_node(f->nodes[3].m, i)->voter);
}

static void a_dead_leader_is_replaced_before_any_lease_ends(void **state)
{
	struct fixture *f = *state;

	world_crash(f->w, 1, true);
	for (unsigned i = 0; i < 300; i++) {
		run(f, 10);
		assert_true(f->nodes[2].lease && f->nodes[3].lease);
	}
	assert_true(leader_of(f, 2) != 1);
	assert_int_equal(leader_of(f, 2), leader_of(f, 3));
	/* By then every lease that the dead one could give has ended, and its own. */
	assert_int_equal(state_of(f, 2, 1), MEMBER_LOST);
	assert_int_equal(state_of(f, 3, 1), MEMBER_LOST);
	/* It comes back as a member, not as the leader. */
	world_boot(f->w, 1);
	run(f, 2000);
	assert_true(f->nodes[1].lease);
	assert_int_equal(state_of(f, 2, 1), MEMBER_UP);
	assert_true(leader_of(f, 1) != 1);
	assert_int_equal(membership_node(f->nodes[2].m, 2)->incarnation, 1);
}

static void a_leader_that_is_cut_off_stops_before_it_is_lost(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 2; i <= N; i++) {
		world_cut(f->w, 1, i, true);
		world_cut(f->w, i, 1, true);
	}
	for (unsigned i = 0; i < 500 && state_of(f, 2, 1) != MEMBER_LOST; i++)
		run(f, 10);
	assert_int_equal(state_of(f, 2, 1), MEMBER_LOST);
	assert_false(f->nodes[1].lease);
	assert_true(f->nodes[2].lease && f->nodes[3].lease);
	world_heal(f->w);
	run(f, 6000);
	assert_true(f->nodes[1].lease);
	assert_int_equal(membership_view(f->nodes[1].m)->epoch,
			 membership_view(f->nodes[2].m)->epoch);
}

static void cut_two_and_three(struct fixture *f)
{
	world_cut(f->w, 2, 3, true);
	world_cut(f->w, 3, 2, true);
}

static void of_two_without_a_path_one_goes_out_until_there_is_one(void **state)
{
	struct fixture *f = *state;
	char text[512];

	cut_two_and_three(f);
	membership_wire_probe(f->nodes[2].m, 3);
	for (unsigned i = 0; i < 1500; i++) {
		run(f, 10);
		assert_true(f->nodes[1].lease && f->nodes[2].lease);
		assert_true(state_of(f, 1, 3) == MEMBER_UP || !f->nodes[3].lease);
	}
	assert_int_equal(state_of(f, 1, 3), MEMBER_LOST);
	assert_int_equal(state_of(f, 2, 3), MEMBER_LOST);
	assert_int_equal(membership_node(f->nodes[1].m, 3)->incarnation, 1);
	assert_true(membership_trouble(f->nodes[3].m, text, sizeof(text)));
	assert_non_null(strstr(text, "there is no path between this node and node-2, "));
	world_heal(f->w);
	run(f, 5000);
	assert_int_equal(state_of(f, 1, 3), MEMBER_UP);
	assert_true(f->nodes[3].lease);
	assert_false(membership_trouble(f->nodes[3].m, text, sizeof(text)));
}

static void a_path_that_nobody_needs_is_not_missed(void **state)
{
	struct fixture *f = *state;

	cut_two_and_three(f);
	run(f, 15000);
	assert_true(f->nodes[2].lease && f->nodes[3].lease);
	assert_int_equal(membership_node(f->nodes[1].m, 3)->incarnation, 1);
}

static void a_path_that_is_back_in_time_costs_nobody_the_lease(void **state)
{
	struct fixture *f = *state;

	cut_two_and_three(f);
	membership_wire_probe(f->nodes[2].m, 3);
	for (unsigned i = 0; i < 700; i++) {
		run(f, 10);
		if (membership_lease_find(f->nodes[1].m->leader, 3)->cut_from)
			break;
	}
	assert_int_equal(membership_lease_find(f->nodes[1].m->leader, 3)->cut_from, 2);
	world_heal(f->w);
	run(f, 5000);
	assert_true(f->nodes[3].lease);
	assert_int_equal(membership_node(f->nodes[1].m, 3)->incarnation, 1);
}

static void without_a_majority_leases_end_and_come_back(void **state)
{
	struct fixture *f = *state;
	epoch_t before = membership_view(f->nodes[2].m)->epoch;

	world_crash(f->w, 1, false);
	world_crash(f->w, 3, false);
	run(f, 3000);
	assert_false(f->nodes[2].lease);
	run(f, 3000);
	assert_int_equal(membership_view(f->nodes[2].m)->epoch, before);
	world_boot(f->w, 3);
	run(f, 5000);
	assert_true(f->nodes[2].lease && f->nodes[3].lease);
	assert_true(membership_view(f->nodes[2].m)->epoch > before);
}

static void a_voter_that_is_left_says_what_is_missing_and_decides_alone_when_it_is_told_to(
	void **state)
{
	struct fixture *f = *state;
	epoch_t before = membership_view(f->nodes[3].m)->epoch;
	char text[512];

	assert_false(membership_trouble(f->nodes[3].m, text, sizeof(text)));
	world_crash(f->w, 1, false);
	world_crash(f->w, 2, false);
	run(f, 6000);
	assert_false(f->nodes[3].lease);
	assert_true(membership_trouble(f->nodes[3].m, text, sizeof(text)));
	assert_non_null(strstr(text, "no majority: of the voters node-1, node-2 and node-3, node-1 "
				     "and node-2 have not answered since "));
	stop(f, 3);
	assert_int_equal(membership_recover(world_store(f->w, 3), 3, world_address(f->w, 3)), 0);
	world_crash(f->w, 3, true);
	world_boot(f->w, 3);
	run(f, 6000);
	assert_true(f->nodes[3].lease);
	assert_false(membership_trouble(f->nodes[3].m, text, sizeof(text)));
	assert_int_equal(membership_view(f->nodes[3].m)->leader, 3);
	assert_int_equal(state_of(f, 3, 1), MEMBER_LOST);
	assert_in_range(membership_view(f->nodes[3].m)->epoch, before + 1000000, before + 1100000);
	/* Once: what follows is one after the other again. */
	before = membership_view(f->nodes[3].m)->epoch;
	world_crash(f->w, 3, false);
	world_boot(f->w, 3);
	run(f, 6000);
	assert_true(f->nodes[3].lease);
	assert_in_range(membership_view(f->nodes[3].m)->epoch, before + 1, before + 100);
}

static void all_at_once_go_and_come_back(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 1; i <= N; i++)
		world_crash(f->w, i, true);
	run(f, 10000);
	for (unsigned i = 1; i <= N; i++)
		world_boot(f->w, i);
	run(f, 6000);
	for (unsigned i = 1; i <= N; i++) {
		assert_true(f->nodes[i].lease);
		assert_int_equal(membership_home(f->nodes[i].m, (pid_t)i * 65536), i);
	}
}

static void on_left(void *owner)
{
	((struct fixture *)owner)->n_left++;
}

static void who_leaves_is_left_and_may_return(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(membership_leave(f->nodes[3].m, on_left, f), 0);
	assert_false(membership_lease_held(f->nodes[3].m));
	assert_int_equal(f->n_left, 0);
	run(f, 1100);
	assert_int_equal(f->n_left, 1);
	assert_false(f->nodes[3].lease);
	run(f, 4000);
	assert_int_equal(state_of(f, 2, 3), MEMBER_LEFT);
	world_crash(f->w, 3, false);
	world_boot(f->w, 3);
	run(f, 1500);
	assert_int_equal(state_of(f, 2, 3), MEMBER_UP);
}

static void on_moved(void *owner, int result)
{
	*(int *)owner = result;
}

/* As asked of node 1, which leads. */
static int move(struct fixture *f, const node_id *nodes, size_t n, enum member_state to)
{
	int result = -1, r;

	r = membership_move(f->nodes[1].m, nodes, n, to, on_moved, &result);
	assert_int_equal(result, -1);
	run(f, 700);
	return r ? r : result;
}

static void on_retired(void *owner)
{
	((struct fixture *)owner)->n_left++;
}

static void the_only_voter_that_stops_leaves_its_vote_to_another(void **state)
{
	struct fixture *f = *state;
	epoch_t before;

	new_token(f, NSEC_PER_SEC * 60);
	assert_int_equal(join(f, 2, "CSR"), JOIN_ADMITTED);
	world_boot(f->w, 2);
	run(f, 2000);
	assert_false(membership_node(f->nodes[2].m, 2)->voter);
	assert_int_equal(membership_retire(f->nodes[1].m, on_retired, f), 0);
	for (unsigned i = 0; i < 400 && !f->n_left; i++) {
		run(f, 10);
		assert_true(f->nodes[1].lease && f->nodes[2].lease);
	}
	assert_int_equal(f->n_left, 1);
	world_crash(f->w, 1, false);
	before = membership_view(f->nodes[2].m)->epoch;
	for (unsigned i = 0; i < 1000; i++) {
		run(f, 10);
		assert_true(f->nodes[2].lease);
	}
	assert_true(membership_view(f->nodes[2].m)->epoch > before);
	assert_int_equal(state_of(f, 2, 1), MEMBER_LOST);
	world_boot(f->w, 1);
	run(f, 3000);
	assert_true(f->nodes[1].lease);
	assert_false(membership_node(f->nodes[1].m, 1)->voter);
	assert_true(membership_node(f->nodes[1].m, 2)->voter);
	assert_int_equal(leader_of(f, 1), 2);
	/* Who knows the founder alone is told who leads. */
	new_token(f, NSEC_PER_SEC * 60);
	send_join(f, 3, "CSR", 2);
	run(f, 1200);
	assert_int_equal(f->reply.status, JOIN_ADMITTED);
	world_boot(f->w, 3);
	run(f, 3000);
	assert_true(f->nodes[3].lease);
}

static void who_stops_alone_waits_for_nobody(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(membership_retire(f->nodes[1].m, on_retired, f), 0);
	run(f, 100);
	assert_int_equal(f->n_left, 1);
}

static void a_leader_that_stops_lets_another_lead_and_votes_stay(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(leader_of(f, 3), 1);
	assert_int_equal(membership_retire(f->nodes[1].m, on_retired, f), 0);
	run(f, 1000);
	assert_int_equal(f->n_left, 1);
	assert_int_not_equal(leader_of(f, 3), 1);
	for (unsigned i = 1; i <= N; i++)
		assert_true(membership_node(f->nodes[3].m, i)->voter);
}

static void who_got_a_vote_after_it_was_asked_without_one_is_not_asked_for_ever(void **state)
{
	struct membership *m = ((struct fixture *)*state)->nodes[3].m;

	m->target = m->bystander = 1;
	membership_find_failed(m);
	assert_int_equal(m->target, 2);
}

/* That of its predecessor may last still, and what runs by it has to stop. */
static void who_gives_up_a_lease_that_it_has_not_had_says_so(void **state)
{
	struct fixture *f = *state;
	node_id three = 3;

	assert_int_equal(move(f, &three, 1, MEMBER_LEAVING), 0);
	world_crash(f->w, 3, false);
	world_cut(f->w, 3, 1, true);
	world_cut(f->w, 3, 2, true);
	world_boot(f->w, 3);
	run(f, 100);
	f->nodes[3].lease = true; /* as ssi-init has it */
	assert_int_equal(membership_give_up(f->nodes[3].m), 0);
	assert_false(f->nodes[3].lease);
}

static void who_is_removed_has_no_lease_and_no_vote_until_it_is_added(void **state)
{
	struct fixture *f = *state;
	node_id three = 3, self = 1, nobody = 9;
	uint64_t incarnation = membership_node(f->nodes[1].m, 3)->incarnation;
	char text[100];

	assert_int_equal(move(f, &three, 1, MEMBER_REMOVED), MEMBERSHIP_E_STATE);
	assert_int_equal(membership_give_up(f->nodes[3].m), MEMBERSHIP_E_STATE);
	assert_int_equal(move(f, &three, 1, MEMBER_LEAVING), 0);
	assert_true(membership_is_up(f->nodes[2].m, 3) && f->nodes[3].lease);
	assert_string_equal(membership_refusal(f->nodes[2].m, 3, text, sizeof(text)),
			    "node-3 is being removed");
	assert_null(membership_refusal(f->nodes[2].m, 2, text, sizeof(text)));
	/* It stays after all. */
	assert_int_equal(membership_give_up(f->nodes[3].m), 0);
	assert_false(f->nodes[3].lease);
	run(f, 1000);
	assert_false(f->nodes[3].lease);
	assert_int_equal(move(f, &three, 1, MEMBER_UP), 0);
	assert_true(f->nodes[3].lease);
	assert_int_equal(membership_node(f->nodes[1].m, 3)->incarnation, incarnation);

	assert_int_equal(move(f, &three, 1, MEMBER_LEAVING), 0);
	assert_int_equal(move(f, &three, 1, MEMBER_REMOVED), MEMBERSHIP_E_STATE);
	assert_int_equal(membership_give_up(f->nodes[3].m), 0);
	assert_int_equal(membership_given_up(f->nodes[1].m, 3, incarnation + 1),
			 MEMBERSHIP_E_STATE);
	assert_int_equal(membership_given_up(f->nodes[1].m, 3, incarnation), 0);
	assert_int_equal(move(f, &three, 1, MEMBER_REMOVED), 0);
	assert_int_equal(state_of(f, 2, 3), MEMBER_REMOVED);
	assert_int_equal(state_of(f, 3, 3), MEMBER_REMOVED);
	run(f, 3000);
	assert_false(f->nodes[3].lease);
	assert_false(membership_node(f->nodes[1].m, 3)->voter);
	assert_int_equal(move(f, &self, 1, MEMBER_REMOVED), MEMBERSHIP_E_STATE);
	assert_int_equal(move(f, &nobody, 1, MEMBER_REMOVED), MEMBERSHIP_E_STATE);

	/* A new start changes nothing, the command does, if it answers. */
	world_crash(f->w, 3, false);
	run(f, 5000);
	assert_int_equal(move(f, &three, 1, MEMBER_UP), MEMBERSHIP_E_ABSENT);
	world_boot(f->w, 3);
	run(f, 1500);
	assert_int_equal(state_of(f, 2, 3), MEMBER_REMOVED);
	assert_false(f->nodes[3].lease);
	assert_int_equal(move(f, &three, 1, MEMBER_UP), 0);
	assert_true(f->nodes[3].lease);
	assert_int_equal(membership_node(f->nodes[1].m, 3)->incarnation, incarnation + 1);
	assert_int_equal(f->nodes[3].n_blocks, 1);
}

static void many_are_removed_in_one_view_or_none(void **state)
{
	struct fixture *f = *state;
	node_id both[] = { 2, 3 };
	int result = 0;

	world_crash(f->w, 3, false);
	run(f, 5000);
	assert_int_equal(state_of(f, 1, 3), MEMBER_LOST);
	assert_int_equal(move(f, both, 2, MEMBER_REMOVED), MEMBERSHIP_E_STATE);
	assert_int_equal(state_of(f, 1, 3), MEMBER_LOST);
	assert_int_equal(move(f, both, 1, MEMBER_LEAVING), 0);
	assert_int_equal(membership_give_up(f->nodes[2].m), 0);
	assert_int_equal(membership_given_up(f->nodes[1].m, 2,
					     membership_node(f->nodes[1].m, 2)->incarnation),
			 0);
	assert_int_equal(membership_move(f->nodes[1].m, both, 2, MEMBER_REMOVED, on_moved, &result),
			 0);
	for (unsigned i = 0; i < 3000 && state_of(f, 1, 2) != MEMBER_REMOVED; i++)
		run(f, 1);
	assert_int_equal(state_of(f, 1, 2), MEMBER_REMOVED);
	assert_int_equal(state_of(f, 1, 3), MEMBER_REMOVED);
	/* The last voters to go take nobody's majority with them. */
	run(f, 8000);
	world_crash(f->w, 2, false);
	run(f, 8000);
	assert_true(f->nodes[1].lease);
}

static void more_pids_come_until_there_are_none(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(membership_want_pids(f->nodes[2].m), 0);
	assert_int_equal(membership_want_pids(f->nodes[2].m), 0);
	run(f, 1500);
	assert_int_equal(f->nodes[2].n_blocks, 2);
	assert_int_equal(f->nodes[2].n_pids, 2 * MEMBERSHIP_PID_RUN);
	for (unsigned i = 0; !membership_want_pids(f->nodes[3].m); i++) {
		assert_true(i < 1000);
		run(f, 1500);
	}
	/* The second run came next to another's, the others one behind the other. */
	assert_true(f->nodes[3].n_pids > 1000000);
	world_crash(f->w, 3, false);
	world_boot(f->w, 3);
	run(f, 1500);
	assert_int_equal(f->nodes[3].n_blocks, 2);
	assert_true(f->nodes[3].n_pids > 1000000);
	assert_int_equal(membership_want_pids(f->nodes[2].m), MEMBERSHIP_E_EXHAUSTED);
}

static void a_witness_votes_and_nothing_else(void **state)
{
	struct fixture *f = *state;
	char text[256];

	for (unsigned i = 2; i <= N; i++) {
		new_token(f, NSEC_PER_SEC * 60);
		f->witness = i == 3;
		assert_int_equal(join(f, i, "CSR"), JOIN_ADMITTED);
		world_boot(f->w, i);
		run(f, 3000);
	}
	for (unsigned i = 0; i < 100 && !membership_node(f->nodes[3].m, 3)->voter; i++)
		run(f, 100);
	assert_true(membership_node(f->nodes[1].m, 3)->voter);
	assert_true(membership_node(f->nodes[2].m, 3)->witness);
	assert_int_equal(f->nodes[3].n_blocks, 0);
	assert_null(membership_refusal(f->nodes[1].m, 2, text, sizeof(text)));
	assert_string_equal(membership_refusal(f->nodes[1].m, 3, text, sizeof(text)),
			    "node-3 is a witness, which runs no programs");
	/* Two of three are a majority; it leads only while nobody else can. */
	world_crash(f->w, 1, true);
	run(f, 6000);
	assert_true(f->nodes[2].lease);
	assert_int_equal(state_of(f, 2, 1), MEMBER_LOST);
	assert_int_equal(membership_view(f->nodes[2].m)->leader, 2);
	world_crash(f->w, 2, true);
	world_boot(f->w, 1);
	run(f, 8000);
	assert_true(f->nodes[1].lease);
	assert_int_equal(membership_view(f->nodes[1].m)->leader, 1);
}

static void a_token_admits_once(void **state)
{
	struct fixture *f = *state;

	new_token(f, 60 * NSEC_PER_SEC);
	assert_int_equal(join(f, 2, "CSR"), JOIN_ADMITTED);
	assert_string_equal(f->reply.cert, "CERT 2");
	assert_string_equal(f->reply.cluster, "simulated");
	assert_string_equal(f->reply.leader_address, world_address(f->w, 1));
	assert_int_equal(join(f, 3, "CSR"), JOIN_REFUSED);
	assert_non_null(strstr(f->reply.text, "used"));
	/* And after a restart of the leader. */
	world_crash(f->w, 1, false);
	world_boot(f->w, 1);
	run(f, 1500);
	assert_int_equal(join(f, 3, "CSR"), JOIN_REFUSED);
}

static void a_token_expires(void **state)
{
	struct fixture *f = *state;

	new_token(f, 10 * NSEC_PER_SEC);
	run(f, 20000);
	assert_int_equal(join(f, 2, "CSR"), JOIN_REFUSED);
}

static void a_name_in_use_is_refused_and_the_token_stays_good(void **state)
{
	struct fixture *f = *state;

	new_token(f, 60 * NSEC_PER_SEC);
	strcpy(f->nodes[2].name, "node-1");
	assert_int_equal(join(f, 2, "CSR"), JOIN_TAKEN);
	assert_non_null(strstr(f->reply.text, "name"));
	strcpy(f->nodes[2].name, "node-2");
	assert_int_equal(join(f, 2, "no request"), JOIN_REFUSED);
	assert_int_equal(join(f, 2, "CSR"), JOIN_ADMITTED);
}

static void who_never_came_up_is_replaced(void **state)
{
	struct fixture *f = *state;

	new_token(f, 60 * NSEC_PER_SEC);
	assert_int_equal(join(f, 2, "CSR"), JOIN_ADMITTED);
	assert_int_equal(f->reply.id, 2);
	new_token(f, 60 * NSEC_PER_SEC);
	assert_int_equal(join(f, 2, "CSR"), JOIN_ADMITTED);
	assert_int_equal(f->reply.id, 3);
	assert_int_equal(membership_view(f->nodes[1].m)->n_nodes, 2);
	assert_null(membership_node(f->nodes[1].m, 2));
	assert_int_equal(state_of(f, 1, 3), MEMBER_JOINING);
}

static void who_is_removed_before_it_came_up_has_pids_when_it_is_added(void **state)
{
	struct fixture *f = *state;
	node_id two = 2;

	new_token(f, 60 * NSEC_PER_SEC);
	assert_int_equal(join(f, 2, "CSR"), JOIN_ADMITTED);
	assert_int_equal(move(f, &two, 1, MEMBER_REMOVED), 0);
	world_boot(f->w, 2);
	run(f, 1500);
	assert_int_equal(state_of(f, 1, 2), MEMBER_REMOVED);
	assert_int_equal(f->nodes[2].n_pids, 0);
	assert_int_equal(move(f, &two, 1, MEMBER_UP), 0);
	assert_true(f->nodes[2].lease);
	assert_int_equal(f->nodes[2].n_pids, MEMBERSHIP_PID_RUN);
}

/* Who cannot write cannot lead, and there is nobody else here. */
static void a_full_disk_admits_nobody_and_the_cluster_comes_back(void **state)
{
	struct fixture *f = *state;

	new_token(f, 60 * NSEC_PER_SEC);
	world_disk_full(f->w, 1, true);
	assert_int_equal(join(f, 2, "CSR"), JOIN_TRY_AGAIN);
	assert_int_equal(membership_view(f->nodes[1].m)->n_nodes, 1);
	world_disk_full(f->w, 1, false);
	run(f, 5000);
	assert_true(f->nodes[1].lease);
	assert_int_equal(join(f, 2, "CSR"), JOIN_ADMITTED);
}

static void a_leader_with_a_full_disk_is_replaced(void **state)
{
	struct fixture *f = *state;

	world_disk_full(f->w, 1, true);
	assert_int_equal(membership_want_pids(f->nodes[2].m), 0);
	run(f, 6000);
	assert_true(leader_of(f, 2) != 1);
	for (unsigned i = 1; i <= N; i++)
		assert_true(f->nodes[i].lease);
}

static void on_added(void *owner, int result)
{
	assert_int_equal(result, 0);
	((struct fixture *)owner)->n_added++;
}

static void the_first_token_is_taken_over_once(void **state)
{
	struct fixture *f = *state;
	struct membership_token token = { .secret = { 1, 2, 3 }, .address = "10.0.0.1:7777" };
	nsec_t expires = env_realtime(world_env(f->w, 1)) + 600 * NSEC_PER_SEC;
	_cleanup_free_ char *text = membership_token_format(&token);
	uint8_t hash[TOKEN_HASH];

	strcpy(f->token, text);
	membership_token_hash(token.secret, hash);
	assert_int_equal(membership_add_token(f->nodes[1].m, hash, expires, on_added, f), 0);
	assert_int_equal(f->n_added, 0);
	run(f, 1200);
	assert_int_equal(f->n_added, 1);
	assert_int_equal(join(f, 2, "CSR"), JOIN_ADMITTED);
	/* The file was still there at the next start: used stays used. */
	assert_int_equal(membership_add_token(f->nodes[1].m, hash, expires, on_added, f), 0);
	run(f, 1200);
	assert_int_equal(f->n_added, 2);
	assert_int_equal(join(f, 3, "CSR"), JOIN_REFUSED);
}

static void any_node_makes_tokens_and_the_leader_admits(void **state)
{
	struct fixture *f = *state;
	node_id leader = leader_of(f, 2);
	unsigned other = leader == 2 ? 3 : 2;

	assert_int_equal(membership_new_token(f->nodes[other].m, 60 * NSEC_PER_SEC, on_token, f),
			 0);
	run(f, 1000);
	assert_int_equal(f->token_result, 0);
	(void)snprintf(f->nodes[1].name, sizeof(f->nodes[1].name), "node-4");
	send_join(f, 1, "CSR", other);
	assert_int_equal(f->reply.status, JOIN_ELSEWHERE);
	assert_string_equal(f->reply.leader_address, world_address(f->w, leader));
	send_join(f, 1, "CSR", leader);
	run(f, 1000);
	assert_int_equal(f->reply.status, JOIN_ADMITTED);
	membership_on_join(f->nodes[leader].m, (const uint8_t *)"x", 1, on_reply, f);
	assert_int_equal(f->reply.status, JOIN_REFUSED);
}

/* Who signs is known to every voter, so joining survives the founder. */
static void another_leader_admits_with_the_founders_authority(void **state)
{
	struct fixture *f = *state;

	world_crash(f->w, 1, false);
	run(f, 4000);
	assert_int_equal(
		membership_new_token(f->nodes[2].m, 60 * NSEC_PER_SEC, on_token, f), 0);
	run(f, 1000);
	assert_int_equal(f->token_result, 0);
	(void)snprintf(f->nodes[1].name, sizeof(f->nodes[1].name), "node-4");
	send_join(f, 1, "CSR", leader_of(f, 2));
	run(f, 1000);
	assert_int_equal(f->reply.status, JOIN_ADMITTED);
	assert_string_equal(f->reply.cert, "CERT 4");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
#define ONE(fn_) cmocka_unit_test_setup_teardown(fn_, setup, teardown)
#define THREE(fn_) cmocka_unit_test_setup_teardown(fn_, setup_three, teardown)
		ONE(a_founder_is_up_alone_and_has_pids),
		THREE(three_nodes_see_each_other_and_their_loads),
		THREE(who_missed_a_view_asks_at_once),
		THREE(a_node_knows_its_own_load_before_it_hears_from_the_leader),
		THREE(a_killed_node_is_lost_within_three_seconds),
		THREE(a_quick_restart_is_a_new_incarnation),
		THREE(a_node_that_is_cut_off_stops_before_it_is_lost),
		THREE(three_nodes_are_three_voters),
		THREE(a_dead_leader_is_replaced_before_any_lease_ends),
		THREE(a_leader_that_is_cut_off_stops_before_it_is_lost),
		THREE(of_two_without_a_path_one_goes_out_until_there_is_one),
		THREE(a_path_that_nobody_needs_is_not_missed),
		THREE(a_path_that_is_back_in_time_costs_nobody_the_lease),
		THREE(without_a_majority_leases_end_and_come_back),
		THREE(all_at_once_go_and_come_back),
		THREE(a_voter_that_is_left_says_what_is_missing_and_decides_alone_when_it_is_told_to),
		THREE(who_leaves_is_left_and_may_return),
		ONE(the_only_voter_that_stops_leaves_its_vote_to_another),
		ONE(who_stops_alone_waits_for_nobody),
		THREE(a_leader_that_stops_lets_another_lead_and_votes_stay),
		THREE(who_got_a_vote_after_it_was_asked_without_one_is_not_asked_for_ever),
		THREE(who_gives_up_a_lease_that_it_has_not_had_says_so),
		THREE(who_is_removed_has_no_lease_and_no_vote_until_it_is_added),
		THREE(many_are_removed_in_one_view_or_none),
		THREE(more_pids_come_until_there_are_none),
		ONE(a_witness_votes_and_nothing_else),
		ONE(a_token_admits_once),
		ONE(a_token_expires),
		ONE(a_name_in_use_is_refused_and_the_token_stays_good),
		ONE(who_never_came_up_is_replaced),
		ONE(who_is_removed_before_it_came_up_has_pids_when_it_is_added),
		ONE(a_full_disk_admits_nobody_and_the_cluster_comes_back),
		THREE(a_leader_with_a_full_disk_is_replaced),
		ONE(the_first_token_is_taken_over_once),
		THREE(any_node_makes_tokens_and_the_leader_admits),
		THREE(another_leader_admits_with_the_founders_authority),
	};

	log_set_level(0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
