/* The map: names, addresses, PID blocks; what may come from outside. */
#include "log.h"
#include "membership_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct membership_map *make(unsigned n)
{
	struct membership_map *map;
	char name[16];

	assert_int_equal(membership_map_new(&map, 1), 0);
	map->view->epoch = 7;
	map->next_id = n + 1;
	map->lease = NSEC_PER_SEC;
	for (unsigned i = 1; i <= n; i++) {
		(void)snprintf(name, sizeof(name), "n%u", i);
		assert_int_equal(membership_map_add_member(map, i, name, "10.0.0.1:7777", NULL),
				 0);
		*membership_map_start(map, i) = i * 100;
	}
	return map;
}

static void a_name_is_a_host_label(void **state)
{
	char longest[NODE_NAME_MAX + 2];

	memset(longest, 'a', sizeof(longest));
	longest[NODE_NAME_MAX + 1] = '\0';
	assert_false(membership_name_is_valid(longest));
	longest[NODE_NAME_MAX] = '\0';
	assert_true(membership_name_is_valid(longest));
	assert_true(membership_name_is_valid("node-7"));
	assert_false(membership_name_is_valid(""));
	assert_false(membership_name_is_valid("-a"));
	assert_false(membership_name_is_valid("a-"));
	assert_false(membership_name_is_valid("A"));
	assert_false(membership_name_is_valid("a.b"));
	assert_false(membership_name_is_valid("a\n"));
}

static void an_address_has_a_port(void **state)
{
	assert_true(membership_address_is_valid("10.0.0.1:7777"));
	assert_true(membership_address_is_valid("[::1]:7777"));
	assert_true(membership_address_is_valid("host.example-1.org:1"));
	assert_false(membership_address_is_valid("10.0.0.1"));
	assert_false(membership_address_is_valid(":7777"));
	assert_false(membership_address_is_valid("a:"));
	assert_false(membership_address_is_valid("a:77777777"));
	assert_false(membership_address_is_valid("a:7x"));
	assert_false(membership_address_is_valid("a b:7"));
	assert_false(membership_address_is_valid("a\n:7"));
	assert_false(membership_address_is_valid(
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:77"));
}

static void members_are_found_and_removed(void **state)
{
	struct membership_map *map = make(5);

	assert_int_equal(membership_map_member(map, 3)->id, 3);
	assert_null(membership_map_member(map, 6));
	membership_map_remove_member(map, 3);
	membership_map_remove_member(map, 3);
	assert_null(membership_map_member(map, 3));
	assert_int_equal(*membership_map_start(map, 4), 400);
	assert_string_equal(membership_map_member_by_name(map, "n5")->name, "n5");
	assert_true(membership_map_is_valid(map));
	(void)membership_map_free(map);
}

static void up_to(struct membership_map *map, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		map->view->nodes[i].state = MEMBER_UP;
}

static void small_clusters_have_long_runs_that_become_one(void **state)
{
	struct membership_map *map = make(3);

	up_to(map, 3);
	assert_int_equal(membership_map_lease(map, 1, 0), 0);
	assert_int_equal(membership_map_lease(map, 1, 0), 0);
	assert_int_equal(map->n_blocks, 1);
	assert_int_equal(membership_map_lease(map, 3, 0), 0);
	assert_int_equal(membership_map_lease(map, 2, 0), 0);
	assert_int_equal(membership_map_lease(map, 2, 0), 0);
	assert_int_equal(map->n_blocks, 3);
	assert_int_equal(membership_map_count_pids(map, 1), 2 * MEMBERSHIP_PID_RUN);
	assert_true(membership_map_is_valid(map));
	assert_int_equal(membership_map_home(map, 65535), NODE_NONE);
	assert_int_equal(membership_map_home(map, 65536), 1);
	assert_int_equal(membership_map_home(map, 196607), 1);
	assert_int_equal(membership_map_home(map, 196608), 3);
	assert_int_equal(membership_map_home(map, 393215), 2);
	assert_int_equal(membership_map_home(map, 393216), NODE_NONE);
	assert_int_equal(membership_map_home(map, 4194303), NODE_NONE);
	assert_int_equal(membership_map_home(map, 4194304), NODE_NONE);
	assert_int_equal(membership_map_home(map, -1), NODE_NONE);
	(void)membership_map_free(map);
}

static void join(struct membership_map *map, unsigned id)
{
	char name[16];

	(void)snprintf(name, sizeof(name), "n%u", id);
	assert_int_equal(membership_map_add_member(map, id, name, "10.0.0.1:7777", NULL), 0);
	map->view->nodes[id - 1].state = MEMBER_UP;
	map->next_id = id + 1;
}

static void a_thousand_nodes_have_pids_also_when_the_first_take_what_they_can(void **state)
{
	struct membership_map *map = make(0);
	uint32_t run = MEMBERSHIP_PID_RUN, now;

	for (unsigned id = 1; id <= 64; id++) {
		join(map, id);
		now = membership_map_lease_size(map, id, 0);
		assert_true(now <= run && now >= MEMBERSHIP_PID_BLOCK);
		run = now;
		assert_int_equal(membership_map_lease(map, id, 0), 0);
	}
	for (unsigned i = 0; !membership_map_lease(map, 1 + i % 3, 0); i++)
		assert_true(i < 2048);
	assert_int_equal(membership_map_lease_size(map, 1, 0), 0);
	for (unsigned id = 65; id <= MEMBERSHIP_PID_NODES; id++) {
		join(map, id);
		assert_int_equal(membership_map_lease(map, id, 0), 0);
		assert_int_equal(membership_map_count_pids(map, id), MEMBERSHIP_PID_BLOCK);
	}
	assert_int_equal(membership_map_home(map, 4194303), MEMBERSHIP_PID_NODES);
	assert_int_equal(membership_map_lease(map, 1, 0), MEMBERSHIP_MAP_E_EXHAUSTED);
	join(map, MEMBERSHIP_PID_NODES + 1);
	assert_int_equal(membership_map_lease(map, MEMBERSHIP_PID_NODES + 1, 0),
			 MEMBERSHIP_MAP_E_EXHAUSTED);
	assert_true(membership_map_is_valid(map));
	assert_in_range(map->n_blocks, MEMBERSHIP_PID_NODES, MEMBERSHIP_MAX_BLOCKS);
	(void)membership_map_free(map);
}

/* Nothing is ever given back: each join costs what is left, but less and less. */
static void more_than_a_thousand_nodes_may_come_and_go(void **state)
{
	struct membership_map *map = make(0);
	unsigned id = 0;

	do
		join(map, ++id);
	while (!membership_map_lease(map, id, 0));
	assert_int_equal(id - 1, 1039);
	(void)membership_map_free(map);
}

static void a_node_is_given_no_more_than_the_most_allowed(void **state)
{
	struct membership_map *map = make(2);

	up_to(map, 2);
	assert_int_equal(membership_map_lease(map, 1, 5000), 0);
	assert_int_equal(membership_map_count_pids(map, 1), 4096);
	assert_int_equal(membership_map_lease(map, 1, 5000), MEMBERSHIP_MAP_E_EXHAUSTED);
	assert_int_equal(membership_map_lease(map, 2, 1), 0);
	assert_int_equal(membership_map_count_pids(map, 2), MEMBERSHIP_PID_BLOCK);
	(void)membership_map_free(map);
}

static void smaller_blocks_leave_only_wide_gaps(void **state)
{
	struct membership_map *map = make(2);
	struct membership_block small = { MEMBERSHIP_PID_FIRST + 2048, 2048, 2 };

	assert_int_equal(membership_map_add_block(map, &small), 0);
	assert_int_equal(membership_map_lease(map, 1, 0), 0);
	assert_int_equal(membership_map_home(map, MEMBERSHIP_PID_FIRST + 4096), 1);
	assert_int_equal(membership_map_home(map, MEMBERSHIP_PID_FIRST), NODE_NONE);
	assert_true(membership_map_is_valid(map));
	(void)membership_map_free(map);
}

/* As they were when every block had 65,536. */
static void an_old_map_is_read_and_goes_on(void **state)
{
	struct membership_map *map = make(3), *back;
	_cleanup_free_ uint8_t *data = NULL;
	size_t len;

	up_to(map, 3);
	for (unsigned i = 0; i < 62; i++) {
		struct membership_block b = { (pid_t)(i + 1) * 65536, 65536, 1 + i % 3 };

		assert_int_equal(membership_map_add_block(map, &b), 0);
	}
	assert_int_equal(membership_wire_map_pack(map, &data, &len), 0);
	assert_int_equal(membership_wire_map_unpack((struct iovec){ data, len }, &back), 0);
	assert_int_equal(back->n_blocks, 62);
	assert_int_equal(membership_map_home(back, 63 * 65536 - 1), 2);
	/* The last 65,536 are for nodes that have none. */
	assert_int_equal(membership_map_lease(back, 1, 0), MEMBERSHIP_MAP_E_EXHAUSTED);
	join(back, 4);
	assert_int_equal(membership_map_lease(back, 4, 0), 0);
	assert_int_equal(membership_map_home(back, 63 * 65536), 4);
	(void)membership_map_free(back);
	(void)membership_map_free(map);
}

static void a_map_that_cannot_be_is_refused(void **state)
{
	struct membership_map *map = make(3);
	struct membership_block block = { MEMBERSHIP_PID_FIRST, 65536, 9 };

	assert_int_equal(membership_map_add_block(map, &block), 0);
	assert_false(membership_map_is_valid(map)); /* of nobody */
	map->blocks[0].node = 1;
	assert_true(membership_map_is_valid(map));
	assert_int_equal(membership_map_add_block(map, &(struct membership_block){
							       MEMBERSHIP_PID_FIRST + 1, 1, 2 }),
			 0);
	assert_false(membership_map_is_valid(map)); /* overlap */
	map->n_blocks = 1;
	strcpy(map->view->nodes[2].name, "n1");
	assert_false(membership_map_is_valid(map)); /* a name twice */
	strcpy(map->view->nodes[2].name, "n3");
	map->view->nodes[2].id = 1;
	assert_false(membership_map_is_valid(map)); /* ids out of order */
	(void)membership_map_free(map);
}

static void a_map_survives_the_store(void **state)
{
#define MS(n_) ((n_) * NSEC_PER_MSEC)
	static const struct membership_history
		history = { 1, MS(2), MS(3), MS(4), MS(5), MS(6), MS(7), MS(8) },
		never_lost = { .first = MS(5), .changed = MS(5), .up = MS(5) },
		joining = { .changed = MS(9) };
	struct membership_map *map = make(3), *back;
	_cleanup_free_ uint8_t *data = NULL;
	size_t len;

	assert_int_equal(membership_map_lease(map, 2, 0), 0);
	map->view->nodes[1].state = MEMBER_LOST;
	map->view->nodes[1].incarnation = 12;
	map->view->nodes[0].history = never_lost;
	map->view->nodes[1].history = history;
	map->view->nodes[2].history = joining;
	assert_int_equal(membership_wire_map_pack(map, &data, &len), 0);
	assert_int_equal(membership_wire_map_unpack((struct iovec){ data, len }, &back), 0);
	assert_int_equal(back->view->epoch, 7);
	assert_int_equal(back->view->n_nodes, 3);
	assert_int_equal(back->view->nodes[1].state, MEMBER_LOST);
	assert_int_equal(back->view->nodes[1].incarnation, 12);
	assert_memory_equal(&back->view->nodes[0].history, &never_lost, sizeof(history));
	assert_memory_equal(&back->view->nodes[1].history, &history, sizeof(history));
	assert_memory_equal(&back->view->nodes[2].history, &joining, sizeof(history));
	assert_int_equal(*membership_map_start(back, 3), 300);
	assert_int_equal(back->next_id, 4);
	assert_int_equal(back->lease, NSEC_PER_SEC);
	assert_int_equal(membership_map_home(back, 65540), 2);
	(void)membership_map_free(back);
	data[len / 2] ^= 0xff;
	if (!membership_wire_map_unpack((struct iovec){ data, len }, &back))
		(void)membership_map_free(back);
	assert_int_not_equal(membership_wire_map_unpack((struct iovec){ data, len - 1 }, &back),
			     0);
	(void)membership_map_free(map);
}

static void a_token_is_written_and_read(void **state)
{
	struct membership_token token = { .address = "node-a.example:7777" }, back;
	_cleanup_free_ char *text = NULL;
	char bad[512];

	for (size_t i = 0; i < sizeof(token.fingerprint); i++)
		token.fingerprint[i] = (uint8_t)(i * 37 + 1);
	memset(token.secret, 0xa5, sizeof(token.secret));
	text = membership_token_format(&token);
	assert_non_null(text);
	assert_int_equal(strncmp(text, "SSI1-", 5), 0);
	assert_int_equal(membership_token_parse(text, &back), 0);
	assert_memory_equal(back.fingerprint, token.fingerprint, sizeof(token.fingerprint));
	assert_memory_equal(back.secret, token.secret, sizeof(token.secret));
	assert_string_equal(back.address, token.address);
	for (size_t i = 0; i < 5 + 77 + 1; i++) {
		(void)snprintf(bad, sizeof(bad), "%s", text);
		bad[i] = '\0';
		assert_true(membership_token_parse(bad, &back) < 0);
		bad[i] = '1';
		assert_true(i == 3 || membership_token_parse(bad, &back) < 0);
	}
	assert_true(membership_token_parse("", &back) < 0);
}

static void a_join_request_is_checked(void **state)
{
	struct membership_join_request q = { .name = "n2", .address = "10.0.0.2:7", .csr = "x" },
				       back;
	_cleanup_free_ uint8_t *data = NULL;
	size_t len;

	assert_int_equal(membership_join_request_pack(&q, &data, &len), 0);
	assert_int_equal(membership_join_request_unpack((struct iovec){ data, len }, &back), 0);
	assert_string_equal(back.name, "n2");
	assert_string_equal(back.csr, "x");
	membership_join_request_fini(&back);
	free(TAKE(data));
	strcpy(q.name, "../n2");
	assert_int_equal(membership_join_request_pack(&q, &data, &len), 0);
	assert_true(membership_join_request_unpack((struct iovec){ data, len }, &back) < 0);
	assert_true(membership_join_request_unpack((struct iovec){ NULL, 0 }, &back) < 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_name_is_a_host_label),
		cmocka_unit_test(an_address_has_a_port),
		cmocka_unit_test(members_are_found_and_removed),
		cmocka_unit_test(small_clusters_have_long_runs_that_become_one),
		cmocka_unit_test(a_thousand_nodes_have_pids_also_when_the_first_take_what_they_can),
		cmocka_unit_test(more_than_a_thousand_nodes_may_come_and_go),
		cmocka_unit_test(a_node_is_given_no_more_than_the_most_allowed),
		cmocka_unit_test(smaller_blocks_leave_only_wide_gaps),
		cmocka_unit_test(an_old_map_is_read_and_goes_on),
		cmocka_unit_test(a_map_that_cannot_be_is_refused),
		cmocka_unit_test(a_map_survives_the_store),
		cmocka_unit_test(a_token_is_written_and_read),
		cmocka_unit_test(a_join_request_is_checked),
	};

	log_set_level(0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
