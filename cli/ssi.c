/* ssi(1): the doctor; what there is besides. */
#include "session.h"
#include "ssi_doctor.h"
#include "version.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

static const char help[] =
	"Usage: ssi [OPTION]... COMMAND\n"
	"\n"
	"Commands:\n"
	"  doctor              what this machine has, what it lacks, and the remedies\n"
	"  help                the tools that there are\n"
	"  version             the version\n"
	"\n"
	"Options:\n"
	"      --config FILE   the configuration of ssid (doctor; /etc/ssi/ssid.conf)\n";

static const struct option options[] = {
	{ "config", required_argument, NULL, 'c' },
	{ 0 },
};

static const struct {
	const char *name, *what;
} tools[] = {
	{ "ssi-run", "start a program in the cluster" },
	{ "ssi-ps", "the processes of the cluster's applications" },
	{ "ssi-nodes", "the nodes, their state and load, and what is wrong" },
	{ "ssi-events", "what has happened in the cluster, and what happens" },
	{ "ssi-migrate", "move a running process to another node" },
	{ "ssi-capset", "what of the cluster a process uses" },
	{ "ssi-checkpoint", "save an application; list and remove what was saved" },
	{ "ssi-restart", "revive a saved application" },
	{ "ssi-admin", "found a cluster, admit nodes, look after it" },
	{ "ssi doctor", "what this machine has and lacks" },
	{ "ssi-lab", "a cluster of several nodes on one machine, to try things" },
	{ "ssid", "the daemon of a node" },
};

static const char *config_path = "/etc/ssi/ssid.conf";

static void on_option(int val, const char *argument)
{
	config_path = argument;
}

static int show_tools(const struct session_options *o)
{
	static const struct session_column columns[] = {
		{ "TOOL", 0, 0, SCOLS_JSON_STRING },
		{ "PURPOSE", 0, 0, SCOLS_JSON_STRING },
	};
	struct libscols_table *t = session_table(o, "tools", columns, 2);

	for (size_t i = 0; i < sizeof(tools) / sizeof(tools[0]); i++) {
		struct libscols_line *l = session_line(t);

		session_cell(l, 0, "%s", tools[i].name);
		session_cell(l, 1, "%s", tools[i].what);
	}
	session_print(t);
	if (!o->json && !o->quiet)
		printf("\nTOOL --help tells more, man TOOL everything; man linuxssi is the place to "
		       "begin.\n");
	return EXIT_OK;
}

static int show_version(const struct session_options *o)
{
	if (o->json)
		printf("{\"version\":1,\"linuxssi\":\"%s\"}\n", SSI_VERSION);
	else
		printf("LinuxSSI %s\n", SSI_VERSION);
	return EXIT_OK;
}

int main(int argc, char **argv)
{
	struct session_options o;
	int first = session_options(argc, argv, "", options, help, on_option, &o);

	if (first == argc)
		session_usage("a command is needed");
	if (argc - first != 1)
		session_usage("%s: one command, without operands", argv[first + 1]);
	if (strcmp(argv[first], "doctor") == 0)
		return doctor(&o, config_path);
	if (strcmp(argv[first], "help") == 0)
		return show_tools(&o);
	if (strcmp(argv[first], "version") == 0)
		return show_version(&o);
	session_usage("%s: no such command", argv[first]);
}
