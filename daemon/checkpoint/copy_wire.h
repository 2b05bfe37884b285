#pragma once
/*
 * Between ssid and ssi-copy, the program that touches a user's checkpoint
 * directory under his rights: frames on a stream socket, from ssi-copy only.
 * Fixed header, then the name, then the bytes.  Both ends are on one machine.
 */
#include <stdint.h>

enum copy_kind {
	COPY_FILE = 1,  /* a piece of file `name` */
	COPY_NAME = 2,  /* `name` is the checkpoint that follows */
	COPY_DONE = 3,  /* the end, all is well */
	COPY_ERROR = 4, /* the end: `name` is a line for people, `last` the errno */
};

enum { COPY_NAME_MAX = 1023, COPY_BYTES_MAX = 1 << 18 };

struct copy_frame {
	uint32_t kind;
	uint32_t name_len; /* <= COPY_NAME_MAX */
	uint32_t bytes;    /* <= COPY_BYTES_MAX */
	uint32_t last;     /* piece of this file; of an error: errno, 0 if there is none */
};
