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
	"  -n, --dry-run       only say whether it could be moved\n";

static const struct option options[] = {
	{ "dry-run", no_argument, NULL, 'n' },
	{ 0 },
};

static bool dry_run;

static void on_option(int val, const char *argument)
{
	dry_run = true;
}

static void show(const struct session_options *o, const Ssi__Control__MigrateRequest *q,
		 const Ssi__Control__Moved *m)
{
	if (o->json)
		printf("{\"version\":1,\"pid\":%d,\"from\":\"%s\",\"to\":\"%s\",\"dry_run\":%s,"
		       "\"frozen_ms\":%.3f,\"bytes\":%" PRIu64 "}\n",
		       q->pid, m->from, q->node, q->dry_run ? "true" : "false",
		       (double)m->frozen_ns / 1e6, m->bytes);
	else if (o->quiet)
		return;
	else if (!m->from[0])
		printf("%d moved to %s; ssid was started anew meanwhile\n", q->pid, q->node);
	else if (strcmp(m->from, q->node) == 0)
		printf("%d is on %s already\n", q->pid, q->node);
	else if (q->dry_run)
		printf("%d can be moved from %s to %s\n", q->pid, m->from, q->node);
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
	body.dry_run = dry_run;
	body.timeout_ms = (uint32_t)o.timeout_ms;
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
	ssi__control__event__free_unpacked(event, NULL);
	return EXIT_OK;
}
