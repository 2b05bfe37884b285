#include "test_inventory_fixture.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/timerfd.h>
#include <sys/xattr.h>
#include <unistd.h>

/*
 * A subject stands for the saved process, and a second one under the same PID,
 * which opens the same paths as root and then takes on the same user, for what
 * CRIU would restore.  Between the two somebody works on /mnt/home.
 */

enum { USER = 1000, GROUP = 500 };

struct opening {
	const char *path;
	int flags;
	bool map, unlink;
	uid_t uid;
	gid_t extra_group;
	bool keep_read_search; /* CAP_DAC_READ_SEARCH over the change of user */
	bool no_capabilities;
	const char *also; /* a second file */
};

static void hold_capabilities(const struct opening *o)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2] = {{0}};

	if (o->keep_read_search) {
		d[0].permitted = 1u << CAP_DAC_READ_SEARCH;
		d[0].effective = d[0].permitted;
	}
	if (o->keep_read_search || o->no_capabilities)
		HOLD(syscall(SYS_capset, &h, d) == 0);
}

static void hold_opening(const void *argument)
{
	const struct opening *o = argument;
	int fd = open(o->path, o->flags & ~O_EXCL, 0600);

	HOLD(fd == 3);
	if (o->unlink)
		HOLD(unlink(o->path) == 0);
	if (o->also)
		HOLD(open(o->also, O_RDONLY) == 4);
	if (o->map) {
		HOLD(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0) != MAP_FAILED);
		(void)close(fd);
	}
	HOLD(prctl(PR_SET_KEEPCAPS, o->keep_read_search, 0, 0, 0) == 0);
	HOLD(setgroups(o->extra_group ? 1 : 0, &o->extra_group) == 0);
	HOLD(setgid(o->uid) == 0 && setuid(o->uid) == 0);
	hold_capabilities(o);
}

struct trial {
	struct opening saved, restored;
	void (*between)(void);
	bool elsewhere; /* the file system is one of another boot or node */
	bool same_node;
	const char *want; /* NULL: no difference */
	const char *want_also;
};

static void make_elsewhere(struct inventory *i, pid_t pid)
{
	for (size_t k = 0; k < i->n_files; k++)
		if (i->files[k].pid == pid && !strncmp(i->files[k].path, "/mnt/", 5)) {
			char *name = i->file_systems[i->files[k].fs];

			/* "kernel BOOT-ID M:N": another boot */
			assert_int_equal(strncmp(name, "kernel ", 7), 0);
			name[7] = name[7] == '0' ? '1' : '0';
			return;
		}
}

static void run(const struct trial *t)
{
	pid_t pid = subject_start(hold_opening, &t->saved, 0);
	struct inventory *saved = subject_take(pid), *restored;
	char *text = NULL;
	int r;

	subject_end(pid);
	if (t->between)
		t->between();
	(void)subject_start(hold_opening, &t->restored, pid);
	restored = subject_take(pid);
	if (t->elsewhere)
		make_elsewhere(saved, pid);
	r = inventory_compare_at(saved, restored, fixture_proc_fd, t->same_node, &text);
	subject_end(pid);
	(void)inventory_free(saved);
	(void)inventory_free(restored);
	if (r < 0)
		fail_msg("compare: %s", strerror(-r));
	if (!t->want && r)
		fail_msg("differs: %s", text);
	if (t->want && (r != INVENTORY_E_DIFFERS || !strstr(text, t->want)))
		fail_msg("wanted '%s', got '%s'", t->want, text ? text : "");
	if (t->want_also && !strstr(text, t->want_also))
		fail_msg("wanted '%s', got '%s'", t->want_also, text);
	free(text);
}

static int make_home(void **state)
{
	(void)!system("rm -rf /mnt/home /mnt/secret* /mnt/elsewhere");
	assert_int_equal(mkdir("/mnt/home", 0755), 0);
	assert_int_equal(chown("/mnt/home", USER, USER), 0);
	file_write("/mnt/home/a", "a user's", 0600);
	assert_int_equal(chown("/mnt/home/a", USER, USER), 0);
	file_write("/mnt/secret", "of root!", 0600);
	return 0;
}

#define A(flags_)                                                                      \
	{                                                                              \
		.path = "/mnt/home/a", .flags = (flags_), .uid = USER                  \
	}

static void test_the_same_tree_is_the_same(void **state)
{
	run(&(struct trial){.saved = A(O_RDWR | O_APPEND),
			    .restored = A(O_RDWR | O_APPEND)});
	run(&(struct trial){.saved = A(O_RDONLY | O_CLOEXEC),
			    .restored = A(O_RDONLY | O_CLOEXEC),
			    .same_node = true});
}

static void swap_symlink(void)
{
	assert_int_equal(unlink("/mnt/home/a"), 0);
	assert_int_equal(symlink("/mnt/secret", "/mnt/home/a"), 0);
}

static void test_a_symlink_to_a_file_of_root_is_refused(void **state)
{
	run(&(struct trial){.saved = A(O_RDWR),
			    .restored = A(O_RDWR),
			    .between = swap_symlink,
			    .want = "fd 3 of ",
			    .want_also = ": /mnt/home/a is /mnt/secret now"});
}

static void test_a_symlink_is_refused_on_another_node_too(void **state)
{
	run(&(struct trial){.saved = A(O_RDONLY),
			    .restored = A(O_RDONLY),
			    .between = swap_symlink,
			    .elsewhere = true,
			    .want = ": /mnt/home/a is /mnt/secret now"});
}

static void swap_hard_link(void)
{
	assert_int_equal(unlink("/mnt/home/a"), 0);
	assert_int_equal(link("/mnt/secret", "/mnt/home/a"), 0);
}

static void test_a_hard_link_to_another_file_is_refused(void **state)
{
	run(&(struct trial){.saved = A(O_RDWR),
			    .restored = A(O_RDWR),
			    .between = swap_hard_link,
			    .want = ": /mnt/home/a is another file (inode "});
}

static void test_a_hard_link_to_a_file_of_root_is_refused_on_another_node(void **state)
{
	run(&(struct trial){
		.saved = A(O_RDONLY),
		.restored = A(O_RDONLY),
		.between = swap_hard_link,
		.elsewhere = true,
		.want = ": /mnt/home/a has another owner (0:0, was 1000:1000)"});
}

static void swap_renamed(void)
{
	file_write("/mnt/home/b", "another!", 0600);
	assert_int_equal(chown("/mnt/home/b", USER, USER), 0);
	assert_int_equal(rename("/mnt/home/b", "/mnt/home/a"), 0);
}

static void test_another_file_with_all_marks_alike_is_refused(void **state)
{
	run(&(struct trial){.saved = A(O_RDONLY),
			    .restored = A(O_RDONLY),
			    .between = swap_renamed,
			    .want = " is another file (inode "});
	run(&(struct trial){.saved = A(O_RDONLY),
			    .restored = A(O_RDONLY),
			    .between = swap_renamed,
			    .elsewhere = true,
			    .same_node = true,
			    .want = " is another file (inode "});
}

static void swap_directory(void)
{
	assert_int_equal(rename("/mnt/home", "/mnt/elsewhere"), 0);
	assert_int_equal(symlink("/mnt/elsewhere", "/mnt/home"), 0);
}

static void test_a_directory_on_the_way_that_became_a_link_is_refused(void **state)
{
	run(&(struct trial){.saved = A(O_RDWR),
			    .restored = A(O_RDWR),
			    .between = swap_directory,
			    .want = ": /mnt/home/a is /mnt/elsewhere/a now"});
}

static void swap_fifo(void)
{
	assert_int_equal(unlink("/mnt/home/a"), 0);
	assert_int_equal(mkfifo("/mnt/home/a", 0600), 0);
	assert_int_equal(chown("/mnt/home/a", USER, USER), 0);
}

static void test_a_fifo_in_place_of_a_file_is_refused(void **state)
{
	run(&(struct trial){.saved = A(O_RDWR),
			    .restored = A(O_RDWR),
			    .between = swap_fifo,
			    .want = ": file /mnt/home/a is fifo /mnt/home/a now"});
}

static void swap_to_directory(void)
{
	assert_int_equal(unlink("/mnt/home/a"), 0);
	assert_int_equal(mkdir("/mnt/home/a", 0700), 0);
}

static void test_a_directory_in_place_of_a_file_is_refused(void **state)
{
	run(&(struct trial){.saved = A(O_RDONLY),
			    .restored = A(O_RDONLY),
			    .between = swap_to_directory,
			    .want = ": file /mnt/home/a is directory /mnt/home/a now"});
}

static void change_owner(void)
{
	assert_int_equal(chown("/mnt/home/a", 0, USER), 0);
}

static void change_mode(void)
{
	assert_int_equal(chmod("/mnt/home/a", 0400), 0);
}

static void test_another_owner_or_mode_is_refused(void **state)
{
	run(&(struct trial){.saved = A(O_RDWR),
			    .restored = A(O_RDWR),
			    .between = change_owner,
			    .want = " has another owner (0:1000, was 1000:1000)"});
	(void)make_home(state);
	run(&(struct trial){.saved = A(O_RDWR),
			    .restored = A(O_RDWR),
			    .between = change_mode,
			    .want = " has another mode (400, was 600)"});
}

static void test_another_way_of_opening_is_refused(void **state)
{
	run(&(struct trial){.saved = A(O_RDONLY),
			    .restored = A(O_RDWR),
			    .want = " is open in another way"});
	run(&(struct trial){.saved = A(O_WRONLY | O_APPEND),
			    .restored = A(O_WRONLY),
			    .want = " is open in another way"});
	run(&(struct trial){.saved = A(O_RDONLY | O_CLOEXEC),
			    .restored = A(O_RDONLY),
			    .want = " is open in another way"});
}

static void grow(void)
{
	assert_int_equal(truncate("/mnt/home/a", 9000), 0);
}

static void test_a_grown_file_passes_if_it_is_the_same_and_not_mapped(void **state)
{
	struct opening mapped = A(O_RDONLY);

	run(&(struct trial){
		.saved = A(O_RDWR), .restored = A(O_RDWR), .between = grow});
	(void)make_home(state);
	run(&(struct trial){.saved = A(O_RDONLY),
			    .restored = A(O_RDONLY),
			    .between = grow,
			    .elsewhere = true,
			    .want = " has another size (9000 bytes, was 8)"});
	(void)make_home(state);
	mapped.map = true;
	run(&(struct trial){.saved = mapped, .restored = mapped});
	run(&(struct trial){.saved = mapped,
			    .restored = mapped,
			    .between = grow,
			    .want = "mapping of ",
			    .want_also = " has another size (9000 bytes, was 8)"});
}

static void truncate_all(void)
{
	assert_int_equal(truncate("/mnt/home/a", 0), 0);
}

static void test_a_truncated_mapped_file_is_refused(void **state)
{
	struct opening mapped = A(O_RDONLY);

	mapped.map = true;
	run(&(struct trial){.saved = mapped,
			    .restored = mapped,
			    .between = truncate_all,
			    .want = " has another size (0 bytes, was 8)"});
}

static void test_another_user_or_group_is_refused(void **state)
{
	struct opening root = A(O_RDONLY);

	root.uid = 0;
	run(&(struct trial){
		.saved = A(O_RDONLY), .restored = root, .want = "): has another user"});
}

static void test_more_or_fewer_descriptors_are_refused(void **state)
{
	struct opening more = A(O_RDONLY);

	more.also = "/mnt/secret";
	run(&(struct trial){.saved = A(O_RDONLY),
			    .restored = more,
			    .want = "fd 4 of ",
			    .want_also = ": /mnt/secret was not there"});
	run(&(struct trial){.saved = more,
			    .restored = A(O_RDONLY),
			    .want = ": /mnt/secret is missing"});
}

static void
test_what_was_opened_with_more_rights_passes_only_as_the_same_file(void **state)
{
	struct opening log = {.path = "/mnt/secret", .flags = O_WRONLY, .uid = USER};

	run(&(struct trial){.saved = log, .restored = log});
	run(&(struct trial){.saved = log,
			    .restored = log,
			    .elsewhere = true,
			    .same_node = true,
			    .want = ": user 1000 may not write "});
	log.flags = O_RDONLY;
	run(&(struct trial){.saved = log,
			    .restored = log,
			    .elsewhere = true,
			    .want = ": user 1000 may not read /mnt/secret"});
}

static void test_a_nodes_own_file_is_read_only_there(void **state)
{
	run(&(struct trial){
		.saved = A(O_RDONLY), .restored = A(O_RDONLY), .elsewhere = true});
	run(&(struct trial){.saved = A(O_RDWR),
			    .restored = A(O_RDWR),
			    .elsewhere = true,
			    .want = " is this node's own, and open for writing"});
	run(&(struct trial){.saved = A(O_RDWR),
			    .restored = A(O_RDWR),
			    .elsewhere = true,
			    .same_node = true});
}

static void test_a_fifo_of_a_nodes_own_is_refused(void **state)
{
	swap_fifo();
	run(&(struct trial){.saved = A(O_RDWR), .restored = A(O_RDWR)});
	run(&(struct trial){.saved = A(O_RDWR),
			    .restored = A(O_RDWR),
			    .elsewhere = true,
			    .want = " is this node's own, and a fifo"});
}

static void test_the_kernel_weighs_supplementary_groups(void **state)
{
	struct opening o = {.path = "/mnt/secret", .flags = O_RDONLY, .uid = USER};

	assert_int_equal(chown("/mnt/secret", 0, GROUP), 0);
	assert_int_equal(chmod("/mnt/secret", 0640), 0);
	run(&(struct trial){.saved = o,
			    .restored = o,
			    .elsewhere = true,
			    .want = " may not read "});
	o.extra_group = GROUP;
	run(&(struct trial){.saved = o, .restored = o, .elsewhere = true});
}

static void test_the_kernel_weighs_access_control_lists(void **state)
{
	static const struct {
		uint32_t version;
		struct {
			uint16_t tag, perm;
			uint32_t id;
		} entries[5];
	} list = {2,
		  {{0x01, 6, -1u},
		   {0x02, 4, USER}, /* user:1000:r-- */
		   {0x04, 0, -1u},
		   {0x10, 4, -1u},
		   {0x20, 0, -1u}}};
	struct opening o = {.path = "/mnt/secret", .flags = O_RDONLY, .uid = USER};

	if (setxattr("/mnt/secret", "system.posix_acl_access", &list, sizeof(list), 0) <
	    0) {
		print_message("no access control lists on this tmpfs\n");
		skip();
	}
	run(&(struct trial){.saved = o, .restored = o, .elsewhere = true});
	o.uid = USER + 1;
	run(&(struct trial){.saved = o,
			    .restored = o,
			    .elsewhere = true,
			    .want = ": user 1001 may not read "});
}

static void test_the_kernel_weighs_capabilities(void **state)
{
	struct opening o = {.path = "/mnt/secret",
			    .flags = O_RDONLY,
			    .uid = USER,
			    .keep_read_search = true};
	struct opening weak = {
		.path = "/mnt/home/a", .flags = O_RDONLY, .no_capabilities = true};

	run(&(struct trial){.saved = o, .restored = o, .elsewhere = true});
	run(&(struct trial){.saved = weak,
			    .restored = weak,
			    .elsewhere = true,
			    .want = ": user 0 may not read /mnt/home/a"});
}

static void test_a_deleted_file_is_made_anew(void **state)
{
	struct opening ghost = {.path = "/mnt/home/g",
				.flags = O_RDWR | O_CREAT,
				.unlink = true,
				.uid = USER};
	struct opening stands = ghost;

	stands.unlink = false;
	run(&(struct trial){.saved = ghost, .restored = ghost});
	run(&(struct trial){.saved = ghost,
			    .restored = stands,
			    .want = " was deleted, and stands there now"});
	run(&(struct trial){
		.saved = stands, .restored = ghost, .want = " is deleted now"});
}

static void make_kmsg(void)
{
	(void)unlink("/mnt/home/null");
	assert_int_equal(mknod("/mnt/home/null", S_IFCHR | 0600, makedev(1, 11)), 0);
}

static void test_another_device_is_refused(void **state)
{
	struct opening o = {.path = "/mnt/home/null", .flags = O_RDONLY, .uid = USER};

	assert_int_equal(mknod("/mnt/home/null", S_IFCHR | 0600, makedev(1, 3)), 0);
	run(&(struct trial){.saved = o, .restored = o});
	run(&(struct trial){.saved = o,
			    .restored = o,
			    .between = make_kmsg,
			    .want = " is another device now"});
	/* Even if it was there before. */
	run(&(struct trial){
		.saved = o, .restored = o, .want = " is another device now"});
}

static void hold_eventfd(const void *argument)
{
	HOLD(eventfd(0, 0) == 3);
}

static void hold_timerfd(const void *argument)
{
	HOLD(timerfd_create(CLOCK_MONOTONIC, 0) == 3);
}

static void test_another_kind_of_kernel_object_is_refused(void **state)
{
	pid_t pid = subject_start(hold_eventfd, NULL, 0);
	struct inventory *saved = subject_take(pid), *restored;
	char *text = NULL;

	subject_end(pid);
	(void)subject_start(hold_timerfd, NULL, pid);
	restored = subject_take(pid);
	assert_int_equal(
		inventory_compare_at(saved, restored, fixture_proc_fd, true, &text),
		INVENTORY_E_DIFFERS);
	assert_non_null(strstr(text, "[eventfd] is anon_inode:[timerfd] now"));
	free(text);
	(void)inventory_free(saved);
	(void)inventory_free(restored);
	subject_end(pid);
}

static void test_a_tree_that_is_gone_is_no_match(void **state)
{
	struct opening o = A(O_RDONLY);
	pid_t pid = subject_start(hold_opening, &o, 0);
	struct inventory *i = subject_take(pid), *saved = subject_take(pid);
	char *text = NULL;

	subject_end(pid);
	make_elsewhere(saved, pid);
	assert_int_equal(inventory_compare_at(saved, i, fixture_proc_fd, false, &text),
			 -ESRCH);
	assert_null(text);
	(void)inventory_free(i);
	(void)inventory_free(saved);
}

#define TEST(name_) cmocka_unit_test_setup(test_##name_, make_home)

static int tests(void)
{
	const struct CMUnitTest all[] = {
		TEST(the_same_tree_is_the_same),
		TEST(a_symlink_to_a_file_of_root_is_refused),
		TEST(a_symlink_is_refused_on_another_node_too),
		TEST(a_hard_link_to_another_file_is_refused),
		TEST(a_hard_link_to_a_file_of_root_is_refused_on_another_node),
		TEST(another_file_with_all_marks_alike_is_refused),
		TEST(a_directory_on_the_way_that_became_a_link_is_refused),
		TEST(a_fifo_in_place_of_a_file_is_refused),
		TEST(a_directory_in_place_of_a_file_is_refused),
		TEST(another_owner_or_mode_is_refused),
		TEST(another_way_of_opening_is_refused),
		TEST(a_grown_file_passes_if_it_is_the_same_and_not_mapped),
		TEST(a_truncated_mapped_file_is_refused),
		TEST(another_user_or_group_is_refused),
		TEST(more_or_fewer_descriptors_are_refused),
		TEST(what_was_opened_with_more_rights_passes_only_as_the_same_file),
		TEST(a_nodes_own_file_is_read_only_there),
		TEST(a_fifo_of_a_nodes_own_is_refused),
		TEST(the_kernel_weighs_supplementary_groups),
		TEST(the_kernel_weighs_access_control_lists),
		TEST(the_kernel_weighs_capabilities),
		TEST(a_deleted_file_is_made_anew),
		TEST(another_device_is_refused),
		TEST(another_kind_of_kernel_object_is_refused),
		TEST(a_tree_that_is_gone_is_no_match),
	};

	return cmocka_run_group_tests(all, NULL, NULL);
}

int main(int argc, char **argv)
{
	return fixture_run(argc, argv, tests);
}
