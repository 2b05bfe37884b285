#pragma once
/*
 * A link and its owner, as the files of the TCP transport share them:
 *
 *   transport_tcp.c   listens, connects, sends; strangers
 *   transport_link.c  a link's life: handshake, up, its end
 *   transport_flow.c  its bytes: socket <-> TLS <-> frames
 *   transport_join.c  those that come to join
 */
#include "buf.h"
#include "env.h"
#include "transport_frame.h"
#include "transport_tcp.h"
#include "transport_tls.h"

#include <stdbool.h>
#include <sys/queue.h>

enum {
	UNPROVEN_MAX = 256,	/* accepted links that have not shown who they are */
	UNPROVEN_HOST_MAX = 64, /* of them, from one address */
	JOINS_MAX = 128,
	JOIN_REQUEST_MAX = 4096,
	JOIN_REPLY_MAX = 65536,
	NOISY_MAX = 64,	      /* addresses whose refusals we remember */
	WIRE_MAX = 256 << 10, /* bytes of one read, and about of one write */
	RECORD_MAX = 16384,   /* plain bytes in a TLS record */
};

enum link_state {
	LINK_CONNECTING, /* TCP */
	LINK_HANDSHAKE,
	LINK_UP,
	LINK_JOIN,
	LINK_CLOSING, /* ends from its timer */
};

struct transport_link {
	LIST_ENTRY(transport_link) in;
	struct transport_tcp *tcp;
	enum link_state state;
	bool ours;     /* we opened it: connect()'s caller knows it */
	bool unproven; /* counted as such */
	bool was_up, refused_some, corked;
	bool answered; /* a joiner that was */
	node_id peer;  /* expected, then proven */
	char address[64];
	char reason[160];
	struct env_timer timer; /* the handshake's time, then the end's */
	struct env_fd watch;
	SSL *ssl;
	struct frame_reader reader;
	struct out_queue queue; /* plain */
	struct buf wire;	/* encrypted, not yet taken by the socket */
	size_t wire_sent;
	uint64_t n_sealed;		 /* bytes under the present key */
	struct transport_tcp_join *join; /* until it is answered */
};

/* A request to join; outlives its link, and the transport. */
struct transport_tcp_join {
	LIST_ENTRY(transport_tcp_join) in;
	struct transport_tcp *tcp;   /* NULL: it is gone */
	struct transport_link *link; /* NULL: the joiner has left */
	bool asked;
	size_t n_data;
	uint8_t data[sizeof(uint32_t) + JOIN_REQUEST_MAX];
};

/* Who was refused, and when it was last logged. */
struct noisy {
	char address[64];
	nsec_t logged; /* 0: free */
};

struct transport_tcp {
	struct transport transport;
	const struct env *env;
	node_id self;
	char *cluster;
	SSL_CTX *tls;
	BIO_METHOD *bio;
	struct env_fd listener;
	struct env_timer listen_again;
	struct transport_events events;
	void *owner;
	transport_tcp_on_join on_join;
	void *join_owner;
	LIST_HEAD(, transport_link) links;
	LIST_HEAD(, transport_tcp_join) joins;
	unsigned n_unproven, n_joins;
	struct noisy noisy[NOISY_MAX];
	/* What one link at a time reads into: nothing stays in them between its turns.
	 */
	uint8_t wire[WIRE_MAX];
	size_t wire_start, wire_end;
	const struct transport_link *wire_link; /* whose bytes they are */
	uint8_t plain[RECORD_MAX];
	struct buf spare; /* for the next link that has something to write */
	struct frame_spare frames;
};

/* transport_tcp.c */
bool stranger_may_be_logged(struct transport_tcp *t, const char *address);

/* transport_link.c.  link_new() takes @fd; its first event is waited for. */
int link_new(struct transport_link **ret, struct transport_tcp *t, int fd, bool ours,
	     const char *address);
void link_free(struct transport_link *l);
/* End a link, later: on_down comes from the loop. */
void link_doom(struct transport_link *l, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* The handshake is through: who is it? */
void link_shaken(struct transport_link *l);

/* transport_flow.c */
BIO_METHOD *flow_bio_method(void);
int flow_init(struct transport_link *l);
void flow_on_events(struct env_fd *watch, unsigned events);
/* Send what waits, as far as the socket takes it; then watch for the rest. */
void flow_flush(struct transport_link *l);
/* Unsent bytes, plain or encrypted. */
size_t flow_queued(const struct transport_link *l);

/* transport_join.c: a link that came to join. */
void join_begin(struct transport_link *l);
void join_on_data(struct transport_link *l, const uint8_t *data, size_t n);
void join_on_gone(struct transport_link *l);
