/*
 * Dumps.
 *
 * The images go through criu's image streamer protocol, spoken by us
 * (criu_stream.c), so that no second copy of the process stands in memory.  Over
 * swrk that takes our patch; a criu without it does not know that option, leaves it
 * unread and writes the images to the run's directory, from where they are passed on
 * when it is done (criu_files.c).  Which of the two it was is told by what it did,
 * not by what is known of the program.
 *
 * failure modes: the directory is on the private tmpfs, which such images may fill;
 * then the dump fails, and says so.
 */
#include "criu_internal.h"

#include "err.h"
#include "fault.h"

#include <string.h>

static void on_stream_over(void *owner, const char *problem)
{
	struct criu_run *run = owner;

	if (problem)
		criu_run_stop(run, "%s", problem);
	else
		criu_run_look(run);
}

bool criu_dump_is_over(const struct criu_run *run)
{
	return run->files ? criu_files_are_over(run->files)
			  : criu_stream_is_over(run->stream);
}

bool criu_dump_collect(struct criu_run *run)
{
	int r = 0;

	if (!run->files && criu_files_written(run->dir_fd)) {
		criu_stream_stop(run->stream);
		(void)fault("checkpoint.written");
		r = criu_files_new(&run->files, run->criu->env, run->dir_fd,
				   &run->dump.sink, on_stream_over, run);
	}
	if (r < 0) {
		criu_run_stop(run, "its images cannot be read: %s", strerror(-r));
		return false;
	}
	return criu_dump_is_over(run);
}

static int ask(struct criu_run *run, int fd)
{
	const struct criu_dump_spec *d = &run->dump;
	Ssi__Criu__Request q = SSI__CRIU__REQUEST__INIT;
	Ssi__Criu__Options o;

	criu_swrk_options(run, run->dir_fd, &o);
	o.has_pid = o.has_leave_running = o.has_shell_job = o.has_stream = true;
	o.has_leave_pages = o.leave_pages = d->leave_pages;
	o.pid = d->root;
	o.leave_running = o.stream = true;
	o.shell_job = d->shell_job;
	o.freeze_cgroup = (char *)space_group_path(d->group);
	o.external = (char **)d->external;
	o.n_external = d->n_external;
	q.type = SSI__CRIU__TYPE__DUMP;
	q.opts = &o;
	return criu_swrk_send(fd, &q);
}

static int open_stream(struct criu_run *run)
{
	return criu_stream_new(&run->stream, run->criu->env, run->dir_fd, &run->dump.sink,
			       on_stream_over, run);
}

static int start(struct criu_run *run)
{
	_cleanup_close_ int ours = -1, theirs = -1;
	int ends[2], r;

	r = criu_run_socket(ends);
	if (r < 0)
		return r;
	ours = ends[0];
	theirs = ends[1];
	r = open_stream(run);
	if (r == 0)
		r = ask(run, ours);
	if (r == 0)
		r = criu_run_begin(run, TAKE_FD(ours));
	if (r == 0)
		r = criu_run_spawn(run, NULL, 0, theirs, true);
	return err_fold(r);
}

int criu_dump(struct criu *c, const struct criu_dump_spec *spec, criu_done_cb done, void *owner,
	      struct criu_run **ret)
{
	struct criu_run *run;
	int r;

	run = criu_run_take(c, CRIU_RUN_DUMP, spec->timeout, done, owner);
	if (run) {
		run->dump = *spec;
		if (open_stream(run) < 0 || ask(run, run->talk.fd) < 0)
			criu_run_stop(run, "criu cannot be asked");
		*ret = run;
		return 0;
	}
	r = criu_run_new(c, CRIU_RUN_DUMP, spec->timeout, done, owner, &run);
	if (r < 0)
		return r;
	run->dump = *spec;
	r = start(run);
	if (r < 0) {
		criu_run_free(run);
		return r;
	}
	*ret = run;
	return 0;
}

void criu_dump_pause(struct criu_run *run, bool pause)
{
	criu_stream_pause(run->stream, pause);
	criu_files_pause(run->files, pause);
}
