#include "authority.h"
#include "transport_fixture.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

static X509 *parse(const char *pem)
{
	BIO *b = BIO_new_mem_buf(pem, -1);
	X509 *x = PEM_read_bio_X509(b, NULL, NULL, NULL);

	BIO_free(b);
	assert_non_null(x);
	return x;
}

static void a_signed_certificate_is_a_nodes_and_the_authoritys(void **state)
{
	_cleanup_free_ char *ca = NULL, *ca_key = NULL, *key = NULL, *csr = NULL,
			    *cert = NULL;
	_cleanup_free_ char *cluster = NULL;
	X509 *x, *issuer;
	char name[64];

	assert_int_equal(authority_found("c1", &ca, &ca_key), 0);
	assert_int_equal(authority_request("node-99", &key, &csr), 0);
	assert_int_equal(authority_sign(ca, ca_key, csr, 7, &cert), 0);
	x = parse(cert);
	issuer = parse(ca);
	assert_int_equal(X509_verify(x, X509_get0_pubkey(issuer)), 1);
	assert_int_equal(X509_check_ca(x), 0);
	assert_int_equal(X509_check_ca(issuer), 1);
	assert_int_equal(X509_check_purpose(x, X509_PURPOSE_SSL_CLIENT, 0), 1);
	assert_int_equal(X509_check_purpose(x, X509_PURPOSE_SSL_SERVER, 0), 1);
	(void)X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_commonName, name,
					sizeof(name));
	assert_string_equal(name, "node-7"); /* not what the request said */
	assert_int_equal(authority_cluster(cert, &cluster), 0);
	assert_string_equal(cluster, "c1");
	X509_free(x);
	X509_free(issuer);
	assert_int_equal(ERR_peek_error(), 0);
}

static void fingerprints_tell_authorities_apart(void **state)
{
	_cleanup_free_ char *a = NULL, *a_key = NULL, *b = NULL, *b_key = NULL;
	uint8_t fa[32], fb[32], again[32];

	assert_int_equal(authority_found("same", &a, &a_key), 0);
	assert_int_equal(authority_found("same", &b, &b_key), 0);
	assert_int_equal(authority_fingerprint(a, fa), 0);
	assert_int_equal(authority_fingerprint(a, again), 0);
	assert_int_equal(authority_fingerprint(b, fb), 0);
	assert_memory_equal(fa, again, 32);
	assert_memory_not_equal(fa, fb, 32);
}

static void what_is_no_request_is_not_signed(void **state)
{
	_cleanup_free_ char *ca = NULL, *ca_key = NULL, *key = NULL, *csr = NULL;
	char *cert = NULL;

	assert_int_equal(authority_found("c1", &ca, &ca_key), 0);
	assert_int_equal(authority_request("x", &key, &csr), 0);
	assert_int_equal(authority_sign(ca, ca_key, "", 7, &cert), -EBADMSG);
	assert_int_equal(authority_sign(ca, ca_key, ca, 7, &cert), -EBADMSG);
	/* One bit of its signature. */
	csr[strlen(csr) / 2] ^= 1;
	assert_int_equal(authority_sign(ca, ca_key, csr, 7, &cert), -EBADMSG);
	assert_int_equal(authority_sign("", ca_key, csr, 7, &cert), -EINVAL);
	assert_null(cert);
	assert_int_equal(ERR_peek_error(), 0);
}

static void an_encrypted_request_asks_nobody(void **state)
{
	static const char csr[] =
		"-----BEGIN CERTIFICATE REQUEST-----\n"
		"Proc-Type: 4,ENCRYPTED\n"
		"DEK-Info: AES-128-CBC,000102030405060708090A0B0C0D0E0F\n"
		"\n"
		"AAECAwQFBgcICQoLDA0ODw==\n"
		"-----END CERTIFICATE REQUEST-----\n";
	_cleanup_free_ char *ca = NULL, *ca_key = NULL;
	char *cert = NULL;

	assert_int_equal(authority_found("c1", &ca, &ca_key), 0);
	assert_int_equal(authority_sign(ca, ca_key, csr, 7, &cert), -EBADMSG);
	assert_null(cert);
}

static char *request_with(EVP_PKEY *key)
{
	X509_REQ *q = X509_REQ_new();
	BIO *b = BIO_new(BIO_s_mem());
	char *data, *text;
	long len;

	assert_true(X509_REQ_set_pubkey(q, key) &&
		    X509_REQ_sign(q, key, EVP_sha256()) &&
		    PEM_write_bio_X509_REQ(b, q));
	len = BIO_get_mem_data(b, &data);
	text = strndup(data, (size_t)len);
	X509_REQ_free(q);
	BIO_free(b);
	EVP_PKEY_free(key);
	return text;
}

static void a_key_of_another_kind_is_not_signed(void **state)
{
	_cleanup_free_ char *ca = NULL, *ca_key = NULL;
	_cleanup_free_ char *rsa = request_with(EVP_RSA_gen(1024));
	_cleanup_free_ char *curve = request_with(EVP_EC_gen("secp256k1"));
	char *cert = NULL;

	assert_int_equal(authority_found("c1", &ca, &ca_key), 0);
	assert_int_equal(authority_sign(ca, ca_key, rsa, 7, &cert), -EBADMSG);
	assert_int_equal(authority_sign(ca, ca_key, curve, 7, &cert), -EBADMSG);
	assert_null(cert);
}

static void a_key_that_is_not_the_authoritys_signs_nothing(void **state)
{
	_cleanup_free_ char *ca = NULL, *ca_key = NULL, *key = NULL, *csr = NULL;
	char *cert = NULL;

	assert_int_equal(authority_found("c1", &ca, &ca_key), 0);
	assert_int_equal(authority_request("x", &key, &csr), 0);
	assert_int_equal(authority_sign(ca, key, csr, 7, &cert), -EINVAL);
	assert_null(cert);
}

static void what_is_no_certificate_has_no_fingerprint_and_no_cluster(void **state)
{
	uint8_t f[32];
	char *cluster = NULL;

	assert_int_equal(authority_fingerprint("nonsense", f), -EBADMSG);
	assert_int_equal(authority_cluster("nonsense", &cluster), -EBADMSG);
	assert_null(cluster);
	assert_int_equal(ERR_peek_error(), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_signed_certificate_is_a_nodes_and_the_authoritys),
		cmocka_unit_test(fingerprints_tell_authorities_apart),
		cmocka_unit_test(what_is_no_request_is_not_signed),
		cmocka_unit_test(an_encrypted_request_asks_nobody),
		cmocka_unit_test(a_key_of_another_kind_is_not_signed),
		cmocka_unit_test(a_key_that_is_not_the_authoritys_signs_nothing),
		cmocka_unit_test(
			what_is_no_certificate_has_no_fingerprint_and_no_cluster),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
