#include "process.pb-c.h"
#include "process_wire.h"
#include "shadow_command.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static char *argv[] = {"prog", "", "b c", NULL}, *envp[] = {"A=1", NULL};

static void launch_survives_the_wire(void **state)
{
	struct process_launch l = {
		.argv = argv,
		.envp = envp,
		.cwd = "/tmp",
		.name = "x",
		.caller = {.uid = 5, .gid = 6, .groups = {7, 8}, .n_groups = 2},
		.umask = 027,
		.nice = -3,
		.report = true,
		.stdio = {4, 5, 6}};
	_cleanup_(process_launch_freep) struct process_launch *back = NULL;
	_cleanup_free_ uint8_t *data = NULL;
	size_t len;

	l.limits[RLIMIT_NOFILE] = (struct rlimit){10, RLIM_INFINITY};
	assert_int_equal(process_launch_pack(&l, &data, &len), 0);
	assert_int_equal(process_launch_unpack(&back, data, len), 0);
	assert_string_equal(back->argv[0], "prog");
	assert_string_equal(back->argv[1], "");
	assert_string_equal(back->argv[2], "b c");
	assert_null(back->argv[3]);
	assert_string_equal(back->envp[0], "A=1");
	assert_string_equal(back->cwd, "/tmp");
	assert_int_equal(back->caller.n_groups, 2);
	assert_int_equal(back->caller.groups[1], 8);
	assert_int_equal(back->nice, -3);
	assert_int_equal(back->umask, 027);
	assert_true(back->report);
	assert_true(back->limits[RLIMIT_NOFILE].rlim_max == RLIM_INFINITY);
	for (int i = 0; i < 3; i++)
		assert_int_equal(back->stdio[i], -1); /* stay outside of the message */
}

static void launch_cut_anywhere_or_spoilt_is_refused_or_whole(void **state)
{
	struct process_launch l = {
		.argv = argv, .envp = envp, .cwd = "/tmp", .name = "x"};
	_cleanup_free_ uint8_t *data = NULL;
	struct process_launch *back;
	size_t len;

	assert_int_equal(process_launch_pack(&l, &data, &len), 0);
	for (size_t i = 0; i < len; i++) {
		back = NULL;
		(void)process_launch_unpack(&back, data, i);
		(void)process_launch_free(back);
		data[i] ^= 0x55;
		back = NULL;
		(void)process_launch_unpack(&back, data, len);
		(void)process_launch_free(back);
		data[i] ^= 0x55;
	}
}

static void expect_refused(const Ssi__Process__Launch *m)
{
	struct process_launch *l = NULL;
	uint8_t data[4096];
	size_t len = ssi__process__launch__pack(m, data);

	assert_int_equal(process_launch_unpack(&l, data, len), -EINVAL);
	assert_null(l);
}

static void launch_that_makes_no_sense_is_refused(void **state)
{
	Ssi__Process__Launch m = SSI__PROCESS__LAUNCH__INIT;
	ProtobufCBinaryData arg = {4, (uint8_t *)"a\0bc"}, good = {1, (uint8_t *)"a"};
	uint32_t groups[65] = {0};

	expect_refused(&m); /* no program */
	m.argv = &arg;
	m.n_argv = 1;
	expect_refused(&m); /* a NUL inside */
	m.argv = &good;
	m.groups = groups;
	m.n_groups = 65;
	expect_refused(&m);
	m.n_groups = 0;
	m.nice = 20;
	expect_refused(&m);
	m.nice = 0;
	m.name = (ProtobufCBinaryData){3, (uint8_t *)"a b"};
	expect_refused(&m);
}

static void name_is_no_pid_no_option_and_bounded(void **state)
{
	assert_true(process_name_ok(""));
	assert_true(process_name_ok("a"));
	assert_true(process_name_ok("Model_3.b+c~-"));
	assert_true(process_name_ok("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
	assert_false(process_name_ok("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
	assert_false(process_name_ok("7"));
	assert_false(process_name_ok("-a"));
	assert_false(process_name_ok("a b"));
	assert_false(process_name_ok("a\n"));
	assert_false(process_name_ok("ä"));
}

static void shadow_command_must_have_the_length_it_says(void **state)
{
	struct shadow_command c = {.verb = SHADOW_NAME, .n_data = 3, .data = "ab"};

	assert_true(shadow_command_ok(&c, SHADOW_COMMAND_HEAD + 3));
	assert_false(shadow_command_ok(&c, SHADOW_COMMAND_HEAD + 2));
	assert_false(shadow_command_ok(&c, SHADOW_COMMAND_HEAD + 4));
	assert_false(shadow_command_ok(&c, 3));
	assert_false(shadow_command_ok(&c, 0));
	c.data[2] = 'c'; /* no NUL at its end */
	assert_false(shadow_command_ok(&c, SHADOW_COMMAND_HEAD + 3));
	c = (struct shadow_command){.verb = SHADOW_KILL, .value = 65};
	assert_false(shadow_command_ok(&c, SHADOW_COMMAND_HEAD));
	c.verb = 99;
	assert_false(shadow_command_ok(&c, SHADOW_COMMAND_HEAD));
}

static void shadow_arguments_are_counted_and_bounded(void **state)
{
	struct shadow_command c = {.verb = SHADOW_EXEC, .n_data = 8};
	char *v[SHADOW_ARGS_MAX + 1];

	memcpy(c.data, "a\0\0bc\0d", 8);
	assert_int_equal(shadow_command_args(&c, v), 4);
	assert_string_equal(v[0], "a");
	assert_string_equal(v[1], "");
	assert_string_equal(v[2], "bc");
	assert_string_equal(v[3], "d");
	assert_null(v[4]);
	memset(c.data, 0, sizeof(c.data));
	c.n_data = SHADOW_ARGS_MAX;
	assert_int_equal(shadow_command_args(&c, v), SHADOW_ARGS_MAX);
	c.n_data++;
	assert_int_equal(shadow_command_args(&c, v), 0);
}

int main(void)
{
	static const struct CMUnitTest list[] = {
		cmocka_unit_test(launch_survives_the_wire),
		cmocka_unit_test(launch_cut_anywhere_or_spoilt_is_refused_or_whole),
		cmocka_unit_test(launch_that_makes_no_sense_is_refused),
		cmocka_unit_test(name_is_no_pid_no_option_and_bounded),
		cmocka_unit_test(shadow_command_must_have_the_length_it_says),
		cmocka_unit_test(shadow_arguments_are_counted_and_bounded),
	};

	return cmocka_run_group_tests_name("process wire", list, NULL, NULL);
}
