#pragma once
/* A link and its owner, as the files of the TCP transport share them. */
#include "env.h"
#include "transport_tcp.h"
#include "transport_tls.h"

#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <stdbool.h>
#include <sys/queue.h>

enum {
	UNPROVEN_MAX = 256, /* links that have not shown who they are */
	JOINS_MAX = 16,
	JOIN_REQUEST_MAX = 4096,
	JOIN_REPLY_MAX = 65536,
	NOISY_MAX = 64,     /* addresses whose refusals we remember */
};

enum link_state { LINK_HANDSHAKE, LINK_UP, LINK_JOIN, LINK_CLOSING };

struct transport_link {
	LIST_ENTRY(transport_link) entry;
	struct transport_tcp *tcp;
	struct bufferevent *bev;
	enum link_state state;
	bool was_up, refused_some;
	node_id peer;     /* expected, then proven */
	bool ours;        /* we opened it: connect()'s caller knows it */
	char address[64];
	char reason[160];
	struct env_timer timer; /* the handshake's time, then the end's */
	struct transport_tcp_join *join;
};

/* A request to join; outlives its link. */
struct transport_tcp_join {
	struct transport_link *link; /* NULL: the joiner has left */
	struct transport_tcp *tcp;
	bool replied;
};

/* Who was refused, and when it was last logged. */
struct noisy {
	char address[64];
	nsec_t logged;
};

struct transport_tcp {
	struct transport transport;
	const struct env *env;
	struct event_base *base;
	node_id self;
	char *cluster;
	SSL_CTX *tls;
	struct evconnlistener *listener;
	struct transport_events events;
	void *owner;
	transport_tcp_on_join on_join;
	void *join_owner;
	LIST_HEAD(, transport_link) links;
	unsigned n_unproven, n_joins;
	struct noisy noisy[NOISY_MAX];
};

/* End a link, later: on_down comes from the loop. */
void link_doom(struct transport_link *l, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* transport_join.c: a link that came to join. */
void join_begin(struct transport_link *l);
void join_on_data(struct transport_link *l);
void join_on_sent(struct transport_link *l);
void join_on_gone(struct transport_link *l);
