/*
 * manifest_parse() as a stranger meets it, who has no key: nothing passes.  And as a
 * peer with the key: the body is sealed here, and whatever is taken is written
 * back byte by byte.
 */
#include "inventory_internal.h"
#include "manifest_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t key[32] = "a key of thirty-two bytes, only";

static int seal(struct buf *b, const uint8_t *data, size_t size)
{
	uint8_t mac[MANIFEST_SEAL_SIZE];
	int r = buf_append(b, data, size);

	if (r == 0)
		r = inventory_printf(b, "[seal]\nhmac-sha256=");
	if (r == 0)
		r = manifest_seal(key, b->data, b->len, mac);
	for (size_t k = 0; k < sizeof(mac) && r == 0; k++)
		r = inventory_printf(b, "%02x", mac[k]);
	return r < 0 ? r : inventory_printf(b, "\n");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_(manifest_freep) struct manifest *m = NULL;
	_cleanup_free_ char *text = NULL;
	_cleanup_buf_ struct buf b = {0};
	const char *why = NULL;
	size_t len = 0;
	int r;

	r = manifest_parse(&m, (const char *)data, size, key, &why);
	assert(r != 0 && !m);
	if (seal(&b, data, size) < 0)
		return 0;
	if (manifest_parse(&m, (const char *)b.data, b.len, key, &why) != 0)
		return 0;
	assert(manifest_format(m, key, &text, &len) == 0);
	assert(len == b.len && !memcmp(text, b.data, len));
	return 0;
}
