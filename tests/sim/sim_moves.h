#pragma once
/*
 * Simulated machines with the rooms up to migration, and hotplug if members come and go: how they are built, join and die
 * (sim_moves.c), and what must hold of them (sim_moves_judge.c).  What happens to them is the
 * test's.
 */
#include "fence.h"
#include "hotplug.h"
#include "membership.h"
#include "migration.h"
#include "process.h"
#include "sim_kernel.h"
#include "world.h"

enum {
	N_MACHINES = 4,
	N_ASKS = 4000,
};

enum what { MOVE, SIGNAL, WAIT, CHANGE };

/* Something that was asked of a machine, and is answered once, or dies with it. */
struct ask {
	struct machine *from;
	struct sim_soul *soul; /* NULL: of a CHANGE */
	unsigned boot;
	enum what what;
	int signal;
	bool ended;
};

struct machine {
	struct sim *sim;
	unsigned slot, boot;
	node_id id;
	char name[16];
	struct rpc *rpc;
	struct membership *membership;
	struct space *space;
	struct process_room *process;
	struct criu *criu;
	struct migration_room *migration;
	struct hotplug *hotplug; /* NULL, unless members change */
	struct fence fence;
	epoch_t epoch;
	enum member_state state; /* by the newest view */
	bool power; /* is cut, when it is killed */
};

struct sim {
	struct world *w;
	struct sim_kernel kernel;
	struct machine machines[N_MACHINES + 1];
	bool calm;
	bool changes; /* members are removed and added */
	unsigned joining;
	epoch_t newest;
	struct ask asks[N_ASKS];
	size_t n_asks, n_moved, n_moves, n_launched, n_changed;
};

/* sim_moves.c */
extern const struct world_rooms sim_moves_rooms;
/* All but the first, one at a time, before anything goes wrong. */
void sim_moves_join(struct sim *s);

/* sim_moves_judge.c */
void sim_moves_on_view(struct sim *s, const struct membership_view *v);
/* After every step. */
void sim_moves_check(struct sim *s);
/* When all has healed. */
void sim_moves_check_healed(struct sim *s);
