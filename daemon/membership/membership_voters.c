/* Who should have a vote: see membership_internal.h.  A pure function. */
#include "membership_internal.h"

enum { VOTERS_MAX = 7 };

/* An odd number: one more voter than that would only cost a message. */
static size_t wanted(size_t n_members)
{
	if (n_members < 3)
		return 1;
	return n_members < VOTERS_MAX ? (n_members - 1) | 1 : VOTERS_MAX;
}

static const struct membership_voter *to_promote(const struct membership_voter *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (v[i].up && !v[i].voter)
			return &v[i];
	return NULL;
}

/* Who is gone, else who is removed, else the highest id: whoever does not answer first, since
 * it counts for no majority that takes the vote of another. */
static const struct membership_voter *to_demote(const struct membership_voter *v, size_t n,
						node_id self)
{
	const struct membership_voter *last = NULL, *removed = NULL;

	for (size_t i = 0; i < n; i++) {
		if (!v[i].voter || v[i].node == self)
			continue;
		if (v[i].gone && !v[i].up)
			return &v[i];
		if (v[i].removed)
			removed = &v[i];
		last = &v[i];
	}
	return removed ? removed : last;
}

static bool removed_votes(const struct membership_voter *v, size_t n, node_id self)
{
	for (size_t i = 0; i < n; i++)
		if (v[i].voter && v[i].removed && v[i].node != self)
			return true;
	return false;
}

node_id membership_voters_next(const struct membership_voter *v, size_t n, node_id self,
			       bool *ret_vote)
{
	const struct membership_voter *next;
	size_t n_voters = 0, n_gone = 0, n_members = 0;

	for (size_t i = 0; i < n; i++) {
		n_voters += v[i].voter;
		n_gone += v[i].voter && v[i].gone;
		n_members += !v[i].removed;
	}
	next = n_voters - n_gone < wanted(n_members) ? to_promote(v, n) : NULL;
	*ret_vote = next;
	if (!next && (n_voters > wanted(n_members) || removed_votes(v, n, self)))
		next = to_demote(v, n, self);
	return next ? next->node : NODE_NONE;
}
