/* What stands in the store, whole, torn and foreign. */
#include "consensus_internal.h"
#include "log.h"
#include "world.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct world *world;
static const struct store *store;

static int start(void *owner, unsigned slot)
{
	return 0;
}

static void stop(void *owner, unsigned slot)
{
}

static int setup(void **state)
{
	static const struct world_rooms rooms = {start, stop, NULL};

	log_set_level(0);
	world = world_new(1, 1, &rooms, NULL);
	world_boot(world, 1);
	store = world_store(world, 1);
	return 0;
}

static int teardown(void **state)
{
	world = world_free(world);
	return 0;
}

static void put(struct iovec key, struct iovec value)
{
	struct store_change change = {key, value};

	assert_int_equal(store->ops->apply_now(store->impl, &change, 1), 0);
}

static struct raft_buffer servers_of(unsigned n)
{
	struct consensus_servers servers = {.n = n};
	struct raft_buffer buf;

	for (unsigned i = 0; i < n; i++) {
		servers.of[i].node = i + 1;
		servers.of[i].role = i ? CONSENSUS_STANDBY : CONSENSUS_VOTER;
		(void)snprintf(servers.of[i].address, sizeof(servers.of[i].address),
			       "10.0.0.%u:7777", i + 1);
	}
	assert_int_equal(consensus_servers_pack(&servers, &buf), 0);
	return buf;
}

static void put_entry(uint64_t index, uint64_t term, unsigned short type,
		      const char *text)
{
	struct raft_entry e = {
		.term = term, .type = type, .buf = {(void *)text, strlen(text)}};
	struct raft_buffer servers = {0};
	uint8_t key[CONSENSUS_KEY_MAX];
	struct iovec value;

	if (type == RAFT_CHANGE)
		e.buf = servers = servers_of(1);
	value = consensus_log_entry_pack(index, &e);
	put((struct iovec){key, consensus_log_entry_key(index, key)}, value);
	free(value.iov_base);
	raft_free(servers.base);
}

static void put_term(uint64_t term, uint64_t vote)
{
	uint8_t value[CONSENSUS_TERM_LEN];

	consensus_log_term_pack(term, vote, value);
	put(consensus_log_term_key(), (struct iovec){value, sizeof(value)});
}

static void put_snapshot(uint64_t index, uint64_t term)
{
	struct consensus_log_snapshot s = {.index = index,
					   .term = term,
					   .servers = {.index = 1, .servers = {.n = 1}},
					   .state = {(void *)"state", 5}};
	struct iovec value;

	s.servers.servers.of[0] =
		(struct consensus_server){1, "10.0.0.1:7777", CONSENSUS_VOTER};
	value = consensus_log_snapshot_pack(&s);
	put(consensus_log_snapshot_key(), value);
	free(value.iov_base);
}

static void put_log(void)
{
	put_term(3, 1);
	put_entry(1, 1, RAFT_CHANGE, "");
	put_entry(2, 2, RAFT_BARRIER, "12345678");
	put_entry(3, 3, RAFT_COMMAND, "command");
	put_entry(4, 3, RAFT_COMMAND, "");
}

static int load(struct consensus_log *ret)
{
	return consensus_log_load(store, ret);
}

static void assert_damaged(void)
{
	struct consensus_log log;

	assert_int_equal(load(&log), -EBADMSG);
}

static void an_empty_store_is_an_empty_log(void **state)
{
	struct consensus_log log;

	assert_int_equal(load(&log), 0);
	assert_int_equal(log.term, 0);
	assert_int_equal(log.n_entries, 0);
	assert_int_equal(log.first, 1);
	assert_false(log.has_snapshot);
	consensus_log_fini(&log);
}

static void what_was_written_is_read(void **state)
{
	struct consensus_log log;

	put_log();
	assert_int_equal(load(&log), 0);
	assert_int_equal(log.term, 3);
	assert_int_equal(log.vote, 1);
	assert_int_equal(log.first, 1);
	assert_int_equal(log.n_entries, 4);
	assert_int_equal(log.entries[2].term, 3);
	assert_int_equal(log.entries[2].type, RAFT_COMMAND);
	assert_memory_equal(log.entries[2].buf.base, "command", 7);
	assert_int_equal(log.entries[3].buf.len, 0);
	consensus_log_fini(&log);
}

static void a_snapshot_stands_before_its_entries(void **state)
{
	struct consensus_log log;

	put_log();
	put_snapshot(3, 3);
	assert_int_equal(load(&log), 0);
	assert_true(log.has_snapshot);
	assert_int_equal(log.snapshot.index, 3);
	assert_int_equal(log.snapshot.state.iov_len, 5);
	assert_memory_equal(log.snapshot.state.iov_base, "state", 5);
	assert_int_equal(log.snapshot.servers.servers.of[0].role, CONSENSUS_VOTER);
	consensus_log_fini(&log);
}

static int flip(void *owner, struct iovec key, struct iovec value)
{
	uint8_t *bytes = value.iov_base;

	for (size_t i = 0; i < value.iov_len; i++) {
		bytes[i] ^= 0x10;
		assert_damaged();
		bytes[i] ^= 0x10;
	}
	return 0;
}

static void every_byte_counts(void **state)
{
	put_log();
	put_snapshot(3, 3);
	assert_int_equal(store->ops->each(store->impl,
					  (struct iovec){(void *)"consensus/", 10},
					  flip, NULL),
			 0);
}

static void cut(struct iovec key)
{
	_cleanup_free_ void *bytes = NULL;
	struct iovec value;

	assert_int_equal(store->ops->get(store->impl, key, &value), 0);
	bytes = value.iov_base;
	for (size_t i = 0; i < value.iov_len; i++) {
		put(key, (struct iovec){bytes, i});
		assert_damaged();
	}
	put(key, value);
}

static void a_torn_value_is_refused(void **state)
{
	struct consensus_log log;
	uint8_t key[CONSENSUS_KEY_MAX];

	put_log();
	put_snapshot(3, 3);
	cut(consensus_log_term_key());
	cut(consensus_log_snapshot_key());
	cut((struct iovec){key, consensus_log_entry_key(3, key)});
	assert_int_equal(load(&log), 0);
	consensus_log_fini(&log);
}

static void delete (uint64_t index)
{
	uint8_t key[CONSENSUS_KEY_MAX];

	put((struct iovec){key, consensus_log_entry_key(index, key)},
	    (struct iovec){0});
}

static void a_gap_is_refused(void **state)
{
	put_log();
	delete (2);
	assert_damaged();
}

static void a_log_without_its_beginning_is_refused(void **state)
{
	put_log();
	delete (1);
	assert_damaged();
}

static void entries_that_end_before_the_snapshot_are_refused(void **state)
{
	put_log();
	put_snapshot(9, 3);
	assert_damaged();
}

static void a_snapshot_of_another_term_than_its_entry_is_refused(void **state)
{
	put_log();
	put_snapshot(3, 2);
	assert_damaged();
}

static void terms_that_go_back_are_refused(void **state)
{
	put_log();
	put_entry(5, 2, RAFT_COMMAND, "old");
	assert_damaged();
}

static void an_entry_of_a_later_term_is_refused(void **state)
{
	put_log();
	put_entry(5, 4, RAFT_COMMAND, "new");
	assert_damaged();
}

static void an_entry_under_another_key_is_refused(void **state)
{
	struct raft_entry e = {.term = 3, .type = RAFT_COMMAND};
	uint8_t key[CONSENSUS_KEY_MAX];
	struct iovec value = consensus_log_entry_pack(6, &e);

	put_log();
	put((struct iovec){key, consensus_log_entry_key(5, key)}, value);
	free(value.iov_base);
	assert_damaged();
}

static void one_kind_of_value_is_not_another(void **state)
{
	struct consensus_log_snapshot s;
	struct raft_entry e = {
		.term = 3, .type = RAFT_COMMAND, .buf = {(void *)"x", 1}};
	struct iovec value = consensus_log_entry_pack(5, &e);
	uint64_t term, vote;

	assert_int_equal(consensus_log_snapshot_unpack(value, &s), -EBADMSG);
	assert_int_equal(consensus_log_term_unpack(value, &term, &vote), -EBADMSG);
	free(value.iov_base);
}

/* As libraft writes them, and what it would read past the end of. */
static void servers_are_read_within_their_bytes(void **state)
{
	struct raft_buffer buf = servers_of(3);
	struct consensus_servers servers;
	size_t n_refused = 0;

	assert_int_equal(
		consensus_servers_unpack((struct iovec){buf.base, buf.len}, &servers),
		0);
	assert_int_equal(servers.n, 3);
	assert_int_equal(servers.of[2].node, 3);
	assert_string_equal(servers.of[2].address, "10.0.0.3:7777");
	for (size_t i = 0; i < buf.len; i++) {
		uint8_t *copy = malloc(i + 1);

		assert_non_null(copy);
		memcpy(copy, buf.base, i);
		n_refused += consensus_servers_unpack((struct iovec){copy, i},
						      &servers) != 0;
		free(copy);
	}
	/* All but the padding matters. */
	assert_true(n_refused > buf.len - 8);
	raft_free(buf.base);
}

static void servers_that_cannot_be_are_refused(void **state)
{
	struct raft_buffer buf = servers_of(2);
	uint8_t *p = buf.base;
	struct iovec bytes = {buf.base, buf.len};
	struct consensus_servers servers;

	p[0] = 2; /* another version */
	assert_int_equal(consensus_servers_unpack(bytes, &servers), -EBADMSG);
	p[0] = 1;
	p[1] = CONSENSUS_MAX_SERVERS + 1;
	assert_int_equal(consensus_servers_unpack(bytes, &servers), -EBADMSG);
	p[1] = 0; /* nobody */
	assert_int_equal(consensus_servers_unpack(bytes, &servers), -EBADMSG);
	p[1] = 2;
	p[9 + 8 + 14] = 9; /* the first's role */
	assert_int_equal(consensus_servers_unpack(bytes, &servers), -EBADMSG);
	p[9 + 8 + 14] = RAFT_VOTER;
	assert_int_equal(consensus_servers_unpack(bytes, &servers), 0);
	p[9 + 23] = 1; /* the second's id: twice the first's */
	assert_int_equal(consensus_servers_unpack(bytes, &servers), -EBADMSG);
	raft_free(buf.base);
}

#define TEST(f_) cmocka_unit_test_setup_teardown(f_, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(an_empty_store_is_an_empty_log),
		TEST(what_was_written_is_read),
		TEST(a_snapshot_stands_before_its_entries),
		TEST(every_byte_counts),
		TEST(a_torn_value_is_refused),
		TEST(a_gap_is_refused),
		TEST(a_log_without_its_beginning_is_refused),
		TEST(entries_that_end_before_the_snapshot_are_refused),
		TEST(a_snapshot_of_another_term_than_its_entry_is_refused),
		TEST(terms_that_go_back_are_refused),
		TEST(an_entry_of_a_later_term_is_refused),
		TEST(an_entry_under_another_key_is_refused),
		TEST(one_kind_of_value_is_not_another),
		TEST(servers_are_read_within_their_bytes),
		TEST(servers_that_cannot_be_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
