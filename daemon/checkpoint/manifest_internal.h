#pragma once
/* The inside of the manifest: its seal, and the parts that need no image store. */
#include "cleanup.h"
#include "manifest.h"

DEFINE_CLEANUP(struct manifest, manifest_free)

enum { MANIFEST_SEAL_SIZE = 32 };

/* HMAC-SHA256. */
int manifest_seal(const uint8_t key[static 32], const void *data, size_t len,
		  uint8_t ret[static MANIFEST_SEAL_SIZE]);
/* In a time that does not tell where they differ. */
bool manifest_seal_equal(const uint8_t a[static MANIFEST_SEAL_SIZE],
			 const uint8_t b[static MANIFEST_SEAL_SIZE]);
/* SHA-256 and length of all of file @name in @dir_fd. */
int manifest_sum_file(int dir_fd, const char *name, char ret[static 65],
		      uint64_t *ret_size);

/* manifest_cpu.c: words of @need that are not in @have; both sorted. */
int manifest_missing_words(const char *need, const char *have, char **ret);
/* The flags of the first processor in a cpuinfo text, sorted, each once. */
int manifest_cpu_flags_of(const char *cpuinfo, char **ret);
