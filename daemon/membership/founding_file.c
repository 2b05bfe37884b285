/* See founding_file.h; reading is by libinih, with every value checked. */
#include "founding_file.h"

#include "cleanup.h"
#include "err.h"
#include "founding.h"
#include "membership_map.h"

#include <fcntl.h>
#include <ini.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char FIRST_TOKEN[] = "first-token";

static int write_all(int fd, const char *text)
{
	for (size_t left = strlen(text); left;) {
		ssize_t n = write(fd, text, left);

		if (n < 0 && errno != EINTR)
			return err_origin(-errno);
		if (n > 0) {
			text += n;
			left -= n;
		}
	}
	return fsync(fd) ? err_origin(-errno) : 0;
}

int founding_file_write(const char *dir, const char *name, const char *text, mode_t mode)
{
	_cleanup_close_ int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_close_ int fd = -1;
	char temporary[64];
	int r;

	if (dir_fd < 0)
		return err_origin(-errno);
	(void)snprintf(temporary, sizeof(temporary), ".%s.new", name);
	/* Never into a file that was there: it may be somebody else's, or readable. */
	if (unlinkat(dir_fd, temporary, 0) && errno != ENOENT)
		return err_origin(-errno);
	fd = openat(dir_fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	if (fd < 0)
		return err_origin(-errno);
	r = write_all(fd, text);
	if (!r && renameat(dir_fd, temporary, dir_fd, name))
		r = err_origin(-errno);
	if (!r && fsync(dir_fd))
		r = err_origin(-errno);
	if (r)
		(void)unlinkat(dir_fd, temporary, 0);
	return r;
}

int founding_file_write_token(const char *dir, const uint8_t hash[static 32], nsec_t expires)
{
	char text[160];
	int n = snprintf(text, sizeof(text), "[token]\nexpires = %" PRIu64 "\nhash = ",
			 expires);

	for (size_t i = 0; i < 32; i++)
		n += snprintf(text + n, sizeof(text) - n, "%02x", hash[i]);
	(void)snprintf(text + n, sizeof(text) - n, "\n");
	return founding_file_write(dir, FIRST_TOKEN, text, 0600);
}

static bool read_number(const char *text, uint64_t max, uint64_t *ret)
{
	char *end;

	errno = 0;
	*ret = strtoull(text, &end, 10);
	return text[0] >= '0' && text[0] <= '9' && !*end && !errno && *ret <= max;
}

static bool read_hex(const char *text, uint8_t *ret, size_t len)
{
	int end;

	if (strlen(text) != 2 * len)
		return false;
	for (size_t i = 0; i < len; i++)
		if (sscanf(text + 2 * i, "%2hhx%n", &ret[i], &end) != 1 || end != 2)
			return false;
	return true;
}

static bool read_text(const char *text, char *ret, size_t size)
{
	if (strlen(text) >= size)
		return false;
	strcpy(ret, text);
	return true;
}

/* libinih: 1 goes on, 0 is a line in error. */
static int on_identity_line(void *owner, const char *section, const char *name,
			    const char *value)
{
	struct founding_identity *id = owner;
	uint64_t n;

	if (strcmp(section, "node") != 0)
		return 0;
	if (!strcmp(name, "cluster"))
		return read_text(value, id->cluster, sizeof(id->cluster));
	if (!strcmp(name, "name"))
		return read_text(value, id->name, sizeof(id->name));
	if (!strcmp(name, "address"))
		return read_text(value, id->address, sizeof(id->address));
	if (!strcmp(name, "leader_address"))
		return read_text(value, id->leader_address, sizeof(id->leader_address));
	if (!strcmp(name, "seal_key"))
		return read_hex(value, id->seal_key, sizeof(id->seal_key));
	if (!read_number(value, UINT32_MAX, &n))
		return 0;
	if (!strcmp(name, "id"))
		id->self = (node_id)n;
	else if (!strcmp(name, "leader"))
		id->leader = (node_id)n;
	else if (!strcmp(name, "witness"))
		id->witness = n != 0;
	else
		return 0;
	return 1;
}

/* 0, FOUNDING_E_ABSENT, -EINVAL for a file that is not one. */
static int parse(const char *dir, const char *name, ini_handler handler, void *owner)
{
	_cleanup_free_ char *path = NULL;
	int r;

	if (asprintf(&path, "%s/%s", dir, name) < 0)
		return err_origin(-ENOMEM);
	if (access(path, F_OK))
		return errno == ENOENT ? FOUNDING_E_ABSENT : err_origin(-errno);
	r = ini_parse(path, handler, owner);
	if (r == -1)
		return err_origin(-EACCES);
	return r ? err_origin(-EINVAL) : 0;
}

int founding_load(const char *state_dir, struct founding_identity *ret)
{
	struct founding_identity id = { 0 };
	int r;

	r = parse(state_dir, "identity", on_identity_line, &id);
	if (r)
		return r;
	if (!id.cluster[0] || !id.self || !id.leader || !membership_name_is_valid(id.name) ||
	    !membership_address_is_valid(id.address) ||
	    !membership_address_is_valid(id.leader_address))
		return err_origin(-EINVAL);
	*ret = id;
	return 0;
}

struct token_file {
	uint8_t hash[32];
	uint64_t expires;
	bool has_hash, has_expires;
};

static int on_token_line(void *owner, const char *section, const char *name, const char *value)
{
	struct token_file *t = owner;

	if (!strcmp(name, "expires"))
		return t->has_expires = read_number(value, UINT64_MAX, &t->expires);
	if (strcmp(name, "hash") != 0)
		return 0;
	return t->has_hash = read_hex(value, t->hash, sizeof(t->hash));
}

int founding_first_token(const char *state_dir, uint8_t ret_hash[static 32],
			 nsec_t *ret_expires)
{
	struct token_file t = { 0 };
	int r;

	r = parse(state_dir, FIRST_TOKEN, on_token_line, &t);
	if (r)
		return r;
	if (!t.has_hash || !t.has_expires)
		return err_origin(-EINVAL);
	memcpy(ret_hash, t.hash, sizeof(t.hash));
	*ret_expires = t.expires;
	return 0;
}

void founding_first_token_taken(const char *state_dir)
{
	_cleanup_free_ char *path = NULL;

	if (asprintf(&path, "%s/%s", state_dir, FIRST_TOKEN) < 0)
		path = NULL;
	/* If it stays, it is taken again at the next start, and changes nothing. */
	if (path)
		(void)unlink(path);
}
