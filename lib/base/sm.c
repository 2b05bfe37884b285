#include "sm.h"

#include "log.h"

#include <assert.h>
#include <inttypes.h>
#include <sys/sdt.h>

void sm_init(struct sm *sm, const char *name, const struct sm_state *table, uint64_t id,
	     int initial)
{
	*sm = (struct sm){ .table = table, .name = name, .id = id, .state = initial };
}

void sm_move(struct sm *sm, int next)
{
	const char *from = sm->table[sm->state].name, *to = sm->table[next].name;

	assert(sm->table[sm->state].to & SM_TO(next));
	DTRACE_PROBE4(ssid, sm_move, sm->name, sm->id, from, to);
	log_debug("%s %" PRIu64 ": %s -> %s", sm->name, sm->id, from, to);
	sm->state = next;
}
