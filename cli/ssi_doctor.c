/*
 * The rows of `ssi doctor`: those of daemon/kernel, and ours behind them.
 *
 * Whatever could hang is asked in a child with a deadline: criu, and ssid, whose
 * answers make session_*() exit.  What only root can see is no finding when
 * somebody else looks: such a row says so and counts as nothing missing.
 */
#include "ssi_doctor.h"

#include "cleanup.h"
#include "config.h"
#include "kernel.h"
#include "log.h"
#include "ssi_program.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { CRIU_MS = 30000, SSID_MS = 3000, LINE_MAX_BYTES = 256 };

/* What is off without it is not ssid itself: missing, it does not spoil the exit code. */
static const char *const optional[] = {
	"userfaultfd", "fuse", "seccomp notification", "criu streams", "criu leaves pages",
	"criu restore in place", "criu users' processes", "overlayfs", "ssi module",
};

/* What an ordinary user is refused although it may be there. */
static const char *const for_root[] = {
	"namespaces", "clone3 set_tid", "userfaultfd", "fuse", "cgroup v2", "ssi module",
	"criu check", "membership",
};

static bool is_one_of(const char *name, const char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(list[i], name) == 0)
			return true;
	return false;
}

DEFINE_CLEANUP(struct kernel, kernel_free)

static void add(struct kernel *k, const char *name, enum kernel_state state, const char *remedy,
		const char *format, ...) __attribute__((format(printf, 5, 6)));

static void add(struct kernel *k, const char *name, enum kernel_state state, const char *remedy,
		const char *format, ...)
{
	struct kernel_row row = { .state = state };
	va_list ap;

	(void)snprintf(row.name, sizeof(row.name), "%s", name);
	(void)snprintf(row.remedy, sizeof(row.remedy), "%s", state == KERNEL_OK ? "" : remedy);
	va_start(ap, format);
	(void)vsnprintf(row.detail, sizeof(row.detail), format, ap);
	va_end(ap);
	if (kernel_append(k, &row) < 0)
		session_exit(EXIT_FAILED, "too many rows");
}

/* What is installed. */

static void look_at_programs(struct kernel *k, const char *directory)
{
	static const char *const names[] = { "ssi-init", "ssi-spawn", "ssi-shadow", "ssi-copy",
					     "ssi-placeholder" };
	char missing[96] = "", path[4096];
	struct stat st;
	bool rooted;

	for (size_t i = 0; i < N_ELEMENTS(names); i++) {
		size_t at = strlen(missing);

		(void)snprintf(path, sizeof(path), "%s/%s", directory, names[i]);
		if (access(path, X_OK) < 0)
			(void)snprintf(missing + at, sizeof(missing) - at, " %s", names[i]);
	}
	if (missing[0])
		return add(k, "programs", KERNEL_MISSING,
			   "ssid cannot start, or not do all of its work; install LinuxSSI again, or "
			   "set [paths] libexec in ssid.conf",
			   "not in %s:%s", directory, missing);
	(void)snprintf(path, sizeof(path), "%s/ssi-shadow", directory);
	rooted = stat(path, &st) == 0 && st.st_uid == 0 && st.st_mode & S_ISUID;
	add(k, "programs", rooted ? KERNEL_OK : KERNEL_WARN,
	    "processes that left cannot come home in place; chown root ssi-shadow, chmod u+s it",
	    "%s%s", directory, rooted ? "" : ", ssi-shadow is not set-uid root");
}

static void look_at_membership(struct kernel *k, const char *directory)
{
	char path[4096];
	bool present;

	(void)snprintf(path, sizeof(path), "%s/identity", directory);
	present = access(path, F_OK) == 0;
	add(k, "membership", present ? KERNEL_OK : KERNEL_WARN,
	    "ssi-admin init founds a cluster, ssi-admin join joins one", "%s",
	    present ? "this node belongs to a cluster" : "this node belongs to no cluster");
}

static void look_at_checkpoints(struct kernel *k, const char *directory)
{
	struct stat st;

	if (stat(directory, &st) < 0 && errno != ENOENT)
		return add(k, "checkpoints", KERNEL_WARN,
			   "nothing can be saved there; see [paths] checkpoints in ssid.conf", "%s: %m",
			   directory);
	add(k, "checkpoints", KERNEL_OK, "", "%s%s", directory,
	    access(directory, F_OK) < 0 ? ", made at the first" : "");
}

/* CRIU. */

/* Words that only the patched program holds; daemon/checkpoint/criu.c goes by the same. */
static const struct {
	const char *name, *word;
	enum kernel_state without;
	const char *remedy;
} patches[] = {
	{ "criu streams", "Streaming is for dump and restore only", KERNEL_WARN,
	  "what is moved or saved needs room for its images in memory here first, and takes longer; "
	  "setup/criu builds a criu that streams them" },
	{ "criu leaves pages", "Pages can be left in tasks that live on", KERNEL_WARN,
	  "memory is copied into images on both nodes when a process is moved, and takes longer; "
	  "setup/criu builds a criu that leaves it where it is" },
	{ "criu restore in place", "in_place_fallback_fd", KERNEL_MISSING,
	  "processes whose parent stayed cannot come back to it; setup/criu builds a criu that can "
	  "restore them" },
	{ "criu users' processes", "Can't parse /proc/%d/limits", KERNEL_MISSING,
	  "only root's processes can be moved or saved; setup/criu builds a criu that needs no "
	  "CAP_SYS_RESOURCE for others, or give that to ssid" },
};

/* What root can have here, ssid has. */
static bool may_set_limits(void)
{
	unsigned long long bounding = 0;
	FILE *f = fopen("/proc/self/status", "re");
	char line[LINE_MAX_BYTES];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "CapBnd: %llx", &bounding) == 1)
			break;
	if (f)
		(void)fclose(f);
	return bounding >> CAP_SYS_RESOURCE & 1;
}

static void look_for_patch(struct kernel *k, size_t i, const char *program, size_t size)
{
	const char *name = patches[i].name, *remedy = patches[i].remedy;

	if (memmem(program, size, patches[i].word, strlen(patches[i].word)))
		add(k, name, KERNEL_OK, "", "patch is in");
	else if (memmem(program, size < 2 ? size : 2, "#!", 2))
		add(k, name, KERNEL_WARN,
		    "set [paths] criu in ssid.conf to the program itself, or see the log of ssid",
		    "a script, what it runs is not looked into");
	else if (strcmp(name, "criu users' processes") == 0 && may_set_limits())
		add(k, name, KERNEL_OK, "", "by CAP_SYS_RESOURCE");
	else
		add(k, name, patches[i].without, remedy, "an unpatched criu");
}

static void look_for_patches(struct kernel *k, const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	void *p;

	if (fd < 0 || fstat(fd, &st) < 0 || st.st_size <= 0)
		return;
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		return;
	for (size_t i = 0; i < N_ELEMENTS(patches); i++)
		look_for_patch(k, i, p, (size_t)st.st_size);
	(void)munmap(p, (size_t)st.st_size);
}

/* Words for an end that is no plain exit. */
static const char *end_of(int status, const char *line)
{
	if (status == PROGRAM_ABSENT)
		return strerror(errno);
	if (status == PROGRAM_TIMEOUT)
		return "does not end";
	return line[0] ? line : "says nothing";
}

static void look_at_criu(struct kernel *k, const char *path)
{
	char line[LINE_MAX_BYTES];
	int status = program_ask((const char *const[]){ path, "--version", NULL }, CRIU_MS, line,
				 sizeof(line));

	if (status != 0)
		return add(k, "criu", KERNEL_MISSING,
			   "nothing can be moved or saved; run setup/setup, or set [paths] criu in "
			   "ssid.conf",
			   "%s: %s", path, end_of(status, line));
	/* Of a build from git the last line is "GitID: ...". */
	add(k, "criu", KERNEL_OK, "", "%s, %s", line, path);
	if (geteuid() != 0) {
		add(k, "criu check", KERNEL_MISSING, "", "needs root");
	} else {
		status = program_ask((const char *const[]){ path, "check", NULL }, CRIU_MS, line,
				     sizeof(line));
		add(k, "criu check", status == 0 ? KERNEL_OK : KERNEL_MISSING,
		    "nothing can be moved or saved; 'criu check' tells more", "%s",
		    end_of(status, line));
	}
	look_for_patches(k, path);
}

/* ssid. */

static int ask_ssid(void *options)
{
	struct session_options o = *(struct session_options *)options;
	Ssi__Control__StatusRequest body = SSI__CONTROL__STATUS_REQUEST__INIT;
	Ssi__Control__Request q = SSI__CONTROL__REQUEST__INIT;
	Ssi__Control__Event *event;
	struct session *s;

	o.timeout_ms = SSID_MS;
	o.quiet = true;
	q.body_case = SSI__CONTROL__REQUEST__BODY_STATUS;
	q.status = &body;
	s = session_open(&o);
	event = session_call(s, &q);
	if (event->body_case != SSI__CONTROL__EVENT__BODY_STATUS)
		session_exit(EXIT_FAILED, "ssid answered something else");
	printf("%s as node %s, %u of %u nodes up\n",
	       event->status->lease_held ? "in touch" : "out of touch", event->status->node,
	       event->status->nodes_up, event->status->nodes);
	return event->status->lease_held ? EXIT_OK : EXIT_CONFLICT;
}

static void look_at_ssid(struct kernel *k, const struct session_options *o)
{
	char line[LINE_MAX_BYTES];
	int status = program_ask_function(ask_ssid, (void *)o, SSID_MS + 1000, line, sizeof(line));
	const char *text = end_of(status, line), *remedy = "see the log of ssid";

	if (status == EXIT_DOWN) {
		text = "not running";
		remedy = "systemctl start ssid";
	} else if (status == EXIT_CONFLICT) {
		remedy = "is the network up, and more than half of the voters (see ssi-nodes on another node)?";
	} else if (strncmp(text, "ssi: ", 5) == 0) {
		text += 5;
	}
	add(k, "ssid", status == 0 ? KERNEL_OK : KERNEL_WARN, remedy, "%s", text);
}

/* All of them. */

static void look_at_installation(struct kernel *k, const char *config_path)
{
	struct config c;

	log_set_level(LOG_LEVEL_WARNING);
	log_set_prefix(false);
	if (config_load(&c, config_path) < 0)
		return add(k, "configuration", KERNEL_MISSING,
			   "ssid does not start; ssid --dump-config says where the fault is",
			   "%s cannot be used", config_path);
	add(k, "configuration", KERNEL_OK, "", "%s%s", config_path,
	    access(config_path, F_OK) < 0 ? " is absent, all is as preset" : "");
	look_at_programs(k, c.libexec_dir);
	look_at_criu(k, c.criu);
	look_at_membership(k, c.state_dir);
	look_at_checkpoints(k, c.checkpoint_dir);
	config_fini(&c);
}

static struct kernel_row as_seen(const struct kernel_row *row)
{
	struct kernel_row seen = *row;

	if (row->state == KERNEL_OK || geteuid() == 0 ||
	    !is_one_of(row->name, for_root, N_ELEMENTS(for_root)))
		return seen;
	seen.state = KERNEL_WARN;
	(void)snprintf(seen.detail, sizeof(seen.detail), "not known: only root can see it");
	(void)snprintf(seen.remedy, sizeof(seen.remedy), "run ssi doctor as root");
	return seen;
}

static struct libscols_table *table_new(const struct session_options *o)
{
	static const struct session_column columns[] = {
		{ "CHECK", 0, 0, SCOLS_JSON_STRING },  { "STATE", 0, 0, SCOLS_JSON_STRING },
		{ "DETAIL", 0, 0, SCOLS_JSON_STRING }, { "NEEDED", 0, 0, SCOLS_JSON_BOOLEAN },
		{ "REMEDY", 0, 0, SCOLS_JSON_STRING },
	};

	/* For people the remedies are lines of their own. */
	return session_table(o, "checks", columns, o->json ? 5 : 3);
}

static void show(const struct session_options *o, struct libscols_table *t,
		 const struct kernel_row *row, bool needed)
{
	static const char *const states[] = { [KERNEL_OK] = "ok", [KERNEL_WARN] = "warn",
					      [KERNEL_MISSING] = "missing" };
	struct libscols_line *l;

	if (o->quiet && row->state == KERNEL_OK)
		return;
	l = session_line(t);
	session_cell(l, 0, "%s", row->name);
	session_cell(l, 1, "%s", states[row->state]);
	session_cell(l, 2, "%s", row->detail);
	if (!o->json)
		return;
	session_cell(l, 3, "%d", needed);
	session_cell(l, 4, "%s", row->remedy);
}

static int print(const struct session_options *o, const struct kernel *k)
{
	struct libscols_table *t = table_new(o);
	const struct kernel_row *rows;
	unsigned n_missing = 0;
	size_t n;

	rows = kernel_rows(k, &n);
	for (size_t i = 0; i < n; i++) {
		struct kernel_row row = as_seen(&rows[i]);
		bool needed = !is_one_of(row.name, optional, N_ELEMENTS(optional));

		n_missing += needed && row.state == KERNEL_MISSING;
		show(o, t, &row, needed);
	}
	session_print(t);
	for (size_t i = 0; i < n && !o->json; i++) {
		struct kernel_row row = as_seen(&rows[i]);

		if (row.state != KERNEL_OK)
			printf("%s: %s\n", row.name, row.remedy);
	}
	return n_missing ? EXIT_UNSUPPORTED : EXIT_OK;
}

int doctor(const struct session_options *o, const char *config_path)
{
	_cleanup_(kernel_freep) struct kernel *k = NULL;

	if (kernel_new(&k) < 0)
		session_exit(EXIT_FAILED, "out of memory");
	look_at_installation(k, config_path);
	look_at_ssid(k, o);
	return print(o, k);
}
