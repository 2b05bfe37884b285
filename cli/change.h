#pragma once
/*
 * Adding and removing nodes, and the end of the cluster, for the tools that offer it:
 * which nodes are meant, the request, what came of it.
 */
#include "session.h"

struct change {
	Ssi__Control__ChangeRequest__What what;
	bool force, dry_run;
	/* Which: lists of names, ids and ranges of both ("n2,n4-n7", "3-5"); or as many as @count,
	 * or as it takes for a total of @total, or @all.  Exactly one of the four. */
	char **lists;
	int n_lists;
	uint64_t count, total;
	bool has_count, has_total, all;
};

/* Do it, and print; the exit code. */
int change_run(const struct session_options *o, const struct change *c);
