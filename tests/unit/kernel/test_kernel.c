#include "kernel.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static int setup(void **state)
{
	return kernel_new((struct kernel **)state);
}

static int teardown(void **state)
{
	*state = kernel_free(*state);
	return 0;
}

static void every_row_says_what_it_found(void **state)
{
	const struct kernel_row *rows;
	size_t n;

	rows = kernel_rows(*state, &n);
	assert_true(n >= 15);
	for (size_t i = 0; i < n; i++) {
		assert_true(rows[i].name[0]);
		assert_true(rows[i].detail[0]);
		assert_int_equal(rows[i].remedy[0] != '\0', rows[i].state != KERNEL_OK);
		(void)printf("# %-22s %d %s; %s\n", rows[i].name, rows[i].state, rows[i].detail,
			     rows[i].remedy);
	}
}

static void rows_are_found_by_name(void **state)
{
	assert_true(kernel_has(*state, "memfd"));
	assert_non_null(kernel_row_named(*state, "kernel"));
	assert_null(kernel_row_named(*state, "nonsense"));
	assert_false(kernel_has(*state, "nonsense"));
}

static void callers_append_and_replace(void **state)
{
	struct kernel_row row = { .name = "criu", .state = KERNEL_MISSING, .detail = "none" };
	size_t before, after;

	(void)kernel_rows(*state, &before);
	assert_int_equal(kernel_append(*state, &row), 0);
	assert_false(kernel_has(*state, "criu"));
	row.state = KERNEL_WARN;
	assert_int_equal(kernel_append(*state, &row), 0);
	assert_true(kernel_has(*state, "criu"));
	(void)kernel_rows(*state, &after);
	assert_int_equal(after, before + 1);
}

static void the_table_has_an_end(void **state)
{
	struct kernel_row row = { .state = KERNEL_OK, .detail = "x" };
	int r = 0;

	for (int i = 0; r == 0 && i < 1000; i++) {
		(void)snprintf(row.name, sizeof(row.name), "row %d", i);
		r = kernel_append(*state, &row);
	}
	assert_int_equal(r, -ENOSPC);
}

int main(void)
{
	const struct CMUnitTest all[] = {
		cmocka_unit_test_setup_teardown(every_row_says_what_it_found, setup, teardown),
		cmocka_unit_test_setup_teardown(rows_are_found_by_name, setup, teardown),
		cmocka_unit_test_setup_teardown(callers_append_and_replace, setup, teardown),
		cmocka_unit_test_setup_teardown(the_table_has_an_end, setup, teardown),
	};

	return cmocka_run_group_tests_name("kernel", all, NULL, NULL);
}
