#pragma once
/*
 * What the two ends of a line say to each other, over two streams of bytes.  The terminal at
 * home and its mirror do nothing that this does not carry.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <termios.h>

enum tty_record {
	/* home to mirror */
	TTY_INPUT = 1,	    /* bytes that the line discipline lets through */
	TTY_END = 2,	    /* end of file was typed */
	TTY_SIZE = 3,	    /* struct winsize */
	TTY_FOREGROUND = 4, /* pid_t */
	TTY_ASK = 5,	    /* there is input for the foreground group: does one of it wait there? */
	TTY_MARKED = 6,	    /* as MARK */
	/* mirror to home */
	TTY_OUTPUT = 7,
	TTY_WANT = 8, /* uint8_t: an answer to ASK */
	TTY_BACK = 9, /* input that nobody read while it was in the foreground */
	TTY_MARK = 10, /* pid_t: MARKED when all before it is on the terminal */
	/* both */
	TTY_MODES = 11, /* struct tty_modes */
	_TTY_RECORDS,
};

/* Both ends may set modes at once.  Then the mirror's, whose program runs, hold: home's that do
 * not know them are dropped there. */
struct tty_modes {
	struct termios modes;
	uint32_t seen; /* how many of the mirror's home knew */
};

enum { TTY_DATA_MAX = 4096 };

struct tty_head {
	uint16_t record, len;
};

/* One end of the line; blocking writes, reads when poll() says so. */
struct tty_channel {
	int in, out;
	uint8_t buf[sizeof(struct tty_head) + TTY_DATA_MAX];
	size_t n;
};

/* The other end, or this, is no more: the process ends, and with it its terminal or mirror. */
_Noreturn void over(void);
void channel_send(struct tty_channel *c, enum tty_record record, const void *data, size_t len);
/* What is there is read, and whole records are told.  @take may say that it takes no more for
 * now: true, then channel_go_on(). */
typedef bool (*channel_take)(void *owner, enum tty_record record, const void *data, size_t len);
void channel_receive(struct tty_channel *c, channel_take take, void *owner);
void channel_go_on(struct tty_channel *c, channel_take take, void *owner);

int64_t now_ms(void);
bool modes_equal(const struct termios *a, const struct termios *b);

/* Numbers of the descriptors that ssid gives. */
enum {
	TTY_IN = 3,
	TTY_OUT = 4,
	TTY_SSID = 5, /* a socket: its end says that ssid wants this to end */
	TTY_MASTER = 6,
	TTY_SLAVE = 7,
	TTY_CONTROL = 8, /* of the leader's shadow: a pid_t is the new foreground group */
};

/* ssi-tty home SESSION /dev/pts/N */
_Noreturn void run_home(struct tty_channel *c, pid_t session, const char *terminal);
/* ssi-tty mirror */
_Noreturn void run_mirror(struct tty_channel *c);
