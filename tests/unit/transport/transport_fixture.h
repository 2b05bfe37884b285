#pragma once
/*
 * Two clusters' authorities and certificates on disk, one loop, and nodes whose
 * transports write down what they were told.  Strangers are threads with a socket.
 */
#include "cleanup.h"
#include "env_event.h"
#include "transport_tcp.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { FRAMES_MAX = 4096, LINKS_MAX = 8 };

/* A frame as it was told, with a sum in place of its bytes. */
struct told_frame {
	uint8_t kind;
	uint16_t method;
	uint64_t id;
	epoch_t epoch;
	size_t message_len, bulk_len;
	uint64_t sum;
};

struct fixture_node {
	struct transport_tcp *tcp;
	const struct transport *t;
	char address[32];
	struct transport_link *links[LINKS_MAX]; /* up, oldest first */
	node_id peers[LINKS_MAX];
	unsigned n_links, n_up, n_down, n_writable, n_frames;
	struct told_frame frames[FRAMES_MAX];
	node_id down_peer;
	char reason[160]; /* of the last on_down */
	int frame_result; /* what on_frame answers */
	bool close_on_up, close_on_frame, echo;
	bool calling; /* nothing may be told now */
	/* Joining. */
	struct transport_tcp_join *joins[160];
	unsigned n_joins;
	char join_data[5000], join_address[64];
	size_t join_len;
	const char *answer; /* at once, when not NULL */
};

extern struct env_event *loop;
extern const struct env *env;
extern char ca_pem[2][4096]; /* of the two clusters */
extern uint8_t fingerprint[2][32];

int fixture_setup(void **state);
int fixture_teardown(void **state);

/* Files of node @id (1..3) of @cluster (0, 1): "ca", "cert", "key". */
const char *fixture_file(unsigned cluster, node_id id, const char *what);
void node_open(struct fixture_node *n, unsigned cluster, node_id id);
void node_close(struct fixture_node *n);
/* Begin to connect; *ret as connect() gave it. */
int node_connect(struct fixture_node *n, node_id peer, const char *address,
		 struct transport_link **ret);
int node_send(struct fixture_node *n, struct transport_link *l,
	      const struct transport_frame *f);
/* Both up, on one link: the first of each. */
void nodes_link(struct fixture_node *a, struct fixture_node *b, node_id b_id);
uint64_t sum_of(const struct transport_frame *f);

/* Turn until *n >= @least; fails after 10 s. */
void run_until(const unsigned *n, unsigned least);
void run_for(nsec_t time);

/* A peer by hand.  All but result and fd are given. */
struct stranger {
	const char *address;
	const char *from;     /* "127.0.0.2", or NULL */
	bool tls;	      /* or plain bytes */
	unsigned cluster, id; /* its certificate; id 0: none */
	const char *alpn;     /* with its length byte; NULL: none */
	bool old;	      /* TLS 1.2 at most */
	const void *data;     /* to send */
	size_t len;
	nsec_t pause; /* between bytes */
	bool hang_up; /* then, and do not listen */
	/* What became of it. */
	bool shaken;
	size_t n_received;
	uint8_t received[256];
	nsec_t took;
	unsigned ended;
	pthread_t thread;
};

/* Connect, send, read until the other side closes; ended becomes 1. */
void stranger_start(struct stranger *s);
void stranger_wait(struct stranger *s);
