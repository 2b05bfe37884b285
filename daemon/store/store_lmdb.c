/*
 * Happy path: apply() copies the changes and queues the batch; one batch after the
 * other is written and synced by a worker; done tells.  Reads see what has been
 * committed: a batch under way is not visible before its done.
 *
 * Failure modes: a full disk or a failing one -> the batch is given up whole, done tells, and
 * what stood before stands.
 */
#include "store_lmdb.h"

#include "cleanup.h"
#include "err.h"

#include <lmdb.h>
#include <stdbool.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>

enum { KEY_MAX = 255 };
static const size_t MAP_SIZE = (size_t)1 << 30; /* sparse: what is used is what counts */

struct batch {
	STAILQ_ENTRY(batch) entry;
	struct store_lmdb *store;
	store_done_cb done;
	void *owner;
	int result;
	size_t n_changes;
	struct store_change changes[]; /* keys and values behind them, in one block */
};

struct store_lmdb {
	struct store store;
	const struct env *env;
	MDB_env *lmdb;
	MDB_dbi dbi;
	struct env_work work;
	bool writing;
	STAILQ_HEAD(, batch) batches; /* the first is being written */
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

/* Reading. */

static int on_get(void *impl, struct iovec key, struct iovec *ret)
{
	struct store_lmdb *s = impl;
	MDB_val k = { key.iov_len, key.iov_base }, v;
	MDB_txn *txn;
	int r;

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
	MDB_val k = { prefix.iov_len, prefix.iov_base }, v;
	int r = mdb_cursor_get(cursor, &k, &v, prefix.iov_len ? MDB_SET_RANGE : MDB_FIRST);

	while (r == 0) {
		if (k.mv_size < prefix.iov_len ||
		    memcmp(k.mv_data, prefix.iov_base, prefix.iov_len) != 0)
			return 0;
		r = cb(owner, (struct iovec){ k.mv_data, k.mv_size },
		       (struct iovec){ v.mv_data, v.mv_size });
		if (r != 0)
			return r;
		r = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
	}
	return r == MDB_NOTFOUND ? 0 : from_lmdb(r);
}

static int on_each(void *impl, struct iovec prefix, store_each_cb cb, void *owner)
{
	struct store_lmdb *s = impl;
	MDB_cursor *cursor;
	MDB_txn *txn;
	int r;

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

static int write_batch(struct store_lmdb *s, const struct batch *b)
{
	MDB_txn *txn;
	int r = mdb_txn_begin(s->lmdb, NULL, 0, &txn);

	if (r)
		return from_lmdb(r);
	for (size_t i = 0; r == 0 && i < b->n_changes; i++) {
		const struct store_change *c = &b->changes[i];
		MDB_val k = { c->key.iov_len, c->key.iov_base };
		MDB_val v = { c->value.iov_len, c->value.iov_base };

		if (c->value.iov_base)
			r = mdb_put(txn, s->dbi, &k, &v, 0);
		else
			r = mdb_del(txn, s->dbi, &k, NULL);
		if (r == MDB_NOTFOUND)
			r = 0;
	}
	if (r) {
		mdb_txn_abort(txn);
		return from_lmdb(r);
	}
	return from_lmdb(mdb_txn_commit(txn));
}

static void on_work(struct env_work *work)
{
	struct store_lmdb *s = container_of(work, struct store_lmdb, work);
	struct batch *b = STAILQ_FIRST(&s->batches);

	b->result = write_batch(s, b);
}

static int write_next(struct store_lmdb *s);

static void on_written(struct env_work *work)
{
	struct store_lmdb *s = container_of(work, struct store_lmdb, work);
	struct batch *b = STAILQ_FIRST(&s->batches);

	STAILQ_REMOVE_HEAD(&s->batches, entry);
	s->writing = false;
	(void)write_next(s);
	if (b->done)
		b->done(b->owner, b->result);
	free(b);
}

static int write_next(struct store_lmdb *s)
{
	int r;

	if (s->writing || STAILQ_EMPTY(&s->batches))
		return 0;
	s->work = (struct env_work){ .work = on_work, .done = on_written };
	r = env_work(s->env, &s->work);
	s->writing = r == 0;
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

		b->changes[i].key = (struct iovec){ p, c->key.iov_len };
		memcpy(p, c->key.iov_base, c->key.iov_len);
		p += c->key.iov_len;
		if (!c->value.iov_base)
			continue;
		b->changes[i].value = (struct iovec){ p, c->value.iov_len };
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
		if (changes[i].key.iov_len == 0 || changes[i].key.iov_len > KEY_MAX)
			return err_origin(-EINVAL);
	b = batch_new(changes, n_changes);
	if (!b)
		return err_origin(-ENOMEM);
	b->done = done;
	b->owner = owner;
	STAILQ_INSERT_TAIL(&s->batches, b, entry);
	r = write_next(s);
	if (r < 0) {
		STAILQ_REMOVE(&s->batches, b, batch, entry);
		free(b);
	}
	return r;
}

static const struct store_ops ops = { on_get, on_each, on_apply };

static int open_lmdb(struct store_lmdb *s, const char *path)
{
	MDB_txn *txn;
	int r;

	r = mdb_env_create(&s->lmdb);
	if (r == 0)
		r = mdb_env_set_mapsize(s->lmdb, MAP_SIZE);
	/* Readers are of the loop, the writer of a worker: no slot is tied to a thread. */
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
	return from_lmdb(mdb_txn_commit(txn));
}

int store_lmdb_new(struct store_lmdb **ret, const struct env *env, const char *path)
{
	struct store_lmdb *s;
	int r;

	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return err_origin(-errno);
	s = calloc(1, sizeof(*s));
	if (!s)
		return err_origin(-ENOMEM);
	s->store = (struct store){ &ops, s };
	s->env = env;
	STAILQ_INIT(&s->batches);
	r = open_lmdb(s, path);
	if (r < 0) {
		store_lmdb_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

struct store_lmdb *store_lmdb_free(struct store_lmdb *s)
{
	if (!s)
		return NULL;
	/* Batches are queued in memory only: those not begun are dropped, like a crash
	 * would; the pool's own end has waited for the one under way. */
	while (!STAILQ_EMPTY(&s->batches)) {
		struct batch *b = STAILQ_FIRST(&s->batches);

		STAILQ_REMOVE_HEAD(&s->batches, entry);
		free(b);
	}
	if (s->lmdb)
		mdb_env_close(s->lmdb);
	free(s);
	return NULL;
}

const struct store *store_lmdb_store(struct store_lmdb *s)
{
	return &s->store;
}
