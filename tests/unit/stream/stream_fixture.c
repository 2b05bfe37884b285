#include "stream_fixture.h"

#include "fixture.h" /* the space's */
#include "space_internal.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

/* -- What a node keeps has its number before its name. -- */

static struct {
	struct space *space;
	node_id id;
} spaces[NODES + 1];

int __real_space_keep(struct space *s, const char *name, int fd);
int __real_space_kept(struct space *s, const char *name, int *ret_fd);
int __real_space_drop(struct space *s, const char *name);
int __real_space_each_kept(struct space *s, const char *prefix,
			   int (*cb)(void *owner, const char *name), void *owner);
int __wrap_space_keep(struct space *s, const char *name, int fd);
int __wrap_space_kept(struct space *s, const char *name, int *ret_fd);
int __wrap_space_drop(struct space *s, const char *name);
int __wrap_space_each_kept(struct space *s, const char *prefix,
			   int (*cb)(void *owner, const char *name), void *owner);

static const char *numbered(const struct space *s, const char *name)
{
	static char text[80];
	size_t i = 0;

	while (spaces[i].space != s)
		assert_true(++i < N_ELEMENTS(spaces));
	(void)snprintf(text, sizeof(text), "%u/%s", spaces[i].id, name);
	return text;
}

int __wrap_space_keep(struct space *s, const char *name, int fd)
{
	return __real_space_keep(s, numbered(s, name), fd);
}

int __wrap_space_kept(struct space *s, const char *name, int *ret_fd)
{
	return __real_space_kept(s, numbered(s, name), ret_fd);
}

int __wrap_space_drop(struct space *s, const char *name)
{
	return __real_space_drop(s, numbered(s, name));
}

struct each {
	int (*cb)(void *owner, const char *name);
	void *owner;
};

static int on_numbered(void *owner, const char *name)
{
	struct each *each = owner;

	return each->cb(each->owner, strchr(name, '/') + 1);
}

int __wrap_space_each_kept(struct space *s, const char *prefix,
			   int (*cb)(void *owner, const char *name), void *owner)
{
	struct each each = { cb, owner };

	return __real_space_each_kept(s, numbered(s, prefix), on_numbered, &each);
}

/* It calls those above within one file, where wrapping does not reach. */
int __wrap_space_state(struct space *s, const char *name, size_t size, void **ret,
		       bool *ret_fresh);
int __real_space_state(struct space *s, const char *name, size_t size, void **ret,
		       bool *ret_fresh);

int __wrap_space_state(struct space *s, const char *name, size_t size, void **ret,
		       bool *ret_fresh)
{
	char own[80];

	(void)snprintf(own, sizeof(own), "%s", numbered(s, name));
	return __real_space_state(s, own, size, ret, ret_fresh);
}

/* A client without events, of which there may be only one. */
static struct space *client_new(node_id id)
{
	struct space *s = calloc(1, sizeof(*s));
	size_t i = 0;
	int fds[3];

	assert_non_null(s);
	assert_int_equal(space_wire_open(fixture_config.runtime_dir, 0, &s->command_fd, fds), 0);
	for (size_t k = 0; k < 3; k++)
		(void)close(fds[k]);
	while (spaces[i].space)
		assert_true(++i < N_ELEMENTS(spaces));
	spaces[i].space = s;
	spaces[i].id = id;
	return s;
}

static void client_free(struct space *s)
{
	for (size_t i = 0; i < N_ELEMENTS(spaces); i++)
		if (spaces[i].space == s)
			spaces[i].space = NULL;
	(void)close(s->command_fd);
	free(s);
}

/* -- Nodes: the loop is real, its clock may be put forward. -- */

static nsec_t ahead;
static struct env_ops ahead_ops;
static struct env ahead_env;

static nsec_t now_ahead(void *impl)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_BOOTTIME, &t);
	return (nsec_t)t.tv_sec * NSEC_PER_SEC + (nsec_t)t.tv_nsec + ahead;
}

void clock_advance(nsec_t by)
{
	ahead += by;
}

void node_start_bare(struct node *n, node_id id, struct env_event *event)
{
	struct rpc_peer peers[NODES];

	*n = (struct node){ .id = id, .event = event };
	ahead_ops = *env_event_env(event)->ops;
	ahead_ops.now = now_ahead;
	ahead_env = (struct env){ &ahead_ops, env_event_env(event)->impl };
	n->env = &ahead_env;
	n->space = client_new(id);
	assert_int_equal(rpc_new(&n->rpc, n->env, id), 0);
	assert_int_equal(link_new(&n->link, n->env, id, rpc_events(), n->rpc), 0);
	rpc_set_transport(n->rpc, link_transport(n->link));
	for (node_id i = 0; i < NODES; i++)
		peers[i] = (struct rpc_peer){ i + 1, "there" };
	assert_int_equal(rpc_set_view(n->rpc, 1, peers, NODES), 0);
}

void node_start(struct node *n, node_id id, struct env_event *event)
{
	node_start_bare(n, id, event);
	assert_int_equal(stream_room_new(&n->room, n->env, n->space, n->rpc), 0);
}

void node_stop(struct node *n)
{
	n->room = stream_room_free(n->room);
	n->rpc = rpc_free(n->rpc);
	n->link = link_free(n->link);
	client_free(n->space);
	n->space = NULL;
}

static int on_counted(void *owner, const char *name)
{
	++*(size_t *)owner;
	return 0;
}

size_t node_kept(struct node *n)
{
	size_t count = 0;

	(void)space_each_kept(n->space, "stream/end/", on_counted, &count);
	return count;
}

static struct env_event *turning;

static void on_turned(struct env_timer *t)
{
	env_event_stop(turning);
}

void turn(struct env_event *event, nsec_t span)
{
	const struct env *env = env_event_env(event);
	struct env_timer t = { .cb = on_turned };

	turning = event;
	(void)env_arm(env, &t, span);
	(void)env_event_run(event);
	env_disarm(env, &t);
}

int stream_fixture_main(int argc, char **argv, int (*tests)(void))
{
	struct rlimit limit;

	(void)signal(SIGPIPE, SIG_IGN);
	(void)getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
	return fixture_main(argc, argv, tests);
}
