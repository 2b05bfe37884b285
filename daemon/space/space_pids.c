/*
 * The watcher of PIDs.
 *
 * The kernel gives out numbers upwards from ns_last_pid, forever; nothing but this
 * thread keeps them inside the leased blocks.  Every 20 ms it reads the cursor,
 * and when a block runs low moves it to the next one.
 *
 * happy path: the margin holds more than can be given out between two looks, also
 * when the thread is late; see PIDS_MARGIN.
 * failure modes: the thread was kept from running for long enough: the cursor is
 * found outside, moved back, and the loop logs which numbers strayed.
 */
#include "space_internal.h"

#include "err.h"
#include "log.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

enum {
	PIDS_MARGIN = 16384, /* 50,000 forks a second for 300 ms */
	PIDS_BLOCKS_MAX = 2048,
	PIDS_PERIOD_MS = 20,
	PIDS_FEW = 65536,
};

#define PIDS_LOW_PERIOD NSEC_PER_SEC

struct block {
	pid_t first, n;
};

struct space_pids {
	const struct env *env;
	int proc_fd, cursor_fd;
	struct env_fd told; /* eventfd: the thread has news */
	pthread_t thread;
	bool running;

	pthread_mutex_t lock; /* for what follows */
	struct block blocks[PIDS_BLOCKS_MAX]; /* by first */
	size_t n_blocks, current;
	bool stop, low;
	pid_t strayed;

	nsec_t low_told;
	void (*on_low)(void *owner);
	void *owner;
};

static pid_t cursor_read(const struct space_pids *p)
{
	char text[16] = { 0 };

	return pread(p->cursor_fd, text, sizeof(text) - 1, 0) > 0 ? atoi(text) : -1;
}

static void cursor_write(const struct space_pids *p, pid_t next)
{
	char text[16];
	int n = snprintf(text, sizeof(text), "%d", next - 1);

	(void)!pwrite(p->cursor_fd, text, n, 0);
}

static bool inside(const struct block *b, pid_t last)
{
	/* first - 1: the cursor before the first number was given out */
	return last >= b->first - 1 && last < b->first + b->n;
}

static pid_t margin_of(const struct block *b)
{
	return b->n / 4 < PIDS_MARGIN ? b->n / 4 : PIDS_MARGIN;
}

static void advance(struct space_pids *p)
{
	if (++p->current == p->n_blocks) {
		p->current = 0;
		p->low = true;
	}
	cursor_write(p, p->blocks[p->current].first);
}

/* True: the loop must hear of it. */
static bool look(struct space_pids *p)
{
	const struct block *b = &p->blocks[p->current];
	pid_t last = cursor_read(p);

	if (last < 0 || !p->n_blocks)
		return false;
	if (inside(b, last)) {
		if (b->first + b->n - 1 - last >= margin_of(b))
			return false;
		advance(p);
		return p->low;
	}
	/* Another of ours is as good: somebody rewound, or ssid started again. */
	for (size_t i = 0; i < p->n_blocks; i++)
		if (inside(&p->blocks[i], last)) {
			p->current = i;
			return false;
		}
	p->strayed = last;
	advance(p);
	return true;
}

static void *watch(void *argument)
{
	const struct sched_param priority = { .sched_priority = 1 };
	struct space_pids *p = argument;
	struct timespec next;
	bool stop = false, news;

	(void)pthread_setname_np(pthread_self(), "ssid-pids");
	(void)pthread_setschedparam(pthread_self(), SCHED_FIFO, &priority);
	(void)clock_gettime(CLOCK_MONOTONIC, &next);
	while (!stop) {
		(void)pthread_mutex_lock(&p->lock);
		news = look(p);
		stop = p->stop;
		(void)pthread_mutex_unlock(&p->lock);
		if (news)
			(void)eventfd_write(p->told.fd, 1);
		next.tv_nsec += PIDS_PERIOD_MS * (long)NSEC_PER_MSEC;
		if (next.tv_nsec >= (long)NSEC_PER_SEC) {
			next.tv_nsec -= (long)NSEC_PER_SEC;
			next.tv_sec++;
		}
		(void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
	}
	return NULL;
}

/* Threads of the machine: at least those of the space. */
static long count_threads(const struct space_pids *p)
{
	_cleanup_close_ int fd = openat(p->proc_fd, "loadavg", O_RDONLY | O_CLOEXEC);
	char text[128] = { 0 };
	const char *slash;

	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		return 0;
	slash = strchr(text, '/');
	return slash ? atol(slash + 1) : 0;
}

/* Worth asking for more? */
static bool are_short(const struct space_pids *p)
{
	long held = 0;

	for (size_t i = 0; i < p->n_blocks; i++)
		held += p->blocks[i].n;
	return held < PIDS_FEW || count_threads(p) > held / 4;
}

static void tell_low(struct space_pids *p)
{
	nsec_t now = env_now(p->env);

	if (!p->on_low || !are_short(p) || (p->low_told && now - p->low_told < PIDS_LOW_PERIOD))
		return;
	p->low_told = now;
	p->on_low(p->owner);
}

static void on_told(struct env_fd *fd, unsigned events)
{
	struct space_pids *p = container_of(fd, struct space_pids, told);
	eventfd_t ignored;
	pid_t strayed;
	bool low;

	(void)eventfd_read(fd->fd, &ignored);
	(void)pthread_mutex_lock(&p->lock);
	strayed = p->strayed;
	low = p->low;
	p->strayed = 0;
	p->low = false;
	(void)pthread_mutex_unlock(&p->lock);
	if (strayed)
		log_error("pids up to %d were given out outside of this node's lease, moved back",
			  strayed);
	if (low)
		tell_low(p);
}

DEFINE_CLEANUP(struct space_pids, space_pids_free)

static int pids_new(struct space *s, struct space_pids **ret)
{
	_cleanup_(space_pids_freep) struct space_pids *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return err_origin(-ENOMEM);
	p->env = s->env;
	p->proc_fd = s->proc_fd;
	p->told = (struct env_fd){ .cb = on_told, .fd = -1 };
	(void)pthread_mutex_init(&p->lock, NULL);
	p->cursor_fd = openat(s->proc_fd, "sys/kernel/ns_last_pid", O_RDWR | O_CLOEXEC);
	if (p->cursor_fd < 0)
		return err_origin(-errno);
	p->told.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (p->told.fd < 0)
		return err_origin(-errno);
	r = env_watch(p->env, &p->told, ENV_READ);
	if (r < 0)
		return r;
	*ret = TAKE(p);
	return 0;
}

struct space_pids *space_pids_free(struct space_pids *p)
{
	if (!p)
		return NULL;
	if (p->running) {
		(void)pthread_mutex_lock(&p->lock);
		p->stop = true;
		(void)pthread_mutex_unlock(&p->lock);
		(void)pthread_join(p->thread, NULL);
	}
	if (p->told.impl)
		env_unwatch(p->env, &p->told);
	(void)close_fd(p->told.fd);
	(void)close_fd(p->cursor_fd);
	(void)pthread_mutex_destroy(&p->lock);
	free(p);
	return NULL;
}

static int start(struct space_pids *p)
{
	if (p->running)
		return 0;
	p->running = pthread_create(&p->thread, NULL, watch, p) == 0;
	return p->running ? 0 : err_origin(-EAGAIN);
}

static void insert(struct space_pids *p, size_t i, struct block b)
{
	memmove(&p->blocks[i + 1], &p->blocks[i], (p->n_blocks++ - i) * sizeof(b));
	p->blocks[i] = b;
	if (i + 1 < p->n_blocks && b.first + b.n == p->blocks[i + 1].first) {
		p->blocks[i].n += p->blocks[i + 1].n;
		memmove(&p->blocks[i + 1], &p->blocks[i + 2],
			(--p->n_blocks - i - 1) * sizeof(b));
	}
	if (i && p->blocks[i - 1].first + p->blocks[i - 1].n == b.first) {
		p->blocks[i - 1].n += p->blocks[i].n;
		memmove(&p->blocks[i], &p->blocks[i + 1], (--p->n_blocks - i) * sizeof(b));
	}
}

/* By first; those that touch become one, and what is there already (a new lease tells all
 * again) is nothing new. */
static int add(struct space_pids *p, struct block b)
{
	size_t i = 0;
	pid_t last;

	while (i < p->n_blocks && p->blocks[i].first <= b.first)
		i++;
	if (i && b.first + b.n <= p->blocks[i - 1].first + p->blocks[i - 1].n)
		return 0;
	if (p->n_blocks == PIDS_BLOCKS_MAX)
		return err_origin(-ENOSPC);
	insert(p, i, b);
	p->current = 0; /* look() finds the one in which the cursor is */
	if (p->n_blocks > 1)
		return 0;
	last = cursor_read(p);
	if (!inside(&p->blocks[0], last))
		cursor_write(p, p->blocks[0].first);
	return 0;
}

int space_pids_add(struct space *s, pid_t first, pid_t n)
{
	int r;

	if (first <= INIT_PID_SERVICE_MAX || n < 16)
		return err_origin(-EINVAL);
	if (!s->pids) {
		r = pids_new(s, &s->pids);
		if (r < 0)
			return r;
	}
	(void)pthread_mutex_lock(&s->pids->lock);
	r = add(s->pids, (struct block){ first, n });
	(void)pthread_mutex_unlock(&s->pids->lock);
	return r < 0 ? r : start(s->pids);
}

void space_pids_on_low(struct space *s, void (*on_low)(void *owner), void *owner)
{
	if (!s->pids && pids_new(s, &s->pids) < 0)
		return;
	s->pids->on_low = on_low;
	s->pids->owner = owner;
}
