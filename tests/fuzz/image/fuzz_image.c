/*
 * What a peer may send as core-*.img, files.img and as names.  What is taken must be
 * taken again, unchanged, after it was edited once.
 */
#include "image.h"
#include "image_core.h"
#include "image_files.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void edit_twice(const uint8_t *data, size_t size,
		       int (*edit)(const void *data, size_t len, struct buf *out, bool *changed))
{
	struct buf once = { 0 }, twice = { 0 };
	bool changed = false;

	if (edit(data, size, &once, &changed) == 0) {
		changed = true;
		assert(edit(once.data, once.len, &twice, &changed) == 0);
		assert(!changed && once.len == twice.len);
		assert(memcmp(once.data, twice.data, once.len) == 0);
	}
	buf_fini(&once);
	buf_fini(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *name = strndup((const char *)data, size);

	edit_twice(data, size, image_core_strip);
	edit_twice(data, size, image_files_relax);
	if (name && image_name_ok(name))
		assert(strlen(name) <= IMAGE_NAME_MAX && !strchr(name, '/') && name[0] != '.');
	free(name);
	return 0;
}
