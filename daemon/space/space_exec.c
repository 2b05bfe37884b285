/* Programs that are about to be started: init_exec.c says how they wait. */
#include "space_internal.h"

#include <string.h>

int space_exec_go(struct space *s, uint64_t id)
{
	struct init_request request = { .verb = INIT_EXEC_GO, .until = id };
	struct init_reply reply;
	int r = space_call(s, &request, NULL, 0, &reply, NULL, 0);

	return r < 0 ? r : space_outcome(reply.result);
}

int space_exec_give(struct space *s, uint64_t id, int fd, bool cloexec, int *ret_number)
{
	struct init_request request = { .verb = INIT_EXEC_GIVE, .until = id,
					.flags = cloexec ? INIT_EXEC_CLOSED : 0 };
	struct init_reply reply;
	int r = space_call(s, &request, &fd, 1, &reply, NULL, 0);

	if (r == 0)
		r = space_outcome(reply.result);
	if (r == 0)
		*ret_number = reply.pid;
	return r;
}

void space_exec_on_event(struct space *s, const struct init_event *e)
{
	struct space_exec exec = { .id = e->id, .pid = e->pid, .nr = e->code };

	memcpy(exec.args, e->args, sizeof(exec.args));
	if (s->events->on_exec)
		s->events->on_exec(s->owner, &exec);
	else
		(void)space_exec_go(s, e->id);
}
