#include "process_member.h"

#include "err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_pid(int32_t pid)
{
	return pid > 0 && pid < MEMBERSHIP_PID_MAX;
}

bool process_name_ok(const char *name)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
	static const char others[] = "0123456789._+~-";
	size_t n = strlen(name);

	if (n == 0)
		return true;
	if (n >= sizeof(struct process_name) || !strchr(letters, name[0]))
		return false;
	for (size_t i = 1; i < n; i++)
		if (!strchr(letters, name[i]) && !strchr(others, name[i]))
			return false;
	return true;
}

int process_members_unpack(struct process_member **ret,
			   Ssi__Process__Member *const *list, size_t n)
{
	struct process_member *members;

	if (n == 0 || n > PROCESS_MEMBERS_MAX)
		return err_origin(-EBADMSG);
	for (size_t i = 0; i < n; i++)
		if (!is_pid(list[i]->pid) || !is_pid(list[i]->pgid) ||
		    !is_pid(list[i]->sid) || !is_pid(list[i]->app) ||
		    !process_name_ok(list[i]->name) ||
		    (list[i]->ppid != 0 && !is_pid(list[i]->ppid)))
			return err_origin(-EBADMSG);
	members = calloc(n, sizeof(*members));
	if (!members)
		return err_origin(-ENOMEM);
	for (size_t i = 0; i < n; i++)
		members[i] = (struct process_member){.pid = list[i]->pid,
						     .ppid = list[i]->ppid,
						     .pgid = list[i]->pgid,
						     .sid = list[i]->sid,
						     .app = list[i]->app,
						     .uid = list[i]->uid,
						     .gid = list[i]->gid,
						     .generation = list[i]->generation,
						     .delivered = list[i]->delivered,
						     .known = list[i]->known};
	for (size_t i = 0; i < n; i++)
		(void)snprintf(members[i].name.text, sizeof(members[i].name.text), "%s",
			       list[i]->name);
	*ret = members;
	return 0;
}

int process_members_pack(const struct process_member *members, size_t n,
			 Ssi__Process__Member ***ret)
{
	/* The pointers, then what they point to. */
	size_t head = n * sizeof(Ssi__Process__Member *);
	uint8_t *block = calloc(1, head + n * sizeof(Ssi__Process__Member) + 1);
	Ssi__Process__Member **list = (void *)block;
	Ssi__Process__Member *body = (void *)(block + head);

	if (!block)
		return err_origin(-ENOMEM);
	for (size_t i = 0; i < n; i++) {
		const struct process_member *m = &members[i];

		ssi__process__member__init(&body[i]);
		list[i] = &body[i];
		body[i].pid = m->pid;
		body[i].ppid = m->ppid;
		body[i].pgid = m->pgid;
		body[i].sid = m->sid;
		body[i].app = m->app;
		body[i].name = (char *)m->name.text;
		body[i].uid = m->uid;
		body[i].gid = m->gid;
		body[i].generation = m->generation;
		body[i].delivered = m->delivered;
		body[i].known = m->known;
	}
	*ret = list;
	return 0;
}
