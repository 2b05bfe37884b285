#include "console.h"

#include "cleanup.h"
#include "err.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { SLOTS = 16384 };

struct slot {
	uint64_t inode; /* 0: free; written last */
	int32_t app;
	uint32_t input;
};

struct console {
	struct slot *slots; /* mapped, kept */
};

int console_new(struct console **ret, struct space *space)
{
	_cleanup_free_ struct console *c = calloc(1, sizeof(*c));
	void *mapped;
	bool fresh;
	int r;

	if (!c)
		return err_origin(-ENOMEM);
	r = space_state(space, "stream/console", SLOTS * sizeof(struct slot), &mapped, &fresh);
	if (r != 0)
		return err_fold(r);
	c->slots = mapped;
	*ret = TAKE(c);
	return 0;
}

struct console *console_free(struct console *c)
{
	if (!c)
		return NULL;
	(void)munmap(c->slots, SLOTS * sizeof(struct slot));
	free(c);
	return NULL;
}

/* Their applications are gone, and their ssi-runs with them. */
static void forget_ended(struct console *c)
{
	for (size_t i = 0; i < SLOTS; i++)
		if (c->slots[i].inode && kill(c->slots[i].app, 0) < 0 && errno == ESRCH)
			__atomic_store_n(&c->slots[i].inode, 0, __ATOMIC_RELEASE);
}

static struct slot *free_slot(struct console *c)
{
	for (size_t i = 0; i < SLOTS; i++)
		if (!c->slots[i].inode)
			return &c->slots[i];
	return NULL;
}

int console_add(struct console *c, pid_t app, int fd, bool input)
{
	struct slot *s = free_slot(c);
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_origin(-errno);
	if (!s) {
		forget_ended(c);
		s = free_slot(c);
	}
	if (!s)
		return err_origin(-ENOSPC);
	s->app = app;
	s->input = input;
	__atomic_store_n(&s->inode, st.st_ino, __ATOMIC_RELEASE);
	return 0;
}

bool console_has(const struct console *c, ino_t pipe, bool *ret_input)
{
	for (size_t i = 0; i < SLOTS; i++)
		if (c->slots[i].inode == pipe) {
			*ret_input = c->slots[i].input;
			return true;
		}
	return false;
}
