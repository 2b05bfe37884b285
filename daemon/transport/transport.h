#pragma once
/*
 * DOOR.  Ordered, authenticated links of frames between nodes.
 *
 * A frame is a fixed header, a message (protobuf, <= TRANSPORT_MESSAGE_MAX) and
 * bulk bytes beside it (<= TRANSPORT_BULK_MAX).  A link delivers frames in order
 * and at most once, until it goes down; it never comes up again, a new one does.
 * At most one link is kept between two nodes by rpc, which opens them on demand.
 *
 * Knows: nobody.  Tells: its owner (rpc), through struct transport_events.
 * transport_tcp.c is the real one (mutual TLS 1.3); tests/sim/world.c has one
 * that delays, drops links, cuts and reorders between links.
 * Thread: the loop.
 */
#include "ids.h"

#include <stddef.h>
#include <sys/uio.h>

enum {
	TRANSPORT_MESSAGE_MAX = 1 << 20,
	TRANSPORT_BULK_MAX = 1 << 20,
	/* Above this many unsent bytes send() refuses; on_writable comes when
	 * half of it has left. */
	TRANSPORT_QUEUE_MAX = 8 << 20,
};

enum {
	_TRANSPORT_E_SUCCESS,
	TRANSPORT_E_FULL, /* the queue is full: wait for on_writable */
	TRANSPORT_E_DOWN, /* the link is going down; on_down comes or came */
};

enum transport_kind {
	TRANSPORT_REQUEST = 1,
	TRANSPORT_REPLY = 2,  /* success */
	TRANSPORT_FAILED = 3, /* message is an ssi.envelope.Failure */
	TRANSPORT_NOTIFY = 4, /* no reply wanted */
};

/* In host order here; little-endian, packed and bounded on the wire. */
struct transport_frame {
	uint8_t kind;    /* enum transport_kind */
	uint16_t method; /* room << 8 | n */
	uint64_t id;     /* pairs a request with its reply; per link and sender */
	epoch_t epoch;   /* the sender's view */
	struct iovec message;
	struct iovec bulk;
};

struct transport;
struct transport_link;

struct transport_events {
	/* Authenticated and ready, whichever side opened it. */
	void (*on_up)(void *owner, struct transport_link *link, node_id peer);
	/* The link is gone and freed when this returns.  @reason: a static or
	 * link-owned line for people ("connection refused", "certificate of
	 * another cluster").  @peer is NODE_NONE when nobody was authenticated. */
	void (*on_down)(void *owner, struct transport_link *link, node_id peer,
			const char *reason);
	/* The frame's bytes are valid during the call only.  A result other than
	 * 0 closes the link: the peer broke the protocol. */
	int (*on_frame)(void *owner, struct transport_link *link,
			const struct transport_frame *frame);
	void (*on_writable)(void *owner, struct transport_link *link);
};

struct transport_ops {
	/* Open a link to @peer at @address ("10.0.0.1:7777", "[::1]:7777").  0:
	 * exactly one of on_up, on_down follows, later; *ret is valid until
	 * on_down.  A peer that proves to be another node goes down. */
	int (*connect)(void *impl, node_id peer, const char *address,
		       struct transport_link **ret);
	/* Copies the bytes.  TRANSPORT_E_*. */
	int (*send)(void *impl, struct transport_link *link,
		    const struct transport_frame *frame);
	/* on_down still comes, later. */
	void (*close)(void *impl, struct transport_link *link, const char *reason);
};

struct transport {
	const struct transport_ops *ops;
	void *impl;
};
