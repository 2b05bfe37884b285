#pragma once
/* How members have fared, see membership.h: what the leader writes down of it. */
#include "membership_map.h"

/* Into @map, which is to follow @old: every member whose state differs there changes @now
 * (CLOCK_REALTIME). */
void membership_history_stamp(struct membership_map *map, const struct membership_map *old,
			      nsec_t now);
