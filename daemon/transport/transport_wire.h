#pragma once
/*
 * The frame's fixed header on the wire.  Pure functions; every length is bounded
 * here, before anything is allocated for it.
 *
 * 40 bytes, little-endian: magic 4 · version 1 · kind 1 · method 2 · id 8 ·
 * epoch 8 · message length 4 · bulk length 4 · zero 8.  Then message, then bulk.
 */
#include "transport.h"

#include <stdbool.h>

enum { TRANSPORT_HEADER_SIZE = 40 };

/* The lengths of @f are in bounds: the caller has looked. */
void transport_header_encode(const struct transport_frame *f,
			     uint8_t ret[static TRANSPORT_HEADER_SIZE]);
/* False: not a header of ours.  The iovecs get lengths, no bases. */
bool transport_header_decode(const uint8_t data[static TRANSPORT_HEADER_SIZE],
			     struct transport_frame *ret);
