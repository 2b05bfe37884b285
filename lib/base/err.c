#include "err.h"

#include "log.h"

#include <string.h>

int err_origin_slow(int r, const char *func, const char *file, int line)
{
	if (r < 0)
		log_debug("%s:%d %s: %s", file, line, func, strerror(-r));
	return r;
}

int err_fold_slow(int r, const char *func, const char *file, int line)
{
	return r > 0 ? err_origin_slow(-EPROTO, func, file, line) : r;
}
