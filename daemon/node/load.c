#include "load.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* "procs_running 3" of /proc/stat: tasks that run or want to, us included. */
static uint32_t read_running(void)
{
	FILE *f = fopen("/proc/stat", "re");
	char line[512];
	unsigned n = 1;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "procs_running %u", &n) == 1)
			break;
	if (f)
		fclose(f);
	return n > 0 ? (n - 1) * 100 : 0;
}

static void read_memory(struct membership_load *ret)
{
	FILE *f = fopen("/proc/meminfo", "re");
	unsigned long long kb;
	char line[128];

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "MemTotal: %llu", &kb) == 1)
			ret->memory_total = kb << 10;
		if (sscanf(line, "MemAvailable: %llu", &kb) == 1)
			ret->memory_available = kb << 10;
	}
	if (f)
		fclose(f);
}

void load_read(struct membership_load *ret)
{
	ret->n_cpus = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
	ret->running = read_running();
	read_memory(ret);
}
