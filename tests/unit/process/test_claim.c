/* A node that was fenced asks what is still its own, and kills the rest. */
#include "process_fixture.h"

#include "process.pb-c.h"

#include <signal.h>

static struct run r;
static size_t n_killed;
static bool told;
static Ssi__Process__ClaimReply theirs;
static int32_t gone_pid;
static uint32_t gone_generation, gone_place;
static enum rpc_status answer;

static enum rpc_status from_remote(uint16_t method, const ProtobufCMessage *request)
{
	return method == PROCESS_CLAIM || method == PROCESS_SEEK ? answer : RPC_DOWN;
}

static int setup(void **state)
{
	process_fixture_open();
	remote = from_remote;
	answer = RPC_OK;
	there_first = 3000000;
	there_up = true;
	told = false;
	ssi__process__claim_reply__init(&theirs);
	theirs.pids = &gone_pid;
	theirs.generations = &gone_generation;
	theirs.places = &gone_place;
	remote_reply = &theirs.base;
	run_script(&r, "while :; do sleep 0.01; done");
	return 0;
}

static int teardown(void **state)
{
	(void)kill(r.pid, SIGKILL);
	remote = NULL;
	remote_reply = NULL;
	process_fixture_close();
	return 0;
}

static void on_claimed(void *owner, size_t n)
{
	n_killed = n;
	told = true;
}

static void they_have(pid_t pid, uint32_t generation, node_id place)
{
	gone_pid = pid;
	gone_generation = generation;
	gone_place = place;
	theirs.n_pids = theirs.n_generations = theirs.n_places = 1;
}

static bool is_alive(pid_t pid)
{
	return kill(pid, 0) == 0;
}

static void what_nobody_else_has_goes_on(void **state)
{
	assert_int_equal(process_claim(room, on_claimed, NULL), 0);
	wait_until(told);
	assert_int_equal(n_killed, 0);
	assert_true(is_alive(r.pid));
}

static void what_was_revived_elsewhere_is_killed_and_a_shadow_stands_for_it(void **state)
{
	struct process_record d;

	they_have(r.pid, 1700000000, THERE);
	assert_int_equal(process_claim(room, on_claimed, NULL), 0);
	wait_until(told);
	assert_int_equal(n_killed, 1);
	wait_until(room_is_shadow(room, r.pid));
	assert_int_equal(process_record(room, r.pid, &d), 0);
	assert_int_equal(d.state, PROCESS_AWAY);
	assert_int_equal(d.place, THERE);
	assert_int_equal(d.generation, 1700000000);
}

static void what_ended_by_its_home_is_killed(void **state)
{
	struct ending e = {0};

	they_have(r.pid, 0, NODE_NONE);
	wait_for(&e, r.pid);
	assert_int_equal(process_claim(room, on_claimed, NULL), 0);
	wait_until(told);
	assert_int_equal(n_killed, 1);
	wait_until(e.told);
	assert_int_equal(e.exit_status, SIGKILL);
	wait_until(!is_alive(r.pid));
}

static void an_answer_about_what_was_not_asked_kills_nobody(void **state)
{
	they_have(1, 0, NODE_NONE);
	assert_int_equal(process_claim(room, on_claimed, NULL), 0);
	wait_until(told);
	assert_int_equal(n_killed, 0);
	assert_true(is_alive(r.pid));
}

static void who_does_not_answer_is_asked_until_a_view_excludes_him(void **state)
{
	answer = RPC_TIMEOUT;
	assert_int_equal(process_claim(room, on_claimed, NULL), 0);
	turn_for(700 * NSEC_PER_MSEC);
	assert_false(told);
	there_up = false;
	wait_until(told);
	assert_int_equal(n_killed, 0);
}

static void a_lease_that_ends_again_cancels_it(void **state)
{
	answer = RPC_TIMEOUT;
	assert_int_equal(process_claim(room, on_claimed, NULL), 0);
	turn_for(50 * NSEC_PER_MSEC);
	process_claim_cancel(room);
	answer = RPC_OK;
	turn_for(500 * NSEC_PER_MSEC);
	assert_false(told);
	assert_int_equal(process_claim(room, on_claimed, NULL), 0);
	wait_until(told);
}

/* It comes as soon as a view has this node up again, before there is a lease. */
static void where_the_copy_is_placed_is_not_heard_while_the_original_is_frozen(void **state)
{
	Ssi__Process__PlacedRequest q = SSI__PROCESS__PLACED_REQUEST__INIT;
	struct process_record d;
	nsec_t frozen_at;

	q.pid = q.app = q.root = r.pid;
	q.generation = 1700000000;
	space_lease_ended(space);
	assert_int_equal(from_there(PROCESS_PLACED, &q.base), RPC_DOWN);
	assert_int_equal(process_record(room, r.pid, &d), 0);
	assert_int_equal(d.state, PROCESS_HERE);
	assert_int_equal(space_lease(space, env_now(process_env) + 100 * NSEC_PER_SEC, true,
				     &frozen_at),
			 0);
	/* Thawed all the same, it is the one that lives. */
	assert_int_equal(from_there(PROCESS_PLACED, &q.base), RPC_NOT_FOUND);
}

/* The other side. */

static int32_t refused[8];
static size_t n_refused;

static void on_claim_reply(const ProtobufCMessage *reply)
{
	const Ssi__Process__ClaimReply *c = (const void *)reply;

	assert_ptr_equal(reply->descriptor, &ssi__process__claim_reply__descriptor);
	n_refused = c->n_pids;
	for (size_t i = 0; i < n_refused; i++)
		refused[i] = c->pids[i];
}

static void ask_as_known(pid_t pid, uint32_t generation, uint64_t home)
{
	Ssi__Process__ClaimRequest q = SSI__PROCESS__CLAIM_REQUEST__INIT;

	q.pids = &pid;
	q.generations = &generation;
	q.homes = &home;
	q.n_pids = q.n_generations = q.n_homes = 1;
	on_reply = on_claim_reply;
	assert_int_equal(from_there(PROCESS_CLAIM, &q.base), RPC_OK);
	on_reply = NULL;
}

static void ask_for(pid_t pid, uint32_t generation)
{
	ask_as_known(pid, generation, *room->since);
}

static void they_are_at(pid_t pid, node_id place, uint32_t generation,
			enum process_state state)
{
	struct process_entry e = {.record = {.pid = pid,
					     .app = pid,
					     .root = pid,
					     .home = HERE,
					     .place = place,
					     .generation = generation,
					     .state = state}};

	assert_int_equal(room_put(room, &e), 0);
}

static void what_lives_here_may_not_live_there(void **state)
{
	ask_for(r.pid, 0);
	assert_int_equal(n_refused, 1);
	assert_int_equal(refused[0], r.pid);
}

static void a_home_lets_those_go_on_whose_place_it_is(void **state)
{
	they_are_at(2000010, THERE, 3, PROCESS_AWAY);
	ask_for(2000010, 3);
	assert_int_equal(n_refused, 0);
	they_are_at(2000010, 3, 4, PROCESS_AWAY);
	ask_for(2000010, 3);
	assert_int_equal(n_refused, 1);
	they_are_at(2000010, THERE, 3, PROCESS_ENDED);
	ask_for(2000010, 3);
	assert_int_equal(n_refused, 1);
	process_table_remove(room->table, 2000010);
}

static void a_home_that_was_there_all_the_time_and_knows_nothing_had_given_it_up(void **state)
{
	ask_for(2000011, 3);
	assert_int_equal(n_refused, 1);
}

static void a_home_that_has_begun_anew_gives_nothing_up(void **state)
{
	ask_as_known(2000011, 3, *room->since - 1);
	assert_int_equal(n_refused, 0);
}

static void a_move_that_the_home_was_not_told_of_is_not_given_up(void **state)
{
	they_are_at(2000010, 3, 4, PROCESS_AWAY);
	ask_for(2000010, 5);
	assert_int_equal(n_refused, 0);
	process_table_remove(room->table, 2000010);
}

static void the_source_leaves_it_to_the_target_until_it_has_heard(void **state)
{
	assert_int_equal(process_hold(room, r.pid), 0);
	process_hold_for(room, r.pid, THERE);
	ask_for(r.pid, 1);
	assert_int_equal(n_refused, 0);
	process_hold_for(room, r.pid, 3);
	ask_for(r.pid, 1);
	assert_int_equal(n_refused, 1);
	process_unhold(room, r.pid);
}

/* Each would say to the other that it lives here, and nobody would have it. */
static void of_two_that_are_fenced_the_newer_goes_on(void **state)
{
	answer = RPC_TIMEOUT;
	assert_int_equal(process_claim(room, on_claimed, NULL), 0);
	ask_for(r.pid, 1);
	assert_int_equal(n_refused, 0);
	ask_for(r.pid, 0);
	assert_int_equal(n_refused, 1);
	process_claim_cancel(room);
}

static void what_went_on_after_its_target_was_lost_is_the_newer(void **state)
{
	struct process_member m = {.pid = r.pid, .generation = 5};
	struct process_record d;

	process_stay(room, &m, 1);
	assert_int_equal(process_record(room, r.pid, &d), 0);
	assert_int_equal(d.state, PROCESS_HERE);
	assert_true(d.generation > 5);
	answer = RPC_TIMEOUT;
	assert_int_equal(process_claim(room, on_claimed, NULL), 0);
	ask_for(r.pid, 5);
	assert_int_equal(n_refused, 1);
	process_claim_cancel(room);
}

static void what_went_on_here_as_the_newer_and_ended_does_not_go_on_there(void **state)
{
	struct process_entry e = {.record = {.pid = 3000010,
					     .app = 3000010,
					     .home = THERE,
					     .place = HERE,
					     .generation = 1005,
					     .state = PROCESS_ENDED}};

	assert_int_equal(room_put(room, &e), 0);
	ask_for(3000010, 5);
	assert_int_equal(n_refused, 1);
	ask_for(3000010, 1006);
	assert_int_equal(n_refused, 0);
	process_table_remove(room->table, 3000010);
}

static void an_end_is_not_heard_before_it_is_known_which_copy_is_the_newer(void **state)
{
	Ssi__Process__ChangedRequest q = SSI__PROCESS__CHANGED_REQUEST__INIT;

	answer = RPC_TIMEOUT;
	assert_int_equal(process_claim(room, on_claimed, NULL), 0);
	q.pid = r.pid;
	q.generation = 1005;
	q.what = SSI__PROCESS__CHANGED_REQUEST__WHAT__ENDED;
	assert_int_equal(from_there(PROCESS_CHANGED, &q.base), RPC_DOWN);
	process_claim_cancel(room);
}

/* Who gives up what was on a node that is no more. */

static void what_another_node_has_is_not_given_up_with_its_place(void **state)
{
	struct process_record d;

	they_are_at(2000010, 3, 4, PROCESS_AWAY); /* which is in no view */
	they_have(2000010, 5, THERE);
	process_on_view(room);
	turn_for(700 * NSEC_PER_MSEC);
	assert_int_equal(process_record(room, 2000010, &d), 0);
	assert_int_equal(d.state, PROCESS_AWAY);
	/* Nor while one does not say. */
	answer = RPC_TIMEOUT;
	theirs.n_pids = theirs.n_generations = theirs.n_places = 0;
	turn_for(700 * NSEC_PER_MSEC);
	assert_int_equal(process_record(room, 2000010, &d), 0);
	assert_int_equal(d.state, PROCESS_AWAY);
	answer = RPC_OK;
	wait_until(process_record(room, 2000010, &d) == 0 && d.state == PROCESS_ENDED);
	assert_int_equal(d.status, SIGKILL);
	process_table_remove(room->table, 2000010);
}

static void seek(pid_t pid)
{
	Ssi__Process__ClaimRequest q = SSI__PROCESS__CLAIM_REQUEST__INIT;
	uint64_t home = 0;
	uint32_t generation = 0;

	q.pids = &pid;
	q.generations = &generation;
	q.homes = &home;
	q.n_pids = q.n_generations = q.n_homes = 1;
	on_reply = on_claim_reply;
	assert_int_equal(from_there(PROCESS_SEEK, &q.base), RPC_OK);
	on_reply = NULL;
}

static void who_is_sought_is_found_here_and_its_shadow_is_not(void **state)
{
	seek(r.pid);
	assert_int_equal(n_refused, 1);
	they_are_at(2000010, THERE, 4, PROCESS_AWAY);
	seek(2000010);
	assert_int_equal(n_refused, 0);
	process_table_remove(room->table, 2000010);
}

static void who_knows_an_older_view_does_not_say(void **state)
{
	Ssi__Process__ClaimRequest q = SSI__PROCESS__CLAIM_REQUEST__INIT;

	there_ahead = true;
	assert_int_equal(from_there(PROCESS_CLAIM, &q.base), RPC_DOWN);
	assert_int_equal(from_there(PROCESS_SEEK, &q.base), RPC_DOWN);
	there_ahead = false;
}

static void what_is_no_concern_of_this_node_goes_on(void **state)
{
	ask_for(3000011, 3);
	assert_int_equal(n_refused, 0);
}

static int tests(void)
{
#define TEST(name_) cmocka_unit_test_setup_teardown(name_, setup, teardown)
	const struct CMUnitTest all[] = {
		TEST(what_nobody_else_has_goes_on),
		TEST(what_was_revived_elsewhere_is_killed_and_a_shadow_stands_for_it),
		TEST(what_ended_by_its_home_is_killed),
		TEST(an_answer_about_what_was_not_asked_kills_nobody),
		TEST(who_does_not_answer_is_asked_until_a_view_excludes_him),
		TEST(a_lease_that_ends_again_cancels_it),
		TEST(where_the_copy_is_placed_is_not_heard_while_the_original_is_frozen),
		TEST(what_lives_here_may_not_live_there),
		TEST(a_home_lets_those_go_on_whose_place_it_is),
		TEST(a_home_that_was_there_all_the_time_and_knows_nothing_had_given_it_up),
		TEST(a_home_that_has_begun_anew_gives_nothing_up),
		TEST(a_move_that_the_home_was_not_told_of_is_not_given_up),
		TEST(the_source_leaves_it_to_the_target_until_it_has_heard),
		TEST(of_two_that_are_fenced_the_newer_goes_on),
		TEST(what_went_on_after_its_target_was_lost_is_the_newer),
		TEST(what_went_on_here_as_the_newer_and_ended_does_not_go_on_there),
		TEST(an_end_is_not_heard_before_it_is_known_which_copy_is_the_newer),
		TEST(what_another_node_has_is_not_given_up_with_its_place),
		TEST(who_is_sought_is_found_here_and_its_shadow_is_not),
		TEST(who_knows_an_older_view_does_not_say),
		TEST(what_is_no_concern_of_this_node_goes_on),
	};

	return cmocka_run_group_tests_name("claim", all, NULL, NULL);
}

int main(int argc, char **argv)
{
	return process_fixture_main(argc, argv, tests);
}
