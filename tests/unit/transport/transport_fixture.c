#include "transport_fixture.h"

#include "authority.h"
#include "transport_address.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>

struct env_event *loop;
const struct env *env;
char ca_pem[2][4096];
uint8_t fingerprint[2][32];
static char dir[64];

enum { N_NODES = 3 };

/* Files. */

const char *fixture_file(unsigned cluster, node_id id, const char *what)
{
	static char paths[8][128];
	static unsigned next;
	char *path = paths[next++ % 8];

	(void)snprintf(path, sizeof(paths[0]), "%s/%u.%u.%s", dir, cluster, id, what);
	return path;
}

static void put(const char *path, const char *text)
{
	_cleanup_close_ int fd =
		open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static void make_cluster(unsigned cluster)
{
	_cleanup_free_ char *ca = NULL, *ca_key = NULL;

	/* The same name: only the key tells them apart. */
	assert_int_equal(authority_found("test-cluster", &ca, &ca_key), 0);
	assert_int_equal(authority_fingerprint(ca, fingerprint[cluster]), 0);
	(void)snprintf(ca_pem[cluster], sizeof(ca_pem[cluster]), "%s", ca);
	for (node_id id = 1; id <= N_NODES; id++) {
		_cleanup_free_ char *key = NULL, *csr = NULL, *cert = NULL;

		assert_int_equal(authority_request("anything", &key, &csr), 0);
		assert_int_equal(authority_sign(ca, ca_key, csr, id, &cert), 0);
		put(fixture_file(cluster, id, "ca"), ca);
		put(fixture_file(cluster, id, "cert"), cert);
		put(fixture_file(cluster, id, "key"), key);
	}
}

int fixture_setup(void **state)
{
	(void)signal(SIGPIPE, SIG_IGN);
	(void)snprintf(dir, sizeof(dir), "%s/test_transport.XXXXXX", P_tmpdir);
	if (!mkdtemp(dir) || env_event_new(&loop) < 0)
		return -1;
	env = env_event_env(loop);
	make_cluster(0);
	make_cluster(1);
	return 0;
}

int fixture_teardown(void **state)
{
	static const char *const what[] = {"ca", "cert", "key"};

	for (unsigned i = 0; i < 2 * N_NODES * 3; i++)
		(void)unlink(fixture_file(i % 2, 1 + i / 2 % N_NODES,
					  what[i / 2 / N_NODES]));
	loop = env_event_free(loop);
	return rmdir(dir);
}

/* The loop. */

struct waiting {
	struct env_timer look;
	const unsigned *n;
	unsigned least;
	nsec_t end;
	bool may_end;
};

static void on_look(struct env_timer *timer)
{
	struct waiting *w = container_of(timer, struct waiting, look);

	if (env_now(env) >= w->end && !w->may_end)
		fail_msg("nothing happened for 10 s");
	if (env_now(env) >= w->end ||
	    (w->n && __atomic_load_n(w->n, __ATOMIC_ACQUIRE) >= w->least))
		env_event_stop(loop);
	else
		assert_int_equal(env_arm(env, timer, NSEC_PER_MSEC), 0);
}

static void wait_on_loop(struct waiting *w, nsec_t time)
{
	w->look.cb = on_look;
	w->end = env_now(env) + time;
	assert_int_equal(env_arm(env, &w->look, 0), 0);
	assert_int_equal(env_event_run(loop), 0);
	env_disarm(env, &w->look);
}

void run_until(const unsigned *n, unsigned least)
{
	struct waiting w = {.n = n, .least = least};

	wait_on_loop(&w, 10 * NSEC_PER_SEC);
}

void run_for(nsec_t time)
{
	struct waiting w = {.may_end = true};

	wait_on_loop(&w, time);
}

/* Nodes. */

uint64_t sum_of(const struct transport_frame *f)
{
	const struct iovec *parts[] = {&f->message, &f->bulk};
	uint64_t sum = 14695981039346656037u;

	for (unsigned i = 0; i < 2; i++)
		for (size_t j = 0; j < parts[i]->iov_len; j++)
			sum = (sum ^ ((const uint8_t *)parts[i]->iov_base)[j]) *
			      1099511628211u;
	return sum;
}

static void on_up(void *owner, struct transport_link *link, node_id peer)
{
	struct fixture_node *n = owner;

	assert_false(n->calling);
	assert_true(n->n_links < LINKS_MAX);
	n->links[n->n_links] = link;
	n->peers[n->n_links++] = peer;
	n->n_up++;
	if (n->close_on_up)
		n->t->ops->close(n->t->impl, link, "closed when it came up");
}

static void on_down(void *owner, struct transport_link *link, node_id peer,
		    const char *reason)
{
	struct fixture_node *n = owner;

	assert_false(n->calling);
	n->n_down++;
	n->down_peer = peer;
	(void)snprintf(n->reason, sizeof(n->reason), "%s", reason);
	for (unsigned i = 0; i < n->n_links; i++)
		if (n->links[i] == link) {
			n->n_links--;
			memmove(&n->links[i], &n->links[i + 1],
				(n->n_links - i) * sizeof(n->links[0]));
			break;
		}
}

static int on_frame(void *owner, struct transport_link *link,
		    const struct transport_frame *f)
{
	struct fixture_node *n = owner;

	assert_false(n->calling);
	assert_true(n->n_frames < FRAMES_MAX);
	n->frames[n->n_frames++] = (struct told_frame){
		f->kind,	 f->method, f->id, f->epoch, f->message.iov_len,
		f->bulk.iov_len, sum_of(f),
	};
	if (n->close_on_frame)
		n->t->ops->close(n->t->impl, link, "closed at a frame");
	if (n->echo)
		(void)n->t->ops->send(n->t->impl, link, f);
	return n->frame_result;
}

static void on_writable(void *owner, struct transport_link *link)
{
	struct fixture_node *n = owner;

	assert_false(n->calling);
	n->n_writable++;
}

static void on_join(void *owner, struct transport_tcp_join *join, const char *address,
		    const uint8_t *data, size_t len)
{
	struct fixture_node *n = owner;

	assert_true(len <= sizeof(n->join_data));
	memcpy(n->join_data, data, len);
	n->join_len = len;
	(void)snprintf(n->join_address, sizeof(n->join_address), "%s", address);
	n->joins[n->n_joins++] = join;
	if (n->answer)
		transport_tcp_join_reply(join, (const uint8_t *)n->answer,
					 strlen(n->answer));
}

void node_open(struct fixture_node *n, unsigned cluster, node_id id)
{
	static const struct transport_events events = {on_up, on_down, on_frame,
						       on_writable};
	struct transport_tcp_config config = {
		.listen_address = "127.0.0.1:0",
		.ca_file = fixture_file(cluster, id, "ca"),
		.cert_file = fixture_file(cluster, id, "cert"),
		.key_file = fixture_file(cluster, id, "key"),
		.self = id,
	};

	memset(n, 0, sizeof(*n));
	assert_int_equal(transport_tcp_new(&n->tcp, env, env_event_base(loop), &config,
					   &events, n, on_join, n),
			 0);
	n->t = transport_tcp_transport(n->tcp);
	(void)snprintf(n->address, sizeof(n->address), "127.0.0.1:%u",
		       transport_tcp_port(n->tcp));
}

void node_close(struct fixture_node *n)
{
	n->tcp = transport_tcp_free(n->tcp);
	n->n_links = 0;
}

int node_connect(struct fixture_node *n, node_id peer, const char *address,
		 struct transport_link **ret)
{
	int r;

	n->calling = true;
	r = n->t->ops->connect(n->t->impl, peer, address, ret);
	n->calling = false;
	return r;
}

int node_send(struct fixture_node *n, struct transport_link *l,
	      const struct transport_frame *f)
{
	int r;

	n->calling = true;
	r = n->t->ops->send(n->t->impl, l, f);
	n->calling = false;
	return r;
}

void nodes_link(struct fixture_node *a, struct fixture_node *b, node_id b_id)
{
	struct transport_link *l;

	assert_int_equal(node_connect(a, b_id, b->address, &l), 0);
	run_until(&a->n_up, 1);
	run_until(&b->n_up, 1);
	assert_ptr_equal(a->links[0], l);
}

/* Strangers.  In their threads nothing is asserted: they only say what they met. */

static int stranger_connect(const struct stranger *s)
{
	struct sockaddr_storage to, from;
	socklen_t len;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (s->from && (transport_address_parse(s->from, true, &from, &len) < 0 ||
			bind(fd, (struct sockaddr *)&from, len) < 0))
		return close_fd(fd);
	if (transport_address_parse(s->address, false, &to, &len) < 0 ||
	    connect(fd, (struct sockaddr *)&to, len) < 0)
		return close_fd(fd);
	return fd;
}

static SSL *stranger_tls(const struct stranger *s, SSL_CTX *c)
{
	SSL *ssl;

	if (s->old)
		(void)SSL_CTX_set_max_proto_version(c, TLS1_2_VERSION);
	if (s->alpn)
		(void)SSL_CTX_set_alpn_protos(c, (const uint8_t *)s->alpn,
					      (unsigned)strlen(s->alpn));
	if (s->id) {
		char path[160];

		(void)snprintf(path, sizeof(path), "%s/%u.%u.cert", dir, s->cluster,
			       s->id);
		(void)SSL_CTX_use_certificate_file(c, path, SSL_FILETYPE_PEM);
		(void)snprintf(path, sizeof(path), "%s/%u.%u.key", dir, s->cluster,
			       s->id);
		(void)SSL_CTX_use_PrivateKey_file(c, path, SSL_FILETYPE_PEM);
	}
	ssl = SSL_new(c);
	return ssl;
}

static bool stranger_send(const struct stranger *s, int fd, SSL *ssl)
{
	const struct timespec pause = {0, (long)s->pause};
	size_t piece = s->pause ? 1 : s->len;

	for (size_t at = 0; at < s->len; at += piece) {
		const uint8_t *p = (const uint8_t *)s->data + at;

		if (ssl ? SSL_write(ssl, p, (int)piece) <= 0
			: send(fd, p, piece, MSG_NOSIGNAL) != (ssize_t)piece)
			return false;
		if (s->pause)
			(void)nanosleep(&pause, NULL);
	}
	return true;
}

static void stranger_receive(struct stranger *s, int fd, SSL *ssl)
{
	while (s->n_received < sizeof(s->received)) {
		uint8_t *p = s->received + s->n_received;
		size_t room = sizeof(s->received) - s->n_received;
		ssize_t n = ssl ? SSL_read(ssl, p, (int)room) : read(fd, p, room);

		if (n <= 0)
			return;
		s->n_received += (size_t)n;
	}
}

static void *stranger_main(void *argument)
{
	struct stranger *s = argument;
	nsec_t started = env_now(env);
	int fd = stranger_connect(s);
	SSL_CTX *c = s->tls ? SSL_CTX_new(TLS_client_method()) : NULL;
	SSL *ssl = c ? stranger_tls(s, c) : NULL;

	if (fd >= 0) {
		if (ssl)
			s->shaken = SSL_set_fd(ssl, fd) && SSL_connect(ssl) == 1;
		if (!ssl || s->shaken) {
			(void)stranger_send(s, fd, ssl);
			if (!s->hang_up)
				stranger_receive(s, fd, ssl);
		}
	}
	ERR_clear_error();
	SSL_free(ssl);
	SSL_CTX_free(c);
	close_fd(fd);
	s->took = env_now(env) - started;
	__atomic_store_n(&s->ended, 1, __ATOMIC_RELEASE);
	return NULL;
}

void stranger_start(struct stranger *s)
{
	s->ended = 0;
	assert_int_equal(pthread_create(&s->thread, NULL, stranger_main, s), 0);
}

void stranger_wait(struct stranger *s)
{
	run_until(&s->ended, 1);
	assert_int_equal(pthread_join(s->thread, NULL), 0);
}
