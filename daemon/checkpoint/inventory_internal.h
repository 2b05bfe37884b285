#pragma once
/*
 * The inside of the inventory.  The lower functions take the space's /proc and
 * root as descriptors, so that they run without a space.
 */
#include "buf.h"
#include "inventory.h"
#include "inventory_mount.h"
#include "inventory_proc.h"

#include <stdarg.h>
#include <sys/stat.h>

DEFINE_CLEANUP(struct inventory, inventory_free)

/* Programs of the space; those below are ssi-init, ssid and its helpers. */
enum { FIRST_PROGRAM = 300 };

int inventory_take_at(struct inventory **ret, int root_fd, int proc_fd, pid_t root);
int inventory_verdict_at(const struct inventory *i, const struct inventory_allow *allow,
			 int proc_fd, char **ret_text,
			 struct inventory_things **ret_things);
int inventory_present_at(const struct inventory *i, int root_fd, int proc_fd,
			 bool same_node, char **ret_text,
			 struct inventory_things **ret_things);
int inventory_compare_at(const struct inventory *saved,
			 const struct inventory *restored, int proc_fd, bool same_node,
			 char **ret_text);

/* inventory.c: the lists; strings are passed on when 0 is returned */
int inventory_add_task(struct inventory *i, const struct inventory_task *task);
int inventory_add_file(struct inventory *i, const struct inventory_file *file);
int inventory_add_file_system(struct inventory *i, const char *name, unsigned *ret);
const struct inventory_task *inventory_find_task(const struct inventory *i, pid_t pid);
/* A pipe that a stream carries? */
bool inventory_is_allowed(const struct inventory_allow *allow,
			  const struct inventory_file *f);
/* A shadow, which does not say what its process holds. */
bool inventory_is_away(const struct inventory_task *t);
const char *inventory_comm(const struct inventory *i, pid_t pid);
/* "fd 5", "mapping". */
enum { INVENTORY_WHAT_MAX = 16 };
const char *inventory_what(const struct inventory_file *f,
			   char buf[static INVENTORY_WHAT_MAX]);
/* "fd 5 of 65537 (xz)", "mapping of 65537 (xz)"; returns @buf. */
enum { INVENTORY_WHERE_MAX = 96 };
const char *inventory_where(const struct inventory *i, const struct inventory_file *f,
			    char buf[static INVENTORY_WHERE_MAX]);

/* inventory_text.c: control characters and backslashes as \xHH, and back. */
int inventory_escape(struct buf *b, const char *text);
/* -EBADMSG when @len bytes are not what inventory_escape() writes. */
int inventory_unescape(const char *text, size_t len, char **ret);
int inventory_printf(struct buf *b, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* A text of lines for people; the first failure is kept until report_done(). */
struct report {
	struct buf text;
	unsigned n_lines;
	int error;
};
void report_line(struct report *r, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* No terminal is driven by a file's name. */
void report_clean(char *line);
/* 0 and NULL without lines, else @outcome and the text. */
int report_done(struct report *r, int outcome, char **ret_text);
void report_fini(struct report *r);

/* inventory_things.c: each thing of @i, of a process that is here, with what becomes of
 * it unless something is in the way. */
int things_new(struct inventory_things **ret, const struct inventory *i,
	       const struct inventory_allow *allow, int proc_fd);
DEFINE_CLEANUP(struct inventory_things, inventory_things_free)
/* One more of them, which blocks. */
int things_add(struct inventory_things *t, pid_t pid, const char *what, const char *is,
	       const char *why);
/* @file of @i, or NULL: @task, is in the way. */
int things_block(struct inventory_things *t, const struct inventory *i,
		 const struct inventory_task *task, const struct inventory_file *file,
		 const char *why);
/* "file /x", "pipe"; malloc()ed. */
char *thing_is(const struct inventory_file *f);

/* inventory_socket.c: what sockets are called. */
struct socket_table;
struct socket_table *socket_table_free(struct socket_table *t);
DEFINE_CLEANUP(struct socket_table, socket_table_free)
int socket_table_new(struct socket_table **ret, int proc_fd, pid_t pid);
/* "tcp 10.0.0.1:22 to 10.0.0.2:4711", a UNIX socket's path, or "". */
const char *socket_table_name(const struct socket_table *t, ino_t inode);
/* The protocol's name ("TCP", "UNIX-STREAM", "NETLINK"). */
int socket_protocol(int proc_fd, const char *path, char *ret, size_t size);
/* A socket for socket_unix_peer(). */
int socket_diag_open(void);
/* *ret_peer 0: not connected, or not accepted yet.  -ENOENT: no such socket. */
int socket_unix_peer(int diag_fd, ino_t inode, ino_t *ret_peer);

/* inventory_verdict.c: see proc_plain_device(). */
bool inventory_plain_device(const struct inventory_file *f);

/* inventory_elf.c: the build id as hex, "" if there is none.  No allocation. */
void elf_build_id(int fd, char ret[static 41]);

/* One inventory_take(). */
struct inventory_take {
	int root_fd, proc_fd;
	pid_t root;
	char prefix[4096]; /* of the space's root in links, "" */
	const struct mount_table *mounts;
	struct socket_table **sockets; /* made when the first socket is met */
	struct inventory *i;
};
/* inventory_file.c: what one task has open or mapped.  -ESRCH: gone. */
int inventory_take_files(struct inventory_take *k, pid_t pid);
/* One link of /proc; with path and type set.  1: leave it out. */
int inventory_classify(struct inventory_take *k, const char *link,
		       struct inventory_file *f);

/* inventory_holder.c: processes outside of the tree that hold one of these. */
struct holder {
	enum inventory_type type; /* PIPE, UNIX, FIFO */
	dev_t device;		  /* of a FIFO */
	ino_t inode;
	pid_t pid; /* 0: none found */
	char comm[17];
};
int holders_find(const struct inventory *i, int proc_fd, struct holder *holders,
		 size_t n);
/* By type, device and inode. */
struct holder *holders_get(struct holder *holders, size_t n, enum inventory_type type,
			   dev_t device, ino_t inode);

/*
 * inventory_child.c: run @child in a process of its own, which may only make system
 * calls, and collect what it writes to @out_fd.  -ETIMEDOUT: killed.  It is no child
 * to anybody's waitpid(-1), and sends no SIGCHLD.
 */
int child_ask(void (*child)(void *argument, int out_fd), void *argument, nsec_t timeout,
	      size_t max, struct buf *ret);
/* For @child: all of it, or the end of the process. */
void child_write(int out_fd, const void *data, size_t len);

/* inventory_access.c: would the kernel let a restored task open what it has? */
struct access_check {
	const struct inventory_file *file; /* of the restored tree */
	int mode;			   /* R_OK, W_OK, X_OK */
	enum { ACCESS_DENIED, ACCESS_GRANTED, ACCESS_CHANGED } answer;
};
int access_ask(int proc_fd, struct access_check *checks, size_t n);
/* "5/fd/3", "5/map_files/1000-2000", "5/exe", in /proc. */
enum { INVENTORY_LINK_MAX = 80 };
void inventory_link(const struct inventory_file *f,
		    char buf[static INVENTORY_LINK_MAX]);
