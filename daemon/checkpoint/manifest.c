#include "manifest_internal.h"

#include "err.h"
#include "image.h"
#include "inventory_internal.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

/*
 *	ssi-checkpoint 1
 *	[checkpoint]
 *	name=65537-1
 *	...
 *	[images]
 *	SUM SIZE NAME
 *	[inventory]
 *	ssi-inventory 1
 *	...
 *	[seal]
 *	hmac-sha256=64 digits
 *
 * Happy path of parsing: the first line tells the version; then the seal, over
 * every byte before its value, before anything else is looked at; then the fields in
 * their order, each once.  A field that is NULL in memory has no line.
 *
 * Failure modes: MANIFEST_E_SEAL for whatever was changed, MANIFEST_E_FORMAT for what
 * is none, or for a sealed text with a meaning that this version does not know.
 */

static const char head[] = "ssi-checkpoint 1\n";
static const char magic[] = "ssi-checkpoint ";
static const char seal_head[] = "[seal]\nhmac-sha256=";

enum { SEAL_LINE = 2 * MANIFEST_SEAL_SIZE + 1 };

enum kind { PID, ID, NUMBER, WORD, TEXT };

static const struct field {
	const char *key;
	enum kind kind;
	size_t offset;
	size_t room; /* of a WORD: letters, digits and ._- only, one at least */
} fields[] = {
	{"name", WORD, offsetof(struct manifest, name),
	 sizeof(((struct manifest *)0)->name)},
	{"app", PID, offsetof(struct manifest, app)},
	{"root", PID, offsetof(struct manifest, root)},
	{"uid", ID, offsetof(struct manifest, uid)},
	{"gid", ID, offsetof(struct manifest, gid)},
	{"node", WORD, offsetof(struct manifest, node),
	 sizeof(((struct manifest *)0)->node)},
	{"taken", NUMBER, offsetof(struct manifest, taken)},
	{"kernel", WORD, offsetof(struct manifest, kernel),
	 sizeof(((struct manifest *)0)->kernel)},
	{"cpu_flags", TEXT, offsetof(struct manifest, cpu_flags)},
	{"command", TEXT, offsetof(struct manifest, command)},
	{"app_name", TEXT, offsetof(struct manifest, app_name)},
	{"description", TEXT, offsetof(struct manifest, description)},
	{"stdio", TEXT, offsetof(struct manifest, stdio)},
	{"bytes", NUMBER, offsetof(struct manifest, bytes)},
};

struct manifest *manifest_free(struct manifest *m)
{
	if (!m)
		return NULL;
	free(m->cpu_flags);
	free(m->command);
	free(m->app_name);
	free(m->description);
	free(m->stdio);
	(void)inventory_free(m->inventory);
	free(m->images);
	free(m);
	return NULL;
}

static bool is_word(const char *text, size_t len)
{
	for (size_t k = 0; k < len; k++)
		if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
			    "0123456789._+~-",
			    text[k]) ||
		    !text[k])
			return false;
	return len;
}

static int format_field(struct buf *b, const struct manifest *m, const struct field *f)
{
	const char *at = (const char *)m + f->offset, *text = at;
	int r;

	switch (f->kind) {
	case PID:
		return inventory_printf(b, "%s=%d\n", f->key, *(const pid_t *)at);
	case ID:
		return inventory_printf(b, "%s=%u\n", f->key, *(const uid_t *)at);
	case NUMBER:
		return inventory_printf(b, "%s=%ju\n", f->key,
					(uintmax_t) * (const uint64_t *)at);
	case WORD:
		if (!is_word(at, strnlen(at, f->room)) ||
		    strnlen(at, f->room) == f->room)
			return err_origin(-EINVAL);
		break;
	case TEXT:
		text = *(char *const *)at;
		if (!text)
			return 0;
		if (strlen(text) > MANIFEST_FIELD_MAX)
			return err_origin(-E2BIG);
		break;
	}
	r = inventory_printf(b, "%s=", f->key);
	if (r == 0)
		r = inventory_escape(b, text);
	return r < 0 ? r : buf_append(b, "\n", 1);
}

static int format_images(struct buf *b, const struct manifest *m)
{
	int r = inventory_printf(b, "[images]\n");

	for (size_t k = 0; k < m->n_images && r == 0; k++) {
		const struct manifest_image *i = &m->images[k];

		if (!image_name_ok(i->name) || (k && strcmp(i[-1].name, i->name) >= 0))
			return err_origin(-EINVAL);
		r = inventory_printf(b, "%s %ju %s\n", i->checksum, (uintmax_t)i->size,
				     i->name);
	}
	return r;
}

static int format_seal(struct buf *b, const uint8_t key[static 32])
{
	uint8_t seal[MANIFEST_SEAL_SIZE];
	int r = inventory_printf(b, "%s", seal_head);

	if (r == 0)
		r = manifest_seal(key, b->data, b->len, seal);
	for (size_t k = 0; k < sizeof(seal) && r == 0; k++)
		r = inventory_printf(b, "%02x", seal[k]);
	return r < 0 ? r : inventory_printf(b, "\n");
}

int manifest_format(const struct manifest *m, const uint8_t key[static 32], char **ret,
		    size_t *ret_len)
{
	_cleanup_buf_ struct buf b = {0};
	_cleanup_free_ char *inventory = NULL;
	size_t len = 0;
	int r;

	if (!m->inventory || m->n_images > IMAGE_FILES_MAX)
		return err_origin(-EINVAL);
	r = inventory_format(m->inventory, &inventory, &len);
	if (r == 0)
		r = inventory_printf(&b, "%s[checkpoint]\n", head);
	for (size_t k = 0; k < N_ELEMENTS(fields) && r == 0; k++)
		r = format_field(&b, m, &fields[k]);
	if (r == 0)
		r = format_images(&b, m);
	if (r == 0)
		r = inventory_printf(&b, "[inventory]\n%s", inventory);
	if (r == 0)
		r = format_seal(&b, key);
	if (r < 0)
		return r;
	if (b.len > MANIFEST_TEXT_MAX)
		return err_origin(-E2BIG);
	*ret_len = b.len;
	*ret = (char *)TAKE(b.data);
	return 0;
}

static int hex_value(char c)
{
	return c >= '0' && c <= '9'   ? c - '0'
	       : c >= 'a' && c <= 'f' ? c - 'a' + 10
				      : -1;
}

static bool sealed(const char *text, size_t len, const uint8_t key[static 32])
{
	const char *value = text + len - SEAL_LINE;
	uint8_t is[MANIFEST_SEAL_SIZE], should[MANIFEST_SEAL_SIZE];

	if (text[len - 1] != '\n' ||
	    memcmp(value - strlen(seal_head), seal_head, strlen(seal_head)) != 0)
		return false;
	for (size_t k = 0; k < sizeof(is); k++) {
		int high = hex_value(value[2 * k]), low = hex_value(value[2 * k + 1]);

		if (high < 0 || low < 0)
			return false;
		is[k] = (uint8_t)(high << 4 | low);
	}
	return manifest_seal(key, text, len - SEAL_LINE, should) == 0 &&
	       manifest_seal_equal(is, should);
}

/* The lines between head and seal. */
struct reader {
	const char *at, *end;
};

/* The next line without its end, or NULL. */
static const char *next_line(struct reader *in, size_t *ret_len)
{
	const char *line = in->at;
	const char *end = in->at < in->end
				  ? memchr(in->at, '\n', (size_t)(in->end - in->at))
				  : NULL;

	if (!end)
		return NULL;
	*ret_len = (size_t)(end - line);
	in->at = end + 1;
	return line;
}

static bool expect(struct reader *in, const char *want)
{
	size_t len;
	const char *line = next_line(in, &len);

	return line && len == strlen(want) && !memcmp(line, want, len);
}

static bool parse_number(const char *text, size_t len, uint64_t max, uint64_t *ret)
{
	uint64_t v = 0;

	if (!len || (len > 1 && text[0] == '0'))
		return false;
	for (size_t k = 0; k < len; k++) {
		uint64_t digit = (uint64_t)(text[k] - '0');

		if (text[k] < '0' || text[k] > '9' || digit > max ||
		    v > (max - digit) / 10)
			return false;
		v = v * 10 + digit;
	}
	*ret = v;
	return true;
}

static int parse_value(struct manifest *m, const struct field *f, const char *text,
		       size_t len)
{
	char *at = (char *)m + f->offset;
	uint64_t v = 0;

	switch (f->kind) {
	case PID:
		if (!parse_number(text, len, INT_MAX, &v))
			return -EBADMSG;
		*(pid_t *)at = (pid_t)v;
		return 0;
	case ID:
		if (!parse_number(text, len, UINT32_MAX, &v))
			return -EBADMSG;
		*(uid_t *)at = (uid_t)v;
		return 0;
	case NUMBER:
		return parse_number(text, len, UINT64_MAX, (uint64_t *)at) ? 0
									   : -EBADMSG;
	case WORD:
		if (len >= f->room || !is_word(text, len))
			return -EBADMSG;
		memcpy(at, text, len);
		return 0;
	case TEXT:
		break;
	}
	if (len > 4 * (size_t)MANIFEST_FIELD_MAX)
		return -EBADMSG;
	return inventory_unescape(text, len, (char **)at);
}

static int parse_fields(struct manifest *m, struct reader *in)
{
	if (!expect(in, "[checkpoint]"))
		return -EBADMSG;
	for (size_t k = 0; k < N_ELEMENTS(fields); k++) {
		struct reader before = *in;
		size_t len, key = strlen(fields[k].key);
		const char *line = next_line(in, &len);
		int r;

		if (!line || len <= key || memcmp(line, fields[k].key, key) != 0 ||
		    line[key] != '=') {
			if (fields[k].kind != TEXT)
				return -EBADMSG;
			*in = before;
			continue;
		}
		r = parse_value(m, &fields[k], line + key + 1, len - key - 1);
		if (r < 0)
			return r;
	}
	return expect(in, "[images]") ? 0 : -EBADMSG;
}

/* "SUM SIZE NAME" */
static int parse_image(struct manifest_image *i, const char *line, size_t len)
{
	const char *size = line + 65, *blank, *name;

	if (len < 65 + 3 || line[64] != ' ')
		return -EBADMSG;
	for (size_t k = 0; k < 64; k++)
		if (hex_value(line[k]) < 0)
			return -EBADMSG;
	blank = memchr(size, ' ', len - 65);
	if (!blank || !parse_number(size, (size_t)(blank - size), INT64_MAX, &i->size))
		return -EBADMSG;
	name = blank + 1;
	len -= (size_t)(name - line);
	if (len >= sizeof(i->name) || memchr(name, '\0', len))
		return -EBADMSG;
	memcpy(i->name, name, len);
	memcpy(i->checksum, line, 64);
	return image_name_ok(i->name) ? 0 : -EBADMSG;
}

static int parse_images(struct manifest *m, struct reader *in)
{
	size_t len, n = 0;
	const char *line, *p = in->at;
	int r = 0;

	while (p < in->end && *p != '[' && n <= IMAGE_FILES_MAX) {
		p = memchr(p, '\n', (size_t)(in->end - p));
		if (!p)
			return -EBADMSG;
		p++;
		n++;
	}
	if (n > IMAGE_FILES_MAX)
		return -EBADMSG;
	m->images = calloc(n + 1, sizeof(*m->images));
	if (!m->images)
		return err_origin(-ENOMEM);
	for (; m->n_images < n && r == 0; m->n_images++) {
		struct manifest_image *i = &m->images[m->n_images];

		line = next_line(in, &len);
		r = line ? parse_image(i, line, len) : -EBADMSG;
		if (r == 0 && m->n_images && strcmp(i[-1].name, i->name) >= 0)
			r = -EBADMSG;
	}
	return r == 0 && !expect(in, "[inventory]") ? -EBADMSG : r;
}

static int parse_body(struct manifest **ret, struct reader *in)
{
	_cleanup_(manifest_freep) struct manifest *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return err_origin(-ENOMEM);
	r = parse_fields(m, in);
	if (r == 0)
		r = parse_images(m, in);
	if (r == 0)
		r = inventory_parse(&m->inventory, in->at, (size_t)(in->end - in->at));
	if (r == 0)
		*ret = TAKE(m);
	return r;
}

int manifest_parse(struct manifest **ret, const char *text, size_t len,
		   const uint8_t key[static 32], const char **ret_text)
{
	size_t tail = strlen(seal_head) + SEAL_LINE;
	struct reader in;
	int r;

	if (len < strlen(head) || memcmp(text, magic, strlen(magic)) != 0) {
		*ret_text = "not a checkpoint's manifest";
		return MANIFEST_E_FORMAT;
	}
	if (memcmp(text, head, strlen(head)) != 0) {
		*ret_text = "made by another version of LinuxSSI, or damaged";
		return MANIFEST_E_FORMAT;
	}
	if (len > MANIFEST_TEXT_MAX) {
		*ret_text = "too long for a manifest";
		return MANIFEST_E_FORMAT;
	}
	if (len < strlen(head) + tail || !sealed(text, len, key)) {
		*ret_text = "not sealed by this cluster, or changed since";
		return MANIFEST_E_SEAL;
	}
	in.at = text + strlen(head);
	in.end = text + len - tail;
	r = parse_body(ret, &in);
	if (r == -ENOMEM)
		return r;
	if (r < 0) {
		*ret_text = "sealed, but not understood by this version";
		return MANIFEST_E_FORMAT;
	}
	return 0;
}
