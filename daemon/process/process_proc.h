#pragma once
/* What /proc of the space says of a process.  Knows: nobody.  Thread: any. */
#include "ids.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

struct proc_stat {
	pid_t pid, ppid, pgid, sid;
	uint32_t terminal; /* its controlling one, as the kernel numbers devices; 0: none */
	pid_t foreground;  /* the group that has it */
	char state;
	uint32_t n_threads;
	uint64_t cpu_ticks, start_ticks, rss_pages;
	char comm[65];
};

/* -ENOENT, -ESRCH: no such process. */
int proc_stat_read(int proc_fd, pid_t pid, struct proc_stat *ret);
/* @line as /proc/PID/stat has it.  -EINVAL. */
int proc_stat_parse(const char *line, struct proc_stat *ret);
/* Real uid, and the pending signals of process and main thread. */
int proc_status_read(int proc_fd, pid_t pid, uid_t *ret_uid, uint64_t *ret_pending);
/* How many filters of seccomp its main thread has; 0 if it is gone. */
unsigned proc_filters(int proc_fd, pid_t pid);
/* Arguments, each with its NUL.  *ret_len 0: a kernel thread or a zombie. */
int proc_cmdline_read(int proc_fd, pid_t pid, char *ret, size_t size, size_t *ret_len);
/* The program that it runs. */
int proc_exe_stat(int proc_fd, pid_t pid, struct stat *ret);
/* Every PID, ascending as the kernel gives them; @cb may end it with something not 0.
 */
int proc_each(int proc_fd, int (*cb)(void *owner, pid_t pid), void *owner);
