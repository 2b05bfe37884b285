/* ssi-ps(1): the processes of the cluster's applications. */
#include "application.h"

#include <getopt.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
	"Usage: ssi-ps [OPTION]... [PID]...\n"
	"Show the processes that ssi-run started and their children, on all nodes.\n"
	"\n"
	"      --node NAME     of this node only (may be repeated)\n"
	"      --app PID|NAME  of this application only\n"
	"      --tree          children below their parents\n";

static const struct option options[] = {
	{ "node", required_argument, NULL, 'n' },
	{ "app", required_argument, NULL, 'a' },
	{ "tree", no_argument, NULL, 't' },
	{ 0 },
};

static struct session_column columns[] = {
	{ "PID", 0, SCOLS_FL_RIGHT, SCOLS_JSON_NUMBER },
	{ "PPID", 0, SCOLS_FL_RIGHT, SCOLS_JSON_NUMBER },
	{ "APP", 0, SCOLS_FL_RIGHT, SCOLS_JSON_NUMBER },
	{ "NODE", 0, 0, SCOLS_JSON_STRING },
	{ "HOME", 0, 0, SCOLS_JSON_STRING },
	{ "USER", 0, 0, SCOLS_JSON_STRING },
	{ "S", 0, 0, SCOLS_JSON_STRING },
	{ "THREADS", 0, SCOLS_FL_RIGHT, SCOLS_JSON_NUMBER },
	{ "RSS", 0, SCOLS_FL_RIGHT, SCOLS_JSON_NUMBER },
	{ "TIME", 0, SCOLS_FL_RIGHT, SCOLS_JSON_STRING },
	{ "NAME", 0, 0, SCOLS_JSON_STRING },
	{ "COMMAND", 0, SCOLS_FL_TRUNC, SCOLS_JSON_STRING },
};
enum { COMMAND = sizeof(columns) / sizeof(columns[0]) - 1 };

static char *nodes[1024];
static size_t n_nodes;
static int32_t app;
static const char *app_name;
static bool tree;

/* A process that is shown; of those, sorted by PID, its parent is one too, or it is a root. */
struct row {
	const Ssi__Control__Process *process;
	struct libscols_line *line;
	struct row *parent;
};

static void on_option(int val, const char *argument)
{
	if (val == 't') {
		tree = true;
		return;
	}
	if (val == 'a') {
		if (application_is_named(argument))
			app_name = argument;
		else
			app = (int32_t)session_number(argument, INT32_MAX, "PID");
		return;
	}
	if (n_nodes == sizeof(nodes) / sizeof(nodes[0]))
		session_usage("too many nodes");
	nodes[n_nodes++] = (char *)argument;
}

static bool wanted(const Ssi__Control__Process *p, char **pids, int n_pids)
{
	if ((app && p->app != app) || (app_name && strcmp(p->name, app_name) != 0))
		return false;
	for (int i = 0; i < n_pids; i++)
		if (p->pid == (int32_t)strtol(pids[i], NULL, 10))
			return true;
	return n_pids == 0;
}

static int by_pid(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

	return (x->process->pid > y->process->pid) - (x->process->pid < y->process->pid);
}

static struct libscols_line *show(const struct session_options *o, struct libscols_table *t,
				  const Ssi__Control__Process *p)
{
	struct libscols_line *l = session_line(t);
	unsigned long long s = p->cpu_ns / 1000000000;
	const struct passwd *user = getpwuid(p->uid);

	session_cell(l, 0, "%d", p->pid);
	session_cell(l, 1, "%d", p->ppid);
	session_cell(l, 2, "%d", p->app);
	session_cell(l, 3, "%s", p->node);
	session_cell(l, 4, "%s", p->home);
	if (user)
		session_cell(l, 5, "%s", user->pw_name);
	else
		session_cell(l, 5, "%u", p->uid);
	session_cell(l, 6, "%s", p->state);
	session_cell(l, 7, "%u", p->threads);
	session_cell_bytes(o, l, 8, p->rss_bytes);
	session_cell(l, 9, "%llu:%02llu:%02llu", s / 3600, s / 60 % 60, s % 60);
	session_cell(l, 10, "%s", p->name);
	session_cell(l, COMMAND, "%.*s", (int)p->command.len, (const char *)p->command.data);
	return l;
}

/*
 * The nodes answer one after the other, and PIDs come again: what they say together may
 * be a circle, which no family is.
 */
static bool is_below(const struct row *r, const struct row *of)
{
	while (r && r != of)
		r = r->parent;
	return r;
}

static void join_families(struct row *rows, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		Ssi__Control__Process parent = { .pid = rows[i].process->ppid };
		struct row key = { .process = &parent };
		struct row *p = bsearch(&key, rows, n, sizeof(*rows), by_pid);

		if (!p || is_below(p, &rows[i]))
			continue;
		rows[i].parent = p;
		if (scols_line_add_child(p->line, rows[i].line) < 0)
			session_exit(EXIT_FAILED, "out of memory");
	}
}

int main(int argc, char **argv)
{
	Ssi__Control__ProcessesRequest body = SSI__CONTROL__PROCESSES_REQUEST__INIT;
	Ssi__Control__Request q = SSI__CONTROL__REQUEST__INIT;
	struct session_options o;
	struct session *s;
	Ssi__Control__Event *event;
	struct libscols_table *t;
	int first = session_options(argc, argv, "", options, help, on_option, &o);
	struct row *rows;
	size_t shown = 0;

	for (int i = first; i < argc; i++)
		(void)session_number(argv[i], INT32_MAX, "PID");
	body.nodes = nodes;
	body.n_nodes = n_nodes;
	q.body_case = SSI__CONTROL__REQUEST__BODY_PROCESSES;
	q.processes = &body;
	s = session_open(&o);
	event = session_call(s, &q);
	session_close(s);
	if (event->body_case != SSI__CONTROL__EVENT__BODY_PROCESSES)
		session_exit(EXIT_FAILED, "ssid answered something else");
	if (tree)
		columns[COMMAND].flags |= SCOLS_FL_TREE;
	t = session_table(&o, "processes", columns, sizeof(columns) / sizeof(columns[0]));
	rows = calloc(event->processes->n_processes + 1, sizeof(*rows));
	if (!rows)
		session_exit(EXIT_FAILED, "out of memory");
	for (size_t i = 0; i < event->processes->n_processes; i++)
		if (wanted(event->processes->processes[i], argv + first, argc - first))
			rows[shown++].process = event->processes->processes[i];
	qsort(rows, shown, sizeof(*rows), by_pid);
	for (size_t i = 0; i < shown; i++)
		rows[i].line = show(&o, t, rows[i].process);
	if (tree)
		join_families(rows, shown);
	free(rows);
	session_print(t);
	if (event->processes->stale)
		session_error("this node has lost touch with the cluster: what is shown may be old");
	for (size_t i = 0; i < event->processes->n_silent; i++)
		session_error("node %s does not answer: its processes are not shown",
			      event->processes->silent[i]);
	ssi__control__event__free_unpacked(event, NULL);
	/* As ps(1): a PID that was asked for and is not there is a failure. */
	if (argc - first == 1 && !shown)
		session_exit(EXIT_NOT_FOUND, "no process %s there", argv[first]);
	if (first == argc && (app || app_name) && !shown)
		session_exit(EXIT_NOT_FOUND, "no such application there");
	if (first < argc && !shown)
		session_exit(EXIT_NOT_FOUND, "none of the given processes is there");
	return EXIT_OK;
}
