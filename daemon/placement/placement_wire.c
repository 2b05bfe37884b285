#include "placement_wire.h"

#include "err.h"
#include "placement.pb-c.h"
#include "envelope.pb-c.h"
#include "process_member.h"
#include "process_wire.h"

#include <string.h>

static const nsec_t ask_timeout = 15 * NSEC_PER_SEC;
static const nsec_t call_timeout = 5 * NSEC_PER_SEC;

/* -- What is sent -- */

static ProtobufCBinaryData data_of(char *s)
{
	return (ProtobufCBinaryData){ .len = strlen(s), .data = (uint8_t *)s };
}

static void terminal_pack(const struct placement_exec *x, Ssi__Process__Terminal *ret)
{
	const struct tty_state *t = &x->terminal;

	ret->modes = (ProtobufCBinaryData){ sizeof(t->modes), (uint8_t *)&t->modes };
	ret->size = (ProtobufCBinaryData){ sizeof(t->size), (uint8_t *)&t->size };
	ret->foreground = t->foreground;
	ret->owner = t->owner;
	ret->given = (uint32_t)x->n_given;
	ret->typed = t->typed;
	ret->shown = t->shown;
}

/* The launch, as the process room packs it, and Exec behind it: bytes of one message may
 * be joined. */
int placement_pack(const struct placement_exec *x, uint8_t **ret, size_t *ret_len)
{
	Ssi__Process__Launch m = SSI__PROCESS__LAUNCH__INIT;
	Ssi__Process__Exec e = SSI__PROCESS__EXEC__INIT;
	Ssi__Process__Descriptor d[PLACEMENT_DESCRIPTORS_MAX], *d_list[PLACEMENT_DESCRIPTORS_MAX];
	Ssi__Process__Terminal terminal = SSI__PROCESS__TERMINAL__INIT;
	Ssi__Process__Same same[PLACEMENT_SAME_MAX], *same_list[PLACEMENT_SAME_MAX];
	_cleanup_free_ uint8_t *launch = NULL;
	uint8_t *page;
	size_t len;
	int r = process_launch_pack(&x->launch, &launch, &len);

	if (r < 0)
		return r;
	for (size_t i = 0; i < x->n_descriptors; i++) {
		const struct placement_descriptor *from = &x->descriptors[i];

		d_list[i] = &d[i];
		ssi__process__descriptor__init(&d[i]);
		d[i].number = from->number;
		d[i].kind = (Ssi__Process__Descriptor__Kind)from->kind;
		if (from->path)
			d[i].path = data_of(from->path);
		d[i].flags = from->flags;
		d[i].offset = from->offset;
		d[i].inode = from->inode;
		d[i].given = from->kind == PLACEMENT_TERMINAL ? (uint32_t)x->n_given : from->given;
	}
	if (x->has_terminal) {
		terminal_pack(x, &terminal);
		e.terminal = &terminal;
	}
	for (size_t i = 0; i < x->n_same; i++) {
		same_list[i] = &same[i];
		ssi__process__same__init(&same[i]);
		same[i].path = data_of(x->same[i].path);
		same[i].inode = x->same[i].inode;
		same[i].file_system = x->same[i].file_system;
	}
	e.program = data_of(x->program);
	e.program_size = x->program_size;
	e.program_changed = x->program_changed;
	e.blocked = x->blocked;
	e.ignored = x->ignored;
	e.descriptors = d_list;
	e.n_descriptors = x->n_descriptors;
	e.same = same_list;
	e.n_same = x->n_same;
	m.exec = &e;
	page = realloc(launch, len + ssi__process__launch__get_packed_size(&m));
	if (!page)
		return err_origin(-ENOMEM);
	launch = NULL;
	len += ssi__process__launch__pack(&m, page + len);
	*ret = page;
	*ret_len = len;
	return 0;
}

int placement_wire_ask(struct placement *p, node_id node, const struct placement_look *l,
		       const stream_id *streams, rpc_done_cb done, void *owner,
		       struct rpc_request **ret)
{
	Ssi__Placement__AskRequest q = SSI__PLACEMENT__ASK_REQUEST__INIT;
	const struct process_member both[] = { l->member, l->parent };
	_cleanup_free_ Ssi__Process__Member **members = NULL;
	_cleanup_free_ uint8_t *page = NULL;
	char capabilities[CAPABILITY_TEXT_MAX];
	int r = process_members_pack(both, 2, &members);

	if (r == 0)
		r = placement_pack(&l->exec, &page, &q.launch.len);
	if (r < 0)
		return r;
	q.member = members[0];
	q.parent = members[1];
	q.launch.data = page;
	q.streams = (uint64_t *)streams;
	q.n_streams = l->exec.n_given;
	capability_format(&l->member.capabilities, capabilities);
	q.capabilities = capabilities;
	return err_fold(rpc_call(p->n.rpc, node, PLACEMENT_ASK, &q.base, RPC_NO_BULK, ask_timeout,
				 done, owner, ret));
}

int placement_wire_end(struct placement *p, node_id node, pid_t pid, uint32_t generation,
		       const struct placement_end *end, rpc_done_cb done, void *owner,
		       struct rpc_request **ret)
{
	Ssi__Placement__EndRequest q = SSI__PLACEMENT__END_REQUEST__INIT;

	q.pid = pid;
	q.generation = generation;
	q.begin = end->begin;
	q.wait = end->wait;
	q.alarm_value_us = end->alarm.value_us;
	q.alarm_interval_us = end->alarm.interval_us;
	return err_fold(rpc_call(p->n.rpc, node, PLACEMENT_END, &q.base, RPC_NO_BULK,
				 call_timeout, done, owner, ret));
}

int placement_wire_state(struct placement *p, node_id node, pid_t pid, uint32_t generation,
			 rpc_done_cb done, void *owner, struct rpc_request **ret)
{
	Ssi__Placement__StateRequest q = SSI__PLACEMENT__STATE_REQUEST__INIT;

	q.pid = pid;
	q.generation = generation;
	return err_fold(rpc_call(p->n.rpc, node, PLACEMENT_STATE, &q.base, RPC_NO_BULK,
				 call_timeout, done, owner, ret));
}

uint64_t placement_wire_incarnation(const struct rpc_result *result)
{
	return ((const Ssi__Placement__AskReply *)(const void *)result->reply)->incarnation;
}

bool placement_wire_left(const struct rpc_result *result)
{
	return ((const Ssi__Placement__StateReply *)(const void *)result->reply)->left;
}

void placement_wire_ready(struct placement *p, struct rpc_call *call)
{
	Ssi__Placement__AskReply reply = SSI__PLACEMENT__ASK_REPLY__INIT;
	const struct membership_node *self =
		membership_node(p->n.membership, rpc_self(p->n.rpc));

	reply.incarnation = self ? self->incarnation : 0;
	rpc_reply(call, &reply.base, RPC_NO_BULK);
}

void placement_wire_done(struct rpc_call *call)
{
	Ssi__Envelope__Empty reply = SSI__ENVELOPE__EMPTY__INIT;

	rpc_reply(call, &reply.base, RPC_NO_BULK);
}

void placement_wire_is_left(struct rpc_call *call, bool left)
{
	Ssi__Placement__StateReply reply = SSI__PLACEMENT__STATE_REPLY__INIT;

	reply.left = left;
	rpc_reply(call, &reply.base, RPC_NO_BULK);
}

/* -- What comes -- */

static char *text_of(const ProtobufCBinaryData *d)
{
	if (!d->len || d->len > 4095 || memchr(d->data, 0, d->len))
		return NULL;
	return strndup((const char *)d->data, d->len);
}

static int terminal_unpack(const Ssi__Process__Terminal *t, size_t n_given, struct tty_state *ret)
{
	if (t->modes.len != sizeof(ret->modes) || t->size.len != sizeof(ret->size) ||
	    t->given != n_given || !t->typed || !t->shown)
		return err_origin(-EBADMSG);
	*ret = (struct tty_state){ .foreground = t->foreground,
				   .owner = t->owner,
				   .typed = t->typed,
				   .shown = t->shown };
	memcpy(&ret->modes, t->modes.data, sizeof(ret->modes));
	memcpy(&ret->size, t->size.data, sizeof(ret->size));
	return 0;
}

int placement_unpack(struct placement_exec *ret, const uint8_t *page, size_t len, size_t n_given)
{
	Ssi__Process__Launch *m = ssi__process__launch__unpack(NULL, len, page);
	int r = m && m->exec && m->n_argv > 0 && m->exec->n_same <= PLACEMENT_SAME_MAX &&
				m->exec->n_descriptors <= PLACEMENT_DESCRIPTORS_MAX &&
				n_given <= PLACEMENT_GIVEN_MAX ?
			0 :
			err_origin(-EBADMSG);

	for (size_t i = 0; r == 0 && i < m->exec->n_descriptors; i++) {
		const Ssi__Process__Descriptor *d = m->exec->descriptors[i];

		/* The terminal is behind the pipes. */
		if (d->number < 0 || d->number > PLACEMENT_NUMBER_MAX ||
		    (d->kind == SSI__PROCESS__DESCRIPTOR__KIND__TERMINAL ?
			     !m->exec->terminal || d->given != n_given :
			     d->kind != SSI__PROCESS__DESCRIPTOR__KIND__FILE && d->given >= n_given))
			r = err_origin(-EBADMSG);
		else if (d->kind == SSI__PROCESS__DESCRIPTOR__KIND__INPUT)
			ret->input[d->given] = true;
	}
	for (size_t i = 0; r == 0 && i < m->exec->n_same; i++) {
		struct placement_same *same = &ret->same[ret->n_same++];

		same->path = text_of(&m->exec->same[i]->path);
		same->file_system = strdup(m->exec->same[i]->file_system);
		same->inode = m->exec->same[i]->inode;
		if (!same->path || !same->file_system)
			r = err_origin(-EBADMSG);
	}
	if (r == 0 && m->exec->terminal) {
		ret->has_terminal = true;
		r = terminal_unpack(m->exec->terminal, n_given, &ret->terminal);
	}
	ret->n_given = r == 0 ? n_given : 0;
	for (size_t i = 0; i < ret->n_given; i++)
		ret->given[i] = -1;
	if (m)
		ssi__process__launch__free_unpacked(m, NULL);
	return r;
}

static int members_of(const Ssi__Placement__AskRequest *q, struct process_member **ret)
{
	Ssi__Process__Member *both[] = { q->member, q->parent };
	struct capability_sets sets = capability_initial(false);
	int r = q->capabilities[0] ? capability_unformat(&sets, q->capabilities) : 0;

	if (r < 0 || !q->member || !q->parent)
		return err_origin(-EBADMSG);
	r = process_members_unpack(ret, both, 2);
	if (r == 0)
		(*ret)[0].capabilities = sets;
	return r;
}

RPC_HANDLER(on_ask, struct placement, Ssi__Placement__AskRequest)
{
	_cleanup_free_ struct process_member *members = NULL;
	struct placement_exec exec = { 0 };
	uint8_t *page = malloc(req->launch.len + 1);
	int r = page ? members_of(req, &members) : err_origin(-ENOMEM);

	if (r == 0)
		r = placement_unpack(&exec, req->launch.data, req->launch.len, req->n_streams);
	/* What it starts has the home that asks. */
	if (r == 0 && membership_home(self->n.membership, members[0].pid) != rpc_call_peer(call))
		r = err_origin(-EBADMSG);
	if (r < 0) {
		placement_exec_fini(&exec);
		free(page);
		rpc_fail(call, RPC_USAGE, "not a program to begin: %s", strerror(-r));
		return;
	}
	memcpy(page, req->launch.data, req->launch.len);
	exec.terminal.session = members[0].sid;
	coming_on_ask(self, call, &members[0], &members[1], &exec, req->streams, page,
		      req->launch.len);
}

RPC_HANDLER(on_end, struct placement, Ssi__Placement__EndRequest)
{
	const struct placement_end end = { req->begin,
					   req->wait,
					   { req->alarm_value_us, req->alarm_interval_us } };

	coming_on_end(self, call, req->pid, req->generation, &end);
}

RPC_HANDLER(on_state, struct placement, Ssi__Placement__StateRequest)
{
	leaving_on_state(self, call, req->pid, req->generation);
}

const struct rpc_method placement_methods[] = {
	RPC_METHOD(PLACEMENT_ASK, on_ask, ssi__placement__ask_request__descriptor,
		   ssi__placement__ask_reply__descriptor),
	RPC_METHOD(PLACEMENT_END, on_end, ssi__placement__end_request__descriptor,
		   ssi__envelope__empty__descriptor),
	RPC_METHOD(PLACEMENT_STATE, on_state, ssi__placement__state_request__descriptor,
		   ssi__placement__state_reply__descriptor),
	{ 0 },
};
