#pragma once
/*
 * The images of one tree: named files of bytes, on their way or standing in a
 * private directory (tmpfs, root only) of this node.
 *
 * Names come from criu, a peer or a file: image_name_ok() first.  A store has a
 * limit in bytes and is charged for all of them.
 */
#include "ids.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { IMAGE_NAME_MAX = 127, IMAGE_FILES_MAX = 4096 };

/* [A-Za-z0-9._-]+, not beginning with a dot, at most IMAGE_NAME_MAX bytes. */
bool image_name_ok(const char *name);

/* Where image bytes go.  Each file's bytes come in order; files may interleave. */
struct image_sink {
	/* Not 0 ends the run. @data is valid during the call. */
	int (*write)(void *owner, const char *file, const void *data, size_t len);
	int (*close)(void *owner, const char *file); /* all of @file was written */
	void *owner;
};

struct image_store;

enum {
	_IMAGE_E_SUCCESS,
	IMAGE_E_FULL, /* over the limit, or the tmpfs is full */
	IMAGE_E_NAME, /* not an image's name, too many files, or written after close */
};

/* What IMAGE_E_FULL means to people. */
#define IMAGE_NO_ROOM "no room for its images: /run/ssi/private is full, or image_max_mb too small"

/* A new directory @name beneath the private directory @dir_fd. */
int image_store_new(struct image_store **ret, int dir_fd, const char *name, uint64_t max_bytes);
/* Removes the directory. */
struct image_store *image_store_free(struct image_store *s);
/* A sink that appends here; IMAGE_E_* come through. */
struct image_sink image_store_sink(struct image_store *s);

int image_store_dir_fd(const struct image_store *s);
uint64_t image_store_bytes(const struct image_store *s);
/* By name, sorted. */
size_t image_store_n_files(const struct image_store *s);
const char *image_store_file(const struct image_store *s, size_t i, uint64_t *ret_size);

/*
 * Make the images fit for a restore.  Seccomp goes out of core-*.img: a restored filter
 * has no listener and would answer ENOSYS; the node sets its own anew.  The sizes of
 * files go out of files.img, and expired periodic timers are armed there, see
 * image_files.c.
 * Synchronous, small files.
 */
int image_store_prepare(struct image_store *s);
