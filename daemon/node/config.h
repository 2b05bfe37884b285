#pragma once
/*
 * ssid.conf(5): INI, one row of a table a key.  An unknown key or section is a
 * warning, a value that cannot be is an error naming file and line.
 */
#include "ids.h"

#include <stdio.h>

struct config {
	char *state_dir;      /* [paths] */
	char *runtime_dir;
	char *libexec_dir;
	char *criu;
	char *checkpoint_dir;
	uint64_t lease_ms;    /* [cluster] */
	uint64_t pids_max;
	char *fence_command;  /* "": none */
	uint64_t fence_timeout_s;
	uint64_t image_max_mb; /* [limits] */
	uint64_t log_level;   /* [log] level */
};

/* Defaults, then @path (absent: fine), then the *.conf of "@path.d" in order. */
int config_load(struct config *ret, const char *path);
void config_fini(struct config *c);
/* Every key with its value, in the file's form. */
void config_dump(const struct config *c, FILE *to);
