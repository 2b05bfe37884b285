#include "fixture.h"

#include "cleanup.h"
#include "init_wire.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

static struct fixture f;

static int setup(void **state)
{
	fixture_open(&f);
	return 0;
}

static int teardown(void **state)
{
	fixture_close(&f);
	return 0;
}

/* Do @work as another client, which is then killed as ssid may be. */
static void as_killed_client(void (*work)(struct fixture *g))
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		struct fixture g;

		fixture_open(&g);
		work(&g);
		(void)raise(SIGKILL);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static long space_inode(const struct fixture *g, const char *path)
{
	struct stat st;

	assert_int_equal(fstatat(space_proc_fd(g->space), path, &st, 0), 0);
	return (long)st.st_ino;
}

static void core_has_a_service_pid_in_a_space_of_its_own(void **state)
{
	struct stat own;

	assert_in_range(getpid(), 2, 299);
	assert_int_equal(stat("/proc/self/ns/mnt", &own), 0);
	assert_true((long)own.st_ino != space_inode(&f, "1/ns/mnt"));
	assert_int_equal(stat("/proc/self/ns/pid", &own), 0);
	assert_int_equal(own.st_ino, space_inode(&f, "1/ns/pid"));
}

static void private_dir_is_seen_by_daemon_and_space(void **state)
{
	char path[256];
	struct stat st;
	int fd;

	(void)snprintf(path, sizeof(path), "%s/x", fixture_config.private_dir);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	(void)close(fd);
	assert_int_equal(fstatat(space_root_fd(f.space), path + 1, &st, 0), 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(stat(fixture_config.private_dir, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
}

static void exit_code_is_told(void **state)
{
	pid_t pid = fixture_sh(&f, "exit 42", -1);
	struct space_exit e = fixture_exit_of(&f, pid);

	assert_int_equal(e.code, CLD_EXITED);
	assert_int_equal(e.status, 42);
	assert_int_equal(space_reap(f.space, pid), 0);
	assert_int_equal(space_reap(f.space, pid), 0);
	assert_int_equal(fixture_state(&f, pid), '-');
}

static void end_by_signal_is_told(void **state)
{
	pid_t pid = fixture_sh(&f, "kill -TERM $$", -1);
	struct space_exit e = fixture_exit_of(&f, pid);

	assert_int_equal(e.code, CLD_KILLED);
	assert_int_equal(e.status, SIGTERM);
	assert_int_equal(space_reap(f.space, pid), 0);
}

static void failing_execve_is_status_127(void **state)
{
	const char *const argv[] = { "/nonexistent", NULL };
	const struct space_spawn spec = { .argv = argv, .group_fd = -1, .flags = SPACE_SPAWN_TRACK };
	pid_t pid;

	assert_int_equal(space_spawn(f.space, &spec, &pid, NULL), 0);
	assert_int_equal(fixture_exit_of(&f, pid).status, 127);
	assert_int_equal(space_reap(f.space, pid), 0);
}

static pid_t *shared_pid;

static void spawn_exiting(struct fixture *g)
{
	*shared_pid = fixture_sh(g, "exit 7", -1);
	(void)fixture_exit_of(g, *shared_pid);
}

static void exit_waits_for_a_successor_and_keeps_its_pid(void **state)
{
	const char *const argv[] = { "/bin/true", NULL };
	struct space_spawn spec = { .argv = argv, .group_fd = -1 };
	pid_t ignored;

	as_killed_client(spawn_exiting);
	fixture_close(&f);
	fixture_open(&f);
	assert_int_equal(fixture_exit_of(&f, *shared_pid).status, 7);
	assert_int_equal(fixture_state(&f, *shared_pid), 'Z');
	spec.set_tid = *shared_pid;
	assert_int_equal(space_spawn(f.space, &spec, &ignored, NULL), SPACE_E_PID_TAKEN);
	assert_int_equal(space_reap(f.space, *shared_pid), 0);
	assert_int_equal(space_spawn(f.space, &spec, &ignored, NULL), 0);
	assert_int_equal(ignored, *shared_pid);
}

static void put_200(struct fixture *g)
{
	for (int i = 0; i < 200; i++) {
		char name[32];
		int fd;

		(void)snprintf(name, sizeof(name), "test/many/%d", i);
		fd = memfd_create(name, MFD_CLOEXEC);
		assert_int_equal(write(fd, &i, sizeof(i)), sizeof(i));
		assert_int_equal(space_keep(g->space, name, fd), 0);
		(void)close(fd);
	}
}

static int count(void *owner, const char *name)
{
	assert_int_equal(strncmp(name, "test/many/", 10), 0);
	(*(int *)owner)++;
	return 0;
}

static void keeper_holds_200_descriptors_over_a_kill(void **state)
{
	int n = 0, fd, value;

	as_killed_client(put_200);
	assert_int_equal(space_each_kept(f.space, "test/many/", count, &n), 0);
	assert_int_equal(n, 200);
	for (int i = 0; i < 200; i++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "test/many/%d", i);
		assert_int_equal(space_kept(f.space, name, &fd), 0);
		assert_int_equal(pread(fd, &value, sizeof(value), 0), sizeof(value));
		assert_int_equal(value, i);
		(void)close(fd);
		assert_int_equal(space_drop(f.space, name), 0);
		assert_int_equal(space_drop(f.space, name), SPACE_E_ABSENT);
	}
	assert_int_equal(space_kept(f.space, "test/many/1", &fd), SPACE_E_ABSENT);
	n = 0;
	assert_int_equal(space_each_kept(f.space, "test/", count, &n), 0);
	assert_int_equal(n, 0);
}

static void keeping_again_replaces(void **state)
{
	int a[2], b[2], fd;
	char c;

	assert_int_equal(pipe2(a, O_CLOEXEC), 0);
	assert_int_equal(pipe2(b, O_CLOEXEC), 0);
	assert_int_equal(space_keep(f.space, "test/pipe", a[1]), 0);
	assert_int_equal(space_keep(f.space, "test/pipe", b[1]), 0);
	(void)close(a[1]);
	assert_int_equal(read(a[0], &c, 1), 0); /* nobody holds its other end any more */
	assert_int_equal(space_kept(f.space, "test/pipe", &fd), 0);
	assert_int_equal(write(fd, "x", 1), 1);
	assert_int_equal(read(b[0], &c, 1), 1);
	assert_int_equal(space_drop(f.space, "test/pipe"), 0);
	(void)close(fd);
	(void)close(a[0]);
	(void)close(b[0]);
	(void)close(b[1]);
}

static void make_state(struct fixture *g)
{
	bool fresh;
	void *p;

	assert_int_equal(space_state(g->space, "test/state", 4096, &p, &fresh), 0);
	assert_true(fresh);
	strcpy(p, "still here");
}

static void state_survives(void **state)
{
	bool fresh;
	void *p;

	as_killed_client(make_state);
	assert_int_equal(space_state(f.space, "test/state", 8192, &p, &fresh), 0);
	assert_false(fresh);
	assert_string_equal(p, "still here");
	assert_int_equal(((char *)p)[8191], 0);
	(void)munmap(p, 8192);
	assert_int_equal(space_drop(f.space, "test/state"), 0);
}

static bool has_stopped(void *owner)
{
	return f.n_stops >= *(size_t *)owner;
}

static void stop_and_continue_are_told(void **state)
{
	pid_t pid = fixture_sh(&f, "kill -STOP $$; sleep 0.2; exit 3", -1);
	size_t one = 1, two = 2;

	fixture_wait(has_stopped, &one);
	assert_int_equal(f.stops[0].pid, pid);
	assert_int_equal(f.stops[0].signal, SIGSTOP);
	assert_int_equal(kill(pid, SIGCONT), 0);
	fixture_wait(has_stopped, &two);
	assert_int_equal(f.stops[1].signal, SIGCONT);
	assert_int_equal(fixture_exit_of(&f, pid).status, 3);
	assert_int_equal(space_reap(f.space, pid), 0);
}

static void set_tid_is_honoured_or_refused(void **state)
{
	const char *const argv[] = { "/bin/sleep", "100", NULL };
	struct space_spawn spec = { .argv = argv, .group_fd = -1, .set_tid = 3333333 };
	pid_t pid, ignored;

	assert_int_equal(space_spawn(f.space, &spec, &pid, NULL), 0);
	assert_int_equal(pid, 3333333);
	assert_int_equal(space_spawn(f.space, &spec, &ignored, NULL), SPACE_E_PID_TAKEN);
	assert_int_equal(kill(pid, SIGKILL), 0);
}

static void service_pids_are_given(void **state)
{
	const char *const argv[] = { "/bin/sleep", "100", NULL };
	const struct space_spawn spec = { .argv = argv, .group_fd = -1,
					  .flags = SPACE_SPAWN_SERVICE };
	pid_t pid[3];
	int pidfd;

	for (size_t i = 0; i < N_ELEMENTS(pid); i++) {
		assert_int_equal(space_spawn(f.space, &spec, &pid[i], &pidfd), 0);
		assert_in_range(pid[i], 2, 299);
		assert_int_equal(syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0), 0);
		(void)close(pidfd);
	}
	assert_true(pid[0] != pid[1] && pid[1] != pid[2]);
}

static void descriptors_environment_and_limits_are_as_said(void **state)
{
	const char *const argv[] = { "/bin/sh", "-c",
				     "echo $A:$(ls /proc/self/fd | tr '\\n' ' '):$(ulimit -n):$(umask):"
				     "$(readlink /proc/self/fd/0):$PWD >&4; read x <&3; exit $x", NULL };
	const char *const envp[] = { "A=b", "PATH=/usr/bin:/bin", NULL };
	struct space_spawn spec = { .argv = argv, .envp = envp, .n_fds = 2, .group_fd = -1,
				    .flags = SPACE_SPAWN_TRACK };
	char text[256] = { 0 }, expected[256];
	struct rlimit files;
	int in[2], out[2];
	pid_t pid;

	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	spec.fds = (const int[]){ in[0], out[1] };
	assert_int_equal(space_spawn(f.space, &spec, &pid, NULL), 0);
	assert_true(read(out[0], text, sizeof(text) - 1) > 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
	/* 1 is the shell's pipe, 5 is ls's own. */
	(void)snprintf(expected, sizeof(expected), "b:0 1 2 3 4 5 :%ld:0022:/dev/null:/\n",
		       (long)files.rlim_cur);
	assert_string_equal(text, expected);
	assert_int_equal(write(in[1], "9\n", 2), 2);
	assert_int_equal(fixture_exit_of(&f, pid).status, 9);
	assert_int_equal(space_reap(f.space, pid), 0);
	for (int i = 0; i < 2; i++) {
		(void)close(in[i]);
		(void)close(out[i]);
	}
}

static bool is_gone(void *owner)
{
	return fixture_state(&f, *(pid_t *)owner) == '-';
}

static void orphans_are_reaped_behind_a_kept_zombie(void **state)
{
	pid_t kept = fixture_sh(&f, "exit 1", -1), parent, orphan = 0;
	int ends[2];
	const char *const argv[] = { "/bin/sh", "-c", "(sleep 0.1 & sh -c 'echo $PPID' >&3) ; :",
				     NULL };
	struct space_spawn spec = { .argv = argv, .n_fds = 1, .group_fd = -1 };
	char text[32] = { 0 };

	(void)fixture_exit_of(&f, kept);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	spec.fds = &ends[1];
	for (int i = 0; i < 20; i++)
		assert_int_equal(space_spawn(f.space, &spec, &parent, NULL), 0);
	(void)close(ends[1]);
	assert_true(read(ends[0], text, sizeof(text) - 1) > 0);
	orphan = atoi(text);
	assert_true(orphan > 0);
	fixture_wait(is_gone, &orphan);
	fixture_wait(is_gone, &parent);
	fixture_turn(200 * NSEC_PER_MSEC);
	assert_int_equal(fixture_state(&f, kept), 'Z');
	assert_int_equal(space_reap(f.space, kept), 0);
	assert_int_equal(fixture_state(&f, kept), '-');
	(void)close(ends[0]);
}

static void tracking_starts_later_and_ends_with_reap(void **state)
{
	const char *const argv[] = { "/bin/sleep", "100", NULL };
	const struct space_spawn spec = { .argv = argv, .group_fd = -1 };
	pid_t pid;

	assert_int_equal(space_track(f.space, 4000000), SPACE_E_ABSENT);
	assert_int_equal(space_spawn(f.space, &spec, &pid, NULL), 0);
	assert_int_equal(space_track(f.space, pid), 0);
	assert_int_equal(space_track(f.space, pid), 0);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(fixture_exit_of(&f, pid).code, CLD_KILLED);
	assert_int_equal(space_reap(f.space, pid), 0);
	assert_int_equal(space_spawn(f.space, &spec, &pid, NULL), 0);
	assert_int_equal(space_track(f.space, pid), 0);
	assert_int_equal(space_reap(f.space, pid), 0);
	assert_int_equal(kill(pid, SIGKILL), 0);
	fixture_wait(is_gone, &pid);
}

static void signals_from_inside_do_not_reach_ssi_init(void **state)
{
	static const int signals[] = { SIGTERM, SIGINT, SIGKILL, SIGSTOP, SIGHUP, SIGSEGV };

	for (size_t i = 0; i < N_ELEMENTS(signals); i++)
		(void)kill(1, signals[i]);
	assert_int_equal(space_reap(f.space, 4000000), 0);
	assert_int_equal(f.n_lost, 0);
}

static int connect_raw(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/init.sock",
		       fixture_config.runtime_dir);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static void nonsense_harms_only_its_own_connection(void **state)
{
	struct init_request request;
	struct init_reply reply;
	char bytes[5000];
	unsigned seed = 1;
	int fd;

	for (int n = 0; n < 500; n++) {
		for (size_t i = 0; i < sizeof(bytes); i++)
			bytes[i] = (char)rand_r(&seed);
		fd = connect_raw();
		(void)send(fd, bytes, rand_r(&seed) % sizeof(bytes), MSG_NOSIGNAL);
		memcpy(&request, bytes, sizeof(request));
		request.version = INIT_WIRE_VERSION;
		request.verb = rand_r(&seed) % INIT_END; /* anything but that */
		request.pid = -request.pid;
		request.name[rand_r(&seed) % INIT_NAME_SIZE] = '\0';
		(void)send(fd, &request, sizeof(request), MSG_NOSIGNAL);
		(void)close(fd);
	}
	fd = connect_raw();
	request = (struct init_request){ .version = 99, .verb = INIT_REAP };
	assert_int_equal(send(fd, &request, sizeof(request), 0), sizeof(request));
	assert_int_equal(recv(fd, &reply, sizeof(reply), 0), sizeof(reply));
	assert_int_equal(reply.result, -EPROTO);
	(void)close(fd);
}

static void a_crowd_of_clients_does_not_lock_others_out(void **state)
{
	int fds[100];

	for (size_t i = 0; i < N_ELEMENTS(fds); i++)
		fds[i] = connect_raw();
	fixture_turn(50 * NSEC_PER_MSEC);
	fixture_close(&f);
	fixture_open(&f);
	assert_int_equal(space_reap(f.space, 4000000), 0);
	for (size_t i = 0; i < N_ELEMENTS(fds); i++)
		(void)close(fds[i]);
}

static int tests(void)
{
	const struct CMUnitTest all[] = {
		cmocka_unit_test_setup_teardown(core_has_a_service_pid_in_a_space_of_its_own, setup, teardown),
		cmocka_unit_test_setup_teardown(private_dir_is_seen_by_daemon_and_space, setup, teardown),
		cmocka_unit_test_setup_teardown(exit_code_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(end_by_signal_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(failing_execve_is_status_127, setup, teardown),
		cmocka_unit_test_setup_teardown(exit_waits_for_a_successor_and_keeps_its_pid, setup, teardown),
		cmocka_unit_test_setup_teardown(keeper_holds_200_descriptors_over_a_kill, setup, teardown),
		cmocka_unit_test_setup_teardown(keeping_again_replaces, setup, teardown),
		cmocka_unit_test_setup_teardown(state_survives, setup, teardown),
		cmocka_unit_test_setup_teardown(stop_and_continue_are_told, setup, teardown),
		cmocka_unit_test_setup_teardown(set_tid_is_honoured_or_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(service_pids_are_given, setup, teardown),
		cmocka_unit_test_setup_teardown(descriptors_environment_and_limits_are_as_said, setup, teardown),
		cmocka_unit_test_setup_teardown(orphans_are_reaped_behind_a_kept_zombie, setup, teardown),
		cmocka_unit_test_setup_teardown(tracking_starts_later_and_ends_with_reap, setup, teardown),
		cmocka_unit_test_setup_teardown(signals_from_inside_do_not_reach_ssi_init, setup, teardown),
		cmocka_unit_test_setup_teardown(nonsense_harms_only_its_own_connection, setup, teardown),
		cmocka_unit_test_setup_teardown(a_crowd_of_clients_does_not_lock_others_out, setup, teardown),
	};

	shared_pid = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return cmocka_run_group_tests_name("space", all, NULL, NULL);
}

int main(int argc, char **argv)
{
	return fixture_main(argc, argv, tests);
}
