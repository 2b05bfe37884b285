/*
 * Rooms are built in the order of their layers; each is given its neighbours.
 * Down is a call, up is a callback: the callbacks that cross rooms are the few
 * functions here.
 *
 * There is no tearing down.  ssid is built to be killed at any moment: what must outlive
 * it is kept by ssi-init, and to stop is to say good-bye and exit.
 */
#include "node.h"

#include "balance.h"
#include "checkpoint.h"
#include "cleanup.h"
#include "console.h"
#include "control.h"
#include "criu.h"
#include "err.h"
#include "events.h"
#include "fence.h"
#include "fence_command.h"
#include "hotplug.h"
#include "load.h"
#include "log.h"
#include "membership.h"
#include "migration.h"
#include "placement.h"
#include "process.h"
#include "rpc.h"
#include "space.h"
#include "store_lmdb.h"
#include "stream.h"
#include "tty.h"
#include "transport_tcp.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <systemd/sd-daemon.h>

struct node {
	const struct config *config;
	struct founding_identity identity;
	const struct env *env;
	struct env_event *event;
	struct store_lmdb *store;
	struct rpc *rpc;
	struct transport_tcp *transport;
	struct membership *membership;
	struct events *events;
	struct space *space;
	struct process_room *process;
	struct stream_room *stream;
	struct tty_room *tty;
	struct console *console;
	struct criu *criu;
	struct checkpoint_room *checkpoint;
	struct placement *placement;
	struct balance *balance;
	struct migration_room *migration;
	struct hotplug *hotplug;
	struct control *control;
	struct fence fence;
	struct fence_command *fence_command;
	char *ca_pem, *ca_key_pem;
	char path[6][256]; /* ca, certificate, key, store, socket, view */
	int private_dir_fd;
	bool ready;
	bool first_token_asked; /* to be taken over */
	bool stopping;
};

/* Membership. */

static void on_first_token(void *owner, int result)
{
	struct node *n = owner;

	n->first_token_asked = false;
	if (result == 0)
		founding_first_token_taken(n->config->state_dir);
}

/* The token that ssi-admin init gave out, before there was a store. */
static void take_first_token(struct node *n)
{
	uint8_t hash[32];
	nsec_t expires;
	int r;

	if (n->first_token_asked)
		return;
	r = founding_first_token(n->config->state_dir, hash, &expires);
	if (r == 0)
		n->first_token_asked = membership_add_token(n->membership, hash, expires,
							    on_first_token, n) == 0;
	else if (r < 0)
		log_warning("the first token cannot be read: %s; ssi-admin token makes another",
			    strerror(-r));
}

static void on_view(void *owner, const struct membership_view *view)
{
	struct node *n = owner;

	log_info("view %llu: %zu nodes", (unsigned long long)view->epoch, view->n_nodes);
	if (view->leader == n->identity.self)
		take_first_token(n);
	if (!n->control)
		return;
	hotplug_on_view(n->hotplug);
	if (n->identity.witness)
		return;
	events_on_view(n->events, view);
	for (size_t i = 0; i < view->n_nodes; i++)
		if (view->nodes[i].state == MEMBER_LOST)
			stream_on_node_lost(n->stream, view->nodes[i].id);
	process_on_view(n->process);
	placement_on_view(n->placement);
	migration_on_view(n->migration);
	fence_command_on_view(n->fence_command, view);
}

static void on_lease(void *owner, bool held)
{
	struct node *n = owner;

	if (n->events)
		events_on_lease(n->events, held);
	if (held && !n->ready) {
		n->ready = true;
		(void)sd_notifyf(0, "READY=1\nSTATUS=node %s of cluster %s", n->identity.name,
				 n->identity.cluster);
	}
	if (held)
		log_notice("in touch with the cluster as node %s", n->identity.name);
	else
		log_warning("out of touch with the cluster, applications are frozen, trying again");
	if (!held && !n->identity.witness)
		fence_on_lease_end(&n->fence);
}

static void on_renewed(void *owner, nsec_t until)
{
	struct node *n = owner;

	if (n->control && !n->identity.witness) /* all is built */
		fence_on_renewed(&n->fence, until);
}

static void on_thawed(void *owner)
{
	migration_on_view(((struct node *)owner)->migration);
}

static void on_pid_block(void *owner, pid_t first, uint32_t count)
{
	struct node *n = owner;

	if (n->space && space_pids_add(n->space, first, (pid_t)count) != 0)
		log_error("PIDs %d to %d cannot be given out", first, first + (pid_t)count - 1);
}

static void get_load(void *owner, struct membership_load *ret)
{
	const struct node *n = owner;

	load_read(ret);
	ret->store_error = (uint32_t)-store_lmdb_error(n->store);
}

static void on_pids_low(void *owner)
{
	struct node *n = owner;

	(void)membership_want_pids(n->membership);
}

static bool is_guest(void *owner, pid_t pid)
{
	struct node *n = owner;

	return process_is_guest(n->process, pid);
}

/* Joiners. */

static void on_joined(void *owner, const uint8_t *reply, size_t len)
{
	transport_tcp_join_reply(owner, reply, len);
}

static void on_join(void *owner, struct transport_tcp_join *join, const char *address,
		    const uint8_t *data, size_t len)
{
	struct node *n = owner;

	log_info("a node asks to join from %s", address);
	membership_on_join(n->membership, data, len, on_joined, join);
}

/* The space. */

static void on_exit_of(void *owner, const struct space_exit *exit)
{
	struct node *n = owner;

	if (fence_command_on_exit(n->fence_command, exit))
		return;
	/* In this order: what process_on_exit() has told is not told again. */
	stream_on_exit(n->stream, exit->pid);
	process_on_exit(n->process, exit);
}

static void on_stop_of(void *owner, pid_t pid, int signal)
{
	process_on_stop(((struct node *)owner)->process, pid, signal);
}

static void on_exec_of(void *owner, const struct space_exec *exec)
{
	struct node *n = owner;

	if (process_call_names(exec->nr))
		process_on_call(n->process, exec);
	else
		placement_on_exec(n->placement, exec);
}

static void on_sigchld(void *owner)
{
	process_on_sigchld(((struct node *)owner)->process);
}

/* The cluster was shut down: what is left in the space ends as this process does. */
static void on_halt(void *owner)
{
	struct node *n = owner;

	log_notice("the cluster is shut down");
	(void)sd_notify(0, "STOPPING=1\nSTATUS=the cluster is shut down");
	if (n->space)
		(void)space_kill(n->space);
	exit(0);
}

static void on_space_lost(void *owner)
{
	log_error("the space has ended and every process in it: starting anew");
	_exit(1);
}

/* Building. */

static char *read_text(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	char text[16384];
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text));

	return n < 0 ? NULL : strndup(text, (size_t)n);
}

static int build_network(struct node *n)
{
	struct transport_tcp_config config = {
		.listen_address = n->identity.address,
		.ca_file = n->path[0],
		.cert_file = n->path[1],
		.key_file = n->path[2],
		.self = n->identity.self,
	};
	int r;

	r = store_lmdb_new(&n->store, n->env, n->path[3]);
	if (r == 0)
		r = rpc_new(&n->rpc, n->env, n->identity.self);
	if (r == 0)
		r = transport_tcp_new(&n->transport, n->env, env_event_base(n->event), &config,
				      rpc_events(), n->rpc, on_join, n);
	if (r == 0)
		rpc_set_transport(n->rpc, transport_tcp_transport(n->transport));
	if (r == -EKEYREJECTED)
		log_error("%s, its key or %s is not of node %s of this cluster: put its own back, "
			  "or remove %s and join anew",
			  n->path[1], n->path[0], n->identity.name, n->config->state_dir);
	else if (r < 0)
		log_error("cannot listen at %s: %s", n->identity.address, strerror(-r));
	return r;
}

static int build_membership(struct node *n)
{
	static const struct membership_events events = { on_view, on_lease, on_pid_block,
							  get_load, on_renewed };
	struct membership_config config = {
		.self = n->identity.self,
		.name = n->identity.name,
		.address = n->identity.address,
		.leader = n->identity.leader,
		.leader_address = n->identity.leader_address,
		.lease = n->config->lease_ms * NSEC_PER_MSEC,
		.pids_max = n->config->pids_max < MEMBERSHIP_PID_MAX ?
				    (uint32_t)n->config->pids_max : MEMBERSHIP_PID_MAX,
	};
	int r;

	if (n->identity.self == n->identity.leader) {
		char key[256];

		snprintf(key, sizeof(key), "%s/ca.key", n->config->state_dir);
		n->ca_pem = read_text(n->path[0]);
		n->ca_key_pem = read_text(key);
		config.ca_pem = n->ca_pem;
		config.ca_key_pem = n->ca_key_pem;
		config.seal_key = n->identity.seal_key;
	}
	r = membership_new(&n->membership, n->env, store_lmdb_store(n->store), n->rpc, &config,
			   &events, n);
	return r;
}

static int build_space(struct node *n, const struct space_config *config)
{
	static const struct space_events events = { on_exit_of, on_stop_of, on_space_lost,
						     on_exec_of };
	int r = space_new(&n->space, n->env, config, &events, n);

	if (r != 0)
		return err_fold(r);
	space_pids_on_low(n->space, on_pids_low, n);
	n->private_dir_fd = open(config->private_dir, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	return n->private_dir_fd < 0 ? err_origin(-errno) : 0;
}

static bool drain(void *owner, pid_t session, pid_t pid)
{
	struct node *n = owner;

	return tty_drain(n->tty, session, pid);
}

static void on_drained(void *owner, pid_t pid)
{
	struct node *n = owner;

	process_output_drained(n->process, pid);
}

static int build_processes(struct node *n)
{
	struct criu_config criu = { n->config->criu, n->config->libexec_dir, n->private_dir_fd };
	int r;

	r = events_new(&n->events, n->env, n->rpc, n->membership, n->space, n->path[5]);
	if (r == 0)
		r = process_room_new(&n->process, n->env, n->space, n->rpc, n->membership,
			     n->config->libexec_dir);
	if (r == 0) {
		process_set_events(n->process, events_sink(n->events));
		r = env_event_on_signal(n->event, SIGCHLD, on_sigchld, n);
	}
	if (r == 0)
		space_pids_on_stray(n->space, is_guest, n);
	if (r == 0)
		r = process_trace(n->process);
	if (r == 0)
		r = stream_room_new(&n->stream, n->env, n->space, n->rpc);
	if (r == 0)
		r = tty_room_new(&n->tty, n->env, n->space, n->stream, n->config->libexec_dir);
	if (r == 0) {
		tty_on_drained(n->tty, on_drained, n);
		process_on_output(n->process, drain, n);
		r = console_new(&n->console, n->space);
	}
	if (r == 0)
		r = criu_new(&n->criu, n->env, n->space, &criu);
	return err_fold(r);
}

static int build_hotplug(struct node *n)
{
	struct hotplug_neighbours hn = {
		.env = n->env, .rpc = n->rpc, .membership = n->membership,
		/* A witness has neither. */
		.process = n->process, .migration = n->migration, .on_halt = on_halt, .owner = n,
	};

	return hotplug_new(&n->hotplug, &hn);
}

static int build_balance(struct node *n)
{
	const struct balance_neighbours bn = {
		.env = n->env, .space = n->space, .membership = n->membership,
		.process = n->process, .placement = n->placement, .migration = n->migration,
	};

	return balance_new(&n->balance, &bn);
}

static int build_moves(struct node *n)
{
	struct migration_neighbours mn = {
		.env = n->env, .space = n->space, .rpc = n->rpc, .membership = n->membership,
		.process = n->process, .stream = n->stream, .console = n->console,
		.criu = n->criu, .events = events_sink(n->events),
		.private_dir_fd = n->private_dir_fd,
		.image_max_bytes = n->config->image_max_mb << 20,
	};
	struct checkpoint_neighbours cn = {
		.env = n->env, .space = n->space, .rpc = n->rpc, .membership = n->membership,
		.process = n->process, .stream = n->stream, .console = n->console,
		.criu = n->criu, .events = events_sink(n->events),
	};
	struct placement_neighbours pn = {
		.env = n->env, .space = n->space, .rpc = n->rpc, .membership = n->membership,
		.process = n->process, .stream = n->stream, .tty = n->tty,
		.libexec_dir = n->config->libexec_dir,
	};
	struct checkpoint_config cc = {
		.directory = n->config->checkpoint_dir,
		.seal_key = n->identity.seal_key,
		.image_max_bytes = n->config->image_max_mb << 20,
		.private_dir_fd = n->private_dir_fd,
		.libexec_dir = n->config->libexec_dir,
	};
	int r;

	r = checkpoint_room_new(&n->checkpoint, &cn, &cc);
	if (r == 0)
		r = placement_new(&n->placement, &pn);
	if (r == 0)
		r = migration_room_new(&n->migration, &mn);
	if (r == 0)
		r = build_balance(n);
	return err_fold(r);
}

/* Everything that a witness has not. */
static int build_programs(struct node *n)
{
	int r;

	r = build_processes(n);
	if (r == 0)
		r = build_moves(n);
	if (r == 0)
		r = fence_command_new(&n->fence_command, n->env, n->space, n->membership,
				      n->config->fence_command,
				      n->config->fence_timeout_s * NSEC_PER_SEC);
	n->fence = (struct fence){
		.env = n->env, .space = n->space, .process = n->process,
		.membership = n->membership, .self = n->identity.self,
		.on_thawed = on_thawed, .owner = n,
	};
	return r;
}

static int build_control(struct node *n)
{
	struct control_neighbours cn = {
		.env = n->env, .space = n->space, .rpc = n->rpc, .membership = n->membership,
		.events = n->events,
		.process = n->process, .stream = n->stream, .console = n->console,
		.checkpoint = n->checkpoint, .migration = n->migration,
		.hotplug = n->hotplug,
	};
	struct control_config cc = { .socket_path = n->path[4], .cluster = n->identity.cluster };

	return control_new(&n->control, &cn, &cc);
}

int node_new(struct node **ret, struct env_event *event, const struct config *config,
	     const struct founding_identity *identity)
{
	static const char *const names[] = { "ca.pem", "node.pem", "node.key", "store" };
	struct node *n = calloc(1, sizeof(*n));
	char private_dir[256];
	struct space_config space = {
		.runtime_dir = config->runtime_dir,
		.libexec_dir = config->libexec_dir,
		.private_dir = private_dir,
	};
	int r;

	if (!n)
		return err_origin(-ENOMEM);
	n->config = config;
	n->identity = *identity;
	n->event = event;
	n->env = env_event_env(event);
	for (size_t i = 0; i < N_ELEMENTS(names); i++)
		snprintf(n->path[i], sizeof(n->path[i]), "%s/%s", config->state_dir, names[i]);
	snprintf(n->path[4], sizeof(n->path[4]), "%s/ssid.sock", config->runtime_dir);
	snprintf(n->path[5], sizeof(n->path[5]), "%s/view", config->runtime_dir);
	snprintf(private_dir, sizeof(private_dir), "%s/private", config->runtime_dir);
	/* A witness has a vote, and nothing that could run a program. */
	r = n->identity.witness ? 0 : build_space(n, &space);
	if (r == 0)
		r = build_network(n);
	if (r == 0)
		r = build_membership(n);
	if (r == 0 && !n->identity.witness)
		r = build_programs(n);
	if (r == 0)
		r = build_hotplug(n);
	if (r == 0)
		r = build_control(n);
	if (r != 0) {
		log_error("this node cannot start: %s", strerror(-err_fold(r)));
		return err_fold(r);
	}
	*ret = n;
	return 0;
}

static void on_retired(void *owner)
{
	env_event_stop(((struct node *)owner)->event);
}

void node_stop(struct node *n)
{
	if (n->stopping)
		return;
	n->stopping = true;
	if (membership_retire(n->membership, on_retired, n) != 0)
		on_retired(n);
}
