/* See events_link.h. */
#include "events_link.h"

#include "err.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

static const struct membership_node *find(const struct membership_view *view, node_id id)
{
	for (size_t i = 0; i < view->n_nodes; i++)
		if (view->nodes[i].id == id)
			return &view->nodes[i];
	return NULL;
}

void events_link_format(const struct membership_view *view, node_id self, char *ret,
			size_t size)
{
	static const char digits[] = "0123456789abcdef";
	const struct membership_node *n = find(view, self);
	int head = snprintf(ret, size, "SSI1 %" PRIu64 " %u %s ", view->epoch, self,
			    n ? n->name : "?");
	char *bits = ret + head;
	size_t room = size - (size_t)head - 1, len = 1;

	bits[0] = '0';
	for (size_t i = 0; i < view->n_nodes; i++) {
		size_t at = (view->nodes[i].id - 1) / 4;
		unsigned bit = 1u << (view->nodes[i].id - 1) % 4;

		if ((view->nodes[i].state != MEMBER_UP &&
		     view->nodes[i].state != MEMBER_LEAVING) ||
		    at >= room)
			continue;
		for (; len <= at; len++)
			bits[len] = '0';
		/* By id: the digit has what was put there before. */
		bits[at] = digits[(bits[at] <= '9' ? bits[at] - '0' : bits[at] - 'a' + 10) | bit];
	}
	bits[len] = '\0';
}

int events_link_set(const char *path, const char *text)
{
	char new[300];

	(void)snprintf(new, sizeof(new), "%s.new", path);
	if (unlink(new) < 0 && errno != ENOENT)
		return err_origin(-errno);
	if (symlink(text, new) < 0 || rename(new, path) < 0)
		return err_origin(-errno);
	return 0;
}
