#include "inventory_internal.h"

#include "cleanup.h"
#include "err.h"

#include <stdio.h>
#include <string.h>

/*
 * The lists, and how their entries are called.
 */

struct inventory *inventory_free(struct inventory *i)
{
	if (!i)
		return NULL;
	for (size_t k = 0; k < i->n_files; k++)
		free(i->files[k].path);
	for (size_t k = 0; k < i->n_file_systems; k++)
		free(i->file_systems[k]);
	free(i->file_systems);
	free(i->files);
	free(i->tasks);
	free(i);
	return NULL;
}

/* Room for one more: arrays grow when their count is a power of two. */
static int grow(void **array, size_t n, size_t max, size_t size)
{
	void *p;

	if (n >= max)
		return err_origin(-E2BIG);
	if (n & (n - 1))
		return 0;
	p = realloc(*array, (n ? 2 * n : 1) * size);
	if (!p)
		return err_origin(-ENOMEM);
	*array = p;
	return 0;
}

int inventory_add_task(struct inventory *i, const struct inventory_task *task)
{
	int r = grow((void **)&i->tasks, i->n_tasks, INVENTORY_TASKS_MAX,
		     sizeof(*task));

	if (r < 0)
		return r;
	i->tasks[i->n_tasks++] = *task;
	return 0;
}

int inventory_add_file(struct inventory *i, const struct inventory_file *file)
{
	int r = grow((void **)&i->files, i->n_files, INVENTORY_FILES_MAX,
		     sizeof(*file));

	if (r < 0)
		return r;
	i->files[i->n_files++] = *file;
	return 0;
}

int inventory_add_file_system(struct inventory *i, const char *name, unsigned *ret)
{
	char *copy;
	int r;

	for (size_t k = 0; k < i->n_file_systems; k++)
		if (!strcmp(i->file_systems[k], name)) {
			*ret = k;
			return 0;
		}
	r = grow((void **)&i->file_systems, i->n_file_systems,
		 INVENTORY_FILE_SYSTEMS_MAX, sizeof(char *));
	if (r < 0)
		return r;
	copy = strdup(name);
	if (!copy)
		return err_origin(-ENOMEM);
	*ret = i->n_file_systems;
	i->file_systems[i->n_file_systems++] = copy;
	return 0;
}

static bool same_task(const struct inventory_task *a, const struct inventory_task *b)
{
	return a->pid == b->pid && a->ppid == b->ppid && a->tracer == b->tracer &&
	       !strcmp(a->comm, b->comm);
}

static bool same_thing(const struct inventory_file *a, const struct inventory_file *b)
{
	return a->pid == b->pid && a->fd == b->fd && a->type == b->type &&
	       a->device == b->device && a->inode == b->inode && a->flags == b->flags &&
	       a->deleted == b->deleted && a->locked == b->locked &&
	       !strcmp(a->path, b->path);
}

bool inventory_same_things(const struct inventory *a, const struct inventory *b)
{
	if (a->n_tasks != b->n_tasks || a->n_files != b->n_files)
		return false;
	for (size_t k = 0; k < a->n_tasks; k++)
		if (!same_task(&a->tasks[k], &b->tasks[k]))
			return false;
	for (size_t k = 0; k < a->n_files; k++)
		if (!same_thing(&a->files[k], &b->files[k]))
			return false;
	return true;
}

const struct inventory_task *inventory_find_task(const struct inventory *i, pid_t pid)
{
	for (size_t k = 0; k < i->n_tasks; k++)
		if (i->tasks[k].pid == pid)
			return &i->tasks[k];
	return NULL;
}

const char *inventory_comm(const struct inventory *i, pid_t pid)
{
	const struct inventory_task *t = inventory_find_task(i, pid);

	return t ? t->comm : "?";
}

bool inventory_is_allowed(const struct inventory_allow *allow,
			  const struct inventory_file *f)
{
	for (size_t k = 0; f->type == INVENTORY_PIPE && allow && k < allow->n_pipes;
	     k++)
		if (allow->pipes[k] == f->inode)
			return true;
	return false;
}

bool inventory_is_away(const struct inventory_task *t)
{
	return t && t->tracer && !strcmp(t->comm, "ssi-shadow");
}

const char *inventory_what(const struct inventory_file *f,
			   char buf[static INVENTORY_WHAT_MAX])
{
	static const char *const names[] = {
		[-INVENTORY_MAPPING] = "mapping",
		[-INVENTORY_CWD] = "working directory",
		[-INVENTORY_ROOT] = "root directory",
		[-INVENTORY_EXE] = "program",
	};

	if (f->fd < 0)
		return names[-f->fd];
	(void)snprintf(buf, INVENTORY_WHAT_MAX, "fd %d", f->fd);
	return buf;
}

const char *inventory_where(const struct inventory *i, const struct inventory_file *f,
			    char buf[static INVENTORY_WHERE_MAX])
{
	char what[INVENTORY_WHAT_MAX];

	(void)snprintf(buf, INVENTORY_WHERE_MAX, "%s of %d (%s)",
		       inventory_what(f, what), f->pid, inventory_comm(i, f->pid));
	return buf;
}

void inventory_link(const struct inventory_file *f, char buf[static INVENTORY_LINK_MAX])
{
	static const char *const names[] = {
		[-INVENTORY_CWD] = "cwd",
		[-INVENTORY_ROOT] = "root",
		[-INVENTORY_EXE] = "exe",
	};

	if (f->fd >= 0)
		(void)snprintf(buf, INVENTORY_LINK_MAX, "%d/fd/%d", f->pid, f->fd);
	else if (f->fd == INVENTORY_MAPPING)
		(void)snprintf(buf, INVENTORY_LINK_MAX, "%d/map_files/%jx-%jx", f->pid,
			       (uintmax_t)f->start, (uintmax_t)f->end);
	else
		(void)snprintf(buf, INVENTORY_LINK_MAX, "%d/%s", f->pid, names[-f->fd]);
}
