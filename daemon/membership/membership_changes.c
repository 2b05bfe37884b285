/*
 * What a view changes: told to members that have the one before, since a view of a thousand
 * is some 100 KB, and the leader tells each to all.
 *
 * Happy path: the members and PID blocks that differ, with the epoch of what they are changes
 * of; the receiver puts them into its own copy of that.
 *
 * Failure modes: a change that cannot be said so (a joiner was replaced by another, and is
 * gone) -> found out by trying, and the view is told whole.  The receiver has another view
 * than the changes are of -> it asks for a whole one.
 */
#include "membership_internal.h"

#include "err.h"

#include <string.h>

static bool history_is_equal(const struct membership_history *a,
			     const struct membership_history *b)
{
	return a->losses == b->losses && a->first == b->first && a->changed == b->changed &&
	       a->lost == b->lost && a->up == b->up && a->left == b->left &&
	       a->lost_for == b->lost_for && a->left_for == b->left_for;
}

/* In what is told. */
static bool member_is_equal(const struct membership_node *a, const struct membership_node *b)
{
	return a->id == b->id && !strcmp(a->name, b->name) && !strcmp(a->address, b->address) &&
	       a->state == b->state && a->incarnation == b->incarnation &&
	       a->since == b->since && a->voter == b->voter && a->witness == b->witness &&
	       history_is_equal(&a->history, &b->history);
}

static bool block_is_equal(const struct membership_block *a, const struct membership_block *b)
{
	return a->first == b->first && a->count == b->count && a->node == b->node;
}

static bool is_equal(const struct membership_map *a, const struct membership_map *b)
{
	if (a->view->n_nodes != b->view->n_nodes || a->n_blocks != b->n_blocks)
		return false;
	for (size_t i = 0; i < a->view->n_nodes; i++)
		if (!member_is_equal(&a->view->nodes[i], &b->view->nodes[i]))
			return false;
	for (size_t i = 0; i < a->n_blocks; i++)
		if (!block_is_equal(&a->blocks[i], &b->blocks[i]))
			return false;
	return true;
}

static int put_member(struct membership_map *map, const struct membership_node *from)
{
	struct membership_node *n = membership_map_member(map, from->id);
	size_t last = map->view->n_nodes;
	int r;

	if (!n && last && map->view->nodes[last - 1].id > from->id)
		return err_origin(-EBADMSG);
	if (!n) {
		r = membership_map_add_member(map, from->id, from->name, from->address, &n);
		if (r)
			return err_fold(r);
	}
	*n = *from;
	return 0;
}

/* In the place of what stood there: runs grow. */
static int put_block(struct membership_map *map, const struct membership_block *b)
{
	uint64_t end = (uint64_t)b->first + b->count;
	size_t n = 0;

	for (size_t i = 0; i < map->n_blocks; i++) {
		const struct membership_block *old = &map->blocks[i];

		if ((uint64_t)old->first + old->count <= (uint64_t)b->first ||
		    (uint64_t)old->first >= end)
			map->blocks[n++] = *old;
	}
	map->n_blocks = n;
	return membership_map_add_block(map, b);
}

int membership_changes_apply(struct membership_map **ret, const struct membership_map *base,
			     const struct membership_map *changes)
{
	_cleanup_(membership_map_freep) struct membership_map *map = NULL;
	int r;

	r = membership_map_copy(&map, base);
	if (r)
		return err_fold(r);
	map->view->epoch = changes->view->epoch;
	map->view->leader = changes->view->leader;
	for (size_t i = 0; i < changes->view->n_nodes && !r; i++)
		r = put_member(map, &changes->view->nodes[i]);
	for (size_t i = 0; i < changes->n_blocks && !r; i++)
		r = put_block(map, &changes->blocks[i]);
	if (r)
		return err_fold(r);
	if (!membership_map_is_valid(map))
		return err_origin(-EBADMSG);
	*ret = TAKE(map);
	return 0;
}

/* Those of @map that @base has not, or has otherwise. */
static int collect(struct membership_map *changes, const struct membership_map *base,
		   const struct membership_map *map)
{
	size_t old = 0;
	int r = 0;

	for (size_t i = 0; i < map->view->n_nodes && !r; i++) {
		const struct membership_node *n = &map->view->nodes[i];
		const struct membership_node *before = membership_map_member(base, n->id);

		if (!before || !member_is_equal(n, before))
			r = put_member(changes, n);
	}
	for (size_t i = 0; i < map->n_blocks && !r; i++) {
		const struct membership_block *b = &map->blocks[i];

		while (old < base->n_blocks && base->blocks[old].first < b->first)
			old++;
		if (old == base->n_blocks || !block_is_equal(&base->blocks[old], b))
			r = membership_map_add_block(changes, b);
	}
	return r;
}

int membership_changes_new(struct membership_map **ret, const struct membership_map *base,
			   const struct membership_map *map)
{
	_cleanup_(membership_map_freep) struct membership_map *changes = NULL, *proof = NULL;
	int r;

	if (!base->view->epoch)
		return MEMBERSHIP_CHANGES_E_WHOLE;
	r = membership_map_new(&changes, map->view->leader);
	if (r)
		return err_fold(r);
	changes->view->epoch = map->view->epoch;
	r = collect(changes, base, map);
	if (!r)
		r = membership_changes_apply(&proof, base, changes);
	if (r == -EBADMSG || (!r && !is_equal(proof, map)))
		return MEMBERSHIP_CHANGES_E_WHOLE;
	if (r)
		return err_fold(r);
	*ret = TAKE(changes);
	return 0;
}
