#include "inventory_internal.h"

#include "err.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

/*
 *	ssi-inventory 1
 *	fs NAME
 *	task PID PPID PGID SID UID GID THREADS MARKS TRACER RSS COMM
 *	capabilities P,E,IP,IE
 *	file PID FD TYPE MARKS FS DEVICE RDEV INODE LINKS BORN UID GID MODE SIZE FLAGS
 *BUILDID PATH
 *
 * Numbers are decimal, in the one way they can be written; names come last, with
 * control characters and backslashes as \xHH.  So a text that parses is the very text
 *that formatting gives again.
 *
 * Capabilities are those of the task before, if they are not those that ssi-run begins with.
 *
 * The text may come from a peer or a file: every number has a range, every index is
 * checked, a task follows its parent, nothing comes twice.
 */

static const char head[] = "ssi-inventory 1\n";

enum { TASK_NO_NEW_PRIVS = 1, TASK_SECCOMP = 2, FILE_DELETED = 1, FILE_LOCKED = 2 };
enum { COMM_MAX = 16 };

int inventory_escape(struct buf *b, const char *text)
{
	int r = 0;

	for (; *text && r == 0; text++) {
		unsigned char c = (unsigned char)*text;

		if (c < 0x20 || c == 0x7f || c == '\\')
			r = inventory_printf(b, "\\x%02x", c);
		else
			r = buf_append(b, &c, 1);
	}
	return r;
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9'   ? c - '0'
	       : c >= 'a' && c <= 'f' ? c - 'a' + 10
				      : -1;
}

int inventory_unescape(const char *text, size_t len, char **ret)
{
	_cleanup_free_ char *to = malloc(len + 1);
	size_t n = 0;

	if (!to)
		return err_origin(-ENOMEM);
	for (size_t k = 0; k < len; k++) {
		unsigned char c = (unsigned char)text[k];

		if (c < 0x20 || c == 0x7f)
			return -EBADMSG;
		if (c == '\\') {
			int high, low;

			if (len - k < 4 || text[k + 1] != 'x')
				return -EBADMSG;
			high = hex_digit(text[k + 2]);
			low = hex_digit(text[k + 3]);
			if (high < 0 || low < 0)
				return -EBADMSG;
			c = (unsigned char)(high << 4 | low);
			if (!c || (c >= 0x20 && c != 0x7f && c != '\\'))
				return -EBADMSG;
			k += 3;
		}
		to[n++] = (char)c;
	}
	to[n] = '\0';
	*ret = TAKE(to);
	return 0;
}

static int format_capabilities(struct buf *b, const struct capability_sets *s)
{
	struct capability_sets initial = capability_initial(false);
	char text[CAPABILITY_TEXT_MAX];

	if (capability_equal(s, &initial))
		return 0;
	capability_format(s, text);
	return inventory_printf(b, "capabilities %s\n", text);
}

static int format_task(struct buf *b, const struct inventory_task *t)
{
	unsigned marks = (t->no_new_privs ? TASK_NO_NEW_PRIVS : 0) |
			 (t->seccomp ? TASK_SECCOMP : 0);
	int r = inventory_printf(b, "task %d %d %d %d %u %u %u %u %d %ju ", t->pid,
				 t->ppid, t->pgid, t->sid, t->uid, t->gid, t->n_threads,
				 marks, t->tracer, (uintmax_t)t->rss_bytes);

	if (r == 0)
		r = inventory_escape(b, t->comm);
	if (r == 0)
		r = buf_append(b, "\n", 1);
	return r < 0 ? r : format_capabilities(b, &t->capabilities);
}

static int format_file(struct buf *b, const struct inventory_file *f)
{
	unsigned marks =
		(f->deleted ? FILE_DELETED : 0) | (f->locked ? FILE_LOCKED : 0);
	int r = inventory_printf(
		b, "file %d %d %d %u %u %ju %ju %ju %u %ju %u %u %u %ju %d %s ", f->pid,
		f->fd, f->type, marks, f->fs, (uintmax_t)f->device, (uintmax_t)f->rdev,
		(uintmax_t)f->inode, f->n_links, (uintmax_t)f->born, f->uid, f->gid,
		f->mode, (uintmax_t)f->size, f->flags,
		f->build_id[0] ? f->build_id : "-");

	if (r == 0)
		r = inventory_escape(b, f->path);
	return r < 0 ? r : buf_append(b, "\n", 1);
}

int inventory_format(const struct inventory *i, char **ret, size_t *ret_len)
{
	_cleanup_buf_ struct buf b = {0};
	int r = inventory_printf(&b, "%s", head);

	for (size_t k = 0; k < i->n_file_systems && r == 0; k++) {
		r = inventory_printf(&b, "fs ");
		if (r == 0)
			r = inventory_escape(&b, i->file_systems[k]);
		if (r == 0)
			r = buf_append(&b, "\n", 1);
	}
	for (size_t k = 0; k < i->n_tasks && r == 0; k++)
		r = format_task(&b, &i->tasks[k]);
	for (size_t k = 0; k < i->n_files && r == 0; k++)
		r = format_file(&b, &i->files[k]);
	if (r == 0)
		r = buf_append(&b, "", 1);
	if (r < 0)
		return r;
	if (b.len - 1 > INVENTORY_TEXT_MAX)
		return err_origin(-E2BIG);
	*ret_len = b.len - 1;
	*ret = (char *)TAKE(b.data);
	return 0;
}

/* A line on its way through the fields; the first failure sticks. */
struct cursor {
	const char *at, *end;
	bool bad;
};

/* A number and the blank behind it. */
static uint64_t take_number(struct cursor *c, uint64_t max)
{
	const char *p = c->at;
	uint64_t v = 0;

	while (!c->bad && p < c->end && *p >= '0' && *p <= '9') {
		unsigned digit = (unsigned)(*p++ - '0');

		if (v > (max - digit) / 10 || digit > max)
			c->bad = true;
		v = v * 10 + digit;
	}
	if (p == c->at || p >= c->end || *p != ' ' || (*c->at == '0' && p - c->at > 1))
		c->bad = true;
	if (c->bad)
		return 0;
	c->at = p + 1;
	return v;
}

static int64_t take_signed(struct cursor *c, int64_t min, int64_t max)
{
	if (!c->bad && c->at < c->end && *c->at == '-') {
		int64_t v;

		c->at++;
		v = (int64_t)take_number(c, (uint64_t)-min);
		if (!v)
			c->bad = true;
		return -v;
	}
	return (int64_t)take_number(c, (uint64_t)max);
}

static pid_t take_pid(struct cursor *c, pid_t min)
{
	pid_t pid = (pid_t)take_number(c, INT_MAX);

	if (pid < min)
		c->bad = true;
	return pid;
}

static void take_build_id(struct cursor *c, char ret[static 41])
{
	size_t n = 0;

	if (c->bad)
		return;
	if (c->end - c->at >= 2 && !memcmp(c->at, "- ", 2)) {
		c->at += 2;
		return;
	}
	while (c->at < c->end && n < 40 && hex_digit(*c->at) >= 0)
		ret[n++] = *c->at++;
	ret[n] = '\0';
	if (!n || n % 2 || c->at >= c->end || *c->at++ != ' ')
		c->bad = true;
}

static int take_name(struct cursor *c, size_t max, char **ret)
{
	if (c->bad || (size_t)(c->end - c->at) > 4 * max)
		return -EBADMSG;
	return inventory_unescape(c->at, (size_t)(c->end - c->at), ret);
}

static int parse_task(struct inventory *i, struct cursor *c)
{
	_cleanup_free_ char *comm = NULL;
	struct inventory_task t = {.capabilities = capability_initial(false)};
	unsigned marks;
	int r;

	t.pid = take_pid(c, 1);
	t.ppid = take_pid(c, 0);
	t.pgid = take_pid(c, 0);
	t.sid = take_pid(c, 0);
	t.uid = (uid_t)take_number(c, UINT32_MAX);
	t.gid = (gid_t)take_number(c, UINT32_MAX);
	t.n_threads = (unsigned)take_number(c, UINT32_MAX);
	marks = (unsigned)take_number(c, 3);
	t.tracer = take_pid(c, 0);
	t.rss_bytes = take_number(c, UINT64_MAX);
	t.no_new_privs = marks & TASK_NO_NEW_PRIVS;
	t.seccomp = marks & TASK_SECCOMP;
	r = take_name(c, COMM_MAX, &comm);
	if (r < 0)
		return r;
	if (strlen(comm) > COMM_MAX || i->n_files || inventory_find_task(i, t.pid) ||
	    (i->n_tasks ? !inventory_find_task(i, t.ppid) : t.ppid != 0))
		return -EBADMSG;
	(void)snprintf(t.comm, sizeof(t.comm), "%s", comm);
	return inventory_add_task(i, &t);
}

static int parse_capabilities(struct inventory *i, struct cursor *c)
{
	struct capability_sets initial = capability_initial(false), *s;
	_cleanup_free_ char *text = NULL;
	int r = take_name(c, CAPABILITY_TEXT_MAX, &text);

	if (r < 0)
		return r;
	if (!i->n_tasks || i->n_files)
		return -EBADMSG;
	s = &i->tasks[i->n_tasks - 1].capabilities;
	if (!capability_equal(s, &initial) || capability_unformat(s, text) < 0 ||
	    capability_equal(s, &initial))
		return -EBADMSG;
	return 0;
}

static int parse_file(struct inventory *i, struct cursor *c)
{
	struct inventory_file f = {0};
	unsigned marks;
	int r;

	f.pid = take_pid(c, 1);
	f.fd = (int)take_signed(c, INVENTORY_EXE, INT_MAX);
	f.type = (enum inventory_type)take_number(c, INVENTORY_ANON);
	marks = (unsigned)take_number(c, 3);
	f.deleted = marks & FILE_DELETED;
	f.locked = marks & FILE_LOCKED;
	f.fs = (unsigned)take_number(c, INVENTORY_FILE_SYSTEMS_MAX);
	f.device = take_number(c, UINT64_MAX);
	f.rdev = take_number(c, UINT64_MAX);
	f.inode = take_number(c, UINT64_MAX);
	f.n_links = (uint32_t)take_number(c, UINT32_MAX);
	f.born = take_number(c, UINT64_MAX);
	f.uid = (uid_t)take_number(c, UINT32_MAX);
	f.gid = (gid_t)take_number(c, UINT32_MAX);
	f.mode = (mode_t)take_number(c, UINT16_MAX);
	f.size = take_number(c, UINT64_MAX);
	f.flags = (int)take_number(c, INT_MAX);
	take_build_id(c, f.build_id);
	if (c->bad || f.type < INVENTORY_FILE || f.fs >= i->n_file_systems)
		return -EBADMSG;
	r = take_name(c, PATH_MAX, &f.path);
	if (r < 0)
		return r;
	if (strlen(f.path) >= PATH_MAX)
		r = -EBADMSG;
	if (r == 0)
		r = inventory_add_file(i, &f);
	if (r < 0)
		free(f.path);
	return r;
}

static int parse_fs(struct inventory *i, struct cursor *c)
{
	_cleanup_free_ char *name = NULL;
	size_t n = i->n_file_systems;
	unsigned index;
	int r = take_name(c, 2 * PATH_MAX, &name);

	if (r == 0 && i->n_tasks)
		r = -EBADMSG;
	if (r == 0)
		r = inventory_add_file_system(i, name, &index);
	/* A name that was there already came twice. */
	return r == 0 && i->n_file_systems == n ? -EBADMSG : r;
}

static int parse_line(struct inventory *i, const char *line, size_t len)
{
	static const struct {
		const char *word;
		int (*parse)(struct inventory *i, struct cursor *c);
	} kinds[] = {{"fs ", parse_fs}, {"task ", parse_task}, {"capabilities ", parse_capabilities},
		     {"file ", parse_file}};
	struct cursor c = {.end = line + len};

	for (size_t k = 0; k < N_ELEMENTS(kinds); k++) {
		size_t n = strlen(kinds[k].word);

		if (len >= n && !memcmp(line, kinds[k].word, n)) {
			c.at = line + n;
			return kinds[k].parse(i, &c);
		}
	}
	return -EBADMSG;
}

struct key {
	pid_t pid;
	int fd;
};

static int compare_keys(const void *a, const void *b)
{
	const struct key *x = a, *y = b;

	if (x->pid != y->pid)
		return x->pid < y->pid ? -1 : 1;
	return (x->fd > y->fd) - (x->fd < y->fd);
}

/* Every file is a task's, and only mappings come more than once. */
static int check_files(const struct inventory *i)
{
	_cleanup_free_ struct key *keys = calloc(i->n_files + 1, sizeof(*keys));
	const struct inventory_task *t = NULL;

	if (!keys)
		return err_origin(-ENOMEM);
	for (size_t k = 0; k < i->n_files; k++)
		keys[k] = (struct key){i->files[k].pid, i->files[k].fd};
	qsort(keys, i->n_files, sizeof(*keys), compare_keys);
	for (size_t k = 0; k < i->n_files; k++) {
		if (!t || t->pid != keys[k].pid)
			t = inventory_find_task(i, keys[k].pid);
		if (!t || (k && keys[k].fd != INVENTORY_MAPPING &&
			   !compare_keys(&keys[k - 1], &keys[k])))
			return -EBADMSG;
	}
	return 0;
}

int inventory_parse(struct inventory **ret, const char *text, size_t len)
{
	_cleanup_(inventory_freep) struct inventory *i = NULL;
	const char *end = text + len, *at = text + strlen(head), *line_end;
	int r = 0;

	if (len > INVENTORY_TEXT_MAX || len < strlen(head) ||
	    memcmp(text, head, strlen(head)) != 0)
		return err_origin(-EBADMSG);
	i = calloc(1, sizeof(*i));
	if (!i)
		return err_origin(-ENOMEM);
	for (; at < end && r == 0; at = line_end + 1) {
		line_end = memchr(at, '\n', (size_t)(end - at));
		if (!line_end)
			return err_origin(-EBADMSG);
		r = parse_line(i, at, (size_t)(line_end - at));
	}
	if (r == 0 && !i->n_tasks)
		r = -EBADMSG;
	if (r == 0)
		r = check_files(i);
	if (r < 0)
		return err_origin(r);
	*ret = TAKE(i);
	return 0;
}
