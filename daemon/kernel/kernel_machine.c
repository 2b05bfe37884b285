/* Probes of the machine as it is set up: version, cgroups, rights, limits, sizes, clocks. */
#include "kernel_internal.h"

#include "cleanup.h"

#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/timex.h>
#include <sys/utsname.h>
#include <time.h>

static void probe_release(struct kernel_row *row)
{
	struct utsname u = { 0 };

	(void)uname(&u);
	kernel_say(row, kernel_release() >= (6 << 16 | 1) ? KERNEL_OK : KERNEL_WARN,
		   "older than what is tested; use 6.1 or newer", "%s %s", u.release, u.machine);
}

/* The last cgroup v2 mount that is not hidden, unescaped paths only. */
static bool find_cgroup(char *ret, size_t size)
{
	char line[1024], path[512], file[600];
	FILE *f = fopen("/proc/self/mountinfo", "re");
	bool found = false;

	while (f && fgets(line, sizeof(line), f)) {
		if (!strstr(line, " - cgroup2 ") ||
		    sscanf(line, "%*s %*s %*s %*s %511s", path) != 1)
			continue;
		(void)snprintf(file, sizeof(file), "%s/cgroup.procs", path);
		if (strlen(path) >= size || access(file, W_OK) < 0)
			continue;
		(void)snprintf(ret, size, "%s", path);
		found = true;
	}
	if (f)
		(void)fclose(f);
	return found;
}

static void probe_cgroup(struct kernel_row *row)
{
	/* cgroup.kill came in 5.14, cgroup.freeze in 5.2; the root of the tree shows neither. */
	bool kills = kernel_release() >= (5 << 16 | 14);
	char path[256];

	if (!find_cgroup(path, sizeof(path)))
		kernel_say(row, KERNEL_MISSING, "ssid cannot start; mount cgroup2", "not mounted");
	else
		kernel_say(row, kills ? KERNEL_OK : KERNEL_MISSING,
			   "no cgroup.kill: processes cannot be moved; use a newer kernel", "%s",
			   path);
}

static void probe_pressure(struct kernel_row *row)
{
	bool present = access("/proc/pressure/cpu", R_OK) == 0;

	kernel_say(row, present ? KERNEL_OK : KERNEL_WARN,
		   "load is judged without pressure figures; boot with psi=1", "%s",
		   present ? "present" : "absent");
}

/* Capabilities that ssid or the CRIU it runs use, and what goes without. */
static const struct {
	int number;
	const char *name, *without;
} capabilities[] = {
	{ CAP_SYS_ADMIN, "sys_admin", "ssid cannot start" },
	{ CAP_SYS_PTRACE, "sys_ptrace", "processes cannot be moved or saved" },
	{ CAP_SYS_RESOURCE, "sys_resource",
	  "saving other users' processes needs the patched CRIU; limits stay as they are" },
	{ CAP_NET_ADMIN, "net_admin", "established TCP connections cannot be moved" },
	{ CAP_SYS_NICE, "sys_nice", "no real-time priority for the watcher of PIDs" },
	{ CAP_KILL, "kill", "signals cannot be forwarded" },
	{ CAP_SETUID, "setuid", "programs cannot run as their users" },
};

static void probe_capabilities(struct kernel_row *row)
{
	char missing[96] = "", remedy[192] = "";

	for (size_t i = 0; i < N_ELEMENTS(capabilities); i++) {
		size_t at = strlen(missing), to = strlen(remedy);

		if (prctl(PR_CAPBSET_READ, capabilities[i].number, 0, 0, 0) != 0)
			continue;
		(void)snprintf(missing + at, sizeof(missing) - at, "%s%s", at ? ", " : "",
			       capabilities[i].name);
		(void)snprintf(remedy + to, sizeof(remedy) - to, "%s%s", to ? "; " : "",
			       capabilities[i].without);
	}
	if (missing[0])
		kernel_say(row, KERNEL_WARN, remedy, "not in the bounding set: %s", missing);
	else
		kernel_say(row, KERNEL_OK, "", "all that are used");
}

static void probe_pid_max(struct kernel_row *row)
{
	static const char *const remedy =
		"all processes of this machine together cannot be more; raise kernel.pid_max to 4194304";
	char text[32];
	long value;

	kernel_read_line("/proc/sys/kernel/pid_max", text, sizeof(text));
	value = atol(text);
	kernel_say(row, value >= 4194304 ? KERNEL_OK : KERNEL_WARN, remedy, "%ld%s", value,
		   kernel_release() >= (6 << 16 | 14) ? ", the space has its own" : "");
}

static void say_limit(struct kernel_row *row, int resource, rlim_t wanted, const char *remedy)
{
	struct rlimit l = { 0 };

	(void)getrlimit(resource, &l);
	if (l.rlim_max == RLIM_INFINITY)
		kernel_say(row, KERNEL_OK, "", "unlimited");
	else
		kernel_say(row, l.rlim_max >= wanted ? KERNEL_OK : KERNEL_WARN, remedy, "%llu",
			   (unsigned long long)l.rlim_max);
}

static void probe_nofile(struct kernel_row *row)
{
	say_limit(row, RLIMIT_NOFILE, 65536,
		  "fewer streams and kept descriptors; LimitNOFILE=524288 in ssid.service");
}

static void probe_nproc(struct kernel_row *row)
{
	say_limit(row, RLIMIT_NPROC, 16384, "fewer processes per user; LimitNPROC=infinity");
}

static void probe_memory(struct kernel_row *row)
{
	struct sysinfo s = { 0 };
	unsigned long long mib;

	(void)sysinfo(&s);
	mib = (unsigned long long)s.totalram * s.mem_unit >> 20;
	kernel_say(row, mib >= 512 ? KERNEL_OK : KERNEL_WARN,
		   "images of processes that move are held in memory: only small ones can",
		   "%llu MiB, %llu MiB free", mib, (unsigned long long)s.freeram * s.mem_unit >> 20);
}

static void probe_clock(struct kernel_row *row)
{
	struct timex t = { 0 };
	char source[64];
	bool synchronised;

	kernel_read_line("/sys/devices/system/clocksource/clocksource0/current_clocksource", source,
			 sizeof(source));
	synchronised = adjtimex(&t) >= 0 && !(t.status & STA_UNSYNC);
	kernel_say(row, synchronised ? KERNEL_OK : KERNEL_WARN,
		   "times of files and processes differ between nodes; run chrony or timesyncd",
		   "%s, %ssynchronised", source[0] ? source : "unknown source",
		   synchronised ? "" : "not ");
}

const struct kernel_probe kernel_machine_probes[] = {
	{ "kernel", probe_release },
	{ "cgroup v2", probe_cgroup },
	{ "pressure", probe_pressure },
	{ "capabilities", probe_capabilities },
	{ "pid_max", probe_pid_max },
	{ "open files", probe_nofile },
	{ "processes", probe_nproc },
	{ "memory", probe_memory },
	{ "clock", probe_clock },
};
const size_t n_kernel_machine_probes = N_ELEMENTS(kernel_machine_probes);
