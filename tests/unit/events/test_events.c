/* The ring of events, what views say, the link for programs. */
#include "cleanup.h"
#include "events_link.h"
#include "events_view.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const struct events_filter everything;

static struct events_ring *ring_new(void)
{
	return calloc(1, sizeof(struct events_ring));
}

static void fill(struct events_ring *ring, unsigned n, enum event_type type, uid_t uid)
{
	while (n--) {
		struct event e = { .type = type, .uid = uid, .time = 1000 + ring->newest,
				   .epoch = ring->newest / 10 };

		events_ring_add(ring, &e);
	}
}

/* All that @filter lets pass after @after, page by page. */
static size_t count(const struct events_ring *ring, const struct events_filter *filter,
		    uint64_t after, uint64_t *ret_lost)
{
	struct event page[50];
	uint64_t lost;
	size_t n, sum = 0;

	*ret_lost = 0;
	do {
		uint64_t before = after > ring->newest ? 0 : after;

		n = events_ring_read(ring, filter, &after, page, 50, &lost);
		*ret_lost += lost;
		for (size_t i = 0; i < n; i++)
			assert_true(page[i].number > before && page[i].number <= after);
		sum += n;
	} while (n == 50);
	assert_int_equal(after, ring->newest);
	return sum;
}

static void events_are_numbered_and_read_once(void **state)
{
	_cleanup_free_ struct events_ring *ring = ring_new();
	uint64_t lost;

	assert_int_equal(count(ring, &everything, 0, &lost), 0);
	fill(ring, 120, EVENT_NODE_LOST, 0);
	assert_int_equal(count(ring, &everything, 0, &lost), 120);
	assert_int_equal(count(ring, &everything, 70, &lost), 50);
	assert_int_equal(count(ring, &everything, 120, &lost), 0);
	assert_int_equal(count(ring, &everything, EVENTS_NOW, &lost), 0);
	assert_int_equal(lost, 0);
}

static void who_is_too_late_is_told_how_many_he_missed(void **state)
{
	_cleanup_free_ struct events_ring *ring = ring_new();
	struct events_filter recent = { .since = 1000 + EVENTS_KEPT };
	uint64_t lost;

	fill(ring, EVENTS_KEPT + 500, EVENT_NODE_LOST, 0);
	/* The slot that is written next is never read: its writer may be killed. */
	assert_int_equal(count(ring, &everything, 0, &lost), EVENTS_KEPT - 1);
	assert_int_equal(lost, 501);
	assert_int_equal(count(ring, &everything, 400, &lost), EVENTS_KEPT - 1);
	assert_int_equal(lost, 101);
	assert_int_equal(count(ring, &everything, 501, &lost), EVENTS_KEPT - 1);
	assert_int_equal(lost, 0);
	/* What is gone is older than what was asked for. */
	assert_int_equal(count(ring, &recent, 0, &lost), 500);
	assert_int_equal(lost, 0);
}

static void a_ring_that_was_made_anew_is_a_gap(void **state)
{
	_cleanup_free_ struct events_ring *ring = ring_new();
	uint64_t lost;

	fill(ring, 3, EVENT_NODE_LOST, 0);
	assert_int_equal(count(ring, &everything, 2000, &lost), 3);
	assert_true(lost == EVENTS_LOST_SOME);
}

static void users_see_what_is_theirs_and_the_cluster(void **state)
{
	_cleanup_free_ struct events_ring *ring = ring_new();
	struct events_filter mine = { .uid = 7 }, own = { .own = true },
			     view = { .since_epoch = 1 };
	uint64_t lost;

	fill(ring, 2, EVENT_NODE_LOST, 0);
	fill(ring, 3, EVENT_APP_STARTED, 7);
	fill(ring, 5, EVENT_PROCESS_MOVED, 8);
	fill(ring, 1, EVENT_LEASE_LOST, 0);
	assert_int_equal(count(ring, &everything, 0, &lost), 11);
	assert_int_equal(count(ring, &mine, 0, &lost), 6);
	assert_int_equal(count(ring, &own, 0, &lost), 9);
	assert_int_equal(count(ring, &view, 0, &lost), 1);
}

static void every_type_has_a_name_of_its_own(void **state)
{
	for (int i = 1; i < _EVENT_TYPES; i++)
		for (int k = 0; k < i; k++)
			assert_string_not_equal(event_type_name(i), event_type_name(k));
	assert_string_equal(event_type_name(9999), "unknown");
}

/* Views. */

struct told {
	char text[512];
};

static void on_tell(void *owner, const struct event *e)
{
	struct told *told = owner;
	size_t len = strlen(told->text);

	(void)snprintf(told->text + len, sizeof(told->text) - len, "%s%s %u", len ? ", " : "",
		       event_type_name(e->type), e->node);
}

static struct membership_view *view_new(unsigned n)
{
	struct membership_view *v = calloc(1, sizeof(*v) + n * sizeof(v->nodes[0]));

	v->epoch = 5;
	v->leader = 1;
	v->n_nodes = n;
	for (unsigned i = 0; i < n; i++)
		v->nodes[i] = (struct membership_node){ .id = i + 1,
							.name = "n",
							.state = MEMBER_UP,
							.incarnation = 1 };
	return v;
}

struct views {
	struct events_ring *ring;
	struct told told;
	struct event_sink sink;
};

static void expect(struct views *f, struct membership_view *view, const char *text)
{
	f->sink = (struct event_sink){ on_tell, &f->told };
	f->told.text[0] = '\0';
	events_view_compare(f->ring, view, &f->sink);
	assert_string_equal(f->told.text, text);
	f->told.text[0] = '\0';
	events_view_compare(f->ring, view, &f->sink);
	assert_string_equal(f->told.text, "");
}

static void views_tell_what_has_changed(void **state)
{
	_cleanup_free_ struct events_ring *ring = ring_new();
	_cleanup_free_ struct membership_view *v = view_new(4);
	struct views f = { .ring = ring };

	v->n_nodes = 3;
	expect(&f, v, ""); /* the first of all: nobody knows what was before */
	v->nodes[1].state = MEMBER_LOST;
	expect(&f, v, "node-lost 2");
	v->nodes[1].state = MEMBER_UP;
	v->nodes[2].voter = true;
	expect(&f, v, "node-up 2, vote-given 3");
	v->nodes[1].incarnation++;
	v->nodes[2].voter = false;
	v->leader = 3;
	expect(&f, v, "node-up 2, vote-taken 3, leader 3");
	v->n_nodes = 4;
	v->nodes[3].state = MEMBER_JOINING;
	expect(&f, v, "node-added 4");
	v->nodes[3].state = MEMBER_UP;
	expect(&f, v, "node-joined 4");
	v->nodes[3].state = MEMBER_LEAVING;
	expect(&f, v, "node-leaving 4");
	v->nodes[3].state = MEMBER_UP;
	expect(&f, v, "node-stays 4");
	v->nodes[3].state = MEMBER_REMOVED;
	v->nodes[2].state = MEMBER_LEFT;
	expect(&f, v, "node-left 3, node-removed 4");
	v->n_nodes = 3;
	expect(&f, v, "node-removed 4");
}

static void a_view_that_was_skipped_is_not_missed(void **state)
{
	_cleanup_free_ struct events_ring *ring = ring_new();
	_cleanup_free_ struct membership_view *v = view_new(3);
	struct views f = { .ring = ring };

	v->n_nodes = 1;
	expect(&f, v, "");
	v->n_nodes = 3;
	expect(&f, v, "node-added 2, node-joined 2, node-added 3, node-joined 3");
	/* Another ssid reads on. */
	v->nodes[0].state = MEMBER_LOST;
	expect(&f, v, "node-lost 1");
}

/* The link. */

static void the_link_names_those_that_are_up(void **state)
{
	_cleanup_free_ struct membership_view *v = view_new(9);
	char text[EVENTS_LINK_MAX], small[24];

	events_link_format(v, 2, text, sizeof(text));
	assert_string_equal(text, "SSI1 5 2 n ff1");
	v->nodes[0].state = v->nodes[8].state = MEMBER_LOST;
	v->nodes[1].state = MEMBER_LEAVING;
	v->nodes[4].state = MEMBER_REMOVED;
	events_link_format(v, 3, text, sizeof(text));
	assert_string_equal(text, "SSI1 5 3 n ee");
	/* A bit that has no room is left out, and nothing is written behind the end. */
	v->nodes[8].id = 100000;
	v->nodes[8].state = MEMBER_UP;
	events_link_format(v, 3, small, sizeof(small));
	assert_string_equal(small, "SSI1 5 3 n ee");
}

static void the_link_is_replaced_at_once(void **state)
{
	char directory[] = "/tmp/test-events-XXXXXX", path[64], new[70], text[64] = "";

	assert_non_null(mkdtemp(directory));
	(void)snprintf(path, sizeof(path), "%s/view", directory);
	(void)snprintf(new, sizeof(new), "%s.new", path);
	assert_int_equal(events_link_set(path, "SSI1 1 1 n 1"), 0);
	/* One that was killed in the middle left this. */
	assert_int_equal(symlink("half", new), 0);
	assert_int_equal(events_link_set(path, "SSI1 2 1 n 3"), 0);
	assert_int_equal(readlink(path, text, sizeof(text) - 1), 12);
	assert_string_equal(text, "SSI1 2 1 n 3");
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(directory), 0);
	assert_true(events_link_set(path, "x") < 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(events_are_numbered_and_read_once),
		cmocka_unit_test(who_is_too_late_is_told_how_many_he_missed),
		cmocka_unit_test(a_ring_that_was_made_anew_is_a_gap),
		cmocka_unit_test(users_see_what_is_theirs_and_the_cluster),
		cmocka_unit_test(every_type_has_a_name_of_its_own),
		cmocka_unit_test(views_tell_what_has_changed),
		cmocka_unit_test(a_view_that_was_skipped_is_not_missed),
		cmocka_unit_test(the_link_names_those_that_are_up),
		cmocka_unit_test(the_link_is_replaced_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
