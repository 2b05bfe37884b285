#pragma once
/* A machine's /proc is known by this number and its slot; nobody opens it. */
#include "sim_kernel.h"

enum { SIM_PROC_FD = 1000000 };

struct sim_machine *sim_machine_of(const struct space *s);
