#include "config.h"

#include "cleanup.h"
#include "err.h"
#include "log.h"

#include <glob.h>
#include <ini.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

struct key {
	const char *section, *name;
	int (*parse)(const char *value, void *ret);
	void (*print)(const void *value, FILE *to);
	size_t offset;
	const char *fallback;
};

static int parse_path(const char *value, void *ret)
{
	char *copy;

	if (value[0] != '/')
		return -EINVAL;
	copy = strdup(value);
	if (!copy)
		return -ENOMEM;
	free(*(char **)ret);
	*(char **)ret = copy;
	return 0;
}

static int parse_optional_path(const char *value, void *ret)
{
	char *empty;

	if (value[0])
		return parse_path(value, ret);
	empty = strdup("");
	if (!empty)
		return -ENOMEM;
	free(*(char **)ret);
	*(char **)ret = empty;
	return 0;
}

static void print_path(const void *value, FILE *to)
{
	fputs(*(char *const *)value, to);
}

static int parse_number(const char *value, void *ret)
{
	unsigned long long n;
	char *end;

	errno = 0;
	n = strtoull(value, &end, 10);
	if (errno || end == value || *end || value[0] == '-')
		return -EINVAL;
	*(uint64_t *)ret = n;
	return 0;
}

static void print_number(const void *value, FILE *to)
{
	fprintf(to, "%" PRIu64, *(const uint64_t *)value);
}

static const char *const levels[] = {
	[LOG_LEVEL_ERROR] = "error", [LOG_LEVEL_WARNING] = "warning",
	[LOG_LEVEL_NOTICE] = "notice", [LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_DEBUG] = "debug",
};

static int parse_level(const char *value, void *ret)
{
	for (size_t i = 0; i < N_ELEMENTS(levels); i++)
		if (levels[i] && strcmp(levels[i], value) == 0) {
			*(uint64_t *)ret = i;
			return 0;
		}
	return -EINVAL;
}

static void print_level(const void *value, FILE *to)
{
	fputs(levels[*(const uint64_t *)value], to);
}

#define PATH(section_, name_, member_, fallback_)                                    \
	{ section_, name_, parse_path, print_path, offsetof(struct config, member_),  \
	  fallback_ }
#define NUMBER(section_, name_, member_, fallback_)                                  \
	{ section_, name_, parse_number, print_number,                               \
	  offsetof(struct config, member_), fallback_ }

static const struct key keys[] = {
	PATH("paths", "state", state_dir, "/var/lib/ssi"),
	PATH("paths", "runtime", runtime_dir, "/run/ssi"),
	PATH("paths", "libexec", libexec_dir, SSI_LIBEXEC_DIR),
	PATH("paths", "criu", criu, SSI_CRIU),
	PATH("paths", "checkpoints", checkpoint_dir, "/shared/checkpoints"),
	NUMBER("cluster", "lease_ms", lease_ms, "2000"),
	NUMBER("cluster", "pids_max", pids_max, "4194304"),
	{ "cluster", "fence_command", parse_optional_path, print_path,
	  offsetof(struct config, fence_command), "" },
	NUMBER("cluster", "fence_timeout_s", fence_timeout_s, "60"),
	NUMBER("limits", "image_max_mb", image_max_mb, "65536"),
	{ "log", "level", parse_level, print_level, offsetof(struct config, log_level), "info" },
};

/* One file being read. */
struct reading {
	struct config *config;
	const char *path;
	int result;
};

static int on_key(void *user, const char *section, const char *name, const char *value)
{
	struct reading *r = user;

	for (size_t i = 0; i < N_ELEMENTS(keys); i++) {
		const struct key *k = &keys[i];

		if (strcmp(k->section, section) != 0 || strcmp(k->name, name) != 0)
			continue;
		r->result = k->parse(value, (char *)r->config + k->offset);
		if (r->result < 0)
			log_error("%s: [%s] %s = %s: not possible", r->path, section, name, value);
		return r->result == 0;
	}
	log_warning("%s: [%s] %s: unknown, ignored", r->path, section, name);
	return 1;
}

static int read_file(struct config *c, const char *path)
{
	struct reading r = { .config = c, .path = path };
	int line = ini_parse(path, on_key, &r);

	if (line == -1)
		return errno == ENOENT ? 0 : err_origin(-errno);
	if (line != 0 && r.result == 0)
		log_error("%s:%d: not understood", path, line);
	return line == 0 ? 0 : err_origin(-EINVAL);
}

static int read_drop_ins(struct config *c, const char *path)
{
	_cleanup_free_ char *pattern = NULL;
	glob_t found;
	int r = 0;

	if (asprintf(&pattern, "%s.d/*.conf", path) < 0)
		return err_origin(-ENOMEM);
	if (glob(pattern, 0, NULL, &found) != 0)
		return 0;
	for (size_t i = 0; r == 0 && i < found.gl_pathc; i++)
		r = read_file(c, found.gl_pathv[i]);
	globfree(&found);
	return r;
}

int config_load(struct config *ret, const char *path)
{
	struct config c = { 0 };
	int r = 0;

	for (size_t i = 0; r == 0 && i < N_ELEMENTS(keys); i++)
		r = keys[i].parse(keys[i].fallback, (char *)&c + keys[i].offset);
	if (r == 0)
		r = read_file(&c, path);
	if (r == 0)
		r = read_drop_ins(&c, path);
	if (r < 0) {
		config_fini(&c);
		return r;
	}
	*ret = c;
	return 0;
}

void config_fini(struct config *c)
{
	for (size_t i = 0; i < N_ELEMENTS(keys); i++)
		if (keys[i].print == print_path)
			free(*(char **)((char *)c + keys[i].offset));
	*c = (struct config){ 0 };
}

void config_dump(const struct config *c, FILE *to)
{
	const char *section = "";

	for (size_t i = 0; i < N_ELEMENTS(keys); i++) {
		if (strcmp(section, keys[i].section) != 0) {
			section = keys[i].section;
			fprintf(to, "[%s]\n", section);
		}
		fprintf(to, "%s = ", keys[i].name);
		keys[i].print((const char *)c + keys[i].offset, to);
		fputc('\n', to);
	}
}
