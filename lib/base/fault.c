#include "fault.h"

#include "err.h"
#include "log.h"

#include <signal.h>
#include <string.h>

/* One point at a time is enough: a test arms, triggers, looks. */
static char armed_name[64];
static enum fault_action armed_action;

int fault_arm(const char *name, enum fault_action action)
{
	if (strlen(name) >= sizeof(armed_name))
		return err_origin(-ENAMETOOLONG);
	strcpy(armed_name, name);
	armed_action = action;
	return 0;
}

int fault(const char *name)
{
	enum fault_action action = armed_action;

	if (action == FAULT_NONE || strcmp(name, armed_name) != 0)
		return 0;
	armed_action = FAULT_NONE;
	log_notice("fault point %s: action %d", name, action);
	if (action == FAULT_FAIL)
		return -EIO;
	(void)raise(action == FAULT_KILL ? SIGKILL : SIGSTOP);
	return 0;
}
