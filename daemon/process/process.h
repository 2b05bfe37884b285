#pragma once
/*
 * Processes of the cluster: where each is, who waits for it, signals, shadows.
 *
 * Knows: env, space, rpc, membership.  Tells: watchers of an application.
 *
 * A process has a *home*, the node that leased its PID, and a *place*, the node
 * where it runs.  Home keeps a shadow in its place (same PID, parent, group,
 * session), forwards what reaches it, and ends as it ends.  An *application* is
 * the tree that one ssi-run started; its id is the PID of its root.
 *
 * Records that must survive ssid live in a state memfd kept by ssi-init.  What an
 * ordinary child of an application is needs no record: it is read from /proc.
 *
 * Invariants: one live copy of every process; the record at home says where; a
 * generation counts its moves, and a message of an older one is ignored; an exit
 * status reaches the parent (the shadow's) and every waiter exactly once.
 */
#include "capability.h"
#include "env.h"
#include "ids.h"
#include "membership.h"
#include "rpc.h"
#include "space.h"

#include <stdbool.h>
#include <sys/resource.h>

struct process_room;

enum {
	_PROCESS_E_SUCCESS,
	PROCESS_E_ABSENT,   /* no such process here */
	PROCESS_E_BUSY,     /* it is being moved or saved */
	PROCESS_E_TAKEN,    /* the PID is in use */
};

/* Who asks: the peer of a local socket, or what another node says of one. */
struct process_caller {
	uid_t uid;
	gid_t gid;
	gid_t groups[64];
	size_t n_groups;
};

/* Everything that ssi-run's child inherits.  Strings are the owner's. */
/* What its user calls an application; "" if nothing. */
struct process_name {
	char text[32];
};
/* A letter, and letters, digits and ._+~- behind it; no PID, no option, no more than fits. */
bool process_name_ok(const char *name);

struct process_launch {
	char **argv;
	char **envp;
	char *cwd;
	char *name; /* --app, or "" */
	struct process_caller caller;
	mode_t umask;
	int nice;
	struct rlimit limits[RLIM_NLIMITS];
	/* Descriptors of pipe ends for 0, 1, 2; -1: the space's /dev/null. */
	int stdio[3];
	/* Programs that it starts ask where they should run (SPACE_SPAWN_ASK); DISTANT_FORK. */
	bool spread;
	/* Bit n: descriptor n is @terminal, which becomes the controlling one.  0:
	 * there is none. */
	uint32_t on_terminal;
	int terminal;
	/* Descriptor 2 is /dev/null as well; its pipe takes why the program could not be
	 * executed, and is closed when it was. */
	bool report;
};

enum process_state {
	PROCESS_HERE = 1,  /* runs here, its home */
	PROCESS_AWAY = 2,  /* its shadow is here */
	PROCESS_GUEST = 3, /* runs here, its home is elsewhere */
	PROCESS_ENDED = 4, /* its exit status waits to be told */
	PROCESS_KIN = 5,   /* a shadow of a guest's relative; neither home nor place */
	PROCESS_SENTINEL = 6, /* a shadow of nobody, in group `root` */
};

/* One record of this node.  A copy; nothing in it is owned. */
struct process_record {
	pid_t pid;
	pid_t app;
	pid_t root; /* of the moved tree that it belongs to; itself, if it is one */
	node_id home, place;
	uint32_t generation;
	enum process_state state;
	uid_t uid;
	struct process_name name; /* of the application */
	bool moving; /* a migration or checkpoint holds it */
	bool bound;  /* it and its children have the filter of space_pids_add() */
	int code, status; /* when ENDED */
};

/* What ssi-ps shows, of one process of the space. */
struct process_info {
	pid_t pid, ppid, pgid, sid, app;
	node_id home, place;
	uid_t uid;
	char state; /* R S D T Z I, of /proc/PID/stat; 'M' while moving */
	uint64_t cpu_ns, rss_bytes, start_ns; /* start: CLOCK_REALTIME */
	uint32_t n_threads;
	struct process_name name; /* of the application */
	char command[256]; /* argv joined by spaces, or [comm] */
};

/* @libexec_dir: where ssi-spawn and ssi-shadow are, as the space sees it. */
int process_room_new(struct process_room **ret, const struct env *env, struct space *space,
		     struct rpc *rpc, struct membership *membership, const char *libexec_dir);
struct process_room *process_room_free(struct process_room *p);

/* Where applications that start and end are told; outlives the room. */
struct event_sink;
void process_set_events(struct process_room *p, const struct event_sink *events);

/* The owner of space passes these on. */
void process_on_exit(struct process_room *p, const struct space_exit *exit);
void process_on_stop(struct process_room *p, pid_t pid, int signal);
/*
 * Shadows are seized by ptrace, for the two signals that they cannot take themselves: a SIGSTOP
 * is passed on, and a killed one is held at its exit until the real process is dead, so that a
 * parent never sees a death too early.  Only after this call, made on the loop's thread by an
 * owner who passes every SIGCHLD on; without it shadows are right but for these two.
 */
int process_trace(struct process_room *p);
void process_on_sigchld(struct process_room *p);
/* The owner of membership passes this on: calls to nodes that are gone are settled. */
void process_on_view(struct process_room *p);

/* The incarnation in which the space of this node began; 0: not known yet. */
uint64_t process_since(struct process_room *p);
/* Is what ran on @node in @incarnation known to have ended with it?  Asks the node when only it
 * can know: false meanwhile. */
bool process_is_over(struct process_room *p, node_id node, uint64_t incarnation);

/*
 * The space stood frozen, since this node had no lease, and may go on: every node that is up is
 * asked which processes of this one were given up meanwhile, or started anew elsewhere.  Those
 * are dead, and shadows stand for what lives on elsewhere and has its home here, when done
 * comes.  One at a time.
 */
typedef void (*process_claimed_cb)(void *owner, size_t n_killed);
int process_claim(struct process_room *p, process_claimed_cb done, void *owner);
/* The lease ended again: done does not come. */
void process_claim_cancel(struct process_room *p);

/* Since when every process here stands frozen for want of a lease (CLOCK_BOOTTIME), 0: they
 * run. */
nsec_t process_frozen_at(const struct process_room *p);
/* May anything be started here?  Not without a lease of this node, which may be a
 * predecessor's. */
bool process_may_start(struct process_room *p);

/* Launch here.  Takes no ownership.  *ret_pid: the application's id. */
int process_launch(struct process_room *p, const struct process_launch *l, pid_t *ret_pid);

/* A process waits in the call @nr, which names another one by its PID, that of args[0]: if that
 * runs elsewhere, a shadow of it stands here when the call goes on. */
bool process_call_names(int nr);
void process_on_call(struct process_room *p, const struct space_exec *call);

/* Every process of the applications in this node's space, shadows left out. *ret: malloc()ed. */
int process_list(struct process_room *p, struct process_info **ret, size_t *ret_n);

/* In this node's space; 0: @pid is gone. */
pid_t process_parent(struct process_room *p, pid_t pid);
int process_record(struct process_room *p, pid_t pid, struct process_record *ret);
/* Does it run here, or will in a moment, and its home is elsewhere? */
bool process_is_guest(struct process_room *p, pid_t pid);

/* Where is @pid?  Asks its home.  done once: RPC_OK with place and uid, or RPC_NOT_FOUND... */
typedef void (*process_where_cb)(void *owner, enum rpc_status status, const char *text,
				 node_id place, uid_t uid, uint32_t generation);
int process_where(struct process_room *p, pid_t pid, process_where_cb done, void *owner);

struct process_sought {
	pid_t pid;
	bool found;
	node_id place; /* when found; NODE_NONE: it is about to stand on one, or not: ask again */
	uint32_t generation; /* there */
};

/* Which of @sought do other nodes have?  All that are up have said so when done comes, once. */
typedef void (*process_seek_cb)(void *owner, const struct process_sought *sought, size_t n);
int process_seek(struct process_room *p, const struct process_sought *sought, size_t n,
		 process_seek_cb done, void *owner);

/* May @caller signal (and so stop or move) a process of @uid?  Ptrace-like rights (checkpoint,
 * restart) ask the kernel besides, in checkpoint. */
bool process_may_signal(const struct process_caller *caller, uid_t uid);

/* Signal @pid wherever it is; siginfo says SI_USER from @caller.  done once. */
int process_signal(struct process_room *p, pid_t pid, int signal,
		   const struct process_caller *caller,
		   void (*done)(void *owner, enum rpc_status status, const char *text), void *owner);

/* Tell once how application @app ended, asking its home; survives a move of it.  The status
 * stays known for 10 minutes after the end, or until every waiter was told.  cancel: owner. */
typedef void (*process_wait_cb)(void *owner, enum rpc_status status, const char *text, int code,
				int exit_status);
int process_wait(struct process_room *p, pid_t app, process_wait_cb done, void *owner);
void process_wait_cancel(struct process_room *p, void *owner);

/*
 * For migration and checkpoint.  hold() marks a tree so that nobody else moves it
 * (PROCESS_E_BUSY) and its signals wait; unhold() lets them go.
 */
int process_hold(struct process_room *p, pid_t root);
void process_unhold(struct process_room *p, pid_t root);
/* Whose hold is @root's leaves it to @to which copy runs, until this comes with NODE_NONE. */
void process_hold_for(struct process_room *p, pid_t root, node_id to);

enum { PROCESS_MEMBERS_MAX = 4096 }; /* of one tree */

/* A member of a tree that moves or is restored. */
struct process_member {
	pid_t pid, ppid, pgid, sid; /* ppid 0: the root */
	pid_t app;
	struct process_name name; /* of the application */
	uid_t uid;
	gid_t gid;
	uint32_t generation; /* of the move that is under way: more than its record's, or 1 */
	uint64_t delivered; /* the last signal of its shadow that it got, by number */
	uint64_t known; /* incarnation of its home that was the last to know of it */
	struct capability_sets capabilities; /* only for process_come_exec() */
};
/* The last two, as they are here. */
void process_carry(const struct process_room *p, struct process_member *m);

/*
 * The way out, when the target runs the tree: each frozen member whose home is
 * here becomes a shadow (record AWAY), the others are killed and forgotten.  The
 * tree must be frozen in @group; it is gone from the group afterwards.
 * Blocks: called in env_work(); the records are changed by process_departed() on the loop.
 */
struct process_departure;
struct process_pending;
/*
 * Which signals the image will hold: of the frozen tree, just before its dump.  On a worker.
 * Those are dropped from what becomes a shadow; what came later is sent on.
 */
int process_pending_read(int proc_fd, const struct process_member *members,
			 size_t n_members, struct process_pending **ret);
struct process_pending *process_pending_free(struct process_pending *pending);
/* @incarnation: of @to, when it was given the tree; 0: the present one. */
int process_depart_begin(struct process_room *p, const struct process_member *members,
			 size_t n_members, struct space_group *group, node_id to,
			 uint64_t incarnation, struct process_departure **ret);
/* Between begin and work; without it no pending signal is dropped, and some may come twice. */
void process_depart_pending(struct process_departure *d, struct process_pending *owned_pending);
int process_depart_work(struct process_departure *d); /* on a worker */
void process_depart_end(struct process_departure *d); /* on the loop; frees */

/*
 * The move of @members was given up since a view has its target out, where they may have run
 * unheard: what goes on here is the newer from now on, wherever both are asked for.  Before the
 * thaw.
 */
void process_stay(struct process_room *p, const struct process_member *members,
		  size_t n_members);

/*
 * Both ways for one that starts a program, in execve(), and runs it on another node.
 *
 * Out: @m waits in @exec; in its memory there are a NUL byte at @empty and its arguments at
 * @argv.  done once if 0 is returned; not left: it asks again, or was killed, and nothing has
 * changed.  @alarm: that its program has to have.
 */
struct process_alarm {
	uint64_t value_us, interval_us; /* of ITIMER_REAL; 0: none */
};
/* @pending: signals were pending, which its program must have before it begins: see
 * process_leave_drain(). */
typedef void (*process_leave_cb)(void *owner, bool left, const struct process_alarm *alarm,
				 bool pending);
int process_leave(struct process_room *p, const struct process_member *m,
		  const struct space_exec *exec, uint64_t empty, uint64_t argv, node_id to,
		  uint64_t incarnation, process_leave_cb done, void *owner);
/* Its program waits where it went, committed: done once when it has those signals, will not, or
 * does not take them for long.  Until then cancel, by owner. */
int process_leave_drain(struct process_room *p, pid_t pid, void (*done)(void *owner), void *owner);
void process_leave_drain_cancel(struct process_room *p, void *owner);
/* A predecessor's.  Has it become its shadow?  If not, it is as if it had not been tried. */
bool process_leave_resume(struct process_room *p, pid_t pid, uint32_t generation);
/* It left, and has not begun where it went: it was killed there. */
void process_leave_lost(struct process_room *p, pid_t pid, uint32_t generation);

/*
 * In: shadows of its parent and of the leaders of its session and group stand here, the
 * kernel's relatives of @m, which execs @argv0 with @fds as 3, 4, ...  Those that are
 * new have its capabilities, so as a rule it is born with them.  @terminal, if not NULL: what the
 * leader of the session makes its terminal, and the socket that says which group is in the
 * foreground.  It is a guest that is
 * coming until commit(), or abort(), by which it is killed.  PROCESS_E_TAKEN: one of these
 * PIDs is in use here.
 */
int process_come_exec(struct process_room *p, const struct process_member *m,
		      const struct process_member *parent, const int terminal[2],
		      const char *argv0, const int *fds, size_t n_fds);
/*
 * What a guest has written to a terminal comes there before its end or stop is told: @drain says
 * whether process_output_drained() of @pid will come; it is not waited for long.
 */
typedef bool (*process_drain_cb)(void *owner, pid_t session, pid_t pid);
void process_on_output(struct process_room *p, process_drain_cb drain, void *owner);
void process_output_drained(struct process_room *p, pid_t pid);
void process_come_commit(struct process_room *p, pid_t pid);
void process_come_abort(struct process_room *p, pid_t pid);

/*
 * The way in, before a restore: PIDs of members must be free, or held by shadows
 * of ours which give way.  On arrival_end(ok = false) shadows stand again.
 * *ret_in_place: the root's shadow stands here and must itself become the root:
 * exec criu in it through process_arrive_exec().
 */
struct process_arrival;
/* Would it be in place, if it came now? */
bool process_arrive_in_place(struct process_room *p, pid_t root);
int process_arrive_begin(struct process_room *p, const struct process_member *members,
			 size_t n_members, bool *ret_in_place, struct process_arrival **ret);
/* In place only: the root's shadow execs `criu --no-default-config swrk 3` with @fds as 3, 4, ... */
int process_arrive_exec(struct process_arrival *a, const char *criu, const int *fds, size_t n_fds);
/* In place only, when it stands restored and frozen in @group but shall not stay: it becomes
 * the shadow that it was.  Then process_depart_work(), process_depart_end() and
 * process_arrive_end(false). */
int process_arrive_back(struct process_arrival *a, struct space_group *group,
			struct process_departure **ret);
void process_arrive_end(struct process_arrival *a, bool ok);
/* A predecessor's arrival that did not end, or departure of which nothing is left: @members, of
 * which there may be none, stand frozen in @group.  Those whose shadows gave way become shadows
 * again, the rest is killed.  Blocks. */
void process_arrive_left(struct process_room *p, pid_t root,
			 const struct process_member *members, size_t n_members,
			 struct space_group *group);
/* A predecessor's arrival that ended well, but of which there may be no records yet. */
int process_arrive_adopt(struct process_room *p, const struct process_member *members,
			 size_t n_members);

/* A restarted tree: a shadow at the home of each PID, made anew; refused with RPC_CONFLICT when
 * one is in use.  done once. */
typedef void (*process_reserve_cb)(void *owner, enum rpc_status status, const char *text);
int process_reserve(struct process_room *p, const struct process_member *members, size_t n_members,
		    node_id place, process_reserve_cb done, void *owner);
/* Undo it. */
int process_release(struct process_room *p, const struct process_member *members, size_t n_members);
