/*
 * What membership costs and how fast it is, by the number of nodes: the real rooms
 * rpc, consensus and membership in a simulated world, so times are virtual, and the
 * same for everybody who runs this.
 *
 * usage: bench_membership [SEED]
 */
#include "log.h"
#include "sim_members.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { AT_ONCE = 100, IDLE_SECONDS = 20, MOST_TIMES = 100 };

#define LIMIT (600 * NSEC_PER_SEC)

static double processor(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double seconds(nsec_t span)
{
	return (double)span / NSEC_PER_SEC;
}

/* @n more at once, until all @n_up have them. */
static void add(struct sim_members *s, unsigned n, unsigned n_up)
{
	epoch_t before;
	nsec_t took;

	sim_members_join(s, n);
	before = sim_members_epoch(s);
	took = sim_members_until_up(s, n_up, LIMIT);
	printf("add %4u to %4u               %6.2f s, %llu views\n", n, n_up - n, seconds(took),
	       (unsigned long long)(sim_members_epoch(s) - before));
	fflush(stdout);
}

static struct sim_members *grow(struct sim_members *s, unsigned from, unsigned to)
{
	while (from < to) {
		unsigned n = to - from < AT_ONCE ? to - from : AT_ONCE;

		sim_members_join(s, n);
		from += n;
		(void)sim_members_until_up(s, from, LIMIT);
	}
	/* Votes come one after the other. */
	world_run(sim_members_world(s), 30 * NSEC_PER_SEC);
	return s;
}

static void print_use(const char *who, const struct world_use *a, const struct world_use *b)
{
	printf("  %-22s %8.1f sent, %8.1f received, %9.0f bytes, %8.1f turns\n", who,
	       (double)(b->sent - a->sent) / IDLE_SECONDS,
	       (double)(b->received - a->received) / IDLE_SECONDS,
	       (double)(b->sent_bytes + b->received_bytes - a->sent_bytes - a->received_bytes) /
		       IDLE_SECONDS,
	       (double)(b->turns - a->turns) / IDLE_SECONDS);
}

/* A voter, or an ordinary member, that does not lead; 0: there is none. */
static unsigned find(struct sim_members *s, unsigned n, bool voter)
{
	const struct membership_view *v =
		membership_view(sim_members_room(s, sim_members_leader(s)));

	for (unsigned i = 1; i <= n; i++) {
		const struct membership_node *node;

		for (size_t k = 0; k < v->n_nodes; k++) {
			node = &v->nodes[k];
			if (node->id == world_id(sim_members_world(s), i) &&
			    node->voter == voter && node->id != v->leader)
				return i;
		}
	}
	return 0;
}

static void idle(struct sim_members *s, unsigned n)
{
	static const char *const who[] = { "the leader", "another voter", "an ordinary member" };
	unsigned slots[] = { sim_members_leader(s), find(s, n, true), find(s, n, false) };
	struct world *w = sim_members_world(s);
	struct world_use before[3];
	double cpu = processor();

	for (unsigned i = 0; i < 3; i++)
		before[i] = slots[i] ? *world_use(w, slots[i]) : (struct world_use){ 0 };
	world_run(w, IDLE_SECONDS * NSEC_PER_SEC);
	printf("%u nodes, idle, in a second (simulated in %.2f s):\n", n,
	       (processor() - cpu) / IDLE_SECONDS);
	for (unsigned i = 0; i < 3; i++)
		if (slots[i])
			print_use(who[i], &before[i], world_use(w, slots[i]));
	fflush(stdout);
}

/* Until all know that @slot, which is killed, is lost. */
static nsec_t lose_one(struct sim_members *s, unsigned slot)
{
	world_crash(sim_members_world(s), slot, true);
	return sim_members_until_lost(s, slot, LIMIT);
}

static int shortest_first(const void *a, const void *b)
{
	nsec_t x = *(const nsec_t *)a, y = *(const nsec_t *)b;

	return (x > y) - (x < y);
}

static void print_lost(const char *who, unsigned n, nsec_t *took, unsigned times)
{
	qsort(took, times, sizeof(*took), shortest_first);
	printf("%-10s of %4u killed       %6.2f to %.2f s, median %.2f, %u times\n", who, n,
	       seconds(took[0]), seconds(took[times - 1]), seconds(took[times / 2]), times);
	fflush(stdout);
}

/* One that does not lead is killed, and when it is back the leader, of @n; in @times worlds. */
static void lose(uint64_t seed, unsigned n, unsigned times)
{
	nsec_t member[MOST_TIMES], leader[MOST_TIMES];

	for (unsigned i = 0; i < times; i++) {
		struct sim_members *s = grow(sim_members_new(seed + i, n), 1, n);
		unsigned slot = sim_members_leader(s) == n ? n - 1 : n;

		member[i] = lose_one(s, slot);
		world_boot(sim_members_world(s), slot);
		(void)sim_members_until_up(s, n, LIMIT);
		leader[i] = lose_one(s, sim_members_leader(s));
		s = sim_members_free(s);
	}
	print_lost("one", n, member, times);
	print_lost("the leader", n, leader, times);
}

int main(int argc, char **argv)
{
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
	struct sim_members *s;

	log_set_level(0);
	s = grow(sim_members_new(seed, 103), 1, 3);
	idle(s, 3);
	add(s, 1, 4);
	s = sim_members_free(s);
	s = grow(sim_members_new(seed, 103), 1, 3);
	add(s, AT_ONCE, 103);
	world_run(sim_members_world(s), 5 * NSEC_PER_SEC);
	s = sim_members_free(s);
	lose(seed, 5, MOST_TIMES);
	lose(seed, 100, 20);
	s = grow(sim_members_new(seed, 100), 1, 100);
	idle(s, 100);
	s = sim_members_free(s);
	s = grow(sim_members_new(seed, 1000), 1, 899);
	add(s, 1, 900);
	add(s, AT_ONCE, 1000);
	world_run(sim_members_world(s), 5 * NSEC_PER_SEC);
	idle(s, 1000);
	s = sim_members_free(s);
	lose(seed, 1000, 3);
	return 0;
}
