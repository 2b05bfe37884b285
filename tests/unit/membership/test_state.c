/* What the servers agree on: commands change it, and a snapshot is all of it. */
#include "cleanup.h"
#include "membership_internal.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct membership_map *map_of(epoch_t epoch)
{
	struct membership_map *map;

	assert_int_equal(membership_map_new(&map, 1), 0);
	assert_int_equal(membership_map_add_member(map, 1, "a", "10.0.0.1:1", NULL), 0);
	map->view->epoch = epoch;
	map->next_id = 2;
	return map;
}

static int apply(struct membership_state *s, const struct membership_command *command)
{
	struct iovec bytes;
	int r;

	assert_int_equal(membership_command_pack(command, &bytes), 0);
	r = membership_state_apply(s, bytes);
	free(bytes.iov_base);
	return r;
}

static int apply_epoch(struct membership_state *s, epoch_t epoch)
{
	_cleanup_(membership_map_freep) struct membership_map *map = map_of(epoch);

	return apply(s, &(struct membership_command){ .map = map });
}

static void views_follow_each_other(void **state)
{
	_cleanup_(membership_state_freep) struct membership_state *s = NULL;

	assert_int_equal(membership_state_new(&s), 0);
	assert_int_equal(apply_epoch(s, 1), 0);
	assert_int_equal(apply_epoch(s, 2), 0);
	assert_int_equal(apply_epoch(s, 2), -EBADMSG);
	assert_int_equal(apply_epoch(s, 4), -EBADMSG);
	assert_int_equal(s->map->view->epoch, 2);
	/* A command without a map leaves it. */
	assert_int_equal(apply(s, &(struct membership_command){ 0 }), 0);
	assert_int_equal(s->map->view->epoch, 2);
}

static void tokens_come_change_and_go(void **state)
{
	_cleanup_(membership_state_freep) struct membership_state *s = NULL;
	struct membership_token_change t = { .hash = { 7 }, .record = { .expires = 100 } };
	struct membership_command command = { .tokens = &t, .n_tokens = 1 };

	assert_int_equal(membership_state_new(&s), 0);
	assert_null(membership_state_token(s, t.hash));
	assert_int_equal(apply(s, &command), 0);
	assert_int_equal(membership_state_token(s, t.hash)->expires, 100);
	assert_int_equal(membership_state_token(s, t.hash)->used_by, 0);
	t.record.used_by = 9;
	assert_int_equal(apply(s, &command), 0);
	assert_int_equal(membership_state_token(s, t.hash)->used_by, 9);
	t.record.expires = 0;
	assert_int_equal(apply(s, &command), 0);
	assert_null(membership_state_token(s, t.hash));
}

static void a_snapshot_is_all_of_it(void **state)
{
	_cleanup_(membership_state_freep) struct membership_state *s = NULL, *copy = NULL;
	_cleanup_(membership_map_freep) struct membership_map *map = map_of(41);
	struct membership_token_change t[] = {
		{ .hash = { 1 }, .record = { .expires = 10 } },
		{ .hash = { 2 }, .record = { .expires = 20, .used_by = 3 } },
	};
	struct iovec bytes;

	assert_int_equal(membership_state_new(&s), 0);
	assert_int_equal(membership_state_new(&copy), 0);
	assert_int_equal(apply(s, &(struct membership_command){ .map = map,
								.tokens = t,
								.n_tokens = 2,
								.ca_pem = "CA",
								.ca_key_pem = "KEY" }),
			 0);
	assert_int_equal(membership_state_pack(s, &bytes), 0);
	assert_int_equal(membership_state_apply(copy, bytes), 0);
	free(bytes.iov_base);
	assert_int_equal(copy->map->view->epoch, 41);
	assert_string_equal(copy->map->view->nodes[0].name, "a");
	assert_int_equal(membership_state_token(copy, t[1].hash)->used_by, 3);
	assert_int_equal(membership_state_token(copy, t[0].hash)->expires, 10);
	assert_string_equal(copy->ca_pem, "CA");
	assert_string_equal(copy->ca_key_pem, "KEY");
}

static void what_is_no_command_changes_nothing(void **state)
{
	_cleanup_(membership_state_freep) struct membership_state *s = NULL;
	_cleanup_(membership_map_freep) struct membership_map *map = map_of(2);
	struct membership_token_change t = { .hash = { 7 }, .record = { .expires = 100 } };
	struct membership_command command = { .map = map, .tokens = &t, .n_tokens = 1 };
	struct iovec bytes;

	assert_int_equal(membership_state_new(&s), 0);
	assert_int_equal(apply_epoch(s, 1), 0);
	assert_int_equal(membership_command_pack(&command, &bytes), 0);
	/* Torn anywhere: refused, or what was whole of it. */
	for (size_t len = 1; len < bytes.iov_len; len++) {
		_cleanup_(membership_state_freep) struct membership_state *torn = NULL;

		assert_int_equal(membership_state_new(&torn), 0);
		assert_int_equal(apply_epoch(torn, 1), 0);
		if (membership_state_apply(torn, (struct iovec){ bytes.iov_base, len }))
			assert_int_equal(torn->map->view->epoch, 1);
	}
	free(bytes.iov_base);
	assert_int_equal(membership_state_apply(s, (struct iovec){ "\xff\xff\xff", 3 }), -EBADMSG);
	assert_int_equal(s->map->view->epoch, 1);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(views_follow_each_other),
		cmocka_unit_test(tokens_come_change_and_go),
		cmocka_unit_test(a_snapshot_is_all_of_it),
		cmocka_unit_test(what_is_no_command_changes_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
