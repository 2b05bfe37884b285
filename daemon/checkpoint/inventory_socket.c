#include "inventory_internal.h"

#include "err.h"

#include <arpa/inet.h>
#include <limits.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/xattr.h>

/*
 * What sockets are called: from /proc/PID/net once for a tree, looked up by
 * inode; and a UNIX socket's peer, which only sock_diag knows.  The names are for
 * people and for the rule that no UNIX socket with a path is restored.
 */

struct socket_name {
	ino_t inode;
	char *name;
};

struct socket_table {
	struct socket_name *names;
	size_t n_names;
	size_t room;
};

enum { NET_TEXT_MAX = 32 << 20 };

struct socket_table *socket_table_free(struct socket_table *t)
{
	if (!t)
		return NULL;
	for (size_t k = 0; k < t->n_names; k++)
		free(t->names[k].name);
	free(t->names);
	free(t);
	return NULL;
}

static int add(struct socket_table *t, ino_t inode, char *owned_name)
{
	struct socket_name *p = t->names;

	if (t->n_names == t->room) {
		size_t room = t->room ? 2 * t->room : 64;

		p = reallocarray(t->names, room, sizeof(*p));
		if (!p) {
			free(owned_name);
			return err_origin(-ENOMEM);
		}
		t->names = p;
		t->room = room;
	}
	p[t->n_names++] = (struct socket_name){inode, owned_name};
	return 0;
}

/* "0100007F:0050" or 32 digits: words of network order, printed in host order. */
static void address(const char *hex, char *ret, size_t size)
{
	char text[INET6_ADDRSTRLEN] = "?";
	uint32_t word[4] = {0};
	unsigned port = 0;

	if (strlen(hex) == 13 && sscanf(hex, "%8x:%4x", &word[0], &port) == 2) {
		(void)inet_ntop(AF_INET, word, text, sizeof(text));
		(void)snprintf(ret, size, "%s:%u", text, port);
	} else if (sscanf(hex, "%8x%8x%8x%8x:%4x", &word[0], &word[1], &word[2],
			  &word[3], &port) == 5) {
		(void)inet_ntop(AF_INET6, word, text, sizeof(text));
		(void)snprintf(ret, size, "[%s]:%u", text, port);
	} else {
		(void)snprintf(ret, size, "?");
	}
}

static int add_inet(struct socket_table *t, const char *protocol, const char *line)
{
	char local[48], remote[48], from[64], to[64], *name;
	unsigned long inode;
	unsigned state;

	if (sscanf(line, " %*d: %47s %47s %x %*s %*s %*s %*u %*d %lu", local, remote,
		   &state, &inode) != 4 ||
	    !inode)
		return 0;
	address(local, from, sizeof(from));
	address(remote, to, sizeof(to));
	if (asprintf(&name, "%s %s%s%s", protocol, from, state == 10 ? "" : " to ",
		     state == 10 ? ", listening" : to) < 0)
		return err_origin(-ENOMEM);
	return add(t, inode, name);
}

/* "ffff...: 00000002 00000000 00010000 0001 01 12345 /path": the path may hold
 * anything. */
static int add_unix(struct socket_table *t, const char *line)
{
	unsigned long inode;
	int at = 0;
	char *name;

	if (sscanf(line, "%*x: %*x %*x %*x %*x %*x %lu%n", &inode, &at) != 1 || !at ||
	    line[at] != ' ')
		return 0;
	name = strdup(line + at + 1);
	if (!name)
		return err_origin(-ENOMEM);
	return add(t, inode, name);
}

static int compare_names(const void *a, const void *b)
{
	const struct socket_name *x = a, *y = b;

	return (x->inode > y->inode) - (x->inode < y->inode);
}

int socket_table_new(struct socket_table **ret, int proc_fd, pid_t pid)
{
	static const char *const files[] = {"tcp", "tcp6", "udp", "udp6", "unix"};
	_cleanup_(socket_table_freep) struct socket_table *t = calloc(1, sizeof(*t));

	if (!t)
		return err_origin(-ENOMEM);
	for (size_t k = 0; k < N_ELEMENTS(files); k++) {
		_cleanup_buf_ struct buf b = {0};
		char path[64], *save = NULL;
		int r;

		(void)snprintf(path, sizeof(path), "%d/net/%s", pid, files[k]);
		r = proc_read(proc_fd, path, NET_TEXT_MAX, &b);
		if (r == -ESRCH || r == -EINVAL)
			continue; /* IPv6 may be off, or the process a zombie */
		if (r < 0)
			return r;
		for (char *line = b.len ? strtok_r((char *)b.data, "\n", &save) : NULL;
		     line; line = strtok_r(NULL, "\n", &save)) {
			r = strcmp(files[k], "unix") ? add_inet(t, files[k], line)
						     : add_unix(t, line);
			if (r < 0)
				return r;
		}
	}
	if (t->n_names)
		qsort(t->names, t->n_names, sizeof(*t->names), compare_names);
	*ret = TAKE(t);
	return 0;
}

const char *socket_table_name(const struct socket_table *t, ino_t inode)
{
	struct socket_name key = {.inode = inode}, *found = NULL;

	if (t->n_names)
		found = bsearch(&key, t->names, t->n_names, sizeof(key), compare_names);
	return found ? found->name : "";
}

int socket_protocol(int proc_fd, const char *path, char *ret, size_t size)
{
	char full[PATH_MAX];
	ssize_t n;

	/* There is no getxattrat() before 6.13. */
	(void)snprintf(full, sizeof(full), "/proc/self/fd/%d/%s", proc_fd, path);
	n = getxattr(full, "system.sockprotoname", ret, size - 1);
	if (n < 0)
		return -errno;
	ret[n] = '\0';
	return 0;
}

int socket_diag_open(void)
{
	struct timeval second = {.tv_sec = 1};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);

	if (fd < 0)
		return -errno;
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second));
	return fd;
}

static int read_peer(const struct nlmsghdr *h, ino_t *ret_peer)
{
	const struct unix_diag_msg *m = NLMSG_DATA(h);
	size_t left = h->nlmsg_len - NLMSG_LENGTH(sizeof(*m)), step;
	const char *p = (const char *)m + NLMSG_ALIGN(sizeof(*m));
	struct nlattr a;
	uint32_t inode = 0;

	for (; left >= sizeof(a); left -= step, p += step) {
		memcpy(&a, p, sizeof(a));
		if (a.nla_len < sizeof(a) || a.nla_len > left)
			return err_origin(-EBADMSG);
		if (a.nla_type == UNIX_DIAG_PEER &&
		    a.nla_len >= NLA_HDRLEN + sizeof(inode))
			memcpy(&inode, p + NLA_HDRLEN, sizeof(inode));
		step = (size_t)NLA_ALIGN(a.nla_len);
		if (step > left)
			step = left;
	}
	*ret_peer = inode;
	return 0;
}

int socket_unix_peer(int diag_fd, ino_t inode, ino_t *ret_peer)
{
	struct {
		struct nlmsghdr h;
		struct unix_diag_req q;
	} ask = {
		.h = {.nlmsg_len = sizeof(ask),
		      .nlmsg_type = SOCK_DIAG_BY_FAMILY,
		      .nlmsg_flags = NLM_F_REQUEST},
		.q = {.sdiag_family = AF_UNIX,
		      .udiag_states = UINT32_MAX,
		      .udiag_ino = (uint32_t)inode,
		      .udiag_show = UDIAG_SHOW_PEER,
		      .udiag_cookie = {UINT32_MAX, UINT32_MAX}},
	};
	union {
		struct nlmsghdr h;
		char bytes[4096];
	} answer;
	ssize_t n;

	if (send(diag_fd, &ask, sizeof(ask), 0) < 0)
		return -errno;
	do
		n = recv(diag_fd, &answer, sizeof(answer), 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if ((size_t)n < sizeof(answer.h) || answer.h.nlmsg_len < sizeof(answer.h) ||
	    answer.h.nlmsg_len > (size_t)n)
		return err_origin(-EBADMSG);
	if (answer.h.nlmsg_type == NLMSG_ERROR) {
		const struct nlmsgerr *e = NLMSG_DATA(&answer.h);

		return answer.h.nlmsg_len >= NLMSG_LENGTH(sizeof(*e)) && e->error
			       ? e->error
			       : err_origin(-EBADMSG);
	}
	if (answer.h.nlmsg_type != SOCK_DIAG_BY_FAMILY ||
	    answer.h.nlmsg_len < NLMSG_LENGTH(sizeof(struct unix_diag_msg)))
		return err_origin(-EBADMSG);
	return read_peer(&answer.h, ret_peer);
}
