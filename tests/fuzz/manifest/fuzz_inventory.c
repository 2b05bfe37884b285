/*
 * Whatever inventory_parse() takes, inventory_format() writes back byte by byte.
 */
#include "inventory_internal.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_(inventory_freep) struct inventory *i = NULL;
	_cleanup_free_ char *text = NULL;
	size_t len = 0;

	if (inventory_parse(&i, (const char *)data, size) < 0)
		return 0;
	assert(inventory_format(i, &text, &len) == 0);
	assert(len == size && !memcmp(text, data, size));
	return 0;
}
