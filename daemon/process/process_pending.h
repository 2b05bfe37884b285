#pragma once
/* How many of each signal were pending at the dump. */
#include "process.h"

struct process_pending {
	size_t n;
	struct {
		pid_t pid;
		uint16_t count[65];
	} of[];
};
