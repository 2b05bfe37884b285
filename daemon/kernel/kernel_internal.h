#pragma once
/* The probes: a table, each fills in everything but the name. */
#include "kernel.h"

struct kernel_probe {
	const char *name;
	void (*probe)(struct kernel_row *row);
};

/* kernel_calls.c: system calls and devices.  kernel_machine.c: limits, rights, sizes. */
extern const struct kernel_probe kernel_call_probes[];
extern const size_t n_kernel_call_probes;
extern const struct kernel_probe kernel_machine_probes[];
extern const size_t n_kernel_machine_probes;

void kernel_say(struct kernel_row *row, enum kernel_state state, const char *remedy,
		const char *format, ...) __attribute__((format(printf, 4, 5)));
/* The first line of a small file, or "". */
void kernel_read_line(const char *path, char *ret, size_t size);
/* Release of the running kernel as major << 16 | minor. */
unsigned kernel_release(void);
