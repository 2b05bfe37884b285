/* Following a program of the cluster from where its user sits. */
#include "program.h"

#include "cleanup.h"
#include "relay.h"
#include "terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
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
static bool on_terminal;

/* A program that reads from or writes to /dev/null gets the one of its node. */
static bool is_null(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return true;
	return S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3);
}

static void make_pipe(int i, int ret[static 3], size_t *ret_n)
{
	int p[2];

	if (pipe2(p, O_CLOEXEC) < 0)
		session_exit(EXIT_FAILED, "no pipe: %m");
	ret[(*ret_n)++] = p[i != 0];
	relays[i].input = i == 0;
	relays[i].from = i == 0 ? 0 : p[0];
	relays[i].to = i == 0 ? p[1] : i;
}

uint32_t program_pipes(bool wanted, int ret[static 3], size_t *ret_n)
{
	uint32_t bits = 0;

	*ret_n = 0;
	for (int i = 0; i < 3; i++) {
		relays[i].from = relays[i].to = -1;
		if (!wanted || is_null(i))
			continue;
		bits |= 1u << i;
		make_pipe(i, ret, ret_n);
	}
	return bits;
}

uint32_t program_report(int ret[static 3], size_t *ret_n)
{
	relays[0].from = relays[0].to = relays[1].from = relays[1].to = -1;
	*ret_n = 0;
	make_pipe(STDERR_FILENO, ret, ret_n);
	return 1u << STDERR_FILENO;
}

uint32_t program_terminal(bool errors, int ret[static 3], size_t *ret_n)
{
	bool pipe_for_errors = !errors && !is_null(2);

	on_terminal = true;
	*ret_n = 0;
	relays[2].from = relays[2].to = -1;
	for (int i = 0; i < 2 + pipe_for_errors; i++)
		make_pipe(i, ret, ret_n);
	/* What the user types has an end only when the terminal is gone. */
	relays[0].types = !isatty(0);
	return pipe_for_errors ? 1u << 2 : 0;
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
	if (on_terminal) {
		sigaddset(&set, SIGWINCH);
		sigaddset(&set, SIGTSTP);
		sigaddset(&set, SIGCONT);
	}
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
	struct terminal_escape escape;
};

/* The program's terminal is hung up with our end of what is typed. */
static _Noreturn void leave(int signal_number)
{
	sigset_t set;

	terminal_restore();
	(void)signal(signal_number, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, signal_number);
	(void)raise(signal_number);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	exit(128 + signal_number);
}

/* True: it is for us, not for the program. */
static bool take_signal(int signal_number)
{
	switch (on_terminal ? signal_number : 0) {
	case SIGWINCH:
		terminal_window_changed();
		return true;
	case SIGTSTP:
		terminal_restore();
		(void)raise(SIGSTOP);
		return true;
	case SIGCONT:
		terminal_make_raw();
		terminal_window_changed();
		return true;
	case SIGTERM:
	case SIGHUP:
	case SIGINT:
	case SIGQUIT:
		leave(signal_number);
	}
	return false;
}

static void check_escape(struct run *r)
{
	if (!terminal_is_escape(&r->escape, relays[0].bytes, relays[0].len,
				terminal_now_ms()))
		return;
	terminal_restore();
	session_exit(EXIT_FAILED, "left: the terminal of application %d is hung up",
		     r->pid);
}

/* ssid was restarted, perhaps: the program did not notice, and we need not.  @silent_ms counts
 * since an ssid last said something. */
static void reconnect(struct run *r)
{
	static const struct timespec pause = { .tv_nsec = RETRY_MS * 1000000 };

	session_close(r->session);
	do {
		nanosleep(&pause, NULL);
		r->silent_ms += RETRY_MS;
		if (r->silent_ms > RECONNECT_MS) {
			terminal_restore();
			session_exit(EXIT_DOWN,
				     "ssid is gone; application %d may go on, its end is not known",
				     r->pid);
		}
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
	int pause = terminal_window_pause_ms();
	bool active, typed = relays[0].len == 0;
	struct pollfd p[9];

	p[0] = (struct pollfd){ .fd = r->ended ? -1 : session_fd(r->session), .events = POLLIN };
	p[1] = (struct pollfd){ .fd = r->signals, .events = POLLIN };
	for (size_t i = 0; i < 3; i++)
		relay_prepare(&relays[i], &p[2 + 2 * i]);
	p[8] = (struct pollfd){.fd = terminal_window_poll_fd(), .events = POLLIN};
	/* A pause of ours is no silence of the program's. */
	if (pause >= 0 && (timeout < 0 || pause < timeout))
		active = poll(p, N_ELEMENTS(p), pause) >= 0;
	else
		active = poll(p, N_ELEMENTS(p), timeout) > 0;
	for (size_t i = 0; i < 3; i++)
		(void)relay_turn(&relays[i], &p[2 + 2 * i]);
	if (on_terminal && typed && relays[0].len)
		check_escape(r);
	if (on_terminal)
		terminal_window_turn(r->options, relays[0].to, p[8].revents);
	if (p[1].revents) {
		struct signalfd_siginfo si;

		if (read(r->signals, &si, sizeof(si)) == sizeof(si) &&
		    !take_signal((int)si.ssi_signo))
			forward(r->options, r->pid, (int)si.ssi_signo);
	}
	if (p[0].revents) {
		Ssi__Control__Event *event = session_receive(r->session);

		if (!event) {
			reconnect(r);
			return true;
		}
		r->silent_ms = 0;
		if (event->body_case == SSI__CONTROL__EVENT__BODY_FAILURE) {
			terminal_restore();
			session_exit((int)event->failure->status, "%s", event->failure->text);
		}
		if (event->body_case == SSI__CONTROL__EVENT__BODY_EXITED) {
			r->ended = true;
			r->code = event->exited->code;
			r->status = event->exited->status;
		}
		ssi__control__event__free_unpacked(event, NULL);
	}
	return active;
}

/* True: what the program wrote did not get where it should. */
static bool tell_lost(const char *name, const struct relay *r)
{
	if (r->error)
		session_error("%s: %s: what the program wrote is lost", name,
			      strerror(r->error));
	return r->error != 0;
}

static int status_of(const struct run *r)
{
	return r->code == CLD_EXITED ? r->status : 128 + r->status;
}

bool program_executed(const struct session_options *o, struct session *s, int32_t pid,
		      int *ret_status)
{
	struct run r = { .options = o, .session = s, .pid = pid, .signals = signals_fd() };

	/* From another node the end of the pipe may come after that of the program. */
	while (relay_live(&relays[2]))
		(void)turn(&r, session_left_ms(r.session));
	while (relays[2].used && !r.ended)
		(void)turn(&r, -1);
	session_close(r.session);
	*ret_status = status_of(&r);
	return !relays[2].used;
}

int program_follow(const struct session_options *o, struct session *s, int32_t pid)
{
	struct run r = { .options = o, .session = s, .pid = pid, .signals = signals_fd() };
	bool lost;

	/* The timeout was for the start; a program takes as long as it takes. */
	session_no_deadline(s);
	if (on_terminal) {
		terminal_make_raw();
		terminal_window_changed();
	}
	while (!r.ended)
		(void)turn(&r, -1);
	/* Output that other processes of the application keep open is waited for
	 * only while something comes.  A terminal is nobody's any more: its end comes.
	 */
	while ((relay_live(&relays[1]) &&
		turn(&r, on_terminal ? RECONNECT_MS : IDLE_MS)) ||
	       (relay_live(&relays[2]) && turn(&r, IDLE_MS)))
		;
	terminal_restore();
	session_close(r.session);
	lost = tell_lost("standard output", &relays[1]);
	lost |= tell_lost("standard error", &relays[2]);
	if (lost && r.code == CLD_EXITED && r.status == 0)
		return EXIT_FAILED;
	return status_of(&r);
}
