#pragma once
/* What the files of ssi-spawn share. */
#include "process.pb-c.h"

#include <stdbool.h>

enum {
	PAGE_FD = 3,
	FIRST_FD = 4, /* the terminal, or the first pipe; of an exec: ssid */
	EXIT_PAGE = 125,
	EXIT_CANNOT = 126,
	EXIT_NOT_FOUND = 127,
};

_Noreturn void fail(int status, const char *what, int error);
char *string_of(const ProtobufCBinaryData *d);
/* NULL behind the last; no memory: NULL, or one of them. */
char **strings_of(const ProtobufCBinaryData *list, size_t n);
void set_limit(const Ssi__Process__Limit *l);
/* Sets as the kernel has them: bit n - 1 is signal n. */
void set_signals(uint64_t ignored, uint64_t blocked);

/* The rights are the caller's already. */
_Noreturn void run_exec(const Ssi__Process__Launch *l);
