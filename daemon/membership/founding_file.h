#pragma once
/* The files of founding: whole or not at all. */
#include "ids.h"

#include <sys/types.h>

/* Write @text to @dir/@name: temporary name, synced, renamed, directory synced. */
int founding_file_write(const char *dir, const char *name, const char *text, mode_t mode);
int founding_file_write_token(const char *dir, const uint8_t hash[static 32], nsec_t expires);
