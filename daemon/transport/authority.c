/*
 * Failure modes: -EBADMSG for a text of somebody else's that is not what it should be,
 * -EINVAL for our own, -EIO when OpenSSL cannot do what it always can (no memory).
 */
#include "authority.h"

#include "cleanup.h"
#include "err.h"

#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

enum { YEAR_S = 366 * 86400 };

static void bio_freep(BIO **b)
{
	BIO_free(*b);
}

static void x509_freep(X509 **x)
{
	X509_free(*x);
}

static void key_freep(EVP_PKEY **k)
{
	EVP_PKEY_free(*k);
}

static void req_freep(X509_REQ **r)
{
	X509_REQ_free(*r);
}

/* What OpenSSL had to say is no use to anybody above. */
static int ssl_error(int r)
{
	ERR_clear_error();
	return err_origin(r);
}

static int bio_text(BIO *b, char **ret)
{
	char *data;
	long len = BIO_get_mem_data(b, &data);
	char *text = len > 0 ? strndup(data, (size_t)len) : NULL;

	if (!text)
		return ssl_error(-ENOMEM);
	*ret = text;
	return 0;
}

static int cert_text(X509 *x, char **ret)
{
	_cleanup_(bio_freep) BIO *b = BIO_new(BIO_s_mem());

	if (!b || !PEM_write_bio_X509(b, x))
		return ssl_error(-ENOMEM);
	return bio_text(b, ret);
}

static int key_text(EVP_PKEY *k, char **ret)
{
	_cleanup_(bio_freep) BIO *b = BIO_new(BIO_s_mem());

	if (!b || !PEM_write_bio_PrivateKey(b, k, NULL, NULL, 0, NULL, NULL))
		return ssl_error(-ENOMEM);
	return bio_text(b, ret);
}

/* A PEM text may say that it is encrypted; then OpenSSL would ask at the terminal. */
static int on_password(char *buf, int size, int writing, void *argument)
{
	return -1;
}

static X509 *cert_parse(const char *pem)
{
	_cleanup_(bio_freep) BIO *b = BIO_new_mem_buf(pem, -1);

	return b ? PEM_read_bio_X509(b, NULL, on_password, NULL) : NULL;
}

static EVP_PKEY *key_parse(const char *pem)
{
	_cleanup_(bio_freep) BIO *b = BIO_new_mem_buf(pem, -1);

	return b ? PEM_read_bio_PrivateKey(b, NULL, on_password, NULL) : NULL;
}

static int add_extension(X509 *x, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *e;
	int ok;

	X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
	e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	ok = e && X509_add_ext(x, e, -1);
	X509_EXTENSION_free(e);
	return ok;
}

static int set_names(X509 *x, const char *common, const char *organisation)
{
	X509_NAME *n = X509_get_subject_name(x);

	return X509_NAME_add_entry_by_txt(n, "O", MBSTRING_UTF8,
					  (const uint8_t *)organisation, -1, -1, 0) &&
	       X509_NAME_add_entry_by_txt(n, "CN", MBSTRING_UTF8,
					  (const uint8_t *)common, -1, -1, 0);
}

/* Everything but names, extensions and signature.  Clocks of nodes differ: valid a day
 * back. */
static X509 *cert_new(EVP_PKEY *public, long seconds)
{
	X509 *x = X509_new();
	uint64_t serial;

	if (x && X509_set_version(x, 2) &&
	    RAND_bytes((uint8_t *)&serial, sizeof(serial)) == 1 &&
	    ASN1_INTEGER_set_uint64(X509_get_serialNumber(x), serial >> 1) &&
	    X509_gmtime_adj(X509_getm_notBefore(x), -86400) &&
	    X509_gmtime_adj(X509_getm_notAfter(x), seconds) &&
	    X509_set_pubkey(x, public))
		return x;
	X509_free(x);
	return NULL;
}

int authority_found(const char *cluster, char **ret_ca_pem, char **ret_key_pem)
{
	_cleanup_(key_freep) EVP_PKEY *key = EVP_EC_gen("P-256");
	_cleanup_(x509_freep) X509 *x = key ? cert_new(key, 20L * YEAR_S) : NULL;
	_cleanup_free_ char *ca = NULL, *key_pem = NULL;
	int r;

	if (!x || !set_names(x, "LinuxSSI cluster authority", cluster) ||
	    !X509_set_issuer_name(x, X509_get_subject_name(x)) ||
	    !add_extension(x, x, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") ||
	    !add_extension(x, x, NID_key_usage, "critical,keyCertSign") ||
	    !X509_sign(x, key, EVP_sha256()))
		return ssl_error(-EIO);
	r = cert_text(x, &ca);
	if (r == 0)
		r = key_text(key, &key_pem);
	if (r < 0)
		return r;
	*ret_ca_pem = TAKE(ca);
	*ret_key_pem = TAKE(key_pem);
	return 0;
}

int authority_request(const char *node_name, char **ret_key_pem, char **ret_csr_pem)
{
	_cleanup_(key_freep) EVP_PKEY *key = EVP_EC_gen("P-256");
	_cleanup_(req_freep) X509_REQ *q = X509_REQ_new();
	_cleanup_(bio_freep) BIO *b = BIO_new(BIO_s_mem());
	_cleanup_free_ char *key_pem = NULL, *csr = NULL;
	int r;

	if (!key || !q || !b || !X509_REQ_set_pubkey(q, key) ||
	    !X509_NAME_add_entry_by_txt(X509_REQ_get_subject_name(q), "CN",
					MBSTRING_UTF8, (const uint8_t *)node_name, -1,
					-1, 0) ||
	    !X509_REQ_sign(q, key, EVP_sha256()) || !PEM_write_bio_X509_REQ(b, q))
		return ssl_error(-EIO);
	r = bio_text(b, &csr);
	if (r == 0)
		r = key_text(key, &key_pem);
	if (r < 0)
		return r;
	*ret_key_pem = TAKE(key_pem);
	*ret_csr_pem = TAKE(csr);
	return 0;
}

/* The public key of a request that was made by the holder of its private key; P-256
 * only. */
static EVP_PKEY *request_key(const char *csr_pem)
{
	_cleanup_(bio_freep) BIO *b = BIO_new_mem_buf(csr_pem, -1);
	_cleanup_(req_freep) X509_REQ *q =
		b ? PEM_read_bio_X509_REQ(b, NULL, on_password, NULL) : NULL;
	EVP_PKEY *key = q ? X509_REQ_get0_pubkey(q) : NULL;
	char group[32] = "";

	if (!key || EVP_PKEY_get_base_id(key) != EVP_PKEY_EC ||
	    !EVP_PKEY_get_group_name(key, group, sizeof(group), NULL) ||
	    strcmp(group, SN_X9_62_prime256v1) != 0 || X509_REQ_verify(q, key) != 1 ||
	    !EVP_PKEY_up_ref(key))
		return NULL;
	return key;
}

static int organisation(X509 *x, char **ret)
{
	char text[128];

	if (X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_organizationName,
				      text, sizeof(text)) <= 0)
		return ssl_error(-EBADMSG);
	*ret = strdup(text);
	return *ret ? 0 : err_origin(-ENOMEM);
}

int authority_sign(const char *ca_pem, const char *ca_key_pem, const char *csr_pem,
		   node_id id, char **ret_cert_pem)
{
	_cleanup_(x509_freep) X509 *ca = cert_parse(ca_pem);
	_cleanup_(key_freep) EVP_PKEY *ca_key = key_parse(ca_key_pem);
	_cleanup_(key_freep) EVP_PKEY *key = request_key(csr_pem);
	_cleanup_(x509_freep) X509 *x = NULL;
	_cleanup_free_ char *cluster = NULL;
	char common[32];
	int r;

	if (!ca || !ca_key || X509_check_private_key(ca, ca_key) != 1)
		return ssl_error(-EINVAL);
	if (!key)
		return ssl_error(-EBADMSG);
	r = organisation(ca, &cluster);
	if (r < 0)
		return r;
	(void)snprintf(common, sizeof(common), "node-%u", id);
	x = cert_new(key, 10L * YEAR_S);
	if (!x || !set_names(x, common, cluster) ||
	    !X509_set_issuer_name(x, X509_get_subject_name(ca)) ||
	    !add_extension(x, ca, NID_basic_constraints, "critical,CA:FALSE") ||
	    !add_extension(x, ca, NID_key_usage, "critical,digitalSignature") ||
	    !add_extension(x, ca, NID_ext_key_usage, "serverAuth,clientAuth") ||
	    !X509_sign(x, ca_key, EVP_sha256()))
		return ssl_error(-EIO);
	return cert_text(x, ret_cert_pem);
}

int authority_fingerprint(const char *cert_pem, uint8_t ret[static 32])
{
	_cleanup_(x509_freep) X509 *x = cert_parse(cert_pem);
	unsigned len = 32;

	if (!x || !X509_digest(x, EVP_sha256(), ret, &len) || len != 32)
		return ssl_error(-EBADMSG);
	return 0;
}

int authority_cluster(const char *cert_pem, char **ret)
{
	_cleanup_(x509_freep) X509 *x = cert_parse(cert_pem);

	return x ? organisation(x, ret) : ssl_error(-EBADMSG);
}
