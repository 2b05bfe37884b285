#pragma once
/* Members of trees as messages, for the rooms that send them. */
#include "process.h"
#include "process.pb-c.h"

/* Believes nothing: -EBADMSG.  malloc()ed. */
int process_members_unpack(struct process_member **ret,
			   Ssi__Process__Member *const *list, size_t n);
/* One malloc()ed block. */
int process_members_pack(const struct process_member *members, size_t n,
			 Ssi__Process__Member ***ret);
