#pragma once
/*
 * What this machine has and lacks, row by row: the kernel's (daemon/kernel), CRIU's,
 * what is installed, the ssid that runs.  Local; nothing is changed.
 */
#include "session.h"

/* Print it.  EXIT_OK, or EXIT_UNSUPPORTED when something is missing that ssid needs. */
int doctor(const struct session_options *o, const char *config_path);
