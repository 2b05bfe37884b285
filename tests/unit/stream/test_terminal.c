/* A terminal here whose user is there. */
#include "stream_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>

static struct env_event *event;
static struct node nodes[NODES];

/* The user's ends of the pipes, and the program's of the terminal; -1: closed. */
struct sitting {
	stream_id typed, shown;
	int keys, screen, slave;
	char text[200000];
	size_t len;
	bool ended;
};

static int up(void **state)
{
	assert_int_equal(env_event_new(&event), 0);
	for (node_id i = 0; i < NODES; i++)
		node_start(&nodes[i], i + 1, event);
	return 0;
}

static int down(void **state)
{
	for (node_id i = 0; i < NODES; i++) {
		turn_until(event, node_kept(&nodes[i]) == 0);
		node_stop(&nodes[i]);
	}
	event = env_event_free(event);
	return 0;
}

/* nodes[0] is the user's, nodes[1] the program's. */
static struct sitting *sit_down(void)
{
	struct sitting *s = calloc(1, sizeof(*s));
	int master, keys[2], screen[2];

	assert_non_null(s);
	assert_int_equal(openpty(&master, &s->slave, NULL, NULL, NULL), 0);
	assert_true(fcntl(master, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
	assert_int_equal(pipe2(keys, O_CLOEXEC), 0);
	assert_int_equal(pipe2(screen, O_CLOEXEC | O_NONBLOCK), 0);
	s->typed = stream_new_id(nodes[0].room);
	s->shown = stream_new_id(nodes[0].room);
	s->keys = keys[1];
	s->screen = screen[0];
	assert_int_equal(stream_open(nodes[0].room, s->typed, STREAM_READER, 2, keys[0],
				     0, NULL, 0),
			 0);
	assert_int_equal(stream_open(nodes[0].room, s->shown, STREAM_WRITER, 2,
				     screen[1], 0, NULL, 0),
			 0);
	assert_int_equal(stream_open(nodes[1].room, s->typed, STREAM_WRITER, 1,
				     dup(master), 0, NULL, 0),
			 0);
	assert_int_equal(stream_open(nodes[1].room, s->shown, STREAM_READER, 1, master,
				     0, NULL, 0),
			 0);
	return s;
}

static void look(struct sitting *s)
{
	ssize_t n = read(s->screen, s->text + s->len, sizeof(s->text) - s->len);

	if (n > 0)
		s->len += (size_t)n;
	s->ended |= n == 0;
}

#define see(s_, text_)                                                                 \
	turn_until(event,                                                              \
		   (look(s_), memmem((s_)->text, (s_)->len, text_, strlen(text_))))

static void write_all(int fd, const char *text)
{
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static bool is_hung_up(const struct sitting *s)
{
	struct pollfd p = {s->slave, POLLIN, 0};

	return poll(&p, 1, 0) == 1 && p.revents & POLLHUP;
}

static void stand_up(struct sitting *s)
{
	if (s->keys >= 0)
		(void)close(s->keys);
	if (s->screen >= 0)
		(void)close(s->screen);
	if (s->slave >= 0)
		(void)close(s->slave);
	free(s);
}

static void keys_and_text_pass(void **state)
{
	struct sitting *s = sit_down();
	char line[64] = "";

	write_all(s->keys, "hello\r");
	see(s, "hello\r\n");
	assert_int_equal(read(s->slave, line, sizeof(line)), 6);
	assert_string_equal(line, "hello\n");
	write_all(s->slave, "good day\n");
	see(s, "good day\r\n");
	stand_up(s);
}

static void the_end_of_what_is_typed_hangs_up(void **state)
{
	struct sitting *s = sit_down();

	turn(event, 20 * NSEC_PER_MSEC);
	write_all(s->keys, "nobody reads this");
	turn(event, 20 * NSEC_PER_MSEC);
	assert_false(is_hung_up(s));
	(void)close(s->keys);
	s->keys = -1;
	turn_until(event, is_hung_up(s));
	/* And to the user it ends. */
	turn_until(event, (look(s), s->ended));
	stand_up(s);
}

static void a_lost_user_hangs_up(void **state)
{
	struct sitting *s = sit_down();

	turn(event, 20 * NSEC_PER_MSEC);
	stream_on_node_lost(nodes[1].room, 1);
	turn_until(event, is_hung_up(s));
	stream_on_node_lost(nodes[0].room, 2);
	turn_until(event, (look(s), s->ended));
	stand_up(s);
}

/* False: the pipe of what is typed broke. */
static bool has_reader(const struct sitting *s)
{
	struct pollfd p = {s->keys, 0, 0};

	return poll(&p, 1, 0) == 0;
}

static void a_terminal_that_nobody_has_open_ends(void **state)
{
	struct sitting *s = sit_down();

	turn(event, 20 * NSEC_PER_MSEC);
	write_all(s->slave, "the last words\n");
	(void)close(s->slave);
	s->slave = -1;
	turn_until(event, (look(s), s->ended));
	see(s, "the last words\r\n");
	turn_until(event, !has_reader(s));
	stand_up(s);
}

static void a_terminal_may_be_opened_again_while_its_leader_lives(void **state)
{
	struct sitting *s = sit_down();
	char name[64];

	assert_int_equal(stream_terminal_leads(nodes[1].room, s->shown, 4000000), 0);
	assert_int_equal(ttyname_r(s->slave, name, sizeof(name)), 0);
	write_all(s->slave, "before\n");
	(void)close(s->slave);
	see(s, "before\r\n");
	turn(event, 100 * NSEC_PER_MSEC);
	write_all(s->keys, "typed\r");
	turn(event, 400 * NSEC_PER_MSEC);
	s->slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(s->slave >= 0);
	write_all(s->slave, "after\n");
	see(s, "after\r\n");
	assert_false(s->ended);
	stream_on_exit(nodes[1].room, 4000000);
	turn_until(event, (look(s), s->ended));
	stand_up(s);
}

/* A leader that leaves a process behind, which has the terminal open still. */
static pid_t run_leader(const struct sitting *s)
{
	pid_t pid = fork();
	char line[64];

	if (pid)
		return pid;
	(void)setsid();
	(void)ioctl(s->slave, TIOCSCTTY, 0);
	if (fork() == 0) {
		(void)signal(SIGHUP, SIG_IGN);
		(void)close(s->keys);
		(void)close(s->screen);
		(void)sleep(1);
		_exit(0);
	}
	for (int i = 0; i < 10000; i++) {
		int n = snprintf(line, sizeof(line), "line %d\n", i);

		(void)!write(s->slave, line, (size_t)n);
	}
	_exit(0);
}

static void the_rest_comes_when_the_leader_has_ended(void **state)
{
	struct sitting *s = sit_down();
	pid_t leader;
	int status;

	/* The slave here is hung up with the session: see through another number. */
	leader = run_leader(s);
	assert_int_equal(stream_terminal_leads(nodes[1].room, s->shown, leader), 0);
	turn_until(event, (look(s), waitpid(leader, &status, WNOHANG) == leader));
	stream_on_exit(nodes[1].room, leader + 1);
	turn(event, 20 * NSEC_PER_MSEC);
	look(s);
	assert_false(s->ended);
	stream_on_exit(nodes[1].room, leader);
	turn_until(event, (look(s), s->ended));
	assert_true(s->len > 9 &&
		    memcmp(s->text + s->len - 11, "line 9999\r\n", 11) == 0);
	turn_until(event, !has_reader(s));
	stand_up(s);
}

static bool resized;

static void on_resized(void *owner, const struct rpc_result *result)
{
	*(enum rpc_status *)owner = result->status;
	resized = true;
}

static enum rpc_status resize(stream_id id, unsigned short rows)
{
	struct winsize size = {.ws_row = rows, .ws_col = 99};
	enum rpc_status status;

	resized = false;
	assert_int_equal(stream_resize(nodes[0].room, id, &size, on_resized, &status),
			 0);
	turn_until(event, resized);
	return status;
}

static void the_window_is_resized(void **state)
{
	struct sitting *s = sit_down();
	struct winsize size;

	assert_int_equal(resize(s->typed, 33), RPC_OK);
	assert_int_equal(ioctl(s->slave, TIOCGWINSZ, &size), 0);
	assert_int_equal(size.ws_row, 33);
	assert_int_equal(size.ws_col, 99);
	assert_int_equal(stream_resize(nodes[0].room, 1, &size, on_resized, NULL),
			 STREAM_E_ABSENT);
	stand_up(s);
}

static void a_successor_goes_on(void **state)
{
	struct sitting *s = sit_down();
	pid_t leader = 4000000;

	write_all(s->keys, "one\r");
	see(s, "one\r\n");
	assert_int_equal(stream_terminal_leads(nodes[1].room, s->shown, leader), 0);
	for (node_id i = 0; i < 2; i++) {
		node_stop(&nodes[i]);
		write_all(s->keys, "two\r");
		write_all(s->slave, "between\n");
		node_start(&nodes[i], i + 1, event);
	}
	see(s, "two\r\ntwo\r\n");
	assert_int_equal(resize(s->typed, 34), RPC_OK);
	/* It knows the leader. */
	stream_on_exit(nodes[1].room, leader);
	turn_until(event, (look(s), s->ended));
	turn_until(event, is_hung_up(s));
	stand_up(s);
}

static void an_end_alone_is_given_up(void **state)
{
	struct sitting s = {.screen = -1};
	int master, keys[2];

	assert_int_equal(openpty(&master, &s.slave, NULL, NULL, NULL), 0);
	assert_int_equal(pipe2(keys, O_CLOEXEC), 0);
	s.keys = keys[1];
	s.typed = stream_new_id(nodes[0].room);
	assert_int_equal(stream_open(nodes[0].room, s.typed, STREAM_READER, 2, keys[0],
				     0, NULL, 0),
			 0);
	assert_int_equal(stream_open(nodes[1].room, s.typed, STREAM_WRITER, 1, master,
				     0, NULL, 0),
			 0);
	turn(event, 20 * NSEC_PER_MSEC);
	assert_true(has_reader(&s));
	/* As if killed between the two. */
	node_stop(&nodes[1]);
	node_start(&nodes[1], 2, event);
	turn_until(event, is_hung_up(&s));
	turn_until(event, !has_reader(&s));
	(void)close(s.keys);
	(void)close(s.slave);
}

static int tests(void)
{
	const struct CMUnitTest all[] = {
		cmocka_unit_test_setup_teardown(keys_and_text_pass, up, down),
		cmocka_unit_test_setup_teardown(the_end_of_what_is_typed_hangs_up, up,
						down),
		cmocka_unit_test_setup_teardown(a_lost_user_hangs_up, up, down),
		cmocka_unit_test_setup_teardown(a_terminal_that_nobody_has_open_ends,
						up, down),
		cmocka_unit_test_setup_teardown(
			a_terminal_may_be_opened_again_while_its_leader_lives, up,
			down),
		cmocka_unit_test_setup_teardown(
			the_rest_comes_when_the_leader_has_ended, up, down),
		cmocka_unit_test_setup_teardown(the_window_is_resized, up, down),
		cmocka_unit_test_setup_teardown(a_successor_goes_on, up, down),
		cmocka_unit_test_setup_teardown(an_end_alone_is_given_up, up, down),
	};

	return cmocka_run_group_tests_name("stream terminal", all, NULL, NULL);
}

int main(int argc, char **argv)
{
	return stream_fixture_main(argc, argv, tests);
}
