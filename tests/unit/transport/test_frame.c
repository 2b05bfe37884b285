/* Headers, the reader of frames, the queue of what is to be sent: no network. */
#include "transport_address.h"
#include "transport_fixture.h"
#include "transport_frame.h"
#include "transport_wire.h"

static struct transport_frame some_frame(size_t message_len, size_t bulk_len)
{
	static uint8_t data[TRANSPORT_BULK_MAX];

	if (!data[1])
		for (size_t i = 0; i < sizeof(data); i++)
			data[i] = (uint8_t)(i * 7 + i / 251);
	return (struct transport_frame){.kind = TRANSPORT_REQUEST,
					.method = 0x0102,
					.id = 0x0102030405060708,
					.epoch = 0x1112131415161718,
					.message = {data, message_len},
					.bulk = {data, bulk_len}};
}

static void a_header_stands_on_the_wire_as_documented(void **state)
{
	static const uint8_t expected[TRANSPORT_HEADER_SIZE] = {
		'S', 'S', 'I',	'1',  1,    1,	  0x02, 0x01, 8,    7,	  6, 5, 4, 3,
		2,   1,	  0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, 3, 0, 0, 0,
		0,   0,	  0x10, 0,    0,    0,	  0,	0,    0,    0,	  0, 0,
	};
	struct transport_frame f = some_frame(3, 1 << 20);
	uint8_t header[TRANSPORT_HEADER_SIZE];

	transport_header_encode(&f, header);
	assert_memory_equal(header, expected, sizeof(header));
}

static void a_header_is_decoded_to_what_was_encoded(void **state)
{
	struct transport_frame f = some_frame(TRANSPORT_MESSAGE_MAX, 0), got;
	uint8_t header[TRANSPORT_HEADER_SIZE];

	f.kind = TRANSPORT_NOTIFY;
	f.id = UINT64_MAX;
	f.method = UINT16_MAX;
	transport_header_encode(&f, header);
	assert_true(transport_header_decode(header, &got));
	assert_int_equal(got.kind, f.kind);
	assert_int_equal(got.method, f.method);
	assert_true(got.id == f.id && got.epoch == f.epoch);
	assert_int_equal(got.message.iov_len, TRANSPORT_MESSAGE_MAX);
	assert_int_equal(got.bulk.iov_len, 0);
	assert_null(got.message.iov_base);
}

static void every_odd_header_is_refused(void **state)
{
	static const struct {
		unsigned at;
		uint8_t value;
	} odd[] = {{0, 'X'}, {3, '2'},	 {4, 2},     {5, 0},  {5, 5}, {26, 0x11},
		   {27, 1},  {30, 0x11}, {31, 0xff}, {32, 1}, {39, 1}};
	struct transport_frame f = some_frame(1, 1), got;
	uint8_t header[TRANSPORT_HEADER_SIZE];

	for (unsigned i = 0; i < N_ELEMENTS(odd); i++) {
		transport_header_encode(&f, header);
		assert_true(transport_header_decode(header, &got));
		header[odd[i].at] = odd[i].value;
		assert_false(transport_header_decode(header, &got));
	}
}

/* The reader. */

struct reading {
	struct frame_reader reader;
	struct frame_spare spare;
	unsigned n;
	uint64_t sums[64];
	int result;
};

static int on_frame(void *owner, const struct transport_frame *f)
{
	struct reading *r = owner;

	r->sums[r->n++] = sum_of(f);
	return r->result;
}

static size_t append(uint8_t *to, const struct transport_frame *f)
{
	transport_header_encode(f, to);
	memcpy(to + TRANSPORT_HEADER_SIZE, f->message.iov_base, f->message.iov_len);
	memcpy(to + TRANSPORT_HEADER_SIZE + f->message.iov_len, f->bulk.iov_base,
	       f->bulk.iov_len);
	return TRANSPORT_HEADER_SIZE + f->message.iov_len + f->bulk.iov_len;
}

/* Feed in pieces of at most @piece, as a socket would. */
static int feed(struct reading *r, const uint8_t *data, size_t len, size_t piece)
{
	uint8_t scratch[16384];

	r->reader.spare = &r->spare;
	for (size_t at = 0; at < len;) {
		size_t room;
		uint8_t *p =
			frame_reader_room(&r->reader, scratch, sizeof(scratch), &room);
		int result;

		room = room < piece ? room : piece;
		room = room < len - at ? room : len - at;
		memcpy(p, data + at, room);
		at += room;
		result = frame_reader_got(&r->reader, p, room, on_frame, r);
		if (result)
			return result;
	}
	return 0;
}

static void frames_are_told_whole_whatever_the_pieces(void **state)
{
	static const size_t sizes[][2] = {{0, 0},  {1, 0},	 {0, 1},    {100, 50},
					  {39, 0}, {40, 40},	 {5000, 0}, {0, 20000},
					  {0, 0},  {300, 40000}, {1, 1}};
	static const size_t pieces[] = {1, 2, 7, 39, 40, 41, 100, 4096, 1 << 20};
	uint8_t *stream = malloc(1 << 20);
	uint64_t sums[N_ELEMENTS(sizes)];
	size_t len = 0;

	for (unsigned i = 0; i < N_ELEMENTS(sizes); i++) {
		struct transport_frame f = some_frame(sizes[i][0], sizes[i][1]);

		len += append(stream + len, &f);
		sums[i] = sum_of(&f);
	}
	for (unsigned i = 0; i < N_ELEMENTS(pieces); i++) {
		struct reading r = {0};

		assert_int_equal(feed(&r, stream, len, pieces[i]), 0);
		assert_int_equal(r.n, N_ELEMENTS(sizes));
		assert_memory_equal(r.sums, sums, sizeof(sums));
		frame_reader_fini(&r.reader);
		frame_spare_fini(&r.spare);
	}
	free(stream);
}

static void the_largest_frame_is_read_and_a_larger_one_allocates_nothing(void **state)
{
	struct transport_frame f =
		some_frame(TRANSPORT_MESSAGE_MAX, TRANSPORT_BULK_MAX);
	uint8_t *stream = malloc(TRANSPORT_HEADER_SIZE + (2 << 20));
	size_t len = append(stream, &f);
	struct reading r = {0}, larger = {0};

	assert_int_equal(feed(&r, stream, len, 16384), 0);
	assert_int_equal(r.n, 1);
	assert_true(r.sums[0] == sum_of(&f));
	stream[28] = 1; /* one byte of bulk too many */
	assert_int_equal(feed(&larger, stream, len, 16384), -EBADMSG);
	assert_null(larger.reader.body);
	assert_null(larger.spare.body);
	frame_reader_fini(&r.reader);
	frame_spare_fini(&r.spare);
	free(stream);
}

static void a_reader_stops_when_it_is_told_to(void **state)
{
	struct transport_frame f = some_frame(10, 0);
	uint8_t stream[200];
	size_t len = append(stream, &f);
	struct reading r = {.result = 1};

	len += append(stream + len, &f);
	assert_int_equal(feed(&r, stream, len, len), 1);
	assert_int_equal(r.n, 1);
	frame_reader_fini(&r.reader);
	frame_spare_fini(&r.spare);
}

static void a_frame_that_never_ends_is_freed_with_its_reader(void **state)
{
	struct transport_frame f = some_frame(0, 1 << 20);
	uint8_t stream[TRANSPORT_HEADER_SIZE];
	struct reading r = {0};

	transport_header_encode(&f, stream);
	assert_int_equal(feed(&r, stream, sizeof(stream), 16), 0);
	assert_non_null(r.reader.body);
	frame_reader_fini(&r.reader);
	frame_spare_fini(&r.spare);
}

/* The queue. */

static void what_is_queued_comes_out_in_order(void **state)
{
	struct frame_spare spare = {0};
	struct out_queue q;
	size_t in = 0, out = 0;

	out_queue_init(&q, &spare);
	for (size_t round = 0; round < 300; round++) {
		struct transport_frame f =
			some_frame(round * 37 % 5000, round % 7 ? 0 : 200000);
		struct iovec parts[] = {f.message, f.bulk};
		const uint8_t *p;
		size_t n;

		assert_int_equal(out_queue_append(&q, parts, 2), 0);
		in += f.message.iov_len + f.bulk.iov_len;
		while ((n = out_queue_peek(&q, &p)) && q.bytes > 100000) {
			n = n < 3000 ? n : 3000;
			out_queue_drop(&q, n);
			out += n;
		}
		assert_int_equal(q.bytes, in - out);
	}
	out_queue_fini(&q);
	frame_spare_fini(&spare);
}

static void what_is_queued_is_a_copy(void **state)
{
	struct frame_spare spare = {0};
	struct out_queue q;
	char text[] = "hello";
	struct iovec part = {text, 5};
	const uint8_t *p;

	out_queue_init(&q, &spare);
	assert_int_equal(out_queue_append(&q, &(struct iovec){0}, 1), 0);
	assert_int_equal(out_queue_peek(&q, &p), 0);
	assert_int_equal(out_queue_append(&q, &part, 1), 0);
	memset(text, 'x', 5);
	assert_int_equal(out_queue_peek(&q, &p), 5);
	assert_memory_equal(p, "hello", 5);
	out_queue_fini(&q);
	frame_spare_fini(&spare);
}

/* Addresses. */

static void addresses_are_numbers_with_a_port(void **state)
{
	static const char *const good[] = {"10.0.0.1:7777", "[::1]:7777",
					   "[fe80::1]:1"};
	static const char *const bad[] = {"",
					  ":",
					  ":1",
					  "10.0.0.1",
					  "10.0.0.1:",
					  "10.0.0.1:0",
					  "10.0.0.1:70000",
					  "[::1]",
					  "[::1:7777",
					  "::1:7777",
					  "[]:1",
					  "localhost:1",
					  "10.0.0.1:x",
					  "[::1]7777",
					  "10.0.0.1:1:2"};
	struct sockaddr_storage a;
	char longest[300];
	socklen_t len;

	for (unsigned i = 0; i < N_ELEMENTS(good); i++)
		assert_int_equal(transport_address_parse(good[i], false, &a, &len), 0);
	for (unsigned i = 0; i < N_ELEMENTS(bad); i++)
		assert_int_equal(transport_address_parse(bad[i], false, &a, &len),
				 -EINVAL);
	assert_int_equal(transport_address_parse("127.0.0.1", true, &a, &len), 0);
	assert_int_equal(transport_address_parse("[::]:0", true, &a, &len), 0);
	memset(longest, '1', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	assert_int_equal(transport_address_parse(longest, true, &a, &len), -EINVAL);
	longest[10] = ':';
	assert_int_equal(transport_address_parse(longest, true, &a, &len), -EINVAL);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_header_stands_on_the_wire_as_documented),
		cmocka_unit_test(a_header_is_decoded_to_what_was_encoded),
		cmocka_unit_test(every_odd_header_is_refused),
		cmocka_unit_test(frames_are_told_whole_whatever_the_pieces),
		cmocka_unit_test(
			the_largest_frame_is_read_and_a_larger_one_allocates_nothing),
		cmocka_unit_test(a_reader_stops_when_it_is_told_to),
		cmocka_unit_test(a_frame_that_never_ends_is_freed_with_its_reader),
		cmocka_unit_test(what_is_queued_comes_out_in_order),
		cmocka_unit_test(what_is_queued_is_a_copy),
		cmocka_unit_test(addresses_are_numbers_with_a_port),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
