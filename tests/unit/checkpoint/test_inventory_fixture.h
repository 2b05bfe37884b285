#pragma once
/*
 * A space in small, for the inventory's tests: pid and mount namespaces of its
 * own, with /proc and a tmpfs on /mnt; and subjects, stopped processes that hold
 * one thing.
 */
#include "inventory_internal.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { FIXTURE_SKIPPED = 77 };

/* From main(), first of all: run @tests inside; the status for exit(). */
int fixture_run(int argc, char **argv, int (*tests)(void));

extern int fixture_root_fd, fixture_proc_fd;

/*
 * A child with /dev/null as 0-2 and nothing else runs @hold, then stops.  @pid: its
 * number, 0: any.  Descriptors that @hold opens begin at 3.
 */
pid_t subject_start(void (*hold)(const void *argument), const void *argument,
		    pid_t pid);
void subject_end(pid_t pid);
/* For @hold: a failure ends the child, which fails the test. */
#define HOLD(condition_)                                                               \
	do {                                                                           \
		if (!(condition_))                                                     \
			subject_fail(#condition_);                                     \
	} while (0)
void subject_fail(const char *condition);
/* Stop, as the end of @hold does, for those that must not return. */
void subject_stop(void);

struct inventory *subject_take(pid_t pid);
/* Its descriptor @fd, which must be there. */
struct inventory_file *find_fd(struct inventory *i, pid_t pid, int fd);
/* Its verdict, to be freed; NULL: nothing in the way.  What is told of each thing
 * agrees. */
char *subject_verdict(pid_t pid, const struct inventory_allow *allow);
struct inventory_things *subject_things(pid_t pid, const struct inventory_allow *allow);

void file_write(const char *path, const char *text, mode_t mode);
