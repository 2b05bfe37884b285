#include "kernel.h"

#include "cleanup.h"
#include "err.h"
#include "kernel_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

enum { ROWS_MAX = 64 };

struct kernel {
	struct kernel_row rows[ROWS_MAX];
	size_t n;
};

void kernel_say(struct kernel_row *row, enum kernel_state state, const char *remedy,
		const char *format, ...)
{
	va_list ap;

	row->state = state;
	va_start(ap, format);
	(void)vsnprintf(row->detail, sizeof(row->detail), format, ap);
	va_end(ap);
	(void)snprintf(row->remedy, sizeof(row->remedy), "%s", state == KERNEL_OK ? "" : remedy);
}

void kernel_read_line(const char *path, char *ret, size_t size)
{
	FILE *f = fopen(path, "re");

	ret[0] = '\0';
	if (!f)
		return;
	if (fgets(ret, (int)size, f))
		ret[strcspn(ret, "\n")] = '\0';
	(void)fclose(f);
}

unsigned kernel_release(void)
{
	unsigned major = 0, minor = 0;
	struct utsname u;

	if (uname(&u) < 0 || sscanf(u.release, "%u.%u", &major, &minor) != 2)
		return 0;
	return major << 16 | minor;
}

static int run(struct kernel *k, const struct kernel_probe *probes, size_t n)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++) {
		struct kernel_row row = { 0 };

		(void)snprintf(row.name, sizeof(row.name), "%s", probes[i].name);
		probes[i].probe(&row);
		r = kernel_append(k, &row);
	}
	return r;
}

DEFINE_CLEANUP(struct kernel, kernel_free)

int kernel_new(struct kernel **ret)
{
	_cleanup_(kernel_freep) struct kernel *k = calloc(1, sizeof(*k));
	int r;

	if (!k)
		return err_origin(-ENOMEM);
	r = run(k, kernel_call_probes, n_kernel_call_probes);
	if (r == 0)
		r = run(k, kernel_machine_probes, n_kernel_machine_probes);
	if (r < 0)
		return r;
	*ret = TAKE(k);
	return 0;
}

struct kernel *kernel_free(struct kernel *k)
{
	free(k);
	return NULL;
}

int kernel_append(struct kernel *k, const struct kernel_row *row)
{
	size_t i = 0;

	while (i < k->n && strcmp(k->rows[i].name, row->name) != 0)
		i++;
	if (i == ROWS_MAX)
		return err_origin(-ENOSPC);
	k->rows[i] = *row;
	if (i == k->n)
		k->n++;
	return 0;
}

const struct kernel_row *kernel_rows(const struct kernel *k, size_t *ret_n)
{
	*ret_n = k->n;
	return k->rows;
}

const struct kernel_row *kernel_row_named(const struct kernel *k, const char *name)
{
	for (size_t i = 0; i < k->n; i++)
		if (strcmp(k->rows[i].name, name) == 0)
			return &k->rows[i];
	return NULL;
}

bool kernel_has(const struct kernel *k, const char *name)
{
	const struct kernel_row *row = kernel_row_named(k, name);

	return row && row->state != KERNEL_MISSING;
}
