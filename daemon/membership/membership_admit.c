/*
 * Admission: one-time tokens, and the nodes that join by them.
 *
 * Happy path: a token's secret is drawn, its hash becomes durable, the text is
 * given out once.  A joiner shows it with a name and a request for a
 * certificate; the member (JOINING) and the token's "used" become durable in one
 * write, then the certificate goes out.
 *
 * Failure modes: a bad, used or expired token, a name in use -> refused with a
 * reason (the same one for every bad token: a guesser learns nothing).  The
 * reply is lost -> the member stays JOINING, and the next token with that name
 * replaces it.  The leader changes meanwhile -> TRY_AGAIN, the token is still good, or
 * used up as if the reply were lost.  This node does not lead -> ELSEWHERE.
 */
#include "membership_internal.h"

#include "authority.h"
#include "err.h"
#include "log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct join {
	struct membership_change change;
	membership_join_cb done;
	void *owner;
	struct membership_join_reply reply; /* if it becomes durable */
	char name[NODE_NAME_MAX + 1];
};

struct new_token {
	struct membership_change change;
	membership_token_cb done;
	membership_added_cb added;
	void *owner;
	char *text;
};

/* Is a change of this very token being written, or waiting to be? */
static bool token_is_busy(struct membership *m, const struct membership_change *change)
{
	const struct membership_change *other;

	LIST_FOREACH(other, &m->leader->tokens, tokens)
		if (!memcmp(other->token.hash, change->token.hash, TOKEN_HASH))
			return true;
	return false;
}

static struct new_token *new_token_free(struct new_token *t)
{
	if (t)
		free(t->text);
	free(t);
	return NULL;
}

DEFINE_CLEANUP(struct new_token, new_token_free)

static void token_drop(struct membership_change *change)
{
	new_token_free(container_of(change, struct new_token, change));
}

static void on_token_durable(struct membership_change *change, struct membership *m,
			     int result)
{
	_cleanup_(new_token_freep) struct new_token *t =
		container_of(change, struct new_token, change);

	(void)m;
	LIST_REMOVE(change, tokens);
	if (t->added)
		t->added(t->owner, result);
	else
		t->done(t->owner, result, result ? NULL : t->text);
}

static void token_commit(struct membership *m, struct new_token *owned_t)
{
	struct membership_change *change = &owned_t->change;

	change->done = on_token_durable;
	change->drop = token_drop;
	LIST_INSERT_HEAD(&m->leader->tokens, change, tokens);
	membership_commit_later(m, change);
}

int membership_new_token(struct membership *m, nsec_t lifetime, membership_token_cb done,
			 void *owner)
{
	_cleanup_(new_token_freep) struct new_token *t = NULL;
	struct membership_token token = { 0 };
	int r;

	if (!m->leader)
		return membership_wire_new_token(m, lifetime, done, owner);
	if (!m->state->ca_pem)
		return MEMBERSHIP_E_NOT_LEADER;
	t = calloc(1, sizeof(*t));
	if (!t)
		return err_origin(-ENOMEM);
	r = authority_fingerprint(m->state->ca_pem, token.fingerprint);
	if (r)
		return err_fold(r);
	env_random(m->env, token.secret, sizeof(token.secret));
	strcpy(token.address, m->address);
	t->text = membership_token_format(&token);
	if (!t->text)
		return err_origin(-ENOMEM);
	t->done = done;
	t->owner = owner;
	membership_token_hash(token.secret, t->change.token.hash);
	t->change.token.record.expires = env_realtime(m->env) + lifetime;
	t->change.has_token = true;
	token_commit(m, TAKE(t));
	return 0;
}

int membership_add_token(struct membership *m, const uint8_t hash[static 32], nsec_t expires,
			 membership_added_cb done, void *owner)
{
	_cleanup_(new_token_freep) struct new_token *t = NULL;

	if (!m->leader)
		return MEMBERSHIP_E_NOT_LEADER;
	t = calloc(1, sizeof(*t));
	if (!t)
		return err_origin(-ENOMEM);
	t->added = done;
	t->owner = owner;
	memcpy(t->change.token.hash, hash, TOKEN_HASH);
	t->change.token.record.expires = expires;
	/* Known: nothing to write, but done comes as always. */
	t->change.has_token = !membership_state_token(m->state, hash);
	token_commit(m, TAKE(t));
	return 0;
}

static void answer(membership_join_cb done, void *owner, enum membership_join_status status,
		   const char *text, const char *leader_address)
{
	struct membership_join_reply reply = { .status = status,
					       .text = (char *)text,
					       .cluster = "",
					       .ca = "",
					       .cert = "",
					       .leader_address = (char *)leader_address };
	_cleanup_free_ uint8_t *data = NULL;
	size_t len = 0;

	/* Without memory: an empty reply, which is REFUSED without a reason. */
	(void)membership_join_reply_pack(&reply, &data, &len);
	done(owner, data, len);
}

static void refuse(membership_join_cb done, void *owner, enum membership_join_status status,
		   const char *text)
{
	answer(done, owner, status, text, "");
}

/* This node does not lead: who does? */
static void send_elsewhere(struct membership *m, membership_join_cb done, void *owner)
{
	const struct membership_node *leader =
		membership_node(m, consensus_leader(m->consensus));

	if (!leader && m->map)
		leader = membership_node(m, m->map->view->leader);
	if (leader && leader->id != m->config.self)
		answer(done, owner, JOIN_ELSEWHERE, "another node admits", leader->address);
	else
		refuse(done, owner, JOIN_TRY_AGAIN, "the cluster has no leader now, try again later");
}

static struct join *join_free(struct join *j)
{
	if (j)
		membership_join_reply_fini(&j->reply);
	free(j);
	return NULL;
}

DEFINE_CLEANUP(struct join, join_free)

static void join_drop(struct membership_change *change)
{
	join_free(container_of(change, struct join, change));
}

static void on_join_durable(struct membership_change *change, struct membership *m,
			    int result)
{
	_cleanup_(join_freep) struct join *j = container_of(change, struct join, change);
	_cleanup_free_ uint8_t *data = NULL;
	size_t len;

	LIST_REMOVE(change, tokens);
	m->leader->n_joins--;
	if (!result)
		result = membership_join_reply_pack(&j->reply, &data, &len);
	if (result) {
		refuse(j->done, j->owner, JOIN_TRY_AGAIN,
		       "the cluster's leader changes, try again");
		return;
	}
	log_notice("node %s was admitted", j->name);
	j->done(j->owner, data, len);
}

/* NULL, or why this joiner gets no further. */
static const char *check_token(struct membership *m, struct join *j)
{
	static const char bad[] = "the token is unknown, used or expired; make a new one "
				  "with ssi-admin token";
	const struct membership_token_record *record =
		membership_state_token(m->state, j->change.token.hash);

	if (!record || record->used_by || record->expires < env_realtime(m->env) ||
	    token_is_busy(m, &j->change))
		return bad;
	j->change.token.record = *record;
	return NULL;
}

/* NULL, or why this name is not to be had. */
static const char *check_name(struct membership *m, const char *name)
{
	const struct membership_node *n = membership_map_member_by_name(m->leader->next, name);

	return n && n->state != MEMBER_JOINING ?
		       "a member of the cluster has this name already; choose another" :
		       NULL;
}

static int sign(struct membership *m, const struct membership_join_request *request, node_id id,
		struct membership_join_reply *ret)
{
	int r;

	r = authority_sign(m->state->ca_pem, m->state->ca_key_pem, request->csr, id, &ret->cert);
	if (!r)
		r = authority_cluster(m->state->ca_pem, &ret->cluster);
	if (r)
		return err_fold(r);
	ret->status = JOIN_ADMITTED;
	ret->id = id;
	ret->leader = m->config.self;
	memcpy(ret->seal_key, m->seal_key, sizeof(ret->seal_key));
	ret->text = strdup("");
	ret->ca = strdup(m->state->ca_pem);
	ret->leader_address = strdup(m->address);
	return ret->text && ret->ca && ret->leader_address ? 0 : err_origin(-ENOMEM);
}

/* Into the map, and the token with it. */
static int admit(struct membership *m, const struct membership_join_request *request,
		 struct join *j)
{
	struct membership_leader *l = m->leader;
	const struct membership_node *old;
	struct membership_node *n;
	int r;

	r = sign(m, request, l->next->next_id, &j->reply);
	if (r)
		return r;
	old = membership_map_member_by_name(l->next, request->name);
	if (old)
		membership_map_remove_member(l->next, old->id);
	l->dirty = l->dirty || old;
	r = membership_map_add_member(l->next, l->next->next_id, request->name,
				      request->address, &n);
	if (r)
		return err_fold(r);
	n->witness = request->witness;
	j->change.token.record.used_by = l->next->next_id++;
	j->change.has_token = true;
	l->dirty = true;
	return 0;
}

/* NULL: @j is on its way, else why not. */
static const char *decide(struct membership *m, const uint8_t *data, size_t len,
			  struct join *j, enum membership_join_status *ret_status)
{
	_cleanup_(membership_join_request_fini) struct membership_join_request request = { 0 };
	const char *why;
	int r;

	*ret_status = JOIN_REFUSED;
	r = membership_join_request_unpack((struct iovec){ (void *)data, len }, &request);
	if (r)
		return "the request is not one: the name must be of [a-z0-9-], the address "
		       "host:port";
	membership_token_hash(request.secret, j->change.token.hash);
	why = check_token(m, j);
	if (why)
		return why;
	*ret_status = JOIN_TAKEN;
	why = check_name(m, request.name);
	if (why)
		return why;
	*ret_status = JOIN_REFUSED;
	strcpy(j->name, request.name);
	r = admit(m, &request, j);
	if (r == -EBADMSG)
		return "the certificate request is not one";
	*ret_status = JOIN_TRY_AGAIN;
	return r ? "the leader cannot admit anybody now, try again later" : NULL;
}

void membership_on_join(struct membership *m, const uint8_t *data, size_t len,
			membership_join_cb done, void *owner)
{
	_cleanup_(join_freep) struct join *j = NULL;
	enum membership_join_status status;
	const char *why;

	if (!m->leader || !m->state->ca_key_pem) {
		send_elsewhere(m, done, owner);
		return;
	}
	j = m->leader->n_joins < MEMBERSHIP_MAX_JOINS ? calloc(1, sizeof(*j)) : NULL;
	if (!j) {
		refuse(done, owner, JOIN_TRY_AGAIN, "the leader is busy, try again");
		return;
	}
	why = decide(m, data, len, j, &status);
	if (why) {
		log_notice("a joiner was refused: %s", why);
		refuse(done, owner, status, why);
		return;
	}
	j->done = done;
	j->owner = owner;
	j->change.done = on_join_durable;
	j->change.drop = join_drop;
	m->leader->n_joins++;
	LIST_INSERT_HEAD(&m->leader->tokens, &j->change, tokens);
	membership_commit_later(m, &TAKE(j)->change);
}
