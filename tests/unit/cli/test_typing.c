/* What is typed: the way out, and the end of a file for a terminal. */
#include "relay.h"
#include "terminal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static bool typed(struct terminal_escape *e, const char *keys, uint64_t now_ms)
{
	return terminal_is_escape(e, keys, strlen(keys), now_ms);
}

static void three_keys_within_a_second_are_the_way_out(void **state)
{
	struct terminal_escape e = {0};

	assert_true(typed(&e, "\x1d\x1d\x1d", 5000));
	e = (struct terminal_escape){0};
	assert_false(typed(&e, "\x1d", 5000));
	assert_false(typed(&e, "\x1d", 5500));
	assert_true(typed(&e, "\x1d", 6000));
}

static void keys_between_them_or_too_late_are_not(void **state)
{
	struct terminal_escape e = {0};

	assert_false(typed(&e, "\x1d\x1d.\x1d", 5000));
	assert_false(typed(&e, "\x1d", 5100));
	assert_false(typed(&e, "\x1d", 6001));
	assert_false(typed(&e, "\x1d", 6100));
	assert_true(typed(&e, "\x1d", 6200));
	assert_false(typed(&e, "", 6300));
}

/* All that comes out when @text went in. */
static void expect(const char *text, const char *expected)
{
	struct relay r = {.input = true, .types = true};
	char out[64] = "";
	int in[2], to[2];
	size_t n = 0;

	assert_int_equal(pipe(in), 0);
	assert_int_equal(pipe(to), 0);
	assert_int_equal(write(in[1], text, strlen(text)), strlen(text));
	(void)close(in[1]);
	r.from = in[0];
	r.to = to[1];
	while (relay_live(&r)) {
		struct pollfd p[2];

		relay_prepare(&r, p);
		assert_true(poll(p, 2, 1000) > 0);
		(void)relay_turn(&r, p);
	}
	/* The terminal is not hung up by it. */
	assert_int_equal(r.to, to[1]);
	n = (size_t)read(to[0], out, sizeof(out) - 1);
	assert_int_equal(n, strlen(expected));
	assert_string_equal(out, expected);
	(void)close(in[0]);
	(void)close(to[0]);
	(void)close(to[1]);
}

static void the_end_of_a_file_is_typed(void **state)
{
	expect("", "\x04");
	expect("a line\n", "a line\n\x04");
	expect("no line", "no line\x04\x04");
}

int main(void)
{
	const struct CMUnitTest all[] = {
		cmocka_unit_test(three_keys_within_a_second_are_the_way_out),
		cmocka_unit_test(keys_between_them_or_too_late_are_not),
		cmocka_unit_test(the_end_of_a_file_is_typed),
	};

	return cmocka_run_group_tests_name("cli typing", all, NULL, NULL);
}
