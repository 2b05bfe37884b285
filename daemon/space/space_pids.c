/*
 * The watcher of PIDs.
 *
 * The kernel gives out numbers upwards from ns_last_pid, forever; nothing but this
 * thread keeps them inside the leased blocks.  Every 20 ms it reads the cursor,
 * and when a block runs low moves it to the next one.
 *
 * happy path: the margin holds more than can be given out between two looks, also
 * when the thread is late; see PIDS_MARGIN.  Only blocks that have room for it are
 * used; a node without any leaves the cursor to ssi-init (init_pids.c).
 * failure modes: the thread was kept from running for long enough: the cursor is
 * found outside, moved back, and who was born there is killed (space_stray.c).
 * An ssi-init of before cannot have the cursor: short blocks are watched too.
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
	PIDS_IDLE_MS = 200, /* while ssi-init has the cursor */
	PIDS_LONG = 65536,  /* a block with room for the margin, and some looks that are late */
	PIDS_STRAY_SLACK = 1024, /* given out between the look and the move back */
};

#define PIDS_LOW_PERIOD NSEC_PER_SEC

struct block {
	pid_t first, n;
};

struct space_pids {
	struct space *space;
	const struct env *env;
	int cursor_fd;
	struct env_fd told; /* eventfd: the thread has news */
	pthread_t thread;
	bool running;

	pthread_mutex_t lock; /* for what follows */
	struct block blocks[PIDS_BLOCKS_MAX]; /* by first */
	size_t n_blocks, current;
	bool stop, low;
	bool few;	 /* none is long: ssi-init has the cursor */
	bool changing;	 /* blocks come, nobody moves it */
	bool refused;	 /* it will not */
	nsec_t good;	 /* when the cursor was last seen inside */
	struct space_stray stray; /* last 0: none */

	nsec_t low_told;
	bool (*is_right)(void *owner, pid_t pid);
	void *right_owner;
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

static bool is_used(const struct space_pids *p, const struct block *b)
{
	return p->refused || b->n >= PIDS_LONG;
}

static void advance(struct space_pids *p)
{
	do
		if (++p->current >= p->n_blocks) {
			p->current = 0;
			p->low = true;
		}
	while (!is_used(p, &p->blocks[p->current]));
	cursor_write(p, p->blocks[p->current].first);
}

/* Another of ours is as good: somebody rewound, or ssid started again. */
static bool find_current(struct space_pids *p, pid_t last)
{
	for (size_t i = 0; i < p->n_blocks; i++)
		if (inside(&p->blocks[i], last)) {
			p->current = i;
			return true;
		}
	return false;
}

/* True: the loop must hear of it. */
static bool look(struct space_pids *p)
{
	const struct block *b = &p->blocks[p->current];
	pid_t last = cursor_read(p);
	struct timespec now;

	if (last < 0 || !p->n_blocks || p->few || p->changing)
		return false;
	if (!inside(b, last) && !find_current(p, last)) {
		if (!p->stray.last)
			p->stray = (struct space_stray){ b->first + b->n, 0, p->good };
		p->stray.last = last;
		advance(p);
		return true;
	}
	(void)clock_gettime(CLOCK_BOOTTIME, &now);
	p->good = now.tv_sec * NSEC_PER_SEC + now.tv_nsec;
	b = &p->blocks[p->current];
	if (is_used(p, b) && b->first + b->n - 1 - last >= margin_of(b))
		return false;
	advance(p);
	return p->low;
}

static void *watch(void *argument)
{
	const struct sched_param priority = { .sched_priority = 1 };
	struct space_pids *p = argument;
	struct timespec next;
	bool stop = false, few, news;

	(void)pthread_setname_np(pthread_self(), "ssid-pids");
	(void)pthread_setschedparam(pthread_self(), SCHED_FIFO, &priority);
	(void)clock_gettime(CLOCK_MONOTONIC, &next);
	while (!stop) {
		(void)pthread_mutex_lock(&p->lock);
		news = look(p);
		stop = p->stop;
		few = p->few;
		(void)pthread_mutex_unlock(&p->lock);
		if (news)
			(void)eventfd_write(p->told.fd, 1);
		next.tv_nsec += (few ? PIDS_IDLE_MS : PIDS_PERIOD_MS) * (long)NSEC_PER_MSEC;
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
	_cleanup_close_ int fd = openat(p->space->proc_fd, "loadavg", O_RDONLY | O_CLOEXEC);
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
	return held < PIDS_LONG || count_threads(p) > held / 4;
}

static void tell_low(struct space_pids *p)
{
	nsec_t now = env_now(p->env);

	if (!p->on_low || !are_short(p) || (p->low_told && now - p->low_told < PIDS_LOW_PERIOD))
		return;
	p->low_told = now;
	p->on_low(p->owner);
}

static void end_strays(struct space_pids *p, struct space_stray *stray)
{
	log_error("PIDs from %d to %d were given out outside of this node's, moved back",
		  stray->first, stray->last);
	stray->last += PIDS_STRAY_SLACK;
	space_stray_kill(p->space, stray, p->is_right, p->right_owner);
}

void space_pids_on_event(struct space *s, const struct init_event *e)
{
	/* ssi-init looks as often, and tells at once. */
	nsec_t since = env_now(s->env) - NSEC_PER_SEC;

	if (s->pids && e->type == INIT_EVENT_PIDS_STRAY)
		end_strays(s->pids, &(struct space_stray){ e->pid, e->status, since });
	else if (s->pids)
		tell_low(s->pids);
}

/* We come late: nobody has watched, and whoever was born meanwhile may be outside.  Below our
 * first block is where the cursor of a new space begins. */
static void note_missed(struct space_pids *p, pid_t last)
{
	for (size_t i = p->n_blocks; i-- > 0;)
		if (last >= p->blocks[i].first) {
			p->stray = (struct space_stray){ p->blocks[i].first + p->blocks[i].n,
							 last, 0 };
			return;
		}
}

/* All blocks have come that come at once. */
static void settle(struct space_pids *p)
{
	pid_t last = cursor_read(p);

	if (p->n_blocks && !p->few && !find_current(p, last)) {
		note_missed(p, last);
		advance(p);
	}
	p->good = env_now(p->env);
	p->changing = false;
}

static void on_told(struct env_fd *fd, unsigned events)
{
	struct space_pids *p = container_of(fd, struct space_pids, told);
	struct space_stray stray;
	eventfd_t ignored;
	bool low;

	(void)eventfd_read(fd->fd, &ignored);
	(void)pthread_mutex_lock(&p->lock);
	if (p->changing)
		settle(p);
	stray = p->stray;
	low = p->low;
	p->stray.last = 0;
	p->low = false;
	(void)pthread_mutex_unlock(&p->lock);
	if (stray.last)
		end_strays(p, &stray);
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
	p->space = s;
	p->good = env_now(p->env);
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

	while (i < p->n_blocks && p->blocks[i].first <= b.first)
		i++;
	if (i && b.first + b.n <= p->blocks[i - 1].first + p->blocks[i - 1].n)
		return 0;
	if (p->n_blocks == PIDS_BLOCKS_MAX)
		return err_origin(-ENOSPC);
	insert(p, i, b);
	p->current = 0; /* look() finds the one in which the cursor is */
	return 0;
}

static bool have_long(const struct space_pids *p)
{
	for (size_t i = 0; i < p->n_blocks; i++)
		if (p->blocks[i].n >= PIDS_LONG)
			return true;
	return false;
}

static int tell_init(struct space *s, const struct block *b, unsigned flags)
{
	struct init_request request = { .verb = INIT_PIDS, .flags = flags, .pid = b->first,
					.cursor = (uint32_t)b->n };
	struct init_reply reply;

	return err_fold(space_call(s, &request, NULL, 0, &reply, NULL, 0));
}

/* Whose is the cursor?  It is ours only when ssi-init knows that. */
static void divide(struct space *s, struct space_pids *p)
{
	bool few = !p->refused && !have_long(p);
	int r = 0;

	for (size_t i = 0; !p->refused && r == 0 && i < p->n_blocks; i++)
		r = tell_init(s, &p->blocks[i], few ? 0 : INIT_PIDS_PLENTY);
	if (few && r < 0)
		log_error("forks cannot be looked at (%s): under many at once, PIDs outside of "
			  "this node's may be given out",
			  strerror(-r));
	(void)pthread_mutex_lock(&p->lock);
	p->refused = p->refused || (few && r < 0);
	p->few = few && r == 0;
	/* A new space: at once, before anybody is launched. */
	if (!p->few && cursor_read(p) < p->blocks[0].first - 1)
		advance(p);
	(void)pthread_mutex_unlock(&p->lock);
	/* More of them may come in this turn of the loop, with the cursor in one of those. */
	(void)eventfd_write(p->told.fd, 1);
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
	s->pids->changing = true;
	r = add(s->pids, (struct block){ first, n });
	(void)pthread_mutex_unlock(&s->pids->lock);
	divide(s, s->pids);
	return r < 0 ? r : start(s->pids);
}

bool space_pids_are_few(const struct space *s)
{
	return s->pids && s->pids->few;
}

void space_pids_on_low(struct space *s, void (*on_low)(void *owner), void *owner)
{
	if (!s->pids && pids_new(s, &s->pids) < 0)
		return;
	s->pids->on_low = on_low;
	s->pids->owner = owner;
}

void space_pids_on_stray(struct space *s, bool (*is_right)(void *owner, pid_t pid), void *owner)
{
	if (!s->pids && pids_new(s, &s->pids) < 0)
		return;
	s->pids->is_right = is_right;
	s->pids->right_owner = owner;
}
