/*
 * Trust is one rule: a certificate signed by the cluster's authority.  The names
 * in it were written by the authority too, so they may be believed.
 *
 * In TLS 1.3 a client is through its handshake before the server has looked at the
 * client's certificate: a refused client sees its link come up and go down again.
 */
#include "transport_tls.h"

#include "err.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

static const unsigned char NODE_ALPN[] = "\x05ssi/1";
static const unsigned char JOIN_ALPN[] = "\x0assi-join/1";
/* What the machines have instructions for comes first. */
static const char CIPHERS[] =
	"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";

/* The server's choice; none that we know: no handshake.  Only a joiner may come without
 * a certificate. */
static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
		   const unsigned char *in, unsigned in_len, void *argument)
{
	static const unsigned char ours[] = "\x05ssi/1\x0assi-join/1";
	unsigned char *chosen;

	if (SSL_select_next_proto(&chosen, out_len, ours, sizeof(ours) - 1, in,
				  in_len) != OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	if (*out_len == JOIN_ALPN[0])
		SSL_set_verify(ssl, SSL_VERIFY_NONE, NULL);
	*out = chosen;
	return SSL_TLSEXT_ERR_OK;
}

static SSL_CTX *context_new(void)
{
	SSL_CTX *c = SSL_CTX_new(TLS_method());

	if (!c)
		return NULL;
	if (!SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION) ||
	    !SSL_CTX_set_ciphersuites(c, CIPHERS) || !SSL_CTX_set_num_tickets(c, 0)) {
		SSL_CTX_free(c);
		return NULL;
	}
	(void)SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
	(void)SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS |
					  SSL_MODE_ENABLE_PARTIAL_WRITE |
					  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_alpn_select_cb(c, on_alpn, NULL);
	return c;
}

/* The chain that we show ends in the authority: a joiner, who knows only its
 * fingerprint, must see it. */
static bool load(SSL_CTX *c, const char *ca_file, const char *cert_file,
		 const char *key_file)
{
	return SSL_CTX_load_verify_file(c, ca_file) == 1 &&
	       SSL_CTX_use_certificate_file(c, cert_file, SSL_FILETYPE_PEM) == 1 &&
	       SSL_CTX_use_PrivateKey_file(c, key_file, SSL_FILETYPE_PEM) == 1 &&
	       SSL_CTX_check_private_key(c) == 1 && SSL_CTX_build_cert_chain(c, 0) == 1;
}

int tls_context_new(SSL_CTX **ret, const char *ca_file, const char *cert_file,
		    const char *key_file)
{
	SSL_CTX *c = context_new();

	if (!c)
		return err_origin(-ENOMEM);
	SSL_CTX_set_verify(c, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	if (!load(c, ca_file, cert_file, key_file)) {
		ERR_clear_error();
		SSL_CTX_free(c);
		return err_origin(-EKEYREJECTED);
	}
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
	if (len == NODE_ALPN[0] && memcmp(name, NODE_ALPN + 1, len) == 0)
		return TLS_NODE;
	if (len == JOIN_ALPN[0] && memcmp(name, JOIN_ALPN + 1, len) == 0)
		return TLS_JOIN;
	return TLS_NONE;
}

/* CN = "node-<id>", O = @cluster. */
static node_id node_of(X509 *x, const char *cluster)
{
	X509_NAME *subject = x ? X509_get_subject_name(x) : NULL;
	char common[64], organisation[128], *end;
	unsigned long id;

	if (!subject ||
	    X509_NAME_get_text_by_NID(subject, NID_organizationName, organisation,
				      sizeof(organisation)) <= 0 ||
	    X509_NAME_get_text_by_NID(subject, NID_commonName, common,
				      sizeof(common)) <= 0 ||
	    strcmp(organisation, cluster) != 0 || strncmp(common, "node-", 5) != 0 ||
	    common[5] < '1' || common[5] > '9')
		return NODE_NONE;
	id = strtoul(common + 5, &end, 10);
	return *end || id > UINT32_MAX ? NODE_NONE : (node_id)id;
}

node_id tls_peer(const SSL *ssl, const char *cluster)
{
	X509 *x = SSL_get0_peer_certificate(ssl);

	return SSL_get_verify_result(ssl) == X509_V_OK ? node_of(x, cluster)
						       : NODE_NONE;
}

node_id tls_self(const SSL_CTX *context, const char *cluster)
{
	return node_of(SSL_CTX_get0_certificate(context), cluster);
}

/* @leaf was signed by @authority, is valid now and a server's. */
static bool is_signed(X509 *leaf, X509 *authority)
{
	X509_STORE *store = X509_STORE_new();
	X509_STORE_CTX *c = X509_STORE_CTX_new();
	bool ok = store && c && X509_STORE_add_cert(store, authority) == 1 &&
		  X509_STORE_CTX_init(c, store, leaf, NULL) == 1 &&
		  X509_STORE_CTX_set_purpose(c, X509_PURPOSE_SSL_SERVER) == 1 &&
		  X509_verify_cert(c) == 1;

	X509_STORE_CTX_free(c);
	X509_STORE_free(store);
	return ok;
}

bool tls_join_trusted(const SSL *ssl, const uint8_t fingerprint[static 32])
{
	STACK_OF(X509) *chain = SSL_get_peer_cert_chain(ssl);
	X509 *leaf = SSL_get0_peer_certificate(ssl);
	X509 *authority =
		chain && sk_X509_num(chain) == 2 ? sk_X509_value(chain, 1) : NULL;
	uint8_t digest[EVP_MAX_MD_SIZE];
	unsigned len;
	bool ok = leaf && authority &&
		  X509_digest(authority, EVP_sha256(), digest, &len) && len == 32 &&
		  memcmp(digest, fingerprint, 32) == 0 && is_signed(leaf, authority);

	ERR_clear_error();
	return ok;
}

const char *tls_error(const SSL *ssl)
{
	unsigned long error = ERR_peek_last_error();
	const char *text = ERR_reason_error_string(error);

	ERR_clear_error();
	switch (SSL_get_verify_result(ssl)) {
	case X509_V_OK:
		break;
	case X509_V_ERR_CERT_NOT_YET_VALID:
	case X509_V_ERR_CERT_HAS_EXPIRED:
		return "by the clock of this machine its certificate is not valid now";
	default:
		return "its certificate is not of this cluster";
	}
	switch (ERR_GET_REASON(error)) {
	case SSL_R_NO_APPLICATION_PROTOCOL:
	case SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL:
		return "it speaks another version of the protocol";
	case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
		return "it has no certificate";
	case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
	case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
	case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
	case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
	case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
		return "it does not accept our certificate";
	default:
		return text ? text : "not TLS 1.3";
	}
}
