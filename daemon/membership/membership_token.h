#pragma once
/*
 * Tokens and the messages of joining.  Pure functions: no I/O, no state.
 *
 * A token is "SSI1-<base32 of fingerprint and secret>-<address>".  The secret
 * stands nowhere but in it; the leader keeps its SHA-256.
 */
#include "ids.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

enum {
	TOKEN_SECRET = 16,
	TOKEN_HASH = 32,
	TOKEN_FINGERPRINT = 32,
};

struct membership_token {
	uint8_t fingerprint[TOKEN_FINGERPRINT]; /* of the authority's certificate */
	uint8_t secret[TOKEN_SECRET];
	char address[64];
};

/* What the servers know of one. */
struct membership_token_record {
	nsec_t expires; /* CLOCK_REALTIME */
	node_id used_by;
};

enum membership_join_status {
	JOIN_REFUSED = 0,
	JOIN_ADMITTED = 1,
	JOIN_TRY_AGAIN = 2,
	JOIN_ELSEWHERE = 3, /* leader and leader_address say who admits */
	JOIN_TAKEN = 4, /* the name is another's; the token is still good */
};

struct membership_join_request {
	uint8_t secret[TOKEN_SECRET];
	char name[NODE_NAME_MAX + 1];
	char address[64];
	bool witness;
	char *csr;
};

struct membership_join_reply {
	enum membership_join_status status;
	node_id id, leader;
	char *text, *cluster, *ca, *cert, *leader_address; /* never NULL */
	uint8_t seal_key[32];
};

/* malloc()ed, or NULL: no memory. */
char *membership_token_format(const struct membership_token *token);
/* -EBADMSG: not a token. */
int membership_token_parse(const char *text, struct membership_token *ret);
void membership_token_hash(const uint8_t secret[static TOKEN_SECRET],
			   uint8_t ret[static TOKEN_HASH]);

/* In membership_join.c, which sees protobuf.  Packed ones are malloc()ed; unpacking checks
 * lengths and characters: -EBADMSG. */
int membership_join_request_pack(const struct membership_join_request *request, uint8_t **ret,
				 size_t *ret_len);
int membership_join_request_unpack(struct iovec bytes, struct membership_join_request *ret);
void membership_join_request_fini(struct membership_join_request *request);
int membership_join_reply_pack(const struct membership_join_reply *reply, uint8_t **ret,
			       size_t *ret_len);
int membership_join_reply_unpack(struct iovec bytes, struct membership_join_reply *ret);
void membership_join_reply_fini(struct membership_join_reply *reply);
