#ifndef SSI_H
#define SSI_H
/*
 * libssi: what a program may know of the cluster that it runs in; see ssi(3).
 *
 * Nothing here holds the program where it is: it can be moved, saved and revived at any
 * moment, and ssid may be started again.
 */
#ifdef __cplusplus
extern "C" {
#endif

#include <stddef.h>

/* @n_nodes: how many nodes were added, or removed, since this was told last. */
typedef void (*ssi_nodes_cb)(unsigned n_nodes, void *arg);

/* One callback of each kind for the program; another replaces it, NULL: none.  0, or -1 and
 * errno: ENOTCONN when this machine is no node of a cluster, or its ssid was never seen. */
int ssi_on_nodes_added(ssi_nodes_cb cb, void *arg);
int ssi_on_nodes_removed(ssi_nodes_cb cb, void *arg);

/* A descriptor that poll(2) finds readable when ssi_dispatch() is due; the program's for ever,
 * never to be read or closed.  -1: errno. */
int ssi_fd(void);
/* Look, and call back for what has changed.  How many callbacks, or -1 and errno. */
int ssi_dispatch(void);
/* Instead of both: a thread that does it, with every signal blocked.  0, or -1 and errno. */
int ssi_start_thread(void);

/* How many nodes there are now; -1: errno. */
int ssi_nodes_count(void);
/* The number of the node that this runs on now, its name (at most 63 bytes) to @name unless
 * that is NULL; -1: errno. */
int ssi_node_self(char *name, size_t size);

#ifdef __cplusplus
}
#endif
#endif
