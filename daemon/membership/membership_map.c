/* See membership_map.h.  Lists are short (thousands) and change rarely: plain arrays. */
#include "membership_map.h"

#include "err.h"

#include <string.h>

enum { LEASE_FRACTION = 8 }; /* of what is to spare, for who asks */

static size_t view_size(size_t n_nodes)
{
	return sizeof(struct membership_view) + n_nodes * sizeof(struct membership_node);
}

int membership_map_new(struct membership_map **ret, node_id leader)
{
	_cleanup_(membership_map_freep) struct membership_map *map = NULL;

	map = calloc(1, sizeof(*map));
	if (map)
		map->view = calloc(1, view_size(0));
	if (!map || !map->view)
		return err_origin(-ENOMEM);
	map->view->leader = leader;
	*ret = TAKE(map);
	return 0;
}

static void *copy_bytes(const void *from, size_t len)
{
	void *p = malloc(len ? len : 1);

	if (p && len)
		memcpy(p, from, len);
	return p;
}

int membership_map_copy(struct membership_map **ret, const struct membership_map *from)
{
	_cleanup_(membership_map_freep) struct membership_map *map = NULL;
	size_t n = from->view->n_nodes;

	map = calloc(1, sizeof(*map));
	if (!map)
		return err_origin(-ENOMEM);
	*map = *from;
	map->node_room = n;
	map->block_room = from->n_blocks;
	map->view = copy_bytes(from->view, view_size(n));
	map->starts = copy_bytes(from->starts, n * sizeof(*map->starts));
	map->blocks = copy_bytes(from->blocks, from->n_blocks * sizeof(*map->blocks));
	if (!map->view || !map->starts || !map->blocks)
		return err_origin(-ENOMEM);
	*ret = TAKE(map);
	return 0;
}

struct membership_map *membership_map_free(struct membership_map *map)
{
	if (!map)
		return NULL;
	free(map->view);
	free(map->starts);
	free(map->blocks);
	free(map);
	return NULL;
}

struct membership_node *membership_map_member(const struct membership_map *map, node_id id)
{
	size_t low = 0, high = map->view->n_nodes;

	while (low < high) {
		size_t middle = (low + high) / 2;
		struct membership_node *n = &map->view->nodes[middle];

		if (n->id == id)
			return n;
		if (n->id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

struct membership_node *membership_map_member_by_name(const struct membership_map *map,
						      const char *name)
{
	for (size_t i = 0; i < map->view->n_nodes; i++)
		if (!strcmp(map->view->nodes[i].name, name))
			return &map->view->nodes[i];
	return NULL;
}

uint64_t *membership_map_start(const struct membership_map *map, node_id id)
{
	struct membership_node *n = membership_map_member(map, id);

	return n ? &map->starts[n - map->view->nodes] : NULL;
}

static int node_room(struct membership_map *map)
{
	size_t room = map->node_room ? 2 * map->node_room : 8;
	struct membership_view *view;
	uint64_t *starts;

	if (map->view->n_nodes < map->node_room)
		return 0;
	view = realloc(map->view, view_size(room));
	if (!view)
		return err_origin(-ENOMEM);
	map->view = view;
	starts = realloc(map->starts, room * sizeof(*starts));
	if (!starts)
		return err_origin(-ENOMEM);
	map->starts = starts;
	map->node_room = room;
	return 0;
}

int membership_map_add_member(struct membership_map *map, node_id id, const char *name,
			      const char *address, struct membership_node **ret)
{
	size_t n = map->view->n_nodes;
	struct membership_view *view;
	int r;

	if (n == MEMBERSHIP_MAX_MEMBERS)
		return err_origin(-ENOSPC);
	r = node_room(map);
	if (r)
		return r;
	view = map->view;
	map->starts[n] = 0;
	view->nodes[n] = (struct membership_node){ .id = id, .state = MEMBER_JOINING };
	strncpy(view->nodes[n].name, name, sizeof(view->nodes[n].name) - 1);
	strncpy(view->nodes[n].address, address, sizeof(view->nodes[n].address) - 1);
	view->n_nodes++;
	if (ret)
		*ret = &view->nodes[n];
	return 0;
}

void membership_map_remove_member(struct membership_map *map, node_id id)
{
	struct membership_node *node = membership_map_member(map, id);
	size_t i, after;

	if (!node)
		return;
	i = node - map->view->nodes;
	after = --map->view->n_nodes - i;
	memmove(node, node + 1, after * sizeof(*node));
	memmove(&map->starts[i], &map->starts[i + 1], after * sizeof(*map->starts));
}

static uint64_t end_of(const struct membership_block *b)
{
	return (uint64_t)b->first + b->count;
}

/* The first block that begins behind @pid. */
static size_t block_behind(const struct membership_map *map, pid_t pid)
{
	size_t low = 0, high = map->n_blocks;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (map->blocks[middle].first <= pid)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

node_id membership_map_home(const struct membership_map *map, pid_t pid)
{
	size_t i = block_behind(map, pid);

	return i && (uint64_t)pid < end_of(&map->blocks[i - 1]) ? map->blocks[i - 1].node :
								 NODE_NONE;
}

uint32_t membership_map_count_pids(const struct membership_map *map, node_id node)
{
	uint32_t n = 0;

	for (size_t i = 0; i < map->n_blocks; i++)
		if (map->blocks[i].node == node)
			n += map->blocks[i].count;
	return n;
}

static bool joins(const struct membership_block *a, const struct membership_block *b)
{
	return a->node == b->node && end_of(a) == (uint64_t)b->first &&
	       end_of(b) <= MEMBERSHIP_PID_MAX;
}

static void remove_block(struct membership_map *map, size_t i)
{
	memmove(&map->blocks[i], &map->blocks[i + 1],
		(--map->n_blocks - i) * sizeof(*map->blocks));
}

static int block_room(struct membership_map *map)
{
	size_t room = map->block_room ? 2 * map->block_room : 8;
	struct membership_block *blocks;

	if (map->n_blocks < map->block_room)
		return 0;
	blocks = realloc(map->blocks, room * sizeof(*blocks));
	if (!blocks)
		return err_origin(-ENOMEM);
	map->blocks = blocks;
	map->block_room = room;
	return 0;
}

int membership_map_add_block(struct membership_map *map, const struct membership_block *block)
{
	size_t i = block_behind(map, block->first);
	struct membership_block *blocks;
	int r;

	if (map->n_blocks == MEMBERSHIP_MAX_BLOCKS)
		return err_origin(-ENOSPC);
	r = block_room(map);
	if (r)
		return r;
	blocks = map->blocks;
	memmove(&blocks[i + 1], &blocks[i], (map->n_blocks++ - i) * sizeof(*blocks));
	blocks[i] = *block;
	if (i + 1 < map->n_blocks && joins(&blocks[i], &blocks[i + 1])) {
		blocks[i].count += blocks[i + 1].count;
		remove_block(map, i + 1);
	}
	if (i && joins(&blocks[i - 1], &blocks[i])) {
		blocks[i - 1].count += blocks[i].count;
		remove_block(map, i);
	}
	return 0;
}

/* What nobody holds. */
struct gap {
	pid_t first;
	uint32_t count; /* whole blocks */
};

/* Behind block @i - 1 and before block @i. */
static struct gap gap_at(const struct membership_map *map, size_t i)
{
	uint64_t from = i ? end_of(&map->blocks[i - 1]) : MEMBERSHIP_PID_FIRST;
	uint64_t to = i < map->n_blocks ? (uint64_t)map->blocks[i].first : MEMBERSHIP_PID_MAX;

	return (struct gap){ (pid_t)from,
			     (uint32_t)(to - from) / MEMBERSHIP_PID_BLOCK * MEMBERSHIP_PID_BLOCK };
}

/* For members that have none yet. */
static uint32_t reserved(const struct membership_map *map)
{
	bool has[MEMBERSHIP_MAX_MEMBERS] = { false };
	uint32_t n = 0;

	for (size_t i = 0; i < map->n_blocks; i++) {
		const struct membership_node *node =
			membership_map_member(map, map->blocks[i].node);

		n += !has[node - map->view->nodes];
		has[node - map->view->nodes] = true;
	}
	return n < MEMBERSHIP_PID_NODES ? (MEMBERSHIP_PID_NODES - n) * MEMBERSHIP_PID_BLOCK : 0;
}

static uint32_t between(uint32_t low, uint32_t n, uint32_t high)
{
	return n < low ? low : n > high ? high : n;
}

uint32_t membership_map_lease_size(const struct membership_map *map, node_id node, uint32_t max)
{
	uint32_t held = membership_map_count_pids(map, node), left = 0, widest = 0, spare, size;

	max = max ? between(MEMBERSHIP_PID_BLOCK, max, MEMBERSHIP_PID_MAX) : MEMBERSHIP_PID_MAX;
	for (size_t i = 0; i <= map->n_blocks; i++) {
		struct gap gap = gap_at(map, i);

		left += gap.count;
		widest = gap.count > widest ? gap.count : widest;
	}
	spare = left > reserved(map) ? left - reserved(map) : 0;
	if (held >= max || (held && spare < MEMBERSHIP_PID_BLOCK))
		return 0;
	size = between(MEMBERSHIP_PID_BLOCK, spare / LEASE_FRACTION, MEMBERSHIP_PID_RUN);
	size = between(0, between(0, size, max - held), widest);
	return size / MEMBERSHIP_PID_BLOCK * MEMBERSHIP_PID_BLOCK;
}

int membership_map_lease(struct membership_map *map, node_id node, uint32_t max)
{
	struct membership_block block = {
		.count = membership_map_lease_size(map, node, max),
		.node = node,
	};

	for (size_t i = 0; block.count && i <= map->n_blocks; i++) {
		struct gap gap = gap_at(map, i);

		if (gap.count < block.count)
			continue;
		block.first = gap.first;
		return membership_map_add_block(map, &block);
	}
	return MEMBERSHIP_MAP_E_EXHAUSTED;
}

bool membership_name_is_valid(const char *name)
{
	size_t len = strlen(name);

	return len > 0 && len <= NODE_NAME_MAX && name[0] != '-' && name[len - 1] != '-' &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
}

bool membership_address_is_valid(const char *address)
{
	size_t len = strlen(address);
	const char *port = strrchr(address, ':');

	if (len >= sizeof(((struct membership_node *)NULL)->address) || !port ||
	    port == address)
		return false;
	for (const char *p = address; *p; p++)
		if (*p <= ' ' || *p >= 0x7f)
			return false;
	len = strlen(port + 1);
	return len > 0 && len <= 5 && strspn(port + 1, "0123456789") == len;
}

static bool blocks_are_valid(const struct membership_map *map)
{
	uint64_t end = MEMBERSHIP_PID_FIRST;

	for (size_t i = 0; i < map->n_blocks; i++) {
		const struct membership_block *b = &map->blocks[i];

		if (b->first < 0 || (uint64_t)b->first < end || !b->count ||
		    end_of(b) > MEMBERSHIP_PID_MAX ||
		    !membership_map_member(map, b->node))
			return false;
		end = end_of(b);
	}
	return true;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Views come to every node, and comparing all names with all others takes milliseconds. */
static bool names_are_unique(const struct membership_view *v)
{
	const char *names[MEMBERSHIP_MAX_MEMBERS];

	for (size_t i = 0; i < v->n_nodes; i++)
		names[i] = v->nodes[i].name;
	qsort(names, v->n_nodes, sizeof(names[0]), compare_names);
	for (size_t i = 1; i < v->n_nodes; i++)
		if (!strcmp(names[i - 1], names[i]))
			return false;
	return true;
}

bool membership_map_is_valid(const struct membership_map *map)
{
	const struct membership_view *v = map->view;

	for (size_t i = 0; i < v->n_nodes; i++) {
		const struct membership_node *n = &v->nodes[i];

		if (n->id <= (i ? v->nodes[i - 1].id : NODE_NONE) ||
		    n->state > MEMBER_REMOVED || !membership_name_is_valid(n->name) ||
		    !membership_address_is_valid(n->address))
			return false;
	}
	return names_are_unique(v) && blocks_are_valid(map);
}
