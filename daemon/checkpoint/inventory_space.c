#include "inventory_internal.h"

#include "space.h"

/*
 * The doors: a space is, to the inventory, its root and its /proc.
 */

int inventory_take(struct inventory **ret, struct space *space, pid_t root)
{
	int r = inventory_take_at(ret, space_root_fd(space), space_proc_fd(space), root);

	/* Whoever is gone meanwhile keeps the initial ones. */
	for (size_t k = 0; r == 0 && k < (*ret)->n_tasks; k++)
		(void)capability_read(space_proc_fd(space), (*ret)->tasks[k].pid,
				      &(*ret)->tasks[k].capabilities);
	return r;
}

int inventory_verdict(const struct inventory *i, const struct inventory_allow *allow,
		      struct space *space, char **ret_text,
		      struct inventory_things **ret_things)
{
	return inventory_verdict_at(i, allow, space_proc_fd(space), ret_text,
				    ret_things);
}

int inventory_present(const struct inventory *i, struct space *space, bool same_node,
		      char **ret_text, struct inventory_things **ret_things)
{
	return inventory_present_at(i, space_root_fd(space), space_proc_fd(space),
				    same_node, ret_text, ret_things);
}

int inventory_compare(const struct inventory *saved, const struct inventory *restored,
		      struct space *space, bool same_node, char **ret_text)
{
	return inventory_compare_at(saved, restored, space_proc_fd(space), same_node,
				    ret_text);
}

int inventory_give_capabilities(const struct inventory *i, struct space *space)
{
	int r = 0;

	for (size_t k = 0; k < i->n_tasks && r == 0; k++)
		r = capability_write(space, i->tasks[k].pid, &i->tasks[k].capabilities);
	return r;
}
