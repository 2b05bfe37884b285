/*
 * The way in of a program that a process of another node starts.
 *
 * Happy path: FINDING (a worker looks whether its files are the same here) -> MAKING (ssi-spawn
 * stands in the place of the process, and has made all that the program inherits) -> READY
 * (answered; the source decides) -> COMMITTED (only if signals are to come before it begins)
 * -> BEGINNING, when ssi-spawn becomes the program.
 *
 * Failure modes: something is another one here, or cannot be made -> refused, with what it is;
 * the source says no, or is out of the view before it said anything -> killed; it is silent ->
 * asked, until it knows; ssid dies -> its end of ssi-spawn's socket is kept, and the
 * successor asks the source.
 */
#include "placement_internal.h"

#include "err.h"
#include "fault.h"
#include "log.h"
#include "placement_wire.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

enum state { FINDING, MAKING, READY, COMMITTED, BEGINNING };

static const nsec_t silent_after = 2 * NSEC_PER_SEC;
static const struct process_alarm no_alarm;
static const char kept_prefix[] = "placement/coming/";

struct coming {
	struct placement *placement; /* NULL: it is gone */
	enum state state;
	struct process_member member, parent;
	node_id source;
	struct rpc_call *call; /* not answered yet */
	struct rpc_request *request;
	struct env_work work;
	struct env_timer silent;
	struct env_fd watch; /* ssi-spawn's socket */
	struct placement_exec exec;
	stream_id streams[PLACEMENT_GIVEN_MAX];
	uint8_t *page;
	size_t page_len;
	char why[128];
	TAILQ_ENTRY(coming) entry;
};

static struct coming *find(struct placement *p, pid_t pid)
{
	struct coming *c;

	TAILQ_FOREACH (c, &p->coming, entry)
		if (c->member.pid == pid)
			return c;
	return NULL;
}

static void kept_name(pid_t pid, char ret[64])
{
	(void)snprintf(ret, 64, "%s%d", kept_prefix, pid);
}

static void drop_socket(struct coming *c)
{
	char name[64];

	if (c->watch.fd < 0)
		return;
	env_unwatch(c->placement->n.env, &c->watch);
	c->watch.fd = close_fd(c->watch.fd);
	kept_name(c->member.pid, name);
	(void)space_drop(c->placement->n.space, name);
}

static void free_coming(struct coming *c)
{
	struct placement *p = c->placement;

	TAILQ_REMOVE(&p->coming, c, entry);
	if (c->request)
		rpc_cancel(p->n.rpc, c->request);
	env_disarm(p->n.env, &c->silent);
	drop_socket(c);
	placement_exec_fini(&c->exec);
	free(c->page);
	free(c);
}

/* Of our end of what it is given. */
static enum stream_role role_of(const struct coming *c, size_t i)
{
	return c->exec.input[i] ? STREAM_WRITER : STREAM_READER;
}

/* Nothing of it has begun, and nothing does. */
static void give_up(struct coming *c, enum rpc_status status, const char *why)
{
	struct placement *p = c->placement;

	if (c->call)
		rpc_fail(c->call, status, "%s", why);
	if (c->state != FINDING)
		process_come_abort(p->n.process, c->member.pid);
	for (size_t i = 0; i < PLACEMENT_GIVEN_MAX; i++)
		if (c->streams[i])
			(void)stream_close(p->n.stream, c->streams[i], role_of(c, i));
	free_coming(c);
}

/* -- READY, COMMITTED -- */

static void commit(struct coming *c)
{
	if (c->state != READY)
		return;
	process_come_commit(c->placement->n.process, c->member.pid);
	c->state = COMMITTED;
	(void)fault("placement.committed");
}

static void go(struct coming *c, const struct process_alarm *alarm)
{
	const uint64_t us[] = { alarm->value_us, alarm->interval_us };

	commit(c);
	c->state = BEGINNING;
	env_disarm(c->placement->n.env, &c->silent);
	/* Twice does no harm, so a successor says it again. */
	(void)send(c->watch.fd, us, sizeof(us), MSG_NOSIGNAL | MSG_DONTWAIT);
	job_note(c->placement, c->member.pid, rpc_self(c->placement->n.rpc), true);
}

static void on_state(void *owner, const struct rpc_result *result)
{
	struct coming *c = owner;

	c->request = NULL;
	if (result->status == RPC_OK && (c->state == COMMITTED || placement_wire_left(result)))
		go(c, &no_alarm); /* the source, who knows it, has begun anew */
	else if (result->status == RPC_OK)
		give_up(c, RPC_FAILED, "its process did not leave");
	else
		(void)env_arm(c->placement->n.env, &c->silent, silent_after);
}

static void on_silent(struct env_timer *t)
{
	struct coming *c = container_of(t, struct coming, silent);
	struct placement *p = c->placement;

	if (c->state == MAKING)
		return give_up(c, RPC_TIMEOUT, "it could not be made in time");
	if (placement_wire_state(p, c->source, c->member.pid, c->member.generation, on_state, c,
				 &c->request) < 0)
		(void)env_arm(p->n.env, &c->silent, silent_after);
}

static void on_ready(struct coming *c)
{
	/* Nothing is to be done, unless its kin stood here before, with other capabilities. */
	if (capability_write(c->placement->n.space, c->member.pid, &c->member.capabilities) < 0)
		return give_up(c, RPC_FAILED, "it could not be given its capabilities");
	c->state = READY;
	(void)fault("placement.ready");
	placement_wire_ready(c->placement, c->call);
	c->call = NULL;
	(void)env_arm(c->placement->n.env, &c->silent, silent_after);
}

static void on_spawn(struct env_fd *watch, unsigned events)
{
	struct coming *c = container_of(watch, struct coming, watch);
	char line[4352];
	ssize_t n = recv(watch->fd, line, sizeof(line) - 1, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (c->state >= COMMITTED) {
		free_coming(c); /* it is the program, or has ended: its parent tells */
		return;
	}
	if (n == 5 && !memcmp(line, "READY", 5)) {
		if (c->state == MAKING)
			on_ready(c);
		return;
	}
	line[n > 0 ? n : 0] = 0;
	give_up(c, RPC_UNSUPPORTED, n > 0 ? line : "it ended before it began");
}

/* -- MAKING -- */

static int make_page(const struct coming *c, int *ret)
{
	_cleanup_close_ int fd = memfd_create("exec", MFD_CLOEXEC);

	if (fd < 0)
		return err_origin(-errno);
	if (write(fd, c->page, c->page_len) != (ssize_t)c->page_len)
		return err_origin(-ENOMEM);
	*ret = TAKE_FD(fd);
	return 0;
}

/* The program's end of a pipe, whose other one is of @id, or was closed. */
static int make_pipe(struct coming *c, size_t i, stream_id id, int *ret)
{
	bool reads = !id || c->exec.input[i];
	int p[2], r;

	if (pipe2(p, O_CLOEXEC) < 0)
		return err_origin(-errno);
	*ret = p[reads ? 0 : 1];
	if (!id) {
		(void)close(p[1]);
		return 0;
	}
	r = stream_open(c->placement->n.stream, id, role_of(c, i), c->source, p[reads ? 1 : 0], 0,
			NULL, 0);
	if (r != 0)
		return err_fold(r);
	c->streams[i] = id;
	return 0;
}

static int make_socket(struct coming *c, int *ret_theirs)
{
	struct placement *p = c->placement;
	char name[64];
	int ends[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return err_origin(-errno);
	*ret_theirs = ends[1];
	kept_name(c->member.pid, name);
	r = space_keep(p->n.space, name, ends[0]);
	if (r == 0) {
		c->watch.fd = ends[0];
		r = env_watch(p->n.env, &c->watch, ENV_READ);
	}
	return err_fold(r);
}

static int make(struct coming *c, const stream_id *streams)
{
	int fds[3 + PLACEMENT_GIVEN_MAX], terminal[2] = { -1, -1 };
	size_t n = 2;
	int r;

	fds[0] = fds[1] = -1;
	r = make_page(c, &fds[0]);
	if (r == 0)
		r = make_socket(c, &fds[1]);
	for (size_t i = 0; r == 0 && i < c->exec.n_given; i++) {
		fds[n] = -1;
		r = make_pipe(c, i, streams[i], &fds[n++]);
	}
	if (r == 0 && c->exec.has_terminal) {
		r = tty_mirror(c->placement->n.tty, c->source, &c->exec.terminal, &terminal[0],
			       &terminal[1]);
		fds[n++] = terminal[0];
	}
	if (r == 0)
		r = process_come_exec(c->placement->n.process, &c->member, &c->parent,
				      terminal[1] >= 0 ? terminal : NULL,
				      c->placement->spawn_path, fds, n);
	(void)close_fd(terminal[1]);
	for (size_t i = 0; i < n; i++)
		(void)close_fd(fds[i]);
	return r;
}

static void on_find(struct env_work *w)
{
	struct coming *c = container_of(w, struct coming, work);
	struct space *space = c->placement->n.space;
	int r = placement_find(space_root_fd(space), space_proc_fd(space), &c->exec, c->why,
			       sizeof(c->why));

	if (r < 0)
		(void)snprintf(c->why, sizeof(c->why), "%s", strerror(-r));
}

static void on_found(struct env_work *w)
{
	struct coming *c = container_of(w, struct coming, work);
	stream_id streams[PLACEMENT_GIVEN_MAX];
	int r;

	if (!c->placement) {
		placement_exec_fini(&c->exec);
		free(c->page);
		free(c);
		return;
	}
	if (c->why[0])
		return give_up(c, RPC_UNSUPPORTED, c->why);
	memcpy(streams, c->streams, sizeof(streams));
	memset(c->streams, 0, sizeof(c->streams)); /* now: those that are open */
	c->state = MAKING;
	r = make(c, streams);
	if (r == PROCESS_E_TAKEN)
		return give_up(c, RPC_CONFLICT, "a relative of it really runs there");
	if (r != 0)
		return give_up(c, RPC_FAILED, strerror(-err_fold(r)));
	(void)env_arm(c->placement->n.env, &c->silent, 5 * silent_after);
}

void coming_on_ask(struct placement *p, struct rpc_call *call, struct process_member *member,
		   const struct process_member *parent, struct placement_exec *owned_exec,
		   const stream_id *streams, uint8_t *owned_page, size_t page_len)
{
	struct coming *c = find(p, member->pid) ? NULL : calloc(1, sizeof(*c));

	if (!c || !process_may_start(p->n.process) || !membership_lease_held(p->n.membership)) {
		rpc_fail(call, RPC_CONFLICT, "process %d cannot begin here now", member->pid);
		placement_exec_fini(owned_exec);
		free(owned_page);
		free(c);
		return;
	}
	*c = (struct coming){ .placement = p,
			      .member = *member,
			      .parent = *parent,
			      .source = rpc_call_peer(call),
			      .call = call,
			      .exec = *owned_exec,
			      .page = owned_page,
			      .page_len = page_len,
			      .watch = { .fd = -1, .cb = on_spawn },
			      .silent.cb = on_silent,
			      .work = { .work = on_find, .done = on_found } };
	memcpy(c->streams, streams, owned_exec->n_given * sizeof(*streams));
	TAILQ_INSERT_TAIL(&p->coming, c, entry);
	if (env_work(p->n.env, &c->work) < 0)
		give_up(c, RPC_FAILED, "out of memory");
}

/* -- What the source says -- */

static bool has_begun(struct placement *p, pid_t pid, uint32_t generation)
{
	struct process_record d;

	return process_record(p->n.process, pid, &d) == 0 && !d.moving &&
	       d.generation >= generation &&
	       (d.state == PROCESS_GUEST || d.state == PROCESS_ENDED);
}

void coming_on_end(struct placement *p, struct rpc_call *call, pid_t pid, uint32_t generation,
		   const struct placement_end *end)
{
	struct coming *c = find(p, pid);

	if (c && (c->source != rpc_call_peer(call) || c->member.generation != generation))
		c = NULL;
	if (c && (c->state == READY || c->state == COMMITTED)) {
		placement_wire_done(call);
		if (!end->begin)
			give_up(c, RPC_FAILED, "its process did not leave");
		else if (end->wait)
			commit(c);
		else
			go(c, &end->alarm);
	} else if (c && c->state != BEGINNING) {
		/* Only no can come so early; what is found out about it has no end yet. */
		rpc_fail(call, RPC_CONFLICT, "process %d is being made", pid);
	} else if (!end->begin || has_begun(p, pid, generation)) {
		placement_wire_done(call);
	} else {
		rpc_fail(call, RPC_NOT_FOUND, "no program of process %d waits here", pid);
	}
}

void coming_on_view(struct placement *p)
{
	struct coming *c, *next;

	for (c = TAILQ_FIRST(&p->coming); c; c = next) {
		next = TAILQ_NEXT(c, entry);
		if (membership_is_up(p->n.membership, c->source))
			continue;
		if (c->state == MAKING || c->state == READY)
			give_up(c, RPC_DOWN, "its node is lost");
		else if (c->state == COMMITTED)
			go(c, &no_alarm);
	}
}

/* -- A predecessor's -- */

static int resume(struct placement *p, pid_t pid)
{
	struct coming *c = calloc(1, sizeof(*c));
	struct process_record d;
	char name[64];

	kept_name(pid, name);
	if (!c)
		return err_origin(-ENOMEM);
	if (process_record(p->n.process, pid, &d) != 0 || d.state != PROCESS_GUEST) {
		free(c);
		return err_fold(space_drop(p->n.space, name));
	}
	*c = (struct coming){ .placement = p,
			      .state = READY,
			      .member = { .pid = pid, .generation = d.generation },
			      .source = d.home,
			      .watch = { .fd = -1, .cb = on_spawn },
			      .silent.cb = on_silent };
	TAILQ_INSERT_TAIL(&p->coming, c, entry);
	if (space_kept(p->n.space, name, &c->watch.fd) != 0 ||
	    env_watch(p->n.env, &c->watch, ENV_READ) < 0) {
		give_up(c, RPC_FAILED, "");
		return 0;
	}
	if (d.moving)
		return env_arm(p->n.env, &c->silent, 0);
	go(c, &no_alarm);
	return 0;
}

int coming_start(struct placement *p)
{
	_cleanup_free_ pid_t *pids = NULL;
	size_t n = 0;
	int r = space_kept_numbers(p->n.space, kept_prefix, &pids, &n);

	for (size_t i = 0; r == 0 && i < n; i++)
		r = resume(p, pids[i]);
	return r;
}

void coming_fini(struct placement *p)
{
	struct coming *c;

	while ((c = TAILQ_FIRST(&p->coming))) {
		TAILQ_REMOVE(&p->coming, c, entry);
		if (c->call)
			rpc_fail(c->call, RPC_DOWN, "ssid stops");
		if (c->state == FINDING) { /* freed when its work is done */
			c->placement = NULL;
			continue;
		}
		if (c->request)
			rpc_cancel(p->n.rpc, c->request);
		env_disarm(p->n.env, &c->silent);
		if (c->watch.fd >= 0) { /* ssi-init keeps the other */
			env_unwatch(p->n.env, &c->watch);
			(void)close(c->watch.fd);
		}
		placement_exec_fini(&c->exec);
		free(c->page);
		free(c);
	}
}
