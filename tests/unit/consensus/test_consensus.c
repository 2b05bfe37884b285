/* One voter, and what a server may hear: on the simulated machine. */
#include "cleanup.h"
#include "consensus.h"
#include "log.h"
#include "world.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { N = 3 };

struct server {
	struct world *w;
	struct rpc *rpc;
	struct consensus *c;
	bool bootstrap, leading;
	uint64_t applied, term, n_applied, n_restored;
	int result, made, n_results, n_servers;
};

static struct world *world;
static struct server servers[N + 1];

static void on_apply(void *owner, uint64_t index, struct iovec command)
{
	struct server *s = owner;

	assert_true(index > s->applied);
	s->applied = index;
	s->n_applied++;
}

static int on_snapshot(void *owner, struct iovec *ret)
{
	struct server *s = owner;

	ret->iov_len = sizeof(s->n_applied);
	ret->iov_base = malloc(ret->iov_len);
	assert_non_null(ret->iov_base);
	memcpy(ret->iov_base, &s->n_applied, ret->iov_len);
	return 0;
}

static int on_restore(void *owner, struct iovec state)
{
	struct server *s = owner;

	memcpy(&s->n_applied, state.iov_base, sizeof(s->n_applied));
	s->n_restored++;
	return 0;
}

static void on_leading(void *owner, bool leading, uint64_t term)
{
	struct server *s = owner;

	s->leading = leading;
	s->term = term;
}

static void on_leader(void *owner, node_id leader)
{
}

static void on_servers(void *owner)
{
	((struct server *)owner)->n_servers++;
}

static const struct consensus_events events = {on_apply,   on_snapshot, on_restore,
					       on_leading, on_leader,	on_servers};

static int start(void *owner, unsigned slot)
{
	struct server *s = &servers[slot];
	struct consensus_config config = {.self = slot,
					  .address = world_address(world, slot),
					  .bootstrap = s->bootstrap,
					  .snapshot_after = 16,
					  .snapshot_keep = 4};

	s->leading = false;
	s->applied = s->n_applied = s->n_restored = 0;
	assert_int_equal(rpc_new(&s->rpc, world_env(world, slot), slot), 0);
	world_listen(world, slot, rpc_events(), s->rpc);
	rpc_set_transport(s->rpc, world_transport(world, slot));
	s->made = consensus_new(&s->c, world_env(world, slot), world_store(world, slot),
				s->rpc, &config, &events, s);
	return 0;
}

static void stop(void *owner, unsigned slot)
{
	struct server *s = &servers[slot];

	s->c = consensus_free(s->c);
	s->rpc = rpc_free(s->rpc);
}

static int setup(void **state)
{
	static const struct world_rooms rooms = {start, stop, NULL};

	log_set_level(0);
	memset(servers, 0, sizeof(servers));
	world = world_new(1, N, &rooms, NULL);
	servers[1].bootstrap = true;
	return 0;
}

static int teardown(void **state)
{
	world = world_free(world);
	return 0;
}

static void boot(unsigned slot)
{
	world_boot(world, slot);
	assert_int_equal(servers[slot].made, 0);
}

static void run(void)
{
	world_run(world, 3 * NSEC_PER_SEC);
}

static void on_done(void *owner, int result)
{
	struct server *s = owner;

	s->result = result;
	s->n_results++;
}

static int propose(struct server *s, size_t len)
{
	_cleanup_free_ void *bytes = calloc(1, len + 1);

	return consensus_propose(s->c, (struct iovec){bytes, len}, on_done, s);
}

static void commit(struct server *s, unsigned n)
{
	while (n--) {
		s->n_results = 0;
		assert_int_equal(propose(s, 100), 0);
		assert_int_equal(s->n_results, 0); /* never inline */
		world_run(world, NSEC_PER_SEC);
		assert_int_equal(s->n_results, 1);
		assert_int_equal(s->result, 0);
	}
}

static void set_role(unsigned node, enum consensus_role role, int result)
{
	struct server *s = &servers[1];

	s->n_results = 0;
	assert_int_equal(consensus_set_role(s->c, node, world_address(world, node),
					    role, on_done, s),
			 0);
	world_run(world, 10 * NSEC_PER_SEC);
	assert_int_equal(s->n_results, 1);
	assert_int_equal(s->result, result);
}

static void one_voter_leads_and_commits(void **state)
{
	size_t n;

	boot(1);
	assert_false(consensus_leads(servers[1].c)); /* told when the loop turns */
	run();
	assert_true(servers[1].leading);
	assert_true(consensus_leads(servers[1].c));
	assert_int_equal(consensus_leader(servers[1].c), 1);
	assert_int_equal(consensus_servers(servers[1].c, &n)->role, CONSENSUS_VOTER);
	assert_int_equal(n, 1);
	commit(&servers[1], 3);
	assert_int_equal(servers[1].n_applied, 3);
	assert_true(consensus_followed_at(servers[1].c) > 0);
}

static void each_start_leads_in_a_new_term(void **state)
{
	uint64_t term;

	boot(1);
	run();
	term = servers[1].term;
	world_crash(world, 1, false);
	boot(1);
	run();
	assert_true(servers[1].leading);
	assert_true(servers[1].term > term);
}

static void what_was_committed_is_applied_again_by_a_new_life(void **state)
{
	boot(1);
	run();
	commit(&servers[1], 5);
	world_crash(world, 1, true);
	boot(1);
	assert_int_equal(servers[1].n_applied, 5);
	assert_int_equal(servers[1].n_restored, 0);
}

static int on_row(void *owner, struct iovec key, struct iovec value)
{
	++*(size_t *)owner;
	return 0;
}

static void a_snapshot_bounds_the_log_and_begins_a_new_life(void **state)
{
	const struct store *store = world_store(world, 1);
	size_t n = 0;

	boot(1);
	run();
	commit(&servers[1], 50);
	assert_int_equal(
		store->ops->each(store->impl,
				 (struct iovec){(void *)"consensus/entry/", 16}, on_row,
				 &n),
		0);
	assert_true(n < 16 + 4 + 2);
	world_crash(world, 1, true);
	boot(1);
	assert_int_equal(servers[1].n_restored, 1);
	assert_int_equal(servers[1].n_applied, 50);
}

static void a_full_store_ends_leading_and_room_in_it_begins_it_again(void **state)
{
	boot(1);
	run();
	commit(&servers[1], 2);
	world_disk_full(world, 1, true);
	servers[1].n_results = 0;
	assert_int_equal(propose(&servers[1], 10), 0);
	run();
	assert_int_equal(servers[1].n_results, 1);
	assert_int_equal(servers[1].result, CONSENSUS_E_LOST);
	assert_false(servers[1].leading);
	assert_int_equal(propose(&servers[1], 10), CONSENSUS_E_NOT_LEADER);
	world_disk_full(world, 1, false);
	world_run(world, 10 * NSEC_PER_SEC);
	assert_true(servers[1].leading);
	assert_int_equal(servers[1].n_applied,
			 2); /* once, also for the second reading */
	commit(&servers[1], 1);
	assert_int_equal(servers[1].n_applied, 3);
}

static void a_full_store_at_the_start_is_waited_for(void **state)
{
	boot(1);
	run();
	world_crash(world, 1, false);
	world_disk_full(world, 1, true);
	boot(1);
	run();
	assert_false(servers[1].leading);
	world_disk_full(world, 1, false);
	world_run(world, 10 * NSEC_PER_SEC);
	assert_true(servers[1].leading);
}

static void what_is_too_big_or_too_many_is_refused(void **state)
{
	unsigned n = 0;

	boot(1);
	run();
	assert_int_equal(propose(&servers[1], CONSENSUS_COMMAND_MAX + 1), -EMSGSIZE);
	commit(&servers[1], 1);
	servers[1].n_results = 0;
	while (propose(&servers[1], 10) == 0)
		n++;
	assert_int_equal(propose(&servers[1], 10), -EAGAIN);
	run();
	assert_int_equal(servers[1].n_results, n);
	commit(&servers[1], 1);
}

static void a_damaged_store_is_refused(void **state)
{
	static const char key[] = "consensus/term";
	struct store_change change = {{(void *)key, sizeof(key) - 1},
				      {(void *)"torn", 4}};
	const struct store *store = world_store(world, 1);

	boot(1);
	run();
	assert_int_equal(store->ops->apply_now(store->impl, &change, 1), 0);
	world_crash(world, 1, false);
	world_boot(world, 1);
	assert_int_equal(servers[1].made, -EBADMSG);
}

static void a_node_that_is_no_server_is_silent_until_it_is_added(void **state)
{
	size_t n;

	boot(1);
	boot(2);
	run();
	assert_int_equal(consensus_servers(servers[2].c, &n) != NULL && n, 0);
	assert_int_equal(rpc_counters(servers[2].rpc)->calls, 0);
	commit(&servers[1], 2);
	set_role(2, CONSENSUS_VOTER, 0);
	assert_int_equal(consensus_servers(servers[2].c, &n)[1].role, CONSENSUS_VOTER);
	assert_int_equal(servers[2].n_applied, 2);
	assert_int_equal(consensus_leader(servers[2].c), 1);
}

static void a_new_server_gets_the_snapshot(void **state)
{
	boot(1);
	run();
	commit(&servers[1], 60);
	boot(2);
	set_role(2, CONSENSUS_STANDBY, 0);
	assert_int_equal(servers[2].n_restored, 1);
	assert_int_equal(servers[2].n_applied, 60);
}

static void a_standby_that_is_away_does_not_become_a_voter(void **state)
{
	size_t n;

	boot(1);
	boot(2);
	run();
	set_role(2, CONSENSUS_STANDBY, 0);
	world_crash(world, 2, true);
	commit(&servers[1], 1);
	set_role(2, CONSENSUS_VOTER, CONSENSUS_E_STUCK);
	assert_int_equal(consensus_servers(servers[1].c, &n)[1].role,
			 CONSENSUS_STANDBY);
	commit(&servers[1], 1);
}

static void a_leader_keeps_its_own_vote_and_hands_over_first(void **state)
{
	struct server *s = &servers[1];

	boot(1);
	boot(2);
	run();
	set_role(2, CONSENSUS_VOTER, 0);
	assert_int_equal(consensus_set_role(s->c, 1, world_address(world, 1),
					    CONSENSUS_NONE, on_done, s),
			 -EINVAL);
	s->n_results = 0;
	assert_int_equal(consensus_transfer(s->c, NODE_NONE, on_done, s), 0);
	run();
	assert_int_equal(s->n_results, 1);
	assert_int_equal(s->result, 0);
	assert_true(servers[2].leading);
	assert_false(s->leading);
	assert_int_equal(consensus_set_role(servers[2].c, 1, world_address(world, 1),
					    CONSENSUS_NONE, on_done, &servers[2]),
			 0);
	world_run(world, 10 * NSEC_PER_SEC);
	assert_int_equal(servers[2].result, 0);
	world_crash(world, 1, true);
	commit(&servers[2], 2);
}

static void a_leader_without_its_majority_does_not_lead(void **state)
{
	boot(1);
	boot(2);
	run();
	set_role(2, CONSENSUS_VOTER, 0);
	world_crash(world, 2, true);
	run();
	assert_false(servers[1].leading);
	assert_int_equal(consensus_followed_at(servers[1].c), 0);
	boot(2);
	world_run(world, 10 * NSEC_PER_SEC);
	assert_true(servers[1].leading || servers[2].leading);
}

static void the_rest_is_recovered_by_an_operator(void **state)
{
	const struct store *store = world_store(world, 1);
	size_t n;

	boot(1);
	boot(2);
	run();
	set_role(2, CONSENSUS_VOTER, 0);
	commit(&servers[1], 3);
	world_crash(world, 2, true);
	run();
	world_crash(world, 1, true);
	boot(3); /* a machine of which the store is empty */
	assert_int_equal(
		consensus_recover(world_store(world, 3), 3, world_address(world, 3)),
		CONSENSUS_E_NOT_LEADER);
	boot(1);
	run();
	assert_false(servers[1].leading);
	servers[1].c = consensus_free(servers[1].c);
	assert_int_equal(consensus_recover(store, 1, world_address(world, 1)), 0);
	world_crash(world, 1, true);
	boot(1);
	run();
	assert_true(servers[1].leading);
	(void)consensus_servers(servers[1].c, &n);
	assert_int_equal(n, 1);
	assert_int_equal(servers[1].n_applied, 3);
	commit(&servers[1], 1);
}

#define TEST(f_) cmocka_unit_test_setup_teardown(f_, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(one_voter_leads_and_commits),
		TEST(each_start_leads_in_a_new_term),
		TEST(what_was_committed_is_applied_again_by_a_new_life),
		TEST(a_snapshot_bounds_the_log_and_begins_a_new_life),
		TEST(a_full_store_ends_leading_and_room_in_it_begins_it_again),
		TEST(a_full_store_at_the_start_is_waited_for),
		TEST(what_is_too_big_or_too_many_is_refused),
		TEST(a_damaged_store_is_refused),
		TEST(a_node_that_is_no_server_is_silent_until_it_is_added),
		TEST(a_new_server_gets_the_snapshot),
		TEST(a_standby_that_is_away_does_not_become_a_voter),
		TEST(a_leader_keeps_its_own_vote_and_hands_over_first),
		TEST(a_leader_without_its_majority_does_not_lead),
		TEST(the_rest_is_recovered_by_an_operator),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
