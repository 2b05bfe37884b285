/*
 * Happy path: ssid of every node keeps a symbolic link whose target says who is up; it is
 * read now and then, compared with what was read before, and the difference is called back.
 *
 * Why so: a connection, or a file that is open or mapped, would tie the program to its node
 * and to that ssid.  To read a link takes no descriptor, so there is no moment at which the
 * program could not be moved; on the next node it reads that node's link, which speaks of the
 * same nodes by the same numbers.  The clock of ssi_fd() is a timerfd, which moves along.
 *
 * Failure modes: no link (no cluster here, ssid was never started) -> ENOTCONN, and nothing
 * has changed; a text of another version -> EPROTO.  A node that is lost and back between two
 * looks was not seen.
 */
#include "ssi.h"

#include "libssi_internal.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum {
	EVERY_MS = 500,
	NODES_MAX = PATH_MAX * 4,
};

struct view {
	unsigned self;
	char name[64];
	unsigned char up[NODES_MAX / 8]; /* a bit a node, node 1 the lowest of the first */
};

struct callback {
	ssi_nodes_cb cb;
	void *arg;
};

const char *libssi_view_path = "/run/ssi/view";

/* Of the program; a callback runs without it. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct view last;
static bool looked;
static int fd = -1;
static bool has_thread;
static struct callback on_added, on_removed;

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int parse(const char *text, struct view *ret)
{
	const char *bits;
	int n = 0;

	*ret = (struct view){ 0 };
	if (sscanf(text, "SSI1 %*u %u %63s %n", &ret->self, ret->name, &n) != 2 || !n) {
		errno = EPROTO;
		return -1;
	}
	bits = text + n;
	for (size_t i = 0; bits[i] && i < NODES_MAX / 4; i++) {
		int d = digit(bits[i]);

		if (d < 0) {
			errno = EPROTO;
			return -1;
		}
		ret->up[i / 2] |= (unsigned char)(d << i % 2 * 4);
	}
	return 0;
}

static int look(struct view *ret)
{
	char text[PATH_MAX];
	ssize_t n = readlink(libssi_view_path, text, sizeof(text) - 1);

	if (n < 0) {
		if (errno == ENOENT || errno == ENOTDIR || errno == EINVAL)
			errno = ENOTCONN;
		return -1;
	}
	text[n] = '\0';
	return parse(text, ret);
}

/* Bits of @a that are not in @b. */
static unsigned count(const struct view *a, const struct view *b)
{
	unsigned n = 0;

	for (size_t i = 0; i < sizeof(a->up); i++)
		n += (unsigned)__builtin_popcount(a->up[i] & ~(b ? b->up[i] : 0u) & 0xff);
	return n;
}

/* What comes later is compared with the first look. */
static int look_first(void)
{
	if (looked)
		return 0;
	if (look(&last) < 0)
		return -1;
	looked = true;
	return 0;
}

static int set(struct callback *which, ssi_nodes_cb cb, void *arg)
{
	int r;

	pthread_mutex_lock(&lock);
	r = look_first();
	if (r == 0)
		*which = (struct callback){ cb, arg };
	pthread_mutex_unlock(&lock);
	return r;
}

int ssi_on_nodes_added(ssi_nodes_cb cb, void *arg)
{
	return set(&on_added, cb, arg);
}

int ssi_on_nodes_removed(ssi_nodes_cb cb, void *arg)
{
	return set(&on_removed, cb, arg);
}

static int call(const struct callback *c, unsigned n)
{
	if (!n || !c->cb)
		return 0;
	c->cb(n, c->arg);
	return 1;
}

int ssi_dispatch(void)
{
	struct callback added, removed;
	unsigned n_added, n_removed;
	unsigned long long ticks;
	struct view now;

	pthread_mutex_lock(&lock);
	/* Only the clock: it does not block. */
	if (fd >= 0 && read(fd, &ticks, sizeof(ticks)) < 0 && errno != EAGAIN) {
		pthread_mutex_unlock(&lock);
		return -1;
	}
	if (look_first() < 0 || look(&now) < 0) {
		pthread_mutex_unlock(&lock);
		return -1;
	}
	n_removed = count(&last, &now);
	n_added = count(&now, &last);
	last = now;
	added = on_added;
	removed = on_removed;
	pthread_mutex_unlock(&lock);
	return call(&removed, n_removed) + call(&added, n_added);
}

static int clock_new(void)
{
	struct itimerspec every = { .it_interval.tv_nsec = EVERY_MS * 1000000,
				    .it_value.tv_nsec = EVERY_MS * 1000000 };
	int new = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);

	if (new < 0 || timerfd_settime(new, 0, &every, NULL) == 0)
		return new;
	(void)close(new);
	return -1;
}

int ssi_fd(void)
{
	int r;

	pthread_mutex_lock(&lock);
	if (fd < 0)
		fd = clock_new();
	r = fd;
	pthread_mutex_unlock(&lock);
	return r;
}

static void *run(void *arg)
{
	static const struct timespec pause = { .tv_nsec = EVERY_MS * 1000000 };

	for (;;) {
		(void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
		(void)ssi_dispatch();
	}
	return arg;
}

static int start(void)
{
	pthread_attr_t attr;
	sigset_t all, old;
	pthread_t thread;
	int r = pthread_attr_init(&attr);

	if (r)
		return r;
	(void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&thread, &attr, run, NULL);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	(void)pthread_attr_destroy(&attr);
	return r;
}

int ssi_start_thread(void)
{
	int r;

	pthread_mutex_lock(&lock);
	r = has_thread ? 0 : start();
	has_thread = has_thread || !r;
	pthread_mutex_unlock(&lock);
	errno = r ? r : errno;
	return r ? -1 : 0;
}

int ssi_nodes_count(void)
{
	struct view now;

	return look(&now) < 0 ? -1 : (int)count(&now, NULL);
}

int ssi_node_self(char *name, size_t size)
{
	struct view now;

	if (look(&now) < 0)
		return -1;
	if (name && size)
		(void)snprintf(name, size, "%s", now.name);
	return (int)now.self;
}
