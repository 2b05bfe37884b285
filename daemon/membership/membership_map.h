#pragma once
/*
 * The map: a view, who holds which PIDs, and what only the leader needs.
 *
 * A value: made, copied, changed while one room holds it, freed.  No I/O.
 * PIDs are given for ever: no run goes back, also when its node does not come back.
 * Invariant: members by id, blocks by first PID, no two of them overlap, and no
 * two members have one name.
 */
#include "cleanup.h"
#include "membership.h"

enum {
	MEMBERSHIP_MAX_MEMBERS = 4096,
	MEMBERSHIP_MAX_BLOCKS = 4096,
};

struct membership_block {
	pid_t first;
	uint32_t count;
	node_id node;
};

struct membership_map {
	struct membership_view *view;
	uint64_t *starts; /* leader: of view->nodes[i], what its ssid drew at its start */
	struct membership_block *blocks;
	size_t n_blocks;
	size_t node_room, block_room; /* for so many there is memory */
	node_id next_id; /* leader */
	nsec_t lease;	 /* leader: the longest that may still be held */
};

/* An empty map, epoch 0. */
int membership_map_new(struct membership_map **ret, node_id leader);
int membership_map_copy(struct membership_map **ret, const struct membership_map *from);
struct membership_map *membership_map_free(struct membership_map *map);
DEFINE_CLEANUP(struct membership_map, membership_map_free)

struct membership_node *membership_map_member(const struct membership_map *map, node_id id);
struct membership_node *membership_map_member_by_name(const struct membership_map *map,
						      const char *name);
uint64_t *membership_map_start(const struct membership_map *map, node_id id);
/* @id above all others.  *ret: in state JOINING, valid until the next change. */
int membership_map_add_member(struct membership_map *map, node_id id, const char *name,
			      const char *address, struct membership_node **ret);
void membership_map_remove_member(struct membership_map *map, node_id id);

node_id membership_map_home(const struct membership_map *map, pid_t pid);
/* How many @node holds. */
uint32_t membership_map_count_pids(const struct membership_map *map, node_id node);
enum {
	_MEMBERSHIP_MAP_E_SUCCESS,
	MEMBERSHIP_MAP_E_EXHAUSTED, /* no PIDs are left for that node */
};
/*
 * The PIDs that @node is given when it asks; 0: none.  A part of what is to spare beyond a block
 * for each of the first MEMBERSHIP_PID_NODES members: long runs for a few, shorter ones for more,
 * a block for all.  @max: that one may hold, 0: no limit.
 */
uint32_t membership_map_lease_size(const struct membership_map *map, node_id node,
				   uint32_t max);
/* So many, the lowest that nobody holds, to @node.  MEMBERSHIP_MAP_E_*. */
int membership_map_lease(struct membership_map *map, node_id node, uint32_t max);
/* Becomes one with what the node has on either side of it. */
int membership_map_add_block(struct membership_map *map, const struct membership_block *block);

/* [a-z0-9-], 1..63 bytes, neither end a hyphen. */
bool membership_name_is_valid(const char *name);
/* "host:port" or "[v6]:port", short, printable, no white space. */
bool membership_address_is_valid(const char *address);
/* Does every invariant hold?  For maps that came from outside. */
bool membership_map_is_valid(const struct membership_map *map);
