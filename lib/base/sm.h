#pragma once
/*
 * State machines.  A table says which moves are legal; every move is checked,
 * logged at debug and probed in one place.  Nothing else may write ->state.
 */
#include <stdint.h>

#define SM_TO(s_) (1u << (s_))

struct sm_state {
	const char *name;
	uint32_t to; /* legal next states, SM_TO() bits; 0 = final */
};

struct sm {
	const struct sm_state *table;
	const char *name;
	uint64_t id;
	int state;
};

void sm_init(struct sm *sm, const char *name, const struct sm_state *table, uint64_t id,
	     int initial);
void sm_move(struct sm *sm, int next);

static inline const char *sm_state_name(const struct sm *sm)
{
	return sm->table[sm->state].name;
}
