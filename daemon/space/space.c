/*
 * The client of ssi-init.
 *
 * happy path: two connections, one for calls, one for events; ssi-init tells the
 * ends that wait as soon as the second is there.
 * failure modes: ssi-init does not answer, or hangs up: the space is lost, told
 * once, from the loop; calls return -ENOTCONN from then on.
 */
#include "space_internal.h"

#include "err.h"
#include "log.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

static void lose(struct space *s)
{
	if (s->lost)
		return;
	s->lost = true;
	s->command_fd = close_fd(s->command_fd);
	env_unwatch(s->env, &s->event_watch);
	(void)env_arm(s->env, &s->lost_timer, 0);
}

static void on_lost_timer(struct env_timer *timer)
{
	struct space *s = container_of(timer, struct space, lost_timer);

	env_disarm(s->env, timer);
	s->events->on_lost(s->owner);
}

static void tell(struct space *s, const struct init_event *e)
{
	struct space_exit exit = { e->pid, e->code, e->status };

	if (e->type == INIT_EVENT_EXIT && s->events->on_exit)
		s->events->on_exit(s->owner, &exit);
	else if (e->type == INIT_EVENT_STOP && s->events->on_stop)
		s->events->on_stop(s->owner, e->pid, e->status);
	else if (e->type == INIT_EVENT_EXEC)
		space_exec_on_event(s, e);
	else if (e->type == INIT_EVENT_PIDS_LOW || e->type == INIT_EVENT_PIDS_STRAY)
		space_pids_on_event(s, e);
}

static void on_event(struct env_fd *watch, unsigned events)
{
	struct space *s = container_of(watch, struct space, event_watch);
	struct init_event e = { 0 };
	ssize_t n;

	/* One a turn: whoever is told may call anything, also space_free(). */
	n = recv(watch->fd, &e, sizeof(e), MSG_DONTWAIT);
	if (n >= (ssize_t)offsetof(struct init_event, id)) /* of an older ssi-init */
		tell(s, &e);
	else if (n >= 0 || (errno != EAGAIN && errno != EINTR))
		lose(s);
}

int space_call(struct space *s, struct init_request *request, const int *fds, size_t n_fds,
	       struct init_reply *ret, int *ret_fds, size_t n_ret_fds)
{
	int r;

	for (size_t i = 0; i < n_ret_fds; i++)
		ret_fds[i] = -1;
	if (s->lost)
		return err_origin(-ENOTCONN);
	r = space_wire_call(s->command_fd, request, fds, n_fds, ret, ret_fds, n_ret_fds);
	if (r < 0) {
		lose(s);
		return r;
	}
	return ret->result < 0 ? err_origin(ret->result) : 0;
}

/* A PID must mean the same to us as to ssi-init. */
static int check_namespace(int pidns_fd)
{
	struct stat ours, theirs;

	if (stat("/proc/self/ns/pid", &ours) < 0 || fstat(pidns_fd, &theirs) < 0)
		return err_origin(-errno);
	return ours.st_ino == theirs.st_ino ? 0 : err_origin(-EXDEV);
}

static int open_connections(struct space *s, const struct space_config *config)
{
	int fds[3], again[3], r;

	r = err_fold(space_wire_open(config->runtime_dir, 0, &s->command_fd, fds));
	if (r < 0)
		return r;
	s->root_fd = fds[0];
	s->proc_fd = fds[1];
	r = check_namespace(fds[2]);
	(void)close(fds[2]);
	if (r < 0)
		return r;
	r = err_fold(space_wire_open(config->runtime_dir, INIT_HELLO_EVENTS, &s->event_watch.fd,
				     again));
	if (r < 0)
		return r;
	for (size_t i = 0; i < N_ELEMENTS(again); i++)
		(void)close(again[i]);
	return space_cgroup_open("work", s->work_path, sizeof(s->work_path), &s->work_fd);
}

DEFINE_CLEANUP(struct space, space_free)

int space_new(struct space **ret, const struct env *env, const struct space_config *config,
	      const struct space_events *events, void *owner)
{
	_cleanup_(space_freep) struct space *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_origin(-ENOMEM);
	s->env = env;
	s->events = events;
	s->owner = owner;
	s->command_fd = s->root_fd = s->proc_fd = s->work_fd = -1;
	s->event_watch = (struct env_fd){ .cb = on_event, .fd = -1 };
	s->lost_timer.cb = on_lost_timer;
	r = open_connections(s, config);
	if (r == 0)
		r = space_lease_start(s);
	if (r < 0)
		return r;
	/* Armed once and taken back, so that arming it when all is lost cannot fail. */
	r = env_arm(env, &s->lost_timer, NSEC_PER_SEC * 3600);
	if (r < 0)
		return r;
	r = env_watch(env, &s->event_watch, ENV_READ);
	if (r < 0)
		return r;
	*ret = TAKE(s);
	return 0;
}

struct space *space_free(struct space *s)
{
	if (!s)
		return NULL;
	s->pids = space_pids_free(s->pids);
	env_disarm(s->env, &s->lost_timer);
	if (s->event_watch.impl)
		env_unwatch(s->env, &s->event_watch);
	(void)close_fd(s->event_watch.fd);
	(void)close_fd(s->command_fd);
	(void)close_fd(s->root_fd);
	(void)close_fd(s->proc_fd);
	(void)close_fd(s->work_fd);
	free(s);
	return NULL;
}

int space_kill(struct space *s)
{
	struct init_request request = { .verb = INIT_END };
	struct init_reply reply;
	_cleanup_close_ int fd = -1;
	int r;

	r = err_fold(space_call(s, &request, NULL, 0, &reply, NULL, 0));
	if (r < 0)
		return r;
	fd = openat(s->work_fd, "cgroup.kill", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "1", 1) != 1)
		return err_origin(-errno);
	return 0;
}

int space_root_fd(const struct space *s)
{
	return s->root_fd;
}

int space_proc_fd(const struct space *s)
{
	return s->proc_fd;
}
