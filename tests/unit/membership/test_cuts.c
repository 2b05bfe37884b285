/* Who goes out, one after the other, until nobody misses a path. */
#include "membership_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { MAX = 12 };

/* Cuts of members that are digits, as "12 13"; who is out in the end, in order. */
static void settle(const char *text, const char *expected)
{
	struct membership_cut cuts[MAX];
	char out[MAX + 1] = "";
	size_t n = 0, n_out = 0;
	node_id next;

	for (const char *p = text; *p; p += p[2] ? 3 : 2)
		cuts[n++] = (struct membership_cut){ (node_id)(p[0] - '0'), (node_id)(p[1] - '0') };
	while ((next = membership_cuts_next(cuts, n)) != NODE_NONE) {
		size_t left = 0;

		for (size_t i = 0; i < n; i++)
			if (cuts[i].a != next && cuts[i].b != next)
				cuts[left++] = cuts[i];
		assert_true(left < n);
		n = left;
		out[n_out++] = (char)('0' + next);
	}
	assert_string_equal(out, expected);
}

static void without_cuts_nobody_goes(void **state)
{
	settle("", "");
}

static void of_two_the_higher_id_goes(void **state)
{
	settle("23", "3");
	settle("32", "3");
}

static void who_has_fewer_links_goes_whatever_its_id(void **state)
{
	settle("23 24", "2");
	settle("42 23 25", "2");
	settle("23 34 45", "43");
}

static void each_cut_costs_one_and_no_more(void **state)
{
	settle("23 45", "53");
	settle("23 34 24", "43");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_cuts_nobody_goes),
		cmocka_unit_test(of_two_the_higher_id_goes),
		cmocka_unit_test(who_has_fewer_links_goes_whatever_its_id),
		cmocka_unit_test(each_cut_costs_one_and_no_more),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
