/*
 * journey DIRECTORY: a program with threads, timers, descriptors and a child, that
 * checks itself all the time.  It echoes lines of standard input as "echo LINE", prints
 * "tick N" in order meanwhile, and at end of file "done" and exits 42.  What is wrong
 * ends it with a line on standard error and status 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORKERS = 3, FILE_NUMBERS = 1 << 16 };

/* By _exit(): what is buffered is not ours to flush. */
#define CHECK(condition)                                                               \
	do {                                                                           \
		if (!(condition)) {                                                    \
			dprintf(2, "journey: %s:%d: %s (%s)\n", __func__, __LINE__,    \
				#condition, strerror(errno));                          \
			_exit(1);                                                      \
		}                                                                      \
	} while (0)

/* What must never change. */
struct identity {
	pid_t pid, ppid, pgid, sid;
	uid_t uids[3];
	gid_t gids[3], groups[64];
	int n_groups, nice;
	mode_t umask;
	struct rlimit limits[RLIM_NLIMITS];
	sigset_t blocked, pending;
	char cwd[256];
};

static struct identity self;
static volatile sig_atomic_t alarms, stopping;
static int event_fd, timer_fd, epoll_fd, pipe_fds[2], pair[2], child_pipe[2];
static int random_file, sequential_file;
static pid_t child;

static void on_alarm(int signal)
{
	alarms++;
}

static void look(struct identity *i)
{
	memset(i, 0, sizeof(*i));
	i->pid = getpid();
	i->ppid = getppid();
	i->pgid = getpgid(0);
	i->sid = getsid(0);
	CHECK(getresuid(&i->uids[0], &i->uids[1], &i->uids[2]) == 0);
	CHECK(getresgid(&i->gids[0], &i->gids[1], &i->gids[2]) == 0);
	i->n_groups = getgroups(64, i->groups);
	CHECK(i->n_groups >= 0);
	i->nice = getpriority(PRIO_PROCESS, 0);
	i->umask = umask(0);
	umask(i->umask);
	for (int k = 0; k < RLIM_NLIMITS; k++)
		CHECK(getrlimit(k, &i->limits[k]) == 0);
	CHECK(pthread_sigmask(SIG_SETMASK, NULL, &i->blocked) == 0);
	CHECK(sigpending(&i->pending) == 0);
	CHECK(getcwd(i->cwd, sizeof(i->cwd)));
}

static void check_identity(void)
{
	struct identity now;

	look(&now);
	CHECK(now.pid == self.pid);
	CHECK(now.ppid == self.ppid);
	CHECK(now.pgid == self.pgid && now.sid == self.sid);
	CHECK(memcmp(now.uids, self.uids, sizeof(now.uids)) == 0);
	CHECK(memcmp(now.gids, self.gids, sizeof(now.gids)) == 0);
	CHECK(now.n_groups == self.n_groups);
	CHECK(memcmp(now.groups, self.groups, sizeof(now.groups)) == 0);
	CHECK(now.nice == self.nice);
	CHECK(now.umask == self.umask);
	CHECK(memcmp(now.limits, self.limits, sizeof(now.limits)) == 0);
	for (int k = 1; k < _NSIG; k++) {
		CHECK(sigismember(&now.blocked, k) == sigismember(&self.blocked, k));
		CHECK(sigismember(&now.pending, k) == sigismember(&self.pending, k));
	}
	CHECK(strcmp(now.cwd, self.cwd) == 0);
}

/* A thread that counts in memory of its own, and tells by the eventfd. */
static void *worker(void *argument)
{
	volatile uint64_t count[2] = {0};
	uint64_t one = 1;

	while (!stopping) {
		for (int k = 0; k < 20000; k++) {
			count[0]++;
			count[1]--;
		}
		CHECK(count[0] + count[1] == 0);
		CHECK(write(event_fd, &one, sizeof(one)) == sizeof(one));
		usleep(3000);
	}
	return NULL;
}

/* A thread that writes numbers in order into the pipe and plays ball over the pair. */
static void *player(void *argument)
{
	for (uint32_t n = 0; !stopping; n++) {
		uint32_t back;

		CHECK(write(pipe_fds[1], &n, sizeof(n)) == sizeof(n));
		CHECK(write(pair[1], &n, sizeof(n)) == sizeof(n));
		CHECK(read(pair[1], &back, sizeof(back)) == sizeof(back));
		CHECK(back == ~n);
		usleep(2000);
	}
	return NULL;
}

/* The child: numbers in order to its parent, until nobody reads. */
static _Noreturn void be_child(void)
{
	pid_t parent = getppid();

	(void)close(child_pipe[0]);
	(void)signal(SIGPIPE, SIG_IGN);
	for (uint32_t n = 0;; n++) {
		CHECK(getppid() == parent);
		if (write(child_pipe[1], &n, sizeof(n)) < 0)
			_exit(17);
		usleep(2500);
	}
}

static void watch(int fd)
{
	struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};

	CHECK(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e) == 0);
}

static int open_file(const char *directory, const char *name)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/journey.%d.%s", directory, getpid(), name);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
	CHECK(fd >= 0);
	return fd;
}

static void set_up(const char *directory)
{
	struct itimerspec every = {{0, 10000000}, {0, 10000000}};
	struct itimerval alarm_every = {{0, 15000}, {0, 15000}};
	struct sigaction sa = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
	union sigval value = {.sival_int = 4711};
	sigset_t blocked;

	random_file = open_file(directory, "random");
	sequential_file = open_file(directory, "sequential");
	for (uint32_t n = 0; n < FILE_NUMBERS; n++)
		CHECK(pwrite(sequential_file, &n, sizeof(n), n * sizeof(n)) ==
		      sizeof(n));
	CHECK(pipe(pipe_fds) == 0 && pipe(child_pipe) == 0);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	/* Blocked and pending, with a value, for the whole journey. */
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	sigaddset(&blocked, SIGRTMIN + 3);
	CHECK(sigprocmask(SIG_BLOCK, &blocked, NULL) == 0);
	child = fork();
	CHECK(child >= 0);
	if (child == 0)
		be_child();
	CHECK(close(child_pipe[1]) == 0);
	CHECK(kill(getpid(), SIGUSR1) == 0);
	CHECK(sigqueue(getpid(), SIGRTMIN + 3, value) == 0);
	event_fd = eventfd(0, 0);
	timer_fd = timerfd_create(CLOCK_MONOTONIC, 0);
	epoll_fd = epoll_create1(0);
	CHECK(event_fd >= 0 && timer_fd >= 0 && epoll_fd >= 0);
	CHECK(timerfd_settime(timer_fd, 0, &every, NULL) == 0);
	sigaction(SIGALRM, &sa, NULL);
	CHECK(setitimer(ITIMER_REAL, &alarm_every, NULL) == 0);
	watch(0);
	watch(event_fd);
	watch(timer_fd);
	watch(pipe_fds[0]);
	watch(pair[0]);
	watch(child_pipe[0]);
	look(&self);
}

static uint32_t next_number(int fd)
{
	uint32_t n;

	CHECK(read(fd, &n, sizeof(n)) == sizeof(n));
	return n;
}

/* Write and read at changing places of one file, read on in the other. */
static void use_files(uint32_t n)
{
	off_t place = (off_t)(n * 7919 % 4096) * sizeof(n);
	uint32_t back;

	CHECK(pwrite(random_file, &n, sizeof(n), place) == sizeof(n));
	CHECK(pread(random_file, &back, sizeof(back), place) == sizeof(back) &&
	      back == n);
	CHECK(lseek(sequential_file, 0, SEEK_CUR) ==
	      (off_t)(n % FILE_NUMBERS * sizeof(n)));
	CHECK(next_number(sequential_file) == n % FILE_NUMBERS);
	if (n % FILE_NUMBERS == FILE_NUMBERS - 1)
		CHECK(lseek(sequential_file, 0, SEEK_SET) == 0);
}

/* One turn; false at the end of standard input. */
static int turn(uint32_t seen[4])
{
	struct epoll_event e;
	char line[4096];
	uint64_t count;
	ssize_t len;
	uint32_t n;
	int r = epoll_wait(epoll_fd, &e, 1, 2000);

	if (r < 0 && errno == EINTR)
		return 1;
	CHECK(r == 1); /* the timer is faster than that */
	if (e.data.fd == 0) {
		len = read(0, line, sizeof(line));
		CHECK(len >= 0);
		if (len == 0)
			return 0;
		printf("echo %.*s", (int)len, line);
	} else if (e.data.fd == event_fd) {
		CHECK(read(event_fd, &count, sizeof(count)) == sizeof(count) && count);
	} else if (e.data.fd == timer_fd) {
		CHECK(read(timer_fd, &count, sizeof(count)) == sizeof(count) && count);
		printf("tick %u\n", seen[0]);
		use_files(seen[0]++);
		check_identity();
	} else if (e.data.fd == pipe_fds[0]) {
		CHECK(next_number(pipe_fds[0]) == seen[1]++);
	} else if (e.data.fd == pair[0]) {
		n = next_number(pair[0]);
		CHECK(n == seen[2]++);
		n = ~n;
		CHECK(write(pair[0], &n, sizeof(n)) == sizeof(n));
	} else {
		CHECK(next_number(child_pipe[0]) == seen[3]++);
	}
	return 1;
}

static void finish(pthread_t threads[])
{
	struct timespec none = {0};
	sigset_t pending;
	siginfo_t si;
	int status, before = alarms;

	usleep(100000);
	CHECK(alarms > before || before > 10);
	stopping = 1;
	/* Not the player, who may wait for an answer. */
	for (int k = 0; k < WORKERS; k++)
		CHECK(pthread_join(threads[k], NULL) == 0);
	sigemptyset(&pending);
	sigaddset(&pending, SIGUSR1);
	CHECK(sigtimedwait(&pending, &si, &none) == SIGUSR1);
	CHECK(si.si_code == SI_USER && si.si_pid == getpid() && si.si_uid == getuid());
	CHECK(sigtimedwait(&pending, &si, &none) < 0 && errno == EAGAIN);
	sigaddset(&pending, SIGRTMIN + 3);
	CHECK(sigtimedwait(&pending, &si, &none) == SIGRTMIN + 3);
	CHECK(si.si_code == SI_QUEUE && si.si_value.sival_int == 4711 &&
	      si.si_pid == getpid());
	CHECK(close(child_pipe[0]) == 0);
	CHECK(waitpid(child, &status, 0) == child);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 17);
}

int main(int argc, char **argv)
{
	pthread_t threads[WORKERS + 1];
	uint32_t seen[4] = {0};

	if (argc != 2)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	set_up(argv[1]);
	for (int k = 0; k < WORKERS; k++)
		CHECK(pthread_create(&threads[k], NULL, worker, NULL) == 0);
	CHECK(pthread_create(&threads[WORKERS], NULL, player, NULL) == 0);
	printf("journey %d child %d\n", getpid(), child);
	while (turn(seen))
		;
	finish(threads);
	printf("done\n");
	return 42;
}
