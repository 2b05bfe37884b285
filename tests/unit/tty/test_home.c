#include "tty_fixture.h"

#include <errno.h>
#include <signal.h>

static void pauses(int slave, int reports)
{
	(void)pause();
}

static void answer(struct line *l, uint8_t want)
{
	put(l, TTY_WANT, &want, 1);
}

static void expect_data(const struct record *r, enum tty_record record,
			const char *text)
{
	assert_int_equal(r->head.record, record);
	assert_int_equal(r->head.len, strlen(text));
	assert_memory_equal(r->data, text, strlen(text));
}

/* The answer to an ASK for @group is yes: what comes then? */
static struct record asked(struct line *l, pid_t group)
{
	struct record r = await(l, TTY_ASK);

	assert_int_equal(r.pid, group);
	answer(l, 1);
	return next(l);
}

static void set_columns(struct line *l, unsigned short columns)
{
	struct winsize size = {.ws_row = 10, .ws_col = columns};

	assert_int_equal(ioctl(l->master, TIOCSWINSZ, &size), 0);
	assert_int_equal(await(l, TTY_SIZE).size.ws_col, columns);
}

static void what_the_terminal_is_like_is_told_first(void **state)
{
	struct line *l = *state;
	struct termios modes;
	struct record r = next(l);

	assert_int_equal(tcgetattr(l->slave, &modes), 0);
	assert_int_equal(r.head.record, TTY_MODES);
	assert_int_equal(r.head.len, sizeof(r.modes));
	assert_int_equal(r.modes.modes.c_lflag, modes.c_lflag);
	assert_memory_equal(r.modes.modes.c_cc, modes.c_cc, sizeof(modes.c_cc));
	assert_int_equal(r.modes.seen, 0);
	r = next(l);
	assert_int_equal(r.head.record, TTY_SIZE);
	assert_int_equal(r.head.len, sizeof(r.size));
	assert_int_equal(r.size.ws_row, 24);
	assert_int_equal(r.size.ws_col, 80);
	r = next(l);
	assert_int_equal(r.head.record, TTY_FOREGROUND);
	assert_int_equal(r.pid, l->leader);
}

static void changes_are_told(void **state)
{
	struct line *l = *state;
	pid_t group = run(l, pauses);

	assert_int_equal(await(l, TTY_FOREGROUND).pid, l->leader);
	assert_int_equal(write(l->control, &group, sizeof(group)), sizeof(group));
	assert_int_equal(await(l, TTY_FOREGROUND).pid, group);
	set_columns(l, 77);
	set_columns(l, 78);
}

static void a_line_goes_when_it_is_wanted(void **state)
{
	struct line *l = *state;
	struct record r;

	write_text(l->master, "one\ntwo\n");
	r = asked(l, l->leader);
	expect_data(&r, TTY_INPUT, "one\n");
	r = asked(l, l->leader);
	expect_data(&r, TTY_INPUT, "two\n");
}

static void what_is_not_wanted_stays(void **state)
{
	struct line *l = *state;
	struct record r;

	write_text(l->master, "mine\n");
	(void)await(l, TTY_ASK);
	answer(l, 0);
	do {
		r = next(l);
		assert_int_not_equal(r.head.record, TTY_INPUT);
	} while (r.head.record != TTY_ASK);
	expect_text(l->slave, "mine\n");
	/* It waits for an answer still. */
	write_text(l->master, "yours\n");
	answer(l, 1);
	r = next(l);
	expect_data(&r, TTY_INPUT, "yours\n");
}

static void who_is_no_longer_in_the_foreground_gets_nothing(void **state)
{
	struct line *l = *state;
	pid_t group = run(l, pauses);
	struct record r;

	write_text(l->master, "a line\n");
	(void)await(l, TTY_ASK);
	assert_int_equal(write(l->control, &group, sizeof(group)), sizeof(group));
	wait_until(tcgetpgrp(l->master) == group);
	answer(l, 1);
	r = next(l);
	assert_int_equal(r.head.record, TTY_FOREGROUND);
	r = asked(l, group);
	expect_data(&r, TTY_INPUT, "a line\n");
}

static void end_of_file_goes(void **state)
{
	struct line *l = *state;
	struct record r;

	write_text(l->master, "\004");
	r = asked(l, l->leader);
	expect_data(&r, TTY_END, "");
}

static void modes_of_the_mirror_are_set(void **state)
{
	struct line *l = *state;
	struct tty_modes m = {0};
	struct termios modes;
	struct record r;

	assert_int_equal(tcgetattr(l->slave, &m.modes), 0);
	m.modes.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	m.modes.c_lflag |= EXTPROC;
	put(l, TTY_MODES, &m, sizeof(m));
	wait_until(tcgetattr(l->slave, &modes) == 0 && !(modes.c_lflag & ICANON));
	assert_int_equal(modes.c_lflag, m.modes.c_lflag & ~(tcflag_t)EXTPROC);
	write_text(l->master, "q");
	r = asked(l, l->leader);
	expect_data(&r, TTY_INPUT, "q");
	/* Those are not told, the next are, and that the mirror's were known. */
	modes.c_lflag |= ECHO;
	assert_int_equal(tcsetattr(l->slave, TCSANOW, &modes), 0);
	r = await(l, TTY_MODES);
	assert_int_equal(r.modes.modes.c_lflag, modes.c_lflag);
	assert_int_equal(r.modes.seen, 1);
}

static void output_is_on_the_terminal_before_its_mark(void **state)
{
	struct line *l = *state;
	char got[64] = "";

	put(l, TTY_OUTPUT, "a\nb\r\n", 5);
	put(l, TTY_OUTPUT, "c\n", 2);
	put_pid(l, TTY_MARK, 1234);
	assert_int_equal(await(l, TTY_MARKED).pid, 1234);
	assert_true(read(l->master, got, sizeof(got) - 1) > 0);
	assert_string_equal(got, "a\r\nb\r\r\nc\r\n");
}

static void a_stopped_terminal_holds_marks_back(void **state)
{
	struct line *l = *state;
	struct winsize size = {.ws_row = 10};
	pid_t pid = 1234;
	struct {
		struct tty_head output;
		char text[4];
		struct tty_head mark;
		pid_t pid;
	} both = {{TTY_OUTPUT, 4}, "text", {TTY_MARK, sizeof(pid)}, pid};
	char got[64];
	struct record r;

	(void)await(l, TTY_FOREGROUND);
	write_text(l->master, "\023");
	assert_int_equal(write(l->out, &both, sizeof(both)), sizeof(both));
	/* Between the second and the third it has read what was sent before the first.
	 */
	for (unsigned short i = 1; i <= 3; i++) {
		size.ws_col = i;
		assert_int_equal(ioctl(l->master, TIOCSWINSZ, &size), 0);
		r = next(l);
		assert_int_equal(r.head.record, TTY_SIZE);
		assert_int_equal(r.size.ws_col, i);
	}
	assert_true(read(l->master, got, sizeof(got)) < 0 && errno == EAGAIN);
	write_text(l->master, "\021");
	assert_int_equal(await(l, TTY_MARKED).pid, pid);
	expect_text(l->master, "text");
}

static void what_comes_back_can_be_read_and_is_not_shown(void **state)
{
	struct line *l = *state;
	struct termios before, after;

	assert_int_equal(tcgetattr(l->slave, &before), 0);
	put(l, TTY_BACK, "left\n", 5);
	expect_text(l->slave, "left\n");
	put(l, TTY_OUTPUT, "shown", 5);
	expect_text(l->master, "shown");
	assert_int_equal(tcgetattr(l->slave, &after), 0);
	assert_true(before.c_lflag & ECHO);
	assert_int_equal(after.c_lflag, before.c_lflag);
}

static void it_ends_with_the_terminal(void **state)
{
	struct line *l = *state;

	(void)await(l, TTY_FOREGROUND);
	close_end(&l->master);
	expect_over(l);
}

static void it_ends_with_the_leader(void **state)
{
	struct line *l = *state;

	(void)await(l, TTY_FOREGROUND);
	assert_int_equal(kill(l->leader, SIGKILL), 0);
	expect_over(l);
}

static void it_ends_with_the_other_end(void **state)
{
	struct line *l = *state;

	(void)await(l, TTY_FOREGROUND);
	close_end(&l->out);
	expect_over(l);
}

static void it_ends_when_nobody_hears_it(void **state)
{
	struct line *l = *state;

	(void)await(l, TTY_FOREGROUND);
	close_end(&l->in);
	write_text(l->master, "a line\n");
	expect_over(l);
}

static void it_ends_when_ssid_says_so(void **state)
{
	struct line *l = *state;

	(void)await(l, TTY_FOREGROUND);
	close_end(&l->ssid);
	expect_over(l);
}

static void garbage_ends_it(void **state)
{
	expect_garbage_ends(state, home_up,
			    (const struct tty_head[]){
				    {TTY_MARK, 3},
				    {TTY_MARK, 5},
				    {TTY_MODES, sizeof(struct tty_modes) - 1},
				    {TTY_MODES, 0},
				    {TTY_INPUT, 1},
				    {TTY_MARKED, sizeof(pid_t)},
				    {0},
			    });
}

static int tests(void)
{
#define TEST(name_) cmocka_unit_test_setup_teardown(name_, home_up, line_down)
	const struct CMUnitTest all[] = {
		TEST(what_the_terminal_is_like_is_told_first),
		TEST(changes_are_told),
		TEST(a_line_goes_when_it_is_wanted),
		TEST(what_is_not_wanted_stays),
		TEST(who_is_no_longer_in_the_foreground_gets_nothing),
		TEST(end_of_file_goes),
		TEST(modes_of_the_mirror_are_set),
		TEST(output_is_on_the_terminal_before_its_mark),
		TEST(a_stopped_terminal_holds_marks_back),
		TEST(what_comes_back_can_be_read_and_is_not_shown),
		TEST(it_ends_with_the_terminal),
		TEST(it_ends_with_the_leader),
		TEST(it_ends_with_the_other_end),
		TEST(it_ends_when_nobody_hears_it),
		TEST(it_ends_when_ssid_says_so),
		TEST(garbage_ends_it),
	};

	return cmocka_run_group_tests_name("tty home", all, NULL, NULL);
}

int main(int argc, char **argv)
{
	return fixture_main(argc, argv, tests);
}
