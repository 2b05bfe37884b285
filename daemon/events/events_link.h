#pragma once
/*
 * Who is up, for programs that use libssi: a symbolic link whose target is the text.
 *
 * Not a file: to read a link takes no descriptor and no mapping, so a program can be frozen
 * and moved at any moment, and reads the other node's link from then on.  Not a connection to
 * ssid: it would hold a program where it is, and would break with every start of ssid.
 *
 * "SSI1 EPOCH SELF-ID SELF-NAME BITMAP": hexadecimal digits, four nodes each, node 1 is the
 * lowest bit of the first.
 */
#include "membership.h"

enum { EVENTS_LINK_MAX = 4000 }; /* bytes; a node whose bit has no room is not told of */

/* Write the text.  @up: those that are in the cluster. */
void events_link_format(const struct membership_view *view, node_id self, char *ret,
			size_t size);
/* Replace the link @path by one to @text, atomically. */
int events_link_set(const char *path, const char *text);
