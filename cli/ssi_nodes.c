/* ssi-nodes(1): the nodes of the cluster. */
#include "nodes_problem.h"
#include "session.h"

#include "cleanup.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const char help[] =
	"Usage: ssi-nodes [OPTION]...\n"
	"Show the nodes of the cluster, their state and load.\n"
	"\n"
	"      --history       how the nodes have fared: losses, when, availability\n"
	"      --wait N        wait until N nodes are up\n";

static const struct option options[] = {
	{ "history", no_argument, NULL, 'H' },
	{ "wait", required_argument, NULL, 'w' },
	{ 0 },
};

static const struct session_column columns[] = {
	{ "ID", 0, SCOLS_FL_RIGHT, SCOLS_JSON_NUMBER },
	{ "NODE", 0, 0, SCOLS_JSON_STRING },
	{ "STATE", 0, 0, SCOLS_JSON_STRING },
	{ "ADDRESS", 0, 0, SCOLS_JSON_STRING },
	{ "CPUS", 0, SCOLS_FL_RIGHT, SCOLS_JSON_NUMBER },
	{ "LOAD", 0, SCOLS_FL_RIGHT, SCOLS_JSON_NUMBER },
	{ "MEMORY", 0, SCOLS_FL_RIGHT, SCOLS_JSON_NUMBER },
	{ "FREE", 0, SCOLS_FL_RIGHT, SCOLS_JSON_NUMBER },
	{ "ROLE", 0, 0, SCOLS_JSON_STRING },
	{ "SINCE", 0, 0, SCOLS_JSON_STRING },
};

static const struct session_column history_columns[] = {
	{ "ID", 0, SCOLS_FL_RIGHT, SCOLS_JSON_NUMBER },
	{ "NODE", 0, 0, SCOLS_JSON_STRING },
	{ "STATE", 0, 0, SCOLS_JSON_STRING },
	{ "SINCE", 0, 0, SCOLS_JSON_STRING },
	{ "LOSSES", 0, SCOLS_FL_RIGHT, SCOLS_JSON_NUMBER },
	{ "LOST", 0, 0, SCOLS_JSON_STRING },
	{ "UP", 0, 0, SCOLS_JSON_STRING },
	{ "LEFT", 0, 0, SCOLS_JSON_STRING },
	{ "AVAILABLE", 0, SCOLS_FL_RIGHT, SCOLS_JSON_NUMBER },
};

static const struct session_column problem_columns[] = {
	{ "NODE", 0, 0, SCOLS_JSON_STRING },
	{ "WHAT", 0, 0, SCOLS_JSON_STRING },
	{ "REMEDY", 0, 0, SCOLS_JSON_STRING },
};

enum { PROBLEMS_MAX = 64 };

static unsigned wait_for;
static bool history;

static void on_option(int val, const char *argument)
{
	if (val == 'H') {
		history = true;
		return;
	}
	wait_for = (unsigned)session_number(argument, 100000, "number of nodes");
}

/* What the node is to the cluster, and whether it is this one. */
static const char *role(const Ssi__Control__Node *n)
{
	static const char *const names[][2][2] = {
		{ { "", "here" }, { "witness", "witness, here" } },
		{ { "voter", "voter, here" }, { "voter, witness", "voter, witness, here" } },
		{ { "leader", "leader, here" }, { "leader, witness", "leader, witness, here" } },
	};

	return names[n->leader ? 2 : n->voter ? 1 : 0][n->witness][n->self];
}

/* Nothing is shown for what was not heard: no zeros. */
static void show_load(const struct session_options *o, struct libscols_line *l,
		      const Ssi__Control__Node *n)
{
	bool known = n->cpus != 0, now = known && strcmp(n->state, "up") == 0;

	if (known) {
		session_cell(l, 4, "%u", n->cpus);
		session_cell_bytes(o, l, 6, n->memory_total);
	}
	if (now) {
		session_cell(l, 5, "%u.%02u", n->running / 100, n->running % 100);
		session_cell_bytes(o, l, 7, n->memory_available);
	}
	for (size_t k = 4; !o->json && k <= 7; k++)
		if (k % 2 ? !now : !known)
			session_cell(l, k, "-");
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* A date for programs; how long ago for people. */
static void cell_time(const struct session_options *o, struct libscols_line *l, size_t column,
		      uint64_t ns, const char *suffix)
{
	time_t s = (time_t)(ns / 1000000000);
	char text[32] = "";
	struct tm tm;

	if (o->json && ns && gmtime_r(&s, &tm))
		(void)strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	else if (!o->json && ns)
		nodes_duration(ns, now_ns(), text);
	session_cell(l, column, "%s%s", text, text[0] && !o->json ? suffix : "");
}

/* On standard error: the table stays one that can be read by programs. */
static void tell_problems(const struct nodes_problem *p, size_t n)
{
	(void)fflush(stdout);
	for (size_t i = 0; i < n; i++)
		session_error("%s; %s", p[i].what, p[i].remedy);
}

static struct libscols_table *problem_table(const struct session_options *o,
					    const struct nodes_problem *p, size_t n)
{
	struct libscols_table *t =
		session_table(o, "problems", problem_columns, N_ELEMENTS(problem_columns));

	for (size_t i = 0; i < n; i++) {
		struct libscols_line *l = session_line(t);

		session_cell(l, 0, "%s", p[i].node);
		session_cell(l, 1, "%s", p[i].what);
		session_cell(l, 2, "%s", p[i].remedy);
	}
	return t;
}

static void show(const struct session_options *o, const Ssi__Control__Nodes *nodes)
{
	struct libscols_table *t = session_table(o, "nodes", columns, N_ELEMENTS(columns));
	static struct nodes_problem problems[PROBLEMS_MAX];
	size_t n_problems = nodes_problems(nodes, now_ns(), problems, PROBLEMS_MAX);

	for (size_t i = 0; i < nodes->n_nodes; i++) {
		const Ssi__Control__Node *n = nodes->nodes[i];
		struct libscols_line *l = session_line(t);

		session_cell(l, 0, "%u", n->id);
		session_cell(l, 1, "%s", n->name);
		/* As it knows of itself; the others call it lost. */
		session_cell(l, 2, "%s", n->self && nodes->frozen_ns ? "fenced" : n->state);
		session_cell(l, 3, "%s", n->address);
		show_load(o, l, n);
		session_cell(l, 8, "%s", role(n));
		cell_time(o, l, 9, n->since_ns, "");
	}
	session_print_with(t, problem_table(o, problems, n_problems));
	if (!o->quiet)
		tell_problems(problems, n_problems);
}

static void show_history(const struct session_options *o, const Ssi__Control__Nodes *nodes)
{
	struct libscols_table *t =
		session_table(o, "nodes", history_columns, N_ELEMENTS(history_columns));

	for (size_t i = 0; i < nodes->n_nodes; i++) {
		const Ssi__Control__Node *n = nodes->nodes[i];
		struct libscols_line *l = session_line(t);

		session_cell(l, 0, "%u", n->id);
		session_cell(l, 1, "%s", n->name);
		session_cell(l, 2, "%s", n->state);
		cell_time(o, l, 3, n->since_ns, "");
		session_cell(l, 4, "%u", n->losses);
		cell_time(o, l, 5, n->lost_ns, " ago");
		cell_time(o, l, 6, n->up_ns, " ago");
		cell_time(o, l, 7, n->left_ns, " ago");
		session_cell(l, 8, o->json ? "%u.%04u" : "%u.%04u%%", n->availability / 10000,
			     n->availability % 10000);
	}
	session_print(t);
	if (!o->quiet && !nodes->lease_held)
		session_error("this node has lost touch with the cluster: the list may be old");
}

/* How many are up for sure: 0 when what this node knows may be old. */
static unsigned count_up(const Ssi__Control__Nodes *nodes)
{
	unsigned n = 0;

	for (size_t i = 0; nodes->lease_held && i < nodes->n_nodes; i++)
		n += strcmp(nodes->nodes[i]->state, "up") == 0;
	return n;
}

static Ssi__Control__Event *ask(const struct session_options *o)
{
	Ssi__Control__NodesRequest body = SSI__CONTROL__NODES_REQUEST__INIT;
	Ssi__Control__Request q = SSI__CONTROL__REQUEST__INIT;

	q.body_case = SSI__CONTROL__REQUEST__BODY_NODES;
	q.nodes = &body;
	body.ask_around = !wait_for && !history;
	return session_once(o, &q, SSI__CONTROL__EVENT__BODY_NODES);
}

int main(int argc, char **argv)
{
	static const struct timespec pause = { .tv_nsec = 100000000 };
	struct session_options o;
	Ssi__Control__Event *event;
	uint64_t waited = 0;

	if (session_options(argc, argv, "", options, help, on_option, &o) != argc)
		session_usage("there are no operands");
	for (;;) {
		event = ask(&o);
		if (count_up(event->nodes) >= wait_for)
			break;
		if (o.timeout_ms && waited >= o.timeout_ms)
			session_exit(EXIT_TIMEOUT, "%u of %u nodes are up",
				     count_up(event->nodes), wait_for);
		ssi__control__event__free_unpacked(event, NULL);
		nanosleep(&pause, NULL);
		waited += 100;
	}
	if (history)
		show_history(&o, event->nodes);
	else if (!wait_for || !o.quiet)
		show(&o, event->nodes);
	ssi__control__event__free_unpacked(event, NULL);
	return EXIT_OK;
}
