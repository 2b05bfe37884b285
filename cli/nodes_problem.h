#pragma once
/*
 * What is wrong with a cluster, as its view tells, and what can be done.  A pure function.
 */
#include "control.pb-c.h"

#include <stddef.h>
#include <stdint.h>

struct nodes_problem {
	char node[64]; /* whom it is about; empty: the cluster */
	char what[320], remedy[320];
};

/* Those of @view @now (CLOCK_REALTIME), the worst first, at most @max of them; how many there
 * are. */
size_t nodes_problems(const Ssi__Control__Nodes *view, uint64_t now_ns,
		      struct nodes_problem *ret, size_t max);
/* From @since until @now, for people: "3 min"; "" when @since is 0. */
const char *nodes_duration(uint64_t since_ns, uint64_t now_ns, char ret[static 32]);
