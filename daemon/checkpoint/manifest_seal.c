#include "manifest_internal.h"

#include "err.h"

#include <fcntl.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * Seals and sums, by OpenSSL.  A failure of its own is -EIO: no seal, no trust.
 */

int manifest_seal(const uint8_t key[static 32], const void *data, size_t len,
		  uint8_t ret[static MANIFEST_SEAL_SIZE])
{
	OSSL_PARAM parameters[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST,
						 (char *)"SHA256", 0),
		OSSL_PARAM_construct_end(),
	};
	EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	EVP_MAC_CTX *c = mac ? EVP_MAC_CTX_new(mac) : NULL;
	size_t n = 0;
	int ok = c && EVP_MAC_init(c, key, 32, parameters) &&
		 EVP_MAC_update(c, data, len) &&
		 EVP_MAC_final(c, ret, &n, MANIFEST_SEAL_SIZE) &&
		 n == MANIFEST_SEAL_SIZE;

	EVP_MAC_CTX_free(c);
	EVP_MAC_free(mac);
	return ok ? 0 : err_origin(-EIO);
}

bool manifest_seal_equal(const uint8_t a[static MANIFEST_SEAL_SIZE],
			 const uint8_t b[static MANIFEST_SEAL_SIZE])
{
	return CRYPTO_memcmp(a, b, MANIFEST_SEAL_SIZE) == 0;
}

static int sum(int fd, EVP_MD_CTX *c, uint64_t *ret_size)
{
	_cleanup_free_ uint8_t *piece = malloc(256 << 10);
	uint64_t size = 0;
	ssize_t n;

	if (!piece)
		return err_origin(-ENOMEM);
	for (;;) {
		n = read(fd, piece, 256 << 10);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		if (!EVP_DigestUpdate(c, piece, (size_t)n))
			return err_origin(-EIO);
		size += (uint64_t)n;
	}
	if (n < 0)
		return err_origin(-errno);
	*ret_size = size;
	return 0;
}

int manifest_sum_file(int dir_fd, const char *name, char ret[static 65],
		      uint64_t *ret_size)
{
	static const char hex[] = "0123456789abcdef";
	_cleanup_close_ int fd =
		openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	uint8_t digest[EVP_MAX_MD_SIZE];
	EVP_MD_CTX *c;
	struct stat st;
	int r = 0;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_origin(-errno);
	if (!S_ISREG(st.st_mode))
		return err_origin(-EBADMSG);
	c = EVP_MD_CTX_new();
	if (!c || !EVP_DigestInit_ex(c, EVP_sha256(), NULL))
		r = err_origin(-EIO);
	if (r == 0)
		r = sum(fd, c, ret_size);
	if (r == 0 && !EVP_DigestFinal_ex(c, digest, NULL))
		r = err_origin(-EIO);
	EVP_MD_CTX_free(c);
	for (size_t k = 0; k < 32 && r == 0; k++) {
		ret[2 * k] = hex[digest[k] >> 4];
		ret[2 * k + 1] = hex[digest[k] & 15];
	}
	if (r == 0)
		ret[64] = '\0';
	return r;
}
