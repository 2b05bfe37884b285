#pragma once
/* One stream with both of its programs, whose bytes tell their positions. */
#include "stream_fixture.h"

#include <errno.h>
#include <fcntl.h>

struct flow {
	stream_id id;
	struct node *from, *to;
	int in, out; /* the programs' ends; -1: closed */
	uint64_t written, got;
	bool ended;
};

static inline uint8_t byte_at(stream_id id, uint64_t position)
{
	uint64_t x = (position + 1) * 0x9e3779b97f4a7c15ull ^ id;

	return (uint8_t)(x ^ x >> 31 ^ x >> 47);
}

static inline unsigned below(unsigned n)
{
	return (unsigned)rand() % n;
}

static inline void open_in(struct flow *f, uint64_t position, const void *rest, size_t n)
{
	int p[2];

	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	f->in = p[1];
	(void)fcntl(f->in, F_SETFL, O_NONBLOCK);
	assert_int_equal(stream_open(f->from->room, f->id, STREAM_READER,
				     f->to ? f->to->id : NODE_NONE, p[0], position, rest, n), 0);
}

static inline void open_out(struct flow *f, uint64_t position, const void *rest, size_t n)
{
	int p[2];

	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	f->out = p[0];
	(void)fcntl(f->out, F_SETFL, O_NONBLOCK);
	assert_int_equal(stream_open(f->to->room, f->id, STREAM_WRITER, f->from->id, p[1],
				     position, rest, n), 0);
}

static inline void flow_open(struct flow *f, struct node *from, struct node *to)
{
	*f = (struct flow){ .id = stream_new_id(from->room), .from = from, .to = to,
			    .in = -1, .out = -1 };
	open_in(f, 0, NULL, 0);
	open_out(f, 0, NULL, 0);
}

/* Write up to @n bytes; < 0: -errno. */
static inline ssize_t flow_write(struct flow *f, size_t n)
{
	uint8_t data[65536];
	ssize_t done;

	for (size_t i = 0; i < n; i++)
		data[i] = byte_at(f->id, f->written + i);
	done = write(f->in, data, n);
	if (done < 0)
		return -errno;
	f->written += (uint64_t)done;
	return done;
}

static inline void flow_read(struct flow *f, size_t n)
{
	uint8_t data[65536];
	ssize_t got = read(f->out, data, n);

	f->ended |= got == 0;
	for (ssize_t i = 0; i < got; i++)
		if (data[i] != byte_at(f->id, f->got + (uint64_t)i))
			fail_msg("stream %llx: byte %llu is wrong", (unsigned long long)f->id,
				 (unsigned long long)f->got + (uint64_t)i);
	f->got += got > 0 ? (uint64_t)got : 0;
}

static inline void flow_end(struct flow *f)
{
	(void)close(f->in);
	f->in = -1;
	for (int i = 0; !f->ended; i++) {
		if (i == 20000)
			fail_msg("no end of file after %llu of %llu bytes",
				 (unsigned long long)f->got, (unsigned long long)f->written);
		flow_read(f, 65536);
		turn(f->from->event, NSEC_PER_MSEC / 2);
	}
	assert_int_equal(f->got, f->written);
	(void)close(f->out);
}
