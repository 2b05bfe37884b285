#include "balance_pick.h"

/* Several times what a move costs. */
static const uint64_t computed_for = 200 * NSEC_PER_MSEC;

static bool is_busy(const struct process_info *i)
{
	return i->state == 'R' || i->state == 'D';
}

const struct process_info *balance_pick(const struct process_info *infos, size_t n, uint32_t n_cpus,
					uint32_t *ret_n_busy,
					bool (*may)(void *owner, const struct process_info *info),
					void *owner)
{
	const struct process_info *best = NULL;
	uint32_t n_busy = 0;

	for (size_t i = 0; i < n; i++)
		n_busy += is_busy(&infos[i]);
	*ret_n_busy = n_busy;
	/* From the last on, as these have the youngest: so hardly anybody else is asked about. */
	for (size_t i = n; n_busy > n_cpus && i-- > 0;)
		if (infos[i].state == 'R' && infos[i].cpu_ns >= computed_for &&
		    (!best || infos[i].start_ns > best->start_ns) && may(owner, &infos[i]))
			best = &infos[i];
	return best;
}
