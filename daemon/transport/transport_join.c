/*
 * A request to join, as it is served: one request, one reply, each behind 4 bytes of
 * length.
 *
 * Failure modes: more than JOINS_MAX at once, too long a request or more than one,
 * JOIN_MAX over -> the link ends.  The joiner leaves -> the request stays until its
 * owner has answered, into nothing.
 */
#include "transport_link_internal.h"

#include "cleanup.h"

#include <endian.h>
#include <string.h>

static void join_free(struct transport_tcp_join *j)
{
	if (j->tcp) {
		j->tcp->n_joins--;
		LIST_REMOVE(j, in);
	}
	if (j->link)
		j->link->join = NULL;
	free(j);
}

void join_begin(struct transport_link *l)
{
	struct transport_tcp *t = l->tcp;

	if (!t->on_join)
		return link_doom(l, "nobody can join here");
	if (t->n_joins >= JOINS_MAX)
		return link_doom(l, "%u others are joining", t->n_joins);
	l->join = calloc(1, sizeof(*l->join));
	if (!l->join)
		return link_doom(l, "out of memory");
	l->join->link = l;
	l->join->tcp = t;
	LIST_INSERT_HEAD(&t->joins, l->join, in);
	t->n_joins++;
}

void join_on_data(struct transport_link *l, const uint8_t *data, size_t n)
{
	struct transport_tcp_join *j = l->join;
	uint32_t len = 0;

	if (!j || j->asked || n > sizeof(j->data) - j->n_data)
		return link_doom(l, "its request to join is too long");
	memcpy(j->data + j->n_data, data, n);
	j->n_data += n;
	if (j->n_data < sizeof(len))
		return;
	memcpy(&len, j->data, sizeof(len));
	len = le32toh(len);
	if (len > JOIN_REQUEST_MAX || j->n_data > sizeof(len) + len)
		return link_doom(l, "its request to join is too long");
	if (j->n_data < sizeof(len) + len)
		return;
	j->asked = true;
	l->tcp->on_join(l->tcp->join_owner, j, l->address, j->data + sizeof(len), len);
}

/* The link ends.  What was asked waits for its answer. */
void join_on_gone(struct transport_link *l)
{
	struct transport_tcp_join *j = l->join;

	if (!j)
		return;
	if (!j->asked)
		return join_free(j);
	l->join = NULL;
	j->link = NULL;
}

void transport_tcp_join_reply(struct transport_tcp_join *join, const uint8_t *data,
			      size_t len)
{
	struct transport_link *l = join->link;
	uint32_t head = htole32((uint32_t)len);
	struct iovec parts[] = {{&head, sizeof(head)}, {(void *)data, len}};

	join_free(join);
	if (!l)
		return;
	if (len > JOIN_REPLY_MAX ||
	    out_queue_append(&l->queue, parts, N_ELEMENTS(parts)) < 0)
		return link_doom(l, "there is no answer to its request to join");
	l->answered = true;
	flow_flush(l);
}
