/* ssi_add_nodes(8) and ssi_remove_nodes(8): the names are the specification's. */
#include "change.h"

#include <errno.h>
#include <getopt.h>
#include <string.h>

static const char add_help[] =
	"Usage: ssi_add_nodes [OPTION]... NODES...\n"
	"Add nodes that were removed to the cluster again; returns when all have it.\n"
	"NODES: names, ids and ranges, as n2,n4-n7 or 3-5.\n"
	"\n"
	"  -n, --dry-run       only say whether they could be added\n";

static const char remove_help[] =
	"Usage: ssi_remove_nodes [OPTION]... NODES...\n"
	"Move all processes away from the nodes and remove them from the cluster; when\n"
	"this returns they may be stopped.  NODES: names, ids and ranges, as n2,n4-n7.\n"
	"\n"
	"  -f, --force         end the processes that cannot move\n"
	"  -n, --dry-run       only say which processes would be ended\n";

static const struct option add_options[] = {
	{ "dry-run", no_argument, NULL, 'n' },
	{ 0 },
};

static const struct option remove_options[] = {
	{ "force", no_argument, NULL, 'f' },
	{ "dry-run", no_argument, NULL, 'n' },
	{ 0 },
};

static struct change change;

static void on_option(int val, const char *argument)
{
	if (val == 'f')
		change.force = true;
	else
		change.dry_run = true;
}

int main(int argc, char **argv)
{
	bool remove = strstr(program_invocation_short_name, "remove");
	struct session_options o;
	int first = session_options(argc, argv, remove ? "fn" : "n",
				    remove ? remove_options : add_options,
				    remove ? remove_help : add_help, on_option, &o);

	change.what = remove ? SSI__CONTROL__CHANGE_REQUEST__WHAT__REMOVE :
			       SSI__CONTROL__CHANGE_REQUEST__WHAT__ADD;
	change.lists = argv + first;
	change.n_lists = argc - first;
	if (!change.n_lists)
		session_usage("which nodes?");
	return change_run(&o, &change);
}
