#include "process_wire.h"

#include "cleanup.h"
#include "err.h"
#include "process_internal.h"
#include "process_member.h"

#include <string.h>

enum {
	STRINGS_MAX = 65536,	    /* arguments, or variables */
	STRING_BYTES_MAX = 4 << 20, /* of one launch */
};

static const nsec_t call_timeout = 5 * NSEC_PER_SEC;
static const nsec_t long_timeout = 30 * NSEC_PER_SEC;

/* -- Launch -- */

static ProtobufCBinaryData data_of(const char *s)
{
	return (ProtobufCBinaryData){.len = s ? strlen(s) : 0, .data = (uint8_t *)s};
}

static ProtobufCBinaryData *list_of(char **strings, size_t *ret_n)
{
	ProtobufCBinaryData *list;
	size_t n = 0;

	while (strings && strings[n])
		n++;
	list = calloc(n + 1, sizeof(*list));
	for (size_t i = 0; list && i < n; i++)
		list[i] = data_of(strings[i]);
	*ret_n = n;
	return list;
}

int process_launch_page(const struct process_launch *l, uint32_t pipes, uint8_t **ret,
			size_t *ret_len)
{
	Ssi__Process__Launch m = SSI__PROCESS__LAUNCH__INIT;
	Ssi__Process__Limit limits[RLIM_NLIMITS], *limit_list[RLIM_NLIMITS];
	_cleanup_free_ ProtobufCBinaryData *argv = NULL, *envp = NULL;
	uint32_t groups[N_ELEMENTS(l->caller.groups)];
	uint8_t *data;

	argv = list_of(l->argv, &m.n_argv);
	envp = list_of(l->envp, &m.n_envp);
	if (!argv || !envp)
		return err_origin(-ENOMEM);
	m.argv = argv;
	m.envp = envp;
	m.cwd = data_of(l->cwd);
	m.name = data_of(l->name);
	m.uid = l->caller.uid;
	m.gid = l->caller.gid;
	m.groups = groups;
	m.n_groups = l->caller.n_groups;
	for (size_t i = 0; i < l->caller.n_groups; i++)
		groups[i] = l->caller.groups[i];
	m.umask = l->umask;
	m.nice = l->nice;
	m.limits = limit_list;
	m.n_limits = RLIM_NLIMITS;
	for (uint32_t i = 0; i < RLIM_NLIMITS; i++) {
		ssi__process__limit__init(&limits[i]);
		limits[i].resource = i;
		limits[i].soft = l->limits[i].rlim_cur;
		limits[i].hard = l->limits[i].rlim_max;
		limit_list[i] = &limits[i];
	}
	m.pipes = pipes;
	m.terminal = l->on_terminal;
	m.spread = l->spread;
	m.report = l->report;
	*ret_len = ssi__process__launch__get_packed_size(&m);
	data = malloc(*ret_len);
	if (!data)
		return err_origin(-ENOMEM);
	(void)ssi__process__launch__pack(&m, data);
	*ret = data;
	return 0;
}

int process_launch_pack(const struct process_launch *l, uint8_t **ret, size_t *ret_len)
{
	return process_launch_page(l, 0, ret, ret_len);
}

static char *string_from(const ProtobufCBinaryData *d)
{
	if (!d->len)
		return strdup(""); /* its data may be NULL */
	/* A NUL inside would cut it: then it is not what was asked for. */
	if (memchr(d->data, 0, d->len))
		return NULL;
	return strndup((const char *)d->data, d->len);
}

static char **strings_from(const ProtobufCBinaryData *list, size_t n, size_t *bytes)
{
	char **v;

	if (n > STRINGS_MAX)
		return NULL;
	v = calloc(n + 1, sizeof(*v));
	for (size_t i = 0; v && i < n; i++) {
		*bytes += list[i].len;
		v[i] = *bytes > STRING_BYTES_MAX ? NULL : string_from(&list[i]);
		if (!v[i])
			break; /* noticed by the caller: too short */
	}
	return v;
}

static bool strings_complete(char **v, size_t n)
{
	return v && (n == 0 || v[n - 1]);
}

static int limits_from(struct process_launch *l, const Ssi__Process__Launch *m)
{
	for (size_t i = 0; i < RLIM_NLIMITS; i++)
		l->limits[i] = (struct rlimit){RLIM_INFINITY, RLIM_INFINITY};
	for (size_t i = 0; i < m->n_limits; i++) {
		if (m->limits[i]->resource >= RLIM_NLIMITS ||
		    m->limits[i]->soft > m->limits[i]->hard)
			return err_origin(-EINVAL);
		l->limits[m->limits[i]->resource] = (struct rlimit){
			.rlim_cur = m->limits[i]->soft, .rlim_max = m->limits[i]->hard};
	}
	return 0;
}

static int launch_from(struct process_launch *l, const Ssi__Process__Launch *m)
{
	size_t bytes = m->cwd.len + m->name.len;

	if (m->n_argv == 0 || m->n_groups > N_ELEMENTS(l->caller.groups) ||
	    m->cwd.len > 4095 || m->name.len > 255 || m->nice < -20 || m->nice > 19)
		return err_origin(-EINVAL);
	l->argv = strings_from(m->argv, m->n_argv, &bytes);
	l->envp = strings_from(m->envp, m->n_envp, &bytes);
	l->cwd = string_from(&m->cwd);
	l->name = string_from(&m->name);
	if (!strings_complete(l->argv, m->n_argv) ||
	    !strings_complete(l->envp, m->n_envp) || !l->cwd || !l->name ||
	    !process_name_ok(l->name))
		return err_origin(-EINVAL);
	l->caller.uid = m->uid;
	l->caller.gid = m->gid;
	l->caller.n_groups = m->n_groups;
	for (size_t i = 0; i < m->n_groups; i++)
		l->caller.groups[i] = m->groups[i];
	l->umask = m->umask & 0777;
	l->nice = m->nice;
	l->spread = m->spread;
	l->report = m->report;
	return limits_from(l, m);
}

int process_launch_unpack(struct process_launch **ret, const uint8_t *data, size_t len)
{
	_cleanup_(process_launch_freep) struct process_launch *l = NULL;
	Ssi__Process__Launch *m;
	int r;

	m = ssi__process__launch__unpack(NULL, len, data);
	if (!m)
		return err_origin(-EINVAL);
	l = calloc(1, sizeof(*l));
	for (int i = 0; l && i < 3; i++)
		l->stdio[i] = -1;
	r = l ? launch_from(l, m) : err_origin(-ENOMEM);
	ssi__process__launch__free_unpacked(m, NULL);
	if (r < 0)
		return r;
	*ret = TAKE(l);
	return 0;
}

static void strings_free(char **v)
{
	for (size_t i = 0; v && v[i]; i++)
		free(v[i]);
	free(v);
}

struct process_launch *process_launch_free(struct process_launch *l)
{
	if (!l)
		return NULL;
	strings_free(l->argv);
	strings_free(l->envp);
	free(l->cwd);
	free(l->name);
	for (size_t i = 0; i < 3; i++)
		close_fd(l->stdio[i]);
	if (l->on_terminal)
		close_fd(l->terminal);
	free(l);
	return NULL;
}

/* -- Calls -- */

/* Lists that do not fit each other are none. */
static void claims_from(struct wire_answer *a, const Ssi__Process__ClaimReply *m,
			struct wire_claim **ret)
{
	size_t n = m->n_pids;

	if (n > WIRE_CLAIMS_MAX || m->n_generations != n || m->n_places != n)
		return;
	a->claims = *ret = calloc(n + 1, sizeof(**ret));
	for (size_t i = 0; *ret && i < n; i++)
		(*ret)[a->n_claims++] = (struct wire_claim){
			.pid = m->pids[i],
			.generation = m->generations[i],
			.place = m->places[i]};
}

static void answer_from(struct wire_answer *a, const ProtobufCMessage *reply,
			struct wire_claim **ret_claims)
{
	if (!reply)
		return;
	if (reply->descriptor == &ssi__process__where_reply__descriptor) {
		const Ssi__Process__WhereReply *w = (const void *)reply;

		a->place = w->place;
		a->uid = w->uid;
		a->generation = w->generation;
	} else if (reply->descriptor == &ssi__process__wait_reply__descriptor) {
		const Ssi__Process__WaitReply *w = (const void *)reply;

		a->ended = w->ended;
		a->code = w->code;
		a->status = w->status;
	} else if (reply->descriptor == &ssi__process__since_reply__descriptor) {
		a->since = ((const Ssi__Process__SinceReply *)(const void *)reply)->incarnation;
	} else if (reply->descriptor == &ssi__process__claim_reply__descriptor) {
		claims_from(a, (const void *)reply, ret_claims);
	}
}

static void on_done(void *owner, const struct rpc_result *result)
{
	struct wire_call *c = owner;
	_cleanup_free_ struct wire_claim *claims = NULL;
	struct wire_answer a = {0};

	c->request = NULL;
	answer_from(&a, result->reply, &claims);
	c->done(c, result->status, result->text, &a);
}

static int call(struct rpc *rpc, struct wire_call *c, node_id node, uint16_t method,
		const void *request, nsec_t timeout)
{
	c->rpc = rpc;
	return rpc_call(rpc, node, method, request, RPC_NO_BULK, timeout, on_done, c,
			&c->request);
}

void wire_cancel(struct wire_call *c)
{
	if (c->request)
		rpc_cancel(c->rpc, c->request);
	c->request = NULL;
}

int wire_where(struct rpc *rpc, struct wire_call *c, node_id node, pid_t pid)
{
	Ssi__Process__WhereRequest q = SSI__PROCESS__WHERE_REQUEST__INIT;

	q.pid = pid;
	return call(rpc, c, node, PROCESS_WHERE, &q, call_timeout);
}

static void signal_to(const struct wire_signal *s, Ssi__Process__SignalRequest *ret)
{
	ssi__process__signal_request__init(ret);
	ret->pid = s->pid;
	ret->signal = s->signal;
	ret->code = s->code;
	ret->sender_pid = s->sender_pid;
	ret->sender_uid = s->sender_uid;
	ret->value = s->value;
	ret->generation = s->generation;
	ret->sequence = s->sequence;
	ret->foreground = s->foreground;
	ret->check = s->check;
}

int wire_signal(struct rpc *rpc, struct wire_call *c, node_id node,
		const struct wire_signal *s)
{
	Ssi__Process__SignalRequest q;

	signal_to(s, &q);
	return call(rpc, c, node, PROCESS_SIGNAL, &q, long_timeout);
}

int wire_group(struct rpc *rpc, struct wire_call *c, node_id node, const struct wire_group *g)
{
	Ssi__Process__GroupRequest q = SSI__PROCESS__GROUP_REQUEST__INIT;
	Ssi__Process__SignalRequest s;

	signal_to(&g->signal, &s);
	q.signal = &s;
	q.sentinel = g->sentinel;
	q.except = (int32_t *)g->except;
	q.n_except = g->n_except;
	return call(rpc, c, node, PROCESS_GROUP, &q, long_timeout);
}

int wire_wait(struct rpc *rpc, struct wire_call *c, node_id node, pid_t app)
{
	Ssi__Process__WaitRequest q = SSI__PROCESS__WAIT_REQUEST__INIT;

	q.app = app;
	return call(rpc, c, node, PROCESS_WAIT, &q, long_timeout);
}

int wire_changed(struct rpc *rpc, struct wire_call *c, node_id node,
		 const struct wire_change *h)
{
	Ssi__Process__ChangedRequest q = SSI__PROCESS__CHANGED_REQUEST__INIT;

	q.pid = h->pid;
	q.generation = h->generation;
	q.what = (Ssi__Process__ChangedRequest__What)h->what;
	q.code = h->code;
	q.status = h->status;
	return call(rpc, c, node, PROCESS_CHANGED, &q, call_timeout);
}

int wire_placed(struct rpc *rpc, struct wire_call *c, node_id node,
		const struct process_record *d, uint64_t incarnation)
{
	Ssi__Process__PlacedRequest q = SSI__PROCESS__PLACED_REQUEST__INIT;

	q.pid = d->pid;
	q.generation = d->generation;
	q.app = d->app;
	q.root = d->root;
	q.uid = d->uid;
	q.incarnation = incarnation;
	return call(rpc, c, node, PROCESS_PLACED, &q, call_timeout);
}

int wire_since(struct rpc *rpc, struct wire_call *c, node_id node)
{
	Ssi__Process__Empty q = SSI__PROCESS__EMPTY__INIT;

	return call(rpc, c, node, PROCESS_SINCE, &q, call_timeout);
}

int wire_reserve(struct rpc *rpc, struct wire_call *c, node_id node,
		 const struct process_member *members, size_t n, node_id place)
{
	Ssi__Process__ReserveRequest q = SSI__PROCESS__RESERVE_REQUEST__INIT;
	_cleanup_free_ Ssi__Process__Member **list = NULL;
	int r = process_members_pack(members, n, &list);

	if (r < 0)
		return r;
	q.members = list;
	q.n_members = n;
	q.place = place;
	return call(rpc, c, node, PROCESS_RESERVE, &q, long_timeout);
}

int wire_release(struct rpc *rpc, struct wire_call *c, node_id node,
		 const struct process_member *members, size_t n, node_id place)
{
	Ssi__Process__ReleaseRequest q = SSI__PROCESS__RELEASE_REQUEST__INIT;
	_cleanup_free_ Ssi__Process__Member **list = NULL;
	int r = process_members_pack(members, n, &list);

	if (r < 0)
		return r;
	q.members = list;
	q.n_members = n;
	q.place = place;
	return call(rpc, c, node, PROCESS_RELEASE, &q, long_timeout);
}

static int call_with_claims(struct rpc *rpc, struct wire_call *c, node_id node,
			    uint16_t method, const struct wire_claim *claims, size_t n)
{
	Ssi__Process__ClaimRequest q = SSI__PROCESS__CLAIM_REQUEST__INIT;
	_cleanup_free_ int32_t *pids = calloc(n + 1, sizeof(*pids));
	_cleanup_free_ uint32_t *generations = calloc(n + 1, sizeof(*generations));
	_cleanup_free_ uint64_t *homes = calloc(n + 1, sizeof(*homes));

	if (!pids || !generations || !homes)
		return err_origin(-ENOMEM);
	for (size_t i = 0; i < n; i++) {
		pids[i] = claims[i].pid;
		generations[i] = claims[i].generation;
		homes[i] = claims[i].home;
	}
	q.pids = pids;
	q.generations = generations;
	q.homes = homes;
	q.n_pids = q.n_generations = q.n_homes = n;
	return call(rpc, c, node, method, &q, call_timeout);
}

int wire_claim(struct rpc *rpc, struct wire_call *c, node_id node,
	       const struct wire_claim *claims, size_t n)
{
	return call_with_claims(rpc, c, node, PROCESS_CLAIM, claims, n);
}

int wire_seek(struct rpc *rpc, struct wire_call *c, node_id node,
	      const struct wire_claim *sought, size_t n)
{
	return call_with_claims(rpc, c, node, PROCESS_SEEK, sought, n);
}

/* -- Handlers: validate, convert, hand on -- */

void wire_reply_done(struct rpc_call *c)
{
	Ssi__Process__Empty reply = SSI__PROCESS__EMPTY__INIT;

	rpc_reply(c, &reply.base, RPC_NO_BULK);
}

void wire_reply_where(struct rpc_call *c, const struct wire_answer *a)
{
	Ssi__Process__WhereReply reply = SSI__PROCESS__WHERE_REPLY__INIT;

	reply.place = a->place;
	reply.uid = a->uid;
	reply.generation = a->generation;
	rpc_reply(c, &reply.base, RPC_NO_BULK);
}

void wire_reply_wait(struct rpc_call *c, const struct wire_answer *a)
{
	Ssi__Process__WaitReply reply = SSI__PROCESS__WAIT_REPLY__INIT;

	reply.ended = a->ended;
	reply.code = a->code;
	reply.status = a->status;
	rpc_reply(c, &reply.base, RPC_NO_BULK);
}

void wire_reply_since(struct rpc_call *c, uint64_t incarnation)
{
	Ssi__Process__SinceReply reply = SSI__PROCESS__SINCE_REPLY__INIT;

	reply.incarnation = incarnation;
	rpc_reply(c, &reply.base, RPC_NO_BULK);
}

void wire_reply_claim(struct rpc_call *c, const struct wire_claim *claims, size_t n)
{
	Ssi__Process__ClaimReply reply = SSI__PROCESS__CLAIM_REPLY__INIT;
	_cleanup_free_ int32_t *pids = calloc(n + 1, sizeof(*pids));
	_cleanup_free_ uint32_t *generations = calloc(n + 1, sizeof(*generations));
	_cleanup_free_ uint32_t *places = calloc(n + 1, sizeof(*places));

	if (!pids || !generations || !places) {
		rpc_fail(c, RPC_DOWN, "out of memory");
		return;
	}
	for (size_t i = 0; i < n; i++) {
		pids[i] = claims[i].pid;
		generations[i] = claims[i].generation;
		places[i] = claims[i].place;
	}
	reply.pids = pids;
	reply.generations = generations;
	reply.places = places;
	reply.n_pids = reply.n_generations = reply.n_places = n;
	rpc_reply(c, &reply.base, RPC_NO_BULK);
}

static bool pid_ok(int32_t pid)
{
	return pid > 0 && pid < MEMBERSHIP_PID_MAX;
}

RPC_HANDLER(on_where, struct process_room, Ssi__Process__WhereRequest)
{
	if (!pid_ok(req->pid))
		rpc_fail(call, RPC_USAGE, "no such process: %d", req->pid);
	else
		room_on_where(self, call, req->pid);
}

/* False: the call is answered. */
static bool signal_from(struct rpc_call *call, const Ssi__Process__SignalRequest *req,
			struct wire_signal *ret)
{
	if (!pid_ok(req->pid) || req->signal < 0 || req->signal > 64) {
		rpc_fail(call, RPC_USAGE, "no such process or signal: %d, %d", req->pid,
			 req->signal);
		return false;
	}
	*ret = (struct wire_signal){.pid = req->pid,
				    .signal = req->signal,
				    .code = req->code,
				    .sender_pid = req->sender_pid,
				    .sender_uid = req->sender_uid,
				    .value = req->value,
				    .generation = req->generation,
				    .sequence = req->sequence,
				    .foreground = req->foreground,
				    .check = req->check};
	return true;
}

RPC_HANDLER(on_signal, struct process_room, Ssi__Process__SignalRequest)
{
	struct wire_signal s;

	if (signal_from(call, req, &s))
		signal_on_call(self, call, &s);
}

RPC_HANDLER(on_group, struct process_room, Ssi__Process__GroupRequest)
{
	struct wire_group g = {.sentinel = req->sentinel,
			       .except = req->except,
			       .n_except = req->n_except};

	if (!req->signal || !pid_ok(req->sentinel))
		rpc_fail(call, RPC_USAGE, "no signal to a group");
	else if (signal_from(call, req->signal, &g.signal))
		group_on_call(self, call, &g);
}

RPC_HANDLER(on_wait, struct process_room, Ssi__Process__WaitRequest)
{
	if (!pid_ok(req->app))
		rpc_fail(call, RPC_USAGE, "no such application: %d", req->app);
	else
		wait_on_call(self, call, req->app);
}

RPC_HANDLER(on_changed, struct process_room, Ssi__Process__ChangedRequest)
{
	struct wire_change news = {.pid = req->pid,
				   .generation = req->generation,
				   .what = (enum wire_change_what)req->what,
				   .code = req->code,
				   .status = req->status};

	if (!pid_ok(req->pid) || req->what > 2u || req->status < 0 || req->status > 255)
		rpc_fail(call, RPC_USAGE, "no such process or change: %d", req->pid);
	else
		change_on_call(self, call, rpc_call_peer(call), &news);
}

RPC_HANDLER(on_placed, struct process_room, Ssi__Process__PlacedRequest)
{
	struct process_record d = {.pid = req->pid,
				   .app = req->app,
				   .root = req->root,
				   .place = rpc_call_peer(call),
				   .generation = req->generation,
				   .uid = req->uid};

	if (!pid_ok(req->pid) || !pid_ok(req->app) || !pid_ok(req->root))
		rpc_fail(call, RPC_USAGE, "no such process: %d", req->pid);
	else
		room_on_placed(self, call, &d, req->incarnation);
}

RPC_HANDLER(on_since, struct process_room, Ssi__Process__Empty)
{
	place_on_call(self, call);
}

RPC_HANDLER(on_reserve, struct process_room, Ssi__Process__ReserveRequest)
{
	_cleanup_free_ struct process_member *members = NULL;

	if (process_members_unpack(&members, req->members, req->n_members) < 0)
		rpc_fail(call, RPC_USAGE, "not a list of processes");
	else
		reserve_on_call(self, call, members, req->n_members, req->place);
}

RPC_HANDLER(on_release, struct process_room, Ssi__Process__ReleaseRequest)
{
	_cleanup_free_ struct process_member *members = NULL;

	if (process_members_unpack(&members, req->members, req->n_members) < 0)
		rpc_fail(call, RPC_USAGE, "not a list of processes");
	else
		release_on_call(self, call, members, req->n_members, req->place);
}

/* malloc()ed; NULL: the call is answered. */
static struct wire_claim *claims_of(struct rpc_call *call,
				    const Ssi__Process__ClaimRequest *req)
{
	size_t n = req->n_pids;
	struct wire_claim *claims = NULL;

	if (n <= WIRE_CLAIMS_MAX && req->n_generations == n && req->n_homes == n)
		claims = calloc(n + 1, sizeof(*claims));
	if (!claims)
		rpc_fail(call, RPC_USAGE, "not a list of processes");
	for (size_t i = 0; claims && i < n; i++)
		claims[i] = (struct wire_claim){.pid = req->pids[i],
						.generation = req->generations[i],
						.home = req->homes[i]};
	return claims;
}

RPC_HANDLER(on_claim, struct process_room, Ssi__Process__ClaimRequest)
{
	_cleanup_free_ struct wire_claim *claims = claims_of(call, req);

	if (claims)
		claim_on_call(self, call, claims, req->n_pids);
}

RPC_HANDLER(on_seek, struct process_room, Ssi__Process__ClaimRequest)
{
	_cleanup_free_ struct wire_claim *sought = claims_of(call, req);

	if (sought)
		seek_on_call(self, call, sought, req->n_pids);
}

const struct rpc_method process_methods[] = {
	RPC_METHOD(PROCESS_WHERE, on_where, ssi__process__where_request__descriptor,
		   ssi__process__where_reply__descriptor),
	RPC_METHOD(PROCESS_SIGNAL, on_signal, ssi__process__signal_request__descriptor,
		   ssi__process__empty__descriptor),
	RPC_METHOD(PROCESS_WAIT, on_wait, ssi__process__wait_request__descriptor,
		   ssi__process__wait_reply__descriptor),
	RPC_METHOD(PROCESS_CHANGED, on_changed,
		   ssi__process__changed_request__descriptor,
		   ssi__process__empty__descriptor),
	RPC_METHOD(PROCESS_PLACED, on_placed, ssi__process__placed_request__descriptor,
		   ssi__process__empty__descriptor),
	RPC_METHOD(PROCESS_RESERVE, on_reserve,
		   ssi__process__reserve_request__descriptor,
		   ssi__process__empty__descriptor),
	RPC_METHOD(PROCESS_RELEASE, on_release,
		   ssi__process__release_request__descriptor,
		   ssi__process__empty__descriptor),
	RPC_METHOD(PROCESS_SINCE, on_since, ssi__process__empty__descriptor,
		   ssi__process__since_reply__descriptor),
	RPC_METHOD(PROCESS_CLAIM, on_claim, ssi__process__claim_request__descriptor,
		   ssi__process__claim_reply__descriptor),
	RPC_METHOD(PROCESS_SEEK, on_seek, ssi__process__claim_request__descriptor,
		   ssi__process__claim_reply__descriptor),
	RPC_METHOD(PROCESS_GROUP, on_group, ssi__process__group_request__descriptor,
		   ssi__process__empty__descriptor),
	{0},
};
