/*
 * ssi-tty: one end of the line between a terminal and its mirror on another node.
 *
 * ssid starts it as root inside the space and needs not live for it to go on.  Neither end
 * looks into what it passes on.  It ends when the other end, its terminal or the session's
 * leader does; whoever is left in the session is told by the kernel.
 */
#include "ssi_tty.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

_Noreturn void over(void)
{
	_exit(0);
}

int64_t now_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

bool modes_equal(const struct termios *a, const struct termios *b)
{
	return a->c_iflag == b->c_iflag && a->c_oflag == b->c_oflag && a->c_cflag == b->c_cflag &&
	       a->c_lflag == b->c_lflag && !memcmp(a->c_cc, b->c_cc, sizeof(a->c_cc));
}

static void write_all(int fd, const void *data, size_t len)
{
	const uint8_t *p = data;

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			over();
		p += n;
		len -= (size_t)n;
	}
}

void channel_send(struct tty_channel *c, enum tty_record record, const void *data, size_t len)
{
	struct {
		struct tty_head head;
		uint8_t data[TTY_DATA_MAX];
	} whole = {.head = {(uint16_t)record, (uint16_t)len}};

	memcpy(whole.data, data, len);
	write_all(c->out, &whole, sizeof(whole.head) + len);
}

void channel_go_on(struct tty_channel *c, channel_take take, void *owner)
{
	bool enough = false;

	while (!enough && c->n >= sizeof(struct tty_head)) {
		struct tty_head head;
		size_t whole;

		memcpy(&head, c->buf, sizeof(head));
		whole = sizeof(head) + head.len;
		if (head.len > TTY_DATA_MAX || head.record == 0 || head.record >= _TTY_RECORDS)
			over();
		if (c->n < whole)
			return;
		enough = take(owner, (enum tty_record)head.record, c->buf + sizeof(head), head.len);
		c->n -= whole;
		memmove(c->buf, c->buf + whole, c->n);
	}
}

void channel_receive(struct tty_channel *c, channel_take take, void *owner)
{
	ssize_t n = read(c->in, c->buf + c->n, sizeof(c->buf) - c->n);

	if (n < 0 && errno == EINTR)
		return;
	if (n <= 0)
		over();
	c->n += (size_t)n;
	channel_go_on(c, take, owner);
}

int main(int argc, char **argv)
{
	static struct tty_channel channel = {.in = TTY_IN, .out = TTY_OUT};

	if (argc == 4 && !strcmp(argv[1], "home"))
		run_home(&channel, atoi(argv[2]), argv[3]);
	if (argc == 2 && !strcmp(argv[1], "mirror"))
		run_mirror(&channel);
	return 2;
}
