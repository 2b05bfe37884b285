#include "tty_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

static const char *ssi_tty;

int fixture_main(int argc, char **argv, int (*tests)(void))
{
	if (geteuid() != 0) {
		(void)printf("1..0 # skip needs root, to type into terminals\n");
		return 77;
	}
	(void)signal(SIGPIPE, SIG_IGN);
	ssi_tty = argc > 1 ? argv[1] : "ssi-tty";
	return tests();
}

/* -- The session -- */

static void start_program(program p, int slave, int orders, int control, int reports)
{
	pid_t leader = getpid(), pid = fork();

	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != leader)
			_exit(0); /* it had ended already */
		(void)setpgid(0, 0);
		(void)close(orders);
		(void)close(control);
		p(slave, reports);
		_exit(0);
	}
	(void)setpgid(pid, pid);
	(void)!write(orders, &pid, sizeof(pid));
}

static _Noreturn void run_leader(int slave, int orders, int control, int reports)
{
	struct pollfd fds[] = {{orders, POLLIN, 0}, {control, POLLIN, 0}};
	pid_t pid = getpid();
	sigset_t set;
	program p;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)signal(SIGHUP, SIG_IGN);
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTTOU);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	if (setsid() < 0 || ioctl(slave, TIOCSCTTY, 0) < 0)
		_exit(1);
	(void)!write(orders, &pid, sizeof(pid));
	for (;;) {
		(void)poll(fds, 2, -1);
		if (fds[0].revents) {
			if (read(orders, &p, sizeof(p)) != sizeof(p))
				_exit(0);
			if (p) {
				start_program(p, slave, orders, control, reports);
			} else {
				(void)close(control);
				fds[1].fd = -1;
			}
		}
		if (fds[1].revents) {
			if (read(control, &pid, sizeof(pid)) == sizeof(pid))
				(void)tcsetpgrp(slave, pid);
			else
				fds[1].fd = -1;
		}
	}
}

static void start_leader(struct line *l)
{
	const struct winsize size = {.ws_row = 24, .ws_col = 80};
	int orders[2], control[2], reports[2];
	pid_t pid;

	assert_int_equal(openpty(&l->master, &l->slave, l->name, NULL, &size), 0);
	assert_int_equal(fcntl(l->master, F_SETFL, O_RDWR | O_NONBLOCK), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, orders),
			 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control),
			 0);
	assert_int_equal(pipe2(reports, O_CLOEXEC), 0);
	l->leader = fork();
	assert_true(l->leader >= 0);
	if (l->leader == 0) {
		(void)close(l->master);
		(void)close(orders[0]);
		(void)close(control[0]);
		(void)close(reports[0]);
		run_leader(l->slave, orders[1], control[1], reports[1]);
	}
	(void)close(orders[1]);
	(void)close(control[1]);
	(void)close(reports[1]);
	l->orders = orders[0];
	l->control = control[0];
	l->reports = reports[0];
	assert_int_equal(read(l->orders, &pid, sizeof(pid)), sizeof(pid));
	assert_int_equal(pid, l->leader);
}

pid_t run(struct line *l, program p)
{
	pid_t pid = 0;

	assert_int_equal(write(l->orders, &p, sizeof(p)), sizeof(p));
	assert_int_equal(read(l->orders, &pid, sizeof(pid)), sizeof(pid));
	assert_true(pid > 0);
	return pid;
}

void close_control(struct line *l)
{
	program none = NULL;

	assert_int_equal(write(l->orders, &none, sizeof(none)), sizeof(none));
}

void report(int reports, const void *data, ssize_t n)
{
	struct report r = {.n = n};

	memcpy(r.data, data, n > 0 ? (size_t)n : 0);
	(void)!write(reports, &r, sizeof(r));
}

static void await_readable(int fd)
{
	struct pollfd p = {fd, POLLIN, 0};

	if (poll(&p, 1, 60000) != 1)
		fail_msg("waited for a minute");
}

struct report read_report(struct line *l)
{
	struct report r = {0};

	await_readable(l->reports);
	assert_int_equal(read(l->reports, &r, sizeof(r)), sizeof(r));
	return r;
}

/* -- The line -- */

static void start_end(struct line *l, const char *const *argv, const int *more,
		      int n_more)
{
	int in[2], out[2], ssid[2], fds[6];

	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ssid),
			 0);
	memcpy(fds, (int[]){out[0], in[1], ssid[1]}, 3 * sizeof(int));
	for (int i = 0; i < n_more; i++)
		fds[3 + i] = more[i];
	l->end = fork();
	assert_true(l->end >= 0);
	if (l->end == 0) {
		for (int i = 0; i < 3 + n_more; i++)
			fds[i] = fcntl(fds[i], F_DUPFD, 100);
		for (int i = 0; i < 3 + n_more; i++)
			(void)dup2(fds[i], TTY_IN + i);
		(void)close_range(TTY_IN + 3 + (unsigned)n_more, ~0U, 0);
		execv(ssi_tty, (char *const *)argv);
		_exit(127);
	}
	(void)close(out[0]);
	(void)close(in[1]);
	(void)close(ssid[1]);
	l->in = in[0];
	l->out = out[1];
	l->ssid = ssid[0];
}

static struct line *line_new(void **state)
{
	struct line *l = calloc(1, sizeof(*l));

	assert_non_null(l);
	l->master = l->slave = l->orders = l->control = l->reports = -1;
	l->in = l->out = l->ssid = -1;
	*state = l;
	start_leader(l);
	return l;
}

int home_up(void **state)
{
	struct line *l = line_new(state);
	char session[16];
	const char *const argv[] = {"ssi-tty", "home", session, l->name, NULL};

	(void)snprintf(session, sizeof(session), "%d", l->leader);
	start_end(l, argv, NULL, 0);
	return 0;
}

int mirror_up(void **state)
{
	static const char *const argv[] = {"ssi-tty", "mirror", NULL};
	struct line *l = line_new(state);
	const int more[] = {l->master, l->slave, l->control};
	struct termios modes;

	start_end(l, argv, more, 3);
	close_end(&l->control);
	/* It has begun. */
	wait_until(tcgetattr(l->slave, &modes) == 0 && modes.c_lflag & EXTPROC);
	return 0;
}

static void end_process(pid_t *pid)
{
	if (*pid <= 0)
		return;
	(void)kill(*pid, SIGKILL);
	(void)waitpid(*pid, NULL, 0);
	*pid = 0;
}

int line_down(void **state)
{
	struct line *l = *state;
	int *const fds[] = {&l->master,	 &l->slave, &l->orders, &l->control,
			    &l->reports, &l->in,    &l->out,	&l->ssid};

	end_process(&l->end);
	end_process(&l->leader);
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		close_end(fds[i]);
	free(l);
	return 0;
}

void put(struct line *l, unsigned record, const void *data, size_t len)
{
	struct record r = {.head = {(uint16_t)record, (uint16_t)len}};

	memcpy(r.data, data, len);
	len += sizeof(r.head);
	assert_int_equal(write(l->out, &r, len), len);
}

void put_pid(struct line *l, unsigned record, pid_t pid)
{
	put(l, record, &pid, sizeof(pid));
}

static void read_whole(int fd, void *data, size_t len)
{
	for (size_t n = 0; n < len;) {
		ssize_t got;

		await_readable(fd);
		got = read(fd, (char *)data + n, len - n);
		assert_true(got > 0);
		n += (size_t)got;
	}
}

struct record next(struct line *l)
{
	struct record r = {0};

	read_whole(l->in, &r.head, sizeof(r.head));
	assert_in_range(r.head.len, 0, TTY_DATA_MAX);
	read_whole(l->in, r.data, r.head.len);
	return r;
}

struct record await(struct line *l, enum tty_record record)
{
	struct record r;

	do
		r = next(l);
	while (r.head.record != record);
	return r;
}

void write_text(int fd, const char *text)
{
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

void expect_text(int fd, const char *text)
{
	char got[256] = "";

	assert_in_range(strlen(text), 1, sizeof(got) - 1);
	read_whole(fd, got, strlen(text));
	assert_string_equal(got, text);
}

void close_end(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

void expect_over(struct line *l)
{
	int status = 0;

	wait_until(waitpid(l->end, &status, WNOHANG) == l->end);
	l->end = 0;
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void expect_head_ends(void **state, int (*up)(void **state),
			     struct tty_head head)
{
	struct {
		struct tty_head head;
		char data[TTY_DATA_MAX + 1];
	} whole = {.head = head};
	size_t len = sizeof(head) + head.len;
	struct line *l;

	(void)line_down(state);
	(void)up(state);
	l = *state;
	assert_int_equal(write(l->out, &whole, len), len);
	expect_over(l);
}

void expect_garbage_ends(void **state, int (*up)(void **state),
			 const struct tty_head *heads)
{
	expect_head_ends(state, up, (struct tty_head){0, 0});
	expect_head_ends(state, up, (struct tty_head){_TTY_RECORDS, 0});
	expect_head_ends(state, up, (struct tty_head){TTY_OUTPUT, TTY_DATA_MAX + 1});
	expect_head_ends(state, up, (struct tty_head){TTY_INPUT, TTY_DATA_MAX + 1});
	for (; heads->record; heads++)
		expect_head_ends(state, up, *heads);
}
