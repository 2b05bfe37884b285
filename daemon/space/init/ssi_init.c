/*
 * ssi-init: pid 1 of the SSI space.
 *
 * It outlives ssid: parent of every application root, keeper of descriptors,
 * collector of exit statuses, watchdog of the lease.  It stores and returns and decides nothing, and
 * whatever a client does, at worst that client's connection is closed.
 * space_make.c starts it inside the new namespaces, with the descriptors that
 * init_wire.h names.
 *
 * failure modes: a client is gone or too slow: its connection is closed, what it
 * was told is told again to the next.  No more descriptors: keeping is refused
 * early enough that connections can still be accepted.
 */
#include "ssi_init_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CLIENTS_MAX = 16, FDS_SPARE = 128 };

struct message {
	struct init_request request;
	int fds[INIT_FDS_MAX];
	size_t n_fds;
	bool cut; /* descriptors were lost on the way */
};

struct answer {
	struct init_reply reply;
	int fds[3];
	size_t n_fds;
	int owned_fd; /* closed once sent, or -1 */
};

static int clients[CLIENTS_MAX];
static int oldest;
static int events_fd = -1; /* one of clients[] */
static int ending_fd = -1; /* one of clients[]: when it closes, everything ends */
static int root_fd, proc_fd, pidns_fd, pids_fd;
static size_t keep_limit;

static void client_close(int *client)
{
	if (*client == ending_fd)
		_exit(0); /* the kernel kills whatever is left in the space */
	if (*client == events_fd) {
		events_fd = -1;
		pids_leave_alone(true);
		exec_release();
	}
	(void)close(*client);
	*client = -1;
}

static bool tell(const struct init_event *event)
{
	if (send(events_fd, event, sizeof(*event), MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(*event))
		return true;
	if (errno != EAGAIN)
		(void)shutdown(events_fd, SHUT_RDWR); /* poll() sees it next */
	return false;
}

static void hello(int client, const struct init_request *request, struct answer *a)
{
	a->fds[0] = root_fd;
	a->fds[1] = proc_fd;
	a->fds[2] = pidns_fd;
	a->n_fds = 3;
	if (!(request->flags & INIT_HELLO_EVENTS))
		return;
	for (int i = 0; i < CLIENTS_MAX; i++)
		if (clients[i] >= 0 && clients[i] == events_fd && clients[i] != client)
			client_close(&clients[i]);
	events_fd = client;
	pids_leave_alone(false);
	exec_serve();
	children_tell_again();
}

static int keep(struct message *m)
{
	int fd;

	if (m->n_fds != 1)
		return -EINVAL;
	fd = m->fds[0];
	m->n_fds = 0;
	return keep_put(m->request.name, fd, keep_limit);
}

static int give(const struct message *m, int32_t *ret_number)
{
	if (m->n_fds != 1)
		return -EINVAL;
	return exec_give(m->request.until, m->fds[0], m->request.flags & INIT_EXEC_CLOSED,
			 ret_number);
}

static int list(const struct init_request *request, struct init_reply *reply)
{
	const char *name;

	reply->cursor = request->cursor;
	if (!keep_next(request->name, &reply->cursor, &name))
		return INIT_E_ABSENT;
	strcpy(reply->name, name);
	return 0;
}

static int spawn_for(struct message *m, struct answer *a)
{
	int r = spawn(&m->request, m->fds, m->n_fds, &a->reply.pid, &a->owned_fd);

	if (r == 0)
		a->fds[a->n_fds++] = a->owned_fd;
	return r;
}

static int act(int client, struct message *m, struct answer *a)
{
	const struct init_request *request = &m->request;

	if (request->version != INIT_WIRE_VERSION ||
	    strnlen(request->name, INIT_NAME_SIZE) == INIT_NAME_SIZE)
		return -EPROTO;
	if (m->cut)
		return -EMFILE;
	switch (request->verb) {
	case INIT_HELLO:
		hello(client, request, a);
		return 0;
	case INIT_KEEP:
		return keep(m);
	case INIT_FETCH:
		a->fds[0] = keep_get(request->name);
		a->n_fds = a->fds[0] >= 0;
		return a->n_fds ? 0 : INIT_E_ABSENT;
	case INIT_DROP:
		return keep_drop(request->name) ? 0 : INIT_E_ABSENT;
	case INIT_LIST:
		return list(request, &a->reply);
	case INIT_SPAWN:
		return spawn_for(m, a);
	case INIT_TRACK:
		return children_track(request->pid);
	case INIT_REAP:
		children_reap(request->pid);
		return 0;
	case INIT_END:
		ending_fd = client;
		return 0;
	case INIT_PIDS:
		return pids_set(request->pid, (pid_t)request->cursor,
				request->flags & INIT_PIDS_PLENTY);
	case INIT_LEASE:
		return lease_set(request->flags, request->until, &a->reply);
	case INIT_EXEC_GO:
		return exec_go(request->until);
	case INIT_EXEC_GIVE:
		return give(m, &a->reply.pid);
	}
	return -EPROTO;
}

static bool receive(int client, struct message *m)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(m->fds))];
	} control;
	struct iovec io = { &m->request, sizeof(m->request) };
	struct msghdr h = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(client, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	m->n_fds = 0;
	m->cut = h.msg_flags & MSG_CTRUNC;
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&h); c; c = CMSG_NXTHDR(&h, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
			m->n_fds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			memcpy(m->fds, CMSG_DATA(c), m->n_fds * sizeof(int));
		}
	return n == sizeof(m->request);
}

static bool reply(int client, const struct answer *a)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(a->fds))];
	} control = { 0 };
	struct iovec io = { (void *)&a->reply, sizeof(a->reply) };
	struct msghdr h = { .msg_iov = &io, .msg_iovlen = 1 };

	if (a->n_fds) {
		h.msg_control = &control;
		h.msg_controllen = CMSG_SPACE(a->n_fds * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(a->n_fds * sizeof(int));
		memcpy(CMSG_DATA(&control.align), a->fds, a->n_fds * sizeof(int));
	}
	return sendmsg(client, &h, MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(a->reply);
}

static void serve(int *client)
{
	struct message m = { 0 };
	struct answer a = { .owned_fd = -1 };
	bool ok = receive(*client, &m);

	if (ok && m.request.verb) {
		a.reply.result = act(*client, &m, &a);
		ok = reply(*client, &a);
	}
	for (size_t i = 0; i < m.n_fds; i++)
		(void)close(m.fds[i]);
	if (a.owned_fd >= 0)
		(void)close(a.owned_fd);
	if (!ok)
		client_close(client);
}

static void admit(void)
{
	int fd = accept4(INIT_FD_LISTEN, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct ucred peer;
	socklen_t len = sizeof(peer);
	int slot;

	if (fd < 0)
		return;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 || peer.uid != 0) {
		(void)close(fd);
		return;
	}
	for (slot = 0; slot < CLIENTS_MAX && clients[slot] >= 0; slot++)
		;
	if (slot == CLIENTS_MAX) { /* somebody leaks: the longest there makes room */
		slot = oldest;
		client_close(&clients[slot]);
	}
	oldest = (slot + 1) % CLIENTS_MAX;
	clients[slot] = fd;
}

/* PIDs: the widest range this kernel has, and none of the service ones for others. */
static void set_pids(void)
{
	static const struct {
		const char *path, *value;
	} sysctls[] = {
		{ "/proc/sys/kernel/pid_max", "4194304" },
		{ "/proc/sys/kernel/ns_last_pid", "299" },
		{ "/proc/self/oom_score_adj", "-1000" },
	};

	for (size_t i = 0; i < sizeof(sysctls) / sizeof(*sysctls); i++) {
		int fd = open(sysctls[i].path, O_WRONLY | O_CLOEXEC);

		if (fd >= 0) {
			(void)!write(fd, sysctls[i].value, strlen(sysctls[i].value));
			(void)close(fd);
		}
	}
}

static int start(int *ret_signals, int *ret_lease)
{
	struct rlimit limit = { 0 };
	sigset_t all, child;

	(void)prctl(PR_SET_NAME, "ssi-init");
	for (int fd = INIT_FD_LISTEN; fd <= INIT_FD_READY; fd++)
		(void)fcntl(fd, F_SETFD, FD_CLOEXEC);
	(void)setsid();
	(void)chdir("/");
	(void)umask(022);
	sigfillset(&all);
	(void)sigprocmask(SIG_SETMASK, &all, NULL);
	(void)signal(SIGCHLD, SIG_DFL);
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	*ret_signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
	spawn_start();
	set_pids();
	*ret_lease = lease_start();
	if (*ret_lease < 0)
		return *ret_lease;
	(void)getrlimit(RLIMIT_NOFILE, &limit);
	keep_limit = limit.rlim_cur > 2 * FDS_SPARE ? limit.rlim_cur - FDS_SPARE : FDS_SPARE;
	root_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	proc_fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	pidns_fd = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
	if (*ret_signals < 0 || root_fd < 0 || proc_fd < 0 || pidns_fd < 0)
		return -errno;
	for (int i = 0; i < CLIENTS_MAX; i++)
		clients[i] = -1;
	pids_fd = pids_start(proc_fd);
	if (pids_fd < 0)
		return pids_fd;
	return getpid() == 1 ? children_start() : -EINVAL;
}

/* One turn; true: children must be looked at again. */
static bool turn(int signals, int lease, bool again, bool all_told)
{
	enum { FIRST = 4 };
	struct pollfd p[FIRST + CLIENTS_MAX] = { { INIT_FD_LISTEN, POLLIN, 0 },
						 { signals, POLLIN, 0 },
						 { lease, POLLIN, 0 },
						 { pids_fd, POLLIN, 0 } };
	struct signalfd_siginfo ignored;

	for (int i = 0; i < CLIENTS_MAX; i++) {
		p[FIRST + i] = (struct pollfd){ clients[i], POLLIN, 0 };
		if (clients[i] >= 0 && clients[i] == events_fd && !all_told)
			p[FIRST + i].events |= POLLOUT;
	}
	if (poll(p, FIRST + CLIENTS_MAX, again ? 0 : -1) < 0)
		return again;
	if (p[2].revents)
		lease_ended();
	if (p[3].revents)
		pids_serve();
	if (p[1].revents) {
		while (read(signals, &ignored, sizeof(ignored)) > 0)
			;
		again = true;
	}
	if (again)
		again = children_collect();
	for (int i = 0; i < CLIENTS_MAX; i++)
		if (p[FIRST + i].revents & ~POLLOUT && clients[i] == p[FIRST + i].fd)
			serve(&clients[i]);
	if (p[0].revents)
		admit();
	return again;
}

int main(void)
{
	int32_t ready;
	int signals, lease;
	bool again = true, all_told = true;

	ready = start(&signals, &lease);
	(void)!write(INIT_FD_READY, &ready, sizeof(ready));
	(void)close(INIT_FD_READY);
	if (ready < 0)
		return 1;
	for (;;) {
		again = turn(signals, lease, again, all_told);
		all_told = events_fd < 0 || (children_tell(tell) && pids_tell(tell) && exec_tell(tell));
	}
}
