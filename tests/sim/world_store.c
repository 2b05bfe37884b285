/* Stores of the simulated machines: batches become durable in order, later, or not at all. */
#include "world_internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

static struct iovec copy(struct iovec v)
{
	struct iovec c = { malloc(v.iov_len + 1), v.iov_len };

	assert(c.iov_base);
	if (v.iov_len)
		memcpy(c.iov_base, v.iov_base, v.iov_len);
	return c;
}

static int compare(struct iovec a, struct iovec b)
{
	size_t len = a.iov_len < b.iov_len ? a.iov_len : b.iov_len;
	int r = memcmp(a.iov_base, b.iov_base, len);

	return r ? r : (a.iov_len > b.iov_len) - (a.iov_len < b.iov_len);
}

static void row_free(struct world_row *row)
{
	LIST_REMOVE(row, in);
	free(row->key.iov_base);
	free(row->value.iov_base);
	free(row);
}

static void change(struct world_machine *m, const struct store_change *c)
{
	struct world_row *row, *after = NULL, *fresh;

	LIST_FOREACH(row, &m->rows, in) {
		int r = compare(row->key, c->key);

		if (r > 0)
			break;
		if (r == 0) {
			row_free(row);
			break;
		}
		after = row;
	}
	if (!c->value.iov_base)
		return;
	fresh = calloc(1, sizeof(*fresh));
	assert(fresh);
	fresh->key = copy(c->key);
	fresh->value = copy(c->value);
	if (after)
		LIST_INSERT_AFTER(after, fresh, in);
	else
		LIST_INSERT_HEAD(&m->rows, fresh, in);
}

static int op_get(void *impl, struct iovec key, struct iovec *ret)
{
	struct world_machine *m = impl;
	struct world_row *row;

	LIST_FOREACH(row, &m->rows, in)
		if (!compare(row->key, key)) {
			*ret = copy(row->value);
			return 0;
		}
	return STORE_E_ABSENT;
}

static int op_each(void *impl, struct iovec prefix, store_each_cb cb, void *owner)
{
	struct world_machine *m = impl;
	struct world_row *row;
	int r = 0;

	LIST_FOREACH(row, &m->rows, in)
		if (!r && row->key.iov_len >= prefix.iov_len &&
		    !memcmp(row->key.iov_base, prefix.iov_base, prefix.iov_len))
			r = cb(owner, row->key, row->value);
	return r;
}

static void batch_free(struct world_batch *b)
{
	for (size_t i = 0; i < b->n_changes; i++) {
		free(b->changes[i].key.iov_base);
		free(b->changes[i].value.iov_base);
	}
	free(b->changes);
	free(b);
}

static void fire_durable(struct world *w, struct world_event *e)
{
	struct world_machine *m = e->arg;
	struct world_batch *b = STAILQ_FIRST(&m->batches);
	bool full = m->disk_full;

	STAILQ_REMOVE_HEAD(&m->batches, in);
	for (size_t i = 0; i < b->n_changes && !full; i++)
		change(m, &b->changes[i]);
	world_note(w, m->slot, "%zu changes %s", b->n_changes, full ? "fail" : "are durable");
	b->done(b->owner, full ? -ENOSPC : 0);
	batch_free(b);
}

static int op_apply(void *impl, const struct store_change *changes, size_t n_changes,
		    store_done_cb done, void *owner)
{
	struct world_machine *m = impl;
	struct world *w = m->w;
	struct world_batch *b = calloc(1, sizeof(*b));
	nsec_t due = w->now + NSEC_PER_MSEC / 2 + world_below(w, 10 * NSEC_PER_MSEC);

	assert(b && m->running);
	if (m->muted) {
		free(b);
		return 0;
	}
	b->changes = calloc(n_changes + 1, sizeof(*b->changes));
	assert(b->changes);
	b->n_changes = n_changes;
	b->done = done;
	b->owner = owner;
	for (size_t i = 0; i < n_changes; i++) {
		b->changes[i].key = copy(changes[i].key);
		if (changes[i].value.iov_base)
			b->changes[i].value = copy(changes[i].value);
	}
	if (world_chance(w, 10))
		due += world_below(w, NSEC_PER_SEC); /* a slow disk */
	m->durable_at = due > m->durable_at ? due : m->durable_at;
	STAILQ_INSERT_TAIL(&m->batches, b, in);
	(void)world_schedule(w, m->durable_at - w->now, m->slot, "store", fire_durable, m);
	return 0;
}

static int op_apply_now(void *impl, const struct store_change *changes, size_t n_changes)
{
	struct world_machine *m = impl;

	assert(m->running);
	for (size_t i = 0; i < n_changes && !m->disk_full && !m->muted; i++)
		change(m, &changes[i]);
	world_note(m->w, m->slot, "%zu changes %s at once", n_changes,
		   m->disk_full ? "fail" : "are durable");
	return m->disk_full ? -ENOSPC : 0;
}

const struct store_ops world_store_ops = { op_get, op_each, op_apply, op_apply_now };

/* The first few of the batches under way made it. */
void world_store_crash(struct world_machine *m)
{
	struct world_batch *b;

	STAILQ_FOREACH(b, &m->batches, in) {
		if (m->disk_full || world_chance(m->w, 500))
			break;
		for (size_t i = 0; i < b->n_changes; i++)
			change(m, &b->changes[i]);
		world_note(m->w, m->slot, "durable in the crash: %zu changes", b->n_changes);
	}
}

void world_store_cancel(struct world_machine *m)
{
	struct world_batch *b;

	while ((b = STAILQ_FIRST(&m->batches))) {
		STAILQ_REMOVE_HEAD(&m->batches, in);
		batch_free(b);
	}
	m->durable_at = 0;
}

void world_store_fini(struct world_machine *m)
{
	struct world_row *row;

	while ((row = LIST_FIRST(&m->rows)))
		row_free(row);
}
