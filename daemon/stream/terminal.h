#pragma once
/*
 * Making a terminal of the space: a pty in the space's own devpts.
 *
 * The master is for two ends of streams (stream_open()), the slave for the program.  A
 * process with any descriptor from outside the space could not be saved: both are
 * opened beneath the space's root.
 */
#include "space.h"

#include <stdbool.h>
#include <sys/ioctl.h>
#include <termios.h>

struct terminal_setup {
	uid_t owner;
	struct winsize size;
	bool has_modes; /* else the kernel's usual ones */
	struct termios modes;
};

/* The master does not block; neither becomes anybody's controlling terminal here. */
int terminal_make(const struct space *space, const struct terminal_setup *setup,
		  int *ret_master, int *ret_slave);

/* The N of /dev/pts/N; < 0: @fd is not the master of a terminal. */
int terminal_number(int fd);
