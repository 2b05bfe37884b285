#pragma once
/* What the files of this room share: the room, a connection, answering it. */
#include "buf.h"
#include "control.h"
#include "control.pb-c.h"

#include <sys/queue.h>

enum {
	CONTROL_MESSAGE_MAX = 4 << 20,
	CONTROL_CONNECTIONS_MAX = 4096,
	CONTROL_USER_MAX = 1024, /* of one user, but root */
	CONTROL_UNFINISHED_MAX = 64 << 20, /* bytes of one user's requests that are not whole yet */
	CONTROL_FDS_MAX = 3,
};

struct control {
	struct control_neighbours n;
	struct control_config config;
	struct env_fd listener;
	LIST_HEAD(, control_connection) connections;
	unsigned n_connections;
	nsec_t complained; /* of too many */
};

/* One tool.  Owner of the callbacks of whatever it asked for. */
struct control_connection {
	LIST_ENTRY(control_connection) entry;
	struct control *control;
	struct env_fd watch;
	struct process_caller caller;
	struct buf in, out;
	int fds[CONTROL_FDS_MAX]; /* came with the request, -1 when taken */
	size_t n_fds;
	bool busy;  /* a request is being served */
	bool ended; /* the final event is in `out` */
	bool failed; /* close as soon as the caller's frame is left */
	struct control_stream *stream; /* of events, or NULL */
	unsigned calls; /* callbacks that will still come: the connection outlives its tool */
};

/* An event on its way; a final one ends the request. */
void control_send(struct control_connection *c, const Ssi__Control__Event *event, bool final);
void control_fail(struct control_connection *c, enum rpc_status status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void control_progress(void *connection, const char *step, uint64_t bytes, uint64_t total);
/* Take descriptor @i of those that came; -1: there is none. */
int control_take_fd(struct control_connection *c, size_t i);

/* What this node lacks to act; false, and *ret is empty: nothing. */
enum { CONTROL_TROUBLE_MAX = 1024 };
bool control_trouble(const struct control *c, char ret[static CONTROL_TROUBLE_MAX]);
/* For so long the programs of this node have been frozen; 0: they run. */
nsec_t control_frozen_for(const struct control *c);
/* Nothing can be started here: *ret says why. */
bool control_may_not_start(const struct control *c, char ret[static CONTROL_TROUBLE_MAX]);

/* Tell that @app runs on @node, then, when it ends, how. */
void control_started(struct control_connection *c, pid_t app, node_id node);

/* A callback that cannot be cancelled: hold before, release inside it (which may free). */
void control_hold(struct control_connection *c);
/* False: the tool is gone, do not answer. */
bool control_release(struct control_connection *c);

/* Handlers, one a request. */
void control_on_run(struct control_connection *c, const Ssi__Control__RunRequest *q);
void control_on_wait(struct control_connection *c, const Ssi__Control__WaitRequest *q);
void control_on_signal(struct control_connection *c, const Ssi__Control__SignalRequest *q);
void control_on_resize(struct control_connection *c,
		       const Ssi__Control__ResizeRequest *q);
void control_on_processes(struct control_connection *c,
			  const Ssi__Control__ProcessesRequest *q);
void control_on_nodes(struct control_connection *c, const Ssi__Control__NodesRequest *q);
void control_on_status(struct control_connection *c, const Ssi__Control__StatusRequest *q);
void control_on_token(struct control_connection *c, const Ssi__Control__TokenRequest *q);
void control_on_fault(struct control_connection *c, const Ssi__Control__FaultRequest *q);
void control_on_change(struct control_connection *c, const Ssi__Control__ChangeRequest *q);
void control_on_migrate(struct control_connection *c, const Ssi__Control__MigrateRequest *q);
void control_on_checkpoint(struct control_connection *c,
			   const Ssi__Control__CheckpointRequest *q);
void control_on_restart(struct control_connection *c, const Ssi__Control__RestartRequest *q);
void control_on_checkpoints(struct control_connection *c,
			    const Ssi__Control__CheckpointsRequest *q);

void control_on_capabilities(struct control_connection *c,
			     const Ssi__Control__CapabilitiesRequest *q);
void control_on_events(struct control_connection *c, const Ssi__Control__EventsRequest *q);

/* control_events.c: the tool has read some; it is gone. */
void control_stream_pump(struct control_connection *c);
void control_stream_end(struct control_connection *c);

/* rpc: launching and listing for other nodes. */
extern const struct rpc_method control_methods[];
