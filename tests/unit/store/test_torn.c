/*
 * The power goes while the store writes: what was synced is on the disk, and of what
 * was not any sectors, in any order.  The writes of LMDB come by here; at each of them,
 * and before each sync is done, it is noted what could be left, and in the end each of
 * that is opened.
 */
#include "cleanup.h"
#include "env_event.h"
#include "store_lmdb.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

enum {
	SECTOR = 512, /* is written as a whole, or not */
	FILE_MAX = 512 << 10,
	N_BATCHES = 40,
	N_AT_ONCE = 4, /* of what could be left at one moment */
	N_LEFT_MAX = 4000,
	N_KEYS = 6,
	VALUE = 5000, /* pages of its own */
};

struct file {
	uint8_t data[FILE_MAX];
	size_t size;
};

/* As the kernel has it, and as the disk does. */
static struct file cached, disk;

static struct {
	uint8_t *data;
	size_t size;
	int n_done; /* batches */
} left[N_LEFT_MAX];
static size_t n_left;
static int n_done;
static bool recording;
static uint64_t seed;
static char dir[64], path[80], file[96];

static unsigned chance(void)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return seed >> 63;
}

/* The size as the file system has it may be the old one or the new. */
static void note_one(void)
{
	size_t size = chance() ? cached.size : disk.size;
	uint8_t *data = calloc(1, size + SECTOR);

	assert_non_null(data);
	assert_true(n_left < N_LEFT_MAX);
	for (size_t at = 0; at < size; at += SECTOR)
		memcpy(data + at, (chance() ? &cached : &disk)->data + at,
		       size - at < SECTOR ? size - at : SECTOR);
	left[n_left].data = data;
	left[n_left].size = size;
	left[n_left++].n_done = n_done;
}

static void note(void)
{
	/* Before it has its name there is no store. */
	for (int i = 0; i < N_AT_ONCE && access(file, F_OK) == 0; i++)
		note_one();
}

static bool is_ours(int fd)
{
	char link[64], target[128];
	ssize_t n;

	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = recording ? readlink(link, target, sizeof(target) - 1) : -1;
	if (n < 0)
		return false;
	target[n] = '\0';
	return strstr(target, "/store/data.");
}

static void written(int fd, const void *data, size_t len, size_t at)
{
	assert_true(at + len <= FILE_MAX);
	memcpy(cached.data + at, data, len);
	if (at + len > cached.size)
		cached.size = at + len;
	note();
	if (fcntl(fd, F_GETFL) & O_DSYNC) {
		memcpy(disk.data + at, data, len);
		disk.size = cached.size > disk.size ? cached.size : disk.size;
	}
}

static void synced(void)
{
	note();
	memcpy(&disk, &cached, sizeof(disk));
}

/* What LMDB calls.  For us the header makes pwrite() another function. */

ssize_t pwrite_of_lmdb(int fd, const void *data, size_t len,
		       off_t at) __asm__("pwrite");

ssize_t pwrite_of_lmdb(int fd, const void *data, size_t len, off_t at)
{
	if (is_ours(fd))
		written(fd, data, len, (size_t)at);
	return syscall(SYS_pwrite64, fd, data, len, at);
}

ssize_t writev(int fd, const struct iovec *v, int n)
{
	size_t at = is_ours(fd) ? (size_t)lseek(fd, 0, SEEK_CUR) : 0;

	for (int i = 0; i < n && is_ours(fd); at += v[i++].iov_len)
		written(fd, v[i].iov_base, v[i].iov_len, at);
	return syscall(SYS_writev, fd, v, n);
}

int fdatasync(int fd)
{
	if (is_ours(fd))
		synced();
	return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
	if (is_ours(fd))
		synced();
	return (int)syscall(SYS_fsync, fd);
}

/* Batch n changes a key of its own and one that all change. */

static void put(const struct store *store, int n)
{
	char key[8], value[VALUE];
	struct store_change c[] = {{{key, 0}, {value, sizeof(value)}},
				   {{(void *)"last", 4}, {&n, sizeof(n)}}};

	c[0].key.iov_len = (size_t)snprintf(key, sizeof(key), "k%d", n % N_KEYS);
	memset(value, n, sizeof(value));
	assert_int_equal(store->ops->apply_now(store->impl, c, 2), 0);
	n_done = n;
}

static int get_last(const struct store *store)
{
	struct iovec v;
	int n;

	if (store->ops->get(store->impl, (struct iovec){(void *)"last", 4}, &v) != 0)
		return 0;
	assert_int_equal(v.iov_len, sizeof(n));
	memcpy(&n, v.iov_base, sizeof(n));
	free(v.iov_base);
	return n;
}

/* All that batches up to @last have put, and nothing of a later one. */
static void check_keys(const struct store *store, int last)
{
	for (int n = last; n > 0 && n > last - N_KEYS; n--) {
		char key[8], value[VALUE];
		size_t len = (size_t)snprintf(key, sizeof(key), "k%d", n % N_KEYS);
		struct iovec v;

		memset(value, n, sizeof(value));
		assert_int_equal(
			store->ops->get(store->impl, (struct iovec){key, len}, &v), 0);
		assert_int_equal(v.iov_len, VALUE);
		assert_memory_equal(v.iov_base, value, VALUE);
		free(v.iov_base);
	}
}

static void open_left(struct env_event *loop, size_t i)
{
	_cleanup_close_ int fd =
		open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	struct store_lmdb *lmdb;
	int last;

	assert_int_equal(write(fd, left[i].data, left[i].size), left[i].size);
	assert_int_equal(store_lmdb_new(&lmdb, env_event_env(loop), path), 0);
	last = get_last(store_lmdb_store(lmdb));
	assert_in_range(last, left[i].n_done, left[i].n_done + 1);
	check_keys(store_lmdb_store(lmdb), last);
	put(store_lmdb_store(lmdb), last + 1);
	check_keys(store_lmdb_store(lmdb), last + 1);
	lmdb = store_lmdb_free(lmdb);
}

static void whatever_a_power_cut_leaves_is_what_was_done_or_one_batch_more(void **state)
{
	struct env_event *loop;
	struct store_lmdb *lmdb;
	char lock[96];

	(void)getrandom(&seed, sizeof(seed), 0);
	print_message("# seed %llu\n", (unsigned long long)seed);
	(void)snprintf(dir, sizeof(dir), "%s/test_torn.XXXXXX", P_tmpdir);
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/store", dir);
	(void)snprintf(file, sizeof(file), "%s/data.mdb", path);
	(void)snprintf(lock, sizeof(lock), "%s/lock.mdb", path);
	assert_int_equal(env_event_new(&loop), 0);
	recording = true;
	assert_int_equal(store_lmdb_new(&lmdb, env_event_env(loop), path), 0);
	for (int n = 1; n <= N_BATCHES; n++)
		put(store_lmdb_store(lmdb), n);
	lmdb = store_lmdb_free(lmdb);
	recording = false;
	assert_true(n_left > N_BATCHES);
	for (size_t i = 0; i < n_left; i++) {
		open_left(loop, i);
		free(left[i].data);
	}
	loop = env_event_free(loop);
	assert_int_equal(unlink(file), 0);
	(void)unlink(lock);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			whatever_a_power_cut_leaves_is_what_was_done_or_one_batch_more),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
