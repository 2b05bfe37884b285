/* The lease of the node, told to ssi-init, which freezes the work cgroup when it ends. */
#include "space_internal.h"

#include "err.h"
#include "log.h"

static int tell(struct space *s, uint32_t flags, nsec_t until, nsec_t *ret_frozen_at)
{
	struct init_request request = { .verb = INIT_LEASE, .flags = flags, .until = until };
	struct init_reply reply;
	int r;

	*ret_frozen_at = 0;
	if (s->no_watchdog)
		return 0;
	r = space_call(s, &request, NULL, 0, &reply, NULL, 0);
	if (r == -EPROTO && !s->lost) {
		log_warning("ssi-init is of an older version: applications of this node are not "
			    "frozen when its lease ends, until all of them have ended and ssid "
			    "was started anew");
		s->no_watchdog = true;
		return 0;
	}
	if (r == 0) {
		*ret_frozen_at = reply.frozen_at;
		s->leased = reply.pid;
	}
	return err_fold(r);
}

int space_lease_start(struct space *s)
{
	return tell(s, 0, 0, &s->frozen_at);
}

int space_lease(struct space *s, nsec_t until, bool thaw, nsec_t *ret_frozen_at)
{
	int r = tell(s, thaw ? INIT_LEASE_THAW : 0, until, ret_frozen_at);

	if (r == 0)
		s->frozen_at = s->leased ? 0 : *ret_frozen_at;
	return r;
}

void space_lease_ended(struct space *s)
{
	/* It may have been given up before its end. */
	(void)tell(s, 0, env_now(s->env), &s->frozen_at);
	/* It is as good as frozen: ssi-init comes to it in a moment. */
	if (!s->frozen_at && !s->no_watchdog)
		s->frozen_at = env_now(s->env);
}

bool space_may_run(struct space *s)
{
	nsec_t frozen_at;

	return s->no_watchdog || (tell(s, 0, 0, &frozen_at) == 0 && s->leased);
}

bool space_is_frozen(const struct space *s)
{
	return s->frozen_at;
}

nsec_t space_frozen_at(const struct space *s)
{
	return s->frozen_at;
}
