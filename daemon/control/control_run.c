/*
 * Starting programs, waiting for them, signalling them.
 *
 * Happy path, here: the pipes that came with the request become the program's
 * standard streams, `started` tells the application's id, and `exited` follows
 * when it ends.  Elsewhere: each pipe becomes the near end of a stream, the
 * other node makes the far ends and launches; the rest is the same.  A program that
 * gets a terminal is always started as if elsewhere: the far ends are the terminal's
 * master.
 *
 * Failure modes: the node is lost before it answers -> the streams are closed,
 * the tool is told that the program may or may not have started; the tool goes
 * away -> the program goes on, its pipes break, or its terminal is hung up.
 */
#include "control_internal.h"
#include "control_wire.h"
#include "place.h"

#include "err.h"
#include "log.h"
#include "process_wire.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

static const nsec_t LAUNCH_TIMEOUT = 10 * NSEC_PER_SEC;

/* A launch on another node, until it answered. */
struct remote_launch {
	struct control_connection *connection;
	struct control *control;
	node_id node;
	stream_id streams[3]; /* 0: none */
};

static char *text_of(const ProtobufCBinaryData *b)
{
	/* An embedded NUL would make two different strings of one. */
	if (memchr(b->data, 0, b->len))
		return NULL;
	return strndup((const char *)b->data, b->len);
}

static char **texts_of(const ProtobufCBinaryData *list, size_t n)
{
	char **v = calloc(n + 1, sizeof(*v));

	for (size_t i = 0; v && i < n; i++) {
		v[i] = text_of(&list[i]);
		if (!v[i]) {
			while (i-- > 0)
				free(v[i]);
			free(v);
			return NULL;
		}
	}
	return v;
}

static void texts_free(char **v)
{
	for (size_t i = 0; v && v[i]; i++)
		free(v[i]);
	free(v);
}

static void launch_fini(struct process_launch *l)
{
	texts_free(l->argv);
	texts_free(l->envp);
	free(l->cwd);
	for (size_t i = 0; i < 3; i++)
		close_fd(l->stdio[i]);
}

static uint32_t bits_of(const Ssi__Control__Terminal *t)
{
	return t->errors ? 7 : 3;
}

/* The request in our own terms, descriptors included; 0 or an outcome for the tool. */
static enum rpc_status launch_of(struct control_connection *c, const Ssi__Control__RunRequest *q,
				 struct process_launch *l)
{
	uint32_t pipes = q->pipes;
	size_t next = 0;

	if (q->terminal) {
		l->on_terminal = bits_of(q->terminal);
		if (q->pipes & l->on_terminal || !q->terminal->window)
			return RPC_USAGE;
		pipes |= 3;
	}
	for (size_t i = 0; i < 3; i++)
		if (pipes & 1u << i) {
			l->stdio[i] = control_take_fd(c, next++);
			if (l->stdio[i] < 0)
				return RPC_USAGE;
		}
	l->caller = c->caller;
	l->umask = q->umask & 0777;
	l->nice = q->nice;
	l->name = q->app;
	l->spread = q->spread;
	l->report = q->report;
	l->argv = texts_of(q->argv, q->n_argv);
	l->envp = texts_of(q->envp, q->n_envp);
	l->cwd = text_of(&q->cwd);
	for (size_t i = 0; i < RLIM_NLIMITS; i++)
		l->limits[i] = (struct rlimit){ RLIM_INFINITY, RLIM_INFINITY };
	for (size_t i = 0; i < q->n_limits; i++)
		if (q->limits[i]->resource < RLIM_NLIMITS)
			l->limits[q->limits[i]->resource] =
				(struct rlimit){ q->limits[i]->soft, q->limits[i]->hard };
	return l->argv && l->argv[0] && l->envp && l->cwd ? RPC_OK : RPC_USAGE;
}

static void on_ended(void *owner, enum rpc_status status, const char *text, int code,
		     int exit_status)
{
	struct control_connection *c = owner;
	Ssi__Control__Exited exited = SSI__CONTROL__EXITED__INIT;
	Ssi__Control__Event event = SSI__CONTROL__EVENT__INIT;

	if (status != RPC_OK)
		return control_fail(c, status, "%s", text);
	exited.code = code;
	exited.status = exit_status;
	event.body_case = SSI__CONTROL__EVENT__BODY_EXITED;
	event.exited = &exited;
	control_send(c, &event, true);
}

static void wait_for(struct control_connection *c, pid_t app)
{
	if (process_wait(c->control->n.process, app, on_ended, c) != 0)
		control_fail(c, RPC_NOT_FOUND, "no application %d", app);
}

void control_started(struct control_connection *c, pid_t app, node_id node)
{
	Ssi__Control__Started reply = SSI__CONTROL__STARTED__INIT;
	Ssi__Control__Event event = SSI__CONTROL__EVENT__INIT;
	const struct membership_node *n = membership_node(c->control->n.membership, node);

	reply.pid = app;
	reply.node = n ? (char *)n->name : "?";
	event.body_case = SSI__CONTROL__EVENT__BODY_STARTED;
	event.started = &reply;
	control_send(c, &event, false);
	wait_for(c, app);
}

/* Descriptor @i of a program: 0 is what it reads. */
static bool is_input(size_t i)
{
	return i == 0;
}

static void launch_here(struct control_connection *c, const struct process_launch *l)
{
	struct control *control = c->control;
	char text[128];
	const char *why = membership_refusal(control->n.membership, rpc_self(control->n.rpc), text,
					     sizeof(text));
	pid_t app;
	int r;

	if (why)
		return control_fail(c, RPC_DOWN, "%s: see ssi-nodes", why);
	r = process_launch(control->n.process, l, &app);
	if (r != 0)
		return control_fail(c, RPC_FAILED, "%s could not be started: %s", l->argv[0],
				    r < 0 ? strerror(-r) : "no process could be made");
	for (size_t i = 0; i < 3; i++)
		if (l->stdio[i] >= 0 && !l->report &&
		    console_add(control->n.console, app, l->stdio[i], is_input(i)) != 0)
			log_warning("process %d: descriptor %zu will not follow it", app, i);
	control_started(c, app, rpc_self(control->n.rpc));
}

/* The role of our end of descriptor @i's stream: @near is ssi-run's side. */
static enum stream_role role_of(size_t i, bool near)
{
	return is_input(i) == near ? STREAM_READER : STREAM_WRITER;
}

static void close_streams(struct control *control, const stream_id streams[static 3], bool near)
{
	for (size_t i = 0; i < 3; i++)
		if (streams[i])
			(void)stream_close(control->n.stream, streams[i], role_of(i, near));
}

static void on_launched(void *owner, const struct rpc_result *result)
{
	struct remote_launch *r = owner;
	struct control_connection *c = r->connection;
	const Ssi__Control__LaunchReply *reply = (const void *)result->reply;

	/* Streams to a program that did not start are closed; a program whose tool is gone
	 * sees its pipes break. */
	if (result->status != RPC_OK || !c->control)
		close_streams(r->control, r->streams, true);
	if (control_release(c)) {
		if (result->status == RPC_OK)
			control_started(c, reply->pid, r->node);
		else
			control_fail(c, result->status, "%s", result->text);
	}
	free(r);
}

/* The near ends: what the program reads there, we read here from ssi-run's pipe. */
static int open_streams(struct control *control, node_id peer, int stdio[static 3],
			stream_id ret[static 3])
{
	for (size_t i = 0; i < 3; i++) {
		stream_id id;
		int r;

		if (stdio[i] < 0)
			continue;
		id = stream_new_id(control->n.stream);
		r = stream_open(control->n.stream, id, role_of(i, true), peer, TAKE_FD(stdio[i]),
				0, NULL, 0);
		if (r != 0)
			return r;
		ret[i] = id;
	}
	return 0;
}

static void launch_there(struct control_connection *c, struct process_launch *l,
			 Ssi__Control__Terminal *terminal, node_id node)
{
	Ssi__Control__LaunchRequest q = SSI__CONTROL__LAUNCH_REQUEST__INIT;
	struct remote_launch *r = calloc(1, sizeof(*r));
	_cleanup_free_ uint8_t *packed = NULL;
	int result;

	if (!r)
		return control_fail(c, RPC_FAILED, "out of memory");
	*r = (struct remote_launch){ .connection = c, .control = c->control, .node = node };
	result = process_launch_pack(l, &packed, &q.launch.len);
	if (result == 0)
		result = open_streams(c->control, node, l->stdio, r->streams);
	q.launch.data = packed;
	q.streams = r->streams;
	q.n_streams = N_ELEMENTS(r->streams);
	q.terminal = terminal;
	if (result == 0)
		result = rpc_call(c->control->n.rpc, node, CONTROL_LAUNCH, &q.base, RPC_NO_BULK,
				  LAUNCH_TIMEOUT, on_launched, r, NULL);
	if (result != 0) {
		close_streams(c->control, r->streams, true);
		free(r);
		return control_fail(c, RPC_FAILED, "%s could not be started: %s", l->argv[0],
				    strerror(-err_fold(result)));
	}
	control_hold(c);
}

void control_on_run(struct control_connection *c, const Ssi__Control__RunRequest *q)
{
	struct process_launch l = { .stdio = { -1, -1, -1 } };
	enum rpc_status status;
	char text[256];
	node_id node;

	status = launch_of(c, q, &l);
	if (!process_name_ok(q->app)) {
		control_fail(c, RPC_USAGE,
			     "an application's name is a letter, and up to %zu letters, digits and "
			     "any of ._+~- behind it",
			     sizeof(struct process_name) - 2);
	} else if (status != RPC_OK) {
		control_fail(c, status, "the request to run makes no sense");
	} else {
		status = place_choose(c->control->n.membership, rpc_self(c->control->n.rpc),
				      q->nodes, q->n_nodes, q->best, &node, text, sizeof(text));
		if (status != RPC_OK)
			control_fail(c, status, "%s", text);
		else if (node == rpc_self(c->control->n.rpc) && !q->terminal)
			launch_here(c, &l);
		else
			launch_there(c, &l, q->terminal, node);
	}
	launch_fini(&l);
}

void control_on_wait(struct control_connection *c, const Ssi__Control__WaitRequest *q)
{
	wait_for(c, q->app);
}

static void on_signalled(void *owner, enum rpc_status status, const char *text)
{
	struct control_connection *c = owner;
	Ssi__Control__Done done = SSI__CONTROL__DONE__INIT;
	Ssi__Control__Event event = SSI__CONTROL__EVENT__INIT;

	if (!control_release(c))
		return;
	if (status != RPC_OK)
		return control_fail(c, status, "%s", text);
	event.body_case = SSI__CONTROL__EVENT__BODY_DONE;
	event.done = &done;
	control_send(c, &event, true);
}

void control_on_signal(struct control_connection *c, const Ssi__Control__SignalRequest *q)
{
	if (q->pid <= 0 || q->signal < 0 || q->signal >= _NSIG)
		return control_fail(c, RPC_USAGE, "no such process or signal");
	control_hold(c);
	if (process_signal(c->control->n.process, q->pid, q->signal, &c->caller, on_signalled,
			   c) != 0)
		on_signalled(c, RPC_FAILED, "the signal could not be sent");
}

static struct winsize size_of(const Ssi__Control__Window *w)
{
	return (struct winsize){(uint16_t)w->rows, (uint16_t)w->columns,
				(uint16_t)w->x_pixels, (uint16_t)w->y_pixels};
}

static void on_resized(void *owner, const struct rpc_result *result)
{
	on_signalled(owner, result->status, result->text);
}

void control_on_resize(struct control_connection *c,
		       const Ssi__Control__ResizeRequest *q)
{
	_cleanup_close_ int pipe = control_take_fd(c, 0);
	struct stream_info info;
	struct winsize size;
	struct stat st;

	if (pipe < 0 || fstat(pipe, &st) < 0 || !q->window)
		return control_fail(c, RPC_USAGE,
				    "the request to resize makes no sense");
	if (stream_by_pipe(c->control->n.stream, st.st_ino, STREAM_READER, &info) != 0)
		return control_fail(c, RPC_NOT_FOUND, "no terminal at this pipe");
	size = size_of(q->window);
	control_hold(c);
	if (stream_resize(c->control->n.stream, info.id, &size, on_resized, c) != 0)
		on_signalled(c, RPC_FAILED, "the terminal could not be asked");
}

/* The launching node's far side. */

/* False: not the modes of a terminal. */
static bool modes_of(const Ssi__Control__Modes *m, struct termios *ret)
{
	struct termios modes = {.c_iflag = m->input,
				.c_oflag = m->output,
				.c_cflag = m->control,
				.c_lflag = m->local};

	if (m->characters.len != sizeof(modes.c_cc))
		return false;
	memcpy(modes.c_cc, m->characters.data, sizeof(modes.c_cc));
	*ret = modes;
	return true;
}

/* Both streams of a terminal, whose other side is the program's. */
static int open_far_terminal(struct control *control,
			     const Ssi__Control__LaunchRequest *q, node_id peer,
			     struct process_launch *l, stream_id opened[static 2])
{
	struct terminal_setup setup = {.owner = l->caller.uid,
				       .size = size_of(q->terminal->window)};
	_cleanup_close_ int master = -1;
	int r;

	setup.has_modes =
		q->terminal->modes && modes_of(q->terminal->modes, &setup.modes);
	r = stream_terminal_make(control->n.stream, &setup, &master, &l->terminal);
	if (r < 0)
		return r;
	l->on_terminal = bits_of(q->terminal);
	for (size_t i = 0; i < 2; i++) {
		int fd = fcntl(master, F_DUPFD_CLOEXEC, 0);

		r = fd < 0 ? err_origin(-errno)
			   : stream_open(control->n.stream, q->streams[i],
					 role_of(i, false), peer, fd, 0, NULL, 0);
		if (r != 0)
			return r;
		opened[i] = q->streams[i];
	}
	return 0;
}

/* One pipe: the program's end in *ret_program, the other is an end of stream @id. */
static int open_far_end(struct control *control, stream_id id, node_id peer, bool input,
			int *ret_program)
{
	int p[2], r;

	if (pipe2(p, O_CLOEXEC) < 0)
		return err_origin(-errno);
	r = stream_open(control->n.stream, id, input ? STREAM_WRITER : STREAM_READER, peer,
			p[input], 0, NULL, 0);
	if (r != 0) {
		close_fd(p[!input]);
		return r;
	}
	*ret_program = p[!input];
	return 0;
}

/* What it reads and writes there, into @l; the streams that stand, into @opened. */
static int open_far(struct control *control, const Ssi__Control__LaunchRequest *q,
		    node_id peer, struct process_launch *l, stream_id opened[static 3])
{
	size_t i = 0;
	int r = 0;

	if (q->terminal) {
		r = open_far_terminal(control, q, peer, l, opened);
		i = 2;
	}
	for (; r == 0 && i < 3; i++) {
		if (!q->streams[i])
			continue;
		r = open_far_end(control, q->streams[i], peer, is_input(i),
				 &l->stdio[i]);
		if (r == 0)
			opened[i] = q->streams[i];
	}
	return r;
}

void control_serve_launch(struct control *control, struct rpc_call *call,
			  const Ssi__Control__LaunchRequest *q)
{
	Ssi__Control__LaunchReply reply = SSI__CONTROL__LAUNCH_REPLY__INIT;
	_cleanup_(process_launch_freep) struct process_launch *l = NULL;
	char trouble[CONTROL_TROUBLE_MAX];
	stream_id opened[3] = { 0 };
	char text[128];
	const char *why;
	pid_t app;
	int r;

	why = membership_refusal(control->n.membership, rpc_self(control->n.rpc), text,
				 sizeof(text));
	if (why)
		return rpc_fail(call, RPC_DOWN, "%s: see ssi-nodes", why);
	if (q->n_streams != 3 || (q->terminal && !q->terminal->window) ||
	    process_launch_unpack(&l, q->launch.data, q->launch.len) != 0)
		return rpc_fail(call, RPC_USAGE, "not a launch");
	if (!control->n.process)
		return rpc_fail(call, RPC_DOWN, "a witness runs no programs");
	if (control_may_not_start(control, trouble))
		return rpc_fail(call, RPC_DOWN, "%s", trouble);
	r = open_far(control, q, rpc_call_peer(call), l, opened);
	if (r != 0) {
		close_streams(control, opened, false);
		return rpc_fail(call, RPC_FAILED, "its standard streams: %s",
				strerror(-err_fold(r)));
	}
	r = process_launch(control->n.process, l, &app);
	if (r != 0) {
		close_streams(control, opened, false);
		return rpc_fail(call, RPC_FAILED, "no process could be made: %s",
				strerror(-err_fold(r)));
	}
	if (q->terminal)
		(void)stream_terminal_leads(control->n.stream, opened[1], app);
	reply.pid = app;
	rpc_reply(call, &reply.base, RPC_NO_BULK);
}
