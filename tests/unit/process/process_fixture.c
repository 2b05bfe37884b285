#include "process_fixture.h"

#include "fixture.h" /* the space's */

#include "cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>

struct process_room *room;
struct space *space;
pid_t there_first = MEMBERSHIP_PID_MAX;
bool there_up = true, trace_shadows;
enum rpc_status (*remote)(uint16_t method, const ProtobufCMessage *request);
const ProtobufCMessage *remote_reply;
void (*on_reply)(const ProtobufCMessage *reply);

static const char *libexec_source;

/* -- The loop -- */

static struct env_fd *watches[64];
static struct env_timer *timers[64];
static struct env_work *works[64];

static nsec_t clock_of(clockid_t id)
{
	struct timespec t;

	(void)clock_gettime(id, &t);
	return t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

static nsec_t now(void *impl)
{
	return clock_of(CLOCK_BOOTTIME);
}

int64_t wall_ahead;

static nsec_t realtime(void *impl)
{
	return clock_of(CLOCK_REALTIME) + (nsec_t)wall_ahead;
}

static void random_bytes(void *impl, void *ret, size_t len)
{
	for (size_t i = 0; i < len; i++)
		((uint8_t *)ret)[i] = (uint8_t)rand();
}

static int arm(void *impl, struct env_timer *t, nsec_t after)
{
	size_t i = 0;

	t->due = now(NULL) + after;
	if (t->impl)
		return 0;
	while (timers[i])
		assert_true(++i < N_ELEMENTS(timers));
	timers[i] = t;
	t->impl = &timers[i];
	return 0;
}

static void disarm(void *impl, struct env_timer *t)
{
	if (t->impl)
		*(struct env_timer **)t->impl = NULL;
	t->impl = NULL;
	t->due = 0;
}

static int watch(void *impl, struct env_fd *w, unsigned events)
{
	size_t i = 0;

	if (w->impl)
		return 0;
	while (watches[i])
		assert_true(++i < N_ELEMENTS(watches));
	watches[i] = w;
	w->impl = &watches[i];
	return 0;
}

static void unwatch(void *impl, struct env_fd *w)
{
	if (w->impl)
		*(struct env_fd **)w->impl = NULL;
	w->impl = NULL;
}

static int work(void *impl, struct env_work *w)
{
	size_t i = 0;

	while (works[i])
		assert_true(++i < N_ELEMENTS(works));
	works[i] = w;
	return 0;
}

static const struct env_ops ops = {now,	   realtime, random_bytes, arm,
				   disarm, watch,    unwatch,	   work};
static const struct env env = {.ops = &ops};
const struct env *const process_env = &env;

/* -- Membership: as much as the room asks of it -- */

node_id membership_home(const struct membership *m, pid_t pid)
{
	return pid >= there_first ? THERE : HERE;
}

bool membership_is_up(const struct membership *m, node_id id)
{
	return id == HERE || (id == THERE && there_up);
}

const struct membership_view *membership_view(const struct membership *m)
{
	static union {
		struct membership_view view;
		char space[sizeof(struct membership_view) + 2 * sizeof(struct membership_node)];
	} u;

	u.view.n_nodes = 2;
	u.view.nodes[0] = (struct membership_node){
		.id = HERE, .state = MEMBER_UP, .since = 5, .incarnation = 1};
	u.view.nodes[1] = (struct membership_node){
		.id = THERE, .state = there_up ? MEMBER_UP : MEMBER_LOST, .since = 9, .incarnation = 1};
	return &u.view;
}

const struct membership_node *membership_node(const struct membership *m, node_id id)
{
	return id == HERE || id == THERE ? &membership_view(m)->nodes[id - HERE] : NULL;
}

bool membership_lease_held(const struct membership *m)
{
	return true;
}

/* -- rpc -- */

struct rpc {
	int unused;
};

struct rpc_request {
	uint16_t method;
	node_id node;
	uint8_t *data;
	size_t len;
	rpc_done_cb done;
	void *owner;
	bool cancelled, sent;
	struct rpc_request *next;
};

struct rpc_call {
	struct rpc_request *request;
	node_id peer;
	enum rpc_status *ret_status;
};

static struct rpc the_rpc;
static const struct rpc_method *registered;
static void *registered_room;
static struct rpc_request *queue;

node_id rpc_self(const struct rpc *rpc)
{
	return HERE;
}

const char *rpc_name(struct rpc *rpc, node_id node)
{
	return node == HERE ? "here" : "there";
}

int rpc_register(struct rpc *rpc, const struct rpc_method *methods, void *owner)
{
	registered = methods;
	registered_room = owner;
	return 0;
}

int rpc_call(struct rpc *rpc, node_id node, uint16_t method,
	     const ProtobufCMessage *request, struct iovec bulk, nsec_t timeout,
	     rpc_done_cb done, void *owner, struct rpc_request **ret_request)
{
	struct rpc_request *q = calloc(1, sizeof(*q)), **end = &queue;

	q->method = method;
	q->node = node;
	q->len = protobuf_c_message_get_packed_size(request);
	q->data = malloc(q->len + 1);
	(void)protobuf_c_message_pack(request, q->data);
	q->done = done;
	q->owner = owner;
	while (*end)
		end = &(*end)->next;
	*end = q;
	if (ret_request)
		*ret_request = q;
	return 0;
}

static void free_request(struct rpc_request *q)
{
	free(q->data);
	free(q);
}

void rpc_cancel(struct rpc *rpc, struct rpc_request *q)
{
	q->cancelled = true;
}

static void end_call(struct rpc_call *call, const struct rpc_result *result)
{
	if (call->ret_status)
		*call->ret_status = result->status;
	if (call->request && !call->request->cancelled)
		call->request->done(call->request->owner, result);
	if (call->request)
		free_request(call->request);
	free(call);
}

void rpc_reply(struct rpc_call *call, const ProtobufCMessage *reply, struct iovec bulk)
{
	struct rpc_result result = {.status = RPC_OK, .text = "", .reply = reply};

	if (on_reply)
		on_reply(reply);
	end_call(call, &result);
}

void rpc_fail(struct rpc_call *call, enum rpc_status status, const char *format, ...)
{
	char text[256];
	struct rpc_result result = {.status = status, .text = text};
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	end_call(call, &result);
}

bool there_ahead;

bool rpc_call_is_ahead(const struct rpc_call *call)
{
	return there_ahead;
}

node_id rpc_call_peer(const struct rpc_call *call)
{
	return call->peer;
}

static const struct rpc_method *method_of(uint16_t id)
{
	const struct rpc_method *m = process_methods;

	while (m->id && m->id != id)
		m++;
	assert_true(m->id);
	return m;
}

static void serve(struct rpc_request *q)
{
	const struct rpc_method *m = method_of(q->method);
	ProtobufCMessage *message =
		protobuf_c_message_unpack(m->request, NULL, q->len, q->data);
	struct rpc_call *call = calloc(1, sizeof(*call));

	assert_non_null(message);
	*call = (struct rpc_call){.request = q, .peer = HERE};
	if (q->cancelled) {
		free_request(q);
		free(call);
	} else if (q->node == HERE && registered_room) {
		m->handle(registered_room, call, message, RPC_NO_BULK);
	} else {
		enum rpc_status status = remote ? remote(q->method, message) : RPC_DOWN;

		if (status == RPC_OK) {
			ProtobufCMessage *reply =
				protobuf_c_message_unpack(m->reply, NULL, 0, NULL);

			rpc_reply(call, remote_reply ? remote_reply : reply,
				  RPC_NO_BULK);
			protobuf_c_message_free_unpacked(reply, NULL);
		} else {
			rpc_fail(call, status, "node 2 says %d", status);
		}
	}
	protobuf_c_message_free_unpacked(message, NULL);
}

enum rpc_status from_there(uint16_t method, const ProtobufCMessage *request)
{
	struct rpc_call *call = calloc(1, sizeof(*call));
	enum rpc_status status = (enum rpc_status) - 1;

	*call = (struct rpc_call){.peer = THERE, .ret_status = &status};
	method_of(method)->handle(registered_room, call, request, RPC_NO_BULK);
	return status;
}

void turn(void)
{
	struct pollfd p[N_ELEMENTS(watches)];
	struct rpc_request *q;

	for (size_t i = 0; i < N_ELEMENTS(works); i++)
		if (works[i]) {
			struct env_work *w = works[i];

			works[i] = NULL;
			w->work(w);
			w->done(w);
		}
	while ((q = queue)) {
		queue = q->next;
		serve(q);
	}
	for (size_t i = 0; i < N_ELEMENTS(timers); i++)
		if (timers[i] && timers[i]->due && timers[i]->due <= now(NULL)) {
			timers[i]->due = 0;
			timers[i]->cb(timers[i]);
		}
	for (size_t i = 0; i < N_ELEMENTS(watches); i++)
		p[i] = (struct pollfd){watches[i] ? watches[i]->fd : -1, POLLIN, 0};
	(void)poll(p, N_ELEMENTS(p), 2);
	if (room)
		process_on_sigchld(room);
	for (size_t i = 0; i < N_ELEMENTS(watches); i++)
		if (p[i].revents && watches[i] && watches[i]->fd == p[i].fd)
			watches[i]->cb(watches[i], ENV_READ);
}

void turn_for(nsec_t span)
{
	nsec_t until = now(NULL) + span;

	while (now(NULL) < until)
		turn();
}

/* -- The space -- */

static void on_exit_told(void *owner, const struct space_exit *e)
{
	if (room)
		process_on_exit(room, e);
}

static void on_stop_told(void *owner, pid_t pid, int signal)
{
	if (room)
		process_on_stop(room, pid, signal);
}

static void on_lost_told(void *owner)
{
	(void)fprintf(stderr, "the space is lost\n");
	abort();
}

static const struct space_events events = {on_exit_told, on_stop_told, on_lost_told};
static int (*all_tests)(void);

static void copy_program(const char *name, mode_t mode)
{
	char command[1024], path[256];

	(void)snprintf(command, sizeof(command), "cp '%s/%s' /mnt/libexec/%s",
		       libexec_source, name, name);
	(void)snprintf(path, sizeof(path), "/mnt/libexec/%s", name);
	if (system(command) != 0 || chmod(path, mode) < 0) {
		(void)fprintf(stderr, "cannot copy %s\n", name);
		_exit(99);
	}
}

const char *program(const char *name)
{
	static char path[256];

	(void)snprintf(path, sizeof(path), "/mnt/libexec/%s", name);
	return path;
}

/* In the space's pid namespace already, in the test's own mount namespace. */
static int in_space(void)
{
	if (mount("tmpfs", "/run", "tmpfs", 0, "mode=0755") < 0 ||
	    mkdir("/run/ssi", 0700) < 0 || mkdir("/mnt/libexec", 0755) < 0)
		return 99;
	copy_program("ssi-spawn", 0755);
	copy_program("ssi-shadow", 04755);
	copy_program("relative", 0755);
	copy_program("hostile", 0755);
	return all_tests();
}

int process_fixture_main(int argc, char **argv, int (*tests)(void))
{
	all_tests = tests;
	libexec_source = argc > 2 ? argv[2] : ".";
	return fixture_main(argc, argv, in_space);
}

void process_fixture_open(void)
{
	assert_int_equal(space_new(&space, process_env, &fixture_config, &events, NULL),
			 0);
	assert_int_equal(process_room_new(&room, process_env, space, &the_rpc, NULL,
					  "/mnt/libexec"),
			 0);
	if (trace_shadows)
		assert_int_equal(process_trace(room), 0);
}

void process_fixture_close(void)
{
	struct rpc_request *q;

	room = process_room_free(room);
	while ((q = queue)) {
		queue = q->next;
		free_request(q);
	}
	registered_room = NULL;
	space = space_free(space);
}

/* -- Programs -- */

void launch_defaults(struct process_launch *l, char **argv)
{
	static char *envp[] = {"PATH=/usr/bin:/bin", "COLOUR=blue", NULL};

	*l = (struct process_launch){.argv = argv,
				     .envp = envp,
				     .cwd = "/",
				     .name = "",
				     .caller = {.uid = 1000,
						.gid = 1000,
						.groups = {1000, 50},
						.n_groups = 2},
				     .umask = 022,
				     .stdio = {-1, -1, -1}};
	for (int i = 0; i < RLIM_NLIMITS; i++)
		(void)getrlimit(i, &l->limits[i]);
}

void run_launch(struct run *r, struct process_launch *l)
{
	int ends[2];

	*r = (struct run){0};
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	l->stdio[1] = l->stdio[2] = ends[1];
	assert_int_equal(process_launch(room, l, &r->pid), 0);
	(void)close(ends[1]);
	r->out = ends[0];
	(void)fcntl(r->out, F_SETFL, O_NONBLOCK);
}

void run_script(struct run *r, const char *script)
{
	char *argv[] = {"sh", "-c", (char *)script, NULL};
	struct process_launch l;

	launch_defaults(&l, argv);
	run_launch(r, &l);
}

const char *run_text(struct run *r)
{
	ssize_t n;

	while ((n = read(r->out, r->text + r->len, sizeof(r->text) - 1 - r->len)) > 0)
		r->len += n;
	r->text[r->len] = 0;
	return r->text;
}

static void on_ended(void *owner, enum rpc_status status, const char *text, int code,
		     int exit_status)
{
	*(struct ending *)owner = (struct ending){true, status, code, exit_status};
}

void wait_for(struct ending *e, pid_t app)
{
	*e = (struct ending){0};
	assert_int_equal(process_wait(room, app, on_ended, e), 0);
}
