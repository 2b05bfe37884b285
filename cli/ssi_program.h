#pragma once
/*
 * Other programs, for their word: run with a deadline, at their end everything of
 * them is gone.
 */
#include <stddef.h>
#include <stdint.h>

enum {
	PROGRAM_ABSENT = -1,  /* could not be started, see errno */
	PROGRAM_TIMEOUT = -2, /* killed */
	PROGRAM_CRASHED = -3, /* a signal ended it */
};

/* Its exit status or PROGRAM_*; in @ret_line the last line that it wrote to either stream. */
int program_ask(const char *const *argv, uint64_t timeout_ms, char *ret_line, size_t size);
/* The same of a function of ours, in a child: what it returns, or exits with. */
int program_ask_function(int (*function)(void *argument), void *argument, uint64_t timeout_ms,
			 char *ret_line, size_t size);
