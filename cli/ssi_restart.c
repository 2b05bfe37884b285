/* ssi-restart(1): revive a saved application. */
#include "cleanup.h"
#include "program.h"
#include "session.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
	"Usage: ssi-restart [OPTION]... NAME\n"
	"Revive the checkpoint NAME (or the newest one of application NAME) under its old\n"
	"PIDs, and follow it as ssi-run does: its exit status is ours.\n"
	"\n"
	"      --on NODE       on NODE instead of here\n"
	"      --dir DIR       where checkpoints are (/shared/checkpoints)\n"
	"  -b, --bg            do not follow it; its pipes lead nowhere\n";

static const struct option options[] = {
	{ "on", required_argument, NULL, 'n' },
	{ "dir", required_argument, NULL, 'D' },
	{ "bg", no_argument, NULL, 'b' },
	{ 0 },
};

static struct {
	bool background;
	char *node, *directory;
} arguments = { .node = "", .directory = "" };

static void on_option(int val, const char *argument)
{
	switch (val) {
	case 'n':
		arguments.node = (char *)argument;
		break;
	case 'D':
		arguments.directory = realpath(argument, NULL);
		if (!arguments.directory)
			session_exit(EXIT_NOT_FOUND, "%s: %m", argument);
		break;
	case 'b':
		arguments.background = true;
		break;
	}
}

int main(int argc, char **argv)
{
	Ssi__Control__RestartRequest body = SSI__CONTROL__RESTART_REQUEST__INIT;
	Ssi__Control__Request q = SSI__CONTROL__REQUEST__INIT;
	struct session_options o;
	struct session *s;
	size_t n_fds;
	int32_t pid;
	int fds[3];
	int first = session_options(argc, argv, "b", options, help, on_option, &o);

	if (argc - first != 1)
		session_usage("the name of one checkpoint is needed: see ssi-checkpoint --list");
	body.name = argv[first];
	body.node = arguments.node;
	body.directory.data = (uint8_t *)arguments.directory;
	body.directory.len = strlen(arguments.directory);
	body.timeout_ms = (uint32_t)o.timeout_ms;
	body.pipes = program_pipes(!arguments.background, fds, &n_fds);
	q.body_case = SSI__CONTROL__REQUEST__BODY_RESTART;
	q.restart = &body;
	s = session_open(&o);
	session_send(s, &q, fds, n_fds);
	for (size_t i = 0; i < n_fds; i++)
		close_fd(fds[i]);
	pid = program_await_start(s);
	if (!o.quiet)
		fprintf(stderr, "%s: %d is back\n", program_invocation_short_name, pid);
	if (!arguments.background)
		return program_follow(&o, s, pid);
	session_close(s);
	return EXIT_OK;
}
