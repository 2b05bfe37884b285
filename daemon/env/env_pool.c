/*
 * Happy path: work is queued, an idle thread takes it or a new one is made, it is
 * finished, the loop is woken and tells.
 *
 * Failure modes: no thread can be made and there is none -> the work is refused.
 */
#include "env_pool.h"

#include "cleanup.h"
#include "err.h"

#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/queue.h>

enum { THREADS_MAX = 8 };

struct job {
	STAILQ_ENTRY(job) in;
	struct env_work *work;
};

STAILQ_HEAD(jobs, job);

struct env_pool {
	pthread_t threads[THREADS_MAX];
	size_t n_threads;
	int fd;

	pthread_mutex_t mutex; /* guards what follows */
	pthread_cond_t wanted;
	struct jobs queued, finished;
	size_t n_queued, n_idle;
	bool stopping;
};

static void wake_loop(struct env_pool *p)
{
	uint64_t one = 1;

	(void)!write(p->fd, &one, sizeof(one));
}

static void *thread_main(void *argument)
{
	struct env_pool *p = argument;

	pthread_mutex_lock(&p->mutex);
	for (;;) {
		struct job *j = STAILQ_FIRST(&p->queued);

		if (j) {
			STAILQ_REMOVE_HEAD(&p->queued, in);
			p->n_queued--;
			pthread_mutex_unlock(&p->mutex);
			j->work->work(j->work);
			pthread_mutex_lock(&p->mutex);
			STAILQ_INSERT_TAIL(&p->finished, j, in);
			wake_loop(p);
		} else if (p->stopping) {
			break;
		} else {
			p->n_idle++;
			pthread_cond_wait(&p->wanted, &p->mutex);
			p->n_idle--;
		}
	}
	pthread_mutex_unlock(&p->mutex);
	return NULL;
}

/* Threads take no signals: those are the loop's. */
static int start_thread(struct env_pool *p)
{
	sigset_t all, before;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&p->threads[p->n_threads], NULL, thread_main, p);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r)
		return err_origin(-r);
	p->n_threads++;
	return 0;
}

/* One more thread when the idle ones will not do; fewer are enough, none is not. */
static int have_thread(struct env_pool *p)
{
	bool busy;
	int r;

	pthread_mutex_lock(&p->mutex);
	busy = p->n_idle <= p->n_queued;
	pthread_mutex_unlock(&p->mutex);
	if (!busy || p->n_threads == THREADS_MAX)
		return 0;
	r = start_thread(p);
	return p->n_threads ? 0 : r;
}

int env_pool_work(struct env_pool *p, struct env_work *work)
{
	struct job *j;
	int r;

	r = have_thread(p);
	if (r < 0)
		return r;
	j = calloc(1, sizeof(*j));
	if (!j)
		return err_origin(-ENOMEM);
	j->work = work;
	pthread_mutex_lock(&p->mutex);
	STAILQ_INSERT_TAIL(&p->queued, j, in);
	p->n_queued++;
	pthread_cond_signal(&p->wanted);
	pthread_mutex_unlock(&p->mutex);
	return 0;
}

int env_pool_fd(const struct env_pool *p)
{
	return p->fd;
}

void env_pool_tell(struct env_pool *p)
{
	struct jobs finished = STAILQ_HEAD_INITIALIZER(finished);
	struct job *j;
	uint64_t count;

	(void)!read(p->fd, &count, sizeof(count));
	pthread_mutex_lock(&p->mutex);
	STAILQ_CONCAT(&finished, &p->finished);
	pthread_mutex_unlock(&p->mutex);
	while ((j = STAILQ_FIRST(&finished))) {
		struct env_work *work = j->work;

		STAILQ_REMOVE_HEAD(&finished, in);
		free(j);
		work->done(work);
	}
}

int env_pool_new(struct env_pool **ret)
{
	struct env_pool *p = calloc(1, sizeof(*p));

	if (!p)
		return err_origin(-ENOMEM);
	STAILQ_INIT(&p->queued);
	STAILQ_INIT(&p->finished);
	pthread_mutex_init(&p->mutex, NULL);
	pthread_cond_init(&p->wanted, NULL);
	p->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (p->fd < 0) {
		int r = -errno;

		env_pool_free(p);
		return err_origin(r);
	}
	*ret = p;
	return 0;
}

static void drop_jobs(struct jobs *jobs)
{
	struct job *j;

	while ((j = STAILQ_FIRST(jobs))) {
		STAILQ_REMOVE_HEAD(jobs, in);
		free(j);
	}
}

struct env_pool *env_pool_free(struct env_pool *p)
{
	if (!p)
		return NULL;
	pthread_mutex_lock(&p->mutex);
	drop_jobs(&p->queued);
	p->stopping = true;
	pthread_cond_broadcast(&p->wanted);
	pthread_mutex_unlock(&p->mutex);
	for (size_t i = 0; i < p->n_threads; i++)
		pthread_join(p->threads[i], NULL);
	drop_jobs(&p->finished);
	close_fd(p->fd);
	pthread_cond_destroy(&p->wanted);
	pthread_mutex_destroy(&p->mutex);
	free(p);
	return NULL;
}
