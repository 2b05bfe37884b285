/* ssi-checkpoint(1): save running applications; list, inspect and remove what was saved. */
#include "application.h"
#include "cleanup.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char help[] =
	"Usage: ssi-checkpoint [OPTION]... PID|APP\n"
	"  or:  ssi-checkpoint --list | --inspect NAME | --rm NAME\n"
	"Save process PID and all below it, or the application called APP, so that\n"
	"ssi-restart can revive it, here or on another node.\n"
	"\n"
	"  -c, --leave-running   it goes on afterwards (the default)\n"
	"  -k, --kill            it is killed when everything is saved\n"
	"      --dir DIR         where checkpoints are (/shared/checkpoints)\n"
	"  -d, --description T   a line to remember it by\n"
	"  -l, --list            the checkpoints there are\n"
	"      --inspect NAME    what NAME holds, and whether it is sound\n"
	"      --rm NAME         remove NAME\n";

static const struct option options[] = {
	{ "leave-running", no_argument, NULL, 'c' },
	{ "kill", no_argument, NULL, 'k' },
	{ "dir", required_argument, NULL, 'D' },
	{ "description", required_argument, NULL, 'd' },
	{ "list", no_argument, NULL, 'l' },
	{ "inspect", required_argument, NULL, 'i' },
	{ "rm", required_argument, NULL, 'r' },
	{ 0 },
};

static const struct session_column columns[] = {
	{ "NAME", 0, 0, SCOLS_JSON_STRING },
	{ "APP", 0, SCOLS_FL_RIGHT, SCOLS_JSON_NUMBER },
	{ "ROOT", 0, SCOLS_FL_RIGHT, SCOLS_JSON_NUMBER },
	{ "NODE", 0, 0, SCOLS_JSON_STRING },
	{ "USER", 0, SCOLS_FL_RIGHT, SCOLS_JSON_NUMBER },
	{ "TAKEN", 0, 0, SCOLS_JSON_STRING },
	{ "SIZE", 0, SCOLS_FL_RIGHT, SCOLS_JSON_NUMBER },
	{ "COMMAND", 0, SCOLS_FL_TRUNC, SCOLS_JSON_STRING },
	{ "DESCRIPTION", 0, 0, SCOLS_JSON_STRING },
	{ "PROBLEM", 0, 0, SCOLS_JSON_STRING },
};

static struct {
	bool kill, browse;
	Ssi__Control__CheckpointsRequest__What what;
	char *name, *directory, *description;
} arguments = { .name = "", .directory = "", .description = "" };

static void browse(Ssi__Control__CheckpointsRequest__What what, const char *name)
{
	if (arguments.browse)
		session_usage("one of --list, --inspect and --rm at a time");
	arguments.browse = true;
	arguments.what = what;
	arguments.name = name ? (char *)name : "";
}

static void on_option(int val, const char *argument)
{
	switch (val) {
	case 'c':
		arguments.kill = false;
		break;
	case 'k':
		arguments.kill = true;
		break;
	case 'D':
		arguments.directory = (char *)argument;
		break;
	case 'd':
		arguments.description = (char *)argument;
		break;
	case 'l':
		browse(SSI__CONTROL__CHECKPOINTS_REQUEST__WHAT__LIST, NULL);
		break;
	case 'i':
		browse(SSI__CONTROL__CHECKPOINTS_REQUEST__WHAT__INSPECT, argument);
		break;
	case 'r':
		browse(SSI__CONTROL__CHECKPOINTS_REQUEST__WHAT__REMOVE, argument);
		break;
	}
}

static ProtobufCBinaryData directory(void)
{
	char *d = arguments.directory;

	if (*d && *d != '/') {
		d = realpath(d, NULL);
		if (!d)
			session_exit(EXIT_NOT_FOUND, "%s: %m", arguments.directory);
	}
	return (ProtobufCBinaryData){ strlen(d), (uint8_t *)d };
}

static int save(const struct session_options *o, const char *pid)
{
	Ssi__Control__CheckpointRequest body = SSI__CONTROL__CHECKPOINT_REQUEST__INIT;
	Ssi__Control__Request q = SSI__CONTROL__REQUEST__INIT;
	struct session_options patient = *o;
	struct session *s;
	Ssi__Control__Event *event;
	const Ssi__Control__Saved *saved;

	body.pid = application_pid(o, pid);
	body.kill = arguments.kill;
	body.directory = directory();
	body.description = arguments.description;
	body.timeout_ms = (uint32_t)o->timeout_ms;
	q.body_case = SSI__CONTROL__REQUEST__BODY_CHECKPOINT;
	q.checkpoint = &body;
	/* ssid keeps the time, and undoes; we only wait for its word. */
	patient.timeout_ms = o->timeout_ms ? o->timeout_ms + 20000 : 0;
	s = session_open(&patient);
	event = session_ask(s, &q);
	session_close(s);
	if (!event)
		session_exit(EXIT_DOWN, "ssid went away while process %s was being saved: ssi-checkpoint "
					"--list tells whether it was; if not, it runs on",
			     pid);
	if (event->body_case != SSI__CONTROL__EVENT__BODY_SAVED)
		session_exit(EXIT_FAILED, "ssid answered something else");
	saved = event->saved;
	if (o->json)
		printf("{\"version\":1,\"name\":\"%s\",\"bytes\":%" PRIu64 ",\"frozen_ms\":%.3f}\n",
		       saved->name, saved->bytes, (double)saved->frozen_ns / 1e6);
	else if (o->quiet)
		printf("%s\n", saved->name);
	else
		printf("%s saved as %s: %.1f MiB in %.*s, frozen for %.0f ms%s\n", pid, saved->name,
		       (double)saved->bytes / (1 << 20), (int)saved->directory.len,
		       (const char *)saved->directory.data, (double)saved->frozen_ns / 1e6,
		       arguments.kill ? ", and killed" : "");
	ssi__control__event__free_unpacked(event, NULL);
	return EXIT_OK;
}

static void show(const struct session_options *o, struct libscols_table *t,
		 const Ssi__Control__Checkpoint *c)
{
	struct libscols_line *l = session_line(t);
	time_t taken = (time_t)(c->taken_ns / 1000000000);
	char when[32] = "";
	struct tm tm;

	if (taken && localtime_r(&taken, &tm))
		(void)strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
	session_cell(l, 0, "%s", c->name);
	session_cell(l, 1, "%d", c->app);
	session_cell(l, 2, "%d", c->root);
	session_cell(l, 3, "%s", c->node);
	session_cell(l, 4, "%u", c->uid);
	session_cell(l, 5, "%s", when);
	session_cell_bytes(o, l, 6, c->bytes);
	session_cell(l, 7, "%s", c->command);
	session_cell(l, 8, "%s", c->description);
	session_cell(l, 9, "%s", c->problem);
}

static int look(const struct session_options *o)
{
	Ssi__Control__CheckpointsRequest body = SSI__CONTROL__CHECKPOINTS_REQUEST__INIT;
	Ssi__Control__Request q = SSI__CONTROL__REQUEST__INIT;
	const bool inspect = arguments.what == SSI__CONTROL__CHECKPOINTS_REQUEST__WHAT__INSPECT;
	struct session *s = session_open(o);
	struct libscols_table *t;
	Ssi__Control__Event *event;
	int code = EXIT_OK;

	body.what = arguments.what;
	body.name = arguments.name;
	body.directory = directory();
	q.body_case = SSI__CONTROL__REQUEST__BODY_CHECKPOINTS;
	q.checkpoints = &body;
	event = session_call(s, &q);
	session_close(s);
	if (event->body_case != SSI__CONTROL__EVENT__BODY_CHECKPOINTS)
		session_exit(EXIT_FAILED, "ssid answered something else");
	if (arguments.what == SSI__CONTROL__CHECKPOINTS_REQUEST__WHAT__REMOVE)
		return EXIT_OK;
	t = session_table(o, "checkpoints", columns, N_ELEMENTS(columns));
	for (size_t i = 0; i < event->checkpoints->n_checkpoints; i++) {
		const Ssi__Control__Checkpoint *c = event->checkpoints->checkpoints[i];

		show(o, t, c);
		if (inspect && !o->json)
			printf("%s\n", c->text);
		if (inspect && *c->problem)
			code = EXIT_FAILED;
	}
	session_print(t);
	ssi__control__event__free_unpacked(event, NULL);
	return code;
}

int main(int argc, char **argv)
{
	struct session_options o;
	int first = session_options(argc, argv, "ckd:l", options, help, on_option, &o);

	if (arguments.browse && first != argc)
		session_usage("%s: no operand is wanted here", argv[first]);
	if (arguments.browse)
		return look(&o);
	if (argc - first != 1)
		session_usage("one PID, or the name of an application, is needed");
	return save(&o, argv[first]);
}
