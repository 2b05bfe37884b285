/* See membership_state.h. */
#include "membership_state.h"

#include "err.h"
#include "membership.pb-c.h"
#include "membership_internal.h"

#include <string.h>

enum { PEM_MAX = 16 << 10 };

int membership_state_new(struct membership_state **ret)
{
	_cleanup_(membership_state_freep) struct membership_state *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_origin(-ENOMEM);
	r = membership_map_new(&s->map, NODE_NONE);
	if (r)
		return err_fold(r);
	*ret = TAKE(s);
	return 0;
}

struct membership_state *membership_state_free(struct membership_state *s)
{
	struct membership_state_token *t, *next;

	if (!s)
		return NULL;
	membership_map_free(s->map);
	HASH_ITER(hh, s->tokens, t, next) {
		HASH_DEL(s->tokens, t);
		free(t);
	}
	free(s->ca_pem);
	free(s->ca_key_pem);
	free(s);
	return NULL;
}

static struct membership_state_token *find(const struct membership_state *s,
					   const uint8_t hash[static TOKEN_HASH])
{
	struct membership_state_token *t;

	HASH_FIND(hh, s->tokens, hash, TOKEN_HASH, t);
	return t;
}

const struct membership_token_record *
membership_state_token(const struct membership_state *s, const uint8_t hash[static TOKEN_HASH])
{
	const struct membership_state_token *t = find(s, hash);

	return t ? &t->record : NULL;
}

static int set_token(struct membership_state *s, const uint8_t hash[static TOKEN_HASH],
		     const struct membership_token_record *record)
{
	struct membership_state_token *t = find(s, hash);

	if (!record->expires) {
		if (t)
			HASH_DEL(s->tokens, t);
		free(t);
		return 0;
	}
	if (!t) {
		t = calloc(1, sizeof(*t));
		if (!t)
			return err_origin(-ENOMEM);
		memcpy(t->hash, hash, TOKEN_HASH);
		HASH_ADD(hh, s->tokens, hash, TOKEN_HASH, t);
		if (!t->hh.tbl) {
			free(t);
			return err_origin(-ENOMEM);
		}
	}
	t->record = *record;
	return 0;
}

int membership_command_pack(const struct membership_command *command, struct iovec *ret)
{
	_cleanup_free_ Ssi__Membership__Token *tokens = NULL, **list = NULL;
	Ssi__Membership__Authority authority = SSI__MEMBERSHIP__AUTHORITY__INIT;
	Ssi__Membership__Command p = SSI__MEMBERSHIP__COMMAND__INIT;
	_cleanup_free_ uint8_t *map = NULL;
	int r;

	tokens = calloc(command->n_tokens + 1, sizeof(*tokens));
	list = calloc(command->n_tokens + 1, sizeof(*list));
	if (!tokens || !list)
		return err_origin(-ENOMEM);
	for (size_t i = 0; i < command->n_tokens; i++) {
		const struct membership_token_change *t = &command->tokens[i];

		list[i] = &tokens[i];
		ssi__membership__token__init(list[i]);
		list[i]->hash = (ProtobufCBinaryData){ TOKEN_HASH, (uint8_t *)t->hash };
		list[i]->expires_ns = t->record.expires;
		list[i]->used_by = t->record.used_by;
	}
	p.n_tokens = command->n_tokens;
	p.tokens = list;
	if (command->map) {
		r = membership_wire_map_pack(command->map, &map, &p.map.len);
		if (r)
			return err_fold(r);
		p.map.data = map;
	}
	if (command->ca_pem) {
		authority.ca = (char *)command->ca_pem;
		authority.key = (char *)command->ca_key_pem;
		p.authority = &authority;
	}
	ret->iov_len = ssi__membership__command__get_packed_size(&p);
	ret->iov_base = malloc(ret->iov_len + 1);
	if (!ret->iov_base)
		return err_origin(-ENOMEM);
	ssi__membership__command__pack(&p, ret->iov_base);
	return 0;
}

static void command_freep(Ssi__Membership__Command **command)
{
	if (*command)
		ssi__membership__command__free_unpacked(*command, NULL);
}

static bool can_be(const Ssi__Membership__Command *p)
{
	for (size_t i = 0; i < p->n_tokens; i++)
		if (p->tokens[i]->hash.len != TOKEN_HASH)
			return false;
	return !p->authority ||
	       (strlen(p->authority->ca) <= PEM_MAX && strlen(p->authority->key) <= PEM_MAX);
}

static int set_authority(struct membership_state *s, const Ssi__Membership__Authority *a)
{
	char *ca = strdup(a->ca), *key = strdup(a->key);

	if (!ca || !key) {
		free(ca);
		free(key);
		return err_origin(-ENOMEM);
	}
	free(s->ca_pem);
	free(s->ca_key_pem);
	s->ca_pem = ca;
	s->ca_key_pem = key;
	return 0;
}

int membership_state_apply(struct membership_state *s, struct iovec command)
{
	_cleanup_(command_freep) Ssi__Membership__Command *p = NULL;
	_cleanup_(membership_map_freep) struct membership_map *map = NULL;
	int r = 0;

	p = ssi__membership__command__unpack(NULL, command.iov_len, command.iov_base);
	if (!p || !can_be(p))
		return err_origin(-EBADMSG);
	if (p->map.len)
		r = membership_wire_map_unpack((struct iovec){ p->map.data, p->map.len }, &map);
	/* Epochs go up by one, but for a snapshot, which begins anywhere, and a recovery. */
	if (!r && map && s->map->view->epoch && map->view->epoch != s->map->view->epoch + 1 &&
	    map->view->epoch != s->map->view->epoch + MEMBERSHIP_FAR)
		r = err_origin(-EBADMSG);
	for (size_t i = 0; !r && i < p->n_tokens; i++) {
		const Ssi__Membership__Token *t = p->tokens[i];
		struct membership_token_record record = { t->expires_ns, t->used_by };

		r = set_token(s, t->hash.data, &record);
	}
	if (!r && p->authority)
		r = set_authority(s, p->authority);
	if (r || !map)
		return r;
	membership_map_free(s->map);
	s->map = TAKE(map);
	return 0;
}

int membership_state_pack(const struct membership_state *s, struct iovec *ret)
{
	size_t n = HASH_COUNT(s->tokens);
	_cleanup_free_ struct membership_token_change *tokens = calloc(n + 1, sizeof(*tokens));
	struct membership_command command = {
		.map = s->map->view->epoch ? s->map : NULL,
		.tokens = tokens,
		.ca_pem = s->ca_pem,
		.ca_key_pem = s->ca_key_pem,
	};
	struct membership_state_token *t, *next;

	if (!tokens)
		return err_origin(-ENOMEM);
	HASH_ITER(hh, s->tokens, t, next) {
		struct membership_token_change *change = &tokens[command.n_tokens++];

		memcpy(change->hash, t->hash, TOKEN_HASH);
		change->record = t->record;
	}
	return membership_command_pack(&command, ret);
}
