/* Founding and joining with the real authority and real links over loopback. */
#include "authority.h"
#include "cleanup.h"
#include "env_event.h"
#include "founding.h"
#include "log.h"
#include "membership.h"
#include "membership_token.h"
#include "store_lmdb.h"
#include "transport_tcp.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

struct fixture {
	char dir[64], joiner[80], founder[80], address[64];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_non_null(f);
	strcpy(f->dir, "/tmp/test_founding.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	(void)snprintf(f->founder, sizeof(f->founder), "%s/founder", f->dir);
	(void)snprintf(f->joiner, sizeof(f->joiner), "%s/joiner", f->dir);
	/* A port that is free now. */
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	close(fd);
	(void)snprintf(f->address, sizeof(f->address), "127.0.0.1:%u", ntohs(a.sin_port));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char command[128];

	(void)snprintf(command, sizeof(command), "rm -rf %s", f->dir);
	assert_int_equal(system(command), 0);
	free(f);
	return 0;
}

static mode_t mode_of(const char *dir, const char *name)
{
	char path[128];
	struct stat st;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	return stat(path, &st) ? 0 : st.st_mode & 0777;
}

static void founding_writes_what_ssid_needs(void **state)
{
	struct fixture *f = *state;
	_cleanup_free_ char *token = NULL, *again = NULL;
	struct founding_identity id;
	struct membership_token t;
	uint8_t hash[32], expected[32];
	nsec_t expires;

	assert_int_equal(founding_load(f->founder, &id), FOUNDING_E_ABSENT);
	assert_int_equal(founding_init(f->founder, "a", f->address, NSEC_PER_SEC * 60, &token),
			 0);
	assert_int_equal(founding_load(f->founder, &id), 0);
	assert_true(id.self == 1 && id.leader == 1);
	assert_string_equal(id.name, "a");
	assert_string_equal(id.leader_address, f->address);
	assert_int_equal(strlen(id.cluster), 36);
	assert_int_equal(mode_of(f->founder, "ca.key"), 0600);
	assert_int_equal(mode_of(f->founder, "node.key"), 0600);
	assert_int_equal(mode_of(f->dir, "founder"), 0700);
	assert_int_equal(membership_token_parse(token, &t), 0);
	assert_string_equal(t.address, f->address);
	membership_token_hash(t.secret, expected);
	assert_int_equal(founding_first_token(f->founder, hash, &expires), 0);
	assert_memory_equal(hash, expected, sizeof(hash));
	founding_first_token_taken(f->founder);
	assert_int_equal(founding_first_token(f->founder, hash, &expires), FOUNDING_E_ABSENT);
	assert_int_equal(founding_init(f->founder, "a", f->address, 1, &again),
			 FOUNDING_E_EXISTS);
	assert_true(founding_init(f->joiner, "A", f->address, 1, &again) < 0);
	assert_true(founding_init(f->joiner, "a", "nowhere", 1, &again) < 0);
}

static void a_damaged_identity_is_refused(void **state)
{
	struct fixture *f = *state;
	struct founding_identity id;
	char path[128];
	FILE *file;

	assert_int_equal(mkdir(f->founder, 0700), 0);
	(void)snprintf(path, sizeof(path), "%s/identity", f->founder);
	file = fopen(path, "w");
	assert_non_null(file);
	fputs("[node]\nid = x\n", file);
	fclose(file);
	assert_true(founding_load(f->founder, &id) < 0);
}

static void joining_says_why_not(void **state)
{
	struct fixture *f = *state;
	_cleanup_free_ char *token = NULL, *text = NULL;

	assert_int_equal(founding_join(f->joiner, "SSI1-AAAA", "b", "127.0.0.1:1", false,
				       NSEC_PER_SEC, &text),
			 FOUNDING_E_TOKEN);
	free(TAKE(text));
	assert_true(founding_join(f->joiner, "x", "B", "127.0.0.1:1", false, NSEC_PER_SEC, &text) < 0);
	free(TAKE(text));
	assert_int_equal(founding_init(f->founder, "a", f->address, NSEC_PER_SEC * 60, &token),
			 0);
	/* Nobody listens. */
	assert_int_equal(founding_join(f->joiner, token, "b", "127.0.0.1:1", false, NSEC_PER_SEC,
				       &text),
			 FOUNDING_E_NETWORK);
	assert_non_null(strstr(text, f->address));
	free(TAKE(text));
	assert_int_equal(founding_join(f->founder, token, "b", "127.0.0.1:1", false, NSEC_PER_SEC,
				       &text),
			 FOUNDING_E_EXISTS);
}

/* A founder's ssid, as far as joining needs it. */
struct founder {
	const char *dir;
	struct env_event *event;
	struct store_lmdb *store;
	struct rpc *rpc;
	struct transport_tcp *transport;
	struct membership *m;
	struct env_timer stop;
	bool token_taken;
	volatile bool stopping;
};

static void on_added(void *owner, int result)
{
	assert_int_equal(result, 0);
}

/* It leads: it takes the first token over, as ssid does. */
static void on_view(void *owner, const struct membership_view *view)
{
	struct founder *f = owner;
	uint8_t hash[32];
	nsec_t expires;

	if (f->token_taken)
		return;
	f->token_taken = true;
	assert_int_equal(founding_first_token(f->dir, hash, &expires), 0);
	assert_int_equal(membership_add_token(f->m, hash, expires, on_added, f), 0);
}

static void on_lease(void *owner, bool held)
{
}

static void on_pid_block(void *owner, pid_t first, uint32_t count)
{
}

static void get_load(void *owner, struct membership_load *ret)
{
	*ret = (struct membership_load){ 0 };
}

static void on_joined(void *owner, const uint8_t *reply, size_t len)
{
	transport_tcp_join_reply(owner, reply, len);
}

static void on_join(void *owner, struct transport_tcp_join *join, const char *address,
		    const uint8_t *data, size_t len)
{
	membership_on_join(((struct founder *)owner)->m, data, len, on_joined, join);
}

static void on_stop_timer(struct env_timer *timer)
{
	struct founder *f = container_of(timer, struct founder, stop);

	if (f->stopping)
		env_event_stop(f->event);
	else
		(void)env_arm(env_event_env(f->event), timer, 10 * NSEC_PER_MSEC);
}

static char *read_file(const char *dir, const char *name)
{
	char path[128];
	char *text = calloc(1, 16384);
	FILE *file;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "r");
	assert_non_null(file);
	assert_non_null(text);
	assert_true(fread(text, 1, 16383, file) > 0);
	fclose(file);
	return text;
}

static void founder_transport(struct founder *f, const struct founding_identity *id)
{
	char ca[128], cert[128], key[128];
	struct transport_tcp_config config = { .listen_address = id->address,
					       .ca_file = ca,
					       .cert_file = cert,
					       .key_file = key,
					       .self = id->self };

	(void)snprintf(ca, sizeof(ca), "%s/ca.pem", f->dir);
	(void)snprintf(cert, sizeof(cert), "%s/node.pem", f->dir);
	(void)snprintf(key, sizeof(key), "%s/node.key", f->dir);
	assert_int_equal(transport_tcp_new(&f->transport, env_event_env(f->event),
					   env_event_base(f->event), &config, rpc_events(),
					   f->rpc, on_join, f),
			 0);
	rpc_set_transport(f->rpc, transport_tcp_transport(f->transport));
}

static void *founder_thread(void *arg)
{
	static const struct membership_events events = { on_view, on_lease, on_pid_block,
							 get_load };
	struct founder *f = arg;
	_cleanup_free_ char *ca = read_file(f->dir, "ca.pem"),
			    *ca_key = read_file(f->dir, "ca.key");
	struct founding_identity id;
	struct membership_config config = { .ca_pem = ca, .ca_key_pem = ca_key };
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/store", f->dir);
	assert_int_equal(founding_load(f->dir, &id), 0);
	config.self = config.leader = id.self;
	config.name = id.name;
	config.address = config.leader_address = id.address;
	config.seal_key = id.seal_key;
	assert_int_equal(env_event_new(&f->event), 0);
	assert_int_equal(store_lmdb_new(&f->store, env_event_env(f->event), path), 0);
	assert_int_equal(rpc_new(&f->rpc, env_event_env(f->event), id.self), 0);
	founder_transport(f, &id);
	assert_int_equal(membership_new(&f->m, env_event_env(f->event),
					store_lmdb_store(f->store), f->rpc, &config, &events, f),
			 0);
	f->stop.cb = on_stop_timer;
	(void)env_arm(env_event_env(f->event), &f->stop, 0);
	assert_int_equal(env_event_run(f->event), 0);
	env_disarm(env_event_env(f->event), &f->stop);
	f->m = membership_free(f->m);
	f->transport = transport_tcp_free(f->transport);
	f->rpc = rpc_free(f->rpc);
	f->store = store_lmdb_free(f->store);
	f->event = env_event_free(f->event);
	return NULL;
}

static void a_node_joins_over_the_network(void **state)
{
	struct fixture *f = *state;
	_cleanup_free_ char *token = NULL, *text = NULL;
	struct founder founder = { .dir = f->founder };
	struct founding_identity id, founder_id;
	pthread_t thread;
	char other[96];
	int r = FOUNDING_E_NETWORK;

	assert_int_equal(founding_init(f->founder, "a", f->address, NSEC_PER_SEC * 60, &token),
			 0);
	assert_int_equal(founding_load(f->founder, &founder_id), 0);
	assert_int_equal(pthread_create(&thread, NULL, founder_thread, &founder), 0);
	for (unsigned i = 0; i < 100 && r; i++) {
		free(TAKE(text));
		r = founding_join(f->joiner, token, "b", "127.0.0.1:1", false, 5 * NSEC_PER_SEC, &text);
		if (r)
			usleep(50000);
	}
	assert_int_equal(r, 0);
	assert_int_equal(founding_load(f->joiner, &id), 0);
	assert_true(id.self == 2 && id.leader == 1);
	assert_string_equal(id.cluster, founder_id.cluster);
	assert_string_equal(id.leader_address, f->address);
	assert_memory_equal(id.seal_key, founder_id.seal_key, sizeof(id.seal_key));
	assert_int_equal(mode_of(f->joiner, "node.key"), 0600);
	assert_int_equal(mode_of(f->joiner, "ca.key"), 0);
	/* The token was good for one. */
	(void)snprintf(other, sizeof(other), "%s/other", f->dir);
	assert_int_equal(founding_join(other, token, "c", "127.0.0.1:2", false, 5 * NSEC_PER_SEC,
				       &text),
			 FOUNDING_E_TOKEN);
	founder.stopping = true;
	assert_int_equal(pthread_join(thread, NULL), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
#define T(fn_) cmocka_unit_test_setup_teardown(fn_, setup, teardown)
		T(founding_writes_what_ssid_needs),
		T(a_damaged_identity_is_refused),
		T(joining_says_why_not),
		T(a_node_joins_over_the_network),
	};

	log_set_level(0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
