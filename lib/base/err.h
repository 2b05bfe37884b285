#pragma once
/*
 * Errors.  0 success; < 0 -errno: not our caller's fault to fix, pass it up
 * unchanged; > 0 <ROOM>_E_*: a documented outcome of *this* call, which the
 * direct caller must handle.
 */
#include <errno.h>

int err_origin_slow(int r, const char *func, const char *file, int line);
int err_fold_slow(int r, const char *func, const char *file, int line);

/* A fatal code is born here: leave one trace line, return it. */
#define err_origin(r_) err_origin_slow((r_), __func__, __FILE__, __LINE__)
/* An outcome we did not expect becomes fatal (-EPROTO); < 0 passes through. */
#define err_fold(r_) err_fold_slow((r_), __func__, __FILE__, __LINE__)
