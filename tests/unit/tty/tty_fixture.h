#pragma once
/*
 * One real end of a line, at a pty of the machine's that a session has; the test is the
 * line's other end, the one who types at the pty's master (at home), and ssid.
 */
#include "ssi_tty.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cmocka.h>

/* What a program of the session tells the test, with as many bytes. */
struct report {
	ssize_t n;
	char data[256];
};

/* Of the session, in a group of its own; killed when it returns, or its leader ends. */
typedef void (*program)(int slave, int reports);

struct line {
	pid_t leader, end; /* 0: none */
	int master, slave;
	char name[32];
	int orders, control; /* of the leader; as its shadow, it sets the foreground */
	int reports;
	int in, out, ssid; /* the end's; -1: closed */
};

struct record {
	struct tty_head head;
	union {
		char data[TTY_DATA_MAX];
		struct tty_modes modes;
		struct winsize size;
		pid_t pid;
	};
};

/* 77 and a reason if this is not root. */
int fixture_main(int argc, char **argv, int (*tests)(void));

/* Teardown may follow any part of setup. */
int home_up(void **state);
int mirror_up(void **state);
int line_down(void **state);

pid_t run(struct line *l, program p);
void close_control(struct line *l);
void report(int reports, const void *data, ssize_t n);
struct report read_report(struct line *l);

void put(struct line *l, unsigned record, const void *data, size_t len);
void put_pid(struct line *l, unsigned record, pid_t pid);
struct record next(struct line *l);
/* The first such record; others before it do not matter. */
struct record await(struct line *l, enum tty_record record);
void write_text(int fd, const char *text);
/* Just that comes from @fd. */
void expect_text(int fd, const char *text);
void close_end(int *fd);
/* The end ends, and nothing was wrong with it. */
void expect_over(struct line *l);
/* So it does after a record with each of @heads, the last of which is 0; and with none
 * such. */
void expect_garbage_ends(void **state, int (*up)(void **state),
			 const struct tty_head *heads);

/* For what is not told. */
#define wait_until(condition_)                                                         \
	do {                                                                           \
		int left_ = 60000;                                                     \
		while (!(condition_)) {                                                \
			if (left_-- == 0)                                              \
				fail_msg("waited for a minute: %s", #condition_);      \
			(void)usleep(1000);                                            \
		}                                                                      \
	} while (0)
