/*
 * Memory that a dump leaves: some pieces, each of which says when it was read.
 *
 * A process whose memory was not put back has holes, and may not run.
 */
#include "sim_proc.h"

#include "pages.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct pages_reader {
	struct sim_machine *machine;
	pid_t pid;
	unsigned n_read;
};

int pages_reader_new(struct pages_reader **ret, int proc_fd, pid_t pid)
{
	struct sim_machine *m = &sim_kernel->machines[proc_fd - SIM_PROC_FD];
	struct sim_process *p = sim_find(m, pid);

	if (!p || p->zombie)
		return -ESRCH;
	p->n_pieces = (unsigned)world_below(sim_kernel->w, 12);
	*ret = calloc(1, sizeof(**ret));
	assert(*ret);
	**ret = (struct pages_reader){m, pid, 0};
	return 0;
}

struct pages_reader *pages_reader_free(struct pages_reader *r)
{
	free(r);
	return NULL;
}

int pages_reader_image(struct pages_reader *r, const char *file, const void *data,
		       size_t len)
{
	(void)r;
	(void)file;
	(void)data;
	(void)len;
	return 0;
}

int pages_reader_next(struct pages_reader *r, struct pages_piece *ret)
{
	struct sim_process *p = sim_find(r->machine, r->pid);

	ret->n_runs = ret->len = 0;
	if (!p || p->zombie)
		return -ESRCH;
	world_check(sim_kernel->w, !p->live, "process %d is read while it runs",
		    p->pid);
	if (r->n_read == p->n_pieces)
		return 0;
	ret->runs[ret->n_runs++] = (struct pages_run){r->n_read++, sizeof(p->step)};
	memcpy(ret->data, &p->step, sizeof(p->step));
	ret->len = sizeof(p->step);
	return 0;
}

bool pages_may_be_placed(void)
{
	return world_below(sim_kernel->w, 4) > 0;
}

int pages_placer_new(struct pages_placer **ret, const struct env *env)
{
	(void)env;
	*ret = calloc(1, sizeof(**ret));
	assert(*ret);
	return 0;
}

void pages_placer_end(struct pages_placer *p)
{
	p->process = 0;
}

struct pages_placer *pages_placer_free(struct pages_placer *p)
{
	free(p);
	return NULL;
}

int pages_place(struct pages_placer *placer, const struct pages_run *runs,
		size_t n_runs, const uint8_t *data, size_t *io_done)
{
	struct sim_process *p;
	uint64_t step;

	if (!placer->process)
		return PAGES_E_EARLY;
	p = sim_find(placer->machine, placer->process);
	if (!p || p->zombie)
		return -ESRCH;
	if (!n_runs)
		return 0;
	memcpy(&step, data, sizeof(step));
	world_check(sim_kernel->w, step == p->step,
		    "process %d gets memory of another time", p->pid);
	/* In any order, as there may be two links. */
	world_check(sim_kernel->w, p->missing & 1u << runs[0].at,
		    "process %d gets piece %llu, of %x that are missing", p->pid,
		    (unsigned long long)runs[0].at, p->missing);
	p->missing &= ~(1u << runs[0].at);
	*io_done += runs[0].len;
	return 0;
}
