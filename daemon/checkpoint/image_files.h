#pragma once
/* The bytes of files.img; trusts nothing, see image_core.h. */
#include "image_core.h"

enum { IMAGE_FILES_ENTRIES_MAX = 16384 };

/* Append to @out the image without the sizes of files, every periodic timer armed. */
int image_files_relax(const void *data, size_t len, struct buf *out, bool *ret_changed);
