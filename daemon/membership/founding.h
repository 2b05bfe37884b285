#pragma once
/*
 * What stands on a node's disk before its ssid first runs: founding and joining.
 *
 * Used by `ssi-admin init|join|token` when no ssid runs, and by ssid's start.
 * Files, under @state_dir (/var/lib/ssi, 0700): ca.pem, ca.key (founder only),
 * node.pem, node.key, store/; identity (INI: cluster, node id, name, address,
 * leader id, leader address), first-token (founder, until its ssid has taken it: hash,
 * expiry).  All written to a temporary name, synced, renamed.
 */
#include "env.h"
#include "ids.h"

#include <stdbool.h>

struct founding_identity {
	char cluster[64]; /* random UUID */
	node_id self;
	bool witness;
	char name[NODE_NAME_MAX + 1];
	char address[64];
	node_id leader;
	char leader_address[64];
	uint8_t seal_key[32]; /* the cluster's: it seals checkpoints with it */
};

enum {
	_FOUNDING_E_SUCCESS,
	FOUNDING_E_EXISTS,  /* this node already belongs to a cluster */
	FOUNDING_E_ABSENT,  /* it belongs to none */
	FOUNDING_E_TOKEN,   /* not a token, expired, used, or refused: see text */
	FOUNDING_E_TAKEN,   /* the name is another node's: see text */
	FOUNDING_E_NETWORK, /* the founder cannot be reached: see text */
};

/* Found a cluster with this node as its first member and leader, and make a first
 * token (malloc()ed) that is good for @lifetime. */
int founding_init(const char *state_dir, const char *name, const char *address, nsec_t lifetime,
		  char **ret_token);
/* Join by @token, as a @witness or in full: makes the key, asks the founder, writes the files.  Blocks, at most
 * @timeout.  *ret_text: one line for people, malloc()ed, on any outcome but 0. */
int founding_join(const char *state_dir, const char *token, const char *name, const char *address,
		  bool witness, nsec_t timeout, char **ret_text);
int founding_load(const char *state_dir, struct founding_identity *ret);

/* The first token, which the leader takes over into its store at its start (see
 * membership_add_token()): FOUNDING_E_ABSENT when there is none. */
int founding_first_token(const char *state_dir, uint8_t ret_hash[static 32],
			 nsec_t *ret_expires);
/* It stands in the store: the file goes. */
void founding_first_token_taken(const char *state_dir);
