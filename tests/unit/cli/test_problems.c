/* What ssi-nodes finds wrong, one view a row. */
#include "nodes_problem.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define MINUTE 60000000000ull
#define NOW (1000000 * MINUTE)

/* "n1 up voter self" and so on, one node a word list; what is said, a piece of each line. */
struct row {
	const char *name;
	bool out_of_touch;
	const char *nodes[8];
	const char *said[4], *remedy;
};

static const struct row rows[] = {
	{ "one node", false, { "up voter self" }, {} },
	{ "three nodes", false, { "up voter self", "up voter", "up voter" }, {} },
	{ "two nodes", false, { "up voter", "up self" }, { "without n1" }, "a third node" },
	{ "a lost node", false, { "up voter self", "up voter", "lost", "up voter" },
	  { "n3 has been lost for 3 min" }, "ssi_remove_nodes n3" },
	{ "a lost voter", false, { "up voter self", "lost voter", "up voter" },
	  { "only 2 of 3 voters are up", "n2 has been lost for 3 min" }, "start n2, or add" },
	{ "one lost of five", false,
	  { "up voter self", "lost voter", "up voter", "up voter", "up voter" },
	  { "n2 has been lost" }, NULL },
	{ "never seen", false, { "up voter self", "up voter", "up voter", "joining" },
	  { "n4 has joined and was never seen" }, "systemctl start ssid there" },
	{ "who left is no problem", false, { "up voter self", "left" }, {} },
	{ "cut off alone", true, { "up voter self", "up voter silent", "up voter silent" },
	  { "lost touch with the cluster (node 2: it does not answer): the list may be old",
	    "only 1 of 3 voters answers here: nothing can be decided before 2 do" },
	  NULL },
	{ "which ones", true, { "up voter self", "up voter silent", "up voter silent" },
	  { "lost touch", "only 1 of 3" }, "start ssid on n2, n3" },
	{ "the voters answer", true, { "up self", "up voter", "up voter silent", "up voter" },
	  { "lost touch" }, "journalctl -u ssid" },
	{ "the only voter is silent", true, { "up voter silent", "up self" },
	  { "lost touch", "the only voter, n1, does not answer" }, "start ssid on n1" },
	{ "a lost voter is silent by itself", true, { "up self voter", "lost voter", "up voter silent" },
	  { "lost touch", "only 1 of 3 voters answers", "n2 has been lost" }, NULL },
	{ "removed itself", true, { "up voter silent", "lost", "removed self" },
	  { "this node was removed" }, "ssi_add_nodes n3" },
	{ "who is being removed answers", false, { "up voter self", "leaving voter", "up voter" }, {} },
	{ "a full disk", false, { "up voter self", "up voter", "up voter full" },
	  { "n3 cannot write to the disk under /var/lib/ssi (No space left on device)" },
	  "make room there" },
	{ "a full disk of who is lost", false,
	  { "up voter self", "up voter", "up voter", "lost full" }, { "n4 has been lost" }, NULL },
	{ "flapping", false, { "up voter self", "up voter", "up voter flapping" },
	  { "n3 was lost 5 times, the last time 10 min ago" }, "--history" },
};

static void make(const char *words, unsigned i, char name[static 8], Ssi__Control__Node *ret)
{
	static char states[8][16];
	bool flapping = strstr(words, "flapping") != NULL;

	ssi__control__node__init(ret);
	(void)snprintf(name, 8, "n%u", i + 1);
	(void)sscanf(words, "%15s", states[i]);
	ret->name = name;
	ret->state = states[i];
	ret->since_ns = NOW - 3 * MINUTE;
	ret->voter = strstr(words, "voter") != NULL;
	ret->self = strstr(words, "self") != NULL;
	ret->silent = strstr(words, "silent") != NULL;
	ret->store_error = strstr(words, "full") ? ENOSPC : 0;
	ret->losses = flapping ? 5 : 1;
	ret->lost_ns = flapping ? NOW - 10 * MINUTE : NOW - 100 * MINUTE;
}

static void check(const struct row *row)
{
	Ssi__Control__Nodes view = SSI__CONTROL__NODES__INIT;
	Ssi__Control__Node nodes[8], *list[8];
	struct nodes_problem problems[8];
	char names[8][8];
	bool remedied = !row->remedy;
	size_t n, i;

	for (i = 0; i < 8 && row->nodes[i]; i++) {
		make(row->nodes[i], (unsigned)i, names[i], &nodes[i]);
		list[i] = &nodes[i];
	}
	view.nodes = list;
	view.n_nodes = i;
	view.lease_held = !row->out_of_touch;
	view.unanswered = row->out_of_touch ? " (node 2: it does not answer)" : "";
	n = nodes_problems(&view, NOW, problems, 8);
	for (i = 0; i < n; i++) {
		if (i >= 4 || !row->said[i] || !strstr(problems[i].what, row->said[i]))
			fail_msg("%s: \"%s\" was not expected", row->name, problems[i].what);
		remedied = remedied || strstr(problems[i].remedy, row->remedy);
		assert_true(problems[i].remedy[0]);
	}
	if (n < 4 && row->said[n])
		fail_msg("%s: nothing of \"%s\"", row->name, row->said[n]);
	if (!remedied)
		fail_msg("%s: no remedy \"%s\"", row->name, row->remedy);
}

static void every_view_has_its_problems_and_no_others(void **state)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		check(&rows[i]);
}

static void more_than_there_is_room_for_are_dropped(void **state)
{
	Ssi__Control__Nodes view = SSI__CONTROL__NODES__INIT;
	Ssi__Control__Node nodes[8], *list[8];
	struct nodes_problem problems[3];
	char names[8][8];

	for (unsigned i = 0; i < 8; i++) {
		make("lost", i, names[i], &nodes[i]);
		list[i] = &nodes[i];
	}
	view.nodes = list;
	view.n_nodes = 8;
	view.lease_held = true;
	assert_int_equal(nodes_problems(&view, NOW, problems, 3), 3);
}

static void durations_are_for_people(void **state)
{
	static const struct {
		uint64_t s;
		const char *text;
	} table[] = { { 0, "0 s" }, { 119, "119 s" }, { 120, "2 min" }, { 7199, "119 min" },
		      { 7200, "2 h" }, { 172799, "47 h" }, { 172800, "2 d" } };
	char text[32];

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		assert_string_equal(nodes_duration(NOW, NOW + table[i].s * 1000000000, text),
				    table[i].text);
	assert_string_equal(nodes_duration(0, NOW, text), "");
	/* Another node's clock is ahead. */
	assert_string_equal(nodes_duration(NOW + 5 * MINUTE, NOW, text), "0 s");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_view_has_its_problems_and_no_others),
		cmocka_unit_test(more_than_there_is_room_for_are_dropped),
		cmocka_unit_test(durations_are_for_people),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
