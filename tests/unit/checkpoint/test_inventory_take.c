#include "test_inventory_fixture.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static void hold_files(const void *argument)
{
	HOLD(open("/mnt/a file", O_RDWR | O_APPEND | O_CREAT, 0640) == 3);
	HOLD(open("/mnt", O_RDONLY | O_DIRECTORY | O_CLOEXEC) == 4);
	HOLD(mkfifo("/mnt/fifo", 0600) == 0 && open("/mnt/fifo", O_RDWR) == 5);
	HOLD(open("/mnt/gone", O_RDWR | O_CREAT, 0600) == 6);
	HOLD(unlink("/mnt/gone") == 0);
	HOLD(open("/mnt/here (deleted)", O_RDWR | O_CREAT, 0600) == 7);
	HOLD(open("/mnt/first", O_RDWR | O_CREAT, 0600) == 8);
	HOLD(link("/mnt/first", "/mnt/second") == 0 && unlink("/mnt/first") == 0);
	HOLD(chdir("/mnt") == 0);
}

static void
test_files_are_named_by_path_with_their_inode_owner_mode_and_flags(void **state)
{
	pid_t pid = subject_start(hold_files, NULL, 0);
	struct inventory *i = subject_take(pid);
	const struct inventory_file *f;
	struct stat st;

	assert_int_equal(stat("/mnt/a file", &st), 0);
	f = find_fd(i, pid, 3);
	assert_int_equal(f->type, INVENTORY_FILE);
	assert_string_equal(f->path, "/mnt/a file");
	assert_int_equal(f->inode, st.st_ino);
	assert_int_equal(f->device, st.st_dev);
	assert_int_equal(f->mode, st.st_mode);
	assert_int_equal(f->flags & (O_ACCMODE | O_APPEND), O_RDWR | O_APPEND);
	assert_true(f->fs);
	assert_false(f->deleted);
	f = find_fd(i, pid, 4);
	assert_int_equal(f->type, INVENTORY_DIRECTORY);
	assert_true(f->flags & O_CLOEXEC);
	assert_int_equal(find_fd(i, pid, 5)->type, INVENTORY_FIFO);
	f = find_fd(i, pid, 6);
	assert_true(f->deleted);
	assert_int_equal(f->n_links, 0);
	assert_string_equal(f->path, "/mnt/gone");
	f = find_fd(i, pid, 7);
	assert_false(f->deleted);
	assert_string_equal(f->path, "/mnt/here (deleted)");
	f = find_fd(i, pid, 8);
	assert_true(f->deleted);
	assert_int_equal(f->n_links, 1);
	assert_string_equal(find_fd(i, pid, INVENTORY_CWD)->path, "/mnt");
	assert_string_equal(find_fd(i, pid, INVENTORY_ROOT)->path, "/");
	assert_int_equal(find_fd(i, pid, 0)->type, INVENTORY_DEVICE);
	assert_int_equal(find_fd(i, pid, 0)->rdev, makedev(1, 3));
	(void)inventory_free(i);
	subject_end(pid);
}

static void hold_objects(const void *argument)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fds[2];

	HOLD(pipe(fds) == 0 && fds[0] == 3);
	HOLD(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0 && fds[0] == 5);
	HOLD(socket(AF_INET, SOCK_STREAM, 0) == 7);
	HOLD(bind(7, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(7, 1) == 0);
	HOLD(socket(AF_NETLINK, SOCK_RAW, 0) == 8);
	HOLD(eventfd(0, 0) == 9);
	HOLD(epoll_create1(0) == 10);
}

static void test_objects_without_a_path_are_told_apart(void **state)
{
	pid_t pid = subject_start(hold_objects, NULL, 0);
	struct inventory *i = subject_take(pid);
	const char *inet = find_fd(i, pid, 7)->path;

	assert_int_equal(find_fd(i, pid, 3)->type, INVENTORY_PIPE);
	assert_int_equal(find_fd(i, pid, 3)->inode, find_fd(i, pid, 4)->inode);
	assert_int_equal(find_fd(i, pid, 5)->type, INVENTORY_UNIX);
	assert_string_equal(find_fd(i, pid, 5)->path, "");
	assert_int_equal(find_fd(i, pid, 7)->type, INVENTORY_INET);
	assert_true(!strncmp(inet, "tcp 127.0.0.1:", 14) &&
		    strstr(inet, ", listening"));
	assert_int_equal(find_fd(i, pid, 8)->type, INVENTORY_SOCKET);
	assert_string_equal(find_fd(i, pid, 8)->path, "NETLINK");
	assert_int_equal(find_fd(i, pid, 9)->type, INVENTORY_ANON);
	assert_string_equal(find_fd(i, pid, 9)->path, "anon_inode:[eventfd]");
	(void)inventory_free(i);
	subject_end(pid);
}

static void hold_mappings(const void *argument)
{
	int fd = open("/mnt/data", O_RDWR);
	char *p;

	HOLD(fd == 3 && ftruncate(fd, 3 * 4096) == 0);
	p = mmap(NULL, 3 * 4096, PROT_READ, MAP_SHARED, fd, 0);
	HOLD(p != MAP_FAILED && mprotect(p + 4096, 4096, PROT_READ | PROT_WRITE) == 0);
	(void)close(fd);
	fd = open("/mnt/data", O_RDONLY);
	HOLD(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0) != MAP_FAILED);
	(void)close(fd);
	/* Anonymous shared memory is no file of anybody's. */
	HOLD(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		  0) != MAP_FAILED);
	/* So it looks after a restore. */
	fd = memfd_create("/dev/zero", 0);
	HOLD(ftruncate(fd, 4096) == 0);
	HOLD(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED &&
	     close(fd) == 0);
}

static void
test_mappings_of_a_file_are_one_entry_for_each_way_it_was_opened(void **state)
{
	size_t n = 0, n_memory = 0;
	struct inventory *i;
	pid_t pid;

	file_write("/mnt/data", "x", 0644);
	pid = subject_start(hold_mappings, NULL, 0);
	i = subject_take(pid);
	for (size_t k = 0; k < i->n_files; k++) {
		const struct inventory_file *f = &i->files[k];

		n_memory += strstr(f->path, "/dev/zero") != NULL;
		if (strcmp(f->path, "/mnt/data") != 0)
			continue;
		n++;
		assert_int_equal(f->fd, INVENTORY_MAPPING);
		if (f->flags & INVENTORY_SHARED) {
			assert_int_equal(f->flags & O_ACCMODE, O_RDWR);
			assert_int_equal((f->flags >> 24) & 7, PROT_READ | PROT_WRITE);
		} else {
			assert_int_equal(f->flags & O_ACCMODE, O_RDONLY);
			assert_int_equal((f->flags >> 24) & 7, PROT_READ);
		}
	}
	assert_int_equal(n, 2);
	assert_int_equal(n_memory, 0);
	(void)inventory_free(i);
	subject_end(pid);
}

static void test_a_program_and_its_mappings_carry_one_build_id(void **state)
{
	pid_t pid = subject_start(NULL, NULL, 0);
	struct inventory *i = subject_take(pid);
	const struct inventory_file *exe = find_fd(i, pid, INVENTORY_EXE);
	bool mapped = false;

	if (!exe->build_id[0]) {
		(void)inventory_free(i);
		subject_end(pid);
		skip(); /* linked without one */
	}
	assert_int_equal(strlen(exe->build_id), 40);
	for (size_t k = 0; k < i->n_files; k++)
		mapped |= i->files[k].fd == INVENTORY_MAPPING &&
			  i->files[k].inode == exe->inode &&
			  !strcmp(i->files[k].build_id, exe->build_id);
	assert_true(mapped);
	(void)inventory_free(i);
	subject_end(pid);
}

static void hold_family(const void *argument)
{
	for (int k = 0; k < 3; k++) {
		pid_t child = fork();

		HOLD(child >= 0);
		if (!child && k == 2)
			_exit(0); /* a zombie */
		if (!child) {
			if (k == 1 && !fork())
				(void)prctl(PR_SET_NAME, "a (b) c");
			for (;;)
				(void)pause();
		}
	}
	HOLD(setsid() > 0);
	HOLD(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	HOLD(setgid(101) == 0 && setuid(100) == 0);
	(void)usleep(50000);
}

static void end_family(struct inventory *i)
{
	for (size_t k = 1; k < i->n_tasks; k++)
		(void)kill(i->tasks[k].pid, SIGKILL);
	subject_end(i->tasks[0].pid);
	(void)inventory_free(i);
}

static void test_a_family_is_taken_whole_with_parents_before_children(void **state)
{
	pid_t pid = subject_start(hold_family, NULL, 0);
	struct inventory *i = subject_take(pid);
	bool named = false;

	assert_int_equal(i->n_tasks, 5);
	assert_int_equal(i->tasks[0].pid, pid);
	assert_int_equal(i->tasks[0].ppid, 0);
	assert_int_equal(i->tasks[0].sid, pid);
	assert_int_equal(i->tasks[0].pgid, pid);
	assert_int_equal(i->tasks[0].uid, 100);
	assert_int_equal(i->tasks[0].gid, 101);
	assert_true(i->tasks[0].no_new_privs);
	assert_int_equal(i->tasks[0].n_threads, 1);
	assert_true(i->tasks[0].rss_bytes > 4096);
	for (size_t k = 1; k < i->n_tasks; k++) {
		bool parent_before = false;

		for (size_t m = 0; m < k; m++)
			parent_before |= i->tasks[m].pid == i->tasks[k].ppid;
		assert_true(parent_before);
		named |= !strcmp(i->tasks[k].comm, "a (b) c");
	}
	assert_true(named);
	end_family(i);
}

static void test_a_process_that_is_gone_is_esrch(void **state)
{
	struct inventory *i = NULL;
	pid_t pid = subject_start(NULL, NULL, 0);

	subject_end(pid);
	assert_int_equal(inventory_take_at(&i, fixture_root_fd, fixture_proc_fd, pid),
			 -ESRCH);
	assert_null(i);
}

static void hold_chroot(const void *argument)
{
	HOLD(open("/mnt/jail/inside", O_RDWR | O_CREAT, 0600) == 3);
	HOLD(chroot("/mnt/jail") == 0 && chdir("/") == 0);
}

static void test_paths_are_the_spaces_even_in_a_chroot(void **state)
{
	struct inventory *i;
	pid_t pid;

	(void)mkdir("/mnt/jail", 0755);
	pid = subject_start(hold_chroot, NULL, 0);
	i = subject_take(pid);
	assert_string_equal(find_fd(i, pid, 3)->path, "/mnt/jail/inside");
	assert_string_equal(find_fd(i, pid, INVENTORY_ROOT)->path, "/mnt/jail");
	(void)inventory_free(i);
	subject_end(pid);
}

static void test_a_space_beneath_our_root_is_taken_off_the_paths(void **state)
{
	struct inventory *i = NULL;
	int root_fd;
	pid_t pid;

	(void)mkdir("/mnt/jail", 0755);
	pid = subject_start(hold_chroot, NULL, 0);
	root_fd = open("/mnt/jail", O_PATH | O_CLOEXEC);
	assert_int_equal(inventory_take_at(&i, root_fd, fixture_proc_fd, pid), 0);
	assert_string_equal(find_fd(i, pid, 3)->path, "/inside");
	assert_string_equal(find_fd(i, pid, INVENTORY_ROOT)->path, "/");
	assert_int_equal(find_fd(i, pid, INVENTORY_EXE)->fs, 0);
	(void)inventory_free(i);
	(void)close(root_fd);
	subject_end(pid);
}

static int tests(void)
{
	const struct CMUnitTest all[] = {
		cmocka_unit_test(
			test_files_are_named_by_path_with_their_inode_owner_mode_and_flags),
		cmocka_unit_test(test_objects_without_a_path_are_told_apart),
		cmocka_unit_test(
			test_mappings_of_a_file_are_one_entry_for_each_way_it_was_opened),
		cmocka_unit_test(test_a_program_and_its_mappings_carry_one_build_id),
		cmocka_unit_test(
			test_a_family_is_taken_whole_with_parents_before_children),
		cmocka_unit_test(test_a_process_that_is_gone_is_esrch),
		cmocka_unit_test(test_paths_are_the_spaces_even_in_a_chroot),
		cmocka_unit_test(test_a_space_beneath_our_root_is_taken_off_the_paths),
	};

	return cmocka_run_group_tests(all, NULL, NULL);
}

int main(int argc, char **argv)
{
	return fixture_run(argc, argv, tests);
}
