/*
 * Some hundred nodes found a cluster, join at once, lose one, and lose their leader.
 *
 *   test_scale_sim [--seed S] [--nodes N]
 */
#include "log.h"
#include "sim_members.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { VIEWS_MAX = 12 };

#define JOIN_MAX (10 * NSEC_PER_SEC)
/* A lease, its margin, and how long a view takes to everybody, on links that lose packets. */
#define LOST_MAX (5 * NSEC_PER_SEC)
/* An election before that, of several rounds if need be. */
#define LEADER_LOST_MAX (15 * NSEC_PER_SEC)

static void check_leases(struct sim_members *s, unsigned nodes)
{
	struct world *w = sim_members_world(s);

	for (unsigned i = 1; i <= nodes; i++)
		world_check(w,
			    !world_is_running(w, i) ||
				    membership_lease_held(sim_members_room(s, i)),
			    "machine %u has no lease", i);
}

/* By a third of them at a time. */
static void grow(struct sim_members *s, unsigned nodes)
{
	struct world *w = sim_members_world(s);

	for (unsigned n = 1; n < nodes;) {
		unsigned more = nodes - n < nodes / 3 ? nodes - n : nodes / 3;
		epoch_t before = sim_members_epoch(s);

		sim_members_join(s, more);
		n += more;
		(void)sim_members_until_up(s, n, JOIN_MAX);
		world_check(w, sim_members_epoch(s) <= before + VIEWS_MAX,
			    "%" PRIu64 " views for %u nodes", sim_members_epoch(s) - before,
			    more);
	}
	printf("ok 1 - %u nodes joined, many with each view\n", nodes);
}

int main(int argc, char **argv)
{
	struct sim_members *s;
	struct world *w;
	unsigned leader, nodes = 320;
	uint64_t seed;

	log_set_level(0);
	(void)getrandom(&seed, sizeof(seed), 0);
	seed %= 1000000000;
	for (int i = 1; i + 1 < argc; i++)
		if (!strcmp(argv[i], "--seed"))
			seed = strtoull(argv[i + 1], NULL, 10);
		else if (!strcmp(argv[i], "--nodes"))
			nodes = (unsigned)strtoul(argv[i + 1], NULL, 10);
	printf("# seed %" PRIu64 "\n1..3\n", seed);
	s = sim_members_new(seed, nodes);
	w = sim_members_world(s);
	grow(s, nodes);
	world_run(w, 10 * NSEC_PER_SEC);
	check_leases(s, nodes);
	leader = sim_members_leader(s);
	world_crash(w, nodes, true);
	(void)sim_members_until_lost(s, nodes, LOST_MAX);
	printf("ok 2 - all know of one that was lost\n");
	world_crash(w, leader, true);
	(void)sim_members_until_lost(s, leader, LEADER_LOST_MAX);
	world_run(w, 2 * NSEC_PER_SEC);
	check_leases(s, nodes);
	printf("ok 3 - all know of a leader that was lost\n");
	s = sim_members_free(s);
	return 0;
}
