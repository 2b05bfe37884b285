/*
 * From CRIU's log to one line for people.
 *
 * "(00.012345) Error (criu/files-ext.c:98): Can't dump file 3 of that type ..."
 * The first error is the cause; those after it are its consequences, told by
 * function after function.  Some of the first ones are no errors at all.
 */
#include "criu_internal.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

enum { LOG_MAX = 1 << 20 };

/* Errors by name that say nothing about why a run failed. */
static const char *const noise[] = {
	"RLIMIT_NOFILE", "kdat cache", "Dumping FAILED", "Restoring FAILED", "Restoring failed",
	"RPC error", "Killing processes because", "exited, status", "killed by signal",
	"Pre-resume script", "Can't unlink", "zombie ", "Unable to create tun", "recv req error",
};

static const struct {
	const char *said, *meant;
} sayings[] = {
	{ "is not a session leader", "it leads no session, and was not dumped as such" },
	{ "send_fds failed (-22)", "it uses io_uring, which cannot be saved" },
	{ "Can't get rlimit", "its limits can be read only with CAP_SYS_RESOURCE, or by a patched "
			      "criu: see ssi doctor" },
	{ "Resource temporarily unavailable", "no more processes are allowed (pids.max)" },
	{ "Unable to connect to image streamer", "criu could not reach ssid for its images" },
};

static const char *after(const char *line, const char *mark)
{
	const char *p = strstr(line, mark);

	return p ? p + strlen(mark) : NULL;
}

bool criu_log_line(const char *line, char *ret_text, size_t size)
{
	const char *p = after(line, "Error (");
	int pid;

	p = p ? after(p, "): ") : NULL;
	if (!p || !size)
		return false;
	for (size_t i = 0; i < N_ELEMENTS(noise); i++)
		if (strstr(p, noise[i]))
			return false;
	for (size_t i = 0; i < N_ELEMENTS(sayings); i++)
		if (strstr(p, sayings[i].said)) {
			(void)snprintf(ret_text, size, "%s", sayings[i].meant);
			return true;
		}
	if (sscanf(p, "Can't fork for %d: File exists", &pid) == 1) {
		(void)snprintf(ret_text, size, "PID %d is in use", pid);
		return true;
	}
	/* criu's own name for the part of it that speaks: "pie: 12: ", "unix: ". */
	while (islower((unsigned char)*p) || isdigit((unsigned char)*p)) {
		size_t n = strspn(p, "abcdefghijklmnopqrstuvwxyz0123456789-_");

		if (p[n] != ':' || p[n + 1] != ' ')
			break;
		p += n + 2;
	}
	(void)snprintf(ret_text, size, "%.*s", (int)strcspn(p, "\n"), p);
	for (char *c = ret_text; *c; c++)
		if (!isprint((unsigned char)*c))
			*c = '?';
	return ret_text[0];
}

bool criu_log_find(int dir_fd, char *ret_text, size_t size)
{
	int fd = openat(dir_fd, CRIU_LOG_FILE, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
	bool found = false;
	char line[1024];

	if (!f) {
		close_fd(fd);
		return false;
	}
	for (size_t n = 0; !found && n < LOG_MAX && fgets(line, sizeof(line), f); n += strlen(line))
		found = criu_log_line(line, ret_text, size);
	(void)fclose(f);
	return found;
}
