#pragma once
/*
 * The cluster's own certificate authority: keys, certificates, fingerprints.
 *
 * All functions are synchronous, touch no network, and leave OpenSSL's error
 * queue empty.  PEM texts are malloc()ed, NUL-terminated, the caller's.
 */
#include "ids.h"

#include <stddef.h>

/* A new authority: ECDSA P-256, self-signed, 20 years, O = @cluster. */
int authority_found(const char *cluster, char **ret_ca_pem, char **ret_key_pem);
/* A node's key and a request to have it signed (CSR, PEM). */
int authority_request(const char *node_name, char **ret_key_pem, char **ret_csr_pem);
/* Sign @csr_pem (its own signature is checked, its names are not believed): CN =
 * "node-<id>", O = the authority's, 10 years.  -EBADMSG: not a request. */
int authority_sign(const char *ca_pem, const char *ca_key_pem, const char *csr_pem, node_id id,
		   char **ret_cert_pem);
/* SHA-256 of the certificate's DER. */
int authority_fingerprint(const char *cert_pem, uint8_t ret[static 32]);
/* O of a certificate: the cluster id (malloc()ed). */
int authority_cluster(const char *cert_pem, char **ret);
