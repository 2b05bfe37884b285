/* ssid(8): the daemon of one node. */
#include "cleanup.h"
#include "config.h"
#include "env_event.h"
#include "founding.h"
#include "log.h"
#include "node.h"
#include "space.h"
#include "version.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>

enum {
	EXIT_NOT_CONFIGURED = 78, /* EX_CONFIG: systemd does not try again */
};

static const char help[] =
	"Usage: ssid [OPTION]...\n"
	"The daemon of one node of a LinuxSSI cluster; see ssid(8).\n"
	"\n"
	"      --config FILE   read FILE (/etc/ssi/ssid.conf)\n"
	"      --dump-config   print the configuration that would be used, and exit\n"
	"  -h, --help          this text\n"
	"      --version       the version\n";

static const struct option options[] = {
	{ "config", required_argument, NULL, 'c' },
	{ "dump-config", no_argument, NULL, 'd' },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'v' },
	{ 0 },
};

static int usage(const char *unwanted)
{
	if (unwanted)
		fprintf(stderr, "ssid: %s: no operand is wanted\n", unwanted);
	fputs("Try 'ssid --help'.\n", stderr);
	return 2;
}

/* To stop is not to leave: a successor within the lease is the same member, with the same
 * programs and streams, as after a kill.  Leaving is an operator's decision. */
static void on_terminate(void *owner)
{
	log_notice("stopping, applications go on");
	(void)sd_notify(0, "STOPPING=1");
	node_stop(owner);
}

/* Our PID as the host sees it, for people and tests. */
static void write_pid_file(const char *runtime_dir)
{
	char path[256], self[32] = "";
	_cleanup_close_ int fd = -1;

	snprintf(path, sizeof(path), "%s/ssid.pid", runtime_dir);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	/* The host's /proc calls us by the host's number. */
	if (fd < 0 || readlink("/proc/self", self, sizeof(self) - 1) < 0 ||
	    dprintf(fd, "%s\n", self) < 0)
		log_warning("%s: %m", path);
}

static int run(const struct config *config, const struct founding_identity *identity)
{
	struct env_event *event;
	struct node *node;

	(void)signal(SIGPIPE, SIG_IGN);
	write_pid_file(config->runtime_dir);
	if (env_event_new(&event) < 0 || node_new(&node, event, config, identity) < 0 ||
	    env_event_on_signal(event, SIGTERM, on_terminate, node) < 0 ||
	    env_event_on_signal(event, SIGINT, on_terminate, node) < 0)
		return EXIT_FAILURE;
	return env_event_run(event) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	const char *path = "/etc/ssi/ssid.conf";
	struct founding_identity identity;
	struct config config;
	bool dump = false;
	char private_dir[256];
	int val, r;

	while ((val = getopt_long(argc, argv, "h", options, NULL)) != -1)
		switch (val) {
		case 'c':
			path = optarg;
			break;
		case 'd':
			dump = true;
			break;
		case 'h':
			return fputs(help, stdout) < 0;
		case 'v':
			return printf("ssid (LinuxSSI) %s\n", SSI_VERSION) < 0;
		default:
			return usage(NULL);
		}
	if (optind != argc)
		return usage(argv[optind]);
	if (config_load(&config, path) < 0)
		return EXIT_NOT_CONFIGURED;
	if (dump) {
		config_dump(&config, stdout);
		config_fini(&config);
		return EXIT_SUCCESS;
	}
	log_set_level((enum log_level)config.log_level);
	r = founding_load(config.state_dir, &identity);
	if (r != 0) {
		log_error("%s: this node belongs to no cluster (%s): ssi-admin init founds one, "
			  "ssi-admin join joins one",
			  config.state_dir, r < 0 ? strerror(-r) : "nothing there");
		return EXIT_NOT_CONFIGURED;
	}
	if (mkdir(config.runtime_dir, 0755) < 0 && errno != EEXIST) {
		log_error("%s: %m", config.runtime_dir);
		return EXIT_FAILURE;
	}
	snprintf(private_dir, sizeof(private_dir), "%s/private", config.runtime_dir);
	if (identity.witness)
		return run(&config, &identity);
	r = space_enter(&(struct space_config){ .runtime_dir = config.runtime_dir,
						.libexec_dir = config.libexec_dir,
						.private_dir = private_dir });
	if (r < 0) {
		log_error("no space can be made: %s: see ssi doctor", strerror(-r));
		return EXIT_FAILURE;
	}
	return run(&config, &identity);
}
