/* RFC 4648 base32, upper case, unpadded; either case is read, so that it can be typed. */
#include "membership_token.h"

#include "cleanup.h"
#include "err.h"
#include "membership_map.h"

#include <assert.h>
#include <ctype.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

static const char PREFIX[] = "SSI1-";
static const char ALPHABET[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

enum {
	BODY = TOKEN_FINGERPRINT + TOKEN_SECRET,
	BODY_TEXT = (BODY * 8 + 4) / 5,
};

static void base32(const uint8_t data[static BODY], char ret[static BODY_TEXT + 1])
{
	for (size_t i = 0; i < BODY_TEXT; i++) {
		size_t bit = i * 5;
		unsigned two = (unsigned)data[bit / 8] << 8;

		if (bit / 8 + 1 < BODY)
			two |= data[bit / 8 + 1];
		ret[i] = ALPHABET[two >> (11 - bit % 8) & 31];
	}
	ret[BODY_TEXT] = '\0';
}

static int unbase32(const char text[static BODY_TEXT], uint8_t ret[static BODY])
{
	unsigned bits = 0, n_bits = 0;
	size_t n = 0;

	for (size_t i = 0; i < BODY_TEXT; i++) {
		const char *p = text[i] ? strchr(ALPHABET, toupper((unsigned char)text[i])) :
					  NULL;

		if (!p)
			return -EBADMSG;
		bits = (bits << 5 | (unsigned)(p - ALPHABET)) & 0xffff;
		n_bits += 5;
		if (n_bits >= 8 && n < BODY) {
			n_bits -= 8;
			ret[n++] = (uint8_t)(bits >> n_bits);
		}
	}
	/* The last character's spare bits are 0, so that a token has one spelling. */
	return bits & ((1u << n_bits) - 1) ? -EBADMSG : 0;
}

char *membership_token_format(const struct membership_token *token)
{
	uint8_t body[BODY];
	char text[BODY_TEXT + 1], *ret;

	memcpy(body, token->fingerprint, TOKEN_FINGERPRINT);
	memcpy(body + TOKEN_FINGERPRINT, token->secret, TOKEN_SECRET);
	base32(body, text);
	return asprintf(&ret, "%s%s-%s", PREFIX, text, token->address) < 0 ? NULL : ret;
}

int membership_token_parse(const char *text, struct membership_token *ret)
{
	struct membership_token token = { 0 };
	uint8_t body[BODY];

	if (strncasecmp(text, PREFIX, strlen(PREFIX)) != 0)
		return err_origin(-EBADMSG);
	text += strlen(PREFIX);
	if (strnlen(text, BODY_TEXT) < BODY_TEXT || unbase32(text, body) ||
	    text[BODY_TEXT] != '-' || !membership_address_is_valid(text + BODY_TEXT + 1))
		return err_origin(-EBADMSG);
	memcpy(token.fingerprint, body, TOKEN_FINGERPRINT);
	memcpy(token.secret, body + TOKEN_FINGERPRINT, TOKEN_SECRET);
	strcpy(token.address, text + BODY_TEXT + 1);
	*ret = token;
	return 0;
}

void membership_token_hash(const uint8_t secret[static TOKEN_SECRET],
			   uint8_t ret[static TOKEN_HASH])
{
	int r = EVP_Digest(secret, TOKEN_SECRET, ret, NULL, EVP_sha256(), NULL);

	assert(r == 1);
	(void)r;
}
