/*
 * A stream of events to a tool.
 *
 * Happy path: this node's own events are read from its ring, those that other nodes alone
 * know are asked of them, page by page; then "caught up" is said once; with `follow` it goes
 * on as they come, until the tool goes away.
 *
 * Failure modes: the tool does not read -> nothing is read for it either, and what leaves the
 * rings meanwhile is told as a gap; a node does not answer -> it is named as silent, and asked
 * again as long as it is up; ssid dies -> the tool goes on with the successor, from the
 * numbers that it has seen.
 */
#include "control_wire.h"

#include "err.h"

#include <string.h>

enum {
	BUFFERED_MAX = 256 << 10, /* bytes that the tool has not read yet */
	LOCAL_PAGE = 64,
};

static const nsec_t PAGE_WAIT = 10 * NSEC_PER_SEC;
static const nsec_t AGAIN = NSEC_PER_SEC;

/* A node whose events are read. */
struct source {
	LIST_ENTRY(source) entry;
	struct control_stream *stream;
	struct events_asking asking;
	node_id node;
	uint64_t after;
	bool caught_up;
	bool silent;
	bool rest; /* until `again`: it had nothing, or did not answer */
};

struct control_stream {
	struct control_connection *connection;
	struct events_watch watch;
	struct env_timer again;
	struct events_filter filter;
	LIST_HEAD(, source) sources;
	uint64_t start; /* for nodes that come later: from now on, or from the first */
	bool follow;
	bool caught_up; /* told */
};

static void pump(struct control_stream *s);

static struct control *room(const struct control_stream *s)
{
	return s->connection->control;
}

static bool is_own(const struct source *source)
{
	return source->node == rpc_self(room(source->stream)->n.rpc);
}

static bool tool_is_slow(const struct control_stream *s)
{
	return s->connection->ended || s->connection->failed ||
	       s->connection->out.len > BUFFERED_MAX;
}

static const char *name_of(const struct control_stream *s, node_id id)
{
	const struct membership_node *n = membership_node(room(s)->n.membership, id);

	return n ? n->name : "";
}

static void send_event(struct source *source, const struct event *e)
{
	struct control_stream *s = source->stream;
	Ssi__Control__Happened p = SSI__CONTROL__HAPPENED__INIT;
	Ssi__Control__Event event = SSI__CONTROL__EVENT__INIT;

	p.source = (char *)name_of(s, source->node);
	p.source_id = source->node;
	p.number = e->number;
	p.time_ns = e->time;
	p.epoch = e->epoch;
	p.type = (char *)event_type_name(e->type);
	p.node = (char *)name_of(s, e->node);
	p.to = (char *)name_of(s, e->to);
	p.pid = e->pid;
	p.app = e->app;
	p.uid = e->uid;
	p.code = e->code;
	p.status = e->status;
	p.frozen_ns = e->frozen;
	p.bytes = e->bytes;
	p.text = (char *)e->text;
	event.body_case = SSI__CONTROL__EVENT__BODY_HAPPENED;
	event.happened = &p;
	control_send(s->connection, &event, false);
}

/* It lies before what is there still. */
static void send_gap(struct source *source, uint64_t lost, const struct event *next)
{
	struct control_stream *s = source->stream;
	Ssi__Control__Happened p = SSI__CONTROL__HAPPENED__INIT;
	Ssi__Control__Event event = SSI__CONTROL__EVENT__INIT;

	p.source = (char *)name_of(s, source->node);
	p.source_id = source->node;
	p.time_ns = next ? next->time : env_realtime(room(s)->n.env);
	p.type = "gap";
	p.lost = lost;
	event.body_case = SSI__CONTROL__EVENT__BODY_HAPPENED;
	event.happened = &p;
	control_send(s->connection, &event, false);
}

static void take(struct source *source, const struct event *events, size_t n, uint64_t after,
		 uint64_t lost)
{
	if (lost)
		send_gap(source, lost, n ? events : NULL);
	for (size_t i = 0; i < n; i++)
		send_event(source, &events[i]);
	source->after = after;
	source->silent = false;
}

/* Other nodes' events. */

static void on_page(struct events_asking *asking, const struct events_page *page)
{
	struct source *source = container_of(asking, struct source, asking);
	bool nothing = page->status != RPC_OK || (!page->n && !page->lost);

	if (page->status == RPC_OK)
		take(source, page->events, page->n, page->after, page->lost);
	else
		source->silent = true;
	source->rest = nothing;
	source->caught_up = source->caught_up || nothing;
	pump(source->stream);
}

static void ask(struct source *source)
{
	struct control_stream *s = source->stream;
	nsec_t wait = source->caught_up ? PAGE_WAIT : 0;

	if (source->asking.request || source->rest || tool_is_slow(s) ||
	    (source->caught_up && !s->follow))
		return;
	source->asking.done = on_page;
	if (events_ask(room(s)->n.events, source->node, &s->filter, source->after, wait,
		       &source->asking) != 0) {
		source->silent = source->rest = source->caught_up = true;
	}
}

/* Our own. */

static void read_own(struct source *source)
{
	struct control_stream *s = source->stream;
	struct event events[LOCAL_PAGE];
	uint64_t lost, after = source->after;
	size_t n;

	while (!tool_is_slow(s) && !(source->caught_up && !s->follow)) {
		n = events_read(room(s)->n.events, &s->filter, &after, events, LOCAL_PAGE, &lost);
		take(source, events, n, after, lost);
		if (n == LOCAL_PAGE)
			continue;
		source->caught_up = true;
		return;
	}
}

static struct source *find_source(struct control_stream *s, node_id node)
{
	struct source *source;

	LIST_FOREACH(source, &s->sources, entry)
		if (source->node == node)
			return source;
	return NULL;
}

static bool all_caught_up(const struct control_stream *s)
{
	struct source *source;

	LIST_FOREACH(source, &s->sources, entry)
		if (!source->caught_up)
			return false;
	return true;
}

/* Lost, or it did not answer. */
static bool is_silent(struct control_stream *s, const struct membership_node *n)
{
	const struct source *source = find_source(s, n->id);

	return n->state == MEMBER_LOST || (source && source->silent);
}

static void say_caught_up(struct control_stream *s)
{
	const struct membership_view *view = membership_view(room(s)->n.membership);
	_cleanup_free_ char **silent = calloc(view->n_nodes + 1, sizeof(*silent));
	_cleanup_free_ Ssi__Control__EventCursor *cursors =
		calloc(view->n_nodes + 1, sizeof(*cursors));
	_cleanup_free_ Ssi__Control__EventCursor **list = calloc(view->n_nodes + 1, sizeof(*list));
	Ssi__Control__CaughtUp p = SSI__CONTROL__CAUGHT_UP__INIT;
	Ssi__Control__Event event = SSI__CONTROL__EVENT__INIT;

	if (!silent || !cursors || !list)
		return control_fail(s->connection, RPC_FAILED, "out of memory");
	for (size_t i = 0; i < view->n_nodes; i++) {
		const struct source *source = find_source(s, view->nodes[i].id);

		if (is_silent(s, &view->nodes[i]))
			silent[p.n_silent++] = (char *)view->nodes[i].name;
		if (!source)
			continue;
		list[p.n_cursors] = &cursors[p.n_cursors];
		ssi__control__event_cursor__init(list[p.n_cursors]);
		list[p.n_cursors]->node = source->node;
		list[p.n_cursors++]->number = source->after;
	}
	p.silent = silent;
	p.cursors = list;
	event.body_case = SSI__CONTROL__EVENT__BODY_CAUGHT_UP;
	event.caught_up = &p;
	s->caught_up = true;
	control_send(s->connection, &event, !s->follow);
}

/* As far as the tool reads. */
static void pump(struct control_stream *s)
{
	struct source *source;

	LIST_FOREACH(source, &s->sources, entry)
		if (is_own(source))
			read_own(source);
		else
			ask(source);
	if (!s->caught_up && !tool_is_slow(s) && all_caught_up(s))
		say_caught_up(s);
}

static void add_source(struct control_stream *s, node_id node, uint64_t after)
{
	struct source *source = find_source(s, node);

	if (!source)
		source = calloc(1, sizeof(*source));
	if (!source)
		return; /* again on the next turn of the timer */
	if (!source->stream)
		LIST_INSERT_HEAD(&s->sources, source, entry);
	source->stream = s;
	source->node = node;
	source->after = after;
}

static void remove_source(struct source *source)
{
	events_ask_cancel(&source->asking);
	LIST_REMOVE(source, entry);
	free(source);
}

/* Those that are up, and no others. */
static void match_view(struct control_stream *s)
{
	struct membership *m = room(s)->n.membership;
	const struct membership_view *view = membership_view(m);
	node_id self = rpc_self(room(s)->n.rpc);
	struct source *source, *next;

	for (size_t i = 0; i < view->n_nodes; i++)
		if ((membership_is_up(m, view->nodes[i].id) || view->nodes[i].id == self) &&
		    !find_source(s, view->nodes[i].id))
			add_source(s, view->nodes[i].id, s->start);
	for (source = LIST_FIRST(&s->sources); source; source = next) {
		next = LIST_NEXT(source, entry);
		/* What was read of one that is lost goes on when it is back: it is kept. */
		if (!membership_node(m, source->node))
			remove_source(source);
		else if (!membership_is_up(m, source->node) && !is_own(source))
			source->caught_up = source->rest = true;
		else
			source->rest = false;
	}
}

static void on_again(struct env_timer *timer)
{
	struct control_stream *s = container_of(timer, struct control_stream, again);

	match_view(s);
	(void)env_arm(room(s)->n.env, &s->again, AGAIN);
	pump(s);
}

static void on_events(struct events_watch *watch)
{
	pump(container_of(watch, struct control_stream, watch));
}

void control_on_events(struct control_connection *c, const Ssi__Control__EventsRequest *q)
{
	struct control_stream *s = calloc(1, sizeof(*s));

	if (!s || !membership_view(c->control->n.membership)) {
		free(s);
		return control_fail(c, s ? RPC_DOWN : RPC_FAILED,
				    s ? "this node has not been in the cluster yet: see ssi-nodes" :
					"out of memory");
	}
	s->connection = c;
	s->filter = (struct events_filter){ .uid = c->caller.uid,
					    .since = q->since_ns,
					    .since_epoch = q->since_epoch };
	s->follow = q->follow;
	s->start = q->from_now ? EVENTS_NOW : 0;
	s->watch.on_events = on_events;
	s->again.cb = on_again;
	LIST_INIT(&s->sources);
	c->stream = s;
	events_watch(c->control->n.events, &s->watch);
	for (size_t i = 0; i < q->n_cursors; i++)
		if (membership_node(c->control->n.membership, q->cursors[i]->node))
			add_source(s, q->cursors[i]->node, q->cursors[i]->number);
	match_view(s);
	if (env_arm(c->control->n.env, &s->again, AGAIN) < 0)
		return control_fail(c, RPC_FAILED, "out of memory");
	pump(s);
}

void control_stream_pump(struct control_connection *c)
{
	if (c->stream)
		pump(c->stream);
}

void control_stream_end(struct control_connection *c)
{
	struct control_stream *s = TAKE(c->stream);

	if (!s)
		return;
	events_unwatch(&s->watch);
	env_disarm(c->control->n.env, &s->again);
	while (!LIST_EMPTY(&s->sources))
		remove_source(LIST_FIRST(&s->sources));
	free(s);
}
