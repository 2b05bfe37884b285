/* libssi over a link of its own: what is called back, and with which numbers. */
#include "libssi_internal.h"
#include "ssi.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char path[64];
static unsigned n_added, n_removed, n_calls;

static void on_added(unsigned n, void *arg)
{
	n_calls++;
	n_added = n;
	assert_ptr_equal(arg, path);
}

static void on_removed(unsigned n, void *arg)
{
	n_calls++;
	n_removed = n;
	assert_ptr_equal(arg, path);
}

static void view(const char *text)
{
	(void)unlink(path);
	assert_int_equal(symlink(text, path), 0);
}

/* One process, one life: the order of these is that of a program's. */

static void without_a_cluster_nothing_works(void **state)
{
	assert_int_equal(ssi_nodes_count(), -1);
	assert_int_equal(errno, ENOTCONN);
	assert_int_equal(ssi_on_nodes_added(on_added, path), -1);
	assert_int_equal(errno, ENOTCONN);
	assert_int_equal(ssi_dispatch(), -1);
	view("SSI9 of another version");
	assert_int_equal(ssi_nodes_count(), -1);
	assert_int_equal(errno, EPROTO);
	view("SSI1 5 1 n1 x");
	assert_int_equal(ssi_nodes_count(), -1);
	view("SSI1 5 1");
	assert_int_equal(ssi_nodes_count(), -1);
}

static void the_first_look_calls_nobody(void **state)
{
	char name[64];

	view("SSI1 5 2 node-2 7");
	assert_int_equal(ssi_nodes_count(), 3);
	assert_int_equal(ssi_node_self(name, sizeof(name)), 2);
	assert_string_equal(name, "node-2");
	assert_int_equal(ssi_node_self(NULL, 0), 2);
	assert_int_equal(ssi_on_nodes_added(on_added, path), 0);
	assert_int_equal(ssi_on_nodes_removed(on_removed, path), 0);
	assert_int_equal(ssi_dispatch(), 0);
	assert_int_equal(n_calls, 0);
}

static void each_is_called_once_with_how_many(void **state)
{
	view("SSI1 6 2 node-2 1");
	assert_int_equal(ssi_dispatch(), 1);
	assert_int_equal(n_removed, 2);
	assert_int_equal(ssi_dispatch(), 0);
	view("SSI1 9 2 node-2 fe1");
	assert_int_equal(ssi_dispatch(), 1);
	assert_int_equal(n_added, 8 - 1);
	assert_int_equal(ssi_nodes_count(), 8);
	/* One lost and another back, between two looks, on another node meanwhile. */
	view("SSI1 12 3 node-3 ee2");
	assert_int_equal(ssi_dispatch(), 2);
	assert_int_equal(n_added, 1);
	assert_int_equal(n_removed, 2);
	assert_int_equal(ssi_node_self(NULL, 0), 3);
}

static void no_callback_is_no_call(void **state)
{
	n_calls = 0;
	assert_int_equal(ssi_on_nodes_added(NULL, NULL), 0);
	view("SSI1 13 3 node-3 fff");
	assert_int_equal(ssi_dispatch(), 0);
	assert_int_equal(ssi_on_nodes_added(on_added, path), 0);
	assert_int_equal(ssi_dispatch(), 0);
	assert_int_equal(n_calls, 0);
	/* ssid was never here: what was known stays known. */
	(void)unlink(path);
	assert_int_equal(ssi_dispatch(), -1);
	view("SSI1 14 3 node-3 fff1");
	assert_int_equal(ssi_dispatch(), 1);
	assert_int_equal(n_added, 1);
}

static void the_descriptor_tells_when_to_look(void **state)
{
	struct pollfd p = { .fd = ssi_fd(), .events = POLLIN };

	assert_true(p.fd >= 0);
	assert_int_equal(ssi_fd(), p.fd);
	assert_int_equal(poll(&p, 1, 60000), 1);
	assert_int_equal(ssi_dispatch(), 0);
	assert_int_equal(poll(&p, 1, 60000), 1);
	assert_int_equal(ssi_dispatch(), 0);
}

static void many_nodes_have_room(void **state)
{
	char text[4001];
	int n = snprintf(text, sizeof(text), "SSI1 20 1 n1 ");

	memset(text + n, 'f', sizeof(text) - n);
	text[sizeof(text) - 1] = '\0';
	view(text);
	assert_int_equal(ssi_nodes_count(), 4 * (4000 - n));
}

static int make_directory(void **state)
{
	static char directory[] = "/tmp/test-libssi-XXXXXX";

	if (!mkdtemp(directory))
		return -1;
	(void)snprintf(path, sizeof(path), "%s/view", directory);
	libssi_view_path = path;
	return 0;
}

static int remove_directory(void **state)
{
	(void)unlink(path);
	*strrchr(path, '/') = '\0';
	return rmdir(path);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_a_cluster_nothing_works),
		cmocka_unit_test(the_first_look_calls_nobody),
		cmocka_unit_test(each_is_called_once_with_how_many),
		cmocka_unit_test(no_callback_is_no_call),
		cmocka_unit_test(the_descriptor_tells_when_to_look),
		cmocka_unit_test(many_nodes_have_room),
	};

	return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
