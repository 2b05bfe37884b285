#pragma once
/*
 * Links over TCP with mutual TLS 1.3 (OpenSSL on env's loop).
 *
 * Who a peer is stands in its certificate, signed by the cluster's authority
 * (CN = "node-<id>", O = cluster id).  A peer without one gets nowhere, is
 * logged once per address and minute, and has 5 s and no memory to try.
 *
 * Joining is the one thing done without a certificate: ALPN "ssi-join/1" in
 * place of "ssi/1", one request of at most 4 KiB, one reply, end.  The joiner
 * checks the other side against the fingerprint in its token.
 */
#include "transport.h"

struct env;
struct event_base;
struct transport_tcp;
struct transport_tcp_join;

struct transport_tcp_config {
	const char *listen_address; /* "10.0.0.1:7777" */
	const char *ca_file;        /* PEM */
	const char *cert_file;      /* PEM, this node's */
	const char *key_file;       /* PEM, mode 0600 */
	node_id self;
};

/* A joiner's request.  @data is valid during the call.  Answer exactly once, now or later,
 * with transport_tcp_join_reply(); @join stays valid until then, even if the peer left. */
typedef void (*transport_tcp_on_join)(void *owner, struct transport_tcp_join *join,
				      const char *address, const uint8_t *data, size_t len);

/* @base is not needed: NULL will do.  -EKEYREJECTED: the files do not belong together, or
 * not to node @config->self. */
int transport_tcp_new(struct transport_tcp **ret, const struct env *env,
		      struct event_base *base, const struct transport_tcp_config *config,
		      const struct transport_events *events, void *owner,
		      transport_tcp_on_join on_join, void *join_owner);
/* Its links end without on_down; what asked to join may still be answered. */
struct transport_tcp *transport_tcp_free(struct transport_tcp *t);
const struct transport *transport_tcp_transport(struct transport_tcp *t);
/* The port listened on: the kernel's choice when the address named none. */
uint16_t transport_tcp_port(const struct transport_tcp *t);
void transport_tcp_join_reply(struct transport_tcp_join *join, const uint8_t *data, size_t len);

/*
 * The joiner's side, blocking, for ssid before its rooms exist: connect to
 * @address, require a server certificate whose issuer's SHA-256 fingerprint is
 * @ca_fingerprint (32 bytes), send @request, read one reply (malloc()ed, <= 64 KiB).
 * < 0 -errno with *ret_text naming the reason (static).
 */
int transport_tcp_join(const char *address, const uint8_t ca_fingerprint[static 32],
		       const void *request, size_t len, nsec_t timeout, uint8_t **ret_reply,
		       size_t *ret_len, const char **ret_text);
