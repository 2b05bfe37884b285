#include "capability.h"

#include "err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	ALWAYS = 1u << CAPABILITY_CHANGE_KERRIGHED_CAP | 1u << CAPABILITY_CAN_MIGRATE |
		 1u << CAPABILITY_CHECKPOINTABLE,
	SUPPORTED = ALWAYS | 1u << CAPABILITY_DISTANT_FORK,
};

static const char *const names[CAPABILITIES_N] = {
	[CAPABILITY_CHANGE_KERRIGHED_CAP] = "CHANGE_KERRIGHED_CAP",
	[CAPABILITY_CAN_MIGRATE] = "CAN_MIGRATE",
	[CAPABILITY_DISTANT_FORK] = "DISTANT_FORK",
	[CAPABILITY_FORK_DELAY] = "FORK_DELAY",
	[CAPABILITY_CHECKPOINTABLE] = "CHECKPOINTABLE",
	[CAPABILITY_USE_REMOTE_MEMORY] = "USE_REMOTE_MEMORY",
	[CAPABILITY_USE_INTRA_CLUSTER_KERSTREAMS] = "USE_INTRA_CLUSTER_KERSTREAMS",
	[CAPABILITY_USE_INTER_CLUSTER_KERSTREAMS] = "USE_INTER_CLUSTER_KERSTREAMS",
	[CAPABILITY_USE_WORLD_VISIBLE_KERSTREAMS] = "USE_WORLD_VISIBLE_KERSTREAMS",
	[CAPABILITY_SEE_LOCAL_PROC_STAT] = "SEE_LOCAL_PROC_STAT",
	[CAPABILITY_DEBUG] = "DEBUG",
	[CAPABILITY_SYSCALL_EXIT_HOOK] = "SYSCALL_EXIT_HOOK",
};

static const char *const set_names[CAPABILITY_SETS_N] = {
	[CAPABILITY_PERMITTED] = "permitted",
	[CAPABILITY_EFFECTIVE] = "effective",
	[CAPABILITY_INHERITABLE_PERMITTED] = "inheritable permitted",
	[CAPABILITY_INHERITABLE_EFFECTIVE] = "inheritable effective",
};

/* Which set must be within which. */
static const struct {
	enum capability_set inner, outer;
} within[] = {
	{CAPABILITY_EFFECTIVE, CAPABILITY_PERMITTED},
	{CAPABILITY_INHERITABLE_PERMITTED, CAPABILITY_PERMITTED},
	{CAPABILITY_INHERITABLE_EFFECTIVE, CAPABILITY_INHERITABLE_PERMITTED},
};

const char *capability_name(enum capability c)
{
	return names[c];
}

struct capability_sets capability_initial(bool spread)
{
	uint32_t all = spread ? SUPPORTED : ALWAYS;

	return (struct capability_sets){{all, all, all, all}};
}

struct capability_sets capability_inherit(const struct capability_sets *parent)
{
	struct capability_sets s = *parent;

	s.of[CAPABILITY_PERMITTED] = s.of[CAPABILITY_INHERITABLE_PERMITTED];
	s.of[CAPABILITY_EFFECTIVE] =
		s.of[CAPABILITY_INHERITABLE_EFFECTIVE] & s.of[CAPABILITY_PERMITTED];
	return s;
}

bool capability_equal(const struct capability_sets *a, const struct capability_sets *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

/* The first that is in @set, for a line about it; @set is not empty. */
static const char *first(uint32_t set)
{
	int c = __builtin_ctz(set);

	return c < CAPABILITIES_N ? names[c] : "a capability that there is not";
}

bool capability_sets_ok(const struct capability_sets *s)
{
	for (size_t i = 0; i < sizeof(within) / sizeof(within[0]); i++)
		if (s->of[within[i].inner] & ~s->of[within[i].outer])
			return false;
	return !(s->of[CAPABILITY_PERMITTED] & ~(uint32_t)SUPPORTED);
}

struct capability_change capability_no_change(void)
{
	struct capability_change c = {0};

	memset(c.keep, 0xff, sizeof(c.keep));
	return c;
}

static int parse_name(const char *word, size_t len, uint32_t *ret)
{
	static const char prefix[] = "CAP_";

	if (len > strlen(prefix) && strncmp(word, prefix, strlen(prefix)) == 0) {
		word += strlen(prefix);
		len -= strlen(prefix);
	}
	for (int c = 0; c < CAPABILITIES_N; c++)
		if (strlen(names[c]) == len && strncmp(names[c], word, len) == 0) {
			*ret |= 1u << c;
			return 0;
		}
	return CAPABILITY_E_WORDS;
}

/* NAME,NAME or octal. */
static int parse_list(const char *words, uint32_t *ret, char *ret_bad, size_t size)
{
	uint32_t set = 0;

	if (*words && strspn(words, "01234567") == strlen(words) &&
	    strlen(words) < 10) {
		*ret = (uint32_t)strtoul(words, NULL, 8);
		return 0;
	}
	for (;; words++) {
		size_t len = strcspn(words, ",");

		if (parse_name(words, len, &set) != 0) {
			(void)snprintf(ret_bad, size, "%.*s", (int)len, words);
			return CAPABILITY_E_WORDS;
		}
		words += len;
		if (!*words)
			break;
	}
	*ret = set;
	return 0;
}

int capability_parse(struct capability_change *c, enum capability_set set,
		     const char *words, char *ret_bad, size_t size)
{
	uint32_t list;
	int r = parse_list(words + (*words == '+' || *words == '-'), &list, ret_bad,
			   size);

	if (r != 0)
		return r;
	if (*words == '-') {
		c->keep[set] &= ~list;
		c->add[set] &= ~list;
	} else {
		if (*words != '+')
			c->keep[set] = c->add[set] = 0;
		c->add[set] |= list;
	}
	return 0;
}

static int check(const struct capability_sets *old, const struct capability_sets *new,
		 char *why, size_t size)
{
	uint32_t more;

	for (int set = 0; set < CAPABILITY_SETS_N; set++) {
		more = new->of[set] & ~(uint32_t)SUPPORTED;
		if (more) {
			(void)snprintf(why, size, "there is nothing behind %s here",
				       first(more));
			return CAPABILITY_E_UNSUPPORTED;
		}
	}
	if (!(old->of[CAPABILITY_EFFECTIVE] & 1u << CAPABILITY_CHANGE_KERRIGHED_CAP)) {
		(void)snprintf(why, size, "it has given up %s", first(1));
		return CAPABILITY_E_NOT_PERMITTED;
	}
	for (int set = 0; set < CAPABILITY_SETS_N; set++) {
		more = new->of[set] & ~old->of[CAPABILITY_PERMITTED];
		if (more) {
			(void)snprintf(
				why, size, "it is not permitted %s%s", first(more),
				more & 1u << CAPABILITY_DISTANT_FORK
					? ", which only ssi-run --spread begins with"
					: "");
			return CAPABILITY_E_NOT_PERMITTED;
		}
	}
	for (size_t i = 0; i < sizeof(within) / sizeof(within[0]); i++) {
		more = new->of[within[i].inner] & ~new->of[within[i].outer];
		if (more) {
			(void)snprintf(
				why, size,
				"%s would be in its %s set and not in its %s one",
				first(more), set_names[within[i].inner],
				set_names[within[i].outer]);
			return CAPABILITY_E_OUTSIDE;
		}
	}
	return 0;
}

int capability_change(struct capability_sets *s, const struct capability_change *c,
		      char *why, size_t size)
{
	struct capability_sets new;
	int r;

	for (int set = 0; set < CAPABILITY_SETS_N; set++)
		new.of[set] = (s->of[set] & c->keep[set]) | c->add[set];
	r = check(s, &new, why, size);
	if (r == 0)
		*s = new;
	return r;
}

void capability_format(const struct capability_sets *s,
		       char ret[static CAPABILITY_TEXT_MAX])
{
	(void)snprintf(ret, CAPABILITY_TEXT_MAX, "%o,%o,%o,%o", s->of[0], s->of[1],
		       s->of[2], s->of[3]);
}

int capability_unformat(struct capability_sets *ret, const char *text)
{
	char again[CAPABILITY_TEXT_MAX];
	struct capability_sets s;

	if (sscanf(text, "%o,%o,%o,%o", &s.of[0], &s.of[1], &s.of[2], &s.of[3]) != 4 ||
	    !capability_sets_ok(&s))
		return -EBADMSG;
	capability_format(&s, again);
	if (strcmp(again, text) != 0)
		return -EBADMSG;
	*ret = s;
	return 0;
}
