/* ssi-capset(1): what of the cluster a process uses. */
#include "capability.h"
#include "session.h"

#include <ctype.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
	"Usage: ssi-capset [OPTION]... [{+|-}LIST]... [PID]\n"
	"Show or change the capabilities of process PID, or of the shell that calls "
	"this.\n"
	"A LIST is of names, NAME,NAME, or a number in octal; without + or - it is all "
	"that\n"
	"the set holds.\n"
	"\n"
	"  -e, --effective LIST              what the process uses\n"
	"  -p, --permitted LIST              what it may use; this never grows\n"
	"  -d, --inheritable-effective LIST  what its children will use\n"
	"  -i, --inheritable-permitted LIST  what its children may use\n"
	"  -b, --both LIST     as -e and -d, and so is a LIST that stands alone\n"
	"  -k, --pid PID       of this process\n"
	"  -s, --show          show them, as without any change\n"
	"  -f, --force         do not ask before CHANGE_KERRIGHED_CAP is given up\n";

static const struct option options[] = {
	{"effective", required_argument, NULL, 'e'},
	{"permitted", required_argument, NULL, 'p'},
	{"inheritable-effective", required_argument, NULL, 'd'},
	{"inheritable-permitted", required_argument, NULL, 'i'},
	{"both", required_argument, NULL, 'b'},
	{"pid", required_argument, NULL, 'k'},
	{"show", no_argument, NULL, 's'},
	{"force", no_argument, NULL, 'f'},
	{0},
};

static const struct {
	const char *name, *json;
} sets[CAPABILITY_SETS_N] = {
	[CAPABILITY_PERMITTED] = {"permitted", "permitted"},
	[CAPABILITY_EFFECTIVE] = {"effective", "effective"},
	[CAPABILITY_INHERITABLE_PERMITTED] = {"inheritable permitted",
					      "inheritable_permitted"},
	[CAPABILITY_INHERITABLE_EFFECTIVE] = {"inheritable effective",
					      "inheritable_effective"},
};

static struct {
	struct capability_change change;
	bool changes, show, force;
	int32_t pid; /* 0: the shell */
} arguments;

static void change(enum capability_set set, const char *words)
{
	char bad[64];

	arguments.changes = true;
	if (capability_parse(&arguments.change, set, words, bad, sizeof(bad)) != 0)
		session_usage("'%s' is not a capability", bad);
}

static void set_pid(const char *text)
{
	if (arguments.pid)
		session_usage("one process at a time");
	arguments.pid = (int32_t)session_number(text, INT32_MAX, "PID");
	if (!arguments.pid)
		session_usage("no process can have PID 0");
}

static void on_option(int val, const char *argument)
{
	switch (val) {
	case 'e':
		return change(CAPABILITY_EFFECTIVE, argument);
	case 'p':
		return change(CAPABILITY_PERMITTED, argument);
	case 'd':
		return change(CAPABILITY_INHERITABLE_EFFECTIVE, argument);
	case 'i':
		return change(CAPABILITY_INHERITABLE_PERMITTED, argument);
	case 'b':
		change(CAPABILITY_EFFECTIVE, argument);
		return change(CAPABILITY_INHERITABLE_EFFECTIVE, argument);
	case 'k':
		return set_pid(argument);
	case 's':
		arguments.show = true;
		break;
	case 'f':
		arguments.force = true;
		break;
	}
}

static bool takes_the_next(const char *word)
{
	static const char *const common[] = {"--timeout", "--socket"};

	for (size_t i = 0; i < sizeof(common) / sizeof(common[0]); i++)
		if (strcmp(word, common[i]) == 0)
			return true;
	for (const struct option *o = options; o->name; o++)
		if (o->has_arg && word[0] == '-' &&
		    ((word[1] == o->val && !word[2]) ||
		     (word[1] == '-' && strcmp(word + 2, o->name) == 0)))
			return true;
	return false;
}

/* "-NAME" would be taken for options: no letter of those is a capital. */
static void mark_lists(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *word = argv[i];

		if ((word[0] != '+' && word[0] != '-') ||
		    !isupper((unsigned char)word[1]) || takes_the_next(argv[i - 1]))
			continue;
		if (asprintf(&argv[i], "-b%s", word) < 0)
			session_exit(EXIT_FAILED, "out of memory");
	}
}

static bool gives_up_changing(void)
{
	const uint32_t bit = 1u << CAPABILITY_CHANGE_KERRIGHED_CAP;
	const struct capability_change *c = &arguments.change;

	return !((c->keep[CAPABILITY_EFFECTIVE] | c->add[CAPABILITY_EFFECTIVE]) &
		 bit) ||
	       !((c->keep[CAPABILITY_PERMITTED] | c->add[CAPABILITY_PERMITTED]) & bit);
}

static void confirm(void)
{
	char answer[16];

	if (arguments.force || !gives_up_changing())
		return;
	if (!isatty(STDIN_FILENO))
		session_usage("without CHANGE_KERRIGHED_CAP nothing can be changed any "
			      "more: --force, "
			      "if that is meant");
	(void)fprintf(stderr,
		      "Without CHANGE_KERRIGHED_CAP nothing can be changed any more.  "
		      "Go on? [y/N] ");
	if (!fgets(answer, sizeof(answer), stdin) ||
	    (answer[0] != 'y' && answer[0] != 'Y'))
		session_exit(EXIT_FAILED, "nothing is changed");
}

static void print_names(uint32_t set, const char *format)
{
	const char *comma = "";

	for (int c = 0; c < CAPABILITIES_N; c++) {
		if (!(set & 1u << c))
			continue;
		printf(format, comma, capability_name((enum capability)c));
		comma = ",";
	}
}

static void show(const struct session_options *o, const Ssi__Control__Capabilities *c)
{
	if (o->json) {
		printf("{\"version\":1,\"pid\":%d,\"node\":", c->pid);
		session_json_string(c->node);
		for (int set = 0; set < CAPABILITY_SETS_N; set++) {
			printf(",\"%s\":[", sets[set].json);
			print_names(c->sets[set], "%s\"%s\"");
			printf("]");
		}
		printf("}\n");
		return;
	}
	printf("%d on %s\n", c->pid, c->node);
	for (int set = 0; set < CAPABILITY_SETS_N; set++) {
		printf("%-22s %04o ", sets[set].name, c->sets[set]);
		print_names(c->sets[set], "%s%s");
		printf("\n");
	}
}

int main(int argc, char **argv)
{
	Ssi__Control__CapabilitiesRequest body =
		SSI__CONTROL__CAPABILITIES_REQUEST__INIT;
	Ssi__Control__Request q = SSI__CONTROL__REQUEST__INIT;
	struct session_options o;
	Ssi__Control__Event *event;
	int first;

	arguments.change = capability_no_change();
	mark_lists(argc, argv);
	first = session_options(argc, argv, "e:p:d:i:b:k:sf", options, help, on_option,
				&o);
	for (; first < argc; first++)
		set_pid(argv[first]);
	confirm();
	body.pid = arguments.pid;
	body.keep = arguments.change.keep;
	body.add = arguments.change.add;
	body.n_keep = body.n_add = arguments.changes ? CAPABILITY_SETS_N : 0;
	q.body_case = SSI__CONTROL__REQUEST__BODY_CAPABILITIES;
	q.capabilities = &body;
	event = session_once(&o, &q, SSI__CONTROL__EVENT__BODY_CAPABILITIES);
	if (event->capabilities->n_sets != CAPABILITY_SETS_N)
		session_exit(EXIT_FAILED, "ssid answered something else");
	if (!arguments.changes || arguments.show || o.json)
		show(&o, event->capabilities);
	ssi__control__event__free_unpacked(event, NULL);
	return EXIT_OK;
}
