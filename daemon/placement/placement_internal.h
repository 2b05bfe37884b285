#pragma once
/* What the files of this room share. */
#include "cleanup.h"
#include "placement.h"

#include <sys/queue.h>
#include <uthash.h>

enum {
	PLACEMENT_GIVEN_MAX = 12, /* pipes; of SHADOW_FDS_MAX */
	PLACEMENT_DESCRIPTORS_MAX = 48,
	PLACEMENT_NUMBER_MAX = 255, /* of a descriptor */
	PLACEMENT_SAME_MAX = 64,
};

enum placement_kind {
	PLACEMENT_FILE,
	PLACEMENT_PIPE,
	PLACEMENT_ENDED,
	PLACEMENT_INPUT,
	PLACEMENT_TERMINAL,
};

struct placement_descriptor {
	int number;
	enum placement_kind kind;
	char *path; /* FILE */
	uint32_t flags;
	uint64_t offset;
	ino_t inode; /* FILE: 0 for a device */
	unsigned given;
};

/* A path that must lead to one file on both nodes. */
struct placement_same {
	char *path;
	ino_t inode;
	char *file_system; /* mount_table_name() */
};

/* All that a program inherits.  What is in it is its own. */
struct placement_exec {
	struct process_launch launch; /* stdio is not used */
	char *program;
	uint64_t program_size, program_changed;
	uint64_t blocked, ignored;
	struct placement_descriptor descriptors[PLACEMENT_DESCRIPTORS_MAX];
	size_t n_descriptors;
	struct placement_same same[PLACEMENT_SAME_MAX];
	size_t n_same;
	/* Ends of pipes; -1: of one that has ended, or this is the target.  @input: it reads. */
	int given[PLACEMENT_GIVEN_MAX];
	bool input[PLACEMENT_GIVEN_MAX];
	size_t n_given;
	bool has_terminal; /* a controlling one; given behind the pipes */
	struct tty_state terminal;
};

void placement_exec_fini(struct placement_exec *x);

/*
 * placement_look.c, on a worker.  @pid waits in @call: what does it hand on?
 * PLACEMENT_E_STAYS: something that another node cannot have; @why says what.
 */
enum {
	_PLACEMENT_E_SUCCESS,
	PLACEMENT_E_STAYS,
};

struct placement_look {
	int root_fd, proc_fd;
	struct space_exec call;
	struct placement_exec exec;
	struct process_member member, parent; /* all but app and generation */
	uint64_t empty, argv; /* in its memory: a NUL byte, its arguments */
	char why[128];
};

int placement_look(struct placement_look *l);
/* On the target, on a worker: are these the same here? */
int placement_find(int root_fd, int proc_fd, const struct placement_exec *x, char *why,
		   size_t why_size);

/* What the source says of a program that could begin. */
struct placement_end {
	bool begin; /* or it does not */
	bool wait;  /* not yet, but it is committed */
	struct process_alarm alarm;
};

/* A program that is on its way from here; placement.c. */
struct leaving;
/* One that is on its way to here; placement_target.c. */
struct coming;
/* A job of ours, wherever it runs. */
struct job;

TAILQ_HEAD(leavings, leaving);
TAILQ_HEAD(comings, coming);

struct journal;

struct placement {
	struct placement_neighbours n;
	char spawn_path[256];
	struct leavings leaving;
	struct comings coming;
	struct job *jobs;
	struct journal *journal; /* mapped, kept */
};

/* placement_job.c */
/* A program begins on @node.  Of a process of ours elsewhere, and of one that came, it is a
 * job. */
void job_note(struct placement *p, pid_t pid, node_id node, bool whole);
/* It could not leave, and is not to try again. */
void job_stays(struct placement *p, pid_t pid);
void job_forget(struct placement *p, pid_t pid);
/* May its program not begin elsewhere?  Since it is of a job, or stays. */
bool job_covers(struct placement *p, pid_t pid);
node_id job_place(struct placement *p);
void job_fini(struct placement *p);

/* placement_journal.c: who may have become its shadow, and whose program must begin then. */
struct journal_entry {
	pid_t pid; /* 0: free */
	node_id node;
	uint32_t generation;
};
int journal_open(struct placement *p);
/* -ENOSPC */
int journal_add(struct placement *p, const struct journal_entry *e);
void journal_remove(struct placement *p, pid_t pid);
/* Entry number @i of those there are; false past the last. */
bool journal_entry(const struct placement *p, size_t i, struct journal_entry *ret);

/* placement_target.c */
int coming_start(struct placement *p);
void coming_on_ask(struct placement *p, struct rpc_call *call, struct process_member *member,
		   const struct process_member *parent, struct placement_exec *owned_exec,
		   const stream_id *streams, uint8_t *owned_page, size_t page_len);
void coming_on_end(struct placement *p, struct rpc_call *call, pid_t pid, uint32_t generation,
		   const struct placement_end *end);
void coming_on_view(struct placement *p);
void coming_fini(struct placement *p);

/* placement.c */
void leaving_on_state(struct placement *p, struct rpc_call *call, pid_t pid,
		      uint32_t generation);
