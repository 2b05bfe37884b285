/* What ssi-ps shows of this node, read from the space's /proc. */
#include "process_internal.h"

#include "err.h"

#include <stdio.h>
#include <string.h>

struct list {
	struct process_room *room;
	struct process_info *infos;
	size_t n, room_for;
	nsec_t boot; /* CLOCK_REALTIME of it */
};

static void set_command(struct process_room *p, const struct proc_stat *s,
			struct process_info *i)
{
	size_t len;

	if (proc_cmdline_read(space_proc_fd(p->space), s->pid, i->command,
			      sizeof(i->command), &len) < 0 ||
	    len == 0) {
		(void)snprintf(i->command, sizeof(i->command), "[%.64s]", s->comm);
		return;
	}
	for (size_t k = 0; k + 1 < len; k++)
		if (!i->command[k])
			i->command[k] = ' ';
}

static void describe(struct list *l, const struct proc_stat *s,
		     const struct process_record *d, struct process_info *i)
{
	long tick = sysconf(_SC_CLK_TCK), page = sysconf(_SC_PAGESIZE);

	*i = (struct process_info){.pid = s->pid,
				   .ppid = s->ppid < SPACE_PID_MIN ? 1 : s->ppid,
				   .pgid = s->pgid,
				   .sid = s->sid,
				   .app = room_app(l->room, s),
				   .name = d->name,
				   .home = d->home,
				   .place = d->place,
				   .uid = d->uid,
				   .state = d->moving ? 'M' : s->state,
				   .cpu_ns = s->cpu_ticks * (NSEC_PER_SEC / tick),
				   .rss_bytes = s->rss_pages * page,
				   .start_ns = l->boot +
					       s->start_ticks * (NSEC_PER_SEC / tick),
				   .n_threads = s->n_threads};
	if (i->state == 't')
		i->state = 'T';
	set_command(l->room, s, i);
}

static int add(void *owner, pid_t pid)
{
	struct list *l = owner;
	struct process_record d;
	struct process_info *more;
	struct proc_stat s;

	if (room_real(l->room, pid, &s) != 0 || process_record(l->room, pid, &d) != 0 ||
	    (d.state == PROCESS_AWAY && !d.moving))
		return 0;
	if (l->n == l->room_for) {
		l->room_for = l->room_for ? 2 * l->room_for : 64;
		more = realloc(l->infos, l->room_for * sizeof(*more));
		if (!more)
			return err_origin(-ENOMEM);
		l->infos = more;
	}
	describe(l, &s, &d, &l->infos[l->n++]);
	return 0;
}

int process_list(struct process_room *p, struct process_info **ret, size_t *ret_n)
{
	struct list l = {.room = p};
	int r;

	l.boot = env_realtime(p->env) - env_now(p->env);
	r = proc_each(space_proc_fd(p->space), add, &l);
	if (r < 0) {
		free(l.infos);
		return r;
	}
	*ret = l.infos;
	*ret_n = l.n;
	return 0;
}
