/*
 * A stream of frames in whatever pieces.  The first byte says how large they are;
 * what is read must not depend on it, and what was read must encode to the same
 * bytes.  The stream is an address, too.
 */
#include "transport_address.h"
#include "transport_frame.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct reading {
	struct frame_spare spare;
	struct frame_reader reader;
	const uint8_t *at; /* where the next frame stands in the input */
	const uint8_t *end;
	unsigned n;
	int result;
};

static int on_frame(void *owner, const struct transport_frame *f)
{
	struct reading *r = owner;
	size_t len = TRANSPORT_HEADER_SIZE + f->message.iov_len + f->bulk.iov_len;
	uint8_t header[TRANSPORT_HEADER_SIZE];

	assert(len <= (size_t)(r->end - r->at));
	transport_header_encode(f, header);
	assert(memcmp(header, r->at, sizeof(header)) == 0);
	if (f->message.iov_len)
		assert(memcmp(f->message.iov_base, r->at + sizeof(header),
			      f->message.iov_len) == 0);
	if (f->bulk.iov_len)
		assert(memcmp(f->bulk.iov_base, r->at + len - f->bulk.iov_len,
			      f->bulk.iov_len) == 0);
	r->at += len;
	r->n++;
	return 0;
}

static void read_all(struct reading *r, const uint8_t *data, size_t size, size_t piece)
{
	uint8_t *scratch = malloc(piece);

	assert(scratch);
	*r = (struct reading){.at = data, .end = data + size};
	r->reader.spare = &r->spare;
	for (size_t at = 0; at < size && r->result == 0;) {
		size_t room;
		uint8_t *p = frame_reader_room(&r->reader, scratch, piece, &room);

		room = room < size - at ? room : size - at;
		memcpy(p, data + at, room);
		at += room;
		r->result = frame_reader_got(&r->reader, p, room, on_frame, r);
	}
	frame_reader_fini(&r->reader);
	frame_spare_fini(&r->spare);
	free(scratch);
}

static void read_address(const uint8_t *data, size_t size)
{
	struct sockaddr_storage a;
	socklen_t len;
	char *text = strndup((const char *)data, size < 200 ? size : 200);

	assert(text);
	for (int listen = 0; listen < 2; listen++)
		if (transport_address_parse(text, listen, &a, &len) == 0)
			assert(len <= sizeof(a));
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct reading whole, pieces;

	if (size < 2)
		return 0;
	read_all(&whole, data + 1, size - 1, size);
	read_all(&pieces, data + 1, size - 1, (size_t)data[0] + 1);
	assert(whole.n == pieces.n && whole.result == pieces.result);
	read_address(data, size);
	return 0;
}
