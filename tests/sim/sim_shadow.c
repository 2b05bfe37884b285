/* ssi-shadow, as it behaves: see ssi_shadow.c. */
#include "sim_kernel.h"

#include "cleanup.h"
#include "shadow_command.h"

#include <assert.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

static const struct env *own_env(void)
{
	return world_env(sim_kernel->w, 0);
}

static void tell(struct sim_process *p, const struct shadow_report *r)
{
	/* Refused when ssid has not read for long: RESUME sends it again. */
	(void)send(p->socket.fd, r, sizeof(*r), MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void tell_value(struct sim_process *p, uint32_t kind, int value)
{
	struct shadow_report r = { .kind = kind, .value = value };

	tell(p, &r);
}

static void acknowledged(struct sim_process *p, uint64_t sequence)
{
	while (p->n && p->journal[p->first].sequence <= sequence) {
		p->first = (p->first + 1) % SHADOW_JOURNAL;
		p->n--;
	}
}

static void resume(struct sim_process *p, uint64_t sequence)
{
	if (p->sequence < sequence)
		p->sequence = sequence;
	acknowledged(p, sequence);
	for (size_t i = 0; i < p->n; i++)
		tell(p, &p->journal[(p->first + i) % SHADOW_JOURNAL]);
}

void sim_shadow_take(struct sim_process *p, int signal, const siginfo_t *info)
{
	struct shadow_report *r = &p->journal[(p->first + p->n) % SHADOW_JOURNAL];

	if (p->n == SHADOW_JOURNAL)
		return; /* the kernel would queue it: no test sends as many */
	*r = (struct shadow_report){ .kind = SHADOW_SIGNAL, .sequence = ++p->sequence };
	r->info.ssi_signo = (uint32_t)signal;
	r->info.ssi_code = info ? info->si_code : SI_USER;
	r->info.ssi_pid = info ? (uint32_t)info->si_pid : 0;
	r->info.ssi_uid = info ? info->si_uid : 0;
	r->info.ssi_ptr = info ? (uint64_t)(uintptr_t)info->si_ptr : 0;
	p->n++;
	tell(p, r);
}

static void fork_shadow(struct sim_process *p, pid_t pid, int *fd)
{
	struct sim_process *c;

	if (*fd < 0 || sim_find(p->machine, pid)) {
		tell_value(p, SHADOW_FORKED, -17);
		return;
	}
	c = sim_process_new(p->machine, pid, p->pid);
	c->pgid = p->pgid;
	c->sid = p->sid;
	c->uid = p->uid;
	c->group = p->group;
	sim_shadow_start(c, TAKE_FD(*fd));
}

/* True: there is no such shadow any more. */
static bool obey(struct sim_process *p, const struct shadow_command *c, int *fd)
{
	switch (c->verb) {
	case SHADOW_ACK:
		acknowledged(p, c->sequence);
		break;
	case SHADOW_RESUME:
		resume(p, c->sequence);
		break;
	case SHADOW_BECOME:
		p->uid = c->uid;
		if (c->flags & SHADOW_SETSID)
			p->sid = p->pgid = p->pid;
		else if (c->value > 0)
			p->pgid = c->value;
		break;
	case SHADOW_EXIT:
		sim_exit(p, CLD_EXITED, c->value);
		return true;
	case SHADOW_KILL:
		sim_exit(p, CLD_KILLED, c->value);
		return true;
	case SHADOW_STOP:
		p->stopped = true;
		p->stop_signal = c->value;
		p->tell_stop = p->tracked;
		sim_shadow_look(p);
		sim_space_tell(p->machine);
		break;
	case SHADOW_FORK:
		fork_shadow(p, c->value, fd);
		break;
	case SHADOW_EXEC:
		tell_value(p, SHADOW_REFUSED, -2); /* no criu does this here */
		break;
	}
	return false;
}

static void on_readable(struct env_fd *watch, unsigned events)
{
	struct sim_process *p = container_of(watch, struct sim_process, socket);
	static struct shadow_command c;
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * SHADOW_FDS_MAX)];
	} control;
	struct iovec iov = { &c, sizeof(c) };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	_cleanup_close_ int fd = -1;
	struct cmsghdr *h;
	ssize_t n;

	(void)events;
	n = recvmsg(watch->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n <= 0) {
		sim_exit(p, CLD_KILLED, SIGKILL);
		return;
	}
	h = CMSG_FIRSTHDR(&m);
	if (h && h->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(h), sizeof(fd));
	assert(shadow_command_ok(&c, (size_t)n));
	(void)obey(p, &c, &fd);
}

void sim_shadow_look(struct sim_process *p)
{
	bool reads = p->socket.fd >= 0 && !p->stopped && !p->machine->frozen_at &&
		     !(p->group && p->group->frozen);

	if (reads && !p->socket.impl)
		(void)env_watch(own_env(), &p->socket, ENV_READ);
	else if (!reads && p->socket.impl)
		env_unwatch(own_env(), &p->socket);
}

void sim_shadow_start(struct sim_process *p, int owned_fd)
{
	p->shadow = true;
	p->first = p->n = 0;
	p->sequence = 0;
	p->socket = (struct env_fd){ .cb = on_readable, .fd = owned_fd };
	sim_shadow_look(p);
	tell_value(p, SHADOW_HELLO, 1);
	world_note(sim_kernel->w, p->machine->slot, "shadow %d stands", p->pid);
}

void sim_shadow_end(struct sim_process *p)
{
	if (p->socket.fd < 0)
		return;
	env_unwatch(own_env(), &p->socket);
	p->socket.fd = close_fd(p->socket.fd);
}
