/* The keeper, and state memfds in it. */
#include "space_internal.h"

#include "err.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

static int call_by_name(struct space *s, enum init_verb verb, const char *name, const int *fd,
			int *ret_fd)
{
	struct init_request request = { .verb = verb };
	struct init_reply reply;
	int r;

	if (strlen(name) >= sizeof(request.name))
		return err_origin(-ENAMETOOLONG);
	strcpy(request.name, name);
	r = space_call(s, &request, fd, fd ? 1 : 0, &reply, ret_fd, ret_fd ? 1 : 0);
	if (r < 0)
		return r;
	if (reply.result == INIT_E_ABSENT)
		return SPACE_E_ABSENT;
	return err_fold(reply.result);
}

int space_keep(struct space *s, const char *name, int fd)
{
	return err_fold(call_by_name(s, INIT_KEEP, name, &fd, NULL));
}

int space_kept(struct space *s, const char *name, int *ret_fd)
{
	int fd, r;

	r = call_by_name(s, INIT_FETCH, name, NULL, &fd);
	if (r == 0)
		*ret_fd = fd;
	return r;
}

int space_drop(struct space *s, const char *name)
{
	return call_by_name(s, INIT_DROP, name, NULL, NULL);
}

int space_each_kept(struct space *s, const char *prefix,
		    int (*cb)(void *owner, const char *name), void *owner)
{
	struct init_reply reply = { 0 };
	int r;

	if (strlen(prefix) >= INIT_NAME_SIZE)
		return err_origin(-ENAMETOOLONG);
	for (;;) {
		struct init_request request = { .verb = INIT_LIST, .cursor = reply.cursor };

		strcpy(request.name, prefix);
		r = space_call(s, &request, NULL, 0, &reply, NULL, 0);
		if (r < 0 || reply.result == INIT_E_ABSENT)
			return r;
		reply.name[INIT_NAME_SIZE - 1] = '\0';
		r = cb(owner, reply.name);
		if (r != 0)
			return r;
	}
}

static int make_state(struct space *s, const char *name, size_t size, int *ret_fd)
{
	_cleanup_close_ int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int r;

	if (fd < 0 || ftruncate(fd, size) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) < 0)
		return err_origin(-errno);
	r = space_keep(s, name, fd);
	if (r < 0)
		return r;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int space_state(struct space *s, const char *name, size_t size, void **ret, bool *ret_fresh)
{
	_cleanup_close_ int fd = -1;
	bool fresh = false;
	struct stat st;
	void *p;
	int r;

	r = space_kept(s, name, &fd);
	if (r == SPACE_E_ABSENT) {
		fresh = true;
		r = make_state(s, name, size, &fd);
	}
	if (r != 0)
		return err_fold(r);
	/* A newer ssid may want more than an older one made. */
	if (fstat(fd, &st) < 0 || (st.st_size < (off_t)size && ftruncate(fd, size) < 0))
		return err_origin(-errno);
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return err_origin(-errno);
	*ret = p;
	*ret_fresh = fresh;
	return 0;
}
