/* The keeper of ssi-init: a table of named descriptors. */
#include "ssi_init_internal.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { KEEP_MAX = 16384 };

static struct kept {
	uint32_t hash; /* 0: free */
	int fd;
	char name[INIT_NAME_SIZE];
} kept[KEEP_MAX];
static size_t n_kept, end; /* no slot is used from @end on */

static uint32_t hash_of(const char *name)
{
	uint32_t h = 2166136261u;

	for (; *name; name++)
		h = (h ^ (uint8_t)*name) * 16777619u;
	return h ? h : 1;
}

static struct kept *find(const char *name)
{
	uint32_t h = hash_of(name);

	for (size_t i = 0; i < end; i++)
		if (kept[i].hash == h && strcmp(kept[i].name, name) == 0)
			return &kept[i];
	return NULL;
}

int keep_put(const char *name, int owned_fd, size_t limit)
{
	struct kept *k = find(name);

	if (k) {
		(void)close(k->fd);
		k->fd = owned_fd;
		return 0;
	}
	if (n_kept >= KEEP_MAX || n_kept >= limit) {
		(void)close(owned_fd);
		return -ENOSPC;
	}
	for (k = kept; k->hash; k++)
		;
	k->hash = hash_of(name);
	k->fd = owned_fd;
	strcpy(k->name, name);
	n_kept++;
	if ((size_t)(k - kept) >= end)
		end = k - kept + 1;
	return 0;
}

int keep_get(const char *name)
{
	struct kept *k = find(name);

	return k ? k->fd : -1;
}

bool keep_drop(const char *name)
{
	struct kept *k = find(name);

	if (!k)
		return false;
	(void)close(k->fd);
	k->hash = 0;
	n_kept--;
	while (end && !kept[end - 1].hash)
		end--;
	return true;
}

bool keep_next(const char *prefix, uint32_t *cursor, const char **ret_name)
{
	size_t len = strlen(prefix);

	for (; *cursor < end; (*cursor)++) {
		const struct kept *k = &kept[*cursor];

		if (!k->hash || strncmp(k->name, prefix, len) != 0)
			continue;
		(*cursor)++;
		*ret_name = k->name;
		return true;
	}
	return false;
}
