#pragma once
/*
 * Saving a running tree to a directory, and reviving it.
 *
 * Knows: env, space, rpc, membership, process, stream, criu, inventory,
 * manifest.  Tells: the asker.
 *
 * Save: freeze, inventory, dump into a private store, thaw or kill, checksum and
 * seal, then copy to the caller's directory under the caller's rights
 * (ssi-copy).  Restart: copy in under the caller's rights, verify the *copy*,
 * reserve the PIDs at their homes, restore frozen, compare with the inventory,
 * run.  A failure leaves what it found: a running tree, no half directory, no half tree.
 */
#include "console.h"
#include "criu.h"
#include "env.h"
#include "membership.h"
#include "process.h"
#include "rpc.h"
#include "space.h"
#include "stream.h"

struct event_sink;
struct checkpoint_room;

struct checkpoint_config {
	const char *directory;    /* default place: /shared/checkpoints */
	const uint8_t *seal_key;  /* 32 bytes, the cluster's */
	uint64_t image_max_bytes;
	int private_dir_fd;
	const char *libexec_dir; /* ssi-copy */
};

struct checkpoint_neighbours {
	const struct env *env;
	struct space *space;
	struct rpc *rpc;
	struct membership *membership;
	struct process_room *process;
	struct stream_room *stream;
	struct console *console;
	struct criu *criu;
	const struct event_sink *events; /* where what comes of it is told; may be NULL */
};

int checkpoint_room_new(struct checkpoint_room **ret, const struct checkpoint_neighbours *n,
			const struct checkpoint_config *config);
struct checkpoint_room *checkpoint_room_free(struct checkpoint_room *c);

typedef void (*checkpoint_progress_cb)(void *owner, const char *step, uint64_t bytes,
				       uint64_t total);

struct checkpoint_save {
	pid_t pid;
	struct process_caller caller;
	bool kill;
	const char *directory; /* "" : the default */
	const char *description;
	nsec_t timeout;
};
struct checkpoint_saved {
	enum rpc_status status;
	const char *text;
	const char *name;      /* "65537-1": application and number */
	const char *directory;
	uint64_t bytes;
	nsec_t frozen;
};
typedef void (*checkpoint_saved_cb)(void *owner, const struct checkpoint_saved *result);
/* Wherever the process is.  done once. */
int checkpoint_save(struct checkpoint_room *c, const struct checkpoint_save *request,
		    checkpoint_progress_cb progress, checkpoint_saved_cb done, void *owner);

struct checkpoint_restart {
	const char *name;      /* "65537-1", or an application's id: its newest */
	const char *directory;
	node_id target;
	struct process_caller caller;
	/* Pipe ends for 0, 1, 2 as in process_launch, -1: /dev/null. */
	int stdio[3];
	nsec_t timeout;
};
typedef void (*checkpoint_restarted_cb)(void *owner, enum rpc_status status, const char *text,
					pid_t app, node_id node);
int checkpoint_restart(struct checkpoint_room *c, const struct checkpoint_restart *request,
		       checkpoint_progress_cb progress, checkpoint_restarted_cb done, void *owner);

enum checkpoint_what { CHECKPOINT_LIST, CHECKPOINT_INSPECT, CHECKPOINT_REMOVE };
struct checkpoint_entry {
	const struct manifest *manifest; /* NULL: see problem */
	const char *name, *problem, *text;
};
typedef void (*checkpoint_listed_cb)(void *owner, enum rpc_status status, const char *text,
				     const struct checkpoint_entry *entries, size_t n_entries);
int checkpoint_browse(struct checkpoint_room *c, enum checkpoint_what what, const char *name,
		      const char *directory, const struct process_caller *caller,
		      checkpoint_listed_cb done, void *owner);

/* The asker is gone: its callbacks never come. */
void checkpoint_forget(struct checkpoint_room *c, void *owner);
