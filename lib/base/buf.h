#pragma once
/* Bytes with one owner. */
#include "cleanup.h"

#include <stddef.h>
#include <stdint.h>

struct buf {
	uint8_t *data;
	size_t len;  /* bytes used */
	size_t room; /* bytes allocated */
};

/* Append @len bytes; -ENOMEM leaves the buffer as it was. */
int buf_append(struct buf *b, const void *data, size_t len);
/* Make room for @len more bytes and return where they go, or NULL. */
uint8_t *buf_reserve(struct buf *b, size_t len);
/* Drop the first @len bytes. */
void buf_consume(struct buf *b, size_t len);
void buf_fini(struct buf *b);

#define _cleanup_buf_ _cleanup_(buf_fini)
