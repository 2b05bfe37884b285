#include "session.h"

#include "buf.h"
#include "cleanup.h"
#include "version.h"

#include <endian.h>
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static const char DEFAULT_SOCKET[] = "/run/ssi/ssid.sock";
enum {
	MESSAGE_MAX = 4 << 20,
	AWAIT_MS = 30000, /* for a successor of ssid */
	AWAIT_PAUSE_MS = 100,
};

struct session {
	const struct session_options *options;
	int fd;
	uint64_t deadline_ms; /* CLOCK_MONOTONIC; 0: none */
	struct buf in;
};

static void say(const char *format, va_list ap)
{
	/* One line, whatever ssid had to say. */
	char text[1024];

	vsnprintf(text, sizeof(text), format, ap);
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = ' ';
	fprintf(stderr, "%s: %s\n", program_invocation_short_name, text);
}

void session_error(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	say(format, ap);
	va_end(ap);
}

void session_exit(int code, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	say(format, ap);
	va_end(ap);
	/* @code may be what another ssid sent: a failure is never 0, nor a code of no tool's. */
	exit(code > EXIT_OK && code <= EXIT_DOWN ? code : EXIT_FAILED);
}

void session_usage(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	say(format, ap);
	va_end(ap);
	fprintf(stderr, "Try '%s --help'.\n", program_invocation_short_name);
	exit(EXIT_USAGE);
}

uint64_t session_number(const char *text, uint64_t max, const char *what)
{
	char *end;
	unsigned long long n;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno || end == text || *end || text[0] == '-' || n > max)
		session_usage("%s is not a %s", text, what);
	return n;
}

/* Options. */

enum { OPT_VERSION = 1000, OPT_JSON, OPT_TIMEOUT, OPT_SOCKET };

static const struct option common_options[] = {
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "quiet", no_argument, NULL, 'q' },
	{ "timeout", required_argument, NULL, OPT_TIMEOUT },
	{ "socket", required_argument, NULL, OPT_SOCKET },
};

static const char common_help[] =
	"\n"
	"Options that every tool has:\n"
	"      --json          print JSON, versioned, instead of text\n"
	"  -q, --quiet         no progress, no remarks\n"
	"      --timeout S     give up after S seconds (exit code 7)\n"
	"      --socket PATH   where this node's ssid listens (/run/ssi/ssid.sock)\n"
	"  -h, --help          this text\n"
	"      --version       the version\n";

static bool take_common(int val, const char *help, struct session_options *o)
{
	switch (val) {
	case 'h':
		printf("%s%s", help, common_help);
		exit(EXIT_OK);
	case OPT_VERSION:
		printf("%s (LinuxSSI) %s\n", program_invocation_short_name, SSI_VERSION);
		exit(EXIT_OK);
	case OPT_JSON:
		o->json = true;
		return true;
	case 'q':
		o->quiet = true;
		return true;
	case OPT_TIMEOUT:
		o->timeout_ms = session_number(optarg, 1000000, "number of seconds") * 1000;
		return true;
	case OPT_SOCKET:
		o->socket = optarg;
		return true;
	case '?':
		fprintf(stderr, "Try '%s --help'.\n", program_invocation_short_name);
		exit(EXIT_USAGE);
	}
	return false;
}

/* What was printed and could not be written is no success, whatever was done. */
static void close_output(void)
{
	bool printed = __fpending(stdout) != 0, failed = ferror(stdout) != 0;

	/* Closed before we came, and nothing printed: no fault. */
	if (fclose(stdout) != 0 && (printed || errno != EBADF))
		failed = true;
	if (failed) {
		session_error("standard output: %m");
		_exit(EXIT_FAILED);
	}
}

int session_options(int argc, char **argv, const char *short_options,
		    const struct option *long_options, const char *help,
		    void (*on_option)(int val, const char *argument), struct session_options *ret)
{
	struct option all[64] = { 0 };
	char letters[64];
	size_t n = 0;
	int val;

	*ret = (struct session_options){ .socket = DEFAULT_SOCKET };
	(void)atexit(close_output);
	for (; long_options && long_options->name; long_options++)
		all[n++] = *long_options;
	for (size_t i = 0; i < N_ELEMENTS(common_options); i++)
		all[n++] = common_options[i];
	snprintf(letters, sizeof(letters), "%shq", short_options);
	while ((val = getopt_long(argc, argv, letters, all, NULL)) != -1)
		if (!take_common(val, help, ret))
			on_option(val, optarg);
	return optind;
}

/* The connection. */

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

struct session *session_try(const struct session_options *o)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct session *s;
	int fd;

	if (strlen(o->socket) >= sizeof(a.sun_path))
		session_usage("%s is too long for a socket", o->socket);
	strcpy(a.sun_path, o->socket);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		session_exit(EXIT_FAILED, "no socket: %m");
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		int saved = errno;

		close_fd(fd);
		errno = saved;
		return NULL;
	}
	s = calloc(1, sizeof(*s));
	if (!s)
		session_exit(EXIT_FAILED, "out of memory");
	s->options = o;
	s->fd = fd;
	s->deadline_ms = o->timeout_ms ? now_ms() + o->timeout_ms : 0;
	return s;
}

struct session *session_open(const struct session_options *o)
{
	struct session *s = session_try(o);

	if (!s && errno == EACCES)
		session_exit(EXIT_NOT_PERMITTED, "%s: %m", o->socket);
	if (!s)
		session_exit(EXIT_DOWN,
			     "no ssid answers at %s (%m): is it running? systemctl start ssid",
			     o->socket);
	return s;
}

struct session *session_await(const struct session_options *o)
{
	static const struct timespec pause = { .tv_nsec = AWAIT_PAUSE_MS * 1000000 };
	struct session *s;

	for (unsigned waited = 0; waited < AWAIT_MS; waited += AWAIT_PAUSE_MS) {
		nanosleep(&pause, NULL);
		s = session_try(o);
		if (s)
			return s;
	}
	session_exit(EXIT_DOWN, "ssid went away in the middle, and none answers at %s: "
				"systemctl start ssid, then see ssi-ps",
		     o->socket);
}

struct session *session_close(struct session *s)
{
	if (!s)
		return NULL;
	close_fd(s->fd);
	buf_fini(&s->in);
	free(s);
	return NULL;
}

int session_fd(const struct session *s)
{
	return s->fd;
}

void session_no_deadline(struct session *s)
{
	s->deadline_ms = 0;
}

int session_left_ms(const struct session *s)
{
	uint64_t now = now_ms();

	if (!s->deadline_ms)
		return -1;
	if (now >= s->deadline_ms)
		session_exit(EXIT_TIMEOUT, "no answer from ssid in time");
	return (int)(s->deadline_ms - now);
}

/* Wait for @events on the socket; past the deadline: exit. */
static void await(struct session *s, short events)
{
	struct pollfd p = { .fd = s->fd, .events = events };

	for (;;) {
		int r = poll(&p, 1, session_left_ms(s));

		if (r > 0)
			return;
		if (r < 0 && errno != EINTR)
			session_exit(EXIT_FAILED, "poll: %m");
	}
}

static ssize_t send_some(struct session *s, const uint8_t *data, size_t len, const int *fds,
			 size_t n_fds)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(3 * sizeof(int))] = { 0 };
	struct iovec v = { (void *)data, len };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };

	if (n_fds) {
		struct cmsghdr *h;

		m.msg_control = control;
		m.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		h = CMSG_FIRSTHDR(&m);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(h), fds, n_fds * sizeof(int));
	}
	return sendmsg(s->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
}

bool session_offer(struct session *s, const Ssi__Control__Request *q, const int *fds, size_t n_fds)
{
	size_t len = ssi__control__request__get_packed_size(q), at = 0;
	_cleanup_free_ uint8_t *p = malloc(4 + len);
	uint32_t head = htole32((uint32_t)len);

	if (!p)
		session_exit(EXIT_FAILED, "out of memory");
	if (len > MESSAGE_MAX)
		session_exit(EXIT_USAGE, "arguments and environment are too large");
	memcpy(p, &head, 4);
	ssi__control__request__pack(q, p + 4);
	while (at < 4 + len) {
		ssize_t n;

		await(s, POLLOUT);
		n = send_some(s, p + at, 4 + len - at, fds, n_fds);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return false;
		if (n > 0) {
			at += n;
			n_fds = 0;
		}
	}
	return true;
}

void session_send(struct session *s, const Ssi__Control__Request *q, const int *fds, size_t n_fds)
{
	if (!session_offer(s, q, fds, n_fds))
		session_exit(EXIT_DOWN, "ssid has closed the connection: %m");
}

/* One whole event off the buffer, if there is one. */
static Ssi__Control__Event *take_event(struct session *s)
{
	Ssi__Control__Event *event;
	uint32_t len;

	if (s->in.len < 4)
		return NULL;
	memcpy(&len, s->in.data, 4);
	len = le32toh(len);
	if (len > MESSAGE_MAX)
		session_exit(EXIT_FAILED, "what answers at %s is not an ssid", s->options->socket);
	if (s->in.len < 4 + (size_t)len)
		return NULL;
	event = ssi__control__event__unpack(NULL, len, s->in.data + 4);
	if (!event)
		session_exit(EXIT_FAILED, "what answers at %s is not an ssid", s->options->socket);
	buf_consume(&s->in, 4 + (size_t)len);
	return event;
}

Ssi__Control__Event *session_receive(struct session *s)
{
	for (;;) {
		Ssi__Control__Event *event = take_event(s);
		uint8_t *p;
		ssize_t n;

		if (event)
			return event;
		await(s, POLLIN);
		p = buf_reserve(&s->in, 65536);
		if (!p)
			session_exit(EXIT_FAILED, "out of memory");
		n = recv(s->fd, p, 65536, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return NULL;
		if (n > 0)
			s->in.len += n;
	}
}

/* One line that rewrites itself. */
static void show_progress(const struct session *s, const Ssi__Control__Progress *p)
{
	if (s->options->quiet || s->options->json || !isatty(STDERR_FILENO))
		return;
	fprintf(stderr, "\r\033[K%s", p->step);
	if (p->bytes)
		fprintf(stderr, " %.1f MiB", (double)p->bytes / (1 << 20));
	fflush(stderr);
}

static void end_progress(const struct session *s)
{
	if (!s->options->quiet && !s->options->json && isatty(STDERR_FILENO))
		fprintf(stderr, "\r\033[K");
}

Ssi__Control__Event *session_ask(struct session *s, const Ssi__Control__Request *q)
{
	if (!session_offer(s, q, NULL, 0))
		return NULL;
	for (;;) {
		Ssi__Control__Event *event = session_receive(s);

		if (!event) {
			end_progress(s);
			return NULL;
		}
		if (event->body_case == SSI__CONTROL__EVENT__BODY_PROGRESS) {
			show_progress(s, event->progress);
			ssi__control__event__free_unpacked(event, NULL);
			continue;
		}
		end_progress(s);
		if (event->body_case == SSI__CONTROL__EVENT__BODY_FAILURE)
			session_exit((int)event->failure->status, "%s", event->failure->text);
		return event;
	}
}

Ssi__Control__Event *session_once(const struct session_options *o, const Ssi__Control__Request *q,
				  Ssi__Control__Event__BodyCase expected)
{
	struct session *s = session_open(o);
	Ssi__Control__Event *event = session_call(s, q);

	session_close(s);
	if (event->body_case != expected)
		session_exit(EXIT_FAILED, "ssid answered something else");
	return event;
}

Ssi__Control__Event *session_call(struct session *s, const Ssi__Control__Request *q)
{
	Ssi__Control__Event *event = session_ask(s, q);

	if (!event)
		session_exit(EXIT_DOWN, "ssid went away before it answered: what was "
					"asked may or may not have been done");
	return event;
}
