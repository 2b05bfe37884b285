#pragma once
/*
 * The local socket of the tools.  Translates, decides nothing.
 *
 * Knows: rpc and the façade headers of the rooms.  Every request is bounded, and
 * carries the kernel's word on who asks (SO_PEERCRED, SO_PEERGROUPS); the rooms
 * judge what he may.  A tool that goes away cancels its callbacks, not what it
 * started.
 */
#include "checkpoint.h"
#include "console.h"
#include "env.h"
#include "events.h"
#include "hotplug.h"
#include "membership.h"
#include "migration.h"
#include "process.h"
#include "rpc.h"
#include "stream.h"

struct control;

struct control_neighbours {
	const struct env *env;
	struct space *space;
	struct rpc *rpc;
	struct membership *membership;
	struct events *events;
	struct process_room *process;
	struct stream_room *stream;
	struct console *console;
	struct checkpoint_room *checkpoint;
	struct migration_room *migration;
	struct hotplug *hotplug;
};

struct control_config {
	const char *socket_path; /* /run/ssi/ssid.sock, 0666: everybody may ask */
	const char *cluster;
};

int control_new(struct control **ret, const struct control_neighbours *n,
		const struct control_config *config);
struct control *control_free(struct control *c);
