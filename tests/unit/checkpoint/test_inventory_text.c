#include "inventory_internal.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define HEAD	  "ssi-inventory 1\n"
#define FS	  "fs none\nfs nfs4 server:/home\n"
#define TASK	  "task 71 0 71 71 1000 100 2 3 0 4096 xz\n"
#define CHILD	  "task 72 71 71 71 1000 100 1 0 9 0 a b\n"
#define FILE_LINE "file 71 3 1 2 1 57 0 1234 1 5 1000 100 33152 10 2 - /home/u/a b\n"
#define MAP_LINE                                                                       \
	"file 71 -1 1 1 1 57 0 1235 1 5 0 0 33261 10 83886080 "                        \
	"00112233445566778899aabbccddeeff00112233 /lib/x\\x0a\\x5cy\n"

#define SETS	  "capabilities 23,21,3,1\n"

static const char whole[] = HEAD FS TASK CHILD SETS FILE_LINE MAP_LINE;

static int parse(const char *text)
{
	struct inventory *i = NULL;
	int r = inventory_parse(&i, text, strlen(text));

	assert_int_equal(r == 0, i != NULL);
	(void)inventory_free(i);
	return r;
}

static void test_what_is_parsed_is_what_was_formatted(void **state)
{
	struct inventory *i = NULL;
	char *text = NULL;
	size_t len;

	assert_int_equal(inventory_parse(&i, whole, strlen(whole)), 0);
	assert_int_equal(i->n_tasks, 2);
	assert_string_equal(i->tasks[1].comm, "a b");
	assert_true(i->tasks[0].no_new_privs && i->tasks[0].seccomp);
	assert_int_equal(i->tasks[1].tracer, 9);
	assert_int_equal(i->tasks[0].capabilities.of[CAPABILITY_EFFECTIVE], 023);
	assert_int_equal(i->tasks[1].capabilities.of[CAPABILITY_EFFECTIVE], 021);
	assert_int_equal(i->n_files, 2);
	assert_int_equal(i->files[0].fd, 3);
	assert_true(i->files[0].locked && !i->files[0].deleted);
	assert_int_equal(i->files[0].mode, S_IFREG | 0600);
	assert_int_equal(i->files[0].flags, O_RDWR);
	assert_string_equal(i->file_systems[i->files[0].fs], "nfs4 server:/home");
	assert_string_equal(i->files[1].path, "/lib/x\n\\y");
	assert_int_equal(i->files[1].fd, INVENTORY_MAPPING);
	assert_int_equal(strlen(i->files[1].build_id), 40);
	assert_int_equal(inventory_format(i, &text, &len), 0);
	assert_int_equal(len, strlen(whole));
	assert_string_equal(text, whole);
	free(text);
	(void)inventory_free(i);
}

static void test_nothing_that_is_cut_short_crashes(void **state)
{
	for (size_t n = 0; n < strlen(whole); n++) {
		char *cut = malloc(n ? n : 1); /* so that a byte too far is seen */
		struct inventory *i = NULL;

		memcpy(cut, whole, n);
		if (inventory_parse(&i, cut, n) == 0)
			assert_int_equal(cut[n - 1], '\n');
		(void)inventory_free(i);
		free(cut);
	}
}

static void test_what_parses_has_one_way_to_be_written(void **state)
{
	char text[sizeof(whole)];

	for (size_t n = 0; n < strlen(whole); n++)
		for (int bit = 0; bit < 8; bit++) {
			struct inventory *i = NULL;
			char *again = NULL;
			size_t len = 0;

			memcpy(text, whole, sizeof(whole));
			text[n] = (char)(text[n] ^ 1 << bit);
			if (inventory_parse(&i, text, strlen(whole)) < 0)
				continue;
			assert_int_equal(inventory_format(i, &again, &len), 0);
			assert_int_equal(len, strlen(whole));
			assert_memory_equal(again, text, len);
			free(again);
			(void)inventory_free(i);
		}
}

static void test_what_is_not_an_inventory_is_refused(void **state)
{
	static const char *const bad[] = {
		"",
		"ssi-inventory 2\n" FS TASK,
		HEAD,
		HEAD FS,
		HEAD "nonsense\n" FS TASK,
		HEAD FS TASK TASK,				 /* twice */
		HEAD FS TASK FILE_LINE FILE_LINE,		 /* twice */
		HEAD FS "fs none\n" TASK,			 /* twice */
		HEAD "fs none\nfs none\n" TASK,			 /* twice */
		HEAD FS CHILD TASK,				 /* parent later */
		HEAD FS TASK "task 72 73 71 71 0 0 1 0 0 0 x\n", /* no parent */
		HEAD FS TASK "task 72 0 71 71 0 0 1 0 0 0 x\n",	 /* two roots */
		HEAD FS
		"file 71 3 1 0 1 0 0 0 0 0 0 0 0 0 0 - /a\n" TASK, /* no such task */
		HEAD FS TASK
		"file 71 3 1 0 2 0 0 0 0 0 0 0 0 0 0 - /a\n", /* no such fs */
		HEAD FS TASK
		"file 71 3 11 0 1 0 0 0 0 0 0 0 0 0 0 - /a\n", /* no such type */
		HEAD FS TASK "file 71 3 0 0 1 0 0 0 0 0 0 0 0 0 0 - /a\n",
		HEAD FS TASK "file 71 -5 1 0 1 0 0 0 0 0 0 0 0 0 0 - /a\n",
		HEAD FS TASK "file 71 -0 1 0 1 0 0 0 0 0 0 0 0 0 0 - /a\n",
		HEAD FS TASK "file 71 03 1 0 1 0 0 0 0 0 0 0 0 0 0 - /a\n",
		HEAD FS TASK "file 71 +3 1 0 1 0 0 0 0 0 0 0 0 0 0 - /a\n",
		HEAD FS TASK "file 71  3 1 0 1 0 0 0 0 0 0 0 0 0 0 - /a\n",
		HEAD FS TASK "file 71 3 1 0 1 0 0 0 0 0 0 0 0 0 0 abc /a\n", /* odd */
		HEAD FS TASK "file 71 3 1 0 1 0 0 0 0 0 0 0 0 0 0 AB /a\n",
		HEAD FS TASK "file 71 3 1 0 1 0 0 0 0 0 0 0 0 0 0 - /a\\\n",
		HEAD FS TASK "file 71 3 1 0 1 0 0 0 0 0 0 0 0 0 0 - /a\\x41\n",
		HEAD FS TASK "file 71 3 1 0 1 0 0 0 0 0 0 0 0 0 0 - /a\\x00\n",
		HEAD FS TASK "file 71 3 1 0 1 0 0 0 0 0 0 0 0 0 0 - /a\t\n",
		HEAD FS TASK
		"file 71 3 1 0 1 0 0 18446744073709551616 0 0 0 0 0 0 0 - /\n",
		HEAD FS TASK "file 4294967367 3 1 0 1 0 0 0 0 0 0 0 0 0 0 - /a\n",
		HEAD FS TASK "file 71 3 1 0 1 0 0 0 0 0 0 0 65536 0 0 - /a\n",
		HEAD FS "task 71 0 71 71 0 0 1 0 0 0 a name of seventeen\n",
		HEAD FS SETS TASK,				/* whose? */
		HEAD FS TASK SETS SETS,				/* twice */
		HEAD FS TASK FILE_LINE SETS,			/* late */
		HEAD FS TASK "capabilities 23,23,23,23\n",	/* the initial ones */
		HEAD FS TASK "capabilities 1,3,1,1\n",		/* not within each other */
		HEAD FS TASK "capabilities 023,21,23,21\n",
		HEAD FS TASK "capabilities 40000023,1,1,1\n",	/* there is not */
		HEAD FS TASK "capabilities 23,21,23\n",
		HEAD FS "task 0 0 71 71 0 0 1 0 0 0 x\n",
	};

	assert_int_equal(parse(HEAD FS TASK), 0);
	for (size_t k = 0; k < N_ELEMENTS(bad); k++)
		if (parse(bad[k]) >= 0)
			fail_msg("accepted: %s", bad[k]);
}

static void test_limits_hold_both_ways(void **state)
{
	static char text[INVENTORY_TEXT_MAX + 2];
	struct inventory *i = NULL;
	size_t at = (size_t)snprintf(text, sizeof(text), "%s", HEAD FS TASK), len;
	char *out = NULL;

	/* One byte too many */
	memset(text + at, 'x', sizeof(text) - at - 1);
	assert_true(inventory_parse(&i, text, INVENTORY_TEXT_MAX + 1) < 0);
	/* More mappings than may be: short ones, so that the text is not what stops
	 * them. */
	for (int n = 0; n < 16500; n++)
		at += (size_t)snprintf(text + at, sizeof(text) - at,
				       "file 71 -1 1 0 0 0 0 %d 0 0 0 0 0 0 0 - /\n",
				       n);
	assert_int_equal(inventory_parse(&i, text, at), -E2BIG);
	assert_null(i);
	/* A long path for each: more text than may be. */
	i = calloc(1, sizeof(*i));
	for (int n = 0; n < 400; n++) {
		struct inventory_file f = {.pid = 71, .fd = INVENTORY_MAPPING};

		f.path = malloc(4000);
		memset(f.path, 'y', 3999);
		f.path[3999] = '\0';
		assert_int_equal(inventory_add_file(i, &f), 0);
	}
	assert_int_equal(inventory_format(i, &out, &len), -E2BIG);
	assert_null(out);
	(void)inventory_free(i);
}

static void test_lines_for_people_are_lines_and_not_too_many(void **state)
{
	struct report r = {0};
	char *text = NULL;
	int lines = 1;

	assert_int_equal(report_done(&r, 7, &text), 0);
	assert_null(text);
	for (int k = 0; k < 100; k++)
		report_line(&r, "a\nline\033[2J %d", k);
	assert_int_equal(report_done(&r, 7, &text), 7);
	for (const char *p = text; *p; p++) {
		lines += *p == '\n';
		assert_true(*p != '\033');
	}
	assert_int_equal(lines, 65);
	assert_non_null(strstr(text, "\nand 36 more"));
	free(text);
	report_fini(&r);
}

int main(void)
{
	const struct CMUnitTest all[] = {
		cmocka_unit_test(test_what_is_parsed_is_what_was_formatted),
		cmocka_unit_test(test_nothing_that_is_cut_short_crashes),
		cmocka_unit_test(test_what_parses_has_one_way_to_be_written),
		cmocka_unit_test(test_what_is_not_an_inventory_is_refused),
		cmocka_unit_test(test_limits_hold_both_ways),
		cmocka_unit_test(test_lines_for_people_are_lines_and_not_too_many),
	};

	return cmocka_run_group_tests(all, NULL, NULL);
}
