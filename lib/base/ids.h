#pragma once
/* The few numbers that every room speaks of. */
#include <stdint.h>
#include <sys/types.h>

typedef uint32_t node_id;  /* 1.. given by the cluster, never reused; 0 = none */
typedef uint64_t nsec_t;   /* nanoseconds of CLOCK_BOOTTIME, or a span of them */
typedef uint64_t epoch_t;  /* number of a view */

#define NODE_NONE 0u
#define NODE_NAME_MAX 63 /* a host label: [a-z0-9-], without the NUL */

#define NSEC_PER_USEC 1000ull
#define NSEC_PER_MSEC 1000000ull
#define NSEC_PER_SEC 1000000000ull
