#include "test_inventory_fixture.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* One subject that runs @hold: its verdict must say @want (NULL: nothing at all). */
static void expect(void (*hold)(const void *argument), const void *argument,
		   const char *want)
{
	pid_t pid = subject_start(hold, argument, 0);
	char *text = subject_verdict(pid, NULL);

	subject_end(pid);
	if (!want && text)
		fail_msg("in the way: %s", text);
	if (want && (!text || !strstr(text, want)))
		fail_msg("wanted '%s', got '%s'", want, text ? text : "");
	free(text);
}

static void hold_plain(const void *argument)
{
	sigset_t none;
	int fds[2];

	(void)sigemptyset(&none);
	HOLD(open("/dev/zero", O_RDONLY) >= 0 && open("/dev/full", O_RDONLY) >= 0);
	HOLD(open("/dev/random", O_RDONLY) >= 0 && open("/dev/urandom", O_RDONLY) >= 0);
	HOLD(open("/mnt/plain", O_RDWR | O_CREAT, 0600) >= 0);
	HOLD(pipe(fds) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	HOLD(eventfd(0, 0) >= 0 && epoll_create1(0) >= 0);
	HOLD(timerfd_create(CLOCK_MONOTONIC, 0) >= 0);
	HOLD(signalfd(-1, &none, 0) >= 0 && inotify_init1(0) >= 0);
	HOLD(open("/mnt/small", O_RDWR | O_CREAT, 0600) >= 0 &&
	     unlink("/mnt/small") == 0);
	HOLD(mmap(NULL, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0) !=
	     MAP_FAILED);
	(void)mkdir("/mnt/cell", 0755);
	HOLD(chroot("/mnt/cell") == 0);
}

static void test_an_ordinary_process_passes(void **state)
{
	expect(hold_plain, NULL, NULL);
}

static void hold_flock(const void *argument)
{
	HOLD(open("/mnt/locked", O_RDWR | O_CREAT, 0600) == 3 &&
	     flock(3, LOCK_EX) == 0);
}

static void hold_posix_lock(const void *argument)
{
	struct flock l = {.l_type = F_WRLCK};

	HOLD(open("/mnt/locked", O_RDWR | O_CREAT, 0600) == 3);
	HOLD(fcntl(3, F_SETLK, &l) == 0);
}

static void hold_ofd_lock(const void *argument)
{
	struct flock l = {.l_type = F_WRLCK};

	HOLD(open("/mnt/locked", O_RDWR | O_CREAT, 0600) == 3);
	HOLD(fcntl(3, F_OFD_SETLK, &l) == 0);
}

/* As a JVM does. */
static void hold_flock_by_mapping(const void *argument)
{
	HOLD(open("/mnt/locked", O_RDWR | O_CREAT, 0600) == 3 && ftruncate(3, 4096) == 0);
	HOLD(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, 3, 0) != MAP_FAILED);
	HOLD(flock(3, LOCK_EX) == 0 && close(3) == 0);
}

static void test_file_locks_of_all_kinds_are_in_the_way(void **state)
{
	expect(hold_flock, NULL, "fd 3 of ");
	expect(hold_flock, NULL, ": file lock on /mnt/locked");
	expect(hold_posix_lock, NULL, ": file lock on /mnt/locked");
	expect(hold_ofd_lock, NULL, ": file lock on /mnt/locked");
	expect(hold_flock_by_mapping, NULL, ": file lock on /mnt/locked");
}

static void hold_io_uring(const void *argument)
{
	struct io_uring_params p = {0};

	HOLD(syscall(SYS_io_uring_setup, 4, &p) == 3);
}

static void hold_userfaultfd(const void *argument)
{
	HOLD(syscall(SYS_userfaultfd, 0) == 3);
}

static void hold_fanotify(const void *argument)
{
	HOLD(fanotify_init(FAN_CLASS_NOTIF, O_RDONLY) == 3);
}

static void hold_perf(const void *argument)
{
	struct perf_event_attr a = {.type = PERF_TYPE_SOFTWARE,
				    .size = sizeof(a),
				    .config = PERF_COUNT_SW_TASK_CLOCK};

	HOLD(syscall(SYS_perf_event_open, &a, 0, -1, -1, 0) == 3);
}

static void hold_pidfd(const void *argument)
{
	HOLD(syscall(SYS_pidfd_open, getpid(), 0) == 3);
}

static bool works(void (*hold)(const void *argument))
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		(void)syscall(SYS_close_range, 3, ~0u, 0);
		hold(NULL);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status == 0;
}

static void test_kernel_objects_that_no_image_holds_are_in_the_way(void **state)
{
	static const struct {
		void (*hold)(const void *argument);
		const char *want;
	} rows[] = {
		{hold_io_uring, ": io_uring"}, {hold_userfaultfd, ": userfaultfd"},
		{hold_fanotify, ": fanotify"}, {hold_perf, ": perf event"},
		{hold_pidfd, ": pidfd"},
	};

	for (size_t k = 0; k < N_ELEMENTS(rows); k++)
		if (works(rows[k].hold))
			expect(rows[k].hold, NULL, rows[k].want);
		else
			print_message("%s: this kernel has none\n", rows[k].want + 2);
}

static void hold_device(const void *argument)
{
	HOLD(mknod("/mnt/kmsg", S_IFCHR | 0600, makedev(1, 11)) == 0 ||
	     errno == EEXIST);
	HOLD(open("/mnt/kmsg", O_RDONLY) == 3);
}

static void hold_tty(const void *argument)
{
	HOLD(posix_openpt(O_RDWR | O_NOCTTY) == 3);
}

static void test_devices_and_terminals_are_in_the_way(void **state)
{
	expect(hold_device, NULL, ": device /mnt/kmsg");
	expect(hold_tty, NULL, ": terminal /dev/pt");
}

static void hold_tcp(const void *argument)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	HOLD(socket(AF_INET, SOCK_STREAM, 0) == 3);
	HOLD(bind(3, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(3, 1) == 0);
}

static void hold_udp6(const void *argument)
{
	HOLD(socket(AF_INET6, SOCK_DGRAM, 0) == 3 || errno == EAFNOSUPPORT);
	if (fcntl(3, F_GETFD) < 0)
		HOLD(socket(AF_INET, SOCK_DGRAM, 0) == 3);
}

static void hold_netlink(const void *argument)
{
	HOLD(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE) == 3);
}

static void hold_packet(const void *argument)
{
	HOLD(socket(AF_PACKET, SOCK_RAW, 0) == 3);
}

static void hold_bound(const void *argument)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "/mnt/socket"};

	HOLD(socket(AF_UNIX, SOCK_STREAM, 0) == 3);
	(void)unlink(a.sun_path);
	HOLD(bind(3, (struct sockaddr *)&a, sizeof(a)) == 0);
}

static void test_sockets_to_the_world_are_in_the_way(void **state)
{
	expect(hold_tcp, NULL, ": internet socket tcp 127.0.0.1:");
	expect(hold_udp6, NULL, ": internet socket UDP");
	expect(hold_netlink, NULL, ": NETLINK socket");
	if (works(hold_packet))
		expect(hold_packet, NULL, ": PACKET socket");
	expect(hold_bound, NULL, ": unix socket bound to /mnt/socket");
}

static int spare[2];

static void hold_inherited(const void *argument)
{
	/* What the fixture closed is fetched from the test by its number. */
	int pidfd = (int)syscall(SYS_pidfd_open, getppid(), 0);
	int fd = (int)syscall(SYS_pidfd_getfd, pidfd, *(const int *)argument, 0);

	HOLD(pidfd == 3 && fd == 4);
	HOLD(dup2(fd, pidfd) == pidfd && close(fd) == 0);
}

static void
test_a_pipe_to_one_who_stays_is_in_the_way_unless_a_stream_carries_it(void **state)
{
	struct inventory_allow allow = {.n_pipes = 1};
	char want[64], *text;
	struct stat st;
	pid_t pid;

	assert_int_equal(pipe2(spare, O_CLOEXEC), 0);
	expect(hold_inherited, &spare[0], ": pipe to ");
	(void)snprintf(want, sizeof(want), ": pipe to %d (", getpid());
	expect(hold_inherited, &spare[0], want);
	expect(hold_inherited, &spare[0], "), which stays");
	assert_int_equal(fstat(spare[0], &st), 0);
	allow.pipes = &st.st_ino;
	pid = subject_start(hold_inherited, &spare[0], 0);
	text = subject_verdict(pid, &allow);
	subject_end(pid);
	assert_null(text);
	(void)close(spare[0]);
	(void)close(spare[1]);
}

static void test_a_unix_socket_to_one_who_stays_is_in_the_way(void **state)
{
	char want[64];

	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, spare), 0);
	(void)snprintf(want, sizeof(want), ": unix socket to %d (", getpid());
	expect(hold_inherited, &spare[0], want);
	(void)close(spare[0]);
	(void)close(spare[1]);
}

static void hold_fifo(const void *argument)
{
	HOLD(open("/mnt/shared fifo", O_RDWR) == 3);
}

static void test_a_fifo_that_another_has_open_is_in_the_way(void **state)
{
	int fd;

	assert_int_equal(mkfifo("/mnt/shared fifo", 0600), 0);
	expect(hold_fifo, NULL, NULL);
	fd = open("/mnt/shared fifo", O_RDWR | O_CLOEXEC);
	expect(hold_fifo, NULL, ": /mnt/shared fifo to ");
	(void)close(fd);
}

static void hold_ghost(const void *argument)
{
	HOLD(open("/mnt/ghost", O_RDWR | O_CREAT, 0600) == 3);
	HOLD(ftruncate(3, 5 << 20) == 0 && unlink("/mnt/ghost") == 0);
}

static void hold_relinked(const void *argument)
{
	(void)unlink("/mnt/other name");
	HOLD(open("/mnt/one name", O_RDWR | O_CREAT, 0600) == 3);
	HOLD(link("/mnt/one name", "/mnt/other name") == 0 &&
	     unlink("/mnt/one name") == 0);
}

static void hold_memfd(const void *argument)
{
	HOLD(memfd_create("arena", 0) == 3);
}

static void hold_sysv(const void *argument)
{
	int id = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600);

	HOLD(id >= 0 && shmat(id, NULL, 0) != (void *)-1);
	HOLD(shmctl(id, IPC_RMID, NULL) == 0);
}

/* Its id is 0, and so is its inode. */
static void hold_first_sysv(const void *argument)
{
	HOLD(unshare(CLONE_NEWIPC) == 0);
	hold_sysv(argument);
}

static void test_files_without_a_name_are_in_the_way(void **state)
{
	expect(hold_ghost, NULL, ": deleted file /mnt/ghost of 5 MiB");
	expect(hold_relinked, NULL,
	       ": /mnt/one name was deleted, but has another name");
	expect(hold_memfd, NULL, ": memory file (memfd) arena");
	expect(hold_sysv, NULL, ": System V shared memory");
	expect(hold_first_sysv, NULL, ": System V shared memory");
}

static void hold_detached(const void *argument)
{
	(void)mkdir("/mnt/away", 0755);
	HOLD(mount("tmpfs", "/mnt/away", "tmpfs", 0, NULL) == 0);
	HOLD(open("/mnt/away/file", O_RDWR | O_CREAT, 0600) == 3);
	HOLD(umount2("/mnt/away", MNT_DETACH) == 0);
}

static void test_a_file_on_a_mount_outside_is_in_the_way(void **state)
{
	expect(hold_detached, NULL, " is on a mount outside of the space");
}

static void hold_zombie(const void *argument)
{
	siginfo_t info;
	pid_t child = fork();

	if (child == 0)
		_exit(5);
	HOLD(child > 0 && waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT) == 0);
}

static void test_a_child_that_was_not_waited_for_is_in_the_way(void **state)
{
	expect(hold_zombie, NULL, ": has ended, and its parent did not wait for it yet");
}

static void hold_uts(const void *argument)
{
	HOLD(unshare(CLONE_NEWUTS) == 0);
}

static void hold_user(const void *argument)
{
	HOLD(unshare(CLONE_NEWUSER) == 0);
}

static void test_namespaces_of_its_own_are_in_the_way(void **state)
{
	expect(hold_uts, NULL, ": uts namespace is not the space's");
	if (works(hold_user))
		expect(hold_user, NULL, ": user namespace is not the space's");
}

/* Which allows everything. */
static void filter(void)
{
	static struct sock_filter code[] = {
		{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
	};
	const struct sock_fprog program = {1, code};

	HOLD(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0);
}

static void hold_filter(const void *argument)
{
	filter();
}

static void *filtered_thread(void *argument)
{
	int *ready = argument;

	filter();
	HOLD(write(*ready, "", 1) == 1);
	for (;;)
		(void)pause();
	return NULL;
}

static void hold_filter_of_a_thread(const void *argument)
{
	pthread_t thread;
	int ends[2];
	char byte;

	HOLD(pipe(ends) == 0);
	HOLD(pthread_create(&thread, NULL, filtered_thread, &ends[1]) == 0);
	HOLD(read(ends[0], &byte, 1) == 1);
}

/* Who is in it can do little but read and write. */
static void hold_strict_child(const void *argument)
{
	int ready[2], never[2];
	char byte;

	HOLD(pipe(ready) == 0 && pipe(never) == 0);
	if (fork() == 0) {
		(void)prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
		(void)!write(ready[1], "", 1);
		for (;;)
			(void)!read(never[0], &byte, 1);
	}
	HOLD(read(ready[0], &byte, 1) == 1);
}

static void test_seccomp_filters_of_its_own_are_in_the_way(void **state)
{
	const struct inventory_allow bound = {.bound = true};
	pid_t pid = subject_start(hold_filter, NULL, 0);
	char *text = subject_verdict(pid, &bound);

	subject_end(pid);
	assert_null(text);
	expect(hold_filter, NULL, "): has seccomp filters of its own");
	expect(hold_filter_of_a_thread, NULL, "): has seccomp filters of its own");
	expect(hold_strict_child, NULL, "): has seccomp filters of its own");
}

static void test_a_task_that_lacks_a_capability_is_in_the_way(void **state)
{
	struct inventory_allow allow = {.capabilities = 1u << CAPABILITY_CAN_MIGRATE};
	pid_t pid = subject_start(NULL, NULL, 0);
	char *text = subject_verdict(pid, &allow);

	assert_null(text);
	allow.capabilities |= 1u << CAPABILITY_DISTANT_FORK;
	text = subject_verdict(pid, &allow);
	assert_non_null(text);
	assert_non_null(strstr(text, "): lacks the capability DISTANT_FORK"));
	free(text);
	subject_end(pid);
}

static void test_a_traced_task_is_in_the_way(void **state)
{
	pid_t pid = subject_start(NULL, NULL, 0);
	char want[64], *text;

	assert_int_equal(ptrace(PTRACE_SEIZE, pid, 0, 0), 0);
	text = subject_verdict(pid, NULL);
	(void)snprintf(want, sizeof(want), "): traced by %d", getpid());
	assert_non_null(text);
	assert_non_null(strstr(text, want));
	free(text);
	subject_end(pid);
}

static void hold_many(const void *argument)
{
	hold_io_uring(NULL);
	HOLD(memfd_create("a\nb", 0) == 4);
	HOLD(flock(4, LOCK_EX) == 0);
}

static void test_all_is_said_at_once_a_line_a_thing(void **state)
{
	pid_t pid;
	char *text;
	int lines = 1;

	if (!works(hold_io_uring))
		skip(); /* no io_uring in this kernel */
	pid = subject_start(hold_many, NULL, 0);
	text = subject_verdict(pid, NULL);
	subject_end(pid);
	assert_non_null(text);
	for (const char *p = text; *p; p++)
		lines += *p == '\n';
	assert_int_equal(lines, 3);
	assert_non_null(strstr(text, "(memfd) a?b"));
	free(text);
}

static void hold_some(const void *argument)
{
	struct sigevent quiet = {.sigev_notify = SIGEV_NONE};
	int timer;

	HOLD(open("/mnt/text", O_RDWR | O_CREAT, 0600) == 3);
	HOLD(open("/mnt/gone", O_RDWR | O_CREAT, 0600) == 4 && unlink("/mnt/gone") == 0);
	HOLD(eventfd(0, 0) == 5);
	HOLD(open("/mnt/locked\n", O_RDWR | O_CREAT, 0600) == 6 && flock(6, LOCK_EX) == 0);
	HOLD(dup2(6, 7) == 7);
	HOLD(syscall(SYS_timer_create, CLOCK_MONOTONIC, &quiet, &timer) == 0);
}

/* What is said of @what of @pid: "fate|is|why". */
static void expect_thing(const struct inventory_things *t, const char *what, const char *want)
{
	static const char *const fates[] = {"?", "moves", "forwarded", "blocks"};
	char got[512] = "nothing";

	for (size_t k = 0; k < t->n; k++)
		if (!strcmp(t->list[k].what, what))
			(void)snprintf(got, sizeof(got), "%s|%s|%s", fates[t->list[k].fate],
				       t->list[k].is, t->list[k].why);
	assert_string_equal(got, want);
}

static void test_of_each_thing_it_is_told_what_becomes_of_it(void **state)
{
	pid_t pid = subject_start(hold_some, NULL, 0);
	struct inventory_things *t = subject_things(pid, NULL);
	char *text = subject_verdict(pid, NULL);
	char process[64];

	subject_end(pid);
	assert_non_null(text);
	free(text);
	for (size_t k = 0; k < t->n; k++)
		assert_int_equal(t->list[k].pid, pid);
	assert_string_equal(t->list[0].what, "process");
	(void)snprintf(process, sizeof(process), "%s", t->list[0].is);
	assert_non_null(strstr(process, ", 1 thread"));
	expect_thing(t, "fd 0", "moves|device /dev/null|opened by its path");
	expect_thing(t, "fd 3", "moves|file /mnt/text|opened by its path");
	expect_thing(t, "fd 4", "moves|deleted file /mnt/gone|its content is sent");
	expect_thing(t, "fd 5", "moves|[eventfd]|made again as it is");
	expect_thing(t, "fd 6", "blocks|file /mnt/locked?|file lock on /mnt/locked?");
	expect_thing(t, "fd 7", "blocks|file /mnt/locked?|file lock on /mnt/locked?");
	expect_thing(t, "timer 0", "moves|POSIX timer|goes on as it stands");
	expect_thing(t, "working directory", "moves|directory /|opened by its path");
	inventory_things_free(t);
}

static void test_a_pipe_that_a_stream_carries_is_forwarded(void **state)
{
	struct inventory_allow allow = {.n_pipes = 1};
	struct inventory_things *t;
	struct stat st;
	pid_t pid;

	assert_int_equal(pipe2(spare, O_CLOEXEC), 0);
	assert_int_equal(fstat(spare[0], &st), 0);
	allow.pipes = &st.st_ino;
	pid = subject_start(hold_inherited, &spare[0], 0);
	t = subject_things(pid, &allow);
	subject_end(pid);
	expect_thing(t, "fd 3", "forwarded|pipe|a stream leads to its other end");
	inventory_things_free(t);
	(void)close(spare[0]);
	(void)close(spare[1]);
}

static void test_of_too_much_what_blocks_comes_through(void **state)
{
	struct inventory_things *t = calloc(1, sizeof(*t)), *theirs = calloc(1, sizeof(*t));
	static char name[4000];

	assert_true(t && theirs);
	memset(name, 'x', sizeof(name) - 1);
	for (int k = 0; k < 1000; k++) {
		char is[32];

		(void)snprintf(is, sizeof(is), "file /%d", k);
		assert_int_equal(things_add(t, 7, "fd", is, name), 0);
		t->list[k].fate = INVENTORY_MOVES;
	}
	assert_int_equal(things_add(theirs, 0, "", "file /999", "absent here"), 0);
	assert_int_equal(things_add(theirs, 0, "", "file /3", "of another type here"), 0);
	assert_int_equal(things_add(theirs, 0, "", "file /none", "absent here"), 0);
	assert_int_equal(inventory_things_mark(t, theirs), 0);
	inventory_things_cut(t);
	assert_true(t->n > 50 && t->n < 150);
	assert_int_equal(t->n + t->n_more, 1000);
	assert_string_equal(t->list[3].why, "of another type here");
	assert_string_equal(t->list[t->n - 1].is, "file /999");
	assert_int_equal(t->list[t->n - 1].fate, INVENTORY_BLOCKS);
	assert_string_equal(t->list[t->n - 1].why, "absent here");
	inventory_things_free(t);
	inventory_things_free(theirs);
}

static int tests(void)
{
	const struct CMUnitTest all[] = {
		cmocka_unit_test(test_an_ordinary_process_passes),
		cmocka_unit_test(test_file_locks_of_all_kinds_are_in_the_way),
		cmocka_unit_test(
			test_kernel_objects_that_no_image_holds_are_in_the_way),
		cmocka_unit_test(test_devices_and_terminals_are_in_the_way),
		cmocka_unit_test(test_sockets_to_the_world_are_in_the_way),
		cmocka_unit_test(
			test_a_pipe_to_one_who_stays_is_in_the_way_unless_a_stream_carries_it),
		cmocka_unit_test(test_a_unix_socket_to_one_who_stays_is_in_the_way),
		cmocka_unit_test(test_a_fifo_that_another_has_open_is_in_the_way),
		cmocka_unit_test(test_files_without_a_name_are_in_the_way),
		cmocka_unit_test(test_a_file_on_a_mount_outside_is_in_the_way),
		cmocka_unit_test(test_a_child_that_was_not_waited_for_is_in_the_way),
		cmocka_unit_test(test_namespaces_of_its_own_are_in_the_way),
		cmocka_unit_test(test_seccomp_filters_of_its_own_are_in_the_way),
		cmocka_unit_test(test_a_task_that_lacks_a_capability_is_in_the_way),
		cmocka_unit_test(test_a_traced_task_is_in_the_way),
		cmocka_unit_test(test_all_is_said_at_once_a_line_a_thing),
		cmocka_unit_test(test_of_each_thing_it_is_told_what_becomes_of_it),
		cmocka_unit_test(test_a_pipe_that_a_stream_carries_is_forwarded),
		cmocka_unit_test(test_of_too_much_what_blocks_comes_through),
	};

	return cmocka_run_group_tests(all, NULL, NULL);
}

int main(int argc, char **argv)
{
	return fixture_run(argc, argv, tests);
}
