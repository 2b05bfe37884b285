/* Memory that is read where it lies, and put into a process that waits for it. */
#include "buf.h"
#include "criu_images.pb-c.h"
#include "env_event.h"
#include "pages.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

enum { LAZY = 1 << 1, PRESENT = 1 << 2, N = 600 };

static size_t page;

static uint8_t *area(size_t n)
{
	void *p = mmap(NULL, n * page, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

/* A pagemap. */

static void add_number(struct buf *b, uint32_t n)
{
	assert_int_equal(buf_append(b, &n, sizeof(n)), 0);
}

static void add_entry(struct buf *b, const void *at, size_t n, uint32_t flags)
{
	Ssi__CriuImage__PagemapEntry e = SSI__CRIU_IMAGE__PAGEMAP_ENTRY__INIT;
	uint8_t bytes[64];
	size_t len;

	e.vaddr = (uintptr_t)at;
	e.has_flags = e.has_nr_pages = true;
	e.flags = flags;
	e.nr_pages = n;
	len = ssi__criu_image__pagemap_entry__pack(&e, bytes);
	add_number(b, (uint32_t)len);
	assert_int_equal(buf_append(b, bytes, len), 0);
}

static void begin_map(struct buf *b)
{
	add_number(b, 0x54564319);
	add_number(b, 0x56084025);
	add_number(b, 2);
	assert_int_equal(buf_append(b, "\x08\x01", 2), 0);
}

/* Of this process, in two parts, between other images. */
static struct pages_reader *reader_of(const struct buf *map, pid_t pid)
{
	int proc_fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	size_t half = map->len / 2;
	struct pages_reader *r;
	char file[32];

	(void)snprintf(file, sizeof(file), "pagemap-%d.img", pid);
	assert_int_equal(pages_reader_new(&r, proc_fd, pid), 0);
	assert_int_equal(pages_reader_image(r, "pages-1.img", "12345678", 8), 0);
	assert_int_equal(pages_reader_image(r, file, map->data, half), 0);
	assert_int_equal(pages_reader_image(r, "pagemap-shmem-1.img", "1234", 4), 0);
	assert_int_equal(pages_reader_image(r, file, map->data + half, map->len - half),
			 0);
	close(proc_fd);
	return r;
}

static void what_was_left_is_read_in_order_and_nothing_else(void **state)
{
	struct pages_piece *piece = malloc(sizeof(*piece));
	uint8_t *p = area(N + 3), *hidden = area(1);
	size_t n = 0, n_pieces = 0;
	struct buf map = {0};
	struct pages_reader *r;

	for (size_t i = 0; i < N + 3; i++)
		memset(p + i * page, (int)i, page);
	memset(hidden, 77, page);
	assert_int_equal(mprotect(hidden, page, PROT_NONE), 0);
	begin_map(&map);
	add_entry(&map, p, 1, LAZY);
	add_entry(&map, p + page, 1, LAZY | PRESENT);
	add_entry(&map, p + 2 * page, N, LAZY);
	add_entry(&map, p + (N + 2) * page, 1, PRESENT);
	add_entry(&map, hidden, 1, LAZY);
	r = reader_of(&map, getpid());
	do {
		size_t at = 0;

		assert_int_equal(pages_reader_next(r, piece), 0);
		assert_true(piece->len <= PAGES_PIECE &&
			    piece->n_runs <= PAGES_RUNS_MAX);
		for (size_t i = 0; i < piece->n_runs; i++)
			for (size_t done = 0; done < piece->runs[i].len;
			     done += page, n++) {
				const uint8_t *from = n == 0	   ? p
						      : n == N + 1 ? hidden
								   : p + (n + 1) * page;
				uint8_t byte = n == 0	    ? 0
					       : n == N + 1 ? 77
							    : (n + 1) & 0xff;

				assert_true(piece->runs[i].at + done ==
					    (uintptr_t)from);
				assert_int_equal(piece->data[at], byte);
				assert_int_equal(piece->data[at + page - 1], byte);
				at += page;
			}
		assert_int_equal(at, piece->len);
		n_pieces++;
	} while (piece->n_runs);
	assert_int_equal(n, N + 2);
	assert_true(n_pieces > N * page / PAGES_PIECE);
	pages_reader_free(r);
	buf_fini(&map);
	free(piece);
	munmap(p, (N + 3) * page);
	munmap(hidden, page);
}

static void single_pages_go_many_in_a_piece(void **state)
{
	struct pages_piece *piece = malloc(sizeof(*piece));
	size_t n = 0, n_pieces = 0, last;
	struct buf map = {0};
	uint8_t *p = area(2 * N);
	struct pages_reader *r;

	begin_map(&map);
	for (size_t i = 0; i < N; i++) {
		memset(p + 2 * i * page, 1, page);
		add_entry(&map, p + 2 * i * page, 1, LAZY);
	}
	r = reader_of(&map, getpid());
	do {
		assert_int_equal(pages_reader_next(r, piece), 0);
		last = piece->n_runs;
		n += last;
		n_pieces++;
	} while (last);
	assert_int_equal(n, N);
	assert_true(n_pieces < N / 4);
	pages_reader_free(r);
	buf_fini(&map);
	free(piece);
	munmap(p, 2 * N * page);
}

static void a_map_that_is_none_is_refused(void **state)
{
	struct pages_piece *piece = malloc(sizeof(*piece));
	struct buf whole = {0};
	uint8_t *p = area(1);
	struct pages_reader *r;

	begin_map(&whole);
	add_entry(&whole, p, 1, LAZY);
	for (size_t len = 0; len < whole.len; len++) {
		struct buf cut = {.data = whole.data, .len = len};

		if (len == 14) /* a whole one, without entries */
			continue;
		r = reader_of(&cut, getpid());
		assert_int_equal(pages_reader_next(r, piece), -EBADMSG);
		pages_reader_free(r);
	}
	whole.data[4]++;
	r = reader_of(&whole, getpid());
	assert_int_equal(pages_reader_next(r, piece), -EBADMSG);
	pages_reader_free(r);
	buf_fini(&whole);
	free(piece);
	munmap(p, page);
}

static void memory_that_is_not_there_is_an_error(void **state)
{
	struct pages_piece *piece = malloc(sizeof(*piece));
	struct buf map = {0};
	uint8_t *p = area(1);
	struct pages_reader *r;
	int proc_fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	munmap(p, page);
	begin_map(&map);
	add_entry(&map, p, 1, LAZY);
	r = reader_of(&map, getpid());
	assert_true(pages_reader_next(r, piece) < 0);
	pages_reader_free(r);
	assert_int_equal(pages_reader_new(&r, proc_fd, 4194305), -ESRCH);
	close(proc_fd);
	buf_fini(&map);
	free(piece);
}

/* A criu that restores. */

struct fixture {
	struct env_event *loop;
	struct pages_placer *placer;
	struct env_timer timer;
	char directory[32];
	int dir_fd, criu, uffd;
	uint8_t *memory;
};

static struct fixture *of_timer;

static void on_timer(struct env_timer *timer)
{
	env_event_stop(of_timer->loop);
}

/* What has come is taken. */
static void turn(struct fixture *f)
{
	of_timer = f;
	f->timer.cb = on_timer;
	assert_int_equal(env_arm(env_event_env(f->loop), &f->timer, 5 * NSEC_PER_MSEC),
			 0);
	assert_true(env_event_run(f->loop) >= 0);
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct uffdio_api api = {.api = UFFD_API};

	assert_non_null(f);
	(void)strcpy(f->directory, "/tmp/test_pages.XXXXXX");
	assert_non_null(mkdtemp(f->directory));
	f->dir_fd = open(f->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(env_event_new(&f->loop), 0);
	assert_int_equal(pages_placer_new(&f->placer, env_event_env(f->loop)), 0);
	f->memory = area(4);
	f->criu = -1;
	f->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	assert_int_equal(f->uffd >= 0, pages_may_be_placed());
	if (f->uffd >= 0)
		assert_int_equal(ioctl(f->uffd, UFFDIO_API, &api), 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	char path[64];

	pages_placer_free(f->placer);
	env_disarm(env_event_env(f->loop), &f->timer);
	env_event_free(f->loop);
	(void)close(f->uffd);
	(void)close(f->criu);
	(void)snprintf(path, sizeof(path), "%s/lazy-pages.socket", f->directory);
	(void)unlink(path);
	assert_int_equal(rmdir(f->directory), 0);
	(void)close(f->dir_fd);
	(void)munmap(f->memory, 4 * page);
	free(f);
	return 0;
}

static void need_userfaultfd(const struct fixture *f)
{
	if (f->uffd >= 0)
		return;
	print_message("# no userfaultfd here: needs CONFIG_USERFAULTFD and root\n");
	skip();
}

/* As criu does: its PID, a byte with the descriptor. */
static void connect_as_criu(struct fixture *f)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec iov = {"", 1};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = &control,
			   .msg_controllen = sizeof(control)};
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	pid_t pid = getpid();

	(void)snprintf(a.sun_path, sizeof(a.sun_path), "%s/lazy-pages.socket",
		       f->directory);
	f->criu = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(f->criu, (struct sockaddr *)&a, sizeof(a)), 0);
	*h = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
	memcpy(CMSG_DATA(h), &f->uffd, sizeof(int));
	assert_int_equal(send(f->criu, &pid, sizeof(pid), 0), sizeof(pid));
	assert_int_equal(sendmsg(f->criu, &m, 0), 1);
}

static void register_pages(struct fixture *f, size_t first, size_t n)
{
	struct uffdio_register r = {
		.range = {(uintptr_t)(f->memory + first * page), n * page},
		.mode = UFFDIO_REGISTER_MODE_MISSING};

	assert_int_equal(ioctl(f->uffd, UFFDIO_REGISTER, &r), 0);
}

static void pages_come_to_their_places_and_no_earlier(void **state)
{
	struct fixture *f = *state;
	struct pages_run runs[2] = {{(uintptr_t)f->memory, page},
				    {(uintptr_t)(f->memory + 2 * page), 2 * page}};
	uint8_t *data = area(3);
	size_t done = 0;

	need_userfaultfd(f);
	for (size_t i = 0; i < 3; i++)
		memset(data + i * page, (int)i + 1, page);
	assert_int_equal(pages_placer_listen(f->placer, f->dir_fd), 0);
	assert_int_equal(pages_place(f->placer, runs, 2, data, &done), PAGES_E_EARLY);
	connect_as_criu(f);
	turn(f);
	assert_int_equal(pages_place(f->placer, runs, 2, data, &done), PAGES_E_EARLY);
	assert_int_equal(done, 0);
	register_pages(f, 0, 3); /* not yet the last */
	assert_int_equal(pages_place(f->placer, runs, 2, data, &done), PAGES_E_EARLY);
	assert_int_equal(done, page);
	register_pages(f, 3, 1);
	assert_int_equal(pages_place(f->placer, runs, 2, data, &done), 0);
	assert_int_equal(done, 3 * page);
	assert_int_equal(f->memory[page - 1], 1);
	assert_int_equal(f->memory[2 * page], 2);
	assert_int_equal(f->memory[3 * page], 3);

	/* It has an end, also for criu, which may yet speak. */
	pages_placer_end(f->placer);
	f->uffd = close_fd(f->uffd);
	assert_int_equal(f->memory[page], 0);
	assert_int_equal(send(f->criu, "FTSR", 4, MSG_NOSIGNAL), 4);
	turn(f);
	munmap(data, 3 * page);
}

static void a_place_that_is_taken_is_an_error(void **state)
{
	struct fixture *f = *state;
	struct pages_run runs[1] = {{(uintptr_t)f->memory, page}};
	uint8_t *data = area(1);
	size_t done = 0;

	need_userfaultfd(f);
	f->memory[0] = 5;
	assert_int_equal(pages_placer_listen(f->placer, f->dir_fd), 0);
	connect_as_criu(f);
	register_pages(f, 0, 4);
	turn(f);
	assert_int_equal(pages_place(f->placer, runs, 1, data, &done), -EEXIST);
	runs[0].at++;
	assert_int_equal(pages_place(f->placer, runs, 1, data, &done), -EINVAL);
	assert_int_equal(f->memory[0], 5);
	munmap(data, page);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_left_is_read_in_order_and_nothing_else),
		cmocka_unit_test(single_pages_go_many_in_a_piece),
		cmocka_unit_test(a_map_that_is_none_is_refused),
		cmocka_unit_test(memory_that_is_not_there_is_an_error),
		cmocka_unit_test_setup_teardown(
			pages_come_to_their_places_and_no_earlier, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_place_that_is_taken_is_an_error,
						set_up, tear_down),
	};

	page = (size_t)sysconf(_SC_PAGESIZE);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
