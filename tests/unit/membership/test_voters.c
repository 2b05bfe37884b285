/* Who gets a vote and who loses it, step by step until nothing changes. */
#include "membership_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { MAX = 12 };

/* Members of a cluster: 'V' a voter, 'v' one that is down, 'g' one that is gone for long, 'u' up
 * without a vote, 'd' down, 'R' a voter that was removed, 'A' one that answers, 'r' no voter any
 * more.  Member 1 leads. */
static void settle(const char *members, const char *expected)
{
	struct membership_voter v[MAX];
	char result[MAX + 1] = "";
	size_t n = strlen(members);
	unsigned steps = 0;
	node_id next;
	bool vote;

	for (size_t i = 0; i < n; i++)
		v[i] = (struct membership_voter){
			.node = (node_id)(10 * i + 1),
			.up = strchr("VuA", members[i]) != NULL,
			.gone = strchr("gRA", members[i]) != NULL,
			.removed = strchr("RA", members[i]) != NULL,
			.voter = strchr("VvgRA", members[i]) != NULL,
		};
	while ((next = membership_voters_next(v, n, 1, &vote)) != NODE_NONE) {
		struct membership_voter *changed = &v[(next - 1) / 10];

		assert_true(changed->voter != vote);
		for (size_t i = 0; !vote && changed->up && changed->removed && i < n; i++)
			assert_false(v[i].voter && v[i].gone && !v[i].up);
		assert_true(++steps < 2 * MAX);
		changed->voter = vote;
	}
	for (size_t i = 0; i < n; i++)
		result[i] = v[i].voter	 ? (v[i].removed ? 'R' : v[i].up ? 'V' : v[i].gone ? 'g' : 'v') :
			    v[i].removed ? 'r' :
			    v[i].up	 ? 'u' :
					   'd';
	assert_string_equal(result, expected);
}

static void one_voter_until_there_are_three_members(void **state)
{
	settle("V", "V");
	settle("Vu", "Vu");
	settle("Vuu", "VVV");
	settle("Vuuu", "VVVu");
	settle("Vuuuu", "VVVVV");
	settle("Vuuuuu", "VVVVVu");
	settle("Vuuuuuuuu", "VVVVVVVuu");
}

static void who_is_removed_loses_the_vote(void **state)
{
	settle("VVR", "Vur");
	settle("VRR", "Vrr");
	settle("VVRu", "VVrV");
	settle("VRVvVu", "VrVvVV");
	settle("VAR", "Vrr");
	settle("VAg", "Vrd");
	settle("VAgRuu", "VrdrVV");
	settle("VVVVR", "VVVur");
	/* Also when nobody can have it. */
	settle("VRdvv", "Vrdvv");
}

static void who_is_gone_is_replaced_and_not_before(void **state)
{
	settle("VVvu", "VVvu");
	settle("VVgu", "VVdV");
	settle("VggVVuuuu", "VddVVVVVV");
}

static void nobody_is_put_in_place_of_a_voter_when_there_is_nobody(void **state)
{
	settle("VVg", "VVg");
	settle("Vgg", "Vgg");
	settle("VVgd", "VVgd");
}

static void too_many_voters_become_fewer_but_the_leader_stays(void **state)
{
	settle("VVVV", "VVVu");
	settle("VV", "Vu");
	settle("VVVVVVVVV", "VVVVVVVuu");
	settle("VgVVVVVV", "VdVVVVVV");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_voter_until_there_are_three_members),
		cmocka_unit_test(who_is_gone_is_replaced_and_not_before),
		cmocka_unit_test(who_is_removed_loses_the_vote),
		cmocka_unit_test(nobody_is_put_in_place_of_a_voter_when_there_is_nobody),
		cmocka_unit_test(too_many_voters_become_fewer_but_the_leader_stays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
