/*
 * ssid is killed while numbered words flow: on one node, on the other, on both, at any
 * instant or at a system call of its own.  Every word comes once, in order, and
 * behind the last one end of file; a program that nobody reads is told.  The same at
 * terminals, both ways.
 *
 * argv[2]: how many kills a test, 200 if absent.
 */
#include "stream_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>

enum { STREAMS = 4, WORDS = 4096 };

static struct shared {
	volatile bool stop;
	struct {
		uint64_t to_send, to_read; /* words; UINT64_MAX: until stopped, to the end */
		volatile uint64_t sent, came, wrong;
		volatile bool broken; /* the feeder was told that nobody reads */
		volatile bool ended;
		bool typed; /* into a terminal, which is hung up at its end */
		volatile bool fed;
		bool leaves; /* who types goes away: the terminal is hung up, bytes or
				not */
	} of[STREAMS];
} *shared;

static int n_kills = 200;
static pid_t nodes[2];

static _Noreturn void run_feeder(size_t i, int fd)
{
	static uint32_t words[WORDS];
	uint64_t next = 0;
	unsigned seed = (unsigned)i;

	while (!shared->stop && next < shared->of[i].to_send) {
		size_t n = 1 + (size_t)rand_r(&seed) % WORDS, done = 0;

		if (n > shared->of[i].to_send - next)
			n = shared->of[i].to_send - next;
		for (size_t k = 0; k < n; k++)
			words[k] = (uint32_t)next++;
		while (done < n * sizeof(*words)) {
			ssize_t r = write(fd, (char *)words + done, n * sizeof(*words) - done);

			if (r < 0) {
				shared->of[i].broken = errno == EPIPE;
				_exit(1);
			}
			done += (size_t)r;
		}
		shared->of[i].sent = next;
	}
	shared->of[i].fed = true;
	while (shared->of[i].typed && !shared->of[i].leaves && !shared->of[i].ended)
		(void)usleep(1000);
	_exit(0);
}

static bool is_hung_up(int fd)
{
	struct pollfd p = {fd, POLLIN, 0};

	return poll(&p, 1, 0) == 1 && p.revents & POLLHUP;
}

/* Reading nothing is the end; from a terminal it may be silence. */
static bool is_end(size_t i, int fd)
{
	if (!shared->of[i].typed)
		return true;
	if (shared->of[i].leaves)
		return is_hung_up(fd);
	return shared->of[i].fed && shared->of[i].came == shared->of[i].sent;
}

static ssize_t take(int fd, char *bytes, size_t n)
{
	ssize_t r = read(fd, bytes, n);

	return r < 0 && errno == EIO ? 0 : r; /* a terminal, hung up */
}

static _Noreturn void run_checker(size_t i, int fd)
{
	static char bytes[65536];
	uint32_t expected = 0, word;
	unsigned seed = (unsigned)i;
	size_t have = 0, at;
	ssize_t n = -1;

	while (shared->of[i].came < shared->of[i].to_read &&
	       (n = take(fd, bytes + have,
			 1 + (size_t)rand_r(&seed) % (sizeof(bytes) - have))) >= 0) {
		if (n == 0 && is_end(i, fd))
			break;
		have += (size_t)n;
		for (at = 0; at + 4 <= have; at += 4) {
			memcpy(&word, bytes + at, 4);
			if (word != expected)
				shared->of[i].wrong++;
			expected = word + 1;
			shared->of[i].came++;
		}
		memmove(bytes, bytes + at, have - at);
		have -= at;
	}
	if (n == 0 && !shared->of[i].leaves)
		shared->of[i].wrong += have != 0;
	shared->of[i].ended = n == 0;
	_exit(0);
}

static void start_programs(int p[STREAMS][4])
{
	for (size_t i = 0; i < STREAMS; i++) {
		if (fork() == 0) {
			for (size_t k = i; k < STREAMS; k++)
				for (int e = 1; e < 3; e++)
					if (p[k][e] != p[i][1])
						(void)close(p[k][e]);
			run_feeder(i, p[i][1]);
		}
		if (fork() == 0) {
			for (size_t k = 0; k < STREAMS; k++)
				if (p[k][1] != p[i][2])
					(void)close(p[k][1]);
			run_checker(i, p[i][2]);
		}
		(void)close(p[i][1]);
		(void)close(p[i][2]);
	}
}

/* Of @p, 0 and 3 for the streams, 1 and 2 for the programs. */
static void make_pipes(int p[static 4])
{
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	assert_int_equal(pipe2(p + 2, O_CLOEXEC), 0);
}

/* @typed is from a pipe to the terminal, @shown from it to a pipe. */
static void make_terminal(int typed[static 4], int shown[static 4])
{
	struct termios raw;

	assert_int_equal(pipe2(typed, O_CLOEXEC), 0);
	assert_int_equal(pipe2(shown + 2, O_CLOEXEC), 0);
	assert_int_equal(openpty(&typed[3], &typed[2], NULL, NULL, NULL), 0);
	assert_int_equal(fcntl(typed[3], F_SETFL, O_RDWR | O_NONBLOCK), 0);
	assert_int_equal(tcgetattr(typed[2], &raw), 0);
	cfmakeraw(&raw);
	raw.c_cc[VMIN] = 0;
	raw.c_cc[VTIME] = 1;
	assert_int_equal(tcsetattr(typed[2], TCSANOW, &raw), 0);
	shown[0] = dup(typed[3]);
	shown[1] = dup(typed[2]);
}

/* The streams stand before the first ssid that is killed. */
static void open_streams(bool at_terminals)
{
	struct env_event *event;
	struct node n[2];
	int p[STREAMS][4];

	assert_int_equal(env_event_new(&event), 0);
	for (node_id i = 0; i < 2; i++)
		node_start(&n[i], i + 1, event);
	for (size_t i = 0; i < STREAMS; i++) {
		/* The two of a terminal the other way round. */
		size_t there = at_terminals ? (i & 1) ^ (i >> 1) ^ 1 : i >> 1 & 1;
		struct node *from = &n[at_terminals ? (i & 1) ^ (i >> 1) : i & 1],
			    *to = &n[there];
		stream_id id = stream_new_id(from->room);

		/* 0 and 1, 2 and 3. */
		if (!at_terminals)
			make_pipes(p[i]);
		else if (i % 2 == 0)
			make_terminal(p[i], p[i + 1]);
		shared->of[i].typed = at_terminals && i % 2 == 0;
		assert_int_equal(stream_open(from->room, id, STREAM_READER, to->id, p[i][0], 0,
					     NULL, 0),
				 0);
		assert_int_equal(stream_open(to->room, id, STREAM_WRITER, from->id, p[i][3], 0,
					     NULL, 0),
				 0);
	}
	for (node_id i = 0; i < 2; i++)
		node_stop(&n[i]);
	(void)env_event_free(event);
	start_programs(p);
}

static void start(size_t i)
{
	nodes[i] = fork();
	if (nodes[i] == 0) {
		struct env_event *event;
		struct node n;

		assert_int_equal(env_event_new(&event), 0);
		node_start(&n, (node_id)i + 1, event);
		(void)env_event_run(event);
		_exit(0);
	}
}

static bool died_alone;
static int n_traced;

static void kill_node(size_t i)
{
	int status;

	(void)kill(nodes[i], SIGKILL);
	(void)waitpid(nodes[i], &status, __WALL);
	died_alone |= !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL;
}

/* Let it go on to its @n-th entry into or return from a system call, for 50 ms at most. */
static void trace(size_t i, unsigned n)
{
	int status = 0;

	if (ptrace(PTRACE_SEIZE, nodes[i], NULL, (void *)PTRACE_O_EXITKILL) < 0 ||
	    ptrace(PTRACE_INTERRUPT, nodes[i], NULL, NULL) < 0)
		return;
	for (int idle = 0; idle < 500;) {
		if (waitpid(nodes[i], &status, __WALL | WNOHANG) != nodes[i]) {
			(void)usleep(10);
			idle++;
		} else if (!WIFSTOPPED(status) || n-- == 0 ||
			   ptrace(PTRACE_SYSCALL, nodes[i], NULL, NULL) < 0) {
			n_traced += WIFSTOPPED(status);
			return;
		}
	}
}

/* One, the other or both, and a successor of each. */
static void kill_some(void)
{
	unsigned which = 1u + (unsigned)rand() % 3;
	bool traced = rand() % 2;

	(void)usleep((useconds_t)rand() % (rand() % 4 ? 6000 : 40000));
	for (size_t i = 0; i < 2; i++)
		if (which & 1u << i) {
			if (traced)
				trace(i, (unsigned)rand() % 400);
			kill_node(i);
		}
	for (size_t i = 0; i < 2; i++)
		if (which & 1u << i)
			start(i);
}

static bool is_over(size_t i)
{
	return shared->of[i].to_read == UINT64_MAX ? shared->of[i].ended : shared->of[i].broken;
}

static bool are_over(void)
{
	for (size_t i = 0; i < STREAMS; i++)
		if (!is_over(i))
			return false;
	return true;
}

static bool wait_over(unsigned seconds)
{
	for (unsigned k = 0; k < seconds * 100; k++) {
		if (are_over())
			return true;
		(void)usleep(10000);
	}
	return false;
}

static void reap_programs(void)
{
	int status;

	while (waitpid(-1, &status, WNOHANG) > 0)
		;
}

/* What is kept goes, at the latest when an end gave up one that has forgotten it. */
static void check_nothing_left(void)
{
	struct env_event *event;
	struct node n[2];

	assert_int_equal(env_event_new(&event), 0);
	for (node_id i = 0; i < 2; i++)
		node_start(&n[i], i + 1, event);
	turn(event, 200 * NSEC_PER_MSEC);
	clock_advance(21 * NSEC_PER_SEC);
	for (node_id i = 0; i < 2; i++)
		turn_until(event, node_kept(&n[i]) == 0);
	for (node_id i = 0; i < 2; i++)
		node_stop(&n[i]);
	(void)env_event_free(event);
}

static struct {
	uint64_t sent, came, wrong;
} total;

static void count(void)
{
	for (size_t i = 0; i < STREAMS; i++) {
		total.wrong += shared->of[i].wrong;
		if (shared->of[i].to_read != UINT64_MAX || shared->of[i].leaves)
			continue;
		total.sent += shared->of[i].sent;
		total.came += shared->of[i].came;
	}
}

static int up(void **state)
{
	srand((unsigned)time(NULL));
	memset(&total, 0, sizeof(total));
	died_alone = false;
	n_traced = 0;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		      -1, 0);
	return shared == MAP_FAILED ? -1 : 0;
}

static int down(void **state)
{
	return munmap(shared, sizeof(*shared));
}

static void run_words(bool at_terminals)
{
	bool over;

	for (size_t i = 0; i < STREAMS; i++)
		shared->of[i].to_send = shared->of[i].to_read = UINT64_MAX;
	open_streams(at_terminals);
	for (size_t i = 0; i < 2; i++)
		start(i);
	for (int k = 0; k < n_kills; k++)
		kill_some();
	shared->stop = true;
	over = wait_over(30);
	for (size_t i = 0; i < 2; i++)
		kill_node(i);
	reap_programs();
	count();
	(void)printf("# %d kills, %d at a system call: %llu words sent, %llu came, "
		     "%llu out of order\n", n_kills, n_traced,
		     (unsigned long long)total.sent, (unsigned long long)total.came,
		     (unsigned long long)total.wrong);
	assert_true(over);
	assert_int_equal(total.wrong, 0);
	assert_int_equal(total.came, total.sent);
	assert_true(total.came > (uint64_t)n_kills * 100);
	assert_false(died_alone);
	check_nothing_left();
}

static void every_word_comes_once_in_order(void **state)
{
	run_words(false);
}

static void every_word_passes_a_terminal_once(void **state)
{
	run_words(true);
}

/* One in four has a reader that leaves. */
static void set_lengths(void)
{
	memset(shared, 0, sizeof(*shared));
	for (size_t i = 0; i < STREAMS; i++) {
		shared->of[i].to_send = (uint64_t)rand() % (rand() % 2 ? 300 : 3000000);
		shared->of[i].to_read = UINT64_MAX;
		if (rand() % 4)
			continue;
		shared->of[i].to_read = shared->of[i].to_send;
		shared->of[i].to_send = UINT64_MAX;
	}
}

/* Who types goes away sooner or later; the program writes until it is hung up. */
static void set_users(void)
{
	memset(shared, 0, sizeof(*shared));
	for (size_t i = 0; i < STREAMS; i++) {
		shared->of[i].to_send =
			i % 2 ? UINT64_MAX
			      : (uint64_t)rand() % (rand() % 2 ? 300 : 300000);
		shared->of[i].to_read = UINT64_MAX;
		shared->of[i].leaves = true;
	}
}

static void run_ends(bool at_terminals)
{
	int k = 0, rounds = 0;
	bool over = true;

	for (; k < n_kills && over; rounds++) {
		if (at_terminals)
			set_users();
		else
			set_lengths();
		open_streams(at_terminals);
		for (size_t i = 0; i < 2; i++)
			start(i);
		for (int n = 0; n < 100 && !are_over(); n++, k++)
			kill_some();
		over = wait_over(30);
		for (size_t i = 0; i < 2; i++)
			kill_node(i);
		reap_programs();
		count();
	}
	(void)printf("# %d kills, %d ends: %llu words sent, %llu came, %llu out of order\n", k,
		     rounds * STREAMS, (unsigned long long)total.sent,
		     (unsigned long long)total.came, (unsigned long long)total.wrong);
	assert_true(over);
	assert_int_equal(total.wrong, 0);
	assert_int_equal(total.came, total.sent);
	assert_false(died_alone);
	check_nothing_left();
}

static void streams_end_whenever_ssid_is_killed(void **state)
{
	run_ends(false);
}

static void terminals_are_hung_up_whenever_ssid_is_killed(void **state)
{
	run_ends(true);
}

static int tests(void)
{
	const struct CMUnitTest all[] = {
		cmocka_unit_test_setup_teardown(every_word_comes_once_in_order, up,
						down),
		cmocka_unit_test_setup_teardown(every_word_passes_a_terminal_once, up,
						down),
		cmocka_unit_test_setup_teardown(streams_end_whenever_ssid_is_killed, up,
						down),
		cmocka_unit_test_setup_teardown(
			terminals_are_hung_up_whenever_ssid_is_killed, up, down),
	};

	return cmocka_run_group_tests_name("stream kill", all, NULL, NULL);
}

int main(int argc, char **argv)
{
	if (argc > 2)
		n_kills = atoi(argv[2]);
	return stream_fixture_main(argc, argv, tests);
}
