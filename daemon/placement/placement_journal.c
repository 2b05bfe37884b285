/*
 * Whose program must begin elsewhere, for a successor of ssid.  An entry is written before
 * its process is made a shadow: of one that was not the successor sees that.  A PID is
 * written last and taken away first: a SIGKILL in between leaves an entry that is none.
 */
#include "placement_internal.h"

#include "err.h"

#include <stdatomic.h>

enum { SLOTS = 256 };

struct journal {
	struct {
		_Atomic pid_t pid;
		node_id node;
		uint32_t generation;
	} slots[SLOTS];
};

int journal_open(struct placement *p)
{
	void *memory;
	bool fresh;
	int r = space_state(p->n.space, "placement/journal", sizeof(struct journal), &memory,
			    &fresh);

	if (r == 0)
		p->journal = memory;
	return err_fold(r);
}

int journal_add(struct placement *p, const struct journal_entry *e)
{
	for (size_t i = 0; i < SLOTS; i++) {
		if (atomic_load(&p->journal->slots[i].pid))
			continue;
		p->journal->slots[i].node = e->node;
		p->journal->slots[i].generation = e->generation;
		atomic_store(&p->journal->slots[i].pid, e->pid);
		return 0;
	}
	return -ENOSPC;
}

void journal_remove(struct placement *p, pid_t pid)
{
	for (size_t i = 0; i < SLOTS; i++)
		if (atomic_load(&p->journal->slots[i].pid) == pid)
			atomic_store(&p->journal->slots[i].pid, 0);
}

bool journal_entry(const struct placement *p, size_t i, struct journal_entry *ret)
{
	for (size_t s = 0; s < SLOTS; s++) {
		pid_t pid = atomic_load(&p->journal->slots[s].pid);

		if (!pid || i-- > 0)
			continue;
		*ret = (struct journal_entry){ pid, p->journal->slots[s].node,
					       p->journal->slots[s].generation };
		return true;
	}
	return false;
}
