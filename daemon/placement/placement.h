#pragma once
/*
 * Programs that begin on another node than where they are started.
 *
 * Knows: env, space, rpc, membership, process, stream, tty; of checkpoint which file is which.
 *
 * A process of a spread application waits in execve() until this room has decided
 * (space_exec).  What a new program inherits is little: arguments, environment,
 * directory, descriptors, rights, limits, signals.  So if another node has more room and
 * all of it can be had there, the program begins there, under the PID of the process, whose
 * home it leaves by exec of its shadow.  No CRIU, no image.
 *
 * What begins elsewhere is a *job*: with all that it starts it stays there.  Who names a
 * file in a place that is a node's own (/tmp, say) stays here, since others will look for
 * it, or have left it.  Of what stays here all that it starts is asked for again.
 *
 * Invariants: a program begins once or, if the call fails, not at all; until the moment when
 * the process becomes its shadow nothing of it has changed, and every failure lets it
 * start its program where it is.  Source of the idea: OpenSSI's rexec; Kerrighed's DISTANT_FORK.
 */
#include "env.h"
#include "membership.h"
#include "process.h"
#include "rpc.h"
#include "space.h"
#include "stream.h"
#include "tty.h"

struct placement;

struct placement_neighbours {
	const struct env *env;
	struct space *space;
	struct rpc *rpc;
	struct membership *membership;
	struct process_room *process;
	struct stream_room *stream;
	struct tty_room *tty;
	const char *libexec_dir; /* ssi-spawn, as the space sees it */
};

/* With what a predecessor left. */
int placement_new(struct placement **ret, const struct placement_neighbours *n);
struct placement *placement_free(struct placement *p);

/* The owner of space and membership passes these on. */
void placement_on_exec(struct placement *p, const struct space_exec *exec);
void placement_on_view(struct placement *p);

/* Where but on nodes @not is room for one that computes here beside @n_busy others?  NODE_NONE:
 * nowhere, or here. */
node_id placement_elsewhere(struct placement *p, uint32_t n_busy, const node_id *not, size_t n_not);
/* Has @pid started a program of its own, or is it of what came here, and so was decided about? */
bool placement_knows(struct placement *p, pid_t pid);
/* It has moved to @node, and stays there with all that it starts. */
void placement_note(struct placement *p, pid_t pid, node_id node);
