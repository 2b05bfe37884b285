#include "placement_wire.h"

#include "process.pb-c.h"

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

static void add_terminal(struct placement_exec *x)
{
	x->has_terminal = true;
	x->terminal = (struct tty_state){
		.foreground = 1234,
		.owner = 1000,
		.modes.c_lflag = ICANON | ECHO,
		.size = { .ws_row = 24, .ws_col = 80 },
		.typed = 7,
		.shown = 8,
	};
	x->descriptors[x->n_descriptors++] =
		(struct placement_descriptor){ .number = 3, .kind = PLACEMENT_TERMINAL };
}

static void a_terminal_is_found_again_behind_the_pipes(void **state)
{
	struct placement_exec x, back = { 0 };
	uint8_t *page;
	size_t len;

	fill(&x);
	add_terminal(&x);
	assert_int_equal(placement_pack(&x, &page, &len), 0);
	assert_int_equal(placement_unpack(&back, page, len, 2), 0);
	assert_true(back.has_terminal);
	assert_int_equal(back.n_given, 2);
	assert_int_equal(back.terminal.foreground, 1234);
	assert_int_equal(back.terminal.owner, 1000);
	assert_memory_equal(&back.terminal.modes, &x.terminal.modes, sizeof(x.terminal.modes));
	assert_memory_equal(&back.terminal.size, &x.terminal.size, sizeof(x.terminal.size));
	assert_int_equal(back.terminal.typed, 7);
	assert_int_equal(back.terminal.shown, 8);
	placement_exec_fini(&back);
	/* Where a pipe is given. */
	assert_int_equal(placement_unpack(&back, page, len, 3), -EBADMSG);
	placement_exec_fini(&back);
	free(page);
}

static void a_line_without_both_streams_is_refused(void **state)
{
	struct placement_exec x, back = { 0 };
	uint8_t *page;
	size_t len;

	for (int i = 0; i < 2; i++) {
		fill(&x);
		add_terminal(&x);
		*(i ? &x.terminal.shown : &x.terminal.typed) = 0;
		assert_int_equal(placement_pack(&x, &page, &len), 0);
		assert_int_equal(placement_unpack(&back, page, len, 2), -EBADMSG);
		placement_exec_fini(&back);
		free(page);
	}
}

/* What @spoil makes of a good message. */
static int unpack_spoilt(bool terminal, void (*spoil)(Ssi__Process__Exec *exec))
{
	struct placement_exec x, back = { 0 };
	Ssi__Process__Launch *m;
	uint8_t *page;
	size_t len;
	int r;

	fill(&x);
	if (terminal)
		add_terminal(&x);
	assert_int_equal(placement_pack(&x, &page, &len), 0);
	m = ssi__process__launch__unpack(NULL, len, page);
	assert_non_null(m);
	free(page);
	spoil(m->exec);
	len = ssi__process__launch__get_packed_size(m);
	page = malloc(len);
	assert_non_null(page);
	(void)ssi__process__launch__pack(m, page);
	ssi__process__launch__free_unpacked(m, NULL);
	r = placement_unpack(&back, page, len, 2);
	placement_exec_fini(&back);
	free(page);
	return r;
}

static void leave(Ssi__Process__Exec *exec)
{
}

static void shorten_modes(Ssi__Process__Exec *exec)
{
	exec->terminal->modes.len--;
}

static void shorten_size(Ssi__Process__Exec *exec)
{
	exec->terminal->size.len--;
}

static void give_another_mirror(Ssi__Process__Exec *exec)
{
	exec->terminal->given = 1;
}

static void give_a_pipe(Ssi__Process__Exec *exec)
{
	exec->descriptors[exec->n_descriptors - 1]->given = 1;
}

static void make_a_pipe_a_terminal(Ssi__Process__Exec *exec)
{
	exec->descriptors[1]->kind = SSI__PROCESS__DESCRIPTOR__KIND__TERMINAL;
	exec->descriptors[1]->given = 2;
}

static void a_bad_terminal_is_refused(void **state)
{
	assert_int_equal(unpack_spoilt(true, leave), 0);
	assert_int_equal(unpack_spoilt(true, shorten_modes), -EBADMSG);
	assert_int_equal(unpack_spoilt(true, shorten_size), -EBADMSG);
	assert_int_equal(unpack_spoilt(true, give_another_mirror), -EBADMSG);
	assert_int_equal(unpack_spoilt(true, give_a_pipe), -EBADMSG);
	/* There is none. */
	assert_int_equal(unpack_spoilt(true, make_a_pipe_a_terminal), 0);
	assert_int_equal(unpack_spoilt(false, make_a_pipe_a_terminal), -EBADMSG);
}

/* Of every message that begins as a true one: an answer, and nothing else. */
static void broken_pages_do_no_harm(void **state)
{
	struct placement_exec x, back = { 0 };
	uint32_t random = 1;
	uint8_t *page;
	size_t len;

	fill(&x);
	add_terminal(&x);
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
		cmocka_unit_test(a_terminal_is_found_again_behind_the_pipes),
		cmocka_unit_test(a_line_without_both_streams_is_refused),
		cmocka_unit_test(a_bad_terminal_is_refused),
		cmocka_unit_test(broken_pages_do_no_harm),
	};

	return cmocka_run_group_tests_name("placement wire", tests, NULL, NULL);
}
