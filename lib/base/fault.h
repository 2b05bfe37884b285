#pragma once
/*
 * Named fault points at commit points, after CRIU's fault-injection.h.
 *
 * fault("migration.shipped") does nothing unless a test armed that name; then
 * it kills this process or delays it, once.  Thread: the loop.
 */
enum fault_action {
	FAULT_NONE,
	FAULT_KILL, /* SIGKILL to ourselves */
	FAULT_STOP, /* SIGSTOP to ourselves */
	FAULT_FAIL, /* fault() returns -EIO */
};

/* Arm @name (copied, at most 63 bytes); FAULT_NONE disarms.  -ENAMETOOLONG. */
int fault_arm(const char *name, enum fault_action action);
/* 0, or -EIO when the point is armed to fail. */
int fault(const char *name);
