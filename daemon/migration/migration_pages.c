/*
 * Happy path: while criu makes the process the first pieces wait here for their places;
 * then each is put there as it comes, and the sender has so much under way again.
 * Behind the last one nothing waits for memory any more.
 *
 * Failure modes: more than a sender may have under way, or what has no place in a
 * process that stands: the owner is told, once.
 */
#include "migration_pages.h"

#include "cleanup.h"
#include "envelope.pb-c.h"
#include "err.h"

#include <string.h>

enum { HELD_MAX = 4 << 20 }; /* twice what a sender has under way */

/* criu does not say when there are places for them. */
static const nsec_t AGAIN = NSEC_PER_MSEC;

struct held {
	STAILQ_ENTRY(held) in;
	struct rpc_call *call;
	size_t n_runs, len, done;
	struct pages_run runs[PAGES_RUNS_MAX];
	uint8_t data[];
};

struct migration_pages {
	const struct env *env;
	struct pages_placer *placer;
	struct env_timer again;
	STAILQ_HEAD(, held) held;
	size_t n_held; /* bytes */
	bool last;     /* came */
	bool stands;
	bool over; /* all are in their places */
	migration_pages_cb on_over;
	void *owner;
};

struct pages_placer *migration_pages_placer(struct migration_pages *p)
{
	return p->placer;
}

bool migration_pages_are_over(const struct migration_pages *p)
{
	return p->over;
}

/* 0, PAGES_E_EARLY, < 0. */
static int place(struct migration_pages *p, const struct pages_run *runs, size_t n_runs,
		 const uint8_t *data, size_t *io_done)
{
	int r = pages_place(p->placer, runs, n_runs, data, io_done);

	return r == PAGES_E_EARLY && p->stands ? err_origin(-EFAULT) : r;
}

static void maybe_over(struct migration_pages *p)
{
	if (!p->last || !STAILQ_EMPTY(&p->held))
		return;
	env_disarm(p->env, &p->again);
	p->over = true;
	pages_placer_end(p->placer);
	p->on_over(p->owner, NULL);
}

static void reply(struct rpc_call *call)
{
	Ssi__Envelope__Empty empty = SSI__ENVELOPE__EMPTY__INIT;

	rpc_reply(call, &empty.base, RPC_NO_BULK);
}

static void on_again(struct env_timer *timer)
{
	struct migration_pages *p = container_of(timer, struct migration_pages, again);
	struct held *h;
	int r = 0;

	while ((h = STAILQ_FIRST(&p->held))) {
		r = place(p, h->runs, h->n_runs, h->data, &h->done);
		if (r != 0)
			break;
		STAILQ_REMOVE_HEAD(&p->held, in);
		p->n_held -= h->len;
		reply(h->call);
		free(h);
	}
	/* Armed before, so it cannot fail. */
	if (r == PAGES_E_EARLY)
		(void)env_arm(p->env, timer, AGAIN);
	else if (r < 0)
		return p->on_over(p->owner, strerror(-r));
	maybe_over(p);
}

static int hold(struct migration_pages *p, struct rpc_call *call,
		const struct pages_run *runs, size_t n_runs, struct iovec bulk,
		size_t done)
{
	struct held *h;
	int r;

	if (bulk.iov_len > HELD_MAX - p->n_held)
		return err_origin(-ENOBUFS);
	h = malloc(sizeof(*h) + bulk.iov_len);
	if (!h)
		return err_origin(-ENOMEM);
	h->call = call;
	h->n_runs = n_runs;
	h->len = bulk.iov_len;
	h->done = done;
	memcpy(h->runs, runs, n_runs * sizeof(*runs));
	memcpy(h->data, bulk.iov_base, bulk.iov_len);
	r = p->again.due ? 0 : env_arm(p->env, &p->again, AGAIN);
	if (r < 0) {
		free(h);
		return r;
	}
	STAILQ_INSERT_TAIL(&p->held, h, in);
	p->n_held += h->len;
	return 0;
}

/* False: no such runs are there. */
static bool parse(const Ssi__Migration__PagesRequest *q, size_t len,
		  struct pages_run runs[static PAGES_RUNS_MAX])
{
	if (q->n_at > PAGES_RUNS_MAX || q->n_len != q->n_at)
		return false;
	for (size_t i = 0; i < q->n_at; i++) {
		if (!q->len[i] || q->len[i] > len)
			return false;
		len -= q->len[i];
		runs[i] = (struct pages_run){q->at[i], q->len[i]};
	}
	return len == 0;
}

void migration_pages_take(struct migration_pages *p, struct rpc_call *call,
			  const Ssi__Migration__PagesRequest *q, struct iovec bulk)
{
	struct pages_run runs[PAGES_RUNS_MAX];
	size_t done = 0;
	int r = PAGES_E_EARLY;

	if (p->last || !parse(q, bulk.iov_len, runs))
		return rpc_fail(call, RPC_USAGE, "no pages of that process");
	p->last = q->last;
	if (STAILQ_EMPTY(&p->held))
		r = place(p, runs, q->n_at, bulk.iov_base, &done);
	if (r == PAGES_E_EARLY)
		r = hold(p, call, runs, q->n_at, bulk, done);
	else if (r == 0)
		reply(call);
	if (r < 0) {
		rpc_fail(call, RPC_FAILED, "its memory cannot be placed there");
		return p->on_over(p->owner, strerror(-r));
	}
	maybe_over(p);
}

void migration_pages_stand(struct migration_pages *p)
{
	p->stands = true;
}

int migration_pages_new(struct migration_pages **ret, const struct env *env,
			migration_pages_cb on_over, void *owner)
{
	struct migration_pages *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return err_origin(-ENOMEM);
	*p = (struct migration_pages){.env = env,
				      .again = {.cb = on_again},
				      .on_over = on_over,
				      .owner = owner};
	STAILQ_INIT(&p->held);
	r = pages_placer_new(&p->placer, env);
	if (r < 0) {
		free(p);
		return r;
	}
	*ret = p;
	return 0;
}

void migration_pages_give_up(struct migration_pages *p,
			     const struct migration_outcome *o)
{
	struct held *h;

	env_disarm(p->env, &p->again);
	pages_placer_end(p->placer);
	while ((h = STAILQ_FIRST(&p->held))) {
		STAILQ_REMOVE_HEAD(&p->held, in);
		rpc_fail(h->call, o->status, "%s", o->text);
		free(h);
	}
}

struct migration_pages *migration_pages_free(struct migration_pages *p)
{
	struct held *h;

	if (!p)
		return NULL;
	env_disarm(p->env, &p->again);
	while ((h = STAILQ_FIRST(&p->held))) {
		STAILQ_REMOVE_HEAD(&p->held, in);
		free(h);
	}
	pages_placer_free(p->placer);
	free(p);
	return NULL;
}
