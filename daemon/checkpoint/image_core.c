/*
 * happy path: each entry is unpacked as far as criu_images.proto knows it, the
 * seccomp fields are dropped, everything else is packed again as it came.
 * failure modes: whatever does not parse to its last byte is refused; the caller
 * throws the images away.
 */
#include "image_core.h"

#include "criu_images.pb-c.h"
#include "err.h"

#include <endian.h>
#include <string.h>

enum {
	COMMON_MAGIC = 0x54564319,
	CORE_MAGIC = 0x55053847,
};

static bool drop(Ssi__CriuImage__Core *core)
{
	Ssi__CriuImage__TaskCore *task = core->tc;
	Ssi__CriuImage__ThreadCore *thread = core->thread_core;
	bool had = false;

	if (task) {
		had |= task->has_old_seccomp_mode || task->has_old_seccomp_filter;
		task->has_old_seccomp_mode = task->has_old_seccomp_filter = false;
	}
	if (thread) {
		had |= thread->has_seccomp_mode || thread->has_seccomp_filter;
		thread->has_seccomp_mode = thread->has_seccomp_filter = false;
	}
	return had;
}

int image_entry_append(const ProtobufCMessage *entry, struct buf *out)
{
	size_t n = protobuf_c_message_get_packed_size(entry);
	uint32_t packed = htole32((uint32_t)n);
	uint8_t *room = buf_reserve(out, sizeof(packed) + n);

	if (!room)
		return err_origin(-ENOMEM);
	memcpy(room, &packed, sizeof(packed));
	(void)protobuf_c_message_pack(entry, room + sizeof(packed));
	out->len += sizeof(packed) + n;
	return 0;
}

static int strip_entry(const uint8_t *data, size_t len, struct buf *out, bool *changed)
{
	Ssi__CriuImage__Core *core = ssi__criu_image__core__unpack(NULL, len, data);
	int r;

	if (!core)
		return err_origin(-EBADMSG);
	*changed |= drop(core);
	r = image_entry_append(&core->base, out);
	ssi__criu_image__core__free_unpacked(core, NULL);
	return r;
}

static uint32_t number(const uint8_t *at)
{
	uint32_t v;

	memcpy(&v, at, sizeof(v));
	return le32toh(v);
}

int image_entries_edit(const void *data, size_t len, uint32_t magic, size_t max_entries,
		       image_entry_edit edit, struct buf *out, bool *ret_changed)
{
	const uint8_t *p = data, *end = p + len;
	bool changed = false;
	int r;

	if (len < 8 || len > IMAGE_CORE_BYTES_MAX || number(p) != COMMON_MAGIC ||
	    number(p + 4) != magic)
		return err_origin(-EBADMSG);
	r = buf_append(out, p, 8);
	p += 8;
	for (size_t n = 0; r == 0 && p < end; n++) {
		size_t size;

		if (n == max_entries || end - p < 4)
			return err_origin(-EBADMSG);
		size = number(p);
		p += 4;
		if (size > (size_t)(end - p))
			return err_origin(-EBADMSG);
		r = edit(p, size, out, &changed);
		p += size;
	}
	if (r < 0)
		return r;
	*ret_changed = changed;
	return 0;
}

int image_core_strip(const void *data, size_t len, struct buf *out, bool *ret_changed)
{
	return image_entries_edit(data, len, CORE_MAGIC, IMAGE_CORE_ENTRIES_MAX, strip_entry, out,
				  ret_changed);
}
