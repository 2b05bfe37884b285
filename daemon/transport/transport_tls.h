#pragma once
/* TLS 1.3 contexts, and what a peer's certificate says. */
#include "ids.h"

#include <openssl/ssl.h>
#include <stdbool.h>

enum tls_protocol {
	TLS_NONE,
	TLS_NODE, /* "ssi/1": both sides show a certificate of the cluster */
	TLS_JOIN, /* "ssi-join/1": only the server does */
};

/* One context serves both directions.  -EKEYREJECTED: the files do not belong together.
 */
int tls_context_new(SSL_CTX **ret, const char *ca_file, const char *cert_file,
		    const char *key_file);
/* A client that joins: no certificate, trusts nothing yet. */
int tls_join_context_new(SSL_CTX **ret);

/* A client's connection which asks for @protocol; a server's takes what it is asked. */
SSL *tls_client_new(SSL_CTX *context, enum tls_protocol protocol);
SSL *tls_server_new(SSL_CTX *context);
/* After the handshake. */
enum tls_protocol tls_protocol(const SSL *ssl);
/* The verified peer's number, of @cluster; NODE_NONE: no such certificate. */
node_id tls_peer(const SSL *ssl, const char *cluster);
/* The number in our own certificate. */
node_id tls_self(const SSL_CTX *context, const char *cluster);
/* The server of a join shows the authority of @fingerprint and a node's certificate
 * signed by it. */
bool tls_join_trusted(const SSL *ssl, const uint8_t fingerprint[static 32]);
/* Why the last operation failed, static; empties OpenSSL's queue. */
const char *tls_error(const SSL *ssl);
