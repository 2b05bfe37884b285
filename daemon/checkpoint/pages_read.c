/*
 * Happy path: pagemap-<pid>.img says which pages are where; those that are marked as
 * lazy are not in the images, and are read from /proc/<pid>/mem, in which also what the
 * process itself may not read can be read.
 *
 * Failure modes: the image comes from our own criu, but is not believed: what does not
 * parse ends the move.
 */
#include "pages.h"

#include "buf.h"
#include "criu_images.pb-c.h"
#include "err.h"

#include <endian.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum {
	COMMON_MAGIC = 0x54564319,
	PAGEMAP_MAGIC = 0x56084025,
	IS_LAZY = 1 << 1,    /* CRIU's PE_LAZY */
	IS_PRESENT = 1 << 2, /* and PE_PRESENT */
	MAP_MAX = 256 << 20, /* a terabyte, one page in two */
};

struct pages_reader {
	char file[32];
	int fd;
	size_t page;
	struct buf map;
	size_t at;	      /* in the map */
	struct pages_run run; /* what is left of the one at hand */
};

int pages_reader_new(struct pages_reader **ret, int proc_fd, pid_t pid)
{
	struct pages_reader *r = calloc(1, sizeof(*r));
	char path[32];

	if (!r)
		return err_origin(-ENOMEM);
	(void)snprintf(r->file, sizeof(r->file), "pagemap-%d.img", pid);
	(void)snprintf(path, sizeof(path), "%d/mem", pid);
	r->page = (size_t)sysconf(_SC_PAGESIZE);
	r->fd = openat(proc_fd, path, O_RDONLY | O_CLOEXEC);
	if (r->fd < 0) {
		int error = errno == ENOENT ? ESRCH : errno;

		free(r);
		return err_origin(-error);
	}
	*ret = r;
	return 0;
}

struct pages_reader *pages_reader_free(struct pages_reader *r)
{
	if (!r)
		return NULL;
	close_fd(r->fd);
	buf_fini(&r->map);
	free(r);
	return NULL;
}

int pages_reader_image(struct pages_reader *r, const char *file, const void *data,
		       size_t len)
{
	if (strcmp(file, r->file) != 0)
		return 0;
	if (len > MAP_MAX - r->map.len)
		return err_origin(-EFBIG);
	return buf_append(&r->map, data, len);
}

/* False: there are no more. */
static bool take_number(struct pages_reader *r, uint32_t *ret)
{
	if (r->map.len - r->at < sizeof(*ret))
		return false;
	memcpy(ret, r->map.data + r->at, sizeof(*ret));
	*ret = le32toh(*ret);
	r->at += sizeof(*ret);
	return true;
}

/* The magic numbers, and the entry that names the file with what is present. */
static int take_head(struct pages_reader *r)
{
	uint32_t common, magic, size;

	if (!take_number(r, &common) || common != COMMON_MAGIC ||
	    !take_number(r, &magic) || magic != PAGEMAP_MAGIC ||
	    !take_number(r, &size) || size > r->map.len - r->at)
		return err_origin(-EBADMSG);
	r->at += size;
	return 0;
}

static int take_entry(struct pages_reader *r, size_t size)
{
	Ssi__CriuImage__PagemapEntry *e;

	if (size > r->map.len - r->at)
		return err_origin(-EBADMSG);
	e = ssi__criu_image__pagemap_entry__unpack(NULL, size, r->map.data + r->at);
	if (!e)
		return err_origin(-EBADMSG);
	r->at += size;
	if ((e->flags & (IS_LAZY | IS_PRESENT)) == IS_LAZY)
		r->run = (struct pages_run){e->vaddr, e->nr_pages * r->page};
	ssi__criu_image__pagemap_entry__free_unpacked(e, NULL);
	return 0;
}

/* An empty run behind the last. */
static int next_run(struct pages_reader *r)
{
	int result = r->at ? 0 : take_head(r);
	uint32_t size;

	while (result == 0 && !r->run.len && r->at < r->map.len)
		result = take_number(r, &size) ? take_entry(r, size)
					       : err_origin(-EBADMSG);
	return result;
}

static int read_run(int fd, const struct pages_run *run, uint8_t *data)
{
	for (uint64_t at = 0; at < run->len;) {
		ssize_t n = pread(fd, data + at, run->len - at, (off_t)(run->at + at));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_origin(-errno);
		if (n == 0)
			return err_origin(-ESRCH);
		at += (uint64_t)n;
	}
	return 0;
}

int pages_reader_next(struct pages_reader *r, struct pages_piece *ret)
{
	int result = 0;

	ret->n_runs = ret->len = 0;
	while (ret->n_runs < PAGES_RUNS_MAX && ret->len < sizeof(ret->data)) {
		struct pages_run *run = &ret->runs[ret->n_runs];
		size_t room = sizeof(ret->data) - ret->len;

		result = next_run(r);
		if (result < 0 || !r->run.len)
			break;
		*run = r->run;
		if (run->len > room)
			run->len = room;
		result = read_run(r->fd, run, ret->data + ret->len);
		if (result < 0)
			break;
		r->run.at += run->len;
		r->run.len -= run->len;
		ret->len += run->len;
		ret->n_runs++;
	}
	return result;
}
