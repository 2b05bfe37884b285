#include "terminal.h"

#include "cleanup.h"
#include "err.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int open_master(const struct space *space)
{
	static const struct open_how how = {.flags = O_RDWR | O_NOCTTY | O_CLOEXEC |
						     O_NONBLOCK,
					    .resolve = RESOLVE_IN_ROOT};
	int fd = (int)syscall(SYS_openat2, space_root_fd(space), "/dev/pts/ptmx", &how,
			      sizeof(how));

	return fd < 0 ? err_origin(-errno) : fd;
}

int terminal_make(const struct space *space, const struct terminal_setup *setup,
		  int *ret_master, int *ret_slave)
{
	_cleanup_close_ int master = open_master(space), slave = -1;
	int unlocked = 0;

	if (master < 0)
		return master;
	if (ioctl(master, TIOCSPTLCK, &unlocked) < 0)
		return err_origin(-errno);
	/* With O_CLOEXEC /proc would say so of every duplicate (Linux 6.18). */
	slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY);
	/* The group and the mode are those of the mount. */
	if (slave < 0 || fcntl(slave, F_SETFD, FD_CLOEXEC) < 0 || fchown(slave, setup->owner, (gid_t)-1) < 0 ||
	    ioctl(master, TIOCSWINSZ, &setup->size) < 0 ||
	    (setup->has_modes && tcsetattr(slave, TCSANOW, &setup->modes) < 0))
		return err_origin(-errno);
	*ret_master = TAKE_FD(master);
	*ret_slave = TAKE_FD(slave);
	return 0;
}

int terminal_number(int fd)
{
	unsigned n;

	return ioctl(fd, TIOCGPTN, &n) < 0 ? -errno : (int)n;
}
