/*
 * The watchdog of the node's lease: when it ends, the work cgroup is frozen, at real-time
 * priority where the kernel allows it, so that a busy machine is not late.
 *
 * failure modes: ssid is killed, stopped or hangs: nobody tells a new lease, so it ends.
 * The machine stood still: the timer is of CLOCK_BOOTTIME and due when it goes on.
 */
#include "ssi_init_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static int timer_fd = -1, freeze_fd = -1;
static uint64_t ends_at, frozen_at; /* CLOCK_BOOTTIME, 0: it runs */

int lease_start(void)
{
	const struct sched_param lowest = { .sched_priority = 1 };

	(void)sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &lowest);
	freeze_fd = openat(INIT_FD_WORK, "cgroup.freeze", O_WRONLY | O_CLOEXEC);
	timer_fd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	return timer_fd < 0 || freeze_fd < 0 ? -errno : timer_fd;
}

void lease_ended(void)
{
	uint64_t n;

	if (read(timer_fd, &n, sizeof(n)) != sizeof(n)) /* a new one came meanwhile */
		return;
	if (pwrite(freeze_fd, "1", 1, 0) == 1)
		frozen_at = ends_at;
}

static bool has_ended(uint64_t until)
{
	struct timespec now;

	return clock_gettime(CLOCK_BOOTTIME, &now) < 0 ||
	       until <= (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int lease_set(uint32_t flags, uint64_t until, struct init_reply *ret)
{
	const struct itimerspec at = { .it_value = { .tv_sec = (time_t)(until / 1000000000u),
						     .tv_nsec = (long)(until % 1000000000u) } };

	ret->frozen_at = frozen_at;
	ret->pid = ends_at && !frozen_at;
	if (!until || (frozen_at && !(flags & INIT_LEASE_THAW)))
		return 0;
	/* It thaws nothing, not even until we have come to look at the timer. */
	if (frozen_at && has_ended(until))
		return 0;
	if (timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &at, NULL) < 0)
		return -errno;
	if (frozen_at && pwrite(freeze_fd, "0", 1, 0) != 1)
		return -errno;
	ends_at = until;
	frozen_at = 0;
	ret->pid = 1;
	return 0;
}
