#pragma once
/* What a user names an application by: its id, or what --app of ssi-run called it. */
#include "session.h"

/* Does @text begin as a name?  Else it is to be a number. */
bool application_is_named(const char *text);

/* The PID that @text is, or the id of the one application of that name; exits if it is neither. */
int32_t application_pid(const struct session_options *o, const char *text);
