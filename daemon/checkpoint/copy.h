#pragma once
/*
 * Reading and writing checkpoints in a user's directory, under his rights: each
 * a run of ssi-copy in the space.  ssid itself never opens a path of a user's.
 */
#include "env.h"
#include "process.h"
#include "space.h"

struct copy;

/* What comes out of a run: pieces of files, names; then one end.  A result other than 0
 * from a piece ends the run with that text. */
struct copy_events {
	int (*on_name)(void *owner, const char *name);
	int (*on_piece)(void *owner, const char *file, const void *data, size_t len, bool last);
	/* @text: a line when @status is not RPC_OK.  The copy is freed when this returns. */
	void (*on_end)(void *owner, enum rpc_status status, const char *text);
};

enum copy_verb {
	COPY_OUT,    /* the files of the private directory @images_fd become DIRECTORY/NAME */
	COPY_IN,     /* the files of DIRECTORY/NAME (or the newest NAME-*) */
	COPY_LIST,   /* of every checkpoint: its name, then its manifest */
	COPY_REMOVE, /* DIRECTORY/NAME */
};

struct copy_spec {
	enum copy_verb verb;
	const struct process_caller *caller;
	const char *directory;
	bool make_directory; /* it is the default place: made, for everybody, if it is absent */
	const char *name;
	int images_fd; /* COPY_OUT; else -1 */
	nsec_t timeout;
};

int copy_start(struct copy **ret, const struct env *env, struct space *space,
	       const char *libexec_dir, const struct copy_spec *spec,
	       const struct copy_events *events, void *owner);
/* on_end never comes. */
struct copy *copy_free(struct copy *c);
