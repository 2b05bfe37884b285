#pragma once
/* What the files of criu_*.c share. */
#include "buf.h"
#include "cleanup.h"
#include "criu.h"
#include "criu_rpc.pb-c.h"
#include "sm.h"

enum { CRIU_TEXT_MAX = 512 };

#define CRIU_LOG_FILE "criu.log"

struct criu_stream;
struct criu_files;

struct criu {
	const struct env *env;
	struct space *space;
	char *path, *libexec_dir;
	int private_dir_fd;
	struct criu_features features;
	struct env_timer check_again;
	uint64_t n_runs; /* ever */
	struct criu_run *runs;
	struct criu_run *warm; /* of CRIU_RUN_WARM, one of them */
};

enum criu_run_kind { CRIU_RUN_DUMP, CRIU_RUN_RESTORE, CRIU_RUN_CHECK, CRIU_RUN_WARM };

enum criu_run_state {
	CRIU_RUN_TALKING,
	CRIU_RUN_HOLDING,  /* restore: the tree is being frozen, criu waits */
	CRIU_RUN_ANSWERED, /* what is left of criu and of its bytes is awaited */
	CRIU_RUN_ENDING,   /* the leaf is being emptied, on another thread */
	CRIU_RUN_DONE,
};

struct criu_run {
	struct criu *criu; /* NULL: it was freed; end silently */
	struct space *space;
	struct criu_run *next;
	enum criu_run_kind kind;
	struct sm sm;
	char name[32]; /* of the leaf and of the directory */
	int private_dir_fd, dir_fd;
	struct space_group *leaf;
	struct env_fd talk; /* swrk */
	struct env_fd life; /* pidfd of criu, -1: not watched */
	struct env_timer deadline;
	nsec_t timeout;
	struct env_work work;
	int work_result;
	bool hung_up;      /* criu is gone, or all of it that talks */
	bool success;      /* it said so */
	bool stop;         /* the run is to end badly; @text says why */
	bool taken;        /* restore: the tree is in its group */
	pid_t sender;      /* who spoke last */
	char text[CRIU_TEXT_MAX], said[CRIU_TEXT_MAX];
	criu_done_cb done;
	void *owner;

	struct criu_dump_spec dump;
	struct criu_stream *stream; /* by one of the two its images come */
	struct criu_files *files;
	struct criu_restore_spec restore;
	char *home; /* in place: the leaf where the shadow was, "" for the space's own */
};

/* criu_run.c: the life of every run. */

/* Its directory, its leaf, its number.  Nothing runs yet. */
int criu_run_new(struct criu *c, enum criu_run_kind kind, nsec_t timeout, criu_done_cb done,
		 void *owner, struct criu_run **ret);
/* While nothing of it runs. */
struct criu_run *criu_run_free(struct criu_run *run);
/* Listen, with the deadline; done() comes from here on.  < 0: free it. */
int criu_run_begin(struct criu_run *run, int owned_socket);
/* The end of HOLDING: go on if @result is 0. */
void criu_run_held(struct criu_run *run, int result);
/* The run cannot succeed any more. */
void criu_run_stop(struct criu_run *run, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* criu answered, or the stream is over: is that all? */
void criu_run_look(struct criu_run *run);
/* criu as a service child; @argv NULL: `criu swrk 3`; @watched: its end ends the run.
 * SPACE_E_*. */
int criu_run_spawn(struct criu_run *run, const char *const *argv, pid_t set_tid, int peer,
		   bool watched);
/* The criu that stands ready becomes a run of @kind, and waits for its request; NULL: there is
 * none. */
struct criu_run *criu_run_take(struct criu *c, enum criu_run_kind kind, nsec_t timeout,
			       criu_done_cb done, void *owner);
/* Both ends of a new swrk socket. */
int criu_run_socket(int ret[static 2]);

/* criu_restore.c: at "pre-resume"; and, on the thread that ends a run, what must go or stay. */
void criu_restore_hold(struct criu_run *run);
void criu_restore_end(struct criu_run *run, bool ok);

/* criu_swrk.c: messages. */

enum {
	_CRIU_SWRK_E_SUCCESS,
	CRIU_SWRK_E_AGAIN, /* nothing there */
	CRIU_SWRK_E_END,   /* nobody there */
};

int criu_swrk_send(int fd, const Ssi__Criu__Request *q);
int criu_swrk_receive(int fd, Ssi__Criu__Response **ret, pid_t *ret_sender);
/* Answer a notification. */
int criu_swrk_acknowledge(int fd);
/* Options common to all: @dir_fd of the images, work and log in the run's own directory. */
void criu_swrk_options(struct criu_run *run, int dir_fd, Ssi__Criu__Options *o);

/* criu_stream.c: the image streamer's end of a dump. */

/* @problem NULL: every byte was delivered and criu's connection is closed. */
typedef void (*criu_stream_cb)(void *owner, const char *problem);
int criu_stream_new(struct criu_stream **ret, const struct env *env, int dir_fd,
		    const struct image_sink *sink, criu_stream_cb on_over, void *owner);
struct criu_stream *criu_stream_free(struct criu_stream *s);
/* Nothing is read any more, the sink is not called again. */
void criu_stream_stop(struct criu_stream *s);
void criu_stream_pause(struct criu_stream *s, bool pause);
bool criu_stream_is_over(const struct criu_stream *s);

/* criu_files.c: the images of a dump by a criu that cannot stream. */

/* Has criu written a whole dump to @dir_fd? */
bool criu_files_written(int dir_fd);
/* As for a stream; the files are emptied on the way. */
int criu_files_new(struct criu_files **ret, const struct env *env, int dir_fd,
		   const struct image_sink *sink, criu_stream_cb on_over, void *owner);
struct criu_files *criu_files_free(struct criu_files *f);
void criu_files_stop(struct criu_files *f);
void criu_files_pause(struct criu_files *f, bool pause);
bool criu_files_are_over(const struct criu_files *f);

/* criu_dump.c: every byte of the images was delivered; the second sees to it that they
 * come, once criu has ended well. */
bool criu_dump_is_over(const struct criu_run *run);
bool criu_dump_collect(struct criu_run *run);

/* criu.c: what the program that runs as @pid can do. */
void criu_look_at(struct criu *c, pid_t pid);

/* criu_log.c: the line of the log in @dir_fd that matters; false: there is none. */
bool criu_log_find(int dir_fd, char *ret_text, size_t size);
/* One line of a log, for people; false: it says nothing about the cause. */
bool criu_log_line(const char *line, char *ret_text, size_t size);
