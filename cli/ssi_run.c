/*
 * ssi-run(1): start a program in the cluster.
 *
 * The program gets pipes for its standard streams, or a terminal of its own if we have
 * one; we hold the other ends of pipes and pass bytes on, so it may move while we stay.
 * ssid may be restarted meanwhile: the pipes do not notice, and we ask the next one how
 * the program ended.
 */
#include "cleanup.h"
#include "program.h"
#include "terminal.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

static const char help[] =
	"Usage: ssi-run [OPTION]... PROGRAM [ARGUMENT]...\n"
	"Start PROGRAM in the cluster; exit with its exit status (128 + n if signal n\n"
	"ended it, 127 if it was not found, 126 if it could not be started).\n"
	"\n"
	"  -b, --bg            do not wait for its end; its standard streams are /dev/null\n"
	"  -o, --output FILE   write the application's id (the PID of PROGRAM) to "
	"FILE\n"
	"      --node NODE     start it on NODE\n"
	"      --nodes A,B,... start it on the first of these that is up\n"
	"      --best          start it on the least loaded node (of --nodes, if "
	"given)\n"
	"      --spread        programs that it starts may begin on other nodes\n"
	"      --app NAME      a name for the application, for ssi-ps and others\n"
	"  -t, --tty           give it a terminal, also when there is none here\n"
	"  -T, --no-tty        give it pipes, also when there is a terminal here\n";

static const struct option options[] = {
	{"bg", no_argument, NULL, 'b'},
	{"output", required_argument, NULL, 'o'},
	{"node", required_argument, NULL, 'n'},
	{"nodes", required_argument, NULL, 'N'},
	{"best", no_argument, NULL, 'B'},
	{"spread", no_argument, NULL, 's'},
	{"app", required_argument, NULL, 'a'},
	{"tty", no_argument, NULL, 't'},
	{"no-tty", no_argument, NULL, 'T'},
	{0},
};

enum { NODES_MAX = 1024 };

static struct {
	bool background, best, spread, tty, no_tty;
	const char *id_path;
	FILE *id_file;
	char *app;
	char *nodes[NODES_MAX];
	size_t n_nodes;
} arguments = { .app = "" };

static void add_nodes(char *list)
{
	if (!list[strspn(list, ",")])
		session_usage("no node is named");
	for (char *name = strtok(list, ","); name; name = strtok(NULL, ",")) {
		if (arguments.n_nodes == NODES_MAX)
			session_usage("too many nodes");
		arguments.nodes[arguments.n_nodes++] = name;
	}
}

static void on_option(int val, const char *argument)
{
	switch (val) {
	case 'b':
		arguments.background = true;
		break;
	case 'o':
		arguments.id_path = argument;
		break;
	case 'n':
	case 'N':
		add_nodes((char *)argument);
		break;
	case 'B':
		arguments.best = true;
		break;
	case 's':
		arguments.spread = true;
		break;
	case 't':
	case 'T':
		arguments.tty = val == 't';
		arguments.no_tty = val == 'T';
		break;
	case 'a':
		arguments.app = (char *)argument;
		break;
	}
}

static ProtobufCBinaryData *binaries(char **v, size_t *ret_n)
{
	ProtobufCBinaryData *list;
	size_t n = 0;

	while (v[n])
		n++;
	list = calloc(n + 1, sizeof(*list));
	if (!list)
		session_exit(EXIT_FAILED, "out of memory");
	for (size_t i = 0; i < n; i++)
		list[i] = (ProtobufCBinaryData){ strlen(v[i]), (uint8_t *)v[i] };
	*ret_n = n;
	return list;
}

static void fill_limits(Ssi__Control__RunRequest *q)
{
	static Ssi__Control__Limit limits[RLIM_NLIMITS], *list[RLIM_NLIMITS];

	for (int i = 0; i < RLIM_NLIMITS; i++) {
		struct rlimit l;

		if (getrlimit(i, &l) < 0)
			continue;
		ssi__control__limit__init(&limits[i]);
		limits[i].resource = (uint32_t)i;
		limits[i].soft = l.rlim_cur;
		limits[i].hard = l.rlim_max;
		list[q->n_limits++] = &limits[i];
	}
	q->limits = list;
}

static bool wants_terminal(void)
{
	if (arguments.no_tty)
		return false;
	if (arguments.tty)
		return true;
	/* A job in the background would be stopped when it makes the terminal raw. */
	return isatty(0) && isatty(1) &&
	       (tcgetpgrp(0) < 0 || tcgetpgrp(0) == getpgrp());
}

static void fill_streams(Ssi__Control__RunRequest *q, int ret[static 3], size_t *ret_n)
{
	static Ssi__Control__Terminal terminal = SSI__CONTROL__TERMINAL__INIT;

	if (arguments.background) {
		q->report = true;
		q->pipes = program_report(ret, ret_n);
		return;
	}
	if (!wants_terminal()) {
		q->pipes = program_pipes(true, ret, ret_n);
		return;
	}
	terminal.errors = arguments.tty || isatty(2);
	terminal_describe(&terminal);
	q->terminal = &terminal;
	q->pipes = program_terminal(terminal.errors, ret, ret_n);
}

static void send_run(struct session *s, char **argv)
{
	Ssi__Control__RunRequest body = SSI__CONTROL__RUN_REQUEST__INIT;
	Ssi__Control__Request q = SSI__CONTROL__REQUEST__INIT;
	_cleanup_free_ char *cwd = getcwd(NULL, 0);
	mode_t mask = umask(0);
	int fds[3];
	size_t n_fds;

	(void)umask(mask);
	errno = 0;
	body.nice = getpriority(PRIO_PROCESS, 0);
	body.argv = binaries(argv, &body.n_argv);
	body.envp = binaries(environ, &body.n_envp);
	body.cwd.data = (uint8_t *)(cwd ? cwd : "/");
	body.cwd.len = cwd ? strlen(cwd) : 1;
	body.app = arguments.app;
	body.umask = mask;
	body.nodes = arguments.nodes;
	body.n_nodes = arguments.n_nodes;
	body.best = arguments.best;
	body.spread = arguments.spread;
	fill_limits(&body);
	fill_streams(&body, fds, &n_fds);
	q.body_case = SSI__CONTROL__REQUEST__BODY_RUN;
	q.run = &body;
	session_send(s, &q, fds, n_fds);
	for (size_t i = 0; i < n_fds; i++)
		close_fd(fds[i]);
	free(body.argv);
	free(body.envp);
}

/* Before the program starts: it is not to run with nobody who knows its id. */
static void open_id_file(void)
{
	if (!arguments.id_path)
		return;
	arguments.id_file = fopen(arguments.id_path, "we");
	if (!arguments.id_file)
		session_exit(errno == EACCES ? EXIT_NOT_PERMITTED : EXIT_FAILED, "%s: %m",
			     arguments.id_path);
}

static void tell_id(int32_t pid)
{
	FILE *f = arguments.id_file;

	if (f && (fprintf(f, "%d\n", pid) < 0 || fclose(f) != 0))
		session_exit(EXIT_FAILED, "%s: %m (the application runs, its id is %d)",
			     arguments.id_path, pid);
}

int main(int argc, char **argv)
{
	struct session_options o;
	struct session *s;
	int32_t pid;
	int status;
	int first = session_options(argc, argv, "+bo:tT", options, help, on_option, &o);

	if (first == argc)
		session_usage("a program is needed");
	if (arguments.background && arguments.tty)
		session_usage("a program in the background has no terminal");
	s = session_open(&o);
	open_id_file();
	send_run(s, argv + first);
	pid = program_await_start(s);
	tell_id(pid);
	if (!arguments.background)
		return program_follow(&o, s, pid);
	if (!program_executed(&o, s, pid, &status))
		return status;
	if (!o.quiet)
		printf("%d\n", pid);
	return EXIT_OK;
}
