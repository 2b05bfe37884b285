#include "migration_journal.h"

#include "cleanup.h"
#include "err.h"

#include <stdatomic.h>
#include <sys/mman.h>

enum { SLOTS = 256 };

struct slot {
	_Atomic uint64_t sequence; /* the valid copy is copies[sequence & 1] */
	struct migration_entry copies[2];
};

struct migration_journal {
	struct slot *slots; /* mapped, kept */
};

static struct migration_entry *current(struct slot *s)
{
	return &s->copies[atomic_load(&s->sequence) & 1];
}

static void store(struct slot *s, const struct migration_entry *e)
{
	uint64_t next = atomic_load(&s->sequence) + 1;

	s->copies[next & 1] = *e;
	atomic_store(&s->sequence, next);
}

static struct slot *find(const struct migration_journal *j, uint64_t id, uint32_t side)
{
	for (size_t i = 0; i < SLOTS; i++) {
		const struct migration_entry *e = current(&j->slots[i]);

		if (e->step != MIGRATION_STEP_NONE && e->id == id && e->side == side)
			return &j->slots[i];
	}
	return NULL;
}

/* A free slot, else that of the oldest committed target, which its source asks about
 * within seconds or never. */
static struct slot *find_room(const struct migration_journal *j)
{
	struct slot *oldest = NULL;

	for (size_t i = 0; i < SLOTS; i++) {
		struct slot *s = &j->slots[i];
		const struct migration_entry *e = current(s);

		if (e->step == MIGRATION_STEP_NONE)
			return s;
		if (e->side == MIGRATION_TARGET &&
		    e->step == MIGRATION_STEP_COMMITTED &&
		    (!oldest || e->id < current(oldest)->id))
			oldest = s;
	}
	return oldest;
}

int migration_journal_set(struct migration_journal *j, const struct migration_entry *e)
{
	struct slot *s = find(j, e->id, e->side);

	if (!s && e->step == MIGRATION_STEP_NONE)
		return 0;
	if (!s)
		s = find_room(j);
	if (!s)
		return err_origin(-ENOSPC);
	store(s, e);
	return 0;
}

enum migration_step migration_journal_step(const struct migration_journal *j,
					   uint64_t id, enum migration_side side)
{
	struct slot *s = find(j, id, side);

	return s ? (enum migration_step)current(s)->step : MIGRATION_STEP_NONE;
}

bool migration_journal_entry(const struct migration_journal *j, size_t i,
			     struct migration_entry *ret)
{
	for (size_t k = 0; k < SLOTS; k++) {
		const struct migration_entry *e = current(&j->slots[k]);

		if (e->step != MIGRATION_STEP_NONE && i-- == 0) {
			*ret = *e;
			return true;
		}
	}
	return false;
}

int migration_journal_new(struct migration_journal **ret, struct space *space)
{
	_cleanup_free_ struct migration_journal *j = calloc(1, sizeof(*j));
	void *mapped;
	bool fresh;
	int r;

	if (!j)
		return err_origin(-ENOMEM);
	/* The first had entries without an incarnation, the second none that are recorded. */
	r = space_state(space, "migration/journal.3", SLOTS * sizeof(struct slot),
			&mapped, &fresh);
	if (r != 0)
		return err_fold(r);
	j->slots = mapped;
	*ret = TAKE(j);
	return 0;
}

struct migration_journal *migration_journal_free(struct migration_journal *j)
{
	if (!j)
		return NULL;
	(void)munmap(j->slots, SLOTS * sizeof(struct slot));
	free(j);
	return NULL;
}
