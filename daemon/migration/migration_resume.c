/*
 * The side that a tree leaves: what a predecessor of this ssid left half-way.
 *
 * The tree is still frozen in its group.  Before RESTORE was sent it is ours to undo;
 * after, the target is asked, and gets its COMMIT when it is ready: a copy that was
 * restored into its shadow cannot be given up unseen.
 */
#include "migration_source.h"

#include "log.h"
#include "space_group.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* What a predecessor cut, without having told us what. */
void source_uncut(struct migration_source *s)
{
	struct inventory *i = NULL;

	if (inventory_take(&i, s->room->n.space, s->root) != 0)
		return;
	for (size_t k = 0; k < i->n_files; k++)
		if (i->files[k].type == INVENTORY_PIPE)
			(void)stream_uncut(s->room->n.stream, i->files[k].inode);
	inventory_free(i);
}

void migration_source_resume(struct migration_room *m, const struct migration_entry *e)
{
	struct migration_source *s = source_new(m, e->id, e->root, e->peer);
	char name[64];

	if (!s)
		return log_error("process %d: no memory to end its move", e->root);
	s->asked = s->resumed = true;
	s->may_be_ready = e->step == MIGRATION_STEP_DECIDING;
	s->generation = e->generation;
	s->target_incarnation = e->incarnation;
	s->deadline = env_now(m->n.env) + 60 * NSEC_PER_SEC;
	s->frozen_at = env_now(m->n.env);
	(void)process_hold(m->n.process, s->root); /* perhaps held since we began */
	s->held = true;
	snprintf(name, sizeof(name), "move.%" PRIx64, s->id);
	if (space_group_open(m->n.space, name, &s->group) != 0)
		s->group = NULL;
	if (e->step == MIGRATION_STEP_OPEN || !s->group)
		return source_fail(s, RPC_FAILED, "ssid was restarted in the middle");
	s->work_result = inventory_take(&s->inventory, m->n.space, s->root);
	if (s->work_result == 0)
		s->work_result =
			inventory_find_shared(s->inventory, space_proc_fd(m->n.space));
	if (s->work_result == 0)
		s->work_result =
			migration_members_of(s->inventory, &s->members, &s->n_members);
	if (s->work_result == 0)
		source_name_members(s);
	if (s->work_result == 0)
		s->work_result =
			tree_pipes_find(&s->pipes, &m->pipes, s->inventory, s->id);
	if (s->work_result < 0)
		log_error("process %d: cannot be looked at after a restart: %s",
			  s->root, strerror(-s->work_result));
	sm_init(&s->sm, "migration", source_states, s->id,
		e->step == MIGRATION_STEP_COMMITTED ? SOURCE_COMMITTING
						    : SOURCE_QUERYING);
	if (e->step == MIGRATION_STEP_COMMITTED)
		return source_committed(s);
	source_query(s);
}
