#pragma once
/* A space, a loop, a criu and processes to dump: for test_criu*.c. */
#include "cleanup.h"
#include "criu.h"
#include "env_event.h"
#include "image.h"
#include "space_group.h"

#include "../space/fixture.h"

#include <signal.h>

/* As fixture_main(): the arguments after its own are ssi-placeholder's directory, criu
 * and criu_victim. */
int criu_fixture_main(int argc, char **argv, int (*tests)(void));

struct criu_fixture {
	struct env_event *loop;
	const struct env *env;
	struct space *space;
	struct criu *criu;
	int private_dir_fd;
	volatile uint64_t *counters; /* as criu_victim.c says */
	struct space_exit exits[64];
	size_t n_exits;
};

void criu_fixture_open(struct criu_fixture *f);
/* Another criu, at @path, and what it is known to be able to. */
void criu_fixture_install(struct criu_fixture *f, const char *path);
void criu_fixture_close(struct criu_fixture *f);

/* Turn the loop until @done, 20 s at most. */
void criu_fixture_wait(struct criu_fixture *f, bool (*done)(void *owner), void *owner);
/* Turn it for so long. */
void criu_fixture_turn(struct criu_fixture *f, nsec_t span);

/* Where the criu is that the test was given. */
const char *criu_fixture_criu(void);

/* A process in a group of its own. */
struct victim {
	pid_t pid;
	struct space_group *group;
};

/* Start criu_victim and wait until it counts. */
struct victim victim_start(struct criu_fixture *f, const char *mode, const char *number,
			   const int *fds, size_t n_fds);
/* Kill, reap and forget all of it. */
void victim_end(struct criu_fixture *f, struct victim *v);
/* Does counter @slot move within 2 s? */
bool victim_counts(struct criu_fixture *f, int slot);
/* Does it not, for 50 ms? */
bool victim_stands(struct criu_fixture *f, int slot);

/* How a run ended. */
struct outcome {
	bool done, ok;
	char text[512];
	nsec_t took;
	int socket; /* of a stand-in for a shadow */
};

void on_outcome(void *owner, bool ok, const char *text);
bool outcome_is_there(void *owner);

struct image_store *fixture_store(struct criu_fixture *f, uint64_t max_bytes);
/* Freeze and dump @root of @v into @store, wait for the end. */
struct outcome fixture_dump(struct criu_fixture *f, const struct victim *v, pid_t root,
			    bool shell_job, struct image_store *store);
/* @spec without group, images and timeout; the new group is in *ret. */
struct outcome fixture_restore(struct criu_fixture *f, struct criu_restore_spec spec,
			       const struct image_store *store, struct space_group **ret);
/* Leaves and directories of runs that still stand. */
size_t fixture_left(struct criu_fixture *f);
/* In the space. */
const char *criu_fixture_victim(void);
bool fixture_has_zombie_child(struct criu_fixture *f, pid_t pid);
/* Of /proc/PID/stat: 4 parent, 5 group, 6 session. */
int fixture_stat(struct criu_fixture *f, pid_t pid, int field);
