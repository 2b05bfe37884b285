#include "placement_wire.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void fill(struct placement_exec *x)
{
	static char *const argv[] = { "cc", "-c", "a.c", NULL }, *const envp[] = { "A=b", NULL };

	*x = (struct placement_exec){ .program = "/usr/bin/cc",
				      .program_size = 1234,
				      .program_changed = 5678,
				      .blocked = 1,
				      .ignored = 2,
				      .n_given = 2,
				      .given = { -1, -1 } };
	x->launch.argv = (char **)argv;
	x->launch.envp = (char **)envp;
	x->launch.cwd = "/shared";
	x->descriptors[x->n_descriptors++] = (struct placement_descriptor){ .path = "/dev/null" };
	x->descriptors[x->n_descriptors++] =
		(struct placement_descriptor){ 1, PLACEMENT_PIPE, NULL, 1, 0, 0, 0 };
	x->descriptors[x->n_descriptors++] =
		(struct placement_descriptor){ 2, PLACEMENT_PIPE, NULL, 1, 0, 0, 1 };
	x->same[x->n_same++] = (struct placement_same){ "/shared", 17, "nfs4 server:/home" };
}

static void what_is_packed_is_found_again(void **state)
{
	struct placement_exec x, back = { 0 };
	uint8_t *page;
	size_t len;

	fill(&x);
	assert_int_equal(placement_pack(&x, &page, &len), 0);
	assert_int_equal(placement_unpack(&back, page, len, 2), 0);
	assert_int_equal(back.n_same, 1);
	assert_string_equal(back.same[0].path, "/shared");
	assert_string_equal(back.same[0].file_system, "nfs4 server:/home");
	assert_int_equal(back.same[0].inode, 17);
	assert_int_equal(back.n_given, 2);
	assert_int_equal(back.given[0], -1);
	placement_exec_fini(&back);
	/* A pipe that is not given. */
	assert_int_equal(placement_unpack(&back, page, len, 1), -EBADMSG);
	placement_exec_fini(&back);
	assert_int_equal(placement_unpack(&back, page, len, PLACEMENT_GIVEN_MAX + 1), -EBADMSG);
	placement_exec_fini(&back);
	free(page);
}

static void a_launch_that_is_no_exec_is_refused(void **state)
{
	struct placement_exec back = { 0 };

	assert_int_equal(placement_unpack(&back, (const uint8_t *)"", 0, 0), -EBADMSG);
	placement_exec_fini(&back);
}

static void bad_numbers_are_refused(void **state)
{
	static const int numbers[] = { -1, PLACEMENT_NUMBER_MAX + 1 };
	struct placement_exec x, back = { 0 };
	uint8_t *page;
	size_t len;

	for (size_t i = 0; i < 2; i++) {
		fill(&x);
		x.descriptors[1].number = numbers[i];
		assert_int_equal(placement_pack(&x, &page, &len), 0);
		assert_int_equal(placement_unpack(&back, page, len, 2), -EBADMSG);
		placement_exec_fini(&back);
		free(page);
	}
}

/* Of every message that begins as a true one: an answer, and nothing else. */
static void broken_pages_do_no_harm(void **state)
{
	struct placement_exec x, back = { 0 };
	uint32_t random = 1;
	uint8_t *page;
	size_t len;

	fill(&x);
	assert_int_equal(placement_pack(&x, &page, &len), 0);
	for (size_t n = 0; n <= len; n++) {
		(void)placement_unpack(&back, page, n, 2);
		placement_exec_fini(&back);
	}
	for (int i = 0; i < 20000; i++) {
		uint8_t *at, old;

		random = random * 1664525 + 1013904223;
		at = &page[random / 7 % len];
		old = *at;
		*at ^= 1u << (random >> 16) % 8;
		(void)placement_unpack(&back, page, len, 2);
		placement_exec_fini(&back);
		if (random & 1 << 20)
			*at = old;
	}
	free(page);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_packed_is_found_again),
		cmocka_unit_test(a_launch_that_is_no_exec_is_refused),
		cmocka_unit_test(bad_numbers_are_refused),
		cmocka_unit_test(broken_pages_do_no_harm),
	};

	return cmocka_run_group_tests_name("placement wire", tests, NULL, NULL);
}
