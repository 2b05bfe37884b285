#include "manifest_internal.h"

#include "err.h"
#include "image.h"

#include <stdio.h>
#include <string.h>

/*
 * Images against the manifest.  The store is private and nobody writes to it
 * any more: what was summed up is what criu will read.
 */

int manifest_add_images(struct manifest *m, const struct image_store *store)
{
	size_t n = image_store_n_files(store);
	_cleanup_free_ struct manifest_image *images = calloc(n + 1, sizeof(*images));
	uint64_t bytes = 0, expected;
	int r;

	if (!images)
		return err_origin(-ENOMEM);
	if (n > IMAGE_FILES_MAX)
		return err_origin(-E2BIG);
	for (size_t k = 0; k < n; k++) {
		const char *name = image_store_file(store, k, &expected);

		(void)snprintf(images[k].name, sizeof(images[k].name), "%s", name);
		r = manifest_sum_file(image_store_dir_fd(store), name,
				      images[k].checksum, &images[k].size);
		if (r < 0)
			return r;
		if (images[k].size != expected)
			return err_origin(-EIO);
		bytes += images[k].size;
	}
	free(m->images);
	m->images = TAKE(images);
	m->n_images = n;
	m->bytes = bytes;
	return 0;
}

/* 1: said in *ret_text. */
static int check_one(const struct manifest_image *image, const char *name, int dir_fd,
		     char **ret_text)
{
	char checksum[65];
	uint64_t size;
	int r;

	if (strcmp(image->name, name) != 0)
		return asprintf(ret_text, "image %s: missing, or %s superfluous",
				image->name, name) < 0
			       ? err_origin(-ENOMEM)
			       : 1;
	r = manifest_sum_file(dir_fd, name, checksum, &size);
	if (r < 0)
		return r;
	if (size == image->size && !strcmp(checksum, image->checksum))
		return 0;
	return asprintf(ret_text, "image %s: changed since it was saved", name) < 0
		       ? err_origin(-ENOMEM)
		       : 1;
}

int manifest_check_images(const struct manifest *m, const struct image_store *store,
			  char **ret_text)
{
	size_t n = image_store_n_files(store);
	uint64_t size;
	int r = 0;

	if (n != m->n_images) {
		if (asprintf(ret_text, "%zu images instead of %zu", n, m->n_images) < 0)
			return err_origin(-ENOMEM);
		return MANIFEST_E_IMAGE;
	}
	for (size_t k = 0; k < n && r == 0; k++)
		r = check_one(&m->images[k], image_store_file(store, k, &size),
			      image_store_dir_fd(store), ret_text);
	return r > 0 ? MANIFEST_E_IMAGE : r;
}
