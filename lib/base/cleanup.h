#pragma once
/* Locals that own: freed at the end of their scope unless TAKE()n. */
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(f_) __attribute__((cleanup(f_)))

/* Pass ownership on: the local forgets what it held. */
#define TAKE(p_)                                                                     \
	({                                                                           \
		typeof(p_) *pp_ = &(p_), v_ = *pp_;                                  \
		*pp_ = NULL;                                                         \
		v_;                                                                  \
	})
#define TAKE_FD(fd_)                                                                 \
	({                                                                           \
		int *fdp_ = &(fd_), v_ = *fdp_;                                      \
		*fdp_ = -1;                                                          \
		v_;                                                                  \
	})

/* From `type *free_(type *)`, which returns NULL, make free_##p for _cleanup_(). */
#define DEFINE_CLEANUP(type_, free_)                                                 \
	static inline void free_##p(type_ **p_)                                      \
	{                                                                            \
		*p_ = free_(*p_);                                                    \
	}

static inline void freep(void *p)
{
	free(*(void **)p);
}

/* Close a descriptor that may be -1; errno is kept. */
static inline int close_fd(int fd)
{
	if (fd >= 0)
		(void)close(fd);
	return -1;
}

static inline void close_fdp(int *fd)
{
	*fd = close_fd(*fd);
}

#define _cleanup_free_ _cleanup_(freep)
#define _cleanup_close_ _cleanup_(close_fdp)

#define N_ELEMENTS(a_) (sizeof(a_) / sizeof((a_)[0]))
#define container_of(p_, type_, member_)                                             \
	((type_ *)((char *)(p_) - __builtin_offsetof(type_, member_)))
