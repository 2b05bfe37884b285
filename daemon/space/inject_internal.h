#pragma once
/* What the files of the injection door share. */
#include "cleanup.h"
#include "ids.h"
#include "inject.h"
#include "inject_regs.h"

#include <stdbool.h>
#include <stdio.h>

struct inject {
	pid_t pid;
	int proc_fd, mem_fd;
	pid_t *threads; /* all seized; the carrier among them */
	size_t n_threads;
	pid_t carrier; /* runs our calls */
	inject_regs saved;
	uint64_t saved_mask;
	uint64_t insn;    /* address of a syscall instruction */
	uint64_t scratch; /* 0: not mapped yet */
	bool ready;       /* registers and mask of the carrier are saved */
	bool gone;
	bool replaced; /* inject_exec() */
	bool stuck;    /* the carrier did not come back from a call */
	bool held_stop;
};

enum { INJECT_DEADLINE_MS = 2000 };

/* inject_seize.c */
nsec_t inject_now(void);
/* A file of /proc/PID; @format with the PID and, if it wants one, @tid.  NULL: gone. */
FILE *inject_open_proc(const struct inject *i, const char *format, pid_t tid);
bool inject_is_seized(const struct inject *i, pid_t tid);
/* Until no thread runs.  INJECT_E_*. */
int inject_seize_all(struct inject *i);

/*
 * Wait for the next stop or end of thread @tid.  0 and its wait status, or
 * INJECT_E_TIMEOUT; INJECT_E_GONE when it ended, and is buried.
 */
int inject_wait(pid_t tid, nsec_t deadline, int *ret_status);

/* The kinds of stops, from a wait status. */
static inline bool inject_stop_is_event(int status, int event)
{
	return status >> 16 == event;
}

/* inject_call.c: run a call in the carrier; @exec: it may become another program. */
int inject_run(struct inject *i, long nr, const long args[static 6], bool exec, long *ret);
/* inject.c: of the program that is there now. */
int inject_open_memory(struct inject *i);
