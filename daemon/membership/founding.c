/*
 * Founding and joining: files, before there is a loop or a room.
 *
 * Happy path: every file is written to a temporary name, synced and renamed;
 * `identity` comes last and makes this node a member.
 *
 * Failure modes: a crash on the way leaves no identity -> the same command runs
 * again and overwrites what it left.  The founder admitted us but we crashed ->
 * a new token with the same name replaces what it kept.  The founder's answer
 * has another authority than the token -> it is not believed.
 *
 * This is the one file of the room that asks the kernel itself for time and
 * random bytes: it runs in a tool.
 */
#include "founding.h"

#include "authority.h"
#include "cleanup.h"
#include "err.h"
#include "founding_file.h"
#include "membership_map.h"
#include "membership_token.h"
#include "transport_tcp.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

enum { FOUNDER = 1, REFERRALS_MAX = 4 };

static int random_bytes(void *ret, size_t len)
{
	return getrandom(ret, len, 0) == (ssize_t)len ? 0 : err_origin(-EIO);
}

static int random_uuid(char ret[static 64])
{
	uint8_t b[16];
	int r;

	r = random_bytes(b, sizeof(b));
	if (r)
		return err_fold(r);
	b[6] = (b[6] & 0x0f) | 0x40;
	b[8] = (b[8] & 0x3f) | 0x80;
	(void)snprintf(ret, 64,
		       "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
		       b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10],
		       b[11], b[12], b[13], b[14], b[15]);
	return 0;
}

/* The directory is there and belongs to no cluster, or an outcome. */
static int prepare(const char *state_dir)
{
	struct founding_identity identity;
	int r;

	if (mkdir(state_dir, 0700) && errno != EEXIST)
		return err_origin(-errno);
	r = founding_load(state_dir, &identity);
	return r == FOUNDING_E_ABSENT ? 0 : FOUNDING_E_EXISTS;
}

static int write_identity(const char *state_dir, const struct founding_identity *id)
{
	char text[640], key[2 * sizeof(id->seal_key) + 1];

	for (size_t i = 0; i < sizeof(id->seal_key); i++)
		(void)snprintf(key + 2 * i, 3, "%02x", id->seal_key[i]);
	(void)snprintf(text, sizeof(text),
		       "; what this node is; written once, by ssi-admin\n"
		       "[node]\ncluster = %s\nid = %u\nname = %s\naddress = %s\n"
		       "leader = %u\nleader_address = %s\nseal_key = %s\nwitness = %d\n",
		       id->cluster, id->self, id->name, id->address, id->leader,
		       id->leader_address, key, id->witness);
	return founding_file_write(state_dir, "identity", text, 0600);
}

/* The founder's own certificate and the cluster's authority; *ret_ca is the caller's. */
static int write_authority(const char *state_dir, const char *cluster, const char *name,
			   char **ret_ca)
{
	_cleanup_free_ char *ca = NULL, *ca_key = NULL, *key = NULL, *csr = NULL, *cert = NULL;
	int r;

	r = authority_found(cluster, &ca, &ca_key);
	if (!r)
		r = authority_request(name, &key, &csr);
	if (!r)
		r = authority_sign(ca, ca_key, csr, FOUNDER, &cert);
	if (!r)
		r = founding_file_write(state_dir, "ca.key", ca_key, 0600);
	if (!r)
		r = founding_file_write(state_dir, "ca.pem", ca, 0644);
	if (!r)
		r = founding_file_write(state_dir, "node.key", key, 0600);
	if (!r)
		r = founding_file_write(state_dir, "node.pem", cert, 0644);
	if (r)
		return err_fold(r);
	*ret_ca = TAKE(ca);
	return 0;
}

static int write_token(const char *state_dir, const char *ca, const char *address,
		       nsec_t lifetime, char **ret_token)
{
	struct membership_token token = { 0 };
	uint8_t hash[TOKEN_HASH];
	_cleanup_free_ char *text = NULL;
	struct timespec now;
	int r;

	r = authority_fingerprint(ca, token.fingerprint);
	if (!r)
		r = random_bytes(token.secret, sizeof(token.secret));
	if (r)
		return err_fold(r);
	strcpy(token.address, address);
	text = membership_token_format(&token);
	if (!text)
		return err_origin(-ENOMEM);
	(void)clock_gettime(CLOCK_REALTIME, &now);
	membership_token_hash(token.secret, hash);
	r = founding_file_write_token(state_dir, hash,
				      (nsec_t)now.tv_sec * NSEC_PER_SEC + lifetime);
	if (r)
		return err_fold(r);
	*ret_token = TAKE(text);
	return 0;
}

int founding_init(const char *state_dir, const char *name, const char *address, nsec_t lifetime,
		  char **ret_token)
{
	struct founding_identity id = { .self = FOUNDER, .leader = FOUNDER };
	_cleanup_free_ char *ca = NULL, *token = NULL;
	int r;

	if (!membership_name_is_valid(name) || !membership_address_is_valid(address))
		return err_origin(-EINVAL);
	r = prepare(state_dir);
	if (r)
		return r;
	r = random_uuid(id.cluster);
	if (!r)
		r = write_authority(state_dir, id.cluster, name, &ca);
	if (!r)
		r = write_token(state_dir, ca, address, lifetime, &token);
	if (r)
		return err_fold(r);
	strcpy(id.name, name);
	strcpy(id.address, address);
	strcpy(id.leader_address, address);
	r = random_bytes(id.seal_key, sizeof(id.seal_key));
	if (!r)
		r = write_identity(state_dir, &id);
	if (r)
		return err_fold(r);
	*ret_token = TAKE(token);
	return 0;
}

static int say(char **ret_text, int r, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
static int say(char **ret_text, int r, const char *format, ...)
{
	char *text = NULL;
	va_list ap;

	va_start(ap, format);
	if (vasprintf(&text, format, ap) < 0)
		text = NULL;
	va_end(ap);
	*ret_text = text;
	return r;
}

/* One exchange with a member at @address.  Outcomes have their text. */
static int ask_one(const struct membership_token *token, const char *address,
		   struct membership_join_request *request, nsec_t timeout,
		   struct membership_join_reply *ret, char **ret_text)
{
	_cleanup_free_ uint8_t *data = NULL, *answer = NULL;
	const char *text = NULL;
	size_t len, answer_len;
	int r;

	memcpy(request->secret, token->secret, TOKEN_SECRET);
	r = membership_join_request_pack(request, &data, &len);
	if (r)
		return say(ret_text, err_fold(r), "out of memory");
	r = transport_tcp_join(address, token->fingerprint, data, len, timeout, &answer,
			       &answer_len, &text);
	if (r)
		return say(ret_text, FOUNDING_E_NETWORK, "%s: %s", address,
			   text ? text : strerror(-r));
	r = membership_join_reply_unpack((struct iovec){ answer, answer_len }, ret);
	if (r)
		return say(ret_text, FOUNDING_E_NETWORK, "%s: the answer makes no sense",
			   address);
	if (ret->status == JOIN_TRY_AGAIN)
		return say(ret_text, FOUNDING_E_NETWORK, "%s: %s", address, ret->text);
	if (ret->status == JOIN_TAKEN)
		return say(ret_text, FOUNDING_E_TAKEN, "refused: %s", ret->text);
	if (ret->status == JOIN_REFUSED)
		return say(ret_text, FOUNDING_E_TOKEN, "refused: %s",
			   ret->text[0] ? ret->text : "the leader gave no reason");
	return 0;
}

/* The token's member, and the leader that it refers to, which may change on the way. */
static int ask(const struct membership_token *token, struct membership_join_request *request,
	       nsec_t timeout, struct membership_join_reply *ret, char **ret_text)
{
	_cleanup_free_ char *address = strdup(token->address);
	int r;

	for (unsigned i = 0; i < REFERRALS_MAX && address; i++) {
		r = ask_one(token, address, request, timeout, ret, ret_text);
		if (r || ret->status == JOIN_ADMITTED)
			return r;
		free(address);
		address = TAKE(ret->leader_address);
		membership_join_reply_fini(ret);
	}
	return say(ret_text, FOUNDING_E_NETWORK, "%s: nobody leads the cluster", token->address);
}

/* Is what the founder sent of the authority that the token names? */
static bool is_of_authority(const struct membership_join_reply *reply,
			    const struct membership_token *token)
{
	_cleanup_free_ char *cluster = NULL;
	uint8_t fingerprint[TOKEN_FINGERPRINT];

	return !authority_fingerprint(reply->ca, fingerprint) &&
	       !memcmp(fingerprint, token->fingerprint, TOKEN_FINGERPRINT) &&
	       !authority_cluster(reply->cert, &cluster) && !strcmp(cluster, reply->cluster);
}

static int write_member(const char *state_dir, const struct membership_join_request *request,
			const struct membership_join_reply *reply, const char *key)
{
	struct founding_identity id = { .self = reply->id, .witness = request->witness,
					.leader = reply->leader };
	int r;

	strcpy(id.cluster, reply->cluster);
	strcpy(id.name, request->name);
	strcpy(id.address, request->address);
	strcpy(id.leader_address, reply->leader_address);
	memcpy(id.seal_key, reply->seal_key, sizeof(id.seal_key));
	r = founding_file_write(state_dir, "node.key", key, 0600);
	if (!r)
		r = founding_file_write(state_dir, "node.pem", reply->cert, 0644);
	if (!r)
		r = founding_file_write(state_dir, "ca.pem", reply->ca, 0644);
	if (!r)
		r = write_identity(state_dir, &id);
	return err_fold(r);
}

int founding_join(const char *state_dir, const char *token, const char *name, const char *address,
		  bool witness, nsec_t timeout, char **ret_text)
{
	_cleanup_(membership_join_request_fini) struct membership_join_request request = {
		.witness = witness
	};
	_cleanup_(membership_join_reply_fini) struct membership_join_reply reply = { 0 };
	struct membership_token t;
	_cleanup_free_ char *key = NULL;
	int r;

	if (!membership_name_is_valid(name))
		return say(ret_text, err_origin(-EINVAL),
			   "%s: a name is 1 to %d of a-z, 0-9 and -", name, NODE_NAME_MAX);
	if (!membership_address_is_valid(address))
		return say(ret_text, err_origin(-EINVAL), "%s: an address is host:port",
			   address);
	if (membership_token_parse(token, &t))
		return say(ret_text, FOUNDING_E_TOKEN,
			   "this is not a token; it begins with SSI1- and has one line");
	r = prepare(state_dir);
	if (r)
		return say(ret_text, r, "%s: %s", state_dir,
			   r > 0 ? "this node already belongs to a cluster" : strerror(-r));
	strcpy(request.name, name);
	strcpy(request.address, address);
	r = authority_request(name, &key, &request.csr);
	if (r)
		return say(ret_text, err_fold(r), "no key could be made: %s", strerror(-r));
	r = ask(&t, &request, timeout, &reply, ret_text);
	if (r)
		return r;
	if (!is_of_authority(&reply, &t))
		return say(ret_text, FOUNDING_E_TOKEN,
			   "%s: the answer is of another authority than the token", t.address);
	r = write_member(state_dir, &request, &reply, key);
	return r ? say(ret_text, r, "%s: %s", state_dir, strerror(-r)) : 0;
}
