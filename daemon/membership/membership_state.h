#pragma once
/*
 * What the servers of the cluster agree on: the map, the tokens, the authority.
 *
 * A value, changed by the commands of the replicated log alone, and the same on
 * every server that has applied the same of them.  No I/O.
 */
#include "membership_map.h"
#include "membership_token.h"

#include <uthash.h>

/* From the last view before membership_recover() to the first after it; else they follow each
 * other. */
enum { MEMBERSHIP_FAR = 1 << 20 };

struct membership_state_token {
	UT_hash_handle hh;
	uint8_t hash[TOKEN_HASH];
	struct membership_token_record record;
};

struct membership_state {
	struct membership_map *map; /* epoch 0: nothing is committed yet */
	struct membership_state_token *tokens;
	char *ca_pem, *ca_key_pem; /* NULL: the founder has not told them yet */
};

/* One change of it, before it is a command. */
struct membership_token_change {
	uint8_t hash[TOKEN_HASH];
	struct membership_token_record record; /* expires 0: forget it */
};

struct membership_command {
	const struct membership_map *map; /* NULL: as it was */
	const struct membership_token_change *tokens;
	size_t n_tokens;
	const char *ca_pem, *ca_key_pem; /* NULL: as they were */
};

int membership_state_new(struct membership_state **ret);
struct membership_state *membership_state_free(struct membership_state *s);
DEFINE_CLEANUP(struct membership_state, membership_state_free)

const struct membership_token_record *
membership_state_token(const struct membership_state *s, const uint8_t hash[static TOKEN_HASH]);

/* *ret: malloc()ed. */
int membership_command_pack(const struct membership_command *command, struct iovec *ret);
/* -EBADMSG: not a command, or a map that does not follow ours; nothing is changed. */
int membership_state_apply(struct membership_state *s, struct iovec command);
/* The command that makes all of this of a new state.  *ret: malloc()ed. */
int membership_state_pack(const struct membership_state *s, struct iovec *ret);
