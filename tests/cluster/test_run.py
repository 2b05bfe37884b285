"""A program started with ssi-run is as one started without."""
import json
import os
import subprocess
import time

import lab
from lab import PROGRAMS, until

MEGABYTES = 6


class Run(lab.Tests):
    def run_in(self, *command, node="n1", **more):
        return self.lab.run(node, *command, **more)

    def test_the_exit_status_is_the_programs_own(self):
        for where in [[], ["--node", "n2"]]:
            for status in [0, 1, 42, 126, 127, 128, 255]:
                r = self.run_in("ssi-run", *where, "sh", "-c", f"exit {status}")
                self.assertEqual((r.status, r.err), (status, b""), where)

    def test_a_signal_that_ends_it_shows_as_128_more(self):
        for where in [[], ["--node", "n3"]]:
            for number in [1, 6, 9, 11, 15]:
                r = self.run_in("ssi-run", *where, "sh", "-c", f"ulimit -c 0; kill -{number} $$")
                self.assertEqual(r.status, 128 + number, where)

    def test_what_cannot_be_written_is_told(self):
        for where in [[], ["--node", "n2"]]:
            r = self.run_in("sh", "-c", 'ssi-run "$@" >/dev/full', "sh", *where, "echo", "lost")
            self.assert_result(r, 1, "standard output: No space left on device")
            r = self.run_in("sh", "-c", 'ssi-run "$@" >/dev/full', "sh", *where, "sh", "-c",
                            "echo lost; exit 5")
            self.assert_result(r, 5, "standard output: No space left on device")
        # Nothing is started whose id could not be told.
        for file, status in [("/no/such/file", 1), ("/etc/file", 3)]:
            self.assert_result(self.run_in("ssi-run", "-b", "-o", file, "sleep", "1234"), status, file)
        self.assertNotIn("sleep 1234", {p["command"] for p in self.lab.processes().values()})

    def test_what_is_not_found_is_127_and_what_cannot_be_run_126(self):
        self.run_in("sh", "-c", "touch /shared/work/data && chmod 644 /shared/work/data")
        for where in [[], ["--node", "n2"]]:
            self.assertEqual(self.run_in("ssi-run", *where, "no-such-program").status, 127)
            self.assertEqual(self.run_in("ssi-run", *where, "/no/such/program").status, 127)
            self.assertEqual(self.run_in("ssi-run", *where, "/shared/work/data").status, 126)
            self.assertEqual(self.run_in("ssi-run", *where, "/shared/work").status, 126)
            # In the background as well, and with the same line.
            for program, status in [("no-such-program", 127), ("/no/such/program", 127),
                                    ("/shared/work/data", 126), ("/shared/work", 126)]:
                r = self.run_in("ssi-run", "-b", *where, program)
                self.assertEqual((r.status, r.out), (status, b""), where)
                self.assertEqual(r.err, self.run_in("ssi-run", *where, program).err)

    def test_megabytes_pass_both_ways_unchanged(self):
        data = os.urandom(MEGABYTES << 20)
        for where in [[], ["--node", "n2"]]:
            r = self.run_in("ssi-run", *where, "cat", input=data)
            self.assertEqual((r.status, r.err), (0, b""), where)
            self.assertTrue(r.out == data, f"{len(r.out)} bytes came back of {len(data)} {where}")

    def test_standard_error_is_a_stream_of_its_own(self):
        for where in [[], ["--node", "n2"]]:
            r = self.run_in("ssi-run", *where, "sh", "-c",
                            "head -c 1000000 /dev/zero; head -c 700001 /dev/zero | tr '\\0' e >&2")
            self.assertEqual(r.status, 0)
            self.assertTrue(r.out == bytes(1000000), len(r.out))
            self.assertTrue(r.err == b"e" * 700001, len(r.err))

    def test_end_of_file_passes_both_ways(self):
        for where in [[], ["--node", "n3"]]:
            # Input ends: the program sees it, and still may write.
            running = self.start("n1", "ssi-run", *where, "sh", "-c",
                                 "cat; echo end; read never; echo $?")
            running.write("line\n")
            running.expect("^line$")
            running.close_input()
            r = running.result(10)
            self.assertEqual((r.status, r.out), (0, b"line\nend\n1\n"), where)
            # Output ends while the program goes on.
            process = subprocess.Popen(
                self.lab.exec_arguments("n1", ["ssi-run", *where, "sh", "-c",
                                               "echo out; exec >&- 2>&-; read x; exit 5"],
                                        "ssi", "/"),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            self.assertEqual(process.stdout.readline(), b"out\n")
            process.stdin.write(b"go\n")
            process.stdin.close()
            self.assertEqual(process.stdout.read(), b"")
            self.assertEqual(process.wait(10), 5)
            process.stdout.close()

    def test_after_a_program_elsewhere_nothing_of_it_is_left_open(self):
        def count():
            text = self.run_in("sh", "-c", "ls /proc/$(cat /run/ssi/ssid.pid)/fd | wc -l",
                               node="n2", user="root").text
            return int(text)

        self.assertEqual(self.run_in("ssi-run", "--node", "n2", "true").status, 0)
        time.sleep(1)
        before = count()
        for _ in range(5):
            self.assertEqual(self.run_in("ssi-run", "--node", "n2", "true").status, 0)
        until(lambda: count() <= before, 5, lambda: f"{before} open before, {count()} after")

    def test_a_program_sees_its_reader_leave(self):
        for where in [[], ["--node", "n2"]]:
            r = self.run_in("bash", "-c", f"ssi-run {' '.join(where)} yes | head -n 3; "
                            "echo ${PIPESTATUS[0]} >&2", timeout=20)
            self.assertEqual((r.out, r.err), (b"y\ny\ny\n", b"141\n"), where)

    def test_a_program_that_does_not_read_does_not_hang_the_tool(self):
        for where in [[], ["--node", "n2"]]:
            r = self.run_in("ssi-run", *where, "sh", "-c", "exec <&-; sleep 0.3; exit 6",
                            input=bytes(1 << 20), timeout=20)
            self.assertEqual(r.status, 6)

    def test_ssid_keeps_no_end_of_a_programs_pipes(self):
        def n_open():
            return int(self.run_in("sh", "-c", "ls /proc/$(cat /run/ssi/ssid.pid)/fd | wc -l",
                                   node="n2", user="root").text)

        before = n_open()
        for _ in range(4):
            r = self.run_in("sh", "-c", "ssi-run --node n2 true </dev/zero")
            self.assertEqual(r.status, 0)
        until(lambda: n_open() <= before + 1, 10, lambda: f"{before} were open, now {n_open()}")

    def test_in_the_background_it_prints_the_id_and_leaves(self):
        for where, node in [([], "n1"), (["--node", "n2"], "n2")]:
            r = self.run_in("ssi-run", "-b", "-o", "/shared/work/id", *where, "sh", "-c",
                            "for fd in 0 1 2; do readlink /proc/$$/fd/$fd; done "
                            "2>&1 | cat >/shared/work/fds.$$; exec sleep 30")
            self.assertEqual(r.status, 0, r)
            pid = int(r.text)
            self.assertEqual(r.text, f"{pid}\n")
            self.assertEqual(self.run_in("cat", "/shared/work/id").text, f"{pid}\n")
            self.assertEqual(self.lab.where(pid), node)
            fds = until(lambda p=pid: self.run_in("cat", f"/shared/work/fds.{p}").out)
            self.assertEqual(fds, b"/dev/null\n" * 3)
            self.assertEqual(self.run_in("ssi-run", "--node", node, "kill", str(pid)).status, 0)
            until(lambda p=pid: p not in self.lab.processes())

    def test_best_chooses_a_node_that_is_up(self):
        r = self.run_in("ssi-run", "--best", "uname", "-n")
        self.assertEqual(r.status, 0)
        self.assertIn(r.text, ["n1\n", "n2\n", "n3\n"])
        r = self.run_in("ssi-run", "--best", "--nodes", "n2,n3", "uname", "-n")
        self.assertIn(r.text, ["n2\n", "n3\n"])
        r = self.run_in("ssi-run", "--nodes", "n3,n1", "uname", "-n")
        self.assertEqual(r.text, "n3\n")

    def test_the_environment_is_the_callers(self):
        for where in [[], ["--node", "n2"]]:
            r = self.run_in("env", "-i", "A=1", "EMPTY=", "TEXT=two\nlines =", "/usr/local/bin/ssi-run",
                            *where, "/usr/bin/env", "-0")
            self.assertEqual(sorted(r.out.split(b"\0")),
                             [b"", b"A=1", b"EMPTY=", b"TEXT=two\nlines ="], where)

    def test_arguments_arrive_as_they_are(self):
        arguments = ["", " ", "a\nb", "-b", "--node", "ä", "x" * 100000]
        for where in [[], ["--node", "n2"]]:
            r = self.run_in("ssi-run", *where, "printf", "%s\\0", *arguments)
            self.assertEqual(r.text.split("\0")[:-1], arguments, where)

    def test_directory_umask_niceness_and_limits_are_the_callers(self):
        script = ("umask 027; ulimit -n 77; ulimit -c 0; ulimit -s 4096; cd /shared/work; "
                  "exec nice -n 5 ssi-run {} sh -c 'pwd; umask; nice; ulimit -n; ulimit -Hn; "
                  "ulimit -c; ulimit -s'")
        for where in ["", "--node n2"]:
            r = self.run_in("sh", "-c", script.format(where))
            self.assertEqual(r.text.split(),
                             ["/shared/work", "0027", "5", "77", "77", "0", "4096"], where)

    def test_an_ordinary_user_keeps_identity_and_groups(self):
        for where in [[], ["--node", "n3"]]:
            r = self.run_in("ssi-run", *where, "sh", "-c",
                            "grep -E '^(Uid|Gid|Groups|CapEff|CapPrm|CapInh):' /proc/self/status")
            fields = dict(line.split(":\t") for line in r.text.splitlines())
            uid = str(self.lab.uid)
            self.assertEqual(fields["Uid"].split(), [uid] * 4, where)
            self.assertEqual(fields["Gid"].split(), [uid] * 4, where)
            self.assertEqual(fields["Groups"].split(), [uid, str(lab.GROUP)], where)
            for name in ["CapEff", "CapPrm", "CapInh"]:
                self.assertEqual(int(fields[name], 16), 0, where)

    def test_no_signal_is_blocked_or_ignored_and_no_descriptor_is_left_open(self):
        for where in [[], ["--node", "n2"]]:
            # Of the program itself: a shell blocks signals while it starts another.
            r = self.run_in("ssi-run", *where, "grep", "-E", "^Sig(Blk|Ign):", "/proc/self/status")
            self.assertEqual(r.text.split(), ["SigBlk:", "0" * 16, "SigIgn:", "0" * 16], where)
            r = self.run_in("ssi-run", *where, "sh", "-c", "ls /proc/$$/fd; true")
            self.assertEqual(r.text.split(), ["0", "1", "2"], where)

    def test_signals_to_the_tool_reach_the_program(self):
        for where in [[], ["--node", "n2"]]:
            for name in ["TERM", "INT", "HUP", "USR1"]:
                running = self.start("n1", "ssi-run", *where, "sh", "-c",
                                     f"trap 'echo got; exit 9' {name}; echo ready; "
                                     "while :; do sleep 0.05; done")
                running.expect("^ready$")
                self.assertEqual(running.signal(name).status, 0)
                r = running.result(10)
                self.assertEqual((r.status, r.out), (9, b"ready\ngot\n"), (where, name))

    def test_every_node_shows_it_under_its_pid(self):
        running = self.start("n1", "ssi-run", "-o", "@ID@", "--node", "n2", "--app", "named",
                             "sh", "-c", "echo $$; sleep 77 & echo $!; wait")
        match = running.expect(r"^(\d+)\n(\d+)$")
        pid, child = int(match[1]), int(match[2])
        self.assertEqual(running.app(), pid)
        for node in self.lab.nodes:
            ps = self.lab.processes(node)
            self.assertEqual((ps[pid]["node"], ps[pid]["home"], ps[pid]["user"], int(ps[pid]["app"])),
                             ("n2", "n2", "ssi", pid))
            self.assertEqual((int(ps[child]["ppid"]), int(ps[child]["app"]), ps[child]["node"],
                              ps[child]["command"]), (pid, pid, "n2", "sleep 77"))
            # The table, and one PID.
            r = self.run_in("ssi-ps", str(child), node=node)
            self.assertEqual(r.status, 0)
            self.assertRegex(r.text, rf"(?m)^ *{child} +{pid} +{pid} +n2 +n2 +ssi .*sleep 77$")
        self.assert_result(self.run_in("ssi-ps", "4000000"), 4, "4000000")
        self.assert_result(self.run_in("ssi-ps", "4000000", "4000001"), 4, "none")
        self.assertEqual(self.run_in("ssi-run", "--node", "n2", "kill", str(child)).status, 0)
        self.assertEqual(running.result(10).status, 0)
        until(lambda: not {pid, child} & set(self.lab.processes("n3")))

    def test_an_application_is_found_by_its_name_wherever_it_is(self):
        running = self.start("n1", "ssi-run", "-o", "@ID@", "--node", "n2", "--app", "model.2",
                             "sh", "-c", "sleep 600 & wait")
        pid = running.app()
        child = until(lambda: [p for p, row in self.lab.processes().items() if int(row["ppid"]) == pid])[0]

        def check(node):
            for tool in self.lab.nodes:
                ps = self.lab.processes(tool)
                self.assertEqual([(ps[p]["name"], ps[p]["node"]) for p in [pid, child]],
                                 [("model.2", node)] * 2)
                r = self.run_in("ssi-ps", "--app", "model.2", "--json", node=tool)
                self.assertEqual({p["pid"] for p in json.loads(r.text)["processes"]}, {pid, child})

        check("n2")
        for node in ["n3", "n1", "n2"]:
            r = self.run_in("ssi-migrate", "model.2", node, node="n3")
            self.assertEqual(r.status, 0, r)
            check(node)
        self.assert_result(self.run_in("ssi-ps", "--app", "model"), 4, "no such application")
        self.assert_result(self.run_in("ssi-migrate", "model", "n1"), 4, "no application is called model: ")
        # Names may be given twice; then they are none.
        second = self.start("n1", "ssi-run", "-o", "@ID@", "--app", "model.2", "sleep", "600")
        other = second.app()
        self.assert_result(self.run_in("ssi-checkpoint", "model.2"), 6, f"{pid}|{other}")
        self.run_in("ssi-run", "kill", str(other))
        second.result(20)
        # It is in what is saved.
        r = self.run_in("ssi-checkpoint", "--kill", "model.2", node="n1")
        self.assertEqual(r.status, 0, r)
        running.result(20)
        until(lambda: pid not in self.lab.processes())
        r = self.run_in("ssi-restart", "-b", "--on", "n3", str(pid))
        self.assertEqual(r.status, 0, r)
        check("n3")
        for name in ["7up", "-x", "two words", "x" * 32]:
            self.assert_result(self.run_in("ssi-run", "--app", name, "true"), 2, "an application's name is")

    def test_pids_of_different_nodes_never_overlap(self):
        seen = {}
        forks = "i=0; while [ $i -lt 300 ]; do sh -c 'echo $$'; i=$((i+1)); done"
        for node in self.lab.nodes:
            text = self.run_in("ssi-run", "--node", node, "sh", "-c", forks).text
            seen[node] = {int(word) for word in text.split()}
            self.assertEqual(len(seen[node]), 300, node)
            # A block of its own.
            self.assertLess(max(seen[node]) - min(seen[node]), 65536)
            self.assertGreater(min(seen[node]), 300)
        ranges = sorted((min(s), max(s)) for s in seen.values())
        for before, after in zip(ranges, ranges[1:]):
            self.assertLess(before[1], after[0])

    def test_a_kill_of_the_tool_leaves_the_program_running(self):
        running = self.start("n1", "ssi-run", "-o", "@ID@", "--node", "n2", f"{PROGRAMS}/beat",
                             "/shared/work/beat.run")
        pid = running.app()
        running.signal("KILL")
        running.result(10)
        size = self.run_in("stat", "-c", "%s", "/shared/work/beat.run").text
        until(lambda: self.run_in("stat", "-c", "%s", "/shared/work/beat.run").text != size)
        self.assertEqual(self.lab.where(pid, "n3"), "n2")
        self.assertEqual(self.run_in("ssi-run", "--node", "n2", "kill", "-9", str(pid)).status, 0)
        until(lambda: pid not in self.lab.processes())

    def test_many_at_once(self):
        script = ("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do (x=$(echo in$i | ssi-run --nodes "
                  "$(echo n$((i%3+1))) sh -c \"cat; exit $i\"); echo \"$x $?\") & done; wait")
        r = self.run_in("sh", "-c", script, timeout=40)
        self.assertEqual(sorted(r.text.splitlines()), sorted(f"in{i} {i}" for i in range(1, 13)))

    def test_unknown_nodes_are_4_and_wrong_usage_is_2(self):
        self.assert_result(self.run_in("ssi-run", "--node", "n9", "true"), 4, "no node.*n9")
        self.assert_result(self.run_in("ssi-run", "--nodes", "n1,n9", "true"), 4, "no node.*n9")
        for arguments in [[], ["--what"], ["--node"]]:
            self.assertEqual(self.run_in("ssi-run", *arguments).status, 2)

    def test_without_ssid_the_tools_say_so_with_8(self):
        for command in [["ssi-run", "true"], ["ssi-ps"], ["ssi-migrate", "2", "n1"],
                        ["ssi-checkpoint", "2"], ["ssi-restart", "x"]]:
            r = self.run_in(command[0], "--socket", "/tmp/absent", *command[1:])
            self.assert_result(r, 8, f"{command[0]}: no ssid answers at /tmp/absent.*")

    def test_zz_a_node_that_is_down_is_8_and_comes_back(self):
        self.lab.command("kill", "n3")
        until(lambda: '"lost"' in self.run_in("ssi-nodes", "--json").text, 15,
              lambda: self.run_in("ssi-nodes", "--json").text)
        began = time.monotonic()
        self.assert_result(self.run_in("ssi-run", "--node", "n3", "true"), 8, "ssi-nodes")
        self.assertLess(time.monotonic() - began, 3)
        self.assertEqual(self.run_in("ssi-run", "--nodes", "n3,n2", "uname", "-n").text, "n2\n")
        self.assertIn(self.run_in("ssi-run", "--best", "uname", "-n").text, ["n1\n", "n2\n"])
        self.lab.command("start", "n3")
        self.lab.settle()
        self.assertEqual(self.run_in("ssi-run", "--node", "n3", "uname", "-n").text, "n3\n")


lab.main()
