#pragma once
/*
 * DOOR.  The memory of a process that the images of its dump leave where it is (CRIU's
 * patch 0009): read from the frozen process, and put into the restored one.
 *
 * Knows: env.  Thread: the loop, but for pages_reader_next().
 *
 * The restored process stands with holes, by userfaultfd: whoever touches one waits.
 * When the placer ends what is missing reads as zeros; so nothing may run before all of
 * it is there.
 */
#include "env.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A piece stays in a processor's cache on its way. */
enum { PAGES_RUNS_MAX = 256, PAGES_PIECE = 256 << 10 };

/* Whole pages, one behind the other. */
struct pages_run {
	uint64_t at;
	uint64_t len;
};

struct pages_piece {
	struct pages_run runs[PAGES_RUNS_MAX];
	size_t n_runs, len;
	uint8_t data[PAGES_PIECE];
};

struct pages_reader;
struct pages_placer;

int pages_reader_new(struct pages_reader **ret, int proc_fd, pid_t pid);
struct pages_reader *pages_reader_free(struct pages_reader *r);
/* Image bytes on their way: those that say which pages were left are kept. */
int pages_reader_image(struct pages_reader *r, const char *file, const void *data,
		       size_t len);
/* When the dump is over, on any thread, for swapped pages take their time: a piece of
 * what was left; an empty one behind the last.  -ESRCH: the process is gone. */
int pages_reader_next(struct pages_reader *r, struct pages_piece *ret);

enum {
	_PAGES_E_SUCCESS,
	PAGES_E_EARLY, /* there is no such place yet */
};

/* Can this kernel? */
bool pages_may_be_placed(void);
int pages_placer_new(struct pages_placer **ret, const struct env *env);
/* criu may not be done yet. */
void pages_placer_end(struct pages_placer *p);
struct pages_placer *pages_placer_free(struct pages_placer *p);
/* For a criu that will restore one process, with its working directory @dir_fd. */
int pages_placer_listen(struct pages_placer *p, int dir_fd);
/* @io_done: bytes of @data that are in their places, also where this fails. */
int pages_place(struct pages_placer *p, const struct pages_run *runs, size_t n_runs,
		const uint8_t *data, size_t *io_done);
