/* Where there is no libFuzzer: files named on the command line, or made-up messages,
 * most of them nearly right. */
#include "cleanup.h"
#include "consensus.pb-c.h"

#include <raft.h>
#include <stdio.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX = 8192, N_INPUTS = 4000 };

static uint64_t state = 1;

static uint32_t draw(uint32_t n)
{
	state = state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(state >> 33) % n;
}

static uint64_t number(void)
{
	return draw(30) ? draw(8) : (uint64_t)draw(UINT32_MAX) << draw(40);
}

static size_t servers(uint8_t *p)
{
	struct raft_configuration conf;
	struct raft_buffer buf;
	char address[16];

	raft_configuration_init(&conf);
	for (uint32_t i = 0, n = 1 + draw(3); i < n; i++) {
		(void)snprintf(address, sizeof(address), "10.0.0.%u:1", i + 1);
		if (raft_configuration_add(&conf, i + 1, address, (int)draw(3)))
			abort();
	}
	if (raft_configuration_encode(&conf, &buf))
		abort();
	raft_configuration_close(&conf);
	memcpy(p, buf.base, buf.len);
	if (!draw(10))
		p[draw((uint32_t)buf.len)] ^= (uint8_t)(1 + draw(255));
	raft_free(buf.base);
	return draw(20) ? buf.len : draw((uint32_t)buf.len);
}

static size_t append(uint8_t *message, uint8_t *bulk, size_t *ret_bulk)
{
	Ssi__Consensus__AppendRequest q = SSI__CONSENSUS__APPEND_REQUEST__INIT;
	Ssi__Consensus__Entry entries[6], *list[6];
	uint64_t term = q.prev_term = number();

	q.prev_index = q.prev_term ? number() : 0;
	for (q.n_entries = 0; q.n_entries < 6 && draw(4); q.n_entries++) {
		Ssi__Consensus__Entry *e = list[q.n_entries] = &entries[q.n_entries];

		ssi__consensus__entry__init(e);
		e->term = term = draw(4) ? term + draw(2) : number();
		e->type = draw(20) ? 1 + draw(3) : draw(9);
		e->len = e->type == RAFT_CHANGE ? (uint32_t)servers(bulk + *ret_bulk)
						: draw(20);
		*ret_bulk += e->len;
	}
	q.entries = list;
	q.term = draw(4) ? term + draw(2) : number();
	q.commit = number();
	q.address = (char *)"10.0.0.2:7777";
	return ssi__consensus__append_request__pack(&q, message);
}

static size_t snapshot(uint8_t *message, uint8_t *bulk, size_t *ret_bulk)
{
	Ssi__Consensus__SnapshotRequest q = SSI__CONSENSUS__SNAPSHOT_REQUEST__INIT;

	q.term = number();
	q.last_index = number();
	q.last_term = draw(4) ? q.term : number();
	q.servers_index = draw(4) ? 1 : number();
	*ret_bulk = servers(bulk);
	q.servers_len = (uint32_t)*ret_bulk;
	q.address = (char *)"10.0.0.2:7777";
	return ssi__consensus__snapshot_request__pack(&q, message);
}

static size_t other(uint8_t *message)
{
	Ssi__Consensus__VoteRequest q = SSI__CONSENSUS__VOTE_REQUEST__INIT;

	q.term = number();
	q.last_index = number();
	q.last_term = number();
	q.disrupt = draw(2);
	q.pre_vote = draw(2);
	return ssi__consensus__vote_request__pack(&q, message);
}

static size_t make(uint8_t *p)
{
	size_t n = 0;

	p[n++] = (uint8_t)draw(5);
	while (n + 1024 < MAX && draw(12)) {
		uint8_t *r = p + n, bulk[1024] = {0};
		size_t n_bulk = 0, len;

		r[0] = (uint8_t)(draw(3) ? 1 : draw(9));
		r[1] = (uint8_t)n;
		len = r[0] == 1	  ? append(r + 6, bulk, &n_bulk)
		      : r[0] == 5 ? snapshot(r + 6, bulk, &n_bulk)
				  : other(r + 6);
		memcpy(r + 6 + len, bulk, n_bulk);
		r[2] = (uint8_t)len;
		r[3] = (uint8_t)(len >> 8);
		r[4] = (uint8_t)n_bulk;
		r[5] = (uint8_t)(n_bulk >> 8);
		n += 6 + len + n_bulk;
	}
	return n;
}

static void run_file(const char *path)
{
	static uint8_t data[1 << 20];
	FILE *f = fopen(path, "rb");
	size_t n;

	if (!f) {
		perror(path);
		exit(1);
	}
	n = fread(data, 1, sizeof(data), f);
	fclose(f);
	(void)LLVMFuzzerTestOneInput(data, n);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		run_file(argv[i]);
	for (unsigned i = 0; argc == 1 && i < N_INPUTS; i++) {
		static uint8_t made[MAX];
		size_t n = make(made);
		/* Exactly as long as it says, so that a read past its end is seen. */
		_cleanup_free_ uint8_t *input = malloc(n);

		if (!input)
			return 1;
		memcpy(input, made, n);
		(void)LLVMFuzzerTestOneInput(input, n);
	}
	return 0;
}
