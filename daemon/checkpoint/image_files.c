/*
 * files.img says how large every file was, and CRIU refuses one that is not.  That is
 * wrong for a file that others write to while the tree moves, and for one that it wrote
 * to itself after a checkpoint was taken.  So sizes are taken out here: that each file is
 * the same one, and of its size where that matters (programs, a node's own files), is
 * what inventory_compare() checks, better, and a restart cuts back what the tree wrote
 * (checkpoint_restart.c).
 *
 * A periodic timerfd that expired while the tree was frozen says that nothing remains:
 * the kernel arms it again when its ticks are read.  CRIU would restore it disarmed,
 * and it would never fire again; so a whole period remains instead.
 */
#include "image_files.h"

#include "criu_images.pb-c.h"
#include "err.h"

enum { FILES_MAGIC = 0x56303138 };

static bool rearm(Ssi__CriuImage__TimerFile *t)
{
	if (t->vsec || t->vnsec || (!t->isec && !t->insec))
		return false;
	t->vsec = t->isec;
	t->vnsec = t->insec;
	return true;
}

static int relax_entry(const uint8_t *data, size_t len, struct buf *out, bool *changed)
{
	Ssi__CriuImage__File *file = ssi__criu_image__file__unpack(NULL, len, data);
	int r;

	if (!file)
		return err_origin(-EBADMSG);
	if (file->reg && file->reg->has_size) {
		file->reg->has_size = false;
		*changed = true;
	}
	if (file->tfd)
		*changed |= rearm(file->tfd);
	r = image_entry_append(&file->base, out);
	ssi__criu_image__file__free_unpacked(file, NULL);
	return r;
}

int image_files_relax(const void *data, size_t len, struct buf *out, bool *ret_changed)
{
	return image_entries_edit(data, len, FILES_MAGIC, IMAGE_FILES_ENTRIES_MAX, relax_entry, out,
				  ret_changed);
}
