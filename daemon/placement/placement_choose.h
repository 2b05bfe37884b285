#pragma once
/* Where a job goes.  Pure.  Knows: nobody. */
#include "ids.h"

#include <stddef.h>
#include <stdint.h>

struct placement_candidate {
	node_id node;
	uint32_t n_cpus;
	uint32_t running; /* runnable tasks in hundredths, as of its last renewal */
	uint32_t n_jobs;  /* that this node has given it and that have not ended */
};

/*
 * @home is the first.  As long as it has a processor for one more job it stays: to begin
 * elsewhere costs a few milliseconds.  Else the one with the fewest jobs of ours for each
 * processor; what else runs there counts a quarter, as it is half a second old, and on a
 * machine that nodes share it is everybody's.  @n > 0.
 */
node_id placement_choose(const struct placement_candidate *c, size_t n);
