/*
 * The end at the mirror: a pty whose discipline does nothing with input (EXTPROC), since the
 * terminal's has done it, and tells of every change of its modes (packet mode).
 *
 * Of output both disciplines make the same, so what this one made of a newline is undone.
 */
#include "ssi_tty.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

struct mirror {
	struct tty_channel *channel;
	char slave_path[64];
	pid_t foreground;
	struct termios modes;
	uint32_t sent; /* times that modes were told */
	bool returned; /* the last byte of output was a carriage return that is not sent yet */
};

/* -- Output -- */

/* In place; the length that is left.  Each newline has one return before it that is the
 * discipline's. */
static size_t undo_returns(struct mirror *m, char *data, size_t len)
{
	size_t n = 0;

	if ((m->modes.c_oflag & (OPOST | ONLCR)) != (OPOST | ONLCR))
		return len;
	for (size_t i = 0; i < len; i++)
		if (data[i] != '\r' || i + 1 == len || data[i + 1] != '\n')
			data[n++] = data[i];
	return n;
}

static void tell_modes(struct mirror *m)
{
	struct tty_modes told = {0};

	if (tcgetattr(TTY_SLAVE, &told.modes) < 0)
		over();
	if (!(told.modes.c_lflag & EXTPROC)) {
		told.modes.c_lflag |= EXTPROC;
		(void)tcsetattr(TTY_SLAVE, TCSANOW, &told.modes);
	}
	if (modes_equal(&told.modes, &m->modes))
		return;
	m->modes = told.modes;
	m->sent++;
	channel_send(m->channel, TTY_MODES, &told, sizeof(told));
}

/* False: there is nothing more.  (The kernel looks for what is on its way before it says so.) */
static bool pass_output(struct mirror *m)
{
	char buf[TTY_DATA_MAX]; /* the first byte says what it is */
	size_t held = m->returned, len;
	ssize_t n = read(TTY_MASTER, buf + held, sizeof(buf) - held);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0)
		over();
	if (buf[held] != TIOCPKT_DATA) {
		if (buf[held] & TIOCPKT_IOCTL)
			tell_modes(m);
		return true;
	}
	len = (size_t)n - 1;
	if (held)
		buf[0] = '\r';
	memmove(buf + held, buf + held + 1, len);
	len += held;
	m->returned = len > 0 && buf[len - 1] == '\r';
	len -= m->returned;
	len = undo_returns(m, buf, len);
	if (len)
		channel_send(m->channel, TTY_OUTPUT, buf, len);
	return true;
}

/* A return at the end of what there is belongs to no newline. */
static void pass_return(struct mirror *m)
{
	if (m->returned)
		channel_send(m->channel, TTY_OUTPUT, "\r", 1);
	m->returned = false;
}

static void pass_all_output(struct mirror *m)
{
	while (pass_output(m))
		;
	pass_return(m);
}

/* -- Input -- */

static bool names_mirror(const struct mirror *m, pid_t pid, const char *fd)
{
	char path[320], link[64];
	ssize_t n;

	(void)snprintf(path, sizeof(path), "/proc/%d/fd/%s", pid, fd);
	n = readlink(path, link, sizeof(link) - 1);
	link[n > 0 ? n : 0] = 0;
	return !strcmp(link, m->slave_path) || !strcmp(link, "/dev/tty");
}

static bool has_mirror_open(const struct mirror *m, pid_t pid)
{
	char path[64];
	struct dirent *e;
	bool found = false;
	DIR *dir;

	(void)snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	while (dir && !found && (e = readdir(dir)))
		found = e->d_name[0] != '.' && names_mirror(m, pid, e->d_name);
	if (dir)
		(void)closedir(dir);
	return found;
}

/* Does the thread wait in a call that reads the mirror, or may be waiting for it to be readable? */
static bool thread_reads(const struct mirror *m, pid_t pid, const char *tid)
{
	char path[320], text[256], number[24];
	unsigned long long argument;
	ssize_t n;
	int fd, nr;

	(void)snprintf(path, sizeof(path), "/proc/%d/task/%s/syscall", pid, tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, text, sizeof(text) - 1);
	(void)close(fd);
	text[n > 0 ? n : 0] = 0;
	if (sscanf(text, "%d %llx", &nr, &argument) != 2)
		return false; /* it runs */
	switch (nr) {
	case SYS_read:
	case SYS_readv:
	case SYS_preadv2:
		(void)snprintf(number, sizeof(number), "%llu", argument);
		return names_mirror(m, pid, number);
	case SYS_poll:
	case SYS_ppoll:
	case SYS_select:
	case SYS_pselect6:
	case SYS_epoll_wait:
	case SYS_epoll_pwait:
	case SYS_epoll_pwait2:
	case SYS_restart_syscall: /* poll(), if it has been stopped meanwhile */
		return has_mirror_open(m, pid);
	default:
		return false;
	}
}

static bool process_reads(const struct mirror *m, pid_t pid)
{
	char path[64];
	struct dirent *e;
	bool found = false;
	DIR *dir;

	/* Who has set such modes looks for keys whenever it likes. */
	if (!(m->modes.c_lflag & ICANON))
		return has_mirror_open(m, pid);
	(void)snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	while (dir && !found && (e = readdir(dir)))
		found = e->d_name[0] != '.' && thread_reads(m, pid, e->d_name);
	if (dir)
		(void)closedir(dir);
	return found;
}

/* Not the leader, which has the mirror, as a shadow. */
static bool is_of(pid_t pid, pid_t group)
{
	return getpgid(pid) == group && getsid(pid) != pid;
}

static bool somebody_reads(const struct mirror *m, pid_t group)
{
	DIR *dir = opendir("/proc");
	struct dirent *e;
	bool found = false;

	while (dir && !found && (e = readdir(dir))) {
		pid_t pid = atoi(e->d_name);

		found = pid > 0 && is_of(pid, group) && process_reads(m, pid);
	}
	if (dir)
		(void)closedir(dir);
	return found;
}

/* With poll() the kernel passes on what was just written to the master: else two lines might lie
 * there for one read(). */
static int unread(void)
{
	struct pollfd p = {.fd = TTY_SLAVE, .events = POLLIN};
	int n = 0;

	(void)poll(&p, 1, 0);
	return ioctl(TTY_SLAVE, FIONREAD, &n) < 0 ? 0 : n;
}

static void give_back(struct mirror *m)
{
	char buf[TTY_DATA_MAX];
	ssize_t n;

	if (unread() <= 0)
		return;
	n = read(TTY_SLAVE, buf, sizeof(buf));
	if (n > 0)
		channel_send(m->channel, TTY_BACK, buf, (size_t)n);
}

static void on_ask(struct mirror *m, pid_t group)
{
	/* One piece after the other: then little has to come back. */
	uint8_t want = group == m->foreground && unread() == 0 && somebody_reads(m, group);

	channel_send(m->channel, TTY_WANT, &want, sizeof(want));
}

/* -- Records -- */

static void set_modes(struct mirror *m, const struct tty_modes *from)
{
	if (from->seen != m->sent)
		return;
	m->modes = from->modes;
	m->modes.c_lflag |= EXTPROC;
	if (tcsetattr(TTY_SLAVE, TCSANOW, &m->modes) < 0)
		over();
}

static void set_foreground(struct mirror *m, pid_t group)
{
	give_back(m);
	m->foreground = group;
	if (send(TTY_CONTROL, &group, sizeof(group), MSG_NOSIGNAL) < 0)
		over();
}

static bool on_record(void *owner, enum tty_record record, const void *data, size_t len)
{
	struct mirror *m = owner;
	struct tty_modes modes;
	struct winsize size;
	pid_t pid;

	switch (record) {
	case TTY_INPUT:
		if (write(TTY_MASTER, data, len) < 0 && errno != EAGAIN)
			over();
		break;
	case TTY_END:
		/* In these modes the kernel takes it for the end of file, if it is alone. */
		(void)!write(TTY_MASTER, &m->modes.c_cc[VEOF], 1);
		break;
	case TTY_SIZE:
		if (len != sizeof(size))
			over();
		memcpy(&size, data, sizeof(size));
		(void)ioctl(TTY_MASTER, TIOCSWINSZ, &size);
		break;
	case TTY_MODES:
		if (len != sizeof(modes))
			over();
		memcpy(&modes, data, sizeof(modes));
		set_modes(m, &modes);
		break;
	case TTY_FOREGROUND:
	case TTY_ASK:
	case TTY_MARKED:
		if (len != sizeof(pid))
			over();
		memcpy(&pid, data, sizeof(pid));
		if (record == TTY_FOREGROUND)
			set_foreground(m, pid);
		else if (record == TTY_ASK)
			on_ask(m, pid);
		else
			(void)send(TTY_SSID, &pid, sizeof(pid), MSG_NOSIGNAL | MSG_DONTWAIT);
		break;
	default:
		over();
	}
	return false;
}

/* @pid has ended or stopped: what it wrote goes before that, what it did not read back. */
static void on_ssid(struct mirror *m)
{
	pid_t pid;

	if (recv(TTY_SSID, &pid, sizeof(pid), MSG_DONTWAIT) != sizeof(pid))
		over();
	pass_all_output(m);
	if (unread() > 0 && !somebody_reads(m, m->foreground))
		give_back(m);
	channel_send(m->channel, TTY_MARK, &pid, sizeof(pid));
}

_Noreturn void run_mirror(struct tty_channel *c)
{
	static struct mirror m;
	int packets = 1;
	ssize_t n;

	(void)signal(SIGPIPE, SIG_IGN);
	m.channel = c;
	n = readlink("/proc/self/fd/7", m.slave_path, sizeof(m.slave_path) - 1);
	if (n <= 0 || ioctl(TTY_MASTER, TIOCPKT, &packets) < 0 ||
	    tcgetattr(TTY_SLAVE, &m.modes) < 0)
		over();
	m.modes.c_lflag |= EXTPROC;
	if (tcsetattr(TTY_SLAVE, TCSANOW, &m.modes) < 0)
		over();
	for (;;) {
		struct pollfd p[] = {{.fd = c->in, .events = POLLIN},
				     {.fd = TTY_MASTER, .events = POLLIN},
				     {.fd = TTY_CONTROL},
				     {.fd = TTY_SSID, .events = POLLIN}};

		if (poll(p, 4, m.returned ? 5 : -1) < 0)
			continue;
		if (p[1].revents & (POLLIN | POLLPRI))
			(void)pass_output(&m);
		else
			pass_return(&m);
		if ((p[1].revents | p[2].revents) & (POLLHUP | POLLERR)) {
			pass_all_output(&m);
			over();
		}
		if (p[3].revents)
			on_ssid(&m);
		if (p[0].revents)
			channel_receive(c, on_record, &m);
	}
}
