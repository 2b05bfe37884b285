/* ssi-migrate(1): move a running process. */
#include "application.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char help[] =
	"Usage: ssi-migrate [OPTION]... PID|APP NODE\n"
	"Move process PID, with its children, or the application called APP to NODE while\n"
	"it runs.  May be given on any node.  What you may kill you may move.\n"
	"\n"
	"  -n, --dry-run       only say whether it could be moved, and what that would cost\n"
	"      --explain       the same, and what becomes of each thing that it holds\n"
	"      --max-downtime MS  not if it would stand still for longer than MS milliseconds\n";

enum { OPT_EXPLAIN = 256, OPT_MAX_DOWNTIME };

static const struct option options[] = {
	{ "dry-run", no_argument, NULL, 'n' },
	{ "explain", no_argument, NULL, OPT_EXPLAIN },
	{ "max-downtime", required_argument, NULL, OPT_MAX_DOWNTIME },
	{ 0 },
};

static const struct session_column columns[] = {
	{ "PID", 0, SCOLS_FL_RIGHT, SCOLS_JSON_NUMBER },
	{ "WHAT", 0, 0, SCOLS_JSON_STRING },
	{ "IS", 0, 0, SCOLS_JSON_STRING },
	{ "FATE", 0, 0, SCOLS_JSON_STRING },
	{ "WHY", 0, SCOLS_FL_WRAP, SCOLS_JSON_STRING },
};

static bool dry_run, explain;
static uint32_t max_downtime_ms;

static void on_option(int val, const char *argument)
{
	if (val == OPT_MAX_DOWNTIME) {
		max_downtime_ms = (uint32_t)session_number(argument, 1000000000,
							   "number of milliseconds");
		if (!max_downtime_ms)
			session_usage("a process that moves stands still for some milliseconds");
		return;
	}
	dry_run = true;
	explain |= val == OPT_EXPLAIN;
}

static void show_things(const struct session_options *o, const Ssi__Control__Forecast *f)
{
	struct libscols_table *t =
		session_table(o, "things", columns, sizeof(columns) / sizeof(columns[0]));

	for (size_t i = 0; i < f->n_things; i++) {
		struct libscols_line *l = session_line(t);

		session_cell(l, 0, "%d", f->things[i]->pid);
		session_cell(l, 1, "%s", f->things[i]->what);
		session_cell(l, 2, "%s", f->things[i]->is);
		session_cell(l, 3, "%s", f->things[i]->fate);
		session_cell(l, 4, "%s", f->things[i]->why);
	}
	session_print(t);
	if (f->more)
		session_error("%" PRIu64 " more are not shown", f->more);
}

static void print_member(const char *name, const char *text)
{
	printf(",\"%s\":", name);
	session_json_string(text);
}

static void show_json(const Ssi__Control__MigrateRequest *q, const Ssi__Control__Moved *m)
{
	const Ssi__Control__Forecast *f = m->forecast;

	printf("{\"version\":1,\"pid\":%d,\"from\":\"%s\",\"to\":\"%s\",\"dry_run\":%s,"
	       "\"frozen_ms\":%.3f,\"bytes\":%" PRIu64,
	       q->pid, m->from, q->node, q->dry_run ? "true" : "false",
	       (double)m->frozen_ns / 1e6, m->bytes);
	if (f) {
		printf(",\"status\":%u", f->refused);
		print_member("why", f->why);
		printf(",\"from_moves\":%u,\"more\":%" PRIu64 ",\"things\":[", f->moves,
		       f->more);
		for (size_t i = 0; i < f->n_things; i++) {
			printf("%s{\"pid\":%d", i ? "," : "", f->things[i]->pid);
			print_member("what", f->things[i]->what);
			print_member("is", f->things[i]->is);
			print_member("fate", f->things[i]->fate);
			print_member("why", f->things[i]->why);
			printf("}");
		}
		printf("]");
	}
	printf("}\n");
}

static void show_forecast(const struct session_options *o, const Ssi__Control__MigrateRequest *q,
			  const Ssi__Control__Moved *m)
{
	const Ssi__Control__Forecast *f = m->forecast;

	if (explain)
		show_things(o, f);
	if (f->refused)
		return;
	printf("%d can be moved from %s to %s: some %.1f MiB to send, frozen for some %.0f ms, ",
	       q->pid, m->from, q->node, (double)m->bytes / (1 << 20), (double)m->frozen_ns / 1e6);
	if (f->moves)
		printf("going by the last %u move%s from %s\n", f->moves,
		       f->moves == 1 ? "" : "s", m->from);
	else
		printf("going by another machine, as none has left %s yet\n", m->from);
}

static void show(const struct session_options *o, const Ssi__Control__MigrateRequest *q,
		 const Ssi__Control__Moved *m)
{
	if (o->json)
		show_json(q, m);
	else if (o->quiet)
		return;
	else if (!m->from[0])
		printf("%d moved to %s; ssid was started anew meanwhile\n", q->pid, q->node);
	else if (strcmp(m->from, q->node) == 0)
		printf("%d is on %s already\n", q->pid, q->node);
	else if (m->forecast)
		show_forecast(o, q, m);
	else
		printf("%d moved from %s to %s: %.1f MiB, frozen for %.0f ms\n", q->pid, m->from,
		       q->node, (double)m->bytes / (1 << 20), (double)m->frozen_ns / 1e6);
}

int main(int argc, char **argv)
{
	Ssi__Control__MigrateRequest body = SSI__CONTROL__MIGRATE_REQUEST__INIT;
	Ssi__Control__Request q = SSI__CONTROL__REQUEST__INIT;
	struct session_options o;
	struct session *s;
	Ssi__Control__Event *event;
	int first = session_options(argc, argv, "n", options, help, on_option, &o);

	if (argc - first != 2)
		session_usage("a PID, or the name of an application, and a node are needed");
	body.pid = application_pid(&o, argv[first]);
	body.node = argv[first + 1];
	body.dry_run = body.explain = dry_run;
	body.timeout_ms = (uint32_t)o.timeout_ms;
	body.max_frozen_ms = max_downtime_ms;
	q.body_case = SSI__CONTROL__REQUEST__BODY_MIGRATE;
	q.migrate = &body;
	/* ssid keeps the time of a move, and undoes it; we only wait for its word. */
	o.timeout_ms = o.timeout_ms ? o.timeout_ms + 20000 : 0;
	s = session_open(&o);
	event = session_ask(s, &q);
	session_close(s);
	if (!event) {
		s = session_await(&o);
		body.follow = !dry_run;
		event = session_call(s, &q);
		session_close(s);
	}
	if (event->body_case != SSI__CONTROL__EVENT__BODY_MOVED)
		session_exit(EXIT_FAILED, "ssid answered something else");
	show(&o, &body, event->moved);
	if (event->moved->forecast && event->moved->forecast->refused)
		session_exit((int)event->moved->forecast->refused, "%s",
			     event->moved->forecast->why);
	ssi__control__event__free_unpacked(event, NULL);
	return EXIT_OK;
}
