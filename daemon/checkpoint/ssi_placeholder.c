/*
 * ssi-placeholder SID PGID PROGRAM...: be in a session and a group of given
 * numbers, then become PROGRAM (criu), whose restored root inherits both.
 *
 * ssi-init makes it with the PID of the session (or, with SID 0, of the group).
 * If the group is another than the session it makes a sibling with that PID,
 * which is a child of ssi-init as it is itself, and leaves.  0: not asked for.
 *
 * Where that cannot be done it tells ssid so as criu would, over descriptor 3: a
 * Response of criu_rpc.proto, a failed restore with a text.
 */
#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { TALK_FD = 3, LOG_STYLE_MAX = 100 };

static _Noreturn void fail(const char *what, int number)
{
	char text[LOG_STYLE_MAX];
	uint8_t message[6 + LOG_STYLE_MAX] = { 0x08, 2, 0x10, 0, 0x4a };
	int n = snprintf(text, sizeof(text), "Error (placeholder): %s %d: %s", what, number,
			 strerror(errno));

	message[5] = (uint8_t)n;
	memcpy(message + 6, text, n);
	(void)!write(TALK_FD, message, 6 + n);
	_exit(126);
}

/* Go on in a sibling with PID @pid. */
static void become(pid_t pid)
{
	struct clone_args args = {
		.flags = CLONE_PARENT,
		.set_tid = (uintptr_t)&pid,
		.set_tid_size = 1,
	};
	long r = syscall(SYS_clone3, &args, sizeof(args));

	if (r > 0)
		_exit(0);
	if (r < 0)
		fail("cannot make the process group", pid);
}

int main(int argc, char **argv)
{
	pid_t sid, pgid;

	if (argc < 4) {
		(void)fprintf(stderr, "usage: ssi-placeholder SID PGID PROGRAM [ARGUMENT]...\n");
		return 2;
	}
	sid = atoi(argv[1]);
	pgid = atoi(argv[2]);
	if (sid && setsid() != sid)
		fail("cannot make the session", sid);
	if (pgid && pgid != getpid())
		become(pgid);
	if (pgid && setpgid(0, 0) < 0)
		fail("cannot lead the process group", pgid);
	(void)execv(argv[3], argv + 3);
	fail("cannot become criu", getpid());
}
