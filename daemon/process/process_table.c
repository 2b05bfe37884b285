/*
 * Happy path: put writes the copy that is not valid and turns the slot's word.
 *
 * Failure modes: killed before the word is turned -> the old record; after ->
 * the new one.  A table of another layout is refused, not guessed at.
 */
#include "process_table.h"

#include "cleanup.h"
#include "err.h"

#include <stdatomic.h>
#include <string.h>
#include <uthash.h>

static const uint64_t table_magic = 0x3230746269737370; /* "pssibt02" */

struct slot {
	_Atomic uint32_t valid; /* 0: empty, else 1 + the valid copy */
	struct process_entry copy[2];
};

struct memory {
	uint64_t magic;
	uint32_t n_slots, slot_size;
	uint64_t n_used; /* of the first slots; no other was ever looked at, and so has no page */
	struct slot slots[PROCESS_TABLE_SLOTS];
};

struct name {
	pid_t pid;
	uint32_t slot;
	UT_hash_handle hh;
};

struct process_table {
	struct memory *memory;
	struct name *by_pid;
	size_t n;
	size_t n_free;
	uint32_t free[PROCESS_TABLE_SLOTS]; /* a stack of used slots that are empty */
	struct name names[PROCESS_TABLE_SLOTS];
};

DEFINE_CLEANUP(struct process_table, process_table_free)

size_t process_table_size(void)
{
	return sizeof(struct memory);
}

static const struct process_entry *valid_entry(const struct slot *s)
{
	uint32_t valid = atomic_load_explicit(&s->valid, memory_order_acquire);

	return valid == 1 || valid == 2 ? &s->copy[valid - 1] : NULL;
}

static int add_name(struct process_table *t, pid_t pid, uint32_t slot)
{
	struct name *name = &t->names[slot];

	*name = (struct name){.pid = pid, .slot = slot};
	HASH_ADD_INT(t->by_pid, pid, name);
	if (!name->hh.tbl)
		return err_origin(-ENOMEM);
	t->n++;
	return 0;
}

static int load(struct process_table *t)
{
	const struct process_entry *e;
	int r;

	for (uint32_t i = (uint32_t)t->memory->n_used; i-- > 0;) {
		e = valid_entry(&t->memory->slots[i]);
		if (!e) {
			t->free[t->n_free++] = i;
			continue;
		}
		r = add_name(t, e->record.pid, i);
		if (r < 0)
			return r;
	}
	return 0;
}

int process_table_new(struct process_table **ret, void *memory, bool fresh)
{
	_cleanup_(process_table_freep) struct process_table *t = NULL;
	struct memory *m = memory;
	int r;

	if (fresh) {
		m->n_slots = PROCESS_TABLE_SLOTS;
		m->slot_size = sizeof(struct slot);
	} else if (m->magic != table_magic || m->n_slots != PROCESS_TABLE_SLOTS ||
		   m->slot_size != sizeof(struct slot) || m->n_used > PROCESS_TABLE_SLOTS) {
		return PROCESS_TABLE_E_FORMAT;
	}
	m->magic = table_magic;
	t = malloc(sizeof(*t));
	if (!t)
		return err_origin(-ENOMEM);
	t->memory = m;
	t->by_pid = NULL;
	t->n = t->n_free = 0;
	r = load(t);
	if (r < 0)
		return r;
	*ret = TAKE(t);
	return 0;
}

struct process_table *process_table_free(struct process_table *t)
{
	if (!t)
		return NULL;
	HASH_CLEAR(hh, t->by_pid);
	free(t);
	return NULL;
}

static struct name *find_name(const struct process_table *t, pid_t pid)
{
	struct name *name;

	HASH_FIND_INT(t->by_pid, &pid, name);
	return name;
}

const struct process_entry *process_table_find(const struct process_table *t, pid_t pid)
{
	const struct name *name = find_name(t, pid);

	return name ? valid_entry(&t->memory->slots[name->slot]) : NULL;
}

int process_table_put(struct process_table *t, const struct process_entry *e)
{
	struct name *name = find_name(t, e->record.pid);
	uint32_t slot, other;
	struct slot *s;
	int r;

	if (!name) {
		if (!t->n_free && t->memory->n_used == PROCESS_TABLE_SLOTS)
			return PROCESS_TABLE_E_FULL;
		if (!t->n_free)
			t->free[t->n_free++] = (uint32_t)t->memory->n_used++;
		slot = t->free[t->n_free - 1];
		r = add_name(t, e->record.pid, slot);
		if (r < 0)
			return r;
		t->n_free--;
	} else {
		slot = name->slot;
	}
	s = &t->memory->slots[slot];
	other = atomic_load_explicit(&s->valid, memory_order_relaxed) == 1 ? 2 : 1;
	s->copy[other - 1] = *e;
	atomic_store_explicit(&s->valid, other, memory_order_release);
	return 0;
}

void process_table_remove(struct process_table *t, pid_t pid)
{
	struct name *name = find_name(t, pid);

	if (!name)
		return;
	atomic_store_explicit(&t->memory->slots[name->slot].valid, 0,
			      memory_order_release);
	t->free[t->n_free++] = name->slot;
	HASH_DEL(t->by_pid, name);
	t->n--;
}

const struct process_entry *process_table_next(const struct process_table *t,
					       size_t *cursor)
{
	const struct process_entry *e;

	while (*cursor < t->memory->n_used) {
		e = valid_entry(&t->memory->slots[(*cursor)++]);
		if (e)
			return e;
	}
	return NULL;
}

size_t process_table_n(const struct process_table *t)
{
	return t->n;
}
