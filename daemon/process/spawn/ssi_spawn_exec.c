/*
 * A program that a process of another node starts by execve().
 *
 * This process has its PID, parent, session and group; the rest is made as the page says.
 * Then ssid is told READY over descriptor 4, and its answer waited for: only when the process
 * there has given way does the program begin.
 *
 * Failure modes: something cannot be made -> one line for ssid and the end, nothing
 * has happened; ssid ends without a successor, or says no -> the end; the program cannot be
 * executed after all -> as if a shell had tried: the line, and 126 or 127.
 */
#include "ssi_spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <termios.h>
#include <unistd.h>

enum {
	SSID_FD = FIRST_FD,
	GIVEN_FD = FIRST_FD + 1,
	GIVEN_MAX = 32,
	HIGH_FD = 256, /* descriptors wait here before they take their numbers */
	DESCRIPTORS_MAX = 64,
};

static int ssid = SSID_FD;

static _Noreturn void give_up(const char *what, int error)
{
	char line[4352];
	int n = snprintf(line, sizeof(line), "%.4096s: %s", what, strerror(error));

	(void)!send(ssid, line, n, MSG_NOSIGNAL);
	_exit(EXIT_CANNOT);
}

static int high(int fd)
{
	int r = fcntl(fd, F_DUPFD_CLOEXEC, HIGH_FD);

	if (r < 0)
		give_up("descriptors", errno);
	return r;
}

static int open_file(const Ssi__Process__Descriptor *d, const char *path)
{
	int fd = open(path, (int)(d->flags & ~(unsigned)(O_CREAT | O_EXCL | O_TRUNC)) | O_CLOEXEC |
				    O_NOCTTY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		give_up(path, errno);
	if (d->inode && st.st_ino != d->inode)
		give_up(path, ESTALE);
	if (S_ISREG(st.st_mode) && lseek(fd, (off_t)d->offset, SEEK_SET) < 0)
		give_up(path, errno);
	return fd;
}

/* An open file of its own: what it is told, other programs of the terminal do not see. */
static int open_terminal(const Ssi__Process__Descriptor *d)
{
	char path[32];
	int fd;

	if (d->given >= GIVEN_MAX)
		give_up("descriptors", EINVAL);
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", GIVEN_FD + (int)d->given);
	fd = open(path, (int)(d->flags & (O_ACCMODE | O_NONBLOCK | O_APPEND)) | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		give_up("terminal", errno);
	return high(fd);
}

static int make(const Ssi__Process__Descriptor *d)
{
	char *path;
	int fd;

	if (d->kind == SSI__PROCESS__DESCRIPTOR__KIND__TERMINAL)
		return open_terminal(d);
	if (d->kind != SSI__PROCESS__DESCRIPTOR__KIND__FILE) {
		if (d->given >= GIVEN_MAX)
			give_up("descriptors", EINVAL);
		fd = high(GIVEN_FD + (int)d->given);
		(void)fcntl(fd, F_SETFL, (int)d->flags & O_NONBLOCK);
		return fd;
	}
	path = string_of(&d->path);
	if (!path)
		give_up("memory", ENOMEM);
	fd = open_file(d, path);
	free(path);
	return high(fd);
}

/* The file that execve() was told, and the one that it would find here. */
static void check_program(const char *path, const Ssi__Process__Exec *x)
{
	struct stat st;

	if (access(path, X_OK) < 0 || stat(path, &st) < 0)
		give_up(path, errno);
	if ((uint64_t)st.st_size != x->program_size ||
	    (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec !=
		    x->program_changed)
		give_up(path, ESTALE);
}

/* As the terminal is at home, now. */
static void set_terminal(const Ssi__Process__Terminal *t)
{
	int fd = GIVEN_FD + (int)t->given;
	pid_t foreground = t->foreground;
	struct termios modes;
	struct winsize size;
	sigset_t set;

	if (t->given >= GIVEN_MAX || t->modes.len != sizeof(modes) || t->size.len != sizeof(size))
		give_up("terminal", EINVAL);
	memcpy(&modes, t->modes.data, sizeof(modes));
	memcpy(&size, t->size.data, sizeof(size));
	modes.c_lflag |= EXTPROC; /* its mirror has no discipline */
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTTOU);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	if (tcgetsid(fd) < 0 || tcsetattr(fd, TCSANOW, &modes) < 0 ||
	    ioctl(fd, TIOCSWINSZ, &size) < 0)
		give_up("terminal", errno);
	/* Not here, it has nobody here. */
	if (tcsetpgrp(fd, foreground) < 0)
		(void)tcsetpgrp(fd, getpgid(getsid(0)));
}

/* Its answer: what the alarm clock of the process has. */
static void wait_for_ssid(struct itimerval *ret_alarm)
{
	static const char ready[] = "READY";
	uint64_t us[2];

	if (send(ssid, ready, sizeof(ready) - 1, MSG_NOSIGNAL) < 0 ||
	    read(ssid, us, sizeof(us)) != sizeof(us))
		_exit(EXIT_CANNOT);
	ret_alarm->it_value = (struct timeval){us[0] / 1000000, us[0] % 1000000};
	ret_alarm->it_interval = (struct timeval){us[1] / 1000000, us[1] % 1000000};
}

static void take_numbers(const Ssi__Process__Exec *x, const int *made)
{
	/* Those below are free: what was given and made waits above. */
	(void)close_range(0, HIGH_FD - 1, 0);
	for (size_t i = 0; i < x->n_descriptors; i++)
		if (dup2(made[i], x->descriptors[i]->number) < 0)
			_exit(EXIT_CANNOT);
}

_Noreturn void run_exec(const Ssi__Process__Launch *l)
{
	const Ssi__Process__Exec *x = l->exec;
	char **argv = strings_of(l->argv, l->n_argv), **envp = strings_of(l->envp, l->n_envp);
	char *cwd = string_of(&l->cwd), *program = string_of(&x->program);
	int made[DESCRIPTORS_MAX];
	struct itimerval alarm;

	if (!argv || !envp || !cwd || !program)
		give_up("memory", ENOMEM);
	if (x->n_descriptors > DESCRIPTORS_MAX)
		give_up("descriptors", EINVAL);
	if (chdir(cwd) < 0)
		give_up(cwd, errno);
	ssid = high(SSID_FD);
	for (size_t i = 0; i < x->n_descriptors; i++)
		made[i] = make(x->descriptors[i]);
	check_program(program, x);
	if (x->terminal)
		set_terminal(x->terminal);
	for (size_t i = 0; i < l->n_limits; i++)
		set_limit(l->limits[i]);
	wait_for_ssid(&alarm);
	take_numbers(x, made);
	(void)setitimer(ITIMER_REAL, &alarm, NULL);
	set_signals(x->ignored, x->blocked);
	(void)execve(program, argv, envp);
	fail(errno == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT, program, errno);
}
