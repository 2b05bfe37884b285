/*
 * libraft's writes, in order, one batch in the store at a time.
 *
 * Happy path: what waits when the store is free goes to it as one batch, hence one
 * sync; when that is durable libraft is told of each write in turn.
 *
 * Failure modes: the store fails -> nothing behind it is written, so that the log in
 * the store has no gap, and this instance of libraft ends; it is never told of a failed
 * write, since it would truncate its log once for each of several, from behind its end.
 * libraft ends while a batch is under way -> what that was for is told, the batch
 * itself is waited for before the store is read again.
 */
#include "consensus_internal.h"

#include "err.h"
#include "log.h"

#include <string.h>

static struct consensus_write *write_free(struct consensus_write *w)
{
	free(w->value.iov_base);
	free(w);
	return NULL;
}

struct consensus_write *consensus_write_new(enum consensus_write_kind kind)
{
	struct consensus_write *w = calloc(1, sizeof(*w));

	if (w)
		w->kind = kind;
	return w;
}

bool consensus_is_writing(const struct consensus *c)
{
	return c->writing || !STAILQ_EMPTY(&c->queued);
}

/* Into the store's words: one block for all keys, a block for each value. */

static size_t n_changes_of(const struct consensus_write_list *writes)
{
	const struct consensus_write *w;
	size_t n = 0;

	STAILQ_FOREACH (w, writes, in)
		n += (size_t)(w->end - w->first) + (w->value.iov_base != NULL);
	return n;
}

struct words {
	struct store_change *changes;
	uint8_t (*keys)[CONSENSUS_KEY_MAX];
	size_t n;
};

static void words_fini(struct words *words)
{
	for (size_t i = 0; i < words->n; i++)
		if (words->changes[i].key.iov_base == words->keys[i])
			free(words->changes[i].value.iov_base);
	free(words->changes);
	free(words->keys);
}

static int put_write(struct words *words, const struct consensus_write *w)
{
	for (uint64_t i = w->first; i < w->end; i++) {
		struct store_change *change = &words->changes[words->n];
		uint8_t *key = words->keys[words->n];

		change->key = (struct iovec){key, consensus_log_entry_key(i, key)};
		if (w->kind == WRITE_ENTRIES) {
			change->value =
				consensus_log_entry_pack(i, &w->entries[i - w->first]);
			if (!change->value.iov_base)
				return err_origin(-ENOMEM);
		}
		words->n++;
	}
	if (w->value.iov_base)
		words->changes[words->n++] =
			(struct store_change){consensus_log_snapshot_key(), w->value};
	return 0;
}

static void on_written(void *owner, int result);

/* What waits, as one batch. */
static int submit(struct consensus *c)
{
	size_t n = n_changes_of(&c->queued);
	_cleanup_(words_fini) struct words words = {
		.changes = calloc(n + 1, sizeof(*words.changes)),
		.keys = calloc(n + 1, sizeof(*words.keys)),
	};
	_cleanup_free_ struct consensus_batch *batch = calloc(1, sizeof(*batch));
	struct consensus_write *w;
	int r;

	if (!words.changes || !words.keys || !batch)
		return err_origin(-ENOMEM);
	STAILQ_FOREACH (w, &c->queued, in) {
		r = put_write(&words, w);
		if (r)
			return r;
	}
	batch->c = c;
	STAILQ_INIT(&batch->writes);
	r = c->store->ops->apply(c->store->impl, words.changes, words.n, on_written,
				 batch);
	if (r)
		return err_fold(r);
	STAILQ_CONCAT(&batch->writes, &c->queued);
	c->writing = TAKE(batch);
	return 0;
}

static void write_next(struct consensus *c)
{
	int r;

	if (c->broken || c->writing || STAILQ_EMPTY(&c->queued))
		return;
	r = submit(c);
	if (r < 0) {
		log_warning(
			"cannot write the log of consensus: %s, reading it again soon",
			strerror(-r));
		consensus_break(c);
	}
}

static void tell_install(struct consensus *c, struct consensus_write *w, int status)
{
	if (!status) {
		consensus_servers_reset(c, &w->servers);
		c->restoring = w->index;
	}
	w->on_put(w->put, status);
	/* libraft forgets this array unless the state was restored. */
	if (status || c->restoring)
		raft_free(w->bufs);
	if (c->restoring)
		consensus_break(c);
	c->restoring = 0;
}

static void tell(struct consensus *c, struct consensus_write *w, int status)
{
	switch (w->kind) {
	case WRITE_ENTRIES:
		w->on_append(w->append, 0);
		break;
	case WRITE_TRUNCATE:
		c->n_truncating--;
		break;
	case WRITE_SNAPSHOT:
		w->on_put(w->put, status);
		break;
	case WRITE_INSTALL:
		tell_install(c, w, status);
		break;
	}
	(void)write_free(w);
}

static void tell_all(struct consensus *c, struct consensus_write_list *writes,
		     int status)
{
	struct consensus_write *w;

	while ((w = STAILQ_FIRST(writes))) {
		STAILQ_REMOVE_HEAD(writes, in);
		tell(c, w, status);
	}
}

static void on_written(void *owner, int result)
{
	_cleanup_free_ struct consensus_batch *batch = owner;
	struct consensus *c = batch->c;

	c->writing = NULL;
	if (batch->ended)
		return;
	consensus_enter(c);
	if (result < 0) {
		log_warning(
			"cannot write the log of consensus: %s, reading it again soon",
			strerror(-result));
		STAILQ_CONCAT(&batch->writes, &c->queued);
		STAILQ_CONCAT(&c->queued, &batch->writes);
		consensus_break(c);
	} else {
		c->backoff = CONSENSUS_BACKOFF_MIN;
		write_next(c);
		tell_all(c, &batch->writes, 0);
	}
	consensus_leave(c);
}

void consensus_write(struct consensus *c, struct consensus_write *owned_write)
{
	STAILQ_INSERT_TAIL(&c->queued, owned_write, in);
	if (owned_write->kind == WRITE_TRUNCATE)
		c->n_truncating++;
	write_next(c);
}

void consensus_writes_end(struct consensus *c)
{
	struct consensus_write_list all = STAILQ_HEAD_INITIALIZER(all);

	if (c->writing && !c->writing->ended) {
		c->writing->ended = true;
		STAILQ_CONCAT(&all, &c->writing->writes);
	}
	STAILQ_CONCAT(&all, &c->queued);
	tell_all(c, &all, RAFT_CANCELED);
}

/* The loop has stopped: done of the batch does not come any more. */
void consensus_writes_fini(struct consensus *c)
{
	free(TAKE(c->writing));
}

int consensus_write_term(struct consensus *c, uint64_t term, uint64_t vote)
{
	uint8_t value[CONSENSUS_TERM_LEN];
	struct store_change change = {consensus_log_term_key(), {value, sizeof(value)}};
	int r;

	consensus_log_term_pack(term, vote, value);
	r = c->store->ops->apply_now(c->store->impl, &change, 1);
	if (r < 0) {
		log_warning("cannot write the term of consensus: %s, reading the log "
			    "again soon",
			    strerror(-r));
		return r;
	}
	c->term = term;
	c->vote = vote;
	return 0;
}
