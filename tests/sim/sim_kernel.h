#pragma once
/*
 * What the simulated machines have beside their rooms: a kernel with processes, groups
 * and signals, ssi-init with what it keeps, shadows, and a criu.  It lives on when ssid
 * is killed and is gone with the power.
 *
 * The doors space, inject, criu and image, and what the process room asks of the kernel
 * by itself, are implemented over it (sim_space.c, sim_process.c, sim_criu.c) and stand
 * at link time where the true ones would.
 *
 * A *soul* is a process of the cluster, wherever its copies are.  A copy is live when
 * it would run: restored, no shadow, in no frozen group or space, not held by the injection
 * door.
 * It has a step, one more than the last one that anybody has made; so a copy that runs
 * again after a newer one did is found at once, as is a second one beside it.
 *
 * An older copy may run again when the newest is lost with its machine, or stands in a space
 * without a lease: then that one may not run any more.
 */
#include "capability.h"
#include "env.h"
#include "space.h"
#include "shadow_protocol.h"
#include "world.h"

#include <signal.h>
#include <sys/queue.h>

enum { SIM_MACHINES = 8 };

enum sim_end {
	SIM_LIVES,
	SIM_EXITED,    /* by itself */
	SIM_SIGNALLED, /* somebody wanted it */
	SIM_POWER,     /* with its machine */
	SIM_GIVEN_UP,  /* by a room, after its machine was out of the cluster */
};

struct sim_soul {
	LIST_ENTRY(sim_soul) in;
	pid_t pid, app;
	unsigned home; /* machine that it was born on */
	uint64_t step; /* the last that was made */
	bool may_die;  /* a signal that kills was sent */
	bool was_lost; /* a view had a machine out that a copy was on */
	bool went_back; /* an older copy goes on */
	/* ssid was killed during a move, or before it had written down that a signal was
	 * delivered: its signals may come twice */
	bool repeats;
	enum sim_end end;
	struct sim_machine *died_on;
	unsigned n_cuts, n_outs; /* of that one, before */
	unsigned n_home_cuts;    /* of its home, or out, when it ended */
	int code, status;
	uint32_t n_signals, n_sent, n_surely; /* SIGUSR1: taken, sent, with success */
};

struct sim_group {
	LIST_ENTRY(sim_group) in;
	char name[64];
	bool frozen;
};

enum { SIM_PIDFDS = 8 };

struct sim_process {
	LIST_ENTRY(sim_process) in;
	struct sim_machine *machine;
	pid_t pid, ppid, pgid, sid;
	uid_t uid;
	struct capability_sets capabilities; /* when it runs: sim_capabilities() */
	struct sim_soul *soul; /* NULL: a shadow */
	struct sim_group *group;
	uint64_t step;
	bool shadow, zombie, restoring, live, stopped, tracked;
	bool ran; /* here, at least once */
	bool tell_exit, tell_stop;
	int stop_signal;
	unsigned held; /* by the injection door */
	int code, status;
	unsigned pending; /* SIGUSR1 that it has not taken */
	unsigned n_pieces;	      /* of memory, that its last dump left here */
	unsigned missing;	      /* bit n: of piece n, that a restore left out */
	nsec_t signalled_at; /* by the injection door */
	int pidfds[SIM_PIDFDS]; /* closed when it ends */
	size_t n_pidfds;
	/* A shadow. */
	struct env_fd socket;
	struct shadow_report journal[SHADOW_JOURNAL];
	size_t first, n;
	uint64_t sequence;
};

struct sim_kept {
	LIST_ENTRY(sim_kept) in;
	char name[64];
	int fd;
	size_t size; /* of a state */
	void *saved; /* what was in it when ssid was killed */
};

struct sim_machine {
	struct sim_kernel *kernel;
	unsigned slot, n_cuts;
	bool out; /* by the newest view */
	unsigned n_outs;
	/* The lease, as ssi-init knows it: by the machine's clock, whatever ssid does. */
	struct env_timer watchdog;
	nsec_t lease_until, frozen_at; /* 0: there was none; the space runs */
	bool deaf; /* its ssid is dying: what the rooms do reaches nobody */
	bool dying; /* was killed in the middle of its event */
	unsigned die_after; /* so many calls of doors; 0: not */
	LIST_HEAD(, sim_process) processes;
	LIST_HEAD(, sim_group) groups;
	LIST_HEAD(, sim_kept) kept;
	struct space *space; /* of the ssid that is there */
	pid_t first, n, last; /* PIDs */
	unsigned n_criu;
	/* Descriptors that its rooms were given, by inode: they are gone with it. */
	struct {
		int fd;
		ino_t inode;
	} given[512];
	size_t n_given;
};

struct sim_kernel {
	struct world *w;
	struct sim_machine machines[SIM_MACHINES + 1];
	LIST_HEAD(, sim_soul) souls;
	int root_fd; /* with a file for each program of ours */
	bool calm;   /* criu does not fail */
	bool forced; /* whoever is born from now on may be ended */
	unsigned n_abroad; /* times that a process came to run where it was not born */
};

extern struct sim_kernel *sim_kernel; /* one at a time */

void sim_kernel_init(struct sim_kernel *k, struct world *w);
void sim_kernel_fini(struct sim_kernel *k);
/* Of the machine that acts. */
struct sim_machine *sim_here(void);

/* A door is called.  True: ssid is dead, nothing happens. */
bool sim_is_deaf(struct sim_machine *m);
/* The rooms of ssid are being freed, and are no more.  @power: all else is gone as well. */
void sim_kernel_dying(struct sim_machine *m);
void sim_kernel_died(struct sim_machine *m, bool power);

struct sim_process *sim_find(struct sim_machine *m, pid_t pid);
/* Of a process of that number, wherever it runs. */
struct capability_sets sim_capabilities(pid_t pid);
struct sim_process *sim_process_new(struct sim_machine *m, pid_t pid, pid_t ppid);
/* A free number of the lease; 0: none. */
pid_t sim_next_pid(struct sim_machine *m);
void sim_exit(struct sim_process *p, int code, int status);
/* As kill(2) and rt_sigqueueinfo(2); @info NULL: SI_USER. */
int sim_signal(struct sim_machine *m, pid_t pid, int signal, const siginfo_t *info,
	       bool by_room);
/* Whoever may have come to life, or ceased to live, by what was done. */
void sim_look(struct sim_process *p);
void sim_bury(struct sim_process *p);
bool sim_is_below(const struct sim_process *p, pid_t ancestor);
/* The descriptor is the rooms' from now on. */
int sim_give(struct sim_machine *m, int fd);

struct sim_group *sim_group(struct sim_machine *m, const char *name);
void sim_group_freeze(struct sim_machine *m, struct sim_group *g, bool frozen);
void sim_group_kill(struct sim_machine *m, struct sim_group *g);

struct sim_soul *sim_soul_new(struct sim_kernel *k, pid_t pid, pid_t app, unsigned home);
unsigned sim_soul_copies(const struct sim_soul *soul, struct sim_process **ret_last);

/* This copy is no more: was it the last one? */
void sim_soul_leaves(struct sim_process *p, enum sim_end end);

/* sim_shadow.c: @p, which has @owned_fd as its descriptor 3, begins to run. */
void sim_shadow_start(struct sim_process *p, int owned_fd);
void sim_shadow_take(struct sim_process *p, int signal, const siginfo_t *info);
/* It reads unless it is stopped or frozen. */
void sim_shadow_look(struct sim_process *p);
void sim_shadow_end(struct sim_process *p);
/* sim_space.c */
void sim_space_tell(struct sim_machine *m);
void sim_space_lose_power(struct sim_machine *m);
