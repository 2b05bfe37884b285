#include "test_inventory_fixture.h"

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

/* A build id of @first and 19 zeros. */
static void elf_write(const char *path, uint8_t first)
{
	struct {
		Elf64_Ehdr head;
		Elf64_Phdr note;
		Elf64_Nhdr n;
		char name[4];
		uint8_t id[20];
	} f = {
		.head = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64},
			 .e_phoff = sizeof(Elf64_Ehdr),
			 .e_phentsize = sizeof(Elf64_Phdr),
			 .e_phnum = 1},
		.note = {.p_type = PT_NOTE,
			 .p_offset = sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr),
			 .p_filesz = sizeof(Elf64_Nhdr) + 24},
		.n = {.n_namesz = 4, .n_descsz = 20, .n_type = NT_GNU_BUILD_ID},
		.name = "GNU",
		.id = {first},
	};
	size_t len = (size_t)(f.id + sizeof(f.id) - (uint8_t *)&f);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, &f, len), len);
	(void)close(fd);
}

static bool same_node; /* as the restore says */

static void hold(const void *argument)
{
	HOLD(open("/mnt/home/text", O_RDWR) == 3);
	HOLD(open("/mnt/home/program", O_RDONLY) == 4);
	HOLD(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, 4, 0) != MAP_FAILED);
	HOLD(open("/mnt/home/table", O_RDONLY) == 5);
	HOLD(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 5, 0) != MAP_FAILED);
	HOLD(chdir("/mnt/home/work") == 0);
}

static void fill_home(void)
{
	assert_int_equal(mkdir("/mnt/home/work", 0755), 0);
	file_write("/mnt/home/text", "text", 0600);
	file_write("/mnt/home/table", "1 2 3", 0600);
	elf_write("/mnt/home/program", 0xab);
}

static int make_home(void **state)
{
	same_node = false;
	(void)umount("/mnt/home");
	(void)!system("rm -rf /mnt/home");
	assert_int_equal(mkdir("/mnt/home", 0755), 0);
	fill_home();
	return 0;
}

/* What is missing after @change; the tree is gone by then, as it is on a target. */
static char *missing_after(void (*change)(void))
{
	pid_t pid = subject_start(hold, NULL, 0);
	struct inventory *i = subject_take(pid);
	struct inventory_things *things = NULL;
	char *text = NULL;
	unsigned n_lines = 0;
	int r;

	subject_end(pid);
	change();
	r = inventory_present_at(i, fixture_root_fd, fixture_proc_fd, same_node, &text,
				 &things);
	(void)inventory_free(i);
	assert_int_equal(r, text ? INVENTORY_E_BLOCKED : 0);
	/* A thing a line. */
	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		assert_true(n_lines < things->n);
		assert_int_equal(strncmp(line, things->list[n_lines].is,
					 strlen(things->list[n_lines].is)),
				 0);
		n_lines++;
	}
	assert_int_equal(things->n, n_lines);
	inventory_things_free(things);
	return text;
}

static void expect(void (*change)(void), const char *want)
{
	char *text = missing_after(change);

	if (want)
		assert_non_null(text);
	if (want && strcmp(text, want) != 0)
		fail_msg("wanted '%s', got '%s'", want, text);
	if (!want && text)
		fail_msg("missing: %s", text);
	free(text);
}

static void leave(void)
{
}

static void write_more(void)
{
	file_write("/mnt/home/text", "much more text", 0600);
}

static void test_a_node_that_has_all_files_passes(void **state)
{
	expect(leave, NULL);
	expect(write_more, NULL);
}

static void remove_text(void)
{
	assert_int_equal(unlink("/mnt/home/text"), 0);
}

static void test_an_absent_file_is_named(void **state)
{
	expect(remove_text, "file /mnt/home/text: absent here");
}

static void remove_all(void)
{
	(void)!system("rm -rf /mnt/home");
}

static void test_all_that_is_absent_is_named_once(void **state)
{
	expect(remove_all, "file /mnt/home/program: absent here\n"
			   "file /mnt/home/table: absent here\n"
			   "file /mnt/home/text: absent here\n"
			   "directory /mnt/home/work: absent here");
}

static void other_type(void)
{
	assert_int_equal(rmdir("/mnt/home/work"), 0);
	file_write("/mnt/home/work", "", 0755);
}

static void test_another_type_is_named(void **state)
{
	expect(other_type, "directory /mnt/home/work: of another type here");
}

static void other_build(void)
{
	elf_write("/mnt/home/program", 0xcd);
}

static void test_another_build_is_named(void **state)
{
	expect(other_build, "file /mnt/home/program: another build here "
			    "(build id cd0000000000, not ab0000000000)");
}

static void other_size(void)
{
	file_write("/mnt/home/table", "1 2 3 4", 0600);
}

static void test_another_size_of_a_mapped_file_is_named(void **state)
{
	expect(other_size,
	       "file /mnt/home/table: of another size here (7 bytes, not 5)");
}

/* As a node has it whose files are its own. */
static void other_file_system(void)
{
	assert_int_equal(mount("none", "/mnt/home", "tmpfs", 0, "mode=0755"), 0);
	fill_home();
}

static void other_owner(void)
{
	other_file_system();
	file_write("/mnt/home/text", "text", 0600);
	assert_int_equal(chown("/mnt/home/table", 7, 8), 0);
	assert_int_equal(unlink("/mnt/home/text"), 0);
}

static void test_a_nodes_own_files_are_no_good_for_writing(void **state)
{
	expect(other_file_system,
	       "file /mnt/home/text: this node's own, and open for writing");
	(void)make_home(state);
	expect(other_owner,
	       "file /mnt/home/table: of another owner here (7:8, not 0:0)\n"
	       "file /mnt/home/text: absent here");
	/* What was saved on this very node is its own. */
	(void)make_home(state);
	same_node = true;
	expect(other_file_system, NULL);
}

static void magic_link(void)
{
	assert_int_equal(unlink("/mnt/home/text"), 0);
	assert_int_equal(symlink("/proc/self/exe", "/mnt/home/text"), 0);
}

static void test_magic_links_are_not_followed(void **state)
{
	char *text = missing_after(magic_link);

	assert_non_null(text);
	free(text);
}

static void test_the_build_id_of_a_damaged_file_is_none(void **state)
{
	static uint8_t whole[4096];
	char id[41];
	ssize_t size;
	int fd = open("/mnt/home/program", O_RDWR | O_CLOEXEC);

	size = read(fd, whole, sizeof(whole));
	assert_true(size > 100);
	elf_build_id(fd, id);
	assert_string_equal(id, "ab00000000000000000000000000000000000000");
	/* Every byte through a few values, and every length: no more than a wrong
	 * answer. */
	for (ssize_t k = 0; k < size; k++) {
		static const uint8_t values[] = {0, 1, 0x7f, 0x80, 0xff};

		for (size_t v = 0; v < sizeof(values); v++) {
			assert_int_equal(pwrite(fd, &values[v], 1, k), 1);
			elf_build_id(fd, id);
			assert_true(strlen(id) <= 40);
		}
		assert_int_equal(pwrite(fd, &whole[k], 1, k), 1);
	}
	for (ssize_t k = size - 1; k >= 0; k--) {
		assert_int_equal(ftruncate(fd, k), 0);
		elf_build_id(fd, id);
		assert_string_equal(id, "");
	}
	(void)close(fd);
}

static void child_hangs(void *argument, int out_fd)
{
	child_write(out_fd, "x", 1);
	for (;;)
		(void)pause();
}

static void child_floods(void *argument, int out_fd)
{
	for (;;)
		child_write(out_fd, "xxxxxxxx", 8);
}

static void child_fails(void *argument, int out_fd)
{
	child_write(out_fd, "x", 1);
	_exit(9);
}

static void test_a_question_has_a_deadline_and_a_limit(void **state)
{
	struct buf b = {0};

	assert_int_equal(child_ask(child_hangs, NULL, 50 * NSEC_PER_MSEC, 100, &b),
			 -ETIMEDOUT);
	assert_int_equal(child_ask(child_floods, NULL, 5 * NSEC_PER_SEC, 100, &b),
			 -E2BIG);
	assert_int_equal(child_ask(child_fails, NULL, 5 * NSEC_PER_SEC, 100, &b), -EIO);
	assert_null(b.data);
}

#define TEST(name_) cmocka_unit_test_setup(test_##name_, make_home)

static int tests(void)
{
	const struct CMUnitTest all[] = {
		TEST(a_node_that_has_all_files_passes),
		TEST(an_absent_file_is_named),
		TEST(all_that_is_absent_is_named_once),
		TEST(another_type_is_named),
		TEST(another_build_is_named),
		TEST(another_size_of_a_mapped_file_is_named),
		TEST(a_nodes_own_files_are_no_good_for_writing),
		TEST(magic_links_are_not_followed),
		TEST(the_build_id_of_a_damaged_file_is_none),
		TEST(a_question_has_a_deadline_and_a_limit),
	};

	return cmocka_run_group_tests(all, NULL, NULL);
}

int main(int argc, char **argv)
{
	return fixture_run(argc, argv, tests);
}
