#pragma once
/*
 * DOOR.  One run of CRIU: a dump that hands its images to us, or a restore
 * that stops before the tree runs.  Raw swrk protocol, one criu process a run.
 *
 * Knows: env, space.  Thread: the loop; nothing here blocks it.
 *
 * criu runs in the space, as a service child of ssi-init (or in place, exec'd by
 * a shadow), in a cgroup leaf "criu.<n>" of its own.  Every run has a deadline;
 * when it passes, or on cancel, the leaf is killed.  A successor of ssid kills
 * the leaves that its predecessor left (criu_sweep()) before it does anything.
 *
 * Trap: success is the `success` field of the answer; an error text may stand
 * beside success, and never resume or trust an image without that answer.
 */
#include "env.h"
#include "image.h"
#include "inventory.h"
#include "space.h"
#include "space_group.h"

#include <stdbool.h>

struct criu;     /* the installation: path, version, what it can */
struct criu_run;

struct criu_features {
	char version[32];
	bool known;            /* version and check_ok were asked; takes about a second */
	bool check_ok;         /* `criu check` is satisfied */
	bool user_processes;   /* can dump an ordinary user's process here */
	bool restore_in_place; /* our patch is in */
	bool stream;           /* so is this; else a dump's images stand here before they go */
	bool leave_pages;      /* and this */
	char problem[256];     /* of check_ok */
};

struct criu_config {
	const char *path;        /* absolute, in the space */
	const char *libexec_dir; /* ssi-placeholder, ssi-shadow */
	int private_dir_fd;      /* the space's private tmpfs; stays the caller's */
};

/* Sweeps, then asks criu for its version and check while the loop turns. */
int criu_new(struct criu **ret, const struct env *env, struct space *space,
	     const struct criu_config *config);
/* Runs under way are killed and never told. */
struct criu *criu_free(struct criu *c);
const struct criu_features *criu_features(const struct criu *c);
/* false: this criu cannot dump that tree, @ret_text says why in one line. */
bool criu_may_dump(const struct criu *c, const struct inventory *i, char *ret_text,
		   size_t size);
/* Kill what a predecessor's runs left. */
int criu_sweep(struct criu *c);

/*
 * A dump or restore is near: have a criu started, which takes as long as to dump a small
 * tree.  The first run that can takes it; one that nobody takes ends after some seconds.
 */
void criu_warm(struct criu *c);

/* @text: one line for people, naming the object that was in the way where CRIU's log does. */
typedef void (*criu_done_cb)(void *owner, bool ok, const char *text);

struct criu_dump_spec {
	pid_t root;
	struct space_group *group; /* frozen by the caller, and frozen afterwards */
	bool shell_job;            /* the root leads no session */
	bool leave_pages; /* memory that is the process's own is not dumped: pages.h */
	const char *const *external; /* "unix[123]", "tty[8800:2d]" */
	size_t n_external;
	/* Image bytes as they come, file by file or interleaved. */
	struct image_sink sink;
	nsec_t timeout;
};
/* The tree is alive and frozen when done is called, whatever the result; if criu died it may
 * have run in between. */
int criu_dump(struct criu *c, const struct criu_dump_spec *spec, criu_done_cb done, void *owner,
	      struct criu_run **ret);
/* Stop and go on asking for image bytes: flow control. */
void criu_dump_pause(struct criu_run *run, bool pause);

struct pages_placer;

struct criu_inherit {
	const char *key; /* "pipe:[123]" */
	int fd;          /* stays the caller's; passed by inheritance */
};

struct criu_restore_spec {
	/* Stays the caller's, until done.  Its pages go as they are read: memory holds a
	 * tree once and not twice, whatever comes of it. */
	const struct image_store *images;
	/* For the memory that they do not hold; NULL: they do.  Stays the caller's. */
	struct pages_placer *pages;
	pid_t root;
	pid_t sid, pgid;          /* of the root; placeholders are made where it leads neither */
	struct space_group *group; /* the tree is born or moved here, frozen before it runs */
	const struct criu_inherit *inherit;
	size_t n_inherit;
	/* In place: the descriptor of our end of the swrk socket of a criu that a shadow
	 * execs; it receives `fds` below as 4, 5, ...; -1: start criu here. */
	bool in_place;
	int (*exec_in_place)(void *owner, const char *criu, const int *fds, size_t n_fds);
	nsec_t timeout;
};
/*
 * ok: the tree stands restored, frozen in @group, its root a tracked child of ssi-init (or
 * where its shadow was), and criu is gone.  Not ok: nothing of it is left; in place the
 * shadow stands again in its old cgroup, or, if criu had to be killed, the PID is gone.
 * -EOPNOTSUPP: in place without our patch.
 */
int criu_restore(struct criu *c, const struct criu_restore_spec *spec, criu_done_cb done,
		 void *owner, struct criu_run **ret);

/* done comes (ok = false) when criu's leaf is empty. */
void criu_cancel(struct criu_run *run);
