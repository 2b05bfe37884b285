#include "manifest_internal.h"

#include "buf.h"
#include "err.h"

#include <fcntl.h>
#include <string.h>

/*
 * Processor features: a program that chose its code by them at its start cannot
 * go on where they are missing.
 */

static int compare_words(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int add_word(struct buf *b, const char *word)
{
	int r = b->len ? buf_append(b, " ", 1) : 0;

	return r < 0 ? r : buf_append(b, word, strlen(word));
}

int manifest_cpu_flags_of(const char *cpuinfo, char **ret)
{
	static const char *const keys[] = {"\nflags\t", "\nFeatures\t"};
	_cleanup_free_ char *line = NULL;
	_cleanup_free_ char **words = NULL;
	_cleanup_buf_ struct buf b = {0};
	const char *at = NULL;
	size_t n = 0;
	char *save = NULL;
	int r = 0;

	for (size_t k = 0; k < N_ELEMENTS(keys) && !at; k++)
		at = strstr(cpuinfo, keys[k]);
	at = at ? strchr(at, ':') : NULL;
	line = at ? strndup(at + 1, strcspn(at + 1, "\n")) : strdup("");
	words = line ? calloc(strlen(line) / 2 + 2, sizeof(*words)) : NULL;
	if (!words)
		return err_origin(-ENOMEM);
	for (char *w = strtok_r(line, " \t", &save); w;
	     w = strtok_r(NULL, " \t", &save))
		words[n++] = w;
	if (n)
		qsort(words, n, sizeof(*words), compare_words);
	for (size_t k = 0; k < n && r == 0; k++)
		if (!k || strcmp(words[k - 1], words[k]) != 0)
			r = add_word(&b, words[k]);
	if (r == 0)
		r = buf_append(&b, "", 1);
	if (r < 0)
		return r;
	*ret = (char *)TAKE(b.data);
	return 0;
}

static bool has_word(const char *text, const char *word, size_t len)
{
	for (const char *p = text; *p; p += strcspn(p, " "), p += strspn(p, " "))
		if (strcspn(p, " ") == len && !memcmp(p, word, len))
			return true;
	return false;
}

int manifest_missing_words(const char *need, const char *have, char **ret)
{
	_cleanup_buf_ struct buf b = {0};
	size_t len;
	int r = 0;

	for (const char *p = need + strspn(need, " "); *p && r == 0;
	     p += len, p += strspn(p, " ")) {
		len = strcspn(p, " ");
		if (has_word(have, p, len))
			continue;
		r = b.len ? buf_append(&b, " ", 1) : 0;
		if (r == 0)
			r = buf_append(&b, p, len);
	}
	if (r == 0 && b.len)
		r = buf_append(&b, "", 1);
	if (r < 0)
		return r;
	*ret = (char *)TAKE(b.data);
	return 0;
}

int manifest_own_cpu_flags(char **ret)
{
	_cleanup_close_ int fd = open("/proc/cpuinfo", O_RDONLY | O_CLOEXEC);
	_cleanup_buf_ struct buf b = {0};

	if (fd < 0)
		return err_origin(-errno);
	/* All processors of a node are alike: the first one stands in the first pages.
	 */
	while (b.len < 64 << 10) {
		uint8_t *p = buf_reserve(&b, 4096);
		ssize_t n;

		if (!p)
			return err_origin(-ENOMEM);
		n = read(fd, p, 4095);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_origin(-errno);
		if (!n)
			break;
		b.len += (size_t)n;
		p[n] = '\0';
	}
	return manifest_cpu_flags_of(b.data ? (char *)b.data : "", ret);
}

int manifest_missing_cpu_flags(const struct manifest *m, char **ret)
{
	_cleanup_free_ char *own = NULL;
	int r = manifest_own_cpu_flags(&own);

	return r < 0 ? r
		     : manifest_missing_words(m->cpu_flags ? m->cpu_flags : "", own,
					      ret);
}
