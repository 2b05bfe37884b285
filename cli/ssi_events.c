/* ssi-events(1): what has happened in the cluster, and what happens. */
#include "session.h"

#include "cleanup.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const char help[] =
	"Usage: ssi-events [OPTION]...\n"
	"Show what has happened in the cluster, a line an event.\n"
	"\n"
	"  -f, --follow        go on as it happens; without --since from now on\n"
	"      --since WHEN    not what was before view WHEN (a number), before a time\n"
	"                      (2026-01-31T12:00:00Z, @SECONDS), or longer ago (90s, 10min, 2h, 1d)\n"
	"      --node NODE     only what is about NODE, or happened there\n"
	"      --type TYPE     only those whose type begins with TYPE: node, process-moved, ...\n";

static const struct option options[] = {
	{ "follow", no_argument, NULL, 'f' },
	{ "since", required_argument, NULL, 's' },
	{ "node", required_argument, NULL, 'n' },
	{ "type", required_argument, NULL, 't' },
	{ 0 },
};

/* What was read of a node, for a successor of ssid. */
struct cursor {
	uint32_t node;
	uint64_t number;
};

static bool follow;
static const char *since, *only_node, *only_type;
static uint64_t since_ns, since_epoch;
static struct cursor *cursors;
static size_t n_cursors;
/* Those that came before "caught up", to be sorted. */
static Ssi__Control__Event **early;
static size_t n_early;
static bool caught_up, was_caught_up;

static void on_option(int val, const char *argument)
{
	switch (val) {
	case 'f':
		follow = true;
		break;
	case 's':
		since = argument;
		break;
	case 'n':
		only_node = argument;
		break;
	case 't':
		only_type = argument;
		break;
	}
}

static uint64_t now_s(void)
{
	return (uint64_t)time(NULL);
}

static void parse_since(void)
{
	static const struct {
		const char *name;
		uint64_t s;
	} units[] = { { "s", 1 }, { "min", 60 }, { "h", 3600 }, { "d", 86400 } };
	unsigned long long n;
	struct tm tm = { 0 };
	const char *rest;
	char *end;

	if (!since)
		return;
	rest = strptime(since, "%Y-%m-%dT%H:%M:%SZ", &tm);
	if (rest && !*rest) {
		since_ns = (uint64_t)timegm(&tm) * 1000000000;
		return;
	}
	n = strtoull(since[0] == '@' ? since + 1 : since, &end, 10);
	if (end == since || since[0] == '-' || n > UINT64_MAX / 1000000000)
		session_usage("%s is neither a view's number nor a time", since);
	if (since[0] == '@' && !*end)
		since_ns = n * 1000000000;
	else if (!*end)
		since_epoch = n;
	for (size_t i = 0; *end && i < N_ELEMENTS(units); i++)
		if (!strcmp(end, units[i].name) && n < now_s() / units[i].s) {
			since_ns = (now_s() - n * units[i].s) * 1000000000;
			return;
		}
	if (*end)
		session_usage("%s is neither a view's number nor a time", since);
}

/* Printing. */

static void print_member(const char *name, const char *text)
{
	if (!text[0])
		return;
	printf(",\"%s\":", name);
	session_json_string(text);
}

static void format_time(uint64_t ns, char ret[static 40])
{
	time_t s = (time_t)(ns / 1000000000);
	struct tm tm;
	size_t n = 0;

	if (gmtime_r(&s, &tm))
		n = strftime(ret, 32, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(ret + n, 40 - n, ".%03uZ", (unsigned)(ns / 1000000 % 1000));
}

static bool is_of_process(const Ssi__Control__Happened *h)
{
	return h->pid != 0;
}

static void print_end_json(const Ssi__Control__Happened *h)
{
	if (h->code == 1 /* CLD_EXITED */)
		printf(",\"exit\":%d", h->status);
	else if (h->code)
		printf(",\"signal\":%d", h->status);
}

static void print_json(const Ssi__Control__Happened *h)
{
	char when[40];

	format_time(h->time_ns, when);
	printf("{\"version\":1,\"time\":\"%s\",\"type\":", when);
	session_json_string(h->type);
	print_member("source", h->source);
	if (h->number)
		printf(",\"number\":%" PRIu64 ",\"epoch\":%" PRIu64, h->number, h->epoch);
	else if (h->lost != UINT64_MAX)
		printf(",\"lost\":%" PRIu64, h->lost);
	print_member("node", h->node);
	print_member("to", h->to);
	if (is_of_process(h))
		printf(",\"pid\":%d,\"app\":%d,\"uid\":%u", h->pid, h->app, h->uid);
	print_end_json(h);
	if (h->frozen_ns)
		printf(",\"frozen_ms\":%.3f", (double)h->frozen_ns / 1000000);
	if (h->bytes)
		printf(",\"bytes\":%" PRIu64, h->bytes);
	print_member("text", h->text);
	printf("}\n");
}

static void print_plain(const char *text)
{
	for (; *text; text++)
		putchar((unsigned char)*text < 0x20 || *text == 0x7f ? ' ' : *text);
}

static void print_text(const Ssi__Control__Happened *h)
{
	char when[40];

	format_time(h->time_ns, when);
	printf("%s %-16s ", when, h->type);
	if (!h->number && h->lost == UINT64_MAX)
		printf("events of %s are lost", h->source);
	else if (!h->number)
		printf("%" PRIu64 " events of %s are lost", h->lost, h->source);
	print_plain(h->node);
	if (h->to[0])
		printf(" to %s", h->to);
	if (is_of_process(h))
		printf(" process %d", h->pid);
	if (is_of_process(h) && h->app != h->pid)
		printf(" of %d", h->app);
	if (h->code)
		printf(h->code == 1 ? " exit %d" : " signal %d", h->status);
	if (h->frozen_ns)
		printf(" frozen %.1f ms", (double)h->frozen_ns / 1000000);
	if (h->bytes)
		printf(" %" PRIu64 " bytes", h->bytes);
	if (h->text[0])
		printf(" ");
	print_plain(h->text);
	putchar('\n');
}

/* A gap is told whatever else is wanted: what is missing may have been it. */
static bool wanted(const Ssi__Control__Happened *h)
{
	if (!h->number)
		return true;
	if (only_type && strncmp(h->type, only_type, strlen(only_type)) != 0)
		return false;
	return !only_node || !strcmp(h->node, only_node) || !strcmp(h->to, only_node);
}

static void print(const struct session_options *o, const Ssi__Control__Happened *h)
{
	if (!wanted(h))
		return;
	if (o->json)
		print_json(h);
	else
		print_text(h);
}

/* Reading. */

static void note(uint32_t node, uint64_t number)
{
	struct cursor *p;

	for (size_t i = 0; i < n_cursors; i++)
		if (cursors[i].node == node) {
			cursors[i].number = number;
			return;
		}
	p = reallocarray(cursors, n_cursors + 1, sizeof(*p));
	if (!p)
		session_exit(EXIT_FAILED, "out of memory");
	cursors = p;
	cursors[n_cursors++] = (struct cursor){ node, number };
}

static void keep(Ssi__Control__Event *owned_event)
{
	Ssi__Control__Event **p = early;

	if ((n_early & (n_early - 1)) == 0)
		p = reallocarray(early, n_early ? 2 * n_early : 1, sizeof(*p));
	if (!p)
		session_exit(EXIT_FAILED, "out of memory");
	early = p;
	early[n_early++] = owned_event;
}

static int by_time(const void *a, const void *b)
{
	const Ssi__Control__Happened *x = (*(Ssi__Control__Event *const *)a)->happened;
	const Ssi__Control__Happened *y = (*(Ssi__Control__Event *const *)b)->happened;

	if (x->time_ns != y->time_ns)
		return x->time_ns > y->time_ns ? 1 : -1;
	return (x->number > y->number) - (x->number < y->number);
}

static void print_early(const struct session_options *o, const Ssi__Control__CaughtUp *c)
{
	if (n_early)
		qsort(early, n_early, sizeof(*early), by_time);
	for (size_t i = 0; i < n_early; i++) {
		print(o, early[i]->happened);
		ssi__control__event__free_unpacked(early[i], NULL);
	}
	n_early = 0;
	for (size_t i = 0; i < c->n_cursors; i++)
		note(c->cursors[i]->node, c->cursors[i]->number);
	(void)fflush(stdout);
	for (size_t i = 0; i < c->n_silent && !o->quiet; i++)
		session_error("node %s does not answer: what it alone knows is not shown",
			      c->silent[i]);
	caught_up = was_caught_up = true;
}

static void take(const struct session_options *o, Ssi__Control__Event *owned_event)
{
	switch (owned_event->body_case) {
	case SSI__CONTROL__EVENT__BODY_FAILURE:
		session_exit((int)owned_event->failure->status, "%s", owned_event->failure->text);
	case SSI__CONTROL__EVENT__BODY_HAPPENED:
		if (owned_event->happened->number)
			note(owned_event->happened->source_id, owned_event->happened->number);
		if (!caught_up)
			return keep(owned_event);
		print(o, owned_event->happened);
		break;
	case SSI__CONTROL__EVENT__BODY_CAUGHT_UP:
		print_early(o, owned_event->caught_up);
		break;
	case SSI__CONTROL__EVENT__BODY_PROGRESS:
		break;
	default:
		session_exit(EXIT_FAILED, "ssid answered something else");
	}
	ssi__control__event__free_unpacked(owned_event, NULL);
}

/* From where we are: it may be a successor of the ssid that was asked first. */
static void ask(struct session *s)
{
	Ssi__Control__EventsRequest body = SSI__CONTROL__EVENTS_REQUEST__INIT;
	_cleanup_free_ Ssi__Control__EventCursor *p = calloc(n_cursors + 1, sizeof(*p));
	_cleanup_free_ Ssi__Control__EventCursor **list = calloc(n_cursors + 1, sizeof(*list));
	Ssi__Control__Request q = SSI__CONTROL__REQUEST__INIT;

	if (!p || !list)
		session_exit(EXIT_FAILED, "out of memory");
	for (size_t i = 0; i < n_cursors; i++) {
		ssi__control__event_cursor__init(&p[i]);
		p[i].node = cursors[i].node;
		p[i].number = cursors[i].number;
		list[i] = &p[i];
	}
	body.follow = follow;
	body.since_ns = since_ns;
	body.since_epoch = since_epoch;
	body.from_now = follow && !since;
	body.cursors = list;
	body.n_cursors = n_cursors;
	q.body_case = SSI__CONTROL__REQUEST__BODY_EVENTS;
	q.events = &body;
	session_send(s, &q, NULL, 0);
}

int main(int argc, char **argv)
{
	struct session_options o;
	struct session *s;

	if (session_options(argc, argv, "f", options, help, on_option, &o) != argc)
		session_usage("there are no operands");
	parse_since();
	(void)setvbuf(stdout, NULL, _IOLBF, 0);
	s = session_open(&o);
	ask(s);
	while (follow || !caught_up) {
		Ssi__Control__Event *event = session_receive(s);

		if (event) {
			take(&o, event);
			continue;
		}
		s = session_close(s);
		if (!follow || !was_caught_up)
			session_exit(EXIT_DOWN, "ssid went away before it had told all");
		s = session_await(&o);
		caught_up = false;
		ask(s);
	}
	session_close(s);
	return EXIT_OK;
}
