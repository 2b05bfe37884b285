#pragma once
/*
 * The bytes of one core-*.img: two magic numbers, then entries with their
 * lengths.  Comes from a peer: trusts nothing.
 */
#include "buf.h"

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>

enum {
	IMAGE_CORE_BYTES_MAX = 1 << 20,
	IMAGE_CORE_ENTRIES_MAX = 64,
};

/* Append an entry, with its length. */
int image_entry_append(const ProtobufCMessage *entry, struct buf *out);
/* Append one entry of @len bytes, changed or not. */
typedef int (*image_entry_edit)(const uint8_t *data, size_t len, struct buf *out,
				bool *ret_changed);
/* Append the image with every entry edited.  -EBADMSG: not an image of @magic. */
int image_entries_edit(const void *data, size_t len, uint32_t magic, size_t max_entries,
		       image_entry_edit edit, struct buf *out, bool *ret_changed);

/* Append to @out the image without its seccomp filters; *ret_changed: it had some.
 * -EBADMSG: not such an image. */
int image_core_strip(const void *data, size_t len, struct buf *out, bool *ret_changed);
