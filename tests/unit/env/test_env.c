#include "cleanup.h"
#include "env_event.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include <cmocka.h>

static struct env_event *loop;
static const struct env *env;

static int setup(void **state)
{
	int r = env_event_new(&loop);

	env = r == 0 ? env_event_env(loop) : NULL;
	return r;
}

static int teardown(void **state)
{
	loop = env_event_free(loop);
	return 0;
}

static void on_late(struct env_timer *t)
{
	fail_msg("nothing happened for 10 s");
}

/* Turn until env_event_stop(). */
static void run(void)
{
	struct env_timer late = {.cb = on_late};

	assert_int_equal(env_arm(env, &late, 10 * NSEC_PER_SEC), 0);
	assert_int_equal(env_event_run(loop), 0);
	env_disarm(env, &late);
}

/* Timers. */

static unsigned order[8], n_order;

struct numbered {
	struct env_timer timer;
	unsigned number, last;
	nsec_t asked_for;
	bool early;
};

static void on_numbered(struct env_timer *timer)
{
	struct numbered *n = container_of(timer, struct numbered, timer);

	assert_int_equal(timer->due, 0);
	n->early = env_now(env) < n->asked_for;
	order[n_order++] = n->number;
	if (n_order == n->last)
		env_event_stop(loop);
}

static void arm(struct numbered *n, nsec_t after)
{
	n->timer.cb = on_numbered;
	n->asked_for = env_now(env) + after;
	assert_int_equal(env_arm(env, &n->timer, after), 0);
	assert_true(n->timer.due >= n->asked_for);
}

static void timers_fire_in_the_order_of_their_time_and_never_early(void **state)
{
	static const nsec_t after[] = {30, 10, 20, 0, 25};
	static const unsigned expected[] = {3, 1, 2, 4, 0};
	struct numbered n[5] = {0};

	n_order = 0;
	for (unsigned i = 0; i < 5; i++) {
		n[i].number = i;
		n[i].last = 5;
		arm(&n[i], after[i] * NSEC_PER_MSEC);
	}
	run();
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(order[i], expected[i]);
		assert_false(n[i].early);
		env_disarm(env, &n[i].timer);
	}
}

static void on_busy(struct env_timer *timer)
{
	const struct timespec t = {0, 30 * (long)NSEC_PER_MSEC};
	struct numbered *n = container_of(timer, struct numbered, timer);

	/* The loop's idea of the time is now 30 ms old. */
	nanosleep(&t, NULL);
	arm(n, 20 * NSEC_PER_MSEC);
}

static void a_timer_armed_late_in_a_turn_is_not_early(void **state)
{
	struct numbered n = {.last = 1, .timer.cb = on_busy};

	n_order = 0;
	assert_int_equal(env_arm(env, &n.timer, 0), 0);
	run();
	assert_false(n.early);
	env_disarm(env, &n.timer);
}

static void arming_again_replaces_the_time(void **state)
{
	struct numbered a = {.number = 1, .last = 2}, b = {.number = 2, .last = 2};

	n_order = 0;
	arm(&a, NSEC_PER_MSEC);
	arm(&b, 20 * NSEC_PER_MSEC);
	arm(&a, 40 * NSEC_PER_MSEC);
	run();
	assert_int_equal(n_order, 2);
	assert_int_equal(order[0], 2);
	assert_int_equal(order[1], 1);
	env_disarm(env, &a.timer);
	env_disarm(env, &b.timer);
}

static void a_timer_of_an_age_does_not_fire_now(void **state)
{
	struct numbered never = {.number = 1, .last = 1},
			soon = {.number = 2, .last = 1};

	n_order = 0;
	never.timer.cb = on_numbered;
	assert_int_equal(env_arm(env, &never.timer, UINT64_MAX), 0);
	arm(&soon, 5 * NSEC_PER_MSEC);
	run();
	assert_int_equal(order[0], 2);
	env_disarm(env, &never.timer);
	env_disarm(env, &soon.timer);
}

struct owner {
	struct env_timer timer;
	struct owner *victim;
};

static void on_free_self(struct env_timer *timer)
{
	struct owner *o = container_of(timer, struct owner, timer);

	env_disarm(env, timer);
	if (o->victim) {
		env_disarm(env, &o->victim->timer);
		free(o->victim);
	}
	free(o);
}

static void a_timer_may_free_itself_and_another_that_is_due(void **state)
{
	struct owner *a = calloc(1, sizeof(*a)), *b = calloc(1, sizeof(*b));
	struct numbered end = {.last = 1};

	n_order = 0;
	a->timer.cb = b->timer.cb = on_free_self;
	a->victim = b;
	assert_int_equal(env_arm(env, &a->timer, 0), 0);
	assert_int_equal(env_arm(env, &b->timer, NSEC_PER_USEC), 0);
	arm(&end, 5 * NSEC_PER_MSEC);
	run();
	env_disarm(env, &end.timer);
	env_disarm(env, &end.timer); /* idempotent */
}

static void on_again(struct env_timer *timer)
{
	if (++n_order == 5)
		env_event_stop(loop);
	else
		assert_int_equal(env_arm(env, timer, 0), 0);
}

static void a_timer_may_arm_itself_again(void **state)
{
	struct env_timer t = {.cb = on_again};

	n_order = 0;
	assert_int_equal(env_arm(env, &t, 0), 0);
	run();
	assert_int_equal(n_order, 5);
	env_disarm(env, &t);
}

/* Clocks and random numbers. */

static void clocks_and_random_numbers_are_the_kernels(void **state)
{
	nsec_t a = env_now(env), b = env_now(env);
	uint8_t bytes[1000] = {0};

	assert_true(a && a <= b);
	assert_true(env_realtime(env) > 1600000000 * NSEC_PER_SEC);
	assert_true(env_random_u64(env) != env_random_u64(env));
	env_random(env, bytes, sizeof(bytes));
	assert_non_null(memchr(bytes, 0xff, sizeof(bytes)));
	env_random(env, bytes, 0);
}

/* Descriptors. */

struct end {
	struct env_fd watch;
	unsigned seen;
};

static void on_end(struct env_fd *watch, unsigned events)
{
	container_of(watch, struct end, watch)->seen |= events;
	env_event_stop(loop);
}

static void a_watch_tells_what_its_descriptor_is_ready_for(void **state)
{
	struct end e = {.watch.cb = on_end};
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	e.watch.fd = fds[0];
	assert_int_equal(env_watch(env, &e.watch, ENV_WRITE), 0);
	run();
	assert_int_equal(e.seen, ENV_WRITE);
	e.seen = 0;
	assert_int_equal(env_watch(env, &e.watch, ENV_READ), 0);
	assert_int_equal(write(fds[1], "x", 1), 1);
	run();
	assert_int_equal(e.seen, ENV_READ);
	run(); /* level-triggered: it is still there */
	e.seen = 0;
	assert_int_equal(env_watch(env, &e.watch, ENV_READ | ENV_WRITE), 0);
	run();
	assert_int_equal(e.seen, ENV_READ | ENV_WRITE);
	env_unwatch(env, &e.watch);
	env_unwatch(env, &e.watch);
	close(fds[0]);
	close(fds[1]);
}

static void the_other_ends_close_is_readable(void **state)
{
	struct end e = {.watch.cb = on_end};
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	e.watch.fd = fds[0];
	assert_int_equal(env_watch(env, &e.watch, ENV_READ), 0);
	close(fds[1]);
	run();
	assert_int_equal(e.seen, ENV_READ);
	env_unwatch(env, &e.watch);
	close(fds[0]);
}

static void what_cannot_be_watched_is_refused(void **state)
{
	struct end e = {.watch.cb = on_end};
	FILE *f = tmpfile();

	e.watch.fd = fileno(f);
	assert_true(env_watch(env, &e.watch, ENV_READ) < 0);
	assert_null(e.watch.impl);
	(void)fclose(f);
}

/* Work. */

struct job {
	struct env_work work;
	atomic_int worked;
	int done;
	pthread_t on;
	sigset_t mask;
};

enum { N_JOBS = 200 };
static unsigned n_done;

static void on_worked(struct env_work *work)
{
	struct job *j = container_of(work, struct job, work);

	j->on = pthread_self();
	(void)pthread_sigmask(SIG_SETMASK, NULL, &j->mask);
	atomic_fetch_add(&j->worked, 1);
}

static void on_job_done(struct env_work *work)
{
	struct job *j = container_of(work, struct job, work);

	j->done++;
	if (++n_done == N_JOBS)
		env_event_stop(loop);
}

static void work_is_done_once_elsewhere_and_told_once_here(void **state)
{
	struct job *jobs = calloc(N_JOBS, sizeof(*jobs));

	n_done = 0;
	for (unsigned i = 0; i < N_JOBS; i++) {
		jobs[i].work =
			(struct env_work){.work = on_worked, .done = on_job_done};
		assert_int_equal(env_work(env, &jobs[i].work), 0);
		assert_int_equal(jobs[i].done, 0); /* never inline */
	}
	run();
	for (unsigned i = 0; i < N_JOBS; i++) {
		assert_int_equal(atomic_load(&jobs[i].worked), 1);
		assert_int_equal(jobs[i].done, 1);
		assert_false(pthread_equal(jobs[i].on, pthread_self()));
		assert_true(sigismember(&jobs[i].mask, SIGTERM));
	}
	free(jobs);
}

static int gate[2];

static void on_wait_gate(struct env_work *work)
{
	char c;

	(void)!read(gate[0], &c, 1);
	on_worked(work);
}

static void long_work_does_not_hold_up_short_work(void **state)
{
	struct job slow[4] = {0}, quick = {0};

	assert_int_equal(pipe(gate), 0);
	for (unsigned i = 0; i < 4; i++) {
		slow[i].work =
			(struct env_work){.work = on_wait_gate, .done = on_job_done};
		assert_int_equal(env_work(env, &slow[i].work), 0);
	}
	quick.work = (struct env_work){.work = on_worked, .done = on_job_done};
	n_done = N_JOBS - 1;
	assert_int_equal(env_work(env, &quick.work), 0);
	run();
	assert_int_equal(quick.done, 1);
	assert_int_equal(slow[0].done, 0);
	assert_int_equal(write(gate[1], "....", 4), 4);
	n_done = N_JOBS - 4;
	run();
	close(gate[0]);
	close(gate[1]);
}

static void on_chain_done(struct env_work *work)
{
	struct job *j = container_of(work, struct job, work);

	if (++j->done == 3)
		env_event_stop(loop);
	else
		assert_int_equal(env_work(env, work), 0);
}

static void work_may_be_given_again_when_it_is_done(void **state)
{
	struct job j = {.work = {.work = on_worked, .done = on_chain_done}};

	assert_int_equal(env_work(env, &j.work), 0);
	run();
	assert_int_equal(atomic_load(&j.worked), 3);
}

static void the_end_waits_for_work_that_has_begun_and_tells_of_none(void **state)
{
	const struct timespec tick = {0, (long)NSEC_PER_MSEC};
	struct job *jobs = calloc(N_JOBS, sizeof(*jobs));
	int worked = 0;

	n_done = 0;
	for (unsigned i = 0; i < N_JOBS; i++) {
		jobs[i].work =
			(struct env_work){.work = on_worked, .done = on_job_done};
		assert_int_equal(env_work(env, &jobs[i].work), 0);
	}
	while (!atomic_load(&jobs[0].worked))
		nanosleep(&tick, NULL);
	loop = env_event_free(loop);
	assert_int_equal(n_done, 0);
	for (unsigned i = 0; i < N_JOBS; i++)
		worked += atomic_load(&jobs[i].worked);
	assert_in_range(worked, 1, N_JOBS);
	free(jobs); /* nothing touches them any more */
}

/* Signals. */

static void on_signalled(void *owner)
{
	++*(unsigned *)owner;
	env_event_stop(loop);
}

static void a_signal_comes_on_the_loop(void **state)
{
	unsigned n = 0;

	assert_int_equal(env_event_on_signal(loop, SIGUSR1, on_signalled, &n), 0);
	assert_int_equal(raise(SIGUSR1), 0);
	assert_int_equal(n, 0);
	run();
	assert_int_equal(n, 1);
}

int main(void)
{
#define TEST(name_) cmocka_unit_test_setup_teardown(name_, setup, teardown)
	static const struct CMUnitTest tests[] = {
		TEST(timers_fire_in_the_order_of_their_time_and_never_early),
		TEST(a_timer_armed_late_in_a_turn_is_not_early),
		TEST(arming_again_replaces_the_time),
		TEST(a_timer_of_an_age_does_not_fire_now),
		TEST(a_timer_may_free_itself_and_another_that_is_due),
		TEST(a_timer_may_arm_itself_again),
		TEST(clocks_and_random_numbers_are_the_kernels),
		TEST(a_watch_tells_what_its_descriptor_is_ready_for),
		TEST(the_other_ends_close_is_readable),
		TEST(what_cannot_be_watched_is_refused),
		TEST(work_is_done_once_elsewhere_and_told_once_here),
		TEST(long_work_does_not_hold_up_short_work),
		TEST(work_may_be_given_again_when_it_is_done),
		TEST(the_end_waits_for_work_that_has_begun_and_tells_of_none),
		TEST(a_signal_comes_on_the_loop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
