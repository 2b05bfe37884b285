#include "tty_fixture.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { LINES = 20000 };

/* -- Programs -- */

static void pauses(int slave, int reports)
{
	(void)pause();
}

static void reads(int slave, int reports)
{
	char buf[sizeof(((struct report *)0)->data)];
	ssize_t n;

	/* Who reads in the background is stopped. */
	while (tcgetpgrp(slave) != getpgrp())
		(void)usleep(1000);
	do {
		n = read(slave, buf, sizeof(buf));
		report(reports, buf, n);
	} while (n > 0);
	(void)pause();
}

static void polls(int slave, int reports)
{
	struct pollfd p = {slave, POLLIN, 0};

	(void)poll(&p, 1, -1);
	reads(slave, reports);
}

/* It does not take what is there. */
static void polls_only(int slave, int reports)
{
	struct pollfd p = {slave, 0, 0};

	(void)poll(&p, 1, -1);
}

static int thread_fds[2];

static void *run_thread(void *owner)
{
	reads(thread_fds[0], thread_fds[1]);
	return NULL;
}

static void reads_in_a_thread(int slave, int reports)
{
	pthread_t thread;

	thread_fds[0] = slave;
	thread_fds[1] = reports;
	(void)pthread_create(&thread, NULL, run_thread, NULL);
	(void)pause();
}

static void sets_raw_modes(int slave, int reports)
{
	struct termios modes;

	(void)tcgetattr(slave, &modes);
	cfmakeraw(&modes);
	modes.c_lflag &= ~(tcflag_t)EXTPROC;
	(void)tcsetattr(slave, TCSANOW, &modes);
	(void)pause();
}

static void awaits_its_window(int slave, int reports)
{
	struct winsize size;
	sigset_t set;
	int signal;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGWINCH);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	report(reports, "", 0);
	(void)sigwait(&set, &signal);
	(void)ioctl(slave, TIOCGWINSZ, &size);
	report(reports, &size, sizeof(size));
}

static void writes_lines(int slave, int reports)
{
	char line[32];

	for (int i = 0; i < LINES; i++) {
		int n = snprintf(line, sizeof(line), "line %d\n", i);

		(void)!write(slave, line, (size_t)n);
	}
	(void)pause();
}

/* -- What home says -- */

static void set_foreground(struct line *l, pid_t group)
{
	put_pid(l, TTY_FOREGROUND, group);
	wait_until(tcgetpgrp(l->master) == group);
}

static bool wants(struct line *l, pid_t group)
{
	struct record r;

	put_pid(l, TTY_ASK, group);
	r = next(l);
	assert_int_equal(r.head.record, TTY_WANT);
	assert_int_equal(r.head.len, 1);
	return r.data[0];
}

static int unread(const struct line *l)
{
	int n = 0;

	assert_int_equal(ioctl(l->slave, FIONREAD, &n), 0);
	return n;
}

/* Output of just @text. */
static void expect_output(struct line *l, const char *text, size_t len)
{
	while (len) {
		struct record r = next(l);

		assert_int_equal(r.head.record, TTY_OUTPUT);
		assert_in_range(r.head.len, 1, len);
		assert_memory_equal(r.data, text, r.head.len);
		text += r.head.len;
		len -= r.head.len;
	}
}

static pid_t run_raw(struct line *l)
{
	pid_t group = run(l, pauses);

	set_foreground(l, group);
	/* From the background, since it has SIGTTOU blocked, as its leader. */
	(void)run(l, sets_raw_modes);
	return group;
}

/* -- Input -- */

static void nobody_in_the_foreground_reads(void **state)
{
	struct line *l = *state;
	pid_t group = run(l, pauses), other = run(l, polls_only);

	set_foreground(l, other);
	wait_until(wants(l, other));
	set_foreground(l, group);
	assert_false(wants(l, group));
	assert_false(wants(l, other));
}

static void expect_reads(struct line *l, program p)
{
	pid_t group = run(l, p);
	struct report r;

	set_foreground(l, group);
	wait_until(wants(l, group));
	put(l, TTY_INPUT, "typed\n", 6);
	r = read_report(l);
	assert_int_equal(r.n, 6);
	assert_memory_equal(r.data, "typed\n", 6);
	/* What it reads is not shown: next is this. */
	write_text(l->slave, "shown");
	expect_output(l, "shown", 5);
}

static void who_reads_gets_input(void **state)
{
	expect_reads(*state, reads);
}

static void who_polls_gets_input(void **state)
{
	expect_reads(*state, polls);
}

static void a_thread_gets_input(void **state)
{
	expect_reads(*state, reads_in_a_thread);
}

static char state_of(pid_t pid)
{
	char path[32], state = 0;
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "re");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%*d %*s %c", &state), 1);
	(void)fclose(f);
	return state;
}

static void who_was_stopped_gets_input(void **state)
{
	struct line *l = *state;
	pid_t group = run(l, polls_only);

	set_foreground(l, group);
	wait_until(wants(l, group));
	assert_int_equal(kill(group, SIGSTOP), 0);
	wait_until(state_of(group) == 'T');
	assert_int_equal(kill(group, SIGCONT), 0);
	wait_until(state_of(group) == 'S');
	assert_true(wants(l, group));
}

static void one_piece_after_the_other_is_wanted(void **state)
{
	struct line *l = *state;
	pid_t group = run(l, polls_only);

	set_foreground(l, group);
	wait_until(wants(l, group));
	put(l, TTY_INPUT, "typed\n", 6);
	assert_false(wants(l, group));
	expect_text(l->slave, "typed\n");
	wait_until(wants(l, group));
}

static void an_end_alone_is_end_of_file(void **state)
{
	struct line *l = *state;
	pid_t group = run(l, reads);

	set_foreground(l, group);
	wait_until(wants(l, group));
	put(l, TTY_END, "", 0);
	assert_int_equal(read_report(l).n, 0);
	assert_int_equal(unread(l), 0);
}

static void what_the_foreground_did_not_read_goes_back(void **state)
{
	struct line *l = *state;
	pid_t group = run(l, pauses);
	struct record r;

	set_foreground(l, group);
	put(l, TTY_INPUT, "unread\n", 7);
	put_pid(l, TTY_FOREGROUND, run(l, pauses));
	r = next(l);
	assert_int_equal(r.head.record, TTY_BACK);
	assert_int_equal(r.head.len, 7);
	assert_memory_equal(r.data, "unread\n", 7);
	assert_int_equal(unread(l), 0);
}

/* -- Output -- */

static void returns_of_the_discipline_are_taken_away(void **state)
{
	static const char text[] = "a\nb\r\n\rc";
	struct line *l = *state;

	write_text(l->slave, text);
	expect_output(l, text, sizeof(text) - 1);
}

static void returns_are_taken_away_between_two_reads(void **state)
{
	struct line *l = *state;
	char *text = calloc(LINES, 32);
	size_t len = 0;

	assert_non_null(text);
	for (int i = 0; i < LINES; i++)
		len += (size_t)snprintf(text + len, 32, "line %d\n", i);
	(void)run(l, writes_lines);
	expect_output(l, text, len);
	free(text);
}

static void a_return_alone_is_not_kept(void **state)
{
	struct line *l = *state;

	write_text(l->slave, "50%\r");
	expect_output(l, "50%\r", 4);
}

static void what_was_written_goes_before_a_mark(void **state)
{
	static const char text[] = "the last words\r";
	struct line *l = *state;
	pid_t pid = 1234;
	struct record r;

	set_foreground(l, run(l, pauses));
	put(l, TTY_INPUT, "unread\n", 7);
	wait_until(unread(l) == 7);
	write_text(l->slave, text);
	assert_int_equal(write(l->ssid, &pid, sizeof(pid)), sizeof(pid));
	expect_output(l, text, sizeof(text) - 1);
	r = next(l);
	assert_int_equal(r.head.record, TTY_BACK);
	assert_int_equal(r.head.len, 7);
	r = next(l);
	assert_int_equal(r.head.record, TTY_MARK);
	assert_int_equal(r.pid, pid);
	assert_int_equal(recv(l->ssid, &pid, sizeof(pid), MSG_DONTWAIT), -1);
	put_pid(l, TTY_MARKED, pid);
	pid = 0;
	assert_int_equal(read(l->ssid, &pid, sizeof(pid)), sizeof(pid));
	assert_int_equal(pid, 1234);
}

/* -- Modes and size -- */

static void modes_of_a_program_are_told(void **state)
{
	struct line *l = *state;
	pid_t group;
	struct termios modes;
	struct record r;

	group = run_raw(l);
	r = next(l);
	assert_int_equal(r.head.record, TTY_MODES);
	assert_int_equal(r.head.len, sizeof(r.modes));
	assert_int_equal(r.modes.modes.c_lflag & (ICANON | ECHO | EXTPROC), EXTPROC);
	assert_int_equal(tcgetattr(l->slave, &modes), 0);
	assert_int_equal(modes.c_lflag & (ICANON | ECHO | EXTPROC), EXTPROC);
	/* Bytes are left alone, and who has the terminal open may look for keys. */
	write_text(l->slave, "a\nb\r\n\rc");
	expect_output(l, "a\nb\r\n\rc", 7);
	assert_true(wants(l, group));
}

static void modes_of_home_are_set_if_it_knows_the_programs(void **state)
{
	struct line *l = *state;
	struct tty_modes m = {.seen = 0};
	struct termios modes;
	struct record r;

	assert_int_equal(tcgetattr(l->slave, &m.modes), 0);
	m.modes.c_lflag &= ~(tcflag_t)(ECHO | EXTPROC);
	put(l, TTY_MODES, &m, sizeof(m));
	wait_until(tcgetattr(l->slave, &modes) == 0 && !(modes.c_lflag & ECHO));
	assert_true(modes.c_lflag & EXTPROC);

	(void)run_raw(l);
	r = next(l);
	assert_int_equal(r.head.record, TTY_MODES);
	put(l, TTY_MODES, &m, sizeof(m));
	(void)wants(l, 0); /* it has come */
	assert_int_equal(tcgetattr(l->slave, &modes), 0);
	assert_false(modes.c_lflag & ICANON);
	m.seen = 1;
	put(l, TTY_MODES, &m, sizeof(m));
	(void)wants(l, 0);
	assert_int_equal(tcgetattr(l->slave, &modes), 0);
	assert_true(modes.c_lflag & ICANON);
	assert_true(modes.c_lflag & EXTPROC);
}

static void the_window_is_resized(void **state)
{
	const struct winsize size = {.ws_row = 11, .ws_col = 222};
	struct line *l = *state;
	struct report r;

	set_foreground(l, run(l, awaits_its_window));
	(void)read_report(l);
	put(l, TTY_SIZE, &size, sizeof(size));
	r = read_report(l);
	assert_int_equal(r.n, sizeof(size));
	assert_memory_equal(r.data, &size, sizeof(size));
}

/* -- Its end -- */

static void it_ends_with_the_other_end(void **state)
{
	struct line *l = *state;

	close_end(&l->out);
	expect_over(l);
}

static void it_ends_when_nobody_hears_it(void **state)
{
	struct line *l = *state;

	close_end(&l->in);
	write_text(l->slave, "text");
	expect_over(l);
}

static void it_ends_with_the_leader_behind_its_words(void **state)
{
	struct line *l = *state;

	write_text(l->slave, "the last words\n");
	assert_int_equal(kill(l->leader, SIGKILL), 0);
	expect_over(l);
	expect_output(l, "the last words\n", 15);
}

static void it_ends_with_the_shadow(void **state)
{
	struct line *l = *state;

	close_control(l);
	expect_over(l);
}

static void it_ends_when_ssid_says_so(void **state)
{
	struct line *l = *state;

	close_end(&l->ssid);
	expect_over(l);
}

static void garbage_ends_it(void **state)
{
	expect_garbage_ends(state, mirror_up,
			    (const struct tty_head[]){
				    {TTY_SIZE, sizeof(struct winsize) - 1},
				    {TTY_SIZE, sizeof(struct winsize) + 1},
				    {TTY_MODES, sizeof(struct tty_modes) - 1},
				    {TTY_FOREGROUND, 3},
				    {TTY_ASK, 5},
				    {TTY_MARKED, 0},
				    {TTY_OUTPUT, 1},
				    {TTY_WANT, 1},
				    {0},
			    });
}

static int tests(void)
{
#define TEST(name_) cmocka_unit_test_setup_teardown(name_, mirror_up, line_down)
	const struct CMUnitTest all[] = {
		TEST(nobody_in_the_foreground_reads),
		TEST(who_reads_gets_input),
		TEST(who_polls_gets_input),
		TEST(a_thread_gets_input),
		TEST(who_was_stopped_gets_input),
		TEST(one_piece_after_the_other_is_wanted),
		TEST(an_end_alone_is_end_of_file),
		TEST(what_the_foreground_did_not_read_goes_back),
		TEST(returns_of_the_discipline_are_taken_away),
		TEST(returns_are_taken_away_between_two_reads),
		TEST(a_return_alone_is_not_kept),
		TEST(what_was_written_goes_before_a_mark),
		TEST(modes_of_a_program_are_told),
		TEST(modes_of_home_are_set_if_it_knows_the_programs),
		TEST(the_window_is_resized),
		TEST(it_ends_with_the_other_end),
		TEST(it_ends_when_nobody_hears_it),
		TEST(it_ends_with_the_leader_behind_its_words),
		TEST(it_ends_with_the_shadow),
		TEST(it_ends_when_ssid_says_so),
		TEST(garbage_ends_it),
	};

	return cmocka_run_group_tests_name("tty mirror", all, NULL, NULL);
}

int main(int argc, char **argv)
{
	return fixture_main(argc, argv, tests);
}
