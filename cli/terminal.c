#include "terminal.h"

#include "cleanup.h"

#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { ESCAPE_KEY = 0x1d, ESCAPE_TIMES = 3, ESCAPE_MS = 1000, AGAIN_MS = 300 };

static struct {
	struct termios before;
	bool raw;
	bool changed; /* ssid has not heard of the window that we have */
	uint64_t again_ms;
	struct session *asking;
} terminal;

static void describe_window(Ssi__Control__Window *ret)
{
	struct winsize size = {0};

	for (int fd = 0; fd < 3; fd++)
		if (ioctl(fd, TIOCGWINSZ, &size) == 0)
			break;
	ret->rows = size.ws_row;
	ret->columns = size.ws_col;
	ret->x_pixels = size.ws_xpixel;
	ret->y_pixels = size.ws_ypixel;
}

void terminal_describe(Ssi__Control__Terminal *ret)
{
	static Ssi__Control__Window size = SSI__CONTROL__WINDOW__INIT;
	static Ssi__Control__Modes modes = SSI__CONTROL__MODES__INIT;
	static struct termios now;

	describe_window(&size);
	ret->window = &size;
	if (tcgetattr(0, &now) < 0)
		return;
	modes.input = now.c_iflag;
	modes.output = now.c_oflag;
	modes.control = now.c_cflag;
	modes.local = now.c_lflag;
	modes.characters = (ProtobufCBinaryData){sizeof(now.c_cc), now.c_cc};
	ret->modes = &modes;
}

/* Raw, given back. */

void terminal_restore(void)
{
	if (terminal.raw)
		(void)tcsetattr(0, TCSADRAIN, &terminal.before);
	terminal.raw = false;
}

void terminal_make_raw(void)
{
	static bool at_exit;
	struct termios raw;

	if (terminal.raw || tcgetattr(0, &terminal.before) < 0)
		return;
	raw = terminal.before;
	cfmakeraw(&raw);
	terminal.raw = tcsetattr(0, TCSADRAIN, &raw) == 0;
	if (!at_exit)
		(void)atexit(terminal_restore);
	at_exit = true;
}

bool terminal_is_escape(struct terminal_escape *e, const char *bytes, size_t n,
			uint64_t now_ms)
{
	for (size_t i = 0; i < n; i++) {
		if (bytes[i] != ESCAPE_KEY || now_ms - e->since_ms > ESCAPE_MS)
			e->n = 0;
		if (bytes[i] != ESCAPE_KEY)
			continue;
		if (e->n++ == 0)
			e->since_ms = now_ms;
		if (e->n == ESCAPE_TIMES)
			return true;
	}
	return false;
}

uint64_t terminal_now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* The window. */

void terminal_window_changed(void)
{
	terminal.changed = true;
	terminal.again_ms = 0;
}

int terminal_window_poll_fd(void)
{
	return terminal.asking ? session_fd(terminal.asking) : -1;
}

int terminal_window_pause_ms(void)
{
	uint64_t now = terminal_now_ms();

	if (!terminal.changed || terminal.asking)
		return -1;
	return terminal.again_ms > now ? (int)(terminal.again_ms - now) : 0;
}

static void try_again(void)
{
	terminal.asking = session_close(terminal.asking);
	terminal.changed = true;
	terminal.again_ms = terminal_now_ms() + AGAIN_MS;
}

static void take_answer(void)
{
	Ssi__Control__Event *event = session_receive(terminal.asking);

	/* It moves, or ssid was away for a moment; what is not there will not be. */
	if (!event || (event->body_case == SSI__CONTROL__EVENT__BODY_FAILURE &&
		       event->failure->status != EXIT_NOT_FOUND))
		try_again();
	if (event)
		ssi__control__event__free_unpacked(event, NULL);
	terminal.asking = session_close(terminal.asking);
}

static void tell(const struct session_options *o, int pipe)
{
	Ssi__Control__ResizeRequest body = SSI__CONTROL__RESIZE_REQUEST__INIT;
	Ssi__Control__Window size = SSI__CONTROL__WINDOW__INIT;
	Ssi__Control__Request q = SSI__CONTROL__REQUEST__INIT;

	describe_window(&size);
	body.window = &size;
	q.body_case = SSI__CONTROL__REQUEST__BODY_RESIZE;
	q.resize = &body;
	terminal.changed = false;
	terminal.asking = session_try(o);
	if (!terminal.asking)
		return try_again();
	session_no_deadline(terminal.asking);
	if (!session_offer(terminal.asking, &q, &pipe, 1))
		try_again();
}

void terminal_window_turn(const struct session_options *o, int pipe, bool ready)
{
	if (terminal.asking && ready)
		take_answer();
	if (pipe >= 0 && terminal_window_pause_ms() == 0)
		tell(o, pipe);
}
