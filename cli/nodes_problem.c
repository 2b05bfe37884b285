/*
 * Rules, the worst first: is the cluster able to decide, is this node in touch with it,
 * who is missing, what would come next.
 */
#include "nodes_problem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum {
	FLAPPING_LOSSES = 3,
	HOUR_S = 3600,
};

struct problems {
	const Ssi__Control__Nodes *view;
	uint64_t now_ns;
	struct nodes_problem *list;
	size_t n, max;
};

/* The voters, as far as they are seen from here. */
struct voters {
	unsigned all, answer;
	char answering[64], silent[160]; /* one of those, all of these */
};

const char *nodes_duration(uint64_t since_ns, uint64_t now_ns, char ret[static 32])
{
	static const struct {
		unsigned s;
		const char *name;
	} units[] = { { 86400, "d" }, { 3600, "h" }, { 60, "min" }, { 1, "s" } };
	uint64_t s = now_ns > since_ns ? (now_ns - since_ns) / 1000000000 : 0;
	size_t i = 0;

	ret[0] = '\0';
	if (!since_ns)
		return ret;
	/* "90 s" says more than "1 min". */
	while (i < 3 && s < 2 * units[i].s)
		i++;
	snprintf(ret, 32, "%" PRIu64 " %s", s / units[i].s, units[i].name);
	return ret;
}

static bool is(const Ssi__Control__Node *n, const char *state)
{
	return strcmp(n->state, state) == 0;
}

static bool is_up(const Ssi__Control__Node *n)
{
	return is(n, "up") || is(n, "leaving");
}

static struct nodes_problem *add(struct problems *p, const char *node)
{
	static struct nodes_problem dropped;
	struct nodes_problem *q = p->n < p->max ? &p->list[p->n++] : &dropped;

	*q = (struct nodes_problem){ 0 };
	snprintf(q->node, sizeof(q->node), "%s", node);
	return q;
}

__attribute__((format(printf, 3, 4)))
static void put(char *text, size_t size, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, size, format, ap);
	va_end(ap);
}

#define SAY(field_, ...) put(field_, sizeof(field_), __VA_ARGS__)

static struct voters count_voters(const Ssi__Control__Nodes *view)
{
	struct voters v = { 0 };

	for (size_t i = 0; i < view->n_nodes; i++) {
		const Ssi__Control__Node *n = view->nodes[i];
		size_t len = strlen(v.silent);

		if (!n->voter)
			continue;
		v.all++;
		if (n->self || (is_up(n) && !n->silent)) {
			v.answer++;
			snprintf(v.answering, sizeof(v.answering), "%s", n->name);
		} else {
			snprintf(v.silent + len, sizeof(v.silent) - len, "%s%s",
				 len ? ", " : "", n->name);
		}
	}
	return v;
}

/* NULL: the view is one of before this node was in it. */
static const Ssi__Control__Node *self(const Ssi__Control__Nodes *view)
{
	for (size_t i = 0; i < view->n_nodes; i++)
		if (view->nodes[i]->self)
			return view->nodes[i];
	return NULL;
}

/* It has no lease then, and is not to have one. */
static bool check_removed(struct problems *p)
{
	const Ssi__Control__Node *n = self(p->view);
	struct nodes_problem *q;

	if (!n || !is(n, "removed"))
		return false;
	q = add(p, n->name);
	SAY(q->what, "this node was removed from the cluster: the list is as it was told last");
	SAY(q->remedy, "ssi_add_nodes %s, given on a member, brings it back", n->name);
	return true;
}

static bool has_majority(const struct voters *v)
{
	return 2 * v->answer > v->all;
}

static void check_frozen(struct problems *p, const Ssi__Control__Node *n)
{
	struct nodes_problem *q;

	if (!p->view->frozen_ns)
		return;
	q = add(p, n ? n->name : "");
	SAY(q->what, "the programs on this node are frozen, for %" PRIu64 " s now: its lease has "
		     "ended, and others may take it for lost",
	    p->view->frozen_ns / 1000000000);
	SAY(q->remedy, "they go on by themselves when it is in touch again, but for those that were "
		       "given up meanwhile");
}

/* Without a lease nothing else of the view is certain. */
static void check_touch(struct problems *p, const struct voters *v)
{
	const Ssi__Control__Node *n = self(p->view);
	struct nodes_problem *q;

	if (p->view->lease_held)
		return;
	q = add(p, n ? n->name : "");
	SAY(q->what, "this node has lost touch with the cluster%s: the list may be old",
	    p->view->unanswered);
	SAY(q->remedy, "if it lasts, look at this node's network and at journalctl -u ssid");
	check_frozen(p, n);
	if (!v->all || has_majority(v))
		return;
	q = add(p, "");
	if (v->all == 1)
		SAY(q->what, "the only voter, %s, does not answer here: nothing can be decided "
			     "without it", v->silent);
	else
		SAY(q->what, "only %u of %u voters answer%s here: nothing can be decided before "
			     "%u do", v->answer, v->all, v->answer == 1 ? "s" : "",
		    v->all / 2 + 1);
	SAY(q->remedy, "start ssid on %s, or mend the network to it", v->silent);
}

static void check_lost(struct problems *p, const Ssi__Control__Node *n)
{
	struct nodes_problem *q;
	char ago[32];

	if (!is(n, "lost"))
		return;
	q = add(p, n->name);
	nodes_duration(n->since_ns, p->now_ns, ago);
	SAY(q->what, "%s has been lost%s%s: its processes cannot be reached, and whoever waits "
		     "for one of them waits", n->name, ago[0] ? " for " : "", ago);
	SAY(q->remedy, "start it, with ssid, or mend the network to it (ssi-nodes there says more); "
		       "or take it out of the cluster: ssi_remove_nodes %s",
	    n->name);
}

static void check_store(struct problems *p, const Ssi__Control__Node *n)
{
	struct nodes_problem *q;

	if (!is_up(n) || !n->store_error)
		return;
	q = add(p, n->name);
	SAY(q->what, "%s cannot write to the disk under /var/lib/ssi (%s): nothing is decided "
		     "with its help",
	    n->name, strerror((int)n->store_error));
	SAY(q->remedy, n->store_error == ENOSPC
			       ? "make room there, it goes on by itself"
			       : "look at that disk, and at journalctl -u ssid there");
}

static void check_joining(struct problems *p, const Ssi__Control__Node *n)
{
	struct nodes_problem *q;

	if (!is(n, "joining"))
		return;
	q = add(p, n->name);
	SAY(q->what, "%s has joined and was never seen", n->name);
	SAY(q->remedy, "systemctl start ssid there");
}

static void check_flapping(struct problems *p, const Ssi__Control__Node *n)
{
	struct nodes_problem *q;
	char ago[32];

	if (!is(n, "up") || n->losses < FLAPPING_LOSSES ||
	    p->now_ns > n->lost_ns + HOUR_S * 1000000000ull)
		return;
	q = add(p, n->name);
	SAY(q->what, "%s was lost %u times, the last time %s ago", n->name, n->losses,
	    nodes_duration(n->lost_ns, p->now_ns, ago));
	SAY(q->remedy, "look at its network and its load, and at ssi-nodes --history");
}

/* Still well, but the next loss would stop it. */
static void check_margin(struct problems *p, const struct voters *v)
{
	struct nodes_problem *q;

	if (!p->view->lease_held || v->all < 2 || v->answer == v->all ||
	    2 * (v->answer - 1) > v->all)
		return;
	q = add(p, "");
	SAY(q->what, "only %u of %u voters are up: if one more is lost nothing can be decided",
	    v->answer, v->all);
	SAY(q->remedy, "start %s, or add a node", v->silent);
}

static void check_pair(struct problems *p, const struct voters *v)
{
	struct nodes_problem *q;
	unsigned members = 0;

	for (size_t i = 0; i < p->view->n_nodes; i++)
		members += is_up(p->view->nodes[i]) || is(p->view->nodes[i], "lost");
	if (!p->view->lease_held || members != 2 || v->all != 1 || v->answer != 1)
		return;
	q = add(p, v->answering);
	SAY(q->what, "two nodes have one voter: the cluster stands still without %s",
	    v->answering);
	SAY(q->remedy, "a third node would keep it going; a voter without data is enough: ssi-admin join --witness");
}

size_t nodes_problems(const Ssi__Control__Nodes *view, uint64_t now_ns,
		      struct nodes_problem *ret, size_t max)
{
	static void (*const checks[])(struct problems *, const Ssi__Control__Node *) = {
		check_lost, check_store, check_joining, check_flapping,
	};
	struct problems p = { view, now_ns, ret, 0, max };
	struct voters v = count_voters(view);

	if (check_removed(&p))
		return p.n;
	check_touch(&p, &v);
	check_margin(&p, &v);
	for (size_t k = 0; k < sizeof(checks) / sizeof(checks[0]); k++)
		for (size_t i = 0; i < view->n_nodes; i++)
			checks[k](&p, view->nodes[i]);
	check_pair(&p, &v);
	return p.n;
}
