/*
 * What this node knew when its ssid ended: the homes of PIDs never change, so a
 * successor must not take a guest for a process of its own, or a home for none, until
 * the leader answers.
 *
 * Happy path: each view is written down as it is taken; at the start the last one is
 * the view, told to the owner when the loop turns, unless a newer one came before.
 *
 * Failure modes: not written, or damaged -> this node knows less until the leader
 * answers.
 */
#include "membership_internal.h"

#include "err.h"
#include "log.h"

#include <string.h>

static const char KNOWN_KEY[] = "membership/known";

static struct iovec key(void)
{
	return (struct iovec){(char *)KNOWN_KEY, sizeof(KNOWN_KEY) - 1};
}

static void on_saved(void *owner, int result)
{
	if (result < 0)
		log_warning("the newest view is not written down: %s",
			    strerror(-result));
}

void membership_known_save(struct membership *m)
{
	_cleanup_free_ uint8_t *data = NULL;
	struct store_change change = {.key = key()};
	size_t len;
	int r;

	r = membership_wire_map_pack(m->map, &data, &len);
	change.value = (struct iovec){data, len};
	if (r == 0)
		r = m->store->ops->apply(m->store->impl, &change, 1, on_saved, NULL);
	if (r < 0)
		on_saved(NULL, r);
}

int membership_known_read(const struct store *store, struct membership_map **ret)
{
	_cleanup_free_ void *data = NULL;
	struct iovec value;
	int r;

	r = store->ops->get(store->impl, key(), &value);
	if (r == STORE_E_ABSENT)
		return membership_map_new(ret, NODE_NONE);
	if (r < 0)
		return r;
	data = value.iov_base;
	r = membership_wire_map_unpack(value, ret);
	if (r == 0)
		return 0;
	log_warning("the last view in the store is damaged, waiting for the next");
	return membership_map_new(ret, NODE_NONE);
}

static void on_known(struct env_timer *timer)
{
	struct membership *m = container_of(timer, struct membership, known_timer);

	membership_announce(m, NULL);
}

int membership_known_load(struct membership *m)
{
	int r = membership_known_read(m->store, &m->map);

	if (r != 0)
		return err_fold(r);
	m->target = m->config.leader;
	if (!m->map->view->epoch) {
		m->map = membership_map_free(m->map);
		return 0;
	}
	m->target = m->map->view->leader;
	m->known_timer.cb = on_known;
	return env_arm(m->env, &m->known_timer, 0);
}
