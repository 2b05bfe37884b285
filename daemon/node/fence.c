/*
 * Happy path: each renewal is told to ssi-init, which never comes to freeze.
 *
 * Failure modes: the lease ended -> ssi-init has frozen the space.  The next lease finds it
 * so: if this incarnation was never LOST nothing was given up, and it goes on at once; else
 * process_claim() finds out first what must not go on.
 */
#include "fence.h"

#include "err.h"
#include "log.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static epoch_t own_since(const struct fence *f)
{
	const struct membership_node *self = membership_node(f->membership, f->self);

	return self ? self->since : 0;
}

static void time_text(nsec_t realtime, char ret[32])
{
	time_t seconds = (time_t)(realtime / NSEC_PER_SEC);
	struct tm tm;

	(void)strftime(ret, 32, "%F %T", localtime_r(&seconds, &tm));
}

static void record(const struct fence *f, nsec_t frozen_at, size_t n_killed)
{
	nsec_t now = env_realtime(f->env), span = env_now(f->env) - frozen_at;
	char from[32], to[32];

	time_text(now - span, from);
	time_text(now, to);
	log_warning("fenced for %llu.%llu s: applications of this node were frozen from %s to %s%s",
		    (unsigned long long)(span / NSEC_PER_SEC),
		    (unsigned long long)(span / (NSEC_PER_SEC / 10) % 10), from, to,
		    n_killed ? ", and some are killed, see above" : "");
}

static void thaw(struct fence *f, size_t n_killed)
{
	nsec_t frozen_at;
	int r = space_lease(f->space, f->until, true, &frozen_at);

	if (r < 0) {
		log_error("applications of this node cannot be thawed: %s", strerror(-r));
		return;
	}
	/* It took so long that the lease has ended: the next one begins anew. */
	if (space_is_frozen(f->space))
		return;
	f->since = own_since(f);
	if (frozen_at)
		record(f, frozen_at, n_killed);
	f->on_thawed(f->owner);
}

static void on_claimed(void *owner, size_t n_killed)
{
	struct fence *f = owner;

	f->claiming = false;
	thaw(f, n_killed);
}

void fence_on_renewed(struct fence *f, nsec_t until)
{
	nsec_t frozen_at;
	int r;

	f->until = until;
	if (f->claiming)
		return;
	r = space_lease(f->space, until, false, &frozen_at);
	if (r < 0)
		return log_error("ssi-init was not told the lease: %s", strerror(-r));
	if (!frozen_at) {
		f->since = own_since(f);
		return;
	}
	if (f->since && f->since == own_since(f))
		return thaw(f, 0);
	f->claiming = true;
	r = process_claim(f->process, on_claimed, f);
	if (r == 0)
		return;
	f->claiming = false;
	log_error("applications of this node stay frozen: %s, trying again", strerror(-err_fold(r)));
}

void fence_on_lease_end(struct fence *f)
{
	space_lease_ended(f->space);
	if (f->claiming)
		process_claim_cancel(f->process);
	f->claiming = false;
}
