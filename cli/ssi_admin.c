/* ssi-admin(8): found a cluster, admit nodes, look after it. */
#include "change.h"
#include "cleanup.h"
#include "env_event.h"
#include "fault.h"
#include "founding.h"
#include "log.h"
#include "membership.h"
#include "membership_map.h"
#include "session.h"
#include "store_lmdb.h"

#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const char help[] =
	"Usage: ssi-admin [OPTION]... COMMAND\n"
	"Found a cluster, admit nodes, look after it.\n"
	"\n"
	"Commands:\n"
	"  init                found a cluster with this node as its first; prints a token\n"
	"  token               print a one-time token with which one node may join\n"
	"  join TOKEN          make this node a member; then start its ssid\n"
	"  recover             (majority lost for ever) let this node decide alone\n"
	"  status              is this node's ssid up and in touch with the cluster?\n"
	"  nodes               the nodes, as ssi-nodes shows them\n"
	"  nodes add           add nodes that were removed; see ssi_add_nodes\n"
	"  nodes del           remove nodes; see ssi_remove_nodes\n"
	"  cluster status      the same as status\n"
	"  cluster shutdown    end every program and stop the ssid of every node\n"
	"  fault POINT ACTION  (for tests) kill, stop or fail this node's ssid at a point\n"
	"\n"
	"Options:\n"
	"      --node NAME     this node's name (init, join; default: the host's)\n"
	"      --address A     host:port where the others reach it (init, join; port 7777)\n"
	"      --lifetime S    seconds for which a token is good (init, token; 86400)\n"
	"      --state DIR     this node's state (/var/lib/ssi)\n"
	"      --wait S        wait for up to S seconds (status)\n"
	"  -n, --nodes LIST    which nodes: n2,n4-n7 or 3-5 (nodes add, nodes del)\n"
	"  -c, --count N       so many (nodes add, nodes del)\n"
	"  -t, --total N       as many as make N nodes that are up (nodes add, nodes del)\n"
	"  -a, --all           all; of this node nodes del takes no notice\n"
	"  -f, --force         end what cannot move, or runs (nodes del, cluster shutdown)\n"
	"      --dry-run       only say what would be ended\n"
	"      --witness       only vote: run no programs, hold no data (join)\n"
	"      --yes           do not ask (recover)\n";

static const struct option options[] = {
	{ "node", required_argument, NULL, 'N' },
	{ "address", required_argument, NULL, 'A' },
	{ "lifetime", required_argument, NULL, 'l' },
	{ "state", required_argument, NULL, 's' },
	{ "wait", required_argument, NULL, 'w' },
	{ "nodes", required_argument, NULL, 'n' },
	{ "count", required_argument, NULL, 'c' },
	{ "total", required_argument, NULL, 't' },
	{ "all", no_argument, NULL, 'a' },
	{ "force", no_argument, NULL, 'f' },
	{ "dry-run", no_argument, NULL, 'd' },
	{ "witness", no_argument, NULL, 'W' },
	{ "yes", no_argument, NULL, 'y' },
	{ 0 },
};

static struct {
	const char *node, *address, *state;
	char *list;
	uint64_t lifetime_s, wait_s;
	bool yes, witness;
} arguments = { .state = "/var/lib/ssi", .lifetime_s = 86400 };

static struct change change;

static void on_option(int val, const char *argument)
{
	switch (val) {
	case 'N':
		arguments.node = argument;
		break;
	case 'A':
		arguments.address = argument;
		break;
	case 'n':
		change.lists = &arguments.list;
		arguments.list = (char *)argument;
		change.n_lists = 1;
		break;
	case 'c':
		change.count = session_number(argument, 100000, "number of nodes");
		change.has_count = true;
		break;
	case 't':
		change.total = session_number(argument, 100000, "number of nodes");
		change.has_total = true;
		break;
	case 'a':
		change.all = true;
		break;
	case 'f':
		change.force = true;
		break;
	case 'd':
		change.dry_run = true;
		break;
	case 'l':
		arguments.lifetime_s = session_number(argument, 366 * 86400, "number of seconds");
		break;
	case 's':
		arguments.state = argument;
		break;
	case 'W':
		arguments.witness = true;
		break;
	case 'y':
		arguments.yes = true;
		break;
	case 'w':
		arguments.wait_s = session_number(argument, 86400, "number of seconds");
		break;
	}
}

/* The host's name up to its first dot, or the one given. */
static const char *node_name(void)
{
	static char name[NODE_NAME_MAX + 1];

	if (arguments.node)
		return arguments.node;
	if (gethostname(name, sizeof(name) - 1) < 0)
		session_exit(EXIT_FAILED, "this host has no name (%m): give --node");
	name[strcspn(name, ".")] = '\0';
	return name;
}

/* Of --node or the host, which may have capitals. */
static const char *valid_node_name(void)
{
	const char *name = node_name();

	if (!membership_name_is_valid(name))
		session_usage("%s: a name is 1 to %d of a-z, 0-9 and -: give --node", name,
			      NODE_NAME_MAX);
	return name;
}

/* Host and port of what was given: "n1", "n1:7777", "::1", "[::1]:7777". */
static void split_address(char *host, size_t size, const char **ret_port)
{
	const char *given = arguments.address, *colon = strrchr(given, ':');
	const bool bracket = given[0] == '[';
	size_t len = strlen(given);

	*ret_port = "7777";
	if (colon && (bracket ? colon[-1] == ']' : strchr(given, ':') == colon)) {
		*ret_port = colon + 1;
		len = (size_t)(colon - given);
	}
	if (bracket && len > 1 && given[len - 1] == ']') {
		given++;
		len -= 2;
	}
	if (!len || len >= size)
		session_usage("%s is not an address", arguments.address);
	memcpy(host, given, len);
	host[len] = '\0';
	if (!session_number(*ret_port, UINT16_MAX, "port"))
		session_usage("%s is not a port", *ret_port);
}

static bool is_loopback(const struct sockaddr *a)
{
	if (a->sa_family == AF_INET6)
		return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)a)->sin6_addr);
	return ntohl(((const struct sockaddr_in *)a)->sin_addr.s_addr) >> 24 == 127;
}

/* Numbers, of what was given: the cluster knows its nodes without asking anybody. */
static const char *node_address(void)
{
	static char address[NI_MAXHOST + 16];
	struct addrinfo numeric = { .ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM };
	struct addrinfo named = { .ai_socktype = SOCK_STREAM }, *found;
	char host[NI_MAXHOST], number[NI_MAXHOST];
	const char *port;
	int r;

	if (!arguments.address)
		session_usage("--address is needed: where the other nodes reach this one");
	split_address(host, sizeof(host), &port);
	r = getaddrinfo(host, port, &numeric, &found);
	if (r == EAI_NONAME) {
		r = getaddrinfo(host, port, &named, &found);
		/* As Debian has a host's own name in /etc/hosts. */
		if (r == 0 && is_loopback(found->ai_addr))
			session_usage("%s is this machine for itself only: give the address that "
				      "others reach it at", host);
	}
	if (r != 0)
		session_usage("%s: %s", host, gai_strerror(r));
	r = getnameinfo(found->ai_addr, found->ai_addrlen, number, sizeof(number), NULL, 0,
			NI_NUMERICHOST);
	if (r != 0)
		session_exit(EXIT_FAILED, "%s: %s", host, gai_strerror(r));
	snprintf(address, sizeof(address), strchr(number, ':') ? "[%s]:%s" : "%s:%s", number, port);
	freeaddrinfo(found);
	return address;
}

static void need_root(const char *what)
{
	if (geteuid() != 0)
		session_exit(EXIT_NOT_PERMITTED, "only root may %s", what);
}

static int init(const struct session_options *o)
{
	_cleanup_free_ char *token = NULL;
	int r;

	need_root("found a cluster");
	r = founding_init(arguments.state, valid_node_name(), node_address(),
			  arguments.lifetime_s * NSEC_PER_SEC, &token);
	if (r == FOUNDING_E_EXISTS)
		session_exit(EXIT_CONFLICT, "%s: this node belongs to a cluster already",
			     arguments.state);
	if (r != 0)
		session_exit(EXIT_FAILED, "%s: no cluster founded: %s", arguments.state,
			     strerror(r < 0 ? -r : EPROTO));
	if (o->json)
		printf("{\"version\":1,\"token\":\"%s\"}\n", token);
	else if (o->quiet)
		printf("%s\n", token);
	else
		printf("A cluster is founded, with %s as its first node.\n"
		       "Start it:             systemctl start ssid\n"
		       "On one other node:    ssi-admin join --address ADDRESS TOKEN\n"
		       "token: %s\n",
		       node_name(), token);
	return EXIT_OK;
}

static int join(const struct session_options *o, const char *token)
{
	_cleanup_free_ char *text = NULL;
	int r;

	need_root("join a cluster");
	r = founding_join(arguments.state, token, valid_node_name(), node_address(), arguments.witness,
			  o->timeout_ms ? o->timeout_ms * NSEC_PER_MSEC : 20 * NSEC_PER_SEC, &text);
	switch (r) {
	case 0:
		if (!o->quiet)
			printf("%s is a member now: systemctl start ssid\n", node_name());
		return EXIT_OK;
	case FOUNDING_E_EXISTS:
		session_exit(EXIT_CONFLICT, "%s: this node belongs to a cluster already",
			     arguments.state);
	case FOUNDING_E_TAKEN:
		session_exit(EXIT_CONFLICT, "%s", text);
	case FOUNDING_E_TOKEN:
		session_exit(EXIT_NOT_PERMITTED, "%s", text);
	case FOUNDING_E_NETWORK:
		session_exit(EXIT_DOWN, "%s", text);
	default:
		session_exit(EXIT_FAILED, "not joined: %s", text ? text : strerror(-r));
	}
}

static int token(const struct session_options *o)
{
	Ssi__Control__TokenRequest body = SSI__CONTROL__TOKEN_REQUEST__INIT;
	Ssi__Control__Request q = SSI__CONTROL__REQUEST__INIT;
	Ssi__Control__Event *event;

	body.lifetime_s = arguments.lifetime_s;
	q.body_case = SSI__CONTROL__REQUEST__BODY_TOKEN;
	q.token = &body;
	event = session_once(o, &q, SSI__CONTROL__EVENT__BODY_TOKEN);
	if (o->json)
		printf("{\"version\":1,\"token\":\"%s\"}\n", event->token->token);
	else
		printf("%s\n", event->token->token);
	ssi__control__event__free_unpacked(event, NULL);
	return EXIT_OK;
}

/* Wait until an ssid answers that is in touch with its cluster. */
static Ssi__Control__Event *await_status(const struct session_options *o)
{
	static const struct timespec pause = { .tv_nsec = 50000000 };
	Ssi__Control__StatusRequest body = SSI__CONTROL__STATUS_REQUEST__INIT;
	Ssi__Control__Request q = SSI__CONTROL__REQUEST__INIT;

	q.body_case = SSI__CONTROL__REQUEST__BODY_STATUS;
	q.status = &body;
	for (uint64_t ms = 0; ms < arguments.wait_s * 1000; ms += 50) {
		struct session *s = session_try(o);
		Ssi__Control__Event *event = NULL;

		if (s) {
			session_send(s, &q, NULL, 0);
			event = session_receive(s);
			session_close(s);
		}
		if (event && event->body_case == SSI__CONTROL__EVENT__BODY_STATUS &&
		    event->status->lease_held)
			return event;
		if (event)
			ssi__control__event__free_unpacked(event, NULL);
		nanosleep(&pause, NULL);
	}
	return session_once(o, &q, SSI__CONTROL__EVENT__BODY_STATUS);
}

static int status(const struct session_options *o)
{
	Ssi__Control__Event *event = await_status(o);
	const Ssi__Control__Status *s = event->status;
	int code = s->lease_held ? EXIT_OK : EXIT_DOWN;

	if (o->json)
		printf("{\"version\":1,\"cluster\":\"%s\",\"node\":\"%s\",\"ssid\":\"%s\","
		       "\"in_touch\":%s,\"fenced\":%s,\"nodes\":%u,\"nodes_up\":%u,\"epoch\":%llu}\n",
		       s->cluster, s->node, s->version, s->lease_held ? "true" : "false",
		       s->frozen_ns ? "true" : "false", s->nodes,
		       s->nodes_up, (unsigned long long)s->epoch);
	else if (!o->quiet)
		printf("node %s of cluster %s, ssid %s: %s, %u of %u nodes up (view %llu)\n", s->node,
		       s->cluster, s->version,
		       s->lease_held ? "in touch" : "has lost touch with the cluster", s->nodes_up,
		       s->nodes, (unsigned long long)s->epoch);
	if (s->trouble[0] && !o->quiet)
		session_error("%s", s->trouble);
	if (s->frozen_ns && !o->quiet)
		session_error("fenced: the programs on this node are frozen, for %llu s now",
			      (unsigned long long)(s->frozen_ns / NSEC_PER_SEC));
	ssi__control__event__free_unpacked(event, NULL);
	return code;
}

static const char danger[] =
	"This makes %s the only voter of the cluster, with what its own store holds.\n"
	"Do it only when a majority of the voters is lost for ever:\n"
	"  - what was decided on the lost ones alone is gone: members that joined and PIDs that\n"
	"    were given out last may be unknown;\n"
	"  - if a lost voter runs again, there are two clusters, which both may start what the\n"
	"    other one runs: wipe its /var/lib/ssi before, and let it join anew;\n"
	"  - do it on one node only, the one with the highest view (ssi-admin\n"
	"    status).\n"
	"Then start its ssid; the nodes that are left find it by themselves.\n";

static void confirm(const struct founding_identity *identity)
{
	char line[64];

	if (arguments.yes)
		return;
	if (!isatty(STDIN_FILENO))
		session_exit(EXIT_USAGE, "this is dangerous: read ssi-admin(8), recover, then give --yes");
	fprintf(stderr, danger, identity->name);
	fprintf(stderr, "Type the name of this node to go on: ");
	if (!fgets(line, sizeof(line), stdin))
		line[0] = '\0';
	line[strcspn(line, "\n")] = '\0';
	if (strcmp(line, identity->name) != 0)
		session_exit(EXIT_FAILED, "nothing was changed");
}

static int recover_in(const struct founding_identity *identity)
{
	char path[256];
	struct env_event *event;
	struct store_lmdb *store;
	int r;

	(void)snprintf(path, sizeof(path), "%s/store", arguments.state);
	r = env_event_new(&event);
	if (r == 0)
		r = store_lmdb_new(&store, env_event_env(event), path);
	if (r < 0)
		return r;
	r = membership_recover(store_lmdb_store(store), identity->self, identity->address);
	(void)env_event_free(event);
	(void)store_lmdb_free(store);
	return r;
}

static int recover(const struct session_options *o)
{
	struct founding_identity identity;
	int r;

	need_root("recover a cluster");
	r = founding_load(arguments.state, &identity);
	if (r != 0)
		session_exit(EXIT_FAILED, "%s: this node belongs to no cluster", arguments.state);
	if (session_try(o))
		session_exit(EXIT_CONFLICT, "ssid runs on this node: systemctl stop ssid, then again");
	confirm(&identity);
	r = recover_in(&identity);
	if (r == MEMBERSHIP_E_ABSENT)
		session_exit(EXIT_NOT_FOUND, "%s is no voter and knows nothing, or not the last, of what was "
					     "decided: do it on a voter, see ssi-nodes",
			     identity.name);
	if (r < 0)
		session_exit(EXIT_FAILED, "%s/store: %s", arguments.state, strerror(-r));
	if (!o->quiet)
		printf("%s decides alone now: systemctl start ssid\n", identity.name);
	return EXIT_OK;
}

static int arm_fault(const struct session_options *o, const char *name, const char *action)
{
	static const char *const names[] = {
		[FAULT_NONE] = "none", [FAULT_KILL] = "kill", [FAULT_STOP] = "stop",
		[FAULT_FAIL] = "fail",
	};
	Ssi__Control__FaultRequest body = SSI__CONTROL__FAULT_REQUEST__INIT;
	Ssi__Control__Request q = SSI__CONTROL__REQUEST__INIT;

	while (body.action < N_ELEMENTS(names) && strcmp(action, names[body.action]) != 0)
		body.action++;
	if (body.action == N_ELEMENTS(names))
		session_usage("%s is not one of none, kill, stop, fail", action);
	body.name = (char *)name;
	q.body_case = SSI__CONTROL__REQUEST__BODY_FAULT;
	q.fault = &body;
	ssi__control__event__free_unpacked(session_once(o, &q, SSI__CONTROL__EVENT__BODY_DONE), NULL);
	return EXIT_OK;
}

static int change_nodes(const struct session_options *o, const char *command)
{
	if (strcmp(command, "add") != 0 && strcmp(command, "del") != 0)
		session_usage("nodes %s: no such command", command);
	if ((change.n_lists != 0) + change.has_count + change.has_total + change.all != 1)
		session_usage("exactly one of --nodes, --count, --total and --all is needed");
	change.what = strcmp(command, "add") == 0 ? SSI__CONTROL__CHANGE_REQUEST__WHAT__ADD :
						    SSI__CONTROL__CHANGE_REQUEST__WHAT__REMOVE;
	return change_run(o, &change);
}

static int shut_down(const struct session_options *o)
{
	change.what = SSI__CONTROL__CHANGE_REQUEST__WHAT__SHUTDOWN;
	return change_run(o, &change);
}

static int show_nodes(const struct session_options *o)
{
	const char *const argv[] = { "ssi-nodes",
				     "--socket",
				     o->socket,
				     o->json	? "--json" :
				     o->quiet	? "--quiet" :
						  NULL,
				     NULL };

	execvp(argv[0], (char **)argv);
	session_exit(EXIT_FAILED, "ssi-nodes cannot be started: %m");
}

int main(int argc, char **argv)
{
	struct session_options o;
	int first = session_options(argc, argv, "n:c:t:af", options, help, on_option, &o);
	int n = argc - first - 1; /* operands of the command */
	char **operands = argv + first + 1;

	log_set_level(LOG_LEVEL_WARNING);
	log_set_prefix(false);
	if (n < 0)
		session_usage("a command is needed");
	if (strcmp(argv[first], "init") == 0 && n == 0)
		return init(&o);
	if (strcmp(argv[first], "join") == 0 && n == 1)
		return join(&o, operands[0]);
	if (strcmp(argv[first], "token") == 0 && n == 0)
		return token(&o);
	if (strcmp(argv[first], "status") == 0 && n == 0)
		return status(&o);
	if (strcmp(argv[first], "recover") == 0 && n == 0)
		return recover(&o);
	if (strcmp(argv[first], "fault") == 0 && n == 2)
		return arm_fault(&o, operands[0], operands[1]);
	if (strcmp(argv[first], "nodes") == 0 && n == 0)
		return show_nodes(&o);
	if (strcmp(argv[first], "nodes") == 0 && n == 1)
		return change_nodes(&o, operands[0]);
	if (strcmp(argv[first], "cluster") == 0 && n == 1 && strcmp(operands[0], "status") == 0)
		return status(&o);
	if (strcmp(argv[first], "cluster") == 0 && n == 1 && strcmp(operands[0], "shutdown") == 0)
		return shut_down(&o);
	session_usage("%s: no such command, or not with %d operands", argv[first], n);
}
