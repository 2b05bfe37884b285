/*
 * The leader's changes of the map: durable first, then told.
 *
 * Happy path: decisions are made on leader->next; one write at a time takes all
 * that were made since the last, as view N+1, together with the tokens that
 * they use up; when it is durable this node takes the view, every member that is
 * up is told, and those who waited are answered.
 *
 * Failure modes: the write fails -> next is what is durable again, everybody who
 * waited is refused; the lease watch and the members' renewals decide again.
 * This room is freed during a write -> the commit goes with it; the loop has
 * stopped, so done does not come any more.
 */
#include "membership_internal.h"

#include "err.h"
#include "log.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

static const char MAP_KEY[] = "membership/map";

/* One write. */
struct membership_commit {
	struct membership *m;
	struct membership_map *map; /* what becomes durable; NULL: only tokens do */
	struct membership_change_list changes;
};

static struct membership_commit *commit_free(struct membership_commit *c)
{
	if (!c)
		return NULL;
	membership_map_free(c->map);
	free(c);
	return NULL;
}

DEFINE_CLEANUP(struct membership_commit, commit_free)

/* The founder alone, not yet seen. */
static int first_map(struct membership *m, struct membership_map **ret)
{
	_cleanup_(membership_map_freep) struct membership_map *map = NULL;
	int r;

	r = membership_map_new(&map, m->config.self);
	if (!r)
		r = membership_map_add_member(map, m->config.self, m->config.name,
					      m->config.address, NULL);
	if (r)
		return err_fold(r);
	map->next_id = m->config.self + 1;
	map->lease = m->config.lease;
	*ret = TAKE(map);
	return 0;
}

/* leader->next afresh, from what is durable. */
static int next_begin(struct membership *m)
{
	struct membership_leader *l = m->leader;
	int r;

	l->next = membership_map_free(l->next);
	if (!l->committed->view->epoch) {
		l->dirty = true;
		return first_map(m, &l->next);
	}
	r = membership_map_copy(&l->next, l->committed);
	if (r)
		return err_fold(r);
	l->dirty = l->next->lease != m->config.lease;
	l->next->lease = m->config.lease;
	return 0;
}

int membership_commit_load(struct membership *m)
{
	struct membership_leader *l = m->leader;
	_cleanup_free_ void *data = NULL;
	struct iovec key = { (char *)MAP_KEY, sizeof(MAP_KEY) - 1 }, value;
	int r;

	r = m->store->ops->get(m->store->impl, key, &value);
	if (r == STORE_E_ABSENT) {
		r = membership_map_new(&l->committed, m->config.self);
		return r ? err_fold(r) : next_begin(m);
	}
	if (r)
		return err_fold(r);
	data = value.iov_base;
	r = membership_wire_map_unpack(value, &l->committed);
	if (r) {
		log_error("the map in the store is damaged, not starting");
		return err_fold(r);
	}
	if (!membership_map_member(l->committed, m->config.self) ||
	    l->committed->view->leader != m->config.self)
		return err_origin(-EINVAL);
	return next_begin(m);
}

static void finish_changes(struct membership *m, struct membership_change_list *changes,
			   int result)
{
	struct membership_change *change;

	while ((change = TAILQ_FIRST(changes))) {
		TAILQ_REMOVE(changes, change, in);
		change->done(change, m, result);
	}
}

static void drop_changes(struct membership_change_list *changes)
{
	struct membership_change *change;

	while ((change = TAILQ_FIRST(changes))) {
		TAILQ_REMOVE(changes, change, in);
		change->drop(change);
	}
}

void membership_commit_tell_self(struct membership *m)
{
	const struct membership_map *committed = m->leader->committed;
	struct membership_map *map;

	if (!committed->view->epoch ||
	    (m->map && m->map->view->epoch == committed->view->epoch))
		return;
	if (membership_map_copy(&map, committed))
		log_warning("no memory for view %" PRIu64 ", taking it later",
			    committed->view->epoch);
	else
		membership_take_view(m, map);
}

static void tell_members(struct membership *m)
{
	struct membership_leader *l = m->leader;

	/* Ourselves first: rpc must know whom it may talk to. */
	membership_commit_tell_self(m);
	for (size_t i = 0; i < l->committed->view->n_nodes; i++) {
		const struct membership_node *n = &l->committed->view->nodes[i];

		if (n->state == MEMBER_UP && n->id != m->config.self)
			(void)membership_wire_tell(m, n->id, l->committed);
	}
}

static void forget(struct membership *m, struct membership_commit *c, int result)
{
	struct membership_leader *l = m->leader;
	int r;

	if (!l->failing)
		log_error("the map cannot be written: %s; nothing in the cluster can change "
			  "until it can",
			  strerror(-result));
	l->failing = true;
	r = next_begin(m);
	assert(!r); /* without a map there is no leader */
	(void)r;
	finish_changes(m, &c->changes, result);
	finish_changes(m, &l->waiting, result);
}

static void on_durable(void *owner, int result)
{
	_cleanup_(commit_freep) struct membership_commit *c = owner;
	struct membership *m = c->m;
	struct membership_leader *l = m->leader;

	l->commit = NULL;
	if (result) {
		forget(m, c, result);
		return;
	}
	l->failing = false;
	if (c->map) {
		membership_map_free(l->committed);
		l->committed = TAKE(c->map);
		tell_members(m);
	}
	finish_changes(m, &c->changes, 0);
	membership_commit_flush(m);
}

/* Write @c: the map, and every token that a change brings along. */
static int commit_apply(struct membership *m, struct membership_commit *c)
{
	_cleanup_free_ struct store_change *list = NULL;
	_cleanup_free_ uint8_t *data = NULL;
	struct membership_change *change;
	size_t n = 0, len;
	int r;

	TAILQ_FOREACH(change, &c->changes, in)
		n++;
	list = calloc(n + 1, sizeof(*list));
	if (!list)
		return err_origin(-ENOMEM);
	n = 0;
	TAILQ_FOREACH(change, &c->changes, in)
		if (change->key_len)
			list[n++] = (struct store_change){
				{ change->key, change->key_len },
				{ change->value, change->value_len },
			};
	if (c->map) {
		r = membership_wire_map_pack(c->map, &data, &len);
		if (r)
			return err_fold(r);
		list[n++] = (struct store_change){
			{ (char *)MAP_KEY, sizeof(MAP_KEY) - 1 },
			{ data, len },
		};
	}
	return m->store->ops->apply(m->store->impl, list, n, on_durable, c);
}

static bool something_to_write(const struct membership_leader *l)
{
	struct membership_change *change;

	TAILQ_FOREACH(change, &l->waiting, in)
		if (change->key_len)
			return true;
	return l->dirty;
}

void membership_commit_flush(struct membership *m)
{
	struct membership_leader *l = m->leader;
	_cleanup_(commit_freep) struct membership_commit *c = NULL;
	int r = 0;

	if (l->commit)
		return;
	if (!something_to_write(l)) {
		finish_changes(m, &l->waiting, 0);
		return;
	}
	c = calloc(1, sizeof(*c));
	if (!c)
		return; /* the next change, or the lease watch, comes again */
	c->m = m;
	TAILQ_INIT(&c->changes);
	TAILQ_CONCAT(&c->changes, &l->waiting, in);
	if (l->dirty) {
		l->next->view->epoch = l->committed->view->epoch + 1;
		r = membership_map_copy(&c->map, l->next);
	}
	if (!r)
		r = commit_apply(m, c);
	if (r) {
		forget(m, c, r);
		return;
	}
	l->dirty = false;
	l->commit = TAKE(c);
}

void membership_commit(struct membership *m, struct membership_change *change)
{
	TAILQ_INSERT_TAIL(&m->leader->waiting, change, in);
	membership_commit_flush(m);
}

void membership_commit_later(struct membership *m, struct membership_change *change)
{
	TAILQ_INSERT_TAIL(&m->leader->waiting, change, in);
	(void)env_arm(m->env, &m->leader->flush, 0);
}

void membership_commit_fini(struct membership *m)
{
	struct membership_leader *l = m->leader;

	drop_changes(&l->waiting);
	if (l->commit)
		drop_changes(&l->commit->changes);
	l->commit = commit_free(l->commit);
}
