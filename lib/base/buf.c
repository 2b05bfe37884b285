#include "buf.h"

#include "err.h"

#include <assert.h>
#include <string.h>

uint8_t *buf_reserve(struct buf *b, size_t len)
{
	size_t room = b->room ? b->room : 256;
	uint8_t *p;

	if (len > SIZE_MAX / 2 - b->len)
		return NULL;
	while (room < b->len + len)
		room *= 2;
	if (room != b->room) {
		p = realloc(b->data, room);
		if (!p)
			return NULL;
		b->data = p;
		b->room = room;
	}
	return b->data + b->len;
}

int buf_append(struct buf *b, const void *data, size_t len)
{
	uint8_t *p = buf_reserve(b, len);

	if (!p)
		return err_origin(-ENOMEM);
	if (len)
		memcpy(p, data, len);
	b->len += len;
	return 0;
}

void buf_consume(struct buf *b, size_t len)
{
	assert(len <= b->len);
	b->len -= len;
	if (b->len)
		memmove(b->data, b->data + len, b->len);
}

void buf_fini(struct buf *b)
{
	free(b->data);
	*b = (struct buf){ 0 };
}
