/*
 * watcher [thread]: say which nodes are added and removed, and where this is, as libssi tells
 * it; by poll(2), or by a thread of the library.  Ends when its input does.
 */
#include <ssi.h>

#include <poll.h>
#include <stdio.h>
#include <unistd.h>

static void say(const char *what, unsigned n)
{
	char name[64] = "?";

	(void)ssi_node_self(name, sizeof(name));
	printf("%s %u, %d on %s\n", what, n, ssi_nodes_count(), name);
	(void)fflush(stdout);
}

static void on_added(unsigned n, void *arg)
{
	say("added", n);
}

static void on_removed(unsigned n, void *arg)
{
	say("removed", n);
}

int main(int argc, char **argv)
{
	struct pollfd p[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = -1, .events = POLLIN}};
	char text[64];

	if (ssi_on_nodes_added(on_added, NULL) < 0 || ssi_on_nodes_removed(on_removed, NULL) < 0) {
		perror("libssi");
		return 1;
	}
	if (argc > 1 && ssi_start_thread() < 0)
		return 1;
	if (argc == 1)
		p[1].fd = ssi_fd();
	say("start", 0);
	for (;;) {
		if (poll(p, 2, -1) < 0)
			continue;
		if (p[0].revents && read(STDIN_FILENO, text, sizeof(text)) <= 0)
			return 0;
		if (p[1].revents && ssi_dispatch() < 0)
			return 1;
	}
}
