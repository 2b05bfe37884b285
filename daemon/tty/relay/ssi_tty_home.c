/*
 * The end at the terminal.  It stands beside the session, not in it: so it reads and writes at
 * any time, and looks at /proc for what only a member may ask.
 *
 * What is typed stays in the terminal, where whoever is at home reads it, until a process of the
 * foreground group waits for it on the other node.  So each piece of input is asked for; what is
 * not read there comes back when another group is in the foreground, behind what has been typed
 * since.
 */
#include "ssi_tty.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
	LOOK_MS = 50,	    /* modes, size and foreground group tell nobody that they change */
	LOOK_IDLE_MS = 100, /* while the session's leader has the terminal: at a prompt */
	ASK_MS = 100,	    /* after a no */
	OUTPUT_MAX = 65536,
};

struct home {
	struct tty_channel *channel;
	pid_t session, foreground, asked_for;
	int tty;
	struct termios modes;
	struct winsize size;
	uint32_t seen;
	int64_t look_at, ask_at;
	uint8_t output[OUTPUT_MAX];
	size_t n_output;
	bool marks; /* `mark` is to be answered when all output is out */
	pid_t mark;
};

/* Of the session's leader: field 8, behind the name.  One that has ended, and that nobody has
 * waited for, has a terminal no more: -1. */
static pid_t read_foreground(pid_t session)
{
	char path[32], text[1024];
	const char *p;
	ssize_t n;
	int fd, foreground = -1;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", session);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		over();
	n = read(fd, text, sizeof(text) - 1);
	(void)close(fd);
	text[n > 0 ? n : 0] = 0;
	p = strrchr(text, ')');
	if (!p || sscanf(p, ") %*c %*d %*d %*d %*d %d", &foreground) != 1 ||
	    foreground < 0)
		over();
	return foreground;
}

static void look(struct home *h)
{
	pid_t foreground = read_foreground(h->session);
	struct tty_modes m = {.seen = h->seen};
	struct winsize size;

	if (tcgetattr(h->tty, &m.modes) < 0 || ioctl(h->tty, TIOCGWINSZ, &size) < 0)
		over();
	if (!modes_equal(&m.modes, &h->modes)) {
		h->modes = m.modes;
		channel_send(h->channel, TTY_MODES, &m, sizeof(m));
	}
	if (memcmp(&size, &h->size, sizeof(size)) != 0) {
		h->size = size;
		channel_send(h->channel, TTY_SIZE, &size, sizeof(size));
	}
	if (foreground != h->foreground) {
		h->foreground = foreground;
		h->ask_at = 0;
		channel_send(h->channel, TTY_FOREGROUND, &foreground, sizeof(foreground));
	}
	h->look_at = now_ms() + (foreground == h->session ? LOOK_IDLE_MS : LOOK_MS);
}

static void flush_output(struct home *h)
{
	ssize_t n = write(h->tty, h->output, h->n_output);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0)
		over();
	h->n_output -= (size_t)n;
	memmove(h->output, h->output + n, h->n_output);
}

static void pass_input(struct home *h)
{
	char buf[TTY_DATA_MAX];
	ssize_t n;

	look(h);
	if (h->foreground != h->asked_for)
		return;
	n = read(h->tty, buf, sizeof(buf));
	if (n > 0)
		channel_send(h->channel, TTY_INPUT, buf, (size_t)n);
	else if (n == 0 && h->modes.c_lflag & ICANON)
		channel_send(h->channel, TTY_END, "", 0);
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		over();
}

/* As if typed, but not shown a second time. */
static void take_back(struct home *h, const char *data, size_t len)
{
	struct termios quiet = h->modes;

	quiet.c_lflag &= ~(tcflag_t)(ECHO | ECHONL);
	(void)tcsetattr(h->tty, TCSANOW, &quiet);
	for (size_t i = 0; i < len; i++)
		(void)ioctl(h->tty, TIOCSTI, &data[i]);
	(void)tcsetattr(h->tty, TCSANOW, &h->modes);
}

static void set_modes(struct home *h, const struct tty_modes *m)
{
	struct termios modes = m->modes;

	modes.c_lflag &= ~(tcflag_t)EXTPROC;
	h->seen++;
	if (tcsetattr(h->tty, TCSANOW, &modes) < 0 || tcgetattr(h->tty, &h->modes) < 0)
		over();
}

static bool on_record(void *owner, enum tty_record record, const void *data, size_t len)
{
	struct home *h = owner;
	struct tty_modes modes;

	switch (record) {
	case TTY_OUTPUT:
		memcpy(h->output + h->n_output, data, len);
		h->n_output += len;
		flush_output(h);
		return h->n_output > OUTPUT_MAX - TTY_DATA_MAX;
	case TTY_MARK:
		if (len != sizeof(h->mark))
			over();
		memcpy(&h->mark, data, sizeof(h->mark));
		h->marks = true;
		return true;
	case TTY_WANT:
		h->asked_for = len == 1 && *(const uint8_t *)data ? h->asked_for : 0;
		if (h->asked_for)
			pass_input(h);
		else
			h->ask_at = now_ms() + ASK_MS;
		h->asked_for = 0;
		return false;
	case TTY_BACK:
		take_back(h, data, len);
		return false;
	case TTY_MODES:
		if (len != sizeof(modes))
			over();
		memcpy(&modes, data, sizeof(modes));
		set_modes(h, &modes);
		return false;
	default:
		over();
	}
}

static bool is_full(const struct home *h)
{
	return h->marks || h->n_output > OUTPUT_MAX - TTY_DATA_MAX;
}

/* What held the channel up may be done. */
static void go_on(struct home *h)
{
	while (h->marks && !h->n_output) {
		h->marks = false;
		channel_send(h->channel, TTY_MARKED, &h->mark, sizeof(h->mark));
		channel_go_on(h->channel, on_record, h);
	}
}

static void ask(struct home *h)
{
	look(h);
	h->asked_for = h->foreground;
	channel_send(h->channel, TTY_ASK, &h->foreground, sizeof(h->foreground));
}

static void turn(struct home *h)
{
	int64_t now = now_ms(), wait;
	bool may_ask = !h->asked_for && now >= h->ask_at;
	struct pollfd p[] = {
		{.fd = h->channel->in, .events = is_full(h) ? 0 : POLLIN},
		{.fd = h->tty, .events = (short)((h->n_output ? POLLOUT : 0) | (may_ask ? POLLIN : 0))},
		{.fd = TTY_SSID},
	};

	if (now >= h->look_at)
		look(h);
	wait = h->look_at - now_ms();
	if (poll(p, 3, wait > 0 ? (int)wait : 0) < 0)
		return;
	if ((p[1].revents | p[2].revents) & (POLLHUP | POLLERR | POLLNVAL))
		over();
	if (p[1].revents & POLLOUT)
		flush_output(h);
	go_on(h);
	if (p[1].revents & POLLIN && may_ask)
		ask(h);
	if (p[0].revents && !is_full(h))
		channel_receive(h->channel, on_record, h);
	go_on(h);
}

_Noreturn void run_home(struct tty_channel *c, pid_t session, const char *terminal)
{
	static struct home h;

	(void)signal(SIGPIPE, SIG_IGN);
	h.channel = c;
	h.session = session;
	h.tty = open(terminal, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (h.tty < 0)
		over();
	for (;;)
		turn(&h);
}
