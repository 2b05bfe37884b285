/* The sets of a process, as its label. */
#include "capability.h"

#include "err.h"
#include "space.h"
#include "space_label.h"

#include <stdio.h>

static void format(uint32_t first, uint32_t second, char ret[static SPACE_LABEL_MAX])
{
	(void)snprintf(ret, SPACE_LABEL_MAX, "%o,%o", first, second);
}

static struct space_label label_of(const struct capability_sets *s)
{
	struct capability_sets initial = capability_initial(false),
			       by_birth = capability_inherit(s);
	struct space_label l = {0};

	if (capability_equal(s, &initial))
		return l;
	format(s->of[CAPABILITY_INHERITABLE_PERMITTED],
	       s->of[CAPABILITY_INHERITABLE_EFFECTIVE], l.born);
	if (!capability_equal(s, &by_birth))
		format(s->of[CAPABILITY_PERMITTED], s->of[CAPABILITY_EFFECTIVE], l.own);
	return l;
}

int capability_read(int proc_fd, pid_t pid, struct capability_sets *ret)
{
	struct capability_sets s = capability_initial(false);
	struct space_label l;
	int r = space_label_read(proc_fd, pid, &l);

	if (r < 0)
		return r;
	if (sscanf(l.born, "%o,%o", &s.of[CAPABILITY_INHERITABLE_PERMITTED],
		   &s.of[CAPABILITY_INHERITABLE_EFFECTIVE]) == 2)
		s = capability_inherit(&s);
	(void)sscanf(l.own, "%o,%o", &s.of[CAPABILITY_PERMITTED],
		     &s.of[CAPABILITY_EFFECTIVE]);
	*ret = s;
	return 0;
}

bool capability_has(int proc_fd, pid_t pid, enum capability c)
{
	struct capability_sets s;

	return capability_read(proc_fd, pid, &s) == 0 &&
	       s.of[CAPABILITY_EFFECTIVE] & 1u << c;
}

int capability_write(struct space *s, pid_t pid, const struct capability_sets *sets)
{
	struct space_label l = label_of(sets);
	struct capability_sets now;
	int r = capability_read(space_proc_fd(s), pid, &now);

	if (r < 0 || capability_equal(&now, sets))
		return r;
	r = space_label_write(s, pid, &l);
	return r == SPACE_GROUP_E_GONE ? -ESRCH : err_fold(r);
}

int capability_leaf(struct space *s, const struct capability_sets *sets, int *ret_fd)
{
	struct space_label l = label_of(sets);

	*ret_fd = -1;
	return l.born[0] ? space_label_open(s, l.born, ret_fd) : 0;
}
