#include "log.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

static enum log_level max_level = LOG_LEVEL_INFO;
static bool with_prefix = true;

void log_set_level(enum log_level level)
{
	max_level = level;
}

void log_set_prefix(bool prefix)
{
	with_prefix = prefix;
}

void log_line(enum log_level level, const char *format, ...)
{
	char line[1024];
	int saved = errno, n = 0, m;
	va_list ap;

	if (level > max_level)
		return;
	if (with_prefix)
		n = snprintf(line, sizeof(line), "<%d>", level);
	va_start(ap, format);
	m = vsnprintf(line + n, sizeof(line) - n, format, ap);
	va_end(ap);
	n = m < 0 ? n : n + m;
	if (n > (int)sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n++] = '\n';
	/* One write a line, so that lines of several processes do not mix. */
	(void)!write(STDERR_FILENO, line, n);
	errno = saved;
}
