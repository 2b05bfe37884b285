#pragma once
/*
 * The user's terminal, while a program of the cluster has one of its own: raw, so that
 * every key and every byte goes through as it is, and given back as it was, however we
 * end. One a process.
 */
#include "session.h"

#include <stdint.h>

/* What the program's terminal is to be like: as ours; the usual, if 0 is none. */
void terminal_describe(Ssi__Control__Terminal *ret);

/* Raw, if 0 is a terminal; again, and as it was before (also at exit).  Nothing happens
 * when it is so already. */
void terminal_make_raw(void);
void terminal_restore(void);

/*
 * Three times Ctrl-] within a second: the user wants to get out, even when the
 * cluster does not answer.  Told of what is typed, piece by piece.
 */
struct terminal_escape {
	unsigned n;
	uint64_t since_ms;
};
bool terminal_is_escape(struct terminal_escape *e, const char *bytes, size_t n,
			uint64_t now_ms);
uint64_t terminal_now_ms(void);

/*
 * The size of our window, told to ssid until it has heard it.  Never waits: poll_fd
 * (-1: none) is to be watched for POLLIN, and turn called when it is ready, or after
 * pause_ms (-1: for ever).
 */
void terminal_window_changed(void);
int terminal_window_poll_fd(void);
int terminal_window_pause_ms(void);
/* @pipe: of what is typed, ssid's proof that the terminal is ours. */
void terminal_window_turn(const struct session_options *o, int pipe, bool ready);
