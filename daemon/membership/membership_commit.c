/*
 * The leader's changes of the map: committed first, then told.
 *
 * Happy path: decisions are made on leader->next; one command at a time takes all
 * that were made since the last, as view N+1, together with the tokens that
 * they use up; when it is committed this node takes the view, every member that is
 * up is told what it changes, and those who waited are answered.  The more members there
 * are, the longer the next command waits for more to be decided: a view costs all of them.
 *
 * Failure modes: leadership is lost meanwhile -> everybody who waited is refused,
 * and next goes with the leader; what was proposed may still come to be, under the
 * next one.  This room is freed during a commit -> the commit goes with it; the
 * loop has stopped, so done does not come any more.
 */
#include "membership_history.h"
#include "membership_internal.h"

#include "err.h"
#include "log.h"

#include <inttypes.h>
#include <string.h>

/* Clocks of nodes differ: what has expired by one may be good by another. */
#define TOKEN_REMEMBERED (24 * 3600 * NSEC_PER_SEC)

#define PAUSE (NSEC_PER_MSEC / 4) /* between two maps, for each member */
enum { PAUSE_FRACTION = 8 };	  /* of a lease, at most: a renewal may wait for it */

/* One command. */
struct membership_commit {
	struct membership *m;
	bool has_map;
	struct membership_change_list changes;
};

/* The founder alone, not yet seen. */
static int first_map(struct membership *m, struct membership_map **ret)
{
	_cleanup_(membership_map_freep) struct membership_map *map = NULL;
	int r;

	r = membership_map_new(&map, m->config.self);
	if (!r)
		r = membership_map_add_member(map, m->config.self, m->config.name,
					      m->config.address, NULL);
	if (r)
		return err_fold(r);
	map->next_id = m->config.self + 1;
	map->lease = m->config.lease;
	*ret = TAKE(map);
	return 0;
}

int membership_commit_begin(struct membership *m)
{
	struct membership_leader *l = m->leader;
	int r;

	l->next = membership_map_free(l->next);
	l->authority = !m->state->ca_pem && m->ca_pem && m->ca_key_pem;
	if (!m->state->map->view->epoch) {
		l->dirty = true;
		return first_map(m, &l->next);
	}
	r = membership_map_copy(&l->next, m->state->map);
	if (r)
		return err_fold(r);
	/* A new leader is a new view: the members learn of him by it. */
	l->dirty = m->recovered || l->next->lease != m->config.lease ||
		   l->next->view->leader != m->config.self;
	l->next->lease = m->config.lease;
	l->next->view->leader = m->config.self;
	return 0;
}

static void finish_changes(struct membership *m, struct membership_change_list *changes,
			   int result)
{
	struct membership_change *change;

	while ((change = TAILQ_FIRST(changes))) {
		TAILQ_REMOVE(changes, change, in);
		change->done(change, m, result);
	}
}

static void drop_changes(struct membership_change_list *changes)
{
	struct membership_change *change;

	while ((change = TAILQ_FIRST(changes))) {
		TAILQ_REMOVE(changes, change, in);
		change->drop(change);
	}
}

/* Without memory the next is told as changes of an older one: few have that, and ask. */
static void set_told(struct membership *m)
{
	struct membership_map *copy;

	if (membership_map_copy(&copy, m->state->map))
		return;
	membership_map_free(m->leader->told);
	m->leader->told = copy;
}

static void tell_members(struct membership *m)
{
	const struct membership_view *view = m->state->map->view;

	_cleanup_(membership_map_freep) struct membership_map *changes = NULL;
	struct membership_leader *l = m->leader;
	epoch_t base;

	/* Ourselves first: rpc must know whom it may talk to. */
	membership_server_tell_self(m);
	base = !membership_changes_new(&changes, l->told, m->state->map) ? l->told->view->epoch :
									   0;
	for (size_t i = 0; i < view->n_nodes; i++)
		if (membership_state_is_up(view->nodes[i].state) &&
		    view->nodes[i].id != m->config.self)
			(void)membership_wire_tell(m, view->nodes[i].id,
						   base ? changes : m->state->map, base);
	set_told(m);
}

static void forget(struct membership *m, struct membership_commit *c, int result)
{
	int r = membership_commit_begin(m);

	if (r) {
		log_error("no memory for the map: %s", strerror(-r));
		abort(); /* the successor reads it from the log */
	}
	finish_changes(m, &c->changes, result);
	finish_changes(m, &m->leader->waiting, result);
}

static void on_committed(void *owner, int result)
{
	_cleanup_free_ struct membership_commit *c = owner;
	struct membership *m = c->m;

	m->leader->commit = NULL;
	if (result) {
		forget(m, c, result < 0 ? result : -ECANCELED);
		return;
	}
	if (c->has_map) {
		m->leader->committed_at = env_now(m->env);
		membership_recover_done(m);
		tell_members(m);
	}
	finish_changes(m, &c->changes, 0);
	membership_commit_flush(m);
}

/* Tokens that nobody can use any more go, with the next that comes. */
static size_t add_expired(struct membership *m, struct membership_token_change *tokens)
{
	struct membership_state_token *t, *next;
	size_t n = 0;

	HASH_ITER(hh, m->state->tokens, t, next)
		if (t->record.expires + TOKEN_REMEMBERED < env_realtime(m->env))
			memcpy(tokens[n++].hash, t->hash, TOKEN_HASH);
	return n;
}

/* Propose @c: the map, and every token that a change brings along. */
static int propose(struct membership *m, struct membership_commit *c)
{
	struct membership_leader *l = m->leader;
	_cleanup_free_ struct membership_token_change *tokens = NULL;
	struct membership_command command = {
		.map = c->has_map ? l->next : NULL,
		.ca_pem = l->authority ? m->ca_pem : NULL,
		.ca_key_pem = l->authority ? m->ca_key_pem : NULL,
	};
	struct membership_change *change;
	struct iovec bytes = { 0 };
	size_t n = HASH_COUNT(m->state->tokens);
	int r;

	TAILQ_FOREACH(change, &c->changes, in)
		n++;
	command.tokens = tokens = calloc(n + 1, sizeof(*tokens));
	if (!tokens)
		return err_origin(-ENOMEM);
	TAILQ_FOREACH(change, &c->changes, in)
		if (change->has_token)
			tokens[command.n_tokens++] = change->token;
	if (command.n_tokens)
		command.n_tokens += add_expired(m, tokens + command.n_tokens);
	r = membership_command_pack(&command, &bytes);
	if (!r)
		r = consensus_propose(m->consensus, bytes, on_committed, c);
	free(bytes.iov_base);
	return r;
}

static bool something_to_write(const struct membership_leader *l)
{
	struct membership_change *change;

	TAILQ_FOREACH(change, &l->waiting, in)
		if (change->has_token)
			return true;
	return l->dirty || l->authority;
}

static void set_epoch(struct membership_view *view, epoch_t epoch)
{
	view->epoch = epoch;
	for (size_t i = 0; i < view->n_nodes; i++)
		if (membership_state_is_up(view->nodes[i].state) && !view->nodes[i].since)
			view->nodes[i].since = epoch;
}

/* How long the next map still waits, for others to be decided. */
static nsec_t pause_left(struct membership *m)
{
	const struct membership_leader *l = m->leader;
	nsec_t pause = PAUSE * l->next->view->n_nodes, most = m->config.lease / PAUSE_FRACTION;
	nsec_t until = l->committed_at + (pause < most ? pause : most);
	nsec_t now = env_now(m->env);

	return l->dirty && l->committed_at && until > now ? until - now : 0;
}

void membership_commit_flush(struct membership *m)
{
	struct membership_leader *l = m->leader;
	_cleanup_free_ struct membership_commit *c = NULL;
	int r;

	if (l->commit)
		return;
	if (!something_to_write(l)) {
		finish_changes(m, &l->waiting, 0);
		return;
	}
	if (pause_left(m)) {
		(void)env_arm(m->env, &l->flush, pause_left(m));
		return;
	}
	c = calloc(1, sizeof(*c));
	if (!c)
		return; /* the next change, or the lease watch, comes again */
	c->m = m;
	TAILQ_INIT(&c->changes);
	TAILQ_CONCAT(&c->changes, &l->waiting, in);
	c->has_map = l->dirty;
	if (c->has_map) {
		set_epoch(l->next->view,
			  m->state->map->view->epoch + membership_recover_step(m));
		membership_history_stamp(l->next, m->state->map, env_realtime(m->env));
	}
	r = propose(m, c);
	if (r) {
		forget(m, c, r < 0 ? r : -ECANCELED);
		return;
	}
	l->dirty = l->authority = false;
	l->commit = TAKE(c);
}

void membership_commit(struct membership *m, struct membership_change *change)
{
	TAILQ_INSERT_TAIL(&m->leader->waiting, change, in);
	membership_commit_flush(m);
}

void membership_commit_later(struct membership *m, struct membership_change *change)
{
	TAILQ_INSERT_TAIL(&m->leader->waiting, change, in);
	(void)env_arm(m->env, &m->leader->flush, 0);
}

void membership_commit_refuse(struct membership *m)
{
	finish_changes(m, &m->leader->waiting, -ECANCELED);
}

void membership_commit_fini(struct membership *m)
{
	struct membership_leader *l = m->leader;

	drop_changes(&l->waiting);
	if (l->commit)
		drop_changes(&l->commit->changes);
	free(TAKE(l->commit));
}
