#pragma once
/*
 * What a tree of processes holds: tasks, descriptors, mappings; read from /proc
 * of a frozen (or running: then only a forecast) tree.
 *
 * Three uses, one list: refuse early, by name, what cannot move or be saved; be
 * the manifest's list of files; check a restored, still frozen tree against it
 * before it runs an instruction, since CRIU reopens files by path, as root,
 * following symlinks (a swapped symlink gave a process root's file: tried).
 *
 * Reads the process's /proc entries only, opens nothing of a user's by path.
 * Blocking but short; fit for env_work().  All counts are bounded.
 *
 * Which file is which.  Device numbers say nothing on another node, and neither
 * does statfs (XFS makes its id from the device number, NFS and FUSE have none,
 * a cloned disk has its twin's).  So every file names its file system by `fs`:
 * for a disk or a tmpfs the kernel that runs (its boot id) and the device; for
 * a network file system that the administrator mounted, type and source
 * ("nfs4 server:/home").  Two entries with equal names of their file system
 * speak of one file system; anything else is "the node's own".
 */
#include "capability.h"
#include "ids.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct space;

enum inventory_type {
	INVENTORY_FILE = 1,
	INVENTORY_DIRECTORY,
	INVENTORY_PIPE,
	INVENTORY_FIFO,
	INVENTORY_UNIX,
	INVENTORY_INET,
	INVENTORY_SOCKET, /* of another family */
	INVENTORY_TTY,
	INVENTORY_DEVICE,
	INVENTORY_ANON,   /* eventfd, epoll, timerfd, signalfd, inotify... by `path` */
};

enum {
	INVENTORY_MAPPING = -1, /* all mappings of one file, opened in one way, are one entry */
	INVENTORY_CWD = -2,
	INVENTORY_ROOT = -3,
	INVENTORY_EXE = -4,
};

enum {
	INVENTORY_TASKS_MAX = 4096,
	INVENTORY_FILES_MAX = 16384,
	INVENTORY_FILE_SYSTEMS_MAX = 256,
	INVENTORY_TEXT_MAX = 1 << 20,
};

/* In inventory_file.flags, of a mapping: PROT_* << 24, and this. */
#define INVENTORY_SHARED (1 << 27)

struct inventory_file {
	pid_t pid;
	int fd;         /* or INVENTORY_MAPPING... */
	enum inventory_type type;
	char *path;     /* as /proc shows it, " (deleted)" taken off */
	bool deleted;
	unsigned fs;    /* index into file_systems; 0: on no mount of the space */
	dev_t device;
	dev_t rdev;     /* of a device or tty */
	ino_t inode;
	uint32_t n_links;
	uint64_t born;  /* birth time in ns, 0: the file system does not say */
	uid_t uid;
	gid_t gid;
	mode_t mode;
	uint64_t size;
	int flags;      /* O_* of fdinfo; of a mapping O_ACCMODE of its file and PROT_* << 24 */
	uint64_t start, end; /* of one such mapping; not in the text */
	bool locked;    /* a file lock of any kind is held */
	bool shared;    /* inventory_find_shared(): a pipe that programs outside hold too */
	char build_id[41]; /* of a mapped or executed ELF file, hex, or "" */
};

/* Of pipes: which are in other programs' hands as well? */
struct inventory;
int inventory_find_shared(struct inventory *i, int proc_fd);

struct inventory_task {
	pid_t pid, ppid, pgid, sid; /* ppid 0: the root */
	uid_t uid;      /* effective */
	gid_t gid;
	unsigned n_threads;
	bool no_new_privs, seccomp;
	bool ended;     /* a zombie; not in the text */
	pid_t tracer;   /* 0: not traced */
	uint64_t rss_bytes;
	uint64_t own_bytes; /* memory that no file has, resident or swapped out; not in the text */
	char comm[17];
	struct capability_sets capabilities;
};

struct inventory {
	struct inventory_task *tasks; /* the root first, parents before children */
	size_t n_tasks;
	struct inventory_file *files;
	size_t n_files;
	char **file_systems; /* names, see above; the first stands for "none of the space's" */
	size_t n_file_systems;
};

/* All of @root's tree.  -ESRCH when it is gone, -E2BIG when it is beyond the limits above. */
int inventory_take(struct inventory **ret, struct space *space, pid_t root);
struct inventory *inventory_free(struct inventory *i);

/* Whether both say the same of who holds what; not of how much memory, or of what size. */
bool inventory_same_things(const struct inventory *a, const struct inventory *b);

/* Not in the way: pipes of the tree's standard streams that a stream carries (by inode), and
 * the filter of a tree that is bound.  In the way: a task without one of these capabilities. */
struct inventory_allow {
	const ino_t *pipes;
	size_t n_pipes;
	bool bound; /* as its record has it */
	uint32_t capabilities; /* by bit */
};

/* What becomes of one thing that a tree holds when the tree moves. */
enum inventory_fate {
	INVENTORY_MOVES = 1,
	INVENTORY_FORWARDED, /* it stays, and is reached from there */
	INVENTORY_BLOCKS,
};

struct inventory_thing {
	pid_t pid;
	enum inventory_fate fate;
	char *what; /* "process", "fd 5", "mapping", "timer 0" */
	char *is;   /* "pipe", "file /x" */
	char *why;  /* what is done with it, or what is in the way: the verdict's lines of it */
};

/* All of a tree: processes first.  Bounded: those that block come through before others. */
struct inventory_things {
	struct inventory_thing *list;
	size_t n, room;
	size_t at;     /* the last that was found to block */
	size_t n_more; /* left out */
};
struct inventory_things *inventory_things_free(struct inventory_things *t);
/* Those of @theirs, which a target has found in the way, block here under the same names. */
int inventory_things_mark(struct inventory_things *t, const struct inventory_things *theirs);
/* Leave out what is more than a message holds. */
void inventory_things_cut(struct inventory_things *t);

/*
 * What stands in the way of moving or saving it: 0, or INVENTORY_E_BLOCKED with
 * one line a thing ("fd 5 of 65537 (xz): file lock on /shared/x", "io_uring",
 * "traced by 71", "device /dev/fuse", "pipe to 65540, which stays").  *ret_text: malloc()ed.
 * @ret_things: NULL, or what becomes of each, whatever the verdict.
 */
enum {
	_INVENTORY_E_SUCCESS,
	INVENTORY_E_BLOCKED,
	INVENTORY_E_DIFFERS,
};
int inventory_verdict(const struct inventory *i, const struct inventory_allow *allow,
		      struct space *space, char **ret_text,
		      struct inventory_things **ret_things);

/*
 * On the target, before anything is frozen: does it have these files, with the right type, size,
 * build id?  Looks beneath the space's root without following magic links out of it.  Not
 * @same_node: what inventory_compare() would say of a node's own files is foreseen as well.
 * @ret_things: NULL, or those that are in the way, of no PID.
 */
int inventory_present(const struct inventory *i, struct space *space, bool same_node,
		      char **ret_text, struct inventory_things **ret_things);

/*
 * Is the restored, still frozen tree what the inventory says?  Tasks: the same PIDs, families,
 * credentials.  Descriptors and mappings: the same ones, none more, each of the same type and:
 *
 *  - the same file (file system by name, inode, birth time) under the same path, with the same
 *    owner and mode, opened with no other access: passes.  It may be one that the task
 *    could not open itself (a log opened before it dropped its rights): the seal says that it
 *    had this very file open, and nobody changed the rights to it since, so a restore gives
 *    nothing that was not there.  Nor does it matter what others wrote into it.
 *  - a file of a node's own, elsewhere: the same path, owner, mode, size and build id, not open
 *    for writing, and the kernel says that the task's credentials may open it so.
 *    With @same_node (the same node, another boot) the inode must match too; then size is
 *    free and it may be open for writing, if the kernel says so.
 *  - a deleted file, which CRIU makes anew from a sealed image: deleted, with no link left, and
 *    path, owner, mode, size.
 *  - a device: one of null, zero, full, random, urandom, by number.
 *  - pipes, sockets and the like have no path to be led astray by: the type, and kind.
 *
 * A symlink or a renamed directory on the way shows as another path, a hard link as another
 * inode, a FIFO as another type.  Everything mapped without write access must also have kept
 * size and build id.  Not seen: an access control list that changed without the mode.
 */
int inventory_compare(const struct inventory *saved, const struct inventory *restored,
		      struct space *space, bool same_node, char **ret_text);

/* What was restored of it has the capabilities that it had.  Blocks. */
int inventory_give_capabilities(const struct inventory *i, struct space *space);

/* Text, one line an entry, versioned; parsing bounds everything. */
int inventory_format(const struct inventory *i, char **ret, size_t *ret_len);
int inventory_parse(struct inventory **ret, const char *text, size_t len);
