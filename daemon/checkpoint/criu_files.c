/*
 * The images of a dump that criu wrote to its directory instead of streaming them.
 *
 * happy path: once criu is gone, one piece of one file a turn of the loop goes to the
 * sink, and the memory behind it back to the tmpfs, so that a second copy of the
 * images, which the sink may make there, needs no second room.
 * failure modes: what the sink refuses ends it with a problem.  The directory and
 * what is left in it are the run's to remove.
 */
#include "criu_internal.h"

#include "err.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Of a dump's images it is written last; a streamed dump writes none. */
#define LAST_FILE "inventory.img"

enum { CHUNK = 256 << 10 };

struct criu_files {
	const struct env *env;
	struct image_sink sink;
	criu_stream_cb on_over;
	void *owner;
	struct env_timer turn;
	DIR *dir;
	char name[IMAGE_NAME_MAX + 1]; /* of the file at hand */
	int fd;			       /* of it, -1: none */
	uint64_t at;
	bool paused, over;
	uint8_t *chunk;
};

bool criu_files_written(int dir_fd)
{
	return faccessat(dir_fd, LAST_FILE, F_OK, 0) == 0;
}

void criu_files_stop(struct criu_files *f)
{
	if (!f)
		return;
	env_disarm(f->env, &f->turn);
	f->fd = close_fd(f->fd);
	if (f->dir)
		(void)closedir(TAKE(f->dir));
}

bool criu_files_are_over(const struct criu_files *f)
{
	return f->over;
}

static void problem(struct criu_files *f, const char *text)
{
	criu_files_stop(f);
	f->on_over(f->owner, text);
}

static bool is_image(const char *name)
{
	const char *dot = strrchr(name, '.');

	return dot && strcmp(dot, ".img") == 0 && image_name_ok(name);
}

static int next_file(struct criu_files *f)
{
	struct dirent *e;

	do {
		errno = 0;
		e = readdir(f->dir);
		if (!e) {
			f->over = errno == 0;
			return err_origin(-errno);
		}
	} while (!is_image(e->d_name));
	(void)snprintf(f->name, sizeof(f->name), "%.*s", IMAGE_NAME_MAX, e->d_name);
	f->at = 0;
	f->fd = openat(dirfd(f->dir), f->name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	return f->fd < 0 ? err_origin(-errno) : 0;
}

static int pass_piece(struct criu_files *f)
{
	ssize_t n = pread(f->fd, f->chunk, CHUNK, (off_t)f->at);

	if (n < 0)
		return err_origin(-errno);
	if (n == 0) {
		f->fd = close_fd(f->fd);
		return f->sink.close(f->sink.owner, f->name);
	}
	/* Best effort: what is left goes with the directory. */
	(void)fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)f->at,
			n);
	f->at += (uint64_t)n;
	return f->sink.write(f->sink.owner, f->name, f->chunk, (size_t)n);
}

static void on_turn(struct env_timer *turn)
{
	struct criu_files *f = container_of(turn, struct criu_files, turn);
	int r = f->fd < 0 ? next_file(f) : pass_piece(f);

	/* The sink may have stopped us, or paused. */
	if (!f->dir)
		return;
	if (r != 0)
		return problem(f, r == IMAGE_E_FULL
					  ? IMAGE_NO_ROOM
					  : "its images could not be passed on");
	if (f->over) {
		criu_files_stop(f);
		return f->on_over(f->owner, NULL);
	}
	if (!f->paused)
		(void)env_arm(f->env, turn, 0);
}

void criu_files_pause(struct criu_files *f, bool pause)
{
	if (!f || !f->dir || f->paused == pause)
		return;
	f->paused = pause;
	if (pause)
		env_disarm(f->env, &f->turn);
	else if (env_arm(f->env, &f->turn, 0) < 0)
		problem(f, "out of memory");
}

int criu_files_new(struct criu_files **ret, const struct env *env, int dir_fd,
		   const struct image_sink *sink, criu_stream_cb on_over, void *owner)
{
	struct criu_files *f = calloc(1, sizeof(*f));
	int fd, r = 0;

	if (!f)
		return err_origin(-ENOMEM);
	*f = (struct criu_files){.env = env,
				 .sink = *sink,
				 .on_over = on_over,
				 .owner = owner,
				 .turn = {.cb = on_turn},
				 .fd = -1,
				 .chunk = malloc(CHUNK)};
	fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	f->dir = fd < 0 ? NULL : fdopendir(fd);
	if (!f->dir) {
		r = err_origin(-errno);
		close_fd(fd);
	}
	if (r == 0 && !f->chunk)
		r = err_origin(-ENOMEM);
	if (r == 0)
		r = env_arm(env, &f->turn, 0);
	if (r < 0) {
		criu_files_free(f);
		return r;
	}
	*ret = f;
	return 0;
}

struct criu_files *criu_files_free(struct criu_files *f)
{
	if (!f)
		return NULL;
	criu_files_stop(f);
	free(f->chunk);
	free(f);
	return NULL;
}
