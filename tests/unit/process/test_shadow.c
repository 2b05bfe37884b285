#include "process_fixture.h"

#include "process.pb-c.h"
#include "space_group.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

static struct run r;

/* What node 2 was told. */
static struct {
	uint16_t method;
	int32_t pid, signal, code, sender_pid, status;
	uint32_t sender_uid, what;
	uint64_t value, sequence;
} sent[256];
static size_t n_sent;
static enum rpc_status answer;

static enum rpc_status on_remote(uint16_t method, const ProtobufCMessage *request)
{
	size_t i = n_sent++;

	assert_true(i < 256);
	memset(&sent[i], 0, sizeof(sent[i]));
	sent[i].method = method;
	if (method == PROCESS_SIGNAL) {
		const Ssi__Process__SignalRequest *q = (const void *)request;

		sent[i].pid = q->pid;
		sent[i].signal = q->signal;
		sent[i].code = q->code;
		sent[i].sender_pid = q->sender_pid;
		sent[i].sender_uid = q->sender_uid;
		sent[i].value = q->value;
		sent[i].sequence = q->sequence;
	} else if (method == PROCESS_CHANGED) {
		const Ssi__Process__ChangedRequest *q = (const void *)request;

		sent[i].pid = q->pid;
		sent[i].what = q->what;
		sent[i].code = q->code;
		sent[i].status = q->status;
	}
	return answer;
}

static int setup(void **state)
{
	n_sent = 0;
	answer = RPC_OK;
	remote = on_remote;
	there_first = MEMBERSHIP_PID_MAX;
	there_up = true;
	process_fixture_open();
	return 0;
}

static int setup_traced(void **state)
{
	trace_shadows = true;
	return setup(state);
}

static int teardown(void **state)
{
	trace_shadows = false;
	process_fixture_close();
	return 0;
}

static size_t count_signals(int signal)
{
	size_t n = 0;

	for (size_t i = 0; i < n_sent; i++)
		n += sent[i].method == PROCESS_SIGNAL && sent[i].signal == signal;
	return n;
}

/* A parent with a child of four threads; returns the child. */
static pid_t run_relatives(const char *mode)
{
	char *argv[] = {(char *)program("relative"), (char *)mode, NULL};
	struct process_launch l;
	const char *said;

	launch_defaults(&l, argv);
	run_launch(&r, &l);
	wait_until(strstr(run_text(&r), "child ready") && strstr(run_text(&r), "pid "));
	said = strstr(run_text(&r), "pid ");
	return atoi(said + 4);
}

static void member_of(pid_t pid, uint32_t generation, struct process_member *ret)
{
	struct proc_stat s;

	assert_int_equal(proc_stat_read(space_proc_fd(space), pid, &s), 0);
	*ret = (struct process_member){.pid = pid,
				       .pgid = s.pgid,
				       .sid = s.sid,
				       .app = r.pid,
				       .uid = 1000,
				       .generation = generation};
}

/* The tree of @members leaves.  @before and @after its dump they are called, all
 * frozen. */
static void depart_tree(const struct process_member *members, size_t n,
			void (*before)(pid_t), void (*after)(pid_t))
{
	struct process_pending *pending = NULL;
	struct process_departure *d = NULL;
	struct space_group *g = NULL;
	pid_t pid = members[0].pid;

	assert_int_equal(process_hold(room, pid), 0);
	assert_int_equal(space_group_open(space, "move.1", &g), 0);
	assert_int_equal(space_group_take_tree(g, pid), 0);
	assert_int_equal(space_group_freeze(g, NSEC_PER_SEC), 0);
	if (before)
		before(pid);
	assert_int_equal(process_pending_read(space_proc_fd(space), members, n, &pending), 0);
	if (after)
		after(pid);
	assert_int_equal(process_depart_begin(room, members, n, g, THERE, 0, &d), 0);
	process_depart_pending(d, pending);
	assert_int_equal(process_depart_work(d), 0);
	process_depart_end(d);
	space_group_close(g);
	process_unhold(room, pid);
	turn_for(50 * NSEC_PER_MSEC);
}

static void depart(pid_t pid, uint32_t generation, void (*before)(pid_t),
		   void (*after)(pid_t))
{
	struct process_member m;

	member_of(pid, generation, &m);
	depart_tree(&m, 1, before, after);
}

static enum rpc_status tell(pid_t pid, uint32_t generation, int what, int code,
			    int status)
{
	Ssi__Process__ChangedRequest q = SSI__PROCESS__CHANGED_REQUEST__INIT;

	q.pid = pid;
	q.generation = generation;
	q.what = (Ssi__Process__ChangedRequest__What)what;
	q.code = code;
	q.status = status;
	return from_there(PROCESS_CHANGED, &q.base);
}

static void expect_shadow(pid_t pid)
{
	struct proc_stat before;
	uid_t uid;

	assert_true(room_is_shadow(room, pid));
	assert_int_equal(proc_stat_read(space_proc_fd(space), pid, &before), 0);
	assert_int_equal(before.n_threads, 1);
	assert_int_equal(proc_status_read(space_proc_fd(space), pid, &uid, NULL), 0);
	assert_int_equal(uid, 1000);
}

static bool parent_saw_anything(void)
{
	return strstr(run_text(&r), "SIGCHLD") || strstr(run_text(&r), "wait");
}

static void parent_sees_only_the_true_exit_of_a_process_that_left(void **state)
{
	pid_t child = run_relatives("threads");
	struct process_record d;
	char command[256];
	struct ending e;
	size_t len;

	depart(child, 1, NULL, NULL);
	turn_for(300 * NSEC_PER_MSEC);
	expect_shadow(child);
	assert_false(parent_saw_anything());
	assert_int_equal(proc_cmdline_read(space_proc_fd(space), child, command,
					   sizeof(command), &len),
			 0);
	assert_true(strstr(command, "relative"));
	wait_for(&e, r.pid);
	assert_int_equal(tell(child, 1, WIRE_ENDED, CLD_EXITED, 33), RPC_OK);
	wait_until(strstr(run_text(&r), "wait exited 33"));
	assert_true(strstr(run_text(&r), "SIGCHLD code 1 status 33"));
	wait_until(e.told);
	wait_until(process_record(room, child, &d) == 0 &&
		   d.state == PROCESS_ENDED);
	assert_int_equal(tell(child, 1, WIRE_ENDED, CLD_EXITED, 33), RPC_OK); /* again */
}

static void parent_sees_the_signal_that_killed_it_elsewhere(void **state)
{
	pid_t child = run_relatives("threads");

	depart(child, 1, NULL, NULL);
	assert_int_equal(tell(child, 1, WIRE_ENDED, CLD_DUMPED, SIGSEGV), RPC_OK);
	wait_until(strstr(run_text(&r), "wait killed 11"));
	assert_int_equal(n_sent, 0);
}

static void signals_to_a_shadow_are_sent_on_with_their_siginfo(void **state)
{
	pid_t child = run_relatives("threads");
	union sigval value = {.sival_int = 77};
	struct run same_user;
	char command[64];

	depart(child, 1, NULL, NULL);
	(void)snprintf(command, sizeof(command), "kill -HUP %d && echo sent", child);
	run_script(&same_user, command);
	wait_until(count_signals(SIGHUP));
	assert_int_equal(sent[0].sender_uid, 1000);
	n_sent = 0;
	assert_int_equal(kill(child, SIGTERM), 0);
	assert_int_equal(sigqueue(child, SIGRTMIN + 3, value), 0);
	assert_int_equal(kill(child, 32), 0); /* the C library's own */
	wait_until(count_signals(SIGTERM) && count_signals(SIGRTMIN + 3) &&
		   count_signals(32));
	for (size_t i = 0; i < n_sent; i++) {
		assert_int_equal(sent[i].pid, child);
		assert_int_equal(sent[i].sender_pid, getpid());
		assert_int_equal(sent[i].sender_uid, 0);
		assert_int_equal(sent[i].code,
				 sent[i].signal == SIGRTMIN + 3 ? SI_QUEUE : SI_USER);
		if (sent[i].signal == SIGRTMIN + 3)
			assert_int_equal((int)sent[i].value, 77);
	}
	expect_shadow(child);
	assert_int_equal(tell(child, 1, WIRE_ENDED, CLD_EXITED, 0), RPC_OK);
	wait_until(strstr(run_text(&r), "wait exited 0"));
}

static void stop_and_going_on_are_mirrored_to_the_parent(void **state)
{
	pid_t child = run_relatives("threads");

	depart(child, 1, NULL, NULL);
	assert_int_equal(tell(child, 1, WIRE_STOPPED, 0, SIGSTOP), RPC_OK);
	wait_until(strstr(run_text(&r), "wait stopped 19"));
	assert_int_equal(tell(child, 1, WIRE_WENT_ON, 0, SIGCONT), RPC_OK);
	wait_until(strstr(run_text(&r), "wait continued"));
	turn_for(100 * NSEC_PER_MSEC);
	assert_int_equal(count_signals(SIGCONT), 0); /* our own is not sent on */
	assert_int_equal(tell(child, 1, WIRE_STOPPED, 0, SIGSTOP), RPC_OK);
	turn_for(100 * NSEC_PER_MSEC);
	assert_int_equal(kill(child, SIGCONT), 0);
	wait_until(count_signals(SIGCONT) == 1);
	assert_int_equal(tell(child, 1, WIRE_STOPPED, 0, SIGSTOP), RPC_OK);
	assert_int_equal(tell(child, 1, WIRE_ENDED, CLD_EXITED, 9),
			 RPC_OK); /* while stopped */
	wait_until(strstr(run_text(&r), "wait exited 9"));
}

static void signals_outlive_ssid_and_come_once_and_in_order(void **state)
{
	pid_t child = run_relatives("threads");
	union sigval value;
	size_t n = 0;

	depart(child, 1, NULL, NULL);
	for (int i = 0; i < 100; i++) {
		value.sival_int = i;
		assert_int_equal(sigqueue(child, SIGRTMIN, value), 0);
		if (i == 30)
			turn_for(20 * NSEC_PER_MSEC);
		if (i == 50) {
			process_fixture_close();
			(void)usleep(50000);
		}
	}
	process_fixture_open();
	wait_until(count_signals(SIGRTMIN) >= 100);
	turn_for(300 * NSEC_PER_MSEC);
	for (size_t i = 0; i < n_sent; i++)
		if (sent[i].method == PROCESS_SIGNAL && sent[i].signal == SIGRTMIN)
			assert_int_equal((int)sent[i].value, n++);
	assert_int_equal(n, 100);
	assert_int_equal(tell(child, 1, WIRE_ENDED, CLD_EXITED, 0), RPC_OK);
	wait_until(strstr(run_text(&r), "wait exited 0"));
}

static void a_place_that_does_not_answer_is_asked_again(void **state)
{
	pid_t child = run_relatives("threads");

	depart(child, 1, NULL, NULL);
	answer = RPC_TIMEOUT;
	assert_int_equal(kill(child, SIGUSR1), 0);
	wait_until(count_signals(SIGUSR1) >= 2);
	assert_int_equal(sent[0].sequence, sent[1].sequence);
	answer = RPC_OK;
	turn_for(500 * NSEC_PER_MSEC);
	n_sent = 0;
	turn_for(500 * NSEC_PER_MSEC);
	assert_int_equal(n_sent, 0);
	assert_int_equal(tell(child, 1, WIRE_ENDED, CLD_EXITED, 0), RPC_OK);
	wait_until(strstr(run_text(&r), "wait exited 0"));
}

static void killing_a_shadow_kills_the_process(void **state)
{
	struct ending e;
	pid_t app;

	run_script(&r, "while :; do sleep 1; done");
	turn_for(100 * NSEC_PER_MSEC);
	app = r.pid;
	wait_for(&e, app);
	/* its children go with it: here, they are killed as members of another home */
	depart(app, 1, NULL, NULL);
	assert_int_equal(kill(app, SIGKILL), 0);
	wait_until(count_signals(SIGKILL));
	turn_for(100 * NSEC_PER_MSEC);
	assert_false(e.told);		   /* not before the real one is dead */
	assert_int_equal(kill(app, 0), 0); /* the PID stays taken */
	assert_int_equal(tell(app, 1, WIRE_ENDED, CLD_KILLED, SIGKILL), RPC_OK);
	wait_until(e.told);
	assert_int_equal(e.code, CLD_KILLED);
	wait_until(kill(app, 0) < 0);
}

static void parent_sees_no_death_before_the_process_is_dead(void **state)
{
	pid_t child = run_relatives("threads");

	depart(child, 1, NULL, NULL);
	assert_int_equal(kill(child, SIGKILL), 0);
	wait_until(count_signals(SIGKILL));
	turn_for(300 * NSEC_PER_MSEC);
	assert_false(parent_saw_anything());
	assert_int_equal(tell(child, 1, WIRE_ENDED, CLD_KILLED, SIGKILL), RPC_OK);
	wait_until(strstr(run_text(&r), "wait killed 9"));
}

static void sigstop_of_a_shadow_is_passed_on(void **state)
{
	pid_t child = run_relatives("threads");

	depart(child, 1, NULL, NULL);
	assert_int_equal(kill(child, SIGSTOP), 0);
	wait_until(count_signals(SIGSTOP));
	wait_until(strstr(run_text(&r), "wait stopped 19"));
	assert_int_equal(tell(child, 1, WIRE_STOPPED, 0, SIGSTOP), RPC_OK);
	assert_int_equal(kill(child, SIGCONT), 0);
	wait_until(count_signals(SIGCONT));
	wait_until(strstr(run_text(&r), "wait continued"));
	turn_for(100 * NSEC_PER_MSEC);
	assert_int_equal(count_signals(SIGSTOP), 1);
	assert_int_equal(tell(child, 1, WIRE_ENDED, CLD_EXITED, 1), RPC_OK);
	wait_until(strstr(run_text(&r), "wait exited 1"));
}

static void a_lost_place_ends_its_processes(void **state)
{
	pid_t child = run_relatives("threads");

	depart(child, 1, NULL, NULL);
	there_up = false;
	process_on_view(room);
	wait_until(strstr(run_text(&r), "wait killed 9"));
}

static void send_usr1(pid_t pid)
{
	assert_int_equal(kill(pid, SIGUSR1), 0);
	assert_int_equal(kill(pid, SIGRTMIN), 0);
}

static void send_later(pid_t pid)
{
	assert_int_equal(kill(pid, SIGUSR2), 0);
	assert_int_equal(kill(pid, SIGRTMIN), 0);
}

static void only_signals_after_the_dump_are_sent_on(void **state)
{
	pid_t child = run_relatives("timer");

	depart(child, 1, send_usr1, send_later);
	turn_for(500 * NSEC_PER_MSEC); /* its timer would have rung, and killed */
	assert_int_equal(count_signals(SIGUSR1), 0);
	assert_int_equal(count_signals(SIGALRM), 0);
	assert_int_equal(count_signals(SIGUSR2), 1);
	assert_int_equal(count_signals(SIGRTMIN), 1);
	expect_shadow(child);
	assert_int_equal(tell(child, 1, WIRE_ENDED, CLD_EXITED, 0), RPC_OK);
	wait_until(strstr(run_text(&r), "wait exited 0"));
	assert_null(strstr(run_text(&r), "child got"));
}

/* A program under the PID of what came home. */
static void restore(pid_t pid, const char *script)
{
	const char *argv[] = {"/bin/sh", "-c", script, NULL};
	const struct space_spawn spec = {.argv = argv, .group_fd = -1, .set_tid = pid};
	pid_t got;

	assert_int_equal(space_spawn(space, &spec, &got, NULL), 0);
	assert_int_equal(got, pid);
}

static void shadow_of_an_application_gives_way_and_its_end_is_told(void **state)
{
	struct process_arrival *a;
	struct process_member m;
	struct process_record d;
	struct ending e;
	bool in_place;
	pid_t app;

	run_script(&r, "exec sleep 60");
	turn_for(100 * NSEC_PER_MSEC);
	app = r.pid;
	wait_for(&e, app);
	member_of(app, 2, &m);
	depart(app, 1, NULL, NULL);
	assert_int_equal(process_arrive_begin(room, &m, 1, &in_place, &a), 0);
	assert_false(in_place);
	assert_int_equal(kill(app, 0), -1);
	restore(app, "sleep 0.2; exit 5");
	process_arrive_end(a, true);
	assert_int_equal(process_record(room, app, &d), 0);
	assert_int_equal(d.state, PROCESS_HERE);
	assert_int_equal(d.generation, 2);
	assert_false(e.told);
	wait_until(e.told);
	assert_int_equal(e.code, CLD_EXITED);
	assert_int_equal(e.exit_status, 5);
}

static void failed_return_puts_the_shadow_back(void **state)
{
	struct process_arrival *a;
	struct process_member m;
	struct process_record d;
	struct ending e;
	bool in_place;
	pid_t app;

	run_script(&r, "exec sleep 60");
	turn_for(100 * NSEC_PER_MSEC);
	app = r.pid;
	wait_for(&e, app);
	member_of(app, 2, &m);
	depart(app, 1, NULL, NULL);
	assert_int_equal(process_arrive_begin(room, &m, 1, &in_place, &a), 0);
	process_arrive_end(a, false);
	turn_for(100 * NSEC_PER_MSEC);
	expect_shadow(app);
	assert_int_equal(process_record(room, app, &d), 0);
	assert_int_equal(d.state, PROCESS_AWAY);
	assert_int_equal(d.place, THERE);
	assert_int_equal(kill(app, SIGUSR1), 0);
	wait_until(count_signals(SIGUSR1) == 1);
	assert_int_equal(tell(app, 1, WIRE_ENDED, CLD_EXITED, 6), RPC_OK);
	wait_until(e.told);
	assert_int_equal(e.exit_status, 6);
}

static void shadow_with_a_real_parent_becomes_the_restored_process(void **state)
{
	pid_t child = run_relatives("threads");
	struct process_arrival *a;
	struct process_member m;
	int ends[2], script;
	char text[256] = "";
	bool in_place;

	static const char body[] =
		"#!/bin/sh\necho $$ $(id -u) $(id -ru) $* >&3\nread x <&4\nexit 44\n";
	script = open(program("criu"), O_CREAT | O_WRONLY | O_TRUNC, 0755);
	assert_int_equal(write(script, body, sizeof(body) - 1), sizeof(body) - 1);
	(void)close(script);
	member_of(child, 2, &m);
	depart(child, 1, NULL, NULL);
	assert_int_equal(process_arrive_begin(room, &m, 1, &in_place, &a), 0);
	assert_true(in_place);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	assert_int_equal(
		process_arrive_exec(a, program("criu"), (int[]){ends[1], ends[1]}, 2),
		0);
	wait_until(recv(ends[0], text, sizeof(text) - 1, MSG_DONTWAIT) > 0);
	assert_int_equal(atoi(text), child);
	assert_true(strstr(text, " 0 0 --no-default-config swrk 3"));
	process_arrive_end(a, true);
	assert_false(parent_saw_anything());
	assert_int_equal(write(ends[0], "\n", 1), 1);
	wait_until(strstr(run_text(&r), "wait exited 44"));
	(void)close(ends[0]);
	(void)close(ends[1]);
}

static void a_whole_tree_leaves_and_comes_back(void **state)
{
	pid_t child = run_relatives("threads");
	struct process_arrival *a;
	struct process_member m[2];
	struct proc_stat s;
	struct ending e;
	bool in_place;

	wait_for(&e, r.pid);
	member_of(r.pid, 1, &m[0]);
	member_of(child, 1, &m[1]);
	m[1].ppid = r.pid;
	depart_tree(m, 2, NULL, NULL);
	expect_shadow(r.pid);
	expect_shadow(child);
	assert_int_equal(proc_stat_read(space_proc_fd(space), child, &s), 0);
	assert_int_equal(s.ppid, r.pid);
	assert_int_equal(count_signals(SIGCHLD), 0);
	assert_int_equal(s.pgid, r.pid);
	m[0].generation = m[1].generation = 2;
	assert_int_equal(process_arrive_begin(room, m, 2, &in_place, &a), 0);
	assert_false(in_place);
	assert_int_equal(kill(child, 0), -1);
	process_arrive_end(a, false);
	turn_for(100 * NSEC_PER_MSEC);
	expect_shadow(r.pid);
	expect_shadow(child);
	assert_int_equal(proc_stat_read(space_proc_fd(space), child, &s), 0);
	assert_int_equal(s.ppid, r.pid);
	assert_int_equal(s.pgid, r.pid);
	assert_int_equal(s.sid, r.pid);
	assert_int_equal(kill(child, SIGUSR1), 0);
	wait_until(count_signals(SIGUSR1) == 1);
	assert_int_equal(tell(child, 1, WIRE_ENDED, CLD_EXITED, 3), RPC_OK);
	wait_until(kill(child, 0) < 0);
	assert_int_equal(tell(r.pid, 1, WIRE_ENDED, CLD_EXITED, 4), RPC_OK);
	wait_until(e.told);
	assert_int_equal(e.exit_status, 4);
}

/* A predecessor was killed between them: by now nobody finds it below the root. */
static void what_is_left_of_a_departure_without_its_parent_does_not_run_on(void **state)
{
	pid_t child = run_relatives("threads");
	struct process_member root;

	member_of(r.pid, 1, &root);
	depart_tree(&root, 1, NULL, NULL);
	expect_shadow(r.pid);
	wait_until(kill(child, 0) < 0);
}

static void a_shadow_reaps_the_shadow_of_its_child(void **state)
{
	pid_t child = run_relatives("threads");
	struct process_member m[2];
	struct process_record d;

	member_of(r.pid, 1, &m[0]);
	member_of(child, 1, &m[1]);
	m[1].ppid = r.pid;
	depart_tree(m, 2, NULL, NULL);
	assert_int_equal(tell(child, 1, WIRE_ENDED, CLD_EXITED, 3), RPC_OK);
	wait_until(kill(child, 0) < 0);
	wait_until(process_record(room, child, &d) == 0 &&
		   d.state == PROCESS_ENDED);
	expect_shadow(r.pid);
	assert_int_equal(n_sent, 0);
	assert_int_equal(tell(r.pid, 1, WIRE_ENDED, CLD_EXITED, 0), RPC_OK);
	wait_until(kill(r.pid, 0) < 0);
}

static void end_of_a_guest_is_told_to_its_home_until_taken(void **state)
{
	struct process_member m = {.pid = 3000001,
				   .pgid = 3000001,
				   .sid = 3000001,
				   .app = 3000001,
				   .uid = 0,
				   .generation = 3};
	struct process_arrival *a;
	struct process_record d;
	bool in_place;

	there_first = 3000000;
	assert_int_equal(process_arrive_begin(room, &m, 1, &in_place, &a), 0);
	restore(m.pid, "exec sleep 60");
	process_arrive_end(a, true);
	turn_for(50 * NSEC_PER_MSEC);
	assert_int_equal(sent[0].method, PROCESS_PLACED);
	assert_int_equal(process_record(room, m.pid, &d), 0);
	assert_int_equal(d.state, PROCESS_GUEST);
	answer = RPC_DOWN;
	assert_int_equal(kill(m.pid, SIGSTOP), 0);
	turn_for(100 * NSEC_PER_MSEC);
	assert_int_equal(kill(m.pid, SIGKILL), 0);
	turn_for(NSEC_PER_SEC);
	assert_int_equal(kill(m.pid, 0), 0); /* a zombie until its home knows */
	answer = RPC_OK;
	wait_until(kill(m.pid, 0) < 0);
	assert_int_equal(sent[n_sent - 1].method, PROCESS_CHANGED);
	assert_int_equal(process_record(room, m.pid, &d), PROCESS_E_ABSENT);
}

/* The shadow sends it again when the answer of the place before was lost. */
static void a_signal_that_it_got_where_it_was_before_does_not_come_again(void **state)
{
	Ssi__Process__SignalRequest q = SSI__PROCESS__SIGNAL_REQUEST__INIT;
	struct process_member m = {.pid = 3000001,
				   .pgid = 3000001,
				   .sid = 3000001,
				   .app = 3000001,
				   .generation = 3,
				   .delivered = 5};
	struct process_arrival *a;
	bool in_place;

	there_first = 3000000;
	assert_int_equal(process_arrive_begin(room, &m, 1, &in_place, &a), 0);
	restore(m.pid, "exec sleep 60");
	process_arrive_end(a, true);
	q.pid = m.pid;
	q.signal = SIGKILL;
	q.generation = 3;
	q.sequence = 5;
	assert_int_equal(from_there(PROCESS_SIGNAL, &q.base), RPC_OK);
	turn_for(50 * NSEC_PER_MSEC);
	process_carry(room, &m);
	assert_int_equal(m.delivered, 5);
	assert_int_equal(kill(m.pid, 0), 0);
	q.sequence = 6;
	assert_int_equal(from_there(PROCESS_SIGNAL, &q.base), RPC_OK);
	wait_until(kill(m.pid, 0) < 0);
}

static gid_t group_of(pid_t pid)
{
	char path[64], status[4096];
	const char *line;
	gid_t real = 0;
	ssize_t n;
	int fd;

	(void)snprintf(path, sizeof(path), "%d/status", pid);
	fd = openat(space_proc_fd(space), path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	n = read(fd, status, sizeof(status) - 1);
	assert_true(n > 0);
	status[n] = 0;
	(void)close(fd);
	line = strstr(status, "\nGid:");
	assert_non_null(line);
	assert_int_equal(sscanf(line, "\nGid: %u", &real), 1);
	return real;
}

static void a_pid_in_use_is_not_given_twice(void **state)
{
	struct process_member m = {.pid = 2000001,
				   .app = 2000001,
				   .uid = 1000,
				   .generation = 1,
				   .pgid = 2000001,
				   .sid = 2000001};
	Ssi__Process__Member one = SSI__PROCESS__MEMBER__INIT, *list[] = {&one};
	Ssi__Process__ReserveRequest q = SSI__PROCESS__RESERVE_REQUEST__INIT;
	Ssi__Process__ReleaseRequest release = SSI__PROCESS__RELEASE_REQUEST__INIT;
	struct process_arrival *a;
	bool in_place;

	run_script(&r, "exec sleep 60");
	turn_for(100 * NSEC_PER_MSEC);
	member_of(r.pid, 1, &m);
	assert_int_equal(process_arrive_begin(room, &m, 1, &in_place, &a),
			 PROCESS_E_TAKEN);
	one.pid = one.app = one.pgid = one.sid = r.pid;
	one.uid = 1000;
	one.gid = 1001;
	one.generation = 1;
	q.members = release.members = list;
	q.n_members = release.n_members = 1;
	q.place = THERE;
	assert_int_equal(from_there(PROCESS_RESERVE, &q.base), RPC_CONFLICT);
	one.pid = one.app = one.pgid = one.sid = 2000001;
	assert_int_equal(from_there(PROCESS_RESERVE, &q.base), RPC_OK);
	assert_int_equal(from_there(PROCESS_RESERVE, &q.base), RPC_OK); /* repeated */
	wait_until(room_is_shadow(room, 2000001) && group_of(2000001) == 1001);
	expect_shadow(2000001);
	assert_int_equal(getsid(2000001), 2000001);
	assert_int_equal(from_there(PROCESS_RELEASE, &release.base), RPC_OK);
	wait_until(kill(2000001, 0) < 0);
	(void)kill(r.pid, SIGKILL);
}

static void on_reserved(void *owner, enum rpc_status status, const char *text)
{
	*(int *)owner = (int)status;
}

static void reserving_asks_every_home_and_undoes_what_it_did(void **state)
{
	struct process_member m[2] = {
		{.pid = 2000002,
		 .app = 2000002,
		 .uid = 1000,
		 .generation = 1,
		 .pgid = 2000002,
		 .sid = 2000002},
		{.pid = 3000002,
		 .ppid = 2000002,
		 .app = 2000002,
		 .uid = 1000,
		 .generation = 1,
		 .pgid = 2000002,
		 .sid = 2000002},
	};
	int told = -1;

	there_first = 3000000;
	assert_int_equal(process_reserve(room, m, 2, HERE, on_reserved, &told), 0);
	wait_until(told != -1);
	assert_int_equal(told, RPC_OK);
	assert_int_equal(sent[0].method, PROCESS_RESERVE);
	turn_for(50 * NSEC_PER_MSEC);
	expect_shadow(2000002);
	assert_int_equal(process_release(room, m, 2), 0);
	wait_until(kill(2000002, 0) < 0);
	answer = RPC_CONFLICT;
	told = -1;
	assert_int_equal(process_reserve(room, m, 2, HERE, on_reserved, &told), 0);
	wait_until(told != -1);
	assert_int_equal(told, RPC_CONFLICT);
	wait_until(kill(2000002, 0) < 0);
	there_up = false;
	answer = RPC_OK;
	told = -1;
	assert_int_equal(process_reserve(room, &m[1], 1, HERE, on_reserved, &told), 0);
	wait_until(told != -1);
	assert_int_equal(told, RPC_OK); /* a lost node runs nothing */
}

static void a_user_gets_nothing_out_of_the_set_uid_program(void **state)
{
	char *argv[] = {(char *)"sh", (char *)"-c", NULL, NULL};
	struct sockaddr_un elsewhere = {.sun_family = AF_UNIX,
					.sun_path =
						"/mnt/another-listener-of-root.sock"};
	char command[512];
	struct process_launch l;
	struct ending e;
	int n = 0, pair[2], other;

	/* Root's sockets: a pair, and a listener that everybody may reach. */
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair),
			 0);
	(void)unlink(elsewhere.sun_path);
	other = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(other, (void *)&elsewhere, sizeof(elsewhere)), 0);
	assert_int_equal(chmod("/mnt/another-listener-of-root.sock", 0666), 0);
	assert_int_equal(listen(other, 4), 0);
	(void)snprintf(command, sizeof(command), "%s ", program("hostile"));
	(void)snprintf(command + strlen(command), sizeof(command) - strlen(command),
		       "%s /mnt/another-listener-of-root.sock 9<&0",
		       program("ssi-shadow"));
	argv[2] = command;
	launch_defaults(&l, argv);
	l.stdio[0] = pair[0];
	run_launch(&r, &l);
	wait_for(&e, r.pid);
	wait_until(e.told);
	for (const char *p = run_text(&r); (p = strstr(p, ": 125 uid 1000\n")); p++)
		n++;
	assert_int_equal(n, 9);
	(void)close(pair[0]);
	(void)close(pair[1]);
	(void)close(other);
	assert_null(strstr(run_text(&r), "uid=0"));
}

static int tests(void)
{
#define TEST(name_)                                                                    \
	cmocka_unit_test_setup_teardown(name_, setup, teardown),                       \
		cmocka_unit_test_setup_teardown(name_, setup_traced, teardown)
#define TRACED(name_) cmocka_unit_test_setup_teardown(name_, setup_traced, teardown)
	static const struct CMUnitTest list[] = {
		TEST(parent_sees_only_the_true_exit_of_a_process_that_left),
		TEST(parent_sees_the_signal_that_killed_it_elsewhere),
		TEST(signals_to_a_shadow_are_sent_on_with_their_siginfo),
		TEST(stop_and_going_on_are_mirrored_to_the_parent),
		TEST(signals_outlive_ssid_and_come_once_and_in_order),
		TEST(a_place_that_does_not_answer_is_asked_again),
		TEST(killing_a_shadow_kills_the_process),
		TRACED(parent_sees_no_death_before_the_process_is_dead),
		TRACED(sigstop_of_a_shadow_is_passed_on),
		TEST(a_lost_place_ends_its_processes),
		TEST(only_signals_after_the_dump_are_sent_on),
		TEST(shadow_of_an_application_gives_way_and_its_end_is_told),
		TEST(failed_return_puts_the_shadow_back),
		TEST(shadow_with_a_real_parent_becomes_the_restored_process),
		TEST(a_whole_tree_leaves_and_comes_back),
		TEST(what_is_left_of_a_departure_without_its_parent_does_not_run_on),
		TEST(a_shadow_reaps_the_shadow_of_its_child),
		TEST(end_of_a_guest_is_told_to_its_home_until_taken),
		TEST(a_signal_that_it_got_where_it_was_before_does_not_come_again),
		TEST(a_pid_in_use_is_not_given_twice),
		TEST(reserving_asks_every_home_and_undoes_what_it_did),
		TEST(a_user_gets_nothing_out_of_the_set_uid_program),
	};

	return cmocka_run_group_tests_name("process shadow", list, NULL, NULL);
}

int main(int argc, char **argv)
{
	return process_fixture_main(argc, argv, tests);
}
