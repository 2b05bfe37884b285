#pragma once
/* Is this datagram a command?  Shared with the fuzzer; no libc. */
#include "shadow_protocol.h"

#include <stdbool.h>
#include <stddef.h>

static inline bool shadow_command_ok(const struct shadow_command *c, size_t len)
{
	if (len < SHADOW_COMMAND_HEAD || len > sizeof(*c) ||
	    c->n_data != len - SHADOW_COMMAND_HEAD)
		return false;
	switch (c->verb) {
	case SHADOW_NAME:
	case SHADOW_EXEC:
		return c->n_data > 0 && c->data[c->n_data - 1] == 0;
	case SHADOW_KILL:
	case SHADOW_STOP:
		return c->value > 0 && c->value < 65;
	case SHADOW_FORK:
	case SHADOW_REAP:
		return c->value > 0;
	case SHADOW_ACK:
	case SHADOW_RESUME:
	case SHADOW_BECOME:
	case SHADOW_EXIT:
	case SHADOW_SENTINEL:
	case SHADOW_TERMINAL:
		return true;
	}
	return false;
}

/* Point @argv into the arguments of an EXEC; how many there are, 0: too many. */
static inline int shadow_command_args(struct shadow_command *c,
				      char *argv[SHADOW_ARGS_MAX + 1])
{
	int n = 0;

	for (uint32_t i = 0; i < c->n_data; i++) {
		if (i > 0 && c->data[i - 1])
			continue;
		if (n == SHADOW_ARGS_MAX)
			return 0;
		argv[n++] = &c->data[i];
	}
	argv[n] = NULL;
	return n;
}
