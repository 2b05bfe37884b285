/* The image store, what it takes out of images, and what it makes of criu's log. */
#include "criu_images.pb-c.h"
#include "criu_internal.h"
#include "image.h"
#include "image_core.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static char directory[64];
static int dir_fd = -1;

static int setup(void **state)
{
	(void)strcpy(directory, "/tmp/test_image.XXXXXX");
	assert_non_null(mkdtemp(directory));
	dir_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(dir_fd >= 0);
	return 0;
}

static int teardown(void **state)
{
	close(dir_fd);
	assert_int_equal(rmdir(directory), 0); /* nothing was left in it */
	return 0;
}

static void names_are_of_images_only(void **state)
{
	static const char *const good[] = { "core-1.img", "pages-1.img", "tmpfs-dev-1.tar.gz.img",
					    "A_b-9", "manifest" };
	static const char *const bad[] = { "", ".", "..", ".hidden", "a/b", "../x", "a b", "a\n",
					   "\xc3\xa9", "/etc/passwd" };
	char longest[IMAGE_NAME_MAX + 2];

	for (size_t i = 0; i < N_ELEMENTS(good); i++)
		assert_true(image_name_ok(good[i]));
	for (size_t i = 0; i < N_ELEMENTS(bad); i++)
		assert_false(image_name_ok(bad[i]));
	memset(longest, 'a', sizeof(longest));
	longest[IMAGE_NAME_MAX + 1] = '\0';
	assert_false(image_name_ok(longest));
	longest[IMAGE_NAME_MAX] = '\0';
	assert_true(image_name_ok(longest));
}

static void files_are_listed_by_name_with_their_bytes(void **state)
{
	struct image_store *s;
	struct image_sink k;
	uint64_t size;

	assert_int_equal(image_store_new(&s, dir_fd, "store", 1000), 0);
	k = image_store_sink(s);
	assert_int_equal(k.write(k.owner, "b.img", "12345", 5), 0);
	assert_int_equal(k.write(k.owner, "a.img", "123", 3), 0);
	assert_int_equal(k.write(k.owner, "b.img", "67", 2), 0);
	assert_int_equal(k.close(k.owner, "b.img"), 0);
	assert_int_equal(k.close(k.owner, "c.img"), 0);
	assert_int_equal(image_store_n_files(s), 3);
	assert_string_equal(image_store_file(s, 0, &size), "a.img");
	assert_int_equal(size, 3);
	assert_string_equal(image_store_file(s, 1, &size), "b.img");
	assert_int_equal(size, 7);
	assert_string_equal(image_store_file(s, 2, &size), "c.img");
	assert_int_equal(size, 0);
	assert_null(image_store_file(s, 3, &size));
	assert_int_equal(image_store_bytes(s), 10);
	assert_int_equal(k.write(k.owner, "b.img", "8", 1), IMAGE_E_NAME);
	assert_int_equal(k.close(k.owner, "b.img"), IMAGE_E_NAME);
	assert_int_equal(k.write(k.owner, "../b.img", "8", 1), IMAGE_E_NAME);
	image_store_free(s);
}

static void a_store_takes_its_limit_and_no_byte_more(void **state)
{
	struct image_store *s;
	struct image_sink k;

	assert_int_equal(image_store_new(&s, dir_fd, "store", 10), 0);
	k = image_store_sink(s);
	assert_int_equal(k.write(k.owner, "a", "123456", 6), 0);
	assert_int_equal(k.write(k.owner, "b", "12345", 5), IMAGE_E_FULL);
	assert_int_equal(k.write(k.owner, "b", "1234", 4), 0);
	assert_int_equal(k.write(k.owner, "b", "1", 1), IMAGE_E_FULL);
	assert_int_equal(image_store_bytes(s), 10);
	image_store_free(s);
}

static void a_store_takes_so_many_files(void **state)
{
	struct image_store *s;
	struct image_sink k;
	char name[32];

	assert_int_equal(image_store_new(&s, dir_fd, "store", 10), 0);
	k = image_store_sink(s);
	for (int i = 0; i < IMAGE_FILES_MAX; i++) {
		(void)snprintf(name, sizeof(name), "f%d", i);
		assert_int_equal(k.close(k.owner, name), 0);
	}
	assert_int_equal(k.close(k.owner, "one-more"), IMAGE_E_NAME);
	assert_int_equal(image_store_n_files(s), IMAGE_FILES_MAX);
	image_store_free(s);
}

static void a_directory_of_another_is_left_alone(void **state)
{
	struct image_store *s, *t;

	assert_int_equal(image_store_new(&s, dir_fd, "store", 10), 0);
	assert_int_equal(image_store_new(&t, dir_fd, "store", 10), -EEXIST);
	assert_int_equal(image_store_new(&t, dir_fd, "../store", 10), -EINVAL);
	assert_int_equal(faccessat(dir_fd, "store", F_OK, 0), 0);
	image_store_free(s);
	assert_int_equal(faccessat(dir_fd, "store", F_OK, 0), -1);
}

/* A core image with one entry, and a field that nobody here knows. */
static size_t core_image(uint8_t *ret, bool filtered)
{
	static const uint8_t magic[8] = { 0x19, 0x43, 0x56, 0x54, 0x47, 0x38, 0x05, 0x55 };
	static const uint8_t unknown[] = { 0x08, 0x01 }; /* mtype */
	Ssi__CriuImage__ThreadCore thread = SSI__CRIU_IMAGE__THREAD_CORE__INIT;
	Ssi__CriuImage__TaskCore task = SSI__CRIU_IMAGE__TASK_CORE__INIT;
	Ssi__CriuImage__Core core = SSI__CRIU_IMAGE__CORE__INIT;
	size_t n;

	core.tc = &task;
	core.thread_core = &thread;
	thread.has_seccomp_mode = thread.has_seccomp_filter = filtered;
	thread.seccomp_mode = 2;
	memcpy(ret, magic, 8);
	memcpy(ret + 12, unknown, 2);
	n = 2 + ssi__criu_image__core__pack(&core, ret + 14);
	ret[8] = (uint8_t)n;
	ret[9] = ret[10] = ret[11] = 0;
	return 12 + n;
}

static void a_filter_is_stripped_and_the_rest_kept(void **state)
{
	uint8_t with[256], without[256];
	size_t n_with = core_image(with, true), n_without = core_image(without, false);
	_cleanup_buf_ struct buf out = { 0 }, again = { 0 };
	bool changed;

	assert_int_equal(image_core_strip(with, n_with, &out, &changed), 0);
	assert_true(changed);
	assert_int_equal(out.len, n_without);
	assert_int_equal(image_core_strip(out.data, out.len, &again, &changed), 0);
	assert_false(changed);
	/* Unknown fields go to the end, which protobuf allows. */
	assert_non_null(memmem(out.data + 12, out.len - 12, "\x08\x01", 2));
	assert_int_equal(image_core_strip(without, n_without, &again, &changed), 0);
	assert_false(changed);
}

static void what_is_no_core_image_is_refused(void **state)
{
	uint8_t image[256];
	size_t n = core_image(image, true);
	_cleanup_buf_ struct buf out = { 0 };
	bool changed;

	for (size_t len = 0; len < n; len++)
		if (len != 8) /* magic alone: an image of no entries */
			assert_int_equal(image_core_strip(image, len, &out, &changed), -EBADMSG);
	image[8] = 0xff;
	assert_int_equal(image_core_strip(image, n, &out, &changed), -EBADMSG);
	image[0] = 0;
	assert_int_equal(image_core_strip(image, n, &out, &changed), -EBADMSG);
}

static void a_log_is_read_for_its_cause(void **state)
{
	static const struct {
		const char *line, *text; /* NULL: says nothing */
	} table[] = {
		{ "(00.000001) Error (criu/util.c:1): rlimit: Can't setup RLIMIT_NOFILE for self\n",
		  NULL },
		{ "(00.1) Warn  (criu/x.c:1): something\n", NULL },
		{ "(00.1) Error (criu/cr-dump.c:2): Dumping FAILED.\n", NULL },
		{ "(00.1) Error (criu/files-ext.c:98): Can't dump file 3 of that type [20666] (chr "
		  "5:2)\n",
		  "Can't dump file 3 of that type [20666] (chr 5:2)" },
		{ "(00.1)   4711: Error (criu/files-reg.c:7): Can't open file tmp/x: No such file\n",
		  "Can't open file tmp/x: No such file" },
		{ "(00.1) Error (criu/sk-unix.c:3): unix: External socket is used\n",
		  "External socket is used" },
		{ "(00.1) Error (criu/cr-restore.c:3): Can't fork for 65537: File exists\n",
		  "PID 65537 is in use" },
		{ "(00.1) Error (criu/x.c:3): name with \x1b[31m\n", "name with ?[31m" },
		{ "Error (", NULL },
		{ "", NULL },
	};
	char text[128];

	for (size_t i = 0; i < N_ELEMENTS(table); i++) {
		assert_int_equal(criu_log_line(table[i].line, text, sizeof(text)),
				 table[i].text != NULL);
		if (table[i].text)
			assert_string_equal(text, table[i].text);
	}
}

int main(void)
{
	const struct CMUnitTest all[] = {
#define TEST(name_) cmocka_unit_test_setup_teardown(name_, setup, teardown)
		cmocka_unit_test(names_are_of_images_only),
		TEST(files_are_listed_by_name_with_their_bytes),
		TEST(a_store_takes_its_limit_and_no_byte_more),
		TEST(a_store_takes_so_many_files),
		TEST(a_directory_of_another_is_left_alone),
		cmocka_unit_test(a_filter_is_stripped_and_the_rest_kept),
		cmocka_unit_test(what_is_no_core_image_is_refused),
		cmocka_unit_test(a_log_is_read_for_its_cause),
	};

	return cmocka_run_group_tests(all, NULL, NULL);
}
