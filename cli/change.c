/* See change.h. */
#include "change.h"

#include "cleanup.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHUTDOWN_MS = 60000, ADD_MS = 60000, REMOVE_MS = 600000, UNDO_MS = 25000 };

#define ADD SSI__CONTROL__CHANGE_REQUEST__WHAT__ADD
#define REMOVE SSI__CONTROL__CHANGE_REQUEST__WHAT__REMOVE
#define SHUTDOWN SSI__CONTROL__CHANGE_REQUEST__WHAT__SHUTDOWN

/* Nodes that are meant, in the order in which they were named. */
struct chosen {
	const Ssi__Control__Nodes *nodes;
	char **names; /* of nodes */
	size_t n;
};

static void choose(struct chosen *c, const Ssi__Control__Node *node)
{
	for (size_t i = 0; i < c->n; i++)
		if (c->names[i] == node->name)
			return;
	c->names[c->n++] = node->name;
}

/* By name, or by id. */
static const Ssi__Control__Node *find(const struct chosen *c, const char *word)
{
	char *end;
	unsigned long id = strtoul(word, &end, 10);

	for (size_t i = 0; i < c->nodes->n_nodes; i++)
		if (!strcmp(c->nodes->nodes[i]->name, word))
			return c->nodes->nodes[i];
	for (size_t i = 0; isdigit((unsigned char)*word) && !*end && i < c->nodes->n_nodes; i++)
		if (c->nodes->nodes[i]->id == id)
			return c->nodes->nodes[i];
	return NULL;
}

/* "n2" of "n2-n7": how long is what stands before the number? */
static size_t prefix_of(const char *name)
{
	size_t n = strlen(name);

	while (n && isdigit((unsigned char)name[n - 1]))
		n--;
	return n;
}

/* Ids from one to the other, or numbers behind the same prefix. */
static bool choose_between(struct chosen *c, const char *first, const char *last)
{
	size_t prefix = prefix_of(first);
	unsigned long from = strtoul(first + prefix, NULL, 10), to;
	bool some = false;

	if (!first[prefix] || prefix_of(last) != prefix || strncmp(first, last, prefix) != 0 ||
	    !last[prefix])
		return false;
	to = strtoul(last + prefix, NULL, 10);
	for (size_t i = 0; i < c->nodes->n_nodes; i++) {
		const Ssi__Control__Node *n = c->nodes->nodes[i];
		size_t length = prefix_of(n->name);
		unsigned long number = prefix ? strtoul(n->name + length, NULL, 10) : n->id;

		if (prefix && (length != prefix || strncmp(n->name, first, prefix) != 0 ||
			       !n->name[prefix]))
			continue;
		if (number < from || number > to)
			continue;
		choose(c, n);
		some = true;
	}
	return some;
}

/* A name may have hyphens of its own: the first that makes sense is the range's. */
static bool choose_range(struct chosen *c, char *word)
{
	for (char *hyphen = strchr(word, '-'); hyphen; hyphen = strchr(hyphen + 1, '-')) {
		bool done;

		*hyphen = '\0';
		done = choose_between(c, word, hyphen + 1);
		*hyphen = '-';
		if (done)
			return true;
	}
	return false;
}

static void choose_listed(struct chosen *c, char *list)
{
	char *next;

	for (char *word = strtok_r(list, ", ", &next); word; word = strtok_r(NULL, ", ", &next)) {
		const Ssi__Control__Node *n = find(c, word);

		if (n)
			choose(c, n);
		else if (!choose_range(c, word))
			session_exit(EXIT_NOT_FOUND,
				     "no node is called %s: see ssi-nodes; a new one joins with a "
				     "token, see ssi-admin",
				     word);
	}
}

static bool is_up(const Ssi__Control__Node *n)
{
	return !strcmp(n->state, "up");
}

/* Those that could be added, by id; or removed: the newest first, never this one. */
static void choose_number(struct chosen *c, const struct change *change)
{
	size_t n = c->nodes->n_nodes, n_up = 0, wanted = SIZE_MAX;

	for (size_t i = 0; i < n; i++)
		n_up += is_up(c->nodes->nodes[i]);
	if (change->has_count)
		wanted = change->count;
	else if (change->has_total)
		wanted = change->what == ADD ? change->total - n_up : n_up - change->total;
	if (change->has_total && (change->what == ADD) != (change->total > n_up) &&
	    change->total != n_up)
		session_exit(EXIT_USAGE, "%zu nodes are up: a total of %zu is not reached that way",
			     n_up, (size_t)change->total);
	for (size_t i = 0; i < n && c->n < wanted; i++) {
		const Ssi__Control__Node *node =
			c->nodes->nodes[change->what == ADD ? i : n - 1 - i];

		if (change->what == ADD ? !strcmp(node->state, "removed") :
					  is_up(node) && !node->self)
			choose(c, node);
	}
	if (wanted != SIZE_MAX && c->n < wanted)
		session_exit(EXIT_NOT_FOUND, "only %zu of %zu nodes could be %s: see ssi-nodes",
			     c->n, wanted, change->what == ADD ? "added" : "removed");
}

static Ssi__Control__Event *ask_nodes(const struct session_options *o)
{
	Ssi__Control__NodesRequest body = SSI__CONTROL__NODES_REQUEST__INIT;
	Ssi__Control__Request q = SSI__CONTROL__REQUEST__INIT;

	q.body_case = SSI__CONTROL__REQUEST__BODY_NODES;
	q.nodes = &body;
	return session_once(o, &q, SSI__CONTROL__EVENT__BODY_NODES);
}

static void choose_nodes(struct chosen *ret, const struct change *c,
			 const Ssi__Control__Nodes *nodes)
{
	*ret = (struct chosen){ .nodes = nodes, .names = calloc(nodes->n_nodes + 1, sizeof(char *)) };
	if (!ret->names)
		session_exit(EXIT_FAILED, "out of memory");
	if (c->what == SHUTDOWN)
		return;
	for (int i = 0; i < c->n_lists; i++)
		choose_listed(ret, c->lists[i]);
	if (!c->n_lists)
		choose_number(ret, c);
}

static Ssi__Control__Event *call(const struct session_options *o, const struct change *c,
				 const struct chosen *chosen)
{
	Ssi__Control__ChangeRequest body = SSI__CONTROL__CHANGE_REQUEST__INIT;
	Ssi__Control__Request q = SSI__CONTROL__REQUEST__INIT;
	struct session_options patient = *o;
	struct session *s;
	Ssi__Control__Event *event;

	body.what = c->what;
	body.nodes = chosen->names;
	body.n_nodes = chosen->n;
	body.force = c->force;
	body.dry_run = c->dry_run;
	body.timeout_ms = o->timeout_ms	    ? (uint32_t)o->timeout_ms :
			  c->what == REMOVE ? REMOVE_MS :
			  c->what == ADD    ? ADD_MS :
					      SHUTDOWN_MS;
	q.body_case = SSI__CONTROL__REQUEST__BODY_CHANGE;
	q.change = &body;
	/* ssid keeps the time, and undoes; we only wait for its word. */
	patient.timeout_ms = body.timeout_ms + UNDO_MS;
	s = session_open(&patient);
	event = session_ask(s, &q);
	session_close(s);
	if (!event)
		session_exit(EXIT_DOWN, "this node's ssid went away in the middle: ssi-nodes tells "
					"what became of it, and the same command may be given again");
	if (event->body_case != SSI__CONTROL__EVENT__BODY_CHANGED)
		session_exit(EXIT_FAILED, "ssid answered something else");
	return event;
}

static void show_stays_table(const struct session_options *o, const Ssi__Control__Changed *r)
{
	static const struct session_column columns[] = {
		{ "PID", 0, SCOLS_FL_RIGHT, SCOLS_JSON_NUMBER },
		{ "NODE", 0, 0, SCOLS_JSON_STRING },
		{ "COMMAND", 0, 0, SCOLS_JSON_STRING },
		{ "REASON", 0, 0, SCOLS_JSON_STRING },
	};
	struct libscols_table *t = session_table(o, "stays", columns, N_ELEMENTS(columns));

	for (size_t i = 0; i < r->n_stays; i++) {
		struct libscols_line *l = session_line(t);

		session_cell(l, 0, "%d", r->stays[i]->pid);
		session_cell(l, 1, "%s", r->stays[i]->node);
		session_cell(l, 2, "%s", r->stays[i]->command);
		session_cell(l, 3, "%s", r->stays[i]->reason);
	}
	session_print(t);
}

/* What would be ended: no node was removed; some processes may have moved already. */
static int refuse(const struct session_options *o, const struct change *c,
		  const Ssi__Control__Changed *r)
{
	if (o->json || c->dry_run)
		show_stays_table(o, r);
	for (size_t i = 0; !o->json && !c->dry_run && i < r->n_stays; i++)
		session_error("%s: process %d (%s) would be ended: %s", r->stays[i]->node,
			      r->stays[i]->pid, r->stays[i]->command, r->stays[i]->reason);
	if (r->moved)
		session_error("%u that could move have moved", r->moved);
	session_error("%u process%s would be ended, %s: move or end %s, or use --force", r->n_all,
		      r->n_all == 1 ? "" : "es",
		      c->what == SHUTDOWN ? "the cluster goes on" : "no node was removed",
		      r->n_all == 1 ? "it" : "them");
	return EXIT_UNSUPPORTED;
}

static void show_names(const struct chosen *chosen, const char *quote, const char *comma)
{
	for (size_t i = 0; i < chosen->n; i++)
		printf("%s%s%s%s", i ? comma : "", quote, chosen->names[i], quote);
}

static void show(const struct session_options *o, const struct change *c,
		 const struct chosen *chosen, const Ssi__Control__Changed *r)
{
	static const char *const done[] = { [ADD] = "added", [REMOVE] = "removed",
					    [SHUTDOWN] = "shut down" };

	if (o->json) {
		printf("{\"version\":1,\"action\":\"%s\",\"dry_run\":%s,\"nodes\":[",
		       (const char *[]){ "add", "remove", "shutdown" }[c->what],
		       c->dry_run ? "true" : "false");
		show_names(chosen, "\"", ",");
		if (r->unknown)
			printf("]}\n");
		else
			printf("],\"moved\":%u,\"ended\":%u}\n", r->moved, r->ended);
		return;
	}
	if (o->quiet)
		return;
	if (c->what == SHUTDOWN)
		printf("the cluster");
	show_names(chosen, "", ", ");
	if (c->dry_run)
		printf(" could be %s: nothing would be ended\n", done[c->what]);
	else if (c->what == REMOVE && r->unknown)
		printf(" removed, may be stopped\n");
	else if (c->what == REMOVE)
		printf(" removed, may be stopped: %u moved, %u ended\n", r->moved, r->ended);
	else if (c->what == SHUTDOWN)
		printf(" is shut down: %u ended\n", r->ended);
	else
		printf(" added\n");
}

int change_run(const struct session_options *o, const struct change *c)
{
	Ssi__Control__Event *nodes = ask_nodes(o), *event;
	struct chosen chosen;
	int code = EXIT_OK;

	choose_nodes(&chosen, c, nodes->nodes);
	if (!chosen.n && c->what != SHUTDOWN) {
		if (!o->quiet && !o->json)
			printf("no node is to be %s\n", c->what == ADD ? "added" : "removed");
		return EXIT_OK;
	}
	event = call(o, c, &chosen);
	if (event->changed->n_all)
		code = refuse(o, c, event->changed);
	else
		show(o, c, &chosen, event->changed);
	ssi__control__event__free_unpacked(event, NULL);
	ssi__control__event__free_unpacked(nodes, NULL);
	free(chosen.names);
	return code;
}
