#pragma once
/* A machine's /proc is known by this number and its slot; nobody opens it. */
#include "sim_kernel.h"

enum { SIM_PROC_FD = 1000000 };

/* process 0: it does not stand yet. */
struct pages_placer {
	struct sim_machine *machine;
	pid_t process;
};

struct sim_machine *sim_machine_of(const struct space *s);
