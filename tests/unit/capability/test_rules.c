#include "capability.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define P  CAPABILITY_PERMITTED
#define E  CAPABILITY_EFFECTIVE
#define IP CAPABILITY_INHERITABLE_PERMITTED
#define IE CAPABILITY_INHERITABLE_EFFECTIVE

/* Octal, as the tool has them: 1 CHANGE_KERRIGHED_CAP, 2 CAN_MIGRATE, 4 DISTANT_FORK,
 * 020 CHECKPOINTABLE. */
static void assert_sets(const struct capability_sets *s, uint32_t p, uint32_t e,
			uint32_t ip, uint32_t ie)
{
	const uint32_t want[] = {p, e, ip, ie};

	for (int k = 0; k < CAPABILITY_SETS_N; k++)
		assert_int_equal(s->of[k], want[k]);
	assert_true(capability_sets_ok(s));
}

static void ssi_run_begins_with_what_works(void **state)
{
	struct capability_sets s = capability_initial(false);

	assert_sets(&s, 023, 023, 023, 023);
	s = capability_initial(true);
	assert_sets(&s, 027, 027, 027, 027);
}

static void children_have_what_is_inheritable(void **state)
{
	static const struct {
		struct capability_sets parent, child;
	} cases[] = {
		{{{027, 027, 027, 027}}, {{027, 027, 027, 027}}},
		{{{027, 027, 023, 021}}, {{023, 021, 023, 021}}},
		{{{027, 0, 027, 023}}, {{027, 023, 027, 023}}},
		{{{027, 027, 0, 0}}, {{0, 0, 0, 0}}},
		/* No more is effective than is permitted. */
		{{{027, 027, 1, 3}}, {{1, 1, 1, 3}}},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct capability_sets child = capability_inherit(&cases[i].parent);

		assert_true(capability_equal(&child, &cases[i].child));
	}
}

static int parse(struct capability_change *c, enum capability_set set,
		 const char *words)
{
	char bad[64];

	return capability_parse(c, set, words, bad, sizeof(bad));
}

static void words_are_added_taken_away_or_all_there_is(void **state)
{
	static const struct {
		const char *words;
		uint32_t of, is;
	} cases[] = {
		{"+DISTANT_FORK", 3, 7},
		{"+CAP_DISTANT_FORK,CHECKPOINTABLE", 3, 027},
		{"-CAN_MIGRATE", 027, 025},
		{"-CAN_MIGRATE,CHANGE_KERRIGHED_CAP", 027, 024},
		{"CAN_MIGRATE", 027, 2},
		{"07", 020, 7},
		{"0", 027, 0},
		{"+020", 3, 023},
		{"-3", 027, 024},
		{"+USE_WORLD_VISIBLE_KERSTREAMS", 0, 0400},
		{"SYSCALL_EXIT_HOOK", 0, 04000},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		for (unsigned set = 0; set < CAPABILITY_SETS_N; set++) {
			struct capability_change c = capability_no_change();

			assert_int_equal(parse(&c, set, cases[i].words), 0);
			for (unsigned k = 0; k < CAPABILITY_SETS_N; k++)
				assert_int_equal((cases[i].of & c.keep[k]) | c.add[k],
						 k == set ? cases[i].is : cases[i].of);
		}
}

static void words_come_one_after_the_other(void **state)
{
	struct capability_change c = capability_no_change();

	assert_int_equal(parse(&c, E, "+DISTANT_FORK,CAN_MIGRATE"), 0);
	assert_int_equal(parse(&c, E, "-DISTANT_FORK"), 0);
	assert_int_equal((020u & c.keep[E]) | c.add[E], 022);
	assert_int_equal((024u & c.keep[E]) | c.add[E], 022);
	assert_int_equal(parse(&c, E, "1"), 0);
	assert_int_equal((024u & c.keep[E]) | c.add[E], 1);
}

static void what_is_no_word_changes_nothing(void **state)
{
	static const char *const words[] = {"",
					    "+",
					    "-",
					    "+,",
					    "+CAN_MIGRATE,",
					    "can_migrate",
					    "CAP_",
					    "CAN_MIGRAT",
					    "+CAN_MIGRATES",
					    "8",
					    "0x7",
					    "++CAN_MIGRATE",
					    "+ CAN_MIGRATE",
					    "7777777777",
					    "CAP_CAP_CAN_MIGRATE"};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		struct capability_change c = capability_no_change(), none = c;
		char bad[64];

		assert_int_equal(capability_parse(&c, E, words[i], bad, sizeof(bad)),
				 CAPABILITY_E_WORDS);
		assert_memory_equal(&c, &none, sizeof(c));
	}
}

static void changes_keep_the_rules(void **state)
{
	static const struct {
		struct capability_sets from;
		const char *words[CAPABILITY_SETS_N];
		int r;
		const char *why;
		struct capability_sets to;
	} cases[] = {
		/* Within what is permitted all is free. */
		{{{027, 023, 027, 023}},
		 {[E] = "+DISTANT_FORK"},
		 0,
		 "",
		 {{027, 027, 027, 023}}},
		{{{027, 023, 027, 023}},
		 {[IE] = "+DISTANT_FORK"},
		 0,
		 "",
		 {{027, 023, 027, 027}}},
		{{{027, 027, 027, 027}},
		 {[E] = "-CAN_MIGRATE"},
		 0,
		 "",
		 {{027, 025, 027, 027}}},
		{{{027, 027, 0, 0}},
		 {[IP] = "7", [IE] = "5"},
		 0,
		 "",
		 {{027, 027, 7, 5}}},
		{{{027, 027, 027, 027}},
		 {"-CAN_MIGRATE", "-CAN_MIGRATE", "-CAN_MIGRATE", "-CAN_MIGRATE"},
		 0,
		 "",
		 {{025, 025, 025, 025}}},
		{{{027, 027, 027, 027}}, {[E] = "0"}, 0, "", {{027, 0, 027, 027}}},
		/* What is permitted never grows, and bounds all. */
		{{{023, 023, 023, 023}},
		 {[P] = "+DISTANT_FORK"},
		 CAPABILITY_E_NOT_PERMITTED,
		 "it is not permitted DISTANT_FORK, which only ssi-run --spread begins "
		 "with",
		 {{0}}},
		{{{025, 025, 025, 025}},
		 {[E] = "+CAN_MIGRATE"},
		 CAPABILITY_E_NOT_PERMITTED,
		 "it is not permitted CAN_MIGRATE",
		 {{0}}},
		{{{025, 025, 025, 025}},
		 {[IE] = "+CAN_MIGRATE"},
		 CAPABILITY_E_NOT_PERMITTED,
		 "it is not permitted CAN_MIGRATE",
		 {{0}}},
		/* Who gave up to change is not changed. */
		{{{027, 026, 027, 027}},
		 {[E] = "-CAN_MIGRATE"},
		 CAPABILITY_E_NOT_PERMITTED,
		 "it has given up CHANGE_KERRIGHED_CAP",
		 {{0}}},
		{{{027, 026, 027, 027}},
		 {[E] = "+CHANGE_KERRIGHED_CAP"},
		 CAPABILITY_E_NOT_PERMITTED,
		 "it has given up CHANGE_KERRIGHED_CAP",
		 {{0}}},
		/* Nothing behind it. */
		{{{027, 027, 027, 027}},
		 {[IE] = "+FORK_DELAY"},
		 CAPABILITY_E_UNSUPPORTED,
		 "there is nothing behind FORK_DELAY here",
		 {{0}}},
		{{{027, 027, 027, 027}},
		 {[P] = "+010000"},
		 CAPABILITY_E_UNSUPPORTED,
		 "there is nothing behind a capability that there is not here",
		 {{0}}},
		/* Sets within sets. */
		{{{027, 027, 027, 027}},
		 {[P] = "-CAN_MIGRATE"},
		 CAPABILITY_E_OUTSIDE,
		 "CAN_MIGRATE would be in its effective set and not in its permitted "
		 "one",
		 {{0}}},
		{{{027, 025, 027, 025}},
		 {[P] = "-CAN_MIGRATE"},
		 CAPABILITY_E_OUTSIDE,
		 "CAN_MIGRATE would be in its inheritable permitted set and not in its "
		 "permitted one",
		 {{0}}},
		{{{027, 027, 027, 027}},
		 {[IP] = "-CAN_MIGRATE"},
		 CAPABILITY_E_OUTSIDE,
		 "CAN_MIGRATE would be in its inheritable effective set and not in its "
		 "inheritable "
		 "permitted one",
		 {{0}}},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct capability_change c = capability_no_change();
		struct capability_sets s = cases[i].from;
		const struct capability_sets *want =
			cases[i].r ? &cases[i].from : &cases[i].to;
		char why[128] = "";

		for (int set = 0; set < CAPABILITY_SETS_N; set++)
			if (cases[i].words[set])
				assert_int_equal(parse(&c, set, cases[i].words[set]),
						 0);
		assert_int_equal(capability_change(&s, &c, why, sizeof(why)),
				 cases[i].r);
		assert_string_equal(why, cases[i].why);
		assert_true(capability_equal(&s, want));
	}
}

static void text_says_the_sets_in_one_way(void **state)
{
	static const char *const bad[] = {"",
					  "27",
					  "27,27,27",
					  "27,27,27,27 ",
					  "27,27,27,27,1",
					  "027,27,27,27",
					  "27,+27,27,27",
					  "27,-1,27,27",
					  "8,0,0,0",
					  "1,3,0,0",
					  "1,1,3,0",
					  "3,3,1,2",
					  "4000,0,0,0"};
	struct capability_sets s = {{027, 023, 7, 5}}, again = {0};
	char text[CAPABILITY_TEXT_MAX];

	capability_format(&s, text);
	assert_string_equal(text, "27,23,7,5");
	assert_int_equal(capability_unformat(&again, text), 0);
	assert_true(capability_equal(&s, &again));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(capability_unformat(&again, bad[i]), -EBADMSG);
		assert_true(capability_equal(&s, &again));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ssi_run_begins_with_what_works),
		cmocka_unit_test(children_have_what_is_inheritable),
		cmocka_unit_test(words_are_added_taken_away_or_all_there_is),
		cmocka_unit_test(words_come_one_after_the_other),
		cmocka_unit_test(what_is_no_word_changes_nothing),
		cmocka_unit_test(changes_keep_the_rules),
		cmocka_unit_test(text_says_the_sets_in_one_way),
	};

	return cmocka_run_group_tests_name("capability rules", tests, NULL, NULL);
}
