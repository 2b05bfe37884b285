#include "transport_tls.h"

#include "err.h"

#include <openssl/err.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>

static const unsigned char NODE_ALPN[] = "\x05ssi/1";
static const unsigned char JOIN_ALPN[] = "\x0assi-join/1";

/* The server's choice: the first of the client's that we know; none: no handshake. */
static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
		   const unsigned char *in, unsigned in_len, void *argument)
{
	static const unsigned char ours[] = "\x05ssi/1\x0assi-join/1";
	unsigned char *chosen;

	if (SSL_select_next_proto(&chosen, out_len, ours, sizeof(ours) - 1, in, in_len) !=
	    OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*out = chosen;
	return SSL_TLSEXT_ERR_OK;
}

static SSL_CTX *context_new(void)
{
	SSL_CTX *c = SSL_CTX_new(TLS_method());

	if (!c)
		return NULL;
	if (!SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION) || !SSL_CTX_set_num_tickets(c, 0)) {
		SSL_CTX_free(c);
		return NULL;
	}
	SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION);
	SSL_CTX_set_alpn_select_cb(c, on_alpn, NULL);
	return c;
}

int tls_context_new(SSL_CTX **ret, const char *ca_file, const char *cert_file,
		    const char *key_file)
{
	SSL_CTX *c = context_new();

	if (!c)
		return err_origin(-ENOMEM);
	/* Whether a client must show a certificate depends on the protocol it asked
	 * for, which is looked at after the handshake; one that it shows must be good. */
	SSL_CTX_set_verify(c, SSL_VERIFY_PEER, NULL);
	if (SSL_CTX_load_verify_file(c, ca_file) != 1 ||
	    SSL_CTX_use_certificate_chain_file(c, cert_file) != 1 ||
	    SSL_CTX_use_PrivateKey_file(c, key_file, SSL_FILETYPE_PEM) != 1 ||
	    SSL_CTX_check_private_key(c) != 1) {
		ERR_clear_error();
		SSL_CTX_free(c);
		return err_origin(-EINVAL);
	}
	/* A joiner, who trusts a fingerprint of the authority, is shown it: OpenSSL sends
	 * the chain that it can build, root included, unless told otherwise. */
	(void)SSL_CTX_clear_mode(c, SSL_MODE_NO_AUTO_CHAIN);
	*ret = c;
	return 0;
}

int tls_join_context_new(SSL_CTX **ret)
{
	SSL_CTX *c = context_new();

	if (!c)
		return err_origin(-ENOMEM);
	*ret = c;
	return 0;
}

SSL *tls_client_new(SSL_CTX *context, enum tls_protocol protocol)
{
	SSL *ssl = SSL_new(context);
	int failed;

	if (!ssl)
		return NULL;
	failed = protocol == TLS_JOIN
			 ? SSL_set_alpn_protos(ssl, JOIN_ALPN, sizeof(JOIN_ALPN) - 1)
			 : SSL_set_alpn_protos(ssl, NODE_ALPN, sizeof(NODE_ALPN) - 1);
	if (failed) {
		SSL_free(ssl);
		return NULL;
	}
	SSL_set_connect_state(ssl);
	return ssl;
}

SSL *tls_server_new(SSL_CTX *context)
{
	SSL *ssl = SSL_new(context);

	if (ssl)
		SSL_set_accept_state(ssl);
	return ssl;
}

enum tls_protocol tls_protocol(const SSL *ssl)
{
	const unsigned char *name;
	unsigned len;

	SSL_get0_alpn_selected(ssl, &name, &len);
	if (len == 5 && memcmp(name, NODE_ALPN + 1, 5) == 0)
		return TLS_NODE;
	if (len == 10 && memcmp(name, JOIN_ALPN + 1, 10) == 0)
		return TLS_JOIN;
	return TLS_NONE;
}

node_id tls_peer(const SSL *ssl, const char *cluster)
{
	X509 *x = SSL_get0_peer_certificate(ssl);
	X509_NAME *subject = x ? X509_get_subject_name(x) : NULL;
	char common[64], organisation[128], tail;
	unsigned id;

	if (!subject || SSL_get_verify_result(ssl) != X509_V_OK ||
	    X509_NAME_get_text_by_NID(subject, NID_organizationName, organisation,
				      sizeof(organisation)) <= 0 ||
	    X509_NAME_get_text_by_NID(subject, NID_commonName, common, sizeof(common)) <= 0 ||
	    strcmp(organisation, cluster) != 0 || sscanf(common, "node-%u%c", &id, &tail) != 1)
		return NODE_NONE;
	return id;
}
