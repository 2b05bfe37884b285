/*
 * What a node without its lease lacks, as far as it can tell: the voters whom it has asked
 * and who have not answered since.
 */
#include "membership_internal.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

void membership_trouble_answered(struct membership *m)
{
	size_t oldest = 0;

	for (size_t i = 0; i < sizeof(m->answered) / sizeof(*m->answered); i++) {
		if (m->answered[i].node == m->asked) {
			oldest = i;
			break;
		}
		if (m->answered[i].at < m->answered[oldest].at)
			oldest = i;
	}
	m->answered[oldest].node = m->asked;
	m->answered[oldest].at = env_now(m->env);
	m->unanswered[0] = '\0';
}

/* Did it answer at @since, or later? */
static bool answered_since(const struct membership *m, node_id node, nsec_t since)
{
	for (size_t i = 0; i < sizeof(m->answered) / sizeof(*m->answered); i++)
		if (m->answered[i].node == node)
			return m->answered[i].at >= since;
	return false;
}

bool membership_has_answered(const struct membership *m, node_id node)
{
	return answered_since(m, node, env_now(m->env) - m->config.lease);
}

void membership_trouble_unanswered(struct membership *m, const char *why)
{
	(void)snprintf(m->unanswered, sizeof(m->unanswered), " (%.90s)", why);
}

const char *membership_unanswered(const struct membership *m)
{
	return m->unanswered;
}

static bool is_silent(const struct membership *m, const struct membership_node *n)
{
	return n->id != m->config.self && !answered_since(m, n->id, m->lease_until);
}

/* "n1, n2 and n3": the voters, or the silent ones of them; how many. */
static size_t name_voters(const struct membership *m, bool silent, char *ret, size_t size)
{
	const struct membership_view *view = m->map->view;
	const struct membership_node *last = NULL;
	size_t n = 0, len = 0;

	ret[0] = '\0';
	for (size_t i = 0; i < view->n_nodes; i++) {
		if (!view->nodes[i].voter || (silent && !is_silent(m, &view->nodes[i])))
			continue;
		if (last && len < size)
			len += (size_t)snprintf(ret + len, size - len, "%s%s", n > 1 ? ", " : "",
						last->name);
		last = &view->nodes[i];
		n++;
	}
	if (last && len < size)
		(void)snprintf(ret + len, size - len, "%s%s", n > 1 ? " and " : "", last->name);
	return n;
}

/* By command, and not by chance. */
static bool is_sent_off(const struct membership *m, char *ret, size_t size)
{
	const struct membership_node *self = membership_node(m, m->config.self);

	return self && (self->state == MEMBER_REMOVED || m->given_up) &&
	       membership_refusal(m, self->id, ret, size);
}

bool membership_trouble(const struct membership *m, char *ret, size_t size)
{
	char voters[NODE_NAME_MAX * 8], silent[NODE_NAME_MAX * 8], since[32] = "the start";
	size_t n_voters, n_silent;
	struct tm tm;
	time_t t;

	if (membership_lease_held(m))
		return false;
	if (!m->map) {
		(void)snprintf(ret, size, "no node of the cluster answers at %s, where this one "
			       "joined%s: see ssi doctor",
			       m->config.leader_address, m->unanswered);
		return true;
	}
	if (is_sent_off(m, ret, size))
		return true;
	if (m->lease_until) {
		t = (time_t)((env_realtime(m->env) - (env_now(m->env) - m->lease_until)) /
			     NSEC_PER_SEC);
		(void)strftime(since, sizeof(since), "%T", localtime_r(&t, &tm));
	}
	if (m->cut_from) {
		const struct membership_node *n = membership_node(m, m->cut_from);

		(void)snprintf(ret, size, "there is no path between this node and %s, with which the "
			       "cluster goes on: mend the network between them",
			       n ? n->name : "a member");
		return true;
	}
	n_voters = name_voters(m, false, voters, sizeof(voters));
	n_silent = name_voters(m, true, silent, sizeof(silent));
	/* Not before each of them had its time to answer. */
	if (2 * (n_voters - n_silent) <= n_voters && n_silent &&
	    env_now(m->env) > m->started_at + m->config.lease &&
	    env_now(m->env) > m->lease_until + m->config.lease)
		(void)snprintf(ret, size,
			       "no majority: of the voters %s, %s %s not answered since %s%s: start "
			       "%s, or mend the network; if they are lost for ever see ssi-admin(8), recover",
			       voters, silent, n_silent > 1 ? "have" : "has", since, m->unanswered,
			       n_silent > 1 ? "one of them" : "it");
	else
		(void)snprintf(ret, size, "out of touch with the cluster since %s: no leader is "
			       "found yet among the voters %s%s, looking for one",
			       since, voters, m->unanswered);
	return true;
}
