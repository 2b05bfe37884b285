#pragma once
/*
 * Frames out of a stream of bytes, and bytes waiting to leave.  No I/O, no TLS:
 * what a peer can send is decided here, and fuzzed here.
 *
 * Invariant: nothing is allocated for a frame before its header was found good.
 */
#include "transport.h"
#include "transport_wire.h"

#include <stdbool.h>
#include <sys/queue.h>

/* Its bytes are valid during the call.  Not 0: read no further. */
typedef int (*frame_cb)(void *owner, const struct transport_frame *frame);

struct out_chunk;

/*
 * Memory kept between frames, for all links of a transport: a malloc() and free() of
 * a mebibyte for each costs more than its encryption, in page faults.  Zeroed.
 */
struct frame_spare {
	uint8_t *body;
	size_t body_room;
	SLIST_HEAD(, out_chunk) chunks;
	size_t n_chunks;
};

void frame_spare_fini(struct frame_spare *s);

/* Embedded and zeroed by its owner, but for spare. */
struct frame_reader {
	struct frame_spare *spare;
	uint8_t header[TRANSPORT_HEADER_SIZE];
	size_t n_header;
	struct transport_frame frame; /* whose body is being collected */
	uint8_t *body;		      /* NULL: between frames, or in a header */
	size_t n_body, body_room;
};

/* Where the next bytes are to be put: into the body under way, or into @scratch. */
uint8_t *frame_reader_room(struct frame_reader *r, uint8_t *scratch, size_t scratch_len,
			   size_t *ret_len);
/* @n bytes stand at @data, which frame_reader_room() gave.  -EBADMSG: they are no
 * frames; -ENOMEM; @cb's result when it was not 0. */
int frame_reader_got(struct frame_reader *r, const uint8_t *data, size_t n, frame_cb cb,
		     void *owner);
void frame_reader_fini(struct frame_reader *r);

/* Copies of what is to be sent, packed into chunks of one size. */
struct out_queue {
	struct frame_spare *spare;
	TAILQ_HEAD(out_chunks, out_chunk) chunks;
	size_t bytes;
};

void out_queue_init(struct out_queue *q, struct frame_spare *spare);
void out_queue_fini(struct out_queue *q);
/* All of the parts or, with -ENOMEM, none. */
int out_queue_append(struct out_queue *q, const struct iovec *parts, size_t n_parts);
/* The first bytes, in one piece; 0: empty. */
size_t out_queue_peek(const struct out_queue *q, const uint8_t **ret);
void out_queue_drop(struct out_queue *q, size_t n);
