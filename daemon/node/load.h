#pragma once
/* This machine's load, of /proc: what rides on every renewal of the lease. */
#include "membership.h"

void load_read(struct membership_load *ret);
