/*
 * Programs that are about to be started, and may be started elsewhere; and calls that name a
 * process by its PID, which may be elsewhere.
 *
 * Who was spawned with INIT_SPAWN_ASK waits in such a call until ssid has decided.  What
 * stays here goes on; what does not is taken out of its call by ssid, which traces it,
 * and never comes back to it.
 *
 * Why here: as with forks, pid 1 is always there to answer.  Without an ssid, or when too
 * many wait, a program is started where it is, which is never wrong.
 */
#include "ssi_init_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

enum { WAITING_MAX = 1024 };

static struct waiting {
	uint64_t id; /* 0: free */
	int listener;
	struct init_event event;
	bool told;
} waiting[WAITING_MAX];
static size_t n_waiting, n_untold;
static bool is_alone = true; /* until an ssid has asked for events */

static void drop(struct waiting *w)
{
	n_untold -= !w->told;
	n_waiting--;
	w->id = 0;
}

static int start_here(int listener, uint64_t id)
{
	static union {
		struct seccomp_notif_resp of;
		char room[512]; /* for a kernel with a longer one */
	} reply;

	memset(&reply, 0, sizeof(reply));
	reply.of.id = id;
	reply.of.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
	return ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &reply) < 0 ? -errno : 0;
}

static bool still_waits(const struct waiting *w)
{
	uint64_t id = w->id;

	return ioctl(w->listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &id) == 0;
}

/* Who was interrupted asks again, under another id. */
static void purge(void)
{
	for (size_t i = 0; i < WAITING_MAX; i++)
		if (waiting[i].id && !still_waits(&waiting[i]))
			drop(&waiting[i]);
}

static struct waiting *find(uint64_t id)
{
	for (size_t i = 0; id && i < WAITING_MAX; i++)
		if (waiting[i].id == id)
			return &waiting[i];
	return NULL;
}

static struct waiting *free_slot(void)
{
	if (n_waiting == WAITING_MAX)
		purge();
	for (size_t i = 0; i < WAITING_MAX; i++)
		if (!waiting[i].id)
			return &waiting[i];
	return NULL;
}

bool exec_is(int nr)
{
	return nr == SYS_execve || nr == SYS_execveat || nr == SYS_kill ||
	       nr == SYS_rt_sigqueueinfo || nr == SYS_pidfd_open;
}

void exec_ask(int listener, const struct seccomp_notif *call)
{
	struct waiting *w = is_alone ? NULL : free_slot();

	if (!w) {
		(void)start_here(listener, call->id);
		return;
	}
	*w = (struct waiting){ .id = call->id, .listener = listener };
	w->event = (struct init_event){ .type = INIT_EVENT_EXEC,
					.pid = (int32_t)call->pid,
					.code = call->data.nr,
					.id = call->id };
	memcpy(w->event.args, call->data.args, sizeof(w->event.args));
	n_waiting++;
	n_untold++;
}

void exec_forget(int listener)
{
	for (size_t i = 0; i < WAITING_MAX; i++)
		if (waiting[i].id && waiting[i].listener == listener)
			drop(&waiting[i]);
}

void exec_release(void)
{
	is_alone = true;
	for (size_t i = 0; i < WAITING_MAX; i++)
		if (waiting[i].id)
			(void)exec_go(waiting[i].id);
}

void exec_serve(void)
{
	is_alone = false;
}

int exec_go(uint64_t id)
{
	struct waiting *w = find(id);
	int r;

	if (!w)
		return INIT_E_ABSENT;
	r = start_here(w->listener, id);
	drop(w);
	return r == -ENOENT ? INIT_E_ABSENT : r;
}

int exec_give(uint64_t id, int fd, bool closed, int32_t *ret_number)
{
	struct seccomp_notif_addfd give = { .id = id, .srcfd = (uint32_t)fd,
					    .newfd_flags = closed ? O_CLOEXEC : 0 };
	struct waiting *w = find(id);
	int number;

	if (!w)
		return INIT_E_ABSENT;
	number = ioctl(w->listener, SECCOMP_IOCTL_NOTIF_ADDFD, &give);
	if (number < 0)
		return errno == ENOENT ? INIT_E_ABSENT : -errno;
	*ret_number = number;
	return 0;
}

bool exec_tell(bool (*tell)(const struct init_event *event))
{
	for (size_t i = 0; n_untold && i < WAITING_MAX; i++) {
		if (!waiting[i].id || waiting[i].told)
			continue;
		if (!tell(&waiting[i].event))
			return false;
		waiting[i].told = true;
		n_untold--;
	}
	return true;
}
