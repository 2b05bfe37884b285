/*
 * Happy path: apply() copies the changes and queues the batch.  A worker takes all
 * that wait at once, in order, in one transaction, which is one sync of the disk for
 * all of them; done tells each.  Reads see what has been committed: a batch is not
 * visible before its done.  apply_now() is a transaction of its own, on the loop.
 *
 * Failure modes: the transaction fails (a full disk, a failing one) -> each batch is
 * tried by itself, so that only those fail which must; what stood before stands.  The
 * power goes -> each batch is there as a whole or not at all, and all that were told as
 * done.
 */
#include "store_lmdb.h"

#include "cleanup.h"
#include "err.h"

#include <fcntl.h>
#include <limits.h>
#include <lmdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

enum { KEY_MAX = 255 };
static const size_t ALMOST_FULL = 1 << 20;
static const size_t LIMIT = (size_t)1 << 30; /* sparse: what is used is what counts */

struct batch {
	STAILQ_ENTRY(batch) entry;
	struct store_lmdb *store;
	store_done_cb done;
	void *owner;
	int result;
	size_t n_changes;
	struct store_change changes[]; /* keys and values behind them, in one block */
};

STAILQ_HEAD(batches, batch);

struct store_lmdb {
	struct store store;
	const struct env *env;
	MDB_env *lmdb;
	MDB_dbi dbi;
	struct env_work work;
	struct batches queued;
	struct batches writing; /* the worker's until it is done */
	int error;		/* of the last write */
};

static int from_lmdb(int r)
{
	switch (r) {
	case 0:
		return 0;
	case MDB_MAP_FULL:
		return err_origin(-ENOSPC);
	default:
		/* LMDB's own codes are negative, the system's positive. */
		return err_origin(r > 0 ? -r : -EIO);
	}
}

/* LMDB calls a write of which only a part went to the disk an error of the device. */
static int from_commit(const struct store_lmdb *s, int r)
{
	struct statvfs disk;
	mdb_filehandle_t fd;

	if (r == EIO && mdb_env_get_fd(s->lmdb, &fd) == 0 && fstatvfs(fd, &disk) == 0 &&
	    disk.f_bavail < ALMOST_FULL / disk.f_frsize)
		return err_origin(-ENOSPC);
	return from_lmdb(r);
}

static bool is_key(struct iovec key)
{
	return key.iov_len > 0 && key.iov_len <= KEY_MAX;
}

/* Reading. */

static int on_get(void *impl, struct iovec key, struct iovec *ret)
{
	struct store_lmdb *s = impl;
	MDB_val k = {key.iov_len, key.iov_base}, v;
	MDB_txn *txn;
	int r;

	if (!is_key(key))
		return err_origin(-EINVAL);
	r = mdb_txn_begin(s->lmdb, NULL, MDB_RDONLY, &txn);
	if (r)
		return from_lmdb(r);
	r = mdb_get(txn, s->dbi, &k, &v);
	if (r == 0) {
		ret->iov_base = malloc(v.mv_size ? v.mv_size : 1);
		ret->iov_len = v.mv_size;
		if (ret->iov_base)
			memcpy(ret->iov_base, v.mv_data, v.mv_size);
		else
			r = ENOMEM;
	}
	mdb_txn_abort(txn);
	return r == MDB_NOTFOUND ? STORE_E_ABSENT : from_lmdb(r);
}

static int walk(MDB_cursor *cursor, struct iovec prefix, store_each_cb cb, void *owner)
{
	MDB_val k = {prefix.iov_len, prefix.iov_base}, v;
	int r = mdb_cursor_get(cursor, &k, &v,
			       prefix.iov_len ? MDB_SET_RANGE : MDB_FIRST);

	while (r == 0) {
		if (k.mv_size < prefix.iov_len ||
		    memcmp(k.mv_data, prefix.iov_base, prefix.iov_len) != 0)
			return 0;
		r = cb(owner, (struct iovec){k.mv_data, k.mv_size},
		       (struct iovec){v.mv_data, v.mv_size});
		if (r != 0)
			return r;
		r = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
	}
	return r == MDB_NOTFOUND ? 0 : from_lmdb(r);
}

/* @cb may read, and apply: it walks over what was there when it began. */
static int on_each(void *impl, struct iovec prefix, store_each_cb cb, void *owner)
{
	struct store_lmdb *s = impl;
	MDB_cursor *cursor;
	MDB_txn *txn;
	int r;

	if (prefix.iov_len && !is_key(prefix))
		return err_origin(-EINVAL);
	r = mdb_txn_begin(s->lmdb, NULL, MDB_RDONLY, &txn);
	if (r)
		return from_lmdb(r);
	r = mdb_cursor_open(txn, s->dbi, &cursor);
	if (r == 0) {
		r = walk(cursor, prefix, cb, owner);
		mdb_cursor_close(cursor);
	} else {
		r = from_lmdb(r);
	}
	mdb_txn_abort(txn);
	return r;
}

/* Writing. */

static int put_batch(struct store_lmdb *s, MDB_txn *txn, const struct batch *b)
{
	for (size_t i = 0; i < b->n_changes; i++) {
		const struct store_change *c = &b->changes[i];
		MDB_val k = {c->key.iov_len, c->key.iov_base};
		MDB_val v = {c->value.iov_len, c->value.iov_base};
		int r;

		if (c->value.iov_base)
			r = mdb_put(txn, s->dbi, &k, &v, 0);
		else
			r = mdb_del(txn, s->dbi, &k, NULL);
		if (r && r != MDB_NOTFOUND)
			return r;
	}
	return 0;
}

/* From @first up to but not with @end, all or none. */
static int write_some(struct store_lmdb *s, const struct batch *first,
		      const struct batch *end)
{
	MDB_txn *txn;
	int r = mdb_txn_begin(s->lmdb, NULL, 0, &txn);

	if (r)
		return from_lmdb(r);
	for (const struct batch *b = first; b != end && r == 0;
	     b = STAILQ_NEXT(b, entry))
		r = put_batch(s, txn, b);
	if (r) {
		mdb_txn_abort(txn);
		return from_lmdb(r);
	}
	return from_commit(s, mdb_txn_commit(txn));
}

static void write_all(struct store_lmdb *s)
{
	struct batch *b;
	int r = write_some(s, STAILQ_FIRST(&s->writing), NULL);
	bool one = !STAILQ_NEXT(STAILQ_FIRST(&s->writing), entry);

	STAILQ_FOREACH (b, &s->writing, entry)
		b->result = r < 0 && !one ? write_some(s, b, STAILQ_NEXT(b, entry)) : r;
}

static void on_work(struct env_work *work)
{
	write_all(container_of(work, struct store_lmdb, work));
}

static void tell(struct store_lmdb *s, struct batches *batches)
{
	struct batch *b;

	while ((b = STAILQ_FIRST(batches))) {
		STAILQ_REMOVE_HEAD(batches, entry);
		s->error = b->result;
		if (b->done)
			b->done(b->owner, b->result);
		free(b);
	}
}

static int write_next(struct store_lmdb *s);

static void on_written(struct env_work *work)
{
	struct store_lmdb *s = container_of(work, struct store_lmdb, work);
	struct batches written = STAILQ_HEAD_INITIALIZER(written);
	struct batch *b;
	int r;

	STAILQ_CONCAT(&written, &s->writing);
	r = write_next(s);
	if (r < 0) {
		/* They were accepted, so they are answered. */
		STAILQ_FOREACH (b, &s->queued, entry)
			b->result = r;
		STAILQ_CONCAT(&written, &s->queued);
	}
	tell(s, &written);
}

static int write_next(struct store_lmdb *s)
{
	int r;

	if (!STAILQ_EMPTY(&s->writing) || STAILQ_EMPTY(&s->queued))
		return 0;
	s->work = (struct env_work){.work = on_work, .done = on_written};
	STAILQ_CONCAT(&s->writing, &s->queued);
	r = env_work(s->env, &s->work);
	if (r < 0)
		STAILQ_CONCAT(&s->queued, &s->writing);
	return r;
}

static struct batch *batch_new(const struct store_change *changes, size_t n)
{
	size_t size = sizeof(struct batch) + n * sizeof(*changes);
	struct batch *b;
	uint8_t *p;

	for (size_t i = 0; i < n; i++)
		size += changes[i].key.iov_len + changes[i].value.iov_len + 1;
	b = calloc(1, size);
	if (!b)
		return NULL;
	b->n_changes = n;
	p = (uint8_t *)&b->changes[n];
	for (size_t i = 0; i < n; i++) {
		const struct store_change *c = &changes[i];

		b->changes[i].key = (struct iovec){p, c->key.iov_len};
		memcpy(p, c->key.iov_base, c->key.iov_len);
		p += c->key.iov_len;
		if (!c->value.iov_base)
			continue;
		b->changes[i].value = (struct iovec){p, c->value.iov_len};
		if (c->value.iov_len)
			memcpy(p, c->value.iov_base, c->value.iov_len);
		p += c->value.iov_len + 1;
	}
	return b;
}

static int on_apply(void *impl, const struct store_change *changes, size_t n_changes,
		    store_done_cb done, void *owner)
{
	struct store_lmdb *s = impl;
	struct batch *b;
	int r;

	for (size_t i = 0; i < n_changes; i++)
		if (!is_key(changes[i].key))
			return err_origin(-EINVAL);
	b = batch_new(changes, n_changes);
	if (!b)
		return err_origin(-ENOMEM);
	b->done = done;
	b->owner = owner;
	STAILQ_INSERT_TAIL(&s->queued, b, entry);
	r = write_next(s);
	if (r < 0) {
		STAILQ_REMOVE(&s->queued, b, batch, entry);
		free(b);
	}
	return r;
}

/* The worker may be writing: LMDB lets one writer in at a time. */
static int on_apply_now(void *impl, const struct store_change *changes, size_t n_changes)
{
	struct store_lmdb *s = impl;
	struct batch *b;
	int r;

	for (size_t i = 0; i < n_changes; i++)
		if (!is_key(changes[i].key))
			return err_origin(-EINVAL);
	b = batch_new(changes, n_changes);
	if (!b)
		return err_origin(-ENOMEM);
	r = s->error = write_some(s, b, NULL);
	free(b);
	return r;
}

static const struct store_ops ops = {on_get, on_each, on_apply, on_apply_now};

static int open_lmdb(struct store_lmdb *s, const char *path, size_t limit)
{
	MDB_txn *txn;
	int r;

	r = mdb_env_create(&s->lmdb);
	if (r == 0)
		r = mdb_env_set_mapsize(s->lmdb, limit);
	/* Readers are of the loop, the writer of a worker: no slot is tied to a thread.
	 */
	if (r == 0)
		r = mdb_env_open(s->lmdb, path, MDB_NOTLS, 0600);
	if (r == 0)
		r = mdb_txn_begin(s->lmdb, NULL, 0, &txn);
	if (r)
		return from_lmdb(r);
	r = mdb_dbi_open(txn, NULL, 0, &s->dbi);
	if (r) {
		mdb_txn_abort(txn);
		return from_lmdb(r);
	}
	r = mdb_txn_commit(txn);
	/* Slots of readers that were killed. */
	if (r == 0)
		r = mdb_reader_check(s->lmdb, NULL);
	return from_lmdb(r);
}

/* LMDB cannot read a file of which the power left a part before its first batch: so a
 * new one has its name when it is whole. */
static int make_file(const char *path, size_t limit)
{
	char new[PATH_MAX], file[PATH_MAX];
	MDB_env *lmdb;
	int r;

	(void)snprintf(new, sizeof(new), "%s/data.new", path);
	(void)snprintf(file, sizeof(file), "%s/data.mdb", path);
	if (access(file, F_OK) == 0)
		return 0;
	(void)unlink(new);
	r = mdb_env_create(&lmdb);
	if (r)
		return from_lmdb(r);
	r = mdb_env_set_mapsize(lmdb, limit);
	if (r == 0)
		r = mdb_env_open(lmdb, new, MDB_NOSUBDIR | MDB_NOLOCK, 0600);
	if (r == 0)
		r = mdb_env_sync(lmdb, 1);
	mdb_env_close(lmdb);
	if (r)
		return from_lmdb(r);
	return rename(new, file) < 0 ? err_origin(-errno) : 0;
}

/* The names of the files are durable as well. */
static int sync_dir(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 || fsync(fd) < 0 ? err_origin(-errno) : 0;
}

int store_lmdb_new_limited(struct store_lmdb **ret, const struct env *env,
			   const char *path, size_t limit)
{
	struct store_lmdb *s;
	int r;

	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return err_origin(-errno);
	s = calloc(1, sizeof(*s));
	if (!s)
		return err_origin(-ENOMEM);
	s->store = (struct store){&ops, s};
	s->env = env;
	STAILQ_INIT(&s->queued);
	STAILQ_INIT(&s->writing);
	r = make_file(path, limit);
	if (r == 0)
		r = open_lmdb(s, path, limit);
	if (r == 0)
		r = sync_dir(path);
	if (r < 0) {
		store_lmdb_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

int store_lmdb_new(struct store_lmdb **ret, const struct env *env, const char *path)
{
	return store_lmdb_new_limited(ret, env, path, LIMIT);
}

struct store_lmdb *store_lmdb_free(struct store_lmdb *s)
{
	struct batch *b;

	if (!s)
		return NULL;
	/* Not told any more; not dropped either: to write a batch twice does no harm.
	 */
	STAILQ_CONCAT(&s->writing, &s->queued);
	if (!STAILQ_EMPTY(&s->writing))
		write_all(s);
	while ((b = STAILQ_FIRST(&s->writing))) {
		STAILQ_REMOVE_HEAD(&s->writing, entry);
		free(b);
	}
	if (s->lmdb)
		mdb_env_close(s->lmdb);
	free(s);
	return NULL;
}

int store_lmdb_error(const struct store_lmdb *s)
{
	return s->error;
}

const struct store *store_lmdb_store(struct store_lmdb *s)
{
	return &s->store;
}
