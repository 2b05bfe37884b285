/*
 * What an authenticated peer, a joiner and the store may say: frames into rpc with
 * membership behind it, on the leader or on a member.
 *
 * Input: one byte of mode, then records: kind, room, method, id, epoch, two bytes of
 * length, the message.
 */
#include "cleanup.h"
#include "log.h"
#include "membership_internal.h"
#include "world.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum { MODE_LEADER, MODE_MEMBER, MODE_JOIN, MODE_MAP, MODE_TOKEN, MODE_COMMAND, N_MODES };

struct record {
	uint8_t kind, room, method, id, epoch, len[2];
} __attribute__((packed));

static char link_memory;
#define LINK ((struct transport_link *)&link_memory)

struct fixture {
	struct world *w;
	struct rpc *rpc;
	struct membership *m;
	node_id self, peer;
	bool up, connecting;
};

static int fake_connect(void *impl, node_id peer, const char *address,
			struct transport_link **ret)
{
	struct fixture *f = impl;

	f->connecting = true;
	*ret = LINK;
	return 0;
}

static int fake_send(void *impl, struct transport_link *link, const struct transport_frame *frame)
{
	return 0;
}

static void fake_close(void *impl, struct transport_link *link, const char *reason)
{
	((struct fixture *)impl)->up = false;
}

static const struct transport_ops fake_ops = { fake_connect, fake_send, fake_close };
static struct transport fake;

static void on_view(void *owner, const struct membership_view *view)
{
	assert(view->epoch);
}

static void on_lease(void *owner, bool held)
{
}

static void on_pid_block(void *owner, pid_t first, uint32_t count)
{
	assert(first >= MEMBERSHIP_PID_FIRST && count <= (uint32_t)(MEMBERSHIP_PID_MAX - first));
}

static int start(void *owner, unsigned slot)
{
	static const struct membership_events events = { on_view, on_lease, on_pid_block, NULL };
	struct fixture *f = owner;
	struct membership_config config = {
		.self = f->self,
		.name = "n1",
		.address = "10.0.0.1:7777",
		.leader = 1,
		.leader_address = "10.0.0.1:7777",
		.ca_pem = "CA",
		.ca_key_pem = "KEY",
	};

	fake = (struct transport){ &fake_ops, f };
	if (rpc_new(&f->rpc, world_env(f->w, 1), f->self))
		abort();
	rpc_set_transport(f->rpc, &fake);
	if (membership_new(&f->m, world_env(f->w, 1), world_store(f->w, 1), f->rpc, &config,
			   &events, f))
		abort();
	return 0;
}

static void stop(void *owner, unsigned slot)
{
	struct fixture *f = owner;

	f->m = membership_free(f->m);
	f->rpc = rpc_free(f->rpc);
}

static void on_committed(void *owner, int result)
{
	assert(!result);
}

/* A cluster of three, so that frames find somebody; a leader that starts finds it in its log. */
static void fill_log(struct fixture *f)
{
	_cleanup_(membership_map_freep) struct membership_map *map = NULL;
	struct membership_command command = { 0 };
	struct iovec bytes;
	char name[8];
	int r;

	r = membership_map_new(&map, 1);
	for (unsigned i = 1; i <= 3 && !r; i++) {
		(void)snprintf(name, sizeof(name), "n%u", i);
		r = membership_map_add_member(map, i, name, "10.0.0.1:7777", NULL);
		map->view->nodes[i - 1].state = MEMBER_UP;
	}
	map->view->epoch = f->m->state->map->view->epoch + 1;
	map->next_id = 4;
	command.map = map;
	if (r || membership_command_pack(&command, &bytes) ||
	    consensus_propose(f->m->consensus, bytes, on_committed, f))
		abort();
	free(bytes.iov_base);
	world_run(f->w, NSEC_PER_SEC);
}

static void up(struct fixture *f)
{
	if (!f->up)
		rpc_events()->on_up(f->rpc, LINK, f->peer);
	f->up = true;
}

static void down(struct fixture *f)
{
	f->up = false;
	rpc_events()->on_down(f->rpc, LINK, f->peer, "fuzzed");
}

static void play(struct fixture *f, const uint8_t *data, size_t size)
{
	while (size >= sizeof(struct record)) {
		const struct record *r = (const void *)data;
		size_t len = r->len[0] | r->len[1] << 8;
		struct transport_frame frame = { .kind = r->kind,
						 .method = (uint16_t)(r->room << 8 | r->method),
						 .id = r->id,
						 .epoch = r->epoch };

		data += sizeof(*r);
		size -= sizeof(*r);
		len = len < size ? len : size;
		frame.message = (struct iovec){ (void *)data, len };
		data += len;
		size -= len;
		up(f);
		if (rpc_events()->on_frame(f->rpc, LINK, &frame) || !f->up)
			down(f);
		world_run(f->w, 20 * NSEC_PER_MSEC);
	}
}

static void fuzz_frames(node_id self, const uint8_t *data, size_t size)
{
	static const struct world_rooms rooms = { start, stop, NULL };
	struct fixture f = { .self = self, .peer = self == 1 ? 2 : 1 };

	f.w = world_new(1, 1, &rooms, &f);
	world_boot(f.w, 1);
	world_run(f.w, NSEC_PER_SEC);
	if (self == 1) {
		fill_log(&f);
		world_crash(f.w, 1, false);
		world_boot(f.w, 1);
		world_run(f.w, 100 * NSEC_PER_MSEC);
	}
	play(&f, data, size);
	(void)world_free(f.w);
}

static void fuzz_join(const uint8_t *data, size_t size)
{
	struct membership_join_request q;
	struct membership_join_reply p;
	struct iovec bytes = { (void *)data, size };

	if (!membership_join_request_unpack(bytes, &q))
		membership_join_request_fini(&q);
	if (!membership_join_reply_unpack(bytes, &p))
		membership_join_reply_fini(&p);
}

/* A state that took it can be packed, and taken again. */
static void fuzz_command(const uint8_t *data, size_t size)
{
	_cleanup_(membership_state_freep) struct membership_state *s = NULL, *again = NULL;
	struct iovec packed;

	if (membership_state_new(&s) || membership_state_new(&again))
		return;
	if (!membership_state_apply(s, (struct iovec){ (void *)data, size }) &&
	    !membership_state_pack(s, &packed)) {
		int r = membership_state_apply(again, packed);

		assert(!r);
		assert(HASH_COUNT(again->tokens) == HASH_COUNT(s->tokens));
		free(packed.iov_base);
	}
}

static void fuzz_map(const uint8_t *data, size_t size)
{
	struct membership_map *map;

	if (membership_wire_map_unpack((struct iovec){ (void *)data, size }, &map))
		return;
	assert(membership_map_is_valid(map));
	(void)membership_map_home(map, 70000);
	(void)membership_map_free(map);
}

static void fuzz_token(const uint8_t *data, size_t size)
{
	_cleanup_free_ char *text = strndup((const char *)data, size);
	struct membership_token token;

	if (text)
		(void)membership_token_parse(text, &token);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	log_set_level(0);
	if (!size)
		return 0;
	switch (data[0] % N_MODES) {
	case MODE_LEADER:
		fuzz_frames(1, data + 1, size - 1);
		break;
	case MODE_MEMBER:
		fuzz_frames(2, data + 1, size - 1);
		break;
	case MODE_JOIN:
		fuzz_join(data + 1, size - 1);
		break;
	case MODE_MAP:
		fuzz_map(data + 1, size - 1);
		break;
	case MODE_TOKEN:
		fuzz_token(data + 1, size - 1);
		break;
	case MODE_COMMAND:
		fuzz_command(data + 1, size - 1);
		break;
	}
	return 0;
}
