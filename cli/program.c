/* Following a program of the cluster from where its user sits. */
#include "program.h"

#include "cleanup.h"
#include "relay.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

enum {
	IDLE_MS = 500,        /* after the end, for streams that others keep open */
	RECONNECT_MS = 60000, /* how long we wait for a successor of ssid */
	RETRY_MS = 50,
};

static struct relay relays[3];

/* A program that reads from or writes to /dev/null gets the one of its node. */
static bool is_null(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return true;
	return S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3);
}

uint32_t program_pipes(bool wanted, int ret[static 3], size_t *ret_n)
{
	uint32_t bits = 0;
	int p[2];

	*ret_n = 0;
	for (int i = 0; i < 3; i++) {
		relays[i].from = relays[i].to = -1;
		if (!wanted || is_null(i))
			continue;
		if (pipe2(p, O_CLOEXEC) < 0)
			session_exit(EXIT_FAILED, "no pipe: %m");
		bits |= 1u << i;
		ret[(*ret_n)++] = p[i != 0];
		relays[i].input = i == 0;
		relays[i].from = i == 0 ? 0 : p[0];
		relays[i].to = i == 0 ? p[1] : i;
	}
	return bits;
}

int32_t program_await_start(struct session *s)
{
	for (;;) {
		Ssi__Control__Event *event = session_receive(s);
		int32_t pid = 0;

		if (!event)
			session_exit(EXIT_DOWN, "ssid went away: the program may or may not "
						"have been started, see ssi-ps");
		if (event->body_case == SSI__CONTROL__EVENT__BODY_FAILURE)
			session_exit((int)event->failure->status, "%s", event->failure->text);
		if (event->body_case == SSI__CONTROL__EVENT__BODY_STARTED)
			pid = event->started->pid;
		ssi__control__event__free_unpacked(event, NULL);
		if (pid)
			return pid;
	}
}

static void forward(const struct session_options *o, int32_t pid, int signal)
{
	Ssi__Control__SignalRequest body = SSI__CONTROL__SIGNAL_REQUEST__INIT;
	Ssi__Control__Request q = SSI__CONTROL__REQUEST__INIT;
	struct session *s = session_try(o);
	Ssi__Control__Event *event;

	/* Without an ssid a user who presses Ctrl-C again and again gets out below. */
	if (!s)
		return;
	body.pid = pid;
	body.signal = signal;
	q.body_case = SSI__CONTROL__REQUEST__BODY_SIGNAL;
	q.signal = &body;
	session_send(s, &q, NULL, 0);
	event = session_receive(s);
	if (event)
		ssi__control__event__free_unpacked(event, NULL);
	session_close(s);
}

static bool ask_for_end(struct session *s, int32_t pid)
{
	Ssi__Control__WaitRequest body = SSI__CONTROL__WAIT_REQUEST__INIT;
	Ssi__Control__Request q = SSI__CONTROL__REQUEST__INIT;

	body.app = pid;
	q.body_case = SSI__CONTROL__REQUEST__BODY_WAIT;
	q.wait = &body;
	return session_offer(s, &q, NULL, 0);
}

static int signals_fd(void)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGQUIT);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		session_exit(EXIT_FAILED, "signalfd: %m");
	return fd;
}

/* What the loop watches. */
struct run {
	const struct session_options *options;
	struct session *session;
	int signals;
	int32_t pid;
	unsigned silent_ms;
	bool ended;
	int code, status;
};

/* ssid was restarted, perhaps: the program did not notice, and we need not.  @silent_ms counts
 * since an ssid last said something. */
static void reconnect(struct run *r)
{
	static const struct timespec pause = { .tv_nsec = RETRY_MS * 1000000 };

	session_close(r->session);
	do {
		nanosleep(&pause, NULL);
		r->silent_ms += RETRY_MS;
		if (r->silent_ms > RECONNECT_MS)
			session_exit(EXIT_DOWN,
				     "ssid is gone; application %d may go on, its end is not known",
				     r->pid);
		r->session = session_try(r->options);
		if (r->session)
			session_no_deadline(r->session);
		if (r->session && !ask_for_end(r->session, r->pid))
			r->session = session_close(r->session);
	} while (!r->session);
}

/* One turn of the pipes and the two descriptors; false: nothing for @timeout ms. */
static bool turn(struct run *r, int timeout)
{
	struct pollfd p[8];
	bool active;

	p[0] = (struct pollfd){ .fd = r->ended ? -1 : session_fd(r->session), .events = POLLIN };
	p[1] = (struct pollfd){ .fd = r->signals, .events = POLLIN };
	for (size_t i = 0; i < 3; i++)
		relay_prepare(&relays[i], &p[2 + 2 * i]);
	active = poll(p, N_ELEMENTS(p), timeout) > 0;
	for (size_t i = 0; i < 3; i++)
		(void)relay_turn(&relays[i], &p[2 + 2 * i]);
	if (p[1].revents) {
		struct signalfd_siginfo si;

		if (read(r->signals, &si, sizeof(si)) == sizeof(si))
			forward(r->options, r->pid, (int)si.ssi_signo);
	}
	if (p[0].revents) {
		Ssi__Control__Event *event = session_receive(r->session);

		if (!event) {
			reconnect(r);
			return true;
		}
		r->silent_ms = 0;
		if (event->body_case == SSI__CONTROL__EVENT__BODY_FAILURE)
			session_exit((int)event->failure->status, "%s", event->failure->text);
		if (event->body_case == SSI__CONTROL__EVENT__BODY_EXITED) {
			r->ended = true;
			r->code = event->exited->code;
			r->status = event->exited->status;
		}
		ssi__control__event__free_unpacked(event, NULL);
	}
	return active;
}

int program_follow(const struct session_options *o, struct session *s, int32_t pid)
{
	struct run r = { .options = o, .session = s, .pid = pid, .signals = signals_fd() };

	/* The timeout was for the start; a program takes as long as it takes. */
	session_no_deadline(s);
	while (!r.ended)
		(void)turn(&r, -1);
	/* Output that other processes of the application keep open is waited for
	 * only while something comes. */
	while ((relay_live(&relays[1]) || relay_live(&relays[2])) && turn(&r, IDLE_MS))
		;
	session_close(r.session);
	return r.code == CLD_EXITED ? r.status : 128 + r.status;
}
