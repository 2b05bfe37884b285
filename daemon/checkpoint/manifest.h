#pragma once
/*
 * The page that makes a directory of images a checkpoint: who, what, where it
 * can live again, and a seal.
 *
 * Text (INI heads, then the inventory), versioned.  The seal is HMAC-SHA256 with
 * the cluster's key over everything else; images are listed with their sizes
 * and SHA-256 sums.  A manifest is believed only after manifest_parse() with the key,
 * and an image only after manifest_check_images().
 *
 * Why not a faster sum: the images lie in a user's directory between a save and a
 * restart, and a sum that is not cryptographic (XXH3) can be met by images made for it.
 */
#include "ids.h"
#include "inventory.h"

struct image_store;

enum { MANIFEST_TEXT_MAX = 1 << 20, MANIFEST_FIELD_MAX = 64 << 10 };

struct manifest_image {
	char name[128];
	uint64_t size;
	char checksum[65]; /* SHA-256, hex */
};

struct manifest {
	char name[64];         /* of the checkpoint: "<app>-<n>" */
	pid_t app, root;
	uid_t uid;             /* who may restart it */
	gid_t gid;
	char node[64];         /* where it was made */
	nsec_t taken;          /* CLOCK_REALTIME */
	char kernel[65];       /* uname -r */
	char *cpu_flags;       /* of /proc/cpuinfo, sorted; needed on the target */
	char *command;
	char *app_name;        /* NULL: none */
	char *description;
	char *stdio;           /* how standard streams are cut: see checkpoint.c */
	struct inventory *inventory;
	struct manifest_image *images; /* by name, sorted */
	size_t n_images;
	uint64_t bytes;
};

enum {
	_MANIFEST_E_SUCCESS,
	MANIFEST_E_FORMAT, /* not a manifest, or of a newer version: see text */
	MANIFEST_E_SEAL,   /* not sealed by this cluster, or changed since */
	MANIFEST_E_IMAGE,  /* an image is missing, superfluous or changed: see text */
};

struct manifest *manifest_free(struct manifest *m);
/* -E2BIG: more than MANIFEST_TEXT_MAX, which holds some 5,000 descriptors and mappings. */
int manifest_format(const struct manifest *m, const uint8_t key[static 32], char **ret,
		    size_t *ret_len);
/* *ret_text: a constant, why not. */
int manifest_parse(struct manifest **ret, const char *text, size_t len,
		   const uint8_t key[static 32], const char **ret_text);

/* Sum up all images of @store: into the manifest (images and bytes), or against it.
 * Reads every byte: for env_work().  *ret_text: malloc()ed. */
int manifest_add_images(struct manifest *m, const struct image_store *store);
int manifest_check_images(const struct manifest *m, const struct image_store *store,
			  char **ret_text);

/* Flags that are needed here and missing, joined by spaces, malloc()ed; NULL: none. */
int manifest_missing_cpu_flags(const struct manifest *m, char **ret);
int manifest_own_cpu_flags(char **ret);
