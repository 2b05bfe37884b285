#include "application.h"

#include <ctype.h>
#include <string.h>

bool application_is_named(const char *text)
{
	return isalpha((unsigned char)text[0]);
}

/* 0: none of that name. */
static int32_t find(const Ssi__Control__Processes *all, const char *name)
{
	int32_t found = 0;

	for (size_t i = 0; i < all->n_processes; i++) {
		const Ssi__Control__Process *p = all->processes[i];

		if (strcmp(p->name, name) != 0)
			continue;
		if (found && found != p->app)
			session_exit(EXIT_CONFLICT,
				     "several applications are called %s, %d and %d among them: "
				     "give the id of one",
				     name, found, p->app);
		found = p->app;
	}
	return found;
}

int32_t application_pid(const struct session_options *o, const char *text)
{
	Ssi__Control__ProcessesRequest body = SSI__CONTROL__PROCESSES_REQUEST__INIT;
	Ssi__Control__Request q = SSI__CONTROL__REQUEST__INIT;
	Ssi__Control__Event *event;
	int32_t app;

	if (!application_is_named(text))
		return (int32_t)session_number(text, INT32_MAX, "PID");
	q.body_case = SSI__CONTROL__REQUEST__BODY_PROCESSES;
	q.processes = &body;
	event = session_once(o, &q, SSI__CONTROL__EVENT__BODY_PROCESSES);
	app = find(event->processes, text);
	if (!app)
		session_exit(EXIT_NOT_FOUND, "no application is called %s%s", text,
			     event->processes->n_silent ? ", but not all nodes answer" :
							  ": see ssi-ps");
	ssi__control__event__free_unpacked(event, NULL);
	return app;
}
