/*
 * ssid's ends of shadows.
 *
 * A connection is made by ssid with itself, over the path that only root can
 * reach; the shadow gets the connecting end, ssi-init a duplicate of ours before
 * the shadow depends on it.
 *
 * Happy path: a signal taken by a shadow comes as a report, is sent to the
 * process's place, and acknowledged when it was delivered there, one after the
 * other, so their order is kept.
 *
 * Failure modes: the place does not answer or the process is on its way -> sent
 * again, under the same number, which the place remembers; ssid starts again ->
 * RESUME, and the shadow repeats what is not acknowledged; the shadow is killed
 * -> its end closes, and the real process is killed too.
 */
#include "process_internal.h"

#include "err.h"
#include "log.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

static const nsec_t again_after = 200 * NSEC_PER_MSEC;
static const char kept_prefix[] = "process/shadow/";
enum { FOREGROUND_TRIES = 10 };

struct shadow {
	struct process_room *room;
	pid_t pid;
	struct env_fd watch;
	struct wire_call call;
	struct env_timer again;
	struct wire_signal sending; /* valid while `busy` */
	unsigned refused; /* times, of the first of the queue */
	bool busy, queued; /* a call is under way; it is about the first of the queue */
	bool killed, told_stop;
	bool stood; /* it has said that it is there */
	bool settled; /* and what was pending then */
	bool became;  /* it has the rights and family that it was told to have */
	struct process_alarm alarm;
	uint64_t
		base; /* of its numbers: a program that was executed anew begins at 1 */
	struct shadow_report queue[SHADOW_JOURNAL];
	size_t first, n;
	UT_hash_handle hh;
};

static struct shadow *find(struct process_room *p, pid_t pid)
{
	struct shadow *s;

	HASH_FIND_INT(p->shadows, &pid, s);
	return s;
}

static void kept_name(pid_t pid, char ret[64])
{
	(void)snprintf(ret, 64, "%s%d", kept_prefix, pid);
}

static int send_command(struct shadow *s, const struct shadow_command *c,
			const int *fds, size_t n_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(SHADOW_FDS_MAX * sizeof(int))];
	} control = {0};
	struct iovec iov = {.iov_base = (void *)c,
			    .iov_len = SHADOW_COMMAND_HEAD + c->n_data};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *h;

	if (s->watch.fd < 0)
		return -ENOTCONN;
	if (n_fds > SHADOW_FDS_MAX)
		return err_origin(-EINVAL);
	if (n_fds) {
		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		h = CMSG_FIRSTHDR(&m);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(h), fds, n_fds * sizeof(int));
	}
	if (sendmsg(s->watch.fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return err_origin(-errno);
	return 0;
}

static void acknowledge(struct shadow *s, uint64_t sequence)
{
	struct shadow_command c = {.verb = SHADOW_ACK, .sequence = sequence - s->base};

	(void)send_command(s, &c, NULL, 0); /* lost: acknowledged by a later one */
}

/* -- Forwarding -- */

static void forward(struct shadow *s);

/* What it tells again, since it was not acknowledged in time, is known. */
static void settle_number(struct shadow *s, uint64_t sequence)
{
	const struct process_entry *found = process_table_find(s->room->table, s->pid);
	struct process_entry e;

	if (!sequence)
		return;
	if (found && found->sequence < sequence) {
		e = *found;
		e.sequence = sequence;
		(void)room_put(s->room, &e); /* replaces: cannot be full */
	}
	acknowledge(s, sequence);
}

static void handed_on(struct shadow *s)
{
	s->busy = false;
	s->refused = 0;
	if (!s->queued || !s->n)
		return;
	s->first = (s->first + 1) % SHADOW_JOURNAL;
	s->n--;
	settle_number(s, s->sending.sequence);
}

static void on_forwarded(struct wire_call *c, enum rpc_status status, const char *text,
			 const struct wire_answer *answer)
{
	struct shadow *s = container_of(c, struct shadow, call);

	if (status == RPC_OK || status == RPC_FAILED || status == RPC_USAGE) {
		if (status != RPC_OK)
			log_warning("signal %d for process %d is dropped: %s PID=%d",
				    s->sending.signal, s->pid, text, s->pid);
		if (s->sending.signal == SIGKILL && status == RPC_OK)
			s->killed = false; /* its end will be told */
		handed_on(s);
		forward(s);
		return;
	}
	s->refused++;
	s->busy = false;
	(void)env_arm(s->room->env, &s->again, again_after);
}

static void take_from_report(const struct shadow_report *r, struct wire_signal *ret)
{
	ret->signal = (int)r->info.ssi_signo;
	ret->code = group_code(r->info.ssi_code);
	ret->sender_pid = (pid_t)r->info.ssi_pid;
	ret->sender_uid = r->info.ssi_uid;
	ret->value = r->info.ssi_signo == SIGCHLD && r->info.ssi_code > 0
			     ? (uint32_t)r->info.ssi_status
			     : r->info.ssi_ptr;
	ret->sequence = r->sequence;
}

/* The SIGCONT that we ourselves sent a stopped shadow. */
static bool is_our_own(const struct shadow *s, const struct shadow_report *r)
{
	return r->info.ssi_signo == SIGCONT && r->info.ssi_code == SI_QUEUE &&
	       r->info.ssi_ptr == s->room->shadow_cookie;
}

/* A mirror's hangup, or its window: of its terminal the process itself hears where it is. */
static bool is_this_kernels(const struct shadow_report *r)
{
	return r->info.ssi_code == SI_KERNEL;
}

/* Of kin, whose process has another shadow that numbers what is sent to it: without a number. */
static void pass_on(struct shadow *s)
{
	struct wire_signal signal = {.pid = s->pid};

	for (; s->n; s->n--, s->first = (s->first + 1) % SHADOW_JOURNAL) {
		take_from_report(&s->queue[s->first], &signal);
		settle_number(s, signal.sequence);
		signal.sequence = 0;
		if (!is_our_own(s, &s->queue[s->first]) &&
		    !is_this_kernels(&s->queue[s->first]))
			signal_forward(s->room, &signal);
	}
}

/* Of a sentinel.  Killed with its group, it has nothing more to tell than that. */
static void relay(struct shadow *s)
{
	while (!s->killed && s->n && is_our_own(s, &s->queue[s->first])) {
		s->sending.sequence = s->queue[s->first].sequence;
		s->queued = true;
		handed_on(s);
	}
	if (!s->killed && !s->n)
		return;
	s->busy = true;
	s->queued = !s->killed;
	s->sending = (struct wire_signal){.signal = SIGKILL, .code = SI_KERNEL, .sequence = UINT64_MAX};
	if (!s->killed)
		take_from_report(&s->queue[s->first], &s->sending);
	sentinel_send(s->room, s->pid, &s->sending);
}

void shadow_handed_on(struct process_room *p, pid_t pid)
{
	struct shadow *s = find(p, pid);

	if (!s)
		return;
	handed_on(s);
	forward(s);
}

/* 0: nothing is to be waited for there, or it was waited for long enough. */
static pid_t foreground_of(const struct shadow *s)
{
	struct proc_stat stat;

	return s->sending.signal == SIGCONT && s->refused < FOREGROUND_TRIES &&
			       proc_stat_read(space_proc_fd(s->room->space), s->pid, &stat) == 0
		       ? stat.foreground
		       : 0;
}

static void forward(struct shadow *s)
{
	struct process_room *p = s->room;
	const struct process_entry *e = process_table_find(p->table, s->pid);

	if (s->busy || !e)
		return;
	if (e->record.state == PROCESS_SENTINEL) {
		relay(s);
		return;
	}
	if (e->record.state == PROCESS_KIN) {
		pass_on(s);
		return;
	}
	if (e->record.state != PROCESS_AWAY) {
		if (e->record.state != PROCESS_ENDED)
			return;
		s->n = 0; /* nobody to signal any more */
		leave_on_drained(p, s->pid);
		return;
	}
	s->sending =
		(struct wire_signal){.pid = s->pid, .generation = e->record.generation};
	s->queued = !s->killed;
	if (s->killed) {
		s->sending.signal = SIGKILL;
		s->sending.code = SI_KERNEL;
	} else if (s->n) {
		take_from_report(&s->queue[s->first], &s->sending);
		if (is_our_own(s, &s->queue[s->first])) {
			handed_on(s);
			forward(s);
			return;
		}
		s->sending.foreground = foreground_of(s);
	} else {
		leave_on_drained(p, s->pid);
		return;
	}
	s->busy = wire_signal(p->rpc, &s->call, e->record.place, &s->sending) == 0;
	if (!s->busy)
		(void)env_arm(p->env, &s->again, again_after);
}

/* It was told to end.  What it read before that may have stopped it again. */
static bool wake_again(struct shadow *s)
{
	const struct process_entry *e = process_table_find(s->room->table, s->pid);

	if (!e || e->record.state != PROCESS_ENDED || s->watch.fd < 0)
		return false;
	shadow_wake(s->room, s->pid);
	(void)env_arm(s->room->env, &s->again, again_after);
	return true;
}

static void on_again(struct env_timer *t)
{
	struct shadow *s = container_of(t, struct shadow, again);

	if (!wake_again(s))
		forward(s);
}

/* -- Reports -- */

static void on_signal(struct shadow *s, const struct shadow_report *r)
{
	const struct process_entry *e = process_table_find(s->room->table, s->pid);
	uint64_t last = e ? e->sequence : 0;

	for (size_t i = 0; i < s->n; i++) /* our own have no number */
		if (s->queue[(s->first + i) % SHADOW_JOURNAL].sequence > last)
			last = s->queue[(s->first + i) % SHADOW_JOURNAL].sequence;
	if (r->sequence <= last || s->n == SHADOW_JOURNAL) {
		if (e && r->sequence <= e->sequence)
			acknowledge(s, e->sequence);
		return;
	}
	s->queue[(s->first + s->n++) % SHADOW_JOURNAL] = *r;
	forward(s);
}

static void was_born(struct process_room *p, const struct process_entry *e)
{
	struct process_entry changed;

	if (!e || !e->unborn)
		return;
	changed = *e;
	changed.unborn = false;
	(void)room_put(p, &changed); /* replaces: cannot be full */
}

static void on_report(struct shadow *s, struct shadow_report *r)
{
	const struct process_entry *e = process_table_find(s->room->table, s->pid);

	r->sequence += s->base;
	switch (r->kind) {
	case SHADOW_SIGNAL:
		on_signal(s, r);
		break;
	case SHADOW_HELLO:
		s->base = e ? e->sequence : 0;
		s->stood = true;
		was_born(s->room, e);
		s->alarm = (struct process_alarm){r->info.ssi_utime, r->info.ssi_stime};
		if (e && e->record.state == PROCESS_GUEST)
			break; /* about to become the process */
		trace_seize(s->room, s->pid);
		if (!r->value)
			log_notice("process %d has no_new_privs: it cannot come home "
				   "in place "
				   "PID=%d",
				   s->pid, s->pid);
		break;
	case SHADOW_SETTLED:
		s->settled = true;
		leave_on_settled(s->room, s->pid);
		break;
	case SHADOW_BECAME:
		s->became = true;
		named_on_stand(s->room, s->pid);
		break;
	case SHADOW_CHILD:
		kin_on_child(s->room, s->pid, r->value, r->info.ssi_code,
			     r->info.ssi_status);
		break;
	case SHADOW_FORKED: /* only told when it failed */
	case SHADOW_REFUSED:
		log_warning("shadow %d: %s PID=%d", s->pid, strerror(-r->value),
			    s->pid);
		break;
	}
}

static void close_end(struct shadow *s)
{
	char name[64];

	if (s->watch.fd < 0)
		return;
	env_unwatch(s->room->env, &s->watch);
	s->watch.fd = close_fd(s->watch.fd);
	kept_name(s->pid, name);
	(void)space_drop(s->room->space, name);
}

/* Its program is gone: it ended as it was told, or it was killed here. */
static void on_hangup(struct shadow *s)
{
	struct process_room *p = s->room;
	const struct process_entry *e = process_table_find(p->table, s->pid);
	pid_t pid = s->pid;

	close_end(s);
	/* It was not killed: whoever was to fork it is gone, or could not. */
	if (e && e->record.state == PROCESS_AWAY && !e->record.moving && e->unborn) {
		const struct process_record d = e->record;

		shadow_drop(p, pid);
		arrive_hold(p, &d);
		return;
	}
	if (e && e->record.state == PROCESS_KIN) {
		kin_hung_up(p, pid, s->stood);
		return;
	}
	if (e && ((e->record.state == PROCESS_AWAY && !e->record.moving) ||
		  e->record.state == PROCESS_SENTINEL)) {
		shadow_killed(p, pid);
		return;
	}
	/* Its record stays for a while: where it has been may be heard of only now. */
	shadow_drop(p, pid);
}

static void on_readable(struct env_fd *watch, unsigned events)
{
	struct shadow *s = container_of(watch, struct shadow, watch);
	struct shadow_report r;
	ssize_t n;

	n = recv(watch->fd, &r, sizeof(r), MSG_DONTWAIT);
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		on_hangup(s);
	else if (n == sizeof(r))
		on_report(s, &r);
}

/* -- Connections -- */

static int add(struct process_room *p, pid_t pid, int owned_fd)
{
	struct shadow *s = find(p, pid);
	int r;

	if (!s) {
		s = calloc(1, sizeof(*s));
		if (!s) {
			(void)close(owned_fd);
			return err_origin(-ENOMEM);
		}
		*s = (struct shadow){.room = p,
				     .pid = pid,
				     .watch.fd = -1,
				     .watch.cb = on_readable,
				     .call.done = on_forwarded,
				     .again.cb = on_again};
		HASH_ADD_INT(p->shadows, pid, s);
	}
	if (s->watch.fd >= 0) {
		env_unwatch(p->env, &s->watch);
		(void)close(s->watch.fd);
	}
	s->n = 0;
	s->base = 0;
	s->killed = s->told_stop = s->stood = s->settled = s->became = false;
	s->watch.fd = owned_fd;
	r = owned_fd < 0 ? 0 : env_watch(p->env, &s->watch, ENV_READ);
	if (r < 0)
		shadow_drop(p, pid);
	return r;
}

int shadow_connect(struct process_room *p, pid_t pid, int *ret_fd)
{
	_cleanup_close_ int theirs = -1, ours = -1;
	char name[64];
	int r;

	r = process_kernel_connect(p->shadow_listen_fd, &ours, &theirs);
	if (r < 0)
		return r;
	kept_name(pid, name);
	r = space_keep(p->space, name, ours);
	if (r != 0)
		return err_fold(r);
	r = add(p, pid, TAKE_FD(ours));
	if (r < 0)
		return r;
	*ret_fd = TAKE_FD(theirs);
	return 0;
}

int shadow_adopt(struct process_room *p, pid_t pid, int owned_fd)
{
	char name[64];
	int r;

	kept_name(pid, name);
	r = space_keep(p->space, name, owned_fd);
	if (r != 0) {
		(void)close(owned_fd);
		return err_fold(r);
	}
	r = add(p, pid, owned_fd);
	if (r == 0)
		find(p, pid)->stood = true;
	return r;
}

static void resume(struct process_room *p, pid_t pid)
{
	const struct process_entry *e = process_table_find(p->table, pid);
	struct shadow_command c = {.verb = SHADOW_RESUME,
				   .sequence = e ? e->sequence : 0};
	char name[64];
	int fd;

	kept_name(pid, name);
	if (!e || e->record.state == PROCESS_HERE || e->record.state == PROCESS_GUEST) {
		(void)space_drop(p->space, name); /* a swap that did not come about */
		return;
	}
	if (space_kept(p->space, name, &fd) != 0 || add(p, pid, fd) < 0)
		return;
	find(p, pid)->stood = find(p, pid)->became = room_is_shadow(p, pid);
	if (e->record.state == PROCESS_SENTINEL)
		sentinel_take_over(p, pid);
	trace_seize(p, pid);
	(void)send_command(find(p, pid), &c, NULL, 0);
	if (e->record.state == PROCESS_ENDED)
		shadow_end(p, pid, e->record.code, e->record.status);
}

int shadow_start(struct process_room *p)
{
	_cleanup_free_ pid_t *pids = NULL;
	size_t n = 0;
	int r;

	r = process_kernel_listen(&p->shadow_listen_fd);
	if (r == 0)
		r = space_kept_numbers(p->space, kept_prefix, &pids, &n);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++)
		resume(p, pids[i]);
	return 0;
}

static void free_shadow(struct shadow *s)
{
	struct process_room *p = s->room;

	HASH_DEL(p->shadows, s);
	wire_cancel(&s->call);
	env_disarm(p->env, &s->again);
	if (s->watch.fd >= 0) {
		env_unwatch(p->env, &s->watch);
		(void)close(s->watch.fd);
	}
	free(s);
}

void shadow_stop(struct process_room *p)
{
	struct shadow *s, *next;

	HASH_ITER (hh, p->shadows, s, next)
		free_shadow(s); /* ssi-init keeps them */
	p->shadow_listen_fd = close_fd(p->shadow_listen_fd);
}

/* What it had taken and nobody got yet; its own end is closed afterwards. */
void shadow_fold(struct process_room *p, pid_t pid, shadow_left_cb left, void *owner)
{
	const struct process_entry *e = process_table_find(p->table, pid);
	struct shadow *s = find(p, pid);
	struct shadow_report r;
	struct wire_signal signal;

	if (!s || !e)
		return;
	wire_cancel(&s->call);
	s->busy = true; /* nothing is sent from here any more */
	while (s->watch.fd >= 0 &&
	       recv(s->watch.fd, &r, sizeof(r), MSG_DONTWAIT) == sizeof(r))
		if (r.kind == SHADOW_SIGNAL)
			on_report(s, &r);
	for (; s->n; s->n--, s->first = (s->first + 1) % SHADOW_JOURNAL) {
		if (is_our_own(s, &s->queue[s->first]))
			continue;
		signal = (struct wire_signal){.pid = pid,
					      .generation = e->record.generation};
		take_from_report(&s->queue[s->first], &signal);
		left(owner, &signal);
	}
	s->busy = false;
}

void shadow_drop(struct process_room *p, pid_t pid)
{
	struct shadow *s = find(p, pid);

	if (!s)
		return;
	close_end(s);
	free_shadow(s);
}

/* -- What the room asks of them -- */

bool shadow_stands(struct process_room *p, pid_t pid)
{
	struct shadow *s = find(p, pid);

	return s && s->watch.fd >= 0;
}

bool shadow_has_settled(struct process_room *p, pid_t pid, struct process_alarm *ret)
{
	struct shadow *s = find(p, pid);

	if (!s || !s->settled)
		return false;
	*ret = s->alarm;
	return true;
}

bool shadow_has_become(struct process_room *p, pid_t pid)
{
	struct shadow *s = find(p, pid);

	return s && s->became;
}

bool shadow_waits(struct process_room *p, pid_t pid)
{
	struct shadow *s = find(p, pid);

	return s && (s->busy || s->killed || s->n);
}

int shadow_send(struct process_room *p, pid_t pid, const struct shadow_command *c,
		const int *fds, size_t n_fds)
{
	struct shadow *s = find(p, pid);

	return s ? send_command(s, c, fds, n_fds) : -ENOTCONN;
}

void shadow_command(struct process_room *p, pid_t pid, const struct shadow_command *c)
{
	(void)shadow_send(p, pid, c, NULL, 0); /* gone: its hangup tells the rest */
}

void shadow_name(struct process_room *p, pid_t pid, const char *name)
{
	struct shadow_command c = {.verb = SHADOW_NAME};

	c.n_data = (uint32_t)snprintf(c.data, 16, "%s", name) + 1;
	if (c.n_data > 16)
		c.n_data = 16;
	shadow_command(p, pid, &c);
}

/* A stopped shadow reads nothing: our own SIGCONT, marked, wakes it. */
void shadow_wake(struct process_room *p, pid_t pid)
{
	siginfo_t info = {.si_signo = SIGCONT, .si_code = SI_QUEUE, .si_pid = getpid()};

	info.si_ptr = (void *)(uintptr_t)p->shadow_cookie;
	if (room_is_shadow(p, pid))
		(void)process_kernel_queue(pid, SIGCONT, &info);
}

void shadow_end(struct process_room *p, pid_t pid, int code, int status)
{
	struct shadow_command c = {.verb = code == CLD_EXITED ? SHADOW_EXIT
							      : SHADOW_KILL,
				   .value = status};
	struct shadow *s = find(p, pid);

	if (!s)
		return;
	if (s->watch.fd <
	    0) { /* killed here: now that it is over everywhere, let it go */
		trace_go(p, pid);
		(void)space_reap(p->space, pid);
		shadow_drop(p, pid);
		return;
	}
	shadow_command(p, pid, &c);
	shadow_wake(p, pid);
	(void)env_arm(p->env, &s->again, again_after);
}

void shadow_change(struct process_room *p, pid_t pid, enum wire_change_what what,
		   int signal)
{
	struct shadow_command c = {.verb = SHADOW_STOP, .value = signal};
	struct shadow *s = find(p, pid);

	if (!s)
		return;
	if (what == WIRE_WENT_ON) {
		s->told_stop = false;
		shadow_wake(p, pid);
	} else if (!s->told_stop) {
		s->told_stop = true;
		shadow_command(p, pid, &c);
	}
}

/* Stopped here by SIGSTOP, which it could not take: the real one must stop as well. */
void shadow_on_stop(struct process_room *p, pid_t pid, int signal)
{
	const struct process_entry *e = process_table_find(p->table, pid);
	bool at_home = e && e->record.state == PROCESS_AWAY;
	struct shadow *s = find(p, pid);
	struct shadow_report r = {.kind = SHADOW_SIGNAL};

	if (!s || signal == SIGCONT || s->told_stop || s->n == SHADOW_JOURNAL)
		return;
	s->told_stop = at_home; /* what its place will report */
	/* Of the others nobody would say that they go on: what they are sent must not wait for
	 * that, nor must a group be one with a stopped member because of them. */
	if (!at_home)
		shadow_wake(p, pid);
	r.info.ssi_signo = SIGSTOP;
	r.info.ssi_code = SI_USER;
	s->queue[(s->first + s->n++) % SHADOW_JOURNAL] =
		r; /* number 0: nothing to acknowledge */
	forward(s);
}

bool shadow_may_exit(struct process_room *p, pid_t pid)
{
	const struct process_entry *e = process_table_find(p->table, pid);

	if (!e || e->record.state != PROCESS_AWAY || e->record.moving)
		return true;
	shadow_killed(p, pid);
	return false;
}

void shadow_trace_all(struct process_room *p)
{
	struct shadow *s, *next;

	HASH_ITER (hh, p->shadows, s, next)
		if (s->watch.fd >= 0)
			trace_seize(p, s->pid);
}

void shadow_kick(struct process_room *p, pid_t pid)
{
	struct shadow *s = find(p, pid);

	if (s && !s->busy)
		(void)env_arm(p->env, &s->again, 0);
}

void shadow_killed(struct process_room *p, pid_t pid)
{
	struct shadow *s = find(p, pid);

	if (!s && add(p, pid, -1) < 0)
		return;
	s = find(p, pid);
	if (s->watch.fd >= 0)
		close_end(s);
	s->killed = true;
	(void)env_arm(p->env, &s->again, 0);
}

/* Its ids, session and group; @leads_only: no group to join stands yet. */
static void dress(struct process_room *p, const struct process_member *m,
		  bool leads_only)
{
	struct shadow_command become = {
		.verb = SHADOW_BECOME, .uid = m->uid, .gid = m->gid};

	if (m->sid == m->pid)
		become.flags = SHADOW_SETSID;
	else if (m->pgid == m->pid || !leads_only)
		become.value = m->pgid;
	shadow_command(p, m->pid, &become);
	shadow_name(p, m->pid, "ssi-shadow");
}

int shadow_spawn(struct process_room *p, const struct process_member *m,
		 int group_fd, unsigned space_flags)
{
	const char *argv[] = {p->shadow_path, NULL};
	_cleanup_close_ int theirs = -1;
	struct space_spawn spec = {.argv = argv,
				   .fds = &theirs,
				   .n_fds = 1,
				   .group_fd = group_fd,
				   .set_tid = m->pid,
				   .flags = space_flags};
	pid_t pid;
	int r;

	r = shadow_connect(p, m->pid, &theirs);
	if (r < 0)
		return r;
	r = space_spawn(p->space, &spec, &pid, NULL);
	if (r != 0) {
		shadow_drop(p, m->pid);
		return r == SPACE_E_PID_TAKEN ? PROCESS_E_TAKEN : err_fold(r);
	}
	dress(p, m, true);
	return 0;
}

int shadow_fork(struct process_room *p, const struct process_member *m, uint32_t flags)
{
	struct shadow_command c = {
		.verb = SHADOW_FORK, .value = m->pid, .flags = flags};
	_cleanup_close_ int theirs = -1;
	int r;

	if (!shadow_stands(p, m->ppid))
		return -ENOTCONN;
	r = shadow_connect(p, m->pid, &theirs);
	if (r < 0)
		return r;
	r = shadow_send(p, m->ppid, &c, &theirs, 1);
	if (r < 0) {
		shadow_drop(p, m->pid);
		return r;
	}
	dress(p, m, false);
	return 0;
}
