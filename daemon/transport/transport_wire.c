#include "transport_wire.h"

#include <endian.h>
#include <string.h>

static const uint32_t MAGIC = 0x31495353; /* "SSI1" */
enum { VERSION = 1 };

/* Little-endian, as it stands on the wire; no padding in this order. */
struct header {
	uint32_t magic;
	uint8_t version;
	uint8_t kind;
	uint16_t method;
	uint64_t id;
	uint64_t epoch;
	uint32_t message_len;
	uint32_t bulk_len;
	uint64_t zero;
};

_Static_assert(sizeof(struct header) == TRANSPORT_HEADER_SIZE,
	       "the header has no padding");

void transport_header_encode(const struct transport_frame *f,
			     uint8_t ret[static TRANSPORT_HEADER_SIZE])
{
	struct header h = {
		.magic = htole32(MAGIC),
		.version = VERSION,
		.kind = f->kind,
		.method = htole16(f->method),
		.id = htole64(f->id),
		.epoch = htole64(f->epoch),
		.message_len = htole32((uint32_t)f->message.iov_len),
		.bulk_len = htole32((uint32_t)f->bulk.iov_len),
	};

	memcpy(ret, &h, sizeof(h));
}

bool transport_header_decode(const uint8_t data[static TRANSPORT_HEADER_SIZE],
			     struct transport_frame *ret)
{
	struct header h;

	memcpy(&h, data, sizeof(h));
	*ret = (struct transport_frame){
		.kind = h.kind,
		.method = le16toh(h.method),
		.id = le64toh(h.id),
		.epoch = le64toh(h.epoch),
		.message.iov_len = le32toh(h.message_len),
		.bulk.iov_len = le32toh(h.bulk_len),
	};
	return le32toh(h.magic) == MAGIC && h.version == VERSION && h.zero == 0 &&
	       h.kind >= TRANSPORT_REQUEST && h.kind <= TRANSPORT_NOTIFY &&
	       ret->message.iov_len <= TRANSPORT_MESSAGE_MAX &&
	       ret->bulk.iov_len <= TRANSPORT_BULK_MAX;
}
