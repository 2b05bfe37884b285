/* Where a program goes, from a view that is made here. */
#include "place.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N = 3 };

/* Stands for the room: a view is all that it is asked for. */
static struct membership_view *view;

const struct membership_view *membership_view(const struct membership *m)
{
	return view;
}

const struct membership_node *membership_node(const struct membership *m, node_id id)
{
	return id >= 1 && id <= N ? &view->nodes[id - 1] : NULL;
}

const struct membership_node *membership_node_by_name(const struct membership *m, const char *name)
{
	for (size_t i = 0; i < N; i++)
		if (!strcmp(view->nodes[i].name, name))
			return &view->nodes[i];
	return NULL;
}

/* Three nodes that are up, of which nothing was heard. */
static int setup(void **state)
{
	view = calloc(1, sizeof(*view) + N * sizeof(view->nodes[0]));
	if (!view)
		return -1;
	view->n_nodes = N;
	for (size_t i = 0; i < N; i++) {
		view->nodes[i].id = i + 1;
		view->nodes[i].state = MEMBER_UP;
		view->nodes[i].name[0] = 'n';
		view->nodes[i].name[1] = (char)('1' + i);
	}
	return 0;
}

static int teardown(void **state)
{
	free(view);
	return 0;
}

static void set_load(size_t node, uint32_t n_cpus, uint32_t running, uint64_t free_bytes)
{
	view->nodes[node - 1].load = (struct membership_load){
		.n_cpus = n_cpus, .running = running, .memory_available = free_bytes};
}

static void choose(const char *const *names, size_t n_names, bool best, node_id want)
{
	node_id got = NODE_NONE;
	char text[128] = "";

	assert_int_equal(place_choose(NULL, 1, (char *const *)names, n_names, best, &got, text,
				      sizeof(text)), RPC_OK);
	assert_int_equal(got, want);
}

static void test_best_is_the_least_loaded_for_its_processors_then_the_one_with_memory(void **state)
{
	set_load(1, 1, 100, 1 << 20);
	set_load(2, 8, 400, 1 << 20);
	set_load(3, 2, 200, 1 << 30);
	choose(NULL, 0, true, 2);
	set_load(2, 8, 800, 1 << 20);
	choose(NULL, 0, true, 3);
	view->nodes[2].state = MEMBER_LOST;
	choose(NULL, 0, true, 1);
}

static void test_a_node_of_which_nothing_was_heard_is_not_taken_for_an_idle_one(void **state)
{
	static const char *const names[] = {"n2", "n3"};

	set_load(1, 1, 300, 1 << 20);
	choose(NULL, 0, true, 1);
	set_load(3, 1, 900, 1 << 20);
	choose(names, 2, true, 3);
}

static void test_without_any_load_it_is_here_or_the_first_named(void **state)
{
	static const char *const names[] = {"n3", "n2"};

	choose(NULL, 0, true, 1);
	choose(NULL, 0, false, 1);
	choose(names, 2, true, 3);
	choose(names, 2, false, 3);
}

static void test_names_that_are_none_or_all_down_are_told(void **state)
{
	static const char *const unknown[] = {"n1", "n9"}, *const down[] = {"n2"};
	node_id got = NODE_NONE;
	char text[128];

	view->nodes[1].state = MEMBER_LOST;
	assert_int_equal(place_choose(NULL, 1, (char *const *)unknown, 2, false, &got, text,
				      sizeof(text)), RPC_NOT_FOUND);
	assert_non_null(strstr(text, "n9"));
	assert_int_equal(place_choose(NULL, 1, (char *const *)down, 1, false, &got, text,
				      sizeof(text)), RPC_DOWN);
	assert_int_equal(got, NODE_NONE);
}

int main(void)
{
#define TEST(t_) cmocka_unit_test_setup_teardown(t_, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_best_is_the_least_loaded_for_its_processors_then_the_one_with_memory),
		TEST(test_a_node_of_which_nothing_was_heard_is_not_taken_for_an_idle_one),
		TEST(test_without_any_load_it_is_here_or_the_first_named),
		TEST(test_names_that_are_none_or_all_down_are_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
