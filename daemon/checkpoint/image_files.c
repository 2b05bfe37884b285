/*
 * files.img says how large every file was, and CRIU refuses one that is not.  For
 * a file that the tree writes to that is wrong: it went on writing after the
 * checkpoint was taken.  So the size of such files is taken out here; that the
 * file is the same one is what inventory_compare() checks, better, and the
 * restart cuts it back to its size (checkpoint_restart.c).
 */
#include "image_files.h"

#include "criu_images.pb-c.h"
#include "err.h"

#include <endian.h>
#include <fcntl.h>
#include <string.h>

enum { FILES_MAGIC = 0x56303138 };

static int relax_entry(const uint8_t *data, size_t len, struct buf *out, bool *changed)
{
	Ssi__CriuImage__File *file = ssi__criu_image__file__unpack(NULL, len, data);
	uint32_t packed;
	uint8_t *room;
	size_t n;

	if (!file)
		return err_origin(-EBADMSG);
	if (file->reg && file->reg->has_size && (file->reg->flags & O_ACCMODE) != O_RDONLY) {
		file->reg->has_size = false;
		*changed = true;
	}
	n = ssi__criu_image__file__get_packed_size(file);
	room = buf_reserve(out, sizeof(packed) + n);
	if (room) {
		packed = htole32((uint32_t)n);
		memcpy(room, &packed, sizeof(packed));
		(void)ssi__criu_image__file__pack(file, room + sizeof(packed));
		out->len += sizeof(packed) + n;
	}
	ssi__criu_image__file__free_unpacked(file, NULL);
	return room ? 0 : err_origin(-ENOMEM);
}

int image_files_relax(const void *data, size_t len, struct buf *out, bool *ret_changed)
{
	return image_entries_edit(data, len, FILES_MAGIC, IMAGE_FILES_ENTRIES_MAX, relax_entry, out,
				  ret_changed);
}
