#pragma once
/*
 * What this room asks of the kernel by itself, beside the doors of space: signals by
 * number, the end of a process, the two ends of a shadow's socket.  Knows: nobody.
 * The simulated cluster has another kernel behind this header.
 */
#include <signal.h>
#include <sys/types.h>

/* kill(); -errno. */
int process_kernel_signal(pid_t pid, int signal);
/* rt_sigqueueinfo(): with a siginfo of a code below 0; -errno. */
int process_kernel_queue(pid_t pid, int signal, const siginfo_t *info);
/* A descriptor that is readable when @pid has ended; -errno. */
int process_kernel_watch(pid_t pid);

/* The listener behind SHADOW_SOCKET. */
int process_kernel_listen(int *ret_fd);
/* Both ends of a connection with ourselves over it: shadows trust no other. */
int process_kernel_connect(int listen_fd, int *ret_ours, int *ret_theirs);

/* Less than a millisecond, in which others get on. */
void process_kernel_moment(void);
