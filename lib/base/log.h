#pragma once
/*
 * Log lines: lower case, no trailing stop, say what happens next.
 *
 * One line goes to standard error with an sd-daemon(3) level prefix ("<3>"),
 * which journald understands and a person can read.  lib/ never logs above
 * debug; the function that *decides* what an error means logs it, once.
 * Thread: any.
 */
#include <stdarg.h>
#include <stdbool.h>

enum log_level {
	LOG_LEVEL_ERROR = 3,
	LOG_LEVEL_WARNING = 4,
	LOG_LEVEL_NOTICE = 5,
	LOG_LEVEL_INFO = 6,
	LOG_LEVEL_DEBUG = 7,
};

/* Lines above @level are dropped.  Default: LOG_LEVEL_INFO. */
void log_set_level(enum log_level level);
/* With @prefix false no "<n>" is printed: for tools, which talk to people. */
void log_set_prefix(bool prefix);

void log_line(enum log_level level, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_notice(...) log_line(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)
