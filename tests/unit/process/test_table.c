#include "process_table.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void *memory;
static struct process_table *t;

static int setup(void **state)
{
	memory = mmap(NULL, process_table_size(), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(memory, MAP_FAILED);
	return process_table_new(&t, memory, true);
}

static int teardown(void **state)
{
	t = process_table_free(t);
	return munmap(memory, process_table_size());
}

static int put(pid_t pid, uint64_t mark)
{
	struct process_entry e = {.record = {.pid = pid,
					     .app = (pid_t)mark,
					     .root = (pid_t)mark,
					     .generation = (uint32_t)mark,
					     .status = (int)mark},
				  .sequence = mark,
				  .ended_at = mark};

	return process_table_put(t, &e);
}

static void puts_finds_replaces_and_removes(void **state)
{
	assert_null(process_table_find(t, 7));
	assert_int_equal(put(7, 1), 0);
	assert_int_equal(put(7, 2), 0);
	assert_int_equal(process_table_n(t), 1);
	assert_int_equal(process_table_find(t, 7)->sequence, 2);
	process_table_remove(t, 7);
	process_table_remove(t, 7);
	assert_null(process_table_find(t, 7));
	assert_int_equal(process_table_n(t), 0);
}

static void is_full_after_its_slots_and_takes_again_after_a_removal(void **state)
{
	const struct process_entry *e;
	size_t cursor = 0, n = 0;

	for (pid_t pid = 1; pid <= PROCESS_TABLE_SLOTS; pid++)
		assert_int_equal(put(pid, pid), 0);
	assert_int_equal(put(999999, 1), PROCESS_TABLE_E_FULL);
	assert_int_equal(put(5, 6), 0);
	while ((e = process_table_next(t, &cursor)))
		n++;
	assert_int_equal(n, PROCESS_TABLE_SLOTS);
	process_table_remove(t, 5);
	assert_int_equal(put(999999, 1), 0);
}

static void successor_finds_what_was_written(void **state)
{
	assert_int_equal(put(7, 1), 0);
	assert_int_equal(put(8, 2), 0);
	process_table_remove(t, 7);
	t = process_table_free(t);
	assert_int_equal(process_table_new(&t, memory, false), 0);
	assert_null(process_table_find(t, 7));
	assert_int_equal(process_table_find(t, 8)->sequence, 2);
}

/* It is looked through at every view, and an idle node pays for each page. */
static void slots_that_were_never_used_have_no_memory(void **state)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), n = (process_table_size() + page - 1) / page;
	unsigned char *in_core = malloc(n);
	size_t cursor = 0, n_in_core = 0;

	assert_non_null(in_core);
	for (pid_t pid = 1; pid <= 10; pid++)
		assert_int_equal(put(pid, 1), 0);
	process_table_remove(t, 3);
	t = process_table_free(t);
	assert_int_equal(process_table_new(&t, memory, false), 0);
	assert_int_equal(put(11, 1), 0);
	while (process_table_next(t, &cursor))
		;
	assert_int_equal(mincore(memory, process_table_size(), in_core), 0);
	for (size_t i = 0; i < n; i++)
		n_in_core += in_core[i] & 1;
	assert_in_range(n_in_core, 1, 2);
	free(in_core);
}

static void another_layout_is_refused(void **state)
{
	struct process_table *other = NULL;

	((uint64_t *)memory)[0] ^= 1;
	assert_int_equal(process_table_new(&other, memory, false),
			 PROCESS_TABLE_E_FORMAT);
}

static void kill_at_any_instant_leaves_records_whole(void **state)
{
	for (int round = 0; round < 100; round++) {
		pid_t pid = fork();
		const struct process_entry *e;

		if (pid == 0)
			for (uint64_t i = 1;; i++)
				(void)put(7 + (pid_t)(i % 3), i & 0x7fffffff);
		(void)usleep(500 + (unsigned)(rand() % 2000));
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		t = process_table_free(t);
		assert_int_equal(process_table_new(&t, memory, false), 0);
		for (pid_t p = 7; p < 10; p++) {
			e = process_table_find(t, p);
			if (!e)
				continue;
			assert_int_equal(e->record.app, (pid_t)e->sequence);
			assert_int_equal(e->record.status, (int)e->sequence);
			assert_int_equal(e->ended_at, e->sequence);
		}
	}
}

int main(void)
{
#define TEST(name_) cmocka_unit_test_setup_teardown(name_, setup, teardown)
	static const struct CMUnitTest list[] = {
		TEST(puts_finds_replaces_and_removes),
		TEST(is_full_after_its_slots_and_takes_again_after_a_removal),
		TEST(successor_finds_what_was_written),
		TEST(slots_that_were_never_used_have_no_memory),
		TEST(another_layout_is_refused),
		TEST(kill_at_any_instant_leaves_records_whole),
	};

	return cmocka_run_group_tests_name("process table", list, NULL, NULL);
}
