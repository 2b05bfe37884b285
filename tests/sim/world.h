#pragma once
/*
 * A whole cluster in one process, one thread, one seed.
 *
 * Machines (slots 1..n) run real rooms; their doors are the world's: time and
 * timers (each machine's clock drifts), random numbers, descriptors (true ones, which
 * nobody outside holds), work (which may end after a crash), links (that delay, break,
 * are cut one way, fill up), a store (that forgets what was not durable, and fills
 * up).  One event a step; after each the owner checks what must always hold.
 * The same seed gives the same trace.
 *
 * What is not here, since no room can meet it.  A link neither duplicates nor reorders nor
 * damages: it is one TCP connection under TLS, which ends instead.  A request comes twice, or
 * late, by a new link after a broken one, and what is under way when a link breaks may have
 * arrived or not: both happen.  A batch is never torn: LMDB writes the one page that makes a
 * transaction true last, so a crash leaves all of it or nothing (unit/torn); what is lost is the
 * last batches, from any of them on.  A full disk fails a batch as a whole.  Raw files (the
 * journal of migration, state memfds) have their own tests.
 *
 * A violated invariant prints the seed and the last events, and aborts.
 */
#include "env.h"
#include "store.h"
#include "transport.h"

#include <stdbool.h>

enum { WORLD_MAX = 1000 };

struct world;

struct world_rooms {
	/* Machine @slot boots: make its rooms.  Not 0: it stays down. */
	int (*start)(void *owner, unsigned slot);
	/* Its process is dead: free its rooms.  What they do now reaches nobody, and
	 * nothing that they wait for (a batch, work) comes any more. */
	void (*kill)(void *owner, unsigned slot);
	/* After every step. */
	void (*check)(void *owner);
};

struct world *world_new(uint64_t seed, unsigned n_machines, const struct world_rooms *rooms,
			void *owner);
struct world *world_free(struct world *w);

uint64_t world_random(struct world *w);
/* 0..n-1 */
uint64_t world_below(struct world *w, uint64_t n);
bool world_chance(struct world *w, unsigned per_mille);
nsec_t world_now(const struct world *w);
uint64_t world_trace(const struct world *w);
/* Print every event as it comes: for a replay. */
void world_set_verbose(struct world *w, bool verbose);
/* Into the trace and the list of last events. */
void world_note(struct world *w, unsigned slot, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void world_fail(struct world *w, const char *format, ...)
	__attribute__((format(printf, 2, 3), noreturn));
#define world_check(w_, cond_, ...)                                                  \
	do {                                                                         \
		if (!(cond_))                                                        \
			world_fail((w_), __VA_ARGS__);                               \
	} while (0)

/* One event; false: there is none. */
bool world_step(struct world *w);
void world_run(struct world *w, nsec_t span);
/* The scenario's own events. */
int world_at(struct world *w, nsec_t after, void (*cb)(void *arg), void *arg);

/* Whose event is happening: 0 is the scenario's, and it can act for a machine. */
unsigned world_acting(const struct world *w);
void world_act(struct world *w, unsigned slot);
/* Whoever acts is kept busy: the others are late meanwhile. */
void world_spend(struct world *w, nsec_t span);

/* Doors of a machine.  The env of 0 is the world's own: what a machine has beside its
 * rooms, and what goes on when they are killed or paused, lives by it. */
const struct env *world_env(struct world *w, unsigned slot);
const struct store *world_store(struct world *w, unsigned slot);
const struct transport *world_transport(struct world *w, unsigned slot);
/* Who gets the machine's transport events; by its rooms' start. */
void world_listen(struct world *w, unsigned slot, const struct transport_events *events,
		  void *owner);
/* Its certificate says @id (default: its slot). */
void world_set_id(struct world *w, unsigned slot, node_id id);
node_id world_id(const struct world *w, unsigned slot);
/* "10.0.0.<slot>:7777", and 10.0.1.0 is 256 */
const char *world_address(struct world *w, unsigned slot);

/* What a machine has done since it was made. */
struct world_use {
	uint64_t sent, received;	     /* frames */
	uint64_t sent_bytes, received_bytes; /* with their headers, without TLS */
	uint64_t turns;			     /* times that it was woken */
};
const struct world_use *world_use(const struct world *w, unsigned slot);

/* What happens to machines. */
void world_boot(struct world *w, unsigned slot);
/* @silent: no packet tells its peers (the power went). */
void world_crash(struct world *w, unsigned slot, bool silent);
/* Until it is killed, which is at once: what its rooms do reaches nobody. */
void world_mute(struct world *w, unsigned slot);
void world_pause(struct world *w, unsigned slot, bool paused);
bool world_is_running(const struct world *w, unsigned slot);
bool world_is_paused(const struct world *w, unsigned slot);
/* The moment when it was paused, also if it was killed since; else now. */
nsec_t world_ran_until(const struct world *w, unsigned slot);
/* One way; links go down when it lasts. */
void world_cut(struct world *w, unsigned from, unsigned to, bool cut);
void world_heal(struct world *w);
/* Every link between them breaks. */
void world_break(struct world *w, unsigned a, unsigned b);
void world_disk_full(struct world *w, unsigned slot, bool full);
/* Parts per million that its clock goes too fast. */
void world_set_drift(struct world *w, unsigned slot, int ppm);
/* Its CLOCK_REALTIME steps: to @ahead of the world's, or behind it. */
void world_set_wall_clock(struct world *w, unsigned slot, int64_t ahead);
