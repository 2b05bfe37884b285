#pragma once
/*
 * What moves from this node have cost, and what the next one may.
 *
 * Knows: nobody.  The last moves are points (bytes sent, time frozen); the prediction
 * is on the line through them, least squares.  Before there are any, or while all were
 * of one size, what is lacking of the line are figures of ours.
 */
#include "ids.h"

#include <stddef.h>
#include <stdint.h>

enum { MIGRATION_PAST_MAX = 16 };

struct migration_past {
	struct {
		uint64_t bytes;
		nsec_t frozen;
	} moves[MIGRATION_PAST_MAX];
	size_t n; /* ever; the last of them are kept */
};

void migration_past_add(struct migration_past *p, uint64_t bytes, nsec_t frozen);
/* For how long a tree of which so much is sent will stand still; of how many moves we
 * know. */
nsec_t migration_past_predict(const struct migration_past *p, uint64_t bytes,
			      unsigned *ret_n_moves);
