#pragma once
/* Which of a node's processes moves.  Pure. */
#include "process.h"

/*
 * The youngest that runs, has computed for a while and @may move; NULL: nobody, or there is a
 * processor for everybody who computes.  *ret_n_busy: so many do; before @may is asked, of whom the
 * last that may is the one.
 */
const struct process_info *balance_pick(const struct process_info *infos, size_t n, uint32_t n_cpus,
					uint32_t *ret_n_busy,
					bool (*may)(void *owner, const struct process_info *info),
					void *owner);
