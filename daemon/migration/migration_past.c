#include "migration_past.h"

/* Of a small process, and of each byte: measured on a virtual machine of two
 * processors. */
static const double FIRST = 300e6;		/* ns */
static const double A_BYTE = 1e9 / (150 << 20); /* ns */

/* Two sizes that are closer than this tell nothing of what a byte costs. */
static const double SPREAD_MIN = 1 << 20;

void migration_past_add(struct migration_past *p, uint64_t bytes, nsec_t frozen)
{
	size_t at = p->n++ % MIGRATION_PAST_MAX;

	p->moves[at].bytes = bytes;
	p->moves[at].frozen = frozen;
}

static double at_least_0(double x)
{
	return x > 0 ? x : 0;
}

nsec_t migration_past_predict(const struct migration_past *p, uint64_t bytes,
			      unsigned *ret_n_moves)
{
	size_t n = p->n < MIGRATION_PAST_MAX ? p->n : MIGRATION_PAST_MAX;
	double x = 0, y = 0, xx = 0, xy = 0, slope = A_BYTE, first = FIRST;

	for (size_t i = 0; i < n; i++) {
		x += (double)p->moves[i].bytes / (double)n;
		y += (double)p->moves[i].frozen / (double)n;
	}
	for (size_t i = 0; i < n; i++) {
		double dx = (double)p->moves[i].bytes - x;

		xx += dx * dx / (double)n;
		xy += dx * ((double)p->moves[i].frozen - y) / (double)n;
	}
	if (xx >= SPREAD_MIN * SPREAD_MIN)
		slope = at_least_0(xy / xx);
	if (n)
		first = at_least_0(y - slope * x);
	*ret_n_moves = (unsigned)n;
	return (nsec_t)(first + slope * (double)bytes);
}
