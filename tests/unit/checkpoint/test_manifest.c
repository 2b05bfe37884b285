#include "image.h"
#include "inventory_internal.h"
#include "manifest_internal.h"

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
#include <unistd.h>

/* Linked with --wrap: the n-th allocation of the project's own code fails. */
static size_t allocations, failing;

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);
char *__wrap_strdup(const char *text);

static bool fails(void)
{
	return ++allocations == failing;
}

void *__wrap_malloc(size_t size)
{
	return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t size)
{
	return fails() ? NULL : __real_realloc(p, size);
}

char *__wrap_strdup(const char *text)
{
	size_t len = strlen(text) + 1;
	char *copy = __wrap_malloc(len);

	return copy ? memcpy(copy, text, len) : NULL;
}

static const uint8_t key[32] = "a key of thirty-two bytes, only";
static const uint8_t other_key[32] = "another key of thirty-two bytes";

static const char inventory[] =
	"ssi-inventory 1\n"
	"fs none\n"
	"fs nfs4 server:/home\n"
	"task 71 0 71 71 1000 100 2 0 0 4096 xz\n"
	"file 71 3 1 0 1 57 0 1234 1 5 1000 100 33152 10 2 - /home/a\n";

static struct manifest *sample(void)
{
	static const char sum[] =
		"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
	struct manifest *m = calloc(1, sizeof(*m));

	assert_non_null(m);
	(void)snprintf(m->name, sizeof(m->name), "65537-1");
	m->app = 65537;
	m->root = 71;
	m->uid = 1000;
	m->gid = UINT32_MAX;
	(void)snprintf(m->node, sizeof(m->node), "n1");
	m->taken = UINT64_MAX;
	(void)snprintf(m->kernel, sizeof(m->kernel), "6.1.0-13-amd64");
	m->cpu_flags = strdup("avx2 fpu sse2");
	m->command = strdup("xz -9\t'a file'\n");
	m->stdio = strdup("");
	m->bytes = 12;
	assert_int_equal(inventory_parse(&m->inventory, inventory, strlen(inventory)),
			 0);
	m->n_images = 2;
	m->images = calloc(2, sizeof(*m->images));
	(void)snprintf(m->images[0].name, sizeof(m->images[0].name), "core-71.img");
	(void)snprintf(m->images[1].name, sizeof(m->images[1].name), "pages-1.img");
	for (int k = 0; k < 2; k++) {
		m->images[k].size = 6;
		memcpy(m->images[k].checksum, sum, sizeof(sum));
	}
	return m;
}

static char *sealed(size_t *ret_len)
{
	struct manifest *m = sample();
	char *text = NULL;

	assert_int_equal(manifest_format(m, key, &text, ret_len), 0);
	assert_int_equal(strlen(text), *ret_len);
	(void)manifest_free(m);
	return text;
}

static void test_what_is_sealed_is_read_again(void **state)
{
	size_t len, again_len;
	char *text = sealed(&len), *again = NULL;
	const char *why = NULL;
	struct manifest *m = NULL;

	assert_int_equal(manifest_parse(&m, text, len, key, &why), 0);
	assert_string_equal(m->name, "65537-1");
	assert_int_equal(m->app, 65537);
	assert_int_equal(m->uid, 1000);
	assert_true(m->gid == UINT32_MAX && m->taken == UINT64_MAX);
	assert_string_equal(m->command, "xz -9\t'a file'\n");
	assert_null(m->description);
	assert_string_equal(m->stdio, "");
	assert_int_equal(m->n_images, 2);
	assert_string_equal(m->images[1].name, "pages-1.img");
	assert_int_equal(m->images[1].size, 6);
	assert_int_equal(m->inventory->n_files, 1);
	assert_int_equal(manifest_format(m, key, &again, &again_len), 0);
	assert_string_equal(again, text);
	free(again);
	free(text);
	(void)manifest_free(m);
}

static int refused(const char *text, size_t len)
{
	struct manifest *m = NULL;
	const char *why = NULL;
	int r = manifest_parse(&m, text, len, key, &why);

	assert_null(m);
	if (r > 0)
		assert_non_null(why);
	return r;
}

static void test_every_flipped_bit_is_refused(void **state)
{
	size_t len;
	char *text = sealed(&len);

	for (size_t n = 0; n < len; n++)
		for (int bit = 0; bit < 8; bit++) {
			text[n] = (char)(text[n] ^ 1 << bit);
			/* The first line tells a format, all the rest is sealed. */
			assert_int_equal(refused(text, len),
					 n < 17 ? MANIFEST_E_FORMAT : MANIFEST_E_SEAL);
			text[n] = (char)(text[n] ^ 1 << bit);
		}
	free(text);
}

static void test_every_shorter_or_longer_text_is_refused(void **state)
{
	size_t len;
	char *text = sealed(&len);

	for (size_t n = 0; n < len; n++) {
		char *cut = malloc(n ? n : 1); /* so that a byte too far is seen */

		memcpy(cut, text, n);
		assert_true(refused(cut, n) > 0);
		free(cut);
	}
	text = realloc(text, len + 2);
	text[len] = '\n';
	assert_int_equal(refused(text, len + 1), MANIFEST_E_SEAL);
	free(text);
}

static void test_another_clusters_seal_is_refused(void **state)
{
	struct manifest *m = sample();
	char *text = NULL;
	size_t len;

	assert_int_equal(manifest_format(m, other_key, &text, &len), 0);
	assert_int_equal(refused(text, len), MANIFEST_E_SEAL);
	free(text);
	(void)manifest_free(m);
}

/* Replace @from by @to and seal that, as a peer with the key could. */
static int resealed(const char *from, const char *to)
{
	static const char tail[] = "hmac-sha256=";
	uint8_t seal[32];
	struct buf b = {0};
	size_t len;
	char *text = sealed(&len), *at = strstr(text, from), *end = strstr(text, tail);
	int r;

	assert_non_null(at);
	assert_int_equal(buf_append(&b, text, (size_t)(at - text)), 0);
	assert_int_equal(buf_append(&b, to, strlen(to)), 0);
	at += strlen(from);
	assert_int_equal(buf_append(&b, at, (size_t)(end + strlen(tail) - at)), 0);
	assert_int_equal(manifest_seal(key, b.data, b.len, seal), 0);
	for (size_t k = 0; k < sizeof(seal); k++)
		assert_int_equal(inventory_printf(&b, "%02x", seal[k]), 0);
	assert_int_equal(inventory_printf(&b, "\n"), 0);
	r = refused((char *)b.data, b.len);
	buf_fini(&b);
	free(text);
	return r;
}

static void test_a_seal_does_not_make_sense_of_nonsense(void **state)
{
	static const struct {
		const char *from, *to;
	} rows[] = {
		{"app=65537", "app=65537\napp=65537"},
		{"app=65537", "app=4294967296"},
		{"app=65537", "app=-1"},
		{"app=65537", "app=065537"},
		{"app=65537\n", ""},
		{"uid=1000", "uid=4294967296"},
		{"taken=18446744073709551615", "taken=18446744073709551616"},
		{"taken=18446744073709551615", "taken=99999999999999999999999"},
		{"name=65537-1", "name="},
		{"name=65537-1", "name=../../etc"},
		{"name=65537-1", "name=0123456789012345678901234567890123456789"
				 "012345678901234567890123456789"},
		{"command=xz", "command=\\x41"},
		{"stdio=", "stdio=\nstdio="},
		{"bytes=12", "bytes=12\nmore=1"},
		{"pages-1.img", "core-71.img"},
		{"pages-1.img", "../pages-1.img"},
		{"pages-1.img", ".hidden"},
		{"core-71.img", "zore-71.img"},
		{" 6 core", " 06 core"},
		{" 6 core", " 9223372036854775808 core"},
		{"[images]\n0123", "[images]\n012G"},
		{"[inventory]\nssi-inventory 1", "[inventory]\nssi-inventory 2"},
		{"task 71 0", "task 71 1"},
	};

	for (size_t k = 0; k < N_ELEMENTS(rows); k++)
		if (resealed(rows[k].from, rows[k].to) != MANIFEST_E_FORMAT)
			fail_msg("accepted: %s", rows[k].to);
}

static void test_what_cannot_be_read_again_is_not_written(void **state)
{
	struct manifest *m = sample();
	char *text = NULL;
	size_t len;

	m->name[0] = '/';
	assert_int_equal(manifest_format(m, key, &text, &len), -EINVAL);
	m->name[0] = '6';
	m->images[0].name[0] = 'z';
	assert_int_equal(manifest_format(m, key, &text, &len), -EINVAL);
	m->images[0].name[0] = 'c';
	m->description = malloc(MANIFEST_FIELD_MAX + 2);
	memset(m->description, 'x', MANIFEST_FIELD_MAX + 1);
	m->description[MANIFEST_FIELD_MAX + 1] = '\0';
	assert_int_equal(manifest_format(m, key, &text, &len), -E2BIG);
	m->description[MANIFEST_FIELD_MAX] = '\0';
	assert_int_equal(manifest_format(m, key, &text, &len), 0);
	free(text);
	(void)manifest_free(m);
}

static void test_every_allocation_may_fail(void **state)
{
	struct manifest *m = NULL, *other = sample();
	char *text, *again = NULL;
	const char *why = NULL;
	size_t len, n;
	int r = -ENOMEM;

	text = sealed(&len);
	for (n = 1; r == -ENOMEM; n++) {
		allocations = 0;
		failing = n;
		r = manifest_parse(&m, text, len, key, &why);
		failing = 0;
		assert_true(r == 0 || (r == -ENOMEM && !m));
	}
	assert_int_equal(r, 0);
	assert_true(n > 15);
	r = -ENOMEM;
	for (n = 1; r == -ENOMEM; n++) {
		allocations = 0;
		failing = n;
		r = manifest_format(other, key, &again, &len);
		failing = 0;
		assert_true(r == 0 || (r == -ENOMEM && !again));
	}
	assert_int_equal(r, 0);
	assert_string_equal(again, text);
	free(again);
	free(text);
	(void)manifest_free(m);
	(void)manifest_free(other);
}

static void test_a_sum_is_sha256_of_a_regular_file(void **state)
{
	char directory[] = "/tmp/test-manifest-XXXXXX", checksum[65];
	uint64_t size = 0;
	int fd, dir;

	assert_non_null(mkdtemp(directory));
	dir = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fd = openat(dir, "a", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, "abc", 3), 3);
	(void)close(fd);
	assert_int_equal(manifest_sum_file(dir, "a", checksum, &size), 0);
	assert_int_equal(size, 3);
	assert_string_equal(
		checksum,
		"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	assert_int_equal(symlinkat("a", dir, "b"), 0);
	assert_int_equal(manifest_sum_file(dir, "b", checksum, &size), -ELOOP);
	assert_int_equal(mkfifoat(dir, "c", 0600), 0);
	assert_int_equal(manifest_sum_file(dir, "c", checksum, &size), -EBADMSG);
	assert_int_equal(manifest_sum_file(dir, "d", checksum, &size), -ENOENT);
	for (const char *name = "abc"; *name; name++)
		assert_int_equal(unlinkat(dir, (char[]){*name, '\0'}, 0), 0);
	(void)close(dir);
	assert_int_equal(rmdir(directory), 0);
}

static void test_cpu_flags_are_sorted_and_missing_ones_named(void **state)
{
	char *flags = NULL, *missing = NULL;
	struct manifest m = {0};

	assert_int_equal(
		manifest_cpu_flags_of("processor\t: 0\nflags\t\t: sse2 fpu sse2 avx\n"
				      "processor\t: 1\nflags\t\t: other\n",
				      &flags),
		0);
	assert_string_equal(flags, "avx fpu sse2");
	assert_int_equal(manifest_missing_words("avx avx512f fpu zmm", flags, &missing),
			 0);
	assert_string_equal(missing, "avx512f zmm");
	free(missing);
	assert_int_equal(manifest_missing_words("avx", flags, &missing), 0);
	assert_null(missing);
	free(flags);
	assert_int_equal(manifest_cpu_flags_of("nothing of that kind", &flags), 0);
	assert_string_equal(flags, "");
	free(flags);
	assert_int_equal(manifest_own_cpu_flags(&m.cpu_flags), 0);
	assert_int_equal(manifest_missing_cpu_flags(&m, &missing), 0);
	assert_null(missing);
	free(m.cpu_flags);
	m.cpu_flags = (char *)"no-such-flag";
	assert_int_equal(manifest_missing_cpu_flags(&m, &missing), 0);
	assert_string_equal(missing, "no-such-flag");
	free(missing);
}

int main(void)
{
	const struct CMUnitTest all[] = {
		cmocka_unit_test(test_what_is_sealed_is_read_again),
		cmocka_unit_test(test_every_flipped_bit_is_refused),
		cmocka_unit_test(test_every_shorter_or_longer_text_is_refused),
		cmocka_unit_test(test_another_clusters_seal_is_refused),
		cmocka_unit_test(test_a_seal_does_not_make_sense_of_nonsense),
		cmocka_unit_test(test_what_cannot_be_read_again_is_not_written),
		cmocka_unit_test(test_every_allocation_may_fail),
		cmocka_unit_test(test_a_sum_is_sha256_of_a_regular_file),
		cmocka_unit_test(test_cpu_flags_are_sorted_and_missing_ones_named),
	};

	return cmocka_run_group_tests(all, NULL, NULL);
}
