/*
 * What an authenticated node and a damaged store may say to consensus.
 *
 * Input: one byte of mode.  Frames into a server with an own vote, or into one that is
 * none: records of method, id, two bytes of message length, two of bulk length,
 * message, bulk.  Or a value of the store.
 */
#include "cleanup.h"
#include "consensus_internal.h"
#include "log.h"
#include "world.h"

#include <string.h>

enum { MODE_LEADER, MODE_NOBODY, MODE_SNAPSHOT, MODE_ENTRY, MODE_SERVERS, N_MODES };

struct record {
	uint8_t method, id, message[2], bulk[2];
} __attribute__((packed));

static char link_memory;
#define LINK ((struct transport_link *)&link_memory)

struct fixture {
	struct world *w;
	struct rpc *rpc;
	struct consensus *c;
	struct transport transport;
	bool bootstrap, up;
	uint64_t applied;
};

static int fake_connect(void *impl, node_id peer, const char *address,
			struct transport_link **ret)
{
	static char other;

	*ret = (struct transport_link *)&other;
	return 0;
}

static int fake_send(void *impl, struct transport_link *link,
		     const struct transport_frame *frame)
{
	return 0;
}

static void fake_close(void *impl, struct transport_link *link, const char *reason)
{
	if (link == LINK)
		((struct fixture *)impl)->up = false;
}

static void on_apply(void *owner, uint64_t index, struct iovec command)
{
	struct fixture *f = owner;

	if (index <= f->applied)
		abort();
	f->applied = index;
}

static int on_snapshot(void *owner, struct iovec *ret)
{
	ret->iov_base = calloc(1, 8);
	ret->iov_len = 8;
	return ret->iov_base ? 0 : -1;
}

static int on_restore(void *owner, struct iovec state)
{
	return 0;
}

static void on_leading(void *owner, bool leading, uint64_t term)
{
}

static void on_leader(void *owner, node_id leader)
{
}

static void on_servers(void *owner)
{
}

static int start(void *owner, unsigned slot)
{
	static const struct transport_ops ops = {fake_connect, fake_send, fake_close};
	static const struct consensus_events events = {
		on_apply, on_snapshot, on_restore, on_leading, on_leader, on_servers};
	struct fixture *f = owner;
	struct consensus_config config = {.self = 1,
					  .address = "10.0.0.1:7777",
					  .bootstrap = f->bootstrap,
					  .snapshot_after = 4,
					  .snapshot_keep = 2};

	f->transport = (struct transport){&ops, f};
	if (rpc_new(&f->rpc, world_env(f->w, 1), 1))
		abort();
	rpc_set_transport(f->rpc, &f->transport);
	if (consensus_new(&f->c, world_env(f->w, 1), world_store(f->w, 1), f->rpc,
			  &config, &events, f))
		abort();
	return 0;
}

static void stop(void *owner, unsigned slot)
{
	struct fixture *f = owner;

	f->c = consensus_free(f->c);
	f->rpc = rpc_free(f->rpc);
}

static struct iovec take(const uint8_t **data, size_t *size, const uint8_t len[2])
{
	size_t n = len[0] | len[1] << 8;
	struct iovec v = {(void *)*data, n < *size ? n : *size};

	*data += v.iov_len;
	*size -= v.iov_len;
	return v;
}

static void play(struct fixture *f, const uint8_t *data, size_t size)
{
	while (size >= sizeof(struct record)) {
		const struct record *r = (const void *)data;
		struct transport_frame frame = {
			.kind = TRANSPORT_REQUEST,
			.method = (uint16_t)(RPC_ROOM_CONSENSUS << 8 | r->method),
			.id = r->id};

		data += sizeof(*r);
		size -= sizeof(*r);
		frame.message = take(&data, &size, r->message);
		frame.bulk = take(&data, &size, r->bulk);
		if (!f->up)
			rpc_events()->on_up(f->rpc, LINK, 2);
		f->up = true;
		if (rpc_events()->on_frame(f->rpc, LINK, &frame) || !f->up) {
			f->up = false;
			rpc_events()->on_down(f->rpc, LINK, 2, "fuzzed");
		}
		world_run(f->w, 30 * NSEC_PER_MSEC);
	}
}

static void fuzz_frames(bool bootstrap, const uint8_t *data, size_t size)
{
	static const struct world_rooms rooms = {start, stop, NULL};
	struct fixture f = {.bootstrap = bootstrap};

	f.w = world_new(1, 1, &rooms, &f);
	world_boot(f.w, 1);
	world_run(f.w, 200 * NSEC_PER_MSEC);
	play(&f, data, size);
	(void)world_free(f.w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct consensus_log_snapshot snapshot;
	struct consensus_servers servers;
	struct iovec bytes, entry;
	uint64_t term;
	uint8_t type;

	log_set_level(0);
	if (!size)
		return 0;
	bytes = (struct iovec){(void *)(data + 1), size - 1};
	switch (data[0] % N_MODES) {
	case MODE_LEADER:
	case MODE_NOBODY:
		fuzz_frames(data[0] % N_MODES == MODE_LEADER, data + 1, size - 1);
		break;
	case MODE_SNAPSHOT:
		(void)consensus_log_snapshot_unpack(bytes, &snapshot);
		break;
	case MODE_ENTRY:
		(void)consensus_log_entry_unpack(bytes, 1, &term, &type, &entry);
		break;
	case MODE_SERVERS:
		(void)consensus_servers_unpack(bytes, &servers);
		break;
	}
	return 0;
}
