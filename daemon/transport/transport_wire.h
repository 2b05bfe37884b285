#pragma once
/* The frame's fixed header on the wire.  Pure functions; every length is bounded here. */
#include "transport.h"

#include <stdbool.h>

enum { TRANSPORT_HEADER_SIZE = 32 };

void transport_header_encode(const struct transport_frame *f,
			     uint8_t ret[static TRANSPORT_HEADER_SIZE]);
/* False: not a header of ours.  The iovecs get lengths, no bases. */
bool transport_header_decode(const uint8_t data[static TRANSPORT_HEADER_SIZE],
			     struct transport_frame *ret);
