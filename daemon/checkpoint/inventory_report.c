#include "inventory_internal.h"

#include "err.h"

#include <stdio.h>
#include <string.h>

/*
 * Lines for people.  Paths are a user's, so control characters are replaced:
 * a line is a line, and no terminal is driven by a file's name.
 */

enum { REPORT_LINES_MAX = 64 };

int inventory_printf(struct buf *b, const char *format, ...)
{
	va_list ap;
	uint8_t *p;
	int n;

	va_start(ap, format);
	n = vsnprintf(NULL, 0, format, ap);
	va_end(ap);
	if (n < 0)
		return err_origin(-EINVAL);
	p = buf_reserve(b, (size_t)n + 1);
	if (!p)
		return err_origin(-ENOMEM);
	va_start(ap, format);
	(void)vsnprintf((char *)p, (size_t)n + 1, format, ap);
	va_end(ap);
	b->len += n;
	return 0;
}

void report_clean(char *line)
{
	for (char *p = line; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
}

void report_line(struct report *r, const char *format, ...)
{
	_cleanup_free_ char *line = NULL;
	va_list ap;
	int n;

	if (r->error || ++r->n_lines > REPORT_LINES_MAX)
		return;
	va_start(ap, format);
	n = vasprintf(&line, format, ap);
	va_end(ap);
	if (n < 0) {
		line = NULL;
		r->error = err_origin(-ENOMEM);
		return;
	}
	report_clean(line);
	r->error = inventory_printf(&r->text, "%s%s", r->text.len ? "\n" : "", line);
}

int report_done(struct report *r, int outcome, char **ret_text)
{
	if (!r->error && r->n_lines > REPORT_LINES_MAX)
		r->error = inventory_printf(&r->text, "\nand %u more",
					    r->n_lines - REPORT_LINES_MAX);
	if (r->error)
		return r->error;
	if (!r->n_lines) {
		*ret_text = NULL;
		return 0;
	}
	/* inventory_printf() leaves a NUL behind the text. */
	*ret_text = (char *)TAKE(r->text.data);
	return outcome;
}

void report_fini(struct report *r)
{
	buf_fini(&r->text);
}
