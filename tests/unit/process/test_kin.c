#include "process_fixture.h"

#include "process.pb-c.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LEADER = 3000008, PARENT = 3000009, COMER = 3000010 };

/* What node 2 was told: how the comer fared, and signals. */
static Ssi__Process__ChangedRequest changed;
static size_t n_changed;
static int signalled, signalled_pid;
static size_t n_signalled;
/* And what was sent to groups. */
static Ssi__Process__SignalRequest told;
static size_t n_told;
static int told_except;
static enum rpc_status changed_answer, where_answer, group_answer;

static enum rpc_status on_remote(uint16_t method, const ProtobufCMessage *request)
{
	static Ssi__Process__WhereReply where;

	ssi__process__where_reply__init(&where);
	where.place = THERE;
	where.uid = 1000;
	remote_reply = NULL;
	if (method == PROCESS_CHANGED) {
		changed = *(const Ssi__Process__ChangedRequest *)(const void *)request;
		n_changed++;
		return changed_answer;
	}
	if (method == PROCESS_GROUP) {
		const Ssi__Process__GroupRequest *q = (const void *)request;

		if (q->signal->signal == 0)
			return RPC_NOT_FOUND;
		n_told++;
		told = *q->signal;
		told_except = q->n_except == 1 ? q->except[0] : 0;
		return group_answer;
	}
	if (method == PROCESS_SIGNAL) {
		const Ssi__Process__SignalRequest *q = (const void *)request;

		n_signalled++;
		signalled = q->signal;
		signalled_pid = q->pid;
	}
	if (method == PROCESS_WHERE) {
		remote_reply = &where.base;
		return where_answer;
	}
	return RPC_OK;
}

static int setup(void **state)
{
	n_changed = 0;
	signalled = 0;
	n_signalled = n_told = 0;
	changed_answer = where_answer = RPC_OK;
	group_answer = RPC_OK;
	remote = on_remote;
	there_first = 3000000;
	there_up = true;
	process_fixture_open();
	return 0;
}

static bool is_gone(pid_t pid)
{
	struct proc_stat s;

	return proc_stat_read(space_proc_fd(space), pid, &s) < 0;
}

/* Nothing is left for the next test. */
static int teardown(void **state)
{
	struct process_record d;

	changed_answer = group_answer = RPC_OK;
	(void)kill(COMER, SIGKILL);
	wait_until(is_gone(COMER) && process_record(room, COMER, &d) == PROCESS_E_ABSENT);
	where_answer = RPC_NOT_FOUND;
	wait_until(is_gone(PARENT) && is_gone(LEADER));
	/* Nor a sentinel. */
	wait_until(kill(-LEADER, 0) < 0 && kill(-COMER, 0) < 0);
	process_fixture_close();
	return 0;
}

static const struct process_member comer = {.pid = COMER,
					    .ppid = PARENT,
					    .pgid = COMER,
					    .sid = LEADER,
					    .app = LEADER,
					    .uid = 1000,
					    .gid = 1000,
					    .generation = 1};
static const struct process_member parent = {.pid = PARENT,
					     .ppid = LEADER,
					     .pgid = LEADER,
					     .sid = LEADER,
					     .app = LEADER,
					     .uid = 1000,
					     .gid = 1000};

static bool runs(const char *name, struct proc_stat *ret)
{
	return proc_stat_read(space_proc_fd(space), COMER, ret) == 0 &&
	       !strcmp(ret->comm, name);
}

/* It blocks all signals, as its shadow did: ssi-spawn would not. */
static void come(const char *path, const char *name, struct proc_stat *ret)
{
	assert_int_equal(process_come_exec(room, &comer, &parent, NULL, path, NULL, 0), 0);
	wait_until(runs(name, ret) || ret->state == 'Z');
}

static void it_has_its_family_about_it(void **state)
{
	struct process_record d;
	struct proc_stat s = {0}, p = {0};

	come("/usr/bin/yes", "yes", &s);
	assert_int_equal(s.ppid, PARENT);
	assert_int_equal(s.pgid, COMER);
	assert_int_equal(s.sid, LEADER);
	assert_int_equal(proc_stat_read(space_proc_fd(space), PARENT, &p), 0);
	assert_int_equal(p.pgid, LEADER);
	assert_int_equal(p.sid, LEADER);
	assert_true(room_is_shadow(room, PARENT) && room_is_shadow(room, LEADER));
	/* Kin are nobody's processes here. */
	assert_int_equal(process_record(room, PARENT, &d), PROCESS_E_ABSENT);
	assert_int_equal(process_record(room, COMER, &d), 0);
	assert_true(d.moving && d.state == PROCESS_GUEST);
	process_come_commit(room, COMER);
	assert_int_equal(process_record(room, COMER, &d), 0);
	assert_true(!d.moving);
}

static void its_end_is_told_as_it_was(void **state)
{
	struct process_record d;
	struct proc_stat s = {0};

	come("/usr/bin/yes", "yes", &s);
	process_come_commit(room, COMER);
	changed_answer = RPC_DOWN;
	assert_int_equal(kill(COMER, SIGKILL), 0);
	wait_until(n_changed > 0);
	assert_int_equal(changed.what, SSI__PROCESS__CHANGED_REQUEST__WHAT__ENDED);
	assert_int_equal(changed.code, CLD_KILLED);
	assert_int_equal(changed.status, SIGKILL);
	turn_for(500 * NSEC_PER_MSEC);
	assert_true(!is_gone(COMER)); /* its PID is taken until its home knows */
	changed_answer = RPC_OK;
	wait_until(is_gone(COMER));
	assert_int_equal(process_record(room, COMER, &d), PROCESS_E_ABSENT);
	wait_until(kill(-COMER, 0) < 0);
	/* The next one finds its kin standing, and is dead when it comes. */
	n_changed = 0;
	come("/usr/bin/yes", "yes", &s);
	assert_int_equal(kill(COMER, SIGKILL), 0);
	wait_until(is_gone(COMER));
	assert_int_equal(n_changed, 0);
	process_come_commit(room, COMER);
	wait_until(n_changed > 0);
	assert_int_equal(changed.code, CLD_KILLED);
	wait_until(process_record(room, COMER, &d) == PROCESS_E_ABSENT);
}

static void a_stop_is_told(void **state)
{
	struct proc_stat s = {0};

	come("/usr/bin/yes", "yes", &s);
	process_come_commit(room, COMER);
	assert_int_equal(kill(COMER, SIGSTOP), 0);
	wait_until(n_changed == 1);
	assert_int_equal(changed.what, SSI__PROCESS__CHANGED_REQUEST__WHAT__STOPPED);
	assert_int_equal(changed.status, SIGSTOP);
	assert_int_equal(kill(COMER, SIGCONT), 0);
	wait_until(n_changed == 2);
	assert_int_equal(changed.what, SSI__PROCESS__CHANGED_REQUEST__WHAT__WENT_ON);
}

static void one_that_does_not_come_leaves_nothing(void **state)
{
	struct process_record d;
	struct proc_stat s = {0};

	come("/usr/bin/yes", "yes", &s);
	process_come_abort(room, COMER);
	wait_until(is_gone(COMER));
	assert_int_equal(process_record(room, COMER, &d), PROCESS_E_ABSENT);
	assert_int_equal(n_changed, 0);
	/* Nor one that ends before it is said to come. */
	come("/usr/bin/yes", "yes", &s);
	assert_int_equal(kill(COMER, SIGKILL), 0);
	wait_until(is_gone(COMER));
	assert_int_equal(n_changed, 0);
	process_come_abort(room, COMER);
}

static size_t n_found;
static int32_t found_pid;
static uint32_t found_place;

static void on_found(const ProtobufCMessage *reply)
{
	const Ssi__Process__ClaimReply *r = (const void *)reply;

	n_found = r->n_pids;
	found_pid = n_found ? r->pids[0] : 0;
	found_place = n_found ? r->places[0] : 0;
}

/* Who looks for what a lost node had must not take kin for those whom they stand for. */
static void kin_is_not_who_is_sought(void **state)
{
	int32_t pids[] = {LEADER, PARENT, COMER};
	uint32_t generations[3] = {0};
	uint64_t homes[3] = {0};
	Ssi__Process__ClaimRequest q = SSI__PROCESS__CLAIM_REQUEST__INIT;
	struct proc_stat s = {0};

	q.pids = pids;
	q.generations = generations;
	q.homes = homes;
	q.n_pids = q.n_generations = q.n_homes = 3;
	come("/usr/bin/yes", "yes", &s);
	on_reply = on_found;
	/* It may still come, and is nowhere yet. */
	assert_int_equal(from_there(PROCESS_SEEK, &q.base), RPC_OK);
	assert_int_equal(n_found, 1);
	assert_int_equal(found_pid, COMER);
	assert_int_equal(found_place, NODE_NONE);
	process_come_commit(room, COMER);
	assert_int_equal(from_there(PROCESS_SEEK, &q.base), RPC_OK);
	on_reply = NULL;
	assert_int_equal(n_found, 1);
	assert_int_equal(found_pid, COMER);
	assert_int_equal(found_place, HERE);
}

static void a_signal_to_kin_goes_by_its_home(void **state)
{
	struct proc_stat s = {0};

	come("/usr/bin/yes", "yes", &s);
	process_come_commit(room, COMER);
	assert_int_equal(kill(PARENT, SIGUSR1), 0);
	wait_until(signalled == SIGUSR1);
	assert_int_equal(signalled_pid, PARENT);
	assert_true(room_is_shadow(room, PARENT));
	assert_int_equal(kill(PARENT, SIGKILL), 0);
	wait_until(signalled == SIGKILL);
	assert_int_equal(signalled_pid, PARENT);
}

static void a_signal_is_sent_on_once_also_by_a_successor_of_ssid(void **state)
{
	struct proc_stat s = {0};

	come("/usr/bin/yes", "yes", &s);
	process_come_commit(room, COMER);
	process_fixture_close();
	/* Told when nobody listens, and again on RESUME. */
	assert_int_equal(kill(PARENT, SIGUSR1), 0);
	(void)usleep(100000);
	process_fixture_open();
	wait_until(n_signalled > 0);
	turn_for(300 * NSEC_PER_MSEC);
	assert_int_equal(n_signalled, 1);
	assert_int_equal(signalled_pid, PARENT);
}

static void a_signal_waits_for_the_home_that_is_not_there(void **state)
{
	struct proc_stat s = {0};

	come("/usr/bin/yes", "yes", &s);
	process_come_commit(room, COMER);
	where_answer = RPC_DOWN;
	assert_int_equal(kill(PARENT, SIGUSR1), 0);
	turn_for(500 * NSEC_PER_MSEC);
	assert_int_equal(n_signalled, 0);
	where_answer = RPC_OK;
	wait_until(n_signalled == 1);
	assert_int_equal(signalled, SIGUSR1);
}

/* Nobody here would say that it goes on. */
static void kin_do_not_stop_for_long(void **state)
{
	struct proc_stat s = {0};

	trace_shadows = true;
	process_fixture_close();
	process_fixture_open();
	come("/usr/bin/yes", "yes", &s);
	process_come_commit(room, COMER);
	turn_for(200 * NSEC_PER_MSEC);
	assert_int_equal(kill(PARENT, SIGSTOP), 0);
	wait_until(signalled == SIGSTOP);
	assert_int_equal(kill(PARENT, SIGUSR1), 0);
	wait_until(signalled == SIGUSR1);
	assert_int_equal(n_signalled, 2);
	trace_shadows = false;
}

static void what_its_group_is_sent_others_are_told(void **state)
{
	uint64_t sequence;
	struct proc_stat s = {0};

	come("/usr/bin/yes", "yes", &s);
	process_come_commit(room, COMER);
	assert_int_equal(kill(-COMER, SIGWINCH), 0);
	wait_until(n_told == 1);
	assert_int_equal(told.pid, COMER);
	assert_int_equal(told.signal, SIGWINCH);
	assert_int_equal(told.code, SI_USER);
	assert_int_equal(told.sender_pid, getpid());
	assert_int_equal(told_except, COMER); /* which had it */
	/* To one of them only. */
	assert_int_equal(kill(COMER, SIGWINCH), 0);
	turn_for(200 * NSEC_PER_MSEC);
	assert_int_equal(n_told, 1);
	/* Until it is answered, under one number, and the next comes after it. */
	sequence = told.sequence;
	group_answer = RPC_DOWN;
	assert_int_equal(kill(-COMER, SIGURG), 0);
	wait_until(n_told >= 3);
	assert_int_equal(kill(-COMER, SIGWINCH), 0);
	turn_for(300 * NSEC_PER_MSEC);
	assert_int_equal(told.signal, SIGURG);
	assert_true(told.sequence == sequence + 1);
	process_fixture_close();
	n_told = 0;
	process_fixture_open();
	wait_until(n_told >= 2);
	assert_int_equal(told.signal, SIGURG);
	assert_true(told.sequence == sequence + 1);
	group_answer = RPC_NOT_FOUND;
	wait_until(told.signal == SIGWINCH);
	assert_true(told.sequence == sequence + 2);
}

static void a_stop_is_told_and_does_not_stop_the_sentinel(void **state)
{
	struct proc_stat s = {0};

	trace_shadows = true;
	process_fixture_close();
	process_fixture_open();
	come("/usr/bin/yes", "yes", &s);
	process_come_commit(room, COMER);
	turn_for(200 * NSEC_PER_MSEC);
	assert_int_equal(kill(-COMER, SIGSTOP), 0);
	wait_until(n_told == 1);
	assert_int_equal(told.signal, SIGSTOP);
	assert_int_equal(kill(-COMER, SIGUSR2), 0); /* which waits for SIGCONT in the comer only */
	wait_until(n_told == 2);
	assert_int_equal(told.signal, SIGUSR2);
	trace_shadows = false;
}

static void killed_with_its_group_it_tells_that(void **state)
{
	struct proc_stat s = {0};

	come("/usr/bin/yes", "yes", &s);
	process_come_commit(room, COMER);
	turn_for(200 * NSEC_PER_MSEC);
	group_answer = RPC_DOWN;
	assert_int_equal(kill(-COMER, SIGKILL), 0);
	wait_until(n_told > 0);
	assert_int_equal(told.signal, SIGKILL);
	process_fixture_close();
	n_told = 0;
	process_fixture_open();
	wait_until(n_told > 0);
	assert_int_equal(told.signal, SIGKILL);
	assert_int_equal(told.pid, COMER);
	group_answer = RPC_OK;
	wait_until(kill(-COMER, 0) < 0);
}

static void it_ends_with_its_group(void **state)
{
	struct proc_stat s = {0};

	come("/usr/bin/yes", "yes", &s);
	process_come_commit(room, COMER);
	turn_for(1500 * NSEC_PER_MSEC); /* it is looked at */
	assert_int_equal(kill(-COMER, 0), 0);
	assert_int_equal(kill(COMER, SIGKILL), 0);
	wait_until(kill(-COMER, 0) < 0);
	assert_true(!is_gone(LEADER));
	assert_int_equal(kill(-LEADER, 0), 0);
	assert_int_equal(n_told, 0);
}

static void kin_end_with_whom_they_stand_for(void **state)
{
	struct proc_stat s = {0};

	come("/usr/bin/yes", "yes", &s);
	process_come_commit(room, COMER);
	where_answer = RPC_NOT_FOUND;
	wait_until(is_gone(PARENT) && is_gone(LEADER));
	assert_true(runs("yes", &s));
	assert_int_equal(s.ppid, 1);
	assert_int_equal(s.sid, LEADER); /* which has no leader any more */
	assert_int_equal(signalled, 0);
	assert_int_equal(kill(COMER, SIGKILL), 0);
	wait_until(n_changed > 0);
	assert_int_equal(changed.what, SSI__PROCESS__CHANGED_REQUEST__WHAT__ENDED);
	wait_until(is_gone(COMER));
}

static void a_successor_of_ssid_is_told_as_well(void **state)
{
	struct proc_stat s = {0};

	come("/usr/bin/yes", "yes", &s);
	process_come_commit(room, COMER);
	process_fixture_close();
	assert_int_equal(kill(COMER, SIGKILL), 0);
	process_fixture_open();
	wait_until(n_changed > 0);
	assert_int_equal(changed.what, SSI__PROCESS__CHANGED_REQUEST__WHAT__ENDED);
	assert_int_equal(changed.status, SIGKILL);
	assert_int_equal(changed.code, CLD_KILLED);
	wait_until(is_gone(COMER));
	where_answer = RPC_NOT_FOUND;
	wait_until(is_gone(PARENT) && is_gone(LEADER));
}

/* One of node 2, in no family of anybody here. */
enum { FAR = 3000020 };

static void call_names(int nr, pid_t pid)
{
	const struct space_exec call = {.id = 1, .pid = COMER, .nr = nr, .args = {(uint64_t)pid}};

	process_on_call(room, &call);
}

static bool is_its_users(pid_t pid)
{
	char path[32], text[4096];
	_cleanup_close_ int fd = -1;
	const char *uid;
	ssize_t n;

	(void)snprintf(path, sizeof(path), "%d/status", pid);
	fd = openat(space_proc_fd(space), path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = 0;
	uid = strstr(text, "Uid:\t");
	return uid && !strncmp(uid, "Uid:\t1000\t1000\t", 15);
}

static void whom_a_call_names_stands_for_a_moment(void **state)
{
	struct process_record d;

	assert_true(process_call_names(SYS_kill) && !process_call_names(SYS_execve));
	call_names(SYS_kill, FAR);
	wait_until(is_its_users(FAR));
	assert_int_equal(process_record(room, FAR, &d), PROCESS_E_ABSENT);
	assert_int_equal(kill(FAR, SIGUSR2), 0);
	wait_until(signalled == SIGUSR2);
	assert_int_equal(signalled_pid, FAR);
	wait_until(is_gone(FAR));
	/* Not of one that has ended, nor of those that are here. */
	where_answer = RPC_NOT_FOUND;
	call_names(SYS_kill, FAR);
	call_names(SYS_kill, 2000010);
	turn_for(100 * NSEC_PER_MSEC);
	assert_true(is_gone(FAR) && is_gone(2000010));
}

static void whom_a_descriptor_names_stands_as_long_as_it_lives(void **state)
{
	struct proc_stat s;

	call_names(SYS_kill, FAR);
	call_names(SYS_pidfd_open, FAR);
	wait_until(is_its_users(FAR));
	turn_for(3500 * NSEC_PER_MSEC);
	assert_true(!is_gone(FAR));
	/* Also in a successor; there is no family here that it could be of. */
	process_fixture_close();
	process_fixture_open();
	assert_true(is_its_users(FAR));
	assert_int_equal(proc_stat_read(space_proc_fd(space), FAR, &s), 0);
	assert_int_equal(s.sid, FAR);
	/* A call that names it when it has ended finds nobody. */
	where_answer = RPC_NOT_FOUND;
	call_names(SYS_kill, FAR);
	wait_until(is_gone(FAR));
	assert_int_equal(signalled, 0);
}

static void who_stands_alone_is_nobodys_parent(void **state)
{
	call_names(SYS_pidfd_open, PARENT);
	wait_until(is_its_users(PARENT));
	assert_int_equal(process_come_exec(room, &comer, &parent, NULL, "/usr/bin/yes", NULL, 0),
			 PROCESS_E_TAKEN);
}

/* A copy that did not come, as long as it takes to kill it. */
static void who_has_no_record_and_another_home_is_nobody(void **state)
{
	const char *argv[] = {"/usr/bin/yes", NULL};
	const struct space_spawn spec = {.argv = argv, .group_fd = -1, .set_tid = FAR};
	struct process_record d;
	pid_t pid;

	assert_int_equal(space_spawn(space, &spec, &pid, NULL), 0);
	wait_until(!is_gone(FAR));
	assert_int_equal(process_record(room, FAR, &d), PROCESS_E_ABSENT);
	assert_int_equal(kill(FAR, SIGKILL), 0);
	wait_until(is_gone(FAR));
}

static void who_really_runs_here_has_no_kin(void **state)
{
	struct process_member other = comer;

	other.pid = 2000010; /* of this node */
	assert_int_equal(process_come_exec(room, &other, &parent, NULL, "/usr/bin/yes", NULL, 0),
			 PROCESS_E_TAKEN);
	other = parent;
	other.pid = 2000009;
	assert_int_equal(process_come_exec(room, &comer, &other, NULL, "/usr/bin/yes", NULL, 0),
			 PROCESS_E_TAKEN);
	assert_true(is_gone(COMER));
}

static int tests(void)
{
	const struct CMUnitTest all[] = {
		cmocka_unit_test_setup_teardown(it_has_its_family_about_it, setup, teardown),
		cmocka_unit_test_setup_teardown(its_end_is_told_as_it_was, setup, teardown),
		cmocka_unit_test_setup_teardown(a_stop_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(one_that_does_not_come_leaves_nothing, setup,
						teardown),
		cmocka_unit_test_setup_teardown(kin_is_not_who_is_sought, setup, teardown),
		cmocka_unit_test_setup_teardown(a_signal_to_kin_goes_by_its_home, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_signal_is_sent_on_once_also_by_a_successor_of_ssid,
						setup, teardown),
		cmocka_unit_test_setup_teardown(a_signal_waits_for_the_home_that_is_not_there,
						setup, teardown),
		cmocka_unit_test_setup_teardown(kin_do_not_stop_for_long, setup, teardown),
		cmocka_unit_test_setup_teardown(what_its_group_is_sent_others_are_told, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_stop_is_told_and_does_not_stop_the_sentinel,
						setup, teardown),
		cmocka_unit_test_setup_teardown(killed_with_its_group_it_tells_that, setup,
						teardown),
		cmocka_unit_test_setup_teardown(it_ends_with_its_group, setup, teardown),
		cmocka_unit_test_setup_teardown(kin_end_with_whom_they_stand_for, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_successor_of_ssid_is_told_as_well, setup,
						teardown),
		cmocka_unit_test_setup_teardown(whom_a_call_names_stands_for_a_moment, setup,
						teardown),
		cmocka_unit_test_setup_teardown(whom_a_descriptor_names_stands_as_long_as_it_lives,
						setup, teardown),
		cmocka_unit_test_setup_teardown(who_stands_alone_is_nobodys_parent, setup,
						teardown),
		cmocka_unit_test_setup_teardown(who_has_no_record_and_another_home_is_nobody,
						setup, teardown),
		cmocka_unit_test_setup_teardown(who_really_runs_here_has_no_kin, setup,
						teardown),
	};

	return cmocka_run_group_tests_name("process kin", all, NULL, NULL);
}

int main(int argc, char **argv)
{
	return process_fixture_main(argc, argv, tests);
}
