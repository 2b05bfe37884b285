#pragma once
/*
 * A cluster of any size: the first machine founds it, others join, and what each
 * of them knows is followed.  Nothing fails but what the owner lets fail.
 */
#include "membership.h"
#include "world.h"

struct sim_members;

/* The founder is up; all the other machines are down, and no members. */
struct sim_members *sim_members_new(uint64_t seed, unsigned n_machines);
struct sim_members *sim_members_free(struct sim_members *s);

struct world *sim_members_world(const struct sim_members *s);
/* NULL: it is down. */
struct membership *sim_members_room(const struct sim_members *s, unsigned slot);
/* The slot of who leads, 0: nobody does. */
unsigned sim_members_leader(const struct sim_members *s);
/* Views that were committed so far. */
epoch_t sim_members_epoch(const struct sim_members *s);

/* The next @n machines join at this moment, with tokens that they have. */
void sim_members_join(struct sim_members *s, unsigned n);
/* Virtual time until every machine that runs knows that @n members are up.  It
 * fails after @limit. */
nsec_t sim_members_until_up(struct sim_members *s, unsigned n, nsec_t limit);
/* The same, that @slot is lost. */
nsec_t sim_members_until_lost(struct sim_members *s, unsigned slot, nsec_t limit);
