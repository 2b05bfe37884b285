#pragma once
/* What the files of this room share. */
#include "process.h"
#include "process_kernel.h"
#include "process_proc.h"
#include "process_table.h"
#include "process_wire.h"
#include "shadow_protocol.h"

#include <sys/queue.h>
#include <uthash.h>

struct shadow;
struct delivery;
struct inject;
struct group_delivery;
struct group_heard;

/* A node's own wish to know how an application ends; asks its home again and again. */
/* process_find.c: all nodes are asked at once; zero it. */
struct find;
struct find_call;
typedef int (*find_ask_cb)(struct rpc *rpc, struct wire_call *c, node_id node, pid_t pid);
/* RPC_OK with the answer of the node that has it, or RPC_NOT_FOUND. */
typedef void (*find_done_cb)(struct find *f, enum rpc_status status, const char *text,
			     const struct wire_answer *answer);

struct find {
	struct find_call *calls;
	size_t n, n_pending;
	pid_t pid;
	find_done_cb done;
};

/* wire_where() or wire_wait().  0: done comes once, later; < 0: never. */
int find_start(struct process_room *p, struct find *f, find_ask_cb ask, pid_t pid,
	       find_done_cb done);
void find_cancel(struct find *f);

struct wait_ask {
	struct process_room *room;
	struct wire_call call;
	struct find find; /* instead, while the home is out */
	unsigned n_absent; /* times that nobody had it */
	struct env_timer again;
	pid_t app;
	process_wait_cb done;
	void *owner;
	TAILQ_ENTRY(wait_ask) entry;
};

/* A call from such a node, at the home. */
struct wait_call {
	struct rpc_call *call;
	pid_t app;
	nsec_t until;
	TAILQ_ENTRY(wait_call) entry;
};

/* News of a guest for its home, repeated until taken. */
struct change {
	struct process_room *room;
	struct wire_call call;
	struct env_timer again;
	struct wire_change news;
	bool drains; /* what it wrote goes first; asked for once */
	node_id home;
	TAILQ_ENTRY(change) entry;
};

/* A guest, or one that came home, which is no child of ssi-init: its pidfd tells that it
 * ended. */
struct guest {
	struct process_room *room;
	struct env_fd watch;
	pid_t pid;
	UT_hash_handle hh;
};

struct hold {
	pid_t root;
	node_id to; /* that may have a copy which runs, or NODE_NONE */
	TAILQ_HEAD(, delivery) waiting;
	TAILQ_ENTRY(hold) entry;
};

TAILQ_HEAD(wait_asks, wait_ask);
TAILQ_HEAD(wait_calls, wait_call);
TAILQ_HEAD(changes, change);
TAILQ_HEAD(deliveries, delivery);
TAILQ_HEAD(holds, hold);
TAILQ_HEAD(signal_asks, signal_ask);
TAILQ_HEAD(where_asks, where_ask);
TAILQ_HEAD(reserve_asks, reserve_ask);
TAILQ_HEAD(placed_list, placed);

struct process_room {
	const struct env *env;
	struct space *space;
	struct rpc *rpc;
	struct membership *membership;
	const struct event_sink *events; /* or NULL */
	char spawn_path[256], shadow_path[256];
	struct process_table *table;
	struct env_timer sweep;
	struct wait_asks wait_asks;
	struct wait_calls wait_calls;
	struct changes changes;
	struct placed_list placed;
	struct holds holds;
	struct deliveries
		deliveries; /* by injection, one at a time: the first is under way */
	struct signal_asks signal_asks;
	struct where_asks where_asks;
	struct reserve_asks reserve_asks;
	LIST_HEAD(, process_arrival) arrivals; /* under way */
	struct shadow *shadows;
	struct guest *guests;
	int shadow_listen_fd;
	uint64_t shadow_cookie; /* marks the SIGCONT that we send shadows ourselves */
	struct stat shadow_program;
	struct place *places;
	LIST_HEAD(, seek) seeks;
	bool seeking;		   /* what is lost with its place */
	struct env_timer look_lost; /* again, when some of it was found */
	bool viewed; /* with a lease of this ssid: the view that it knew before may be too old */
	uint64_t *since; /* mapped, kept: the incarnation in which the space began, 0: not
			  * known yet */
	struct reserved *reserved; /* mapped, kept */
	bool reserved_abandoned;   /* some of it was a predecessor's */
	bool tracing;
	struct claim *claim; /* under way, or NULL */
	LIST_HEAD(, process_leaving) leavings;
	LIST_HEAD(, process_draining) drainings;
	struct env_timer kin_timer;
	LIST_HEAD(, kin_ask) kin_asks;
	LIST_HEAD(, named) named;
	struct env_timer sentinel_timer;
	LIST_HEAD(, sentinel) sentinels;
	LIST_HEAD(, sentinel_birth) sentinel_births;
	struct group_heard *heard; /* mapped, kept */
	process_drain_cb drain;
	void *drain_owner;
};

static inline node_id room_self(const struct process_room *p)
{
	return rpc_self(p->rpc);
}

/* process.c */
int room_put(struct process_room *p,
	     const struct process_entry *e); /* makes room if it must */
void room_ended(struct process_room *p, pid_t pid, int code, int status);
bool room_below(struct process_room *p, pid_t pid, pid_t ancestor);
pid_t room_app(struct process_room *p, const struct proc_stat *s);
bool room_is_shadow(struct process_room *p, pid_t pid);
/* Nobody has this PID here, nor a record that means somebody. */
bool room_is_free(struct process_room *p, pid_t pid);
/* A process of an application that really runs here?  PROCESS_E_ABSENT. */
int room_real(struct process_room *p, pid_t pid, struct proc_stat *ret);
bool room_up(const struct process_room *p, node_id node);
/* Guests have a record: a copy that has none here, or one that is coming, is not committed. */
bool room_is_half_made(const struct process_room *p, pid_t pid);
/* A member, and out: only the place of @pid can tell of it. */
bool room_home_is_out(const struct process_room *p, pid_t pid);
/* It may run elsewhere already, and our original has not become its shadow yet: what its home
 * is told of it must wait until that is decided. */
bool room_is_leaving(struct process_room *p, pid_t pid);
/* What is ours is not known, or does not run: @call is told to ask again. */
bool room_was_fenced(const struct process_room *p, struct rpc_call *call);
void room_on_where(struct process_room *p, struct rpc_call *call, pid_t pid);
void room_on_placed(struct process_room *p, struct rpc_call *call,
		    const struct process_record *d, uint64_t incarnation);

/* process_place.c: nodes that processes of ours run on. */
int place_start(struct process_room *p, bool table_is_fresh);
uint64_t place_incarnation(const struct process_room *p, node_id node); /* by the view */
/* @is_known: the view's incarnation of this node is that of this ssid. */
void place_note(struct process_room *p, bool is_known);
void place_on_view(struct process_room *p);
/* The record of @pid is not moving any more: its place may have ended meanwhile. */
void place_settled(struct process_room *p, pid_t pid);
void place_on_call(struct process_room *p, struct rpc_call *call);
void place_fini(struct process_room *p);

/* process_arrive.c */
/* Of those of a predecessor's arrival or departure that are gone at least the PID is held. */
/* A new shadow of @d, whose own is gone or never came, so that the PID is held. */
void arrive_hold(struct process_room *p, const struct process_record *d);
void arrive_hold_left(struct process_room *p, pid_t root);

/* process_seek.c */
void seek_on_call(struct process_room *p, struct rpc_call *call, struct wire_claim *sought,
		  size_t n);
void seek_fini(struct process_room *p);

/* process_wait.c */
/* The application's first process leaves this node, which is not its home. */
void wait_moved(struct process_room *p, pid_t app);
void wait_on_call(struct process_room *p, struct rpc_call *call, pid_t app);
bool wait_settle(struct process_room *p, const struct process_record *d);
void wait_sweep(struct process_room *p);
void wait_on_view(struct process_room *p);
void wait_fini(struct process_room *p);

/* process_change.c: guests and their homes. */
void change_tell(struct process_room *p, const struct process_record *d,
		 enum wire_change_what what, int code, int status);
void change_on_call(struct process_room *p, struct rpc_call *call, node_id peer,
		    const struct wire_change *news);
int guest_watch(struct process_room *p, pid_t pid);
void guest_forget(struct process_room *p, pid_t pid);
void change_say_placed(struct process_room *p, const struct process_record *r);
void change_on_view(struct process_room *p);
void change_fini(struct process_room *p);

/* process_signal.c */
void signal_on_call(struct process_room *p, struct rpc_call *call,
		    const struct wire_signal *s);
/* Send on what a shadow had taken, wherever its process is now; nobody is answered. */
void signal_forward(struct process_room *p, const struct wire_signal *s);
bool signal_held(struct process_room *p, pid_t pid);
node_id signal_held_for(struct process_room *p, pid_t pid);
void signal_fini(struct process_room *p);
/* May root say who sent it, without the process's help? */
bool signal_is_plain(const struct wire_signal *s);
/* Now, and through the open door; -errno. */
int signal_send_plain(const struct wire_signal *s);
int signal_inject(struct inject *i, const struct wire_signal *s);
/* On a worker, when the door is free; then group_done(). */
void signal_deliver_group(struct process_room *p, struct rpc_call *call,
			  struct group_delivery *owned_group);
/* It is on its way already: @call is answered instead of the earlier one. */
bool signal_is_repeated(struct process_room *p, struct rpc_call *call, const struct wire_group *g);

/* process_group.c: what was sent to a group on another node. */
int group_start(struct process_room *p);
void group_on_call(struct process_room *p, struct rpc_call *call, const struct wire_group *g);
void group_work(struct group_delivery *d); /* on a worker */
void group_done(struct process_room *p, const struct group_delivery *d, struct rpc_call *call);
bool group_is(const struct group_delivery *d, const struct wire_group *g);
bool group_is_below(struct process_room *p, const struct group_delivery *d, pid_t root);
struct group_delivery *group_free(struct group_delivery *d);
/* The si_code that was sent, of one that a shadow tells. */
int group_code(int code);
void group_fini(struct process_room *p);

/* process_sentinel.c: what was sent to a group here. */
/* In the group of the shadow of @like, unless there is one: sentinel_is_awaited() until it
 * stands. */
void sentinel_stand(struct process_room *p, const struct process_member *like);
bool sentinel_is_awaited(struct process_room *p, pid_t group);
/* It was sent this; then shadow_handed_on(). */
void sentinel_send(struct process_room *p, pid_t pid, const struct wire_signal *s);
/* A predecessor's, which stands; or was killed, and who knows that may not have been told. */
void sentinel_take_over(struct process_room *p, pid_t pid);
void sentinel_was_killed(struct process_room *p, pid_t pid);
void sentinel_look(struct process_room *p); /* soon: who need not be any more? */
void sentinel_on_timer(struct env_timer *t);
void sentinel_fini(struct process_room *p);

/* process_shadow.c: our ends of shadows. */
int shadow_start(struct process_room *p); /* listen, take back what is kept */
void shadow_stop(struct process_room *p);
/* A socket for a shadow-to-be of @pid: our end is kept; *ret_fd is the caller's. */
int shadow_connect(struct process_room *p, pid_t pid, int *ret_fd);
bool shadow_stands(struct process_room *p, pid_t pid);
/* It runs its own program by now, which stopped this, and has told what was pending. */
bool shadow_has_settled(struct process_room *p, pid_t pid, struct process_alarm *ret);
/* It has done what it was dressed with: uid, session and group. */
bool shadow_has_become(struct process_room *p, pid_t pid);
/* Has it signals that its process does not have yet? */
bool shadow_waits(struct process_room *p, pid_t pid);
void shadow_command(struct process_room *p, pid_t pid, const struct shadow_command *c);
int shadow_send(struct process_room *p, pid_t pid, const struct shadow_command *c,
		const int *fds, size_t n_fds);
void shadow_name(struct process_room *p, pid_t pid, const char *name);
void shadow_end(struct process_room *p, pid_t pid, int code, int status);
void shadow_change(struct process_room *p, pid_t pid, enum wire_change_what what,
		   int signal);
void shadow_on_stop(struct process_room *p, pid_t pid, int signal);
/* The shadow is no more (or will not be): our end goes. */
void shadow_drop(struct process_room *p, pid_t pid);
/* Before it gives way: what it took from the kernel and nobody got yet. */
typedef void (*shadow_left_cb)(void *owner, const struct wire_signal *signal);
void shadow_fold(struct process_room *p, pid_t pid, shadow_left_cb left, void *owner);
void shadow_wake(struct process_room *p, pid_t pid); /* if it is stopped */
void shadow_kick(struct process_room *p,
		 pid_t pid); /* its process is somewhere else now */
/* It was killed here: so must the real one be. */
void shadow_killed(struct process_room *p, pid_t pid);
/* A new one, child of ssi-init.  PROCESS_E_TAKEN. */
int shadow_spawn(struct process_room *p, const struct process_member *m,
		 int group_fd, unsigned space_flags);

/* As a child of the shadow of @m->ppid; how that went is told later, if badly.  @flags:
 * SHADOW_KEEP, when it will be a process. */
int shadow_fork(struct process_room *p, const struct process_member *m, uint32_t flags);
/* It is about to end.  False: not as it was told, so it is held there. */
bool shadow_may_exit(struct process_room *p, pid_t pid);
void shadow_trace_all(struct process_room *p);
/* A sentinel stands, and our end of it is @owned_fd. */
int shadow_adopt(struct process_room *p, pid_t pid, int owned_fd);
/* What sentinel_send() was given is where it belongs. */
void shadow_handed_on(struct process_room *p, pid_t pid);

/* process_trace.c */
void trace_seize(struct process_room *p, pid_t pid);
void trace_release(struct process_room *p,
		   pid_t pid);			  /* it runs on as if never seized */
void trace_go(struct process_room *p, pid_t pid); /* what is held at its exit */

/* process_leave.c */
/* The shadow of @pid stands, and has told what was pending. */
void leave_on_settled(struct process_room *p, pid_t pid);
/* The sentinel of that group stands, or will not. */
void leave_on_sentinel(struct process_room *p, pid_t group);
/* shadow_waits() no more. */
void leave_on_drained(struct process_room *p, pid_t pid);
void leave_fini(struct process_room *p);

/* process_kin.c */
/* The shadow of @parent says so of @pid. */
void kin_on_child(struct process_room *p, pid_t parent, pid_t pid, int code, int status);
/* How it ended is known: its parent's shadow may forget it, if it has one. */
void kin_bury(struct process_room *p, pid_t pid);
/* A shadow of kin has ended, not by our word; @stood: it had come to stand. */
void kin_hung_up(struct process_room *p, pid_t pid, bool stood);
/* A shadow of a process elsewhere, for a moment; or, if it @lasts, as long as its process.  COMES:
 * named_on_stand() follows. */
enum kin_stands { KIN_IS_NONE, KIN_STANDS, KIN_COMES };
enum kin_stands kin_stand_alone(struct process_room *p, pid_t pid, uid_t uid, bool lasts);
/* Whom it stands for has ended.  False: no kin has that PID. */
bool kin_end(struct process_room *p, pid_t pid);
void kin_on_timer(struct env_timer *t);
void kin_fini(struct process_room *p);

/* process_named.c */
/* The shadow of @pid has the rights of its process. */
void named_on_stand(struct process_room *p, pid_t pid);
void named_fini(struct process_room *p);

/* process_claim.c */
/* @claims, which it may change: what may not go on at the caller is answered. */
void claim_on_call(struct process_room *p, struct rpc_call *call, struct wire_claim *claims,
		   size_t n);
void claim_fini(struct process_room *p);

/* process_reserve.c */
/* A shadow of @m, whose process is on @place.  PROCESS_E_TAKEN. */
int reserve_one(struct process_room *p, const struct process_member *m, node_id place);
int reserve_start(struct process_room *p);
void reserve_on_view(struct process_room *p);
/* It stands. */
void reserve_forget(struct process_room *p, pid_t pid, uint32_t generation);
void reserve_on_call(struct process_room *p, struct rpc_call *call,
		     const struct process_member *members, size_t n, node_id place);
void release_on_call(struct process_room *p, struct rpc_call *call,
		     const struct process_member *members, size_t n, node_id place);
void reserve_fini(struct process_room *p);
