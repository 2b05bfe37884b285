/*
 * A majority of the voters is gone for ever: one of those that are left decides alone.
 *
 * The others may have decided more before they went, so views with the next numbers
 * may be known to those that are left: the first view of the new beginning is far ahead of
 * them, and everybody takes it.
 *
 * Failure modes: ssid dies before that view is committed -> the mark in the store is
 * still there; after it -> at worst it is there too, and one more view is far ahead.
 */
#include "membership_internal.h"

#include "err.h"
#include "log.h"

#include <string.h>

static const char MARK[] = "membership/recovered";

static struct iovec key(void)
{
	return (struct iovec){(char *)MARK, sizeof(MARK) - 1};
}

/* Who lost its vote keeps the log of that time. */
static int check_vote(const struct store *store, node_id self)
{
	_cleanup_(membership_map_freep) struct membership_map *map = NULL;
	const struct membership_node *node;
	int r = membership_known_read(store, &map);

	if (r)
		return err_fold(r);
	node = membership_map_member(map, self);
	return node && !node->voter ? MEMBERSHIP_E_ABSENT : 0;
}

int membership_recover(const struct store *store, node_id self, const char *address)
{
	struct store_change change = {.key = key(), .value = {(char *)"1", 1}};
	int r = check_vote(store, self);

	if (r)
		return r;
	/* First: without it the new beginning could be taken for an old one. */
	r = store->ops->apply_now(store->impl, &change, 1);
	if (r)
		return err_fold(r);
	r = consensus_recover(store, self, address);
	if (!r)
		return 0;
	change.value = (struct iovec){0};
	(void)store->ops->apply_now(store->impl, &change, 1);
	return r == CONSENSUS_E_NOT_LEADER ? MEMBERSHIP_E_ABSENT : err_fold(r);
}

int membership_recover_load(struct membership *m)
{
	struct iovec value;
	int r = m->store->ops->get(m->store->impl, key(), &value);

	if (r == STORE_E_ABSENT)
		return 0;
	if (r)
		return err_fold(r);
	free(value.iov_base);
	m->recovered = true;
	log_warning("this node was made the only voter by ssi-admin recover");
	return 0;
}

epoch_t membership_recover_step(const struct membership *m)
{
	return m->recovered ? MEMBERSHIP_FAR : 1;
}

static void on_unmarked(void *owner, int result)
{
	(void)owner;
	if (result < 0)
		log_warning("the mark of ssi-admin recover stays: %s", strerror(-result));
}

void membership_recover_done(struct membership *m)
{
	struct store_change change = {.key = key()};
	int r;

	if (!m->recovered)
		return;
	m->recovered = false;
	r = m->store->ops->apply(m->store->impl, &change, 1, on_unmarked, NULL);
	if (r < 0)
		on_unmarked(NULL, r);
}
