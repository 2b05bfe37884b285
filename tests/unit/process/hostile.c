/*
 * What an ordinary user can try with ssi-shadow: give it descriptor 3 of every
 * kind and talk to it.  Says its exit status a line each; 125 is "not ours".
 */
#include "shadow_protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *shadow;

static int connected_to(const char *path, int listener_type)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int l = socket(AF_UNIX, listener_type, 0),
	    c = socket(AF_UNIX, listener_type, 0);

	(void)snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	if (path[0] == '@')
		a.sun_path[0] = 0;
	if (bind(l, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(l, 4) < 0 ||
	    connect(c, (struct sockaddr *)&a, sizeof(a)) < 0)
		return -1;
	return c;
}

/* Start it with @fd as 3 (-1: closed), having said @garbage over @talk. */
static void try(const char *what, int fd, int talk)
{
	struct shadow_command c = {.verb = SHADOW_EXEC};
	int status;
	pid_t pid;

	static const char id[] = "/usr/bin/id";
	memcpy(c.data, id, sizeof(id));
	c.n_data = sizeof(id);
	if (talk >= 0) {
		(void)!write(talk, "garbage", 7);
		(void)!write(talk, &c, SHADOW_COMMAND_HEAD + c.n_data);
	}
	pid = fork();
	if (pid == 0) {
		if (fd < 0)
			(void)close(3);
		else if (fd != 3)
			(void)dup2(fd, 3);
		else
			(void)fcntl(3, F_SETFD, 0);
		alarm(3);
		(void)execl(shadow, "ssi-shadow", (char *)NULL);
		_exit(99);
	}
	(void)waitpid(pid, &status, 0);
	printf("%s: %d uid %d\n", what,
	       WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status), getuid());
	(void)fflush(stdout);
}

int main(int argc, char **argv)
{
	int pair[2], null, root_pair = -1;

	shadow = argv[1];
	if (fcntl(9, F_GETFD) >= 0)
		root_pair = 9; /* from the test: a pair that root made */
	try("nothing", -1, -1);
	null = open("/dev/null", O_RDWR);
	try("null", null, -1);
	(void)socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair);
	try("own pair", pair[0], pair[1]);
	(void)socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
	try("stream pair", pair[0], pair[1]);
	try("own listener", connected_to("/tmp/ssi-hostile.sock", SOCK_SEQPACKET), -1);
	(void)unlink("/tmp/ssi-hostile.sock");
	try("abstract", connected_to("@/run/ssi/shadow.sock", SOCK_SEQPACKET), -1);
	try("same path", connected_to(SHADOW_SOCKET, SOCK_SEQPACKET), -1);
	if (argc > 2) {
		struct sockaddr_un a = {.sun_family = AF_UNIX};
		int c = socket(AF_UNIX, SOCK_SEQPACKET, 0);

		(void)snprintf(a.sun_path, sizeof(a.sun_path), "%s", argv[2]);
		if (connect(c, (struct sockaddr *)&a, sizeof(a)) == 0)
			try("root's listener elsewhere", c, -1);
	}
	if (root_pair >= 0)
		try("root pair", root_pair, -1);
	return 0;
}
