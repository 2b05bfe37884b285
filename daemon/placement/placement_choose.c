#include "placement_choose.h"

static uint32_t cpus(const struct placement_candidate *c)
{
	return c->n_cpus ? c->n_cpus : 1;
}

static uint64_t load(const struct placement_candidate *c)
{
	return (400ull * c->n_jobs + c->running) / cpus(c);
}

node_id placement_choose(const struct placement_candidate *c, size_t n)
{
	const struct placement_candidate *best = &c[0];

	if (c[0].n_jobs < cpus(&c[0]))
		return c[0].node;
	for (size_t i = 1; i < n; i++)
		if (load(&c[i]) < load(best))
			best = &c[i];
	return best->node;
}
