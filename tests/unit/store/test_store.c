#include "cleanup.h"
#include "env_event.h"
#include "store_lmdb.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

static char dir[64], path[80];
static struct env_event *loop;
static struct store_lmdb *lmdb;
static const struct store *store;

static void open_store(void)
{
	assert_int_equal(env_event_new(&loop), 0);
	assert_int_equal(store_lmdb_new(&lmdb, env_event_env(loop), path), 0);
	store = store_lmdb_store(lmdb);
}

static void close_store(void)
{
	loop = env_event_free(loop);
	lmdb = store_lmdb_free(lmdb);
}

static int setup(void **state)
{
	(void)snprintf(dir, sizeof(dir), "%s/test_store.XXXXXX", P_tmpdir);
	if (!mkdtemp(dir))
		return -1;
	(void)snprintf(path, sizeof(path), "%s/store", dir);
	open_store();
	return 0;
}

static int teardown(void **state)
{
	static const char *const names[] = {"store/data.mdb", "store/lock.mdb"};
	char name[128];

	close_store();
	for (size_t i = 0; i < N_ELEMENTS(names); i++) {
		(void)snprintf(name, sizeof(name), "%s/%s", dir, names[i]);
		(void)unlink(name);
	}
	(void)rmdir(path);
	return rmdir(dir);
}

static struct iovec text(const char *s)
{
	return (struct iovec){(void *)s, strlen(s)};
}

static struct store_change put(const char *key, const char *value)
{
	return (struct store_change){text(key), text(value)};
}

/* Batches that are under way, and the order in which they were done. */
static int n_waiting, results[64], n_results;

static void on_done(void *owner, int result)
{
	results[n_results++] = result;
	*(int *)owner = n_results;
	if (--n_waiting == 0)
		env_event_stop(loop);
}

static void apply(const struct store_change *changes, size_t n, int *ret_place)
{
	if (n_waiting == 0)
		n_results = 0;
	*ret_place = 0;
	assert_int_equal(store->ops->apply(store->impl, changes, n, on_done, ret_place),
			 0);
	n_waiting++;
	assert_int_equal(*ret_place, 0); /* never inline */
}

static void wait_done(void)
{
	assert_int_equal(env_event_run(loop), 0);
	assert_int_equal(n_waiting, 0);
}

static void put_now(const char *key, const char *value)
{
	struct store_change c = put(key, value);
	int place;

	apply(&c, 1, &place);
	wait_done();
	assert_int_equal(results[0], 0);
}

static void assert_value(const char *key, const char *value)
{
	struct iovec v = {0};
	int r = store->ops->get(store->impl, text(key), &v);

	assert_int_equal(r, value ? 0 : STORE_E_ABSENT);
	if (value) {
		assert_int_equal(v.iov_len, strlen(value));
		assert_memory_equal(v.iov_base, value, v.iov_len);
		free(v.iov_base);
	}
}

static void what_was_put_is_got_after_done_and_not_before(void **state)
{
	struct store_change c = put("key", "value");
	int place;

	assert_value("key", NULL);
	apply(&c, 1, &place);
	assert_value("key", NULL);
	wait_done();
	assert_value("key", "value");
	put_now("key", "");
	assert_value("key", "");
}

static void what_is_put_at_once_is_got_at_once_also_beside_a_batch(void **state)
{
	struct store_change c[] = {put("a", "1"), put("b", "2")}, later = put("c", "3");
	int place;

	apply(&later, 1, &place);
	assert_int_equal(store->ops->apply_now(store->impl, c, 2), 0);
	assert_value("a", "1");
	assert_value("b", "2");
	wait_done();
	assert_value("c", "3");
	c[1].value.iov_base = NULL;
	assert_int_equal(store->ops->apply_now(store->impl, c, 2), 0);
	assert_value("b", NULL);
	c[1].key.iov_len = 0;
	assert_int_equal(store->ops->apply_now(store->impl, c, 2), -EINVAL);
	close_store();
	open_store();
	assert_value("a", "1");
}

static void the_changes_are_copied(void **state)
{
	char key[] = "key", value[] = "value";
	struct store_change c = {{key, 3}, {value, 5}};
	int place;

	apply(&c, 1, &place);
	memset(key, 'x', 3);
	memset(value, 'x', 5);
	wait_done();
	assert_value("key", "value");
}

static void a_key_is_deleted_and_an_absent_one_is_no_error(void **state)
{
	struct store_change c[] = {
		{text("a"), {0}}, {text("never"), {0}}, put("b", "2")};
	int place;

	put_now("a", "1");
	apply(c, 3, &place);
	wait_done();
	assert_int_equal(results[0], 0);
	assert_value("a", NULL);
	assert_value("b", "2");
}

static void batches_are_done_in_the_order_of_the_calls(void **state)
{
	int places[40];
	char value[8];

	for (int i = 0; i < 40; i++) {
		struct store_change c;

		(void)snprintf(value, sizeof(value), "%d", i);
		c = put("key", value);
		apply(&c, 1, &places[i]);
	}
	wait_done();
	for (int i = 0; i < 40; i++)
		assert_int_equal(places[i], i + 1);
	assert_value("key", "39");
}

static void a_key_that_is_empty_or_too_long_is_refused_at_once(void **state)
{
	char key[257];
	struct iovec v;
	struct store_change c[2];
	int place;

	memset(key, 'k', 256);
	key[256] = '\0';
	c[0] = put("fine", "1");
	c[1] = put(key, "1");
	assert_int_equal(store->ops->apply(store->impl, c, 2, on_done, &place),
			 -EINVAL);
	c[1] = put("", "1");
	assert_int_equal(store->ops->apply(store->impl, c, 2, on_done, &place),
			 -EINVAL);
	assert_int_equal(store->ops->get(store->impl, text(key), &v), -EINVAL);
	assert_value("fine", NULL);
	key[255] = '\0';
	put_now(key, "longest");
	assert_value(key, "longest");
}

struct seen {
	char keys[256];
	int stop_after;
};

static int on_each(void *owner, struct iovec key, struct iovec value)
{
	struct seen *s = owner;

	(void)snprintf(s->keys + strlen(s->keys), sizeof(s->keys) - strlen(s->keys),
		       "%.*s=%.*s ", (int)key.iov_len, (const char *)key.iov_base,
		       (int)value.iov_len, (const char *)value.iov_base);
	return --s->stop_after == 0 ? 42 : 0;
}

static void each_walks_over_its_prefix_in_order(void **state)
{
	struct store_change c[] = {put("b/2", "2"), put("b/1", "1"), put("a", "a"),
				   put("b", "b"),   put("c", "c"),   put("b/3", "3")};
	struct seen prefixed = {0}, all = {0}, some = {.stop_after = 2}, none = {0};
	int place;

	apply(c, N_ELEMENTS(c), &place);
	wait_done();
	assert_int_equal(store->ops->each(store->impl, text("b/"), on_each, &prefixed),
			 0);
	assert_string_equal(prefixed.keys, "b/1=1 b/2=2 b/3=3 ");
	assert_int_equal(store->ops->each(store->impl, text(""), on_each, &all), 0);
	assert_string_equal(all.keys, "a=a b=b b/1=1 b/2=2 b/3=3 c=c ");
	assert_int_equal(store->ops->each(store->impl, text("b"), on_each, &some), 42);
	assert_string_equal(some.keys, "b=b b/1=1 ");
	assert_int_equal(store->ops->each(store->impl, text("zz"), on_each, &none), 0);
	assert_string_equal(none.keys, "");
}

static int on_each_apply(void *owner, struct iovec key, struct iovec value)
{
	struct store_change c = {key, {0}};

	apply(&c, 1, owner);
	return 0;
}

static void a_walk_may_apply_what_it_meets(void **state)
{
	struct store_change c[] = {put("x/1", "1"), put("x/2", "2")};
	int place;

	apply(c, 2, &place);
	wait_done();
	assert_int_equal(
		store->ops->each(store->impl, text("x/"), on_each_apply, &place), 0);
	wait_done();
	assert_value("x/1", NULL);
	assert_value("x/2", NULL);
}

static void a_store_stands_when_it_is_opened_again(void **state)
{
	struct store_change late = put("late", "2");
	struct stat st;
	int place;

	put_now("key", "1");
	apply(&late, 1, &place);
	close_store(); /* nobody is told, nothing is lost */
	n_waiting = 0;
	assert_int_equal(place, 0);
	open_store();
	assert_value("key", "1");
	assert_value("late", "2");
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
}

/* Batch n writes the two keys of n % 8; they must agree for ever. */
static int child_pipe;

static void on_child_done(void *owner, int result);

static void child_apply(int n)
{
	char keys[2][16], value[2000];
	struct store_change c[2];

	memset(value, 'v', sizeof(value) - 1);
	value[sizeof(value) - 1] = '\0';
	(void)snprintf(value, 16, "%d", n);
	value[strlen(value)] = '.';
	for (int i = 0; i < 2; i++) {
		(void)snprintf(keys[i], sizeof(keys[i]), "%c%d", "ab"[i], n % 8);
		c[i] = put(keys[i], value);
	}
	if (store->ops->apply(store->impl, c, 2, on_child_done, (void *)(intptr_t)n) <
	    0)
		_exit(1);
}

static void on_child_done(void *owner, int result)
{
	int n = (int)(intptr_t)owner;

	if (result < 0 || write(child_pipe, &n, sizeof(n)) != sizeof(n))
		_exit(1);
	child_apply(n + 4);
}

static void child_writes_for_ever(void)
{
	open_store();
	for (int n = 0; n < 4; n++)
		child_apply(n);
	(void)env_event_run(loop);
	_exit(1);
}

static long number(const char *key)
{
	struct iovec v;
	long n;

	if (store->ops->get(store->impl, text(key), &v) != 0)
		return -1;
	n = strtol(v.iov_base, NULL, 10);
	free(v.iov_base);
	return n;
}

static void
a_kill_in_the_middle_tears_no_batch_and_loses_none_that_was_done(void **state)
{
	close_store();
	for (int round = 0; round < 5; round++) {
		long last[8] = {-1, -1, -1, -1, -1, -1, -1, -1};
		int fds[2], n, seen = 0;
		pid_t pid;

		assert_int_equal(pipe(fds), 0);
		pid = fork();
		if (pid == 0) {
			child_pipe = fds[1];
			child_writes_for_ever();
		}
		close(fds[1]);
		while (seen < 40 + 7 * round &&
		       read(fds[0], &n, sizeof(n)) == sizeof(n)) {
			last[n % 8] = n;
			seen++;
		}
		assert_int_equal(kill(pid, SIGKILL), 0);
		while (read(fds[0], &n, sizeof(n)) == sizeof(n))
			last[n % 8] = n;
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		close(fds[0]);
		open_store();
		for (int i = 0; i < 8; i++) {
			char a[] = {'a', (char)('0' + i), '\0'},
			     b[] = {'b', (char)('0' + i), '\0'};

			assert_int_equal(number(a), number(b));
			assert_true(number(a) >= last[i]);
		}
		close_store();
	}
	open_store();
}

static void a_full_disk_fails_the_batch_whole_and_the_store_goes_on(void **state)
{
	struct rlimit before, small = {256 << 10, 256 << 10};
	struct store_change c[2] = {put("small", "new"), {text("big"), {0}}};
	char *big = calloc(1, 1 << 20);
	int place, other;

	put_now("small", "old");
	c[1].value = (struct iovec){big, 1 << 20};
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	small.rlim_max = before.rlim_max;
	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	apply(c, 2, &place);
	c[0] = put("other", "1");
	apply(c, 1, &other);
	wait_done();
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_true(results[0] < 0);
	assert_int_equal(results[1], 0);
	assert_value("small", "old");
	assert_value("big", NULL);
	assert_value("other", "1");
	put_now("small", "newer");
	assert_value("small", "newer");
	free(big);
}

static void a_full_store_says_that_no_space_is_left(void **state)
{
	struct store_change c[] = {put("small", "new"), {text("big"), {0}}};
	size_t len = 1 << 20;
	char *big = calloc(1, len);
	int place, other;

	close_store();
	assert_int_equal(env_event_new(&loop), 0);
	assert_int_equal(store_lmdb_new_limited(&lmdb, env_event_env(loop), path, len),
			 0);
	store = store_lmdb_store(lmdb);
	put_now("small", "old");
	c[1].value = (struct iovec){big, len};
	apply(c, 2, &place);
	c[0] = put("other", "1");
	apply(c, 1, &other);
	wait_done();
	assert_int_equal(results[0], -ENOSPC);
	assert_int_equal(results[1], 0);
	c[0] = put("small", "new");
	assert_int_equal(store_lmdb_error(lmdb), 0);
	assert_int_equal(store->ops->apply_now(store->impl, c, 2), -ENOSPC);
	assert_int_equal(store_lmdb_error(lmdb), -ENOSPC);
	assert_value("small", "old");
	assert_value("big", NULL);
	put_now("small", "new");
	assert_int_equal(store_lmdb_error(lmdb), 0);
	assert_value("small", "new");
	free(big);
}

static void a_place_where_nothing_can_be_is_refused(void **state)
{
	struct store_lmdb *s = NULL;

	assert_true(store_lmdb_new(&s, env_event_env(loop), "/nonexistent/store") < 0);
	assert_true(store_lmdb_new(&s, env_event_env(loop), "/dev/null") < 0);
	assert_null(s);
	assert_null(store_lmdb_free(NULL));
}

int main(void)
{
#define TEST(name_) cmocka_unit_test_setup_teardown(name_, setup, teardown)
	static const struct CMUnitTest tests[] = {
		TEST(what_was_put_is_got_after_done_and_not_before),
		TEST(what_is_put_at_once_is_got_at_once_also_beside_a_batch),
		TEST(the_changes_are_copied),
		TEST(a_key_is_deleted_and_an_absent_one_is_no_error),
		TEST(batches_are_done_in_the_order_of_the_calls),
		TEST(a_key_that_is_empty_or_too_long_is_refused_at_once),
		TEST(each_walks_over_its_prefix_in_order),
		TEST(a_walk_may_apply_what_it_meets),
		TEST(a_store_stands_when_it_is_opened_again),
		TEST(a_kill_in_the_middle_tears_no_batch_and_loses_none_that_was_done),
		TEST(a_full_disk_fails_the_batch_whole_and_the_store_goes_on),
		TEST(a_full_store_says_that_no_space_is_left),
		TEST(a_place_where_nothing_can_be_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
