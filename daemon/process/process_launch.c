/* Start a program: a page for ssi-spawn, a tracked child of ssi-init, a record. */
#include "process_internal.h"

#include "err.h"
#include "event.h"

#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>

static int page_fd(const struct process_launch *l, uint32_t pipes, int *ret)
{
	_cleanup_free_ uint8_t *page = NULL;
	_cleanup_close_ int fd = -1;
	size_t len, done = 0;
	ssize_t n;
	int r;

	r = process_launch_page(l, pipes, &page, &len);
	if (r < 0)
		return r;
	fd = memfd_create("launch", MFD_CLOEXEC);
	if (fd < 0)
		return err_origin(-errno);
	while (done < len) {
		n = write(fd, page + done, len - done);
		if (n < 0)
			return err_origin(-errno);
		done += n;
	}
	*ret = TAKE_FD(fd);
	return 0;
}

static void tell_started(const struct process_room *p, const struct process_record *d,
			 const char *program)
{
	struct event e = { .type = EVENT_APP_STARTED,
			   .node = d->place,
			   .pid = d->pid,
			   .app = d->app,
			   .uid = d->uid };

	(void)snprintf(e.text, sizeof(e.text), "%s", program);
	event_tell(p->events, &e);
}

int process_launch(struct process_room *p, const struct process_launch *l,
		   pid_t *ret_pid)
{
	const char *argv[] = {p->spawn_path, NULL};
	const struct capability_sets sets = capability_initial(l->spread);
	_cleanup_close_ int page = -1, leaf = -1;
	int fds[5], r;
	size_t n_fds = 1;
	uint32_t pipes = 0;
	struct process_entry e = {.record = {.home = room_self(p),
					     .place = room_self(p),
					     .state = PROCESS_HERE,
					     .uid = l->caller.uid,
					     .bound = l->spread ||
						      space_pids_are_few(p->space)}};
	struct space_spawn spec = {.argv = argv, .flags = SPACE_SPAWN_TRACK, .fds = fds};

	if (l->spread)
		spec.flags |= SPACE_SPAWN_ASK;
	if (l->on_terminal)
		fds[n_fds++] = l->terminal;
	for (int i = 0; i < 3; i++)
		if (l->stdio[i] >= 0) {
			pipes |= 1u << i;
			fds[n_fds++] = l->stdio[i];
		}
	r = page_fd(l, pipes, &page);
	if (r < 0)
		return r;
	r = capability_leaf(p->space, &sets, &leaf);
	if (r < 0)
		return r;
	fds[0] = page;
	spec.n_fds = n_fds;
	spec.group_fd = leaf;
	r = space_spawn(p->space, &spec, &e.record.pid, NULL);
	if (r != 0)
		return r == SPACE_E_FULL ? err_origin(-EAGAIN) : err_fold(r);
	e.record.app = e.record.root = e.record.pid;
	(void)snprintf(e.record.name.text, sizeof(e.record.name.text), "%s", l->name);
	r = room_put(p, &e);
	if (r < 0) {
		/* Nobody could ask how it ended. */
		(void)process_kernel_signal(e.record.pid, SIGKILL);
		return r;
	}
	tell_started(p, &e.record, l->argv[0]);
	*ret_pid = e.record.pid;
	return 0;
}
